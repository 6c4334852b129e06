"""The command-line interface ``assetline``. It calls the same code as the jobs in the UI.

Belongs here: arguments, exit codes, text output. Does not belong here: any work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from resources.processes import heed_signals
from resources.settings import give_memory_back, one_thread_each, quiet_telemetry


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``assetline``; default: those of this process.

    Returns:
        The exit code: 0 on success, 1 if the command failed, 2 if it could not start.
    """
    heed_signals()
    quiet_telemetry()
    one_thread_each()
    give_memory_back()
    from cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="assetline")
    except SystemExit as ended:
        return int(ended.code or 0)
    except Exception as error:
        from resources.migrations import MigrationError

        if not isinstance(error, MigrationError):  # any command may be the first to open the database
            raise
        print(f"assetline: {error}", file=sys.stderr)
        return 1
    return 0
