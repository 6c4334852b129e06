"""The ledger is the truth, and the alias follows it."""

import datetime as dt
import itertools
import threading
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.ledger import CHAMPION, Ledger, LedgerError, _naive_utc
from resources.settings import Settings
from resources.targets.local_service import LocalService

SAID = {"verdicts": {"gate": True}, "dagster_run": "run-1", "who": "ada"}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(database_url=f"sqlite:///{tmp_path}/state/assetline.db")


def test_before_the_first_promotion_there_is_no_champion(ledger):
    assert ledger.champion("toy") is None
    assert ledger.history() == []


def test_a_promotion_is_on_record(ledger):
    before = dt.datetime.now(dt.UTC)
    entry = ledger.promote("toy", "3", reason="better by .01", **SAID)
    assert ledger.champion("toy") == entry
    assert (entry.model, entry.version, entry.previous, entry.action) == ("toy", "3", None, "promote")
    assert (entry.reason, entry.verdicts, entry.dagster_run, entry.who) == (
        "better by .01",
        {"gate": True},
        "run-1",
        "ada",
    )
    assert before <= entry.at <= dt.datetime.now(dt.UTC)
    assert ledger.champion("other") is None


def test_promoting_the_champion_again_is_no_new_entry(ledger):
    first = ledger.promote("toy", "1", reason="first", **SAID)
    ledger.refuse("toy", "2", reason="worse", **SAID)
    assert ledger.promote("toy", "1", reason="again", **SAID) == first
    assert len(ledger.history("toy")) == 2


def test_going_back_is_an_entry_of_its_own(ledger):
    for version in ("1", "2", "1"):
        ledger.promote("toy", version, reason="r", **SAID)
    assert [(e.version, e.previous) for e in ledger.history("toy")] == [("1", None), ("2", "1"), ("1", "2")]


def test_a_refusal_leaves_the_champion_and_is_noted_once(ledger):
    champion = ledger.promote("toy", "1", reason="r", **SAID)
    for _ in range(2):
        refused = ledger.refuse("toy", "2", reason="worse", **SAID)
    assert (refused.action, refused.previous) == ("refuse", "1")
    assert ledger.refuse("toy", "2", reason="not staged", **SAID) != refused
    assert ledger.champion("toy") == champion
    assert len(ledger.history("toy")) == 3


def test_what_was_in_production_at_a_time(ledger):
    first = ledger.promote("toy", "1", reason="r", **SAID)
    second = ledger.promote("toy", "2", reason="r", **SAID)
    assert ledger.at("toy", first.at - dt.timedelta(microseconds=1)) is None
    assert ledger.at("toy", second.at - dt.timedelta(microseconds=1)) == first
    assert ledger.at("toy", second.at.astimezone(dt.timezone(dt.timedelta(hours=9)))) == second
    assert ledger.at("toy", second.at.replace(tzinfo=None)) == second


@pytest.mark.parametrize("statement", ["UPDATE promotions SET version = '9'", "DELETE FROM promotions"])
def test_entries_can_be_neither_changed_nor_removed(ledger, statement):
    ledger.promote("toy", "1", reason="r", **SAID)
    with (
        sa.create_engine(ledger.database_url).begin() as connection,
        pytest.raises(sa.exc.IntegrityError, match="append-only"),
    ):
        connection.execute(sa.text(statement))
    assert ledger.champion("toy").version == "1"


def test_writers_at_once_leave_one_unbroken_history(ledger):
    def write(worker: int) -> None:
        own = Ledger(database_url=ledger.database_url)
        for n in range(5):
            own.promote("toy", f"{worker}.{n}", reason="r", **SAID)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = ledger.history("toy")
    assert [e.number for e in history] == list(range(1, 21))
    assert [e.previous for e in history] == [None] + [e.version for e in history[:-1]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.tuples(st.sampled_from(["promote", "refuse"]), st.sampled_from("123")), max_size=6))
