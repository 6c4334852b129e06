"""Presents an evaluation: plots for the UI, and one self-contained HTML page to share.

Belongs here: plots and wording of the results of ``metrics`` and ``gate.py``; the page's layout is ``report.html`` in
this folder. Does not belong here: any metric that is not in the :class:`~assets.lifecycle.model.metrics.Report`.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from assets.lifecycle.model.details import Details
from assets.lifecycle.model.gate import Verdict
from assets.lifecycle.model.metrics import Estimate, Report
from assets.lifecycle.model.metrics.thresholds import Thresholds
from assets.metrics import METRICS, gate_metrics, lower_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = "report.html"
SCORES = {
    "torch": "torch (candidate)",
    "champion": "Champion",
    "xgboost": "XGBoost",
    "linear": "Linear",
    "naive": "Seasonal naive",
    "ceiling": "Ceiling (best possible)",
}
"""Display names of scores; other scores keep their own name."""
PICTURES = {
    "precision_recall": "Precision and recall",
    "roc": "ROC curve",
    "reliability": "Reliability",
    "scores": "Scores of the candidate",
    "confusion": "Predictions by class",
    "fit": "Predicted and true",
    "error": "Error by prediction",
    "reviews": "Daily review list",
    "slices": "Slices",
    "importance": "Importance of features",
    "thresholds": "Alerts by threshold",
    "learning": "Learning curves",
}
"""Titles of the plots, in the order of the page."""

MOST_FEATURES = 15
"""Maximum number of features in the picture and the table of importance."""

# Colour-blind safe colours (Okabe and Ito); they stay distinct when the page inverts them in dark mode.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"]
INK, QUIET, GRID = "#24292f", "#6e7781", "#e4e7eb"
_STYLES = {"ceiling": {"color": QUIET, "linestyle": "--"}}


def plots(
    report: Report,
    *,
    learning: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    details: Details | None = None,
) -> dict[str, bytes]:
    """Draws the report's plots as PNG, at most 60 KB each, by the names of :data:`PICTURES`; only those that apply.

    Args:
        report: the report to plot.
        learning: ``{quantity: {curve: value after each epoch}}``, one panel per quantity, e.g.
            ``{"loss": {"fold 1": [...], "fold 2": [...]}}``.
        details: importance and thresholds to plot.
    """
    drawn: dict[str, bytes] = {}
    for name, draw in _OF_KIND[report.kind].items():
        drawn[name] = picture(lambda axes, draw=draw: draw(axes[0], report))  # type: ignore[misc]
    if report.reviews:
        drawn["reviews"] = picture(lambda axes: _reviews(axes[0], report), width=10.0, height=3.0)
    if report.slices:
        height = 1.1 + 0.3 * (len(report.slices) + 1)
        drawn["slices"] = picture(lambda axes: _slices(axes, report), panels=2, width=10.0, height=height)
    if details is not None:
        drawn |= plots_of(details)
    if learning:
        width = 5.0 * len(learning)
        drawn["learning"] = picture(lambda axes: _learning(axes, learning), panels=len(learning), width=width)
    return drawn


def plots_of(details: Details) -> dict[str, bytes]:
    """Draws importance and, for binary targets, alerts by threshold, as PNG by the names of :data:`PICTURES`."""
    most = min(len(details.importance.lost), MOST_FEATURES)
    drawn = {"importance": picture(lambda axes: _importance(axes[0], details), height=1.1 + 0.19 * most)}
    if details.thresholds is not None:
        curve = details.thresholds
        drawn["thresholds"] = picture(lambda axes: _thresholds(axes[0], curve))
    return drawn


def inline(png: bytes) -> dg.MarkdownMetadataValue:
    """Returns a plot as metadata that Dagster's UI shows inline."""
    return dg.MetadataValue.md(f"![picture]({data_url(png)})")


