"""Retention: removes old runs, events, alerts, deliveries, versions and table days that nothing refers to.

Belongs here: the periods, the plan of what goes, and carrying it out. One module per kind of state says what goes and
what stays. Does not belong here: backups (``backup.py``), the ticks of schedules and sensors, which Dagster removes by
itself (``deploy/dagster.yaml``).

The ledger is never shortened. What it names is never removed: versions that were promoted or refused with their MLflow
runs and files, the runs of Dagster that trained and promoted them, and every file that a kept table was made from.
"""

from __future__ import annotations

from resources.retention.periods import Retention
from resources.retention.plan import Removal, RetentionError, plan, prune

__all__ = ["Removal", "Retention", "RetentionError", "plan", "prune"]
