"""The stories that `make run` plays: the whole lifecycle of an example, on the real jobs and sensors.

Belongs here: one module per example, named after its model folder. A story uses ``runner.py`` to do the work of a
daemon. Does not belong here: the example itself (``assets/models``). A fork removes the module with the example.
"""
