"""Point-in-time features of a payment: one function for training, batch scoring and the endpoint.

A payment uses itself, payments of strictly earlier seconds, and labels of payments at least 7 days older. Payments of
the same second do not affect each other. All counts and sums are of whole numbers (payments, cents, percent), and no
feature looks back further than :data:`LOOKBACK_DAYS`. A single day, the whole history, and one row with only its
customer's and its terminal's past therefore give identical bits.

The first 15 features are those of Le Borgne et al. (2022). The others compare a payment with the customer's usual
amount, summarise the terminal's labelled history, and weigh both as log odds of trouble (``suspicion.py``).

Belongs here: the features. Does not belong here: how days are assembled for them (the lifecycle), any model that uses
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.declaration import Columns, Features
from assets.models.fraud import suspicion

READ = ("paid_at", "customer_id", "terminal_id", "amount")
"""Columns of a payment that its features read, and those of other payments."""
LOOKBACK_DAYS = 60
LABEL_DAYS = 7
"""A label is known this many days after its payment."""
WINDOWS = (1, 7, 30)
"""Days of the published windows. A customer's window ends now; a terminal's window ends where labels begin to be
known."""
SUSPICION_DAYS = 14
"""Number of days for which a customer's large payments stay suspicious."""
USUAL_DAYS = LOOKBACK_DAYS - SUSPICION_DAYS
"""Lookback for the customer's usual amount. It is shorter than the total lookback, because a suspicious payment is
compared with the usual amount at its own time."""
ENOUGH_GOOD = 3
"""Minimum number of known good payments for the usual amount, which is their mean. With fewer, it is the mean of all
earlier payments."""
LARGE_PERCENT, MOST_PERCENT = 300, 1_000
"""A payment above the first percentage of the usual amount is large; percentages are capped at the second."""
TROUBLE_DAYS = 28
"""Number of days for which a terminal's trouble lasts."""
ORDINARY_CENTS, SMALL_CENTS = 22_000, 10_000
"""A fraud of at most these amounts is evidence about the terminal rather than about the amount."""

FIRST_DAYS = 59
"""A terminal's trouble that began at most this many midnights ago, current or over, may explain its known frauds."""

_DAY = 86_400
_TERMINALS_AT_ONCE = 20_000  # rows for which windows are weighed together; more would not fit into the cache


def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Computes all features in the order of :data:`features`; see :class:`~assets.declaration.Features`.

    Args:
        events: ``paid_at``, ``customer_id``, ``terminal_id``, ``amount`` and ``label`` (1 fraud, 0 good, NaN unknown),
            in any order; at least the payments of the wanted rows' customers and terminals in the lookback before them.
        wanted: integer positions in ``events``.

    Returns:
        float32 ``[len(wanted)]`` per feature. Amounts are in the currency's unit, times in days, shares from 0 to 1. A
        feature that is undefined for a customer without earlier payments is NaN.
    """
    own = {name: events[name][wanted] for name in READ}
    return join(own, of_customers(events, wanted) | of_terminals(events, wanted))


def compute_published(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Computes only the 15 published features; see :func:`compute`."""
    customers, terminals = _Past.of_customers(events, wanted), _Past.of_terminals(events, wanted)
    return (
        _of_the_payment({name: events[name][wanted] for name in READ})
        | customers.line.restored(_customer_windows(customers))
        | terminals.line.restored(_terminal_windows(terminals))
    )


