"""Tables made for the benchmarks, of shapes that the two real ones lack; each with a seed, none learnt from anywhere.

Belongs here: making a table. Does not belong here: what is measured on it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

WORDS = [
    "late",
    "damaged",
    "broken",
    "refund",
    "angry",
    "slow",
    "missing",
    "wrong",
    "terrible",
    "waiting",
    "happy",
    "great",
    "fast",
    "thanks",
    "perfect",
    "love",
    "easy",
    "helpful",
    "invoice",
    "card",
    "charge",
    "password",
    "login",
    "account",
    "screen",
    "update",
    "crash",
    "install",
    "button",
    "delivery",
    "parcel",
    "courier",
    "address",
    "box",
    "price",
    "discount",
    "order",
    "size",
    "colour",
    "fabric",
]
NOISE_WORDS = [
    f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te", "vo", "sa", "ne") for b in ("n", "r", "sto", "lim", "pra")
]


def machines(rows: int = 50_000, seed: int = 0) -> pd.DataFrame:
    """Four classes of machine failure from mixed kinds of columns; boundaries that cross, and noise."""
    rng = np.random.default_rng(seed)
    heat, load, age = rng.normal(60, 15, rows), rng.gamma(2.0, 20.0, rows), rng.integers(0, 4_000, rows)
    maker = rng.choice(["Acme", "Borg", "Cyan", "Dolt", "Eden"], rows, p=[0.4, 0.25, 0.2, 0.1, 0.05])
    wet = rng.random(rows) < 0.3
    score = np.column_stack(
        [
            np.full(rows, 1.0),
            0.06 * (heat - 60) + 1.2 * (maker == "Borg") * (load > 50),
            np.sin(age / 500) + 0.02 * load * wet,
            -0.001 * (heat - 45) * (load - 40) * 0.5 + 0.8 * (maker == "Dolt") - 0.0002 * age,
        ]
    )
    chosen = (score + rng.gumbel(size=score.shape) * 0.6).argmax(axis=1)
    made = pd.Timestamp(2015, 1, 1) + pd.to_timedelta(rng.integers(0, 3_000, rows), "D")
    frame = pd.DataFrame({
        "Machine No": [f"M-{n:06d}" for n in range(rows)], "Heat (°C)": heat.round(1), "Load %": load.round(2),
        "Hours since service": age, "maker": maker, "wet": np.where(wet, "Y", "N"),
        "installed": made.strftime("%d.%m.%Y"),
        "Failure": np.array(["none", "bearing", "belt", "motor"])[chosen],
    })  # fmt: skip
    frame.loc[rng.random(rows) < 0.05, "Load %"] = np.nan
    return frame


def tickets(rows: int = 6_000, seed: int = 0) -> pd.DataFrame:
    """Whether a customer leaves, from what they wrote (words and pairs of words) and two numbers."""
    rng = np.random.default_rng(seed)
    weight = dict(zip(WORDS, rng.normal(0, 1.0, len(WORDS)), strict=True))
    texts, told = [], np.zeros(rows)
    for row in range(rows):
        length = int(rng.integers(4, 25))
        words = list(rng.choice(WORDS + NOISE_WORDS * 3, length))
        told[row] = sum(weight.get(word, 0.0) for word in words)
        if rng.random() < 0.3:
            words.append("not happy" if rng.random() < 0.5 else "happy not")
            told[row] += 1.5 if words[-1] == "not happy" else -1.5
        texts.append(" ".join(words).capitalize() + ".")
    months = rng.integers(1, 60, rows)
    leave = rng.random(rows) < 1 / (1 + np.exp(-(told - 0.03 * months)))
    return pd.DataFrame({"ticket_id": np.arange(rows) + 1_000, "message": texts, "months": months,
                         "open_cases": rng.poisson(2, rows), "left": np.where(leave, "yes", "no")})  # fmt: skip


def energy(rows: int = 4_000, seed: int = 0) -> pd.DataFrame:
    """A measured value: smooth in some columns, with steps in others, and noise in the target."""
    rng = np.random.default_rng(seed)
    area, people, outside = rng.gamma(4.0, 25.0, rows), rng.integers(1, 7, rows), rng.normal(9, 8, rows)
    kind = rng.choice(["flat", "terraced", "detached"], rows)
    pump = rng.random(rows) < 0.4
    use = area * np.maximum(18 - outside, 0) * np.select([kind == "flat", kind == "terraced"], [0.5, 0.8], 1.1)
    use = use * np.where(pump, 0.4, 1.0) + 150 * people + 300 * (outside < -5) + rng.normal(0, 120, rows)
    return pd.DataFrame({"area": area.round(1), "people": people, "outside": outside.round(1), "kind": kind,
                         "heat_pump": pump, "noise": rng.normal(size=rows).round(3), "use": use.round(1)})  # fmt: skip


def spending(rows: int = 12_000, seed: int = 0) -> pd.DataFrame:
    """A measured value that is a line in the columns, with much noise: where a linear model cannot be beaten."""
    rng = np.random.default_rng(seed)
    when = pd.Timestamp(2026, 3, 1) + pd.to_timedelta(np.sort(rng.integers(0, 180 * 86_400, rows)), "s")
    shop, items = rng.choice(list("ABC"), rows), rng.integers(1, 20, rows)
    spent = 3.1 * items + 9.0 * (shop == "A") + rng.normal(0, 8, rows)
    return pd.DataFrame({"When": when, "Shop": shop, "items": items, "spent": spent.round(2)})
