"""The simulated world at many times the published size, as tables: regions of the published size beside each other.

A region is a world of its own: 5,000 customers, 10,000 terminals, about 9,600 payments a day. Ten regions have ten
seeds. More than ten are copies of those under other ids, because drawing and computing a hundred would take an hour.
Customers and terminals of two regions never meet, so a payment's features are those that it has in its region alone.

Belongs here: landed rows, clean rows, labels and features of days, at any number of regions. Does not belong here: what
is measured on them (``memory.py``).
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features, features_of
from assets.models.fraud.simulator import PaymentSimulator
from resources.tables import ParquetTables

SEEDS = 10
"""Regions with draws of their own."""
_IDS = ("transaction_id", "customer_id", "terminal_id")
_PLACES = 2
"""Digits that a copy's number adds to the ids of its region."""


def regions_of(number: int) -> list[tuple[PaymentSimulator, range]]:
    """The sources, and the copies that are made of each.

    Args:
        number: 1, or 10 or 100 regions; beyond ten a multiple of ten.
    """
    seeds = min(number, SEEDS)
    each = number // seeds
    return [(PaymentSimulator(seed=seed), range(seed * each, (seed + 1) * each)) for seed in range(seeds)]


def landed(day: dt.date, number: int) -> pd.DataFrame:
    """The rows that land on a day, as text, in order of arrival."""
    parts = []
    for source, copies in regions_of(number):
        table = pa.Table.from_pandas(source.land(day), preserve_index=False)
        for copy in copies:
            changed = table
            for name in _IDS:
                text = table[name]
                ending, between = pa.scalar(f"{copy:0{_PLACES}d}", text.type), pa.scalar("", text.type)
                renamed = pc.binary_join_element_wise(text, ending, between)
                values = pc.if_else(pc.equal(text, between), text, renamed)  # a missing id stays missing
                changed = changed.set_column(changed.schema.get_field_index(name), name, values)
            parts.append(changed)
    whole = pa.concat_tables(parts)
    order = np.argsort(whole["arrived_at"].cast(pa.timestamp("s")).to_numpy(), kind="stable")
    text = pd.StringDtype("pyarrow")
    return whole.take(pa.array(order)).to_pandas(types_mapper={pa.string(): text, pa.large_string(): text}.get)


def write_days(
    tables: ParquetTables, model: Model, days: Sequence[dt.date], number: int, *, with_features: bool, known: int
) -> None:
    """Writes clean rows, labels and features of ``days`` as the stages would.

    Args:
        tables: where to write.
        model: the fraud model.
        days: consecutive days; features look back no further than the first of them.
        number: number of regions.
        with_features: whether features are written too.
        known: of how many of the days, from the first, labels are known.
    """
    sources = regions_of(number)
    for place, day in enumerate(days):
        frames, features = [], []
        for source, copies in sources:
            rows, values = _region(source, days[0], days[-1], with_features)[day]
            for copy in copies:
                frames.append(rows.assign(**{name: rows[name] * 10**_PLACES + copy for name in _IDS}))
                features.append(values)
        rows = pd.concat(frames, ignore_index=True)
        order = np.lexsort((rows["transaction_id"], rows["paid_at"]))
        rows = rows.iloc[order].reset_index(drop=True)
        clean = rows.drop(columns=["is_fraud", "scenario"]).assign(arrived_at=rows["paid_at"] + pd.Timedelta(seconds=3))
        tables.write(model.key(model.table.name), clean, str(day))
        if place < known:
            tables.write(model.key("labels"), rows[["transaction_id", "paid_at", "is_fraud", "scenario"]], str(day))
        if with_features:
            made = pd.DataFrame(np.concatenate(features)[order], columns=list(features_of(model).names))
            tables.write(
                model.key("features"), pd.concat([rows[["transaction_id", "paid_at"]], made], axis=1), str(day)
            )


@lru_cache(maxsize=SEEDS)
def _region(
    source: PaymentSimulator, first: dt.date, last: dt.date, with_features: bool
) -> dict[dt.date, tuple[pd.DataFrame, np.ndarray]]:
    """By day, a region's payments and their features."""
    from assets.models.fraud import model

    payments = source.payments(first, last)
    features = np.empty((len(payments), 0), np.float32)
    if with_features:
        events = {str(name): payments[name].to_numpy() for name in payments if name not in ("is_fraud", "scenario")}
        events["label"] = payments["is_fraud"].to_numpy(float)
        features = compute_features(features_of(model), events, np.arange(len(payments)))
    day = payments["paid_at"].dt.date.to_numpy()
    return dict(_parts(day, payments, features))


def _parts(
    day: np.ndarray, payments: pd.DataFrame, features: np.ndarray
) -> Iterator[tuple[dt.date, tuple[pd.DataFrame, np.ndarray]]]:
    starts = [*np.flatnonzero(np.concatenate([[True], day[1:] != day[:-1]])), len(day)]
    for begin, end in itertools.pairwise(starts):
        yield day[begin], (payments.iloc[begin:end], features[begin:end])
