"""Second stage: typed, deduplicated, validated rows by event day. Refused rows go to quarantine with a reason.

Belongs here: the rules that give each landed row exactly one row outcome, as pure functions, and the assets that apply
them. Does not belong here: how a particular table is parsed (the model folder's ``clean``) or which values are valid
(its contract).

The four outcomes of a landed row:

* *quarantined*: the contract refuses it, its event day is in the future, or it landed too late;
* *duplicate*: a row with the same key landed before it, at most ``late_days`` earlier;
* *clean*: it is in the cleaned table of its event day;
* *pending*: it will be in the cleaned table when its event day is rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model, Table
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.lifecycle.stage import Check, Made, Reads, daily_freshness, days_in_run, eager, table_asset
from assets.reading import typed
from resources.dagster_internals import Finding
from resources.tables import WHOLE, days_of_window

CONTRACT = Check(name="contract", description="Every row meets the contract, and few enough were refused to get there.")
ONE_FATE = Check(
    name="one_fate",
    description="Every landed row is clean, duplicate, quarantined or pending, and only one of these.",
)
REFUSED_SHARE = Check(
    name="refused_share", description="The share of refused rows of this landing is within bounds.", blocking=False
)
COVERAGE = Check(name="coverage", description="Every clean row has exactly one label once labels are due.")

REASON = "reason"

Stale = Set[tuple[str, str]]


class ContractError(dg.Failure):
    """A table that cannot meet its contract as a whole, e.g. because a column is missing. No row of it is used."""


def type_and_refuse(raw: pd.DataFrame, table: Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Types landed rows and separates the rows that the contract refuses.

    Args:
        raw: landed rows as text, with ``row_id`` (and ``landing_day`` for a table with an event time).
        table: the table whose ``clean`` and contract apply.

    Returns:
        ``(accepted, refused)``. ``accepted`` has the contract's columns plus ``row_id`` (and ``landing_day``).
        ``refused`` has the raw rows plus a ``reason`` that names the column and the rule.

    Raises:
        ContractError: a column that the contract requires is absent.
    """
    rows = _typed(raw, table)
    schema = table.contract.to_schema()
    reasons = pd.Series(pd.NA, index=raw.index, dtype="string")
    for name, column in schema.columns.items():
        if not column.nullable and (unread := rows[name].isna()).any():
            reasons = reasons.mask(reasons.isna() & unread, f"{name}: missing or unreadable")
            reasons = _say_absent(reasons, raw, name)
    candidates = rows[reasons.isna()]
    for index, reason in _contract_failures(candidates, schema, table).items():
        reasons[index] = reason
    if table.time is not None:
        reasons = reasons.where(reasons.notna(), _untimely(rows, raw, table))
    accepted = _coerced(rows[reasons.isna()], schema)
    carried = [c for c in (ROW_ID, LANDING_DAY) if c in raw]
    accepted = pd.concat([raw.loc[accepted.index, carried], accepted.drop(columns=carried, errors="ignore")], axis=1)
    # The table may have a column named `reason`; rename it to keep the landed values.
    refused = raw[reasons.notna()].rename(columns={REASON: f"landed_{REASON}"})
    refused = refused.assign(**{REASON: reasons[reasons.notna()].astype("string[pyarrow]")})
    return accepted, refused


def first_landed(accepted: pd.DataFrame, table: Table) -> pd.Series:
    """Returns whether each accepted row is the first with its key, boolean ``[n]``; later copies are duplicates.

    A row is a copy if a row with the same key landed on the same day or up to ``late_days`` before. Earlier copies are
    impossible, because a row that late is refused. The result for a landing depends only on it and on earlier landings.
    """
    ordered = accepted.sort_values(ROW_ID, kind="stable")
    if table.time is None:
        return ~ordered.duplicated(table.key).reindex(accepted.index)
    earlier = ordered.groupby(table.key, sort=False)[LANDING_DAY].shift()
    copy = (ordered[LANDING_DAY] - earlier) <= pd.Timedelta(days=table.late_days)
    return ~copy.reindex(accepted.index)


def event_day(accepted: pd.DataFrame, table: Table) -> pd.Series:
    """Returns the ISO event day of each row."""
    return iso_day(accepted[table.time])


