"""On the PYTHONPATH of a process and those it starts: no name but this machine's resolves, nobody else is reached.

Each attempt is written to the file that ``ATTEMPTS`` names.
"""

import os
import sys

LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0", None, "")


def refuse(event: str, arguments: tuple) -> None:
    """An audit hook: it sees every connection of every library that uses Python's sockets."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None  # a Unix socket has a path
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOOPBACK:
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{sys.argv[:3]} {event} {host}\n")
        raise OSError(f"no network: {host}")


sys.addaudithook(refuse)
