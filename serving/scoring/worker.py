"""One of several processes of a service: takes connections that were accepted for it, and says how many it has.

Belongs here: a worker's end of the channel, and its stop. Does not belong here: accepting connections and choosing the
worker (``processes.py``), what is answered (``service.py``).

The channel is a Unix socket that keeps the borders of messages. The other end sends a connection, or :data:`DRAIN`; a
closed channel means that this process stops, also where the other end was killed. This end sends :data:`REPORT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import struct
import time
from types import FrameType

import uvicorn

from serving.scoring.probes import Readiness
from serving.scoring.server import Server
from serving.scoring.shared import Seat

REPORT = struct.Struct("<QQB")
"""Connections taken so far, connections open now, and the state: one of the three below. The other end reads at once,
so a report that cannot be sent means that nobody is there any more."""
UP, READY, LEAVING = 0, 1, 2
"""It takes connections but is not ready; it is ready; it takes no more connections."""
CONNECTION, DRAIN = b"c", b"d"
"""Messages to a worker: a connection comes with this one; or close each connection after its next response."""
REPORT_EVERY_TICKS = 10
"""Ticks of a tenth of a second after which a report is sent even if nothing has changed."""


class Worker(Server):
    """A server without a listening socket.

    Args:
        config: uvicorn's configuration.
        readiness: whether requests should come to this process.
        seat: its place among the processes.
    """

    def __init__(self, config: uvicorn.Config, readiness: Readiness, seat: Seat) -> None:
        super().__init__(config, readiness, drain_s=math.inf)
        self._channel, self._taken, self._said = seat.channel, 0, b""
        self._connecting: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Loads the versions, then says that connections may come."""
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._receive)
        await super().startup([])
        self._report()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops at SIGTERM, after what has begun: somebody ends this process alone, and another one takes its place."""
        if sig == signal.SIGTERM and not self._readiness.stopping:
            self._captured_signals.append(sig)
            self._stop_at(time.monotonic())
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times a second; returns whether the process stops now."""
        stops = await super().on_tick(counter)
        self._report(always=counter % REPORT_EVERY_TICKS == 0)
        return stops

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets no more connections come, and finishes what has begun."""
        self._report(leaving=True)
        if self._stops_at is None:  # SIGINT
            self._stop_at(time.monotonic())
        await super().shutdown([])

    def _stop_at(self, at: float) -> None:
        self._readiness.stopping = True
        self._stops_at = at

    def _receive(self) -> None:
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionResetError:  # the other end was killed; what it sent before can still be read
                continue
            for descriptor in descriptors:
                self._take(socket.socket(fileno=descriptor))
            if message == DRAIN:
                self._stop_at(math.inf)
            elif not message:
                asyncio.get_running_loop().remove_reader(self._channel)
                self._stop_at(time.monotonic())
                return

    def _take(self, connection: socket.socket) -> None:
        self._taken += 1
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # the client has gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.get_running_loop().create_task(self._connected(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self._report()  # before anything is read: until then, another process may still get the connection

    async def _connected(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:  # the client has gone already
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )  # fmt: skip

    def _report(self, *, leaving: bool = False, always: bool = True) -> None:
        state = LEAVING if leaving else UP if self._readiness.reasons() else READY
        if self._readiness.stopping and not leaving:
            state = READY  # it still takes what comes
        report = REPORT.pack(self._taken, len(self.server_state.connections) + len(self._connecting), state)
        if report != self._said or always:
            with contextlib.suppress(OSError):  # the other end reads nothing any more; the closed channel tells
                self._channel.send(report)
                self._said = report
