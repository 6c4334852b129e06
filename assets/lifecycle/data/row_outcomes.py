"""The outcome of each landed row, as pure functions.

Belongs here: the rules that give each landed row exactly one outcome. Does not belong here: how a particular table is
parsed (the model folder's ``clean``), which values are valid (its contract), the assets (``cleaning.py``,
``quarantine.py``).

The four outcomes of a landed row:

* *quarantined*: the contract refuses it, its event day is in the future, or it landed too late;
* *duplicate*: a row with the same key landed before it, at most ``late_days`` earlier;
* *clean*: it is in the cleaned table of its event day;
* *pending*: it will be in the cleaned table when its event day is rebuilt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Table
from assets.lifecycle.data.event_days import event_day, iso_day
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.reading import typed
from resources.tables import InBatches

REASON = "reason"

ROWS_AT_ONCE = 1_000_000
"""Largest number of landed rows that are typed together, about a gigabyte; more are typed landing by landing."""


Stale = Set[tuple[str, str]]


class ContractError(dg.Failure):
    """A table that cannot meet its contract as a whole, e.g. because a column is missing. No row of it is used."""


def type_and_refuse(
    raw: pd.DataFrame, table: Table, has_values: Callable[[str], bool] = lambda _: False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Types landed rows and separates the rows that the contract refuses.

    Args:
        raw: landed rows as text, with ``row_id`` (and ``landing_day`` for a table with an event time).
        table: the table whose ``clean`` and contract apply.
        has_values: whether landings that are not in ``raw`` have values in a column.

    Returns:
        ``(accepted, refused)``. ``accepted`` has the contract's columns plus ``row_id`` (and ``landing_day``).
        ``refused`` has the raw rows plus a ``reason`` that names the column and the rule.

    Raises:
        ContractError: a column that the contract requires is absent.
    """
    rows = _typed(raw, table)
    schema = table.contract.to_schema()
    reasons = np.full(len(raw), None, dtype=object)
    open_ = np.ones(len(raw), dtype=bool)  # not refused yet; nearly all rows stay open
    for name, column in schema.columns.items():
        if not column.nullable and (unread := rows[name].isna().to_numpy()).any():
            reasons[unread & open_] = f"{name}: missing or unreadable"
            open_ &= ~unread
            reasons = _say_absent(reasons, raw, name, has_values)
    candidates = _coerced(rows if open_.all() else rows[open_], schema)
    failures = _contract_failures(candidates, schema, table)
    if failures:
        places = candidates.index.get_indexer(pd.Index(list(failures)))
        reasons[np.flatnonzero(open_)[places]] = list(failures.values())
    if table.time is not None:
        early, late = _untimely(rows[table.time], raw[LANDING_DAY], table)
        for untimely, reason in (
            (early, f"{table.time}: after the day it landed"),
            (late, f"{table.time}: landed more than {table.late_days} days late"),
        ):
            if untimely.any():
                reasons[untimely & pd.isna(reasons)] = reason
    refused_rows = ~pd.isna(reasons)
    accepted = candidates if not refused_rows[open_].any() else candidates[~refused_rows[open_]]
    carried = [c for c in (ROW_ID, LANDING_DAY) if c in raw]
    if own := [c for c in carried if c in accepted]:
        accepted = accepted.drop(columns=own)
    for place, name in enumerate(carried):  # joining two frames would copy all columns
        values = raw[name]
        accepted.insert(place, name, values[~refused_rows] if refused_rows.any() else values)
    # The table may have a column named `reason`; rename it to keep the landed values.
    refused = raw[refused_rows].rename(columns={REASON: f"landed_{REASON}"})
    refused = refused.assign(**{REASON: pd.array(reasons[refused_rows], dtype="string[pyarrow]")})
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


