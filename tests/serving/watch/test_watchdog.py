"""What the watchdog calls wrong, what it lets pass, and what becomes of it."""

import datetime as dt

import pytest

from resources.alerts import AlertStore
from serving.watch.watchdog import (
    CONFIRMED_AFTER,
    DAEMON_SILENT_S,
    TICK_GRACE_S,
    Problem,
    Watchdog,
    dagster_look,
    problems_of_dagster,
    problems_of_service,
    service_look,
)

NOW = 1_800_000_000.0
LONG_AGO = NOW - 86_400


def seen(*, daemons=(), sensors=(), schedules=(), assets=(), location=None):
    entry = {
        "name": "assetline",
        "loadStatus": "LOADED",
        "locationOrLoadError": location
        or {
            "__typename": "RepositoryLocation",
            "repositories": [{"sensors": list(sensors), "schedules": list(schedules)}],
        },
    }
    return {
        "instance": {"daemonHealth": {"allDaemonStatuses": list(daemons)}},
        "workspaceOrError": {"__typename": "Workspace", "locationEntries": [entry]},
        "assetNodes": list(assets),
    }  # fmt: skip


def daemon(beat, required=True, errors=()):
    return {"daemonType": "SENSOR", "required": required, "lastHeartbeatTime": beat,
            "lastHeartbeatErrors": [{"message": words} for words in errors]}  # fmt: skip


def ticking(*ticks, status="RUNNING"):
    return {"status": status, "ticks": [
        {"timestamp": at, "status": said, "error": {"message": "boom\nat line 3"} if said == "FAILURE" else None}
        for at, said in ticks]}  # fmt: skip


def sensor(*ticks, name="fraud_arrivals", interval=300, status="RUNNING", default="RUNNING"):
    return {
        "name": name,
        "minIntervalSeconds": interval,
        "defaultStatus": default,
        "sensorState": ticking(*ticks, status=status),
    }


def schedule(*ticks, due, name="fraud_daily_arrivals"):
    return {
        "name": name,
        "defaultStatus": "RUNNING",
        "potentialTickTimestamps": [due, due + 86_400],
        "scheduleState": ticking(*ticks),
    }


def asset(status, path=("fraud", "features")):
    return {"assetKey": {"path": list(path)}, "freshnessStatusInfo": {"freshnessStatus": status}}


def causes(given, started=LONG_AGO):
    return [(p.model, p.cause, p.severity) for p in problems_of_dagster(given, ["fraud"], NOW, started)]


LATE = 3 * 300 + TICK_GRACE_S


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (seen(daemons=[daemon(NOW - 40)]), []),
        (seen(daemons=[daemon(NOW - DAEMON_SILENT_S - 1)]), [("assetline", "watchdog/daemon/sensor", "page")]),
        (seen(daemons=[daemon(None)]), [("assetline", "watchdog/daemon/sensor", "page")]),
        (seen(daemons=[daemon(None, required=False)]), []),
        (seen(daemons=[daemon(NOW, errors=["out of files"])]), [("assetline", "watchdog/daemon/sensor", "page")]),
        (seen(sensors=[sensor((NOW - 200, "SKIPPED"))]), []),
        (seen(sensors=[sensor((NOW - LATE + 5, "SKIPPED"))]), []),
        (seen(sensors=[sensor((NOW - LATE - 5, "SKIPPED"))]), [("fraud", "watchdog/sensor/fraud_arrivals", "page")]),
        (seen(sensors=[sensor((NOW - LATE - 5, "SKIPPED"), status="STOPPED")]),
         [("fraud", "watchdog/sensor/fraud_arrivals", "warn")]),
        (seen(sensors=[sensor(status="STOPPED", default="STOPPED")]), []),
        (seen(sensors=[sensor((NOW, "FAILURE"), (NOW - 300, "SUCCESS"))]), []),
        (seen(sensors=[sensor((NOW, "FAILURE"), (NOW - 300, "FAILURE"))]),
         [("fraud", "watchdog/sensor/fraud_arrivals", "page")]),
        (seen(sensors=[sensor(name="automation")]), [("assetline", "watchdog/sensor/automation", "page")]),
        (seen(schedules=[schedule((NOW - 5_000, "SUCCESS"), due=NOW - 5_000)]), []),
        (seen(schedules=[schedule((NOW - 90_000, "SUCCESS"), due=NOW - 5_000)]),
         [("fraud", "watchdog/schedule/fraud_daily_arrivals", "page")]),
        (seen(location={"__typename": "PythonError", "message": "no module"}),
         [("assetline", "watchdog/location", "page")]),
        (seen(assets=[asset("HEALTHY"), asset("UNKNOWN")]), []),
        (seen(assets=[asset("WARNING")]), [("fraud", "freshness/features", "warn")]),
        (seen(assets=[asset("DEGRADED")]), [("fraud", "freshness/features", "page")]),
    ],
)  # fmt: skip
def test_what_is_wrong_and_what_is_not(given, expected):
    assert causes(given) == expected


