"""What alerts may be about, beside checks: the beginnings of those causes.

Belongs here: that list alone; ``tests/test_closing.py`` asks for a test of each. A check's cause is ``<asset>/<check>``
(``sensors/alerts.py``). Does not belong here: who raises an alert, and the page about it (``runbooks.py``).
"""

from __future__ import annotations

from typing import Final

RUN: Final = "run/"
"""An asset that a failed run did not make, or the job of a run that makes none, follows."""
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
"""What the watchdog sees."""
CAUSES: Final = (RUN, PROCESS, *WATCHED)
"""All of them."""
