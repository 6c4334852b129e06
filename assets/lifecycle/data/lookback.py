"""The features of days whose lookback does not fit into memory: the events are computed in shards of entities.

The events are written once to a folder for temporary files, one file per shard of each entity column. A shard holds all
events of its entities, so the values that need the past of one entity alone (``Features.parts``) are computed shard by
shard. Memory depends on the rows of the days and on the size of a shard, not on the rows of the lookback.

Belongs here: writing and reading shards, and the features from them. Does not belong here: when a lookback is too
large, the checks (``features.py``), any particular feature (the model folder).
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa

from assets.declaration import Columns, Features, Model
from resources.tables import InBatches, frame_of

POSITION = "_position"
"""Column of a shard: place of an event among the wanted rows, −1 for an event that is only looked back at."""


@dataclass(frozen=True)
class Sharded:
    """The events of a lookback as files, and the wanted rows.

    Args:
        folder: the folder with the shards.
        features: the declared features, with ``parts``.
        shards: number of shards of each entity column.
        carried: key and time of the wanted rows, in the order of the table.
        own: the columns that the features read, of the wanted rows, ``[wanted]`` each.
    """

    folder: Path
    features: Features
    shards: int
    carried: pd.DataFrame
    own: Columns

    def events(self, entity: str, shard: int) -> dict[str, np.ndarray]:
        """The events of one shard, with :data:`POSITION`; ``[n]`` each."""
        with pa.ipc.open_stream(self.folder / f"{entity}-{shard}") as stream:
            frame = frame_of([stream.read_all()])
        return {str(name): frame[name].to_numpy() for name in frame}

    def near(self, rows: np.ndarray, later: np.datetime64, time: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The events of the entities of some wanted rows, and all events from a moment on.

        Args:
            rows: positions among the wanted rows.
            later: the moment.
            time: name of the event time column.

        Returns:
            The columns, and the positions of ``rows`` in them, in the same order.
        """
        entities = self.features.entities
        parts: list[dict[str, np.ndarray]] = []
        for shard in range(self.shards):
            events = self.events(entities[0], shard)
            kept = events[time] >= later
            for entity in entities:
                kept |= np.isin(events[entity], self.own[entity][rows])
            parts.append({name: values[kept] for name, values in events.items()})
        events = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        position = events.pop(POSITION)
        order = np.argsort(position, kind="stable")
        return events, order[np.searchsorted(position[order], rows)]

    def computed(self) -> dict[str, np.ndarray]:
        """The features of the wanted rows, ``[wanted]`` each."""
        wanted = len(self.carried)
        made: dict[str, np.ndarray] = {}
        for entity, part in self.features.parts.items():
            for shard in range(self.shards):
                events = self.events(entity, shard)
                position = events.pop(POSITION)
                asked = np.flatnonzero(position >= 0)
                if not len(asked):
                    continue
                for name, values in part(events, asked).items():
                    made.setdefault(name, np.empty(wanted, values.dtype))[position[asked]] = values
        assert self.features.join is not None
        return self.features.join(self.own, made)


def columns_read(features: Features, model: Model) -> list[str]:
    """Names of the columns of the cleaned table that a feature function gets."""
    named = features.reads or tuple(name for name in model.table.columns if name != model.target)
    needed = [*features.entities, *([model.table.time] if model.table.time else [])]
    return list(dict.fromkeys([*named, *needed]))


@contextlib.contextmanager
def sharded(
    features: Features, model: Model, cleaned: InBatches, labels: InBatches | None, days: Sequence[str], shards: int
) -> Iterator[Sharded]:
    """Writes the events of a lookback as shards; they are removed at the end.

    Args:
        features: features with ``parts``.
        model: a model with a time column.
        cleaned: the cleaned table, days of the lookback included.
        labels: the labels; ``None`` if they do not land later.
        days: the days whose features are wanted.
        shards: number of shards of each entity column.

    Raises:
        dagster.Failure: there is no space for the shards.
    """
    names, table = columns_read(features, model), model.table
    carried_names = [c for c in (table.key, table.time) if c]
    read = list(dict.fromkeys([*carried_names, *names]))
    schema = cleaned.schema(read)
    stored = pa.schema([*(schema.field(name) for name in names), ("label", pa.float64()), (POSITION, pa.int64())])
    carried: list[pa.Table] = []
    own: list[pa.Table] = []
    wanted = 0
    with tempfile.TemporaryDirectory(prefix="assetline-lookback-") as scratch:
        folder = Path(scratch)
        try:
            with contextlib.ExitStack() as open_files:
                writers = {entity: _Writers(open_files, folder, entity, shards, stored) for entity in features.parts}
                for day in cleaned.days:
                    rows = cleaned.arrow(day, read)
                    position = np.full(len(rows), -1)
                    if day in days:
                        position = np.arange(wanted, wanted + len(rows))
                        wanted += len(rows)
                        carried.append(rows.select(carried_names))
                        own.append(rows.select(names))
                    label = _label(rows[table.key], labels, day, model)
                    events = rows.select(names).append_column("label", pa.array(label))
                    events = events.append_column(POSITION, pa.array(position)).cast(stored)
                    for one in writers.values():
                        one.write(events)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise dg.Failure(
                description=f"{model.name}: {folder.parent} has no space for the events of {len(cleaned.days)} days "
                "that the features look back at; free some, or set TMPDIR to a folder on a larger disk",
                allow_retries=False,
            ) from error
        of_wanted = frame_of(own)
        columns = {str(name): of_wanted[name].to_numpy() for name in of_wanted}
        yield Sharded(folder, features, shards, frame_of(carried), columns)


class _Writers:
    """The open files of the shards of one entity column."""

    def __init__(
        self, open_files: contextlib.ExitStack, folder: Path, entity: str, shards: int, schema: pa.Schema
    ) -> None:
        self._entity = entity
        self._streams = [
            open_files.enter_context(pa.ipc.new_stream(folder / f"{entity}-{n}", schema)) for n in range(shards)
        ]

    def write(self, rows: pa.Table) -> None:
        """Adds each row to its shard."""
        shard = shard_of(rows[self._entity].to_numpy(), len(self._streams))
        order = np.argsort(shard, kind="stable")
        ends = np.searchsorted(shard, np.arange(len(self._streams)), side="right", sorter=order)
        by_shard = rows.take(pa.array(order))
        for stream, begin, end in zip(self._streams, [0, *ends[:-1]], ends, strict=True):
            stream.write_table(by_shard.slice(begin, end - begin))


def shard_of(values: np.ndarray, shards: int) -> np.ndarray:
    """The shard of each entity, uint16 ``[n]``; equal values are in the same shard."""
    hashed = pd.util.hash_array(values, categorize=False)
    return (hashed % np.uint64(shards)).astype(np.uint16)


def _label(keys: pa.ChunkedArray, labels: InBatches | None, day: str, model: Model) -> np.ndarray:
    """The labels of one day's rows as float64 ``[n]``, NaN where unknown."""
    if labels is None or day not in labels.days:
        return np.full(len(keys), np.nan)
    known = labels.arrow(day, [model.table.key, model.target])
    label = known[model.target].to_numpy().astype(np.float64)
    if known[model.table.key].equals(keys):  # nearly always the day's labels are those of its rows in the same order
        return label
    found = pd.Index(known[model.table.key].to_numpy()).get_indexer(pd.Index(keys.to_numpy()))
    return np.where(found >= 0, np.append(label, np.nan)[found], np.nan)
