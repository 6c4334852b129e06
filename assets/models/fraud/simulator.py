"""The upstream of the fraud model: card payments, simulated by the published method.

The method is that of Le Borgne, Siblini, Lebichot, Bontempi: "Reproducible Machine Learning for Credit Card Fraud
Detection" (2022), implemented from its description. Three parts are our additions: dirty and late rows as a real
upstream has them; compromises without a first day, so that any day of any year can be generated alone; and a shift that
can be injected from one day on.

Belongs here: the true payments (:meth:`PaymentSimulator.payments`), the rows that land (``land``, ``land_labels``), and
the upstream of a state folder (:class:`WorldPayments`). Does not belong here: the settings of that world
(``world.py``), cleaning and the contract (``tables.py``), the best possible prediction (``ceiling.py``).
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from assets.models.fraud.tables import MAX_AMOUNT, MAX_ENTITIES
from assets.models.fraud.world import PLAN, SIZES
from assets.simulated import World
from resources.settings import Settings
from resources.sources import SourceError, Stream

LABEL_DELAY = dt.timedelta(days=7)
ALWAYS_FRAUD_ABOVE = 220.0
"""Scenario 1: a payment above this amount is a fraud."""
TERMINAL_RATE, TERMINAL_DAYS = 2 / 10_000, 28
"""Scenario 2: share of terminals compromised each day, and number of days; all their payments are frauds."""
CUSTOMER_RATE, CUSTOMER_DAYS = 3 / 5_000, 14
"""Scenario 3: share of customers compromised each day, and number of days."""
THEFT_SHARE, THEFT_FACTOR = 1 / 3, 5.0
"""Scenario 3: share of a compromised customer's payments that are thefts, and the factor on their amount."""

DIRT = {
    "duplicate": 0.25,  # an exact copy of the row
    "resent": 0.15,  # the same payment again, with a later arrival, the same day or the next
    "separated": 0.15,  # "1,234.50", zero-padded below a thousand: "0,057.16"
    "padded": 0.15,  # " 12.5 "
    "garbled_time": 0.05,
    "future_time": 0.05,
    "negative": 0.05,
    "absurd": 0.05,
    "missing_id": 0.05,
    "unknown_terminal": 0.05,
}
"""Kinds of dirt and their shares of the dirty rows. The first four lose no payment. The others damage the only copy of
the payment, so .3 % of the payments never become clean rows; their labels land anyway."""

_SECOND, _DAY = np.timedelta64(1, "s"), np.timedelta64(1, "D")
_LATEST_ARRIVAL = 2  # days after the payment
_IDS_A_DAY = 1_000_000
_FIRST_NUMBER = 1_000
"""Number of a world's first day. It leaves numbers for the days before, which have compromises and late rows, too."""
_IDS = ("transaction_id", "customer_id", "terminal_id")


class _Draw(enum.IntEnum):
    """Independent random streams; each day of each stream has its own generator."""

    POPULATION = 0
    PAYMENTS = 1
    TERMINALS = 2
    CUSTOMERS = 3
    LANDING = 4


@dataclass(frozen=True)
class Population:
    """Customers and terminals, which are the same on all days. Arrays are indexed by customer id.

    Attributes:
        mean_amount: mean of the customer's amounts before any shift; their standard deviation is half of it.
        daily: mean number of payments per day.
        usable: terminal ids within reach of customer 0, then those of customer 1, ….
        first: position in ``usable`` of each customer's first terminal; one entry longer than the customers.
    """

    mean_amount: np.ndarray
    daily: np.ndarray
    usable: np.ndarray
    first: np.ndarray


