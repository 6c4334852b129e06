"""Whether a window of rows still looks like the reference profile: the rule.

Belongs here: pure functions of profiles and counts. Does not belong here: which window, which champion
(``drift_days.py``), the tests on counts (``histograms.py``), other faults of rows (``quality.py``), Evidently
(``drift_report.py``), who is told (``sensors/alerts.py``).

The rule. A column has drifted when its p-value is below ``alpha`` divided by the number of columns (Bonferroni) *and*
the effect is at least ``min_effect``: with many rows everything is significant, and with many columns something always
is. A window with a drifted column warns. It pages when the same column drifted in ``page_after`` windows in a row, or
when one of so many did and all show it weakly and alike, which finds what is small and lasts; in either case all their
rows together, or each by itself, must show it at ``page_alpha`` divided by the number of columns, with the effect. A
column that hardly moves the score never pages. Rows of one entity are not many rows: p-values stand on counts divided
by the design effect.

The score is a function of all features, and some are not watched because they remember weeks: a 30-day mean goes on
moving for a month after a shift that a new version has learnt already, and the score moves with it. So a score that
drifts alone does not count as long as such a feature explains it: it differs from the reference by about as much or
more, and does not jump from one window to the next. A jump is no memory but a fault, and counts.

The tests are pinned, since Evidently's default changes with the number of rows: Kolmogorov-Smirnov for numbers and a
two-sample chi-square for columns with few values (Evidently's own takes the reference for exact, and alarms 24 to 77 %
of the time at a nominal 5 %). The verdict stands on the counts of all rows; Evidently computes the same tests on a
sample of them, and draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from assets.declaration import Drift
from assets.lifecycle.answers import PREDICTED, SCORE
from assets.lifecycle.profile.design_effect import thinned
from assets.lifecycle.profile.histograms import Difference, Histogram, difference
from assets.lifecycle.profile.reference import ReferenceProfile

KS, CHI_SQUARE = "binned_ks", "two_sample_chi_square"
METHODS = {"number": KS, "category": CHI_SQUARE}
WEAK_P, WEAK_EFFECT = 0.02, 0.6
"""What each window must show alone before they are taken together: this p-value, and this share of ``min_effect`` and
of the effect that they show together (as that must be of each: they go the same way). Less, and a day of chance before
a great drift would page at the drift's first window."""

JUMP = 0.5
"""Share of a feature's distance from the reference that lies between two windows in a row, from which on it jumped."""

Level = Literal["ok", "warn", "page"]


@dataclass(frozen=True)
class ColumnDrift:
    """How one column compares: the p-value, and the effect (K-S distance, or total variation for few values).

    ``settling``: of a score that would have drifted, the unwatched features that it still moves with; it then counts as
    not drifted.
    """

    column: str
    method: str
    p_value: float
    effect: float
    drifted: bool
    pages: bool
    settling: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """The counts of some rows.

    Args:
        histograms: by column, in the reference's bins.
        calendar: by calendar column, the value that all rows share; ``None`` where they differ.
        days: how many days the rows are of; 1 where there are no days.
    """

    histograms: Mapping[str, Histogram]
    calendar: Mapping[str, float | None] = field(default_factory=dict)
    days: int = 1

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return max((histogram.rows for histogram in self.histograms.values()), default=0)

    def __add__(self, other: Window) -> Window:
        calendar = {name: value if other.calendar.get(name) == value else None for name, value in self.calendar.items()}
        counts = {name: h + other.histograms[name] for name, h in self.histograms.items()}
        return Window(counts, calendar, self.days + other.days)

    def to_json(self) -> dict[str, Any]:
        """Its numbers; the bins are the reference's."""
        columns = {c: h.to_json() for c, h in self.histograms.items()}
        return {"columns": columns, "calendar": dict(self.calendar), "days": self.days}

    @classmethod
    def from_json(cls, reference: ReferenceProfile, said: Mapping[str, Any]) -> Window:
        """What :meth:`to_json` gave."""
        of = reference.counted
        counts = {c: Histogram.from_json(of[c].bins, h) for c, h in said["columns"].items()}
        return cls(counts, said["calendar"], said["days"])


@dataclass(frozen=True)
class Before:
    """An earlier window: its day, its counts, and what was found in it (``judged`` is false where it had too few rows).

    ``since``: first day of the row of drifted windows that it is in, empty where it did not drift.
    """

    day: str
    window: Window
    judged: bool
    columns: Mapping[str, ColumnDrift]
    since: str = ""


@dataclass(frozen=True)
class DriftResult:
    """How a window compares. ``judged`` is false where it has too few rows: then nothing is said of it."""

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
        """Unwatched features that a score still moves with; empty where it does not, or where it counts as drifted."""
        return tuple(dict.fromkeys(name for column in self.columns for name in column.settling))

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the drifted columns, the largest effect first."""
        found = [column for column in self.columns if column.drifted]
        return [column.column for column in sorted(found, key=lambda column: -column.effect)]


def count(reference: ReferenceProfile, batches: Iterable[pd.DataFrame]) -> Window:
    """Counts the rows of some batches in the reference's bins; columns that a batch lacks are left to other batches.

    Features and scores may come in batches of their own: columns are compared one by one.

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
            "predictions of that day again, or train a model on the features there are"
        )
    return Window({name: counts[name] for name in wanted}, calendar)


