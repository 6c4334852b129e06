"""How good scores are: figures of a binary model on rows that report, each with its 95 % interval.

Everything that depends on the order of the scores is read off one :class:`Curve`, which takes row weights. A bootstrap
draw is then one gather and two cumulative sums, and a point and its interval come from the same lines of code.
(scikit-learn sorts anew at every call: AUC and AP of 70,000 weighted rows cost it 22 ms, here .7 ms; the tests hold
these figures against its own.)

Belongs here: pure numpy on labels and probabilities, and :func:`evaluate`, which ties it together. Does not belong
here: what fits a model (``fitting.py``, ``baselines.py``), what passes (``gate.py``), what is shown (``report.py``).
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from assets.declaration import Evaluation

ALERT_SHARES = {"0.5pct": 0.005, "1pct": 0.01}
"""Shares of the rows that are alerted, highest scores first, for precision and recall at a fixed effort."""
MIN_FOR_INTERVAL = 10
"""Fewer rows than this of either class and an interval would be a pretence: the figure is given without one."""
ROUNDING = 1e-9
"""What a probability may lie outside 0…1 by: sums of products do, in the last digit."""
UNBOUNDED = frozenset({"saved", "saved_share"})
"""Figures of money, which may be lost too; all others lie between 0 and 1."""


# --- Figures that follow from the order of the scores ---


class Curve(NamedTuple):
    """What is alerted and what is hit as the threshold falls, from nothing to everything.

    Attributes:
        alerts: weight of the rows at or above each distinct score, ``[distinct + 1]``, starting with 0.
        hits: weight of the positive rows among them.
    """

    alerts: np.ndarray
    hits: np.ndarray

    @property
    def average_precision(self) -> float:
        """Mean over the positives of the precision where each is found; NaN without positives."""
        alerts, hits = self
        if not hits[-1]:
            return math.nan
        precision = hits[1:] / np.maximum(alerts[1:], np.finfo(float).tiny)  # leading rows may weigh nothing
        return float(np.diff(hits) @ precision / hits[-1])

    @property
    def roc_auc(self) -> float:
        """Chance that a positive scores above a negative, ties as half; NaN where a class is absent."""
        false = self.alerts - self.hits
        if not (self.hits[-1] and false[-1]):
            return math.nan
        return float(np.diff(false) @ (self.hits[1:] + self.hits[:-1]) / 2 / (self.hits[-1] * false[-1]))

    def hits_at(self, share: float) -> float:
        """Weight of positives among the highest ``share`` of the rows; a tie on the border counts in proportion."""
        return float(np.interp(share * self.alerts[-1], self.alerts, self.hits))

    def precision_at(self, share: float) -> float:
        """Share of positives among the highest ``share`` of the rows."""
        return self.hits_at(share) / (share * self.alerts[-1]) if self.alerts[-1] else math.nan

    def recall_at(self, share: float) -> float:
        """Share of the positives that are among the highest ``share`` of the rows; NaN without positives."""
        return self.hits_at(share) / float(self.hits[-1]) if self.hits[-1] else math.nan


@dataclass(frozen=True)
class Ranking:
    """Rows in falling order of score, sorted once; rows of one score are one step, so row order never matters."""

    weighed_by: np.ndarray
    ends: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, p: np.ndarray, cluster: np.ndarray | None = None) -> Ranking:
        """Rank labels ``y`` (0/1, ``[n]``) by scores ``p`` (``[n]``, finite).

        Args:
            cluster: codes 0, 1, … of the rows that share a weight, ``[n]``; default: each row has its own.
        """
        order = np.argsort(-np.asarray(p, np.float64), kind="stable")
        ranked = np.asarray(p)[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else order
        return cls(order if cluster is None else cluster[order], ends, np.asarray(y, np.float64)[order])

    def curve(self, weight: np.ndarray | None = None) -> Curve:
        """The curve with weights ``weight`` of the clusters (not negative; default: all 1)."""
        ranked = np.ones(len(self.labels)) if weight is None else weight[self.weighed_by]
        alerts, hits = np.cumsum(ranked), np.cumsum(ranked * self.labels)
        if len(self.ends) < len(ranked):
            alerts, hits = alerts[self.ends], hits[self.ends]
        return Curve(np.concatenate(([0.0], alerts)), np.concatenate(([0.0], hits)))


def roc_auc(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Area under the ROC curve; see :class:`Curve`."""
    return Ranking.of(y, p).curve(weight).roc_auc


