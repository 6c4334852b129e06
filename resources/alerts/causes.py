"""Prefixes of all alert causes other than checks.

Belongs here: only this list; ``tests/test_closing.py`` requires a test for each. The cause of a check is
``<asset>/<check>`` (``sensors/alerts.py``). Does not belong here: raising alerts, runbooks (``runbooks.py``).
"""

from __future__ import annotations

from typing import Final

RUN: Final = "run/"
"""Followed by an asset that a failed run did not materialise, or by the job name if the run has no assets."""
PIPELINE: Final = "pipeline/"
"""Followed by the stage of a pipeline that failed; of no model, but of the project."""
SOURCE: Final = "source/down"
"""The source of a stream has been unavailable for longer than declared (``sensors/arrivals.py``)."""
DAEMON: Final = "watchdog/daemon/"
LOCATION: Final = "watchdog/location"
SENSOR: Final = "watchdog/sensor/"
SCHEDULE: Final = "watchdog/schedule/"
WEBSERVER: Final = "watchdog/webserver"
PROCESS: Final = "watchdog/process/"
STALE: Final = "freshness/"
DEGRADED: Final = "service/degraded"
DOWN: Final = "service/down"

WATCHED: Final = (DAEMON, LOCATION, SENSOR, SCHEDULE, WEBSERVER, STALE, DEGRADED, DOWN)
"""Causes that the watchdog detects."""
CAUSES: Final = (RUN, PIPELINE, SOURCE, PROCESS, *WATCHED)
"""All causes."""
