"""A model version: its contents, its verdicts, and the version in production.

Belongs here: the folder that MLflow stores (``bundle.py``), features by a version's own code, verdicts as tags, the
champion. Does not belong here: how a version is fitted or judged (the modules of ``model``).
"""
