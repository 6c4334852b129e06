"""How often a rollout takes back a version that is as good as the one in production, and how soon a bad one.

    python -m benchmarks.rollout                  200 trials of each version: about 15 minutes on one core
    python -m benchmarks.rollout --trials 20      quicker, and less sure

A trial is one rollout with the default limits, judged every :data:`LOOK` rows, as the sensor does. Both versions score
the same rows, and an entity has many rows. High scores are rare, as those of fraud, and the logits of the two versions
are correlated at .98. Claims: a version that is as good arrives in at least 95 % of the trials, and each bad one is
taken back in at least 95 %.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model, Rollout, Table
from assets.lifecycle.release.paired_answers import Pairs, compare
from assets.lifecycle.release.rollout import judge_step, next_share
from resources.ledger import Entry
from resources.sources import CsvFile

LOOK = 100
"""Rows between two looks."""
MOST_LOOKS = 60
"""Looks of one step; after them the step counts as too long."""
LEAST = 0.95


@dataclass(frozen=True)
class Version:
    """What the new version does with the rows ``n`` of a look: scores, milliseconds, and which it cannot score."""

    scores: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    slower: float = 1.0
    lost: float = 0.0
    good: bool = True


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Probabilities of logits."""
    return 1 / (1 + np.exp(-logit))


def close(rng: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    """Scores correlated at .98 with the champion's."""
    return sigmoid(-5 + 2 * (0.98 * (logit + 5) / 2 + np.sqrt(1 - 0.98**2) * rng.normal(size=len(logit))))


VERSIONS = {
    "the same": Version(lambda _, logit: sigmoid(logit)),
    "as good, correlated at .98": Version(close),
    "as good, 20 % slower": Version(close, slower=1.2),
    "as good, .2 % of the rows lost": Version(close, lost=0.002),
    "constant score": Version(lambda _, logit: np.full(len(logit), 0.5), good=False),
    "scores 3 times as high": Version(lambda _, logit: np.minimum(3 * sigmoid(logit), 1.0), good=False),
    "2.5 times as slow": Version(close, slower=2.5, good=False),
    "3 % of the rows lost": Version(close, lost=0.03, good=False),
    "every row lost": Version(close, lost=1.0, good=False),
}


def rolled(version: Version, rollout: Rollout, model: Model, seed: int) -> tuple[str, int]:
    """Plays one rollout; returns ``arrived``, ``taken back`` or ``too long``, and the rows until then."""
    rng, rows, share, began = np.random.default_rng(seed), 0, 0.0, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    entities = rng.normal(size=400)
    while share < 1:
        entry = Entry(id=1, model="m", number=1, action="canary" if share else "shadow", version="2", previous="1",
                      reason="", verdicts={"share": share}, dagster_run="", who="", at=began)  # fmt: skip
        parts = [_part(rng, version, entities, 0)]
        for look in range(1, MOST_LOOKS + 1):
            pairs = _joined(parts)
            step = judge_step(rollout, entry, len(pairs), compare(model, rollout, pairs, pairs, pd.Series(dtype=float)),
                              began + dt.timedelta(minutes=rollout.minutes))  # fmt: skip
            if step.action != "wait":
                break
            parts.append(_part(rng, version, entities, look))
        rows += len(pairs)
        if step.action == "abort":
            return "taken back", rows
        if step.action == "wait":
            return "too long", rows
        share = next_share(rollout, share)
    return "arrived", rows


def _part(rng: np.random.Generator, version: Version, entities: np.ndarray, look: int) -> Pairs:
    entity = rng.integers(0, len(entities), LOOK)
    logit = -5 + 2 * (0.7 * entities[entity] + 0.714 * rng.normal(size=LOOK))
    new, lost = version.scores(rng, logit), rng.random(LOOK) < version.lost
    new[lost] = np.nan
    key = np.arange(look * LOOK, (look + 1) * LOOK).astype(object)
    times = rng.lognormal(0, 0.3, (2, LOOK))
    return Pairs(key, key, entity.astype(object), sigmoid(logit), new, times[0], version.slower * times[1], lost,
                 np.zeros(LOOK, bool))  # fmt: skip


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate([getattr(one, name) for one in parts]) for name in Pairs.__dataclass_fields__))


def declared() -> Model:
    """A model with a rollout; only its gate's metric is read."""
    import pandera.pandas as pa

    contract = pa.DataFrameModel
    rows = type("Rows", (contract,), {"__annotations__": {"id": int, "bad": bool}})
    return Model(name="m", table=Table(name="rows", source=CsvFile(path="-"), key="id", contract=rows), target="bad",
                 rollout=Rollout())  # fmt: skip


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints how each version ended; whether the claims hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    trials, model, held = parser.parse_args(arguments).trials, declared(), True
    assert model.rollout is not None
    print(f"{'version':32}  arrived  taken back   too long   median rows   of {trials} trials each")
    for name, version in VERSIONS.items():
        ends = [rolled(version, model.rollout, model, seed) for seed in range(trials)]
        shares = {end: sum(one == end for one, _ in ends) / trials for end in ("arrived", "taken back", "too long")}
        rows = np.median([n for _, n in ends])
        cells = "  ".join(f"{share:9.1%}" for share in shares.values())
        print(f"{name:32}{cells}  {rows:12,.0f}", flush=True)
        held &= shares["arrived" if version.good else "taken back"] >= LEAST
    return held


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)
