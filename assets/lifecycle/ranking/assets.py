"""The assets of a ranking that differ from those of other models: the version, its evaluation, and its days.

Belongs here: the wiring of fitting, measures and lists to tables, MLflow and the gate. Does not belong here: the gate's
rules, staging, approval, deployment and drift, which are those of every model.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model import report
from assets.lifecycle.model.evaluation import GATE, REPORT_FILE
from assets.lifecycle.model.gate import Evidence, judge
from assets.lifecycle.model.latency import Latency, latency_of
from assets.lifecycle.model.metrics.evaluate import CHAMPION, Report, Slice
from assets.lifecycle.model.reference_rows import reference_rows
from assets.lifecycle.model.training_set import fit_rows, format_days, windows_in
from assets.lifecycle.model.version.bundle import REFERENCE, Facts, loaded, model_code
from assets.lifecycle.model.version.champion import champion_of, the_champion
from assets.lifecycle.model.version.training_rows import RowsRecord
from assets.lifecycle.model.version.verdicts import record_verdict
from assets.lifecycle.model.windows import iso_days
from assets.lifecycle.monitoring.trailing import TRAILING_DAYS, row_of_day
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.lifecycle.ranking.baselines import NAMES
from assets.lifecycle.ranking.behaviour import Histories, Items
from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import gains_of, log_of, measured_days
from assets.lifecycle.ranking.fitting import fit_ranking, moment_of
from assets.lifecycle.ranking.measures import ByList, differences, figures, some
from assets.lifecycle.ranking.ranker import Ranker
from assets.lifecycle.stage import (
    TRAINING_POOL,
    Check,
    StageOutput,
    TableInput,
    daily_freshness,
    days_in_run,
    eager,
    table_asset,
)
from resources.dagster_internals import CheckResult
from resources.git import BRANCH, DIRTY, git_tags
from resources.runtime import LOCK, Runtime
from resources.settings import project_root
from resources.tables import ParquetTables, days_of_window

LEARNT = Check(name="learnt", description="The loss is finite, and it fell from the first to the last epoch.")
SCORED = Check(name="scored", description="Each event of the day has the place of its item on its user's list.")
FLOOR = Check(
    name="floor", description="NDCG of the lists of the trailing days is above the gate's floor.", blocking=False
)
LEAST_LISTS = 20
"""Fewest lists of a slice that is compared."""


def rankers_of(bundle: Any, items: Items) -> Ranker:
    """The ranker of a version with a catalogue of today."""
    assert isinstance(bundle, RankingBundle)
    return bundle.ranker.with_items(items)


def trained_ranking_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``trained_model`` of a ranking."""
    ranking = model.ranking
    assert ranking is not None

    def trained_model(context: dg.AssetExecutionContext, training_set: pd.DataFrame) -> StageOutput:
        mlflow, tables = context.resources.mlflow, context.resources.tables
        data_version = tables.existing_stamp(model.key("training_set")).data_version
        tags = {
            "data_version": data_version,
            "code": model_code(model),
            "recipe": f"{code_version} {ranking} {model.training}",
        }
        git = git_tags(project_root())
        same = {BRANCH: git.get(BRANCH, ""), **({DIRTY: "false"} if git.get(DIRTY) == "false" else {})}
        version = mlflow.version_of(model.name, {**tags, **{name: value for name, value in same.items() if value}})
        if version is None:
            version = _train(context, training_set, model, tags)
        else:
            context.log.info(f"version {version} already has this code and these rows; it is not trained again")
        run_id = mlflow.run_of_version(model.name, version)
        fitted = Facts.read(mlflow.download(model.name, version)).fitted
        losses = fitted["curves"]["loss"]["towers"]
        check_result = learnt(losses)
        frame = pd.DataFrame({"version": [version], "run_id": [run_id], "data_version": [data_version],
                              "code": [tags["code"]], "curves": [json.dumps(fitted["curves"])]})  # fmt: skip
        metadata = {"version": version, "mlflow": dg.MetadataValue.url(mlflow.run_url(run_id)),
                    "data_version": data_version, "loss": losses[-1], "items": fitted["items"]}  # fmt: skip
        return StageOutput(frame, [check_result], metadata)

    asset = table_asset(
        model,
        "trained_model",
        trained_model,
        description="The candidate as a version in MLflow: towers, ranking network, catalogue and reference profile.",
        stage="model",
        kinds={"torch", "mlflow"},
        inputs={"training_set": TableInput(model.key("training_set"))},
        checks=[LEARNT],
        op_tags=model.training.tags,
        pool=TRAINING_POOL,
        code=[features_of(model).compute, fit_ranking, Ranker, Items, reference_rows, ReferenceProfile],
        declared=str(ranking),
        resources={"mlflow"},
        by_day=False,
    )
    code_version = next(iter(asset.specs)).code_version
    return asset