def first_of_keys(keys: np.ndarray, landed: np.ndarray, late_days: int) -> np.ndarray:
    """Returns what :func:`first_landed` does, for rows in order of arrival, boolean ``[n]``.

    Args:
        keys: key of each accepted row, ``[n]``.
        landed: landing day of each row, datetime64 ``[n]``.
        late_days: largest number of days between a row and its copy.
    """
    codes = pd.factorize(keys)[0]
    order = np.argsort(codes, kind="stable")
    sorted_codes, lag = codes[order], np.diff(landed[order])
    again = (np.diff(sorted_codes) == 0) & (sorted_codes[1:] >= 0)
    first = np.ones(len(keys), dtype=bool)
    first[order[1:]] = ~(again & (lag <= np.timedelta64(late_days, "D")))
    return first


@dataclass(frozen=True)
class Landings:
    """The rows of a window of landings that a stage needs.

    Attributes:
        accepted: typed rows that meet the contract, of the wanted event days or landings.
        first: whether each of them is the first with its key, boolean ``[n]``.
        refused: refused rows of the wanted landings, with their reason.
        landed: number of landed rows of each landing.
    """

    accepted: pd.DataFrame
    first: np.ndarray
    refused: pd.DataFrame
    landed: Mapping[str, int]


def landings(raw: InBatches, table: Table, days: Sequence[str], *, by: str) -> Landings:
    """Types the landings of a window and finds the copies in it.

    A window of more than :data:`ROWS_AT_ONCE` rows is typed one landing after the other; of the landings around, only
    the keys stay in memory. A contract with a rule on the table as a whole needs all rows together.

    Args:
        raw: the landed table, its days being the window.
        table: the table whose rules apply; with an event time.
        days: wanted days.
        by: ``event`` keeps accepted rows of these event days, ``landing`` those that landed on these days.

    Raises:
        ContractError: a column that the contract requires is absent.
    """
    landed = {day: raw.rows(day) for day in raw.days}
    if sum(landed.values()) <= ROWS_AT_ONCE or rules_on_the_whole(table):
        rows = raw.read()
        accepted, refused = type_and_refuse(rows, table)
        # Days are read in order, and a landing is in order of arrival.
        first = first_of_keys(accepted[table.key].to_numpy(), accepted[LANDING_DAY].to_numpy(), table.late_days)
        wanted = _wanted(accepted, table, days, by)
        return Landings(accepted[wanted], first[wanted], refused[iso_day(refused[LANDING_DAY]).isin(days)], landed)
    columns = raw.schema()
    kept: list[pd.DataFrame] = []
    refusals: list[pd.DataFrame] = []
    keys: list[np.ndarray] = []
    moments: list[np.ndarray] = []
    places: list[np.ndarray] = []
    before = 0
    for day in raw.days:
        rows = raw.read_as(columns, day)
        accepted, refused = type_and_refuse(rows, table, functools.partial(_has_values, raw, day))
        wanted = _wanted(accepted, table, days, by)
        places.append(before + np.flatnonzero(wanted))
        kept.append(accepted[wanted])
        keys.append(accepted[table.key].to_numpy())
        moments.append(accepted[LANDING_DAY].to_numpy())
        before += len(accepted)
        if day in days:
            refusals.append(refused)
        del rows, accepted, refused
    first = first_of_keys(np.concatenate(keys), np.concatenate(moments), table.late_days)
    return Landings(
        pd.concat(kept, ignore_index=True),
        first[np.concatenate(places)],
        pd.concat(refusals, ignore_index=True),
        landed,
    )


def _wanted(accepted: pd.DataFrame, table: Table, days: Sequence[str], by: str) -> np.ndarray:
    day = event_day(accepted, table) if by == "event" else iso_day(accepted[LANDING_DAY])
    return day.isin(days).to_numpy()


def _has_values(raw: InBatches, but: str, name: str) -> bool:
    """Whether a landing other than ``but`` has a value in a column."""
    others = (raw.read_as(raw.schema([name]), day) for day in raw.days if day != but)
    return any(rows[name].notna().any() for rows in others)


def rules_on_the_whole(table: Table) -> bool:
    """Whether the contract has a rule that a part of the rows cannot decide: on the frame, or a unique column."""
    schema = table.contract.to_schema()
    return bool(schema.checks or schema.unique) or any(column.unique for column in schema.columns.values())