class PaymentSimulator(Stream):
    """Card payments by the published method, deterministic for any day of any year.

    The default size is the published one. The same settings and day give the same bytes, whether the day is generated
    alone or within a range. With ``first_day``, a world counts its own days, and the events of its n-th day do not
    depend on the date. In the shifted world, payments are larger and later in the day, so more of them exceed the
    unchanged limit of scenario 1, and thieves behave differently. The days before the shift are the same as without it.
    """

    seed: int = Field(default=0, ge=0, description="Seed of all random draws.")
    customers: int = Field(default=5_000, ge=1, le=200_000, description="Number of customers (published: 5,000).")
    terminals: int = Field(
        default=10_000,
        ge=1,
        le=MAX_ENTITIES,
        description="Number of terminals (published: 10,000); twice the customers keeps the published density.",
    )
    dirty_share: float = Field(default=0.01, ge=0, le=0.5, description="Share of payments that land with some dirt.")
    late_share: float = Field(default=0.002, ge=0, le=0.5, description="Share of payments landing 1 or 2 days late.")
    first_day: str = Field(
        default="",
        description="ISO day on which the simulated world begins; its days are counted from there. Empty: it has no "
        "beginning, and days are counted by the calendar.",
    )
    compromised_from: str = Field(
        default="",
        description="ISO day before which nothing is compromised. The published data start without compromises on "
        "2018-04-01; empty: there always were compromises.",
    )
    shift_from: str = Field(
        default="", description="Injected drift: ISO day from which payments are shifted permanently; empty: never."
    )
    shift_amount: float = Field(default=1.3, gt=0, description="Shifted world: factor on every amount.")
    shift_hours: float = Field(
        default=1.5, ge=-6, le=6, description="Shifted world: hours by which payments are later."
    )
    shift_theft_factor: float = Field(
        default=0.1,
        gt=0,
        description="Shifted world: factor on the amounts of scenario 3's thefts (published: 5). Below 1, thieves no "
        "longer shop but test cards with small payments; a model of the old world cannot know that.",
    )

    @classmethod
    def small(cls, **settings: object) -> PaymentSimulator:
        """Returns the preset for tests: 200 customers, 400 terminals, ~390 payments a day, at the published rates."""
        return cls.model_validate({"customers": 200, "terminals": 400, **settings})

    def payments(self, first: dt.date, last: dt.date) -> pd.DataFrame:
        """Returns the true payments from ``first`` to ``last``, both included, ordered by time, then id.

        Columns: transaction_id int64 (unique over all days), paid_at datetime64[us] (UTC, whole seconds), customer_id
        and terminal_id int64 (from 0), amount float64 (two decimals), is_fraud int8, scenario int8 (0 none, 1..3).

        Raises:
            ValueError: ``first`` is after ``last``.
        """
        days = range(first.toordinal(), last.toordinal() + 1)
        if not days:
            raise ValueError(f"the range of days is empty: {first} is after {last}")
        return pd.concat([_payments(self, day) for day in days], ignore_index=True)

    def land(self, day: dt.date) -> pd.DataFrame:
        """Returns the rows that arrived on ``day`` as text, in order of arrival, with the dirt of :data:`DIRT`.

        Raises:
            SourceError: ``day`` is before the first day of the simulated world.
        """
        self._refuse_before_the_first(day)
        arrivals = [_sent(self, day.toordinal() - age) for age in range(_LATEST_ARRIVAL, -1, -1)]
        today = [sent[sent["arrived_at"].str.startswith(day.isoformat())] for sent in arrivals]
        return pd.concat(today).sort_values("arrived_at", kind="stable", ignore_index=True)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """Returns the labels of the payments made 7 days before ``day``.

        Columns: transaction_id int64, is_fraud int8, scenario int8.

        Raises:
            SourceError: ``day`` is before the first day of the simulated world.
        """
        self._refuse_before_the_first(day)
        return _payments(self, (day - LABEL_DELAY).toordinal())[["transaction_id", "is_fraud", "scenario"]].copy()

    def landed_until(self) -> dt.date:
        """Returns yesterday, UTC."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)

    def population(self) -> Population:
        """Returns the customers and terminals. They depend only on the seed and the sizes, not on the day."""
        return _population(self.seed, self.customers, self.terminals)

    def number(self, day: int) -> int:
        """Returns the number of a day (a proleptic ordinal) in this world; random draws and ids depend on it."""
        first = _ordinal(self.first_day, "first_day", never=dt.date.min)
        return day - first + _FIRST_NUMBER if self.first_day else day

    def shifted(self, days: int | np.ndarray) -> np.ndarray:
        """Returns whether the shift applies on the given days (proleptic ordinals, ``date.toordinal``)."""
        return np.asarray(days) >= _ordinal(self.shift_from, "shift_from", never=dt.date.max)

    def theft_factor(self, shifted: bool | np.ndarray) -> np.ndarray:
        """Returns the factor on the amount of a theft, in the published or in the shifted world."""
        return np.where(shifted, self.shift_theft_factor, THEFT_FACTOR)

    def compromising(self, days: int | np.ndarray) -> np.ndarray:
        """Returns whether terminals and customers can become compromised on the given days (proleptic ordinals)."""
        return np.asarray(days) >= _ordinal(self.compromised_from, "compromised_from", never=dt.date.min)

    def _refuse_before_the_first(self, day: dt.date) -> None:
        if self.first_day and day.toordinal() < _ordinal(self.first_day, "first_day", never=dt.date.min):
            raise SourceError(f"{day}: the simulated world begins on {self.first_day}; land that day or a later one")


class WorldPayments(Stream):
    """The payments of the state folder's own world (``world.json``); the first access creates the world."""

    def simulator(self) -> PaymentSimulator:
        """Returns the simulator with the settings of that world."""
        return simulator_of(PLAN.world_of(Settings.from_env().home))

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :meth:`PaymentSimulator.land`."""
        return self.simulator().land(day)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :meth:`PaymentSimulator.land_labels`."""
        return self.simulator().land_labels(day)

    def landed_until(self) -> dt.date:
        """Returns yesterday, UTC."""
        return self.simulator().landed_until()


