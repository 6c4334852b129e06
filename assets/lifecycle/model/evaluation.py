"""Fifth stage: evaluates the candidate on test rows, which were not used for selection, and runs the gate.

Belongs here: the choice of scores and rows, and the storage of the report. Does not belong here: the metrics
(``metrics``), the rules (``gate.py``), the plots (``report.py``).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.data.forecasting import LAST, naive_names
from assets.lifecycle.data.landing import source_resource_key
from assets.lifecycle.model import baselines, report
from assets.lifecycle.model.conformal import Coverage
from assets.lifecycle.model.details import details_of
from assets.lifecycle.model.drawing import odds_of, represented_by, with_odds
from assets.lifecycle.model.fairness import GroupGap
from assets.lifecycle.model.gate import Evidence, Verdict, judge
from assets.lifecycle.model.latency import Latency, latency_of
from assets.lifecycle.model.learners.trees import Trees
from assets.lifecycle.model.metrics import Report, evaluate, known_positive
from assets.lifecycle.model.metrics.evaluate import CHAMPION
from assets.lifecycle.model.training_set import fit_rows, matrix, test_rows
from assets.lifecycle.model.version.bundle import TREES_FILE, Bundle, loaded
from assets.lifecycle.model.version.champion import champion_of
from assets.lifecycle.model.version.features_by_version import features_by
from assets.lifecycle.model.version.verdicts import record_verdict
from assets.lifecycle.stage import Check, StageOutput, TableInput, table_asset
from assets.metrics import slice_metric
from resources.dagster_internals import CheckResult
from resources.tables import ParquetTables, days_of_window

GATE = Check(
    name="gate",
    description="The candidate meets the floor, is not inferior to the champion (overall and in each slice) and to the "
    "simple baseline, and keeps within the limits of calibration, latency and fairness.",
)

REPORT_FILE = "evaluation.json"
"""Artifact of a candidate's MLflow run with the report and the verdict of the gate."""
KNOWN_DAYS = 14
"""Entities with a positive event from this many days before the test rows count as known, once the label is known."""
CEILING_DAYS = 70
"""Number of days before the test rows that the ceiling may use."""


INTERVALS = Check(
    name="intervals",
    description="The intervals of the forecasts contain the declared share of the true values of the test rows.",
    blocking=False,
)
NAIVE = "naive"
"""Name of the score of the seasonal naive forecast."""


def known_entities(frozen: pd.DataFrame, test: np.ndarray, model: Model) -> np.ndarray | None:
    """Returns bool per test row: whether its entity was known as positive at the time of the row.

    Args:
        frozen: the frozen training set.
        test: bool ``[n]``: its test rows.
        model: the model that the rows belong to.

    Returns:
        One value per test row; ``None`` without entity or time, or for targets other than binary ones.
    """
    entity, time = model.evaluation.entity, model.table.time
    if entity is None or time is None or model.task.kind != "binary":
        return None
    rows = frozen[test]
    recent = frozen[time] >= rows[time].min().floor("D") - pd.Timedelta(days=KNOWN_DAYS)
    positive = frozen[recent & (frozen[model.target] == 1)]
    return known_positive(
        rows[entity].to_numpy(),
        rows[time].to_numpy(),
        positive[entity].to_numpy(),
        positive[time].to_numpy(),
        delay=dt.timedelta(days=model.label_delay_days),
    )


