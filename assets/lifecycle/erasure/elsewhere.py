"""A person in what was made from their rows: files of model versions, Dagster's events, and text.

Belongs here: finding and removing them there. Does not belong here: tables and the log of requests (``stored.py``).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.erasure.person import ROW, Person
from assets.lifecycle.erasure.stored import Scope, content_of, days_with, replace_file
from assets.lifecycle.model.evaluation import REPORT_FILE
from assets.lifecycle.model.version.bundle import BACKGROUND
from resources.dagster_internals import rewrite_events
from resources.encryption.sealed import HEAD, is_sealed
from resources.settings import Settings
from resources.tables import ParquetTables, TableError
from resources.tombstones import canonical

TEXT = (".log", ".txt", ".out", ".err", ".html", ".md")
"""Suffixes of files in which a person's values are overwritten with ``*``."""
LINES = ".jsonl"
_TABLE_ROW = re.compile(rb"<tr><th>([^<]*)<small.*?</tr>\n?", re.DOTALL)
"""A row of the table of explained rows in ``report.html``, with its key."""


def feature_rows(tables: ParquetTables, scope: Scope, person: Person) -> set[bytes]:
    """The person's rows of features, each as the bytes of its float32 values, by which samples are compared."""
    found: set[bytes] = set()
    for model in scope.models:
        name, columns = f"{model.name}/features", list(features_of(model).names)
        key = dg.AssetKey(name.split("/"))
        for day, _ in days_with(tables, name, scope, person):
            found |= set(_of_day(tables, key, day, model, person, scope, columns))
    return found


def _of_day(
    tables: ParquetTables, key: dg.AssetKey, day: str, model: Model, person: Person, scope: Scope, columns: list[str]
) -> Iterator[bytes]:
    try:
        rows = tables.read(key, [day], [model.table.key, *columns])
    except TableError:  # features of an older declaration
        return
    mine = [person.has_key(scope.cleaned(model), canonical(one)) for one in rows[model.table.key]]
    for row in rows.loc[mine, columns].to_numpy(dtype=np.float32):
        yield row.tobytes()


