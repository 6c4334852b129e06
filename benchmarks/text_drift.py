"""How often the drift check is wrong about texts: cells of their vectors, beside two other tests on the same windows.

    python -m benchmarks text_drift                 tweets on finance and questions to a bank, 200 pairs of windows each

The vectors of all texts are computed once. A world draws days of tweets; on each day the shares of 12 kinds of text
vary, as they do where texts follow events. A reference is a week, a window one day. The changes put texts of another
source (questions to a bank) into the windows, or change the mix of kinds.

The others: ``mean`` compares the mean vector with the reference's days (Hotelling on 3 principal components), and
``MMD`` is a permutation test with a Gaussian kernel, which takes texts as independent.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from assets.declaration import Drift
from assets.language import MINILM
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.monitoring.drift_rule import EarlierWindow, WindowCounts, compare
from assets.lifecycle.profile.reference import ReferenceProfile

KINDS, VARYING = 12, 150.0
"""Kinds of text, and the concentration of their shares: the lower, the more a day's mix varies."""
DAYS = 7


def main() -> None:
    """Prints the table; fails if the rule warns or pages more often without a change than it claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--texts", type=int, default=3_000)
    given = parser.parse_args()
    folder = os.environ.get("ASSETLINE_TEST_DATA")
    if not folder:
        raise SystemExit("set ASSETLINE_TEST_DATA to the folder with the tables of texts")
    tweets, questions = (_vectors(path, given.texts) for path in _files(Path(folder)))
    kinds = _kinds(tweets)
    changes = {"none": 0.0, "5 % of another source": 0.05, "10 %": 0.1, "20 %": 0.2, "another mix": -1.0}
    table = Table(title="Texts: windows that warned, pairs that paged, and two other tests at .03")
    for name in ("change", "texts a day", "warned", "paged within two", "mean", "MMD"):
        table.add_column(name, justify="right")
    wrong = []
    for rows in (150, 400):
        for change, share in changes.items():
            trials = given.trials if change == "none" else given.trials // 4
            found = np.array([_trial(tweets, questions, kinds, rows, share, seed) for seed in range(trials)])
            warned, paged, mean, mmd = found.mean(axis=0)
            table.add_row(change, f"{rows}", f"{warned:.1%}", f"{paged:.1%}", f"{mean:.1%}", f"{mmd:.1%}")
            if change == "none" and (warned > 0.06 or paged > 0.02):
                wrong.append(f"without a change {warned:.1%} warned and {paged:.1%} paged at {rows} texts a day")
    Console(width=110).print(table)
    if wrong:
        raise SystemExit("; ".join(wrong))


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "finance_tweets.csv", folder / "banking77_train.csv"


def _vectors(path: Path, texts: int) -> np.ndarray:
    column = pd.read_csv(path)
    text = next(name for name in ("text", "tweet", "question", "sentence") if name in column)
    return vectors_of(column[text].dropna().sample(frac=1, random_state=0)[:texts].to_numpy())


def _kinds(vectors: np.ndarray) -> np.ndarray:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(KINDS, n_init=2, random_state=1).fit_predict(vectors))


def _trial(
    tweets: np.ndarray, questions: np.ndarray, kinds: np.ndarray, rows: int, share: float, seed: int
) -> tuple[float, bool, float, float]:
    rng = np.random.default_rng(seed)
    usual = np.bincount(kinds, minlength=KINDS) / len(kinds)
    members = [np.flatnonzero(kinds == kind) for kind in range(KINDS)]

    def day(mix: np.ndarray) -> np.ndarray:
        drawn = rng.choice(KINDS, rows, p=rng.dirichlet(VARYING * mix))
        return tweets[[rng.choice(members[kind]) for kind in drawn]]

    past = [day(usual) for _ in range(DAYS)]
    reference = ReferenceProfile.build(
        pd.DataFrame(index=range(rows * DAYS)), {}, day=np.repeat(np.arange(DAYS), rows),
        texts={"text": np.concatenate(past)}, language=MINILM, seed=seed,
    )  # fmt: skip
    other = usual.copy()
    if share < 0:
        other[:3] *= 2.5
        other /= other.sum()
    windows = []
    for _ in range(2):
        vectors = day(other)
        if share > 0:
            new = rng.random(rows) < share
            vectors[new] = questions[rng.integers(0, len(questions), int(new.sum()))]
        windows.append(vectors)
    drift = Drift(min_rows=100)
    # Two columns more, as every model of classes has: score and predicted class.
    rule = Drift(min_rows=100, alpha=drift.alpha / 3, page_alpha=drift.page_alpha / 3)
    cells = reference.texts["text"]
    counted = [WindowCounts({"text": cells.bins.count(cells.of(one))}) for one in windows]
    first = compare(reference, counted[0], rule, day="1")
    before = EarlierWindow("1", counted[0], True, {c.column: c for c in first.columns}, first.since)
    second = compare(reference, counted[1], rule, day="2", before=[before])
    warned = np.mean([first.level != "ok", second.level != "ok"])
    return float(warned), second.level == "page", _mean_test(past, windows[0]), _mmd(past, windows[0], rng)


def _mean_test(past: list[np.ndarray], now: np.ndarray, parts: int = 3) -> float:
    """Hotelling's test of the day's mean against the means of the reference's days, in a few principal components."""
    from scipy.stats import f

    means = np.array([one.mean(axis=0) for one in past])
    centre = means.mean(axis=0)
    axes = np.linalg.svd(np.concatenate(past) - centre, full_matrices=False)[2][:parts]
    projected, today = (means - centre) @ axes.T, (now.mean(axis=0) - centre) @ axes.T
    n = len(past)
    covariance = np.cov(projected.T) * (1 + 1 / n)
    statistic = float(today @ np.linalg.solve(covariance, today)) * (n - parts) / (parts * (n - 1))
    return float(f.sf(statistic, parts, n - parts) < 0.03)


def _mmd(past: list[np.ndarray], now: np.ndarray, rng: np.random.Generator, features: int = 128) -> float:
    """Permutation test of the maximum mean discrepancy, by random features of a Gaussian kernel."""
    both = np.concatenate([*past, now])
    weights = rng.normal(size=(both.shape[1], features)) * 1.5
    mapped = np.cos(both @ weights + rng.uniform(0, 2 * np.pi, features))
    n = len(now)
    total = mapped.sum(axis=0)

    def distance(chosen: np.ndarray) -> float:
        of_now = mapped[chosen].sum(axis=0)
        return float(((of_now / n - (total - of_now) / (len(both) - n)) ** 2).sum())

    observed = distance(np.arange(len(both) - n, len(both)))
    drawn = [distance(rng.permutation(len(both))[:n]) for _ in range(99)]
    return float((1 + sum(one >= observed for one in drawn)) / 100 < 0.03)


if __name__ == "__main__":
    main()
