"""Turns a function on DataFrames into an asset with checks, days, metadata and automation.

Belongs here: wiring that more than one stage needs. Does not belong here: what a stage computes.
"""

import ast
import datetime as dt
import functools
import hashlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from assets.declaration import Model
from assets.personal import Tag, lineage_tags, tag_of_column
from resources.dagster_internals import CheckResult, check_events
from resources.encryption import in_use
from resources.tables import PERSONAL_COLUMNS, WHOLE, DayWindow

# Partitioned checks, single-run backfills and windows that reach past the ends are preview or beta features of Dagster.
# They are used on purpose, with pinned versions, so the warnings for each asset at each load are silenced.
for _category in (dg.PreviewWarning, dg.BetaWarning):
    warnings.filterwarnings("ignore", category=_category, module=r"assets\.lifecycle\.stage|dagster\..*")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of a stage: its name, what it verifies, and whether a failure blocks the downstream assets."""

    name: str
    description: str
    blocking: bool = True


@dataclass(frozen=True)
class TableInput:
    """An upstream table and the days, relative to the output's day, that one output day reads.

    ``optional``: these days may not exist yet; the stage then gets an empty frame. ``in_batches``: the stage gets an
    :class:`~resources.tables.InBatches` instead of a frame. ``columns``: the columns to read; default: all.
    """

    key: dg.AssetKey
    window: DayWindow = (0, 0)
    optional: bool = False
    in_batches: bool = False
    columns: tuple[str, ...] | None = None


@dataclass
class StageOutput:
    """Result of a stage's function: the rows, the check results, and the metadata for the UI.

    Without rows (``frame=None``), a stage that may wait writes nothing, and its downstream assets are skipped.
    """

    frame: pd.DataFrame | None
    check_results: list[CheckResult] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    by_day: dict[str, dict[str, Any]] = field(default_factory=dict)


TRAINING_POOL = "training"
"""Pool of the steps that use the whole machine, whatever their model."""

Compute = Callable[..., StageOutput]


class Refused(dg.Failure):
    """A blocking check failed before anything was written, so the previous file is unchanged."""


def days_of(model: Model) -> dg.DailyPartitionsDefinition | None:
    """Returns the day partitions of a model's tables; ``None`` for a table without `time`."""
    if model.table.start is None:
        return None
    return dg.DailyPartitionsDefinition(start_date=model.table.start.isoformat(), timezone="UTC")


def days_in_run(context: dg.AssetExecutionContext) -> list[str]:
    """Returns the ISO days that this run makes; ``[WHOLE]`` for a table without days."""
    return list(context.partition_keys) if context.has_partition_key_range or context.has_partition_key else [WHOLE]


