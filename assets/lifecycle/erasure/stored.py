"""A person's rows in the tables and in the log of requests.

Belongs here: finding and removing rows. Does not belong here: files of model versions, events, text (``elsewhere.py``).
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa

from assets.declaration import Model
from assets.lifecycle.data.forgotten import identities
from assets.lifecycle.data.raw_rows import RawRows, text_frame
from assets.lifecycle.erasure.person import ROW, Person
from resources.encryption import in_use
from resources.encryption.parquet import Rows
from resources.encryption.sealed import HEAD, is_sealed, key_of, seal, unseal
from resources.request_log import RequestLog
from resources.tables import ParquetTables, frame_of
from resources.tombstones import among, canonical, digested_among

_ORDER = ("raw_", "quarantine", "labels", "features", "training_set")
"""Tables of a model are cleaned from the first to the last, so that a run reads clean inputs as early as possible."""


@dataclass(frozen=True)
class Scope:
    """The models whose rows of a person go.

    Attributes:
        models: the declared models.
        column: the column that names the person.
    """

    models: Sequence[Model]
    column: str

    def cleaned(self, model: Model) -> str:
        """Name of a model's cleaned table, which its keys belong to, e.g. ``fraud/payments``."""
        return f"{model.lander}/{model.table.name}"

    def of_table(self, name: str) -> Model | None:
        """The model that a table on the disk belongs to; ``None`` if no model declares it any more."""
        owner, _, asset = name.partition("/")
        for model in self.models:
            if owner == model.name or (owner == model.lander and asset in model.table.assets):
                return model
        return None

    def tables(self, tables: ParquetTables, declared: Sequence[str]) -> list[str]:
        """Names of the tables to look at: of the models, and of models that are no longer declared.

        Args:
            tables: the tables.
            declared: names of all declared models; those of others are not looked at unless the scope has them.
        """
        names = [n for n in tables.names() if self.of_table(n) is not None or n.partition("/")[0] not in declared]

        def place(name: str) -> tuple[int, str]:
            asset = name.partition("/")[2]
            return next((i for i, first in enumerate(_ORDER) if asset.startswith(first)), len(_ORDER)), name

        return sorted(names, key=place)


def theirs(rows: pa.Table, name: str, scope: Scope, person: Person) -> np.ndarray:
    """Whether each row of a table is the person's, boolean ``[n]``.

    Args:
        rows: the rows, with all columns.
        name: name of the table, e.g. ``fraud/raw_payments``.
        scope: the models.
        person: the person.
    """
    model, there = scope.of_table(name), set(rows.column_names)
    cleaned, asset = (scope.cleaned(model) if model else ""), name.partition("/")[2]
    values = _values(rows, name, scope, [person.column, *([model.table.key] if model else [])])
    mask = np.zeros(rows.num_rows, dtype=bool)
    if person.column in values:
        mask |= among(values[person.column], {person.value})
    if model and model.table.key in values:
        of_key = values[model.table.key]
        mask |= among(of_key, person.keys.get(cleaned, ()))
        mask |= digested_among(of_key, person.digests.get(cleaned, ()), person.tombstones)
    if "sent" in there and asset == "requests":
        sent = [{"row": json.loads(text) if text else None} for text in rows["sent"].to_pylist()]
        mask |= np.array(their_lines(sent, model, scope, person), dtype=bool) if model else False
    return mask


def _values(rows: pa.Table, name: str, scope: Scope, wanted: Sequence[str]) -> dict[str, pd.Series]:
    """The values of some columns of the contract in a table's rows, ``[n]`` each, whatever the table calls them."""
    model, asset = scope.of_table(name), name.partition("/")[2]
    if model and (asset.startswith("raw_") or asset == "quarantine"):
        return identities(model.table, frame_of([rows]), wanted)
    there = {column: found for column in wanted for found in (f"{ROW}{column}", column) if found in rows.column_names}
    return {column: frame_of([rows.select([found])])[found] for column, found in there.items()}


