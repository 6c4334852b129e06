"""Request parsing: turns raw rows of the model's table into typed rows, or reports what is wrong with them.

Belongs here: applying a declaration's ``clean`` and contract to single rows. Does not belong here: the rules
themselves (the model folder), history, features, scores.

Two paths give the same result. The slow path is the lifecycle's own (``type_and_refuse``: a DataFrame, ``clean``,
pandera). The fast path accepts only *canonical* values, which have a single reading under the contract's types, and
applies the contract's checks to the plain value. It refuses nothing: rows that it does not accept go through the slow
path. When the model is loaded, a probe tests that ``clean`` leaves canonical values unchanged. If it does not, or if
the contract has a check that is not built into pandera, the table always uses the slow path. So does a table with free
text and a ``clean`` of its own, because no probe can show that it leaves every text unchanged.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.raw_rows import ARRIVED_AT, Raw, RawRows, as_text, text_frame
from assets.lifecycle.data.row_outcomes import REASON, ContractError
from assets.words import FALSE, TRUE

__all__ = ["ARRIVED_AT", "Raw", "RefusedRows", "RequestParser", "RowProblem", "as_text"]

_log = logging.getLogger(__name__)

_INTEGER = re.compile(r"0|[1-9]\d{0,17}")
_DECIMAL = re.compile(r"(?:0|[1-9]\d{0,8})(?:\.(\d{1,6}))?")
_MOMENT = re.compile(
    r"(?:19[7-9]\d|20\d\d|21\d\d)-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?P<fraction>\.\d{1,6})?(?P<offset>Z|[+-]\d\d:\d\d)?"
)
_WORDS = {
    form: yes
    for words, yes in ((TRUE, True), (FALSE, False))
    for word in words
    if word.isascii()
    for form in (word, word.capitalize(), word.upper())
}
"""Words for yes and no, as people write them; other spellings take the slow path."""
_PROBES: Mapping[str, Sequence[str]] = {
    "integer": ["0", "7", "12", "305", "4096", "99999", "123456", "1000001", "98765432101"],
    "decimal": [
        *("0", "3", "12.5", "0.1", "7.25", "249.99", "8191.07", "99999.9", "0.125", "12.375"),
        *("3.0001", "0.5555", "1.00007", "12.345678", "999999999.123456"),
    ],
    "moment": [
        *("1999-12-31 23:59:59", "2024-02-29T00:00:00", "2026-07-01 12:30:45"),
        *(
            "2026-07-01T12:30:45Z",
            "2026-07-01T12:30:45+02:00",
            "2026-07-01T12:30:45.250",
            "2026-07-01T12:30:45.25-05:30",
        ),
    ],
    "truth": [*_WORDS],
    "text": ["7590-VHVEG", "Zoë", "two words", "A. N. Other", "00123", "NA", "-", "true", "1e5", "2026-07-01", "东京"],
}
_PROBE_ROWS = 200
_MISSING: Any = object()
"""What a reader returns for a missing value of a nullable column."""
_CHECKS: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "greater_than": lambda v, s: v > s["min_value"],
    "greater_than_or_equal_to": lambda v, s: v >= s["min_value"],
    "less_than": lambda v, s: v < s["max_value"],
    "less_than_or_equal_to": lambda v, s: v <= s["max_value"],
    "in_range": lambda v, s: (
        (v >= s["min_value"] if s["include_min"] else v > s["min_value"])
        and (v <= s["max_value"] if s["include_max"] else v < s["max_value"])
    ),
    "equal_to": lambda v, s: v == s["value"],
    "not_equal_to": lambda v, s: v != s["value"],
    "isin": lambda v, s: v in s["allowed_values"],
    "notin": lambda v, s: v not in s["forbidden_values"],
}
"""pandera's built-in checks by name, as functions of a single value and the check's statistics."""


@dataclass(frozen=True)
class RowProblem:
    """One problem with one row: ``row`` is its position in the request, from 0; ``right`` describes valid input."""

    row: int
    column: str
    value: Any
    problem: str
    right: str


class RefusedRows(Exception):
    """Rows that cannot be scored, with the reasons in ``problems``."""

    def __init__(self, problems: Sequence[RowProblem], *, n_rows: int) -> None:
        super().__init__("; ".join(f"row {p.row}: {p.problem}" if n_rows > 1 else p.problem for p in problems))
        self.problems = list(problems)


class RequestParser:
    """Converts or refuses rows of one model's table, as its pipeline does on the day they arrive.

    The target is not required. Rows of any age are accepted; rows whose event day is in the future are refused.
    """

    def __init__(self, model: Model) -> None:
        self._rows = RawRows(model)
        self._cleans = model.table.clean is not None
        self.columns, self.time, self._schema = self._rows.columns, self._rows.time, self._rows.schema
        self.dtypes = {name: _numpy_dtype(self._schema.columns[name]) for name in self.columns}
        self._readers = self._probed_readers()

    @property
    def schema(self) -> Any:
        """The contract without the target, as pandera's ``DataFrameSchema``."""
        return self._schema

    def kind(self, name: str) -> str:
        """The kind of value in a column: ``integer``, ``decimal``, ``moment``, ``truth`` or ``text``."""
        return _kind(str(self._schema.columns[name].dtype), None) or "text"

    def describe(self) -> dict[str, str]:
        """A description of the valid values of each column."""
        return {name: self._right(name) for name in self.columns}

    def parse(self, rows: Sequence[Raw], now: dt.datetime) -> dict[str, np.ndarray]:
        """Converts rows to typed columns of the contract without the target, ``[n]`` each, in the order of ``rows``.

        Args:
            rows: raw rows, ``[n]``.
            now: current time (UTC, naive).

        Raises:
            RefusedRows: the contract refuses at least one row; the error lists every refused row.
        """
        rows = [self.completed(row, now) for row in rows]
        fast = [self._fast(row, now) for row in rows] if self._readers else [None]
        if all(row is not None for row in fast):
            return {c: np.array([row[c] for row in fast if row], self.dtypes[c]) for c in self.columns}
        return self._slow(rows, now)

    def completed(self, row: Raw, at: dt.datetime) -> Raw:
        """The row with its time of arrival, if the contract has that column and the caller left it out."""
        return self._rows.completed(row, at)

    # -- the fast path -----------------------------------------------------------------------------------------------

    def _fast(self, row: Raw, now: dt.datetime) -> dict[str, Any] | None:
        if len(row) != len(self.columns):  # a column is missing, or `clean` may read an extra one
            return None
        typed: dict[str, Any] = {}
        for name, (read, checks) in self._readers.items():
            if name not in row or (value := read(as_text(row[name]))) is None:
                return None
            for check, statistics in checks:
                if value is not _MISSING and not check(value, statistics):
                    return None
            typed[name] = np.nan if value is _MISSING else value
        if self.time is not None and typed[self.time].date() > now.date():
            return None
        return typed

    def _probed_readers(self) -> dict[str, tuple[Callable[[str | None], Any], list[Any]]]:
        """The reader of canonical values and the checks of each column; empty if only the slow path is safe."""
        schema = self._schema
        kinds: dict[str, str | None] = {}
        if schema.checks:
            return {}
        probes = {}
        for name, column in schema.columns.items():
            allowed = next((c.statistics["allowed_values"] for c in column.checks if c.name == "isin"), None)
            kinds[name] = kind = _kind(str(column.dtype), allowed) or ("text" if not self._cleans else None)
            if kind is None or any(check.name not in _CHECKS for check in column.checks):
                return {}
            values = _PROBES.get(kind) or sorted(allowed or ())
            probes[name] = itertools.cycle([*values, None, ""] if self._may_be_missing(name) else values)
        frame = text_frame([{name: next(values) for name, values in probes.items()} for _ in range(_PROBE_ROWS)])
        try:
            cleaned = self._rows.clean(frame)
        except Exception:  # a `clean` may fail on made-up rows; the slow path is always right
            _log.info("clean() fails on generated rows, so each row goes through it", exc_info=True)
            return {}
        readers = {}
        for name, kind in kinds.items():
            finest = _FINEST.get(str(kind), 0)
            for fineness in range(finest, -1, -1):
                read = _reader(str(kind), fineness, nullable=self._may_be_missing(name))
                if same := _kept(frame[name], cleaned[name], read):
                    break
            if not same:
                _log.info("clean() changes canonical values of %s, so each row goes through it", name)
                return {}
            readers[name] = (read, [(_CHECKS[c.name], c.statistics) for c in schema.columns[name].checks])
        return readers

    def _may_be_missing(self, name: str) -> bool:
        """Whether a missing value has a plain form: NaN, in a column of numbers."""
        return bool(self._schema.columns[name].nullable) and self.dtypes[name].kind == "f"

    # -- the slow path -----------------------------------------------------------------------------------------------

    def _slow(self, rows: Sequence[Raw], now: dt.datetime) -> dict[str, np.ndarray]:
        nested = [(i, c, v) for i, row in enumerate(rows) for c, v in row.items() if isinstance(v, (list, dict))]
        if nested:
            message = "is neither text nor a number"
            raise RefusedRows(
                [RowProblem(i, c, v, f"{c}={v!r} {message}", self._right(c)) for i, c, v in nested], n_rows=len(rows)
            )
        try:
            accepted, refused = self._rows.typed(rows, now)
        except ContractError as error:
            raise RefusedRows(
                [RowProblem(0, "", None, str(error.description), "a row of the declared table")], n_rows=1
            ) from error
        if len(refused):
            at = [int(position) for position in refused.index]
            raise RefusedRows(
                [self._problem(i, rows[i], why) for i, why in zip(at, refused[REASON], strict=True)], n_rows=len(rows)
            )
        return {c: _to_numpy(accepted[c], self.dtypes[c]) for c in self.columns}

    def _problem(self, position: int, row: Raw, reason: str) -> RowProblem:
        column, _, rule = reason.partition(": ")
        value = row.get(column)
        if column not in row:
            # The row may have the column under another name, because clean() can rename columns.
            renamed = not set(row) <= set(self.columns)
            message = f"{column} is missing or unreadable" if renamed else f"{column} is missing"
        elif rule == "missing or unreadable":
            message = f"{column}={value!r} cannot be read"
        elif column == self.time and rule.startswith("after the day"):
            message = f"{column}={value!r} is in the future"
        else:
            message = f"{column}={value!r} breaks the rule {rule}"
        return RowProblem(position, column, _printable(value), message, self._right(column))

    def _right(self, name: str) -> str:
        if name not in self._schema.columns:
            return f"a row with {', '.join(self.columns)}"
        column = self._schema.columns[name]
        kind = self.kind(name)
        rules = [_KIND_WORDS.get(kind, str(column.dtype)), *(_check_words(check) for check in column.checks)]
        if name == self.time:
            rules.append("not in the future")
        if column.nullable:
            rules.append("or null")
        meaning = f" ({column.description.rstrip('.')})" if column.description else ""
        return ", ".join(rules) + meaning


