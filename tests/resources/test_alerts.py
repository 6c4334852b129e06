"""One alert per model and cause: opened, repeated, escalated, resolved; and told once, whatever the channels do."""

import datetime as dt
import logging
import threading

import pytest

from resources.alerts import Alerts, AlertStore, ConsoleChannel, Seen

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'alerts.db'}"


@pytest.fixture
def store(url) -> AlertStore:
    return AlertStore(url)


def report(store, day="2026-03-01", severity="page", **given):
    return store.report("fraud", "drift/drift", severity=severity, summary=f"drift on {day}", day=day, **given)


def test_it_opens_once_and_then_repeats(store):
    opened, change = report(store, at=AT, since_day="2026-02-28", links={"run": "/runs/1"})
    assert change == "opened"
    assert (opened.count, opened.since_day, opened.last_day, opened.opened_at) == (1, "2026-02-28", "2026-03-01", AT)
    again, change = report(store, "2026-03-02", links={"run": "/runs/2"})
    assert change == "repeated"
    assert again.id == opened.id
    assert (again.count, again.since_day, again.last_day) == (2, "2026-02-28", "2026-03-02")
    assert again.links == {"run": "/runs/2"}
    assert len(store.open_alerts()) == 1


def test_each_model_and_cause_has_its_own(store):
    for model, cause in [("fraud", "drift/drift"), ("fraud", "run/fraud_train"), ("churn", "drift/drift")]:
        store.report(model, cause, severity="page", summary="x")
    assert len(store.open_alerts()) == 3
    assert [alert.cause for alert in store.open_alerts("fraud")] == ["drift/drift", "run/fraud_train"]


def test_a_warning_escalates_once_and_never_back(store):
    assert report(store, severity="warn")[1] == "opened"
    assert report(store, severity="page")[1] == "escalated"
    alert, change = report(store, severity="warn")
    assert (alert.severity, change) == ("page", "repeated")


def test_it_resolves_and_a_new_one_opens_afterwards(store):
    first = report(store)[0]
    resolved, change = store.resolve("fraud", "drift/drift", reason="the check passed", day="2026-03-02", at=AT)
    assert change == "resolved"
    assert (resolved.resolved_at, resolved.resolved_day, resolved.resolution) == (AT, "2026-03-02", "the check passed")
    assert store.open_alerts() == []
    assert store.resolve("fraud", "drift/drift", reason="again") is None
    assert report(store, "2026-03-09")[0].id != first.id
    assert [event.change for event in store.history(first.id)] == ["opened", "resolved"]
    assert len(store.alerts("fraud")) == 2


def test_an_old_day_that_passes_does_not_resolve_what_is_newer(store):
    report(store, "2026-03-05")
    assert store.resolve("fraud", "drift/drift", reason="a backfill", day="2026-03-04") is None
    assert store.resolve("fraud", "drift/drift", reason="the day mended", day="2026-03-05") is not None


def test_an_old_day_that_fails_keeps_the_newer_summary(store):
    report(store, "2026-03-05")
    alert, _ = report(store, "2026-03-01")
    assert (alert.last_day, alert.summary, alert.count) == ("2026-03-05", "drift on 2026-03-05", 2)


def test_what_was_seen_changes_nothing_a_second_time(store):
    seen = Seen("check_evaluations", 7)
    assert report(store, seen=seen) is not None
    assert report(store, seen=seen) is None
    assert store.resolve("fraud", "drift/drift", reason="older", seen=Seen("check_evaluations", 6)) is None
    assert store.position("check_evaluations") == 7
    store.advance(Seen("check_evaluations", 9))
    assert store.position("check_evaluations") == 9
    assert store.open_alerts()[0].count == 1


def test_a_kill_between_alert_and_position_is_not_possible(store, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_noted", killed)
    with pytest.raises(KeyboardInterrupt):
        report(store, seen=Seen("check_evaluations", 3))
    monkeypatch.undo()
    assert store.position("check_evaluations") == 0
    assert store.open_alerts() == []


def test_many_at_once_open_one_alert_and_lose_none(url):
    barrier, failures = threading.Barrier(6), []

    def work() -> None:
        mine = AlertStore(url)
        barrier.wait()
        try:
            for _ in range(5):
                report(mine)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    [alert] = AlertStore(url).open_alerts()
    assert alert.count == 30
    changes = [event.change for event in AlertStore(url).history(alert.id)]
    assert changes == ["opened"] + ["repeated"] * 29


class Recorder:
    name = "recorder"

    def __init__(self):
        self.told = []

    def send(self, alert, change):
        self.told.append((alert.cause, change))


class Broken:
    name = "broken"

    def send(self, alert, change):
        raise ConnectionError("nobody answers")


def test_channels_are_told_of_changes_but_not_of_repetitions(url, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(Alerts, "channels", lambda self: (recorder,))
    alerts = Alerts(database_url=url)
    for severity in ("warn", "warn", "page", "page"):
        alerts.tell(report(alerts.store, severity=severity))
    alerts.tell(alerts.store.resolve("fraud", "drift/drift", reason="over"))
    alerts.tell(None)
    assert recorder.told == [("drift/drift", change) for change in ("opened", "escalated", "resolved")]


def test_a_channel_that_fails_keeps_nobody_else_from_being_told_and_is_noted(url, monkeypatch, caplog):
    recorder = Recorder()
    monkeypatch.setattr(Alerts, "channels", lambda self: (Broken(), recorder))
    alerts = Alerts(database_url=url)
    alert, change = report(alerts.store)
    with caplog.at_level(logging.ERROR):
        alerts.tell((alert, change))
    assert recorder.told == [("drift/drift", "opened")]
    assert "the channel broken could not be told" in caplog.text
    assert [event.words for event in alerts.store.history(alert.id)][-1] == "broken: nobody answers"


def test_the_console_says_a_line_for_each_change(store, caplog):
    with caplog.at_level(logging.WARNING):
        ConsoleChannel().send(*report(store))
        ConsoleChannel().send(*store.resolve("fraud", "drift/drift", reason="the check passed"))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["OPENED page [fraud] drift/drift: drift on 2026-03-01",
                     "RESOLVED page [fraud] drift/drift: the check passed"]  # fmt: skip


def test_ids_follow_the_order_of_opening(store):
    for number in (1, 2, 3):
        store.report("fraud", f"cause {number}", severity="warn", summary="x")
    assert [alert.cause for alert in store.alerts()] == ["cause 1", "cause 2", "cause 3"]
