"""The requests of a day in the form in which the drift check reads tables: features, and predictions.

Belongs here: choosing the rows, and their features. Does not belong here: the verdict (``drift.py``), the table of
requests (``requests.py``).

Features are computed as the service computes them: from the cleaned table and labels of the lookback window, and from
the rows that were answered and have not landed. Labels and late rows that came since are used, too, so a feature may
differ from the one that was scored. The score is the one that was answered.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features, events_of, features_of
from assets.lifecycle.data.raw_rows import RawRows
from assets.lifecycle.monitoring.requests import ROW
from resources.tables import InBatches, ParquetTables, days_of_window


@dataclass(frozen=True)
class RowsOfDay:
    """The rows of one day in memory; it has the methods of :class:`~resources.tables.InBatches`."""

    day: str
    frame: pd.DataFrame

    def batches(self, day: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The rows as one batch; nothing for another day or without rows."""
        if day == self.day and len(self.frame):
            yield self.frame if columns is None else self.frame[list(columns)]

    def rows(self, day: str) -> int:
        """Number of rows."""
        return len(self.frame) if day == self.day else 0


def answers_of(requests: InBatches, model: Model, day: str) -> RowsOfDay:
    """The scored rows of a day that the version in production answered, each key once, as it was answered last.

    They have the columns of the table ``requests``. Rows that the contract no longer accepts are left out.
    """
    return RowsOfDay(day, _answers(requests.tables, model, day) if day in requests.days else pd.DataFrame())


def features_of_answers(answers: RowsOfDay, tables: ParquetTables, model: Model, own: Model) -> RowsOfDay:
    """The features of a day's answers, in the same order.

    Args:
        answers: of :func:`answers_of`, at least one row.
        tables: the tables.
        model: today's declaration.
        own: declaration of the version that answered; its function computes the features.
    """
    rows, key, time = _sent(answers.frame, model), model.table.key, str(model.table.time)
    first, last = rows[time].min(), rows[time].max()
    span = (last.floor("D") - first.floor("D")).days
    window = days_of_window(str(first.date()), (-features_of(own).lookback_days, span))
    days = [d for d in window if tables.stamp(model.key(model.table.name), d)]
    known = [d for d in days if tables.stamp(model.key("labels"), d)] if model.reads_labels else []
    past = [tables.read(model.key(model.table.name), days, [*rows])] if days else []
    earlier = days_of_window(answers.day, (-model.table.late_days - 1, -1))
    past += [_sent(_answers(tables, model, d), model) for d in earlier if tables.stamp(model.key("requests"), d)]
    unlike = [part[~part[key].isin(rows[key])] for part in past]
    # What has landed comes first, so that it is kept where a row was answered, too.
    before = pd.concat(unlike, ignore_index=True).drop_duplicates(key) if unlike else rows.iloc[:0]
    events = pd.concat([part for part in (before, rows) if len(part)], ignore_index=True)
    labels = tables.read(model.key("labels"), known, [key, model.target]) if known else None
    wanted = np.arange(len(events) - len(rows), len(events))
    values = compute_features(features_of(own), events_of(events, labels, own), wanted)
    return RowsOfDay(answers.day, pd.DataFrame(values, columns=list(features_of(own).names)))


def _answers(tables: ParquetTables, model: Model, day: str) -> pd.DataFrame:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    # Not tables.read(): beside refused rows, whole numbers would become decimals.
    table = pq.read_table(io.BytesIO(tables.read_bytes(model.key("requests"), day)))
    # Rows that a version under rollout answered are there as a shadow of the version in production.
    live = pc.and_(pc.equal(table["outcome"], "ok"), pc.not_equal(table["role"], "canary"))
    rows = table.filter(pc.and_(live, pc.is_valid(table[ROW + model.table.key]))).to_pandas()
    answered = rows["role"] == "champion"
    shadows = rows[~answered & ~rows[ROW + model.table.key].isin(rows.loc[answered, ROW + model.table.key])]
    rows = pd.concat([rows[answered], shadows]).sort_index()
    return rows.drop_duplicates(ROW + model.table.key, keep="last", ignore_index=True)


def _sent(answers: pd.DataFrame, model: Model) -> pd.DataFrame:
    columns = RawRows(model).columns
    return answers[[ROW + name for name in columns]].set_axis(list(columns), axis=1)
