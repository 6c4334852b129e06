"""The watch: the alerts' page, delivery to the channels, the watchdog, and metrics for Prometheus, in one process.

Belongs here: what has to run beside Dagster, because it watches Dagster, too. Does not belong here: what deserves an
alert inside of a run (``sensors``).
"""
