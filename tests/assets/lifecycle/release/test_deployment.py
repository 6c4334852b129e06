"""A version without its good verdicts is not promoted."""

import pandas as pd
import pytest

from assets.lifecycle.model.version.verdicts import VERDICTS, record_verdict, verdicts_on
from assets.lifecycle.release.deployment import deployment_asset
from resources.release_policy import ReleasePolicy
from resources.settings import ENVIRONMENTS, Settings
from tests.declarations.readings import plain, stream
from tests.stages import Outcome, Stages

MODEL = plain()


class Target:
    """Notes what is promoted."""

    follows_ledger = True

    def __init__(self) -> None:
        self.promoted: list[tuple[str, str]] = []

    def promote(self, model: str, version: str) -> None:
        self.promoted.append((model, version))


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def promoting(tmp_path, target) -> Stages:
    """Version 3 with good verdicts, and version 2 in production."""
    stages = Stages(MODEL, tmp_path, target_local=target)
    stages.put("trained_model", pd.DataFrame({"version": ["3"]}))
    stages.ledger.promote("meter", "2", reason="the first", verdicts={}, dagster_run="r", who="ada")
    for name in VERDICTS:
        record_verdict(stages.mlflow, MODEL, "3", name, True, [f"{name} is fine", "in all respects"])
    return stages


def test_a_version_of_which_everything_was_found_good_is_promoted(promoting, target):
    made = promoting.make("deployment")
    assert made.success, made.why
    assert target.promoted == [("meter", "3")]
    champion = promoting.ledger.champion("meter")
    assert (champion.version, champion.previous, champion.who) == ("3", "2", "dagster")
    assert champion.reason == "gate is fine; in all respects"
    assert champion.dagster_run == made.result.run_id
    assert champion.verdicts == {
        name: {"passed": True, "reasons": [f"{name} is fine", "in all respects"]} for name in VERDICTS
    }
    shown = promoting.instance.get_latest_materialization_event(MODEL.key("deployment")).asset_materialization.metadata
    assert (shown["version"].value, shown["before"].value) == ("3", "2")
    assert shown["reason"].value == champion.reason
    row = promoting.row("deployment")
    assert (row["version"], row["previous"], row["ledger_entry"]) == ("3", "2", champion.id)


def test_who_promotes_is_on_record(promoting):
    assert promoting.make("deployment", tags={"user": "ada"}).success
    assert promoting.ledger.champion("meter").who == "ada"


def test_the_first_version_of_all_has_none_before_it(tmp_path, target):
    stages = Stages(MODEL, tmp_path, target_local=target)
    stages.put("trained_model", pd.DataFrame({"version": ["1"]}))
    for name in VERDICTS:
        record_verdict(stages.mlflow, MODEL, "1", name, True, ["fine"])
    made = stages.make("deployment")
    assert made.success, made.why
    assert stages.row("deployment")["previous"] == ""
    shown = stages.instance.get_latest_materialization_event(MODEL.key("deployment")).asset_materialization.metadata
    assert shown["before"].value == "none"


@pytest.mark.parametrize(
    ("name", "verdict", "words"),
    [
        pytest.param("gate", False, "gate: too bad; by far", marks=pytest.mark.closes("deployment", "gate")),
        pytest.param("gate", None, "gate: no verdict yet", marks=pytest.mark.closes("deployment", "gate")),
        pytest.param("staging", False, "staging: too bad; by far", marks=pytest.mark.closes("deployment", "staging")),
        pytest.param("staging", None, "staging: no verdict yet", marks=pytest.mark.closes("deployment", "staging")),
    ],
)
def test_a_version_with_a_bad_verdict_or_none_is_refused_and_on_record(promoting, target, name, verdict, words):
    if verdict is None:
        del promoting.mlflow.tags["3"][f"verdict.{name}"]
    else:
        record_verdict(promoting.mlflow, MODEL, "3", name, verdict, ["too bad", "by far"])
    made = promoting.make("deployment")
    assert not made.success
    assert made.why == (
        f"version 3 of meter is not promoted: {words}. Materialise evaluation and staged for it; if the gate refuses "
        "it, train a better one"
    )
    assert target.promoted == []
    assert not promoting.has("deployment")
    assert promoting.ledger.champion("meter").version == "2"
    refused = promoting.ledger.history("meter")[-1]
    assert (refused.action, refused.version, refused.reason) == ("refuse", "3", words)
    assert refused.verdicts[name]["passed"] is False
    assert (refused.dagster_run, refused.who) == (made.result.run_id, "dagster")


