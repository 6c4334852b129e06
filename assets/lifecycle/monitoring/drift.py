"""The asset ``drift``: compares each day's rows with the reference profile of the version that scored them.

Belongs here: the rows of a window, the stored counts, the verdicts as checks. Does not belong here: the rules
(``drift_rule.py``, ``quality.py``), notification (``sensors/alerts.py``).

The table stores the counts of each day. Windows of several days are sums of these counts, so no rows are read twice.
For a table without days, it has one row per landing, newest first: the first drifted landing warns, the next pages.
"""

from __future__ import annotations

import collections
import datetime as dt
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from assets.declaration import Model
from assets.lifecycle.data.text_columns import pieces_by_text, vectors_by_text
from assets.lifecycle.model.version.bundle import REFERENCE, Bundle
from assets.lifecycle.monitoring.drift_report import draw, html_of, verdicts_json
from assets.lifecycle.monitoring.drift_rule import (
    ColumnDrift,
    DriftResult,
    EarlierWindow,
    Level,
    WindowCounts,
    compare,
    count,
)
from assets.lifecycle.monitoring.quality import faults, level_of_faults
from assets.lifecycle.monitoring.requested import RowsOfDay, answers_of, features_of_answers
from assets.lifecycle.monitoring.trailing import row_of_day
from assets.lifecycle.prediction_format import PREDICTED, SCORE, format_of
from assets.lifecycle.profile.histograms import difference
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import WHOLE, InBatches, ParquetTables, days_of_window

DRIFT = Check(
    name="drift",
    description="The day's features and scores match the champion's reference: the first window that does not "
    "warns, the next consecutive one pages.",
    blocking=False,
)
QUALITY = Check(
    name="quality",
    description="No column has more missing, new or outlying values than the reference, and the day has the usual "
    "number of rows for its weekday.",
    blocking=False,
)
MOST_WINDOWS = 31
"""Number of days searched for earlier windows, and number of landings kept."""
USUAL_DAYS = 28
"""Number of days from which the usual rows of a weekday are computed."""


_Rows = InBatches | RowsOfDay
"""Rows of days: of a table, or the requests of a day."""


@dataclass(frozen=True)
class DriftRow:
    """The result of one day: a row of the table.

    Args:
        day: ISO day, or :data:`WHOLE`.
        at: ISO time of the check if the table has no days, else empty.
        landing: data version of the features if the table has no days; it identifies the window.
        version: version that scored the day.
        of_day: counts of the day alone; ``None`` if nothing was scored.
        first_day: first day of the window; the day itself unless the day has too few rows.
        result, faults, quality: verdicts on the window.
        verdicts: verdicts as JSON, with Evidently's results if it ran.
        report: path of Evidently's page of this alarm; empty if there is none.
    """

    day: str
    version: str
    of_day: WindowCounts | None
    first_day: str
    result: DriftResult
    faults: dict[str, str]
    quality: Level
    verdicts: str
    at: str = ""
    landing: str = ""
    report: str = ""

    def row(self) -> dict[str, Any]:
        """The table row, by column."""
        return {
            **({"at": self.at, "landing": self.landing} if self.day == WHOLE else {"day": pd.Timestamp(self.day)}),
            "version": self.version,
            "rows": self.of_day.rows if self.of_day else 0,
            "first_day": self.first_day,
            "window_rows": self.result.rows,
            "judged": self.result.judged,
            "drifted": self.result.drifted,
            "level": self.result.level,
            "since": self.result.since,
            "columns": ", ".join(self.result.drifted_columns),
            "quality": self.quality,
            "faults": json.dumps(self.faults),
            "verdicts": self.verdicts,
            "report": self.report,
            "counts": json.dumps(self.of_day.to_json() if self.of_day else None, separators=(",", ":")),
        }


class DriftConfig(dg.Config):
    """Run config of a drift check."""

    draw: bool = Field(
        default=False, description="Draw Evidently's page for each day of the run, whatever the verdict."
    )


