"""Turns the errors that a user can fix into one line on stderr and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from resources.local_postgres import LocalPostgresError, in_use
from resources.settings import Settings, SettingsError


@contextlib.contextmanager
def reported(command: str, *errors: type[Exception], code: int = 1) -> Iterator[None]:
    """Ends the command with ``code`` if one of ``errors`` is raised, and prints its message without a traceback."""
    try:
        yield
    except errors as error:
        print(f"{command}: {error}", file=sys.stderr)
        raise typer.Exit(code) from error


def read_settings(command: str = "assetline") -> Settings:
    """Reads the settings; an invalid one ends the command with code 2."""
    with reported(command, SettingsError, code=2):
        settings = Settings.from_env()
    if settings.stack == "postgres":
        with reported(command, LocalPostgresError, code=2):
            _while_this_process_runs(settings.home)
    return settings


@functools.cache
def _while_this_process_runs(home: Path) -> None:
    """Keeps the state folder's PostgreSQL running until this process ends."""
    stack = contextlib.ExitStack()
    stack.enter_context(in_use(home))
    atexit.register(stack.close)
