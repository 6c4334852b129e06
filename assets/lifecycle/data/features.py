"""Third stage: point-in-time features by event day, computed by the declared feature function.

Belongs here: collecting the events that a feature function may use, and the check that it uses no others. Does not
belong here: any particular feature (the model folder), encodings for tables without feature functions
(``default_features.py``), a lookback that does not fit into memory (``lookback.py``).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Columns, Features, Model
from assets.forecast import Forecast
from assets.lifecycle.data.default_features import default_features
from assets.lifecycle.data.event_days import event_day
from assets.lifecycle.data.forecasting import forecast_features
from assets.lifecycle.data.lookback import Sharded, sharded
from assets.lifecycle.stage import Check, StageOutput, TableInput, daily_freshness, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import InBatches

POINT_IN_TIME = Check(
    name="point_in_time",
    description="No feature changes when later rows and labels that are not known yet are replaced.",
)
COMPLETE = Check(name="complete", description="Each clean row has its features, and none is infinite.")

ROWS_AT_ONCE = 1_000_000
"""Largest number of events whose features are computed together, about half a gigabyte; more are computed in shards."""

PROBED_ROWS = 200
"""Number of rows just before each cut whose features are computed a second time without the future."""


def features_of(model: Model) -> Features:
    """Returns the declared features, or the default encoding of the contract's columns."""
    if model.features is not None:
        return model.features
    return forecast_features(model, default_features(model)) if model.forecast else default_features(model)


def events_of(cleaned: pd.DataFrame, labels: pd.DataFrame | None, model: Model) -> dict[str, np.ndarray]:
    """Returns the columns that a feature function gets: the table's plus ``label`` (NaN where unknown), ``[n]`` each.

    Args:
        cleaned: rows of the cleaned table.
        labels: rows of ``labels`` (key and target); ``None`` or empty if no label is known yet.
        model: the model that the rows belong to.
    """
    events = {name: cleaned[name].to_numpy() for name in model.table.columns if name != model.target}
    if model.ranking is not None and events[model.ranking.user].dtype == object:
        # An event of nobody, e.g. of a new item, has no user; a missing text cannot be compared with others.
        users = cleaned[model.ranking.user]
        events[model.ranking.user] = users.astype(object).where(users.notna(), "").to_numpy()
    if labels is None or labels.empty:
        events["label"] = np.full(len(cleaned), np.nan)
    else:
        known = labels.set_index(model.table.key)[model.target].astype("float64")
        events["label"] = cleaned[model.table.key].map(known).to_numpy(dtype="float64")
    return events


def compute_features(features: Features, events: Columns, wanted: np.ndarray) -> np.ndarray:
    """Computes features as float32 ``[len(wanted), len(features.names)]`` in the declared order.

    Raises:
        dagster.Failure: the function returns undeclared features, misses declared ones, or returns wrong lengths.
    """
    return as_matrix(features.compute(events, wanted), features, len(wanted))


def as_matrix(made: dict[str, np.ndarray], features: Features, rows: int) -> np.ndarray:
    """Returns computed features as float32 ``[rows, len(features.names)]``; the same errors as above."""
    if set(made) != set(features.names):
        missing, extra = set(features.names) - set(made), set(made) - set(features.names)
        raise dg.Failure(
            description="the features function does not return the declared features: "
            f"missing {sorted(missing) or 'none'}, undeclared {sorted(extra) or 'none'}; make it agree with `names`"
        )
    for name, values in made.items():
        if len(values) != rows:
            raise dg.Failure(description=f"feature '{name}' has {len(values)} values for {rows} rows")
    return np.column_stack([np.asarray(made[name], dtype=np.float32) for name in features.names])


