"""Point-in-time features of a payment: one function for training, batch scoring and the endpoint.

A payment sees itself, payments of strictly earlier seconds and labels of payments at least 7 days older; payments of
the same second do not see each other. All that is counted or summed is a whole number (payments, cents, percent), and
nothing looks further back than :data:`LOOKBACK_DAYS`: so a day alone, all of history, and one row with nothing but its
customer's and its terminal's past give the same bits.

The first 15 are those of Le Borgne et al. (2022). The others compare a payment with what the customer usually pays, and
read the labelled history of the terminal.

Belongs here: the features. Does not belong here: how days are put together for them (the lifecycle), any model of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.declaration import Columns, Features

LOOKBACK_DAYS = 60
LABEL_DAYS = 7
"""A label is known this many days after its payment."""
WINDOWS = (1, 7, 30)
"""Days of the published windows: a customer's end now, a terminal's end where labels begin to be known."""
SUSPICION_DAYS = 14
"""How long a customer's large payments stay suspicious."""
USUAL_DAYS = LOOKBACK_DAYS - SUSPICION_DAYS
"""How far back the customer's usual amount is looked for; what is suspicious was judged by the usual amount of then."""
ENOUGH_GOOD = 3
"""The usual amount is the mean of the payments known to be good; with fewer of them, that of all earlier payments."""
LARGE_PERCENT, MOST_PERCENT = 300, 1_000
"""A payment of more than so many percent of the usual amount is large; more than the second counts as the second."""
TROUBLE_DAYS = 28
"""How long a terminal in trouble stays in trouble."""
ORDINARY_CENTS, SMALL_CENTS = 22_000, 10_000
"""A fraud of so little says more about the terminal than about the amount."""

_DAY = 86_400


def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """All features, in the order of :data:`features`: see :class:`~assets.declaration.Features`.

    Args:
        events: ``paid_at``, ``customer_id``, ``terminal_id``, ``amount`` and ``label`` (1 fraud, 0 good, NaN unknown),
            in any order; at least what the customers and terminals of the wanted rows did in the lookback before them.
        wanted: integer positions in ``events``.

    Returns:
        float32 ``[len(wanted)]`` each. Amounts are in the currency's unit, times in days, shares from 0 to 1; what
        cannot be said of a customer without earlier payments is NaN.
    """
    past = _Past.of(events, wanted)
    return (
        _published(past)
        | past.customers.restored(_customer_habit(past))
        | past.terminals.restored(_terminal_history(past))
    )