def iso_day(times: pd.Series) -> pd.Series:
    """Returns the ISO day of each time."""
    # There are few distinct days and many rows, so each day is formatted once.
    days = times.dt.floor("D")
    return days.map({day: str(day.date()) for day in days.dropna().unique()})


def fates(
    raw: pd.DataFrame,
    accepted: pd.DataFrame,
    table: Table,
    *,
    in_clean: pd.Series,
    in_quarantine: pd.Series,
    stale: Stale,
) -> pd.DataFrame:
    """Returns the outcomes of each landed row. Exactly one is correct; otherwise rows were lost or used twice.

    Args:
        raw: the landings to check, plus the landings of up to ``late_days`` before them.
        accepted: rows of ``raw`` that the contract accepts, from :func:`type_and_refuse`.
        table: the table whose rules apply.
        in_clean: row ids in the stored cleaned table.
        in_quarantine: row ids in the stored quarantine.
        stale: ``(event day, landing day)`` pairs where the cleaned table of the event day was built without that
            landing.

    Returns:
        One boolean column per outcome, indexed by row id.
    """
    first = first_landed(accepted, table)
    ids = raw[ROW_ID]
    clean = _among(ids, in_clean)
    met = {
        "clean": clean,
        "duplicate": _among(ids, accepted.loc[~first, ROW_ID]),
        "quarantined": _among(ids, in_quarantine),
    }
    waiting = accepted[first]
    if table.time is not None and len(waiting):
        pairs = zip(event_day(waiting, table), iso_day(waiting[LANDING_DAY]), strict=True)
        waiting = waiting[[pair in stale for pair in pairs]]
    else:
        waiting = waiting.iloc[:0]
    met["pending"] = _among(ids, waiting[ROW_ID]) & ~clean
    return pd.DataFrame(met, index=pd.Index(ids, name=ROW_ID))


def _among(ids: pd.Series, others: pd.Series) -> np.ndarray:
    """Returns whether each row id is in ``others``. Faster than pandas ``isin``, which converts text value by value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(pa.array(ids, pa.large_string()), value_set=pa.array(others, pa.large_string())).to_numpy(False)


def _typed(raw: pd.DataFrame, table: Table) -> pd.DataFrame:
    columns = [c for c in raw.columns if c not in (ROW_ID, LANDING_DAY)]
    try:
        rows = (table.clean or by_contract(table))(raw[columns])
    except KeyError as error:
        raise _missing_column(str(error.args[0]), columns, table) from error
    for name in table.columns:
        if name not in rows:
            raise _missing_column(name, columns, table)
    if not rows.index.equals(raw.index):
        raise ContractError(
            description=f"{table.name}: clean() returned other rows than it got; it must keep the index and leave "
            "what it cannot read as missing, the contract then refuses the row with its reason"
        )
    return rows


def _say_absent(reasons: pd.Series, raw: pd.DataFrame, name: str) -> pd.Series:
    """Gives rows a clearer reason if their whole landing lacks a column that other landings in ``raw`` have."""
    if name not in raw or LANDING_DAY not in raw or raw[name].isna().all():
        return reasons
    for day in raw.loc[raw[name].isna(), LANDING_DAY].unique():
        landing = raw[raw[LANDING_DAY] == day].drop(columns=[ROW_ID, LANDING_DAY], errors="ignore")
        if landing[name].isna().all():
            columns = [c for c in landing if landing[c].notna().any()]
            reasons[landing.index] = f"{name}: the column did not land{_renamed(name, columns)}"
    return reasons


def _renamed(name: str, columns: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, columns, n=1)
    return f" (renamed to '{close[0]}'?)" if close else ""


def _missing_column(name: str, columns: list[str], table: Table) -> ContractError:
    return ContractError(
        description=f"{table.name}: the column '{name}' did not land{_renamed(name, columns)}; landed were "
        f"{', '.join(columns)}. Have the upstream send it again, or teach the model's clean() and contract the new "
        "name",
        allow_retries=False,
    )


def _contract_failures(candidates: pd.DataFrame, schema: Any, table: Table) -> dict[Any, str]:
    """Returns the first contract rule that each invalid row breaks, by index."""
    import pandera.errors

    try:
        schema.validate(_coerced(candidates, schema), lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        if (whole := cases[cases["index"].isna()]).shape[0]:
            first = whole.iloc[0]
            raise ContractError(
                description=f"{table.name}: {first['column']}: {first['check']} (found {first['failure_case']}); "
                "the table as a whole cannot meet its contract: mend clean() or the contract",
                allow_retries=False,
            ) from error
        firsts = cases.drop_duplicates("index")
        return {
            row.index_: f"{row.column}: {row.check}" for row in firsts.rename(columns={"index": "index_"}).itertuples()
        }
    return {}


def _coerced(rows: pd.DataFrame, schema: Any) -> pd.DataFrame:
    """Casts the contract's columns to its types; missing text stays missing and does not become a string."""
    kinds = {name: str(column.dtype) for name, column in schema.columns.items() if column.dtype is not None}
    text = [name for name, kind in kinds.items() if kind == "str"]
    typed_rows = rows.astype({name: kind for name, kind in kinds.items() if kind != "str"})
    for name in text:
        values = rows[name].astype(object)
        typed_rows[name] = values.where(values.notna(), None)
    return typed_rows[list(schema.columns)]


