"""On-demand backtest: refits the recipe on rolling windows, as evidence about the recipe rather than one version.

Belongs here: repeating the training and the report. Does not belong here: the training and the report themselves
(``training.py``, ``evaluation.py``). A backtest registers no version and does not run the gate.
"""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from assets.declaration import Model, for_workers
from assets.lifecycle.data.landing import source_resource_key
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.drawing import represented_by
from assets.lifecycle.model.evaluation import baseline_scores, ceiling_scores, known_entities
from assets.lifecycle.model.metrics import evaluate
from assets.lifecycle.model.recipe import recipe_in_use
from assets.lifecycle.model.training_set import fit_rows, freeze, matrix, test_rows
from assets.lifecycle.stage import TRAINING_POOL, StageOutput, TableInput, table_asset
from resources.compute import Tell
from resources.tables import ParquetTables


class BacktestConfig(dg.Config):
    """Run configuration of a backtest."""

    weeks: int = Field(default=4, ge=1, le=52, description="Number of test windows, or of seeds without `time`.")
    as_of: str = Field(default="", description="Last day of the latest test window. Empty: the latest labelled day.")


def backtest_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``backtest``."""

    def backtest(context: dg.AssetExecutionContext, tuning: pd.DataFrame) -> StageOutput:
        recipe = recipe_in_use(model, tuning)
        context.log.info(f"recipe: {recipe.reason}")
        config = BacktestConfig(**context.op_execution_context.op_config)
        tables = context.resources.tables
        source = getattr(context.resources, source_resource_key(model), None) if model.evaluation.ceiling else None
        to_do = _rounds(tables, recipe.model, config.weeks, config.as_of)
        with context.resources.compute.open(model.compute, context.log.info) as pool:
            rounds = pool.map(
                _round,
                (_frozen(tables, source, *one, elsewhere=pool.elsewhere) for one in to_do),
                hear=functools.partial(_hear, context.log.info),
            )
        frame = pd.concat(rounds, ignore_index=True)
        mean = frame.drop(columns=["round", "rows"]).groupby("score", sort=False).mean()
        text = mean.round(4).reset_index().astype(str)
        lines = ["| " + " | ".join(row) + " |" for row in [list(text.columns), ["---"] * len(text.columns)]]
        lines += ["| " + " | ".join(row) + " |" for row in text.to_numpy()]
        return StageOutput(frame, [], {
            "mean": dg.MetadataValue.md("\n".join(lines)), "rounds": len(rounds), "recipe": recipe.reason,
        })  # fmt: skip

    with_ceiling = model.evaluation.ceiling is not None
    return table_asset(
        model,
        "backtest",
        backtest,
        description="The recipe refitted on rolling weeks, compared with the baselines and the ceiling on the same "
        "rows; on request only.",
        stage="model",
        kinds={"torch", "xgboost"},
        config=BacktestConfig,
        op_tags=model.training.tags,
        pool=TRAINING_POOL,
        inputs={"tuning": TableInput(model.key("tuning"), optional=True)},
        deps=[model.key("features"), model.key("labels"), model.key(model.table.name)],
        resources={"compute", *([source_resource_key(model)] if with_ceiling else [])},
        by_day=False,
    )


def _rounds(tables: ParquetTables, model: Model, weeks: int, as_of: str) -> list[tuple[Model, dt.date | None, str]]:
    """Declaration, last labelled day and name of each round, earliest first."""
    if not model.is_stream:
        seeds = range(model.training.seed, model.training.seed + weeks)
        return [(replace(model, training=replace(model.training, seed=seed)), None, f"seed {seed}") for seed in seeds]
    last = dt.date.fromisoformat(as_of or tables.days(model.key("labels"))[-1])
    ends = [last - dt.timedelta(days=n * model.training.test_days) for n in reversed(range(weeks))]
    return [(model, end, f"to {end}") for end in ends]


@dataclass(frozen=True)
class _Round:
    """The rows of one round. ``ceiling``: the best possible scores of the test rows, where they can be computed."""

    name: str
    model: Model
    frozen: pd.DataFrame
    ceiling: np.ndarray | None


def _frozen(
    tables: ParquetTables, source: Any, model: Model, as_of: dt.date | None, name: str, *, elsewhere: bool
) -> _Round:
    """Reads all that a round needs, so that a worker needs neither tables nor the source."""
    frozen = freeze(tables, model, as_of)
    rows = frozen[test_rows(frozen, model)].reset_index(drop=True)
    ceiling = ceiling_scores(tables, source, model, rows) if source is not None else None
    return _Round(name, for_workers(model) if elsewhere else model, frozen, ceiling)


def _hear(log: Any, _: int, line: str) -> None:
    log(line)


def _round(_: None, given: _Round, log: Tell) -> pd.DataFrame:
    """Refits once and evaluates on the test rows; returns one row per score."""
    model, frozen, name = given.model, given.frozen, given.name
    candidate = fit_candidate(frozen, model, log)
    fit, test = fit_rows(frozen, model), test_rows(frozen, model)
    rows = frozen[test].reset_index(drop=True)
    X_test = matrix(rows, model)
    y = frozen.loc[fit, model.target].to_numpy(dtype=float)
    scores = {"torch": candidate.predict(X_test)}
    represented = represented_by(frozen[fit])
    scores |= baseline_scores(matrix(frozen[fit], model), y, X_test, model, candidate.trees, represented)
    if given.ceiling is not None:
        scores["ceiling"] = given.ceiling
    found = evaluate(
        rows,
        scores,
        replace(model.evaluation, slices=None),
        target=model.target,
        task=model.task,
        time=model.table.time,
        review_cost=model.review_cost,
        known=known_entities(frozen, test, model),
        resamples=20,
        seed=model.training.seed,
    )
    metric = model.gate.metric
    log(f"{name}: {metric} " + ", ".join(f"{score} {found.numbers(score)[metric]:.4f}" for score in scores))
    return pd.DataFrame(
        [{"round": name, "score": score, "rows": found.rows, **found.numbers(score)} for score in scores]
    )
