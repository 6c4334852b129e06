"""Recent events of the entities in a request, kept in memory so that features can be computed immediately.

Belongs here: the cleaned table and labels of the lookback window, as numpy columns with an index by entity, and the
rows scored since. Does not belong here: the log that keeps these rows across a kill (``resources/request_log.py``),
features (the declaration's function computes them from these columns), HTTP.

Rows of the tables are used as they are. A scored row is added to the history when it is answered. It stays until the
table of its day contains it or can no longer receive it: once rows of that day are too late to land (``late_days``),
only the table counts. A row is added once even if it is sent several times, because rows are identified by their key.

Rows are logged before they are answered, as they were sent. A new process parses them again, and so does each process
for the rows that others have answered: before each request it reads what is new in the log. So several processes answer
as one would. Rows that an earlier release has logged are read at the start.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.declaration import Columns, Model
from assets.lifecycle.data.features import events_of, features_of
from resources import tombstones
from resources.request_log import SHADOW, Appended, LogError, RequestLog
from resources.tables import ParquetTables
from serving.scoring.request_parsing import Raw, RefusedRows, RequestParser

__all__ = ["EntityEvents", "LogError", "Past", "TooOldError"]

_log = logging.getLogger(__name__)

_LEAST_CAPACITY = 1024
_AT_ONCE = 10_000
"""Number of logged rows that are parsed at once."""

Signature = frozenset[tuple[Any, ...]]
"""Names, sizes and times of the day files. A different signature means that the tables must be loaded again."""


class TooOldError(Exception):
    """A row needs history older than the window in memory. The message gives the earliest time that can be scored."""


@dataclass(frozen=True)
class Past:
    """The rows of the tables, as columns ordered by time, with an index for each entity column.

    Attributes:
        columns: the contract's columns without the target, plus ``label``; ``[n]`` each.
        keys: the row keys in ascending order, ``[n]``.
        by_key: position in ``columns`` of each entry of ``keys``, ``[n]``.
        order: by entity column, row positions sorted by (entity, time), ``[n]``.
        ranked: by entity column, the entity at each position of ``order``, ascending, ``[n]``.
        until: last day in the table; ``None`` if the table is empty.
        complete_from: earliest time whose full lookback is in memory; ``None`` if no older rows were left out.
        signature: signature of the files that were read.
    """

    columns: dict[str, np.ndarray]
    keys: np.ndarray
    by_key: np.ndarray
    order: dict[str, np.ndarray]
    ranked: dict[str, np.ndarray]
    until: dt.date | None
    complete_from: np.datetime64 | None
    signature: Signature

    def of(self, rows: Columns) -> list[np.ndarray]:
        """Positions of the known rows of each entity in ``rows``: one array for each entity."""
        positions = []
        for entity, ranked in self.ranked.items():
            values = rows[entity] if len(rows[entity]) == 1 else np.unique(rows[entity])
            first, end = np.searchsorted(ranked, values, "left"), np.searchsorted(ranked, values, "right")
            positions += [self.order[entity][a:b] for a, b in zip(first, end, strict=True)]
        return positions

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key has a row, boolean ``[n]``."""
        return self._at(keys) >= 0

    def labels(self, keys: np.ndarray) -> np.ndarray:
        """Label of each key, float ``[n]``; NaN if the row or its label is unknown."""
        at = self._at(keys)
        known = at >= 0
        labels = np.full(len(keys), np.nan)
        labels[known] = self.columns["label"][self.by_key[at[known]]]
        return labels

    def _at(self, keys: np.ndarray) -> np.ndarray:
        """Index of each key in ``self.keys``, ``[n]``; -1 if there is no such row."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)


class EntityEvents:
    """The recent history of one model's table. Not thread-safe, except :meth:`load`, which changes no state.

    Args:
        model: declaration of the served version; its entities, lookback and delays determine which rows are kept.
        parser: parser of the model's rows.
        tables: storage of the day files.
        log: log of all requests. With ``None``, scored rows are not added (a temporary process).

    Raises:
        LogError: the log cannot be read.
    """

    def __init__(self, model: Model, parser: RequestParser, tables: ParquetTables, log: RequestLog | None) -> None:
        features = features_of(model)
        self._model, self._dtypes, self._tables = model, dict(parser.dtypes), tables
        self._key, self._time = model.table.key, model.table.time
        self._entities = features.entities if model.is_stream else ()
        self._lookback = np.timedelta64(features.lookback_days, "D")
        # A candidate's test rows are replayed through the service; they are the oldest rows that it must score.
        reach = max(model.table.late_days, model.label_delay_days + model.training.test_days)
        self._kept_days = features.lookback_days + reach + 1
        self._recent = _Recent(self._dtypes, self._entities, self._key)
        self._past = self._nothing()
        self._follower = None
        # Before anything is read: a removal that ends while the history is read counts as a later one.
        self._forgotten_state, self._forgotten = self._state_of_tombstones(), self._finished()
        if self._entities:
            self.adopt(self.load())
            if log is not None:
                since = str(self._unsettled or "")
                self._replay(log.earlier_release(model.name), since)
                self._follower = log.follow(model.name, since)
                self.refresh(parser)

    @property
    def rows(self) -> int:
        """Number of rows in memory."""
        return len(self._past.keys) + len(self._recent)

    @property
    def past(self) -> Past:
        """The rows of the tables; another object once they were read anew."""
        return self._past

    @property
    def until(self) -> dt.date | None:
        """Last day in the table; ``None`` if the table is empty."""
        return self._past.until

    def serves(self, model: Model, dtypes: Mapping[str, np.dtype[Any]]) -> bool:
        """Whether another declaration needs exactly the rows kept here, so that both can share this history."""
        return self._needs(model, dtypes) == self._needs(self._model, self._dtypes)

    @staticmethod
    def _needs(model: Model, dtypes: Mapping[str, np.dtype[Any]]) -> tuple[Any, ...]:
        table, features = model.table, features_of(model)
        days = (features.lookback_days, table.late_days, model.label_age, model.training.test_days)
        return dict(dtypes), (table.name, table.key, table.time, model.target), features.entities, days

    def example(self) -> dict[str, np.ndarray] | None:
        """The latest row of the tables, as typed columns ``[1]``; ``None`` if the tables are empty."""
        if len(self._past.keys) == 0:
            return None
        return {name: self._past.columns[name][-1:] for name in self._dtypes}

    # -- reading -----------------------------------------------------------------------------------------------------

    def events(self, rows: Columns) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The input of the features function for ``rows``: their entities' history, followed by the rows themselves.

        Args:
            rows: typed columns of the contract without the target, ``[n]`` each.

        Returns:
            ``(events, wanted)`` for the features function; ``label`` is NaN where unknown. A row that is sent again
            replaces the known row with the same key, so it is not part of its own history.

        Raises:
            TooOldError: the lookback of a row starts before the history in memory.
        """
        n = len(rows[self._key])
        label = self._past.labels(rows[self._key])
        if not self._entities:
            return {**rows, "label": label}, np.arange(n)
        assert self._time is not None
        times = rows[self._time]
        earliest = times.min()
        if self._past.complete_from is not None and earliest < self._past.complete_from:
            raise TooOldError(
                f"{self._time}={str(earliest)[:19]} is too old: the service keeps the history of rows from "
                f"{str(self._past.complete_from)[:10]} on; score older rows in batch, by materialising that day"
            )
        since = earliest.astype("datetime64[D]") - self._lookback
        past = self._seen(rows, since, self._past.columns, self._past.of(rows))
        recent = self._seen(rows, since, self._recent.columns, self._recent.of(rows))
        events = {
            name: np.concatenate([self._past.columns[name][past], self._recent.columns[name][recent], rows[name]])
            for name in rows
        }
        events["label"] = np.concatenate([self._past.columns["label"][past], np.full(len(recent), np.nan), label])
        return events, np.arange(len(past) + len(recent), len(past) + len(recent) + n)

    def _seen(self, rows: Columns, since: np.datetime64, columns: Columns, parts: list[np.ndarray]) -> np.ndarray:
        """Unique positions of the events that lie within the window and do not share a key with ``rows``."""
        if not parts:
            return np.empty(0, np.int64)
        positions = np.unique(np.concatenate(parts))  # one row may match both a customer and a terminal
        times, keys = columns[str(self._time)][positions], columns[self._key][positions]
        within = (times >= since) & (times < rows[str(self._time)].max())
        own = rows[self._key]
        return positions[within & (keys != own[0] if len(own) == 1 else ~np.isin(keys, own))]

    # -- writing -----------------------------------------------------------------------------------------------------

    def refresh(self, parser: RequestParser) -> None:
        """Adds the rows that any process has answered since the last call. Rows that are known stay as they are.

        Args:
            parser: parser of the version that is about to score.

        Raises:
            LogError: the log cannot be read.
        """
        if self._follower is not None and (lines := self._follower.fetch()):
            answered = [line for line in lines if line["outcome"] == "ok" and line["role"] != SHADOW]
            for rows in _parsed(sorted(answered, key=lambda line: str(line["at"])), parser):
                self._add_new(rows)

    def add(self, rows: Columns, logged: Sequence[Appended]) -> None:
        """Adds scored rows to the history, after they have been logged.

        Args:
            rows: typed columns of the contract without the target, ``[n]`` each.
            logged: where they are in the log.
        """
        if self._follower is not None:
            self._follower.passed(logged)
            self._add_new(rows)

    def take_over(self, other: EntityEvents) -> None:
        """Adds the rows that ``other`` (the history of the previous version) has scored and this one does not have."""
        columns = other._recent.columns
        if other is not self and self._entities and set(columns) >= set(self._dtypes):
            self._add_new({name: columns[name].astype(dtype) for name, dtype in self._dtypes.items()})

    def close(self) -> None:
        """Stops following the log."""
        if self._follower is not None:
            self._follower.close()

    def _add_new(self, rows: Columns) -> None:
        new = self._new(rows)
        self._count({name: values[new] for name, values in rows.items()})

    def _new(self, rows: Columns) -> np.ndarray:
        """Whether each row is countable and new, boolean ``[n]``; of rows with the same key, only the first."""
        keys = rows[self._key]
        if len(keys) == 1:  # most requests have one row
            return ~(self._past.has(keys) | self._recent.has(keys)) & self._countable(rows)
        new = np.zeros(len(keys), dtype=bool)
        new[np.unique(keys, return_index=True)[1]] = True
        return new & ~(self._past.has(keys) | self._recent.has(keys)) & self._countable(rows)

    def _countable(self, rows: Columns) -> np.ndarray:
        """Whether each row lies within the window and its day's table can still receive it, boolean ``[n]``."""
        times = rows[str(self._time)]
        if len(times) == 0:
            return np.zeros(0, dtype=bool)
        newest = times.max() if (last := self._recent.last(str(self._time))) is None else max(times.max(), last)
        oldest = newest - np.timedelta64(self._kept_days, "D")
        return times >= (oldest if self._unsettled is None else max(oldest, np.datetime64(self._unsettled)))

    @property
    def _unsettled(self) -> dt.date | None:
        """First day whose table can still receive rows; ``None`` if the table is empty."""
        return self._past.until and self._past.until - dt.timedelta(days=self._model.table.late_days - 1)

    def _count(self, rows: Columns) -> None:
        if self._recent.is_full(len(rows[self._key])):
            kept = {name: np.concatenate([values, rows[name]]) for name, values in self._recent.columns.items()}
            counts = self._countable(kept)
            rows = {name: values[counts] for name, values in kept.items()}
            self._recent = _Recent(self._dtypes, self._entities, self._key, 2 * len(rows[self._key]))
        self._recent.add(rows)

    def _replay(self, files: Sequence[Path], since: str) -> None:
        """Adds the rows of the logs of an earlier release: one file for each event day, with typed rows."""
        if logged := [row for path in files if path.stem >= since for row in _logged(path, self._dtypes)]:
            self._add_new({n: _from_json([row[n] for row in logged], dtype) for n, dtype in self._dtypes.items()})

    # -- the tables --------------------------------------------------------------------------------------------------

    def is_stale(self) -> bool:
        """Whether day files have changed since the tables were read. Lists two folders."""
        return bool(self._entities) and self._signature() != self._past.signature

    def must_forget(self) -> bool:
        """Whether a person was forgotten since the history was read. Looks at one file.

        Rows of theirs may then be in memory; a new history, read from the tables and the log, is without them.

        Raises:
            TombstoneError: the file is damaged.
        """
        if (state := self._state_of_tombstones()) == self._forgotten_state:
            return False
        if self._finished() <= self._forgotten:
            self._forgotten_state = state
            return False
        return True

    def _state_of_tombstones(self) -> str:
        state = self._tables.files.state(tombstones.FILE)
        return state.token if state else ""

    def _finished(self) -> frozenset[str]:
        return tombstones.Tombstones.read(self._tables.files).finished

    def load(self) -> Past:
        """Reads the window of the tables. It changes no state, so it may run in a thread; see :meth:`adopt`."""
        model = self._model
        table_key, labels_key = model.key(model.table.name), model.key("labels")
        signature = self._signature()  # taken before the read: files written meanwhile count as stale next time
        there = self._tables.days(table_key)
        if not there:
            return self._nothing()
        last = dt.date.fromisoformat(there[-1])
        oldest = last - dt.timedelta(days=self._kept_days)
        days = [day for day in there if day >= oldest.isoformat()]
        # A ranking has the weights of events as labels: they are its history.
        has_labels = model.reads_labels or model.ranking is not None
        labelled = set(self._tables.days(labels_key)) if has_labels else set()
        cleaned = self._tables.read(table_key, days, [*self._dtypes])
        labels = None
        if known := [day for day in days if day in labelled]:
            labels = self._tables.read(labels_key, known, [model.table.key, model.target])
        cleaned = cleaned.sort_values(str(self._time), kind="stable", ignore_index=True)
        columns = {
            name: values if name == "label" else values.astype(self._dtypes[name])
            for name, values in events_of(cleaned, labels, model).items()
        }
        by_key = np.argsort(columns[self._key], kind="stable")
        order = {entity: np.argsort(columns[entity], kind="stable") for entity in self._entities}
        return Past(
            columns=columns,
            keys=columns[self._key][by_key],
            by_key=by_key,
            order=order,
            ranked={entity: columns[entity][order[entity]] for entity in self._entities},
            until=last,
            complete_from=np.datetime64(oldest) + self._lookback if there[0] < oldest.isoformat() else None,
            signature=signature,
        )

    def adopt(self, past: Past) -> None:
        """Replaces the table rows with the result of :meth:`load`; drops scored rows that are in it or have expired."""
        scored, self._past = self._recent.columns, past
        self._recent = _Recent(self._dtypes, self._entities, self._key)
        self._add_new(scored)

    def _nothing(self) -> Past:
        columns = {name: np.empty(0, dtype) for name, dtype in self._dtypes.items()} | {"label": np.empty(0)}
        empty = {entity: np.empty(0, np.int64) for entity in self._entities}
        ranked = {entity: columns[entity] for entity in self._entities}
        signature = self._signature() if self._entities else frozenset()
        return Past(columns, columns[self._key], np.empty(0, np.int64), empty, ranked, None, None, signature)

    def _signature(self) -> Signature:
        return frozenset(
            (name, day, state.token)
            for name in (self._model.table.name, "labels")
            for day, state in self._tables.states(self._model.key(name)).items()
        )


