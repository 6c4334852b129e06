"""The process: listening, and stopping without losing a request.

Belongs here: sockets and signals. Does not belong here: what is answered.

After SIGTERM the process goes through these steps:

1. ``/readyz`` answers 503, and each response closes its connection, so that clients and load balancers go elsewhere.
   Everything is still answered, for the seconds of ``--drain``.
2. No new connection comes in: a socket filter drops their first packet, and with ``--reuse-port`` the kernel gives them
   to the process that listens beside this one.
3. Connections that the kernel had already taken send their requests, which are answered.
4. The socket closes, and requests that still run are finished.

Closing the socket alone would reset the connections in its queue: their clients believe that they are connected. Step 2
is why nobody is in the queue when it closes. A dropped first packet is sent again after a second, and then finds either
another process or a closed port, which a client may safely try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import struct
import time
from types import FrameType

import uvicorn

from serving.scoring.probes import Readiness

SETTLE_S = 0.3
"""Seconds that connections have to send their request after no new ones come in."""
FINISH_S = 20
"""Seconds that running requests have to finish."""
MOST_DRAIN_S = 600
KEEP_ALIVE_S = 75
"""Seconds until an idle connection is closed: longer than the minute for which load balancers keep theirs, because one
that reuses a connection at the moment of its end loses a request."""

# Linux's numbers; Python's socket module does not have them.
_SO_ATTACH_FILTER, _SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 26, 51, 68
# Classic BPF instructions: operation, jump if true, jump if false, value.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the TCP flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone: a new connection
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # take it
)
_THE_NEXT_LISTENER = ((0x06, 0, 0, 1),)  # sockets are numbered in the order in which they began to listen

_log = logging.getLogger("assetline.service")


def refuse_unknown_process(pid: int) -> None:
    """Raises :class:`SystemExit` if there is no such process, or it belongs to another user."""
    try:
        if pid <= 0:
            raise ProcessLookupError("not a process id")
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        raise SystemExit(f"--replace {pid}: this process cannot be stopped ({error}); give the id of yours") from error


def bind(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    """A bound socket that does not listen yet, so that connections are refused until versions are loaded.

    Raises:
        SystemExit: the address cannot be used; the message gives the reason and the fix.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        mend = "stop the process that listens there, or set --port or ASSETLINE_SERVICE_PORT"
        raise SystemExit(f"cannot listen on {host}:{port} ({error}); {mend}") from error
    return bound


def begin(listening: socket.socket) -> None:
    """What follows once a socket listens.

    A process that handed over on this port has left its choice of the next listener behind.
    """
    _set_option(listening, _SO_DETACH_REUSEPORT_BPF, struct.pack("i", 0), quietly=True)
    host, port = listening.getsockname()[:2]
    _log.info("listening on %s port %d", host, port)


def turn_away(listening: socket.socket) -> None:
    """Lets no new connection come to a listening socket; what the kernel has taken already can still be accepted."""
    _attach(listening, _SO_ATTACH_REUSEPORT_CBPF, _THE_NEXT_LISTENER)
    _attach(listening, _SO_ATTACH_FILTER, _DROP_SYN)


class Server(uvicorn.Server):
    """uvicorn's server, with a stop that loses no request.

    Args:
        config: uvicorn's configuration.
        readiness: told when the process is to stop.
        drain_s: seconds for which everything is answered after SIGTERM while ``/readyz`` is 503.
        replaces: process id of an earlier service on the same port, which gets SIGTERM once this one listens.
    """

    def __init__(
        self, config: uvicorn.Config, readiness: Readiness, *, drain_s: float = 0.0, replaces: int | None = None
    ) -> None:
        super().__init__(config)
        self._readiness, self._drain_s, self._replaces = readiness, drain_s, replaces
        self._stops_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Loads the versions, listens, and tells the process that this one replaces."""
        await super().startup(sockets)
        for listening in sockets or []:
            begin(listening)
        if self._replaces is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self._replaces, signal.SIGTERM)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop at SIGTERM. A second one, or SIGINT, skips what is left of the draining."""
        if sig == signal.SIGTERM and self._stops_at is None:
            self._captured_signals.append(sig)
            self._readiness.stopping = True
            self._stops_at = time.monotonic() + self._drain_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times a second; returns whether the process stops now."""
        stops = await super().on_tick(counter)
        if self._stops_at is not None:
            self._close_after_each_response()
            stops = stops or time.monotonic() >= self._stops_at
        return stops

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening and finishes what has begun."""
        if self._stops_at is not None:
            self._close_after_each_response()
            for listening in sockets or []:
                turn_away(listening)
            await asyncio.sleep(SETTLE_S)
        await super().shutdown(sockets)

    def _close_after_each_response(self) -> None:
        close = (b"connection", b"close")
        if close not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, close]


def _attach(listening: socket.socket, option: int, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Attaches a classic BPF program to a socket; a kernel that has none goes on without it."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code)
    quietly = option == _SO_ATTACH_REUSEPORT_CBPF  # it fails without --reuse-port
    _set_option(listening, option, struct.pack("HP", len(program), ctypes.addressof(memory)), quietly=quietly)


def _set_option(listening: socket.socket, option: int, value: bytes, *, quietly: bool) -> None:
    try:
        listening.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as error:
        if not quietly:
            _log.warning(
                "the kernel takes no socket filter (%s); a connection may be reset as the socket closes", error
            )
