"""The scoring service: a raw payment in; probability, decision and the model version that said so out.

    python -m serving.service                      every declared model, following its alias ``champion``
    python -m serving.service --model fraud        one of them
    python -m serving.service --bundle DIR         one bundle, whatever the aliases say: a throw-away process

Belongs here: HTTP, and following the alias. Does not belong here: reading a raw row (``intake.py``), its past
(``history.py``), the network (the bundle).

A new champion is loaded, warmed on a real row and only then takes over, by one assignment between two requests: none
fails. A version that cannot be loaded takes nothing over; the old one serves on and ``/health`` says so. All requests
run on one event loop, one at a time: a request takes about a millisecond, and history needs no locks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from resources.settings import Settings, one_thread_each, project_name, quiet_telemetry

quiet_telemetry()
one_thread_each()

import numpy as np  # noqa: E402 - telemetry is off before anything else is imported
import uvicorn  # noqa: E402
from fastapi import Body, FastAPI, HTTPException, Request  # noqa: E402
from fastapi.exceptions import RequestValidationError  # noqa: E402
from fastapi.responses import JSONResponse, Response  # noqa: E402
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

from assets.declaration import Model  # noqa: E402
from assets.lifecycle.answers import in_words  # noqa: E402
from assets.lifecycle.bundle import Bundle  # noqa: E402
from assets.lifecycle.features import compute_features, features_of  # noqa: E402
from assets.models import declared_models  # noqa: E402
from resources.deployment import CHAMPION, Ledger  # noqa: E402
from resources.mlflow import MlflowTracking  # noqa: E402
from resources.tables import ParquetTables  # noqa: E402
from serving.history import History, LogError, TooOldError  # noqa: E402
from serving.intake import Intake, Problem, Raw, RefusedRows  # noqa: E402
from serving.service_metrics import ServiceMetrics  # noqa: E402

POLL_S = 2.0
"""How often the alias and the tables are looked at."""
RETRY_S = 30.0
"""A version that could not be loaded is tried again after this, and tables that keep changing are read this often."""
RETRY_AFTER_S = 5
"""What a client is told when nothing can answer it yet."""
MAX_ROWS = 1000
"""Rows in one request: they hold up the others."""
STAGED = "staged"
"""Stands for the version of a bundle that was given by its folder."""

_log = logging.getLogger("assetline.service")


@dataclass(frozen=True)
class Served:
    """One version, ready: everything a request needs hangs on this one reference."""

    version: str
    bundle: Bundle
    model: Model
    intake: Intake
    history: History
    since: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @classmethod
    def prepare(
        cls, version: str, directory: Path, tables: ParquetTables, log_folder: Path | None, before: Served | None = None
    ) -> Served:
        """Loads and warms a bundle; takes seconds and touches nothing that serves, so that a thread may do it.

        The past that ``before`` keeps is shared where the new version needs the same of it.
        """
        bundle = Bundle.load(directory)
        model = bundle.model
        intake = Intake(model)
        history = before.history if before else None
        if history is None or not history.serves(model, intake.dtypes):
            history = History(model, intake.dtypes, tables, log_folder)
        served = cls(version, bundle, model, intake, history)
        names = features_of(model).names
        if names != bundle.facts.feature_names:
            raise ValueError(f"its code makes {len(names)} features, its network takes {bundle.facts.feature_names}")
        for rows in (1, 2):
            served._check(np.full((rows, len(names)), np.nan, np.float32))
        return served

    def try_out(self) -> Served:
        """Itself, once it has scored the latest row of the tables; milliseconds, on the thread of the requests.

        Raises whatever its features code raises, and :class:`ValueError` for an answer that is no probability.
        """
        if (example := self.history.example()) is not None:
            self._check(self.features(example))
        return self

    def _check(self, X: np.ndarray) -> None:
        scores = self.bundle.predict(X)
        if not (np.isfinite(scores).all() and len(scores) == len(X)):
            raise ValueError(f"it answers {scores} for {X.tolist()}; train it again")

    def features(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 ``[n, n_features]`` of typed rows, with their entities' past."""
        events, wanted = self.history.events(rows)
        return compute_features(features_of(self.model), events, wanted)

    def score(self, raw: Sequence[Raw]) -> list[dict[str, Any]]:
        """The answers to raw rows, in their order; from then on the rows are part of the past.

        Raises :class:`RefusedRows`, :class:`TooOldError` and :class:`LogError`; then nothing was counted.
        """
        if not raw:
            return []
        rows = self.intake.accept(raw, dt.datetime.now(dt.UTC).replace(tzinfo=None))
        keys = rows[self.model.table.key].tolist()
        if len(set(keys)) < len(keys):
            i = next(i for i, key in enumerate(keys) if key in keys[:i])
            words = f"{self.model.table.key}={keys[i]!r} is in the request twice"
            raise RefusedRows([Problem(i, self.model.table.key, keys[i], words, "each row once")], of=len(raw))
        scores = self.bundle.predict(self.features(rows))
        amount, alerts = self.model.evaluation.amount, None
        if self.model.task.kind == "binary":
            alerts = self.bundle.alerts(scores, None if amount is None else rows[amount].astype(np.float64))
        self.history.add(rows, scores.tolist(), self.version)
        said = in_words(self.model.task, scores, alerts)
        of = {"model": self.model.name, "version": self.version}
        return [{self.model.table.key: key, **answer, **of} for key, answer in zip(keys, said, strict=True)]