_KIND_WORDS = {
    "integer": "a whole number",
    "decimal": "a number",
    "moment": "a time like 2026-10-03 14:05:09 (UTC) or 2026-10-03T16:05:09.250+02:00",
    "truth": "true or false",
    "text": "text",
}
_RULE_WORDS = {
    "greater_than": "above {min_value}",
    "greater_than_or_equal_to": "at least {min_value}",
    "less_than": "below {max_value}",
    "less_than_or_equal_to": "at most {max_value}",
    "in_range": "from {min_value} to {max_value}",
    "isin": "one of {allowed_values}",
    "notin": "none of {forbidden_values}",
}


def _kind(dtype: str, allowed: Any) -> str | None:
    """The canonical form of a column; ``None`` if it has none (free text)."""
    lower = dtype.lower()
    if lower.startswith(("int", "uint")):
        return "integer"
    if lower.startswith("float"):
        return "decimal"
    if lower.startswith("datetime"):
        return "moment" if "," not in lower and "utc" not in lower else None
    if lower.startswith("bool"):
        return "truth"
    return "member" if allowed is not None and all(isinstance(v, str) for v in allowed) else None


def _numpy_dtype(column: Any) -> np.dtype[Any]:
    """The dtype that a contract's column has in the batch stages after it is read from Parquet."""
    kind = _kind(str(column.dtype), None)
    if kind in ("integer", "truth") and column.nullable:
        return np.dtype("float64" if kind == "integer" else "object")
    if kind in ("integer", "decimal"):
        return np.dtype(str(column.dtype).lower())
    return np.dtype({"moment": "datetime64[ns]", "truth": "bool"}.get(str(kind), "object"))