def average_precision(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Average precision (no interpolation); see :class:`Curve`."""
    return Ranking.of(y, p).curve(weight).average_precision


# --- Card precision: whom to look at each day ---


@dataclass(frozen=True)
class Reviews:
    """The daily review list: each day the ``k`` entities with the highest scores, those already found left out.

    The published card precision (Le Borgne et al. 2022): an entity scores its highest row of the day and is a hit if
    any of its rows that day is positive; once hit it is not looked at again. Days with fewer entities still count
    ``k``. Entities of equal score are taken in the order of their codes.
    """

    k: int
    days: list[tuple[np.ndarray, np.ndarray]]
    entities: int

    @classmethod
    def of(cls, day: np.ndarray, entity: np.ndarray, y: np.ndarray, p: np.ndarray, k: int) -> Reviews:
        """From rows: ``day`` (sortable), ``entity`` (codes 0, 1, …), labels and scores, all ``[n]``."""
        rows = pd.DataFrame({"day": day, "entity": entity, "p": p, "y": y})
        best = rows.groupby(["day", "entity"], as_index=False).max()
        best = best.sort_values(["day", "p", "entity"], ascending=[True, False, True], kind="stable")
        return cls(
            k,
            [(one["entity"].to_numpy(), one["y"].to_numpy() > 0) for _, one in best.groupby("day")],
            int(np.max(entity, initial=-1)) + 1,
        )

    def by_day(self, weight: np.ndarray | None = None) -> np.ndarray:
        """Precision of each day, ``[days]``, each entity counted ``weight[entity]`` times (default: once)."""
        weight = np.ones(self.entities) if weight is None else weight.astype(float)  # a copy: found ones become 0
        result = np.empty(len(self.days))
        for i, (entity, positive) in enumerate(self.days):
            times = weight[entity]
            looked_at = np.clip(self.k - (np.cumsum(times) - times), 0, times)
            result[i] = looked_at[positive].sum() / self.k
            weight[entity[positive & (looked_at > 0)]] = 0
        return result

    def maximum(self) -> float:
        """Best precision that any scores could reach: most entities that fit on days on which they are positive.

        With at most ``k`` positive entities a day that is all of them once; beyond that it is a maximum flow from
        entities (once each) to days (``k`` each).
        """
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_flow

        hits = [entity[positive] for entity, positive in self.days]
        source, sink = self.entities + len(hits), self.entities + len(hits) + 1
        everyone, days = np.unique(np.concatenate(hits)), self.entities + np.arange(len(hits))
        edges = [
            (np.full(len(everyone), source), everyone, np.ones(len(everyone))),
            *((hit, np.full(len(hit), day), np.ones(len(hit))) for hit, day in zip(hits, days, strict=True)),
            (days, np.full(len(days), sink), np.full(len(days), self.k)),
        ]
        start, end, capacity = (np.concatenate(part) for part in zip(*edges, strict=True))
        network = csr_array((capacity.astype(np.int32), (start, end)), shape=(sink + 1, sink + 1))
        return maximum_flow(network, source, sink).flow_value / (self.k * len(hits))


def known_positive(
    entity: ArrayLike,
    time: ArrayLike,
    positive_entity: ArrayLike,
    positive_time: ArrayLike,
    *,
    delay: dt.timedelta,
) -> np.ndarray:
    """Which rows belong to an entity already known as positive when the row happens, bool ``[n]``.

    An event at second s is known from s + ``delay`` on, and for good: pass only events recent enough to still mean
    something. The published split passes those from 14 days before the test rows on, which leaves out 14 % of the
    simulated payments; from 60 days on it would be 47 %, and CP@100 half of what it was.

    Args:
        entity, time: of the rows, ``[n]``.
        positive_entity, positive_time: of the events labelled positive, ``[m]``, any order.
        delay: time until a label is known.
    """
    events = pd.Series(np.asarray(positive_time, "datetime64[us]"), index=np.asarray(positive_entity))
    known_from = events.groupby(level=0).min().reindex(np.asarray(entity)) + delay
    return np.asarray(time, "datetime64[us]") >= known_from.to_numpy()  # a comparison with NaT is False


# --- Calibration and money ---


class Bin(NamedTuple):
    """Rows of similar probability. ``low`` and ``high``: Wilson's 95 % interval of the observed rate."""

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


def reliability(y: np.ndarray, p: np.ndarray, bins: int = 10) -> list[Bin]:
    """Predicted against observed rates, in rising order of probability.

    Bins hold equal shares of the *expected positives* (the sum of p), not of the rows: with one positive in a hundred,
    bins of equal rows would put all that matters into the last one. Rows of one probability share a bin.
    """
    order = np.argsort(p, kind="stable")
    p, y = np.asarray(p, np.float64)[order], np.asarray(y, np.float64)[order]
    last_of_its_kind = np.searchsorted(p, p, side="right") - 1
    expected = np.cumsum(p)[last_of_its_kind]
    number = np.minimum((expected / max(expected[-1], np.finfo(float).tiny) * bins).astype(int), bins - 1)
    found = []
    for rows in np.split(np.arange(len(p)), np.flatnonzero(np.diff(number)) + 1):
        n, rate = len(rows), float(y[rows].mean())
        z = 1.96
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        found.append(Bin(n, float(p[rows].mean()), rate, max(centre - half, 0.0), min(centre + half, 1.0)))
    return found


def saved(y: np.ndarray, p: np.ndarray, amount: np.ndarray, review_cost: float) -> np.ndarray:
    """What alerting saves on each row, ``[n]``, in the unit of ``amount``; alerting nobody saves 0.

    A row is alerted if p · amount > ``review_cost``, which is best if p is calibrated. An alert costs
    ``review_cost`` and saves the amount of a positive row. ``p = y`` gives the oracle.
    """
    return np.where(p * amount > review_cost, y * amount - review_cost, 0.0)


# --- Intervals ---


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; ``low`` and ``high`` are None where there are too few rows for one."""

    value: float
    low: float | None = None
    high: float | None = None


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], clusters: int, *, resamples: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Figures with every cluster once, ``[figures]``, and for ``resamples`` draws, ``[resamples, figures]``.

    A draw takes ``clusters`` clusters with replacement and weighs each by how often it was drawn. Rows of one entity
    come and go together, because they are not independent. All figures see the same draws, so the draws of two
    models may be subtracted.

    Args:
        statistic: ``weight of each cluster, [clusters] -> figures``.
    """
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(np.float64))
        for _ in range(resamples)
    ]
    point = statistic(np.ones(clusters))
    return point, np.reshape(draws, (resamples, len(point)))


