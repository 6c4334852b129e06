"""Whether a window of rows still looks like the reference profile: the rule, and Evidently's computation and report.

Belongs here: pure functions of two frames. Does not belong here: which window, which champion, who is told
(``monitoring.py``, ``sensors/alerts.py``).

The rule. A column has drifted when its p-value is below ``alpha`` divided by the number of columns (Bonferroni) *and*
the effect is at least ``min_effect``: with many rows everything is significant, and with many columns something always
is. The tests are pinned, since Evidently's default changes with the number of rows: Kolmogorov-Smirnov for numbers, a
two-sample chi-square for columns with few values (Evidently's own takes the reference for exact, and alarms 24 to 77 %
of the time at a nominal 5 %). A window with a drifted column warns; ``page_after`` such windows in a row page.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from assets.declaration import Drift
from assets.lifecycle.reference import PREDICTED, SCORE, ReferenceProfile

FEW_VALUES = 10
"""Columns with at most so many distinct values in the reference are compared as categories."""
KS, CHI_SQUARE = "ks", "two_sample_chi_square"

Level = Literal["ok", "warn", "page"]


@dataclass(frozen=True)
class ColumnDrift:
    """How one column compares: the p-value, and the effect (K-S distance, or total variation for few values)."""

    column: str
    method: str
    p_value: float
    effect: float
    drifted: bool


@dataclass(frozen=True)
class DriftResult:
    """How a window compares. ``judged`` is false where it has too few rows: then nothing is said of it."""

    rows: int
    judged: bool
    columns: tuple[ColumnDrift, ...] = ()
    snapshot: Any = field(default=None, repr=False, compare=False)

    @property
    def drifted(self) -> bool:
        """Whether any column has drifted."""
        return any(column.drifted for column in self.columns)

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the drifted columns, the largest effect first."""
        found = [column for column in self.columns if column.drifted]
        return [column.column for column in sorted(found, key=lambda column: -column.effect)]

    def to_json(self) -> str:
        """The verdicts and what Evidently computed."""
        evidently = json.loads(self.snapshot.json()) if self.snapshot is not None else None
        return json.dumps(
            {
                "rows": self.rows,
                "judged": self.judged,
                "columns": [asdict(c) for c in self.columns],
                "evidently": evidently,
            }
        )

    def html(self) -> str:
        """Evidently's page, 4 to 5 MB: keep it where there is something to look at."""
        return str(self.snapshot.get_html_str(as_iframe=False)) if self.snapshot is not None else ""


def compare(reference: ReferenceProfile, current: pd.DataFrame, drift: Drift, *, seed: int = 0) -> DriftResult:
    """Holds a window against the reference.

    Args:
        reference: of the version that scored the window.
        current: the window: the reference's columns, the calendar ones too, missing values as NaN.
        drift: the declared limits.
        seed: of the sample that is taken of a side with more than ``max_rows``.

    Raises:
        KeyError: a column of the reference is not in the window.
    """
    columns = reference.columns
    if missing := [str(column) for column in reference.sample if column not in current]:
        raise KeyError(
            f"the window lacks {', '.join(missing)}, which the reference profile has; materialise features and "
            "predictions of that day again, or train a model on the features there are"
        )
    if len(current) < drift.min_rows:
        return DriftResult(len(current), judged=False)
    calendar = list(reference.calendar)
    sampled = [_sampled(side[[*columns, *calendar]], drift.max_rows, seed) for side in (reference.sample, current)]
    like = _same_calendar(sampled[0][calendar], sampled[1][calendar])
    before, now = _missing_as_values(sampled[0][columns], sampled[1][columns])
    # A score may follow the calendar: a Saturday is compared with weekends, or every Saturday is an alarm. Evidently
    # drops what is missing, so the other rows of the reference do not count.
    if like.sum() >= drift.min_rows:
        for column in {SCORE, PREDICTED} & set(columns):
            before[column] = before[column].where(like)
    methods = {column: _method(before[column]) for column in columns}
    # A column that is empty or constant on both sides has nothing to compare; a test would fail on it.
    alive = [c for c in columns if not _same_constant(before[c], now[c])]
    snapshot = _evidently(before[alive], now[alive], {c: methods[c] for c in alive}, drift.alpha / len(columns))
    p_values = {result["config"]["column"]: float(result["value"]) for result in snapshot.dict()["metrics"]}
    verdicts = []
    for column in columns:
        p, effect = p_values.get(column, 1.0), _effect(before[column], now[column], methods[column])
        drifted = p < drift.alpha / len(columns) and effect >= drift.min_effect
        verdicts.append(ColumnDrift(column, methods[column], p, effect, drifted))
    return DriftResult(len(current), judged=True, columns=tuple(verdicts), snapshot=snapshot)


