"""Compares what two versions answered to the same requests.

Belongs here: pairing the records of the request log, the figures of a comparison with their intervals. Does not belong
here: what follows from them (``rollout.py``), the request log (``resources/request_log.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from assets.declaration import Model, Rollout
from assets.lifecycle.model.metrics.figures import Rows, figures_of
from assets.lifecycle.model.metrics.intervals import bootstrap
from assets.metrics import lower_is_better

BEYOND, WITHIN = 3.0, 1.645
"""Standard errors of the one-sided bounds: a figure is beyond its limit if its bound at 3 is (.13 %), and within it if
its bound at 1.645 is (5 %). The first is wider because a step is judged again and again, and once is enough to end it.
"""
FEWEST = 30
"""Fewest compared rows (or requests, for the latency) for a standard error."""
LATEST = 5_000
"""The latency is compared on the latest requests, at most so many."""
QUANTILE = 0.95
"""Quantile of the latency that is compared."""
RESAMPLES = 200

State = Literal["within", "beyond", "unsure"]


@dataclass(frozen=True)
class Figure:
    """One figure of a comparison.

    Attributes:
        name: ``errors``, ``latency``, ``score_shift`` or ``labels``.
        value: None if there are too few rows.
        low, high: 95 % one-sided bounds of the value; None without a value.
        limit: the worst value that is within the limit.
        state: whether the rows show that the figure is within its limit or beyond it.
        message: the figure in one sentence.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    limit: float
    state: State
    message: str


@dataclass(frozen=True)
class Pairs:
    """Rows that both versions scored, ``[n]`` each, oldest first.

    Attributes:
        request: id of the request.
        key: key of the row, as text.
        entity: entity of the row, as text.
        champion, challenger: scores, ``[n]`` or ``[n, classes]``; NaN where a version could not score the row.
        champion_ms, challenger_ms: milliseconds of processor time that each version took for the request.
        failed: whether the challenger could not score the row.
        answered: whether the challenger answered the row.
    """

    request: np.ndarray
    key: np.ndarray
    entity: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray
    champion_ms: np.ndarray
    challenger_ms: np.ndarray
    failed: np.ndarray
    answered: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def of(cls, log: pd.DataFrame, challenger: str) -> Pairs:
        """Pairs the records of a request log.

        Args:
            log: records with ``request_id``, ``at``, ``version``, ``role``, ``key``, ``entity``, ``score``,
                ``latency_ms`` and ``outcome``.
            challenger: version that is compared with the other one.
        """
        log = log.sort_values("at", kind="stable")
        row = [log["request_id"].astype(str), log["key"].astype(str)]
        log = log.set_index(pd.MultiIndex.from_arrays(row))
        mine = log["version"].astype(str) == challenger
        new, old = (part[~part.index.duplicated(keep="last")] for part in (log[mine], log[~mine]))
        both = new.index.intersection(old.index, sort=False)
        new, old = new.loc[both], old.loc[both]
        failed = (new["outcome"] != "ok").to_numpy(dtype=bool)
        return cls(
            request=both.get_level_values(0).to_numpy(dtype=object),
            key=both.get_level_values(1).to_numpy(dtype=object),
            entity=new["entity"].astype(str).to_numpy(dtype=object),
            champion=_scores(old),
            challenger=_scores(new),
            champion_ms=old["latency_ms"].to_numpy(dtype=float),
            challenger_ms=new["latency_ms"].to_numpy(dtype=float),
            failed=failed,
            answered=((new["role"] == "canary").to_numpy(dtype=bool) & ~failed),
        )


def _scores(records: pd.DataFrame) -> np.ndarray:
    """The scores, ``[n]`` or ``[n, classes]``; NaN for a row that was not scored."""
    ok = (records["outcome"] == "ok").to_numpy(dtype=bool)
    values = [np.asarray(one, float) if good else None for one, good in zip(records["score"], ok, strict=True)]
    shape = next((one.shape for one in values if one is not None), ())
    return np.array([np.full(shape, np.nan) if one is None else one for one in values], float).reshape(-1, *shape)


