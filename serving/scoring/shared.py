"""What the processes of one service know of each other: a folder of small files, for as long as the service runs.

Belongs here: the folder, the state of each process, and the health of all of them as one answer. Does not belong here:
starting them (``processes.py``), handing connections to them (``worker.py``), the rows that they share (the log of
requests).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["starting", "serving", "leaving"]
"""A process loads its versions, it takes connections, or it finishes what it has and ends."""

_PROCESSES = "processes.json"
_SEVERITY = ("ok", "waiting", "degraded")


@dataclass(frozen=True)
class Seat:
    """The place of one process among those of a service.

    Args:
        slot: its number, from 0; a process that is started again keeps it.
        folder: the folder that all of them share.
        channel: its end of the channel to the process that started it.
    """

    slot: int
    folder: Path
    channel: socket.socket

    @property
    def buckets(self) -> Path:
        """The file with the rate limits of tokens."""
        return buckets_file(self.folder)


@dataclass(frozen=True)
class ProcessState:
    """One process, as the one that started it sees it.

    Args:
        process: its number, from 0.
        pid: its process id.
        state: see :data:`State`.
        restarts: how often it was started again.
        problem: why it does not serve, if that has lasted; ``None`` otherwise.
    """

    process: int
    pid: int
    state: State
    restarts: int
    problem: str | None = None


def buckets_file(folder: Path) -> Path:
    """The file with the rate limits of tokens."""
    return folder / "buckets.bin"


def write_states(folder: Path, states: Sequence[ProcessState]) -> None:
    """Writes the states for all processes to read."""
    _write(folder / _PROCESSES, [asdict(one) for one in states])


class Board:
    """Where the processes of a service read of each other.

    Args:
        seat: this process.
    """

    def __init__(self, seat: Seat) -> None:
        self._folder, self._slot = seat.folder, seat.slot

    def publish(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the health of this process's models for the others."""
        _write(self._health(self._slot), models)

    def states(self) -> list[ProcessState]:
        """The states of all processes, by number."""
        return [ProcessState(**one) for one in _read(self._folder / _PROCESSES) or []]

    def health(self, own: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The health of each model, over all processes that serve: what the worst of them says.

        Of processes that are equally well, the one counts that has served its version for longest. So a new version is
        named once every process serves it.

        Args:
            own: the health of this process's models, by name.
        """
        serving = [one.process for one in self.states() if one.state == "serving" and one.process != self._slot]
        others = [found for slot in serving if (found := _read(self._health(slot)))]
        return {
            name: max(
                [health, *(other[name] for other in others if name in other)],
                key=lambda one: (_SEVERITY.index(one["status"]), _age(one)),
            )
            for name, health in own.items()
        }

    def _health(self, slot: int) -> Path:
        return self._folder / f"health-{slot}.json"


def _age(health: Mapping[str, Any]) -> tuple[int, ...]:
    """A key that is larger for a version that has served longer."""
    return tuple(-ord(character) for character in str(health.get("since", "")))


def _write(path: Path, content: Any) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content))
    os.replace(new, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:  # a process that has not written yet
        return None