def html(
    report: Report,
    verdict: Verdict,
    *,
    title: str,
    subtitle: str = "",
    pictures: Mapping[str, bytes],
    details: Details | None = None,
    published: Mapping[str, float] | None = None,
    provenance: Mapping[str, str] | None = None,
    made_at: dt.datetime,
) -> str:
    """Renders one self-contained HTML page with embedded styles and plots; it follows the system's light or dark mode.

    Args:
        report, verdict: the results of the evaluation and of the gate.
        title: e.g. the model's name and version.
        subtitle: one line under the title, e.g. the test days.
        pictures: plots from :func:`plots`.
        details: importance, explained rows and groups.
        published: metrics from the literature, by the names of :data:`METRICS`; other names get a separate line. They
            are labelled as published and kept apart from the measured metrics.
        provenance: data version, code version and run ids, as ``{label: text or http address}``.
        made_at: time of the evaluation (UTC).
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)
    published = published or {}
    names = [name for name in METRICS if any(name in figures for figures in report.models.values())]
    return template.render(
        report=report,
        verdict=verdict,
        title=title,
        subtitle=subtitle,
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
        pictures=[(key, PICTURES[key], data_url(pictures[key])) for key in PICTURES if key in pictures],
        details=details,
        most_features=MOST_FEATURES,
        published={name: value for name, value in published.items() if name in METRICS},
        published_elsewhere={name: value for name, value in published.items() if name not in METRICS},
        provenance=provenance or {},
        order=[name for name in gate_metrics(report.kind) if name in names],
        effort=[name for name in names if "_at_" in name and name != "cp_at_k"],
        slice_metrics=[name for name in METRICS if any(name in part.figures for part in report.slices.values())],
        best={name: _best(report, name) for name in names},
        score_name=_score_name,
        metric_name=lambda name: _metric_name(name, report),
        number=number,
        interval=interval,
        signed=_signed,
        plus=lambda value: _minus(f"{value:+.3g}"),
        short=lambda value: value if isinstance(value, str) else _minus(f"{value:.4g}"),
        clear=_is_clear,
        better=lambda name, figure: (figure.value > 0) != lower_is_better(name),
        money=lambda value: number("saved", value),
    )


# --- Words and numbers ---


def _score_name(name: str) -> str:
    return SCORES.get(name, name)


def _metric_name(name: str, report: Report) -> str:
    return f"CP@{report.reviews['k']}" if name == "cp_at_k" and report.reviews else METRICS[name].label


def number(name: str, value: float) -> str:
    """Formats a metric: shares of rows and money in percent, money as whole units, other metrics as decimals."""
    form = METRICS[name].form
    if form == "money":
        return _minus(f"{value:,.0f}")
    if form == "small":
        return f"{value:.5f}"
    if form == "unit":
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if form == "percent":
        return _minus(f"{value * 100:.1f} %")
    return f"{value:.3f}"


def _signed(name: str, value: float) -> str:
    if METRICS[name].form == "unit":
        return _minus(f"{value:+,.4g}" if abs(value) < 1000 else f"{value:+,.0f}")
    return _minus(f"{value:+.5f}" if METRICS[name].form == "small" else f"{value:+.4f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def interval(name: str, figure: Estimate) -> str:
    """Formats the interval of a metric; empty without one."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{number(name, figure.low)} to {number(name, figure.high)}"


def _best(report: Report, metric: str) -> str:
    """The score with the best value of a metric, without the ceiling; empty if there is no better end."""
    able = {
        name: figures[metric].value
        for name, figures in report.models.items()
        if name != "ceiling" and metric in figures and METRICS[metric].lower_is_better is not None
    }
    if not able:
        return ""
    return (min if lower_is_better(metric) else max)(able, key=lambda name: able[name])


def _is_clear(figure: Estimate) -> bool:
    """Whether the interval of a difference excludes zero."""
    return figure.low is not None and figure.high is not None and (figure.low > 0 or figure.high < 0)


def data_url(png: bytes) -> str:
    """Returns a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


# --- Pictures ---


def picture(
    draw: Callable[[Sequence[Axes]], None], *, panels: int = 1, width: float = 5.0, height: float = 3.4
) -> bytes:
    """Draws a PNG with ``draw`` and the common style of all plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image  # a dependency of matplotlib

    # Figure and canvas are created without pyplot, because its global state would mix the plots of concurrent runs.
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    for one in axes:
        one.grid(color=GRID, linewidth=0.8)
        one.set_axisbelow(True)
        one.tick_params(colors=QUIET, labelsize=8, length=0)
        for name, spine in one.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(GRID)
        one.xaxis.label.set(size=9, color=INK)
        one.yaxis.label.set(size=9, color=INK)
    draw(axes)
    canvas.draw()
    buffer = io.BytesIO()
    # 64 colours are enough for lines and text, and need a third of the bytes.
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(64).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _style(report: Report, name: str) -> dict[str, Any]:
    """The line style of a score: the candidate is thicker and on top, the ceiling is dashed."""
    position = list(report.models).index(name)
    style: dict[str, Any] = {
        "color": COLOURS[position % len(COLOURS)],
        "label": _score_name(name),
        "linewidth": 1.3,
    }
    if name == report.candidate:
        style |= {"linewidth": 2.2, "zorder": 5}
    return style | _STYLES.get(name, {})


