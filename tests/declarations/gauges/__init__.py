"""Gauges that are read: a stream that is really trained, in seconds, with labels that land a day later."""

import datetime as dt
from dataclasses import replace

import pandas as pd

from assets.declaration import Gate, Training
from tests.declarations.readings import Feed, LateReadings, stream


class GaugeReadings(LateReadings):
    """One reading of a gauge."""


class NextDay(Feed):
    """The feed, with labels that land a day later."""

    rows: int = 60

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return super().land_labels(day + dt.timedelta(days=6))


model = stream(
    name="gauge",
    training=Training(window_days=6, test_days=3, folds=1, max_epochs=2, members=1, min_rows=40, ensemble=()),
    gate=Gate(metric="roc_auc", floor=0.05, margin=-0.9, baseline_margin=-0.9, calibration_error=None),
    label_delay_days=1,
)
model = replace(model, table=replace(model.table, source=NextDay(), contract=GaugeReadings))
