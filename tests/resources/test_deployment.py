"""The ledger is the truth, the alias follows it, and a staged process leaves nothing behind."""

import datetime as dt
import io
import itertools
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from resources.deployment import CHAMPION, DeploymentError, Ledger, LocalTarget, _naive_utc, _tail
from resources.mlflow import MlflowTracking, create_store
from resources.settings import Settings, project_root

SAID = {"verdicts": {"gate": True}, "dagster_run": "run-1", "who": "ada"}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(database_url=f"sqlite:///{tmp_path}/state/assetline.db")


# -- ledger ----------------------------------------------------------------------------------------------------------


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
    with pytest.raises(DeploymentError, match="next entry of toy was taken 20 times in a row"):
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


# -- the alias -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> MlflowTracking:
    folder = tmp_path_factory.mktemp("mlflow")
    create_store(folder / "mlflow.db", folder / "artifacts")
    tracking = MlflowTracking(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    client = tracking.client()
    for name in ("other", "toy"):
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, str(folder))
    return tracking


def test_a_kill_between_ledger_and_alias_is_mended_at_start(ledger, tracking):
    LocalTarget(mlflow=tracking).promote("toy", "1")
    ledger.promote("toy", "1", reason="r", **SAID)
    ledger.promote("toy", "2", reason="r", **SAID)  # and here the process was killed
    assert tracking.version_of_alias("toy", CHAMPION) == "1"
    ledger.promote("other", "1", reason="r", **SAID)
    tracking.set_alias("other", "champion", "1")
    assert ledger.reconcile(tracking) == {"toy": "2"}, "the first in the alphabet is as it should be"
    assert tracking.version_of_alias("toy", "champion") == "2"
    assert ledger.reconcile(tracking) == {}


def test_the_target_promotes_from_an_asset_with_addresses_from_the_environment(tracking, monkeypatch):
    monkeypatch.setenv("TEST_TRACKING_URI", tracking.tracking_uri)

    @dg.asset
    def deployment(target: LocalTarget) -> None:
        target.promote("toy", "1")

    target = LocalTarget(mlflow=MlflowTracking(tracking_uri=dg.EnvVar("TEST_TRACKING_URI")))
    tracking.set_alias("toy", CHAMPION, "2")
    assert dg.materialize([deployment], resources={"target": target}).success
    assert tracking.version_of_alias("toy", CHAMPION) == "1"


def test_a_champion_that_mlflow_lost_is_named(ledger, tracking):
    ledger.promote("toy", "99", reason="r", **SAID)
    with pytest.raises(DeploymentError, match="version 99 of toy is in production, but MLflow does not have it"):
        ledger.reconcile(tracking)


# -- staging ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path) -> Path:
    (tmp_path / "bundle.json").write_text('{"name": "toy"}')
    return tmp_path


@pytest.fixture
def target(tracking) -> LocalTarget:
    return LocalTarget(mlflow=tracking, service="tests.resources.fake_service", start_timeout_s=20)


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/health", timeout=5) as answer:
        return answer.read().decode()


def test_a_staged_bundle_serves_in_a_process_of_its_own_and_then_is_gone(target, bundle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    with target.stage(bundle) as url:
        assert url.startswith("http://127.0.0.1:")
        assert read(url) == '{"name": "toy"}'
    with pytest.raises(OSError, match="refused"):
        read(url)


def test_two_bundles_are_staged_side_by_side(target, bundle):
    with target.stage(bundle) as one, target.stage(bundle) as two:
        assert one != two
        assert read(one) == read(two)


def test_a_process_that_will_not_end_is_ended_whatever_happens(target, bundle):
    (bundle / "stubborn").touch()
    with pytest.raises(RuntimeError, match="smoke test"), target.stage(bundle) as url:
        raise RuntimeError("smoke test")
    with pytest.raises(OSError, match="refused"):
        read(url)


def test_a_service_that_cannot_start_says_why(target, bundle):
    (bundle / "crash").touch()
    with (
        pytest.raises(DeploymentError, match=r"(?s)ended with 1 before it served.*network\.pt2 is damaged"),
        target.stage(bundle),
    ):
        pytest.fail("it never serves")


def test_a_service_that_never_is_healthy_is_given_up_with_its_last_words(target, bundle, tracking):
    (bundle / "deaf").touch()
    impatient = LocalTarget(mlflow=tracking, service=target.service, start_timeout_s=1)
    with pytest.raises(DeploymentError, match=r"(?s)not healthy after 1 s.*still loading"), impatient.stage(bundle):
        pytest.fail("it never serves")


def test_what_a_process_writes_need_not_be_text(target, bundle):
    (bundle / "garbled").touch()
    words = "ended with 1 before it served:\n\N{REPLACEMENT CHARACTER}"
    with pytest.raises(DeploymentError, match=words), target.stage(bundle):
        pytest.fail("it never serves")


def test_the_last_twenty_lines_are_told():
    output = io.StringIO("".join(f"line {n}\n" for n in range(1, 41)))
    assert _tail(output).splitlines() == [f"line {n}" for n in range(21, 41)]
    assert _tail(io.StringIO("")) == "(it wrote nothing)"


def test_a_candidate_has_some_time_to_start(tracking):
    with pytest.raises(ValidationError, match="start_timeout_s"):
        LocalTarget(mlflow=tracking, start_timeout_s=0)


def test_a_staged_process_does_not_outlive_a_killed_run(bundle):
    code = f"""
import time
from pathlib import Path
from resources.deployment import LocalTarget
from resources.mlflow import MlflowTracking
target = LocalTarget(mlflow=MlflowTracking(tracking_uri="sqlite:////none"), service="tests.resources.fake_service")
with target.stage(Path({str(bundle)!r})) as url:
    print(url, flush=True)
    time.sleep(60)
"""
    run = subprocess.Popen([sys.executable, "-c", code], cwd=project_root(), stdout=subprocess.PIPE, text=True)
    url = run.stdout.readline().strip()
    assert read(url) == '{"name": "toy"}'
    run.send_signal(signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            read(url)
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the staged process still serves")
