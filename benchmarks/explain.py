"""How precise an explanation is, and how long it takes: ``python -m benchmarks.explain DIR``, the folder of a bundle.

Belongs here: the error against many orders, and the time of an explained row beside that of a plain score. Does not
belong here: that contributions add up, which a test shows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.explain import explain
from assets.lifecycle.model.version.bundle import Bundle

ROWS = 3
"""Number of explained rows: the background rows with the highest scores."""
SEEDS = 20
"""Number of explanations whose mean is taken for the exact one; its own error is a fifth of theirs."""
REPEATS = 30


def milliseconds(act: Callable[[], object], repeats: int = REPEATS) -> np.ndarray:
    """Durations of ``repeats`` calls after one that is not counted, ``[repeats]``."""
    act()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1_000)
    return np.array(taken)


def main(folder: Path) -> None:
    """Prints the error and the times of a bundle."""
    import torch

    torch.set_num_threads(1)
    bundle = Bundle.load(folder).traced()
    features, background = features_of(bundle.model), bundle.background
    assert background is not None, "the bundle has no background rows"
    X = background[np.argsort(-bundle.predict(background))[:ROWS]]
    found = np.array([explain(bundle, features, X, seed=seed).contributions for seed in range(SEEDS)])
    exact = found.mean(axis=0)
    error, most = np.sqrt(((found - exact) ** 2).mean() * SEEDS / (SEEDS - 1)), np.abs(found - exact).max()
    largest = np.abs(exact).max()
    print(
        f"{len(features.names)} features, {len(set(features.explained))} explained, {len(background)} background rows"
    )
    print(f"largest contribution: {largest:.2g}")
    print(f"error of a contribution: {error:.2g} (root mean square), {most:.2g} (largest)")
    print(f"as a share of the largest contribution: {error / largest:.2%} and {most / largest:.2%}")
    plain = milliseconds(lambda: bundle.predict(X[:1]), 300)
    explained = milliseconds(lambda: explain(bundle, features, X[:1]))
    for name, taken in {"plain score": plain, "explained score": explained}.items():
        print(f"{name}: p50 {np.quantile(taken, 0.5):.2f} ms, p95 {np.quantile(taken, 0.95):.2f} ms")
    print(f"ratio of the medians: {np.median(explained) / np.median(plain):.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
