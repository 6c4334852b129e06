"""Reads the table that `TABLE='postgresql://…/shop#payments'` names, through the source that the declaration will have.

Belongs here: the form of TABLE, and what a database says about a table besides its rows. Does not belong here: reading
from databases (``resources/sources/sql.py``).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import dagster as dg

from resources.sources import SourceError, SqlTable
from resources.sources.sql_reading import DATABASES, has_secret
from scaffold.tables import RawTable, ScaffoldError, SourceCall, path_in

MOST_ROWS = 5_000_000
"""Maximum number of rows of a table from which a model is made, because all of them are read."""
OTHERS = ("oracle", "mssql", "snowflake", "bigquery", "redshift", "trino", "clickhouse", "databricks", "cockroachdb")
"""Databases that are refused by name."""
_ENV = "env:"
_EXAMPLE = "postgresql://user@host/shop#payments"
_ARRIVAL = re.compile(
    r"(created|inserted|arrived|received|loaded|ingested|recorded|written|landed)(_?(at|on|ts|time|date|timestamp))?|"
    r"(creation|arrival|insert|load|ingest(ion)?)_?(time|date|ts|timestamp)", re.I
)  # fmt: skip


def is_database(table: Path | str) -> bool:
    """Whether TABLE names a table of a database: a URL of one, or ``env:`` and a variable that holds one."""
    scheme = str(table).partition("://")[0].partition("+")[0].lower()
    return isinstance(table, str) and (
        table.startswith(_ENV) or ("://" in table and scheme in (*DATABASES, "postgres", *OTHERS))
    )


def read_database(root: Path, table: str) -> RawTable:
    """Reads all rows of a table or view.

    Args:
        root: root of the project.
        table: TABLE: the URL of a database, or ``env:`` and a variable that holds it; ``#``; and the table or view,
            with its schema if that is not the default one.

    Raises:
        ScaffoldError: there is a password in TABLE, no table is named, or it cannot be read.
    """
    address, _, name = table.partition("#")
    if has_secret(address):
        raise ScaffoldError(
            "TABLE has a password, which the process list shows to everybody on this machine, so change it. Then: "
            f"export SHOP_URL=…; make new-model … TABLE='{_ENV}SHOP_URL#{name or 'payments'}'"
        )
    url = _from_environment(address) if address.startswith(_ENV) else _in_project(root, address)
    try:
        if not name:
            there = SqlTable(url=url).tables()
            listed = ", ".join(there[:100]) or "none that this user may see"
            raise ScaffoldError(f"TABLE={table}: name a table or view after #, as in {_EXAMPLE}; there are: {listed}")
        source = SqlTable(url=url, table=name)
        facts = source.facts()
        if facts.rows > MOST_ROWS:
            raise ScaffoldError(
                f"TABLE={table}: it has {facts.rows:,} rows, and all are read; make the model from a view with at most "
                f"{MOST_ROWS:,} of them, and then name the whole table in the source"
            )
        rows = source.read()
    except SourceError as error:
        raise ScaffoldError(str(error)) from error
    if rows.shape[1] < 2:
        raise ScaffoldError(f"TABLE={table}: it has one column; a model needs a target and at least one other column")
    if rows.empty:
        raise ScaffoldError(f"TABLE={table}: it has no rows; give a table with rows")
    key = facts.key[0] if len(facts.key) == 1 else ""
    return RawTable(
        Path(name.rpartition(".")[2]),
        rows,
        notes=[f"the key '{key}' is the primary key of the table"] if key else [],
        source=SourceCall("SqlTable", {"url": url, "table": name}),
        key=key,
        texts=facts.texts,
        arrivals=[column for column in facts.times if _ARRIVAL.fullmatch(column)],
    )


def _from_environment(address: str) -> Any:
    variable = address.removeprefix(_ENV)
    if not variable.isidentifier():
        raise ScaffoldError(f"TABLE={address}: give the name of a variable after env:, as in {_ENV}SHOP_URL#payments")
    if not os.environ.get(variable):
        raise ScaffoldError(f"TABLE={address}: {variable} is not set; export {variable} with the URL of the database")
    return dg.EnvVar(variable)


def _in_project(root: Path, address: str) -> str:
    """The URL; the path of a database's file as the declaration will have it."""
    scheme, _, path = address.partition(":///")
    if path and scheme in ("sqlite", "duckdb"):
        return f"{scheme}:///{path_in(root, Path(path))}"
    return address