def drift_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``drift``."""
    on_requests = model.drift.source == "requests"
    compared = ("requests",) if on_requests else ("features", "predictions")

    def drift(context: dg.AssetExecutionContext, **given: InBatches) -> StageOutput:
        mlflow, tables = context.resources.mlflow, context.resources.tables
        always = DriftConfig(**context.op_execution_context.op_config).draw
        lines: list[DriftRow] = []
        check_results: list[CheckResult] = []
        kept: list[dict[str, Any]] = []
        for day in days_in_run(context):
            predictions: _Rows = answers_of(given["requests"], model, day) if on_requests else given["predictions"]
            version = _version_of(predictions, day)
            if version:
                # The profile of the version that scored the day is also the right one after a rollback.
                folder = mlflow.download(model.name, version)
                reference = _comparable(ReferenceProfile.load(folder / REFERENCE), model)
                past = _Past(tables, model, day, version, reference, lines)
                features: _Rows
                if isinstance(predictions, RowsOfDay):
                    bundle = Bundle.load(folder)
                    own = bundle.model if bundle.code_difference() else model
                    features = features_of_answers(predictions, tables, model, own)
                else:
                    features = given["features"]
                line = _check(model, reference, version, day, features, predictions, past, tables, always)
                kept = past.landings()
            elif model.table.quiet_days or on_requests:
                line = DriftRow(day, "", None, day, DriftResult(0, judged=False), {}, "ok", "{}")
            else:
                raise dg.Failure(description=f"{model.name}: no rows were scored on {day}; materialise its predictions")
            lines.append(line)
            check_results += _check_results(line)
        metadata = {
            "version": line.version,
            "level": line.result.level,
            "quality": line.quality,
            "drifted": ", ".join(line.result.drifted_columns) or "nothing",
        }
        return StageOutput(pd.DataFrame([line.row() for line in lines] + kept), check_results, metadata)

    return table_asset(
        model,
        "drift",
        drift,
        description="The day's features and scores compared with the champion's reference profile, and the day's "
        "counts, which add up over days. Where the declaration says so, the day's requests instead of its table. "
        "Evidently's page is drawn when an alarm begins or escalates, or on request.",
        stage="monitoring",
        kinds={"evidently"},
        inputs={name: TableInput(model.key(name), in_batches=True, optional=on_requests) for name in compared},
        checks=[DRIFT, QUALITY],
        code=[compare, difference, faults],
        day_column="day" if model.is_stream else None,
        automation=eager(model.table.late_days + 1 if model.is_stream else None),
        resources={"mlflow"},
        config=DriftConfig,
    )


def _check(
    model: Model,
    reference: ReferenceProfile,
    version: str,
    day: str,
    features: _Rows,
    predictions: _Rows,
    past: _Past,
    tables: ParquetTables,
    always: bool,
) -> DriftRow:
    """Computes the verdicts of a day.

    Evidently's run costs as much as the rest of a day's work, and its page takes megabytes. It therefore runs only when
    an alarm begins or rises, or when ``always`` is set. Later days of the same alarm refer to that page.
    """
    sampled: dict[str, list[pd.DataFrame]] = {"features": [], "scores": []}
    rows = max(predictions.rows(day), 1)
    batches = [
        sampling(_features(model, reference, features, day), model.drift.max_rows / rows, sampled["features"]),
        sampling(_scores(model, predictions, day), model.drift.max_rows / rows, sampled["scores"]),
    ]
    of_day = count(reference, itertools.chain(*batches))
    first_day, window = past.reaching_back(of_day)
    result = compare(reference, window, model.drift, day=past.now, before=past.windows_apart(first_day))
    found = faults(reference, window, model.drift, rows_of_day=of_day.rows, usual_rows=past.usual_rows())
    quality = level_of_faults(found, past.faults_before(), model.drift.page_after)
    snapshot = None
    level_before, report = past.alarm()
    if result.level == "ok":
        report = ""
    if result.judged and (always or result.level not in ("ok", level_before)):
        parts = [pd.concat(part, ignore_index=True) for part in sampled.values()]
        least = min(len(part) for part in parts)  # a row may have features but no score yet
        sample = pd.concat([part.iloc[:least] for part in parts], axis=1)
        sample = sample.iloc[: model.drift.max_rows]
        snapshot = draw(reference, sample, model.drift, share=len(sample) / rows)
        report = tables.keep_report(model.key("drift"), day, html_of(snapshot))
    verdicts = verdicts_json(result, snapshot)
    at, landing = (past.now, past.landing) if day == WHOLE else ("", "")
    return DriftRow(day, version, of_day, first_day, result, found, quality, verdicts, at, landing, report)


def _features(model: Model, reference: ReferenceProfile, features: _Rows, day: str) -> Iterator[pd.DataFrame]:
    """The compared features; a text is the cell that its vector falls into."""
    names = [*(str(c) for c in reference.sample if c not in (SCORE, PREDICTED)), *reference.unwatched]
    pieces = [name for column in reference.texts for name in pieces_by_text(model)[column]]
    for batch in features.batches(day, [*names, *pieces]):
        vectors = vectors_by_text(model, batch) if reference.texts else {}
        cells = {column: of_text.of(vectors[column]) for column, of_text in reference.texts.items()}
        yield batch[names].assign(**cells)


def _comparable(reference: ReferenceProfile, model: Model) -> ReferenceProfile:
    """The reference without texts that today's features no longer have, or have by another language model."""
    language, there = model.language.model if model.language else "", pieces_by_text(model)
    other = {c for c, cells in reference.texts.items() if c not in there or cells.language != language}
    if not other:
        return reference
    return replace(
        reference,
        histograms={c: h for c, h in reference.histograms.items() if c not in other},
        texts={c: cells for c, cells in reference.texts.items() if c not in other},
    )


