"""The rows of a version's reference profile.

Belongs here: the choice of rows. Does not belong here: the profile itself (``profile``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.cleaning import event_day
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.training_set import feature_column, test_rows, windows_in
from assets.lifecycle.model.windows import (
    days_ending,
    iso_days,
)
from resources.tables import ParquetTables

REFERENCE_ROWS = 20_000
"""Target number of rows for the reference profile, which uses whole weeks so that all weekdays have equal shares."""


@dataclass(frozen=True)
class ReferenceRows:
    """The rows of the reference profile: the data at the time the version is trained.

    Args:
        features: ``[n]`` rows of the declared features.
        entities: by column, the entity of each row, ``[n]``.
        day: day of each row, ``[n]``; ``None`` if the rows are not whole weeks.
        rows_of_weekday: mean rows per day by weekday, Monday first; empty if the rows are not whole weeks.
    """

    features: pd.DataFrame
    entities: dict[str, np.ndarray]
    day: np.ndarray | None = None
    rows_of_weekday: Sequence[float] = ()


def entities_of(model: Model) -> list[str]:
    """Returns the entity columns: those of the features' history, and the one that the evaluation resamples by."""
    return list(dict.fromkeys([*features_of(model).entities, *filter(None, [model.evaluation.entity])]))


def reference_rows(tables: ParquetTables, frozen: pd.DataFrame, model: Model) -> ReferenceRows:
    """Returns the rows of the reference profile; they need no labels.

    With a time column these are the latest whole weeks after the days of the final fit, until they hold
    :data:`REFERENCE_ROWS` rows. If days of the latest week are missing, these are the test rows.

    Without a time column these are all rows, because the next landing contains mostly the same rows, and a model is
    more confident on rows that it was fitted on. A reference of the test rows alone reported drift on its own table.
    """
    names, table = list(features_of(model).names), model.table
    entities = entities_of(model)
    if days := _recent_weeks(tables, frozen, model):
        assert table.time is not None
        rows = tables.read(model.key("features"), days, [table.key, table.time, *names])
        entity_rows = tables.read(model.key(table.name), days, [table.key, *entities])
        entity_rows = rows[[table.key]].merge(entity_rows, how="left", on=table.key, validate="one_to_one")
        by_weekday: dict[int, list[float]] = {}
        for day in days:
            found = float(tables.existing_stamp(model.key("features"), day).rows)
            by_weekday.setdefault(dt.date.fromisoformat(day).weekday(), []).append(found)
        return ReferenceRows(
            rows[names],
            {name: entity_rows[name].to_numpy() for name in entities},
            event_day(rows, table).to_numpy(),
            [float(np.mean(by_weekday[n])) for n in range(7)],
        )
    unseen = frozen if table.time is None else frozen[test_rows(frozen, model)]
    features = unseen[[feature_column(name) for name in names]].set_axis(names, axis=1)
    return ReferenceRows(features, {name: unseen[name].to_numpy() for name in entities})


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
