"""Monitoring of the version in production: daily predictions, performance, drift.

Belongs here: the assets of the group `<model>/monitoring` and the rules behind their checks. Does not belong here:
notification (``sensors``, ``resources/alerts``).
"""