class _Recent:
    """Scored rows in arrays preallocated for ``capacity`` rows, with an index of positions by entity."""

    def __init__(
        self, dtypes: Mapping[str, np.dtype[Any]], entities: Sequence[str], key: str, capacity: int = 0
    ) -> None:
        self._capacity = max(capacity, _LEAST_CAPACITY)
        self._buffers = {name: np.empty(self._capacity, dtype) for name, dtype in dtypes.items()}
        self._by: dict[str, dict[Any, list[int]]] = {entity: {} for entity in entities}
        self._keys: set[Any] = set()
        self._key = key
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The rows in order of arrival, ``[n]`` each."""
        return {name: buffer[: self._n] for name, buffer in self._buffers.items()}

    def last(self, column: str) -> Any:
        """The value of a column in the row that came last; ``None`` if there is none."""
        return self._buffers[column][self._n - 1] if self._n else None

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key has a row, boolean ``[n]``."""
        return np.fromiter((key in self._keys for key in keys.tolist()), bool, len(keys))

    def of(self, rows: Columns) -> list[np.ndarray]:
        """Positions of the known rows of each entity in ``rows``: one array for each entity."""
        return [
            np.array(by[value])
            for entity, by in self._by.items()
            for value in set(rows[entity].tolist())
            if value in by
        ]  # fmt: skip

    def is_full(self, more: int) -> bool:
        """Whether ``more`` rows would exceed the capacity."""
        return self._n + more > self._capacity

    def add(self, rows: Columns) -> None:
        """Appends rows. The caller checks the capacity first, with :meth:`is_full`."""
        n = len(rows[self._key])
        for name, buffer in self._buffers.items():
            buffer[self._n : self._n + n] = rows[name]
        for entity, positions in self._by.items():
            for i, value in enumerate(rows[entity].tolist(), self._n):
                positions.setdefault(value, []).append(i)
        self._keys.update(rows[self._key].tolist())
        self._n += n


