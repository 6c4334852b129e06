"""The asset ``requests``: what the scoring service was asked on each day, and what it answered.

Belongs here: the table of a day, made from the log, and its checks. Does not belong here: the log
(``resources/request_log.py``), the service that writes it, when the table is made (``sensors/requests.py``).

A day is the day of arrival in UTC, for every model: a table without event time has requests by day, too.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.raw_rows import RawRows
from assets.lifecycle.data.row_outcomes import ContractError
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.stage import Check, StageOutput, days_in_run, days_of, table_asset
from resources.dagster_internals import CheckResult
from resources.request_log import SHADOW, LoggedDay, RequestLog
from resources.tables import ParquetTables

ERRORS = Check(
    name="errors",
    description="At most 1 % of the day's rows got no score because of an error of the service; above 10 % is an "
    "error, below it a warning. Refused rows do not count.",
    blocking=False,
)
VERSIONS = Check(
    name="versions", description="The registry knows each version that answered.", blocking=False
)  # fmt: skip
COMPLETE = Check(
    name="complete",
    description="The numbers of the records of each process have no gap, so the log has lost none.",
    blocking=False,
)
MOST_ERRORS, PAGING_ERRORS = 0.01, 0.1
"""Largest share of rows without score by an error of the service, and the share above which a failure is an error."""

FIRST_DAY = dt.date(2026, 1, 1)
"""First partition of a table without days; no release before it had a log."""

ROW = "row_"
"""Prefix of the columns with the row that was sent."""


def first_day_of_requests(model: Model) -> dt.date:
    """First day of arrival that has a partition: the first day of the table, if it has days."""
    return model.table.start or FIRST_DAY


def request_days(model: Model) -> dg.DailyPartitionsDefinition:
    """The partitions: days of arrival, which every model has."""
    return days_of(model) or dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone="UTC")


def requests_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``requests``."""

    def requests(context: dg.AssetExecutionContext) -> StageOutput:
        log: RequestLog = context.resources.request_log
        known = {one.version for one in context.resources.mlflow.versions() if one.model == model.name}
        frames: list[pd.DataFrame] = []
        check_results: list[CheckResult] = []
        by_day: dict[str, dict[str, Any]] = {}
        for day in days_in_run(context):
            logged = log.day(model.name, day)
            _refuse_less(context.resources.tables, model, day, len(logged.records))
            frames.append(table_of(model, logged.records))
            check_results += _check_results(logged, known, day)
            by_day[day] = _metadata(logged)
        frame = pd.concat(frames, ignore_index=True)
        return StageOutput(frame, check_results, {"dagster/row_count": len(frame)}, by_day)

    return table_asset(
        model,
        "requests",
        requests,
        description="What the scoring service was asked on each day of arrival (UTC), and what it answered. Each row "
        "of a request has version, role, outcome and latency. Days without requests stay without rows.",
        stage="monitoring",
        kinds={"fastapi"},
        checks=[ERRORS, VERSIONS, COMPLETE],
        day_column="at",
        code=[RawRows],
        resources={"request_log", "mlflow"},
        partitions=request_days(model),
    )


def _refuse_less(tables: ParquetTables, model: Model, day: str, rows: int) -> None:
    """Keeps a day of the table if the log has fewer records of it, because retention or a person removed some."""
    stamp = tables.stamp(model.key("requests"), day)
    if stamp is not None and rows < stamp.rows:
        raise dg.Failure(
            description=f"the log has {rows:,} records of {day}, and the table has {stamp.rows:,}; the table is kept, "
            "because old days are removed from the log (the period request_days)",
            allow_retries=False,
        )


def table_of(model: Model, records: pd.DataFrame) -> pd.DataFrame:
    """The table's rows: the records with their rows typed by the contract.

    Args:
        model: the declaration.
        records: records of the log, as of :meth:`~resources.request_log.RequestLog.read`.

    Returns:
        ``[n]`` rows. The contract's columns, without the target, have the prefix :data:`ROW`; they are missing where
        there is no score. ``sent`` is the row as it was sent, as JSON, where it could not be typed. The score's
        columns are those of the table ``predictions``.
    """
    scored = (records["outcome"] == "ok").to_numpy(dtype=bool)
    typed = _typed(model, records[scored])
    form, n = format_of(model.task), int(scored.sum())
    scores = np.array(records.loc[scored, "score"].tolist(), dtype=float).reshape(form.shape(n))
    alerts = records.loc[scored, "alert"].to_numpy(dtype=bool) if form.has_alerts else None
    said = pd.DataFrame(form.columns(scores, alerts), index=records.index[scored])
    untyped = ~records.index.isin(typed.index)
    sent = [json.dumps(row) if unread and row is not None else None
            for row, unread in zip(records["row"], untyped, strict=True)]  # fmt: skip
    facts = records[["request_id", "at", "version", "role", "outcome", "latency_ms", "problem"]]
    parts = [
        facts,
        *(_nullable(part).reindex(records.index) for part in (said, typed.add_prefix(ROW))),
        pd.DataFrame({"sent": pd.array(sent, dtype="string[pyarrow]")}, index=records.index),
    ]
    return pd.concat(parts, axis=1)


