"""One alert per model and cause: opened, repeated, escalated, resolved; and told once, whatever the channels do."""

import datetime as dt
import json
import logging
import sqlite3
import threading

import pytest
import sqlalchemy as sa

from resources.alerts import AlertError, Alerts, AlertStore, Policy, Route, Seen

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

    monkeypatch.setattr(store, "_changed", killed)
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


def test_the_console_says_a_line_for_each_change(url, caplog):
    alerts = Alerts(database_url=url)
    with caplog.at_level(logging.WARNING):
        for severity in ("page", "page"):
            alerts.tell(report(alerts.store, severity=severity))
        alerts.tell(alerts.store.resolve("fraud", "drift/drift", reason="the check passed"))
        alerts.tell(None)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["OPENED page [fraud] drift/drift: drift on 2026-03-01",
                     "RESOLVED page [fraud] drift/drift: the check passed"]  # fmt: skip


def test_ids_follow_the_order_of_opening(store):
    for number in (1, 2, 3):
        store.report("fraud", f"cause {number}", severity="warn", summary="x")
    assert [alert.cause for alert in store.alerts()] == ["cause 1", "cause 2", "cause 3"]


HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def at(hours: float) -> dt.datetime:
    return AT + hours * HOUR


def changes(store, alert) -> list[str]:
    return [event.change for event in store.history(alert.id)]


def test_each_column_has_its_own_alert_and_the_fingerprint_is_of_all_three(store):
    one, _ = store.report("fraud", "drift/quality", column="amount", severity="warn", summary="x")
    two, _ = store.report("fraud", "drift/quality", column="age", severity="warn", summary="x")
    assert one.id != two.id
    assert one.fingerprint != two.fingerprint
    assert one.title == "drift/quality (amount)"
    store.resolve("fraud", "drift/quality", column="age", reason="over")
    assert [alert.column for alert in store.open_causes("fraud", "drift/quality")] == ["amount"]


def test_acknowledging_changes_the_state_once_and_an_escalation_undoes_it(store):
    alert, _ = report(store, severity="warn")
    assert store.acknowledge(alert.id, who="ada")[0].state == "acknowledged"
    assert store.acknowledge(alert.id, who="bob") is None
    assert store.get(alert.id).acknowledged_by == "ada"
    escalated, _ = report(store, severity="page")
    assert (escalated.state, escalated.acknowledged_by) == ("open", None)


def test_what_cannot_be_done_is_refused_in_words(store):
    alert, _ = report(store, at=AT)
    with pytest.raises(AlertError, match="there is no alert 99"):
        store.acknowledge(99, who="ada")
    with pytest.raises(AlertError, match="is in the past; give a later time"):
        store.silence(alert.id, until=AT - HOUR, who="ada", at=AT)
    store.close(alert.id, who="ada", at=at(1))
    with pytest.raises(AlertError, match=f"alert {alert.id} was already resolved at"):
        store.acknowledge(alert.id, who="ada")
    assert store.get(alert.id).resolution == "resolved by ada"


def test_a_cause_that_comes_back_soon_reopens_and_later_opens_a_new_one(store):
    first, _ = report(store, at=AT)
    store.resolve("fraud", "drift/drift", reason="over", at=at(1))
    again, change = report(store, "2026-03-02", at=at(24))
    assert (again.id, change, again.state, again.count) == (first.id, "reopened", "open", 2)
    assert again.since_day == "2026-03-02", "what is over is no part of it"
    store.resolve("fraud", "drift/drift", reason="over", at=at(25))
    assert report(store, "2026-03-09", at=at(25) + 4 * DAY)[0].id != first.id


