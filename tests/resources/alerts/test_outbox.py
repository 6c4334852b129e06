"""The outbox: what is due, what waits, what has arrived, and whose turn a channel is."""

import datetime as dt

import pytest

from resources.alerts import AlertStore, Route

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def store(tmp_path) -> AlertStore:
    return AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", [Route(channel="c"), Route(channel="d")])


def opened(store, cause: str, severity="page", at=AT) -> None:
    store.report("fraud", cause, severity=severity, summary="x", at=at)


def test_at_most_a_hundred_changes_are_looked_at_at_once(store):
    for number in range(120):
        opened(store, f"cause {number}")
    due = store.outbox.due("c", AT)
    assert [change.alert.cause for change in due] == [f"cause {number}" for number in range(100)]


def test_each_failure_counts_and_an_arrival_does_not(store):
    opened(store, "a")
    for tries in range(3):
        [change] = store.outbox.due("c", AT)
        assert change.tries == tries
        store.outbox.undelivered([change.id], "down", AT)
    assert store.outbox.backlog()["c"].tries == 3
    store.outbox.delivered([change.id], "m1", AT)
    assert store.outbox.due("c", AT) == []
    assert set(store.outbox.backlog()) == {"d"}


@pytest.mark.parametrize("first", ["warn", "page"])
def test_what_waits_of_a_channel_is_counted_over_all_severities(store, first):
    second = "page" if first == "warn" else "warn"
    opened(store, "a", first, at=AT + MINUTE)
    opened(store, "b", second, at=AT)
    opened(store, "c", second, at=AT + MINUTE)
    due = store.outbox.due("c", AT + MINUTE)
    store.outbox.undelivered([due[0].id], "it was down", AT)
    store.outbox.undelivered([due[0].id], "it was down", AT)
    store.outbox.undelivered([due[1].id], "it was down", AT)
    waiting = store.outbox.backlog()["c"]
    assert (waiting.waiting, waiting.tries, waiting.error) == (3, 2, "it was down")
    assert waiting.oldest == {first: AT + MINUTE, second: AT}
    assert waiting.since == AT


def test_the_rate_counts_messages_and_not_changes(store):
    opened(store, "a")
    opened(store, "b")
    opened(store, "c")
    one, two, three = store.outbox.due("c", AT)
    store.outbox.delivered([one.id, two.id], "m1", AT)
    store.outbox.delivered([three.id], "m2", AT + MINUTE)
    assert store.outbox.messages_since("c", AT) == [AT, AT + MINUTE]
    assert store.outbox.messages_since("c", AT + MINUTE) == [AT + MINUTE]
    assert store.outbox.messages_since("d", AT) == []
    assert store.outbox.sent() == {"c": 3}


def test_a_turn_ends_when_it_is_over_and_not_before(store):
    until = AT + MINUTE
    assert store.outbox.take_turn("c", "one", until, at=AT) is None
    assert store.outbox.take_turn("c", "two", until, at=until - dt.timedelta(seconds=1)) == "one"
    assert store.outbox.take_turn("d", "two", until, at=AT) is None, "each channel has its own"
    assert store.outbox.take_turn("c", "two", until + MINUTE, at=until) is None
    store.outbox.release_turn("c", "one")
    assert store.outbox.take_turn("c", "one", until + MINUTE, at=until) == "two", "only the holder gives it back"
