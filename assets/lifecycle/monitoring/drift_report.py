"""Runs Evidently over a window: the tests of the verdict on a sample of each side, and the page that shows them.

Belongs here: registering the tests with Evidently, its run, its page. Does not belong here: the verdict, which
uses the counts of all rows (``drift_rule.py``).
"""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift_rule import CHI_SQUARE, KS, METHODS, DriftResult
from assets.lifecycle.profile.design_effect import thinned
from assets.lifecycle.profile.histograms import Bins, difference
from assets.lifecycle.profile.reference import ReferenceProfile

MOST_DRAWN = 60
"""Maximum columns on a page, those that differ most: hundreds take longer than the training and are unreadable."""


@dataclass(frozen=True)
class Drawing:
    """Evidently's run over some columns, and the reasons for leaving out the others.

    Args:
        snapshot: Evidently's snapshot; ``None`` if no column could be compared.
        left_out: by column, the reason why it is not drawn.
    """

    snapshot: Any
    left_out: dict[str, str]


def draw(reference: ReferenceProfile, sample: pd.DataFrame, drift: Drift, *, share: float = 1.0) -> Drawing:
    """Runs Evidently over the compared columns: the same tests on samples of both sides.

    A column that cannot be compared is left out with a reason; the others are drawn.

    Args:
        reference: the profile, whose sample is one side.
        sample: the other side, at most ``max_rows`` rows of a day; missing values are NaN.
        drift: the declared limits.
        share: share of the day's rows that are in ``sample``.
    """
    columns = [c for c in reference.columns if c in sample and c not in reference.texts]
    left_out = {c: "it is not in the sample" for c in reference.columns if c not in columns}
    left_out |= dict.fromkeys(reference.texts, "its texts are compared by the cells of their vectors")
    before, now = _finite(reference.sample[columns], sample[columns])
    for column in columns:
        if before.empty or now.empty:
            left_out[column] = "one side has no rows"
        elif pd.concat([before[column], now[column]]).nunique() < 2:
            left_out[column] = "it is empty or constant on both sides"
    able = [c for c in columns if c not in left_out]
    for column in sorted(able, key=lambda c: -_apart(before[c].to_numpy(), now[c].to_numpy()))[MOST_DRAWN:]:
        left_out[column] = f"{MOST_DRAWN} columns differ more"
    methods = {}
    for c in [c for c in able if c not in left_out]:
        effect = reference.design_effect(c)
        of_sample = thinned(effect.whole, len(before) / max(reference.rows, 1))
        methods[c] = _registered(METHODS[reference.histograms[c].bins.kind], of_sample, thinned(effect.day, share))
    alpha = drift.alpha / max(len(reference.columns), 1)
    snapshot, failed = _of_those_that_can(before, now, methods, alpha)
    return Drawing(snapshot, left_out | failed)


def _of_those_that_can(
    before: pd.DataFrame, now: pd.DataFrame, methods: dict[str, str], alpha: float
) -> tuple[Any, dict[str, str]]:
    """Evidently's run over the columns on which it does not fail, and by failed column the reason."""
    if not methods:
        return None, {}
    try:
        return _evidently(before[list(methods)], now[list(methods)], methods, alpha), {}
    except Exception as error:  # the verdict does not need the page; find the failing columns one by one
        failed = {}
        for column, method in methods.items():
            try:
                _evidently(before[[column]], now[[column]], {column: method}, alpha)
            except Exception as of_column:
                failed[column] = f"Evidently cannot compare it ({of_column})"
        if not failed:  # no single column fails alone
            return None, dict.fromkeys(methods, f"Evidently cannot compare them ({error})")
    return _of_those_that_can(before, now, {c: m for c, m in methods.items() if c not in failed}, alpha)[0], failed


def html_of(drawing: Drawing) -> str:
    """Evidently's page as HTML, 4 to 5 MB, with the columns left out; store it only when there is something to see."""
    names = "".join(f"<li>{html.escape(c)}: {html.escape(why)}</li>" for c, why in drawing.left_out.items())
    note = f"<details><summary>{len(drawing.left_out)} columns are not drawn</summary><ul>{names}</ul></details>"
    page = (
        str(drawing.snapshot.get_html_str(as_iframe=False))
        if drawing.snapshot is not None
        else "<html><body><p>No column could be drawn.</p></body></html>"
    )
    return page.replace("<body>", f"<body>{note}", 1) if drawing.left_out else page