def sees_the_future(
    features: Features, events: Columns, time: str, label_age: dt.timedelta, cut: np.datetime64, seed: int = 0
) -> list[str]:
    """Returns the features that change for the rows just before ``cut`` when later data is replaced.

    Half of the later rows are removed. The others get values drawn from any row, column by column. Labels of rows
    younger than the delay are flipped or invented. Data that a feature may use stays unchanged.

    Args:
        features: features to test.
        events: columns of the events, ``[n]`` each.
        time: name of the event time column.
        label_age: how much older than a row a label must be to be known for it.
        cut: moment from which rows count as later.
        seed: seed of the replacement.
    """
    times = events[time]
    before = np.flatnonzero(times < cut)
    probed = before[np.argsort(times[before], kind="stable")[-PROBED_ROWS:]]
    if len(probed) == 0:
        return []
    is_later = times >= cut
    if features.entities:
        # Keep the past of the probed entities only, but all later rows, because that is where a leak would read from.
        near = is_later.copy()
        for entity in features.entities:
            near |= np.isin(events[entity], events[entity][probed])
        probed = np.searchsorted(np.flatnonzero(near), probed)
        events = {name: values[near] for name, values in events.items()}
        times, is_later = times[near], is_later[near]
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(~is_later | (rng.random(len(times)) < 0.5))
    other = {name: values[kept] for name, values in events.items()}
    later = np.flatnonzero(is_later[kept])
    for name, values in events.items():
        if name not in (time, "label"):
            other[name][later] = rng.choice(values, len(later))
    unknown = other[time] > cut - np.timedelta64(label_age)
    other["label"][unknown] = np.where(other["label"][unknown] == 1, 0.0, 1.0)
    was = compute_features(features, events, probed)
    now = compute_features(features, other, np.searchsorted(kept, probed))
    changed = ~np.isclose(was, now, rtol=0, atol=0, equal_nan=True).all(axis=0)
    return [name for name, different in zip(features.names, changed, strict=True) if different]


@dataclass(frozen=True)
class Computed:
    """The features of some days.

    Args:
        carried: key and time of the rows.
        values: their features, float32 ``[n, n_features]``.
        seeing: by month of the days (its last day), the moment of the probe and the features that see the future.
    """

    carried: pd.DataFrame
    values: np.ndarray
    seeing: Mapping[str, tuple[np.datetime64, list[str]]]


