"""The scoring service: takes raw rows and returns scores, decisions and the model version that produced them.

    python -m serving.scoring.service                      every declared model, following its alias ``champion``
    python -m serving.scoring.service --model fraud        one of them
    python -m serving.scoring.service --bundle DIR         one bundle, ignoring the aliases: a temporary process
    python -m serving.scoring.service --bundle DIR --version 3    the same as a deployment: an image of version 3
    python -m serving.scoring.service --processes 4        four processes behind one port

Belongs here: HTTP, and following the alias. Does not belong here: who may ask (``front.py``), listening and stopping
(``server.py``), several processes (``processes.py``), parsing a raw row (``request_parsing.py``), its history
(``entity_events.py``), the network (the bundle).

A new champion is loaded and warmed up on a real row. It then takes over by one assignment between two requests, so no
request fails. If a version cannot be loaded, the old one keeps serving and ``/health`` reports the problem. All
requests run one at a time on one event loop: a request takes about a millisecond, and the history needs no locks.
Explanations (``?explain=true``) are computed in a thread, while other requests go on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import functools
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from resources.settings import Settings, one_thread_each, project_name, quiet_telemetry

quiet_telemetry()
one_thread_each()

import numpy as np  # noqa: E402 - telemetry is off before anything else is imported
import uvicorn  # noqa: E402
from fastapi import FastAPI, HTTPException, Request  # noqa: E402
from fastapi.responses import Response  # noqa: E402
from prometheus_client import CONTENT_TYPE_LATEST  # noqa: E402
from pydantic import ValidationError  # noqa: E402
from starlette.background import BackgroundTask  # noqa: E402

from assets.declaration import Model  # noqa: E402
from assets.lifecycle.data.features import compute_features, features_of  # noqa: E402
from assets.lifecycle.data.protection import Protection, needs_key  # noqa: E402
from assets.lifecycle.model.explain import ExplanationError, can_explain, explain  # noqa: E402
from assets.lifecycle.model.version.bundle import Bundle, BundleError  # noqa: E402
from assets.lifecycle.model.version.torch_internals import forget_traces  # noqa: E402
from assets.lifecycle.prediction_format import PredictionFormat, format_of  # noqa: E402
from assets.models import declared_models  # noqa: E402
from assets.personal import is_protected, tags_of  # noqa: E402
from assets.protections import SAYS_MISSING  # noqa: E402
from resources.audit import AuditLog  # noqa: E402
from resources.encryption.clear import in_the_clear  # noqa: E402
from resources.keys import KeyProblem  # noqa: E402
from resources.ledger import CHAMPION, SHARE, Ledger  # noqa: E402
from resources.mlflow import MlflowTracking  # noqa: E402
from resources.production import open_bind  # noqa: E402
from resources.pseudonyms import pseudonym_keys  # noqa: E402
from resources.request_log import SHADOW, LogError, Outcome, RequestLog  # noqa: E402
from resources.service_tokens import TokenError  # noqa: E402
from resources.tables import ParquetTables  # noqa: E402
from serving.scoring import answers as answering  # noqa: E402
from serving.scoring import openapi  # noqa: E402
from serving.scoring.access import AccessError, Tokens, access_health, tokens_of  # noqa: E402
from serving.scoring.bodies import (  # noqa: E402
    MAX_BYTES,
    MAX_EXPLAINED_ROWS,
    MAX_ROWS,
    FeatureRows,
    explains,
    few,
    first_of,
    not_understood,
    parsed,
    read_body,
)
from serving.scoring.entity_events import EntityEvents, TooOldError  # noqa: E402
from serving.scoring.errors import (  # noqa: E402
    RETRY_AFTER_S,
    Json,
    NoAnswerError,
    NotExplainedError,
    handle_errors,
)
from serving.scoring.front import guarded  # noqa: E402
from serving.scoring.metrics import ServiceMetrics  # noqa: E402
from serving.scoring.probes import Readiness, add_probes  # noqa: E402
from serving.scoring.processes import Processes, refuse_platform  # noqa: E402
from serving.scoring.ranking import Lists, no_rows, rank  # noqa: E402
from serving.scoring.recording import Call  # noqa: E402
from serving.scoring.request_parsing import Raw, RefusedRows, RequestParser, RowProblem  # noqa: E402
from serving.scoring.routing import Answer, Challenger, Route  # noqa: E402
from serving.scoring.server import FINISH_S, KEEP_ALIVE_S, MOST_DRAIN_S, Server, bind, refuse_unknown_process  # noqa: E402
from serving.scoring.shared import Board, Seat  # noqa: E402
from serving.scoring.worker import Worker  # noqa: E402

POLL_S = 2.0
"""Seconds between two checks of the alias and the tables."""
RETRY_S = 30.0
"""Seconds until a version that failed to load is retried. Stale tables are read at once if the last read is older."""
MOST_PROCESSES = 64
STAGED = "staged"
"""Placeholder version of a bundle that is served from a folder."""

_log = logging.getLogger("assetline.service")
_ONE_AT_A_TIME = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")
"""Explanations share one thread, so that they take at most one processor from the other requests."""


@dataclass(frozen=True)
class Served:
    """One loaded version with everything that a request needs."""

    version: str
    bundle: Bundle
    model: Model
    parser: RequestParser
    entity_events: EntityEvents
    form: PredictionFormat
    log: RequestLog | None = None
    since: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @classmethod
    def prepare(
        cls, version: str, directory: Path, tables: ParquetTables, log: RequestLog | None, before: Served | None = None
    ) -> Served:
        """Loads and warms up a bundle. It takes seconds and changes no served state, so it may run in a thread.

        The new version shares the history of ``before`` if it needs the same rows.

        Raises:
            ValueError: the code and the network disagree on the features, or a score is not finite.
        """
        bundle = Bundle.load(directory).traced()
        forget_traces()
        model = bundle.model
        parser = RequestParser(model)
        entity_events = before.entity_events if before else None
        if entity_events is None or not entity_events.serves(model, parser.dtypes):
            # A ranking logs lists and no rows; the events that they bring are kept by `ranking.py`.
            entity_events = EntityEvents(model, parser, tables, None if model.ranking else log)
        served = cls(version, bundle, model, parser, entity_events, format_of(model.task), log)
        names = features_of(model).names
        if model.ranking is not None:
            # Those of a candidate item; the declared ones are compared by the drift check.
            names = bundle.facts.feature_names
        if names != bundle.facts.feature_names:
            raise ValueError(
                f"its code computes {len(names)} features, but its network takes {bundle.facts.feature_names}"
            )
        for rows in (1, 2):
            served._check(np.full((rows, len(names)), np.nan, np.float32))
        return served

    def try_out(self) -> Served:
        """Scores the latest row of the tables as a test and returns itself. Takes milliseconds, on the request thread.

        Raises :class:`ValueError` for a score that is not finite, and any error of the features code.
        """
        if self.model.ranking is None and (example := self.entity_events.example()) is not None:
            self._check(self.features(example))
        return self

    def _check(self, X: np.ndarray) -> None:
        scores = self.bundle.predict(X)
        if not (np.isfinite(scores).all() and len(scores) == len(X)):
            raise ValueError(f"it returns the scores {scores} for {X.tolist()}; train it again")

    def with_new_history(self, tables: ParquetTables) -> Served:
        """The same version with a history that is read anew. It takes seconds, so it may run in a thread."""
        log = None if self.model.ranking else self.log
        return self.with_history(EntityEvents(self.model, self.parser, tables, log))

    def with_history(self, entity_events: EntityEvents) -> Served:
        """The same version with another history, and with the rows for explanations as its folder has them now."""
        return replace(self, bundle=replace(self.bundle), entity_events=entity_events)

    def features(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Features of typed rows, computed with their entities' history: float32 ``[n, n_features]``."""
        events, wanted = self.entity_events.events(rows)
        return compute_features(features_of(self.model), events, wanted)

    def finite_scores(self, X: np.ndarray, keys: Sequence[Any]) -> np.ndarray:
        """The bundle's scores for features ``X`` ``[n, n_features]``.

        Raises:
            NoAnswerError: a score is not finite; the message lists the keys of up to five such rows.
        """
        scores = self.bundle.predict(X)
        finite = np.isfinite(scores).all(axis=tuple(range(1, scores.ndim)))
        if not finite.all():
            named = ", ".join(repr(keys[i]) for i in np.flatnonzero(~finite)[:5])
            raise NoAnswerError(
                f"version {self.version} of '{self.model.name}' has no finite score for {named}; nothing was recorded. "
                "Set the alias back to the previous version, or train again"
            )
        return scores

    def refuse_explaining(self) -> None:
        """Raises :class:`NotExplainedError` if the version cannot explain its scores."""
        try:
            can_explain(self.bundle)
        except (ExplanationError, BundleError) as error:
            raise NotExplainedError(f"version {self.version} cannot explain its scores: {error}") from error

    async def explanations(self, X: np.ndarray) -> list[dict[str, Any]]:
        """Explains the scores of features ``X`` in a thread: tens of milliseconds per row, for which no request waits.

        Raises:
            NoAnswerError: the contributions do not add up to the score.
        """
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                _ONE_AT_A_TIME, explain, self.bundle, features_of(self.model), X
            )
        except ExplanationError as error:
            raise NoAnswerError(f"version {self.version}: {error}; ask for the score without explain=true") from error
        return found.to_json()

    def readable(self, raw: Sequence[Raw], call: Call) -> dict[str, np.ndarray]:
        """The rows as typed columns, ``[n]`` each. Raises :class:`RefusedRows`, also for a key that occurs twice."""
        rows = self.parser.parse(raw, call.at)
        keys = rows[self.model.table.key].tolist()
        if len(set(keys)) < len(keys):
            i = next(i for i, key in enumerate(keys) if key in keys[:i])
            message = f"{self.model.table.key}={keys[i]!r} is twice in the request"
            raise RefusedRows([RowProblem(i, self.model.table.key, keys[i], message, "each row once")], n_rows=len(raw))
        return rows

    def score(self, raw: Sequence[Raw], call: Call) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Scores raw rows, logs them and adds them to the history (except as a shadow).

        Returns a response per row of ``raw``, and the features.

        Raises :class:`RefusedRows`, :class:`TooOldError`, :class:`NoAnswerError` or :class:`LogError`. After an error
        no row is added to the history.
        """
        if not raw:
            return [], np.empty((0, len(self.bundle.facts.feature_names)), np.float32)
        rows = self.readable(raw, call)
        keys = rows[self.model.table.key].tolist()
        self.entity_events.refresh(self.parser)
        X = self.features(rows)
        scores = self.finite_scores(X, keys)
        amount, alerts = self.model.evaluation.amount, None
        if self.form.has_alerts:
            alerts = self.bundle.alerts(scores, None if amount is None else rows[amount].astype(np.float64))
        if self.log is not None:
            logged = self.log.append(call.scored(self.model, self.version, raw, rows, scores, alerts))
            if call.role != SHADOW:
                self.entity_events.add(rows, logged)
        predictions = self.form.to_json(scores, alerts)
        for name, ends in self.bundle.ends(X, scores).items():
            predictions = [{**one, name: float(end)} for one, end in zip(predictions, ends, strict=True)]
        version = {"model": self.model.name, "version": self.version}
        keyed = zip(keys, predictions, strict=True)
        return [{self.model.table.key: key, **one, **version} for key, one in keyed], X


@dataclass
class Endpoint:
    """The endpoint of one model: the version it serves, the one that is rolled out, and its current problem, if any."""

    name: str
    tables: ParquetTables
    registry: MlflowTracking | None = None
    log: RequestLog | None = None
    served: Served | None = None
    problem: str | None = None
    ledger: Ledger | None = None
    challenger: Challenger | None = None
    has_started: bool = False
    settings: Settings | None = None
    answering: answering.Answering = field(init=False)
    lists: Lists = field(default_factory=Lists)
    _protection: Protection | None = None
    _looked_at: Model | None = None
    _tagged: Model | None = None
    _lacks_keys: bool = False
    _failed: tuple[str, float] = ("", 0.0)
    _failed_challenger: tuple[str, float, str] = ("", 0.0, "")
    _loaded_at: float = 0.0
    _was_stale: bool = False

    def __post_init__(self) -> None:
        self.answering = answering.Answering(self.name, self.tables, self.settings)

    @property
    def waiting_for(self) -> str:
        """The reason why no version serves yet."""
        return self.problem or f"no version of '{self.name}' is deployed yet: materialise {self.name}/deployment"

    def ready(self) -> Served:
        """The served version. Raises HTTP 503 if there is none yet."""
        if self.served is None:
            raise HTTPException(503, self.waiting_for, headers={"Retry-After": str(RETRY_AFTER_S)})
        return self.served

    def protected(self, raw: list[Raw]) -> list[Raw]:
        """The rows with their tagged columns protected, before anything of them is kept.

        The tags are those of today's declaration, by which rows land, and of the served version where there is none. So
        rows are protected before a version serves, too.

        Raises:
            HTTPException: 503: a key is needed and cannot be used.
        """
        protection = self._usable_protection()
        return raw if protection is None else [protection.row(row) for row in raw]

    def stored(self, column: str, value: str) -> str | None:
        """The form in which the tables hold a value of a column of the contract; ``None`` for one that is missing.

        Raises:
            HTTPException: 503: a key is needed and cannot be used.
        """
        protection = self._usable_protection()
        if not value.strip() or value.strip() in SAYS_MISSING:
            return None
        return str(value if protection is None else protection.stored(column, value))

    def _usable_protection(self) -> Protection | None:
        model = self._tagged_model()
        if model is None:
            return None
        try:
            return self._protection or self._read_keys(model)
        except KeyProblem as error:
            said = f"the rows of '{self.name}' have pseudonyms: {error}"
            raise HTTPException(503, said, headers={"Retry-After": str(RETRY_AFTER_S)}) from error

    def _tagged_model(self) -> Model | None:
        """The declaration whose tags count; ``None`` if no column is protected."""
        model = self._current or (self.served.model if self.served else None)
        if model is not self._looked_at:
            self._looked_at, self._tagged = model, model if model is not None and is_protected(model) else None
        return self._tagged

    @functools.cached_property
    def _current(self) -> Model | None:
        return next((model for model in declared_models() if model.name == self.name), None)

    def _read_keys(self, model: Model) -> Protection:
        keys = pseudonym_keys(self.settings or Settings.from_env(part="service")) if needs_key(model) else ()
        self._protection = Protection(model, keys)
        return self._protection

    async def _follow_keys(self) -> None:
        """Reads the keys again: one may be lost, or `assetline rekey` may have changed them."""
        if (tagged := self._tagged_model()) is None:
            return
        try:
            await asyncio.to_thread(self._read_keys, tagged)
        except KeyProblem as error:
            self._protection = None  # the next request tries again, and says why it cannot
            self.problem = f"the rows of '{self.name}' have pseudonyms, and requests get 503: {error}"
            self._lacks_keys = True
            return
        if self._lacks_keys:
            self.problem, self._lacks_keys = None, False

    def with_sent_keys(self, responses: list[dict[str, Any]], sent: Sequence[Raw]) -> list[dict[str, Any]]:
        """The responses with the keys of the rows as they were sent, where the stored ones are pseudonyms."""
        model = self._tagged_model()
        if model is None or (key := model.table.key) not in tags_of(model):
            return responses
        pairs = zip(responses, sent, strict=True)
        return [{**one, key: row[key]} if key in row else one for one, row in pairs]

    def route(self, *, explained: bool = False) -> Route:
        """The versions that score a request. Raises HTTP 503 if none serves yet."""
        challenger = self.challenger
        if explained and challenger is not None:
            try:
                challenger.served.refuse_explaining()
            except NotExplainedError:  # the champion explains its own scores
                challenger = None
        return Route(self.ready(), challenger)

    def log_failure(self, call: Call, raw: Sequence[Raw], outcome: Outcome, error: Exception) -> None:
        """Logs a request that gets no scores. If the log cannot be written, the caller gets the first error."""
        if self.log is None:
            return
        model, version = (self.served.model, self.served.version) if self.served else (declared(self.name), "")
        try:
            self.log.append(call.failed(model, version, raw, outcome, error))
        except LogError as error_of_log:
            _log.error("request %s of '%s' is missing in the log: %s", call.request_id, self.name, error_of_log)

    async def follow(self) -> None:
        """Loads the version that the alias points to, and new days of the tables. ``problem`` holds any error."""
        version = None
        try:
            if self.registry is not None:
                version = await asyncio.to_thread(self.registry.version_of_alias, self.name, CHAMPION)
                await self._take_over(version)
            await self._follow_rollout()
            await self._forget()
            await self._refresh()
            await self._follow_keys()
            if self.served is not None:
                await self.answering.follow(self.served.version, self.served.model)
        except Exception as error:  # an error in a new version or table must not stop the served version
            serves = f"version {self.served.version} keeps serving" if self.served else "no version serves"
            what = f"version {version} of '{self.name}'" if version else f"the registry or the tables of '{self.name}'"
            problem = f"{what} cannot be used: {error}; {serves}"
            if problem != self.problem:
                _log.exception(problem)
            self.problem = problem

    async def _take_over(self, version: str | None) -> None:
        serving = self.served.version if self.served else None
        self.has_started = self.has_started or version is None or serving is not None
        if version is None:
            self.problem = (
                f"the alias '{CHAMPION}' no longer exists; version {serving} keeps serving" if serving else None
            )
            return
        if version == serving:
            self.problem = None
            return
        if self._failed[0] == version and time.monotonic() < self._failed[1]:
            return
        if self.challenger is not None and self.challenger.served.version == version:
            new, self.challenger = self.challenger.served, None  # it is loaded already
        else:
            self._drop_challenger()
            self._failed = (version, time.monotonic() + RETRY_S)
            new = await self._load(version)
        old, self.served, self.problem, self._failed = self.served, new, None, ("", 0.0)
        self.has_started = True
        if old is not None and old.entity_events is not new.entity_events:
            new.entity_events.take_over(old.entity_events)
            old.entity_events.close()
        self._loaded_at = time.monotonic()
        del old
        gc.collect()  # what is left of the old version; milliseconds, because what was there at the start is frozen
        _log.info("version %s of '%s' serves%s", version, self.name, f" instead of {serving}" if serving else "")

    async def _load(self, version: str) -> Served:
        assert self.registry is not None
        directory = await asyncio.to_thread(self.registry.download, self.name, version)
        new = await asyncio.to_thread(Served.prepare, version, directory, self.tables, self.log, self.served)
        return new.try_out()

    async def _follow_rollout(self) -> None:
        """Loads the version that the ledger says is rolled out, and follows its share. An error stops only this."""
        if self.ledger is None or self.registry is None or self.served is None:
            return
        step = await asyncio.to_thread(self.ledger.rollout, self.name)
        if step is None or step.version == self.served.version:
            arrived = await asyncio.to_thread(self.ledger.champion, self.name) if self.challenger else None
            # It answers on until the alias has moved to it, which follows the ledger's entry.
            if arrived is None or self.challenger is None or arrived.version != self.challenger.served.version:
                self._drop_challenger()
            return
        share = float(step.verdicts.get(SHARE, 0.0))
        if self.challenger is not None and self.challenger.served.version == step.version:
            if self.challenger.share != share:
                self.challenger = replace(self.challenger, share=share)
                _log.info("version %s of '%s' answers %.0f%% of the entities", step.version, self.name, 100 * share)
            return
        self._drop_challenger()
        failed, until, problem = self._failed_challenger
        if failed == step.version and time.monotonic() < until:
            self.problem = self.problem or problem
            return
        try:
            self.challenger = Challenger(await self._load(step.version), share)
        except Exception as error:
            problem = (
                f"version {step.version} of '{self.name}', which is rolled out, cannot be used: {error}; "
                f"version {self.served.version} answers everything"
            )
            if failed != step.version:
                _log.exception(problem)
            self._failed_challenger = (step.version, time.monotonic() + RETRY_S, problem)
            self.problem = self.problem or problem
            return
        _log.info("version %s of '%s' is rolled out, with %.0f%% of the entities", step.version, self.name, 100 * share)

    def _drop_challenger(self) -> None:
        dropped, self.challenger = self.challenger, None
        if dropped is not None and self.served and dropped.served.entity_events is not self.served.entity_events:
            dropped.served.entity_events.close()

    async def _forget(self) -> None:
        """After a person was forgotten, reads the history anew from the tables and the log, as a new process does."""
        if self.served is None or not await asyncio.to_thread(self.served.entity_events.must_forget):
            return
        # Rows that are answered meanwhile are in the log, which the new history follows.
        before = self.served.entity_events
        self.served = await asyncio.to_thread(self.served.with_new_history, self.tables)
        if (challenger := self.challenger) is not None:
            if challenger.served.entity_events is before:
                served = challenger.served.with_history(self.served.entity_events)
            else:
                challenger.served.entity_events.close()
                served = await asyncio.to_thread(challenger.served.with_new_history, self.tables)
            self.challenger = replace(challenger, served=served)
        before.close()
        self.lists.close()
        self.lists = Lists()
        self._loaded_at, self._was_stale = time.monotonic(), False
        del before
        gc.collect()
        _log.info("the history of '%s' was read anew, because a person was forgotten", self.name)

    async def _refresh(self) -> None:
        """Reads changed tables at the second stale check in a row, or at once if the last read is older than 30 s."""
        if self.served is None:
            return
        entity_events = self.served.entity_events
        stale = await asyncio.to_thread(entity_events.is_stale)
        if stale and (self._was_stale or time.monotonic() > self._loaded_at + RETRY_S):
            entity_events.adopt(await asyncio.to_thread(entity_events.load))
            if self.challenger is not None and self.challenger.served.entity_events is not entity_events:
                others = self.challenger.served.entity_events
                others.adopt(await asyncio.to_thread(others.load))
            self._loaded_at, stale = time.monotonic(), False
        self._was_stale = stale

    def health(self) -> dict[str, Any]:
        """The endpoint's entry in the ``/health`` response."""
        if self.served is None:
            return {"status": "degraded" if self.problem else "waiting", "version": None, "problem": self.waiting_for}
        entity_events = self.served.entity_events
        return {
            "status": "degraded" if self.problem else "ok",
            "version": self.served.version,
            "since": self.served.since.isoformat(timespec="seconds"),
            "problem": self.problem,
            "past": {"rows": entity_events.rows, "until": entity_events.until and entity_events.until.isoformat()},
            "rollout": self.challenger and {"version": self.challenger.served.version, "share": self.challenger.share},
        }


