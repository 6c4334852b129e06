"""Features: ours against pandas groupby-rolling, on the same rows in the same run.

Belongs here: the pandas peer (which is the tests' oracle too) and the comparison. Does not belong here: how good a
model gets with the features.
"""

from __future__ import annotations

import argparse
import datetime as dt
import resource
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from assets.models.fraud.features import LABEL_DAYS, LOOKBACK_DAYS, WINDOWS, compute, compute_published
from assets.models.fraud.simulator import PaymentSimulator

FIRST_DAY = dt.date(2018, 4, 1)
"""First of the 183 published days."""
FASTER = 10
"""pandas must need at least so many times our CPU seconds, or :func:`main` fails."""
CLOSE = 1e-3
"""Largest difference that float32 explains: means go up to a few thousand."""

Result = TypeVar("Result")


def events_of(payments: pd.DataFrame) -> dict[str, np.ndarray]:
    """What a features function gets of simulated payments, every label among it, however young."""
    columns = ("transaction_id", "paid_at", "customer_id", "terminal_id", "amount")
    return {name: payments[name].to_numpy() for name in columns} | {"label": payments["is_fraud"].to_numpy(np.float64)}


def published_by_pandas(payments: pd.DataFrame) -> pd.DataFrame:
    """The published 15 by groupby-rolling: float64, the index of ``payments``, which must be in order of time."""

    def rolling(entity: str, column: str, days: int) -> tuple[pd.Series, pd.Series]:
        """Number of the entity's rows in the days up to each row, the row included, and the column's sum."""
        window = payments.groupby(entity).rolling(f"{days}D", on="paid_at")[column]
        row = payments.index[np.argsort(payments[entity].to_numpy(), kind="stable")]  # one entity after the other
        return pd.Series(window.count().to_numpy(), row), pd.Series(window.sum().to_numpy(), row)

    paid_at = payments["paid_at"]
    made = {"amount": payments["amount"], "is_weekend": paid_at.dt.weekday >= 5, "is_night": paid_at.dt.hour <= 6}
    for days in WINDOWS:
        count, total = rolling("customer_id", "amount", days)
        made |= {f"customer_count_{days}d": count, f"customer_mean_{days}d": total / count}
    young, young_frauds = rolling("terminal_id", "is_fraud", LABEL_DAYS)
    for days in WINDOWS:
        count, frauds = rolling("terminal_id", "is_fraud", LABEL_DAYS + days)
        known, known_frauds = count - young, frauds - young_frauds
        made |= {f"terminal_count_{days}d": known, f"terminal_fraud_share_{days}d": (known_frauds / known).fillna(0)}
    return pd.DataFrame(made, index=payments.index).astype(np.float64)


def tied(payments: pd.DataFrame) -> np.ndarray:
    """Rows whose customer paid twice in that second: pandas shows the first to the second, ours shows neither.

    At a terminal such rows take each other out of the count (15 days less 7 days), in pandas as well.
    """
    return payments.duplicated(["customer_id", "paid_at"], keep=False).to_numpy()


def largest_difference(payments: pd.DataFrame, ours: dict[str, np.ndarray], theirs: pd.DataFrame) -> float:
    """Over all features and the rows outside ties; infinite where one is missing and the other is not."""
    clear = ~tied(payments)
    return max(
        float(np.nan_to_num(np.abs(ours[str(name)] - theirs[name].to_numpy())[clear], nan=np.inf).max())
        for name in theirs
    )


def one_payment(events: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The latest payment, last, and what the endpoint remembers for it: its customer's and its terminal's lookback."""
    near = events["paid_at"] > events["paid_at"][-1] - np.timedelta64(LOOKBACK_DAYS, "D")
    near &= (events["customer_id"] == events["customer_id"][-1]) | (events["terminal_id"] == events["terminal_id"][-1])
    return {name: values[near] for name, values in events.items()}


def measured(work: Callable[[], Result]) -> tuple[Result, float]:
    """The result, and the CPU seconds of the best of three runs: the first one also pays for fresh memory."""
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        result = work()
        seconds.append(time.process_time() - begun)
    return result, min(seconds)


def peak_gigabytes() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the comparison; ends with an error where ours is not fast enough or not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5_000, help="customers; terminals are twice as many")
    parser.add_argument("--days", type=int, default=183, help="days of payments")
    size = parser.parse_args(arguments)

    source = PaymentSimulator(customers=size.customers, terminals=2 * size.customers)
    payments = source.payments(FIRST_DAY, FIRST_DAY + dt.timedelta(days=size.days - 1))
    events, wanted = events_of(payments), np.arange(len(payments))
    before = peak_gigabytes()
    ours, ours_s = measured(lambda: compute_published(events, wanted))
    every, every_s = measured(lambda: compute(events, wanted))
    ours_gb = peak_gigabytes()
    theirs, theirs_s = measured(lambda: published_by_pandas(payments))
    one = one_payment(events)
    _, one_s = measured(lambda: [compute(one, np.array([len(one["label"]) - 1])) for _ in range(100)])
    difference, ratio = largest_difference(payments, ours, theirs), theirs_s / ours_s

    rows = len(payments)
    print(f"{rows:,} payments, {tied(payments).sum():,} of them share customer and second with another")
    print(f"{'':28}{'features':>9}{'CPU s':>9}{'µs a row':>10}")
    for name, count, seconds in [
        ("pandas groupby-rolling", len(ours), theirs_s),
        ("ours, the published ones", len(ours), ours_s),
        ("ours, all", len(every), every_s),
    ]:
        print(f"{name:28}{count:>9}{seconds:>9.2f}{seconds / rows * 1e6:>10.2f}")
    print(f"pandas / ours, published ones: {ratio:.0f} times the CPU (at least {FASTER})")
    print(f"one payment, with {len(one['label']) - 1} earlier ones of customer and terminal: {one_s * 10:.2f} ms (CPU)")
    print(f"largest difference outside ties: {difference:.1e} (at most {CLOSE:.0e}: float32)")
    print(f"peak memory: payments {before:.2f} GB, then ours {ours_gb:.2f} GB, then pandas {peak_gigabytes():.2f} GB")
    if ratio < FASTER or difference > CLOSE:
        raise SystemExit("features: not fast enough, or not equal to pandas; see the figures above")


if __name__ == "__main__":
    main()