def samples_with(settings: Settings, rows: set[bytes], *, remove: bool) -> dict[str, int]:
    """Number of rows of the person among the rows that versions keep for explanations, by file; or removes them."""
    found = {}
    for path in sorted(settings.artifacts.rglob(BACKGROUND)):
        try:
            sample = np.load(io.BytesIO(content_of(path)), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue  # damaged; the search names it
        mine = np.array([row.astype(np.float32).tobytes() in rows for row in sample], dtype=bool)
        if not mine.any():
            continue
        found[str(path.relative_to(settings.home))] = int(mine.sum())
        if remove and mine.all():
            path.unlink()  # the version then says that it cannot explain its scores
        elif remove:
            content = io.BytesIO()
            np.save(content, sample[~mine], allow_pickle=False)
            replace_file(path, content.getvalue())
    return found


def explained_with(settings: Settings, person: Person, *, remove: bool) -> dict[str, int]:
    """Number of the person's rows among the explained rows of evaluations, by file; or removes them."""
    found = {}
    keys = {text for of_table in person.keys.values() for text in of_table}

    def mine(key: Any) -> bool:
        text = canonical(key)
        return text in keys or any(person.has_key(table, text) for table in person.digests)

    for path in sorted(settings.artifacts.rglob(REPORT_FILE)):
        with contextlib.suppress(ValueError):
            parts = json.loads(content_of(path))
            rows = (parts.get("details") or {}).get("explained") or []
            kept = [row for row in rows if not mine(row.get("key"))]
            if len(kept) < len(rows):
                found[str(path.relative_to(settings.home))] = len(rows) - len(kept)
                if remove:
                    parts["details"]["explained"] = kept
                    replace_file(path, json.dumps(parts).encode())
    for path in sorted(settings.artifacts.rglob("evaluation.html")):
        content = content_of(path)
        rows_of_page = [one for one in _TABLE_ROW.finditer(content) if mine(one[1].decode("utf-8", "replace"))]
        if rows_of_page:
            found[str(path.relative_to(settings.home))] = len(rows_of_page)
            if remove:
                for one in reversed(rows_of_page):
                    content = content[: one.start()] + content[one.end() :]
                replace_file(path, content)
    return found


def texts_with(settings: Settings, person: Person, *, remove: bool) -> dict[str, int]:
    """Number of the person's values in text files of the state folder, by file; or overwrites them in place.

    In place, because the process that writes a log has the file open. Each value becomes as many ``*``.
    """
    found = {}
    for path in sorted(one for one in settings.home.rglob("*") if one.is_file() and is_text(one)):
        content = content_of(path)
        spans = [span for span in person.traces.spans(content) if path.suffix != LINES or _is_torn(content, span)]
        if spans:
            found[str(path.relative_to(settings.home))] = len(spans)
            if remove and _is_sealed(path):
                replace_file(path, person.traces.masked(content))
            elif remove:
                with path.open("r+b") as file:
                    for begin, end in spans:
                        file.seek(begin)
                        file.write(b"*" * (end - begin))
    return found


def _is_sealed(path: Path) -> bool:
    with path.open("rb") as file:
        return is_sealed(file.read(HEAD))


def is_text(path: Path) -> bool:
    """Whether values in a file may be overwritten: captured output, logs, pages; torn lines of the log of requests."""
    return path.suffix in (*TEXT, LINES) and not path.is_symlink()


def _is_torn(content: bytes, span: tuple[int, int]) -> bool:
    """Whether the line around a place is not JSON, as after a kill amid a write; others go as a whole."""
    begin = content.rfind(b"\n", 0, span[0]) + 1
    end = content.find(b"\n", span[1])
    try:
        json.loads(content[begin : end if end >= 0 else len(content)])
    except ValueError:
        return True
    return False


def events_with(instance: dg.DagsterInstance, person: Person, *, remove: bool) -> int:
    """Number of Dagster's events with a sample or a message about the person's rows; or removes them from these."""
    return rewrite_events(instance, lambda text: without_person(text, person), write=remove)


def without_person(text: str, person: Person) -> str | None:
    """An event as JSON without the person: rows of samples go, other values become ``*``; ``None`` if nothing changes.

    An event that is not JSON is treated as text.
    """
    try:
        event = json.loads(text)
    except ValueError:
        masked = person.traces.masked(text.encode()).decode()
        return masked if masked != text else None
    changed = _walked(event, person)
    return json.dumps(changed) if changed != event else None


def _walked(value: Any, person: Person) -> Any:
    match value:
        case dict():
            return {
                name: None if _is_theirs(name, one, person) else _walked(one, person) for name, one in value.items()
            }
        case list():
            return [_walked(one, person) for one in value]
        case str():
            return person.traces.masked(_without_rows(value, person).encode()).decode()
    return value


def _is_theirs(name: str, value: Any, person: Person) -> bool:
    """Whether a number of JSON is theirs; texts are masked instead."""
    plain = name.removeprefix(ROW)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    text = canonical(value)
    return (plain == person.column and text == person.value) or (
        plain in person.key_columns.values() and text is not None and person.traces.is_key(text.encode())
    )


def _without_rows(text: str, person: Person) -> str:
    """A table in Markdown without the person's rows; other text as it is."""
    if not text.startswith("| ") or "\n| ---" not in text:
        return text
    lines = text.split("\n")
    names = _cells(lines[0])
    entity = [i for i, name in enumerate(names) if name.removeprefix(ROW) == person.column]
    key = [i for i, name in enumerate(names) if name.removeprefix(ROW) in person.key_columns.values()]

    def mine(line: str) -> bool:
        if person.traces.is_in(line.encode()):
            return True
        cells = [canonical(cell) or "" for cell in _cells(line)]
        if any(i < len(cells) and cells[i] == person.value for i in entity):
            return True
        return any(i < len(cells) and cells[i] and person.traces.is_key(cells[i].encode()) for i in key)

    return "\n".join([*lines[:2], *(line for line in lines[2:] if not mine(line))])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def compact(settings: Settings, files: Sequence[str]) -> list[str]:
    """Rewrites SQLite files, so that no removed text stays in their free pages; returns what could not be done."""
    problems = []
    for name in files:
        path = settings.home / name
        if not path.exists():
            continue
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            problems.append(f"{path} cannot be compacted now ({error}); stop `assetline dev`, and run this again")
    return problems