def estimate(value: float, draws: np.ndarray, *, bounded: bool = True) -> Estimate:
    """The value with ± 1.96 standard deviations of its draws, cut to 0…1 where ``bounded``.

    Covers as often as the draws' percentiles and always holds the value. Both are a little optimistic where positives
    are few: with 40 of them in 4,000 rows of clustered entities the truth was inside in 90–92 % of 150 repetitions.
    Draws in which the figure was undefined are left out.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) < 2:
        return Estimate(float(value))
    half = 1.96 * float(np.std(defined, ddof=1))
    low, high = float(value) - half, float(value) + half
    return Estimate(float(value), max(low, 0.0) if bounded else low, min(high, 1.0) if bounded else high)


def paired_difference(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    metric: Callable[[Curve], float],
    *,
    cluster: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """``metric`` of scores ``first`` minus that of ``second`` on the same rows, both in the same draws.

    Args:
        metric: e.g. ``lambda curve: curve.average_precision``.
        cluster: codes 0, 1, … of the rows that are drawn together, ``[n]``; default: each row by itself.
    """
    rankings = [Ranking.of(y, p, cluster) for p in (first, second)]

    def difference(weight: np.ndarray) -> np.ndarray:
        a, b = (metric(ranking.curve(weight)) for ranking in rankings)
        return np.array([a - b])

    point, draws = bootstrap(
        difference, len(y) if cluster is None else int(cluster.max()) + 1, resamples=resamples, seed=seed
    )
    return estimate(point[0], draws[:, 0], bounded=False)


# --- The report ---


@dataclass(frozen=True)
class Slice:
    """Part of the rows: its size and the candidate's figures there; a figure that is undefined there is absent."""

    rows: int
    positives: int
    figures: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What :func:`evaluate` found. Figures that do not apply or are undefined are absent, never zero.

    Figures by name: ``average_precision``, ``roc_auc``, ``brier``, ``precision_at_…`` and ``recall_at_…`` of
    :data:`ALERT_SHARES`; with a clock and an entity ``cp_at_k``; with an amount ``saved`` (money), ``saved_share``
    (of what the oracle saves) and ``alert_rate`` (share of rows that cost less to review than to ignore).

    Attributes:
        rows, positives: what the figures rest on.
        removed: rows left out because their entity was already known as positive when they happened.
        models: figures by score name; the first is the candidate.
        with_removed: the same figures with those rows kept; empty where none were left out.
        differences: candidate minus each other score, on the same rows and in the same draws.
        slices: by slice name.
        reliability: bins by score name.
        curves: by score name, thinned ``recall``, ``precision`` and ``false_positive_rate`` for pictures.
        histogram: ``edges`` (``[bins + 1]``), ``negatives`` and ``positives`` (``[bins]``) of the candidate's scores.
        reviews: None without clock or entity; else ``k``, ``maximum``, ``days`` and CP@k ``by_day`` and score name.
        money: None without an amount; else ``review_cost``, ``lost_without_alerts`` and ``oracle`` (most that could
            be saved).
        method: how the intervals were made, in words.
    """

    rows: int
    positives: int
    removed: int
    models: dict[str, dict[str, Estimate]]
    with_removed: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]
    slices: dict[str, Slice]
    reliability: dict[str, list[Bin]]
    curves: dict[str, dict[str, list[float]]]
    histogram: dict[str, list[float]]
    reviews: dict[str, Any] | None = None
    money: dict[str, float] | None = None
    method: str = ""

    @property
    def candidate(self) -> str:
        """Name of the score that the report is about."""
        return next(iter(self.models))

    def numbers(self, name: str) -> dict[str, float]:
        """Figures of one score without intervals: what the gate reads."""
        return {metric: figure.value for metric, figure in self.models[name].items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain dicts, lists, text and finite numbers: fit for strict JSON."""
        plain = asdict(self)
        plain["reliability"] = {name: [one._asdict() for one in bins] for name, bins in self.reliability.items()}
        return plain


