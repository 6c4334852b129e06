"""Evidently's run over a window: the tests of the verdict, on a sample of each side, and the page that shows them.

Belongs here: registering the tests with Evidently, its run, its page. Does not belong here: the verdict (``drift.py``),
which stands on the counts of all rows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Drift
from assets.lifecycle.design_effect import thinned
from assets.lifecycle.drift import CHI_SQUARE, KS, METHODS, DriftResult
from assets.lifecycle.histograms import Bins, difference
from assets.lifecycle.reference import ReferenceProfile


def draw(reference: ReferenceProfile, sample: pd.DataFrame, drift: Drift, *, share: float = 1.0) -> Any:
    """Evidently's run over the compared columns: the same tests on samples of both sides.

    Args:
        reference: the profile; its sample is one side.
        sample: of the rows of a day, at most ``max_rows`` of them, missing values as NaN.
        drift: the declared limits.
        share: of the day's rows that the sample is.
    """
    columns = reference.columns
    before, now = _missing_as_values(reference.sample[columns], sample[columns])
    # A column that is empty or constant on both sides has nothing to compare; a test would fail on it.
    alive = [c for c in columns if pd.concat([before[c], now[c]]).nunique() > 1]
    methods = {}
    for c in alive:
        effect = reference.design_effect(c)
        of_sample = thinned(effect.whole, len(before) / max(reference.rows, 1))
        methods[c] = _registered(METHODS[reference.histograms[c].bins.kind], of_sample, thinned(effect.day, share))
    return _evidently(before[alive], now[alive], methods, drift.alpha / len(columns))


def html_of(snapshot: Any) -> str:
    """Evidently's page, 4 to 5 MB: keep it where there is something to look at."""
    return str(snapshot.get_html_str(as_iframe=False))


def verdicts_json(result: DriftResult, snapshot: Any) -> str:
    """The verdicts and what Evidently computed, as JSON."""
    return json.dumps(
        {
            "rows": result.rows,
            "judged": result.judged,
            "columns": [asdict(column) for column in result.columns],
            "evidently": json.loads(snapshot.json()) if snapshot is not None else None,
        }
    )


def _missing_as_values(before: pd.DataFrame, now: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sides with a value below all others where one is missing.

    Evidently drops missing values, and a feature that stops arriving would look the same as ever.
    """
    lowest = pd.concat([before, now]).min().fillna(0.0) - 1
    return before.fillna(lowest), now.fillna(lowest)


def _evidently(before: pd.DataFrame, now: pd.DataFrame, methods: dict[str, str], alpha: float) -> Any:
    """Evidently's run over all columns, with pinned methods and the corrected threshold."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    few = [column for column, method in methods.items() if method.startswith(CHI_SQUARE)]
    definition = DataDefinition(numerical_columns=[c for c in methods if c not in few], categorical_columns=few)
    sides = [side.astype(dict.fromkeys(few, str)) for side in (before, now)]
    datasets = [Dataset.from_pandas(side, data_definition=definition) for side in sides]
    metrics = [ValueDrift(column=column, method=method, threshold=alpha) for column, method in methods.items()]
    return Report(metrics, include_tests=True).run(current_data=datasets[1], reference_data=datasets[0])


def _registered(method: str, of_before: float, of_now: float) -> str:
    """The name by which Evidently knows a test with these design effects, to three digits: it has no place for them."""
    said = f"{of_before:.3g}", f"{of_now:.3g}"
    name = method if said == ("1", "1") else f"{method}, design effects {said[0]} and {said[1]}"
    _register(method, name, float(said[0]), float(said[1]))
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
    """The p-value that two samples of numbers come from one distribution, in bins that the first one chooses."""
    bins = Bins.of(before.to_numpy())
    counted = bins.count(before.to_numpy()), bins.count(now.to_numpy())
    return difference(*counted, (design_effects[0], design_effects[1])).p_value


def two_sample_chi_square(before: pd.Series, now: pd.Series, design_effects: Sequence[float] = (1.0, 1.0)) -> float:
    """The p-value that two samples of categories come from one distribution, both taken as samples."""
    from scipy.stats import chi2_contingency

    counts = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0).to_numpy()
    counts = counts[counts.sum(axis=1) > 0] / np.asarray(design_effects)
    return float(chi2_contingency(counts, correction=False).pvalue) if len(counts) > 1 else 1.0
