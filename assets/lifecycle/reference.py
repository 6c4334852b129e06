"""The reference profile: what the features and scores of a model version looked like when it was made.

Belongs here: building it from rows the version was not fitted on, its folder in the bundle, its bounds. Does not belong
here: comparing anything with it (``drift.py``). It holds features and scores only: no keys, no entities, no raw rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SCORE, PREDICTED = "score", "predicted"
"""Columns of the score (of classes: of the one predicted) and of the predicted class's code."""
MAX_ROWS = 20_000
"""Rows kept: enough for a K-S test on a day's rows to see a shift of .2 standard deviations, and below 3 MB."""


QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)


class ProfileError(Exception):
    """A reference profile that cannot be read; the message names the file and the mend."""


@dataclass(frozen=True)
class ReferenceProfile:
    """A bounded sample and its summary.

    Args:
        sample: float32 columns: the compared features, the scores, and the calendar ones.
        summary: by column, quantiles, mean, standard deviation and share of missing values of *all* rows.
        rows: how many rows the summary is of.
        calendar: columns that follow the calendar; they are not compared, the score is compared within them.
    """

    sample: pd.DataFrame
    summary: dict[str, dict[str, Any]]
    rows: int
    calendar: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        features: pd.DataFrame,
        scores: Mapping[str, np.ndarray],
        *,
        calendar: Sequence[str] = (),
        seed: int = 0,
        max_rows: int = MAX_ROWS,
    ) -> ReferenceProfile:
        """The profile of ``features`` (those compared, and ``calendar``) and the ``scores`` by column, ``[n]``."""
        frame = features.astype(np.float32).assign(**scores)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(frame))[:max_rows])
        summary = {str(column): _summary(frame[column]) for column in frame}
        return cls(frame.iloc[chosen].reset_index(drop=True), summary, len(frame), tuple(calendar))

    @property
    def columns(self) -> list[str]:
        """The columns that are compared."""
        return [str(column) for column in self.sample if column not in self.calendar]

    def save(self, directory: Path) -> None:
        """Writes ``sample.parquet`` and ``summary.json``."""
        directory.mkdir(parents=True, exist_ok=True)
        self.sample.to_parquet(directory / "sample.parquet", compression="zstd", index=False)
        (directory / "summary.json").write_text(
            json.dumps({"rows": self.rows, "calendar": self.calendar, "columns": self.summary}, indent=1)
        )

    @classmethod
    def load(cls, directory: Path) -> ReferenceProfile:
        """Reads what :meth:`save` wrote. Raises :class:`ProfileError` naming what is absent or damaged."""
        try:
            said = json.loads((directory / "summary.json").read_text())
            sample = pd.read_parquet(directory / "sample.parquet")
            return cls(sample, said["columns"], said["rows"], tuple(said["calendar"]))
        except (OSError, ValueError, KeyError) as error:
            raise ProfileError(
                f"{directory}: no reference profile can be read ({error}); train the model again to make one"
            ) from error


def _summary(column: pd.Series) -> dict[str, Any]:
    known = column.dropna().to_numpy(dtype=float)
    quantiles = zip(QUANTILES, np.quantile(known, QUANTILES), strict=True) if len(known) else ()
    return {
        "quantiles": {f"{q:g}": float(value) for q, value in quantiles},
        "mean": float(known.mean()) if len(known) else None,
        "std": float(known.std()) if len(known) else None,
        "missing": float(column.isna().mean()),
    }
