"""A version without its good verdicts is not promoted."""

import pandas as pd
import pytest

from assets.lifecycle.model.version.verdicts import VERDICTS, record_verdict, verdicts_on
from assets.lifecycle.release.deployment import deployment_asset
from tests.declarations.readings import plain, stream
from tests.stages import Stages

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
