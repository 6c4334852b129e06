"""SQL over the views: one SELECT, on rows that are read for this query only.

Belongs here: the sandbox (read-only, limits of time, rows and size) and the wording of SQL errors. Does not belong
here: the rows (``facts.py``), their columns (``views.py``).

The rows are loaded into an SQLite database in memory. Only views that the query names are loaded. The facts of one
question lie in several databases, some of them PostgreSQL, so the databases cannot be queried directly.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from metadata.facts import Metadata, MetadataError
from metadata.views import VIEWS, columns_of

MOST_ROWS = 10_000
"""Maximum number of rows that a query returns."""
MOST_SECONDS = 10.0
"""Time after which a query is stopped; reading the facts does not count."""
MOST_BYTES = 10_000_000
"""Maximum size of one value, in bytes."""
_STEPS_BETWEEN_LOOKS = 10_000
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_WRITES_NOTHING = "a query is one SELECT on the views"


class QueryError(MetadataError):
    """A query cannot be answered. The message is one sentence with the reason and the fix."""


@dataclass(frozen=True)
class Result:
    """The rows of a query; ``more`` says whether there are rows beyond the limit."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool

    def to_json(self) -> list[dict[str, Any]]:
        """The rows as objects."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def query(metadata: Metadata, sql: str, *, limit: int = MOST_ROWS, seconds: float = MOST_SECONDS) -> Result:
    """Answers one SELECT on the views.

    Args:
        metadata: the facts.
        sql: the SELECT, in SQLite's dialect.
        limit: maximum number of rows, at most :data:`MOST_ROWS`.
        seconds: time after which the query is stopped.

    Raises:
        QueryError: it is not one SELECT, it is wrong, or it takes too long.
    """
    limit = max(1, min(limit, MOST_ROWS))
    named = _views_in(sql)
    with contextlib.closing(_database()) as connection:
        for view in named:
            _load(connection, view, [astuple(row) for row in metadata.rows(view)])
        connection.set_authorizer(_authorizer(lambda _: None))
        connection.set_progress_handler(_stop_at(time.monotonic() + seconds), _STEPS_BETWEEN_LOOKS)
        try:
            cursor = connection.execute(sql)
            columns = tuple(name for name, *_ in cursor.description or ())
            rows = cursor.fetchmany(limit + 1)
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            raise _in_words(error, seconds) from error
    return Result(distinct(columns), rows[:limit], len(rows) > limit)


def _views_in(sql: str) -> list[str]:
    """The views that a query reads, found by SQLite's own parser. Raises :class:`QueryError` for a wrong query."""
    if not sql.strip():
        raise QueryError(f"the query is empty; {_WRITES_NOTHING}")
    read: set[str] = set()
    with contextlib.closing(_database()) as connection:
        connection.set_authorizer(_authorizer(read.add))
        try:
            connection.execute(f"EXPLAIN {sql}")
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise _in_words(error, MOST_SECONDS) from error
    return [view for view in VIEWS if view in read]


def _database() -> sqlite3.Connection:
    """A database in memory with the empty views."""
    connection = sqlite3.connect(":memory:")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    for view in VIEWS:
        columns = ", ".join(f'"{column.name}" {column.type}' for column in columns_of(view))
        connection.execute(f'CREATE TABLE "{view}" ({columns})')
    return connection


def _load(connection: sqlite3.Connection, view: str, rows: Sequence[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(columns_of(view)))
    connection.executemany(f'INSERT INTO "{view}" VALUES ({marks})', rows)


def _authorizer(read: Callable[[str], None]) -> Callable[..., int]:
    def allow(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second == "load_extension"):
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ and first is not None:
            read(first)
        return sqlite3.SQLITE_OK

    return allow


def _stop_at(deadline: float) -> Callable[[], int]:
    return lambda: int(time.monotonic() > deadline)


def distinct(columns: Sequence[str]) -> tuple[str, ...]:
    """The column names, with a number at names that were there before, so that objects keep all columns."""
    seen: dict[str, int] = {}
    names = []
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(names)


_ANSWERS: Mapping[str, str] = {
    "not authorized": f"{_WRITES_NOTHING}; nothing else is allowed",
    "not authorized to use function: load_extension": f"{_WRITES_NOTHING}; nothing else is allowed",
    "You can only execute one statement at a time.": f"{_WRITES_NOTHING}, not several statements",
}


def _in_words(error: Exception, seconds: float) -> QueryError:
    said = str(error)
    if said == "interrupted":
        return QueryError(f"the query was stopped after {seconds:g} s; ask for fewer rows, or join by the ids")
    if said.startswith("no such table"):
        return QueryError(f"{said}; the views are: {', '.join(VIEWS)}")
    if said.startswith("no such column"):
        return QueryError(f"{said}; `assetline query` without a query lists the columns")
    return QueryError(_ANSWERS.get(said, f"the query is wrong: {said}"))
