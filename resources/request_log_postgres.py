"""The request log in PostgreSQL, which several scoring services on several machines share.

Belongs here: writing, reading and following its lines, and what happens when the database is away. Does not belong
here: the lines themselves (``request_log.py``), the tables (revision 0002 of ``migrations``).

Each process is a writer of its own for each model and day, and numbers its lines. It writes one after the other, so the
lines of a writer become visible in the order of their numbers. A reader remembers the last number of each writer and
asks for what is beyond it. So it misses nothing, without a lock, whatever the order in which writers commit. A line is
committed before its row is answered, and is therefore seen by each request that begins after that, at any process.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from resources.migrations import MigrationError, migrate
from resources.request_log import (
    Appended,
    Change,
    Follower,
    LogError,
    LoggedLines,
    forgotten_line,
    is_forgotten,
    parsed,
)

METADATA = sa.MetaData()
WRITERS = sa.Table(
    "request_writers",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.UniqueConstraint("model", "day", "name"),
)
LINES = sa.Table(
    "request_lines",
    METADATA,
    sa.Column("writer", sa.ForeignKey("request_writers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Text, nullable=False),
)

CONNECT_S, STATEMENT_S = 2, 5
"""Seconds after which an attempt to connect, or a statement of a request, is given up. A request waits for both."""
REPLAY_S = 600
"""The same for the first reading of a follower, which may read many days."""
PAUSE_S = 0.5
"""Seconds without a new attempt after one failed, so that requests are refused at once while the database is away."""

# OFFSET 0 keeps the planner from joining all lines; each writer then takes one look into the primary key.
_NEW = """
SELECT w.day, w.name, l.n, l.line
FROM request_writers w
LEFT JOIN unnest(%s::text[], %s::text[], %s::int[]) AS seen(day, name, n) ON seen.day = w.day AND seen.name = w.name
CROSS JOIN LATERAL (
    SELECT n, line FROM request_lines WHERE writer = w.id AND n > coalesce(seen.n, 0) ORDER BY n OFFSET 0
) l
WHERE w.model = %s AND w.day >= %s
"""
_REGISTER = """
INSERT INTO request_writers (model, day, name) VALUES (%s, %s, %s)
ON CONFLICT (model, day, name) DO UPDATE SET name = excluded.name RETURNING id
"""
# The first attempt may have been committed although the connection broke.
_APPEND = """
INSERT INTO request_lines (writer, n, line) SELECT %s, * FROM unnest(%s::int[], %s::text[])
ON CONFLICT (writer, n) DO NOTHING
"""
_OF_DAY = """
SELECT w.name, l.line FROM request_writers w JOIN request_lines l ON l.writer = w.id
WHERE w.model = %s AND w.day = %s ORDER BY w.name, l.n
"""
_NUMBERED = """
SELECT l.writer, l.n, l.line FROM request_writers w JOIN request_lines l ON l.writer = w.id
WHERE w.model = %s AND w.day = %s ORDER BY l.writer, l.n
"""
_REPLACE = """
UPDATE request_lines SET line = new.line FROM unnest(%s::int[], %s::int[], %s::text[]) AS new(writer, n, line)
WHERE request_lines.writer = new.writer AND request_lines.n = new.n
"""
_STATE = """
SELECT w.name, max(l.n), count(*) FROM request_writers w JOIN request_lines l ON l.writer = w.id
WHERE w.model = %s AND w.day = %s GROUP BY w.name ORDER BY w.name
"""

_SIZE = """
SELECT coalesce(sum(length(l.line)), 0) FROM request_writers w JOIN request_lines l ON l.writer = w.id
WHERE w.model = %s AND w.day = %s
"""


class Postgres:
    """The log in the database of a URL. See :class:`~resources.request_log.Store` for its methods."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = _Connection(url)
        self._writer: dict[str, tuple[str, str, int]] = {}

    def write(self, model: str, day: str, writer: str, first: int, lines: Sequence[str]) -> Appended:
        """See :class:`~resources.request_log.Store`."""
        numbers = list(range(first, first + len(lines)))
        try:
            self._connection.execute(_APPEND, (self._id(model, day, writer), numbers, list(lines)))
        except LogError as error:
            self._writer.pop(model, None)
            raise LogError(
                f"the log of requests cannot be written ({error}); nothing was recorded; send the request again"
            ) from error
        return Appended(day, writer, first - 1, numbers[-1])

    def _id(self, model: str, day: str, writer: str) -> int:
        known = self._writer.get(model)
        if known is None or known[:2] != (day, writer):
            [(number,)] = self._connection.execute(_REGISTER, (model, day, writer))
            known = self._writer[model] = (day, writer, int(number))
        return known[2]

    def days(self, model: str) -> list[str]:
        """See :class:`~resources.request_log.Store`."""
        query = "SELECT DISTINCT day FROM request_writers WHERE model = %s ORDER BY day"
        return [str(day) for (day,) in self._connection.execute(query, (model,), seconds=REPLAY_S)]

    def rewrite(self, model: str, day: str, change: Change) -> int:
        """See :class:`~resources.request_log.Store`."""
        count = 0
        for writer, n, text in self._connection.execute(_NUMBERED, (model, day), seconds=REPLAY_S):
            line = parsed(text)
            if line is not None and not is_forgotten(line) and (made := change(line)) is not None:
                self._connection.execute(_REPLACE, ([writer], [n], [json.dumps(made, separators=(",", ":"))]))
                count += 1
        return count

    def lines(self, model: str, day: str) -> Iterator[LoggedLines]:
        """See :class:`~resources.request_log.Store`."""
        rows = self._connection.execute(_OF_DAY, (model, day), seconds=REPLAY_S)
        for name, of_writer in groupby(rows, key=lambda row: row[0]):
            found = [parsed(line) for _, line in of_writer]
            readable = [line for line in found if line is not None]
            lines = [line for line in readable if not is_forgotten(line)]
            forgotten = frozenset(int(line["n"]) for line in readable if is_forgotten(line))
            yield LoggedLines(str(name), lines, len(found) - len(readable), forgotten)

    def state(self, model: str, day: str) -> str:
        """See :class:`~resources.request_log.Store`."""
        return repr(self._connection.execute(_STATE, (model, day), seconds=REPLAY_S))

    def follow(self, model: str, since: str) -> Follower:
        """See :class:`~resources.request_log.Store`."""
        return _PostgresFollower(_Connection(self._url), model, since)

    def models(self) -> list[str]:
        """See :class:`~resources.request_log.Store`."""
        query = "SELECT DISTINCT model FROM request_writers ORDER BY model"
        return [str(model) for (model,) in self._connection.execute(query, (), seconds=REPLAY_S)]

    def size(self, model: str, day: str) -> int:
        """See :class:`~resources.request_log.Store`."""
        [(size,)] = self._connection.execute(_SIZE, (model, day), seconds=REPLAY_S)
        return int(size)

    def remove(self, model: str, day: str) -> None:
        """See :class:`~resources.request_log.Store`."""
        query = "DELETE FROM request_writers WHERE model = %s AND day = %s"
        self._connection.execute(query, (model, day), seconds=REPLAY_S)

    def forget(self, model: str, day: str, theirs: Callable[[Sequence[Mapping[str, Any]]], Sequence[bool]]) -> int:
        """See :class:`~resources.request_log.Store`. One statement for a day, so all of it or nothing."""
        rows = self._connection.execute(_NUMBERED, (model, day), seconds=REPLAY_S)
        lines = [(writer, n, line) for writer, n, text in rows if (line := parsed(text)) and not is_forgotten(line)]
        mine = theirs([line for _, _, line in lines])
        new = [(w, n, forgotten_line(line, 0)) for (w, n, line), hit in zip(lines, mine, strict=True) if hit]
        if new:
            self._connection.execute(_REPLACE, [list(part) for part in zip(*new, strict=True)], seconds=REPLAY_S)
        return len(new)

    def vacuum(self) -> None:
        """Lets the database reuse the space of erased lines."""
        self._connection.execute("VACUUM request_lines", (), seconds=REPLAY_S)

    def close(self) -> None:
        """See :class:`~resources.request_log.Store`."""
        self._connection.close()