def _by_class(scores: np.ndarray) -> np.ndarray:
    """Scores as ``[n, classes]``, with one class for scores ``[n]``."""
    return scores if scores.ndim == 2 else scores[:, None]


def compare(model: Model, rollout: Rollout, pairs: Pairs, labelled: Pairs, labels: pd.Series) -> list[Figure]:
    """Compares the challenger with the champion.

    Args:
        model: the declaration; its gate's metric is compared on labelled rows.
        rollout: the limits.
        pairs: the rows of the current step.
        labelled: the rows of the whole rollout, for the metric.
        labels: by key (as text), the class code or measured value of rows whose label is known.
    """
    return [
        errors(pairs, rollout.errors),
        latency(pairs, rollout.latency),
        score_shift(pairs, rollout.score_shift),
        metric_gain(model, labelled, labels, margin=rollout.margin, least_rows=rollout.labelled_rows),
    ]


def errors(pairs: Pairs, limit: float) -> Figure:
    """The share of rows that the challenger could not score, with exact binomial bounds (Clopper and Pearson)."""
    n, failed = len(pairs), int(pairs.failed.sum())
    if n == 0:
        return Figure("errors", None, None, None, limit, "unsure", "no row was compared yet")
    value, low, high = failed / n, *_binomial(failed, n, 0.05)
    beyond = _binomial(failed, n, 0.00135)[0] > limit
    state: State = "beyond" if beyond else "within" if high <= limit else "unsure"
    message = f"it could not score {failed} of {n:,} rows ({value:.2%}, at most {high:.2%}); {limit:.2%} is allowed"
    return Figure("errors", value, low, high, limit, state, message)


def _binomial(hits: int, n: int, alpha: float) -> tuple[float, float]:
    """The lower and the upper one-sided bound of a share, each with error probability ``alpha``."""
    from scipy.stats import beta

    low = float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - alpha, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def latency(pairs: Pairs, limit: float) -> Figure:
    """The challenger's 95th percentile of the processor time for a request as a multiple of the champion's.

    A request counts once, however many rows it has. The bounds are those of bootstrap draws of the logarithm.
    """
    good = ~pairs.failed & np.isfinite(pairs.champion_ms) & np.isfinite(pairs.challenger_ms)
    _, first = np.unique(pairs.request[good].astype(str), return_index=True)
    first = np.sort(first)[-LATEST:]
    new, old = pairs.challenger_ms[good][first], pairs.champion_ms[good][first]
    if len(new) < FEWEST:
        message = f"the latency of {len(new)} requests cannot be compared; {FEWEST} are needed"
        return Figure("latency", None, None, None, limit, "unsure", message)

    def ratio(draw: np.ndarray) -> float:
        a, b = np.quantile(new[draw], QUANTILE), np.quantile(old[draw], QUANTILE)
        return float(np.log(max(a, 1e-6) / max(b, 1e-6)))

    rng = np.random.default_rng(0)
    value = ratio(np.arange(len(new)))
    error = float(np.std([ratio(rng.integers(0, len(new), len(new))) for _ in range(RESAMPLES)], ddof=1))
    p95 = f"{np.quantile(new, QUANTILE):.2f} ms against {np.quantile(old, QUANTILE):.2f} ms"
    return _bounded(
        "latency", value, error, math.log(limit),
        lambda v, low, high: f"95 % of {len(new):,} requests took at most {p95} of processor time, {v:.2f} times as "
        f"much ({low:.2f} to {high:.2f}); {limit:.2f} is allowed",
        unit=math.exp,
    )  # fmt: skip


