"""The picture of the abstention curve.

Belongs here: drawing. Does not belong here: the figures (``answering.py``).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from assets.knowledge import Answers

if TYPE_CHECKING:
    from assets.lifecycle.retrieval.answering import Curve


def curve_picture(curve: Curve, chosen: float, answers: Answers) -> bytes:
    """Draws the cost and the share of wrong answers over the share of questions that are answered, as PNG.

    Args:
        curve: the curve on later questions.
        chosen: the threshold that earlier questions chose.
        answers: the costs.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(curve.answered, curve.cost, color="#2b6cb0", label="mean cost of a question")
    axes.axhline(answers.handover_cost, color="#888", linestyle=":", label="cost of handing over everything")
    place = min(int((curve.thresholds < chosen).sum()), len(curve.cost) - 1)
    axes.plot(curve.answered[place], curve.cost[place], "o", color="#2b6cb0", label=f"chosen: from {chosen:.2f} on")
    axes.set(xlabel="share of the questions that are answered", ylabel="cost", ylim=(0, None))
    other = axes.twinx()
    other.plot(curve.answered, curve.wrong, color="#c05621", label="share answered wrongly (right axis)")
    other.set(ylim=(0, None))
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper left", fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return drawn.getvalue()