def compare(
    reference: ReferenceProfile, window: Window, drift: Drift, *, day: str = "", before: Sequence[Before] = ()
) -> DriftResult:
    """Holds a window against the reference.

    Args:
        reference: of the version that scored the window.
        window: its counts.
        drift: the declared limits.
        day: of the window, the latest where it has several.
        before: the windows before it that the same version scored, oldest first; those that were not judged neither
            count nor break a row.
    """
    if window.rows < drift.min_rows:
        return DriftResult(window.rows, judged=False)
    earlier = [known for known in before if known.judged]
    row = earlier[1 - drift.page_after :] if drift.page_after > 1 else []
    enough = len(row) == drift.page_after - 1
    share = len(reference.columns)
    verdicts = []
    began: dict[str, str] = {}
    for column in reference.columns:
        found = _difference(reference, window, column, drift)
        drifted = found.p_value < drift.alpha / share and found.effect >= drift.min_effect
        weighs = reference.importance.get(column, 1.0) >= drift.min_importance
        were = [known.columns[column] for known in row]
        sure, alike = _together(reference, window, row, column, found, drift)
        lasts = enough and drifted and all(one.drifted for one in were) and sure
        weakly = enough and (drifted or any(one.drifted for one in were)) and alike and sure
        verdicts.append(
            ColumnDrift(
                column, METHODS[reference.histograms[column].bins.kind], found.p_value, found.effect,
                drifted or weakly, weighs and (lasts or weakly),
            )
        )  # fmt: skip
        if weakly or (drifted and earlier and earlier[-1].columns[column].drifted):
            first = row[0] if weakly else earlier[-1]
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
    window: Window,
    drift: Drift,
    verdicts: Sequence[ColumnDrift],
    before: Before | None,
) -> tuple[str, ...]:
    """The unwatched features that still move, where nothing but a score drifted; empty where the score counts.

    A score that drifted alone before and counted goes on counting: what has jumped does not jump again.
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
    """Whether a score drifted, and counted, and nothing else did."""
    drifted = [one.column for one in columns if one.drifted]
    return bool(drifted) and all(name in (SCORE, PREDICTED) for name in drifted)


def _difference(reference: ReferenceProfile, window: Window, column: str, drift: Drift) -> Difference:
    against = reference.histograms[column]
    if column in (SCORE, PREDICTED):
        # A score may follow the calendar: a Saturday is compared with weekends, or every Saturday is an alarm.
        like = _same_calendar(reference.sample, window.calendar)
        if not like.all() and like.sum() >= drift.min_rows:
            against = against.bins.count(reference.sample.loc[like, column].to_numpy())
    effect = reference.design_effect(column)
    of_reference = thinned(effect.whole, against.rows / reference.rows)
    return difference(against, window.histograms[column], (of_reference, effect.over(window.days, reference.days)))


def _together(
    reference: ReferenceProfile, window: Window, row: Sequence[Before], column: str, found: Difference, drift: Drift
) -> tuple[bool, bool]:
    """What this window and those of the row before it show: whether surely, and whether each shows the like.

    However often a window is held against it, a reference is one sample: what it has by chance is in every comparison,
    and only a test at the level of a page says how likely that is. All rows together pass it, or each window alone (a
    column that goes up one day and down the next shows nothing together).
    """
    both = _difference(reference, sum((known.window for known in row), window), column, drift) if row else found
    each: list[Difference | ColumnDrift] = [found, *(known.columns[column] for known in row)]
    effects = [one.effect for one in each]

    def passes(one: Difference | ColumnDrift) -> bool:
        return one.p_value < drift.page_alpha / len(reference.columns) and one.effect >= drift.min_effect

    like = min(effects) >= WEAK_EFFECT * both.effect and both.effect >= WEAK_EFFECT * max(effects)
    return passes(both) or all(map(passes, each)), bool(row) and like and all(_shows(one, drift) for one in each)


def _shows(found: Difference | ColumnDrift, drift: Drift) -> bool:
    """Whether a window shows a column at least weakly, by itself."""
    return found.p_value < WEAK_P and found.effect >= WEAK_EFFECT * drift.min_effect


def _same_calendar(sample: pd.DataFrame, calendar: Mapping[str, float | None]) -> np.ndarray:
    """Rows of the reference's sample that share the calendar values which all rows of the window share."""
    like = np.ones(len(sample), dtype=bool)
    for column, value in calendar.items():
        if value is not None:
            like &= sample[column].to_numpy() == np.float32(value)
    return like
