"""What went wrong at a database, as one sentence, and whether trying again can help.

Belongs here: the error codes of each database. Does not belong here: errors that are found in rows (``sql.py``).

Drivers put whole statements, parameters and sometimes connection strings into their messages. So only the first line of
the database's own message is passed on, without secrets, and the driver's exception is not chained to ours: Dagster
stores the texts of chained exceptions in its event log.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from resources.sources.base import SourceError, SourceUnavailable

_LATER_STATES = (
    "08", "53", "57", "40001", "40P01", "55P03", "55006", "25P03",
)  # fmt: skip
"""SQLSTATEs of PostgreSQL (or their beginnings) that pass: connection, resources, shutdown, deadlock, lock."""
_LATER_CODES = frozenset((
    1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1317, 1927, 1969, 2002, 2003, 2006, 2013, 2055, 3024,
    4031, 4166,
))  # fmt: skip
"""The same as error numbers of MySQL and MariaDB."""
_LATER_TEXTS = re.compile(
    r"database (table |schema )?is locked|interrupted|disk i/o error|could not set lock|conflicting lock", re.I
)
"""The same as texts of SQLite and DuckDB, which have no numbers for them that the drivers pass on."""
_NEVER = re.compile(
    r"password authentication failed|no password supplied|role \"[^\"]*\" does not exist|database \"[^\"]*\" does not "
    r"exist|no pg_hba\.conf entry|permission denied for database|is not permitted to log in|invalid (connection|dsn)|"
    r"authentication method|certificate|not a database|different configuration", re.I,
)  # fmt: skip
"""Texts of errors while connecting that a person has to mend; PostgreSQL's client gives no SQLSTATE for them."""
_MENDS = {
    "28P01": "check the user and the password in the URL", "28000": "check the user and the password in the URL",
    "3D000": "check the database's name in the URL", "42501": "grant SELECT on it to the user of the URL",
    "42601": "correct the query", "42P01": "correct the query", "42703": "correct the query",
    "1045": "check the user and the password in the URL", "1044": "grant SELECT on it to the user of the URL",
    "1049": "check the database's name in the URL", "1142": "grant SELECT on it to the user of the URL",
    "1143": "grant SELECT on it to the user of the URL", "1064": "correct the query", "1054": "correct the query",
    "1698": "check the user and the password in the URL",
}  # fmt: skip
_MENDS_BY_TEXT = (
    (
        r"password|no pg_hba|not permitted to log in|authentication|role \"",
        "check the user and the password in the URL",
    ),
    (r"database \"[^\"]*\" does not exist", "check the database's name in the URL"),
    (r"permission denied", "grant SELECT on it to the user of the URL"),
    (r"not a database", "check the path in the URL"),
    (r"syntax error|no such column|no such table|parser error|binder error|catalog error", "correct the query"),
)


def told(error: BaseException, where: str) -> SourceError:
    """The error of a driver as one of ours; :class:`~resources.sources.SourceUnavailable` if it may pass by itself.

    Args:
        error: the exception of SQLAlchemy or of the driver.
        where: the database and the table, without secrets.
    """
    original = getattr(error, "orig", None) or error
    message = _first_line(original) or type(original).__name__
    number = _number(original)
    state = _state(original) if number is None else None  # MySQL's SQLSTATEs are too coarse
    lost = bool(getattr(error, "connection_invalidated", False))
    if _passes(original, state, number, message) or (lost and state is None and not _NEVER.search(message)):
        return SourceUnavailable(f"{where}: the database does not answer now ({message})")
    mend = _MENDS.get(state or str(number)) or next(
        (mend for text, mend in _MENDS_BY_TEXT if re.search(text, message, re.I)), "check the source"
    )
    # A database quotes the value that it cannot convert.
    return SourceError(f"{where}: {message}; {mend}", quotes=mend == "check the source")


def _passes(original: Any, state: str | None, number: int | None, message: str) -> bool:
    if state is not None:
        return state.startswith(_LATER_STATES)
    if number is not None:
        return number in _LATER_CODES or number == 0
    if _LATER_TEXTS.search(message):
        return True
    # An error without a code of PostgreSQL's or MySQL's driver: the connection was not made, or was cut.
    driver = type(original).__module__.split(".")[0]
    operational = type(original).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")
    return driver in ("psycopg", "psycopg2", "pymysql") and operational and not _NEVER.search(message)


def _state(original: Any) -> str | None:
    """The SQLSTATE of psycopg 3 or 2."""
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)


def _number(original: Any) -> int | None:
    """The error number of pymysql."""
    if type(original).__module__.split(".")[0] != "pymysql":
        return None
    first = original.args[0] if original.args else None
    return first if isinstance(first, int) else None


def _first_line(original: Any) -> str:
    text = str(original.args[1]) if _number(original) and len(original.args) > 1 else str(original)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A failed connection names each address that was tried; the last line before the hint has the reason.
    line = next((line for line in lines if "FATAL:" in line), lines[0] if lines else "")
    return line[:300]


SQL_ERRORS = (sa.exc.SQLAlchemyError,)
"""What SQLAlchemy raises; it wraps the errors of all drivers."""
