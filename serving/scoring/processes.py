"""Several processes behind one port: this one accepts the connections and hands each to the worker with the fewest.

Belongs here: starting workers, replacing those that end, accepting, and stopping all. Does not belong here: the
worker's side (``worker.py``), what workers share (``shared.py``), HTTP.

This process has imported everything, opens no database and starts no thread. A worker is a fork of it, so it starts
within a second or two, and shares the memory of the libraries. It loads its versions itself and follows the alias by
itself, as a service of one process does.

Connections wait in the queue of one socket until they are accepted here, and are kept here until a worker says that it
has taken them, which it does before it reads from them. So a worker that is killed takes with it only the requests of
its own connections; what it had not taken goes to another one. A worker that does not report for :data:`STUCK_S`
seconds is killed and replaced.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from serving.scoring.limits import make_buckets
from serving.scoring.server import FINISH_S, SETTLE_S, begin, turn_away
from serving.scoring.shared import ProcessState, Seat, State, buckets_file, write_states
from serving.scoring.worker import CONNECTION, DRAIN, LEAVING, READY, REPORT

STUCK_S = 60.0
"""Seconds without a report after which a worker is killed. It reports each second, and a large request takes one."""
START_S = 1_800.0
"""Seconds after which a worker that does not serve yet is killed; a long history takes minutes to read."""
MOST_FAILED_STARTS = 5
"""Workers that end in a row before they served; then the service ends if no worker is left."""
BACKLOG = 2048
PAUSE_S = 1.0
"""Least seconds between two starts of a worker, and the pause if there are no file descriptors left to accept with."""
_MOST_PAUSE_S = 30.0

_log = logging.getLogger("assetline.service")


def refuse_platform() -> None:
    """Raises :class:`SystemExit` where a process cannot hand over connections and memory as Linux does."""
    if sys.platform != "linux":
        raise SystemExit(
            f"--processes needs Linux, and this is {sys.platform}; start one process, or several services behind a "
            "load balancer"
        )


@dataclass
class _Child:
    """A worker. Connections that it has not taken yet count as open, so that a burst is spread evenly."""

    slot: int
    pid: int
    channel: socket.socket
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    state: State = "starting"
    has_served: bool = False
    ready: bool = False
    waiting: collections.deque[socket.socket] = field(default_factory=collections.deque)
    taken: int = 0
    open: int = 0

    @property
    def connections(self) -> int:
        return self.open + len(self.waiting)


class Processes:
    """The workers of a service, and the socket that they serve.

    Args:
        listening: a bound socket; it listens once all workers serve.
        count: number of workers, at least 1.
        serve: serves at a seat, in a process of its own, until its channel is closed.
        drain_s: seconds for which everything is answered after SIGTERM while ``/readyz`` is 503.
        replaces: process id of an earlier service on the same port, which gets SIGTERM once this one listens.
        stuck_s: seconds without a report after which a worker is killed.
        pause_s: least seconds between two starts of a worker; they double with each start that fails.
    """

    def __init__(
        self,
        listening: socket.socket,
        count: int,
        serve: Callable[[Seat], None],
        *,
        drain_s: float = 0.0,
        replaces: int | None = None,
        stuck_s: float = STUCK_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._listening, self._count, self._serve = listening, count, serve
        self._drain_s, self._replaces, self._stuck_s, self._pause_s = drain_s, replaces, stuck_s, pause_s
        self._children: dict[int, _Child] = {}
        self._restarts = dict.fromkeys(range(count), 0)
        self._failed = dict.fromkeys(range(count), 0)
        self._due: dict[int, float] = {}
        self._untaken: collections.deque[socket.socket] = collections.deque()
        self._signals: list[int] = []
        self._accepts_from = 0.0
        self._listens = self._reads = self._ends = False

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM, which then ends this process.

        Raises:
            SystemExit: a worker ended before it served, at the start; or none could be started again.
        """
        gc.collect()
        gc.freeze()  # the collector does not touch, and so does not copy, what the workers share
        with tempfile.TemporaryDirectory(prefix="assetline-service-") as folder, self._heeding():
            self._folder = Path(folder)
            make_buckets(buckets_file(self._folder))
            with selectors.DefaultSelector() as self._selector:
                self._selector.register(self._wakes, selectors.EVENT_READ, None)
                try:
                    status = self._run()
                finally:
                    self._kill()
        if self._signals:
            signal.signal(self._signals[0], signal.SIG_DFL)
            os.kill(os.getpid(), self._signals[0])
        raise SystemExit(status)

    def _run(self) -> int:
        # The first one alone: what is made only once is made by it, and a start that fails says so once.
        for slots in ([0], range(1, self._count)):
            for slot in slots:
                self._start(slot)
            while not self._signals and not all(child.has_served for child in self._children.values()):
                self._turn()
            if len(self._children) < (1 if slots == [0] else self._count) and not self._signals:
                _log.error("a process of the service ended before all of them served; nothing listens")
                return 1
            if self._signals:
                return self._stop()
        self._listening.listen(BACKLOG)
        self._listening.setblocking(False)
        self._listens = True
        begin(self._listening)
        _log.info("%d processes serve", self._count)
        if self._replaces is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self._replaces, signal.SIGTERM)
        while not self._signals:
            self._turn()
            for slot in [slot for slot, at in self._due.items() if at <= time.monotonic()]:
                del self._due[slot]
                self._start(slot)
            if not self._serving() and max(self._failed.values()) >= MOST_FAILED_STARTS:
                _log.error("no process of the service can be started; it ends")
                return 1
        return self._stop()

    # -- stopping ----------------------------------------------------------------------------------------------------

    def _stop(self) -> int:
        """The steps of a stop; see ``server.py``."""
        if self._listens and self._signals[0] == signal.SIGTERM:
            for child in self._children.values():
                with contextlib.suppress(OSError):
                    child.channel.send(DRAIN)
            self._turns(self._drain_s, until=2)
            turn_away(self._listening)
            self._turns(SETTLE_S)
            self._accept()
        self._read_connections(False)
        self._listening.close()
        self._ends = True
        for child in self._children.values():
            child.state = "leaving"
            with contextlib.suppress(OSError):
                child.channel.shutdown(socket.SHUT_WR)
        self._say()
        known, deadline = self._signals.count(signal.SIGINT), time.monotonic() + SETTLE_S + FINISH_S + 5
        while self._children and time.monotonic() < deadline and self._signals.count(signal.SIGINT) == known:
            self._turn()
        return 0

    def _turns(self, seconds: float, until: int | None = None) -> None:
        """Goes on for some seconds, or until there were that many signals."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (until is None or len(self._signals) < until):
            self._turn(end - time.monotonic())

    def _kill(self) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self, seconds: float = 1.0) -> None:
        """Waits for what happens next, for at most a second, and deals with it."""
        now = time.monotonic()
        waits = [seconds, 1.0, *(at - now for at in self._due.values())]
        self._read_connections(self._listens and not self._ends and now >= self._accepts_from and self._has_serving())
        for key, _ in self._selector.select(max(0.0, min(waits))):
            if key.fileobj is self._listening:
                self._accept()
            elif key.fileobj is self._wakes:
                with contextlib.suppress(BlockingIOError):
                    self._wakes.recv(4096)
            else:
                self._hear(key.data)
        for child in [*self._children.values()]:
            self._look_after(child)
        for _ in range(len(self._untaken) if self._has_serving() else 0):
            self._hand_over(self._untaken.popleft())

    def _read_connections(self, wanted: bool) -> None:
        """Accepts connections only while somebody can take them; they wait in the queue of the socket."""
        if wanted and not self._reads:
            self._selector.register(self._listening, selectors.EVENT_READ, None)
        elif self._reads and not wanted:
            self._selector.unregister(self._listening)
        self._reads = wanted

    def _serving(self) -> list[_Child]:
        return [child for child in self._children.values() if child.state == "serving"]

    def _has_serving(self) -> bool:
        return any(child.state == "serving" for child in self._children.values())

    def _accept(self) -> None:
        while self._has_serving():
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    _log.error("no connection can be accepted (%s); the next attempt is in %g s", error, PAUSE_S)
                    self._accepts_from = time.monotonic() + PAUSE_S
                    return
                continue  # the client has gone already
            self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        """Gives a connection to the worker with the fewest, one that is ready if there is one."""
        for child in sorted(self._serving(), key=lambda one: (not one.ready, one.connections, one.slot)):
            with contextlib.suppress(OSError):  # it has just ended, or has read nothing for hundreds of connections
                socket.send_fds(child.channel, [CONNECTION], [connection.fileno()], socket.MSG_DONTWAIT)
                child.waiting.append(connection)
                return
        self._untaken.append(connection)

    def _hear(self, child: _Child) -> None:
        try:
            report = child.channel.recv(REPORT.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            report = b""
        if len(report) != REPORT.size:  # it has ended, or is about to
            self._selector.unregister(child.channel)
            child.channel.close()
            child.ready, child.state = False, "leaving"
            return
        taken, child.open, state = REPORT.unpack(report)
        for _ in range(taken - child.taken):
            child.waiting.popleft().close()
        child.taken, child.heard, before = taken, time.monotonic(), child.state
        child.ready = state == READY
        child.state = "leaving" if state == LEAVING or self._ends else "serving"
        if before != child.state:
            if not child.has_served:
                child.has_served = True
                self._failed[child.slot] = 0
                _log.info("process %d serves (pid %d)", child.slot, child.pid)
            self._say()

    def _look_after(self, child: _Child) -> None:
        """Replaces a worker that has ended, and ends one that is stuck."""
        now = time.monotonic()
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == 0:
            silent = now - child.heard
            limit = {"starting": START_S, "serving": self._stuck_s, "leaving": FINISH_S + 10}[child.state]
            if silent > limit:
                _log.error(
                    "process %d (pid %d) has been silent for %.0f s; it is killed", child.slot, child.pid, silent
                )
                os.kill(child.pid, signal.SIGKILL)
                child.heard = now
            return
        del self._children[child.slot]
        if child.channel.fileno() >= 0:
            self._selector.unregister(child.channel)
            child.channel.close()
        had = child.open
        self._untaken.extend(child.waiting)
        if self._ends:
            return
        code = os.waitstatus_to_exitcode(status)
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        if not child.has_served:
            self._failed[child.slot] += 1
        if not self._listens:
            _log.error("process %d (pid %d) ended by %s before it served", child.slot, child.pid, how)
            return
        self._restarts[child.slot] += 1
        wait = min(_MOST_PAUSE_S, self._pause_s * 2 ** self._failed[child.slot])
        self._due[child.slot] = child.started + wait if child.has_served else now + wait
        _log.error(
            "process %d (pid %d) ended by %s with %d connections; it is started again",
            child.slot, child.pid, how, had,
        )  # fmt: skip
        self._say()

    def _say(self) -> None:
        """Writes down the state of each worker, for ``/health`` and ``/metrics``."""
        states = []
        for slot in range(self._count):
            child, failed = self._children.get(slot), self._failed[slot]
            problem = f"process {slot} of the service ended {failed} times before it served" if failed else None
            state: State = child.state if child else "starting"
            states.append(ProcessState(slot, child.pid if child else 0, state, self._restarts[slot], problem))
        try:
            write_states(self._folder, states)
        except OSError as error:
            _log.error("the states of the processes cannot be written (%s); they go on", error)

    # -- starting ----------------------------------------------------------------------------------------------------

    def _start(self, slot: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._be_worker(Seat(slot, self._folder, theirs))
        theirs.close()
        self._children[slot] = _Child(slot, pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, self._children[slot])
        self._say()

    def _be_worker(self, seat: Seat) -> NoReturn:
        """The rest of a worker's life. It gets no signal of the terminal, because this process passes them on."""
        status = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # A copy of another worker's channel or connection would keep it open after its owner has closed it.
            for child in self._children.values():
                for copy in (child.channel, *child.waiting):
                    copy.close()
            for copy in self._untaken:
                copy.close()
            for mine in (self._listening, self._wakes, self._woken):
                mine.close()
            self._selector.close()
            self._serve(seat)
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
            else:
                status = int(end.code or 0)
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)  # nothing of the process that started it is cleaned up here

    @contextlib.contextmanager
    def _heeding(self) -> Iterator[None]:
        """Notes signals, each of which ends the current wait."""
        self._wakes, self._woken = socket.socketpair()
        self._wakes.setblocking(False)
        self._woken.setblocking(False)
        handlers = {sig: signal.signal(sig, self._note) for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
        before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for sig, handler in handlers.items():
                signal.signal(sig, handler)
            self._wakes.close()
            self._woken.close()

    def _note(self, sig: int, _: object) -> None:
        if sig != signal.SIGCHLD:
            self._signals.append(sig)