def test_what_has_not_had_the_time_to_tick_is_not_late():
    given = seen(daemons=[daemon(None)], sensors=[sensor()], schedules=[schedule(due=NOW - 5_000)])
    assert causes(given, started=NOW - 60) == []


def test_what_is_of_a_model_is_not_of_one_whose_name_begins_it():
    given = seen(sensors=[sensor(name="fraud_eu_retraining")])
    [problem] = problems_of_dagster(given, ["fraud", "fraud_eu"], NOW, LONG_AGO)
    assert problem.model == "fraud_eu"


def test_the_words_say_which_and_since_when_in_one_line():
    [problem] = problems_of_dagster(seen(sensors=[sensor((NOW, "FAILURE"))]), ["fraud"], NOW, LONG_AGO)
    assert problem.summary == "the sensor fraud_arrivals fails: boom"
    [problem] = problems_of_dagster(seen(daemons=[daemon(NOW - 3_600)]), [], NOW, LONG_AGO)
    assert problem.summary == "Dagster's sensor daemon has sent no heartbeat since 2027-01-15 07:00 UTC"


def test_a_service_that_is_degraded_is_a_problem_and_one_that_waits_is_not():
    models = {"fraud": {"status": "degraded", "problem": "version 3 cannot be used"}, "churn": {"status": "waiting"}}
    [problem] = problems_of_service({"models": models})
    assert (problem.model, problem.cause, problem.summary) == ("fraud", "service/degraded", "version 3 cannot be used")


def test_a_service_that_cannot_read_its_tokens_is_a_problem():
    access = {"auth": "token", "problem": "the token file x cannot be read"}
    [problem] = problems_of_service({"models": {"fraud": {"status": "ok"}}, "access": access})
    assert (problem.cause, problem.summary) == ("service/degraded", "the token file x cannot be read")
    assert not problems_of_service({"models": {}, "access": {"auth": "off", "problem": None}})


def test_a_process_of_the_service_that_cannot_be_started_is_a_problem():
    processes = [{"process": n, "problem": "process 1 ended 3 times" if n else None} for n in range(2)]
    health = {"models": {"fraud": {"status": "ok"}}, "access": {"problem": "the token file x cannot be read"}}
    [problem] = problems_of_service({**health, "processes": processes})
    assert problem.summary == "the token file x cannot be read; process 1 ended 3 times"
    assert not problems_of_service({"models": {}, "processes": processes[:1]})


@pytest.fixture
def store(tmp_path) -> AlertStore:
    return AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}")


SICK = Problem(model="fraud", cause="service/degraded", severity="page", summary="sick")
DOWN = Problem(model="assetline", cause="service/down", severity="page", summary="no answer")


def test_it_pages_once_when_confirmed_and_resolves_when_well(store):
    now: list[Problem] = [SICK]
    dog = Watchdog(store, {("service/",): (lambda: now, DOWN)}, {"fraud": "team:risk"})
    dog.look()
    assert store.open_alerts() == [], "one look is no proof"
    for _ in range(CONFIRMED_AFTER + 3):
        dog.look()
    [alert] = store.open_alerts()
    assert (alert.count, alert.owner, alert.runbook) == (1, "team:risk", "docs/runbooks/service.md")
    now.clear()
    dog.look()
    assert store.open_alerts() == []
    now.append(SICK)
    dog.look()
    assert store.open_alerts() == [], "it must be confirmed anew"