def learnt(losses: list[float]) -> CheckResult:
    """The check :data:`LEARNT` on the loss by epoch."""
    fell = losses[-1] < losses[0] if len(losses) > 1 else True
    return CheckResult(
        check=LEARNT.name,
        passed=bool(fell),
        description=f"loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last"
        + ("" if fell else "; nothing was learnt, so check the weights of the events and the window"),
    )


def _train(context: dg.AssetExecutionContext, frozen: pd.DataFrame, model: Model, tags: dict[str, str]) -> str:
    mlflow, tables, ranking = context.resources.mlflow, context.resources.tables, model.ranking
    assert ranking is not None
    compared = list(model.drift.columns or features_of(model).compared)
    with mlflow.run(context, experiment=model.name, tags=tags) as run:
        settings = {name: value for name, value in vars(ranking).items() if name != "language"}
        run.log_params({"rows": len(frozen), "seed": model.training.seed, **settings})
        items, past = log_of(frozen[fit_rows(frozen, model)], model)
        fitted = fit_ranking(past, items, ranking, seed=model.training.seed, log=context.log.info)
        for epoch, loss in enumerate(fitted.losses, start=1):
            run.log_metric("loss.towers", loss, step=epoch)
        recent = reference_rows(tables, frozen, model)
        names = list(dict.fromkeys([*compared, *features_of(model).calendar]))
        unwatched = [name for name in features_of(model).compared if name not in names]
        places = np.zeros(len(recent.features))
        profile = ReferenceProfile.build(
            recent.features[names],
            format_of(model.task).compared(places),
            calendar=features_of(model).calendar,
            importance=dict.fromkeys(compared, 1.0),
            rows_of_weekday=recent.rows_of_weekday,
            entities=recent.entities,
            day=recent.day,
            unwatched=recent.features[unwatched],
            seed=model.training.seed,
            share=recent.share,
        )
        split = windows_in(frozen, model)
        facts = {
            "seed": model.training.seed, "items": len(items), "users": len(past.users), "events": len(past),
            "curves": {"loss": {"towers": fitted.losses}}, "data_version": tags["data_version"],
            "fit": format_days(split.fit), "test": format_days(split.test),
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            RankingBundle.write(folder, fitted.ranker, model, facts)
            profile.save(folder / REFERENCE)
            RowsRecord.of_table(tables, model, frozen).save(folder)
            runtime = Runtime.now()
            runtime.save(folder)
            return mlflow.register(
                model.name, run.mlflow_run_id, folder, tags={**tags, LOCK: runtime.lock},
                loader_module="assets.lifecycle.model.version.bundle",
            )  # fmt: skip


def ranking_evaluation_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``evaluation`` of a ranking with its gate."""

    def evaluation(
        context: dg.AssetExecutionContext, training_set: pd.DataFrame, trained_model: pd.DataFrame
    ) -> StageOutput:
        mlflow, ledger = context.resources.mlflow, context.resources.ledger
        candidate = trained_model.iloc[0]
        version, run_id = str(candidate["version"]), str(candidate["run_id"])
        bundle, champion = loaded(mlflow.download(model.name, version)), champion_of(context.resources, model)
        versions = {"torch": bundle}
        if champion is not None and champion.version != version:
            versions[CHAMPION] = champion.bundle
        found, parts = evaluated(training_set, versions, model)
        latency = _latency(bundle, training_set, model)
        metric = model.gate.metric
        strongest = max(NAMES, key=lambda name: found.numbers(name)[metric])
        evidence = Evidence(
            candidate=found.numbers("torch"),
            baseline=found.numbers(strongest),
            champion=found.numbers(CHAMPION) if CHAMPION in found.models else None,
            against_baseline=found.differences[strongest],
            against_champion=found.differences.get(CHAMPION, {}),
            slice_metric=metric,
            slices={name: of_slice.get(metric) for name, of_slice in found.slice_differences.items()},
            latency=latency,
        )
        verdict = judge(model.gate, evidence)
        reasons = verdict.sentences if verdict.passed or verdict.refused else [verdict.message]
        with mlflow.reopen(run_id) as log:
            log.log_metrics({f"test.{name}": value for name, value in found.numbers("torch").items()})
            log.log_text(_page(found, verdict.message, model, version), "evaluation.html")
            log.log_dict({"report": found.to_dict(), "verdict": verdict.to_dict()}, REPORT_FILE)
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
            metadata={name: float(value) for name, value in found.numbers("torch").items()},
        )
        told = {"report": json.dumps(found.to_dict()), "verdict": json.dumps(verdict.to_dict())}
        frame = pd.DataFrame([{"version": version, "passed": verdict.passed, **told}])
        metadata: dict[str, Any] = {
            "version": version,
            "verdict": f"{'passed' if verdict.passed else 'failed'}: {verdict.message}",
            "figures": dg.MetadataValue.md(_table(found)),
            "lists": len(parts["torch"].user),
            "mlflow": dg.MetadataValue.url(mlflow.run_url(run_id)),
        }
        return StageOutput(frame, [check_result], metadata)

    return table_asset(
        model,
        "evaluation",
        evaluation,
        description="The candidate's lists of later days compared by user with those of the champion, of popularity, "
        "of items liked together and of factors (ALS); and the gate.",
        stage="model",
        kinds={"torch"},
        inputs={
            "training_set": TableInput(model.key("training_set")),
            "trained_model": TableInput(model.key("trained_model")),
        },
        checks=[Check(name=GATE.name, description=GATE.description, blocking=model.gate.mode == "enforce")],
        write_refused=True,
        code=[figures, measured_days],
        resources={"mlflow", "ledger"},
        by_day=False,
    )


def evaluated(frozen: pd.DataFrame, versions: dict[str, Any], model: Model) -> tuple[Report, dict[str, ByList]]:
    """Returns the report on the test days of a frozen training set, and the measures by list.

    Args:
        frozen: the frozen training set.
        versions: bundles by name, the candidate's first.
        model: the declaration.

    Raises:
        dagster.Failure: nobody liked anything on the test days.
    """
    ranking = model.ranking
    assert ranking is not None
    seed = model.training.seed
    items, behaviour = log_of(frozen, model)
    split = windows_in(frozen, model)
    fitted = behaviour.some(behaviour.at < np.datetime64(str(split.test[0]), "s"))
    rankers = {name: rankers_of(bundle, items) for name, bundle in versions.items()}
    found = measured_days(rankers, fitted, behaviour, items, ranking, iso_days(split.test), seed=seed)
    if not found:
        raise dg.Failure(
            description=f"{model.name}: nobody liked a known item from {format_days(split.test)}, so no list can be "
            "measured; test on more days (Training.test_days), or check Ranking.weights",
            allow_retries=False,
        )
    candidate = next(iter(versions))
    slices = _slices(found[candidate].user, behaviour, fitted)
    parts = {
        name: {one: some(found[name], kept) for one, kept in slices.items()}
        for name in (candidate, CHAMPION)
        if name in found
    }
    on_a_day = [items.there(np.datetime64(day, "s")) for day in iso_days(split.test)]
    there = int(np.logical_or.reduce(on_a_day).sum())
    return Report(
        kind="ranking",
        rows=len(found[candidate].user),
        models={name: figures(one, there, seed=seed) for name, one in found.items()},
        differences={
            name: differences(found[candidate], one, seed=seed) for name, one in found.items() if name != candidate
        },
        slices={
            name: Slice(len(one.user), None, figures(one, there, seed=seed)) for name, one in parts[candidate].items()
        },
        slice_differences={
            name: differences(parts[candidate][name], one, seed=seed) for name, one in parts.get(CHAMPION, {}).items()
        },
        method=f"A row is the list of a user on a day, made from what was known when the day began. Measures are of "
        f"the first {ranking.k} places. 95 % intervals by bootstrap of users.",
    ), found


def _slices(user: np.ndarray, behaviour: Any, fitted: Any) -> dict[str, np.ndarray]:
    """Lists by how much the version knows of their user."""
    events = np.bincount(fitted.liked.user, minlength=len(behaviour.users))[user]
    named = {
        "no history": events == 0,
        "1 to 9 likings": (events > 0) & (events < 10),
        "10 likings or more": events >= 10,
    }
    return {name: kept for name, kept in named.items() if kept.sum() >= LEAST_LISTS}


def _latency(bundle: Any, frozen: pd.DataFrame, model: Model) -> Latency:
    """The time of one list at the end of the training set."""
    assert model.ranking is not None
    items, behaviour = log_of(frozen, model)
    ranker = rankers_of(bundle, items)
    at = frozen[str(model.table.time)].max().to_datetime64().astype("datetime64[s]")
    moment = moment_of(behaviour, items, at)
    recent = behaviour.liked.item[-model.ranking.history :]
    places = np.full((1, model.ranking.history), -1)
    places[0, : len(recent)] = recent
    history = Histories(places, (places >= 0).astype(np.float32))

    class Lists:
        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.asarray(ranker.lists(history, moment, model.ranking.k)[0].score)  # type: ignore[union-attr]

    return latency_of(Lists(), np.zeros((1, 1), np.float32))


def _table(found: Report) -> str:
    names = list(found.models["torch"])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for score, own in found.models.items():
        cells = [report.number(name, own[name].value) for name in names]
        lines.append(f"| {report.SCORES.get(score, score)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _page(found: Report, verdict: str, model: Model, version: str) -> str:
    """The report as a small page of its own."""
    import html

    def rows(parts: dict[str, dict[str, Any]]) -> str:
        names = list(found.models["torch"])
        head = "".join(f"<th>{report.METRICS[name].label}</th>" for name in names)
        body = "".join(
            f"<tr><th>{html.escape(report.SCORES.get(part, part))}</th>"
            + "".join(f"<td>{report.number(n, own[n].value)} {report.interval(n, own[n])}</td>" for n in names)
            + "</tr>"
            for part, own in parts.items()
        )
        return f"<table border=1><tr><th></th>{head}</tr>{body}</table>"

    return (
        f"<!doctype html><meta charset=utf-8><title>{model.name}, version {version}</title>"
        f"<h1>{html.escape(model.name)}, version {version}</h1><p>{html.escape(verdict)}</p>{rows(found.models)}"
        f"<h2>By what is known of the user</h2>{rows({n: one.figures for n, one in found.slices.items()})}"
        f"<p>{html.escape(found.method)}</p>"
    )


def ranked_days_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``predictions`` of a ranking: where each event's item was on the list of its user."""
    table = model.table
    days_read = max(features_of(model).lookback_days, 3)

    def predictions(context: dg.AssetExecutionContext, **_: pd.DataFrame) -> StageOutput:
        champion, tables = the_champion(context.resources, model), context.resources.tables
        frames, check_results = [], []
        for day in days_in_run(context):
            kept = _kept(tables, model, day)
            rows = tables.read(model.key(table.name), [day])
            if kept is not None:
                rows, kept = rows[~rows[table.key].isin(kept[table.key])], kept[kept[table.key].isin(rows[table.key])]
            new = _placed(tables, model, day, rows, champion.bundle, days_read, champion.version)
            frame = new if kept is None else pd.concat([kept, new], ignore_index=True)
            frames.append(frame.sort_values([str(table.time), table.key], kind="stable"))
            enough = len(frame) > 0 or table.quiet_days
            check_results.append(CheckResult(
                check=SCORED.name, day=day, passed=bool(enough),
                description=f"{len(frame):,} events" if enough else "no event has features; materialise them",
            ))  # fmt: skip
        frame = pd.concat(frames, ignore_index=True)
        metadata = {"dagster/row_count": len(frame), "version": champion.version,
                    "on_lists": int((frame["prediction"] > 0).sum())}  # fmt: skip
        return StageOutput(frame, check_results, metadata)

    return table_asset(
        model,
        "predictions",
        predictions,
        description="For each event, how high its item was on the list that the champion made for its user when the "
        "day began: 1 at the top, 0 if it was not on it.",
        stage="monitoring",
        kinds={"numpy"},
        inputs={"features": TableInput(model.key("features"), columns=(table.key,))},
        deps=[model.key("deployment")],
        checks=[SCORED],
        day_column=table.time,
        code=[gains_of, Ranker],
        automation=_unless_deployed(model),
        resources={"mlflow", "ledger"},
        freshness=daily_freshness(model),
    )


def _unless_deployed(model: Model) -> dg.AutomationCondition:
    """Ignores promotions, so that one alone does not rank past days again, and waits for the first deployment."""
    deployment = dg.AssetSelection.assets(model.key("deployment"))
    missing: Any = dg.AutomationCondition.any_deps_missing()
    return eager(model.table.late_days + 1).ignore(deployment) & ~missing.allow(deployment)  # type: ignore[attr-defined]


def _kept(tables: ParquetTables, model: Model, day: str) -> pd.DataFrame | None:
    key = model.key("predictions")
    return tables.read(key, [day]) if tables.stamp(key, day) else None


def read_log(tables: ParquetTables, model: Model, day: str, days: int) -> pd.DataFrame:
    """Returns the cleaned rows of a day and of the days before it, as far as they have landed."""
    key = model.key(model.table.name)
    wanted = [one for one in days_of_window(day, (-days, 0)) if tables.stamp(key, one)]
    return tables.read(key, wanted)


def _placed(
    tables: ParquetTables, model: Model, day: str, rows: pd.DataFrame, bundle: Any, days: int, version: str
) -> pd.DataFrame:
    items, behaviour = log_of(read_log(tables, model, day, days), model)
    found = gains_of(rankers_of(bundle, items), behaviour, items, day, rows, model)
    carried = rows[[model.table.key, str(model.table.time)]]
    return carried.assign(prediction=found, version=pd.array([version] * len(rows), dtype="string[pyarrow]"))


def ranking_performance_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``performance`` of a ranking: the measures of the champion's lists by day."""
    ranking = model.ranking
    assert ranking is not None
    days_read = max(features_of(model).lookback_days, 3)

    def performance(context: dg.AssetExecutionContext, **_: pd.DataFrame) -> StageOutput:
        champion, tables = the_champion(context.resources, model), context.resources.tables
        lines: list[dict[str, Any]] = []
        check_results: list[CheckResult] = []
        for day in days_in_run(context):
            items, behaviour = log_of(read_log(tables, model, day, days_read), model)
            ranker = {"champion": rankers_of(champion.bundle, items)}
            of_day = measured_days(ranker, None, behaviour, items, ranking, [day]).get("champion")
            ndcg = math.nan if of_day is None else figures(of_day, len(items))["ndcg"].value
            # The days before keep the figures of the version that served them: a newer one may be fitted on them.
            by_day = {str(one["day"].date()): float(one["ndcg"]) for one in lines}
            for one in days_of_window(day, (1 - TRAILING_DAYS, -1)):
                if one not in by_day and (row := row_of_day(tables, model.key("performance"), one)):
                    by_day[one] = float(row["ndcg"])
            week = [by_day.get(one, math.nan) for one in days_of_window(day, (1 - TRAILING_DAYS, -1))] + [ndcg]
            known = [one for one in week if not math.isnan(one)]
            value = float(np.mean(known)) if known else math.nan
            full = len(known) >= TRAILING_DAYS
            low = full and not value >= model.gate.floor
            lines.append({
                "day": pd.Timestamp(day), "rows": 0 if of_day is None else len(of_day.user),
                **{name: math.nan if of_day is None else figures(of_day, len(items))[name].value
                   for name in ("ndcg", "recall", "coverage", "novelty", "new_share")},
                "trailing_days": len(known), "trailing_ndcg": value, "version": champion.version,
            })  # fmt: skip
            check_results.append(CheckResult(
                check=FLOOR.name, day=day, passed=not low, severity=dg.AssetCheckSeverity.ERROR,
                description=f"ndcg {value:.3f} over the {len(known)} days to {day}, floor {model.gate.floor}"
                + ("" if full else f": fewer than {TRAILING_DAYS} days, so it is not judged yet"),
                metadata={} if math.isnan(value) else {"trailing_ndcg": value},
            ))  # fmt: skip
        return StageOutput(pd.DataFrame(lines), check_results, {"trailing_ndcg": lines[-1]["trailing_ndcg"]})

    return table_asset(
        model,
        "performance",
        performance,
        description="NDCG, recall, coverage, novelty and share of new items of the champion's lists of each day; the "
        f"floor applies to the trailing {TRAILING_DAYS} days.",
        stage="monitoring",
        kinds={"numpy"},
        inputs={"predictions": TableInput(model.key("predictions")), "labels": TableInput(model.key("labels"))},
        checks=[FLOOR],
        day_column="day",
        code=[figures],
        automation=eager(model.table.late_days + 1),
        resources={"mlflow", "ledger"},
    )
