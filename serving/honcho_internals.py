"""Wrappers of what honcho has no public API for; ``tests/serving/test_honcho_internals.py`` tests that they still work.

Belongs here: processes whose children end with them, and the starts and stops of processes as events. Does not belong
here: which processes run (``supervisor.py``).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

import honcho.manager
from honcho.printer import Message, Printer
from honcho.process import Popen, Process

CHILDREN_GRACE_S = 1.0
"""Seconds that the children of a process have to exit after it."""
_STARTED = re.compile(r"(?P<name>\S+) started \(pid=\d+\)")
_STOPPED = re.compile(r"(?P<name>\S+) stopped \(rc=(?P<code>-?\d+)\)")


@dataclass(frozen=True)
class Started:
    """A process has started."""

    name: str


@dataclass(frozen=True)
class Stopped:
    """A process has exited with a status; the negative number of a signal if one ended it."""

    name: str
    code: int


@dataclass(frozen=True)
class SignalReceived:
    """The manager was asked to stop all processes."""


def event_in(message: Message) -> Started | Stopped | SignalReceived | None:
    """Returns the event that a message of honcho itself reports; ``None`` for any other message.

    honcho reports events only as the text of its messages.
    """
    if message.name != honcho.manager.SYSTEM_PRINTER_NAME:
        return None
    if found := _STARTED.match(message.data):
        return Started(found["name"])
    if found := _STOPPED.match(message.data):
        return Stopped(found["name"], int(found["code"]))
    return SignalReceived() if message.data.endswith("received\n") else None


class SessionManager(honcho.manager.Manager):
    """A manager that kills the session of each process when the process exits.

    Without this, honcho does not notice a process that dies while its children live on, because they hold its output
    open.

    Args:
        printer: receives all messages.
        kill_after_s: seconds that processes have to exit after SIGTERM.
    """

    def __init__(self, printer: Printer, kill_after_s: float) -> None:
        super().__init__(printer)
        honcho.manager.KILL_WAIT = kill_after_s
        self._process_ctor = _Session


class _Session(Process):
    """A process whose session is killed when it exits, so that its children do not outlive it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._child_ctor = self._started

    @staticmethod
    def _started(*args: Any, **kwargs: Any) -> Popen:
        leader = Popen(*args, **kwargs)

        def end_with_leader() -> None:
            with contextlib.suppress(ChildProcessError):  # honcho has already read its exit status
                os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie, so its pid is not reused
            time.sleep(CHILDREN_GRACE_S)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # no process is left
                os.killpg(leader.pid, signal.SIGKILL)

        threading.Thread(target=end_with_leader, daemon=True).start()
        return leader
