"""The jobs of a model, for schedules, sensors, commands and the UI. Each kind of work has one name.

Belongs here: which assets run together. Does not belong here: when they run (``sensors/``).
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.monitoring.estimate import is_estimated

LAND, CLEAN, LABEL, FEATURES = "land", "clean", "label", "features"
DAILY, MATURE = "daily", "mature"
TRAIN, DEPLOY, BACKTEST, LIFECYCLE = "train", "deploy", "backtest", "lifecycle"


def job_name(model: Model, work: str) -> str:
    """Returns the name of one of a model's jobs, e.g. ``fraud_train``."""
    return f"{model.name}_{work}"


def assets_of_jobs(model: Model) -> dict[str, list[str]]:
    """Returns the names of the assets that each kind of work materializes, by kind of work."""
    table = model.table.name
    if not model.is_stream:
        return {
            LIFECYCLE: [
                f"raw_{table}", table, "quarantine", "labels", "features", "training_set", "trained_model",
                "evaluation", "staged", "deployment", "predictions", "drift",
            ],
            TRAIN: ["training_set", "trained_model", "evaluation"],
            DEPLOY: ["staged", "deployment"],
            BACKTEST: ["backtest"],
        }  # fmt: skip
    estimated = ["estimated_performance"] if is_estimated(model) else []
    return {
        LAND: [f"raw_{table}", *(["raw_labels"] if model.label_delay_days else [])],
        CLEAN: [table, "quarantine"],
        LABEL: ["labels"],
        FEATURES: ["features"],
        DAILY: [table, "quarantine", "features", "predictions", *estimated, "drift"],
        MATURE: ["labels", "performance"],
        TRAIN: ["training_set", "trained_model", "evaluation"],
        DEPLOY: ["staged", "deployment"],
        BACKTEST: ["backtest"],
    }


_WHAT = {
    LAND: "Rows and labels of the days that landed.",
    CLEAN: "The cleaned table and its quarantine.",
    LABEL: "Labels that have come due.",
    FEATURES: "Point-in-time features.",
    DAILY: "One day, from landed rows to predictions and their drift check.",
    MATURE: "Labels that have come due, and how the predictions of that day did.",
    TRAIN: "A candidate: frozen rows, fit, report, gate.",
    DEPLOY: "The candidate in a throw-away process, then promotion.",
    BACKTEST: "The recipe refitted on rolling weeks.",
    LIFECYCLE: "Everything, from the table to predictions.",
}


def model_jobs(model: Model) -> Sequence[dg.UnresolvedAssetJobDefinition]:
    """Returns all jobs of one model."""
    return [
        dg.define_asset_job(
            job_name(model, work),
            selection=dg.AssetSelection.assets(*[model.key(name) for name in names]),
            description=f"{model.name}: {_WHAT[work]}",
        )
        for work, names in assets_of_jobs(model).items()
    ]