def _to_numpy(values: pd.Series, dtype: np.dtype[Any]) -> np.ndarray:
    return values.to_numpy(dtype=dtype, na_value=np.nan) if dtype.kind == "f" else values.to_numpy(dtype=dtype)


_FINEST = {"decimal": 6, "moment": 2, "truth": 1}
"""The finest canonical form by kind. For decimals, the maximum number of decimal places. For moments, 1 allows an
offset and 2 also allows fractions of a second. For truths, 1 allows words other than true and false."""


def _reader(kind: str, fineness: int, *, nullable: bool = False) -> Callable[[str | None], Any]:
    """Returns a function ``text -> value``. It returns ``None`` for text that is not canonical, because a ``clean`` may
    read such text differently. If ``nullable``, it returns :data:`_MISSING` for no text and for empty text."""

    def integer(text: str | None) -> int | None:
        return int(text) if text is not None and _INTEGER.fullmatch(text) else None

    def decimal(text: str | None) -> float | None:
        found = _DECIMAL.fullmatch(text) if text is not None else None
        return float(found[0]) if found and len(found[1] or "") <= fineness else None

    def moment(text: str | None) -> dt.datetime | None:
        found = _MOMENT.fullmatch(text) if text is not None else None
        if found is None or (found["fraction"] and fineness < 2) or (found["offset"] and fineness < 1):
            return None
        try:
            read = dt.datetime.fromisoformat(found[0])
        except ValueError:  # the 31st of February
            return None
        return read.astimezone(dt.UTC).replace(tzinfo=None) if found["offset"] else read

    def truth(text: str | None) -> bool | None:
        return None if text is None or (fineness < 1 and text not in ("true", "false")) else _WORDS.get(text)

    def plain(text: str | None) -> str | None:
        return text if text and text.isprintable() and text == text.strip() else None

    def member(text: str | None) -> str | None:
        return text  # the contract's isin check decides whether it is allowed

    readers: dict[str, Callable[[str | None], Any]] = {
        "integer": integer, "decimal": decimal, "moment": moment, "truth": truth, "member": member,
        "text": plain}  # fmt: skip
    read = readers[kind]
    return (lambda text: read(text) if text else _MISSING) if nullable else read


def _kept(raw: pd.Series, cleaned: pd.Series, read: Callable[[str | None], Any]) -> bool:
    """Whether ``clean`` returned every canonical value exactly as ``read`` reads it."""
    pairs = [(read(None if pd.isna(text) else text), value) for text, value in zip(raw, cleaned, strict=True)]
    canonical = [(mine, value) for mine, value in pairs if mine is not None]
    return bool(canonical) and all(
        bool(pd.isna(value)) if mine is _MISSING else not pd.isna(value) and bool(mine == value)
        for mine, value in canonical
    )


def _check_words(check: Any) -> str:
    template = _RULE_WORDS.get(check.name)
    return template.format(**check.statistics) if template else str(check.error or check.name)


def _printable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