def features_of_days(model: Model, cleaned: InBatches, labels: InBatches | None, days: Sequence[str]) -> Computed:
    """Computes the features of ``days``, with the probes of the future.

    A lookback of more than :data:`ROWS_AT_ONCE` rows is computed in shards of entities, if the features have ``parts``.
    Otherwise it is held in memory as a whole.

    Args:
        model: the model.
        cleaned: the cleaned table, lookback included.
        labels: labels that may be known; ``None`` if they do not land later.
        days: ISO days; ``[WHOLE]`` for a table without days.

    Raises:
        dagster.Failure: the features disagree with their declaration, or the shards have no space.
    """
    features, time = features_of(model), model.table.time
    rows = sum(cleaned.rows(day) for day in cleaned.days)
    if time is not None and features.parts and rows > ROWS_AT_ONCE:
        with sharded(features, model, cleaned, labels, days, shards=-(-rows // ROWS_AT_ONCE)) as events:
            values = as_matrix(events.computed(), features, len(events.carried))
            seeing = {
                month[-1]: (cut, _probe_of_shards(events, values, model, cut)) for month, cut in _probes(model, days)
            }
            return Computed(events.carried, values, seeing)
    frame = cleaned.read(model.table.columns)
    known = labels.read((model.table.key, model.target)) if labels is not None else None
    events_ = events_of(frame, known, model)
    wanted = np.arange(len(frame)) if time is None else np.flatnonzero(event_day(frame, model.table).isin(days))
    carried = frame.iloc[wanted][[c for c in (model.table.key, time) if c]].reset_index(drop=True)
    values = compute_features(features, events_, wanted)
    seeing = {
        month[-1]: (cut, sees_the_future(features, events_, time or "", model.label_age, cut))
        for month, cut in _probes(model, days)
    }
    return Computed(carried, values, seeing)


def _probe_of_shards(events: Sharded, values: np.ndarray, model: Model, cut: np.datetime64) -> list[str]:
    """The features that see the future, of the wanted rows just before ``cut``; their parts must agree with `compute`.

    Raises:
        dagster.Failure: ``parts`` and ``join`` give other values than ``compute``.
    """
    features, time = events.features, str(model.table.time)
    before = np.flatnonzero(events.own[time] < cut)
    probed = np.sort(before[np.argsort(events.own[time][before], kind="stable")[-PROBED_ROWS:]])
    if not len(probed):
        return []
    near, at = events.near(probed, cut, time)
    whole = compute_features(features, near, at)
    other = ~np.isclose(whole, values[probed], rtol=0, atol=0, equal_nan=True).all(axis=0)
    if other.any():
        names = ", ".join(name for name, differs in zip(features.names, other, strict=True) if differs)
        raise dg.Failure(
            description=f"{model.name}: `parts` and `join` of the features give other values than `compute` for "
            f"{names}; make them agree, and let each part use only the rows of its own entity",
            allow_retries=False,
        )
    return sees_the_future(features, near, time, model.label_age, cut)


def features_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``features``."""
    table, features = model.table, features_of(model)
    look = features.lookback_days

    def make_features(
        context: dg.AssetExecutionContext, cleaned: InBatches, labels: InBatches | None = None
    ) -> StageOutput:
        days = days_in_run(context)
        computed = features_of_days(model, cleaned, labels, days)
        values = computed.values
        frame = pd.concat([computed.carried, pd.DataFrame(values, columns=list(features.names))], axis=1)
        is_infinite = np.isinf(values)
        infinite = is_infinite.any(axis=1)
        where = [name for name, any_ in zip(features.names, is_infinite.any(axis=0), strict=True) if any_]
        missing = {n: float(s) for n, s in zip(features.names, np.isnan(values).mean(axis=0), strict=True) if s}
        if table.time is None:
            check_results = [_complete(infinite, None, missing, where)]
            by_day = {}
        else:
            on = event_day(computed.carried, table).to_numpy()
            check_results = [_complete(infinite[on == d], d, missing, where) for d in days]
            check_results += _point_in_time(computed, days)
            by_day = {d: {"dagster/partition_row_count": int((on == d).sum())} for d in days}
        metadata = {"dagster/row_count": len(frame), "features": len(features.names), "missing": missing}
        return StageOutput(frame, check_results, metadata, by_day)

    inputs = {"cleaned": TableInput(model.key(table.name), (-look, 0), in_batches=True)}
    checks = [COMPLETE]
    if model.is_stream:
        checks.append(POINT_IN_TIME)
        if model.reads_labels:
            window = (-look, -model.label_age.days)
            inputs["labels"] = TableInput(model.key("labels"), window, optional=True, in_batches=True)
    return table_asset(
        model,
        "features",
        make_features,
        description=f"{len(features.names)} features of each clean row, from what was known when it happened; they "
        f"look back {look} days.",
        stage="data",
        kinds={"numpy"},
        inputs=inputs,
        checks=checks,
        day_column=table.time,
        code=[features.compute],
        declared=_digest(model.forecast),
        automation=eager(
            look + table.late_days + 1 if model.is_stream else None,
            may_lack=model.key("labels") if "labels" in inputs else None,
        ),
        freshness=daily_freshness(model),
    )


def _digest(forecast: Forecast | None) -> str:
    """What of a forecast's declaration decides the features; empty for other models."""
    if forecast is None:
        return ""
    said = f"{forecast.series} {forecast.horizon_hours} {sorted(forecast.known)}"
    return hashlib.blake2b(said.encode(), digest_size=4).hexdigest()


def _complete(infinite: np.ndarray, day: str | None, missing: dict[str, float], where: Sequence[str]) -> CheckResult:
    return CheckResult(
        check=COMPLETE.name,
        day=day,
        passed=not infinite.any(),
        description=f"{len(infinite):,} rows, all finite"
        if not infinite.any()
        else f"{int(infinite.sum())} of {len(infinite):,} rows have an infinite feature ({', '.join(where[:5])}): a "
        "division by zero in the features function, or a number beyond 3.4e38, the limit of 32 bits",
        metadata={"rows": len(infinite), "missing": missing},
    )


def _probes(model: Model, days: Sequence[str]) -> Iterator[tuple[Sequence[str], np.datetime64]]:
    """The months of a run of a stream, each with a random second of its last day, which is probed."""
    for month in [days[i : i + 31] for i in range(0, len(days), 31)] if model.is_stream else []:
        second = np.random.default_rng(int(month[-1].replace("-", ""))).integers(43_200, 86_400)
        yield month, np.datetime64(month[-1]) + np.timedelta64(int(second), "s")


def _point_in_time(computed: Computed, days: Sequence[str]) -> list[CheckResult]:
    """Every day gets the result of its month's probe."""
    check_results: list[CheckResult] = []
    for month in [days[i : i + 31] for i in range(0, len(days), 31)]:
        cut, seeing = computed.seeing[month[-1]]
        message = (
            f"the features of the {PROBED_ROWS} rows before {cut} do not depend on later data"
            if not seeing
            else f"{', '.join(seeing)} changed when rows after {cut} and labels not yet known were replaced; the "
            "features function uses data from the future"
        )
        check_results += [
            CheckResult(
                check=POINT_IN_TIME.name, day=day, passed=not seeing, description=message, metadata={"probed": str(cut)}
            )
            for day in month
        ]
    return check_results