def create_app(
    endpoints: Sequence[Endpoint],
    metrics: ServiceMetrics,
    readiness: Readiness,
    tokens: Tokens | None = None,
    board: Board | None = None,
) -> FastAPI:
    """Creates the application that serves ``endpoints``. It starts to follow their aliases at startup.

    It describes the need for a token and reports problems with ``tokens``; :func:`guarded` is what checks them. With a
    ``board``, it answers for all processes of the service.
    """
    by_name = {endpoint.name: endpoint for endpoint in endpoints}

    app = FastAPI(title=f"{project_name()}: scoring service", lifespan=_following(endpoints, board))

    def described() -> dict[str, Any]:
        models = {
            name: endpoint.served.model if endpoint.served else declared(name) for name, endpoint in by_name.items()
        }
        limits = (MAX_ROWS, MAX_BYTES, MAX_EXPLAINED_ROWS)
        return openapi.document(app.title, app.version, models, *limits, secured=tokens is not None)

    app.openapi = described  # type: ignore[method-assign]
    handle_errors(app)

    def health_of_models() -> dict[str, dict[str, Any]]:
        own = {name: endpoint.health() for name, endpoint in by_name.items()}
        return own if board is None else board.health(own)

    _show_metrics(app, metrics, health_of_models)
    add_probes(app, readiness)

    @app.get("/health")
    async def health() -> Json:
        models = health_of_models()
        access = access_health(tokens)
        processes = [] if board is None else [asdict(one) for one in board.states()]
        problems = [access["problem"], *(one["problem"] for one in processes)]
        several = {} if board is None else {"processes": processes}
        return Json({**_overall(models, degraded=any(problems)), "models": models, "access": access, **several})

    @app.get("/models")
    async def models() -> Json:
        return Json([{"name": name, **health} for name, health in health_of_models().items()])

    # Plain Starlette routes, because they need none of FastAPI's work per request (dependencies, typed bodies).
    for endpoint in endpoints:
        path = f"/models/{endpoint.name}"
        app.add_route(path, functools.partial(_about, endpoint), methods=["GET"])
        if (endpoint.served.model if endpoint.served else declared(endpoint.name)).ranking is not None:
            app.add_route(f"{path}/rank", functools.partial(rank, endpoint, metrics), methods=["POST"])
            app.add_route(f"{path}/predict", functools.partial(no_rows, endpoint), methods=["POST"])
        else:
            app.add_route(f"{path}/predict", functools.partial(_predict, endpoint, metrics), methods=["POST"])
        app.add_route(f"{path}/score", functools.partial(_score, endpoint), methods=["POST"])
        app.add_route(f"{path}/answer", functools.partial(_answer, endpoint, metrics), methods=["POST"])

    async def unknown(request: Request) -> Response:
        name = request.path_params["name"]
        raise HTTPException(404, f"no model '{name}' is served here; the served models are: {', '.join(by_name)}")

    app.add_route("/models/{name}", unknown, methods=["GET"])
    for last in ("predict", "score", "answer", "rank"):
        app.add_route(f"/models/{{name}}/{last}", unknown, methods=["POST"])
    return app


