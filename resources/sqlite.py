"""Write settings of SQLite files.

Belongs here: creating new databases quickly. Does not belong here: their contents and locations.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def synchronous_off(folder: Path) -> Iterator[None]:
    """Disables SQLite's sync at each commit for databases below ``folder``; syncs all files when the block ends.

    Use it only for a folder that is discarded after a crash. Creating MLflow's database takes some hundred commits, and
    waiting for the disk took three of four seconds.
    """
    import sqlalchemy as sa

    root = str(folder.resolve()) + os.sep

    def opened(connection: Any, _record: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        files = [file for _, _, file in connection.execute("PRAGMA database_list")]
        if any(os.path.realpath(file).startswith(root) for file in files if file):
            connection.execute("PRAGMA synchronous=OFF")

    sa.event.listen(sa.Engine, "connect", opened)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "connect", opened)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
