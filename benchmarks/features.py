"""Features: ours against pandas groupby-rolling, Polars and DuckDB, on the same rows in the same run.

All run on one thread; CPU seconds are those of all threads. What is given to them is what they read best: a frame in
order of time, with whole cents, and for DuckDB the frame as an Arrow table.

Belongs here: the peers (pandas is the tests' oracle too) and the comparison. Does not belong here: how good a model
gets with the features, memory at larger sizes (``memory.py``).
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.models.fraud.features import LABEL_DAYS, LOOKBACK_DAYS, WINDOWS, compute, compute_published
from assets.models.fraud.simulator import PaymentSimulator

if TYPE_CHECKING:
    import polars as pl

FIRST_DAY = dt.date(2018, 4, 1)
"""First of the 183 published days."""
FASTER = 10
"""pandas must need at least so many times our CPU seconds, or :func:`main` fails."""
AHEAD = ("Polars", "DuckDB")
"""Peers that must need at least our CPU seconds."""
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


def published_by_polars(payments: pl.DataFrame) -> pd.DataFrame:
    """The published 15 by Polars' rolling sums; float64 in the order of ``payments``, which is that of time."""
    import polars as pl

    time, day = pl.col("paid_at"), pl.col("paid_at").dt
    one, cents, fraud = (pl.col(name) for name in ("one", "cents", "is_fraud"))

    def rolling(column: pl.Expr, entity: str, days: int) -> pl.Expr:
        return column.rolling_sum_by("paid_at", f"{days}d").over(entity)

    made = [pl.col("amount"), day.weekday().ge(6).alias("is_weekend"), day.hour().le(6).alias("is_night")]
    for days in WINDOWS:
        count = rolling(one, "customer_id", days)
        made.append(count.alias(f"customer_count_{days}d"))
        made.append((rolling(cents, "customer_id", days) / count / 100).alias(f"customer_mean_{days}d"))
    young, young_frauds = (rolling(of, "terminal_id", LABEL_DAYS) for of in (one, fraud))
    for days in WINDOWS:
        known = rolling(one, "terminal_id", LABEL_DAYS + days) - young
        frauds = rolling(fraud, "terminal_id", LABEL_DAYS + days) - young_frauds
        made.append(known.alias(f"terminal_count_{days}d"))
        made.append((frauds / known).fill_nan(0).alias(f"terminal_fraud_share_{days}d"))
    numbers = pl.all().cast(pl.Float64)
    return payments.lazy().with_columns(time.set_sorted()).select(made).select(numbers).collect().to_pandas()


def published_by_duckdb(payments: pa.Table) -> pd.DataFrame:
    """The published 15 by DuckDB's window functions; float64 in the order of ``payments``."""
    import duckdb

    columns, windows = [], []
    for days in WINDOWS:
        # Both ends of a range are part of it, and times are whole seconds.
        since, late = f"interval '{days * 86_400 - 1} seconds'", f"interval '{LABEL_DAYS} days'"
        longer = f"interval '{(LABEL_DAYS + days) * 86_400 - 1} seconds'"
        windows += [
            f"c{days} as (partition by customer_id order by paid_at range between {since} preceding and current row)",
            f"t{days} as (partition by terminal_id order by paid_at range between {longer} preceding and {late} "
            "preceding)",
        ]
        columns += [
            f"count(*) over c{days} as customer_count_{days}d",
            f"sum(cents) over c{days} / count(*) over c{days} / 100 as customer_mean_{days}d",
            f"count(*) over t{days} as terminal_count_{days}d",
            f"coalesce(sum(is_fraud) over t{days} / count(*) over t{days}, 0) as terminal_fraud_share_{days}d",
        ]
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        connection.register("payments", payments)
        made = connection.sql(
            f"select amount, isodow(paid_at) >= 6 as is_weekend, hour(paid_at) <= 6 as is_night, {', '.join(columns)} "
            f"from payments window {', '.join(windows)} order by row"
        ).to_arrow_table()
    return made.to_pandas().astype(np.float64)


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
    one = one_payment(events)
    _, one_s = measured(lambda: [compute(one, np.array([len(one["label"]) - 1])) for _ in range(100)])
    given = payments.assign(cents=np.rint(payments["amount"] * 100).astype(np.int64), one=1, row=wanted)
    given["is_fraud"] = given["is_fraud"].astype(np.int64)
    arrow = pa.Table.from_pandas(given, preserve_index=False)
    frame = polars_frame(arrow)
    peers: dict[str, Callable[[], pd.DataFrame]] = {
        "Polars": lambda: published_by_polars(frame),
        "DuckDB": lambda: published_by_duckdb(arrow),
        "pandas": lambda: published_by_pandas(payments),
    }
    made = {name: measured(work) for name, work in peers.items()}
    differences = {name: largest_difference(payments, ours, theirs) for name, (theirs, _) in made.items()}

    rows = len(payments)
    print(f"{rows:,} payments, {tied(payments).sum():,} of them share customer and second with another")
    print(f"{'':28}{'features':>9}{'CPU s':>9}{'µs a row':>10}{'/ ours':>8}{'largest difference outside ties':>34}")
    print(f"{'ours, the published ones':28}{len(ours):>9}{ours_s:>9.2f}{ours_s / rows * 1e6:>10.2f}{1:>8}")
    for name, (_, seconds) in made.items():
        print(f"{name:28}{len(ours):>9}{seconds:>9.2f}{seconds / rows * 1e6:>10.2f}{seconds / ours_s:>8.1f}"
              f"{differences[name]:>34.1e}")  # fmt: skip
    print(f"{'ours, all':28}{len(every):>9}{every_s:>9.2f}{every_s / rows * 1e6:>10.2f}{every_s / ours_s:>8.1f}")
    print(f"pandas must be at least {FASTER}, {' and '.join(AHEAD)} at least 1, and a difference at most {CLOSE:.0e}")
    print(f"one payment, with {len(one['label']) - 1} earlier ones of customer and terminal: {one_s * 10:.2f} ms (CPU)")
    print(
        f"peak memory: payments {before:.2f} GB, then ours {ours_gb:.2f} GB, then the peers {peak_gigabytes():.2f} GB"
    )
    behind = made["pandas"][1] < FASTER * ours_s or any(made[name][1] < ours_s for name in AHEAD)
    if behind or max(differences.values()) > CLOSE:
        raise SystemExit("features: not fast enough, or not equal to a peer; see the figures above")


def polars_frame(table: pa.Table) -> pl.DataFrame:
    """A frame of Polars on one thread, as all others here."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is imported
    import polars as pl

    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


if __name__ == "__main__":
    main()