def _scores(model: Model, predictions: _Rows, day: str) -> Iterator[pd.DataFrame]:
    form = format_of(model.task)
    for batch in predictions.batches(day, form.score_columns):
        yield pd.DataFrame(form.compared(form.scores_in(batch)))


def sampling(
    batches: Iterable[pd.DataFrame], share: float, sampled: list[pd.DataFrame], seed: int = 0
) -> Iterator[pd.DataFrame]:
    """Yields the batches unchanged and appends a random ``share`` of their rows to ``sampled``."""
    rng = np.random.default_rng(seed)
    for batch in batches:
        sampled.append(batch if share >= 1 else batch[rng.random(len(batch)) < share])
        yield batch


def _version_of(predictions: _Rows, day: str) -> str:
    """The version that scored most rows of a day; empty if no row was scored."""
    counted: collections.Counter[str] = collections.Counter()
    for batch in predictions.batches(day, ["version"]):
        counted.update({str(v): int(n) for v, n in batch["version"].value_counts().items()})
    return str(counted.most_common(1)[0][0]) if counted else ""


class _Past:
    """The days before a day, or the earlier landings of a table without days, from the ``drift`` table.

    They are read directly and not as an asset input, because the first day has no earlier day and must not wait for it.
    """

    def __init__(
        self,
        tables: ParquetTables,
        model: Model,
        day: str,
        version: str,
        reference: ReferenceProfile,
        in_run: Sequence[DriftRow],
    ) -> None:
        self._reference, self._drift, self._day = reference, model.drift, day
        self.now, self.landing = day, ""
        if day == WHOLE:
            self.landing = tables.existing_stamp(model.key("features")).data_version
            self._rows = _landings(tables, model, self.landing)
            self.now = moment_after(next(reversed(self._rows), ""), dt.datetime.now(dt.UTC))
        else:
            self._rows = _days(tables, model, day, in_run)
        self._same = {d: row for d, row in self._rows.items() if str(row["version"]) == version and row["rows"]}

    def landings(self) -> list[dict[str, Any]]:
        """Rows of the earlier landings, newest first; empty if the table has days."""
        return list(self._rows.values())[::-1] if self._day == WHOLE else []

    def usual_rows(self) -> float | None:
        """Usual rows of the weekday: median of four weeks, else the reference's value; ``None`` without days."""
        if self._day == WHOLE:
            return None
        weekday = pd.Timestamp(self._day).weekday()
        known = [
            row["rows"] for d, row in list(self._rows.items())[-USUAL_DAYS:] if pd.Timestamp(d).weekday() == weekday
        ]
        if len(known) >= 2:
            return float(np.median(known))
        return self._reference.rows_of_weekday[weekday] if self._reference.rows_of_weekday else None

    def reaching_back(self, of_day: WindowCounts) -> tuple[str, WindowCounts]:
        """First day and counts of the window: days are added until it has ``min_rows`` rows or ``window_days`` days."""
        window, first = of_day, self._day
        for earlier in reversed(days_of_window(self._day, (1 - self._drift.window_days, -1))):
            if window.rows >= self._drift.min_rows or self._day == WHOLE:
                break
            if earlier in self._same:
                window, first = window + self._counts(earlier), earlier
        return first, window

    def faults_before(self) -> list[dict[str, str]]:
        """Faults of the earlier days by column, oldest first."""
        return [json.loads(row["faults"]) for row in self._same.values()]

    def alarm(self) -> tuple[str, str]:
        """Level of the latest judged window, and path of Evidently's page of its alarm (empty if there is none)."""
        judged = [row for row in self._same.values() if row["judged"]]
        return (str(judged[-1]["level"]), str(judged[-1]["report"])) if judged else ("ok", "")

    def windows_apart(self, first_day: str) -> list[EarlierWindow]:
        """Earlier judged windows that share no day with each other or the window from ``first_day``, oldest first."""
        chain: list[EarlierWindow] = []
        begins = first_day
        for day in reversed(list(self._same)):
            row = self._same[day]
            if day < begins and row["judged"] and len(chain) < self._drift.page_after:
                chain.append(self._before(day, row))
                begins = str(row["first_day"])
        return chain[::-1]

    def _before(self, day: str, row: Mapping[str, Any]) -> EarlierWindow:
        verdicts = json.loads(row["verdicts"])
        columns = {c["column"]: ColumnDrift(**c) for c in verdicts.get("columns", ())}
        window = self._counts(day)
        for earlier in self._same:
            if row["first_day"] <= earlier < day:
                window = window + self._counts(earlier)
        return EarlierWindow(day, window, bool(row["judged"]), columns, str(row["since"]))

    def _counts(self, day: str) -> WindowCounts:
        return WindowCounts.from_json(self._reference, json.loads(self._same[day]["counts"]))


