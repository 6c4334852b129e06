"""Maps causes of alerts to pages in ``docs/runbooks``.

Belongs here: only this map; ``tests/docs/test_runbooks.py`` compares it with the folder.
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
    "tuning/": "training",
    "trained_model/": "training",
    "staged/": "deployment",
    "deployment/": "deployment",
    "approval/": "approval",
    "rollout/": "rollout",
    "model_card/": "deployment",
    "topics_by_day/": "surge",
    "predictions/": "predictions",
    "unknown_intents/": "unknown-intents",
    "knowledge/": "answers",
    "answering/": "answers",
    "run/": "run",
    "pipeline/": "pipeline",
    "source/": "source",
    "freshness/": "freshness",
    "service/": "service",
    "watchdog/": "watchdog",
    "": "data",  # landing, cleaning, features
}
"""Page by prefix of the cause; the first match applies."""


def runbook_of(cause: str) -> str:
    """Path of the runbook page for a cause, relative to the project root."""
    return f"docs/runbooks/{next(page for begin, page in RUNBOOKS.items() if cause.startswith(begin))}.md"
