"""Raw rows of a model's table outside of a landing, such as those sent to the scoring service, typed as a landing is.

Belongs here: applying a declaration's ``clean`` and contract, without the target, to rows of any age. Does not belong
here: the rules themselves (the model folder), a fast path for single rows (``serving/scoring/request_parsing.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.landing import LANDING_DAY
from assets.lifecycle.data.row_outcomes import by_contract, type_and_refuse
from assets.lifecycle.data.sent_values import Raw, as_text

__all__ = ["ARRIVED_AT", "TEXT", "Raw", "RawRows", "as_text", "text_frame"]

ARRIVED_AT = "arrived_at"
"""Column of a stream with the arrival time of a row; filled in if the caller leaves it out."""

TEXT = pd.StringDtype("pyarrow")
_ANY_AGE_DAYS = 1_000_000


class RawRows:
    """Types or refuses raw rows of one model's table as its pipeline does on the day they arrive.

    The target is not required. Rows of any age are accepted; rows whose event day is in the future are refused.
    """

    def __init__(self, model: Model) -> None:
        self.columns = tuple(c for c in model.table.columns if c != model.target)
        self.time = model.table.time
        schema = model.table.contract.to_schema()
        self.schema = schema.remove_columns([c for c in schema.columns if c not in self.columns])
        contract: Any = SimpleNamespace(to_schema=lambda: self.schema)
        self._clean = model.table.clean or by_contract(replace(model.table, contract=contract))
        self._read_by_clean: list[str] = []
        # Late rows are scored too; the history decides whether they are added to it.
        self._table = replace(model.table, contract=contract, clean=self.clean, late_days=_ANY_AGE_DAYS)

    def completed(self, row: Raw, at: dt.datetime) -> Raw:
        """The row with its time of arrival, if the contract has that column and the caller left it out."""
        if self.time is not None and ARRIVED_AT in self.columns and ARRIVED_AT not in row:
            return {ARRIVED_AT: at.isoformat(sep=" ", timespec="seconds"), **row}
        return row

    def typed(self, rows: Sequence[Raw], now: dt.datetime) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Types rows, and separates those that the contract refuses.

        Args:
            rows: raw rows, ``[n]``; values are text, numbers, true, false or null.
            now: current time (UTC, naive); rows of later days are refused.

        Returns:
            ``(accepted, refused)`` as of :func:`~assets.lifecycle.data.row_outcomes.type_and_refuse`; the index is the
            position in ``rows``.

        Raises:
            ContractError: a column that the contract requires is absent.
        """
        frame = text_frame(rows)
        if self.time is not None:
            frame[LANDING_DAY] = pd.Timestamp(now.date())
        return type_and_refuse(frame, self._table)

    def empty(self) -> pd.DataFrame:
        """No rows, with the columns and types of accepted ones."""
        kinds = {name: str(column.dtype) for name, column in self.schema.columns.items()}
        return pd.DataFrame({name: pd.Series(dtype=object if kind == "str" else kind) for name, kind in kinds.items()})

    def clean(self, raw: pd.DataFrame) -> pd.DataFrame:
        """Runs ``clean`` with blanks for raw columns that the row lacks; the contract then reports missing columns."""
        raw = raw.assign(**{c: pd.array([None] * len(raw), dtype=TEXT) for c in self._read_by_clean if c not in raw})
        while True:
            try:
                typed = self._clean(raw)
                break
            except KeyError as error:
                name = str(error.args[0])
                if name in raw:
                    raise
                self._read_by_clean.append(name)
                raw[name] = pd.array([None] * len(raw), dtype=TEXT)
        return typed[[c for c in self.columns if c in typed]]


def text_frame(rows: Sequence[Raw]) -> pd.DataFrame:
    """Rows as text columns; a value that a row lacks is missing."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({c: pd.array([as_text(row.get(c)) for row in rows], dtype=TEXT) for c in columns})