def table_asset(
    model: Model,
    name: str,
    compute: Compute,
    *,
    description: str,
    stage: str,
    kinds: set[str],
    inputs: Mapping[str, TableInput] = {},
    checks: Sequence[Check] = (),
    day_column: str | None = None,
    code: Sequence[Any] = (),
    automation: dg.AutomationCondition | None = None,
    resources: set[str] = frozenset(),  # type: ignore[assignment]
    deps: Sequence[dg.AssetKey | dg.AssetDep] = (),
    config: type[dg.Config] | None = None,
    by_day: bool = True,
    write_refused: bool = False,
    freshness: dg.FreshnessPolicy | None = None,
    op_tags: Mapping[str, Any] | None = None,
    may_wait: bool = False,
    partitions: dg.PartitionsDefinition | None = None,
    pool: str = "",
    declared: str = "",
    unshown: Sequence[str] = (),
) -> dg.AssetsDefinition:
    """Builds an asset that is a table: ``compute(context, **upstream frames) -> StageOutput``.

    If a blocking check fails, nothing is written and the step fails with the message of the check, so that a refused
    day never replaces a good one. All days of a run are checked; one refused day holds back the other days, too.

    Args:
        stage: last part of the group name, e.g. ``data`` in ``fraud/data``.
        code: objects whose modules are part of the code version, in addition to the module of ``compute``.
        config: the settings in the launchpad; ``context.op_execution_context.op_config`` holds them.
        write_refused: whether the table is written although a blocking check failed, as a report on what was refused;
            the check still blocks the downstream assets.
        op_tags: Dagster tags of the step, which an executor may read.
        may_wait: whether ``compute`` may return no frame, because it waits for a person.
        by_day: whether the table is partitioned by the model's days (``trained_model`` is not).
        partitions: other days than the model's.
        pool: Dagster's pool of the step; default: the model's. Only one run at a time uses a pool.
        declared: what of the declaration decides the rows, as a text; it is part of the code version.
        unshown: columns that the sample for the UI leaves out.
    """
    key, tags = model.key(name), lineage_tags(model)
    partitions = partitions or (days_of(model) if by_day else None)
    specs = [
        dg.AssetCheckSpec(
            check.name,
            asset=key,
            description=check.description,
            blocking=check.blocking,
            partitions_def=partitions,
        )
        for check in checks
    ]
    metadata: dict[str, Any] = {"day_column": day_column} if day_column and partitions else {}
    if own := personal_columns(model):
        metadata[PERSONAL_COLUMNS] = own
    metadata["reads"] = {table.key.to_user_string(): list(table.window) for table in inputs.values()}

    @dg.asset(
        key=key,
        ins={argument: _asset_in(table, partitions) for argument, table in inputs.items()},
        deps=list(deps),
        description=description,
        group_name=f"{model.name}/{stage}",
        owners=[model.owner],
        kinds=kinds,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        check_specs=specs,
        code_version="-".join([code_version(compute, *code), *([declared] if declared else [])]),
        automation_condition=automation,
        required_resource_keys={"tables", *resources},
        metadata=metadata,
        config_schema=_fields(config) if config else None,
        freshness_policy=freshness,
        op_tags=op_tags,
        output_required=not may_wait,
        io_manager_key="tables",
        pool=pool or model.name,
    )
    def stage_asset(context: dg.AssetExecutionContext, **frames: Any) -> Iterator[Any]:
        output = compute(context, **frames)
        blocking = {spec.name for spec in specs if spec.blocking}
        refused = [
            result
            for result in output.check_results
            if not result.passed and result.check in blocking and result.severity == dg.AssetCheckSeverity.ERROR
        ]
        if refused and not write_refused:
            yield from check_events(context, specs, output.check_results)
            raise Refused(
                description="\n".join(f"{key.to_user_string()}: {result.description}" for result in refused[:5]),
                metadata={"refused": len(refused), "kept": "the previous table is unchanged"},
                allow_retries=False,
            )
        if output.frame is None:
            context.log_event(dg.AssetObservation(asset_key=key, metadata=output.metadata))
            yield from check_events(context, specs, output.check_results)
            return
        for day, of_day in output.by_day.items():
            context.add_asset_metadata(of_day, partition_key=day if day != WHOLE else None)
        yield dg.MaterializeResult(
            value=output.frame,
            metadata={**output.metadata, "columns": _columns(output.frame, tags), **_sample(output.frame, unshown)},
        )
        yield from check_events(context, specs, output.check_results)

    return stage_asset


@functools.cache
def _fields(config: type[dg.Config]) -> Any:
    """The fields of a configuration; the same object for all models, because Dagster takes a while to make them."""
    return config.to_config_schema().as_field()


def _asset_in(table: TableInput, partitions: dg.PartitionsDefinition | None) -> dg.AssetIn:
    mapping = None
    if partitions is not None:
        mapping = dg.TimeWindowPartitionMapping(
            start_offset=table.window[0],
            end_offset=table.window[1],
            # Windows of the first days begin before the start, and those of the last days end after the landed days.
            allow_nonexistent_upstream_partitions=True,
        )
    return dg.AssetIn(
        key=table.key,
        partition_mapping=mapping,
        metadata={
            "window": list(table.window),
            "optional": table.optional,
            "in_batches": table.in_batches,
            "columns": list(table.columns) if table.columns is not None else None,
        },
    )