def row_outcomes(
    raw: pd.DataFrame,
    accepted: pd.DataFrame,
    table: Table,
    *,
    in_clean: pd.Series,
    in_quarantine: pd.Series,
    stale: Stale,
    first: np.ndarray | None = None,
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
        first: whether each accepted row is the first with its key; default: found among ``accepted``.

    Returns:
        One boolean column per outcome, indexed by row id.
    """
    first = first_landed(accepted, table).to_numpy() if first is None else first
    ids = raw[ROW_ID]
    clean = _among(ids, in_clean)
    outcomes = {
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
    outcomes["pending"] = _among(ids, waiting[ROW_ID]) & ~clean
    return pd.DataFrame(outcomes, index=pd.Index(ids, name=ROW_ID))


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
            description=f"{table.name}: clean() returned different rows than it got; keep the index and leave "
            "unreadable values missing, so that the contract refuses the row with its reason"
        )
    return rows


def _say_absent(reasons: np.ndarray, raw: pd.DataFrame, name: str, has_values: Callable[[str], bool]) -> np.ndarray:
    """Gives rows a clearer reason if their whole landing lacks a column that other landings have."""
    if name not in raw or LANDING_DAY not in raw or (raw[name].isna().all() and not has_values(name)):
        return reasons
    for day in raw.loc[raw[name].isna(), LANDING_DAY].unique():
        of_day = (raw[LANDING_DAY] == day).to_numpy()
        landing = raw[of_day].drop(columns=[ROW_ID, LANDING_DAY], errors="ignore")
        if landing[name].isna().all():
            columns = [c for c in landing if landing[c].notna().any()]
            reasons[of_day] = f"{name}: the column did not land{_renamed(name, columns)}"
    return reasons


def _renamed(name: str, columns: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, columns, n=1)
    return f" (renamed to '{close[0]}'?)" if close else ""


def _missing_column(name: str, columns: list[str], table: Table) -> ContractError:
    return ContractError(
        description=f"{table.name}: the column '{name}' did not land{_renamed(name, columns)}; landed columns: "
        f"{', '.join(columns)}. Restore it in the upstream system, or use the new name in the model's clean() and "
        "contract",
        allow_retries=False,
    )


def _contract_failures(candidates: pd.DataFrame, schema: Any, table: Table) -> dict[Any, str]:
    """Returns the first contract rule that each invalid row breaks, by index of the coerced rows."""
    import pandera.errors

    try:
        schema.validate(candidates, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        if (whole := cases[cases["index"].isna()]).shape[0]:
            first = whole.iloc[0]
            raise ContractError(
                description=f"{table.name}: {first['column']}: {first['check']} (found {first['failure_case']}); "
                "the table as a whole does not meet its contract; fix clean() or the contract",
                allow_retries=False,
            ) from error
        # In the order of the contract: pandera's order depends on how many rows break each rule, so a row that breaks
        # two would have another reason among other rows.
        place = cases["column"].map({name: n for n, name in enumerate(schema.columns)})
        ordered = cases.assign(place=place).sort_values(["place", "check_number"], kind="stable")
        firsts = ordered.drop_duplicates("index")
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


def _untimely(times: pd.Series, landed: pd.Series, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether each row is from the future, and whether it landed too late, boolean ``[n]`` each."""
    if not pd.api.types.is_datetime64_dtype(times.dtype):
        times = pd.to_datetime(times, errors="coerce")
    days = times.to_numpy().astype("datetime64[D]")
    lag = landed.to_numpy().astype("datetime64[D]") - days
    return lag < np.timedelta64(0, "D"), lag > np.timedelta64(table.late_days, "D")


def by_contract(table: Table) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns the default ``clean``: it types columns by the contract and reads blanks as missing."""

    def clean(raw: pd.DataFrame) -> pd.DataFrame:
        return typed(raw, table.contract)

    return clean