@dataclass
class Endpoint:
    """One model's place in the service: what serves now, and what is wrong."""

    name: str
    tables: ParquetTables
    registry: MlflowTracking | None = None
    log_folder: Path | None = None
    served: Served | None = None
    problem: str | None = None
    _failed: tuple[str, float] = ("", 0.0)
    _loaded_at: float = 0.0
    _was_stale: bool = False

    @property
    def waiting_for(self) -> str:
        """Why nothing serves yet."""
        return self.problem or f"no version of '{self.name}' is deployed yet: materialise {self.name}/deployment"

    async def follow(self) -> None:
        """Takes over what the alias points at, and new days of the tables; ``problem`` says what went wrong."""
        version = None
        try:
            if self.registry is not None:
                version = await asyncio.to_thread(self.registry.version_of_alias, self.name, CHAMPION)
                await self._take_over(version)
            await self._refresh()
        except Exception as error:  # whatever is wrong with what is new, what serves goes on
            serves = f"version {self.served.version} serves on" if self.served else "no version serves"
            what = f"version {version} of '{self.name}'" if version else f"the registry or the tables of '{self.name}'"
            problem = f"{what} cannot be used: {error}; {serves}"
            if problem != self.problem:
                _log.exception(problem)
            self.problem = problem

    async def _take_over(self, version: str | None) -> None:
        serving = self.served.version if self.served else None
        if version is None:
            self.problem = f"the alias '{CHAMPION}' is gone; version {serving} serves on" if serving else None
            return
        if version == serving:
            self.problem = None
            return
        if self._failed[0] == version and time.monotonic() < self._failed[1]:
            return
        assert self.registry is not None
        self._failed = (version, time.monotonic() + RETRY_S)
        directory = await asyncio.to_thread(self.registry.download, self.name, version)
        new = await asyncio.to_thread(Served.prepare, version, directory, self.tables, self.log_folder, self.served)
        new.try_out()
        old, self.served, self.problem, self._failed = self.served, new, None, ("", 0.0)
        if old is not None and old.history is not new.history:
            new.history.take_over(old.history)
            old.history.close()
        self._loaded_at = time.monotonic()
        _log.info("version %s of '%s' serves%s", version, self.name, f", in place of {serving}" if serving else "")

    async def _refresh(self) -> None:
        """Reads the tables again once they have changed and come to rest, or now and then while they do not rest."""
        if self.served is None:
            return
        history = self.served.history
        stale = await asyncio.to_thread(history.is_stale)
        if stale and (self._was_stale or time.monotonic() > self._loaded_at + RETRY_S):
            history.adopt(await asyncio.to_thread(history.load))
            self._loaded_at, stale = time.monotonic(), False
        self._was_stale = stale

    def health(self) -> dict[str, Any]:
        """What ``/health`` says of it."""
        if self.served is None:
            return {"status": "degraded" if self.problem else "waiting", "version": None, "problem": self.waiting_for}
        history = self.served.history
        return {
            "status": "degraded" if self.problem else "ok",
            "version": self.served.version,
            "since": self.served.since.isoformat(timespec="seconds"),
            "problem": self.problem,
            "past": {"rows": history.rows, "until": history.until and history.until.isoformat()},
        }


