"""The audit log: one append-only table of who read, changed, exported or deleted what, when, and from where.

Each line contains the digest of the line before, so an altered or missing line is found (:func:`faults`). Triggers
refuse UPDATE and DELETE, but the owner of the database can drop them: the digests show it. A whole log that was
rewritten, or cut at its end, is found by comparing it with a copy that was exported earlier and kept elsewhere.

A line holds names of people, models, tables and columns. It never holds rows, statements or secrets, because it
outlives what it speaks of.

Belongs here: the lines, their chain, and its verification. Does not belong here: what is recorded (the module that does
it), the promotions (``ledger.py``, which writes a line here in the same transaction).
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import hashlib
import json
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import sqlalchemy as sa

from resources.database import Database

METADATA = sa.MetaData()
AUDIT_LOG = sa.Table(
    "audit_log",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.String(32), nullable=False),  # ISO 8601 in UTC, with microseconds
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("origin", sa.String(200), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(300), nullable=False),
    sa.Column("details", sa.Text, nullable=False),  # a JSON object, as it was hashed
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
NO_LINE = "0" * 64
"""``previous`` of the first line."""
_LOCK = 7276513
_PAGE = 10_000
_DETAILS = 4_000
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\uffff]")

_origin: contextvars.ContextVar[str] = contextvars.ContextVar("origin")


class AuditError(Exception):
    """The audit log cannot be written or read. The message gives the fix."""


@contextlib.contextmanager
def coming_from(origin: str) -> Iterator[None]:
    """Names where the actions of the block come from, for example ``10.0.0.7 by the alerts page``."""
    before = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(before)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the audit log.

    Attributes:
        number: counts from 1, without gaps.
        at: time in UTC.
        who: name of the person or of the token.
        origin: machine, client address, or Dagster run.
        action: what was done: ``read``, ``export``, ``promote``, ``silence``, ….
        subject: what it was done to: a model, ``model/table``, ``alert 7``, ….
        details: a JSON object with names and counts.
        previous: digest of the line before.
        digest: SHA-256 of everything else.
    """

    number: int
    at: str
    who: str
    origin: str
    action: str
    subject: str
    details: str
    previous: str
    digest: str = ""

    def sealed(self) -> Self:
        """The line with its digest."""
        content = [self.number, self.at, self.who, self.origin, self.action, self.subject, self.details, self.previous]
        text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
        return replace(self, digest=hashlib.sha256(text.encode()).hexdigest())

    def to_json(self) -> dict[str, Any]:
        """The line for JSON, as it is exported."""
        return {**asdict(self), "details": json.loads(self.details)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """A line that was exported. Raises :class:`AuditError` if it is none."""
        try:
            return cls(**{**values, "details": _packed(values["details"])})
        except (KeyError, TypeError) as error:
            raise AuditError(f"this is not a line of the audit log: {str(values)[:80]}") from error


def add(
    connection: sa.Connection, action: str, subject: str, *, who: str, origin: str = "",
    details: Mapping[str, Any] | None = None,
) -> Line:  # fmt: skip
    """Appends a line in a transaction of the project's database, so that an action and its line are one.

    Args:
        connection: a connection in a transaction. On SQLite, it must hold the write lock already.
        action, subject, who: see :class:`Line`. Control characters in a name become ``?``.
        origin: default: what :func:`coming_from` says, otherwise the name of this machine.
        details: names and counts, at most 4,000 characters as JSON.
    """
    if connection.dialect.name == "postgresql":  # the number and the digest of the last line must stay the last
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    packed = _packed(details or {})
    if len(packed) > _DETAILS:
        raise AuditError(f"the details of '{action} {subject}' are {len(packed)} characters long; {_DETAILS} fit")
    last = connection.execute(
        sa.select(AUDIT_LOG.c.number, AUDIT_LOG.c.digest).order_by(AUDIT_LOG.c.number.desc()).limit(1)
    ).first()
    line = Line(
        number=last.number + 1 if last else 1,
        at=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        who=_name(who, 200) or "unknown",
        origin=_name(origin or _origin.get("") or socket.gethostname(), 200),
        action=action,
        subject=_name(subject, 300),
        details=packed,
        previous=last.digest if last else NO_LINE,
    ).sealed()
    connection.execute(sa.insert(AUDIT_LOG).values(asdict(line)))
    return line


class AuditLog:
    """The audit log in the project's database.

    Args:
        database_url: SQLAlchemy URL.
    """

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url)

    def record(
        self, action: str, subject: str, *, who: str, origin: str = "", details: Mapping[str, Any] | None = None
    ) -> Line:
        """Appends a line in a transaction of its own; see :func:`add`.

        Raises:
            AuditError: the database does not take it. The caller must not do what it wanted to record.
        """
        try:
            with self._database.writing() as connection:
                return add(connection, action, subject, who=who, origin=origin, details=details)
        except sa.exc.SQLAlchemyError as error:
            reason = str(error.orig if isinstance(error, sa.exc.DBAPIError) else error).strip()
            raise AuditError(
                f"the audit log cannot be written ({reason}), so '{action} {subject}' is refused; mend the database"
            ) from error

    def lines(self, *, after: int = 0) -> Iterator[Line]:
        """The lines with a number above ``after``, oldest first. The whole log is never in memory."""
        while True:
            query = sa.select(AUDIT_LOG).where(AUDIT_LOG.c.number > after).order_by(AUDIT_LOG.c.number).limit(_PAGE)
            with self._database.reading() as connection:
                page = [Line(**row) for row in connection.execute(query).mappings()]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].number

    def latest(
        self, count: int, *, who: str = "", action: str = "", subject: str = "", since: dt.datetime | None = None
    ) -> list[Line]:
        """The newest lines that match, oldest first.

        Args:
            count: how many at most.
            who, action: exact values; empty matches any.
            subject: the subject, or what it begins with up to a ``/``; empty matches any.
            since: only lines from this time on; without a zone it is UTC.
        """
        query = sa.select(AUDIT_LOG).order_by(AUDIT_LOG.c.number.desc()).limit(count)
        for column, value in ((AUDIT_LOG.c.who, who), (AUDIT_LOG.c.action, action)):
            query = query.where(column == value) if value else query
        if subject:
            query = query.where(
                sa.or_(AUDIT_LOG.c.subject == subject, AUDIT_LOG.c.subject.startswith(f"{subject}/", autoescape=True))
            )
        if since is not None:
            aware = since.replace(tzinfo=dt.UTC) if since.tzinfo is None else since.astimezone(dt.UTC)
            query = query.where(AUDIT_LOG.c.at >= aware.isoformat(timespec="microseconds"))
        with self._database.reading() as connection:
            return [Line(**row) for row in connection.execute(query).mappings()][::-1]