def severity(before: Sequence[bool | None], drifted: bool, page_after: int) -> Level:
    """What a window's verdict amounts to, given those of the windows before it.

    Args:
        before: whether the windows before drifted, oldest first; ``None`` where one was not judged, which
            neither counts nor breaks the row.
        drifted: whether this one did.
        page_after: drifted windows in a row, this one included, that page.
    """
    if not drifted:
        return "ok"
    row = 1
    for earlier in reversed([verdict for verdict in before if verdict is not None]):
        if not earlier:
            break
        row += 1
    return "page" if row >= page_after else "warn"


def _sampled(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    return frame if len(frame) <= rows else frame.sample(rows, random_state=seed)


def _method(column: pd.Series) -> str:
    return CHI_SQUARE if column.nunique() <= FEW_VALUES else KS


def _same_constant(before: pd.Series, now: pd.Series) -> bool:
    return pd.concat([before, now]).nunique() < 2


def _effect(before: pd.Series, now: pd.Series, method: str) -> float:
    """Largest distance of the distribution functions, or total variation."""
    sides = before.dropna().to_numpy(dtype=float), now.dropna().to_numpy(dtype=float)
    values = np.unique(np.concatenate(sides))
    if method == CHI_SQUARE:
        shares = [np.bincount(np.searchsorted(values, side), minlength=len(values)) / len(side) for side in sides]
        return float(np.abs(shares[0] - shares[1]).sum() / 2)
    below = [np.searchsorted(np.sort(side), values, side="right") / len(side) for side in sides]
    return float(np.abs(below[0] - below[1]).max())


def _same_calendar(before: pd.DataFrame, now: pd.DataFrame) -> pd.Series:
    """Rows of the reference that share the calendar values which are the same all through the window."""
    fixed = {column: now[column].iloc[0] for column in now if now[column].nunique() == 1}
    like = pd.Series(True, index=before.index)
    for column, value in fixed.items():
        like &= before[column] == value
    return like


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

    _register_chi_square()
    few = [column for column, method in methods.items() if method == CHI_SQUARE]
    definition = DataDefinition(numerical_columns=[c for c in methods if c not in few], categorical_columns=few)
    sides = [side.astype(dict.fromkeys(few, str)) for side in (before, now)]
    datasets = [Dataset.from_pandas(side, data_definition=definition) for side in sides]
    metrics = [ValueDrift(column=column, method=method, threshold=alpha) for column, method in methods.items()]
    return Report(metrics, include_tests=True).run(current_data=datasets[1], reference_data=datasets[0])


@functools.cache
def _register_chi_square() -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    register_stattest(
        StatTest(
            name=CHI_SQUARE,
            display_name="two-sample chi-square p_value",
            allowed_feature_types=[ColumnType.Categorical],
            default_threshold=0.05,
        ),
        default_impl=lambda before, now, _type, threshold: (
            (p := two_sample_chi_square(before, now)),
            p < threshold,
        ),
    )


def two_sample_chi_square(before: pd.Series, now: pd.Series) -> float:
    """The p-value that two samples of categories come from one distribution, both taken as samples."""
    from scipy.stats import chi2_contingency

    counts = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0).to_numpy()
    counts = counts[counts.sum(axis=1) > 0]
    return float(chi2_contingency(counts, correction=False).pvalue) if len(counts) > 1 else 1.0
