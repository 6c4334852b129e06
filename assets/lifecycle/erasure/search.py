"""The proof: a search for a person through everything that is stored, by other means than the removal.

Belongs here: looking. Does not belong here: removing (``stored.py``, ``elsewhere.py``).

Tables are read row by row, as they are now and in files of earlier versions. Every other file of the state folder is
read as bytes, whatever its name: databases with their free pages, logs, pages, scratch files, packed files. The ledger
and the audit log are left out, because they stay. So is code.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from assets.lifecycle.erasure.person import ROW, Person
from assets.lifecycle.erasure.stored import Scope, content_of, days_with, lines_with, old_files_with
from resources.backup import PROJECT_DATABASE, is_database
from resources.encryption import in_use
from resources.encryption.parquet import Rows
from resources.keys import KeyProblem
from resources.request_log import RequestLog
from resources.settings import Settings
from resources.tables import ParquetTables, frame_of
from resources.tombstones import among, canonical

STAY = ("promotions", "audit_log")
"""Tables of the project's database that are never changed."""
_PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}


def search(
    settings: Settings, tables: ParquetTables, log: RequestLog, scope: Scope, names: list[str], person: Person
) -> list[str]:
    """All places where a person still is, one sentence each; empty if there is none.

    Args:
        settings: the state folder.
        tables: the tables, wherever they are.
        log: the log of requests, wherever it is.
        scope: the models.
        names: the tables to read.
        person: the person, with their keys.
    """
    found = []
    for name in names:
        for day, rows in days_with(tables, name, scope, person):
            found.append(f"{name} of {day}: {rows.num_rows} rows")
        found += [f"{file}: rows of an earlier version" for file in old_files_with(tables, name, scope, person)]
    found += [
        f"the log of requests to {place}: {lines} lines" for place, lines in lines_with(log, scope, person).items()
    ]
    for path in files_of(settings.home):
        name = path.relative_to(settings.home).as_posix()
        found += [f"{name}: {what}" for what in _in_file(path, name, person)]
    return found


def files_of(home: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones too; without code."""
    for folder, _, names in os.walk(home):
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix != ".py" and path.is_file() and not path.is_symlink():
                yield path


def _in_file(path: Path, name: str, person: Person) -> Iterator[str]:
    try:
        content = content_of(path)
    except FileNotFoundError:  # gone since it was listed
        return
    except KeyProblem as error:
        yield f"it is sealed and cannot be searched: {error}"
        return
    if name == PROJECT_DATABASE and is_database(path):
        yield from _in_database(path, person)
    elif content[:4] == b"PAR1" and content[-4:] == b"PAR1":
        yield from _in_parquet(content, person)
    elif name.startswith(f"{PROJECT_DATABASE}-"):
        return  # its log of writes; the rows are read above
    else:
        for part in _unpacked(content):
            if person.traces.is_in(part):
                yield "a value of theirs"
                return


def _unpacked(content: bytes) -> Iterator[bytes]:
    yield content
    with contextlib.suppress(OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
        for magic, unpack in _PACKED.items():
            if content.startswith(magic):
                yield unpack(content)
    if content.startswith(b"PK\x03\x04"):
        damaged = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error)
        with contextlib.suppress(*damaged), zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".py"):
                    yield archive.read(member)


def _in_parquet(content: bytes, person: Person) -> Iterator[str]:
    """Columns that name the person, keys, and texts. It asks no declaration, so it finds files that nobody knows."""
    try:
        rows = Rows(io.BytesIO(content), in_use.ring).read()
    except (pa.ArrowException, OSError, KeyProblem) as error:
        yield f"it cannot be searched ({str(error).splitlines()[0]})"
        return
    for column in rows.column_names:
        plain = column.removeprefix(ROW)
        values = frame_of([rows.select([column])])[column]
        if plain == person.column and among(values, {person.value}).any():
            yield f"rows with their {column}"
        elif plain in person.key_columns.values():
            texts = [canonical(one) for one in values.unique()]
            if any(text is not None and person.traces.is_key(text.encode()) for text in texts):
                yield f"rows with a {column} of theirs"
        elif _is_text(rows[column].type) and any(person.traces.is_in(one.encode()) for one in values.dropna().unique()):
            yield f"a text in {column}"


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _in_database(path: Path, person: Person) -> Iterator[str]:
    """The project's own database, without the tables that stay."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table in STAY:
                continue
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor:
                text = "\n".join(f"{name}: {value}" for name, value in zip(names, row, strict=True))
                if person.traces.is_in(text.encode()):
                    yield f"a row of {table}"
                    break
