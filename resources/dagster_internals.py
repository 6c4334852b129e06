"""Wrappers of Dagster's private APIs; ``tests/resources/test_dagster_internals.py`` tests that they still work.

Belongs here: seven features without a public API in Dagster 1.13: a check result for each day of a run over several
days, reading the check evaluations of all assets since a cursor, the assets and steps that a run planned, removing the
events of a run that say nothing about assets, rewriting events that hold rows of somebody, jobs whose cost does not
grow with the number of other models, and automation conditions that are evaluated only if something happened. Does not
belong here: anything with a public API.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# Conditions that a code server evaluates are a beta feature of Dagster. It is used on purpose, with a pinned version.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"resources\.dagster_internals")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check on one day (``day=None`` for an unpartitioned table)."""

    check: str
    passed: bool
    day: str | None = None
    description: str = ""
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    metadata: Mapping[str, Any] = field(default_factory=dict)


def check_events(
    context: dg.AssetExecutionContext, specs: Sequence[dg.AssetCheckSpec], check_results: Sequence[CheckResult]
) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.Output]:
    """Yields the events that record ``check_results`` on the asset of this step, each for its own day.

    ``AssetCheckResult`` has no partition, so in a run over several days all days would get the same status. Instead,
    each day gets an evaluation that points to that day's latest materialisation, because
    ``AutomationCondition.all_deps_blocking_checks_passed()`` reads it there. Yield these events after the
    materialisation.
    """
    if not context.has_partition_key_range and not context.has_partition_key:
        for check_result in check_results:
            yield dg.AssetCheckResult(
                passed=check_result.passed,
                check_name=check_result.check,
                asset_key=specs[0].asset_key,
                severity=check_result.severity,
                description=check_result.description,
                metadata=dict(check_result.metadata),
            )
        return
    targets = _latest_materializations(context.instance, specs[0].asset_key, list(context.partition_keys))
    blocking = {spec.name: spec.blocking for spec in specs}
    for check_result in check_results:
        yield dg.AssetCheckEvaluation(
            asset_key=specs[0].asset_key,
            check_name=check_result.check,
            passed=check_result.passed,
            metadata=dict(check_result.metadata),
            target_materialization_data=targets.get(check_result.day or ""),
            severity=check_result.severity,
            description=check_result.description,
            blocking=blocking[check_result.check],
            partition=check_result.day,
        )
    for spec in specs:
        yield dg.Output(None, output_name=spec.get_python_identifier())


def _latest_materializations(instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[str]) -> dict[str, Target]:
    latest: dict[str, Target] = {}
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=list(days)), limit=10_000
    )
    for record in found.records:  # newest first
        day = record.partition_key
        if day is not None and day not in latest:
            latest[day] = Target(run_id=record.run_id, storage_id=record.storage_id, timestamp=record.timestamp)
    return latest


@dataclass(frozen=True)
class Evaluation:
    """One check evaluation from the event log."""

    storage_id: int
    run_id: str
    timestamp: float
    asset_key: dg.AssetKey
    check: str
    passed: bool
    severity: dg.AssetCheckSeverity
    day: str | None
    description: str
    metadata: Mapping[str, Any]


def check_evaluations(instance: dg.DagsterInstance, after: int = 0, limit: int = 1000) -> list[Evaluation]:
    """Check evaluations with a storage id above ``after``, oldest first, at most ``limit``."""
    from dagster._core.event_api import EventRecordsFilter

    records = instance.get_event_records(
        EventRecordsFilter(event_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=after),
        limit=limit,
        ascending=True,
    )
    found = []
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        data = event.asset_check_evaluation_data
        found.append(
            Evaluation(
                storage_id=record.storage_id,
                run_id=record.event_log_entry.run_id,
                timestamp=record.event_log_entry.timestamp,
                asset_key=data.asset_key,
                check=data.check_name,
                passed=data.passed,
                severity=data.severity,
                day=data.partition,
                description=data.description or "",
                metadata={name: value.value for name, value in data.metadata.items()},
            )
        )
    return found


@dataclass(frozen=True)
class Planned:
    """An asset or one of its days that a run planned to materialise, the step, and whether it was materialised."""

    asset_key: dg.AssetKey
    day: str | None
    step: str
    made: bool


