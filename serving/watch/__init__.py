"""The watch: the alerts' page, delivery to the channels, the watchdog, and metrics for Prometheus, in one process.

Belongs here: code that must run outside Dagster, because it also monitors Dagster. Does not belong here: alerts about
the results of a run (``sensors``).
"""