def compute_published(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The published 15 alone; see :func:`compute`."""
    return _published(_Past.of(events, wanted))


@dataclass(frozen=True)
class _Timeline:
    """Some rows of all entities, by entity, then second, so that an entity's window of time is one slice.

    A position ``p`` stands for "the rows before p". Running totals and ``moment`` have one entry more than there are
    rows: entry ``p`` is about the rows before ``p``, and ``moment[p]`` is the key of the last of them.

    Attributes:
        rows: positions in the events, in this order.
        keys: entity and second of the rows in one number, ascending.
        asked: the same of the wanted rows, ascending.
        order: where in ``wanted`` each of ``asked`` stands.
    """

    rows: np.ndarray
    keys: np.ndarray
    asked: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, entity: np.ndarray, second: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> _Timeline:
        """Sorts the rows and the wanted ones. Ties fall anyhow: nothing may depend on their order."""
        key = entity.astype(np.int64) * (1 << 37) + second  # good for 2,000 years either side of 1970
        rows, order = rows[np.argsort(key[rows])], np.argsort(key[wanted])
        return cls(rows, key[rows], key[wanted[order]], order)

    def after(self, moments: np.ndarray, days: int = 0) -> np.ndarray:
        """Position from which rows are later than ``days`` before the given keys."""
        return np.searchsorted(self.keys, moments - days * _DAY, side="right")

    def before(self, moments: np.ndarray) -> np.ndarray:
        """Position up to which rows are earlier than the given keys."""
        return np.searchsorted(self.keys, moments, side="left")

    @property
    def moment(self) -> np.ndarray:
        """Key of the last row before each position; before position 0, one earlier than any."""
        return np.concatenate([[np.iinfo(np.int64).min // 2], self.keys])

    def restored(self, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The features of ``asked`` as float32, in the order in which the rows were wanted."""
        restored = {}
        for name, values in features.items():
            restored[name] = np.empty(len(values), dtype=np.float32)
            restored[name][self.order] = values
        return restored


@dataclass(frozen=True)
class _Past:
    """The events as whole numbers, and their two orders: all rows by customer, labelled rows by terminal."""

    second: np.ndarray
    cents: np.ndarray
    label: np.ndarray
    wanted: np.ndarray
    customers: _Timeline
    terminals: _Timeline

    @classmethod
    def of(cls, events: Columns, wanted: np.ndarray) -> _Past:
        second = events["paid_at"].astype("datetime64[s]").astype(np.int64)
        label = events["label"]
        return cls(
            second=second,
            cents=np.rint(events["amount"] * 100).astype(np.int64),
            label=label,
            wanted=wanted,
            customers=_Timeline.of(events["customer_id"], second, np.arange(len(second)), wanted),
            terminals=_Timeline.of(events["terminal_id"], second, np.flatnonzero(~np.isnan(label)), wanted),
        )


def _published(past: _Past) -> dict[str, np.ndarray]:
    return (
        _of_the_payment(past)
        | past.customers.restored(_customer_windows(past))
        | past.terminals.restored(_terminal_windows(past))
    )


def _of_the_payment(past: _Past) -> dict[str, np.ndarray]:
    second = past.second[past.wanted]
    return {
        "amount": (past.cents[past.wanted] / 100).astype(np.float32),
        "is_weekend": ((second // _DAY + 3) % 7 >= 5).astype(np.float32),  # 1970 began on a Thursday
        "is_night": (second % _DAY // 3_600 <= 6).astype(np.float32),
    }


def _customer_windows(past: _Past) -> dict[str, np.ndarray]:
    """Published: number and mean amount of the customer's payments, this one included."""
    line = past.customers
    spent = _running(past.cents[line.rows])
    own = past.cents[past.wanted][line.order]
    now, features = line.before(line.asked), {}
    for days in WINDOWS:
        first = line.after(line.asked, days)
        count = now - first + 1
        features[f"customer_count_{days}d"] = count
        features[f"customer_mean_{days}d"] = (spent[now] - spent[first] + own) / count / 100
    return features


def _customer_habit(past: _Past) -> dict[str, np.ndarray]:
    """The payment against what the customer usually pays, and how many strange ones came just before it."""
    line = past.customers
    cents, label = past.cents[line.rows], past.label[line.rows]
    good = label == 0
    goods, frauds = _running(good), _running(label == 1)

    # The usual amount of every row, as it was known then: the large ones of the last days are judged by it.
    first, known, now = line.after(line.keys, USUAL_DAYS), line.after(line.keys, LABEL_DAYS), line.before(line.keys)
    count, total = goods[known] - goods[first], _between(_running(np.where(good, cents, 0)), first, known)
    enough = count >= ENOUGH_GOOD
    count = np.where(enough, count, now - first)
    total = np.where(enough, total, _between(_running(cents), first, now))
    percent = np.where(total > 0, np.minimum(100 * cents * count // np.maximum(total, 1), MOST_PERCENT), 100)
    large = percent > LARGE_PERCENT
    larges = _running(large)

    # From here on for the wanted rows. Rows of one second share their past: the first of them stands for all.
    own, now = past.cents[past.wanted][line.order], line.before(line.asked)
    first, count, total = first[now], count[now], total[now]
    week, known_week = line.after(line.asked, LABEL_DAYS), line.after(line.asked, LABEL_DAYS + 7)
    fortnight, three_weeks = line.after(line.asked, SUSPICION_DAYS), line.after(line.asked, LABEL_DAYS + 14)
    usual = _ratio(total, count)
    squares = _ratio(_between(_running(np.where(good, cents * cents, 0)), first, week), np.where(enough[now], count, 0))
    recent, large_recent = now - fortnight, larges[now] - larges[fortnight]
    last_large, moment = _last(large)[now], line.moment
    return {
        "customer_usual_amount": usual / 100,
        "amount_to_usual": own / usual,
        "amount_deviations": (own - usual) / np.sqrt(np.maximum(squares - usual * usual, 100.0)),  # at least 10 cents
        "customer_large_7d": larges[now] - larges[week],
        "customer_large_14d": large_recent,
        "customer_large_share_14d": large_recent / np.maximum(recent, 1),
        "customer_mean_to_usual_7d": _between(_running(percent), week, now) / np.maximum(now - week, 1) / 100,
        "customer_days_since_large": _days_since(moment, last_large, line.asked, fortnight, SUSPICION_DAYS),
        "customer_days_since_last": _days_since(moment, now, line.asked, first, USUAL_DAYS),
        "customer_known_goods_7_14d": goods[week] - goods[known_week],
        "customer_known_frauds_7_21d": frauds[week] - frauds[three_weeks],
    }


def _terminal_windows(past: _Past) -> dict[str, np.ndarray]:
    """Published: number of the terminal's labelled payments and the share of frauds, a week late."""
    line = past.terminals
    frauds, known, features = _running(past.label[line.rows] == 1), line.after(line.asked, LABEL_DAYS), {}
    for days in WINDOWS:
        first = line.after(line.asked, LABEL_DAYS + days)
        features[f"terminal_count_{days}d"] = known - first
        features[f"terminal_fraud_share_{days}d"] = (frauds[known] - frauds[first]) / np.maximum(known - first, 1)
    return features


def _terminal_history(past: _Past) -> dict[str, np.ndarray]:
    """What the labels known by now say: above all the run of nothing but frauds with which they end, if they do."""
    line = past.terminals
    fraud, cents, moment = past.label[line.rows] == 1, past.cents[line.rows], line.moment
    known, first = line.after(line.asked, LABEL_DAYS), line.after(line.asked, LOOKBACK_DAYS)
    last_good, last_fraud = _last(~fraud)[known], _last(fraud)[known]
    # A payment that shares its second with the last good one is not of the run.
    run = np.maximum(line.after(moment[last_good]), first)
    since_fraud = np.maximum(line.after(moment[last_fraud]), first)
    ordinary, small = (_running(fraud & (cents <= most)) for most in (ORDINARY_CENTS, SMALL_CENTS))
    run_first = np.minimum(run + 1, known)  # where there is no run its days are 0 anyhow
    run_days = np.where(known > run, (line.asked - moment[run_first]) / _DAY, 0)
    good_days = _days_since(moment, last_good, line.asked, first, LOOKBACK_DAYS)
    return {
        "terminal_run": known - run,
        "terminal_run_ordinary": ordinary[known] - ordinary[run],
        "terminal_run_small": small[known] - small[run],
        "terminal_run_days": run_days,
        # in which trouble that lasts until now could have begun: after the last good one, not after the run's first
        "terminal_onset_days": np.maximum(np.minimum(good_days, TROUBLE_DAYS) - run_days, 0),
        "terminal_days_since_good": good_days,
        "terminal_days_since_fraud": _days_since(moment, last_fraud, line.asked, first, LOOKBACK_DAYS),
        "terminal_days_since_label": _days_since(moment, known, line.asked, first, LOOKBACK_DAYS),
        "terminal_goods_since_fraud": np.where(last_fraud > first, known - since_fraud, 0),
    }


def _running(values: np.ndarray) -> np.ndarray:
    """Totals of whole numbers before each position. They may wrap around; differences are right all the same."""
    totals = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


def _between(totals: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    return totals[end] - totals[first]


def _last(mask: np.ndarray) -> np.ndarray:
    """For each position, the position just after the last row of the mask before it; 0 where there is none."""
    last = np.zeros(len(mask) + 1, dtype=np.int64)
    np.maximum.accumulate(np.where(mask, np.arange(1, len(mask) + 1), 0), out=last[1:])
    return last


def _days_since(moment: np.ndarray, last: np.ndarray, now: np.ndarray, first: np.ndarray, most: int) -> np.ndarray:
    """Days from the row just before ``last`` until ``now``; ``most`` where that row lies before the window."""
    return np.where(last > first, (now - moment[last]) / _DAY, most)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """``total / count``, NaN where nothing was counted."""
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


features = Features(
    compute=compute,
    lookback_days=LOOKBACK_DAYS,
    names=(
        "amount",
        "is_weekend",
        "is_night",
        *(f"customer_{what}_{days}d" for days in WINDOWS for what in ("count", "mean")),
        *(f"terminal_{what}_{days}d" for days in WINDOWS for what in ("count", "fraud_share")),
        "customer_usual_amount",
        "amount_to_usual",
        "amount_deviations",
        "customer_large_7d",
        "customer_large_14d",
        "customer_large_share_14d",
        "customer_mean_to_usual_7d",
        "customer_days_since_large",
        "customer_days_since_last",
        "customer_known_goods_7_14d",
        "customer_known_frauds_7_21d",
        "terminal_run",
        "terminal_run_ordinary",
        "terminal_run_small",
        "terminal_run_days",
        "terminal_onset_days",
        "terminal_days_since_good",
        "terminal_days_since_fraud",
        "terminal_days_since_label",
        "terminal_goods_since_fraud",
    ),
    entities=("customer_id", "terminal_id"),
    calendar=("is_weekend", "is_night"),
)
