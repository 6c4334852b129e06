"""Which rows of a training set are drawn if not all of them fit into memory, and what follows for probabilities.

Test rows are a random share of all test rows, so metrics and probabilities on them mean what they say. Of the other
rows of a binary target, the positives stay (as long as they take at most half of the room) and a random share of the
negatives. A model of such rows has too high probabilities: its odds are those of all rows, divided by the share of the
negatives (if all positives stay). The head multiplies them back (:func:`odds_of`; King and Zeng, 2001, "prior
correction").

A row is drawn by the hash of its key: the same rows are drawn again from the same days, whatever else is read, and two
trainings share the rows of the days that they share.

Belongs here: the shares, the draw, the correction. Does not belong here: reading the rows (``training_set.py``), the
optimiser (``fitting.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model

REPRESENTS = "_represents"
"""Column of a training set of drawn rows: number of rows that each row stands for. Without a draw, there is none."""

TEST_SHARE = 0.25
"""Largest share of ``Training.max_rows`` that test rows take if not all rows fit."""


@dataclass(frozen=True)
class Counts:
    """Numbers of labelled rows of the days of a training run: test rows, and the others by class.

    Without classes 0 and 1, ``positives`` is 0.
    """

    test: int
    positives: int
    negatives: int

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return self.test + self.positives + self.negatives


@dataclass(frozen=True)
class Draw:
    """Shares of the rows that are drawn; 1 means all."""

    test: float = 1.0
    positives: float = 1.0
    negatives: float = 1.0

    @property
    def is_all(self) -> bool:
        """Whether all rows are used."""
        return min(self.test, self.positives, self.negatives) >= 1

    def told(self, counts: Counts) -> str:
        """What was drawn of how many rows."""
        if self.test == self.positives == self.negatives:
            return f"drawn: {self.test:.2%} of {counts.rows:,} rows"
        if self.positives == self.negatives:
            others = f"{self.negatives:.2%} of the {counts.negatives + counts.positives:,} others"
        else:
            positives = "all" if self.positives == 1 else f"{self.positives:.2%} of"
            others = (
                f"{self.negatives:.2%} of {counts.negatives:,} negatives and {positives} {counts.positives:,} positives"
            )
        return f"drawn: {self.test:.2%} of {counts.test:,} test rows, {others}; probabilities are corrected for it"


def draw_of(counts: Counts, model: Model) -> Draw:
    """Returns the shares with which at most ``Training.max_rows`` rows are drawn, up to chance.

    ``Training.negatives`` limits the negatives further.
    """
    training, others = model.training, counts.positives + counts.negatives
    if not model.is_stream:  # its rows are split after the draw, so all have the same share
        share = min(1.0, training.max_rows / max(counts.rows, 1))
        return Draw(share, share, share)
    test = 1.0
    if counts.rows > training.max_rows:
        test = min(1.0, TEST_SHARE * training.max_rows / max(counts.test, 1))
    room = training.max_rows - test * counts.test
    if model.task.kind != "binary":
        share = min(1.0, room / max(others, 1))
        return Draw(test, share, share)
    positives = min(float(counts.positives), max(room / 2, room - counts.negatives))
    negatives = room - positives
    if training.negatives is not None:
        negatives = min(negatives, training.negatives * positives)
    of_positives = positives / counts.positives if counts.positives else 1.0
    return Draw(test, of_positives, min(1.0, negatives / max(counts.negatives, 1)))


def places(values: np.ndarray, seed: int) -> np.ndarray:
    """Returns a random place in [0, 1) for each value, float64 ``[n]``; equal values have equal places."""
    hashed = pd.util.hash_array(values, categorize=False)
    again = pd.util.hash_array(hashed ^ pd.util.hash_array(np.array([seed], dtype=np.uint64)), categorize=False)
    return np.asarray(again >> np.uint64(11)) * 2.0**-53


def represented_by(frozen: pd.DataFrame) -> np.ndarray | None:
    """Returns the number of rows that each row stands for, float64 ``[n]``; ``None`` if no rows were drawn."""
    return frozen[REPRESENTS].to_numpy(dtype=np.float64) if REPRESENTS in frozen else None


def odds_of(y: np.ndarray, represented: np.ndarray | None) -> float:
    """Returns the odds of a positive among all rows, as a multiple of those among the drawn rows.

    Args:
        y: labels 0 and 1 of rows outside the test rows, ``[n]``.
        represented: from :func:`represented_by`, of the same rows; within a class all rows stand for the same number.
    """
    if represented is None or not (y == 1).any() or not (y == 0).any():
        return 1.0
    return float(represented[y == 1].mean() / represented[y == 0].mean())


def with_odds(probabilities: np.ndarray, odds: float) -> np.ndarray:
    """Returns probabilities whose odds are multiplied by ``odds``."""
    if odds == 1:
        return probabilities
    return np.asarray(odds * probabilities / (odds * probabilities + 1 - probabilities))