def test_flapping_is_said_once_and_settles_only_when_the_cause_stays_away(url):
    store = AlertStore(url, [Route(channel="c")], Policy(flaps=3, settle_after=2 * DAY))
    alert, _ = report(store, at=AT)
    for n in range(1, 4):
        store.resolve("fraud", "drift/drift", reason="over", at=at(24 * n))
        _, change = report(store, at=at(24 * n + 1))
    assert change == "flapping"
    assert store.resolve("fraud", "drift/drift", reason="over", at=at(100))[1] == "repeated"
    assert store.get(alert.id).state == "open"
    report(store, at=at(110))  # back again: the clock starts anew
    store.resolve("fraud", "drift/drift", reason="over", at=at(120))
    assert store.tend(at(120 + 47)) == []
    [(settled, change)] = store.tend(at(120 + 48))
    assert (settled.state, change) == ("resolved", "resolved")
    told = [delivery.change for delivery in store.outbox.due("c", at(999))]
    assert told == [
        "opened",
        "resolved",
        "reopened",
        "resolved",
        "reopened",
        "resolved",
        "reopened",
        "flapping",
        "resolved",
    ]


def test_a_silence_keeps_all_but_the_resolution_back_and_ends_by_itself(url):
    store = AlertStore(url, [Route(channel="c")])
    alert, _ = report(store, severity="warn", at=AT)
    store.silence(alert.id, until=at(5), who="ada", at=at(1))
    report(store, severity="page", at=at(2))
    assert store.tend(at(4)) == []
    assert [change for _, change in store.tend(at(5))] == ["unsilenced"]
    report(store, at=at(6))
    store.resolve("fraud", "drift/drift", reason="over", at=at(7))
    assert [d.change for d in store.outbox.due("c", at(9))] == ["opened", "silenced", "unsilenced", "resolved"]


def test_routes_take_severities_and_owners(url):
    store = AlertStore(
        url, [Route(channel="pages", severities=("page",)), Route(channel="risk", owners=("team:risk",))]
    )
    store.report("fraud", "a", severity="page", summary="x", owner="team:risk")
    store.report("fraud", "b", severity="warn", summary="x", owner="team:risk")
    store.report("churn", "c", severity="page", summary="x", owner="team:crm")
    told = {name: [d.alert.cause for d in store.outbox.due(name)] for name in ("pages", "risk")}
    assert told == {"pages": ["a", "c"], "risk": ["a", "b"]}


def test_nothing_of_an_alert_overtakes_what_waits_and_others_go_on(url):
    store = AlertStore(url, [Route(channel="c")])
    report(store, severity="warn", at=AT)
    store.report("fraud", "other", severity="page", summary="x", at=AT)
    [first, _] = store.outbox.due("c", AT)
    store.outbox.undelivered([first.id], "it was down", at(1))
    report(store, severity="page", at=AT)
    assert [d.alert.cause for d in store.outbox.due("c", AT)] == ["other"]
    assert store.outbox.backlog()["c"].error == "it was down"
    assert [d.change for d in store.outbox.due("c", at(1)) if d.alert.cause == "drift/drift"] == ["opened", "escalated"]


def test_what_is_told_is_the_alert_as_it_was(url):
    store = AlertStore(url, [Route(channel="c")])
    report(store, severity="warn")
    report(store, "2026-03-02", severity="page")
    assert [(d.alert.severity, d.alert.count) for d in store.outbox.due("c")] == [("warn", 1), ("page", 2)]