def with_keys(tables: ParquetTables, log: RequestLog, scope: Scope, declared: Sequence[str], person: Person) -> Person:
    """The person with the keys of all their rows, of all tables that name them and of the log."""
    keys: dict[str, set[str]] = {scope.cleaned(model): set() for model in scope.models}
    for name in scope.tables(tables, declared):
        model = scope.of_table(name)
        if model is None:
            continue
        for _, rows in days_with(tables, name, scope, person):
            values = _values(rows, name, scope, [model.table.key]).get(model.table.key, pd.Series(dtype=object))
            keys[scope.cleaned(model)] |= {text for one in values.unique() if (text := canonical(one)) is not None}
    for model, _, lines in _logged(log, scope, person):
        for _, of_line in _identities(lines, model, scope):
            keys[scope.cleaned(model)] |= of_line
    columns = {scope.cleaned(model): model.table.key for model in scope.models}
    return replace(person, keys={table: frozenset(found) for table, found in keys.items()}, key_columns=columns)


def days_with(tables: ParquetTables, name: str, scope: Scope, person: Person) -> Iterator[tuple[str, pa.Table]]:
    """Days of a table that have rows of the person, with these rows."""
    key = dg.AssetKey(name.split("/"))
    for day in tables.days(key):
        rows = _recognisable(tables, key, day, scope, person)
        mask = theirs(rows, name, scope, person)
        if mask.any():
            yield day, rows.filter(pa.array(mask))


def _recognisable(tables: ParquetTables, key: dg.AssetKey, day: str, scope: Scope, person: Person) -> pa.Table:
    """The rows of a day with the columns by which :func:`theirs` recognises them."""
    name = "/".join(key.path)
    model, asset = scope.of_table(name), key.path[-1]
    if model and (asset.startswith("raw_") or asset == "quarantine"):
        return tables.arrow(key, [day])[0]
    wanted = [person.column, "sent", *([model.table.key] if model else [])]
    columns = [column for column in tables.types(key, day) if column.removeprefix(ROW) in wanted]
    return tables.arrow(key, [day], columns)[0] if columns else pa.table({})


def remove_from_table(tables: ParquetTables, name: str, scope: Scope, person: Person) -> dict[str, int]:
    """Replaces each file that has rows of the person; returns the number of rows that went by day."""
    key, gone = dg.AssetKey(name.split("/")), {}
    for day in tables.days(key):
        mask = theirs(_recognisable(tables, key, day, scope, person), name, scope, person)
        if mask.any():
            tables.keep_rows(key, day, ~mask)
            gone[day] = int(mask.sum())
    return gone


def old_files_with(tables: ParquetTables, name: str, scope: Scope, person: Person) -> list[str]:
    """Names of the files of earlier versions of a table, and of scratch files in a folder, with rows of the person."""
    return [file for file, rows in old_rows(tables, name) if theirs(rows, name, scope, person).any()]


def old_rows(tables: ParquetTables, name: str) -> Iterator[tuple[str, pa.Table]]:
    """The files of earlier versions of a table, and scratch files in a folder, with their rows."""
    plain = getattr(tables.files, "plain", tables.files)
    for file in [*tables.old_files(dg.AssetKey(name.split("/"))), *_scratch(tables, name)]:
        try:
            with plain.opened(file) as opened:
                rows = Rows(opened, in_use.ring).read()
        except (pa.ArrowInvalid, FileNotFoundError):
            continue  # half a file of a killed writer; the search reads its bytes
        yield file, rows


def _scratch(tables: ParquetTables, name: str) -> list[str]:
    """Files that killed writers have left in a folder on this machine."""
    plain = getattr(tables.files, "plain", tables.files)
    root = Path(getattr(plain, "root", "")).absolute()
    if "://" in str(getattr(plain, "root", "")):
        return []
    return [posixpath.join(name, path.name) for path in sorted((root / name).glob(".*.tmp"))]


# -- the log of requests -----------------------------------------------------------------------------------------------


Line = Mapping[str, Any]


def their_lines(lines: Sequence[Line], model: Model, scope: Scope, person: Person) -> list[bool]:
    """Whether each line of the log of requests to a model is the person's, ``[n]``."""
    table = scope.cleaned(model)
    return [
        person.value in entities or any(person.has_key(table, key) for key in keys)
        for entities, keys in _identities(lines, model, scope)
    ]


