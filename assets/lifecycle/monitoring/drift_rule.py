"""The drift rule: whether a window of rows still matches the reference profile.

Belongs here: pure functions of profiles and counts. Does not belong here: the choice of window and champion
(``drift.py``), the tests on counts (``histograms.py``), other faults of rows (``quality.py``), Evidently
(``drift_report.py``), notification (``sensors/alerts.py``).

The rule. A column has drifted when its p-value is below ``alpha`` divided by the number of columns (Bonferroni) *and*
its effect is at least ``min_effect``. Both are needed, because with many rows every difference is significant, and
with many columns one of them always is. A window with a drifted column warns. It pages when the same column drifted in
``page_after`` consecutive windows. It also pages when the column drifted in one of them and all show it weakly and
with similar effects; this detects small, lasting drift. In both cases the pooled rows of the consecutive windows, or
each window alone, must also be significant at ``page_alpha`` divided by the number of columns, with an effect of at
least ``min_effect``. A column with an importance below ``min_importance`` never pages. Rows of one entity are not
independent, so p-values use counts divided by the design effect.

The score depends on all features. Some features are not watched because they cover weeks: a 30-day mean keeps moving
for a month after a shift that a new version has already learnt, and the score moves with it. A score that drifts alone
therefore does not count while such a feature explains it: the feature differs from the reference by about as much or
more, and does not jump between consecutive windows. A jump indicates a fault, not a long feature window, and counts.

The tests are pinned, because Evidently's default changes with the number of rows: Kolmogorov-Smirnov for numbers and a
two-sample chi-square for columns with few values. Evidently's own chi-square treats the reference as exact, and alarms
24 to 77 % of the time at a nominal 5 %. The verdict uses the counts of all rows; Evidently computes the same tests on a
sample of them, and draws the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from assets.declaration import Drift
from assets.lifecycle.prediction_format import PREDICTED, SCORE
from assets.lifecycle.profile.design_effect import thinned
from assets.lifecycle.profile.histograms import Difference, Histogram, difference
from assets.lifecycle.profile.reference import ReferenceProfile

KS, CHI_SQUARE = "binned_ks", "two_sample_chi_square"
METHODS = {"number": KS, "category": CHI_SQUARE}
WEAK_P, WEAK_EFFECT = 0.02, 0.6
"""Limits that each window must pass alone before windows are pooled: this p-value, and an effect of at least this share
of ``min_effect`` and of the pooled effect. The pooled effect must also be at least this share of each window's effect,
so that all windows drift in the same direction. With weaker limits, one chance deviation on the day before a large
drift would make the first window of that drift page."""

JUMP = 0.5
"""A feature jumps if it moves between consecutive windows by at least this share of its distance from the reference."""

Level = Literal["ok", "warn", "page"]


@dataclass(frozen=True)
class ColumnDrift:
    """The comparison of one column: the p-value, and the effect (K-S distance, or total variation for few values).

    ``settling``: for a score that would have drifted, the unwatched features that it still moves with. The score then
    counts as not drifted.
    """

    column: str
    method: str
    p_value: float
    effect: float
    drifted: bool
    pages: bool
    settling: tuple[str, ...] = ()


@dataclass(frozen=True)
class WindowCounts:
    """The counts of a window of rows.

    Args:
        histograms: by column, the counts in the reference's bins.
        calendar: by calendar column, the value that all rows share; ``None`` if they differ.
        days: number of days that the rows cover; 1 if the table has no days.
    """

    histograms: Mapping[str, Histogram]
    calendar: Mapping[str, float | None] = field(default_factory=dict)
    days: int = 1

    @property
    def rows(self) -> int:
        """Number of rows counted."""
        return max((histogram.rows for histogram in self.histograms.values()), default=0)

    def __add__(self, other: WindowCounts) -> WindowCounts:
        """Adds counts and days. Raises :class:`ValueError` if the bins differ."""
        calendar = {name: value if other.calendar.get(name) == value else None for name, value in self.calendar.items()}
        counts = {name: h + other.histograms[name] for name, h in self.histograms.items()}
        return WindowCounts(counts, calendar, self.days + other.days)

    def to_json(self) -> dict[str, Any]:
        """The counts for JSON, without the bins, which the reference stores."""
        columns = {c: h.to_json() for c, h in self.histograms.items()}
        return {"columns": columns, "calendar": dict(self.calendar), "days": self.days}

    @classmethod
    def from_json(cls, reference: ReferenceProfile, stored: Mapping[str, Any]) -> WindowCounts:
        """Restores the output of :meth:`to_json`. Raises :class:`ValueError` if the counts exceed the bins."""
        histograms = reference.counted
        counts = {c: Histogram.from_json(histograms[c].bins, h) for c, h in stored["columns"].items()}
        return cls(counts, stored["calendar"], stored["days"])


@dataclass(frozen=True)
class EarlierWindow:
    """An earlier window: its day, counts and result by column (``judged`` is false if it had too few rows).

    ``since``: first day of the consecutive drifted windows that include it; empty if it did not drift.
    """

    day: str
    window: WindowCounts
    judged: bool
    columns: Mapping[str, ColumnDrift]
    since: str = ""


@dataclass(frozen=True)
class DriftResult:
    """The result for a window. ``judged`` is false if the window has too few rows; it then has no verdict."""

    rows: int
    judged: bool
    level: Level = "ok"
    since: str = ""
    columns: tuple[ColumnDrift, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether any column has drifted."""
        return any(column.drifted for column in self.columns)

    @property
    def settling(self) -> tuple[str, ...]:
        """Unwatched features that a score still moves with; empty if there are none or the score counts as drifted."""
        return tuple(dict.fromkeys(name for column in self.columns for name in column.settling))

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the drifted columns, the largest effect first."""
        found = [column for column in self.columns if column.drifted]
        return [column.column for column in sorted(found, key=lambda column: -column.effect)]


def count(reference: ReferenceProfile, batches: Iterable[pd.DataFrame]) -> WindowCounts:
    """Counts the rows of batches in the reference's bins; a batch may contain only some of the columns.

    Features and scores may come in separate batches, because columns are compared one by one.

    Raises:
        KeyError: a column of the reference is in no batch.
    """
    counts: dict[str, Histogram] = {}
    calendar: dict[str, float | None] = {}
    wanted = reference.counted
    for batch in batches:
        for column in batch:
            name, values = str(column), batch[column].to_numpy()
            if name in wanted:
                counted = wanted[name].bins.count(values)
                counts[name] = counts[name] + counted if name in counts else counted
            elif name in reference.calendar and len(values):
                value = float(values[0]) if (values == values[0]).all() else None
                calendar[name] = value if calendar.get(name, value) == value else None
    if missing := [name for name in wanted if name not in counts]:
        raise KeyError(
            f"the window lacks {', '.join(missing)}, which the reference profile has; materialise features and "
            "predictions of that day again, or train a model on the current features"
        )
    return WindowCounts({name: counts[name] for name in wanted}, calendar)


def compare(
    reference: ReferenceProfile,
    window: WindowCounts,
    drift: Drift,
    *,
    day: str = "",
    before: Sequence[EarlierWindow] = (),
) -> DriftResult:
    """Compares a window with the reference.

    Args:
        reference: profile of the version that scored the window.
        window: counts of the window.
        drift: the declared limits.
        day: latest day of the window.
        before: earlier windows that the same version scored, oldest first. Windows that were not judged are skipped:
            windows on both sides of them are still consecutive.

    Returns:
        The result; not judged if the window has fewer than ``min_rows`` rows.
    """
    if window.rows < drift.min_rows:
        return DriftResult(window.rows, judged=False)
    earlier = [known for known in before if known.judged]
    consecutive = earlier[1 - drift.page_after :] if drift.page_after > 1 else []
    enough = len(consecutive) == drift.page_after - 1
    share = len(reference.columns)
    verdicts = []
    began: dict[str, str] = {}
    for column in reference.columns:
        found = _difference(reference, window, column, drift)
        drifted = found.p_value < drift.alpha / share and found.effect >= drift.min_effect
        important = reference.importance.get(column, 1.0) >= drift.min_importance
        earlier_results = [known.columns[column] for known in consecutive]
        significant, alike = _together(reference, window, consecutive, column, found, drift)
        lasts = enough and drifted and all(one.drifted for one in earlier_results) and significant
        weakly = enough and (drifted or any(one.drifted for one in earlier_results)) and alike and significant
        verdicts.append(
            ColumnDrift(
                column, METHODS[reference.histograms[column].bins.kind], found.p_value, found.effect,
                drifted or weakly, important and (lasts or weakly),
            )
        )  # fmt: skip
        if weakly or (drifted and earlier and earlier[-1].columns[column].drifted):
            first = consecutive[0] if weakly else earlier[-1]
            began[column] = first.since or first.day
    moving = _settling(reference, window, drift, verdicts, earlier[-1] if earlier else None)
    if moving:
        verdicts = [
            replace(one, drifted=False, pages=False, settling=moving) if one.drifted else one for one in verdicts
        ]
    since = min([day, *(began[one.column] for one in verdicts if one.drifted and one.column in began)])
    pages, drifted = any(c.pages for c in verdicts), any(c.drifted for c in verdicts)
    level: Level = "page" if pages else "warn" if drifted else "ok"
    return DriftResult(window.rows, True, level, since if drifted else "", tuple(verdicts))


def _settling(
    reference: ReferenceProfile,
    window: WindowCounts,
    drift: Drift,
    verdicts: Sequence[ColumnDrift],
    before: EarlierWindow | None,
) -> tuple[str, ...]:
    """The unwatched features that still move while only a score drifted; empty if the score counts as drifted.

    A score that drifted alone in the window before and counted still counts, because a jump does not repeat.
    """
    if not _score_alone(verdicts) or (before is not None and _score_alone(before.columns.values())):
        return ()
    moved = max(one.effect for one in verdicts if one.drifted)
    moving = []
    for name, usual in reference.unwatched.items():
        effect, now = reference.design_effect(name), window.histograms[name]
        of_window = effect.over(window.days, reference.days)
        found = difference(usual, now, (effect.whole, of_window))
        # A feature that moved much less than the score does not explain it.
        if found.effect < WEAK_EFFECT * max(moved, drift.min_effect) or found.p_value >= WEAK_P:
            continue
        moving.append(name)
        if before is None:
            continue
        of_before = effect.over(before.window.days, reference.days)
        jump = difference(before.window.histograms[name], now, (of_before, of_window))
        sure = jump.p_value < drift.page_alpha / len(reference.unwatched)
        if sure and jump.effect >= max(drift.min_effect, JUMP * found.effect):
            return ()
    return tuple(moving)


def _score_alone(columns: Iterable[ColumnDrift]) -> bool:
    """Whether a score counts as drifted and no other column does."""
    drifted = [one.column for one in columns if one.drifted]
    return bool(drifted) and all(name in (SCORE, PREDICTED) for name in drifted)


def _difference(reference: ReferenceProfile, window: WindowCounts, column: str, drift: Drift) -> Difference:
    against = reference.histograms[column]
    if column in (SCORE, PREDICTED):
        # A score may follow the calendar. A Saturday is compared with weekends, so that not every Saturday alarms.
        matching = _same_calendar(reference.sample, window.calendar)
        if not matching.all() and matching.sum() >= drift.min_rows:
            against = against.bins.count(reference.sample.loc[matching, column].to_numpy())
    effect = reference.design_effect(column)
    of_reference = thinned(effect.whole, against.rows / reference.rows)
    return difference(against, window.histograms[column], (of_reference, effect.over(window.days, reference.days)))


def _together(
    reference: ReferenceProfile,
    window: WindowCounts,
    consecutive: Sequence[EarlierWindow],
    column: str,
    found: Difference,
    drift: Drift,
) -> tuple[bool, bool]:
    """Tests consecutive windows: whether they are significant at ``page_alpha``, and whether all show similar drift.

    Every comparison uses the same reference sample, so its sampling error does not average out. Only a test at
    ``page_alpha`` accounts for that error. The pooled rows must pass it, or each window alone, because a column that
    rises one day and falls the next shows no drift in the pooled rows.

    Args:
        reference: profile of the version that scored the windows.
        window: counts of the latest window.
        consecutive: the consecutive windows before it.
        column: name of the column.
        found: difference of the latest window.
        drift: the declared limits.
    """
    pooled = (
        _difference(reference, sum((known.window for known in consecutive), window), column, drift)
        if consecutive
        else found
    )
    each: list[Difference | ColumnDrift] = [found, *(known.columns[column] for known in consecutive)]
    effects = [one.effect for one in each]

    def passes(one: Difference | ColumnDrift) -> bool:
        return one.p_value < drift.page_alpha / len(reference.columns) and one.effect >= drift.min_effect

    similar = min(effects) >= WEAK_EFFECT * pooled.effect and pooled.effect >= WEAK_EFFECT * max(effects)
    return passes(pooled) or all(map(passes, each)), bool(consecutive) and similar and all(
        _shows(one, drift) for one in each
    )


def _shows(found: Difference | ColumnDrift, drift: Drift) -> bool:
    """Whether a window alone shows at least weak drift of a column."""
    return found.p_value < WEAK_P and found.effect >= WEAK_EFFECT * drift.min_effect


def _same_calendar(sample: pd.DataFrame, calendar: Mapping[str, float | None]) -> np.ndarray:
    """Boolean ``[rows of sample]``: rows with the calendar values that all rows of the window share."""
    matching = np.ones(len(sample), dtype=bool)
    for column, value in calendar.items():
        if value is not None:
            matching &= sample[column].to_numpy() == np.float32(value)
    return matching
