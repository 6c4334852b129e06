"""Migrations of the project's own database, ``assetline.db`` or PostgreSQL: one numbered revision after the other.

Belongs here: applying revisions, and the refusal of a database that a newer release has upgraded. ``versions/`` holds
the revisions, ``env.py`` is what Alembic runs. Does not belong here: how the tables are used (``ledger.py``,
``alerts/database.py``), the databases of Dagster, MLflow and Optuna, which migrate their own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources.append_only import lock_schema

FOLDER = Path(__file__).parent

VERSION_TABLE = "assetline_schema"
"""Table with the revision. Alembic's default name is taken by Optuna, whose tables may be in the same database."""

_one_at_a_time = threading.Lock()
"""Alembic keeps the current migration in global variables of the process."""


class MigrationError(Exception):
    """The database cannot be used by this release. The message gives both revisions and the fix."""


@functools.cache
def revisions() -> tuple[str, ...]:
    """All revisions that this release knows, oldest first: the numbers at the start of the file names."""
    return tuple(sorted(path.name.split("_")[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py")))


def migrate(engine: sa.Engine) -> None:
    """Brings the database to the newest revision; one query if it is there already.

    All revisions are applied in one transaction, so a killed process leaves the database as it was. If several
    processes call this at once, one migrates and the others wait. A database of a release without revisions gets the
    first revision and keeps its rows. Tables that no revision names are left alone.

    Raises:
        MigrationError: a newer release has upgraded the database.
    """
    if revision_of(engine) == revisions()[-1]:
        return
    with _one_at_a_time, _writing(engine) as connection:
        lock_schema(connection)
        revision = _revision(connection) if sa.inspect(connection).has_table(VERSION_TABLE) else None
        if revision is not None and revision not in revisions():
            raise MigrationError(
                f"the database {_shown(engine.url)} has revision {revision} of a newer release, and this release knows "
                f"revisions up to {revisions()[-1]}; run the newer release, or restore a backup from before its upgrade"
            )
        if revision != revisions()[-1]:
            _upgrade(connection)


def revision_of(engine: sa.Engine) -> str | None:
    """The revision of a database; ``None`` if it has none, or if it cannot be read."""
    try:
        with engine.connect() as connection:
            return _revision(connection)
    except (sa.exc.OperationalError, sa.exc.ProgrammingError):  # no such table, on SQLite and on PostgreSQL
        return None


def _revision(connection: sa.Connection) -> str | None:
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    import logging

    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that includes changes of the schema. On SQLite it takes the write lock at its start."""
    own = sa.create_engine(engine.url, poolclass=sa.NullPool)
    if own.dialect.name == "sqlite":
        Path(own.url.database or "").parent.mkdir(parents=True, exist_ok=True)

        @sa.event.listens_for(own, "connect")
        def opened(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # BEGIN is issued explicitly, below
            connection.execute("PRAGMA busy_timeout = 30000")

        @sa.event.listens_for(own, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    with own.begin() as connection:
        yield connection


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)