def of_customers(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what follows from the customers' payments alone, ``[len(wanted)]`` each; see :func:`compute`."""
    past = _Past.of_customers(events, wanted)
    amounts = _Amounts.of(past)
    return past.line.restored(_customer_windows(past) | _customer_habit(past, amounts)) | past.line.restored(
        _customer_suspicion(past, amounts), np.float64
    )


def of_terminals(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what follows from the terminals' labels alone, ``[len(wanted)]`` each; see :func:`compute`."""
    past = _Past.of_terminals(events, wanted)
    return past.line.restored(_terminal_windows(past) | _terminal_history(past)) | past.line.restored(
        {"terminal_log_odds": _terminal_suspicion(past)}, np.float64
    )


def join(own: Columns, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the features of payments from their own columns and the values of both parts; see :func:`compute`."""
    terminal, theft = values["terminal_log_odds"], values["theft_log_odds"]
    # Every payment above the ordinary amounts is a fraud; the others are frauds for either reason.
    fraud = np.where(_cents(own) > ORDINARY_CENTS, suspicion.MOST, suspicion.either(terminal, theft))
    made = _of_the_payment(own) | values | {"fraud_log_odds": fraud}
    return {name: made[name].astype(np.float32, copy=False) for name in features.names}


@dataclass(frozen=True)
class _Timeline:
    """Rows of all entities, sorted by entity, then second, so that a time window of an entity is one slice.

    Position ``p`` means "the rows before p". Running totals and ``moment`` have one entry more than there are rows:
    entry ``p`` describes the rows before ``p``, and ``moment[p]`` is the key of the last of them.

    Attributes:
        rows: positions in the events, in sorted order.
        keys: entity and second of the rows combined in one number, ascending.
        asked: keys of the wanted rows, ascending.
        order: position in ``wanted`` of each key in ``asked``.
    """

    rows: np.ndarray
    keys: np.ndarray
    asked: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, entity: np.ndarray, second: np.ndarray, rows: np.ndarray | None, wanted: np.ndarray) -> _Timeline:
        """Sorts the rows (``None``: all) and the wanted rows. Ties are in any order: no result may depend on it."""
        key = entity.astype(np.int64) * (1 << 37) + second  # valid for 2,000 years before and after 1970
        rows, order = np.argsort(key) if rows is None else rows[np.argsort(key[rows])], np.argsort(key[wanted])
        return cls(rows, key[rows], key[wanted[order]], order)

    def after(self, moments: np.ndarray, days: int = 0) -> np.ndarray:
        """Returns the position from which rows are later than ``days`` before the given keys."""
        return np.searchsorted(self.keys, moments - days * _DAY, side="right")

    def before(self, moments: np.ndarray) -> np.ndarray:
        """Returns the position up to which rows are earlier than the given keys."""
        return np.searchsorted(self.keys, moments, side="left")

    def starts(self, second: np.ndarray, ages: range, part: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns positions before the midnights that many days ago, ``[len(ages), n]``, of asked rows.

        Args:
            second: the asked rows' seconds.
            ages: days before today's midnight; negative: after it.
            part: which of the asked rows; default: all.
        """
        midnight = self.asked[part] - second % _DAY
        return self.before(midnight[None, :] - np.array(ages)[:, None] * _DAY)

    @property
    def moment(self) -> np.ndarray:
        """Key of the last row before each position; at position 0, a value lower than any key."""
        return np.concatenate([[np.iinfo(np.int64).min // 2], self.keys])

    def restored(self, features: dict[str, np.ndarray], dtype: type[np.floating] = np.float32) -> dict[str, np.ndarray]:
        """Returns the features of ``asked`` in the order of the wanted rows."""
        restored = {}
        for name, values in features.items():
            restored[name] = np.empty(len(values), dtype=dtype)
            restored[name][self.order] = values
        return restored


@dataclass(frozen=True)
class _Past:
    """The events as whole numbers: those of the customers, or the labelled ones of the terminals.

    Attributes:
        second, cents, label: of the rows in the order of ``line``.
        own_second, own_cents: of the wanted rows in the order of ``line.asked``.
        line: the rows by entity and second.
    """

    second: np.ndarray
    cents: np.ndarray
    label: np.ndarray
    own_second: np.ndarray
    own_cents: np.ndarray
    line: _Timeline

    @classmethod
    def of_customers(cls, events: Columns, wanted: np.ndarray) -> _Past:
        return cls._of(events, "customer_id", None, wanted)

    @classmethod
    def of_terminals(cls, events: Columns, wanted: np.ndarray) -> _Past:
        return cls._of(events, "terminal_id", np.flatnonzero(~np.isnan(events["label"])), wanted)

    @classmethod
    def _of(cls, events: Columns, entity: str, rows: np.ndarray | None, wanted: np.ndarray) -> _Past:
        second, cents = _seconds(events), _cents(events)
        line = _Timeline.of(events[entity], second, rows, wanted)
        own = wanted[line.order]
        return cls(second[line.rows], cents[line.rows], events["label"][line.rows], second[own], cents[own], line)


def _seconds(events: Columns) -> np.ndarray:
    """Returns the moments in seconds since 1970."""
    return events["paid_at"].astype("datetime64[s]").astype(np.int64)


def _cents(events: Columns) -> np.ndarray:
    return np.rint(events["amount"] * 100).astype(np.int64)


def _of_the_payment(own: Columns) -> dict[str, np.ndarray]:
    second = _seconds(own)
    return {
        "amount": (_cents(own) / 100).astype(np.float32),
        "is_weekend": ((second // _DAY + 3) % 7 >= 5).astype(np.float32),  # 1970 began on a Thursday
        "is_night": (second % _DAY // 3_600 <= 6).astype(np.float32),
    }


def _customer_windows(past: _Past) -> dict[str, np.ndarray]:
    """Returns the published customer features: number and mean amount of payments, including this one."""
    line, own = past.line, past.own_cents
    spent = _running(past.cents)
    now, features = line.before(line.asked), {}
    for days in WINDOWS:
        first = line.after(line.asked, days)
        count = now - first + 1
        features[f"customer_count_{days}d"] = count
        features[f"customer_mean_{days}d"] = (spent[now] - spent[first] + own) / count / 100
    return features


@dataclass(frozen=True)
class _Amounts:
    """What is usual for the customer of every row, as known at the time of the row; in the customers' order.

    Attributes:
        cents, label: of the row itself.
        first, known: positions from which rows are recent enough, and up to which labels are known.
        enough: whether enough good payments are known; otherwise the amounts are those of all earlier payments.
        count, total, squares: number, sum and sum of squares of the usual amounts, in cents.
    """

    cents: np.ndarray
    label: np.ndarray
    first: np.ndarray
    known: np.ndarray
    enough: np.ndarray
    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, past: _Past) -> _Amounts:
        line, cents, label = past.line, past.cents, past.label
        good = label == 0
        first, known, now = line.after(line.keys, USUAL_DAYS), line.after(line.keys, LABEL_DAYS), line.before(line.keys)
        count = _between(_running(good), first, known)
        enough = count >= ENOUGH_GOOD
        until = np.where(enough, known, now)
        total, squares = (
            np.where(enough, _between(_running(good * of), first, known), _between(_running(of), first, until))
            for of in (cents, cents * cents)
        )
        return cls(cents, label, first, known, enough, np.where(enough, count, now - first), total, squares)


def _customer_habit(past: _Past, amounts: _Amounts) -> dict[str, np.ndarray]:
    """Compares the payment with the customer's usual amount, and counts recent unusually large payments."""
    line, cents = past.line, amounts.cents
    goods, frauds = _running(amounts.label == 0), _running(amounts.label == 1)
    count, total = amounts.count, amounts.total
    percent = np.where(total > 0, np.minimum(100 * cents * count // np.maximum(total, 1), MOST_PERCENT), 100)
    large = percent > LARGE_PERCENT
    larges = _running(large)

    # From here on, for the wanted rows. Rows of the same second share their past, so the first one represents all.
    own, now = past.own_cents, line.before(line.asked)
    first, count, total = amounts.first[now], count[now], total[now]
    week, known_week = amounts.known[now], line.after(line.asked, LABEL_DAYS + 7)
    fortnight, three_weeks = line.after(line.asked, SUSPICION_DAYS), line.after(line.asked, LABEL_DAYS + 14)
    usual = _ratio(total, count)
    squares = _ratio(amounts.squares[now], np.where(amounts.enough[now], count, 0))
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
    """Returns the published terminal features: number of labelled payments and share of frauds, delayed by a week."""
    line = past.line
    frauds, known, features = _running(past.label == 1), line.after(line.asked, LABEL_DAYS), {}
    for days in WINDOWS:
        first = line.after(line.asked, LABEL_DAYS + days)
        features[f"terminal_count_{days}d"] = known - first
        features[f"terminal_fraud_share_{days}d"] = (frauds[known] - frauds[first]) / np.maximum(known - first, 1)
    return features


def _terminal_history(past: _Past) -> dict[str, np.ndarray]:
    """Summarises the labels known by now, mainly the run of consecutive frauds at their end, if there is one."""
    line = past.line
    fraud, cents, moment = past.label == 1, past.cents, line.moment
    known, first = line.after(line.asked, LABEL_DAYS), line.after(line.asked, LOOKBACK_DAYS)
    last_good, last_fraud = _last(~fraud)[known], _last(fraud)[known]
    # A payment of the same second as the last good payment is not part of the run.
    run = np.maximum(line.after(moment[last_good]), first)
    since_fraud = np.maximum(line.after(moment[last_fraud]), first)
    ordinary, small = (_running(fraud & (cents <= most)) for most in (ORDINARY_CENTS, SMALL_CENTS))
    run_first = np.minimum(run + 1, known)  # without a run, its days are 0 anyway
    run_days = np.where(known > run, (line.asked - moment[run_first]) / _DAY, 0)
    good_days = _days_since(moment, last_good, line.asked, first, LOOKBACK_DAYS)
    return {
        "terminal_run": known - run,
        "terminal_run_ordinary": ordinary[known] - ordinary[run],
        "terminal_run_small": small[known] - small[run],
        "terminal_run_days": run_days,
        # days in which ongoing trouble could have begun: after the last good payment, not after the run's first
        "terminal_onset_days": np.maximum(np.minimum(good_days, TROUBLE_DAYS) - run_days, 0),
        "terminal_days_since_good": good_days,
        "terminal_days_since_fraud": _days_since(moment, last_fraud, line.asked, first, LOOKBACK_DAYS),
        "terminal_days_since_label": _days_since(moment, known, line.asked, first, LOOKBACK_DAYS),
        "terminal_goods_since_fraud": np.where(last_fraud > first, known - since_fraud, 0),
    }


def _customer_suspicion(past: _Past, amounts: _Amounts) -> dict[str, np.ndarray]:
    """Log odds that the customer's card is stolen, and that the payment is a theft."""
    line, label = past.line, amounts.label
    mean, variance = suspicion.usual(amounts.count, amounts.total, amounts.squares)
    ratio = suspicion.of_amount(amounts.cents, mean, variance)
    unknown = suspicion.of_unknown(ratio)
    # Above the ordinary amounts every payment is a fraud, so the label says nothing that the amount does not say.
    by_label = np.where(label == 1, suspicion.of_known_fraud(ratio), suspicion.GOOD_EVIDENCE)
    unknown_until = _running(unknown)
    known_until = _running(np.where(np.isnan(label) | (amounts.cents > ORDINARY_CENTS), unknown, by_label))

    now = line.before(line.asked)
    labelled = amounts.known[now]
    starts = line.starts(past.own_second, range(suspicion.THEFT_DAYS))
    within = _between(known_until, np.minimum(starts, labelled), labelled)
    within += _between(unknown_until, np.maximum(starts, labelled), now)
    customer = suspicion.log_odds(within, None, suspicion.THEFT_RATE)
    own = suspicion.of_amount(past.own_cents, mean[now], variance[now])
    return {"customer_log_odds": customer, "theft_log_odds": suspicion.theft_log_odds(customer, own)}


def _terminal_suspicion(past: _Past) -> np.ndarray:
    """Log odds that the terminal is in trouble."""
    line, days, second = past.line, suspicion.TERMINAL_DAYS, past.own_second
    fraud, cents = past.label == 1, past.cents
    evidence = _running(np.where(fraud & (cents <= ORDINARY_CENTS), suspicion.of_fraud(cents), 0))
    goods, known = _running(~fraud), line.after(line.asked, LABEL_DAYS)

    # Without a known fraud, all windows that begin after the last good payment have the same weight.
    midnight = line.asked - second % _DAY
    last_good = line.moment[_last(~fraud)[known]]
    windows = np.where(
        last_good > midnight - FIRST_DAYS * _DAY,  # not an earlier one, nor one of another terminal
        np.clip(-((last_good - midnight) // _DAY), 1, days),
        days,
    )
    odds = np.log(windows * suspicion.TERMINAL_RATE)

    oldest = np.minimum(line.before(midnight - (FIRST_DAYS - 1) * _DAY), known)
    suspicious = np.flatnonzero(evidence[known] != evidence[oldest])
    for part in np.split(suspicious, range(_TERMINALS_AT_ONCE, len(suspicious), _TERMINALS_AT_ONCE)):
        starts = np.minimum(line.starts(second[part], range(-days, FIRST_DAYS), part), known[part])
        first, end = starts[days:], starts[:-days]
        possible = goods[end] == goods[first]
        weights = np.where(possible, _between(evidence, first, end), -np.inf)
        odds[part] = suspicion.log_odds(weights[:days], weights[days:], suspicion.TERMINAL_RATE)
    return odds


def _running(values: np.ndarray) -> np.ndarray:
    """Returns totals of whole numbers before each position, ``[n + 1]``. Overflow is harmless for differences."""
    totals = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


def _between(totals: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    return totals[end] - totals[first]


def _last(mask: np.ndarray) -> np.ndarray:
    """Returns, for each position, the position just after the last earlier row in the mask; 0 if there is none."""
    last = np.zeros(len(mask) + 1, dtype=np.int64)
    np.maximum.accumulate(np.where(mask, np.arange(1, len(mask) + 1), 0), out=last[1:])
    return last


def _days_since(moment: np.ndarray, last: np.ndarray, now: np.ndarray, first: np.ndarray, most: int) -> np.ndarray:
    """Returns days from the row just before ``last`` to ``now``; ``most`` if that row is before the window."""
    return np.where(last > first, (now - moment[last]) / _DAY, most)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Returns ``total / count``; NaN where ``count`` is 0."""
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
        "terminal_log_odds",
        "customer_log_odds",
        "theft_log_odds",
        "fraud_log_odds",
    ),
    entities=("customer_id", "terminal_id"),
    reads=READ,
    parts={"customer_id": of_customers, "terminal_id": of_terminals},
    join=join,
    calendar=("is_weekend", "is_night"),
)
