"""The audit log: an unbroken chain, and each way to break it."""

import datetime as dt
import json
import random
import threading

import pytest
import sqlalchemy as sa

from resources.alerts import AlertStore
from resources.audit import NO_LINE, AuditError, AuditLog, Line, add, coming_from, faults, read_export
from resources.database import Database
from resources.ledger import Ledger
from tests.resources.conftest import POSTGRES

FACTS = {"verdicts": {}, "dagster_run": "", "who": "ada"}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'assetline.db'}"
    if POSTGRES is None:
        pytest.skip("needs the Debian package postgresql")
    return request.getfixturevalue("postgres")(f"audit_{random.randrange(10**9)}")


@pytest.fixture
def log(url) -> AuditLog:
    log = AuditLog(url)
    for n in range(6):
        log.record("read", f"fraud/table_{n}", who="ada", details={"rows": n})
    return log


def rewritten(url: str, statement: str) -> None:
    """Changes the table as its owner can: without the triggers."""
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        if connection.dialect.name == "sqlite":
            for verb in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS audit_log_no_{verb}")
        else:
            connection.exec_driver_sql("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
        connection.exec_driver_sql(statement)


def test_a_whole_log_has_no_fault(log):
    lines = list(log.lines())
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0].previous == NO_LINE
    assert list(faults(lines)) == []
    assert list(faults(lines, exported=lines[:4])) == []


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET who = 'eve'", "DELETE FROM audit_log"])
def test_the_database_refuses_to_change_or_remove_a_line(log, url, statement):
    with pytest.raises(sa.exc.DBAPIError, match="the audit log is append-only"), sa.create_engine(url).begin() as one:
        one.exec_driver_sql(statement)
    assert list(faults(log.lines())) == []


@pytest.mark.parametrize("column", ["at", "who", "origin", "action", "subject", "details"])
def test_an_altered_line_is_found_in_every_column(log, url, column):
    rewritten(url, f"UPDATE audit_log SET {column} = '{{}}' WHERE number = 3")
    assert list(faults(log.lines())) == ["line 3 was altered: its digest is not that of its content"]


def test_an_altered_line_with_a_new_digest_is_found_by_the_next_line(log, url):
    third = list(log.lines())[2]
    forged = Line(**{**third.__dict__, "who": "eve"}).sealed()
    rewritten(url, f"UPDATE audit_log SET who = 'eve', digest = '{forged.digest}' WHERE number = 3")
    assert list(faults(log.lines())) == ["line 4 does not follow the line before it: one of the two was replaced"]


@pytest.mark.parametrize(
    ("removed", "said"),
    [("number = 1", "line 1 is missing"), ("number = 3", "line 3 is missing"),
     ("number IN (2, 3, 4)", "lines 2 to 4 are missing")],
)  # fmt: skip
def test_missing_lines_are_found(log, url, removed, said):
    rewritten(url, f"DELETE FROM audit_log WHERE {removed}")
    assert list(faults(log.lines())) == [said]


def test_what_the_chain_alone_cannot_show_is_found_beside_an_export(log, url):
    kept = list(log.lines())
    rewritten(url, "DELETE FROM audit_log WHERE number > 4")
    assert list(faults(log.lines())) == []
    assert list(faults(log.lines(), exported=kept)) == ["lines 5 to 6 are missing at the end: they are in the export"]
    log.record("read", "fraud/other", who="eve")
    assert list(faults(log.lines(), exported=kept)) == [
        "line 5 differs from the exported one",
        "lines 6 to 6 are missing at the end: they are in the export",
    ]


def test_an_export_that_was_altered_is_found(log):
    text = [json.dumps(line.to_json()) for line in log.lines()]
    assert list(faults(log.lines(), exported=read_export(text))) == []
    text[1] = text[1].replace("ada", "eve")
    assert list(faults(log.lines(), exported=read_export(text))) == ["line 2 differs from the exported one"]
    for wrong in ("{", '{"number": 1}', "[1]", "null"):
        with pytest.raises(AuditError, match="this is not a line of the audit log"):
            list(read_export([wrong]))


def test_writers_at_once_leave_one_chain(url):
    barrier, failures = threading.Barrier(6), []

    def write(n: int) -> None:
        log = AuditLog(url)
        barrier.wait()
        try:
            for _ in range(5):
                log.record("read", f"fraud/{n}", who=f"person {n}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    lines = list(AuditLog(url).lines())
    assert len(lines) == 30
    assert list(faults(lines)) == []


def test_a_promotion_and_its_line_are_one_transaction(url, monkeypatch):
    ledger, log = Ledger(database_url=url), AuditLog(url)
    ledger.promote("fraud", "1", reason="first", **FACTS)
    ledger.record("approve", "fraud", "2", reason="better", **{**FACTS, "dagster_run": "r7"})
    assert [(one.who, one.action, one.subject) for one in log.lines()] == [
        ("ada", "promote", "fraud"),
        ("ada", "approve", "fraud"),
    ]
    assert list(log.lines())[1].origin == "run r7"
    monkeypatch.setattr("resources.audit.add", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ledger.promote("fraud", "3", reason="third", **FACTS)
    assert ledger.champion("fraud").version == "1"


def test_the_handling_of_an_alert_by_a_person_is_a_line_and_that_of_a_sensor_is_none(url):
    store = AlertStore(url)
    store.report("fraud", "drift/drift", severity="page", summary="drifted")
    assert list(AuditLog(url).lines()) == []
    store.acknowledge(1, who="ada")
    store.silence(1, until=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), who="ben")
    store.close(1, who="ada", comment="mended")
    assert [(one.who, one.action, one.subject, one.to_json()["details"]["alert"]) for one in AuditLog(url).lines()] == [
        ("ada", "acknowledged", "fraud/alerts", 1),
        ("ben", "silenced", "fraud/alerts", 1),
        ("ada", "resolved", "fraud/alerts", 1),
    ]


def test_a_line_says_where_it_comes_from_and_holds_no_control_characters(log):
    with coming_from("10.0.0.7 by the alerts page"):
        log.record("read", "page /\x1b[31m", who="e\nve")
    line = list(log.lines())[-1]
    assert (line.origin, line.subject, line.who) == ("10.0.0.7 by the alerts page", "page /?[31m", "e?ve")
    assert log.record("read", "x", who="").who == "unknown"


def test_the_newest_lines_that_match(log):
    log.record("export", "churn/rows", who="ben")
    log.record("export", "fraudulent", who="ben")
    assert [one.number for one in log.latest(2, subject="fraud")] == [5, 6]
    assert [one.subject for one in log.latest(9, who="ben", action="export")] == ["churn/rows", "fraudulent"]
    first = dt.datetime.fromisoformat(list(log.lines())[6].at)
    assert [one.number for one in log.latest(9, since=first)] == [7, 8]
    assert [one.number for one in log.latest(9, since=first.replace(tzinfo=None))] == [7, 8]


def test_details_that_are_too_long_are_refused(url):
    with pytest.raises(AuditError, match="the details of 'read fraud' are"), Database(url).writing() as connection:
        add(connection, "read", "fraud", who="ada", details={"columns": "x" * 5_000})


def test_a_log_that_cannot_be_written_refuses_the_action(tmp_path):
    url = f"sqlite:///{tmp_path / 'assetline.db'}"
    AuditLog(url).record("read", "fraud", who="ada")
    rewritten(url, "DROP TABLE audit_log")
    with pytest.raises(
        AuditError, match=r"cannot be written \(no such table: audit_log\), so 'export rows' is refused"
    ):
        AuditLog(url).record("export", "rows", who="ada")
