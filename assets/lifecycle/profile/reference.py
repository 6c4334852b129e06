"""The reference profile: the distribution of a model version's features and scores when the version was made.

Belongs here: building a profile from rows, merging, its folder in the bundle, its size limits. Does not belong here:
comparing anything with it (``drift_rule.py``).

A profile holds no personal data: no keys and no entities. No row of its sample is a real row, because each feature is
shuffled independently. The drift check compares column by column, so it does not need whole rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.lifecycle.profile.design_effect import DesignEffect, measure
from assets.lifecycle.profile.histograms import MOST_EDGES, Bins, Histogram
from assets.lifecycle.profile.text_cells import TextCells, count_texts, load_texts, save_texts

MAX_ROWS = 20_000
MAX_SAMPLE_BYTES = 1_000_000
"""Size limit of the sample: together with the counts, a profile stays below 2 MB for a table of any width."""
MAX_ALL_EDGES = 20_000
"""Limit on the edges of all columns together; a column may always have 8."""
QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)


class ProfileError(Exception):
    """A reference profile that cannot be read or merged; the message names the file or column and the fix."""


@dataclass(frozen=True)
class ReferenceProfile:
    """Counts of all rows of a reference, and a sample of bounded size.

    Args:
        histograms: by compared column, the counts of all rows.
        summary: by column, quantiles, mean, standard deviation and share of missing values of all rows.
        sample: float32 columns. Scores and calendar columns stay together as rows; each feature is shuffled alone.
        rows: number of rows counted.
        calendar: columns that follow the calendar. They are not compared; scores are compared within their values.
        importance: by feature, how much the score moves when its values are shuffled; the largest is 1.
        calibration: bins of probabilities, ``[{"said", "was", "rows"}]`` (mean probability, share of positives, number
            of rows), from rows the fit has not seen: folds and test rows.
        rows_of_weekday: rows expected on each weekday, Monday first; empty if the table has no days.
        days: number of days that the rows cover; 1 if the table has no days.
        design_effects: by column, variance inflation from rows of one entity; empty if no entity is declared.
        label_effect: design effect of the labels, given the scores.
        unwatched: by feature that is not compared, the counts of all rows. A score may follow such a feature.
        texts: by text column, the cells in which its texts are counted, as ``histograms`` has them.
    """

    histograms: dict[str, Histogram]
    summary: dict[str, dict[str, Any]]
    sample: pd.DataFrame
    rows: int
    calendar: tuple[str, ...] = ()
    importance: dict[str, float] = field(default_factory=dict)
    calibration: list[dict[str, float]] = field(default_factory=list)
    rows_of_weekday: list[float] = field(default_factory=list)
    days: int = 1
    design_effects: dict[str, DesignEffect] = field(default_factory=dict)
    label_effect: float = 1.0
    unwatched: dict[str, Histogram] = field(default_factory=dict)
    texts: dict[str, TextCells] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        features: pd.DataFrame,
        scores: Mapping[str, np.ndarray],
        *,
        calendar: Sequence[str] = (),
        importance: Mapping[str, float] | None = None,
        calibration: Sequence[Mapping[str, float]] = (),
        rows_of_weekday: Sequence[float] = (),
        entities: Mapping[str, np.ndarray] | None = None,
        day: np.ndarray | None = None,
        label_effect: float = 1.0,
        unwatched: pd.DataFrame | None = None,
        texts: Mapping[str, np.ndarray] | None = None,
        language: str = "",
        seed: int = 0,
        max_rows: int = MAX_ROWS,
        share: float = 1.0,
    ) -> ReferenceProfile:
        """Builds a profile from features and scores.

        Args:
            features: compared features and the ``calendar`` columns, ``[n]`` rows.
            scores: by column, the scores ``[n]``.
            calendar, importance, calibration, rows_of_weekday, label_effect: as in the class.
            entities: by entity type, the entity of each row, ``[n]``; used for design effects, not stored.
            day: day of each row, ``[n]``; used for design effects, not stored.
            unwatched: features that are not compared, ``[n]`` rows; only their counts are stored.
            texts: by text column, the vectors of the texts, ``[n, width]``; only their counts are stored.
            language: name of the language model of these vectors.
            seed: seed for the sample, the shuffles and the choice of entities.
            max_rows: maximum rows of the sample.
            share: share of the rows of their days that the ``n`` rows are a random part of. Design effects are those of
                all rows, because rows that are compared later are not drawn.
        """
        frame = features.astype(np.float32).assign(**{name: np.asarray(s, np.float32) for name, s in scores.items()})
        compared = [str(column) for column in frame if column not in calendar]
        values = {column: frame[column].to_numpy() for column in compared}
        if unwatched is not None:
            values |= {str(column): unwatched[column].to_numpy(np.float32) for column in unwatched}
        most_edges = min(MOST_EDGES, max(8, MAX_ALL_EDGES // max(len(values), 1)))
        bins = {column: Bins.of(of_column, most_edges) for column, of_column in values.items()}
        counts = {column: b.count(values[column]) for column, b in bins.items()}
        cells, of_texts, varying = count_texts(texts or {}, language, day, seed, share)
        return cls(
            histograms={column: counts[column] for column in compared} | of_texts,
            summary={str(column): _summary(frame[column]) for column in frame},
            sample=_sample(frame, [*scores, *calendar], seed, max_rows),
            rows=len(frame),
            calendar=tuple(calendar),
            importance=dict(importance or {}),
            calibration=[dict(bin_) for bin_ in calibration],
            rows_of_weekday=list(rows_of_weekday),
            days=1 if day is None else len(np.unique(day)),
            design_effects=varying
            | (
                {c: measure(b, values[c], entities, day, seed).of_all(share) for c, b in bins.items()}
                if entities
                else {}
            ),
            label_effect=label_effect,
            unwatched={column: h for column, h in counts.items() if column not in compared},
            texts=cells,
        )

    @property
    def columns(self) -> list[str]:
        """Names of the compared columns."""
        return list(self.histograms)

    @property
    def counted(self) -> dict[str, Histogram]:
        """Counts of all columns, compared or not."""
        return {**self.histograms, **self.unwatched}

    def design_effect(self, column: str) -> DesignEffect:
        """The design effect of a column; 1 if no entity is declared."""
        return self.design_effects.get(column, DesignEffect())

    def merge(self, other: ReferenceProfile) -> ReferenceProfile:
        """Merges two profiles: counts add up exactly, and the sample takes rows in proportion to both row counts.

        Raises:
            ProfileError: the profiles do not have the same columns in the same bins.
        """
        theirs = other.counted
        for column, mine in self.counted.items():
            if column not in theirs or not mine.bins.same_as(theirs[column].bins):
                raise ProfileError(f"{column}: the profiles have different bins; build one from all rows")
        share = self.rows / (self.rows + other.rows)
        size = max(len(self.sample), len(other.sample))
        mine_rows = min(round(size * share), len(self.sample))
        sample = [self.sample.iloc[:mine_rows], other.sample.iloc[: min(size - mine_rows, len(other.sample))]]
        mixed = {
            name: {**summary, "missing": share * summary["missing"] + (1 - share) * other.summary[name]["missing"]}
            for name, summary in self.summary.items()
        }
        bound = {**self.design_effects, **other.design_effects}
        return ReferenceProfile(
            {column: mine + other.histograms[column] for column, mine in self.histograms.items()},
            mixed, pd.concat(sample, ignore_index=True), self.rows + other.rows, self.calendar, self.importance,
            self.calibration, self.rows_of_weekday, self.days + other.days,
            {column: self.design_effect(column) | other.design_effect(column) for column in bound},
            max(self.label_effect, other.label_effect),
            {column: mine + other.unwatched[column] for column, mine in self.unwatched.items()}, self.texts,
        )  # fmt: skip

    def save(self, directory: Path) -> None:
        """Writes ``sample.parquet``, ``profile.json``, and the cells of texts where there are any."""
        directory.mkdir(parents=True, exist_ok=True)
        save_texts(self.texts, directory)
        self.sample.to_parquet(directory / "sample.parquet", compression="zstd", index=False)
        stored = {
            "rows": self.rows,
            "calendar": self.calendar,
            "columns": self.summary,
            "importance": self.importance,
            "calibration": self.calibration,
            "rows_of_weekday": self.rows_of_weekday,
            "days": self.days,
            "design_effects": {column: [e.day, e.whole] for column, e in self.design_effects.items()},
            "label_effect": self.label_effect,
            "histograms": {column: _said(h) for column, h in self.histograms.items()},
            "unwatched": {column: _said(h) for column, h in self.unwatched.items()},
        }
        (directory / "profile.json").write_text(json.dumps(stored, separators=(",", ":")))

    @classmethod
    def load(cls, directory: Path) -> ReferenceProfile:
        """Reads the output of :meth:`save`. Raises :class:`ProfileError` if a part is missing or damaged."""
        try:
            stored = json.loads((directory / "profile.json").read_text())
            sample = pd.read_parquet(directory / "sample.parquet")
            return cls(
                histograms={column: _read(h) for column, h in stored["histograms"].items()},
                summary=stored["columns"],
                sample=sample,
                rows=stored["rows"],
                calendar=tuple(stored["calendar"]),
                importance=stored["importance"],
                calibration=stored["calibration"],
                rows_of_weekday=stored["rows_of_weekday"],
                days=stored["days"],
                design_effects={column: DesignEffect(*e) for column, e in stored["design_effects"].items()},
                label_effect=stored["label_effect"],
                unwatched={column: _read(h) for column, h in stored["unwatched"].items()},
                texts=load_texts(directory),
            )
        except (OSError, ValueError, KeyError) as error:
            raise ProfileError(
                f"{directory}: the reference profile cannot be read ({error}); train the model again to create one"
            ) from error


def calibration_of(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = 20, represented: np.ndarray | None = None
) -> list[dict[str, float]]:
    """Calibration bins by rising probability: mean probability, share of positives, number of rows.

    Half of the cuts are at equal numbers of rows and half at equal numbers of expected positives, because with rare
    positives most rows have low probabilities and few rows hold most positives.

    Args:
        probabilities: predicted probabilities, ``[n]``.
        truth: labels 0 or 1, ``[n]``.
        bins: approximate number of bins.
        represented: number of rows that each row stands for, ``[n]``; default: itself. The rows of all bins still add
            up to about ``n``, because no more than ``n`` were seen.
    """
    order = np.argsort(probabilities, kind="stable")
    p, n = probabilities[order], len(probabilities)
    standing = np.ones(n) if represented is None else represented[order] * (n / represented.sum())
    inner = np.arange(1, bins // 2) / (bins // 2)
    by_rows = (inner * n).astype(int) if represented is None else np.searchsorted(np.cumsum(standing), inner * n)
    expected = p if represented is None else p * standing
    by_positives = np.searchsorted(np.cumsum(expected), inner * expected.sum())
    cuts = np.unique([*by_rows, *by_positives])
    found = []
    for part in np.split(np.arange(n), cuts):
        if not len(part):
            continue
        said, was, of = p[part], truth[order[part]], None if represented is None else standing[part]
        rows = len(part) if of is None else max(1, round(float(of.sum())))
        found.append({"said": _mean(said, of), "was": _mean(was, of), "rows": rows})
    return found


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    return float(values.mean() if weights is None else np.average(values, weights=weights))


def _sample(frame: pd.DataFrame, together: Sequence[str], seed: int, max_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = min(len(frame), max_rows, MAX_SAMPLE_BYTES // (4 * max(frame.shape[1], 1)))
    chosen = np.sort(rng.permutation(len(frame))[:rows])
    sample = frame.iloc[chosen].reset_index(drop=True)
    alone = [column for column in frame if column not in together]
    return sample.assign(**{str(column): rng.permutation(sample[column].to_numpy()) for column in alone})


def _said(histogram: Histogram) -> dict[str, Any]:
    """A histogram with its bins, for JSON."""
    bins = histogram.bins
    edges = {"kind": bins.kind, "edges": _short(bins.edges), "low": bins.low, "high": bins.high}
    return {**edges, **histogram.to_json()}


def _read(stored: Mapping[str, Any]) -> Histogram:
    """Restores the output of :func:`_said`."""
    edges = np.asarray(stored["edges"], dtype=np.float32).astype(np.float64)
    return Histogram.from_json(Bins(stored["kind"], edges, stored["low"], stored["high"]), stored)


def _short(edges: np.ndarray) -> list[float]:
    """The shortest decimals that parse to the same float32 values."""
    return [float(str(edge)) for edge in edges.astype(np.float32)]


def _summary(column: pd.Series) -> dict[str, Any]:
    known = column.dropna().to_numpy(dtype=float)
    quantiles = zip(QUANTILES, np.quantile(known, QUANTILES), strict=True) if len(known) else ()
    return {
        "quantiles": {f"{q:g}": float(f"{value:.6g}") for q, value in quantiles},
        "mean": float(known.mean()) if len(known) else None,
        "std": float(known.std()) if len(known) else None,
        "missing": float(column.isna().mean()),
    }