def _overall(models: Mapping[str, Mapping[str, Any]], *, degraded: bool) -> dict[str, Any]:
    """The status of the whole service, with the names of the models that serve a version and of those that have none.

    A declared model need not be deployed. So the service is ``waiting`` only while none of its models serves.
    """
    serving = [name for name, model in models.items() if model["version"] is not None]
    waiting = [name for name, model in models.items() if model["status"] == "waiting"]
    degraded = degraded or any(model["status"] == "degraded" for model in models.values())
    status = "degraded" if degraded else "waiting" if waiting and not serving else "ok"
    return {"status": status, "serving": serving, "waiting": waiting}


async def _about(endpoint: Endpoint, _: Request) -> Response:
    """What a row of the model must contain, and which features are computed from it."""
    served = endpoint.ready()
    return Json(
        {
            "name": endpoint.name,
            "description": served.model.description,
            "version": served.version,
            "columns": served.parser.describe(),
            "features": list(served.bundle.facts.feature_names),
        }
    )


async def _predict(endpoint: Endpoint, metrics: ServiceMetrics, request: Request) -> Response:
    """Scores one raw row, or a list of them (all or none)."""
    call, outcome, rows, explained, version = Call.of(request), "error", 0, False, ""
    raw: list[Raw] = []
    try:
        body = parsed(await read_body(request))
        if not isinstance(body, dict) and not (isinstance(body, list) and all(isinstance(row, dict) for row in body)):
            raise not_understood(request, "send a row as an object, several rows as a list of objects")
        sent = [body] if isinstance(body, dict) else few(body)
        raw = endpoint.protected(sent)
        served = endpoint.ready()
        explained = _explains(request, served, raw)
        route = endpoint.route(explained=explained)
        answers = route.score(raw, call)
        responses = [one.response for one in answers]
        if explained:
            responses = await _with_explanations(answers)
        responses = endpoint.with_sent_keys(responses, sent)
        outcome, rows, version = "ok", len(responses), answers[0].served.version if answers else served.version
        compared = None if route.challenger is None else BackgroundTask(route.compare, raw, answers, call)
        return Json(responses[0] if isinstance(body, dict) else responses, background=compared)
    except (RefusedRows, TooOldError, NotExplainedError) as error:
        outcome = "refused"
        endpoint.log_failure(call, raw, "refused", error)
        raise
    except HTTPException as error:
        outcome = "refused" if error.status_code < 500 else "unavailable"
        endpoint.log_failure(call, raw, "refused" if outcome == "refused" else "error", error)
        raise
    except Exception as error:
        endpoint.log_failure(call, raw, "error", error)
        raise
    finally:
        version = version or (endpoint.served.version if endpoint.served else "")
        seconds = call.latency_ms / 1_000
        metrics.answered(endpoint.name, version, outcome, seconds, rows, explained=explained)