def test_the_history_cannot_be_rewritten_by_anybody(url, store):
    report(store)
    with sqlite3.connect(sa.make_url(url).database) as connection:
        for statement in ("UPDATE alert_events SET message = ''", "DELETE FROM alert_events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_a_database_of_before_gets_what_is_new_and_keeps_its_alerts(url, tmp_path):
    (tmp_path / "state").mkdir()
    with sqlite3.connect(sa.make_url(url).database) as connection:
        connection.executescript(
            """CREATE TABLE alerts (id INTEGER PRIMARY KEY, model VARCHAR(200) NOT NULL, cause VARCHAR(300) NOT NULL,
            severity VARCHAR(8) NOT NULL, summary TEXT NOT NULL, links JSON NOT NULL, count INTEGER NOT NULL,
            since_day VARCHAR(10), last_day VARCHAR(10), opened_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
            resolved_at DATETIME, resolved_day VARCHAR(10), resolution TEXT);
            CREATE UNIQUE INDEX one_open_alert ON alerts (model, cause) WHERE resolved_at IS NULL;
            CREATE TABLE alert_events (id INTEGER PRIMARY KEY, alert_id INTEGER NOT NULL, change VARCHAR(16) NOT NULL,
            words TEXT NOT NULL, day VARCHAR(10), at DATETIME NOT NULL);
            INSERT INTO alerts VALUES (1, 'fraud', 'drift/drift', 'warn', 'x', '{}', 1, NULL, NULL,
            '2026-03-01 00:00:00.000000', '2026-03-01 00:00:00.000000', NULL, NULL, NULL);
            INSERT INTO alert_events VALUES (1, 1, 'opened', 'x', NULL, '2026-03-01 00:00:00.000000');"""
        )
    alert, change = report(AlertStore(url))
    assert (alert.id, change, alert.flapping) == (1, "escalated", False)
    assert changes(AlertStore(url), alert) == ["opened", "escalated"]


def test_an_alert_that_another_process_opens_first_is_repeated(store, monkeypatch):
    report(store)
    looked, look = [], store._open

    def too_early(connection, fingerprint):
        """Finds nothing the first time, as a process does that looks before the other one has written."""
        looked.append(fingerprint)
        return look(connection, fingerprint) if len(looked) > 1 else None

    monkeypatch.setattr(store, "_open", too_early)
    assert report(store)[1] == "repeated"
    monkeypatch.setattr(store, "_open", lambda *_: looked.append("x"))
    with pytest.raises(RuntimeError, match=r"other processes opened the alert fraud/\S+ 20 times in a row"):
        report(store)
    assert looked.count("x") == 20


def test_the_first_day_of_the_cause_is_that_of_the_alert_where_no_other_is_said(store):
    assert report(store, "2026-03-01")[0].since_day == "2026-03-01"


def test_the_same_day_once_more_brings_the_newer_summary(store):
    report(store)
    again, _ = store.report("fraud", "drift/drift", severity="page", summary="measured again", day="2026-03-01")
    assert again.summary == "measured again"


def test_a_silence_that_is_over_is_told_once(store):
    alert, _ = report(store, at=AT)
    store.silence(alert.id, until=at(1), who="ada", at=AT)
    assert len(store.tend(at(1))) == 1
    assert store.tend(at(2)) == []
    assert store.get(alert.id).silenced_until is None


def test_the_history_says_who_did_what(store):
    alert, _ = report(store, at=AT)
    assert store.acknowledge(alert.id, who="ada", at=AT)[1] == "acknowledged"
    store.silence(alert.id, until=at(1), who="bob", at=AT)
    store.close(alert.id, who="eve", comment="a false alarm")
    told = [(event.change, event.message, event.who) for event in store.history(alert.id)][1:]
    assert told == [
        ("acknowledged", "acknowledged by ada", "ada"),
        ("silenced", "silenced by bob until 2026-03-01 13:00 UTC", "bob"),
        ("resolved", "a false alarm", "eve"),
    ]


@pytest.mark.parametrize("done", ["silence", "close"])
def test_nobody_silences_or_resolves_what_is_not_open(store, done):
    given = {"until": at(9)} if done == "silence" else {}
    with pytest.raises(AlertError, match="there is no alert 1"):
        getattr(store, done)(1, who="ada", at=AT, **given)
    alert, _ = report(store, at=AT)
    store.close(alert.id, who="ada", at=AT)
    with pytest.raises(AlertError, match="was already resolved at"):
        getattr(store, done)(alert.id, who="ada", at=AT, **given)


def test_a_silence_that_ends_now_is_none(store):
    alert, _ = report(store, at=AT)
    with pytest.raises(AlertError, match="is in the past; give a later time"):
        store.silence(alert.id, until=AT, who="ada", at=AT)


def test_the_resolution_of_a_silenced_alert_is_told(url):
    store = AlertStore(url, [Route(channel="c")])
    alert, _ = report(store, at=AT)
    store.silence(alert.id, until=at(5), who="ada", at=AT)
    store.resolve("fraud", "drift/drift", reason="over", at=at(1))
    assert [d.change for d in store.outbox.due("c", at(1))] == ["opened", "silenced", "resolved"]


def test_a_channel_that_waits_is_told_when_its_time_has_come(url):
    store = AlertStore(url, [Route(channel="c", delay=HOUR)])
    report(store, at=AT)
    assert store.outbox.due("c", at(0.9)) == []
    assert len(store.outbox.due("c", at(1))) == 1


def test_the_first_observation_of_a_stream_counts(store):
    assert report(store, seen=Seen("check_evaluations", 0)) is not None
    assert report(store, seen=Seen("check_evaluations", 0)) is None


def test_a_cause_reopens_its_alert_to_the_last_moment(store):
    first, _ = report(store, at=AT)
    store.resolve("fraud", "drift/drift", reason="over", at=at(1))
    assert report(store, at=at(1) + Policy().reopen_within)[0].id == first.id


def test_what_reopened_long_ago_is_no_flapping(url):
    store = AlertStore(url, policy=Policy(flaps=2, flap_within=2 * DAY, reopen_within=9 * DAY))
    report(store, at=AT)

    def again(hours: float):
        store.resolve("fraud", "drift/drift", reason="over", at=at(hours))
        return report(store, at=at(hours))[1]

    assert again(24) == "reopened"
    assert again(24 + 48.1) == "reopened"
    assert again(24 + 96.1) == "flapping", "to the last moment of the two days"


def test_updates_are_for_open_alerts(store):
    assert store.update(1, "a training run is requested") is None
    alert, _ = report(store, at=AT)
    updated, change = store.update(alert.id, "a training run is requested", at=at(1))
    assert (change, updated.updated_at) == ("updated", at(1))
    store.close(alert.id, who="ada")
    assert store.update(alert.id, "a training run is requested") is None


def test_the_history_can_be_read_and_counted_from_any_line_on(store):
    assert store.last_event() == 0
    assert store.count_changes() == ({}, 0)
    report(store)
    report(store)
    store.report("churn", "drift/drift", severity="page", summary="x")
    store.resolve("fraud", "drift/drift", reason="over")
    ids = [event.id for event in store.history()]
    assert len(ids) == 4
    assert store.last_event() == ids[-1]
    assert [event.id for event in store.history(after=ids[1])] == ids[2:]
    counted = {("fraud", "opened"): 1, ("fraud", "repeated"): 1, ("churn", "opened"): 1, ("fraud", "resolved"): 1}
    assert store.count_changes() == (counted, ids[-1])
    assert store.count_changes(ids[1]) == ({("churn", "opened"): 1, ("fraud", "resolved"): 1}, ids[-1])
    assert store.count_changes(ids[-1]) == ({}, ids[-1])


def test_there_is_no_alert_of_a_wrong_number(store):
    with pytest.raises(AlertError, match="there is no alert 7"):
        store.get(7)


def test_texts_are_rewritten_where_they_differ_in_alerts_and_in_their_history(tmp_path):
    routes = [Route(channel="hook")]
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", routes)
    store.report("a", "quality/share", severity="warn", summary="Ada wrote", links={"run": "http://ada"})
    store.report("b", "quality/share", severity="warn", summary="nobody wrote")
    store.resolve("a", "quality/share", reason="Ada wrote again")

    def without(text: str) -> str:
        return text.replace("Ada", "***")

    assert store.rewrite(without, write=False) == 3, "the alert with both its texts, and its two changes"
    assert store.rewrite(without, write=False) == 3, "counting changes nothing"
    assert store.rewrite(without) == 3
    assert store.rewrite(without) == 0
    [mine] = [one for one in store.alerts() if one.model == "a"]
    assert (mine.summary, mine.resolution) == ("*** wrote", "*** wrote again")
    history = store.history(mine.id)
    assert [one.message for one in history] == ["*** wrote", "*** wrote again"]
    with sqlite3.connect(tmp_path / "alerts.db") as connection:
        snapshots = [json.loads(row[0]) for row in connection.execute("SELECT snapshot FROM alert_events")]
    assert [one["summary"] for one in snapshots if one["model"] == "a"] == ["*** wrote", "*** wrote"]
    assert [one.summary for one in store.alerts() if one.model == "b"] == ["nobody wrote"]
