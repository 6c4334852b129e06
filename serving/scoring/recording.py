"""What the request log keeps of a request: a record for each of its rows, scored or not.

Belongs here: making the records. Does not belong here: the log itself (``resources/request_log.py``), HTTP.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from fastapi import Request

from assets.declaration import Columns, Model
from resources.request_log import Outcome, RequestRecord, Role
from serving.scoring.request_parsing import Raw, RefusedRows

MOST_KEPT_CHARACTERS = 4_096
"""Maximum length of a refused row in the log, as JSON; a longer one is left out, because anybody can send one."""
MOST_REFUSED_ROWS = 20
"""Number of rows of a request without answer that are logged; the last record says how many there were."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        request_id: its id: that of the header ``X-Request-ID``, or a new one.
        at: when it arrived (UTC, naive).
        began: when it arrived, on the clock.
        clock: returns seconds; that of the wall, or the processor time of this thread.
        role: why the version that scores it does so.
    """

    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC).replace(tzinfo=None))
    began: float = field(default_factory=time.perf_counter)
    clock: Callable[[], float] = time.perf_counter
    role: Role = "champion"

    @classmethod
    def of(cls, request: Request) -> Self:
        """The call of a request that has just arrived."""
        found = getattr(request.state, "request_id", None) or request.headers.get("x-request-id", "")
        return cls(request_id=found) if _REQUEST_ID.fullmatch(found) else cls()

    def as_role(self, role: Role) -> Self:
        """The same request, scored by one of two versions, with a clock of its own so that both can be compared.

        It counts processor time, because the version that scores second competes with the client that has its answer.
        On two busy cores it took 1.4 times as long by the clock on the wall.
        """
        return replace(self, role=role, began=time.thread_time(), clock=time.thread_time)

    @property
    def latency_ms(self) -> float:
        """Milliseconds since :attr:`began`."""
        return (self.clock() - self.began) * 1_000

    def scored(
        self,
        model: Model,
        version: str,
        raw: Sequence[Raw],
        rows: Columns,
        scores: np.ndarray,
        alerts: np.ndarray | None,
    ) -> list[RequestRecord]:
        """The records of scored rows.

        Args:
            model: declaration of the version.
            version: version that scored.
            raw: the rows as they were sent, ``[n]``.
            rows: the rows as typed columns, ``[n]`` each.
            scores: ``[n]`` or ``[n, classes]``.
            alerts: decisions, boolean ``[n]``; ``None`` if the model makes none.
        """
        keys, latency_ms = rows[model.table.key].tolist(), self.latency_ms
        entities = rows[model.entity].tolist() if model.entity else [None] * len(keys)
        decisions = alerts.tolist() if alerts is not None else [None] * len(keys)
        return [
            RequestRecord(
                request_id=self.request_id, at=self.at, model=model.name, version=version, role=self.role, key=key,
                entity=entity, row=_read_columns(row, model), score=score, alert=alert, latency_ms=latency_ms,
                outcome="ok",
            )
            for row, key, entity, score, alert in zip(raw, keys, entities, scores.tolist(), decisions, strict=True)
        ]  # fmt: skip

    def failed(
        self, model: Model, version: str, raw: Sequence[Raw], outcome: Outcome, error: Exception
    ) -> list[RequestRecord]:
        """The records of a request that got no scores; at least one, and at most :data:`MOST_REFUSED_ROWS`.

        Args:
            model: declaration of the version, or the current one if no version serves.
            version: version that refused or failed; empty if none serves.
            raw: the rows, as far as they could be read.
            outcome: whose fault it was.
            error: the reason.
        """
        by_row: dict[int, str] = {}
        if isinstance(error, RefusedRows):
            for problem in error.problems:
                by_row.setdefault(problem.row, problem.problem)
        shown: list[Raw | None] = [*raw[:MOST_REFUSED_ROWS]] or [None]
        said = getattr(error, "detail", None) or str(error) or type(error).__name__
        others = "another row of the request was refused" if by_row else str(said)[:500]
        left_out = len(raw) - len(shown)
        return [
            RequestRecord(
                request_id=self.request_id, at=self.at, model=model.name, version=version, role=self.role,
                key=_plain(row, model.table.key), entity=_plain(row, model.entity), row=_short(row, model), score=None,
                alert=None, latency_ms=self.latency_ms, outcome=outcome,
                problem=by_row.get(i, others)[:500]
                + (f" (and {left_out} more rows)" if left_out > 0 and i == len(shown) - 1 else ""),
            )
            for i, row in enumerate(shown)
        ]  # fmt: skip


def _read_columns(row: Raw, model: Model) -> Raw:
    """The part of a row that the model reads; a ``clean`` of its own may read any column."""
    columns = model.table.columns
    if model.table.clean is not None or (len(row) <= len(columns) and all(name in columns for name in row)):
        return row
    return {name: value for name, value in row.items() if name in columns}


def _short(row: Raw | None, model: Model) -> Raw | None:
    if row is None:
        return None
    kept = {name: value for name, value in row.items() if name in model.table.columns}
    return kept if len(json.dumps(kept)) <= MOST_KEPT_CHARACTERS else None


def _plain(row: Mapping[str, Any] | None, column: str | None) -> Any:
    value = row.get(column) if row is not None and column is not None else None
    return value if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 200) else None