class FeatureRows(BaseModel):
    """Rows of features as the model takes them, for the parity check of a candidate."""

    features: list[list[float | None]] = Field(description="Features in the declared order; null is missing.")


def create_app(endpoints: Sequence[Endpoint]) -> FastAPI:
    """The application that serves ``endpoints``; it begins to follow their aliases when it starts."""
    by_name, metrics = {endpoint.name: endpoint for endpoint in endpoints}, ServiceMetrics()

    app = FastAPI(title=f"{project_name()}: scoring service", lifespan=_following(endpoints))

    def ready(name: str) -> Served:
        if name not in by_name:
            raise HTTPException(404, f"no model '{name}' is served here; there are: {', '.join(by_name)}")
        endpoint = by_name[name]
        if endpoint.served is None:
            raise HTTPException(503, endpoint.waiting_for, headers={"Retry-After": str(RETRY_AFTER_S)})
        return endpoint.served

    _handle_errors(app)
    _show_metrics(app, metrics, by_name)

    @app.get("/health")
    async def health() -> JSONResponse:
        """What each model's endpoint does. 200 also while one waits for a version: the process is well."""
        models = {name: endpoint.health() for name, endpoint in by_name.items()}
        said = {model["status"] for model in models.values()}
        status = next((s for s in ("degraded", "waiting") if s in said), "ok")
        return JSONResponse({"status": status, "models": models})

    @app.get("/models")
    async def models() -> JSONResponse:
        """The models served here."""
        return JSONResponse([{"name": name, **endpoint.health()} for name, endpoint in by_name.items()])

    @app.get("/models/{name}")
    async def model(name: str) -> JSONResponse:
        """What a row of the model must hold, and which features it is turned into."""
        served = ready(name)
        return JSONResponse(
            {
                "name": name,
                "description": served.model.description,
                "version": served.version,
                "columns": served.intake.describe(),
                "features": list(features_of(served.model).names),
            }
        )

    @app.post("/models/{name}/predict")
    async def predict(name: str, row: Annotated[dict[str, Any] | list[dict[str, Any]], Body()]) -> JSONResponse:
        """Scores one raw row, or a list of them (all or none)."""
        began, outcome, rows = time.perf_counter(), "error", 0
        try:
            served = ready(name)
            said = served.score([row] if isinstance(row, dict) else _few(row))
            outcome, rows = "ok", len(said)
            return JSONResponse(said[0] if isinstance(row, dict) else said)
        except (RefusedRows, TooOldError):
            outcome = "refused"
            raise
        except HTTPException as error:
            outcome = "refused" if error.status_code < 500 else "unavailable"
            raise
        finally:
            if name in by_name:  # names that nobody declared would be series without end
                now = by_name[name].served
                metrics.answered(name, now.version if now else "", outcome, time.perf_counter() - began, rows)

    @app.post("/models/{name}/score")
    async def score(name: str, rows: FeatureRows) -> JSONResponse:
        """Scores of rows of features; nothing is counted."""
        served = ready(name)
        names = features_of(served.model).names
        wrong = next((i for i, values in enumerate(rows.features) if len(values) != len(names)), None)
        if wrong is not None:
            found = len(rows.features[wrong])
            words = f"row {wrong} has {found} features, the model takes {len(names)}: see /models/{name}"
            raise HTTPException(422, words)
        X = np.array(_few(rows.features), np.float32).reshape(-1, len(names))
        return JSONResponse({"scores": served.bundle.predict(X).tolist(), "version": served.version})

    return app