def test_where_nothing_answers_it_pages_and_calls_nothing_well(store):
    answers: list = [[SICK], [SICK], OSError("refused"), OSError("refused"), []]

    def see():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    dog = Watchdog(store, {("service/",): (see, DOWN)})
    for _ in range(4):
        dog.look()
    assert {alert.cause for alert in store.open_alerts()} == {"service/degraded", "service/down"}
    dog.look()
    assert store.open_alerts() == []


def test_what_others_opened_is_left_alone(store):
    store.report("fraud", "drift/drift", severity="page", summary="x")
    Watchdog(store, {("service/",): (list, DOWN)}).look()
    assert len(store.open_alerts()) == 1


@pytest.mark.closes("alerts", "watchdog/webserver")
@pytest.mark.closes("alerts", "service/down")
def test_addresses_where_nothing_listens_are_down(store):
    looks = {
        ("watchdog/", "freshness/"): dagster_look("http://127.0.0.1:1", [], NOW),
        ("service/",): service_look("http://127.0.0.1:1"),
    }
    dog = Watchdog(store, looks)
    for _ in range(CONFIRMED_AFTER):
        dog.look(dt.datetime(2026, 3, 1, tzinfo=dt.UTC))
    assert {alert.cause for alert in store.open_alerts()} == {"watchdog/webserver", "service/down"}
    assert "Connection refused" in store.open_alerts()[0].summary


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        pytest.param(
            seen(daemons=[daemon(None)]), "watchdog/daemon/sensor",
            marks=pytest.mark.closes("alerts", "watchdog/daemon/"),
        ),
        pytest.param(
            seen(location={"__typename": "PythonError", "message": "no module"}), "watchdog/location",
            marks=pytest.mark.closes("alerts", "watchdog/location"),
        ),
        pytest.param(
            {**seen(), "workspaceOrError": {"__typename": "PythonError", "message": "no file"}}, "watchdog/location",
            marks=pytest.mark.closes("alerts", "watchdog/location"),
        ),
        pytest.param(
            seen(sensors=[sensor()]), "watchdog/sensor/fraud_arrivals",
            marks=pytest.mark.closes("alerts", "watchdog/sensor/"),
        ),
        pytest.param(
            seen(schedules=[schedule(due=NOW - 5_000, name="fraud_weekly")]), "watchdog/schedule/fraud_weekly",
            marks=pytest.mark.closes("alerts", "watchdog/schedule/"),
        ),
        pytest.param(
            seen(assets=[asset("DEGRADED")]), "freshness/features",
            marks=pytest.mark.closes("alerts", "freshness/"),
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_dagster_opens_an_alert_and_its_end_resolves_it(store, given, cause):
    answers = [given] * CONFIRMED_AFTER + [seen()]
    look = (lambda: problems_of_dagster(answers.pop(0), ["fraud"], NOW, LONG_AGO)), DOWN
    dog = Watchdog(store, {("watchdog/", "freshness/"): look})
    for _ in range(CONFIRMED_AFTER):
        dog.look()
    [alert] = store.open_alerts()
    assert alert.cause == cause
    dog.look()
    assert store.open_alerts() == []


@pytest.mark.closes("alerts", "service/degraded")
def test_a_service_that_is_degraded_opens_an_alert_and_its_recovery_resolves_it(store):
    sick, well = ({"models": {"fraud": {"status": said, "problem": "it is odd"}}} for said in ("degraded", "ok"))
    answers = [sick] * CONFIRMED_AFTER + [well]
    dog = Watchdog(store, {("service/",): (lambda: problems_of_service(answers.pop(0)), DOWN)})
    for _ in range(CONFIRMED_AFTER):
        dog.look()
    [alert] = store.open_alerts()
    assert (alert.cause, alert.model, alert.summary) == ("service/degraded", "fraud", "it is odd")
    dog.look()
    assert store.open_alerts() == []


def test_a_problem_that_is_in_no_list_cannot_be_told():
    with pytest.raises(
        ValueError, match=r"watchdog/moon is not a cause of the watchdog; add its prefix to .*causes\.py"
    ):
        Problem(model="assetline", cause="watchdog/moon", severity="page", summary="it is full")
