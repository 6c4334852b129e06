"""What every deployment target does, whatever the place: one suite, each target on its own parts (cases.py)."""

import urllib.request

import pytest

from resources.targets.base import DeploymentError, DeploymentTarget, Staged
from tests.resources.targets.cases import CASES, Case, bundle_of


@pytest.fixture(params=sorted(CASES))
def case(request, tmp_path, tracking) -> Case:
    with CASES[request.param](tmp_path, tracking) as case:
        yield case


def test_every_target_of_the_project_is_in_this_suite(tmp_path):
    from resources.defaults import default_resources
    from resources.settings import Settings
    from resources.targets.base import target_names

    resources = default_resources(Settings.from_env({"ASSETLINE_HOME": str(tmp_path)}), {})
    names = target_names(resources)
    assert set(names) <= set(CASES)
    assert all(isinstance(resources[f"target_{name}"], DeploymentTarget) for name in names)


def test_a_staged_bundle_answers_and_is_then_gone(case, tmp_path):
    with case.target.stage(bundle_of(tmp_path / "bundle")) as staged:
        assert isinstance(staged, Staged)
        assert case.target.smoke_test(staged, "toy")["models"]["toy"]["status"] == "ok"
    with pytest.raises(DeploymentError, match="the service does not answer as it should"):
        case.target.smoke_test(staged, "toy")


def test_staging_changes_nothing_that_serves(case, tmp_path):
    case.promote("1")
    before = case.target.status("toy")
    with case.target.stage(bundle_of(tmp_path / "bundle", "another")):
        pass
    assert case.target.status("toy") == before


def test_a_bundle_that_does_not_start_is_refused_with_the_reason(case, tmp_path):
    bundle = bundle_of(tmp_path / "bundle")
    (bundle / "crash").touch()
    with pytest.raises(DeploymentError, match=r"network\.pt2 is damaged"), case.target.stage(bundle):
        pytest.fail("it never serves")


def test_a_model_that_is_not_healthy_fails_the_smoke_test(case, tmp_path):
    problem = {"toy": {"status": "degraded", "problem": "no past"}}
    with (
        case.target.stage(bundle_of(tmp_path / "bundle", models=problem)) as staged,
        pytest.raises(DeploymentError, match="the service is degraded: no past"),
    ):
        case.target.smoke_test(staged, "toy")


def test_another_model_fails_the_smoke_test(case, tmp_path):
    with (
        case.target.stage(bundle_of(tmp_path / "bundle")) as staged,
        pytest.raises(DeploymentError, match=r"cannot be read \(KeyError\('churn'\)\)"),
    ):
        case.target.smoke_test(staged, "churn")


def test_before_the_first_promotion_the_model_is_absent(case):
    status = case.target.status("toy")
    assert (status.state, status.version) == ("absent", None)
    assert "toy" in status.message


def test_a_promoted_version_is_there_and_promoting_it_again_changes_nothing(case):
    assert case.promote("1")
    first = case.target.status("toy")
    assert (first.state, first.version) == (case.serves, "1")
    case.promote("1")
    assert case.target.status("toy") == first


def test_a_later_version_takes_over_and_the_earlier_one_can_be_put_back(case):
    case.promote("1")
    case.promote("2")
    assert case.target.status("toy").version == "2"
    assert "1" in case.roll_back("1")
    status = case.target.status("toy")
    assert (status.state, status.version) == (case.serves, "1")


def test_after_the_end_the_model_is_absent_and_a_second_end_is_no_error(case):
    case.promote("2")
    assert case.undeploy()
    assert case.target.status("toy").state == "absent"
    assert case.undeploy()
    case.promote("1")
    assert case.target.status("toy").version == "1"


def test_what_a_target_answers_can_be_recorded(case):
    if case.target.follows_ledger:
        case.ledger.promote("toy", "1", reason="r", verdicts={}, dagster_run="r", who="ada")
    answer = case.target.promote("toy", "1").to_json()
    assert answer["passed"] is True
    assert answer["message"].endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789)"))
    assert all(isinstance(value, str) for name, value in answer.items() if name != "passed")


def test_requests_to_a_staged_service_ignore_the_proxies_of_the_environment(case, tmp_path, monkeypatch):
    with case.target.stage(bundle_of(tmp_path / "bundle")) as staged, monkeypatch.context() as patched:
        patched.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
        assert urllib.request.getproxies()["http"].endswith(":9")
        assert case.target.smoke_test(staged, "toy")
