"""The watch: the alerts' page, delivery to the channels, the watchdog, and metrics, in one process of the supervisor.

    python -m serving.watch.app

Belongs here: starting and stopping the parts of the process. Does not belong here: the page (``alerts_page.py``), the
pages about versions (``versions_page.py``), the checks (``watchdog.py``), alerts themselves (``resources/alerts``).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping

from resources.settings import Settings, quiet_telemetry

quiet_telemetry()

import dagster as dg  # noqa: E402 - telemetry is off before anything else is imported
import uvicorn  # noqa: E402
from fastapi import FastAPI, Response  # noqa: E402
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: E402

from assets.declaration import Model  # noqa: E402
from assets.models import declared_models  # noqa: E402
from metadata.facts import Metadata  # noqa: E402
from resources import home  # noqa: E402
from resources.alerts import Alerts, ChannelsError, Dispatcher  # noqa: E402
from resources.audit import AuditLog  # noqa: E402
from resources.ledger import Ledger  # noqa: E402
from resources.production import open_bind  # noqa: E402
from resources.service_tokens import Token, TokenError, TokenFile  # noqa: E402
from resources.tables import ParquetTables  # noqa: E402
from serving.watch.alerts_page import create_app  # noqa: E402
from serving.watch.exporter import AssetlineCollector, registry_of  # noqa: E402
from serving.watch.watchdog import Watchdog, dagster_look, service_look  # noqa: E402

LOOK_S = 15.0
_log = logging.getLogger("assetline.watch")


def token_of(settings: Settings) -> str:
    """The token from the settings, or one generated once in the state folder and readable only by its owner."""
    if settings.token:
        return settings.token
    path = settings.home / "token"
    settings.home.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(path, "x", opener=_owner_only) as file:
        file.write(secrets.token_hex(16))
    return path.read_text().strip()


def named_tokens(settings: Settings) -> Callable[[], Mapping[str, Token]]:
    """Returns a function that reads the named tokens. If the file is damaged, there are none, and the log says why."""
    file = TokenFile(settings.service_tokens, settings.first_service_token)

    def read() -> Mapping[str, Token]:
        try:
            return file.read() if file.path.exists() else {}
        except TokenError as error:
            _log.error("%s", error)
            return {}

    return read


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Watch:
    """The background work of the watch: delivery, the watchdog, and time-based changes of alerts."""

    def __init__(self, settings: Settings, alerts: Alerts, models: list[Model]) -> None:
        self.store, self._tell = alerts.store, alerts.tell
        names = [model.name for model in models]
        began = time.time()
        self._dispatcher = Dispatcher(alerts.messengers())
        self._watchdog = Watchdog(
            self.store,
            {
                ("watchdog/", "freshness/"): dagster_look(settings.ui_url, names, began),
                ("service/",): service_look(settings.service_url),
            },
            {model.name: model.owner for model in models},
            alerts.tell,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)

    def start(self) -> None:
        """Starts delivery and the watchdog."""
        self._dispatcher.start()
        self._thread.start()

    def stop(self) -> None:
        """Stops the watchdog and delivery; messages that are being sent are finished first."""
        self._stop.set()
        self._dispatcher.stop()

    def _look_on(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self._watchdog.look()
                for changed in self.store.tend():
                    self._tell(changed)
            except Exception:  # the database may be away for a while; the watch goes on
                _log.exception("the watchdog failed to check")


def main(arguments: list[str] | None = None) -> None:
    """Runs the watch until it receives SIGINT or SIGTERM."""
    settings = Settings.from_env()
    parser = argparse.ArgumentParser(
        prog="python -m serving.watch.app", description="Alerts' page, delivery, watchdog."
    )
    parser.add_argument("--host", default=settings.watch_host, help="interface to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=settings.watch_port, help="port (default: %(default)s)")
    given = parser.parse_args(arguments)
    if problem := open_bind(settings, given.host):
        raise SystemExit(f"--host {given.host}{problem}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines contain URLs, and some of those are secret
    logging.getLogger("alembic").setLevel(logging.WARNING)
    alerts = Alerts.from_settings(settings).process_config_and_initialize()
    try:
        watch = Watch(settings, alerts, declared_models())
    except ChannelsError as error:
        raise SystemExit(f"the watch cannot start: {error}") from error

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch.start()
        yield
        watch.stop()

    home.prepare(settings)
    models, instance = declared_models(), dg.DagsterInstance.get()
    app = create_app(
        alerts.store, token_of(settings), reports=ParquetTables(root=settings.tables), ui_url=settings.ui_link,
        ledger=Ledger.from_settings(settings).process_config_and_initialize(), models=models,
        metadata=lambda: Metadata(settings, models, instance), audit=AuditLog(settings.database_url),
        tokens=named_tokens(settings),
    )  # fmt: skip
    app.router.lifespan_context = lifespan
    registry = registry_of(AssetlineCollector(settings, models, instance, alerts.store))

    @app.get("/metrics")
    def metrics() -> Response:
        """For Prometheus; no alert's words are in it, so it needs no token."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    uvicorn.run(
        app, host=given.host, port=given.port, log_level="warning", access_log=False, timeout_graceful_shutdown=3
    )


if __name__ == "__main__":
    main()
