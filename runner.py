"""Runs a model's jobs in this process, on stale days only.

Belongs here: running a job on days, running all jobs in the order of the lifecycle, and the reason of a failure. Does
not belong here: the story of the example (``story/``), the triggers of runs (``sensors/``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from assets.declaration import DeclarationError, Model, refuse_another_table
from assets.lifecycle.data.freshness import stale_days
from assets.lifecycle.data.landing import source_resources
from assets.lifecycle.jobs import (
    CLEAN,
    DAILY,
    DEPLOY,
    FEATURES,
    LABEL,
    LAND,
    LIFECYCLE,
    TRAIN,
    assets_of_jobs,
    job_name,
)
from assets.lifecycle.model.windows import iso_days
from assets.lifecycle.release.approval import state_of
from resources.settings import Settings
from resources.sources import SourceError, Stream
from resources.tables import WHOLE

CHUNK_DAYS = 62
"""Maximum days in one run: limits the memory of a run over months."""

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


class RunError(Exception):
    """A failed run; the message names the run, the reason and where to look."""


class Runner:
    """Runs the jobs of one model on a state folder, as the daemon would.

    Args:
        model: the declaration.
        settings: settings of the state folder.
        instance: Dagster's instance.
        owner: the model whose table it shares, if it does; default: from the model folders.

    Raises:
        RunError: that model is not declared, or declares another table.
    """

    def __init__(
        self, model: Model, settings: Settings, instance: dg.DagsterInstance, owner: Model | None = None
    ) -> None:
        from definitions import build_defs
        from resources.defaults import default_resources

        self.model, self.settings, self.instance = model, settings, instance
        self.owner = (owner or _owner_of(model)) if model.table.of else model
        models = [self.owner, model] if model.table.of else [model]
        models += [one for one in _topics_of(models) if one.name not in {known.name for known in models}]
        self.defs = build_defs(models=models, settings=settings)
        self.resources = default_resources(settings, source_resources(models), ready=True)
        self.tables = self.resources["tables"]
        self.assets = {
            key.path[-1]: asset
            for asset in self.defs.assets or ()
            if isinstance(asset, dg.AssetsDefinition)
            for key in asset.keys
            if key == model.key(key.path[-1])
        }
        self.last: dg.ExecuteInProcessResult | None = None

    def attempt(
        self,
        work: str,
        days: Sequence[str] = (),
        config: dict[str, Any] | None = None,
        why: str = "",
        only: Sequence[str] = (),
    ) -> str | None:
        """Runs one of the model's jobs once.

        Args:
            work: kind of work, which names the job.
            days: consecutive ISO days of the run; empty for a job without partitions.
            config: run config.
            why: reason of the run, for its tags.
            only: names of the assets of the job to materialise; default: all of them.

        Returns:
            ``None`` if the run succeeded, else the text of the first error.
        """
        tags = {"assetline/why": why} if why else {}
        if days:
            tags |= {RANGE_START: days[0], RANGE_END: days[-1]}
        return self._attempt(job_name(self.model, work), config, tags, [self.model.key(name) for name in only])

    def _attempt(
        self,
        job: str,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        only: Sequence[dg.AssetKey] = (),
    ) -> str | None:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        self.last = self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance, run_config={**quiet, **(config or {})}, tags=tags, raise_on_error=False,
            asset_selection=list(only) or None,
        )  # fmt: skip
        return None if self.last.success else _why(self.last)

    def run(
        self, work: str, days: Sequence[str] = (), config: dict[str, Any] | None = None, only: Sequence[str] = ()
    ) -> None:
        """Runs one of the model's jobs once. Raises :class:`RunError` if the run fails."""
        if (error := self.attempt(work, days, config, only=only)) is not None:
            on = f" on {days[0]}…{days[-1]}" if days else ""
            raise RunError(f"{job_name(self.model, work)} failed{on}: {error}; see run {self.last_run_id} in the UI")

    @property
    def last_run_id(self) -> str:
        """ID of the latest run; empty before the first."""
        return self.last.run_id if self.last else ""

    def make(self, work: str, days: Sequence[str]) -> int:
        """Materializes the stale ones of ``days``, a chunk of consecutive days per run; returns the number of them.

        Raises:
            RunError: a run failed.
        """
        stale: set[str] = set()
        for name in assets_of_jobs(self.model)[work]:
            stale |= set(stale_days(self.assets[name], self.tables, days))
        for chunk in _chunks([day for day in days if day in stale]):
            self.run(work, chunk)
        return len(stale)

    def make_shared_table(self) -> None:
        """Lands and cleans the whole table of another model, unless it is there and not stale.

        Raises:
            RunError: a run failed.
        """
        if not self.model.table.of or self.model.is_stream:
            return
        names = (f"raw_{self.model.table.name}", self.model.table.name, "quarantine")
        if any(stale_days(self.assets[name], self.tables, [WHOLE]) for name in names):
            job = job_name(self.owner, LIFECYCLE)
            if (error := self._attempt(job, only=[self.model.key(name) for name in names])) is not None:
                raise RunError(f"{job} failed: {error}; see run {self.last_run_id} in the UI")

    def live(self, say: Callable[[str], None]) -> None:
        """Materializes everything in the order of the lifecycle, from raw rows to a champion and its scores.

        A plain table takes one run. For a stream, stale days up to the latest complete one are landed, cleaned,
        labelled and given features. A model is trained and deployed if there is no champion. The latest day is scored.

        Args:
            say: called with one line of progress per kind of work.

        Raises:
            RunError: the source cannot be read, a run failed or was refused, or the rows come from another asset; the
                message has the reason.
        """
        source = self.owner.table.source
        if not self.model.is_stream:
            self.make_shared_table()
            self.run(LIFECYCLE)
        elif isinstance(source, Stream):
            assert self.model.table.start is not None
            try:
                until = source.landed_until()
            except SourceError as error:
                raise RunError(f"{self.model.name}: the source cannot be read: {error}") from error
            days = iso_days((self.model.table.start, until))
            labelled = iso_days((self.model.table.start, until - dt.timedelta(days=self.model.label_delay_days)))
            for work, days_of_work in {LAND: days, CLEAN: days, LABEL: labelled, FEATURES: days}.items():
                say(f"{work}: {self.make(work, days_of_work)} of {len(days_of_work)} days were stale")
            if self.resources["ledger"].champion(self.model.name) is None:
                for work in (TRAIN, DEPLOY):
                    self.run(work)
                    say(f"{work}: done")
            if self.resources["ledger"].champion(self.model.name) is not None:
                self.make(DAILY, days[-1:])
        else:
            raise RunError(
                f"{self.model.name}: its rows come from {source}, which lands by itself; materialise it in the UI"
            )
        name, ledger = self.model.name, self.resources["ledger"]
        if self.model.approval is not None:
            state = state_of(ledger, name, self.model.approval, dt.datetime.now(dt.UTC))
            if state is not None and state.status != "approved":
                say(f"{name}: {state.message}")
        if (champion := ledger.champion(name)) is not None:
            say(f"version {champion.version} of {name} is in production: {champion.reason}")

    def row(self, asset: str) -> dict[str, Any]:
        """The first row of one of the model's tables without days."""
        return self.tables.read(self.model.key(asset)).iloc[0].to_dict()