async def _answer(endpoint: Endpoint, metrics: ServiceMetrics, request: Request) -> Response:
    """The reply to a question. The question is scored and logged as a row of the model's table."""
    call, outcome, version = Call.of(request), "error", ""
    raw: list[Raw] = []
    try:
        body = parsed(await read_body(request))
        served = endpoint.ready()
        if served.model.answers is None:
            raise HTTPException(404, f"'{endpoint.name}' declares no answers; see answers= in docs/support.md")
        raw = endpoint.protected([answering.row_of(request, body, served.model, served.parser, call.at)])
        answerer = endpoint.answering.ready()
        route = endpoint.route()
        answers = route.score(raw, call)
        scored = answers[0]
        version = scored.served.version
        # What was kept is what is answered: without addresses and numbers, if the declaration redacts them.
        question = str(raw[0][served.model.answers.column(served.model)])
        said = scored.response
        reply = await answerer.reply(question, said["prediction"], said["probability"])
        outcome = "ok"
        compared = None if route.challenger is None else BackgroundTask(route.compare, raw, answers, call)
        return Json(answering.response_of(said, reply), background=compared)
    except (RefusedRows, TooOldError) as error:
        outcome = "refused"
        endpoint.log_failure(call, raw, "refused", error)
        raise
    except HTTPException as error:
        outcome = "refused" if error.status_code < 500 else "unavailable"
        endpoint.log_failure(call, raw, "refused" if outcome == "refused" else "error", error)
        raise
    except Exception as error:
        endpoint.log_failure(call, raw, "error", error)
        raise
    finally:
        metrics.answered(endpoint.name, version, outcome, call.latency_ms / 1_000, int(outcome == "ok"))


