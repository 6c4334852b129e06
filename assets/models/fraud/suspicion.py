"""How strongly known labels and recent amounts speak for trouble: at a terminal, of a customer, of one payment.

A terminal in trouble makes each of its payments a fraud for some weeks; a stolen card makes a part of a customer's
payments larger for some days. Both begin on some day. Each possible first day is a window; its weight is the product of
the likelihood ratios of what was observed within it. The odds are the sum of the weights of the windows that cover
today. The constants below describe how fraud behaves here in general; they follow the published description of the
simulation. Nothing is known of a single terminal or customer but its own payments and the labels known by then.

Evidence of a payment is a whole number of thousandths of a natural logarithm, so that sums do not depend on the order.

Belongs here: evidence and odds, functions of arrays. Does not belong here: which payments a window holds
(``features.py``), the best possible result, which knows each customer's true mean amount (``ceiling.py``).
"""

from __future__ import annotations

import math

import numpy as np

TERMINAL_DAYS, TERMINAL_RATE = 28, 2e-4
"""Days for which a terminal's trouble lasts, and the share of terminals in which it begins each day."""
THEFT_DAYS, THEFT_RATE = 14, 6e-4
"""Days for which a stolen card is used, and the share of customers from whom one is stolen each day."""
THEFT_SHARE, THEFT_FACTOR = 1 / 3, 5.0
"""Share of a robbed customer's payments that are thefts, and the factor on their amount."""
SPREAD = 0.5
"""Standard deviation of a customer's amounts as a share of their mean; nearly the same for all customers."""
FIRST_GUESS_CENTS = 4_000
"""One payment of this amount is added to a customer's history, so that a new customer has a usual amount, too."""
FRAUD_AMOUNTS, FRAUD_EVIDENCE = (5_000, 10_000, 15_000, 20_000), np.array([7_600, 6_700, 5_500, 4_000, 2_500])
"""Evidence of a known fraud about its terminal, by its amount in cents: below the first, below the second, …. A larger
fraud is more likely to be a theft."""
GOOD_EVIDENCE = round(1000 * math.log(1 - THEFT_SHARE))
"""Evidence of a known good payment about its customer."""
OTHER_FRAUDS = TERMINAL_DAYS * TERMINAL_RATE
"""Probability that a payment is a fraud for another reason than theft."""
MOST = 20.0
"""Largest evidence of one payment, and largest odds, as natural logarithms."""


def of_fraud(cents: np.ndarray) -> np.ndarray:
    """Evidence of known frauds about their terminals, int64 ``[n]``."""
    return FRAUD_EVIDENCE[np.searchsorted(FRAUD_AMOUNTS, cents, side="left")]


def usual(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of a customer's amounts and the variance of his next one, float64 ``[n]`` each, in cents.

    The mean is the most likely one of a normal distribution whose deviation is :data:`SPREAD` of its mean. It uses the
    amounts' spread as well as their mean. The variance includes the uncertainty of the mean.

    Args:
        count, total, squares: number, sum and sum of squares of the amounts in cents, int64 ``[n]``.
    """
    number = count + 1.0
    sum_ = total + float(FIRST_GUESS_CENTS)
    square = squares + float(FIRST_GUESS_CENTS) ** 2
    # The root of the likelihood's derivative: spread² · number · mean² + sum · mean − square = 0.
    mean = 2 * square / (sum_ + np.sqrt(sum_ * sum_ + 4 * SPREAD**2 * number * square))
    return mean, (SPREAD * mean) ** 2 * (1 + 1 / number)


def of_amount(cents: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Log ratio of an amount's density as a theft to its density as the customer's own payment, float64 ``[n]``."""
    own, theft = cents - mean, cents / THEFT_FACTOR - mean
    return np.minimum((own * own - theft * theft) / (2 * variance) - math.log(THEFT_FACTOR), MOST)


def of_unknown(ratio: np.ndarray) -> np.ndarray:
    """Evidence of payments without a known label about their customers, int64 ``[n]``."""
    return _whole(np.log(1 - THEFT_SHARE + THEFT_SHARE * np.exp(ratio)))


def of_known_fraud(ratio: np.ndarray) -> np.ndarray:
    """Evidence of known frauds about their customers, int64 ``[n]``; ``ratio`` as from :func:`of_amount`."""
    return _whole(np.log(1 - THEFT_SHARE + THEFT_SHARE / OTHER_FRAUDS * np.exp(ratio)))


def log_odds(covering: np.ndarray, others: np.ndarray | None, rate: float) -> np.ndarray:
    """Log odds of trouble today, float64 ``[n]``, at most ± :data:`MOST`.

    Args:
        covering: evidence within each window that covers today, ``[windows, n]``; −inf for an impossible window.
        others: the same for windows that have ended; they explain old frauds without trouble today.
        rate: probability that a window begins on a given day.
    """
    odds = np.logaddexp.reduce(covering / 1000, axis=0) + math.log(rate)
    if others is not None:
        odds = odds - np.logaddexp(0, np.logaddexp.reduce(others / 1000, axis=0) + math.log(rate))
    return np.clip(odds, -MOST, MOST)


def theft_log_odds(customer: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Log odds that a payment is a theft, float64 ``[n]``.

    Args:
        customer: log odds that the customer's card is stolen.
        ratio: of the payment's amount, from :func:`of_amount`.
    """
    return math.log(THEFT_SHARE) + customer + ratio - np.log1p((1 - THEFT_SHARE) * np.exp(customer))


def either(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Log odds that at least one of two independent events happens, float64 ``[n]``."""
    # 1 + odds of neither failing: (1 + a)(1 + b) − 1 = a + b + ab
    return np.logaddexp(np.logaddexp(first, second), first + second)


def _whole(evidence: np.ndarray) -> np.ndarray:
    return np.rint(1000 * evidence).astype(np.int64)