MAIN = ReleasePolicy(protected_branch="main")
CLEAN = {"git_commit": "0123456789abcdef", "git_dirty": "false", "git_branch": "main"}


def of_branch(promoting: Stages, policy: ReleasePolicy, **tags: str) -> Outcome:
    """The deployment of version 3 with these tags, under a rule."""
    again = Stages(MODEL, promoting.folder, target_local=promoting.resources["target_local"], release_policy=policy)
    again.mlflow.tags["3"] = {**promoting.mlflow.tags["3"], **tags}
    return again.make("deployment")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        pytest.param({**CLEAN, "git_branch": "mine"},
                     "branch: version 3 was trained on the branch mine, and only versions of main go to production; "
                     "merge it and train there", marks=pytest.mark.closes("deployment", "branch")),
        pytest.param({**CLEAN, "git_branch": "pull-request/main"}, "branch: version 3 was trained on the branch "
                     "pull-request/main, and only", marks=pytest.mark.closes("deployment", "branch")),
        pytest.param({**CLEAN, "git_branch": ""}, "branch: version 3 was trained on no known branch, and only",
                     marks=pytest.mark.closes("deployment", "branch")),
        pytest.param({**CLEAN, "git_dirty": "true"},
                     "commit: version 3 was trained with changes that are not in commit 0123456789; commit them and "
                     "train again", marks=pytest.mark.closes("deployment", "commit")),
        pytest.param({**CLEAN, "git_commit": "unknown (git is not installed)", "git_dirty": ""},
                     "commit: the code of version 3 is unknown (git is not installed); train it in a git repository",
                     marks=pytest.mark.closes("deployment", "commit")),
    ],
)  # fmt: skip
def test_only_a_clean_commit_of_the_protected_branch_goes_to_production(promoting, target, tags, words):
    made = of_branch(promoting, MAIN, **tags)
    assert not made.success
    assert made.why.startswith(f"version 3 of meter is not promoted: {words}")
    assert target.promoted == []
    assert not promoting.has("deployment")
    refused = promoting.ledger.history("meter")[-1]
    assert (refused.action, refused.version) == ("refuse", "3")
    assert refused.reason.startswith(words)


def test_a_clean_commit_of_the_protected_branch_is_promoted(promoting, target):
    made = of_branch(promoting, MAIN, **CLEAN)
    assert made.success, made.why
    assert target.promoted == [("meter", "3")]


def test_without_a_protected_branch_every_version_is_promoted(promoting, target):
    made = of_branch(promoting, ReleasePolicy(), git_branch="mine", git_dirty="true", git_commit="unknown (no git)")
    assert made.success, made.why
    assert target.promoted == [("meter", "3")]


def test_a_version_from_before_the_tags_is_judged_by_its_run(promoting):
    """The double's run has a commit with changes and no branch."""
    made = of_branch(promoting, MAIN)
    assert "branch: version 3 was trained on no known branch" in made.why
    assert "commit: version 3 was trained with changes that are not in commit 0123abc" in made.why


def test_only_prod_protects_its_branch(tmp_path):
    given = {"home": tmp_path, "database_url": "sqlite://", "protected_branch": "release"}
    rules = {env: ReleasePolicy.from_settings(Settings(env=env, **given)) for env in ENVIRONMENTS}
    assert {env: rule.protected_branch for env, rule in rules.items()} == {"dev": "", "staging": "", "prod": "release"}


def test_the_verdicts_of_another_version_say_nothing(promoting):
    promoting.put("trained_model", pd.DataFrame({"version": ["4"]}))
    made = promoting.make("deployment")
    assert "gate: no verdict yet | staging: no verdict yet" in made.why
    never = {"passed": False, "reasons": ["no verdict yet"]}
    assert verdicts_on(promoting.mlflow, MODEL, "4") == {"gate": never, "staging": never}


def test_it_has_no_days_and_comes_after_staging():
    asset = deployment_asset(stream())
    assert asset.partitions_def is None
    assert asset.dependency_keys == {stream().key(name) for name in ("trained_model", "staged", "evaluation")}
