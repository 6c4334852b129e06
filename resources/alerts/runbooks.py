"""Which page of ``docs/runbooks`` is about which cause.

Belongs here: that map alone; ``tests/docs/test_runbooks.py`` holds it against the folder.
"""

from __future__ import annotations

from typing import Final

RUNBOOKS: Final = {
    "drift/drift": "drift",
    "drift/quality": "quality",
    "performance/": "performance",
    "estimated_performance/": "performance",
    "evaluation/": "gate",
    "training_set/": "training",
    "trained_model/": "training",
    "staged/": "deployment",
    "deployment/": "deployment",
    "predictions/": "predictions",
    "run/": "run",
    "freshness/": "freshness",
    "service/": "service",
    "watchdog/": "watchdog",
    "": "data",  # landing, cleaning, features
}
"""Page by the beginning of the cause; the first that fits."""


def runbook_of(cause: str) -> str:
    """Path of the page about a cause, from the root of the project."""
    return f"docs/runbooks/{next(page for begin, page in RUNBOOKS.items() if cause.startswith(begin))}.md"
