"""A staged process serves, says why it cannot, and leaves nothing behind."""

import io
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from resources.ledger import CHAMPION
from resources.mlflow import MlflowTracking
from resources.settings import project_root
from resources.targets.base import DeploymentError
from resources.targets.local_service import LocalService
from resources.targets.throwaway import _tail


def test_the_target_promotes_from_an_asset_with_addresses_from_the_environment(tracking, monkeypatch):
    monkeypatch.setenv("TEST_TRACKING_URI", tracking.tracking_uri)

    @dg.asset
    def deployment(target: LocalService) -> None:
        target.promote("toy", "1")

    target = LocalService(mlflow=MlflowTracking(tracking_uri=dg.EnvVar("TEST_TRACKING_URI")))
    tracking.set_alias("toy", CHAMPION, "2")
    assert dg.materialize([deployment], resources={"target": target}).success
    assert tracking.version_of_alias("toy", CHAMPION) == "1"


@pytest.fixture
def bundle(tmp_path) -> Path:
    (tmp_path / "bundle.json").write_text('{"name": "toy"}')
    return tmp_path


@pytest.fixture
def target(tracking) -> LocalService:
    return LocalService(mlflow=tracking, service="tests.resources.fake_service", start_timeout_s=20)


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/health", timeout=60) as answer:
        return answer.read().decode()


def test_a_staged_bundle_serves_in_a_process_of_its_own_and_then_is_gone(target, bundle, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    with target.stage(bundle) as staged:
        url = staged.url
        assert url.startswith("http://127.0.0.1:")
        assert dict(staged.headers) == {}
        assert read(url) == '{"name": "toy"}'
    with pytest.raises(OSError, match="refused"):
        read(url)


def test_two_bundles_are_staged_side_by_side(target, bundle):
    with target.stage(bundle) as one, target.stage(bundle) as two:
        assert one.url != two.url
        assert read(one.url) == read(two.url)


def test_a_process_that_will_not_end_is_ended_whatever_happens(target, bundle):
    (bundle / "stubborn").touch()
    seen = []
    with pytest.raises(ZeroDivisionError), target.stage(bundle) as staged:
        seen.append(staged.url) or 1 / 0
    with pytest.raises(OSError, match="refused"):
        read(seen[0])


def test_a_service_that_cannot_start_says_why(target, bundle):
    (bundle / "crash").touch()
    with (
        pytest.raises(
            DeploymentError, match=r"(?s)exited with status 1 before it was healthy.*network\.pt2 is damaged"
        ),
        target.stage(bundle),
    ):
        pytest.fail("it never serves")


def test_a_service_that_never_is_healthy_is_given_up_with_its_last_words(target, bundle, tracking):
    (bundle / "deaf").touch()
    impatient = LocalService(mlflow=tracking, service=target.service, start_timeout_s=1)
    with pytest.raises(DeploymentError, match=r"(?s)not healthy after 1 s.*still loading"), impatient.stage(bundle):
        pytest.fail("it never serves")


def test_what_a_process_writes_need_not_be_text(target, bundle):
    (bundle / "garbled").touch()
    words = "exited with status 1 before it was healthy:\n\N{REPLACEMENT CHARACTER}"
    with pytest.raises(DeploymentError, match=words), target.stage(bundle):
        pytest.fail("it never serves")


def test_the_last_twenty_lines_are_told():
    output = io.StringIO("".join(f"line {n}\n" for n in range(1, 41)))
    assert _tail(output).splitlines() == [f"line {n}" for n in range(21, 41)]
    assert _tail(io.StringIO("")) == "(no output)"


def test_a_candidate_has_some_time_to_start(tracking):
    with pytest.raises(ValidationError, match="start_timeout_s"):
        LocalService(mlflow=tracking, start_timeout_s=0)


def test_a_staged_process_does_not_outlive_a_killed_run(bundle):
    code = f"""
import time
from pathlib import Path
from resources.targets.local_service import LocalService
from resources.mlflow import MlflowTracking
target = LocalService(mlflow=MlflowTracking(tracking_uri="sqlite:////none"), service="tests.resources.fake_service")
with target.stage(Path({str(bundle)!r})) as staged:
    print(staged.url, flush=True)
    time.sleep(60)
"""
    run = subprocess.Popen([sys.executable, "-c", code], cwd=project_root(), stdout=subprocess.PIPE, text=True)
    url = run.stdout.readline().strip()
    assert read(url) == '{"name": "toy"}'
    run.send_signal(signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            read(url)
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the staged process still serves")
