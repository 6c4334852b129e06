"""What a source takes from its surroundings: values of environment variables, and the time.

Belongs here: reading ``dg.EnvVar`` outside of a run, and this machine's clock. Dagster itself reads the variables for a
run; tests of a model folder and the scaffold use a source as it is declared. Does not belong here: hiding secrets in
messages (``hidden``, ``base.py``).
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from resources.sources.base import SourceError

SHORTEST_SECRET = 6
"""Shorter values of fields that may or may not be secrets are not hidden; messages would become unreadable."""


def is_long(text: str) -> bool:
    """Whether a value of a field that may be a secret is long enough to be one."""
    return len(text) >= SHORTEST_SECRET


def from_environment(value: str) -> str:
    """The value of a field, read from the environment if it is a ``dg.EnvVar``.

    Raises:
        SourceError: the variable is not set.
    """
    if not isinstance(value, dg.EnvVar):
        return value
    read = value.get_value()
    if read is None:
        raise SourceError(f"the environment variable {value.env_var_name} is not set; the source needs it")
    return read


def utc_now() -> dt.datetime:
    """This machine's time, UTC with zone."""
    return dt.datetime.now(dt.UTC)