def baseline_scores(
    X: np.ndarray,
    y: np.ndarray,
    X_test: np.ndarray,
    model: Model,
    trees: Trees | None = None,
    represented: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Returns the baselines' scores on the test rows, fitted on the candidate's own rows, features and window.

    Args:
        X, y: features ``[n, n_features]`` and target ``[n]`` of the rows of the final fit.
        X_test: features of the test rows, ``[m, n_features]``.
        model: the model that the rows belong to.
        trees: trees of the candidate's ensemble. They have the baseline's settings, seed and rows, so they are reused.
        represented: number of rows that each of the rows of ``X`` stands for, if they were drawn by class.

    Raises:
        ValueError: ``y`` has only one class or value.
    """
    how: dict[str, Any] = {"task": model.task, "tokens": features_of(model).word_positions}
    scores = {
        "xgboost": baselines.scores_of(trees, y, X_test, **how)
        if trees is not None
        else baselines.xgboost(X, y, X_test, seed=model.training.seed, **how),
        "linear": baselines.linear(X, y, X_test, **how),
    }
    if model.forecast is not None:
        scores[NAIVE] = seasonal_naive(X, y, X_test, model)
    if model.task.kind != "binary":
        return scores
    odds = odds_of(y, represented)
    return {name: with_odds(probabilities, odds) for name, probabilities in scores.items()}


def seasonal_naive(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, model: Model) -> np.ndarray:
    """Returns the value of a day or a week before, beyond the horizon, whichever was closer on the rows of the fit.

    Where it is missing, the latest known value stands in, then the mean of the fit. Arguments are those of
    :func:`baseline_scores`.
    """
    assert model.forecast is not None
    names = features_of(model).names
    last = names.index(LAST)

    def values(rows: np.ndarray, name: str) -> np.ndarray:
        lag = rows[:, names.index(name)].astype(np.float64)
        lag = np.where(np.isnan(lag), rows[:, last], lag)
        return np.where(np.isnan(lag), y.mean(), lag)

    closest = min(naive_names(model.forecast), key=lambda name: float(np.abs(values(X, name) - y).mean()))
    return values(X_test, closest)


def ceiling_scores(tables: ParquetTables, source: Any, model: Model, rows: pd.DataFrame) -> np.ndarray:
    """Returns the declared best possible probabilities on ``rows``, from the test days and the days before them.

    The ceiling uses up to :data:`CEILING_DAYS` days before the test rows.
    """
    assert model.evaluation.ceiling is not None
    assert model.table.time is not None
    first, last = rows[model.table.time].min(), rows[model.table.time].max()
    wanted_days = days_of_window(str(first.date()), (-CEILING_DAYS, (last.floor("D") - first.floor("D")).days))
    days = [d for d in wanted_days if tables.stamp(model.key("labels"), d)]
    labels = tables.read(model.key("labels"), days).drop(columns=[model.table.time])
    events = tables.read(model.key(model.table.name), days).merge(labels, on=model.table.key, how="left")
    position = pd.Series(np.arange(len(events)), index=events[model.table.key].to_numpy())
    return model.evaluation.ceiling(source, events, position[rows[model.table.key].to_numpy()].to_numpy())


def evaluation_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``evaluation`` with its gate."""
    with_ceiling = model.evaluation.ceiling is not None

    def evaluation(
        context: dg.AssetExecutionContext, training_set: pd.DataFrame, trained_model: pd.DataFrame
    ) -> StageOutput:
        mlflow, ledger, tables = context.resources.mlflow, context.resources.ledger, context.resources.tables
        candidate = trained_model.iloc[0]
        version, run_id = str(candidate["version"]), str(candidate["run_id"])
        test, fit = test_rows(training_set, model), fit_rows(training_set, model)
        rows = training_set[test].reset_index(drop=True)
        X, X_test = matrix(training_set[fit], model), matrix(rows, model)
        folder = mlflow.download(model.name, version)
        bundle = loaded(folder)
        scores = {"torch": bundle.predict(X_test)}
        champion = champion_of(context.resources, model)
        if champion is not None and champion.version != version:
            scores[CHAMPION] = champion.bundle.predict(features_by(champion.bundle, tables, model, rows, X_test))
        trees = Trees.load(folder / TREES_FILE) if (folder / TREES_FILE).exists() else None
        y, represented = training_set.loc[fit, model.target].to_numpy(dtype=float), represented_by(training_set[fit])
        scores |= baseline_scores(X, y, X_test, model, trees, represented)
        if with_ceiling:
            source = getattr(context.resources, source_resource_key(model))
            scores["ceiling"] = ceiling_scores(tables, source, model, rows)
        known = known_entities(training_set, test, model)
        found = evaluate(
            rows,
            scores,
            model.evaluation,
            target=model.target,
            task=model.task,
            time=model.table.time,
            review_cost=model.review_cost,
            known=known,
            seed=model.training.seed,
        )
        details = details_of(bundle, rows, X_test, scores["torch"], model, known)
        latency = latency_of(bundle.traced(), X_test[:1])
        verdict = judge(model.gate, evidence_of(found, model, latency=latency, fairness=details.fairness))
        reasons = verdict.sentences
        pictures = report.plots(found, learning=json.loads(candidate["curves"]), details=details)
        page = report.html(
            found,
            verdict,
            title=f"{model.name}, version {version}",
            subtitle=model.description,
            pictures=pictures,
            details=details,
            published=model.evaluation.published,
            provenance={
                "Data version": str(candidate["data_version"]),
                "Code version": str(candidate["code"]),
                "Champion": champion.version if champion else "none yet",
                "Dagster run": context.run.run_id,
                "MLflow run": run_id,
            },
            made_at=dt.datetime.now(dt.UTC),
        )
        with mlflow.reopen(run_id) as log:
            log.log_metrics({f"test.{name}": value for name, value in found.numbers("torch").items()})
            log.log_text(page, "evaluation.html")
            parts = {"report": found.to_dict(), "verdict": verdict.to_dict(), "details": details.to_dict()}
            log.log_dict(parts, REPORT_FILE)
        if not verdict.passed and not verdict.refused:
            reasons = [f"advice only: {reason}" for reason in reasons]
        record_verdict(mlflow, model, version, "gate", not verdict.refused, reasons)
        if verdict.refused:
            ledger.refuse(
                model.name, version, reason=verdict.message, verdicts=verdict.to_dict(), dagster_run=context.run.run_id,
                who=context.run.tags.get("user", "dagster"),
            )  # fmt: skip
        check_result = CheckResult(
            check=GATE.name,
            passed=verdict.passed,
            description=verdict.message,
            severity=dg.AssetCheckSeverity.ERROR if verdict.refused else dg.AssetCheckSeverity.WARN,
            metadata=_figures(found),
        )
        check_results = [check_result]
        if model.forecast is not None:
            coverage = coverage_of(bundle, rows, X_test, scores["torch"], model)
            check_results.append(_interval_check(coverage))
            with mlflow.reopen(run_id) as log:
                log.log_metrics({"test.coverage": coverage.share, "test.interval_width": coverage.width})
        frame = pd.DataFrame(
            {
                "version": [version],
                "passed": [verdict.passed],
                "report": [json.dumps(found.to_dict())],
                "verdict": [json.dumps(verdict.to_dict())],
            }
        )
        metadata: dict[str, Any] = {
            "version": version,
            "verdict": f"{'passed' if verdict.passed else 'failed'}: {verdict.message}",
            "rules": _table_of_reasons(verdict),
            "figures": _table_of(found),
            "mlflow": dg.MetadataValue.url(mlflow.run_url(run_id)),
            **{name: report.inline(png) for name, png in pictures.items()},
        }
        return StageOutput(frame, check_results, metadata)

    return table_asset(
        model,
        "evaluation",
        evaluation,
        description="The candidate compared on later rows with the champion, the baselines and the "
        "ceiling; and the gate.",
        stage="model",
        kinds={"torch", "xgboost"},
        inputs={
            "training_set": TableInput(model.key("training_set")),
            "trained_model": TableInput(model.key("trained_model")),
        },
        checks=[replace(GATE, blocking=model.gate.mode == "enforce"), *([INTERVALS] if model.forecast else [])],
        write_refused=True,
        resources={"mlflow", "ledger", *([source_resource_key(model)] if with_ceiling else [])},
        by_day=False,
    )


def evidence_of(found: Report, model: Model, *, latency: Latency, fairness: Sequence[GroupGap]) -> Evidence:
    """Returns what the gate decides on: the report, and what was measured beside it."""
    metric = slice_metric(model.gate.metric, model.task.kind)
    simple = NAIVE if model.forecast else "linear"
    return Evidence(
        candidate=found.numbers("torch"),
        baseline=found.numbers(simple),
        champion=found.numbers(CHAMPION) if CHAMPION in found.models else None,
        against_baseline=found.differences[simple],
        against_champion=found.differences.get(CHAMPION, {}),
        slice_metric=metric,
        slices={name: of_slice.get(metric) for name, of_slice in found.slice_differences.items()},
        calibration=found.calibration,
        latency=latency,
        fairness=fairness,
    )


def coverage_of(bundle: Bundle, rows: pd.DataFrame, X: np.ndarray, predicted: np.ndarray, model: Model) -> Coverage:
    """Measures how many true values of test rows lie within their intervals."""
    assert model.forecast is not None
    truth, day = rows[model.target].to_numpy(dtype=float), rows[str(model.table.time)].dt.date.to_numpy()
    ends = bundle.ends(X, predicted)
    return Coverage.of(truth, ends["low"], ends["high"], day.astype(str), model.forecast.coverage)


def _interval_check(coverage: Coverage) -> CheckResult:
    return CheckResult(
        check=INTERVALS.name,
        passed=not coverage.is_short,
        description=str(coverage)
        + ("; the series changed after the validation weeks: train again when it is calm" if coverage.is_short else ""),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"coverage": coverage.share, "wanted": coverage.wanted, "width": coverage.width},
    )


def _table_of_reasons(verdict: Verdict) -> dg.MarkdownMetadataValue:
    """The verdict as a Markdown table for the UI, failed rules first."""
    lines = ["| | rule | result |", "|---|---|---|"]
    for reason in sorted(verdict.reasons, key=lambda reason: reason.passed):
        message = reason.message.replace("|", "\\|")
        lines.append(f"| {'passed' if reason.passed else '**failed**'} | {reason.rule} | {message} |")
    return dg.MetadataValue.md("\n".join(lines))


def _figures(found: Report) -> dict[str, float]:
    return {name: float(value) for name, value in found.numbers("torch").items()}


def _table_of(found: Report) -> dg.MarkdownMetadataValue:
    """The metrics of all scores as a Markdown table for the UI."""
    names = list(found.models["torch"])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for score, figures in found.models.items():
        cells = [f"{figures[name].value:.4f}" if name in figures else "" for name in names]
        lines.append(f"| {report.SCORES.get(score, score)} | " + " | ".join(cells) + " |")
    return dg.MetadataValue.md("\n".join(lines))
