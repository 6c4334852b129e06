"""Positions of the pictures on the pages about versions: dots with intervals, and the boxes of a lineage.

Belongs here: geometry, in pixels of the SVG in ``pages/pictures.html``. Does not belong here: the facts
(``metadata/``), colours (``pages/base.html``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from assets.metrics import METRICS
from metadata.comparison import ALL_ROWS, Pair
from metadata.lineage import Lineage
from metadata.wording import figure_in_words
from resources.ledger import action_in_words

LABEL_WIDTH, PANEL_WIDTH, GAP, ROW_HEIGHT, TOP, BOTTOM = 210, 400, 30, 34, 26, 22
MOST_PANELS = 2
BOX_WIDTH, BOX_GAP = 310, 70


@dataclass(frozen=True)
class Mark:
    """A dot with its interval; ``series`` is ``a`` or ``b``, ``text`` is its tooltip."""

    x: float
    y: float
    low: float | None
    high: float | None
    series: str
    text: str


@dataclass(frozen=True)
class Panel:
    """One metric: where its axis lies, and the texts at its ends."""

    title: str
    left: float
    right: float
    low: str
    high: str


@dataclass(frozen=True)
class Row:
    """The label of a row and its height."""

    label: str
    y: float


@dataclass(frozen=True)
class Dots:
    """A chart of dots: one panel per metric, one row per label."""

    title: str
    width: float
    height: float
    label_width: float
    panels: list[Panel]
    rows: list[Row]
    marks: list[Mark]


class Estimated(Protocol):
    """A value with its interval, as in a comparison and in the view ``metrics``."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float | None:
        """Lower end, if there is an interval."""

    @property
    def high(self) -> float | None:
        """Upper end, if there is an interval."""


Point = tuple[str, str, str, Estimated]
"""Row, metric, series (``a`` or ``b``) and figure of a dot."""


def dots(title: str, points: Sequence[Point]) -> Dots:
    """Places points in one panel per metric, each with its own axis from the lowest to the highest end."""
    metrics, labels = list(dict.fromkeys(p[1] for p in points)), list(dict.fromkeys(p[0] for p in points))
    rows = [Row(label, TOP + ROW_HEIGHT * (i + 0.5)) for i, label in enumerate(labels)]
    y_of, panels, marks = {row.label: row.y for row in rows}, [], []
    series = {p[2] for p in points}
    for i, metric in enumerate(metrics):
        mine = [p for p in points if p[1] == metric]
        ends = [end for *_, f in mine for end in (f.value, f.low, f.high) if end is not None]
        low, high = _axis(min(ends), max(ends))
        left = LABEL_WIDTH + GAP + i * (PANEL_WIDTH + GAP)
        panels.append(
            Panel(METRICS[metric].label, left, left + PANEL_WIDTH, figure_in_words(low), figure_in_words(high))
        )

        def x(value: float, left: float = left, low: float = low, high: float = high) -> float:
            return round(left + (value - low) / (high - low) * PANEL_WIDTH, 1)

        for label, _, of, f in mine:
            shift = 0.0 if len(series) == 1 else (-6.0 if of == "a" else 6.0)
            between = (
                "" if f.low is None or f.high is None else f", {figure_in_words(f.low)} to {figure_in_words(f.high)}"
            )
            text = f"{label}: {METRICS[metric].label} {figure_in_words(f.value)}{between}"
            low_x, high_x = (None if end is None else x(end) for end in (f.low, f.high))
            marks.append(Mark(x(f.value), y_of[label] + shift, low_x, high_x, of, text))
    width = LABEL_WIDTH + GAP + len(metrics) * (PANEL_WIDTH + GAP)
    return Dots(title, width, TOP + ROW_HEIGHT * len(rows) + BOTTOM, LABEL_WIDTH, panels, rows, marks)


def dots_of_pairs(title: str, pairs: Sequence[Pair], metrics: Sequence[str]) -> Dots:
    """The chart of a comparison: both versions by slice, for up to two of ``metrics`` that the slices have."""
    slices = {pair.slice for pair in pairs if pair.slice != ALL_ROWS}
    shown = [m for m in metrics if any(pair.metric == m and (not slices or pair.slice in slices) for pair in pairs)]
    points: list[Point] = [
        (pair.slice, metric, series, figure)
        for metric in shown[:MOST_PANELS]
        for pair in pairs
        if pair.metric == metric
        for series, figure in (("a", pair.a), ("b", pair.b))
        if figure is not None
    ]
    return dots(title, points)


def _axis(low: float, high: float) -> tuple[float, float]:
    """Round ends of an axis that contains both values."""
    spread = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(spread))
    step = step if spread / step >= 2 else step / 5
    return math.floor(low / step) * step, math.ceil(high / step) * step


@dataclass(frozen=True)
class Box:
    """A box with a title and lines of text; ``changed`` marks data that has changed since."""

    x: float
    y: float
    width: float
    height: float
    title: str
    texts: list[str]
    changed: bool = False


@dataclass(frozen=True)
class Line:
    """A line between two boxes."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class LineagePicture:
    """Boxes from left to right: upstream tables, the version, what became of it."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]


def picture_of(found: Lineage) -> LineagePicture:
    """Places the boxes of a lineage in three columns."""
    v = found.version
    upstream = []
    for table in found.upstream:
        texts = [table.first if table.first == table.last else f"{table.first} to {table.last}"]
        if table.changed:
            texts.append(f"{len(table.changed)} of {len(table.days)} days changed since")
        upstream.append((table.table, texts, bool(table.changed)))
    rows = f"{v.rows:,} rows, " if v.rows is not None else ""
    texts = [f"{rows}data {v.data_version}", f"commit {v.git_commit[:8] or 'unknown'}", f"registered {v.created_at}"]
    downstream = [(f"gate: {_passed(v.gate)}, staging: {_passed(v.staging)}", list[str](), False)]
    for entry in found.deployments:
        until = f"until {entry.until}" if entry.until else ""
        what = action_in_words(entry.action)
        downstream.append((f"{what} {entry.at}", [until] if until else [], False))
    if found.predictions is not None:
        scored = found.predictions
        said = scored.first if scored.first == scored.last else f"{scored.first} to {scored.last}"
        downstream.append((f"{scored.rows:,} rows scored", [said], False))
    columns = [upstream, [(f"{v.model}, version {v.version}", texts, False)], downstream]
    heights = [sum(34 + 17 * len(box[1]) + 14 for box in column) for column in columns]
    height = max(heights)
    boxes: list[list[Box]] = []
    for i, (column, used) in enumerate(zip(columns, heights, strict=True)):
        y, placed = (height - used) / 2 + 7, []
        for title, lines, changed in column:
            placed.append(Box(i * (BOX_WIDTH + BOX_GAP) + 1, y, BOX_WIDTH, 34 + 17 * len(lines), title, lines, changed))
            y += 34 + 17 * len(lines) + 14
        boxes.append(placed)
    middle = boxes[1][0]
    lines_in = [Line(b.x + b.width, b.y + b.height / 2, middle.x, middle.y + middle.height / 2) for b in boxes[0]]
    lines_out = [Line(middle.x + middle.width, middle.y + middle.height / 2, b.x, b.y + b.height / 2) for b in boxes[2]]
    width = 3 * BOX_WIDTH + 2 * BOX_GAP + 2
    return LineagePicture(width, height, [b for column in boxes for b in column], lines_in + lines_out)


def _passed(verdict: bool | None) -> str:
    return "no verdict" if verdict is None else "passed" if verdict else "failed"