def _untimely(typed: pd.DataFrame, raw: pd.DataFrame, table: Table) -> pd.Series:
    """Returns the reason for rows from the future and for rows that landed too late; missing for all others."""
    times = typed[table.time]
    if not pd.api.types.is_datetime64_dtype(times.dtype):
        times = pd.to_datetime(times, errors="coerce")
    lag = (raw[LANDING_DAY] - times.dt.floor("D")).dt.days
    reasons = pd.Series(pd.NA, index=raw.index, dtype="string")
    reasons = reasons.mask(lag < 0, f"{table.time}: after the day it landed")
    return reasons.mask(lag > table.late_days, f"{table.time}: landed more than {table.late_days} days late")


def by_contract(table: Table) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns the default ``clean``: it types columns by the contract and reads blanks as missing."""

    def clean(raw: pd.DataFrame) -> pd.DataFrame:
        return typed(raw, table.contract)

    return clean


# -- assets ----------------------------------------------------------------------------------------------------------


def cleaning_assets(model: Model) -> list[dg.AssetsDefinition]:
    """Returns the assets of the cleaned table, its quarantine, and the labels."""
    return [_cleaned(model), _quarantine(model), _labels(model)]


def _cleaned(model: Model) -> dg.AssetsDefinition:
    table = model.table

    def clean(context: dg.AssetExecutionContext, raw: pd.DataFrame) -> Made:
        accepted, refused = type_and_refuse(raw, table)
        accepted = accepted[first_landed(accepted, table)]
        order = [c for c in (table.time, table.key) if c]
        if table.time is None:
            rows = accepted.sort_values(order, kind="stable", ignore_index=True)
            findings = [_contract_finding(rows, table, None, len(raw), refused)]
            return Made(rows, findings, {"dagster/row_count": len(rows)})
        days = days_in_run(context)
        day = event_day(accepted, table)
        rows = accepted[day.isin(days)].sort_values(order, kind="stable", ignore_index=True)
        of_day = dict(iter(rows.groupby(event_day(rows, table), sort=False)))
        landed = iso_day(raw[LANDING_DAY]).value_counts()
        refused_day = iso_day(refused[LANDING_DAY])
        findings = [
            _contract_finding(of_day.get(d, rows.iloc[:0]), table, d, int(landed.get(d, 0)), refused[refused_day == d])
            for d in days
        ]
        by_day = {d: {"dagster/partition_row_count": len(of_day.get(d, ()))} for d in days}
        return Made(rows, findings, {"dagster/row_count": len(rows)}, by_day)

    return table_asset(
        model,
        table.name,
        clean,
        description=f"{table.name} typed, deduplicated and held to the contract, by event day.",
        stage="data",
        kinds={"pandas", "pandera"},
        reads={"raw": Reads(model.key(f"raw_{table.name}"), _around(model, ahead=True))},
        checks=[CONTRACT],
        day_column=table.time,
        code=[table.contract, table.clean],
        automation=eager(table.late_days + 1 if model.is_stream else None),
        freshness=daily_freshness(model),
    )


def _quarantine(model: Model) -> dg.AssetsDefinition:
    table = model.table
    around = _around(model, ahead=False)

    def quarantine(context: dg.AssetExecutionContext, raw: pd.DataFrame, cleaned: pd.DataFrame) -> Made:
        accepted, refused = type_and_refuse(raw, table)
        days = days_in_run(context)
        landing = pd.Series(WHOLE, index=raw.index) if table.time is None else iso_day(raw[LANDING_DAY])
        asked = landing.isin(days)
        refused = refused[asked[refused.index]].sort_values(ROW_ID)
        met = fates(
            raw,
            accepted,
            table,
            in_clean=cleaned[ROW_ID],
            in_quarantine=refused[ROW_ID],
            stale=_stale(context, model, days, around),
        )[asked.to_numpy()]
        met_on = landing[asked].to_numpy()
        refused_on = landing[refused.index]
        findings, by_day = [], {}
        for day in days:
            account, here = met[met_on == day], refused[refused_on == day]
            findings += _account_findings(account, here, table, day)
            by_day[day] = {
                "dagster/partition_row_count": len(here),
                "landed": len(account),
                **_counts(account),
            }
        totals = {"landed": len(met), **_counts(met)}
        return Made(
            refused.reset_index(drop=True),
            findings,
            {"dagster/row_count": len(refused), **totals},
            {} if days == [WHOLE] else by_day,
        )

    return table_asset(
        model,
        "quarantine",
        quarantine,
        description="Every refused row as it landed, with the reason, by landing day; and the account of all fates.",
        stage="data",
        kinds={"pandas"},
        reads={
            "raw": Reads(model.key(f"raw_{table.name}"), around),
            "cleaned": Reads(model.key(table.name), around, columns=(ROW_ID,)),
        },
        checks=[ONE_FATE, REFUSED_SHARE],
        day_column=LANDING_DAY,
        code=[table.contract, table.clean],
        automation=eager(table.late_days + 1 if model.is_stream else None),
    )


def _labels(model: Model) -> dg.AssetsDefinition:
    table = model.table
    late = model.label_delay_days > 0
    declared = table.contract.to_schema().columns.get(model.target)
    may_lack = not late and declared is not None and declared.nullable  # unlabelled rows are only scored

    def labels(context: dg.AssetExecutionContext, cleaned: pd.DataFrame, **landed: pd.DataFrame) -> Made:
        carried = [c for c in (table.key, table.time) if c]
        if late:
            known = landed["raw_labels"].drop(columns=[ROW_ID, LANDING_DAY])
            truth = known.apply(pd.to_numeric, errors="coerce").drop_duplicates(table.key)
            rows = cleaned[carried].merge(truth, on=table.key, how="left")
        else:
            rows = cleaned[carried].assign(**{model.target: model.task.codes(cleaned[model.target])})
        missing = rows[model.target].isna()
        unlabelled = int(missing.sum())
        if may_lack:
            rows, missing = rows[~missing], missing[~missing]
        if table.time is None:
            findings = [_coverage(missing, None)]
        else:
            day = event_day(rows, table)
            findings = [_coverage(missing[day == d], d) for d in days_in_run(context)]
        rows = rows[~missing].astype({model.target: model.task.dtype}).reset_index(drop=True)
        shown = {"dagster/row_count": len(rows), "unlabelled": unlabelled, **_truth_in_short(model, rows[model.target])}
        return Made(rows, findings, shown)

    reads = {"cleaned": Reads(model.key(table.name))}
    if late:
        reads["raw_labels"] = Reads(model.key("raw_labels"), (model.label_delay_days, model.label_delay_days))
    return table_asset(
        model,
        "labels",
        labels,
        description=f"The truth ({model.target}) of each clean row"
        + (f", known {model.label_delay_days} days after the event." if late else "."),
        stage="data",
        kinds={"pandas"},
        reads=reads,
        checks=[COVERAGE],
        day_column=table.time,
        automation=eager(model.label_delay_days + table.late_days + 1 if model.is_stream else None),
    )


def _truth_in_short(model: Model, truth: pd.Series) -> dict[str, Any]:
    """Returns summary metadata of the labels for the UI."""
    if truth.empty:
        return {}
    if model.task.kind == "regression":
        return {"mean": float(truth.mean()), "lowest": float(truth.min()), "highest": float(truth.max())}
    if model.task.kind == "binary":
        return {"positive_share": float(truth.mean())}
    return {"classes": {f"{code}: {name}": int((truth == code).sum()) for code, name in enumerate(model.task.names)}}


def _around(model: Model, ahead: bool) -> tuple[int, int]:
    late = model.table.late_days if model.is_stream else 0
    return (-late, late if ahead else 0)


def _stale(context: dg.AssetExecutionContext, model: Model, days: list[str], around: tuple[int, int]) -> Stale:
    """Returns ``(event day, landing day)`` pairs where the cleaned table does not contain that landing yet."""
    if days == [WHOLE]:
        return set()
    tables, raw = context.resources.tables, model.key(f"raw_{model.table.name}")
    pairs = {(event, landing) for landing in days for event in days_of_window(landing, around)}
    # A day that landed again with different rows also counts as not read yet.
    landed = tables.versions(raw, {landing for _, landing in pairs}).items()
    read: dict[str, set[str]] = {}
    for event in {event for event, _ in pairs}:
        stamp = tables.stamp(model.key(model.table.name), event)
        versions = stamp.inputs.get(raw.to_user_string(), {}) if stamp else {}
        read[event] = {landing for landing, _ in versions.items() & landed}
    return {(event, landing) for event, landing in pairs if landing not in read[event]}


def _account_findings(account: pd.DataFrame, refused: pd.DataFrame, table: Table, day: str) -> list[Finding]:
    """Returns the two findings for one landing: each row has exactly one outcome, and few enough rows were refused."""
    wrong = account.index[account.sum(axis=1) != 1]
    counts = _counts(account)
    share = len(refused) / max(len(account), 1)
    one_fate = Finding(
        check=ONE_FATE.name,
        day=None if day == WHOLE else day,
        passed=len(wrong) == 0,
        description=f"{len(account):,} rows landed, each met one fate"
        if len(wrong) == 0
        else f"{len(wrong)} rows met no fate or several, the first is {wrong[0]}; materialise {table.name} and "
        "quarantine of that day again",
        metadata={"landed": len(account), **counts},
    )
    refused_share = Finding(
        check=REFUSED_SHARE.name,
        day=None if day == WHOLE else day,
        passed=share <= table.max_refused,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{share:.2%} of the landing was refused (at most {table.max_refused:.0%})",
        metadata={"reasons": {str(reason): int(n) for reason, n in refused[REASON].value_counts().items()}},
    )
    return [one_fate, refused_share]


def _counts(met: pd.DataFrame) -> dict[str, int]:
    """Returns the number of rows by outcome."""
    return {str(fate): int(met[fate].sum()) for fate in met}


def _contract_finding(rows: pd.DataFrame, table: Table, day: str | None, landed: int, refused: pd.DataFrame) -> Finding:
    quiet = table.quiet_days and not landed
    share = len(refused) / landed if landed else 0.0 if quiet else 1.0
    reasons = {str(k): int(v) for k, v in refused[REASON].value_counts().head(10).items()}
    passed = (len(rows) > 0 or quiet) and share <= table.max_refused
    if passed:
        words = f"{len(rows):,} rows meet the contract; {len(refused)} of {landed:,} landed were refused"
    else:
        worst = next(iter(reasons), "nothing landed")
        words = (
            f"{share:.1%} of what landed on {day or 'the whole table'} was refused (at most {table.max_refused:.0%}), "
            f"mostly for '{worst}'; mend the upstream, or the contract if the upstream is right, and materialise again"
        )
    return Finding(
        check=CONTRACT.name,
        day=day,
        passed=passed,
        description=words,
        metadata={"rows": len(rows), "refused": len(refused), "reasons": reasons},
    )


def _coverage(missing: pd.Series, day: str | None) -> Finding:
    return Finding(
        check=COVERAGE.name,
        day=day,
        passed=not missing.any(),
        description=f"{len(missing):,} clean rows, all labelled"
        if not missing.any()
        else f"{int(missing.sum())} of {len(missing):,} clean rows{f' of {day}' if day else ''} have no label; have "
        "the upstream land them and materialise labels again",
        metadata={"rows": len(missing), "unlabelled": int(missing.sum())},
    )