class _PostgresFollower:
    """Reads what is new in the lines of one model, over a connection of its own."""

    def __init__(self, connection: _Connection, model: str, since: str) -> None:
        self._connection, self._model, self._since = connection, model, since
        self._seen: dict[tuple[str, str], int] = {}
        self._seconds = REPLAY_S

    def fetch(self) -> list[dict[str, Any]]:
        """See :class:`~resources.request_log.Follower`."""
        days, names = [day for day, _ in self._seen], [name for _, name in self._seen]
        values = (days, names, list(self._seen.values()), self._model, self._since)
        try:
            rows = self._connection.execute(_NEW, values, seconds=self._seconds)
        except LogError as error:
            raise LogError(
                f"the history that the services share cannot be read ({error}); send the request again"
            ) from error
        found = []
        for day, name, n, text in rows:
            self._seen[day, name] = max(self._seen.get((day, name), 0), n)
            if (line := parsed(text)) is not None and not is_forgotten(line):
                found.append(line)
        # The clock of another process may be behind, or ahead, by less than a day.
        self._since = max(self._since, str(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)))
        self._seen = {key: n for key, n in self._seen.items() if key[0] >= self._since}
        self._seconds = STATEMENT_S
        return found

    def passed(self, appended: Sequence[Appended]) -> None:
        """See :class:`~resources.request_log.Follower`."""
        for one in appended:
            if self._seen.get((one.day, one.writer), 0) == one.start:
                self._seen[one.day, one.writer] = one.end

    def close(self) -> None:
        """See :class:`~resources.request_log.Follower`."""
        self._connection.close()


