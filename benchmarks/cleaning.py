"""Cleaning: ours against pandas, Polars and DuckDB, on the same landed rows in the same run.

Each turns text into typed rows, refuses what breaks a rule, with the rule, drops later copies of a payment, and orders
the rest by time. Ours also checks the contract by pandera and says the reasons as the quarantine shows them. All run on
one thread.

Belongs here: the peers and the comparison. Does not belong here: memory at larger sizes (``memory.py``).
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.lifecycle.data.event_days import in_order
from assets.lifecycle.data.landing import LANDING_DAY, number_rows
from assets.lifecycle.data.row_outcomes import first_of_keys, type_and_refuse
from assets.models.fraud import model
from assets.models.fraud.simulator import PaymentSimulator
from assets.models.fraud.tables import MAX_AMOUNT, MAX_ENTITIES
from benchmarks.features import FIRST_DAY, measured, polars_frame

if TYPE_CHECKING:
    import polars as pl

WHOLE = r"\d{1,18}"
AMOUNT = r"-?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?"
MOMENT = r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}"
IDS, TIMES = ("transaction_id", "customer_id", "terminal_id"), ("paid_at", "arrived_at")
LATE = model.table.late_days

Cleaned = tuple[pd.DataFrame, int]
"""The clean rows in order of time, then key, and the number of refused rows."""


def by_us(raw: pd.DataFrame) -> Cleaned:
    """The functions of the lifecycle."""
    accepted, refused = type_and_refuse(raw, model.table)
    first = first_of_keys(accepted[model.table.key].to_numpy(), accepted[LANDING_DAY].to_numpy(), LATE)
    return in_order(accepted[first], model.table), len(refused)


def by_pandas(raw: pd.DataFrame) -> Cleaned:
    """As one writes it with pandas: the readers of pandas, then one mask a rule."""
    typed = raw[[LANDING_DAY]].copy()
    for name in IDS:
        text = raw[name].str.strip()
        typed[name] = pd.to_numeric(text.where(text.str.fullmatch(WHOLE).fillna(False)), errors="coerce")
    text = raw["amount"].str.strip()
    text = text.where(text.str.fullmatch(AMOUNT).fillna(False)).str.replace(",", "")
    typed["amount"] = pd.to_numeric(text, errors="coerce").astype("float64").round(2)
    for name in TIMES:
        typed[name] = pd.to_datetime(raw[name].str.strip(), format="%Y-%m-%d %H:%M:%S", errors="coerce")
    lag = (typed[LANDING_DAY] - typed["paid_at"].dt.floor("D")).dt.days
    rules = [typed[name].notna() for name in (*IDS, *TIMES, "amount")]
    rules += [typed[name] < MAX_ENTITIES for name in ("customer_id", "terminal_id")]
    rules += [typed["amount"] > 0, typed["amount"] <= MAX_AMOUNT, lag >= 0, lag <= LATE]
    sound = np.logical_and.reduce([rule.fillna(False).to_numpy(dtype=bool) for rule in rules])
    accepted = typed[sound].astype(dict.fromkeys(IDS, "int64"))
    before = accepted.groupby("transaction_id", sort=False)[LANDING_DAY].shift()
    accepted = accepted[~((accepted[LANDING_DAY] - before).dt.days <= LATE)]
    return accepted.sort_values(["paid_at", "transaction_id"], ignore_index=True), int((~sound).sum())


def by_polars(raw: pl.DataFrame) -> Cleaned:
    """One lazy query of Polars for the clean rows, and one for the others."""
    import polars as pl

    col = pl.col

    def only(name: str, pattern: str) -> pl.Expr:
        text = col(name).str.strip_chars()
        return pl.when(text.str.contains(f"^{pattern}$")).then(text)

    typed = [only(name, WHOLE).cast(pl.Int64, strict=False) for name in IDS]
    typed += [col(name).str.strip_chars().str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False) for name in TIMES]
    typed.append(only("amount", AMOUNT).str.replace_all(",", "", literal=True).cast(pl.Float64, strict=False).round(2))
    lag = (col(LANDING_DAY).dt.date() - col("paid_at").dt.date()).dt.total_days()
    rules = {f"{name}: missing": col(name).is_null() for name in (*IDS, *TIMES, "amount")}
    rules |= {f"{name}: bound": col(name) >= MAX_ENTITIES for name in ("customer_id", "terminal_id")}
    rules |= {"amount: above": col("amount") > MAX_AMOUNT, "amount: below": col("amount") <= 0}
    rules |= {"paid_at: future": lag < 0, "paid_at: late": lag > LATE}
    reason = pl.coalesce([pl.when(broken).then(pl.lit(rule)) for rule, broken in rules.items()])
    judged = raw.lazy().with_row_index("place").with_columns(typed).with_columns(reason=reason)
    # Copies are found after a sort by key and arrival: a fifth of the time of a window over each key.
    ordered = judged.filter(col("reason").is_null()).drop("reason").sort("transaction_id", "place")
    copy = (col("transaction_id") == col("transaction_id").shift()) & (
        (col(LANDING_DAY) - col(LANDING_DAY).shift()).dt.total_days() <= LATE
    )
    accepted = ordered.filter(~copy.fill_null(False)).sort("paid_at", "transaction_id")
    clean, refused = pl.collect_all([accepted, judged.filter(col("reason").is_not_null())])
    return clean.drop("place").to_pandas(), len(refused)


def by_duckdb(raw: pa.Table) -> Cleaned:
    """SQL of DuckDB: the typed and judged rows as a table, then the clean ones."""
    import duckdb

    whole = [
        f"try_cast(case when regexp_full_match(trim({n}), '{WHOLE}') then trim({n}) end as bigint) as {n}" for n in IDS
    ]
    time = [f"try_cast(case when regexp_full_match(trim({n}), '{MOMENT}') then trim({n}) end as timestamp) as {n}"
            for n in TIMES]  # fmt: skip
    text = f"case when regexp_full_match(trim(amount), '{AMOUNT}') then replace(trim(amount), ',', '') end"
    columns = ", ".join([*whole, *time, f"round(try_cast({text} as double), 2) as amount"])
    missing = [f"when {name} is null then '{name}: missing'" for name in (*IDS, *TIMES, "amount")]
    lag = f"date_diff('day', paid_at::date, {LANDING_DAY}::date)"
    rules = " ".join([
        *missing,
        *(f"when {name} >= {MAX_ENTITIES} then '{name}: bound'" for name in ("customer_id", "terminal_id")),
        f"when amount > {MAX_AMOUNT} then 'amount: above' when amount <= 0 then 'amount: below'",
        f"when {lag} < 0 then 'paid_at: future' when {lag} > {LATE} then 'paid_at: late'",
    ])  # fmt: skip
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        connection.register("raw", raw)
        connection.execute(
            f"create table judged as select *, case {rules} end as reason from "
            f"(select place, {LANDING_DAY}, row_id, {columns} from raw)"
        )
        refused = connection.sql("select count(*) from judged where reason is not null").fetchall()[0][0]
        clean = connection.sql(
            f"select * exclude (reason, before) from (select *, lag({LANDING_DAY}) over (partition by transaction_id "
            f"order by place) as before from judged where reason is null) where before is null or "
            f"date_diff('day', before, {LANDING_DAY}) > {LATE} order by paid_at, transaction_id"
        ).to_arrow_table()
    return clean.to_pandas(), int(refused)


def same(ours: Cleaned, theirs: Cleaned) -> bool:
    """Whether both have the same clean rows in the same order, and as many refused ones."""
    mine, other = ours[0], theirs[0]
    if len(mine) != len(other) or ours[1] != theirs[1]:
        return False
    numbers = all(np.array_equal(mine[name].to_numpy(), other[name].to_numpy()) for name in (*IDS, "amount"))
    return numbers and all((mine[n].to_numpy("M8[s]") == other[n].to_numpy("M8[s]")).all() for n in TIMES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the comparison; ends with an error where ours is not the fastest, or rows differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5_000, help="customers; terminals are twice as many")
    parser.add_argument("--days", type=int, default=30, help="landings")
    size = parser.parse_args(arguments)
    source = PaymentSimulator(customers=size.customers, terminals=2 * size.customers)
    days = [FIRST_DAY + dt.timedelta(days=n) for n in range(size.days)]
    raw = number_rows({str(day): source.land(day) for day in days})
    arrow = pa.Table.from_pandas(raw.assign(place=np.arange(len(raw))), preserve_index=False)
    frame = polars_frame(arrow.drop_columns("place"))
    ours, ours_s = measured(lambda: by_us(raw))
    peers: dict[str, Callable[[], Cleaned]] = {
        "Polars": lambda: by_polars(frame),
        "DuckDB": lambda: by_duckdb(arrow),
        "pandas": lambda: by_pandas(raw),
    }
    made = {name: measured(work) for name, work in peers.items()}
    rows = len(raw)
    print(f"{rows:,} landed rows: {len(ours[0]):,} clean, {ours[1]:,} refused")
    print(f"{'':8}{'CPU s':>9}{'µs a row':>10}{'/ ours':>8}")
    for name, seconds in {"ours": ours_s, **{name: took for name, (_, took) in made.items()}}.items():
        print(f"{name:8}{seconds:>9.2f}{seconds / rows * 1e6:>10.2f}{seconds / ours_s:>8.1f}")
    different = [name for name, (theirs, _) in made.items() if not same(ours, theirs)]
    slower = [name for name, (_, seconds) in made.items() if seconds < ours_s]
    if different or slower:
        raise SystemExit(f"cleaning: other rows than {different or 'nobody'}, slower than {slower or 'nobody'}")


if __name__ == "__main__":
    main()