def _days(tables: ParquetTables, model: Model, day: str, in_run: Sequence[DriftRow]) -> dict[str, dict[str, Any]]:
    """Rows of the earlier days, by day, oldest first; days of this run are not in the table yet."""
    found: dict[str, dict[str, Any]] = {}
    now = {line.day: line.row() for line in in_run}
    for earlier in days_of_window(day, (-MOST_WINDOWS, -1)):
        row = now.get(earlier) or row_of_day(tables, model.key("drift"), earlier)
        if row is not None:
            found[earlier] = row
    return found


def _landings(tables: ParquetTables, model: Model, landing: str) -> dict[str, dict[str, Any]]:
    """Rows of the earlier landings, by the time of their check, oldest first."""
    key = model.key("drift")
    if not tables.stamp(key):
        return {}
    rows = [{str(column): value for column, value in row.items()} for row in tables.read(key).to_dict("records")]
    earlier = [row for row in rows if row["landing"] != landing]
    return {str(row["at"]): row for row in earlier[: MOST_WINDOWS - 1][::-1]}


def moment_after(last: str, now: dt.datetime) -> str:
    """ISO time of a check in milliseconds, the key of its row; always later than ``last``, even if the clock is not."""
    moment = now.replace(tzinfo=None, microsecond=now.microsecond // 1_000 * 1_000)
    if last and moment <= (before := dt.datetime.fromisoformat(last)):
        moment = before + dt.timedelta(milliseconds=1)
    return moment.isoformat(" ", "milliseconds")


def _check_results(line: DriftRow) -> list[CheckResult]:
    day = None if line.day == WHOLE else line.day
    return [_drift_check_result(line, day), _quality_check_result(line, day)]


def _severity(level: Level) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if level == "page" else dg.AssetCheckSeverity.WARN


def _drift_check_result(line: DriftRow, day: str | None) -> CheckResult:
    result = line.result
    if not result.judged:
        message = f"{result.rows} rows are too few to judge"
    elif result.level == "ok":
        message = f"{result.rows:,} rows look like the reference of version {line.version}"
        if result.settling:
            message += f"; the score still changes with {', '.join(result.settling[:3])}, which are not compared"
    else:
        message = (
            f"{len(result.drifted_columns)} of {len(result.columns)} columns drifted from the reference of version "
            f"{line.version}: {', '.join(result.drifted_columns[:5])}"
            + (f"; since {result.since}" if result.level == "page" else "; watch the next window")
        )
    metadata: dict[str, Any] = {"level": result.level, "version": line.version, "rows": result.rows}
    if result.level != "ok":
        metadata |= {
            "since": result.since,
            "effects": {c.column: round(c.effect, 4) for c in result.columns if c.drifted},
            "report": dg.MetadataValue.path(line.report),
        }
    return CheckResult(
        check=DRIFT.name,
        day=day,
        passed=result.level == "ok",
        severity=_severity(result.level),
        description=message,
        metadata=metadata,
    )


def _quality_check_result(line: DriftRow, day: str | None) -> CheckResult:
    rows = line.of_day.rows if line.of_day else 0
    message = "; ".join(f"{column + ': ' if column else ''}{fault}" for column, fault in line.faults.items())
    return CheckResult(
        check=QUALITY.name,
        day=day,
        passed=not line.faults,
        severity=_severity(line.quality),
        description=message or f"{rows:,} rows, as usual",
        metadata={"level": line.quality, "rows": rows, "columns": line.faults},
    )