def faults(lines: Iterable[Line], *, exported: Iterable[Line] = ()) -> Iterator[str]:
    """Finds altered and missing lines.

    Args:
        lines: the whole log, oldest first.
        exported: lines of an earlier export, oldest first. Without them, lines that are missing at the end, and a log
            that was rewritten as a whole, cannot be found.

    Yields:
        One sentence for each fault.
    """
    kept = iter(exported)
    copy = next(kept, None)
    number, digest = 0, NO_LINE
    for line in lines:
        if line.number != number + 1:
            first, last = number + 1, line.number - 1
            yield f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"
        elif line.previous != digest:
            yield f"line {line.number} does not follow the line before it: one of the two was replaced"
        if line.sealed().digest != line.digest:
            yield f"line {line.number} was altered: its digest is not that of its content"
        while copy is not None and copy.number < line.number:
            copy = next(kept, None)  # it is missing, which was said above
        if copy is not None and copy.number == line.number:
            if copy.digest != line.digest or copy.sealed().digest != copy.digest:
                yield f"line {line.number} differs from the exported one"
            copy = next(kept, None)
        number, digest = line.number, line.digest
    if copy is not None:
        last = max([copy.number, *(one.number for one in kept)])
        yield f"lines {number + 1} to {last} are missing at the end: they are in the export"


def read_export(text: Iterable[str]) -> Iterator[Line]:
    """The lines of an export, a JSON object each. Raises :class:`AuditError` if one is none."""
    for line in text:
        try:
            values = json.loads(line)
        except ValueError as error:
            raise AuditError(f"this is not a line of the audit log: {line[:80].strip()}") from error
        yield Line.from_json(values)


def _packed(details: Mapping[str, Any]) -> str:
    return json.dumps(dict(details), sort_keys=True, separators=(",", ":"), default=str)


def _name(text: str, most: int) -> str:
    return _UNPRINTABLE.sub("?", text).strip()[:most]