def planned_assets(instance: dg.DagsterInstance, run_id: str) -> list[Planned]:
    """The assets that a run planned to materialise, in plan order; empty for a job without assets."""

    def events(of_type: dg.DagsterEventType) -> list[Any]:
        records = instance.get_records_for_run(run_id, of_type=of_type).records
        found = [record.event_log_entry.dagster_event for record in records]
        return [event for event in found if event is not None]

    made = {(event.asset_key, event.partition) for event in events(dg.DagsterEventType.ASSET_MATERIALIZATION)}
    return [
        Planned(event.asset_key, event.partition, event.step_key or "", (event.asset_key, event.partition) in made)
        for event in events(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    ]


_FACTS = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_START,
    dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
)
"""Events that say what became of assets and of the run; all others are chatter."""


def runs_with_current_facts(instance: dg.DagsterInstance) -> set[str]:
    """Ids of the runs that hold the latest event of a kind about an asset or one of its days, or of one of its checks.

    If such a run were deleted, its assets would look as if they had never been materialised or checked.
    """
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Checks
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    of_assets = [kind.value for kind in _FACTS[:4]]
    latest_events = (
        sa.select(sa.func.max(Events.c.id))
        .where(Events.c.dagster_event_type.in_(of_assets) & Events.c.asset_key.is_not(None))
        .group_by(Events.c.dagster_event_type, Events.c.asset_key, Events.c.partition)
    )
    latest_checks = sa.select(sa.func.max(Checks.c.id)).group_by(
        Checks.c.asset_key, Checks.c.check_name, Checks.c.partition
    )
    with _events(instance) as connection:
        events = connection.execute(sa.select(Events.c.run_id).where(Events.c.id.in_(latest_events)).distinct())
        checks = connection.execute(sa.select(Checks.c.run_id).where(Checks.c.id.in_(latest_checks)).distinct())
        return {run_id for run_id in [*events.scalars(), *checks.scalars()] if run_id}


def size_of_events(instance: dg.DagsterInstance, run_id: str, *, chatter_only: bool) -> int:
    """Length of the stored events of a run in characters: of all, or of those that :func:`remove_chatter` removes."""
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    where = _is_chatter(run_id) if chatter_only else Events.c.run_id == run_id
    with _events(instance) as connection:
        return int(
            connection.execute(sa.select(sa.func.sum(sa.func.length(Events.c.event))).where(where)).scalar() or 0
        )


def remove_chatter(instance: dg.DagsterInstance, run_id: str) -> None:
    """Removes the events of a run that say nothing about assets, checks or the outcome of the run."""
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    with _events(instance) as connection:
        connection.execute(Events.delete().where(_is_chatter(run_id)))


def _is_chatter(run_id: str) -> sa.ColumnElement[bool]:
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    kind = Events.c.dagster_event_type
    return (Events.c.run_id == run_id) & (kind.is_(None) | kind.not_in([fact.value for fact in _FACTS]))


