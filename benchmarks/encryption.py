"""What encryption costs: CPU to write and to read a day of payments with it, as a ratio to the same without.

``python -m benchmarks.encryption``. Both are measured in turns in the same process, so a busy machine slows both.
"""

from __future__ import annotations

import base64
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

import dagster as dg
import numpy as np
import pandas as pd

ROUNDS = 40
ROWS = 3_500
"""Rows of a day of the example, small world."""


def payments(rows: int) -> pd.DataFrame:
    """A day of payments as the cleaned table has them."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "row_id": pd.array([f"{n:032x}" for n in random.integers(0, 2**62, rows)], dtype="string[pyarrow]"),
            "landing_day": pd.Timestamp("2026-06-11"),
            "transaction_id": np.arange(rows),
            "paid_at": pd.Timestamp("2026-06-11") + pd.to_timedelta(random.integers(0, 86_400, rows), unit="s"),
            "customer_id": random.integers(0, 5_000, rows),
            "terminal_id": random.integers(0, 10_000, rows),
            "amount": random.gamma(2, 25, rows).round(2),
        }
    )


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Prints the ratios."""
    for purpose in ("TABLES", "PERSONAL"):
        os.environ[f"ASSETLINE_KEY_{purpose}"] = base64.b64encode(os.urandom(32)).decode()
    from resources.tables import ParquetTables

    for rows in (ROWS, 100 * ROWS):
        frame, key = payments(rows), dg.AssetKey(["fraud", "payments"])
        with tempfile.TemporaryDirectory() as folder:
            tables = ParquetTables(root=folder)
            spent: dict[tuple[str, str], list[float]] = {}
            for _ in range(ROUNDS if rows == ROWS else 8):
                for kind in ("false", "true"):
                    os.environ["ASSETLINE_ENCRYPT"] = kind
                    write = cpu(partial(tables.write, key, frame, kind, personal=["customer_id"]))
                    read = cpu(partial(tables.read, key, [kind]))
                    spent.setdefault(("write", kind), []).append(write)
                    spent.setdefault(("read", kind), []).append(read)
            sizes = [tables.size(key, kind) for kind in ("false", "true")]
        for what in ("write", "read"):
            plain, sealed = (statistics.median(spent[what, kind]) for kind in ("false", "true"))
            print(f"{rows:,} rows, {what}: {plain * 1000:.1f} ms plain, {sealed * 1000:.1f} ms encrypted, "
                  f"{sealed / plain:.2f} times")  # fmt: skip
        print(f"{rows:,} rows, file: {sizes[1] / sizes[0]:.3f} times the bytes")


if __name__ == "__main__":
    main()
