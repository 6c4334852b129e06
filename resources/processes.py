"""Operating system helpers: check whether a process runs, find a free port, tie a child to its parent, heed signals.

Belongs here: functions that ask the operating system. Does not belong here: the purpose of a process.
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
    """Whether the process that had ``pid`` at Unix time ``at`` still runs on this machine.

    A newer process with a reused pid does not count, and neither does a zombie. Without ``/proc`` (macOS), only the pid
    is checked.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    try:
        # Split after the name, which may contain spaces and brackets. The first field is the state, the 20th the start.
        rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()
    started = int(boot.split()[1]) + int(rest[19]) / os.sysconf("SC_CLK_TCK")
    return rest[0] != "Z" and started <= at + _CLOCK_SLACK_S


def free_port() -> int:
    """A TCP port on the loopback interface that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tied_to_parent(command: list[str]) -> list[str]:
    """Wraps a command so that the kernel kills it when this process dies, even by SIGKILL (Linux only).

    The child is tied to the thread that starts it, so wait for it in the same thread.
    """
    # An interpreter sets the tie and then execs the command, because ``preexec_fn`` is not safe with threads.
    return [sys.executable, "-IS", __file__, *command] if sys.platform == "linux" else command


def heed_signals() -> None:
    """Lets SIGINT and SIGTERM end this process, also where the shell that started it in the background ignores SIGINT.

    Whenever Dagster runs something in this process, it lets SIGTERM do what SIGINT does. Where SIGINT is ignored,
    SIGTERM would be ignored from then on, by this process and by those that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvp(sys.argv[1], sys.argv[1:])
