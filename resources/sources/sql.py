"""Tables of SQL databases: a table, a view or a query as a whole table, or a table or view as a stream of days.

Belongs here: which rows a source reads, and what is checked about them. Does not belong here: connections and the
differences between databases (``sql_reading.py``), values as text (``sql_values.py``).

Everything is read by SQLAlchemy Core from reflected tables with bound parameters. A day is cut out of a table in one of
three ways: by the arrival of rows, by their event time, or by a column that only grows
(``docs/decisions/0072-a-day-of-a-table.md``).
"""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from resources.moments import UNITS
from resources.sources.base import Snapshot, Source, SourceError, SourceUnavailable, Stream

if TYPE_CHECKING:
    import pandas as pd

    from resources.sources.sql_reading import Database

_URL = Field(
    description="SQLAlchemy URL: postgresql://user@host/database, mysql://…, sqlite:///file.db, duckdb:///file.duckdb. "
    'A URL with a password comes from the environment: dg.EnvVar("SHOP_URL").',
    repr=False,
)
_CONNECT = Field(default=10, ge=1, description="Seconds after which an attempt to connect is given up.")
_STATEMENT = Field(
    default=600, ge=1, description="Seconds after which a statement, or the fetching of a chunk of rows, is given up."
)
_SINCE = re.compile(rf"({'|'.join(UNITS)}) since 1970-01-01")
_PER_SECOND = {"days": 1 / 86_400, "seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Units of the form of a time, with their number in a second."""
_THERE = "the columns are"
_EXAMPLE = "form='seconds since 1970-01-01'"
WAIT_S = 1.0
"""Seconds between two looks at transactions that are open."""


class _Sql(Source):
    """What both kinds of SQL sources share: the URL without its secrets, and the timeouts."""

    url: str = _URL
    connect_seconds: int = _CONNECT
    statement_seconds: int = _STATEMENT

    def __init__(self, **given: Any) -> None:
        """Takes the fields by name. Raises :class:`SourceError` for a password in the code, which the UI would show."""
        url = given.get("url")
        if isinstance(url, str) and not isinstance(url, dg.EnvVar) and url not in os.environ.values():
            from resources.sources.sql_reading import has_secret

            if has_secret(url):
                raise SourceError(
                    f"the url of {type(self).__name__} has a password in the code, which the UI would show; export it "
                    'as SHOP_URL, say, and write url=dg.EnvVar("SHOP_URL")'
                )
        super().__init__(**given)

    @contextmanager
    def _reading(self, table: str) -> Iterator[Database]:
        from resources.sources.sql_reading import reading

        with reading(
            resolved(self.url), table, connect_s=self.connect_seconds, statement_s=self.statement_seconds
        ) as database:
            yield database


@dataclass(frozen=True)
class TableFacts:
    """What a database says about a table.

    Args:
        rows: number of rows.
        key: columns of the primary key.
        times: columns of times; in SQLite also columns of text, because it keeps times as text.
        texts: columns of text.
    """

    rows: int
    key: tuple[str, ...]
    times: tuple[str, ...]
    texts: tuple[str, ...]


class SqlTable(_Sql, Snapshot):
    """A table, a view or a query of a SQL database, as a whole table.

    Its rows are in the order of the key. Without a key, they are in the order of their text.
    """

    table: str = Field(default="", description="Table or view; with its schema if that is not the default one.")
    query: str = Field(
        default="", description="A SELECT instead of a table, with named parameters only (:country), and with a key."
    )
    parameters: dict[str, Any] = Field(default={}, description="Values of the query's parameters, by name.")
    key: str = Field(default="", description="Column that identifies a row; default: the table's primary key.")
    columns: list[str] = Field(default=[], description="Columns to read besides the key; default: all.")

    def read(self) -> pd.DataFrame:
        """All rows as text, in the order of the key, from one state of the database."""
        if bool(self.table) == bool(self.query):
            raise SourceError("SqlTable: give either a table or a query")
        if self.parameters and not self.query:
            raise SourceError("SqlTable: parameters are those of a query; give a query instead of a table")
        with self._reading(self.table or "query") as database:
            if self.query:
                return self._of_query(database)
            table = database.table(self.table)
            key = _key(database, table, self.key)
            rows = database.rows(
                _selected(table, _wanted(database, table, self.columns, key)).order_by(*_by(table, key))
            )
            return _checked(rows, key, database.where)

    def tables(self) -> list[str]:
        """Names of the tables and views of the database. Errors are those of :meth:`read`."""
        with self._reading("") as database:
            return database.tables()

    def facts(self) -> TableFacts:
        """What the database says about the table besides its rows. Errors are those of :meth:`read`."""
        with self._reading(self.table) as database:
            table = database.table(self.table)
            count = database.scalar(sa.select(sa.func.count()).select_from(table))
            times = [
                c.name for c in table.columns if isinstance(c.type, sa.DateTime | sa.Date) or _may_be_time(database, c)
            ]
            texts = [c.name for c in table.columns if isinstance(c.type, sa.String)]
            return TableFacts(int(count), tuple(_key(database, table, self.key)), tuple(times), tuple(texts))

    def _of_query(self, database: Database) -> pd.DataFrame:
        """The rows of the query. Raises :class:`SourceError` for one that is no SELECT, or returns no key."""
        from resources.sources.sql_reading import close, refuse_twice

        where, text = database.where, self.query.strip().rstrip(";").rstrip()
        if not re.match(r"(select|with)\b", text, re.I):
            raise SourceError(f"{where}: it does not begin with SELECT or WITH; give a query that only reads")
        if not self.key:
            raise SourceError(f"{where}: no key; name the column that identifies a row as the source's key")
        query = sa.text(text)
        named = set(query.compile().params)
        if wrong := sorted(named ^ set(self.parameters)):
            known = "the query has no such parameter" if wrong[0] in self.parameters else "it has no value"
            raise SourceError(f"{where}: the parameter '{wrong[0]}': {known}; `parameters` gives each :name its value")
        inner = sa.text(f"SELECT * FROM (\n{text}\n) AS q WHERE 1 = 0")
        result = database.connection.execute(inner, self.parameters)
        there = list(result.keys())
        result.close()
        refuse_twice(there, where)
        wanted = [name for name in there if not self.columns or name in {*self.columns, self.key}]
        for name in (self.key, *self.columns):
            if name not in there:
                raise SourceError(f"{where}: it returns no column '{name}'{close(name, there, _THERE)}")
        selected = sa.text(f"(\n{text}\n) AS q").bindparams(**self.parameters)
        columns: list[Any] = [sa.column(name) for name in wanted]
        rows = database.rows(sa.select(*columns).select_from(selected).order_by(sa.column(self.key)))
        return _checked(rows, [self.key], where)


class SqlByDay(_Sql, Stream):
    """A table or view of a SQL database, as a stream of days.

    Name one of ``arrived``, ``time`` and ``cursor``. Days are UTC. Rows whose column is empty do not land until it is
    filled. Times without a zone are read as UTC.
    """

    table: str = Field(description="Table or view; with its schema if that is not the default one.")
    arrived: str = Field(
        default="", description="Column of the time at which a row was written upstream; it lands on that day."
    )
    time: str = Field(default="", description="Column of the event time; a row lands on that day.")
    cursor: str = Field(
        default="",
        description="Column of whole numbers that only grows; rows above the last landed one land. With `time`, a day "
        "ends before the first row whose time is after it.",
    )
    form: str = Field(
        default="", description="Form of a time that is a number, for example 'seconds since 1970-01-01'."
    )
    key: str = Field(default="", description="Column that identifies a row; default: the table's primary key.")
    columns: list[str] = Field(default=[], description="Columns to read besides those named above; default: all.")
    labels: str = Field(default="", description="Table or view of labels that become known later.")
    labels_arrived: str = Field(default="", description="Column of the time at which a label was written upstream.")
    settle_minutes: float = Field(
        default=10,
        ge=0,
        description="Minutes after the end of a day before it lands; more than the longest transaction that writes.",
    )

    def land(self, day: dt.date) -> pd.DataFrame:
        """The rows of ``day`` as text, in the order of their time and key."""
        column = self.arrived or self.time
        self._declared()
        if not column:
            raise SourceError(f"SqlByDay: {self.table} lands by its cursor '{self.cursor}'; name its `time` for days")
        with self._reading(self.table) as database:
            table = database.table(self.table)
            key = _key(database, table, self.key)
            wanted = _wanted(database, table, self.columns, [*key, column])
            return _checked(_day_of(database, table, column, self.form, day, key, wanted), key, database.where)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """The labels of ``day`` as text, in the order in which they were written."""
        if not self.labels or not self.labels_arrived:
            raise SourceError(
                f"{self.table}: the source names no `labels` and `labels_arrived`; name them, or declare "
                "label_delay_days=0 if labels land with their rows"
            )
        with self._reading(self.labels) as database:
            table = database.table(self.labels)
            key = [column.name for column in table.primary_key]
            wanted = [column.name for column in table.columns]
            return _day_of(database, table, self.labels_arrived, self.form, day, key, wanted)

    def landed_until(self) -> dt.date:
        """The last day that has ended by our clock and the database's, and by as much as the source needs to settle.

        Times without a zone may be local ones, so the clock that is behind counts there, too.
        """
        self._declared()
        with self._reading(self.table) as database:
            table = database.table(self.table)
            clocks = [dt.datetime.now(dt.UTC).replace(tzinfo=None), database.clock]
            columns = [_column(database, table, name) for name in (self.arrived, self.time) if name]
            if self.labels and self.labels_arrived:
                columns.append(_column(database, database.table(self.labels), self.labels_arrived))
            if not all(_has_zone(database, column) for column in columns):
                clocks.append(database.local_clock)
        settled = min(clocks) - dt.timedelta(minutes=self.settle_minutes)
        return settled.date() - dt.timedelta(days=1)

    def growing_column(self) -> str | None:
        """The cursor; see :meth:`~resources.sources.Stream.growing_column`."""
        return self.cursor or None

    def land_after(self, day: dt.date, after: str | None, until: str | None) -> pd.DataFrame:
        """Rows with ``after < cursor <= until``, in its order; see :meth:`~resources.sources.Stream.land_after`."""
        self._declared()
        if until is None and (until := self._settled_mark(day, after)) is None:
            until = after
        with self._reading(self.table) as database:
            table = database.table(self.table)
            cursor = self._cursor_of(database, table)
            key = _key(database, table, self.key) or [self.cursor]
            wanted = _wanted(database, table, self.columns, [*key, self.cursor, *([self.time] if self.time else [])])
            within = _between(cursor, after, until) if until is not None else [sa.false()]
            rows = database.rows(_selected(table, wanted).where(*within).order_by(cursor, *_by(table, key)))
            return _checked(rows, key, database.where)

    def _settled_mark(self, day: dt.date, after: str | None) -> str | None:
        """The greatest value of the cursor that lands on ``day``, below which no row can appear any more.

        A row gets its number before its transaction is committed, so a row may appear below one that has been seen.
        PostgreSQL says which transactions are open: after they have ended, all lower rows are there. SQLite and DuckDB
        have one writer. MySQL does not say it to every user, so only rows of days that have settled are taken there.

        Raises:
            SourceUnavailable: a transaction has been open for longer than the time to settle.
        """
        with self._reading(self.table) as database:
            table = database.table(self.table)
            cursor = self._cursor_of(database, table)
            if database.dialect in ("mysql", "mariadb") and not self.time:
                raise SourceError(
                    f"{database.where}: name the column of the time at which rows are written as `time`; MySQL does "
                    "not say which transactions are open, so rows of the last minutes may be incomplete"
                )
            plain, within = sa.type_coerce(cursor, sa.BigInteger()), _between(cursor, after, None)
            if self.time:
                moment = _column(database, table, self.time)
                _, end = _bounds(database, moment, self.form, day)
                first = database.scalar(sa.select(sa.func.min(plain)).where(*within, moment >= end))
                if first is not None:
                    within.append(plain < sa.literal(int(first), sa.BigInteger()))
            mark = database.scalar(sa.select(sa.func.max(plain)).where(*within))
            snapshot = database.open_transactions() if database.dialect == "postgresql" and mark is not None else None
        if snapshot is not None:
            self._wait_for(snapshot)
        return None if mark is None else str(mark)

    def _wait_for(self, snapshot: int) -> None:
        """Waits until all transactions that were open at a snapshot have ended."""
        until = time.monotonic() + self.settle_minutes * 60
        while True:
            with self._reading(self.table) as database:
                if database.ended_before(snapshot):
                    return
                where = database.where
            if time.monotonic() >= until:
                raise SourceUnavailable(
                    f"{where}: a transaction that writes has been open for {self.settle_minutes:g} minutes, so rows "
                    "may still appear below the last one; end it, or raise the source's settle_minutes"
                )
            time.sleep(WAIT_S)

    def _cursor_of(self, database: Database, table: sa.Table) -> sa.Column[Any]:
        cursor = _column(database, table, self.cursor)
        if isinstance(cursor.type, sa.Integer):
            return cursor
        raise SourceError(
            f"{database.where}: the cursor '{self.cursor}' is {_kind(cursor)}; a cursor is a column of whole numbers. "
            "Use `arrived` for a time"
        )

    def _declared(self) -> None:
        """Raises :class:`SourceError` unless exactly one way to cut out a day is declared."""
        ways = [name for name in ("arrived", "time", "cursor") if getattr(self, name)]
        if ways not in (["arrived"], ["time"], ["cursor"], ["time", "cursor"]):
            named = " and ".join(ways) or "none"
            raise SourceError(
                f"SqlByDay: {self.table} names {named} of arrived, time and cursor; name one, or cursor and time. "
                '`arrived` is best: arrived="created_at"'
            )
        if self.form and not _SINCE.fullmatch(self.form):
            raise SourceError(
                f"SqlByDay: form='{self.form}'; write it as 'seconds since 1970-01-01' ({', '.join(UNITS)})"
            )


def resolved(url: str) -> str:
    """The URL itself, also where Dagster has not replaced the variable by its value.

    Raises:
        SourceError: the variable is not set.
    """
    if not isinstance(url, dg.EnvVar):
        return url
    value = url.get_value()
    if not value:
        raise SourceError(f"{url.env_var_name} is not set; export {url.env_var_name} with the URL of the database")
    return value


def _key(database: Database, table: sa.Table, key: str) -> list[str]:
    """The declared key, or the columns of the primary key; empty for a table without one."""
    if key:
        return [_column(database, table, key, "the key").name]
    return [column.name for column in table.primary_key]


def _column(database: Database, table: sa.Table, name: str, what: str = "") -> sa.Column[Any]:
    if name in table.columns:
        return table.columns[name]
    from resources.sources.sql_reading import close

    there = [column.name for column in table.columns]
    lead = f"{what}: " if what else ""
    raise SourceError(f"{database.where}: {lead}there is no column '{name}'{close(name, there, _THERE)}")


def _between(cursor: sa.Column[Any], after: str | None, until: str | None) -> list[Any]:
    """Conditions for ``after < cursor <= until``."""
    plain = sa.type_coerce(cursor, sa.BigInteger())
    within: list[Any] = [cursor.is_not(None)]
    if after is not None:
        within.append(plain > sa.literal(int(after), sa.BigInteger()))
    if until is not None:
        within.append(plain <= sa.literal(int(until), sa.BigInteger()))
    return within


def _wanted(database: Database, table: sa.Table, columns: Sequence[str], always: Sequence[str]) -> list[str]:
    """Names of the columns to read, in the table's order."""
    names = {_column(database, table, name).name for name in (*columns, *always)}
    return [column.name for column in table.columns if not columns or column.name in names]


def _selected(table: sa.Table, names: Sequence[str]) -> sa.Select[Any]:
    """Selects columns without their types, so that values come as the driver gives them."""
    selected: list[Any] = [sa.type_coerce(table.columns[name], sa.types.NullType()).label(name) for name in names]
    select: sa.Select[Any] = sa.select(*selected)
    return select


def _by(table: sa.Table, names: Sequence[str]) -> list[Any]:
    return [table.columns[name] for name in names]


def _checked(rows: pd.DataFrame, key: Sequence[str], where: str) -> pd.DataFrame:
    """Refuses a key that is empty or that two rows have; puts rows without a key in the order of their text."""
    if not key:
        names = list(rows.columns)
        return rows.sort_values(names, kind="stable", ignore_index=True) if len(rows) else rows
    what = f"the key {' and '.join(repr(name) for name in key)}"
    if empty := int(rows[list(key)].isna().any(axis=1).sum()):
        raise SourceError(f"{where}: {what} is empty in {empty} rows; fill it, or name another column as the key")
    twice = rows.duplicated(list(key))
    if twice.any():
        example = ", ".join(str(value)[:40] for value in rows.loc[twice, list(key)].iloc[0])
        raise SourceError(
            f"{where}: {what} is not unique, for example {example}; name another column as the key, or read a view "
            "with one row for each",
            quotes=True,
        )
    return rows


def _day_of(
    database: Database, table: sa.Table, name: str, form: str, day: dt.date, key: Sequence[str], wanted: Sequence[str]
) -> pd.DataFrame:
    """The rows of a day in the order of their time and key, or of their time and text without a key."""
    from resources.moments import ISO, moments

    column = _column(database, table, name)
    first, end = _bounds(database, column, form, day)
    select = _selected(table, wanted).where(column >= first, column < end).order_by(column, *_by(table, key))
    rows = database.rows(select)
    if not key and len(rows):
        rows = rows.sort_values([name, *(c for c in rows.columns if c != name)], kind="stable", ignore_index=True)
    if database.dialect == "sqlite" and not form and len(rows):
        wrong = moments(rows[name], ISO).dt.date != day
        if wrong.any():
            raise SourceError(
                f"{database.where}: '{name}' has times that are not in UTC or not ISO 8601, for example "
                f"'{rows[name][wrong.idxmax()]}'; read a view that writes them as UTC",
                quotes=True,
            )
    return rows


def _bounds(database: Database, column: sa.Column[Any], form: str, day: dt.date) -> tuple[Any, Any]:
    """The first moment of a day and that of the next one, as parameters of the column's type.

    Raises:
        SourceError: the column has another type than a time, a date or a number with a form.
    """
    days = (day, day + dt.timedelta(days=1))
    where, dialect = database.where, database.dialect
    if dialect == "sqlite":
        _check_storage(database, column, form)
    if form:
        if not isinstance(column.type, sa.Integer | sa.Numeric | sa.types.NullType) and dialect != "sqlite":
            raise SourceError(f"{where}: '{column.name}' is {_kind(column)}, not a number; leave the source's form out")
        unit = form.split(" ", 1)[0]
        starts = [round((d - dt.date(1970, 1, 1)).days * 86_400 * _PER_SECOND[unit]) for d in days]
        plain = sa.BigInteger()
        return sa.literal(starts[0], plain), sa.literal(starts[1], plain)
    if dialect == "sqlite":  # it keeps times as text, and text is compared letter by letter
        return sa.literal(days[0].isoformat(), sa.Text()), sa.literal(days[1].isoformat(), sa.Text())
    if isinstance(column.type, sa.DateTime):
        zone = dt.UTC if getattr(column.type, "timezone", False) and dialect in ("postgresql", "duckdb") else None
        times = [dt.datetime(d.year, d.month, d.day, tzinfo=zone) for d in days]
        return sa.literal(times[0], column.type), sa.literal(times[1], column.type)
    if isinstance(column.type, sa.Date):
        return sa.literal(days[0], sa.Date()), sa.literal(days[1], sa.Date())
    if isinstance(column.type, sa.Integer | sa.Numeric):
        raise SourceError(f"{where}: '{column.name}' is {_kind(column)}; say what it counts, for example {_EXAMPLE}")
    raise SourceError(
        f"{where}: '{column.name}' is {_kind(column)}, so a day cannot be cut out; read a view that casts it to a "
        "timestamp"
    )


def _check_storage(database: Database, column: sa.Column[Any], form: str) -> None:
    """Refuses values of another kind than the bounds: SQLite would find no row and say nothing."""
    expected: Mapping[bool, tuple[str, ...]] = {True: ("integer", "real", "null"), False: ("text", "null")}
    found = database.scalar(
        sa.select(sa.func.typeof(column)).where(sa.func.typeof(column).not_in(expected[bool(form)])).limit(1)
    )
    if found is not None:
        mend = "leave the source's form out" if form else f"say what it counts, for example {_EXAMPLE}"
        raise SourceError(f"{database.where}: '{column.name}' has {found} values; {mend}")


def _has_zone(database: Database, column: sa.Column[Any]) -> bool:
    """Whether the values are moments whatever the zone: numbers since 1970, or times that carry a zone."""
    if isinstance(column.type, sa.Integer | sa.Numeric) or database.dialect in ("sqlite", "duckdb"):
        return True
    if database.dialect in ("mysql", "mariadb"):
        return type(column.type).__name__ == "TIMESTAMP"
    return bool(getattr(column.type, "timezone", False))


def _may_be_time(database: Database, column: sa.Column[Any]) -> bool:
    return database.dialect == "sqlite" and isinstance(column.type, sa.String | sa.types.NullType)


def _kind(column: sa.Column[Any]) -> str:
    return f"of the type {column.type}"
