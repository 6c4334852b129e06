"""The jobs of a model, for schedules, sensors, commands and the UI. Each kind of work has one name.

Belongs here: which assets run together. Does not belong here: when they run (``sensors/``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.monitoring.estimate import is_estimated
from assets.lifecycle.monitoring.forecasts import has_forecasts
from resources.dagster_internals import narrow_job
from resources.git import BRANCH_OF_RUN, branch_of
from resources.settings import project_root

LAND, CLEAN, LABEL, FEATURES = "land", "clean", "label", "features"
DAILY, MATURE, REQUESTS = "daily", "mature", "requests"
KNOWLEDGE, TOPICS = "knowledge", "topics"
TRAIN, DEPLOY, BACKTEST, TUNE, LIFECYCLE = "train", "deploy", "backtest", "tune", "lifecycle"


OF_TABLE = (LAND, CLEAN)
"""Kinds of work on the table alone. On a shared table, these are jobs of the model that lands it."""


def job_name(model: Model, work: str) -> str:
    """Returns the name of one of a model's jobs, e.g. ``fraud_train``."""
    return f"{model.lander if work in OF_TABLE else model.name}_{work}"


def assets_of_jobs(model: Model) -> dict[str, list[str]]:
    """Returns the names of the assets that each kind of work materializes, by kind of work."""
    table = model.table.name
    cleaned = [] if model.table.of else [table, "quarantine"]
    waits = [*(["approval"] if model.approval else []), *(["rollout"] if model.rollout else [])]
    release = ["staged", *waits, "deployment", "model_card"]
    answers = ["knowledge", "answering"] if model.answers else []
    knowledge = {KNOWLEDGE: ["knowledge"]} if model.answers else {}
    if not model.is_stream:
        return {
            LIFECYCLE: [
                *([] if model.table.of else [f"raw_{table}"]), *cleaned, "labels", "features", "training_set",
                "trained_model", "evaluation", *answers, *release, "predictions", "drift",
            ],
            TRAIN: ["training_set", "trained_model", "evaluation", *answers],
            **knowledge,
            DEPLOY: release,
            BACKTEST: ["backtest"],
            TUNE: ["tuning"],
            REQUESTS: ["requests"],
        }  # fmt: skip
    unknown = ["unknown_intents"] if model.answers and model.answers.unknown else []
    estimated = ["estimated_performance"] if is_estimated(model) else []
    of_table, of_requests = ([], ["drift"]) if model.drift.source == "requests" else (["drift"], [])
    # The features of a forecast are made of earlier values of the target, those of the same day included.
    ahead = ["labels", *(["forecasts"] if has_forecasts(model) else [])] if model.forecast else []
    rare = {} if model.ranking else {BACKTEST: ["backtest"], TUNE: ["tuning"]}
    return {
        LAND: [f"raw_{table}", *(["raw_labels"] if model.label_delay_days else [])],
        CLEAN: [table, "quarantine"],
        LABEL: ["labels"],
        FEATURES: ["features"],
        DAILY: [*cleaned, *ahead[:1], "features", "predictions", *ahead[1:], *estimated, *of_table, *unknown],
        MATURE: ["labels", "performance"],
        TRAIN: ["training_set", "trained_model", "evaluation", *answers],
        **knowledge,
        DEPLOY: release,
        **rare,
        REQUESTS: ["requests", *of_requests, *(["off_policy"] if model.ranking and model.ranking.exploration else [])],
        **({TOPICS: ["topics_by_day"]} if model.surge else {}),
    }


_WHAT = {
    LAND: "Lands the rows and labels of each day.",
    CLEAN: "Cleans the table and quarantines refused rows.",
    LABEL: "Makes the labels that are due.",
    FEATURES: "Computes point-in-time features.",
    DAILY: "Processes one day, from landed rows to predictions and their drift check.",
    MATURE: "Makes the labels that are due, and evaluates the predictions of that day.",
    REQUESTS: "Reads a day of requests from the scoring service's log.",
    TOPICS: "Counts the predictions of a day by topic, once both models have scored it, and looks for surges.",
    TRAIN: "Trains a candidate: frozen rows, fit, report, gate.",
    DEPLOY: "Tests the candidate in a temporary process, then promotes it and writes its card.",
    BACKTEST: "Refits the recipe on rolling weeks.",
    KNOWLEDGE: "Reads the documents of the knowledge base again.",
    TUNE: "Searches a better recipe on the rows of the latest training set.",
    LIFECYCLE: "Runs everything, from the table to predictions.",
}

KINDS_OF_WORK = tuple(_WHAT)
"""All kinds of work; a job is named ``<model>_<kind>``."""


def model_jobs(model: Model) -> Sequence[dg.UnresolvedAssetJobDefinition]:
    """Returns all jobs of one model; their runs carry the branch of the code as a tag."""
    branch = _branch()
    return [
        narrow_job(
            job_name(model, work),
            [model.key(name) for name in names],
            description=f"{model.name}: {_WHAT[work]}",
            tags={BRANCH_OF_RUN: branch} if branch else None,
        )
        for work, names in assets_of_jobs(model).items()
        if not (model.table.of and work in OF_TABLE)
    ]


@functools.cache
def _branch() -> str:
    """The branch of the code; git is asked once, whatever the number of models."""
    return branch_of(project_root())
