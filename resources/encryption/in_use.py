"""Whether this process encrypts what it writes, and the keys that it has.

Both come from the settings of the process and not from whoever opens a table: a place that forgot to hand them on would
write in the clear. A changed key file is read again at the next use, so a process that runs for weeks sees a rotation.

Belongs here: that reading. Does not belong here: what is encrypted.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from resources.keys import KeyProblem, KeyRing
from resources.settings import PREFIX, Settings, read


def encrypts() -> bool:
    """Whether new files are encrypted: the setting ``encrypt`` of this process."""
    return _settings(_environment()).encrypt


def ring() -> KeyRing:
    """The keys of this process. Raises :class:`~resources.keys.KeyProblem` if the file or a variable is wrong."""
    environment = _environment()
    return _ring(environment, _state(_settings(environment).keys))


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(PREFIX)))


@functools.lru_cache(maxsize=4)
def _settings(environment: tuple[tuple[str, str], ...]) -> Settings:
    found = read(dict(environment))
    if found.settings is None:  # a process with such settings does not start, so it is one that changed them
        raise KeyProblem(f"the settings that name the keys are wrong: {found.problems[0]}")
    return found.settings


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


@functools.lru_cache(maxsize=4)
def _ring(environment: tuple[tuple[str, str], ...], _state: tuple[int, int, int] | None) -> KeyRing:
    return KeyRing.of(_settings(environment))