def _legend(axes: Axes, **where: Any) -> None:
    axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, **where)


def _precision_recall(axes: Axes, report: Report) -> None:
    for name, curve in report.curves.items():
        axes.step(curve["recall"], curve["precision"], where="post", **_style(report, name))
    axes.axhline((report.positives or 0) / report.rows, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes)


def _roc(axes: Axes, report: Report) -> None:
    for name, curve in report.curves.items():
        axes.plot([0, *curve["false_positive_rate"]], [0, *curve["recall"]], **_style(report, name))
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes, loc="lower right")


def _reliability(axes: Axes, report: Report) -> None:
    bins = report.reliability[report.candidate]
    predicted, observed, low, high = (
        np.array([getattr(one, name) for one in bins]) for name in ("predicted", "observed", "low", "high")
    )
    for name, others in report.reliability.items():
        if name not in (report.candidate, "ceiling"):
            axes.plot(
                *zip(*[(b.predicted, b.observed) for b in others], strict=True), **_style(report, name), alpha=0.6
            )
    style = _style(report, report.candidate)
    axes.errorbar(
        predicted,
        observed,
        yerr=np.abs([observed - low, high - observed]),
        marker="o",
        markersize=4,
        capsize=2,
        **style,
    )
    rates = np.concatenate([predicted, observed, low, high])
    # Rates below 1 % use logarithmic axes, because linear axes would squeeze rare events into a corner.
    if predicted.min() < 0.01 and (rates > 0).any():
        floor = rates[rates > 0].min() / 2
        axes.set(xscale="log", yscale="log", xlim=(floor, 1.1), ylim=(floor, 1.1))
        axes.plot([floor, 1], [floor, 1], color=QUIET, linewidth=0.8, linestyle=":")
    else:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    axes.set(xlabel="predicted probability", ylabel="observed share (95 % Wilson)")
    _legend(axes, loc="upper left")


def _scores(axes: Axes, report: Report) -> None:
    edges = np.array(report.histogram["edges"])
    for name, colour in (("negatives", QUIET), ("positives", COLOURS[1])):
        axes.stairs(report.histogram[name], edges, fill=True, color=colour, alpha=0.55, label=name)
    axes.set(yscale="symlog", xlabel="predicted probability", ylabel="rows (logarithmic)", xlim=(0, 1), ylim=(0, None))
    _legend(axes)


def _confusion(axes: Axes, report: Report) -> None:
    assert report.confusion is not None
    names = report.confusion["classes"]
    cells = np.array(report.confusion["rows"], dtype=float)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    if len(names) <= 12:
        for (i, j), share in np.ndenumerate(shares):
            axes.text(j, i, f"{share:.0%}", ha="center", va="center", fontsize=7.5, color="w" if share > 0.5 else INK)
        axes.set_xticks(range(len(names)), [str(name)[:14] for name in names], rotation=30, ha="right")
        axes.set_yticks(range(len(names)), [str(name)[:14] for name in names])
    axes.set(xlabel="predicted", ylabel="true")


def _fit(axes: Axes, report: Report) -> None:
    assert report.fit is not None
    truth, predicted = np.array(report.fit["truth"]), np.array(report.fit["predicted"])
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    axes.plot(ends, ends, color=QUIET, linewidth=0.8, linestyle=":")
    axes.plot(predicted, truth, "o", markersize=2.5, color=COLOURS[0], alpha=0.5, markeredgewidth=0)
    axes.set(xlabel="predicted", ylabel="true")


def _error(axes: Axes, report: Report) -> None:
    assert report.fit is not None
    middle, low, median, high = (
        np.array(report.fit[name]) for name in ("middle", "error_low", "error_median", "error_high")
    )
    axes.axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
    axes.fill_between(middle, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="5 % to 95 %")
    axes.plot(middle, median, color=COLOURS[0], label="median")
    axes.set(xlabel="predicted", ylabel="predicted minus true")
    _legend(axes)


