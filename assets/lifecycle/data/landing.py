"""First stage: immutable landed rows with their source and arrival time, and the labels that land later.

Belongs here: requesting a day (or the whole table) from the source, trying again while it is unavailable, leaving out
rows of people who were forgotten, and refusing an empty landing or one with other columns than before. Does not belong
here: any interpretation of a row's values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from assets.declaration import Model
from assets.lifecycle.data.forgotten import without_forgotten
from assets.lifecycle.data.landed_schema import LOOKED_AT, LandedSchema, changes_of_schema, schema_of, told
from assets.lifecycle.data.protection import WITHHELD, Protection, ProtectionError, needs_key, tags_digest
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, table_asset
from assets.personal import is_protected
from resources.dagster_internals import CheckResult
from resources.files import FileError
from resources.keys import KeyProblem
from resources.pseudonyms import pseudonym_keys
from resources.settings import Settings
from resources.sources import Snapshot, SourceError, SourceUnavailable, Stream
from resources.tables import WHOLE, ParquetTables, TableError, TableKeyError

ARRIVED = Check(name="arrived", description="The source returned rows for this day; an empty landing is refused.")

SCHEMA = Check(
    name="schema",
    description="The source has all columns of the landing before, with values of the same kind; a renamed, dropped or "
    "retyped column is refused until a person accepts it.",
)

TRIES, FIRST_WAIT_S = 3, 10
"""Number of tries of a run while the source is unavailable, and the wait after the first one; it doubles each time."""
UNAVAILABLE = "assetline/source_unavailable"
"""Tag of a run that failed because its source was unavailable; the arrivals sensor requests its day again."""

LANDING_DAY = "landing_day"
ROW_ID = "row_id"
"""Permanent id of a landed row: ``<landing day>-<position>``. Sorting by it sorts by arrival."""


class LandingConfig(dg.Config):
    """Settings of a landing in the launchpad."""

    accept_schema: bool = Field(
        default=False,
        description="Land although columns of the source were renamed, dropped or retyped. The next landing is then "
        "compared with this one. Change `clean` and the contract first, if they read these columns.",
    )


def raw_table_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``raw_<table>``."""
    return _landing_asset(model, f"raw_{model.table.name}", labels=False)


def raw_labels_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``raw_labels``; ``None`` if labels do not land later than their rows."""
    return _landing_asset(model, "raw_labels", labels=True) if model.label_delay_days else None


def _landing_asset(model: Model, name: str, labels: bool) -> dg.AssetsDefinition:
    source_key = source_resource_key(model)
    upstream = model.table.source if isinstance(model.table.source, dg.AssetKey) else None

    def land(context: dg.AssetExecutionContext, **frames: pd.DataFrame) -> StageOutput:
        tables: ParquetTables = context.resources.tables
        protection = _protection(model)
        if upstream is not None:
            landed = {WHOLE: frames["upstream"]}
        else:
            source = getattr(context.resources, source_key)
            landed = _asked(
                context, lambda: _read(source, tables, model.key(name), days_in_run(context), labels),
                may_quote=protection is None,
            )  # fmt: skip
        arrived, plain = {day: len(rows) for day, rows in landed.items()}, landed
        if protection is not None:
            landed = _protected(protection, landed, complete=not labels)
        landed, left_out = without_forgotten(
            tables, model.table, model.lander, landed, labels=labels,
            formerly=lambda: [_protected(one, plain, complete=not labels) for one in _former_protections(model)],
        )  # fmt: skip
        check_results = [
            CheckResult(
                check=ARRIVED.name,
                day=None if day == WHOLE else day,
                passed=arrived[day] > 0 or model.table.quiet_days,
                description=f"{len(rows):,} rows landed"
                if arrived[day] or model.table.quiet_days
                else f"the source returned no rows for {day}; check the upstream system and land the day again",
                metadata={"rows": len(rows)},
            )
            for day, rows in landed.items()
        ]
        if not context.op_execution_context.op_config["accept_schema"]:
            check_results += _schema_checks(tables, model.key(name), landed, may_quote=protection is None)
        else:
            check_results += [
                CheckResult(check=SCHEMA.name, day=None if day == WHOLE else day, passed=True,
                            description="accepted by a person, as it is now")
                for day in landed
            ]  # fmt: skip
        by_day = {day: {"dagster/partition_row_count": len(rows)} for day, rows in landed.items() if day != WHOLE}
        rows = sum(len(frame) for frame in landed.values())
        metadata = {"dagster/row_count": rows, "source": name, **({"forgotten": left_out} if left_out else {})}
        return StageOutput(number_rows(landed), check_results, metadata, by_day)

    what = "Labels as they became known" if labels else "Rows as they landed"
    unchanged = "unchanged" if not is_protected(model) else "with tagged columns protected, else unchanged"
    return table_asset(
        model,
        name,
        land,
        description=f"{what}, {unchanged} and in order of arrival, by landing day.",
        stage="data",
        kinds={"parquet"},
        inputs={"upstream": TableInput(upstream)} if upstream else {},
        checks=[ARRIVED, SCHEMA],
        day_column=LANDING_DAY,
        code=[] if upstream else [model.table.source],
        resources=set() if upstream else {source_key},
        config=LandingConfig,
        declared=tags_digest(model),
    )


def source_resource_key(model: Model) -> str:
    """Returns the resource key of the model's source; the resource can be replaced under this key."""
    return f"{model.lander}_source"


