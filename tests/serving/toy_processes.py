"""A service of several processes that answers with its process id: `python -m tests.serving.toy_processes PORT COUNT`.

`/slow` holds a request until the file named in TOY_HOLD is gone. With TOY_FAILS=slot, that worker exits before it
serves; with TOY_FAILS_LATER=file, every worker does as soon as the file is there.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

import uvicorn

from serving.scoring.probes import Readiness
from serving.scoring.processes import Processes
from serving.scoring.server import FINISH_S, bind
from serving.scoring.shared import Board, Seat
from serving.scoring.worker import Worker


def serve(seat: Seat) -> None:
    if os.environ.get("TOY_FAILS") == str(seat.slot) or Path(os.environ.get("TOY_FAILS_LATER", "/none")).exists():
        raise SystemExit("it cannot start")
    readiness = Readiness([])

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await receive()
        if scope["path"] == "/slow":
            while Path(os.environ["TOY_HOLD"]).exists():
                await asyncio.sleep(0.01)
        states = Board(seat).states()
        body = " ".join([str(os.getpid()), *(f"{one.state}:{one.restarts}" for one in states)]).encode()
        status = 503 if scope["path"] == "/readyz" and readiness.reasons() else 200
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-length", str(len(body)).encode())]})  # fmt: skip
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=FINISH_S
    )
    Worker(config, readiness, seat).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    port, count = int(sys.argv[1]), int(sys.argv[2])
    drain_s, stuck_s = float(os.environ.get("TOY_DRAIN", "0")), float(os.environ.get("TOY_STUCK", "60"))
    listening = bind("127.0.0.1", port, reuse_port=False)
    Processes(listening, count, serve, drain_s=drain_s, stuck_s=stuck_s, pause_s=0.1).run()
