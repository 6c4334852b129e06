"""Evaluates all scores on the test rows: one report with metrics, intervals, differences and slices.

Belongs here: the contents of the report, and the bootstrap draws that its metrics share. Does not belong here: the
metrics themselves (``figures.py``), the plots (``assets/lifecycle/model/report.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Evaluation
from assets.lifecycle.model.metrics.calibration import Bin, CalibrationError, calibration_error, reliability, saved
from assets.lifecycle.model.metrics.figures import Figures, Rows, figures_of, figures_within
from assets.lifecycle.model.metrics.intervals import Estimate, bootstrap, estimate
from assets.lifecycle.model.metrics.ranking import Curve, Ranking
from assets.metrics import METRICS
from assets.task import BINARY, Task, TaskKind

CHAMPION = "champion"
"""Name of the champion's score."""
MIN_FOR_INTERVAL = 10
"""Minimum number of rows (of each class) for an interval; with fewer rows a metric has no interval, as it would be
unreliable."""
ROUNDING = 1e-9
"""How far a probability may lie outside 0…1, because sums of products have rounding errors in the last digit."""
MOST_POINTS = 400
"""Maximum number of rows in the plot of predicted against true values."""


@dataclass(frozen=True)
class Slice:
    """A slice of the rows: its size and the candidate's metrics on it; undefined metrics are absent."""

    rows: int
    positives: int | None
    figures: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of :func:`evaluate`. Metrics that do not apply or are undefined are absent, never zero.

    Metrics by name. Binary: ``average_precision``, ``roc_auc``, ``brier``, ``precision_at_…`` and ``recall_at_…`` for
    the highest scores; with time and entity ``cp_at_k``; with an amount ``saved`` (money), ``saved_share`` (of the
    oracle's savings) and ``alert_rate`` (share of rows that cost less to review than to ignore). Classes:
    ``accuracy``, ``balanced_accuracy``, ``roc_auc`` (mean of one class against the rest), ``log_loss``. Measured
    values: ``r2``, ``rmse`` and ``mae`` (in the target's unit).

    Attributes:
        kind: kind of target.
        rows: number of rows evaluated.
        positives: binary; number of positive rows.
        removed: number of rows removed because their entity was already known as positive at their time.
        models: metrics by score name; the first is the candidate.
        with_removed: the same metrics including the removed rows; empty if none were removed.
        differences: candidate minus each other score, on the same rows and in the same draws.
        slices: declared slices by name.
        slice_differences: candidate minus champion by slice and metric, on the same rows and in the same draws; empty
            without a champion.
        calibration: binary and classes; expected calibration error of the candidate.
        reliability: binary; bins by score name.
        curves: binary; by score name, thinned ``recall``, ``precision`` and ``false_positive_rate`` for plots.
        histogram: binary; ``edges`` (``[bins + 1]``), ``negatives`` and ``positives`` (``[bins]``) of the candidate.
        confusion: classes; ``classes`` (names) and ``rows``, counts by ``[true][predicted]``, of the candidate.
        fit: measured values; ``truth`` and ``predicted`` of a sample of rows, and the 5, 50 and 95 % quantiles of the
            ``error`` by tenth of the prediction (``middle``), all of the candidate.
        reviews: None without time or entity; else ``k``, ``maximum``, ``days``, and CP@k ``by_day`` for each score.
        money: None without an amount; else ``review_cost``, ``lost_without_alerts`` and ``oracle`` (maximum savings).
        method: description of the interval method.
    """

    rows: int
    models: dict[str, dict[str, Estimate]]
    kind: TaskKind = "binary"
    positives: int | None = None
    removed: int = 0
    with_removed: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    slices: dict[str, Slice] = field(default_factory=dict)
    slice_differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    calibration: CalibrationError | None = None
    reliability: dict[str, list[Bin]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    histogram: dict[str, list[float]] = field(default_factory=dict)
    confusion: dict[str, Any] | None = None
    fit: dict[str, list[float]] | None = None
    reviews: dict[str, Any] | None = None
    money: dict[str, float] | None = None
    method: str = ""

    @property
    def candidate(self) -> str:
        """Name of the candidate's score."""
        return next(iter(self.models))

    def numbers(self, name: str) -> dict[str, float]:
        """Returns the metrics of one score without intervals, as the gate reads them."""
        return {metric: figure.value for metric, figure in self.models[name].items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as dicts, lists, text and finite numbers, for strict JSON."""
        plain = asdict(self)
        plain["calibration"] = None if self.calibration is None else self.calibration._asdict()
        plain["reliability"] = {name: [one._asdict() for one in bins] for name, bins in self.reliability.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Report:
        """Returns the report of :meth:`to_dict`."""

        def of_models(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Estimate]]:
            return {name: {metric: Estimate(**one) for metric, one in own.items()} for name, own in models.items()}

        return cls(**{
            **plain,
            **{name: of_models(plain[name]) for name in ("models", "with_removed", "differences")},
            "slices": {
                name: Slice(part["rows"], part["positives"], of_models({"": part["figures"]})[""])
                for name, part in plain["slices"].items()
            },
            "reliability": {name: [Bin(**one) for one in bins] for name, bins in plain["reliability"].items()},
        })  # fmt: skip


def evaluate(
    frame: pd.DataFrame,
    scores: Mapping[str, np.ndarray],
    evaluation: Evaluation,
    *,
    target: str,
    task: Task = BINARY,
    time: str | None = None,
    review_cost: float = 2.0,
    known: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Report:
    """Computes all metrics of all scores on test rows.

    Args:
        frame: test rows with the target (class codes or measured values) and the columns named by ``time`` and
            ``evaluation``.
        scores: by name, the candidate's first: probabilities ``[n]`` or ``[n, classes]``, or predicted values ``[n]``.
            Slices, ``histogram``, ``confusion`` and ``fit`` cover only the candidate.
        evaluation: names of the entity and amount columns, ``top_k``, and the slices.
        target: name of the target column.
        task: the kind of target.
        time: name of the time column; ``None`` for a plain table.
        review_cost: cost of one alert, in the unit of the amount.
        known: rows to remove (:func:`known_positive`), bool ``[n]``; the report adds the metrics that include them.
        resamples: number of bootstrap draws, of entities if the evaluation declares one, otherwise of rows. With 200,
            70,000 rows and five scores take 2 to 3 s.
        seed: of the bootstrap draws.

    Raises:
        ValueError: a column, score or slice is invalid, or the target has a single value; the message names it.
    """
    table = _rows(frame, evaluation, target=target, task=task, time=time, review_cost=review_cost)
    scores = {name: _fitting(name, np.asarray(p, np.float64), len(frame), task) for name, p in scores.items()}
    if not scores:
        raise ValueError("no scores to evaluate; pass at least the candidate's scores by name")
    slices = _slices(evaluation, frame, table)
    kept = np.ones(len(frame), bool) if known is None else ~np.asarray(known, bool)

    test = table.only(kept)
    _refuse_one_value(test, target)
    tested = {name: p[kept] for name, p in scores.items()}
    candidate, *others = tested
    whole = {name: figures_of(test, p) for name, p in tested.items()}
    parts = {
        name: {slice_: figures_within(test, tested[name], mask[kept]) for slice_, mask in slices.items()}
        for name in (candidate, CHAMPION)
        if name in tested
    }
    drawn_parts = {
        name: _draw(of_slices, test.clusters, resamples=resamples, seed=seed) for name, of_slices in parts.items()
    }
    drawn = _draw(whole, test.clusters, resamples=resamples, seed=seed)
    with_removed = {}
    if not kept.all():
        everything = {name: figures_of(table, p) for name, p in scores.items()}
        with_removed = _draw(everything, table.clusters, resamples=0, seed=seed)

    return Report(
        kind=task.kind,
        rows=len(test.y),
        positives=test.positives,
        removed=int((~kept).sum()),
        models={name: drawn[name].estimates() for name in tested},
        with_removed={name: one.estimates() for name, one in with_removed.items()},
        differences={name: drawn[candidate].minus(drawn[name]) for name in others},
        slices={name: Slice(one.rows, one.positives, one.estimates()) for name, one in drawn_parts[candidate].items()},
        slice_differences={
            name: drawn_parts[candidate][name].minus(one) for name, one in drawn_parts.get(CHAMPION, {}).items()
        },
        calibration=_calibration(test, tested[candidate], seed),
        method=f"95 % intervals: ± 1.96 standard deviations of {resamples} bootstrap draws of "
        + (f"{evaluation.entity} (all its rows together)" if evaluation.entity else "rows")
        + "; differences use the same draws.",
        **_shown(test, tested),
    )


def _calibration(test: Rows, score: np.ndarray, seed: int) -> CalibrationError | None:
    if test.task.kind == "regression":
        return None
    if test.task.kind == "binary":
        return calibration_error(test.y, score, seed=seed)
    return calibration_error(score.argmax(axis=1) == test.y, score.max(axis=1), seed=seed)


def _shown(test: Rows, tested: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The report's fields with data for the plots of a kind of target."""
    mine = next(iter(tested.values()))
    if test.task.kind == "multiclass":
        k = len(test.task.classes)
        cells = np.bincount(test.y.astype(int) * k + mine.argmax(axis=1), minlength=k * k).reshape(k, k)
        return {"confusion": {"classes": list(test.task.names), "rows": cells.tolist()}}
    if test.task.kind == "regression":
        return {"fit": _fit_of(test.y, mine)}
    return {
        "reliability": {name: reliability(test.y, p) for name, p in tested.items()},
        "curves": {name: _thinned(Ranking.of(test.y, p).curve()) for name, p in tested.items()},
        "histogram": _histogram(test.y, mine),
        "reviews": _reviews(test, tested),
        "money": _money(test),
    }


def _fit_of(y: np.ndarray, predicted: np.ndarray) -> dict[str, list[float]]:
    some = np.linspace(0, len(y) - 1, min(len(y), MOST_POINTS)).astype(int)
    by_tenth = np.array_split(np.argsort(predicted, kind="stable"), min(10, len(y)))
    quantiles = np.array([np.quantile((predicted - y)[tenth], (0.05, 0.5, 0.95)) for tenth in by_tenth])
    return {
        "truth": y[some].tolist(),
        "predicted": predicted[some].tolist(),
        "middle": [float(predicted[tenth].mean()) for tenth in by_tenth],
        **{f"error_{name}": quantiles[:, i].tolist() for i, name in enumerate(("low", "median", "high"))},
    }


def _rows(
    frame: pd.DataFrame, evaluation: Evaluation, *, target: str, task: Task, time: str | None, review_cost: float
) -> Rows:
    for column in (target, time, evaluation.entity, evaluation.amount):
        if column is not None and column not in frame:
            raise ValueError(f"the test rows have no column {column!r}; their columns: {', '.join(frame.columns)}")
        if column is not None and frame[column].isna().any():
            raise ValueError(f"column {column!r} of the test rows has missing values; leave those rows out")
    y = frame[target].to_numpy(np.float64)
    codes = np.arange(max(len(task.classes), 2))
    if task.kind != "regression" and not np.isin(y, codes).all():
        wanted = "0 or 1" if task.kind == "binary" else f"0 to {codes[-1]}"
        raise ValueError(f"target {target!r} must be {wanted}, found {sorted(set(y) - set(codes))[:5]}")
    cluster, entities = (
        (np.arange(len(frame)), None)
        if evaluation.entity is None
        else (pd.factorize(frame[evaluation.entity], sort=True))
    )
    return Rows(
        task=task,
        y=y,
        cluster=cluster,
        clusters=len(frame) if entities is None else len(entities),
        day=None if time is None else frame[time].to_numpy("datetime64[D]"),
        amount=None if evaluation.amount is None else frame[evaluation.amount].to_numpy(np.float64),
        review_cost=review_cost,
        top_k=evaluation.top_k if evaluation.entity and time else None,
    )


def _refuse_one_value(test: Rows, target: str) -> None:
    if len(np.unique(test.y)) > 1:
        return
    what = f" with {test.positives} positive {target!r}: both classes are needed" if test.task.kind == "binary" else (
        f" with one value of {target!r}: there is nothing to distinguish"
    )  # fmt: skip
    raise ValueError(f"{len(test.y)} test rows{what}; evaluate on a longer period or a larger holdout")


def _reviews(test: Rows, scores: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """CP@k by day and score, or None if it does not apply."""
    lists = {name: one for name, p in scores.items() if (one := test.reviews_of(p)) is not None}
    if not lists:
        return None
    return {
        "k": test.top_k,
        "maximum": next(iter(lists.values())).maximum(),
        "days": np.unique(test.day).astype(str).tolist(),  # type: ignore[arg-type]
        "by_day": {name: one.by_day().tolist() for name, one in lists.items()},
    }


def _money(test: Rows) -> dict[str, float] | None:
    """The total loss and the maximum savings, or None without an amount."""
    if test.amount is None:
        return None
    return {
        "review_cost": test.review_cost,
        "lost_without_alerts": float(test.y @ test.amount),
        "oracle": float(saved(test.y, test.y, test.amount, test.review_cost).sum()),
    }


@dataclass(frozen=True)
class _Drawn:
    """Metrics of one score or slice: their values, and their values in each bootstrap draw."""

    rows: int
    positives: int | None
    values: dict[str, float]
    draws: dict[str, np.ndarray]

    def estimates(self) -> dict[str, Estimate]:
        """Returns the defined metrics, with intervals if both classes have enough rows."""
        return self._estimates(self.values, self.draws, bounded=True)

    def minus(self, other: _Drawn) -> dict[str, Estimate]:
        """Returns the differences of the metrics, with intervals from the differences in each draw."""
        return self._estimates(
            {name: value - other.values[name] for name, value in self.values.items()},
            {name: draws - other.draws[name] for name, draws in self.draws.items()},
            bounded=False,
        )

    def _estimates(
        self,
        values: dict[str, float],
        draws: dict[str, np.ndarray],
        *,
        bounded: bool,
    ) -> dict[str, Estimate]:
        # Without any rows of one class, the metrics that remain defined need only the other class.
        parts = (self.rows,) if self.positives is None else (self.positives, self.rows - self.positives)
        enough = all(not n or n >= MIN_FOR_INTERVAL for n in parts)
        anywhere = (-math.inf, math.inf)
        return {
            name: estimate(value, draws[name], bounds=(METRICS[name].low, METRICS[name].high) if bounded else anywhere)
            if enough
            else Estimate(value)
            for name, value in values.items()
            if math.isfinite(value)
        }


def _draw(figures: Mapping[str, Figures], clusters: int, *, resamples: int, seed: int) -> dict[str, _Drawn]:
    """Computes all metrics in the same bootstrap draws."""
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


def _fitting(name: str, p: np.ndarray, rows: int, task: Task) -> np.ndarray:
    """Returns the validated score. Raises :class:`ValueError` if its shape or values do not match the target's kind."""
    shape = (rows, len(task.classes)) if task.kind == "multiclass" else (rows,)
    what = "number" if task.kind == "regression" else "probability"
    if p.shape != shape:
        raise ValueError(
            f"score {name!r} has shape {p.shape}; it must give one {what} for each of {rows} rows"
            + (f" and {len(task.classes)} classes" if len(shape) > 1 else "")
        )
    if task.kind == "regression":
        if not np.isfinite(p).all():
            raise ValueError(f"score {name!r} has {int((~np.isfinite(p)).sum())} values that are not finite")
        return p
    bad = p[~((p >= -ROUNDING) & (p <= 1 + ROUNDING))]  # NaN among them
    if len(bad):
        raise ValueError(f"score {name!r} has {len(bad)} values that are not probabilities, e.g. {bad[0]}")
    return np.clip(p, 0, 1)


def _slices(evaluation: Evaluation, frame: pd.DataFrame, table: Rows) -> dict[str, np.ndarray]:
    masks = {} if evaluation.slices is None else evaluation.slices(frame)
    for name, mask in masks.items():
        if np.shape(mask) != (len(frame),) or np.asarray(mask).dtype != bool:
            raise ValueError(
                f"slice {name!r} is {np.asarray(mask).dtype} of shape {np.shape(mask)}; "
                f"evaluation.slices must give one boolean for each of {len(frame)} rows"
            )
    return {name: np.asarray(mask) for name, mask in masks.items()}


def _thinned(curve: Curve, points: int = 120) -> dict[str, list[float]]:
    """Thins a curve for plotting, at even steps in hits and in false alerts; the plot looks the same."""
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