def evaluate(
    frame: pd.DataFrame,
    scores: Mapping[str, np.ndarray],
    evaluation: Evaluation,
    *,
    target: str,
    time: str | None = None,
    review_cost: float = 2.0,
    known: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Report:
    """Every figure of every score on rows that none of them has seen.

    Args:
        frame: the test rows: the target (0/1), and the columns that ``time`` and ``evaluation`` name.
        scores: probabilities by name, ``[n]`` each; the candidate first. Slices and histogram are the candidate's.
        evaluation: which columns are the entity and the amount, ``top_k``, and the slices.
        target: column of ``frame``.
        time: column of ``frame``; ``None`` for a plain table.
        review_cost: of one alert, in the unit of the amount.
        known: rows to leave out (:func:`known_positive`), bool ``[n]``; figures with them kept are added.
        resamples: bootstrap draws; of entities where one is declared, of rows otherwise. 70,000 rows and five scores
            take 2 to 3 s with 200.

    Raises:
        ValueError: a column, score or slice that does not fit, or rows of one class only; it says which.
    """
    table = _Table.of(frame, evaluation, target=target, time=time, review_cost=review_cost)
    scores = {name: _probabilities(name, p, len(frame)) for name, p in scores.items()}
    if not scores:
        raise ValueError("no scores to evaluate: pass at least the candidate's, by name")
    slices = _slices(evaluation, frame)
    kept = np.ones(len(frame), bool) if known is None else ~np.asarray(known, bool)

    test = table.only(kept)
    if not 0 < test.y.sum() < len(test.y):
        raise ValueError(
            f"{len(test.y)} test rows with {int(test.y.sum())} positive {target!r}: both classes are needed; "
            "evaluate on a longer period or a larger holdout"
        )
    tested = {name: p[kept] for name, p in scores.items()}
    candidate, *others = tested
    whole = {name: _whole(test, p) for name, p in tested.items()}
    parts = {name: _part(test, tested[candidate], mask[kept]) for name, mask in slices.items()}
    drawn = _draw(whole, test.clusters, resamples=resamples, seed=seed)
    with_removed = {}
    if not kept.all():
        everything = {name: _whole(table, p) for name, p in scores.items()}
        with_removed = _draw(everything, table.clusters, resamples=0, seed=seed)

    return Report(
        rows=len(test.y),
        positives=int(test.y.sum()),
        removed=int((~kept).sum()),
        models={name: drawn[name].estimates() for name in tested},
        with_removed={name: one.estimates() for name, one in with_removed.items()},
        differences={name: drawn[candidate].minus(drawn[name]) for name in others},
        slices={
            name: Slice(one.rows, one.positives, one.estimates())
            for name, one in _draw(parts, test.clusters, resamples=resamples, seed=seed).items()
        },
        reliability={name: reliability(test.y, p) for name, p in tested.items()},
        curves={name: _thinned(Ranking.of(test.y, p).curve()) for name, p in tested.items()},
        histogram=_histogram(test.y, tested[candidate]),
        reviews=test.reviews(tested),
        money=test.money(),
        method=f"95 % intervals: ± 1.96 standard deviations of {resamples} bootstrap draws of "
        + (f"{evaluation.entity} (all its rows together)" if evaluation.entity else "rows")
        + "; differences within the same draws.",
    )


@dataclass(frozen=True)
class _Table:
    """The test rows as columns; ``cluster`` holds codes 0, 1, … of what is drawn together."""

    y: np.ndarray
    cluster: np.ndarray
    clusters: int
    day: np.ndarray | None
    amount: np.ndarray | None
    review_cost: float
    top_k: int | None

    @classmethod
    def of(
        cls, frame: pd.DataFrame, evaluation: Evaluation, *, target: str, time: str | None, review_cost: float
    ) -> _Table:
        for column in (target, time, evaluation.entity, evaluation.amount):
            if column is not None and column not in frame:
                raise ValueError(f"no column {column!r} among the test rows; there are: {', '.join(frame.columns)}")
            if column is not None and frame[column].isna().any():
                raise ValueError(f"column {column!r} of the test rows has missing values; leave those rows out")
        y = frame[target].to_numpy(np.float64)
        if not np.isin(y, (0, 1)).all():
            raise ValueError(f"target {target!r} must be 0 or 1, found {sorted(set(y) - {0.0, 1.0})[:5]}")
        codes, entities = (
            (np.arange(len(frame)), None)
            if evaluation.entity is None
            else (pd.factorize(frame[evaluation.entity], sort=True))
        )
        return cls(
            y=y,
            cluster=codes,
            clusters=len(frame) if entities is None else len(entities),
            day=None if time is None else frame[time].to_numpy("datetime64[D]"),
            amount=None if evaluation.amount is None else frame[evaluation.amount].to_numpy(np.float64),
            review_cost=review_cost,
            top_k=evaluation.top_k if evaluation.entity and time else None,
        )

    def only(self, rows: np.ndarray) -> _Table:
        """The table of the rows where ``rows`` is true, its clusters numbered anew."""
        present, cluster = np.unique(self.cluster[rows], return_inverse=True)
        return _Table(
            y=self.y[rows],
            cluster=cluster,
            clusters=len(present),
            day=None if self.day is None else self.day[rows],
            amount=None if self.amount is None else self.amount[rows],
            review_cost=self.review_cost,
            top_k=self.top_k,
        )

    def reviews_of(self, p: np.ndarray) -> Reviews | None:
        """The daily review lists by scores ``p``; None without clock or entity."""
        if self.day is None or self.top_k is None:
            return None
        return Reviews.of(self.day, self.cluster, self.y, p, self.top_k)

    def reviews(self, scores: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
        """CP@k in full, or None where there is none."""
        lists = {name: one for name, p in scores.items() if (one := self.reviews_of(p)) is not None}
        if not lists:
            return None
        return {
            "k": self.top_k,
            "maximum": next(iter(lists.values())).maximum(),
            "days": np.unique(self.day).astype(str).tolist(),  # type: ignore[arg-type]
            "by_day": {name: one.by_day().tolist() for name, one in lists.items()},
        }

    def money(self) -> dict[str, float] | None:
        """What was at stake, or None without an amount."""
        if self.amount is None:
            return None
        return {
            "review_cost": self.review_cost,
            "lost_without_alerts": float(self.y @ self.amount),
            "oracle": float(saved(self.y, self.y, self.amount, self.review_cost).sum()),
        }

    def by_cluster(self, value: np.ndarray) -> np.ndarray:
        """Sum of a value of each row over the rows of each cluster."""
        return np.bincount(self.cluster, value, minlength=self.clusters)


class _Figures(NamedTuple):
    """Figures of one score on some rows, as a function of the clusters' weights; undefined ones are NaN."""

    rows: int
    positives: int
    compute: Callable[[np.ndarray], dict[str, float]]


def _whole(table: _Table, p: np.ndarray) -> _Figures:
    ranking, reviews = Ranking.of(table.y, p, table.cluster), table.reviews_of(p)
    rows, squared_error = table.by_cluster(np.ones(len(p))), table.by_cluster((p - table.y) ** 2)
    money = None
    if table.amount is not None:
        cost = table.review_cost
        gain, best = (saved(table.y, q, table.amount, cost) for q in (p, table.y))
        money = [table.by_cluster(value) for value in (gain, best, p * table.amount > cost)]

    def compute(weight: np.ndarray) -> dict[str, float]:
        curve = ranking.curve(weight)
        figures = {
            "average_precision": curve.average_precision,
            "roc_auc": curve.roc_auc,
            "brier": float(weight @ squared_error / (weight @ rows)),
        }
        for name, share in ALERT_SHARES.items():
            figures[f"precision_at_{name}"] = curve.precision_at(share)
            figures[f"recall_at_{name}"] = curve.recall_at(share)
        if reviews is not None:
            figures["cp_at_k"] = float(reviews.by_day(weight).mean())
        if money is not None:
            gain, best, alerts = (float(weight @ value) for value in money)
            figures |= {
                "saved": gain,
                "saved_share": gain / best if best else math.nan,
                "alert_rate": alerts / float(weight @ rows),
            }
        return figures

    return _Figures(len(p), int(table.y.sum()), compute)


def _part(table: _Table, p: np.ndarray, part: np.ndarray) -> _Figures:
    """A slice: order within it, and how much of it is found when the highest 1 % of *all* rows are alerted."""
    ranking = Ranking.of(table.y[part], p[part], table.cluster[part])
    alerted = p > np.quantile(p, 1 - ALERT_SHARES["1pct"])
    positives, hits = table.by_cluster(table.y * part), table.by_cluster(table.y * (part & alerted))

    def compute(weight: np.ndarray) -> dict[str, float]:
        curve, positive = ranking.curve(weight), float(weight @ positives)
        # Without negatives average precision is 1 whatever the scores: it says nothing, so it is not given.
        ordered = 0 < curve.hits[-1] < curve.alerts[-1]
        return {
            "average_precision": curve.average_precision if ordered else math.nan,
            "roc_auc": curve.roc_auc,
            "recall_at_1pct": float(weight @ hits) / positive if positive else math.nan,
        }

    return _Figures(int(part.sum()), int(table.y[part].sum()), compute)


@dataclass(frozen=True)
class _Drawn:
    """Figures of one score or slice: their values, and those of each bootstrap draw."""

    rows: int
    positives: int
    values: dict[str, float]
    draws: dict[str, np.ndarray]

    def estimates(self) -> dict[str, Estimate]:
        """The defined figures, with intervals where both classes have enough rows."""
        return self._estimates(self.values, self.draws, bounded=True)

    def minus(self, other: _Drawn) -> dict[str, Estimate]:
        """Differences of the figures, draw by draw."""
        return self._estimates(
            {name: value - other.values[name] for name, value in self.values.items()},
            {name: draws - other.draws[name] for name, draws in self.draws.items()},
            bounded=False,
        )

    def _estimates(
        self, values: dict[str, float], draws: dict[str, np.ndarray], *, bounded: bool
    ) -> dict[str, Estimate]:
        # A class that is absent altogether leaves only figures defined that need the other one alone.
        enough = all(not n or n >= MIN_FOR_INTERVAL for n in (self.positives, self.rows - self.positives))
        return {
            name: estimate(value, draws[name], bounded=bounded and name not in UNBOUNDED) if enough else Estimate(value)
            for name, value in values.items()
            if math.isfinite(value)
        }


def _draw(figures: Mapping[str, _Figures], clusters: int, *, resamples: int, seed: int) -> dict[str, _Drawn]:
    """All figures in the same bootstrap draws."""
    everyone = np.ones(clusters)
    names = {key: list(one.compute(everyone)) for key, one in figures.items()}

    def statistic(weight: np.ndarray) -> np.ndarray:
        return np.array([value for one in figures.values() for value in one.compute(weight).values()])

    points, draws = bootstrap(statistic, clusters, resamples=resamples, seed=seed)
    columns = iter(zip(points.tolist(), draws.T, strict=True))
    result = {}
    for key, one in figures.items():
        mine = {name: next(columns) for name in names[key]}
        values, drawn = ({name: pair[i] for name, pair in mine.items()} for i in (0, 1))
        result[key] = _Drawn(one.rows, one.positives, values, drawn)
    return result


def _probabilities(name: str, p: np.ndarray, rows: int) -> np.ndarray:
    p = np.asarray(p, np.float64)
    if p.shape != (rows,):
        raise ValueError(f"score {name!r} has shape {p.shape}; it must give one probability for each of {rows} rows")
    bad = p[~((p >= -ROUNDING) & (p <= 1 + ROUNDING))]  # NaN among them
    if len(bad):
        raise ValueError(f"score {name!r} has {len(bad)} values that are no probabilities, e.g. {bad[0]}")
    return np.clip(p, 0, 1)


def _slices(evaluation: Evaluation, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    masks = {} if evaluation.slices is None else evaluation.slices(frame)
    for name, mask in masks.items():
        if np.shape(mask) != (len(frame),) or np.asarray(mask).dtype != bool:
            raise ValueError(
                f"slice {name!r} is {np.asarray(mask).dtype} of shape {np.shape(mask)}; "
                f"evaluation.slices must give one boolean for each of {len(frame)} rows"
            )
    return {name: np.asarray(mask) for name, mask in masks.items()}


def _thinned(curve: Curve, points: int = 120) -> dict[str, list[float]]:
    """So few points of a curve that a picture does not differ: even steps in hits and in false alerts."""
    false = curve.alerts - curve.hits
    at = np.unique(
        np.concatenate(
            [np.searchsorted(along, np.linspace(0, along[-1], points), side="left") for along in (curve.hits, false)]
        )
    )
    at = at[curve.alerts[at] > 0]
    return {
        "recall": (curve.hits[at] / curve.hits[-1]).round(5).tolist(),
        "precision": (curve.hits[at] / curve.alerts[at]).round(5).tolist(),
        "false_positive_rate": (false[at] / false[-1]).round(5).tolist(),
    }


def _histogram(y: np.ndarray, p: np.ndarray, bins: int = 40) -> dict[str, list[float]]:
    edges = np.linspace(0, 1, bins + 1)
    return {
        "edges": edges.round(5).tolist(),
        "negatives": np.histogram(p[y == 0], edges)[0].tolist(),
        "positives": np.histogram(p[y == 1], edges)[0].tolist(),
    }
