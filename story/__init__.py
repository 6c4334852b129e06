"""What `make run` plays: the whole life of an example, on the real jobs and sensors.

Belongs here: one module per example, named after its model folder. It lies above ``runner.py``: it plays what a daemon
would do. Does not belong here: the example itself (``assets/models``). A fork removes the module with the example.
"""