def test_the_champion_is_the_last_promoted_whatever_the_order(tmp_path_factory, actions):
    ledger = Ledger(database_url=f"sqlite:///{tmp_path_factory.mktemp('ledger')}/assetline.db")
    for action, version in actions:
        getattr(ledger, action)("toy", version, reason="r", **SAID)
    promoted = [version for action, version in actions if action == "promote"]
    champion = ledger.champion("toy")
    assert (champion and champion.version) == (promoted[-1] if promoted else None)
    versions = [e.version for e in ledger.history() if e.action == "promote"]
    assert all(a != b for a, b in itertools.pairwise(versions))
    assert [e.number for e in ledger.history()] == list(range(1, len(ledger.history()) + 1))


def test_a_ledger_whose_next_entry_is_always_taken_gives_up_with_the_reason(ledger, monkeypatch):
    ledger.promote("toy", "1", reason="r", **SAID)
    monkeypatch.setattr(Ledger, "_last", lambda *_, **__: None)  # as if others were always quicker
    with pytest.raises(LedgerError, match="other processes took the next ledger entry of toy 20 times in a row"):
        ledger.promote("toy", "2", reason="r", **SAID)


def test_the_folder_of_the_ledger_is_made(tmp_path):
    Ledger(database_url=f"sqlite:///{tmp_path}/a/b/c/assetline.db").promote("toy", "1", reason="r", **SAID)
    assert (tmp_path / "a" / "b" / "c" / "assetline.db").exists()


@pytest.mark.parametrize(
    "time", [dt.datetime(2026, 3, 1, 12), dt.datetime(2026, 3, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2)))]
)
def test_times_are_kept_in_utc(time):
    assert _naive_utc(time) == dt.datetime(2026, 3, 1, 12)


def test_a_url_with_a_password_stays_out_of_the_configuration():
    open_url = Settings(home=Path("/x"), database_url="sqlite:////x/assetline.db")
    secret = Settings(home=Path("/x"), database_url="postgresql://me:hush@host/name")
    assert Ledger.from_settings(open_url).database_url == "sqlite:////x/assetline.db"
    assert isinstance(Ledger.from_settings(secret).database_url, dg.EnvVar)


def test_a_kill_between_ledger_and_alias_is_mended_at_start(ledger, tracking):
    LocalService(mlflow=tracking).promote("toy", "1")
    ledger.promote("toy", "1", reason="r", **SAID)
    ledger.promote("toy", "2", reason="r", **SAID)  # and here the process was killed
    assert tracking.version_of_alias("toy", CHAMPION) == "1"
    ledger.promote("other", "1", reason="r", **SAID)
    tracking.set_alias("other", "champion", "1")
    assert ledger.reconcile(tracking) == {"toy": "2"}, "the first in the alphabet is as it should be"
    assert tracking.version_of_alias("toy", "champion") == "2"
    assert ledger.reconcile(tracking) == {}


def test_a_champion_that_mlflow_lost_is_named(ledger, tracking):
    ledger.promote("toy", "99", reason="r", **SAID)
    with pytest.raises(LedgerError, match="version 99 of toy is in production, but MLflow does not have it"):
        ledger.reconcile(tracking)


def test_after_a_withdrawal_nothing_is_in_production_until_the_next_promotion(ledger, tracking):
    tracking.set_alias("toy", CHAMPION, "1")
    ledger.promote("toy", "1", reason="r", **SAID)
    ledger.record("deploy", "toy", "1", reason="cluster: 2 replicas", **SAID)
    assert ledger.champion("toy").version == "1", "an answer of the targets is no promotion"
    gone = ledger.record("withdraw", "toy", "1", reason="replaced", **SAID)
    assert ledger.champion("toy") is None
    assert ledger.at("toy", gone.at) is None
    assert ledger.at("toy", gone.at - dt.timedelta(microseconds=1)).version == "1"
    assert ledger.reconcile(tracking) == {}
    assert tracking.version_of_alias("toy", CHAMPION) is None, "a kill may have left the alias"
    again = ledger.promote("toy", "1", reason="r", **SAID)
    assert (again.number, again.previous) == (4, None)