class _Connection:
    """One connection, opened when it is needed, and opened again once if it turns out to be broken."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._open: Any = None
        self._migrated = False
        self._seconds = 0
        self._failed_at, self._failure = -PAUSE_S, ""

    def execute(self, query: str, values: Sequence[Any], *, seconds: int = STATEMENT_S) -> list[tuple[Any, ...]]:
        """Runs a statement of its own transaction that may be repeated, and returns its rows.

        Raises:
            LogError: the database cannot be reached, or refuses.
        """
        import psycopg

        with self._lock:
            for last in (False, True):
                try:
                    connection = self._connected()
                    if seconds != self._seconds:
                        connection.execute(f"SET statement_timeout = {seconds * 1_000}")
                        self._seconds = seconds
                    cursor = connection.execute(query, values)
                    return cursor.fetchall() if cursor.description else []
                except psycopg.OperationalError as error:  # broken, restarted, or too slow
                    self._close()
                    if last or isinstance(error, psycopg.errors.QueryCanceled):
                        raise LogError(self._failed(error)) from error
                except psycopg.Error as error:  # another database with the same address?
                    self._close()
                    self._migrated = False
                    raise LogError(self._failed(error)) from error
        raise AssertionError("the second attempt returns or raises")

    def _connected(self) -> Any:
        import psycopg

        if self._open is not None:
            return self._open
        if time.monotonic() < self._failed_at + PAUSE_S:
            raise LogError(self._failure)
        try:
            if not self._migrated:
                arguments = {"connect_timeout": CONNECT_S}
                migrate(sa.create_engine(self._url, poolclass=sa.NullPool, connect_args=arguments))
                self._migrated = True
            address = sa.make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
            self._open = psycopg.connect(
                address, autocommit=True, connect_timeout=CONNECT_S, tcp_user_timeout=STATEMENT_S * 1_000,
                application_name="assetline requests",
            )  # fmt: skip
        except (psycopg.Error, sa.exc.SQLAlchemyError, MigrationError) as error:
            self._failed_at, self._failure = time.monotonic(), self._failed(error)
            raise LogError(self._failure) from error
        self._seconds = 0
        return self._open

    def _failed(self, error: Exception) -> str:
        said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        return f"{sa.make_url(self._url).render_as_string(hide_password=True)}: {said[0]}"

    def close(self) -> None:
        """Closes it; the next statement opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