def _identities(lines: Sequence[Line], model: Model, scope: Scope) -> list[tuple[set[str], set[str]]]:
    """For each line, the values of the column that names people, and the keys: as logged, as sent, and as cleaned."""
    found: list[tuple[set[str], set[str]]] = []
    unread = []
    for n, line in enumerate(lines):
        row = line.get("row")
        sent = row if isinstance(row, Mapping) else {}
        entities = [sent.get(scope.column), *([line.get("entity")] if model.entity == scope.column else [])]
        keys = [line.get("key"), sent.get(model.table.key)]
        found.append((_texts(entities), _texts(keys)))
        if sent and not all(found[-1]):  # the row may name its columns otherwise
            unread.append((n, sent))
    for n, name, value in _cleaned(unread, model, scope):
        found[n][name == model.table.key].update(_texts([value]))
    return found


def _texts(values: Sequence[Any]) -> set[str]:
    plain = (one for one in values if isinstance(one, str | int | float))
    return {text for one in plain if (text := canonical(one)) is not None}


def _cleaned(unread: Sequence[tuple[int, Line]], model: Model, scope: Scope) -> Iterator[tuple[int, str, Any]]:
    """Number of the line, column and value of rows, as the model's ``clean`` reads them."""
    if not unread:
        return
    try:
        typed = RawRows(model).clean(text_frame([row for _, row in unread]))
    except Exception:  # whatever a model's own code raises; a row that it cannot read must not hide the others
        if len(unread) > 1:
            for one in unread:
                yield from _cleaned([one], model, scope)
        return
    for name in (scope.column, model.table.key):
        if name in typed and len(typed) == len(unread):
            yield from ((n, name, value) for (n, _), value in zip(unread, typed[name].tolist(), strict=True))


def _logged(log: RequestLog, scope: Scope, person: Person) -> Iterator[tuple[Model, str, list[Line]]]:
    """By model and day, the lines of the person; days without one are left out."""
    there = set(log.models())
    for model in scope.models:
        for day in log.days(model.name) if model.name in there else ():
            lines = [line for one in log.store.lines(model.name, day) for line in one.lines]
            mine = their_lines(lines, model, scope, person)
            if any(mine):
                yield model, day, [line for line, is_mine in zip(lines, mine, strict=True) if is_mine]


def lines_with(log: RequestLog, scope: Scope, person: Person) -> dict[str, int]:
    """Number of lines of the log that are the person's, by place."""
    found = {f"{model.name}, {day}": len(lines) for model, day, lines in _logged(log, scope, person)}
    for model in scope.models:
        for path in log.earlier_release(model.name):
            if lines := sum(_earlier(path, model, scope, person)[1]):
                found[f"{model.name}, {path.name} of an earlier release"] = lines
    return found


def remove_from_log(log: RequestLog, scope: Scope, person: Person) -> int:
    """Erases the person's lines of the log; returns their number."""
    erased, there = 0, set(log.models())
    for model in scope.models:
        for day in log.days(model.name) if model.name in there else ():
            erased += log.store.forget(model.name, day, lambda lines, m=model: their_lines(lines, m, scope, person))  # type: ignore[misc]
        for path in log.earlier_release(model.name):  # nothing writes to these any more
            lines, mine = _earlier(path, model, scope, person)
            if any(mine):
                kept = (line for line, is_mine in zip(lines, mine, strict=True) if not is_mine)
                replace_file(path, b"".join(kept))
                erased += sum(mine)
    if erased and hasattr(log.store, "vacuum"):
        log.store.vacuum()
    return erased


def _earlier(path: Path, model: Model, scope: Scope, person: Person) -> tuple[list[bytes], list[bool]]:
    """The lines of a file of an earlier release, and whether each is the person's."""
    lines = path.read_bytes().splitlines(keepends=True)
    rows = []
    for line in lines:
        try:
            rows.append({"row": json.loads(line)["row"]})
        except (ValueError, TypeError, KeyError):
            rows.append({"row": None})
    return lines, their_lines(rows, model, scope, person)


def content_of(path: Path) -> bytes:
    """The bytes of a file, in the clear. Raises :class:`~resources.keys.KeyProblem` if it cannot be opened."""
    content = path.read_bytes()
    return unseal(content, in_use.ring()) if is_sealed(content) else content


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file whole or not at all; one that was sealed is sealed again."""
    with path.open("rb") as before:
        sealed_by = key_of(before.read(HEAD))
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch.write_bytes(seal(content, sealed_by[0], in_use.ring()) if sealed_by else content)
    os.chmod(scratch, path.stat().st_mode)
    os.replace(scratch, path)