@contextmanager
def _events(instance: dg.DagsterInstance) -> Iterator[sa.Connection]:
    """A transaction on the event log of all runs."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        yield connection


def rewrite_events(instance: dg.DagsterInstance, rewritten: Callable[[str], str | None], *, write: bool = True) -> int:
    """Rewrites stored events; for erasure.

    Args:
        instance: Dagster's instance.
        rewritten: receives an event as JSON, and returns its new text, or ``None`` if it stays.
        write: whether to write; otherwise they are only counted.

    Returns:
        The number of events with a new text.
    """
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Checks
    from dagster._core.storage.event_log.schema import AssetKeyTable as Keys
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    changed = 0
    # The evaluation of a check is there twice: as an event, and as the latest one of its check.
    columns = ((Events, Events.c.event), (Keys, Keys.c.last_materialization), (Checks, Checks.c.evaluation_event))
    for table, column in columns:
        last = -1
        while True:
            # Short transactions, since runs of other models may be writing.
            with _events(instance) as connection:
                page = sa.select(table.c.id, column).where(table.c.id > last).order_by(table.c.id).limit(_PAGE)
                rows = connection.execute(page).all()
                news = [(row_id, new) for row_id, text in rows if text and (new := rewritten(text)) is not None]
                if write:
                    for row_id, new in news:
                        connection.execute(sa.update(table).where(table.c.id == row_id).values({column.name: new}))
            changed += len(news)
            if len(rows) < _PAGE:
                break
            last = rows[-1][0]
    return changed


_PAGE = 500


def newest_event(instance: dg.DagsterInstance, after: int = 0, about: Collection[dg.AssetKey] | None = None) -> int:
    """The storage id of the newest event above ``after``, or ``after`` if there is none.

    Args:
        instance: Dagster's instance.
        after: a storage id.
        about: assets; only events about them or their checks, and ends of runs that planned to materialise them, count.
            ``None``: all events.
    """
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    newest = sa.func.coalesce(sa.func.max(Events.c.id), after)
    with _events(instance) as connection:
        if about is None:
            return int(connection.execute(sa.select(newest).where(Events.c.id > after)).scalar_one())
        names = [key.to_string() for key in about]
        of_assets = sa.select(newest).where(Events.c.id > after, Events.c.asset_key.in_(names))
        ends = [kind.value for kind in _ENDS]
        ended = sa.select(Events.c.id, Events.c.run_id).where(
            Events.c.id > after, Events.c.dagster_event_type.in_(ends)
        )
        found = int(connection.execute(of_assets).scalar_one())
        for event, run_id in connection.execute(ended).all():
            planned = sa.select(Events.c.id).where(Events.c.run_id == run_id, Events.c.asset_key.in_(names)).limit(1)
            if event > found and connection.execute(planned).first() is not None:
                found = event
        return found


_ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)


@dataclass(frozen=True)
class _Evaluated:
    """When conditions were evaluated: the newest event before, the day (UTC), and the cursor that came out."""

    event: int
    at: dt.datetime
    cursor: str | None


class QuietAutomation(dg.AutomationConditionSensorDefinition):
    """An automation sensor that evaluates its conditions if something happened to their assets, or a day has begun.

    By default, Dagster evaluates all conditions at each tick. This one remembers in this process what its last
    evaluation had seen. It evaluates again after an event about its assets or what they are made from, in a new
    process, if Dagster did not keep the cursor of that evaluation, on a new day, and after ``at_least_every``.
    """

    def __init__(self, name: str, *, at_least_every: dt.timedelta, **given: Any) -> None:
        super().__init__(name, use_user_code_server=True, **given)
        self._at_least_every = at_least_every
        self._evaluated: _Evaluated | None = None
        self._about: frozenset[dg.AssetKey] | None = None

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        """Evaluates the conditions, or skips the tick."""
        now, before = dt.datetime.now(dt.UTC), self._evaluated
        newest = newest_event(context.instance, before.event if before else 0)
        if (
            before is not None
            and self._is_fresh(before, context.cursor, now)
            and newest_event(context.instance, before.event, self._assets(context)) == before.event
        ):
            self._evaluated = _Evaluated(newest, before.at, before.cursor)  # the next tick looks at later events only
            quiet = dg.SensorDefinition(name=self.name, evaluation_fn=_nothing_happened, asset_selection="*")
            return quiet.evaluate_tick(context)
        evaluated = super().evaluate_tick(context)
        self._evaluated = _Evaluated(newest, now, evaluated.cursor)
        return evaluated

    def _is_fresh(self, before: _Evaluated, cursor: str | None, now: dt.datetime) -> bool:
        same_day = before.at.date() == now.date()
        return same_day and cursor == before.cursor and now - before.at < self._at_least_every

    def _assets(self, context: dg.SensorEvaluationContext) -> frozenset[dg.AssetKey]:
        if self._about is None:
            repository: Any = context.repository_def
            graph = repository.asset_graph
            own = self.asset_selection.resolve(graph)
            self._about = frozenset(own | {parent for key in own for parent in graph.get(key).parent_keys})
        return self._about


def _nothing_happened(_context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason("nothing has happened to these assets since their conditions were evaluated")


class NarrowJob(UnresolvedAssetJobDefinition):
    """An asset job that Dagster resolves among its assets and what they are made from, with their resources only.

    By default, resolving a job looks at each asset of the code location, and the job's configuration, which Dagster
    describes and hashes at each load, names each resource. With many models, the cost of a load then grows with the
    square of their number.
    """

    def resolve(
        self,
        asset_graph: AssetGraph,
        default_executor_def: dg.ExecutorDefinition | None = None,
        resource_defs: Mapping[str, dg.ResourceDefinition] | None = None,
    ) -> dg.JobDefinition:
        """Resolves the job as Dagster does. The assets of a code location have their resources already."""
        lineage, reached = set[dg.AssetKey](), set(self.selection.resolve(asset_graph))
        while reached:
            lineage |= reached
            reached = {parent for key in reached for parent in asset_graph.get(key).parent_keys} - lineage
        assets = {asset_graph.get(key).assets_def for key in lineage}
        return super().resolve(AssetGraph.from_assets(list(assets)), default_executor_def, {})


def narrow_job(
    name: str, keys: Sequence[dg.AssetKey], *, description: str, tags: Mapping[str, str] | None
) -> dg.UnresolvedAssetJobDefinition:
    """Defines an asset job as :func:`dagster.define_asset_job` does; see :class:`NarrowJob`."""
    job = dg.define_asset_job(name, selection=dg.AssetSelection.assets(*keys), description=description, tags=tags)
    return NarrowJob(name=name, selection=job.selection, description=description, tags=job.tags)