@contextlib.contextmanager
def alone(settings: Settings, declared: Callable[[], Model]) -> Iterator[Runner]:
    """Yields a runner on the state folder of ``settings``, after cleaning up what an earlier runner left behind.

    A second runner on the same folder waits for the first.

    Args:
        settings: settings of the state folder.
        declared: returns the declaration, which may read the state folder when it is imported.
    """
    from filelock import FileLock

    from resources.home import end_dead_runs, prepare

    prepare(settings)
    with FileLock(settings.home / ".runner.lock"), dg.DagsterInstance.get() as instance:
        runner = Runner(declared(), settings, instance)
        end_dead_runs(instance)
        runner.resources["mlflow"].reap(instance)
        runner.resources["ledger"].reconcile(runner.resources["mlflow"])
        gc.collect()
        gc.freeze()  # exempts a million long-lived library objects from garbage collection
        yield runner


def _topics_of(models: Sequence[Model]) -> list[Model]:
    """The declarations that give models the topics of their surges; RunError if one is not declared."""
    names = [model.surge.topics for model in models if model.surge and model.surge.topics]
    if not names:
        return []
    from assets.models import declared_models

    declared = {model.name: model for model in declared_models()}
    if lacking := [name for name in names if name not in declared]:
        raise RunError(f"surge.topics={lacking[0]!r}: no such model is declared in assets/models; declare it")
    return [declared[name] for name in names]


def _owner_of(model: Model) -> Model:
    """The declaration of the model whose table ``model`` shares; RunError if it is not declared, or not as shared."""
    from assets.models import declared_models

    for declared in declared_models():
        if declared.name == model.table.of:
            try:
                refuse_another_table(model, declared)
            except DeclarationError as error:
                raise RunError(str(error)) from error
            return declared
    raise RunError(f"{model.name}: no model '{model.table.of}' is declared, whose table it shares")


def _chunks(days: Sequence[str]) -> Iterator[list[str]]:
    """Chunks of consecutive days, each of at most :data:`CHUNK_DAYS` days."""
    chunk: list[str] = []
    for day in days:
        follows = chunk and dt.date.fromisoformat(chunk[-1]) + dt.timedelta(days=1) == dt.date.fromisoformat(day)
        if chunk and (not follows or len(chunk) == CHUNK_DAYS):
            yield chunk
            chunk = []
        chunk.append(day)
    if chunk:
        yield chunk


def _why(result: dg.ExecuteInProcessResult) -> str:
    """The reason of a failed run: the descriptions of up to three failed blocking checks, else the first error."""
    refusals = [
        event.asset_check_evaluation_data
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    failures = [
        f"{check.asset_key.to_user_string()}: {check.check_name}: {check.description}"
        for check in refusals
        if check.blocking and not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    if failures:
        return "; ".join(failures[:3])
    for event in result.all_events:
        if event.is_step_failure and (error := event.step_failure_data.error) is not None:
            cause = error.cause or error
            failure = event.step_failure_data.user_failure_data
            return (failure.description if failure and failure.description else cause.message).strip()
    return "no step gives a reason"
