"""How good scores are on rows that report, each figure with its 95 % interval.

Belongs here: pure numpy on the truth and the scores, a module for each family of figures, and :func:`evaluate`, which
ties them together. Does not belong here: what fits a model (``fitting.py``, ``baselines.py``), what passes
(``gate.py``), what is shown (``report.py``).
"""

from assets.lifecycle.model.metrics.calibration import Bin, reliability, saved
from assets.lifecycle.model.metrics.evaluate import Report, Slice, evaluate
from assets.lifecycle.model.metrics.figures import headline
from assets.lifecycle.model.metrics.intervals import Estimate, bootstrap, estimate, paired_difference
from assets.lifecycle.model.metrics.ranking import Curve, Ranking, average_precision, roc_auc
from assets.lifecycle.model.metrics.reviews import Reviews, known_positive

__all__ = [
    "Bin", "Curve", "Estimate", "Ranking", "Report", "Reviews", "Slice", "average_precision", "bootstrap", "estimate",
    "evaluate", "headline", "known_positive", "paired_difference", "reliability", "roc_auc", "saved",
]  # fmt: skip