def _parsed(lines: Sequence[Mapping[str, Any]], parser: RequestParser) -> Iterator[dict[str, np.ndarray]]:
    """The logged rows as typed columns, without those that the contract refuses (it may have changed since)."""
    for start in range(0, len(lines), _AT_ONCE):
        rows: list[Raw] = [
            parser.completed(line["row"], dt.datetime.fromisoformat(line["at"]))
            for line in lines[start : start + _AT_ONCE]
        ]
        now = max(dt.datetime.fromisoformat(line["at"]) for line in lines[start : start + _AT_ONCE])
        try:
            yield parser.parse(rows, now)
        except RefusedRows as error:
            refused = {problem.row for problem in error.problems}
            _log.warning("%d logged rows are no history, for the contract has changed (%s)", len(refused), error)
            if kept := [row for i, row in enumerate(rows) if i not in refused]:
                yield parser.parse(kept, now)


def _logged(path: Path, columns: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The rows of an earlier release's file, without incomplete lines and rows of an older contract."""
    wanted = set(columns)
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line:
            continue
        try:
            row = json.loads(line)["row"]
        except (json.JSONDecodeError, KeyError, TypeError):
            _log.warning("%s:%d is an incomplete line (a kill before its response was sent); skipped", path, number)
            continue
        if wanted <= set(row):
            yield row
        else:
            _log.warning("%s:%d lacks %s (an older contract?); skipped", path, number, ", ".join(wanted - set(row)))


def _from_json(values: list[Any], dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind == "M":
        return np.array([np.datetime64("NaT") if v is None else np.datetime64(v) for v in values], dtype)
    return np.array([np.nan if v is None and dtype.kind == "f" else v for v in values], dtype)