def score_shift(pairs: Pairs, limit: float) -> Figure:
    """The difference of the mean scores on the same rows, in standard deviations of the champion's scores.

    Rows of one entity are not independent, so the standard error is that of the sums of entities. For classes, the
    class with the largest difference counts.
    """
    new, old = _by_class(pairs.challenger), _by_class(pairs.champion)
    good = np.isfinite(new).all(axis=1) & np.isfinite(old).all(axis=1)
    n = int(good.sum())
    if n < FEWEST:
        message = f"the scores of {n} rows cannot be compared; {FEWEST} are needed"
        return Figure("score_shift", None, None, None, limit, "unsure", message)
    difference, spread = new[good] - old[good], np.maximum(old[good].std(axis=0), 1e-9)
    code = np.unique(pairs.entity[good].astype(str), return_inverse=True)[1]
    shift = np.abs(difference.mean(axis=0)) / spread
    worst = int(shift.argmax())
    residual = difference[:, worst] - difference[:, worst].mean()
    error = math.sqrt(float((np.bincount(code, residual) ** 2).sum())) / n / spread[worst]
    return _bounded(
        "score_shift", float(shift[worst]), error, limit,
        lambda v, low, high: f"the mean score of {n:,} rows differs by {v:.3f} standard deviations "
        f"({max(low, 0):.3f} to {high:.3f}); {limit:.3f} is allowed",
    )  # fmt: skip


def metric_gain(model: Model, pairs: Pairs, labels: pd.Series, *, margin: float, least_rows: int) -> Figure:
    """The challenger's gain of the gate's metric on rows with labels; never "unsure" with too few of them.

    Labels often become known days after the requests, so a rollout does not wait for them.
    """
    metric = model.gate.metric
    new, old = _by_class(pairs.challenger), _by_class(pairs.champion)
    known = pd.Series(pairs.key).map(labels).to_numpy(dtype=float) if len(labels) else np.full(len(pairs), np.nan)
    good = np.isfinite(known) & np.isfinite(new).all(axis=1) & np.isfinite(old).all(axis=1)
    n = int(good.sum())
    short = Figure("labels", None, None, None, margin, "within", f"{n:,} rows have labels; {least_rows:,} are needed")
    if n < least_rows:
        return short
    code = np.unique(pairs.entity[good].astype(str), return_inverse=True)[1]
    rows = Rows(model.task, known[good], code, int(code.max()) + 1)
    figures = [figures_of(rows, one[good]) for one in (pairs.challenger, pairs.champion)]

    def statistic(weight: np.ndarray) -> np.ndarray:
        a, b = (one.compute(weight)[metric] for one in figures)
        return np.array([a - b])

    if metric not in figures[0].compute(np.ones(rows.clusters)):
        return short
    point, draws = bootstrap(statistic, rows.clusters, resamples=RESAMPLES)
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(point[0]) or len(draws) < RESAMPLES / 2:  # one class only
        return short
    sign = -1.0 if lower_is_better(metric) else 1.0
    loss = -sign * float(point[0])
    found = _bounded(
        "labels", loss, float(np.std(draws, ddof=1)), -margin,
        lambda v, low, high: f"{metric} on {n:,} rows with labels: gain {-v:+.4f} ({-high:+.4f} to {-low:+.4f}); "
        f"at least {margin:+.4f} is required",
    )  # fmt: skip
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return Figure("labels", -found.value, -found.high, -found.low, margin, found.state, found.message)


def _bounded(
    name: str,
    value: float,
    error: float,
    limit: float,
    message: Callable[[float, float, float], str],
    unit: Callable[[float], float] = float,
) -> Figure:
    """A figure with normal bounds; ``unit`` maps value, bounds and limit to the unit that is shown."""
    low, high = value - WITHIN * error, value + WITHIN * error
    state: State = "beyond" if value - BEYOND * error > limit else "within" if high <= limit else "unsure"
    shown = unit(value), unit(low), unit(high)
    return Figure(name, *shown, unit(limit), state, message(*shown))


def as_table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | value | bounds | limit | state |", "|---|---|---|---|---|"]
    for one in figures:
        value = "not yet" if one.value is None else f"{one.value:.4g}"
        bounds = "" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}"
        lines.append(f"| {one.name} | {value} | {bounds} | {one.limit:.4g} | {one.state} |")
    return "\n".join(lines)