async def _with_explanations(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The responses with explanations, each by the version that answered."""
    found: dict[int, dict[str, Any]] = {}
    for served in {id(one.served): one.served for one in answers}.values():
        mine = [i for i, one in enumerate(answers) if one.served is served]
        explanations = await served.explanations(np.stack([answers[i].features for i in mine]))
        found |= {i: {**answers[i].response, "explanation": why} for i, why in zip(mine, explanations, strict=True)}
    return [found[i] for i in range(len(answers))]


async def _score(endpoint: Endpoint, request: Request) -> Response:
    """Scores of rows of features; nothing is counted."""
    try:
        features = FeatureRows.model_validate_json(await read_body(request)).features
    except ValidationError as error:
        raise not_understood(request, first_of(error)) from error
    served = endpoint.ready()
    names = served.bundle.facts.feature_names
    wrong = next((i for i, values in enumerate(features) if len(values) != len(names)), None)
    if wrong is not None:
        found = len(features[wrong])
        message = f"row {wrong} has {found} features, but the model takes {len(names)}; see /models/{endpoint.name}"
        raise HTTPException(422, message)
    with np.errstate(over="ignore"):
        X = np.array(few(features), np.float32).reshape(-1, len(names))
    if np.isinf(X).any():
        raise HTTPException(422, f"row {np.flatnonzero(np.isinf(X).any(axis=1))[0]} has a number beyond 32 bits (3e38)")
    explained = _explains(request, served, features)
    scores = served.finite_scores(X, [f"row {i}" for i in range(len(X))])
    response = {"scores": scores.tolist(), "version": served.version}
    return Json(response | ({"explanations": await served.explanations(X)} if explained else {}))


def _explains(request: Request, served: Served, rows: Sequence[Any]) -> bool:
    """Whether a request asks for explanations. Raises :class:`NotExplainedError` if the version has none."""
    asked = explains(request, rows)
    if asked:
        served.refuse_explaining()
    return asked and len(rows) > 0


def declared(name: str) -> Model:
    """The current declaration of a model."""
    return next(model for model in declared_models() if model.name == name)


def _show_metrics(
    app: FastAPI, metrics: ServiceMetrics, health_of_models: Callable[[], Mapping[str, Mapping[str, Any]]]
) -> None:
    @app.get("/metrics")
    async def metrics_page() -> Response:
        """For Prometheus."""
        for name, health in health_of_models().items():
            metrics.status(name, health["status"])
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _following(
    endpoints: Sequence[Endpoint], board: Board | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The application's lifespan: checks the aliases and tables before the first request, then every ``POLL_S``."""

    async def follow_all() -> None:
        for endpoint in endpoints:
            await endpoint.follow()
        if board is None:
            return
        try:
            board.publish({endpoint.name: endpoint.health() for endpoint in endpoints})
        except OSError as error:  # a full disk must not stop following
            _log.error("the other processes cannot read the health of this one (%s)", error)

    async def follow() -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await follow_all()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await follow_all()
        # The libraries hold a million long-lived objects. Scanning them for garbage would block all requests for .3 s.
        gc.collect()
        gc.freeze()
        task = asyncio.create_task(follow())
        yield
        task.cancel()
        for endpoint in endpoints:
            if endpoint.served:
                endpoint.served.entity_events.close()
            if endpoint.log:
                endpoint.log.close()

    return lifespan


def endpoints_of(settings: Settings, model: str | None) -> list[Endpoint]:
    """Endpoints of all declared models, or of one. Raises :class:`SystemExit` for a model that is not declared."""
    mlflow = MlflowTracking.from_settings(settings).process_config_and_initialize()
    ledger = Ledger(database_url=settings.database_url)
    ledger.reconcile(mlflow)  # a kill between the ledger entry and the alias update leaves the alias outdated
    names = [declared.name for declared in declared_models()]
    if model is not None and model not in names:
        raise SystemExit(f"--model {model}: no such model is declared; the declared models are: {', '.join(names)}")
    tables = ParquetTables(root=settings.tables)
    log = RequestLog(folder=str(settings.serving), url=settings.history_url)
    return [Endpoint(n, tables, mlflow, log, ledger=ledger, settings=settings) for n in ([model] if model else names)]


def staged_endpoint(settings: Settings, directory: Path, version: str = STAGED) -> Endpoint:
    """Endpoint of one bundle; it reads the tables. It keeps a log only if a version is given: then it is a deployment.

    Raises:
        SystemExit: the folder does not exist, or the bundle cannot be served.
    """
    if not directory.is_dir():
        raise SystemExit(f"--bundle {directory}: no such folder; give the folder of a bundle")
    tables = ParquetTables(root=settings.tables)
    log = None if version == STAGED else RequestLog(folder=str(settings.serving), url=settings.history_url)
    try:
        served = Served.prepare(version, in_the_clear(directory), tables, log).try_out()
    except Exception as error:
        _log.exception("loading %s", directory)
        raise SystemExit(f"--bundle {directory} cannot be served: {error}") from error
    return Endpoint(served.model.name, tables, log=log, served=served, has_started=True, settings=settings)


def _tokens_of(settings: Settings, host: str, *, staged: bool) -> Tokens | None:
    """The valid tokens; ``None`` if requests need none. Raises :class:`SystemExit` if they would be open to others."""
    try:
        return tokens_of(settings, host, staged=staged)
    except (AccessError, TokenError) as error:
        raise SystemExit(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the service until it receives SIGINT or SIGTERM."""
    settings = Settings.from_env(part="service")
    parser = argparse.ArgumentParser(prog="python -m serving.scoring.service", description="The scoring service.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="serve this declared model only (default: all)")
    which.add_argument("--bundle", type=Path, help="serve the bundle in this folder and ignore the alias")
    parser.add_argument("--host", default=settings.service_host, help="interface to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=settings.service_port, help="port (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=settings.service_processes, metavar="N",
        help="processes behind the port; a temporary service has one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--version", default=STAGED, help="number of the version in --bundle, which it then reports")
    parser.add_argument(
        "--drain", type=float, default=0.0, metavar="SECONDS",
        help="answer for so long after SIGTERM while /readyz is 503 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--reuse-port", action="store_true", help="listen beside the service that this one replaces")
    parser.add_argument("--replace", type=int, metavar="PID", help="send SIGTERM to this process once this one listens")
    given = parser.parse_args(arguments)
    if given.version != STAGED and given.bundle is None:
        parser.error("--version needs --bundle; without a bundle, the alias decides which version is served")
    if not 0 <= given.drain <= MOST_DRAIN_S:
        parser.error(f"--drain {given.drain:g} is out of range; give 0 to {MOST_DRAIN_S} seconds")
    if given.replace is not None:
        if not given.reuse_port:
            parser.error("--replace needs --reuse-port; without it, two processes cannot listen on one port")
        refuse_unknown_process(given.replace)
    if not 1 <= given.processes <= MOST_PROCESSES:
        parser.error(f"--processes {given.processes} is out of range; give 1 to {MOST_PROCESSES}")
    is_temporary = given.bundle is not None and given.version == STAGED
    if (processes := 1 if is_temporary else given.processes) > 1:
        refuse_platform()
    if is_temporary and settings.access_log == "file":
        settings = replace(settings, access_log="off")  # a temporary process leaves nothing behind
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    if problem := open_bind(settings, given.host):
        raise SystemExit(f"--host {given.host}{problem}")
    tokens = _tokens_of(settings, given.host, staged=is_temporary)
    listening = bind(given.host, given.port, reuse_port=given.reuse_port)
    import torch

    torch.set_num_threads(1)  # for a single row, waiting for a thread costs more than computing

    def serve(seat: Seat | None = None) -> None:
        endpoints = (
            [staged_endpoint(settings, given.bundle, given.version)]
            if given.bundle
            else endpoints_of(settings, given.model)
        )
        metrics, board = ServiceMetrics(seat), None if seat is None else Board(seat)
        readiness = Readiness(endpoints)
        config = uvicorn.Config(
            guarded(create_app(endpoints, metrics, readiness, tokens, board), settings, tokens, metrics, seat,
                    audit=None if given.bundle else AuditLog(settings.database_url)),
            log_level="warning", access_log=False, ws="none", timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=FINISH_S,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when all has ended
            if seat is None:
                Server(config, readiness, drain_s=given.drain, replaces=given.replace).run([listening])
            else:
                Worker(config, readiness, seat).run()

    if processes == 1:
        serve()
    else:
        Processes(listening, processes, serve, drain_s=given.drain, replaces=given.replace).run()


if __name__ == "__main__":
    main()
