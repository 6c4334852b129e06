"""The best possible model on simulated payments: the posterior of fraud under the simulator's true parameters.

A result can therefore be stated, for any seed, as a share of what was possible on the same rows. The posterior uses
only what a model may use: the row itself, payments of strictly earlier seconds, and labels at least 7 days old.

Belongs here: the inference. Does not belong here: the process that it inverts (``simulator.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.models.fraud.simulator import (
    ALWAYS_FRAUD_ABOVE,
    CUSTOMER_DAYS,
    CUSTOMER_RATE,
    LABEL_DELAY,
    TERMINAL_DAYS,
    TERMINAL_RATE,
    THEFT_SHARE,
    PaymentSimulator,
    WorldPayments,
)
from resources.sources import Source

TERMINAL_LOOKBACK, CUSTOMER_LOOKBACK = 62, 34
"""Oldest start, in days ago, of the compromise windows that the posterior considers, current and ended ones."""

# Prior probabilities that a payment's terminal and its customer are compromised.
TERMINAL_FRAUD, CUSTOMER_FRAUD = TERMINAL_DAYS * TERMINAL_RATE, CUSTOMER_DAYS * CUSTOMER_RATE
_REDRAWN = 0.02275  # probability of a negative amount, two standard deviations below the mean
_UNIX_EPOCH_ORDINAL = 719_163


def ceiling(source: Source, events: pd.DataFrame, wanted: np.ndarray) -> np.ndarray:
    """Returns the probability of fraud of the rows at ``wanted`` in ``events``, float64 ``[len(wanted)]``.

    The inference assumes at most one compromise window per terminal and one per customer; where two overlap, the
    posterior is slightly too low or too high. The shifted world is inverted with its own parameters.

    Args:
        source: source of the rows: a :class:`PaymentSimulator`, or the :class:`WorldPayments` of a state folder.
        events: ``paid_at`` (UTC), ``customer_id``, ``terminal_id``, ``amount``, ``is_fraud`` (missing: unknown), in any
            order. They should include the 63 days before the wanted rows. Labels too young to be known are ignored.
        wanted: integer positions in ``events``.

    Raises:
        TypeError: any other source.
    """
    if isinstance(source, WorldPayments):
        source = source.simulator()
    if not isinstance(source, PaymentSimulator):
        raise TypeError(f"the ceiling is known only for PaymentSimulator, not for {type(source).__name__}")
    wanted = np.asarray(wanted, dtype=np.int64)
    if not len(wanted):
        return np.empty(0)
    second = events["paid_at"].to_numpy("datetime64[s]").astype(np.int64)
    near = np.flatnonzero(
        (second >= (second[wanted].min() // 86_400 - TERMINAL_LOOKBACK) * 86_400) & (second <= second[wanted].max())
    )
    position = np.empty(len(events), dtype=np.int64)
    position[near] = np.arange(len(near))
    events, second, wanted = events.iloc[near], second[near], position[wanted]

    customer, terminal = (events[name].to_numpy(np.int64) for name in ("customer_id", "terminal_id"))
    label = events["is_fraud"].to_numpy(np.float64, na_value=np.nan)
    amount = events["amount"].to_numpy(np.float64)
    own, theft = _amount_log_densities(source, customer, second, amount)
    stolen_or_own = np.logaddexp(math.log(THEFT_SHARE) + theft, math.log(1 - THEFT_SHARE) + own)
    certain = amount > ALWAYS_FRAUD_ABOVE  # scenario 1: the label carries no further information

    # Every payment of a compromised terminal is a fraud; at any other terminal a fraud below the limit must be a theft.
    stolen, mine = math.log(CUSTOMER_FRAUD), math.log(1 - CUSTOMER_FRAUD)
    theft_alone = stolen + math.log(THEFT_SHARE) + theft - np.logaddexp(stolen + stolen_or_own, mine + own)
    terminals = _History.of(terminal, second)
    p_terminal = terminals.compromised(
        wanted,
        known=terminals.total(np.where((label == 1) & ~certain, -theft_alone, 0.0)),
        impossible=terminals.total(label == 0),
        rate=TERMINAL_RATE,
        days=TERMINAL_DAYS,
        lookback=TERMINAL_LOOKBACK,
        source=source,
    )

    unlabelled = stolen_or_own - own
    fraud = np.logaddexp(math.log(THEFT_SHARE) + theft, math.log((1 - THEFT_SHARE) * TERMINAL_FRAUD) + own) - (
        own + math.log(TERMINAL_FRAUD)
    )
    good = math.log(1 - THEFT_SHARE)
    labelled = np.select([certain | np.isnan(label), label == 1], [unlabelled, fraud], good)
    customers = _History.of(customer, second)
    p_customer = customers.compromised(
        wanted,
        known=customers.total(labelled),
        unknown=customers.total(unlabelled),
        rate=CUSTOMER_RATE,
        days=CUSTOMER_DAYS,
        lookback=CUSTOMER_LOOKBACK,
        source=source,
    )

    own, theft, stolen_or_own = (np.exp(x[wanted] - stolen_or_own[wanted]) for x in (own, theft, stolen_or_own))
    p_theft = p_customer * THEFT_SHARE * theft / (p_customer * stolen_or_own + (1 - p_customer) * own)
    either = 1 - (1 - p_terminal) * (1 - p_theft)
    return np.where(certain[wanted], 1.0, np.clip(either, 0, 1))  # sums of exponentials may slightly exceed one


def _amount_log_densities(
    source: PaymentSimulator, customer: np.ndarray, second: np.ndarray, amount: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log density of each amount as the customer's own payment and as a theft, ``[n]`` each."""
    shifted = source.shifted(second // 86_400 + _UNIX_EPOCH_ORDINAL)
    mean = source.population().mean_amount[customer] * np.where(shifted, source.shift_amount, 1.0)
    factor = source.theft_factor(shifted)

    def own(value: np.ndarray) -> np.ndarray:
        deviation = mean / 2
        normal = -0.5 * ((value - mean) / deviation) ** 2 - np.log(deviation * math.sqrt(2 * math.pi))
        redrawn = np.where(value <= 2 * mean, np.log(_REDRAWN / (2 * mean)), -np.inf)
        return np.logaddexp(normal, redrawn)

    return own(amount), own(amount / factor) - np.log(factor)


@dataclass(frozen=True)
class _History:
    """Rows grouped by entity and sorted by time, so that any days of any entity are one slice of running totals.

    Attributes:
        order: positions of the rows, sorted by entity, then time.
        entity, second: entity and unix second of the rows, in their original order.
        keys: entity and second combined in one number, in sorted order.
        first_day: unix day of the earliest row.
        starts: ``[entities, days + 1]``: sorted position at which an entity's day starts; the last column is its end.
    """

    order: np.ndarray
    entity: np.ndarray
    second: np.ndarray
    keys: np.ndarray
    first_day: int
    starts: np.ndarray

    @classmethod
    def of(cls, entity: np.ndarray, second: np.ndarray) -> _History:
        """Sorts the rows once."""
        first_day, last_day = int(second.min()) // 86_400, int(second.max()) // 86_400
        days = np.arange(first_day, last_day + 2) * 86_400
        keys = _key(entity, second)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], _key(np.arange(entity.max() + 1)[:, None], days[None, :]))
        return cls(order, entity, second, keys[order], first_day, starts)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Returns the running total over the sorted rows, ``[n + 1]``, starting with 0."""
        return np.concatenate([[0], np.cumsum(values[self.order])])

    def before(self, rows: np.ndarray, second: np.ndarray, side: str) -> np.ndarray:
        """Returns the sorted position up to which the entities' rows are before ``second`` (``right``: or at it)."""
        return np.searchsorted(self.keys, _key(self.entity[rows], second), side=side)  # type: ignore[call-overload]

    def compromised(
        self,
        wanted: np.ndarray,
        *,
        known: np.ndarray,
        rate: float,
        days: int,
        lookback: int,
        source: PaymentSimulator,
        unknown: np.ndarray | None = None,
        impossible: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the posterior that each wanted row's entity is compromised on the row's day, ``[len(wanted)]``.

        ``known`` are running totals of the log likelihood ratio (compromised to not compromised) of rows whose label is
        known by then, and ``unknown`` of the other earlier rows. ``impossible`` counts known rows that rule out a
        window.
        """
        now = self.second[wanted]
        labelled = self.before(wanted, now - int(LABEL_DELAY.total_seconds()), "right")
        seen = self.before(wanted, now, "left")
        entity, today = self.entity[wanted], now // 86_400 - self.first_day
        # Log masses of (1) no compromise plus all windows so far and (2) the windows that cover today.
        everything, covering = np.zeros(len(wanted)), np.full(len(wanted), -np.inf)
        for age in range(lookback + 1):
            start = today - age
            first, end = (
                self.starts[entity, np.clip(day, 0, self.starts.shape[1] - 1)] for day in (start, start + days)
            )
            first_known, end_known = np.minimum(first, labelled), np.minimum(end, labelled)
            mass = math.log(rate) + known[end_known] - known[first_known]
            if unknown is not None:
                mass += unknown[np.clip(end, labelled, seen)] - unknown[np.clip(first, labelled, seen)]
            possible = source.compromising(start + self.first_day + _UNIX_EPOCH_ORDINAL)
            if impossible is not None:
                possible &= impossible[end_known] == impossible[first_known]
            mass = np.where(possible, mass, -np.inf)
            everything = np.logaddexp(everything, mass)
            if age < days:
                covering = np.logaddexp(covering, mass)
        return np.exp(covering - everything)


def _key(entity: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Combines entity and second in one number that sorts by entity, then time (valid for 2,000 years around 1970)."""
    return entity * (1 << 37) + second
