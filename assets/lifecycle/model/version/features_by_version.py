"""Computes features with the code that a model version was trained with, so that a rollback restores that code, too.

Belongs here: the choice between the ``features`` table and the version's own code. Does not belong here: loading a
version (``champion.py``, ``bundle.py``).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features, events_of, features_of
from assets.lifecycle.model.version.bundle import Bundle
from resources.tables import WHOLE, ParquetTables, days_of_window


def features_by(
    bundle: Bundle, tables: ParquetTables, model: Model, rows: pd.DataFrame, today: np.ndarray
) -> np.ndarray:
    """Computes the features of ``rows`` with the bundle's code.

    Args:
        bundle: bundle of the scoring version.
        tables: the :class:`~resources.tables.ParquetTables`.
        model: today's declaration.
        rows: ``[n]`` rows with the table's key (and time).
        today: their features by today's code, ``[n, n_features]``; returned unchanged if the bundle's code is the same.

    Returns:
        float32 ``[n, n_features]``.
    """
    if rows.empty or not bundle.code_difference():
        return today
    return features_of_version(bundle, tables, model, rows)


def features_of_version(bundle: Bundle, tables: ParquetTables, model: Model, rows: pd.DataFrame) -> np.ndarray:
    """Computes the features of ``rows`` with the bundle's code from the cleaned table and the labels.

    Args:
        bundle: bundle of the scoring version.
        tables: the :class:`~resources.tables.ParquetTables`.
        model: the declaration that made the rows.
        rows: ``[n]`` rows with the table's key (and time), at least one.

    Returns:
        float32 ``[n, n_features]``.
    """
    own, key, time = bundle.model, model.table.key, model.table.time
    if time is None:
        days = [WHOLE]
    else:
        first, last = rows[time].min(), rows[time].max()
        span = (last.floor("D") - first.floor("D")).days
        window = days_of_window(str(first.date()), (-features_of(own).lookback_days, span))
        days = [d for d in window if tables.stamp(model.key(model.table.name), d)]
    known = [d for d in days if tables.stamp(model.key("labels"), d)]
    cleaned = tables.read(model.key(model.table.name), days)
    events = events_of(cleaned, tables.read(model.key("labels"), known) if known else None, own)
    position = pd.Series(np.arange(len(cleaned)), index=cleaned[key].to_numpy())
    return compute_features(features_of(own), events, position[rows[key].to_numpy()].to_numpy())