def _reviews(axes: Axes, report: Report) -> None:
    assert report.reviews is not None
    days = np.array(report.reviews["days"], "datetime64[D]")
    for name, values in report.reviews["by_day"].items():
        axes.plot(days, values, marker="o", markersize=3, **_style(report, name))
    axes.set(ylabel=f"precision of the day's top {report.reviews['k']}", ylim=(0, None))
    axes.set_xticks(days[:: max(1, len(days) // 7)])
    axes.set_xticklabels([f"{day.astype(object):%a %-d %b}" for day in days[:: max(1, len(days) // 7)]])
    _legend(axes)


def _slices(axes: Sequence[Axes], report: Report) -> None:
    names = ["all rows", *report.slices]
    place = np.arange(len(names))[::-1]
    whole = report.models[report.candidate]
    for one, metric in zip(axes, _OF_SLICES[report.kind], strict=True):
        figures = [whole.get(metric), *(part.figures.get(metric) for part in report.slices.values())]
        for y, figure in zip(place, figures, strict=True):
            if figure is None:
                continue
            colour = INK if y == place[0] else COLOURS[0]
            if figure.low is not None and figure.high is not None:
                one.plot([figure.low, figure.high], [y, y], color=colour, linewidth=1.6, alpha=0.6)
            one.plot(figure.value, y, "o", color=colour, markersize=5, clip_on=False, zorder=5)
        if metric in whole:
            one.axvline(whole[metric].value, color=QUIET, linewidth=0.8, linestyle=":")
        one.set_title(METRICS[metric].label, fontsize=9)
        if metric != "r2":
            one.set(xlim=(0, None))
        one.set(ylim=(-0.6, len(names) - 0.4), yticks=place)
    axes[0].set_yticklabels(names, color=INK)
    axes[1].set_yticklabels([])


def _learning(axes: Sequence[Axes], learning: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for one, (quantity, curves) in zip(axes, learning.items(), strict=True):
        for (name, values), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
            one.plot(
                range(1, len(values) + 1), values, marker="o", markersize=3, color=colour, label=name, linewidth=1.5
            )
        one.set(xlabel="epoch", ylabel=quantity)
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(one)


def _importance(axes: Axes, details: Details) -> None:
    lost = list(details.importance.lost.items())[:MOST_FEATURES]
    for y, (_, one) in zip(reversed(range(len(lost))), lost, strict=True):
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [y, y], color=COLOURS[0], linewidth=1.6, alpha=0.6)
        axes.plot(one.value, y, "o", color=COLOURS[0], markersize=5, zorder=5)
    axes.axvline(0, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(lost)), [name[:32] for name, _ in reversed(lost)], color=INK)
    axes.set(xlabel=f"{METRICS[details.importance.metric].label} lost when its values are exchanged")


def _thresholds(axes: Axes, curve: Thresholds) -> None:
    at = np.array(curve.threshold)
    shown = at > 0
    if curve.saved:
        axes.plot(at[shown], np.array(curve.saved)[shown], color=COLOURS[0], label="saved")
        axes.axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
        axes.set(ylabel="saved on the test rows")
        chosen = "review cost"
    else:
        precision = np.array([math.nan if one is None else one for one in curve.precision])
        for name, values in {"precision": precision, "recall": curve.recall, "F1": curve.f1}.items():
            axes.plot(at[shown], np.array(values)[shown], color=COLOURS[len(axes.lines)], label=name)
        axes.set(ylabel="share", ylim=(0, 1.02))
        chosen = "threshold"
    axes.axvline(curve.chosen, color=INK, linewidth=1, linestyle="--", label=f"{chosen} {curve.chosen:.4g}")
    axes.set(xlabel=f"threshold of the {curve.by}", xscale="log" if curve.saved else "linear")
    _legend(axes)


_OF_KIND: dict[str, dict[str, Callable[[Axes, Report], None]]] = {
    "binary": {"precision_recall": _precision_recall, "roc": _roc, "reliability": _reliability, "scores": _scores},
    "multiclass": {"confusion": _confusion},
    "regression": {"fit": _fit, "error": _error},
    "ranking": {},
}
_OF_SLICES = {
    "binary": ("average_precision", "recall_at_1pct"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("r2", "mae"),
    "ranking": ("ndcg", "recall"),
}
