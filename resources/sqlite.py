"""How SQLite files are written.

Belongs here: creating new databases quickly. Does not belong here: what is in them, and where they are.
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
    """SQLite does not sync databases below ``folder`` at each commit; when the block ends, all files are synced once.

    For a folder that is thrown away after a crash. Creating MLflow's database runs some hundred commits, and waiting
    for the disk at each of them took three of four seconds.
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