@lru_cache(maxsize=4)
def simulator_of(world: World) -> PaymentSimulator:
    """Returns the simulator of a world."""
    size = SIZES[world.size]
    return PaymentSimulator(
        seed=world.seed,
        customers=size.customers,
        terminals=size.terminals,
        first_day=world.first_day.isoformat(),
        shift_from=world.shift_from.isoformat(),
    )


def _ordinal(text: str, setting: str, never: dt.date) -> int:
    try:
        return (dt.date.fromisoformat(text) if text else never).toordinal()
    except ValueError as error:
        raise SourceError(f"PaymentSimulator.{setting}={text!r} is not a day; write it as 2026-05-31") from error


def _generator(source: PaymentSimulator, draw: _Draw, day: int) -> np.random.Generator:
    return np.random.default_rng([source.seed, draw, source.number(day)])


@lru_cache(maxsize=4)
def _population(seed: int, customers: int, terminals: int) -> Population:
    from scipy.spatial import cKDTree

    rng = np.random.default_rng([seed, _Draw.POPULATION])
    homes, places = rng.uniform(0, 100, (customers, 2)), rng.uniform(0, 100, (terminals, 2))
    reach = 5 * math.sqrt(10_000 / terminals)  # the published number of terminals within reach, at any size
    usable = cKDTree(places).query_ball_point(homes, reach, return_sorted=True)
    return Population(
        mean_amount=rng.uniform(5, 100, customers),
        daily=rng.uniform(0, 4, customers),
        usable=np.concatenate([np.asarray(near, dtype=np.int64) for near in usable]),
        first=np.concatenate([[0], np.cumsum([len(near) for near in usable])]),
    )


def _compromised(source: PaymentSimulator, day: int, draw: _Draw) -> np.ndarray:
    """Returns a boolean mask of the terminals or customers that are compromised on a day: the union of the days' draws.

    At the published size, a day draws exactly the published 2 terminals and 3 customers. At any other size, it draws
    the whole number below or above ``rate · size``, at random, so that the mean rate is kept.
    """
    size, rate, length = (
        (source.terminals, TERMINAL_RATE, TERMINAL_DAYS)
        if draw is _Draw.TERMINALS
        else (source.customers, CUSTOMER_RATE, CUSTOMER_DAYS)
    )
    mask = np.zeros(size, dtype=bool)
    for start in range(max(day - length + 1, 1), day + 1):
        if source.compromising(start):
            rng = _generator(source, draw, start)
            # rounded, because 10,000 · .0002 must be 2, not 1.9999…
            mask[rng.choice(size, int(round(rate * size, 9) + rng.random()), replace=False)] = True
    return mask


@lru_cache(maxsize=16)  # consecutive landings request the same days again
def _payments(source: PaymentSimulator, day: int) -> pd.DataFrame:
    """Returns the payments of one day (proleptic ordinal). Callers must not change the result.

    Columns and order are those of :meth:`PaymentSimulator.payments`.
    """
    people, rng, shifted = source.population(), _generator(source, _Draw.PAYMENTS, day), bool(source.shifted(day))

    reachable = np.diff(people.first)
    customer = np.repeat(np.arange(source.customers), rng.poisson(people.daily) * (reachable > 0))
    second = np.floor(rng.normal(43_200 + shifted * source.shift_hours * 3_600, 20_000, len(customer)))
    mean = people.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    redrawn = rng.uniform(0, 2 * mean)
    amount = np.where(amount < 0, redrawn, amount) * (source.shift_amount if shifted else 1.0)
    terminal = people.usable[
        people.first[customer] + (rng.random(len(customer)) * reachable[customer]).astype(np.int64)
    ]
    thief = rng.random(len(customer)) < THEFT_SHARE

    within = np.flatnonzero((second >= 0) & (second < 86_400))  # as published, payments outside the day are discarded
    order = within[np.argsort(second[within], kind="stable")]
    customer, terminal, amount, thief = customer[order], terminal[order], amount[order], thief[order]

    scenario = np.zeros(len(order), dtype=np.int8)
    scenario[amount > ALWAYS_FRAUD_ABOVE] = 1
    scenario[_compromised(source, day, _Draw.TERMINALS)[terminal]] = 2
    stolen = _compromised(source, day, _Draw.CUSTOMERS)[customer] & thief
    scenario[stolen] = 3
    amount = np.where(stolen, amount * source.theft_factor(shifted), amount)

    return pd.DataFrame(
        {
            "transaction_id": source.number(day) * _IDS_A_DAY + np.arange(len(order)),
            "paid_at": (_midnight(day) + second[order].astype("timedelta64[s]")).astype("datetime64[us]"),
            "customer_id": customer,
            "terminal_id": terminal,
            "amount": np.maximum(amount.round(2), 0.01),  # the published method yields a few amounts of 0
            "is_fraud": (scenario > 0).astype(np.int8),
            "scenario": scenario,
        }
    )


