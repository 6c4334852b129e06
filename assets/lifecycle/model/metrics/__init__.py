"""Metrics of scores on the test rows, each with its 95 % interval.

Belongs here: pure numpy on labels and scores, one module for each family of metrics, and :func:`evaluate`, which
combines them. Does not belong here: fitting (``fitting.py``, ``baselines.py``), the gate's rules (``gate.py``), the
presentation (``report.py``).
"""

from assets.lifecycle.model.metrics.calibration import Bin, CalibrationError, calibration_error, reliability, saved
from assets.lifecycle.model.metrics.evaluate import Report, Slice, evaluate
from assets.lifecycle.model.metrics.figures import headline
from assets.lifecycle.model.metrics.intervals import Estimate, bootstrap, estimate, paired_difference
from assets.lifecycle.model.metrics.ranking import Curve, Ranking, average_precision, roc_auc
from assets.lifecycle.model.metrics.reviews import Reviews, known_positive

__all__ = [
    "Bin", "CalibrationError", "Curve", "Estimate", "Ranking", "Report", "Reviews", "Slice", "average_precision",
    "bootstrap", "calibration_error", "estimate", "evaluate", "headline", "known_positive", "paired_difference",
    "reliability", "roc_auc", "saved",
]  # fmt: skip