def verdicts_json(result: DriftResult, drawing: Drawing | None) -> str:
    """The verdicts and Evidently's results as JSON."""
    snapshot = drawing.snapshot if drawing else None
    return json.dumps(
        {
            "rows": result.rows,
            "judged": result.judged,
            "columns": [asdict(column) for column in result.columns],
            "evidently": json.loads(snapshot.json()) if snapshot is not None else None,
            "not_drawn": drawing.left_out if drawing else {},
        }
    )


def _finite(before: pd.DataFrame, now: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sides with missing values below all other values, and infinite values beyond the finite ones.

    They are replaced because Evidently drops missing values: a feature that stops arriving would show no drift.
    """
    both = pd.concat([before, now]).astype("float64")
    finite = both.where(np.isfinite(both))
    lowest, highest = finite.min().fillna(0.0), finite.max().fillna(0.0)
    span = highest - lowest
    step = (span / 10).where(span > 0, np.maximum(1.0, lowest.abs() / 100))
    ended = both.mask(np.isposinf(both), highest + step, axis=1).mask(np.isneginf(both), lowest - step, axis=1)
    ended = ended.fillna(lowest - 2 * step)
    return ended.iloc[: len(before)], ended.iloc[len(before) :]


def _apart(before: np.ndarray, now: np.ndarray) -> float:
    """The effect between two samples ``[n]`` and ``[m]``, from 0 to 1."""
    bins = Bins.of(before)
    return difference(bins.count(before), bins.count(now)).effect


def _evidently(before: pd.DataFrame, now: pd.DataFrame, methods: dict[str, str], alpha: float) -> Any:
    """Runs Evidently over all columns with pinned methods and the corrected threshold."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    few = [column for column, method in methods.items() if method.startswith(CHI_SQUARE)]
    definition = DataDefinition(numerical_columns=[c for c in methods if c not in few], categorical_columns=few)
    sides = [side.astype(dict.fromkeys(few, str)) for side in (before, now)]
    datasets = [Dataset.from_pandas(side, data_definition=definition) for side in sides]
    metrics = [ValueDrift(column=column, method=method, threshold=alpha) for column, method in methods.items()]
    return Report(metrics, include_tests=True).run(current_data=datasets[1], reference_data=datasets[0])


def _registered(method: str, of_before: float, of_now: float) -> str:
    """Registers a test with Evidently and returns its name.

    The name holds the design effects, to three significant digits, because Evidently has no parameter for them.
    """
    effects = f"{of_before:.3g}", f"{of_now:.3g}"
    name = method if effects == ("1", "1") else f"{method}, design effects {effects[0]} and {effects[1]}"
    _register(method, name, float(effects[0]), float(effects[1]))
    return name


@functools.cache
def _register(method: str, name: str, *design_effects: float) -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    kind, test = {
        KS: (ColumnType.Numerical, binned_ks),
        CHI_SQUARE: (ColumnType.Categorical, two_sample_chi_square),
    }[method]

    def decide(before: Any, now: Any, _type: Any, threshold: float) -> tuple[float, bool]:
        p = test(before, now, design_effects)
        return p, p < threshold

    register_stattest(
        StatTest(name=name, display_name=f"{name} p_value", allowed_feature_types=[kind], default_threshold=0.05),
        default_impl=decide,
    )


def binned_ks(before: pd.Series, now: pd.Series, design_effects: Sequence[float] = (1.0, 1.0)) -> float:
    """The Kolmogorov-Smirnov p-value of two samples of numbers, ``[n]`` and ``[m]``, in bins of the first one."""
    bins = Bins.of(before.to_numpy())
    counted = bins.count(before.to_numpy()), bins.count(now.to_numpy())
    return difference(*counted, (design_effects[0], design_effects[1])).p_value


def two_sample_chi_square(before: pd.Series, now: pd.Series, design_effects: Sequence[float] = (1.0, 1.0)) -> float:
    """The two-sample chi-square p-value of categories, ``[n]`` and ``[m]``; neither side is treated as exact."""
    from scipy.stats import chi2_contingency

    counts = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0).to_numpy()
    counts = counts[counts.sum(axis=1) > 0] / np.asarray(design_effects)
    return float(chi2_contingency(counts, correction=False).pvalue) if len(counts) > 1 else 1.0