def _typed(model: Model, scored: pd.DataFrame) -> pd.DataFrame:
    """The scored rows that the contract still accepts, typed, with the index of ``scored``."""
    raw_rows = RawRows(model)
    moments = [moment.to_pydatetime() for moment in scored["at"]]
    rows = [raw_rows.completed(row, at) for row, at in zip(scored["row"], moments, strict=True)]
    if not rows:
        return raw_rows.empty()
    try:
        accepted, _ = raw_rows.typed(rows, max(moments))
    except ContractError:  # the contract has changed as a whole since
        return raw_rows.empty()
    columns = list(raw_rows.columns)
    return accepted[columns].set_axis(scored.index[accepted.index.to_numpy()])


def _nullable(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns with types that can lack a value, so that whole numbers do not become decimals."""
    kinds = {"i": "Int64", "u": "UInt64", "b": "boolean"}
    return frame.astype({name: kinds[kind.kind] for name, kind in frame.dtypes.items() if kind.kind in kinds})


def _metadata(logged: LoggedDay) -> dict[str, Any]:
    records = logged.records
    answered = records.loc[records["outcome"] == "ok", "latency_ms"].to_numpy()
    latency = {
        f"latency_p{share}_ms": round(float(np.percentile(answered, share)), 3) for share in (50, 95, 99)
        if len(answered)
    }  # fmt: skip
    counts = {
        f"rows_by_{name}": {str(k) or "none": int(n) for k, n in records[name].value_counts().items()}
        for name in ("version", "role", "outcome")
    }
    return {
        "dagster/partition_row_count": len(records),
        "requests": int(records["request_id"].nunique()),
        "processes": logged.writers,
        "incomplete_lines": logged.torn,
        "missing_records": sum(logged.missing.values()),
        **counts,
        **latency,
    }


def _check_results(logged: LoggedDay, known: set[str], day: str) -> Sequence[CheckResult]:
    return [_errors(logged, day), _versions(logged, known, day), _complete(logged, day)]


def _errors(logged: LoggedDay, day: str) -> CheckResult:
    records = logged.records
    # What a version under rollout cannot score, the version in production answers.
    answered_by_other = (records["outcome"] == "error") & (records["role"] == "canary")
    live = records[(records["role"] != SHADOW) & ~answered_by_other]
    failed = live[live["outcome"] == "error"]
    share = len(failed) / len(live) if len(live) else 0.0
    passed = share <= MOST_ERRORS
    description = f"{len(failed):,} of {len(live):,} rows got no score because of an error"
    if not passed:
        reason = failed["problem"].value_counts().index[0]
        description += f", most of them: {reason}; see the service's output and /health"
    severity = dg.AssetCheckSeverity.ERROR if share > PAGING_ERRORS else dg.AssetCheckSeverity.WARN
    metadata = {"rows": len(live), "errors": len(failed)}
    return CheckResult(
        check=ERRORS.name, day=day, passed=passed, severity=severity, description=description, metadata=metadata
    )


def _versions(logged: LoggedDay, known: set[str], day: str) -> CheckResult:
    answered = {str(version) for version in logged.records["version"].unique()} - {""}
    unknown = sorted(answered - known)
    return CheckResult(
        check=VERSIONS.name,
        day=day,
        passed=not unknown,
        description=f"the registry does not know version {', '.join(unknown[:5])}; a service answers with a version "
        "that was never registered, or that was deleted; start it again without --bundle"
        if unknown
        else f"version {', '.join(sorted(answered))} answered" if answered else "no version answered",
        metadata={"versions": sorted(answered)},
    )  # fmt: skip


def _complete(logged: LoggedDay, day: str) -> CheckResult:
    lost = sum(logged.missing.values())
    description = f"{len(logged.records):,} records of {logged.writers} processes, none is missing"
    if lost:
        description = (
            f"{lost} records of {len(logged.missing)} processes are missing, and {len(logged.records):,} are there; "
            "look for a full disk in the service's output, and for removed lines in the log"
        )
    if logged.torn:
        description += f"; {logged.torn} lines are incomplete, as after a kill"
    return CheckResult(
        check=COMPLETE.name,
        day=day,
        passed=not lost,
        description=description,
        metadata={"missing": logged.missing, "incomplete_lines": logged.torn},
    )
