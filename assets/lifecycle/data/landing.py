"""First stage: immutable landed rows with their source and arrival time, and the labels that land later.

Belongs here: requesting a day (or the whole table) from the source, and refusing an empty landing. Does not belong
here: any interpretation of a row's values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import dagster as dg
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, table_asset
from resources.dagster_internals import CheckResult
from resources.sources import SourceError, Stream
from resources.tables import WHOLE

ARRIVED = Check(name="arrived", description="The source returned rows for this day; an empty landing is refused.")

LANDING_DAY = "landing_day"
ROW_ID = "row_id"
"""Permanent id of a landed row: ``<landing day>-<position>``. Sorting by it sorts by arrival."""


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
        if upstream is not None:
            landed = {WHOLE: frames["upstream"]}
        else:
            landed = {day: _ask(getattr(context.resources, source_key), day, labels) for day in days_in_run(context)}
        check_results = [
            CheckResult(
                check=ARRIVED.name,
                day=None if day == WHOLE else day,
                passed=len(rows) > 0 or model.table.quiet_days,
                description=f"{len(rows):,} rows landed"
                if len(rows) or model.table.quiet_days
                else f"the source returned no rows for {day}; check the upstream system and land the day again",
                metadata={"rows": len(rows)},
            )
            for day, rows in landed.items()
        ]
        by_day = {day: {"dagster/partition_row_count": len(rows)} for day, rows in landed.items() if day != WHOLE}
        rows = sum(len(frame) for frame in landed.values())
        return StageOutput(number_rows(landed), check_results, {"dagster/row_count": rows, "source": name}, by_day)

    what = "Labels as they became known" if labels else "Rows as they landed"
    return table_asset(
        model,
        name,
        land,
        description=f"{what}, unchanged and in order of arrival, by landing day.",
        stage="data",
        kinds={"parquet"},
        inputs={"upstream": TableInput(upstream)} if upstream else {},
        checks=[ARRIVED],
        day_column=LANDING_DAY,
        code=[] if upstream else [model.table.source],
        resources=set() if upstream else {source_key},
    )


def source_resource_key(model: Model) -> str:
    """Returns the resource key of the model's source; the resource can be replaced under this key."""
    return f"{model.name}_source"


def source_resources(models: Iterable[Model]) -> dict[str, Any]:
    """Returns the models' sources by resource key. A table that another code location makes has no source."""
    return {
        source_resource_key(model): model.table.source
        for model in models
        if not isinstance(model.table.source, dg.AssetKey)
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


def _ask(source: object, day: str, labels: bool) -> pd.DataFrame:
    try:
        if isinstance(source, Stream):
            date = dt.date.fromisoformat(day)
            if date > source.landed_until():
                raise SourceError(f"{day} has not landed yet: the latest complete day is {source.landed_until()}")
            return source.land_labels(date) if labels else source.land(date)
        return source.read()  # type: ignore[attr-defined]
    except SourceError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
