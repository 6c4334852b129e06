"""Turns the errors that a user can fix into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import typer

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
        return Settings.from_env()