@functools.cache
def eager(within_days: int | None, *, may_lack: dg.AssetKey | None = None) -> dg.AutomationCondition:
    """Returns an eager condition for the last ``within_days`` days, without days whose upstream blocking check failed.

    Plain ``eager()`` considers only the latest day, so a late row would never reach its own day.

    Args:
        within_days: ``None`` for a table without days.
        may_lack: an upstream table that may have no days at all (the first week has no labels); Dagster's condition
            holds back a day whose upstream table has none.
    """
    condition: dg.AutomationCondition = dg.AutomationCondition.eager()
    if within_days is not None:
        window = dg.AutomationCondition.in_latest_time_window(dt.timedelta(days=within_days))
        condition = condition.replace("in_latest_time_window", window)
    passed: Any = dg.AutomationCondition.all_deps_blocking_checks_passed()
    if may_lack is None:
        return condition & passed
    lacking = dg.AssetSelection.assets(may_lack)
    sound = dg.AutomationCondition.check_passed() | dg.AutomationCondition.will_be_requested()
    unsound = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.any_checks_match(~sound, blocking_only=True)
    ).allow(lacking)
    return condition & passed.ignore(lacking) & ~unsound


def daily_freshness(model: Model) -> dg.FreshnessPolicy | None:
    """Returns the freshness policy: 26 hours without a new day warn and 48 fail, as a day lands when it is over."""
    if not model.is_stream:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=48), warn_window=dt.timedelta(hours=26))


def sample(frame: pd.DataFrame, rows: int = 5) -> dg.MarkdownMetadataValue:
    """Returns the first rows as a table for the UI."""
    head = frame.head(rows).astype("string").fillna("")
    lines = ["| " + " | ".join(map(str, head.columns)) + " |", "|" + " --- |" * head.shape[1]]
    lines += ["| " + " | ".join(str(cell)[:40].replace("|", "\\|") for cell in row) + " |" for row in head.to_numpy()]
    return dg.MetadataValue.md("\n".join(lines))


def _sample(frame: pd.DataFrame, unshown: Sequence[str] = ()) -> dict[str, Any]:
    """The sample for the UI; none if tables are encrypted, because Dagster's database is not."""
    return {} if in_use.encrypts() else {"sample": sample(frame.drop(columns=list(unshown)))}


def personal_columns(model: Model) -> list[str]:
    """Names of the columns that the declaration of a model tags as personal, in all of its tables.

    They have an encryption key of their own, and so have the features that are made of them.
    """
    return sorted(lineage_tags(model))


def _columns(frame: pd.DataFrame, tags: Mapping[str, Tag]) -> dg.TableSchemaMetadataValue:
    """The columns with their types, and the tags of personal ones, which Dagster shows beside the type."""
    described = [
        dg.TableColumn(name, str(dtype), tags=dict(tag.shown) if (tag := tag_of_column(name, tags)) else None)
        for name, dtype in zip(map(str, frame.columns), frame.dtypes, strict=True)
    ]
    return dg.MetadataValue.table_schema(dg.TableSchema(described))


def code_version(*objects: Any) -> str:
    """Returns the hash of the modules that define ``objects``, without comments, docstrings and layout."""
    return _hash_of(tuple(sorted({path for item in objects if item is not None and (path := _source_of(item))})))


@functools.cache
def _hash_of(paths: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        digest.update(_code_of(path))
    return digest.hexdigest()


def _source_of(item: Any) -> str | None:
    name = item.func.__module__ if isinstance(item, functools.partial) else getattr(item, "__module__", None)
    if name is None:
        name = type(item).__module__
    module = sys.modules.get(name)
    return inspect.getsourcefile(module) if module else None


@functools.cache
def _code_of(path: str) -> bytes:
    """The syntax tree without standalone strings, so that a changed docstring does not make a table stale."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return ast.dump(tree).encode()


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
