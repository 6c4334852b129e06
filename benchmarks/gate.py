"""How often the gate refuses an equal challenger, and how often it promotes a worse one.

    python -m benchmarks.gate                all, 400 trials each (50 of 50,000 rows): about 20 minutes on one core
    python -m benchmarks.gate --trials 50    quicker, and less sure

Champion and challenger score the same rows. Within a class their scores are normal and correlated. Real candidates were
correlated at .98 to .99 (Telco, each fitted without another fifth of the rows), and at .99 in frauds and .8 to .9 in
other payments (the fraud example, fitted a week apart). The rule is the one of the gate with its default margin: the
lower 95 % bound of the paired difference has to be above it. Claims: a challenger that is worse by more than the margin
is promoted in at most 10 % of the trials at every size; an equal one is refused in at most 10 % from 5,000 rows on
(AUC, correlation .98).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from assets.declaration import Gate
from assets.lifecycle.model.gate import Evidence, judge
from assets.lifecycle.model.metrics import Curve, Estimate, Ranking, paired_difference
from assets.lifecycle.model.metrics.evaluate import MIN_FOR_INTERVAL

SIZES = (500, 5_000, 50_000)
LOSSES = (0.0, 0.01, 0.02, 0.05)
MOST = 0.10
SETTINGS = {
    # metric, share of positives, the champion's value
    "AUC, 10 % positive": ("roc_auc", 0.10, 0.85),
    "AP, 1 % positive": ("average_precision", 0.01, 0.60),
}


def distance(metric: str, rate: float, value: float) -> float:
    """How many standard deviations apart the classes' scores are for a model of this quality."""
    if metric == "roc_auc":
        return float(np.sqrt(2) * norm.ppf(value))
    # Average precision as an integral over the thresholds; it rises with the distance.
    low, high = 0.0, 10.0
    threshold = np.linspace(12, -6, 20_001)
    while high - low > 1e-6:
        middle = (low + high) / 2
        recall = norm.sf(threshold - middle)
        precision = rate * recall / np.maximum(rate * recall + (1 - rate) * norm.sf(threshold), 1e-300)
        average = float(np.sum(np.diff(recall) * precision[1:]))
        low, high = (middle, high) if average < value else (low, middle)
    return low


def scored(
    rng: np.random.Generator, n: int, rate: float, apart: Sequence[float], correlation: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels ``[n]`` with the expected number of positives, and the scores ``[n]`` of champion and challenger."""
    y = (np.arange(n) < round(n * rate)).astype(float)
    shared, own = rng.normal(size=n), rng.normal(size=n)
    noise = (shared, correlation * shared + np.sqrt(1 - correlation**2) * own)
    return y, [far * y + part for far, part in zip(apart, noise, strict=True)]


def promoted(metric: str, y: np.ndarray, champion: np.ndarray, challenger: np.ndarray, gate: Gate, seed: int) -> bool:
    """Whether the rule on the champion lets the challenger through."""

    def of(curve: Curve) -> float:
        return curve.average_precision if metric == "average_precision" else curve.roc_auc

    values = [of(Ranking.of(y, scores).curve()) for scores in (challenger, champion)]
    candidate, other = ({metric: value} for value in values)
    difference = paired_difference(y, challenger, champion, of, seed=seed)
    if y.sum() < MIN_FOR_INTERVAL:  # as in an evaluation
        difference = Estimate(difference.value)
    verdict = judge(
        gate, Evidence(candidate=candidate, baseline=candidate, champion=other, against_champion={metric: difference})
    )
    return next(reason.passed for reason in verdict.reasons if reason.rule == "champion")


def main() -> int:
    """Prints one table per setting."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=400)
    arguments.add_argument("--correlation", type=float, nargs="+", default=[0.98, 0.9])
    arguments.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    chosen = arguments.parse_args()
    failed: list[str] = []
    for name, (metric, rate, value) in SETTINGS.items():
        gate = Gate(metric=metric, floor=0.0)
        for correlation in chosen.correlation:
            print(f"\n{name}, champion {value}, margin {gate.margin}, correlation {correlation}; promoted, % of trials")
            columns = ["equal" if not loss else f"-{100 * loss:g} points" for loss in LOSSES]
            print(f"{'rows':>8} " + "".join(f"{column:>12}" for column in columns))
            for n in chosen.sizes:
                trials = max(1, chosen.trials // 8) if n > 5_000 else chosen.trials
                shares = {}
                for loss in LOSSES:
                    apart = [distance(metric, rate, value), distance(metric, rate, value - loss)]
                    rng = np.random.default_rng([n, int(1000 * loss)])
                    through = [
                        promoted(metric, *scored_pair, gate, seed)
                        for seed in range(trials)
                        for y, (first, second) in [scored(rng, n, rate, apart, correlation)]
                        for scored_pair in [(y, first, second)]
                    ]
                    shares[loss] = float(np.mean(through))
                print(f"{n:>8,} " + "".join(f"{100 * share:>12.1f}" for share in shares.values()), flush=True)
                failed += [
                    f"{name}, {n:,} rows: worse by {loss} is promoted in {share:.0%}"
                    for loss, share in shares.items()
                    if loss > -gate.margin and share > MOST
                ]
                if metric == "roc_auc" and correlation >= 0.98 and n >= 5_000 and 1 - shares[0.0] > MOST:
                    failed.append(f"{name}, {n:,} rows: an equal one is refused in {1 - shares[0.0]:.0%}")
    print("\n" + ("\n".join(["not as claimed:", *failed]) if failed else "as claimed"))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