def _midnight(day: int) -> np.datetime64:
    return np.datetime64(dt.date.fromordinal(day), "s")


@lru_cache(maxsize=_LATEST_ARRIVAL + 2)
def _sent(source: PaymentSimulator, day: int) -> pd.DataFrame:
    """Returns all rows that are ever sent about one day's payments, as text. Callers must not change the result."""
    truth, rng = _payments(source, day), _generator(source, _Draw.LANDING, day)
    n = len(truth)
    shares = [source.dirty_share * share for share in DIRT.values()]
    kind = np.searchsorted(np.cumsum([*shares, source.late_share]), rng.random(n), side="right")
    dirt = {name: np.flatnonzero(kind == i) for i, name in enumerate(DIRT)}
    late = np.where(kind == len(DIRT), rng.integers(1, _LATEST_ARRIVAL + 1, n), 0)

    paid_at = truth["paid_at"].to_numpy("datetime64[s]")
    arrived_at = _within_day(paid_at + late * _DAY, rng.integers(1, 6, n))
    sent = {
        "transaction_id": _text(truth["transaction_id"].to_numpy()),
        "paid_at": _text(paid_at),
        "customer_id": _text(truth["customer_id"].to_numpy()),
        "terminal_id": _text(truth["terminal_id"].to_numpy()),
        "amount": _text(truth["amount"].to_numpy(), pa.decimal128(12, 2)),
        "arrived_at": _text(arrived_at),
    }

    amount, terminal = truth["amount"].to_numpy(), truth["terminal_id"].to_numpy()

    def spoil(rows: np.ndarray, column: str, text: Callable[[np.ndarray], Iterable[str] | pa.Array]) -> None:
        spoilt = np.zeros(n, dtype=bool)
        spoilt[rows] = True
        sent[column] = pc.replace_with_mask(sent[column], spoilt, pa.array(text(rows), pa.string()))

    spoil(dirt["separated"], "amount", lambda rows: [f"{x:08,.2f}" for x in amount[rows]])
    spoil(dirt["padded"], "amount", lambda rows: [f" {x:.10g} " for x in amount[rows]])
    spoil(dirt["garbled_time"], "paid_at", lambda rows: [("n/a", "2018-02-31 25:61", "")[i % 3] for i in rows])
    spoil(dirt["future_time"], "paid_at", lambda rows: _text(paid_at[rows] + 400 * _DAY))
    spoil(dirt["negative"], "amount", lambda rows: [f"{-x:.2f}" for x in amount[rows]])
    spoil(dirt["absurd"], "amount", lambda rows: [f"{x + 100 * MAX_AMOUNT:.2f}" for x in amount[rows]])
    spoil(dirt["unknown_terminal"], "terminal_id", lambda rows: _text(terminal[rows] + MAX_ENTITIES))
    for i, column in enumerate(_IDS):
        spoil(dirt["missing_id"][i::3], column, lambda rows: [""] * len(rows))

    table = pa.table(sent)
    resent = dirt["resent"]
    again = paid_at[resent] + rng.integers(0, 2, len(resent)) * _DAY  # the same day or the next
    later = _text(_within_day(again, rng.integers(60, 7_200, len(resent))))
    copies = table.take(resent).set_column(table.schema.get_field_index("arrived_at"), "arrived_at", later)
    text = pd.StringDtype("pyarrow")
    return pa.concat_tables([table, table.take(dirt["duplicate"]), copies]).to_pandas(
        types_mapper={pa.string(): text}.get
    )


def _within_day(moment: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Returns ``moment`` plus ``seconds``, but at most the last second of its day."""
    end = moment.astype("datetime64[D]").astype("datetime64[s]") + _DAY - _SECOND
    return np.minimum(moment + seconds * _SECOND, end)


def _text(values: np.ndarray, by_way_of: pa.DataType | None = None) -> pa.Array:
    """Converts numbers or times to text; arrow is an order of magnitude faster than Python."""
    column = pa.array(values)
    column = column if by_way_of is None else column.cast(by_way_of)
    return column.cast(pa.string())
