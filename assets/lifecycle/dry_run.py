"""Runs a model's data stages on some rows in memory, for the tests of a model folder and for the scaffold.

Belongs here: source → typed rows → features, without Dagster and without writing anything. Does not belong here: the
stages themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.event_days import iso_day
from assets.lifecycle.data.features import compute_features, events_of, features_of
from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.protection import Protection
from assets.lifecycle.data.row_outcomes import REASON, by_contract, first_landed, type_and_refuse
from assets.lifecycle.model.training_set import feature_column
from assets.personal import is_protected
from resources.keys import Key
from resources.sources import Snapshot, SourceError, Stream
from resources.tables import WHOLE


@dataclass(frozen=True)
class DryRun:
    """Result of running the data stages on some rows.

    Args:
        model: the model that the rows belong to.
        landed: number of landed rows.
        accepted: typed rows that meet the contract, one per key.
        reasons: number of refused rows by reason.
    """

    model: Model
    landed: int
    accepted: pd.DataFrame
    reasons: dict[str, int]

    @property
    def refused_share(self) -> float:
        """Share of the landed rows that the contract refuses."""
        return sum(self.reasons.values()) / max(self.landed, 1)

    def features(self) -> np.ndarray:
        """Returns the features of the accepted rows, float32 ``[n, n_features]``."""
        labels = None
        if self.model.forecast:
            key, target = self.model.table.key, self.model.target
            labels = self.accepted[[key]].assign(**{target: self.model.task.codes(self.accepted[target])}).dropna()
        events = events_of(self.accepted, labels, self.model)
        return compute_features(features_of(self.model), events, np.arange(len(self.accepted)))

    def frozen(self) -> pd.DataFrame:
        """Returns the labelled rows in training-set form: the columns, the target's codes, and the features."""
        names = [feature_column(name) for name in features_of(self.model).names]
        values = pd.DataFrame(self.features(), columns=names, index=self.accepted.index)
        truth = self.model.task.codes(self.accepted[self.model.target])
        rows = self.accepted.drop(columns=self.model.target).assign(**{self.model.target: truth})
        return pd.concat([rows, values], axis=1)[truth.notna().to_numpy()].reset_index(drop=True)


_KEY = Key("dry run", hashlib.sha256(b"assetline dry run").digest())
"""The key of pseudonyms in a dry run. Nothing is stored, so it need not be secret."""


def dry_run(model: Model, raw: pd.DataFrame | None = None, *, spoil: Mapping[str, str] | None = None) -> DryRun:
    """Cleans rows as the lifecycle does.

    Args:
        model: the model that the rows belong to.
        raw: text rows; default: all rows of a snapshot, or a stream's latest day.
        spoil: text to write into every row, by column name as it lands.

    Raises:
        SourceError: the source cannot be read, or another model lands the rows.
        ContractError: a column that the contract requires is absent.
    """
    source = model.table.source
    day = WHOLE
    if raw is None and model.table.of:
        raise SourceError(f"the model '{model.table.of}' lands the rows of {model.table.name}; give some of them")
    if raw is None:
        if isinstance(source, Stream):
            day = source.landed_until().isoformat()
            raw = source.land(source.landed_until())
        else:
            assert isinstance(source, Snapshot)
            raw = source.read()
    rows = raw.assign(
        **{column: pd.array([text] * len(raw), "string[pyarrow]") for column, text in (spoil or {}).items()}
    )
    if is_protected(model):
        rows = Protection(model, (_KEY,)).frame(rows)
    landed = number_rows({day: rows}) if day != WHOLE or model.table.time is None else _on_its_day(model, rows)
    accepted, refused = type_and_refuse(landed, model.table)
    reasons = {str(reason): int(n) for reason, n in refused[REASON].value_counts().items()}
    accepted = accepted[first_landed(accepted, model.table)].reset_index(drop=True)
    return DryRun(model, len(landed), accepted, reasons)


def _on_its_day(model: Model, raw: pd.DataFrame) -> pd.DataFrame:
    """Numbers rows as if each landed on the day of its event time; drops rows without an event time."""
    assert model.table.time is not None
    days = iso_day((model.table.clean or by_contract(model.table))(raw)[model.table.time])
    return number_rows({str(day): part for day, part in raw.groupby(days)})
