"""The rows that a version was trained on: recorded with the version, and found again later.

Belongs here: the record of the rows in a version's folder, and taking the same rows from the tables again. Does not
belong here: freezing the rows of a new training run (``training_set.py``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa

from assets.declaration import Model
from assets.lifecycle.model.training_set import counts_of, joined
from assets.lifecycle.model.version.bundle import Bundle
from resources.tables import WHOLE, Inputs, ParquetTables, Stamp, TableError, TableKeyError, encode

ROWS = "rows.json"
"""File in the folder of a version with the record of its training rows."""
MOST_NAMED = 10
"""Maximum number of changed days that a message names."""


class RowsError(Exception):
    """The rows of a version cannot be found again. The message is one sentence with the reason."""


@dataclass(frozen=True)
class RowsRecord:
    """The stamp of the training set at training time, its counts, and the version of pyarrow that encoded it.

    ``counts`` are the numbers of fit and test rows, and for binary targets of positives
    (:func:`~assets.lifecycle.model.training_set.counts_of`).
    """

    stamp: Stamp
    counts: dict[str, int]
    pyarrow: str

    @classmethod
    def of_table(cls, tables: ParquetTables, model: Model, frozen: pd.DataFrame) -> RowsRecord:
        """The record of the rows ``frozen``, which are in the table ``training_set`` now."""
        return cls(tables.existing_stamp(model.key("training_set")), counts_of(frozen, model), pa.__version__)

    def save(self, directory: Path) -> None:
        """Writes the record to the folder of a version."""
        (directory / ROWS).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> RowsRecord | None:
        """Reads the record; ``None`` for a version that was trained before there were such records.

        Raises:
            RowsError: the file is damaged.
        """
        path = directory / ROWS
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(Stamp(**stored["stamp"]), stored["counts"], stored["pyarrow"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise RowsError(f"{path} is damaged ({error!r}); restore the version's files in MLflow") from error


@dataclass(frozen=True)
class Changed:
    """A day of a table whose rows differ from those that a version was trained on; ``now`` is empty if it is gone."""

    table: str
    day: str
    then: str
    now: str


@dataclass(frozen=True)
class FoundRows:
    """The rows of a version: as a frame, and as the bytes of the Parquet file with their stamp."""

    frame: pd.DataFrame
    encoded: bytes
    stamp: Stamp


def changed_days(tables: ParquetTables, inputs: Inputs) -> list[Changed]:
    """Returns the days of ``inputs`` whose data version is another one today, by table and day."""
    found = []
    for table, days in sorted(inputs.items()):
        for day, then in sorted(days.items()):
            now = _version_now(tables, dg.AssetKey.from_user_string(table), day)
            if now != then:
                found.append(Changed(table, day, then, now))
    return found


def find_rows(tables: ParquetTables, bundle: Bundle, version: str) -> FoundRows:
    """Finds the rows that a version was trained on, and proves them by their data version.

    The table ``training_set`` holds them until the next training. Later they are joined again from the days that the
    version recorded. The result is used only if its data version is that of the version.

    Args:
        tables: the :class:`~resources.tables.ParquetTables`.
        bundle: the version's bundle.
        version: number of the version, for messages.

    Raises:
        RowsError: days have changed or are gone (the message names them), the version has no record of its days, or
            other code or another pyarrow encodes the same days differently.
    """
    model, name = bundle.model, f"version {version} of {bundle.name}"
    wanted = str(bundle.facts.fitted.get("data_version", ""))
    key = model.key("training_set")
    table = _stamp_now(tables, key)
    if table is not None and table.data_version == wanted:
        return FoundRows(tables.read(key), tables.read_bytes(key), table)
    record = RowsRecord.read(bundle.directory)
    if record is None:
        raise RowsError(
            f"{name} was trained before versions recorded their days, and {key.to_user_string()} holds the rows of a "
            "later training; its rows cannot be found again"
        )
    changed = changed_days(tables, record.stamp.inputs)
    found = None if any(not one.now for one in changed) else _joined_again(tables, model, record.stamp)
    if found is not None and found.stamp.data_version == wanted:
        return found
    if changed:
        raise RowsError(
            f"the rows of {name} are not those of today's tables; changed since the training: {_in_words(changed)}"
        )
    raise RowsError(
        f"the days of {name} have not changed, but they are encoded differently now: training_set had code version "
        f"{record.stamp.code_version} and pyarrow was {record.pyarrow}, today pyarrow is {pa.__version__}; use the "
        "commit and the packages that the version was trained with"
    )


def _joined_again(tables: ParquetTables, model: Model, stamp: Stamp) -> FoundRows | None:
    """The rows of the recorded days from today's tables; ``None`` if they cannot be read or joined."""
    days = sorted({day for by_day in stamp.inputs.values() for day in by_day})
    try:
        frame = joined(tables, model, days)
    except TableKeyError as error:
        raise RowsError(str(error)) from error
    except (TableError, KeyError, pd.errors.MergeError):
        return None
    encoded, made = encode(frame, code_version=stamp.code_version, inputs=stamp.inputs)
    return FoundRows(frame, encoded, made)


def _stamp_now(tables: ParquetTables, key: dg.AssetKey) -> Stamp | None:
    try:
        return tables.stamp(key)
    except TableError:
        return None


def _version_now(tables: ParquetTables, key: dg.AssetKey, day: str) -> str:
    """The data version of a day's file; empty if the file is gone or damaged."""
    try:
        stamp = tables.stamp(key, day)
    except TableError:
        return ""
    return stamp.data_version if stamp else ""


def _in_words(changed: list[Changed]) -> str:
    named = [
        f"{one.table}{'' if one.day == WHOLE else f' of {one.day}'}{'' if one.now else ' (gone)'}"
        for one in changed[:MOST_NAMED]
    ]
    more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
    return ", ".join(named) + more