def source_resources(models: Iterable[Model]) -> dict[str, Any]:
    """Returns the models' sources by resource key. A table of another model or code location has no source."""
    return {
        source_resource_key(model): model.table.source
        for model in models
        if not model.table.of and not isinstance(model.table.source, dg.AssetKey)
    }


def number_rows(landed: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Joins landings into one frame and adds each row's row id and landing day.

    Args:
        landed: rows by ISO landing day, or under ``WHOLE`` for a whole table, which gets no landing day.

    Raises:
        dagster.Failure: the source has a column named ``row_id`` or ``landing_day``.
    """
    frames = []
    for day, rows in landed.items():
        if own := [name for name in (ROW_ID, LANDING_DAY) if name in rows]:
            raise dg.Failure(
                description=f"the source has a column '{own[0]}', a name that is reserved for landed "
                "rows; rename it in the source",
                allow_retries=False,
            )
        numbered = rows.reset_index(drop=True)
        prefix = "" if day == WHOLE else f"{day}-"
        positions = pd.Series(range(len(rows)), dtype="int64").astype("string[pyarrow]").str.zfill(7)
        numbered.insert(0, ROW_ID, (prefix + positions).astype("string[pyarrow]"))
        if day != WHOLE:
            numbered.insert(1, LANDING_DAY, pd.Timestamp(day))
        frames.append(numbered)
    return pd.concat(frames, ignore_index=True)


def _protection(model: Model) -> Protection | None:
    """The protection of the rows; ``None`` if no column is tagged. It is made before anything is read.

    Raises:
        dagster.Failure: a key is needed and cannot be used.
    """
    if not is_protected(model):
        return None
    try:
        return Protection(model, pseudonym_keys(Settings.from_env(), writes=True) if needs_key(model) else ())
    except KeyProblem as error:
        raise dg.Failure(description=f"{model.table.name} has pseudonyms: {error}", allow_retries=False) from error


def _former_protections(model: Model) -> list[Protection]:
    """The protections before each re-keying: tombstones of that time know the pseudonyms of the older keys."""
    keys = pseudonym_keys(Settings.from_env()) if needs_key(model) else ()
    return [Protection(model, keys[:number]) for number in range(1, len(keys))]


def _protected(protection: Protection, landed: dict[str, pd.DataFrame], *, complete: bool) -> dict[str, pd.DataFrame]:
    try:
        return {day: protection.frame(rows, complete=complete) for day, rows in landed.items()}
    except ProtectionError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def _asked(
    context: dg.AssetExecutionContext, read: Callable[[], dict[str, pd.DataFrame]], *, may_quote: bool
) -> dict[str, pd.DataFrame]:
    """Rows by day from the source. An unavailable source is asked again; other errors fail at once.

    Args:
        context: the step.
        read: reads the rows.
        may_quote: whether messages may quote a value of a row. If not, those that may do so are withheld, and so is
            their traceback, which Dagster would store.

    Raises:
        dagster.RetryRequested: the source is unavailable, and this was not the last try.
        dagster.Failure: the source cannot be read. After the last try, the run has the tag :data:`UNAVAILABLE`.
    """
    try:
        return read()
    except SourceUnavailable as error:
        number = context.op_execution_context.retry_number
        said, cause = _said(error, may_quote)
        if number + 1 < TRIES:
            context.log.warning(f"{said}; this was try {number + 1} of {TRIES}")
            raise dg.RetryRequested(max_retries=TRIES - 1, seconds_to_wait=FIRST_WAIT_S * 2**number) from cause
        context.instance.add_run_tags(context.run.run_id, {UNAVAILABLE: "true"})
        raise dg.Failure(description=said, allow_retries=False) from cause
    except SourceError as error:
        said, cause = _said(error, may_quote)
        raise dg.Failure(description=said, allow_retries=False) from cause
    except Exception as error:
        if may_quote:
            raise
        said, cause = _said(error, may_quote)
        raise dg.Failure(description=said, allow_retries=False) from cause


def _said(error: Exception, may_quote: bool) -> tuple[str, Exception | None]:
    """What may be logged of an error: its message and the error, or neither if they may hold a value of a row."""
    if may_quote or (isinstance(error, SourceError) and not _quotes(error)):
        return str(error), error
    return f"the source cannot be read ({type(error).__name__}); {WITHHELD}", None


def _quotes(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, may quote a value of a row: that of a library always may."""
    if error is None or isinstance(error, OSError):
        return False
    own = not error.quotes if isinstance(error, SourceError) else isinstance(error, FileError)
    return not own or _quotes(error.__cause__)


def _read(
    source: Stream | Snapshot, tables: ParquetTables, key: dg.AssetKey, days: list[str], labels: bool
) -> dict[str, pd.DataFrame]:
    if not isinstance(source, Stream):
        return {WHOLE: source.read()}
    until, column = source.landed_until(), source.growing_column()
    rows: dict[str, pd.DataFrame] = {}
    for day in days:
        date = dt.date.fromisoformat(day)
        if date > until:
            raise SourceError(f"{day} has not landed yet: the latest complete day is {until}")
        if labels:
            rows[day] = source.land_labels(date)
        elif column is None:
            rows[day] = source.land(date)
        else:
            rows[day] = _after_the_last(source, tables, key, day, column, rows)
    return rows


def _after_the_last(
    source: Stream, tables: ParquetTables, key: dg.AssetKey, day: str, column: str, before: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """The rows of ``day`` by the source's growing column: those above all rows of earlier days.

    Raises:
        SourceError: a later day has landed, so its rows would land twice.
    """
    there = tables.days(key)
    after = next((greatest(rows, column) for rows in reversed(list(before.values())) if len(rows)), None)
    if after is None:
        earlier = (tables.read(key, [d], [column]) for d in reversed(there) if d < day)
        after = next((greatest(rows, column) for rows in earlier if len(rows)), None)
    landed = tables.read(key, [day], [column]) if day in there else pd.DataFrame()
    if len(landed):
        return source.land_after(dt.date.fromisoformat(day), after, greatest(landed, column))
    if later := [d for d in there if d > day]:
        raise SourceError(
            f"{later[0]} has landed, so {day} cannot: rows land in the order of '{column}', and those of {day} are in "
            f"{later[0]}"
        )
    return source.land_after(dt.date.fromisoformat(day), after, None)


def greatest(rows: pd.DataFrame, column: str) -> str:
    """The greatest value of a growing column, as text; whole numbers are compared as numbers, other values as text.

    Raises:
        SourceError: the source has no such column, or a value is missing.
    """
    if column not in rows:
        raise SourceError(f"the source has no column '{column}'; the columns are: {', '.join(map(str, rows.columns))}")
    values = rows[column]
    if values.isna().any():
        raise SourceError(f"'{column}' is missing in {int(values.isna().sum())} rows, so their order is unknown")
    whole = values.str.fullmatch(r"[+-]?\d+").all()
    return str(max(values, key=int)) if whole else str(values.max())


def _schema_checks(
    tables: ParquetTables, key: dg.AssetKey, landed: Mapping[str, pd.DataFrame], *, may_quote: bool
) -> list[CheckResult]:
    """The check of each landing against the one before it, in this run or on disk; blank days are left out."""
    check_results = []
    before = _schema_before(tables, key, min(landed))
    for day, rows in landed.items():
        now = schema_of(rows)
        seen = before is not None and len(rows)
        changes = changes_of_schema(before, now, may_quote=may_quote) if seen and before is not None else []
        check_results.append(
            CheckResult(
                check=SCHEMA.name,
                day=None if day == WHOLE else day,
                passed=not any(change.refused for change in changes),
                description=told(changes)
                if before is not None
                else "the first landing; the next one is compared with it",
                metadata={"columns": rows.shape[1]},
            )
        )
        if len(rows):
            before = now
    return check_results


def _schema_before(tables: ParquetTables, key: dg.AssetKey, first: str) -> LandedSchema | None:
    """The columns of the latest landing before ``first`` that has rows; ``None`` if there is none."""
    for day in reversed(tables.days(key)):
        if day != WHOLE and day >= first:
            continue
        try:
            rows = next(tables.batches(key, day, rows=LOOKED_AT), None)
        except TableKeyError:
            raise
        except TableError:  # a damaged file is being landed again
            continue
        if rows is not None and len(rows):
            return schema_of(rows.drop(columns=[name for name in (ROW_ID, LANDING_DAY) if name in rows]))
    return None
