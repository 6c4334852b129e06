"""The rows of a version's reference profile.

Belongs here: the choice of rows. Does not belong here: the profile itself (``profile``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.declaration import Model
from assets.lifecycle.data.cleaning import event_day
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.drawing import places
from assets.lifecycle.model.training_set import feature_column, places_of, test_rows, windows_in
from assets.lifecycle.model.windows import (
    days_ending,
    iso_days,
)
from resources.tables import ParquetTables, frame_of

REFERENCE_ROWS = 20_000
"""Target number of rows for the reference profile, which uses whole weeks so that all weekdays have equal shares."""

MOST_ROWS = 500_000
"""Largest number of rows of the reference profile. More would not make its tests more sensitive to a day of rows."""


@dataclass(frozen=True)
class ReferenceRows:
    """The rows of the reference profile: the data at the time the version is trained.

    Args:
        features: ``[n]`` rows of the declared features.
        entities: by column, the entity of each row, ``[n]``.
        day: day of each row, ``[n]``; ``None`` if the rows are not whole weeks.
        rows_of_weekday: mean rows per day by weekday, Monday first; empty if the rows are not whole weeks.
        share: share of the rows of these weeks that were drawn.
    """

    features: pd.DataFrame
    entities: dict[str, np.ndarray]
    day: np.ndarray | None = None
    rows_of_weekday: Sequence[float] = ()
    share: float = 1.0


def entities_of(model: Model) -> list[str]:
    """Returns the entity columns: those of the features' history, and the one that the evaluation resamples by."""
    return list(dict.fromkeys([*features_of(model).entities, *filter(None, [model.evaluation.entity])]))


def reference_rows(tables: ParquetTables, frozen: pd.DataFrame, model: Model) -> ReferenceRows:
    """Returns the rows of the reference profile; they need no labels.

    With a time column these are the latest whole weeks after the days of the final fit, until they hold
    :data:`REFERENCE_ROWS` rows. Of more than :data:`MOST_ROWS` rows a random share is drawn. If days of the latest week
    are missing, these are the test rows.

    Without a time column these are all rows, because the next landing contains mostly the same rows, and a model is
    more confident on rows that it was fitted on. A reference of the test rows alone reported drift on its own table.
    """
    names, table = list(features_of(model).names), model.table
    entities = entities_of(model)
    if days := _recent_weeks(tables, frozen, model):
        assert table.time is not None
        count = sum(stamp.rows for stamp in tables.stamps(model.key("features"), days).values())
        share = min(1.0, MOST_ROWS / max(count, 1))
        parts = [_of_day(tables, model, day, entities, share) for day in days]
        rows = frame_of([of_features for of_features, _ in parts])
        entity_rows = frame_of([of_entities for _, of_entities in parts])
        by_weekday: dict[int, list[float]] = {}
        for day in days:
            found = float(tables.existing_stamp(model.key("features"), day).rows)
            by_weekday.setdefault(dt.date.fromisoformat(day).weekday(), []).append(found)
        return ReferenceRows(
            rows[names],
            {name: entity_rows[name].to_numpy() for name in entities},
            event_day(rows, table).to_numpy(),
            [float(np.mean(by_weekday[n])) for n in range(7)],
            share,
        )
    unseen = frozen if table.time is None else frozen[test_rows(frozen, model)]
    features = unseen[[feature_column(name) for name in names]].set_axis(names, axis=1)
    return ReferenceRows(features, {name: unseen[name].to_numpy() for name in entities})


def _of_day(
    tables: ParquetTables, model: Model, day: str, entities: Sequence[str], share: float
) -> tuple[pa.Table, pa.Table]:
    """The features of the drawn rows of a day, and their entities."""
    table = model.table
    rows = tables.arrow(model.key("features"), [day], [table.key, str(table.time), *features_of(model).names])[0]
    if share < 1:
        rows = rows.filter(pa.array(places(rows[table.key].to_numpy(), model.training.seed) < share))
    found = tables.arrow(model.key(table.name), [day], [table.key, *entities])[0]
    at = places_of(rows[table.key], found[table.key], day)
    return rows, found.select(list(entities)).take(pa.array(at, mask=at < 0))


def _recent_weeks(tables: ParquetTables, frozen: pd.DataFrame, model: Model) -> list[str]:
    """ISO days of the latest whole weeks for the reference profile; empty if the latest week is incomplete."""
    if model.table.time is None:
        return []
    split = windows_in(frozen, model)
    last = split.test[1] + dt.timedelta(days=model.label_delay_days)
    chosen: list[str] = []
    rows = 0
    while rows < REFERENCE_ROWS:
        week = iso_days(days_ending(last - dt.timedelta(days=len(chosen)), 7))
        stamps = [tables.stamp(model.key("features"), day) for day in week]
        known = [stamp.rows for stamp in stamps if stamp]
        if len(known) < len(week) or (chosen and dt.date.fromisoformat(week[0]) <= split.fit[1]):
            break
        chosen, rows = week + chosen, rows + sum(known)
    return chosen
