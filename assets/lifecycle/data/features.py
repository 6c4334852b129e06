"""Third stage: point-in-time features by event day, computed by the declared feature function.

Belongs here: collecting the events that a feature function may use, and the check that it uses no others. Does not
belong here: any particular feature (the model folder), encodings for tables without feature functions
(``default_features.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Columns, Features, Model
from assets.lifecycle.data.default_features import default_features
from assets.lifecycle.data.event_days import event_day
from assets.lifecycle.stage import Check, StageOutput, TableInput, daily_freshness, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult

POINT_IN_TIME = Check(
    name="point_in_time",
    description="No feature changes when later rows and labels that are not known yet are replaced.",
)
COMPLETE = Check(name="complete", description="Each clean row has its features, and none is infinite.")

PROBED_ROWS = 200
"""Number of rows just before each cut whose features are computed a second time without the future."""


def features_of(model: Model) -> Features:
    """Returns the declared features, or the default encoding of the contract's columns."""
    return model.features or default_features(model)


def events_of(cleaned: pd.DataFrame, labels: pd.DataFrame | None, model: Model) -> dict[str, np.ndarray]:
    """Returns the columns that a feature function gets: the table's plus ``label`` (NaN where unknown), ``[n]`` each.

    Args:
        cleaned: rows of the cleaned table.
        labels: rows of ``labels`` (key and target); ``None`` or empty if no label is known yet.
        model: the model that the rows belong to.
    """
    events = {name: cleaned[name].to_numpy() for name in model.table.columns if name != model.target}
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
    made = features.compute(events, wanted)
    if set(made) != set(features.names):
        missing, extra = set(features.names) - set(made), set(made) - set(features.names)
        raise dg.Failure(
            description="the features function does not return the declared features: "
            f"missing {sorted(missing) or 'none'}, undeclared {sorted(extra) or 'none'}; make it agree with `names`"
        )
    for name, values in made.items():
        if len(values) != len(wanted):
            raise dg.Failure(description=f"feature '{name}' has {len(values)} values for {len(wanted)} rows")
    return np.column_stack([np.asarray(made[name], dtype=np.float32) for name in features.names])


def sees_the_future(
    features: Features, events: Columns, time: str, label_delay_days: int, cut: np.datetime64, seed: int = 0
) -> list[str]:
    """Returns the features that change for the rows just before ``cut`` when later data is replaced.

    Half of the later rows are removed. The others get values drawn from any row, column by column. Labels of rows
    younger than the delay are flipped or invented. Data that a feature may use stays unchanged.

    Args:
        features: features to test.
        events: columns of the events, ``[n]`` each.
        time: name of the event time column.
        label_delay_days: days until a label is known.
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
    unknown = other[time] > cut - np.timedelta64(label_delay_days, "D")
    other["label"][unknown] = np.where(other["label"][unknown] == 1, 0.0, 1.0)
    was = compute_features(features, events, probed)
    now = compute_features(features, other, np.searchsorted(kept, probed))
    changed = ~np.isclose(was, now, rtol=0, atol=0, equal_nan=True).all(axis=0)
    return [name for name, different in zip(features.names, changed, strict=True) if different]


def features_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``features``."""
    table, features = model.table, features_of(model)
    look = features.lookback_days

    def make_features(
        context: dg.AssetExecutionContext, cleaned: pd.DataFrame, labels: pd.DataFrame | None = None
    ) -> StageOutput:
        days = days_in_run(context)
        events = events_of(cleaned, labels, model)
        if table.time is None:
            wanted = np.arange(len(cleaned))
        else:
            day = event_day(cleaned, table)
            wanted = np.flatnonzero(day.isin(days))
        carried = [c for c in (table.key, table.time) if c]
        values = compute_features(features, events, wanted)
        frame = pd.concat(
            [
                cleaned.iloc[wanted][carried].reset_index(drop=True),
                pd.DataFrame(values, columns=list(features.names)),
            ],
            axis=1,
        )
        is_infinite = np.isinf(values)
        infinite = is_infinite.any(axis=1)
        where = [name for name, any_ in zip(features.names, is_infinite.any(axis=0), strict=True) if any_]
        missing = {n: float(s) for n, s in zip(features.names, np.isnan(values).mean(axis=0), strict=True) if s}
        if table.time is None:
            check_results = [_complete(infinite, None, missing, where)]
        else:
            on = day.iloc[wanted].to_numpy()
            check_results = [_complete(infinite[on == d], d, missing, where) for d in days]
            check_results += _point_in_time(features, events, model, days)
        by_day = {} if table.time is None else {d: {"dagster/partition_row_count": int((on == d).sum())} for d in days}
        metadata = {"dagster/row_count": len(frame), "features": len(features.names), "missing": missing}
        return StageOutput(frame, check_results, metadata, by_day)

    # Row ids are left out: over sixty days they are half of the data to read.
    inputs = {"cleaned": TableInput(model.key(table.name), (-look, 0), columns=table.columns)}
    checks = [COMPLETE]
    if model.is_stream:
        checks.append(POINT_IN_TIME)
        if model.label_delay_days:
            known = (table.key, model.target)
            inputs["labels"] = TableInput(
                model.key("labels"), (-look, -model.label_delay_days), optional=True, columns=known
            )
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
        automation=eager(
            look + table.late_days + 1 if model.is_stream else None,
            may_lack=model.key("labels") if "labels" in inputs else None,
        ),
        freshness=daily_freshness(model),
    )


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


def _point_in_time(features: Features, events: Columns, model: Model, days: list[str]) -> list[CheckResult]:
    """Probes each month of the run once, at a random second of its last day; every day gets its month's result."""
    assert model.table.time is not None
    check_results: list[CheckResult] = []
    for month in [days[i : i + 31] for i in range(0, len(days), 31)]:
        probed = month[-1]
        second = np.random.default_rng(int(probed.replace("-", ""))).integers(43_200, 86_400)
        cut = np.datetime64(probed) + np.timedelta64(int(second), "s")
        seeing = sees_the_future(features, events, model.table.time, model.label_delay_days, cut)
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
