"""Dumps of the project's own database where it is PostgreSQL, by PostgreSQL's programs.

Belongs here: calling ``pg_dump`` and ``pg_restore``. Does not belong here: the archive (``backup.py``, ``restore.py``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import sqlalchemy as sa


def dump(url: str, to: Path, refused: type[Exception]) -> None:
    """Writes the whole database of ``url`` to a file in PostgreSQL's custom format, as it is at one moment.

    Raises ``refused`` if there is no ``pg_dump`` or it fails.
    """
    _run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={to}"], url, refused)


def refuse_tables(url: str, refused: type[Exception]) -> None:
    """Raises ``refused`` if the database cannot be reached or has tables already."""
    shown = sa.make_url(url).render_as_string(hide_password=True)
    try:
        there = sa.inspect(sa.create_engine(url, poolclass=sa.NullPool)).get_table_names()
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise refused(f"the database {shown} cannot be reached ({reason}); start it, or correct the URL") from error
    if there:
        raise refused(f"the database {shown} has tables already ({', '.join(sorted(there)[:3])}); give an empty one")


def load(url: str, file: Path, refused: type[Exception]) -> None:
    """Fills the empty database of ``url`` from a dump, in one transaction; raises ``refused`` if that fails."""
    _run(
        "pg_restore", ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", str(file)], url,
        refused,
    )  # fmt: skip


def _run(program: str, arguments: list[str], url: str, refused: type[Exception]) -> None:
    found = shutil.which(program)
    if found is None:
        raise refused(f"{program} is not installed; install PostgreSQL's client (Debian: postgresql-client)")
    parsed = sa.make_url(url)
    # libpq takes the password from the environment; an argument would be visible to other users.
    environment = {**os.environ, **({"PGPASSWORD": str(parsed.password)} if parsed.password else {})}
    address = parsed.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    command = [found, *arguments, f"--dbname={address}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[0]
        raise refused(f"{program} failed: {last}")