def _show_metrics(app: FastAPI, metrics: ServiceMetrics, by_name: Mapping[str, Endpoint]) -> None:
    @app.get("/metrics")
    async def metrics_page() -> Response:
        """For Prometheus."""
        for name, endpoint in by_name.items():
            metrics.status(name, endpoint.health()["status"])
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _handle_errors(app: FastAPI) -> None:
    """What a client is told when its rows cannot be scored."""

    @app.exception_handler(RefusedRows)
    async def refused(_: Request, error: RefusedRows) -> JSONResponse:
        return JSONResponse({"detail": str(error), "problems": [asdict(problem) for problem in error.problems]}, 422)

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> JSONResponse:
        if not request.headers.get("content-type", "").startswith("application/json"):
            # Only what a web page of another origin cannot send unasked is taken: a page must not make up payments.
            return JSONResponse({"detail": "send JSON, with the header Content-Type: application/json"}, 415)
        what = "; ".join(dict.fromkeys(problem["msg"] for problem in error.errors()))
        return JSONResponse({"detail": f"the body is not what {request.url.path} takes: {what}; see /docs"}, 422)

    @app.exception_handler(TooOldError)
    async def too_old(_: Request, error: TooOldError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(LogError)
    async def not_logged(_: Request, error: LogError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": str(RETRY_AFTER_S)})


def _following(endpoints: Sequence[Endpoint]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What runs beside the application: looking at the aliases and the tables, first of all before it answers."""

    async def follow() -> None:
        while True:
            await asyncio.sleep(POLL_S)
            for endpoint in endpoints:
                await endpoint.follow()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for endpoint in endpoints:
            await endpoint.follow()
        # A million objects of libraries that stay: looking through them for garbage would stop everybody for .3 s.
        gc.collect()
        gc.freeze()
        task = asyncio.create_task(follow())
        yield
        task.cancel()
        for endpoint in endpoints:
            if endpoint.served:
                endpoint.served.history.close()

    return lifespan


def _few(rows: list[Any]) -> list[Any]:
    if len(rows) > MAX_ROWS:
        raise HTTPException(413, f"{len(rows)} rows in one request; send at most {MAX_ROWS}")
    return rows


def endpoints_of(settings: Settings, model: str | None) -> list[Endpoint]:
    """Those of all declared models, or of one. Raises :class:`SystemExit` for one that is not declared."""
    mlflow = MlflowTracking.from_settings(settings)
    # A kill between the ledger's entry and the alias leaves the alias behind.
    Ledger(database_url=settings.database_url).reconcile(mlflow)
    names = [declared.name for declared in declared_models()]
    if model is not None and model not in names:
        raise SystemExit(f"--model {model}: no such model is declared; there are: {', '.join(names)}")
    tables = ParquetTables(root=str(settings.tables))
    return [Endpoint(n, tables, mlflow, settings.serving / n) for n in ([model] if model else names)]


def staged_endpoint(settings: Settings, directory: Path) -> Endpoint:
    """That of one bundle: it reads the tables and keeps no log."""
    if not directory.is_dir():
        raise SystemExit(f"--bundle {directory}: no such folder; give the folder of a bundle")
    tables = ParquetTables(root=str(settings.tables))
    try:
        served = Served.prepare(STAGED, directory, tables, None).try_out()
    except Exception as error:
        _log.exception("loading %s", directory)
        raise SystemExit(f"--bundle {directory}: it cannot be served: {error}") from error
    return Endpoint(served.model.name, tables, served=served)


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            mend = "end what listens there, or set --port or ASSETLINE_SERVICE_PORT"
            raise SystemExit(f"{host}:{port} cannot be listened on ({error}); {mend}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is told to end (SIGINT, SIGTERM)."""
    settings = Settings.from_env()
    parser = argparse.ArgumentParser(prog="python -m serving.service", description="The scoring service.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="serve this declared model only (default: all)")
    which.add_argument("--bundle", type=Path, help="serve the bundle in this folder, and follow no alias")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=settings.service_port, help="port (default: %(default)s)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    _refuse_taken_port(given.host, given.port)
    import torch

    torch.set_num_threads(1)  # a row is too small to share, and waiting for a thread costs more than computing
    endpoints = [staged_endpoint(settings, given.bundle)] if given.bundle else endpoints_of(settings, given.model)
    uvicorn.run(
        create_app(endpoints),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
