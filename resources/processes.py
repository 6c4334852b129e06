"""Processes of this machine: whether one still runs, a free port, a child that ends with its parent.

Belongs here: what the operating system alone knows. Does not belong here: what a process is for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

_CLOCK_SLACK_S = 2.0
_PR_SET_PDEATHSIG = 1


def still_runs(pid: int, at: float) -> bool:
    """Whether the process that had the number ``pid`` at Unix time ``at`` runs on this machine.

    A number may have gone to a newer process since, and a zombie runs no more. Where there is no ``/proc`` (macOS)
    the number alone decides.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists, as another user's
    try:
        # Fields after the name (which may hold spaces and brackets): the state is the first, the start the 20th.
        rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()
    started = int(boot.split()[1]) + int(rest[19]) / os.sysconf("SC_CLK_TCK")
    return rest[0] != "Z" and started <= at + _CLOCK_SLACK_S


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tied_to_parent(command: list[str]) -> list[str]:
    """The command such that the kernel ends it when this process dies, even by SIGKILL (Linux; unchanged elsewhere).

    The tie is to the thread that starts it: wait for the child in the same thread.
    """
    # Through an interpreter that ties itself and becomes the command: ``preexec_fn`` is not safe beside threads.
    return [sys.executable, "-IS", __file__, *command] if sys.platform == "linux" else command


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvp(sys.argv[1], sys.argv[1:])
