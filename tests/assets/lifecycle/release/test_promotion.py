"""A version is promoted on all targets of its declaration or on none, and the ledger says what each answered."""

from dataclasses import replace

import pandas as pd
import pytest

from assets.build import build
from assets.declaration import DeclarationError
from assets.lifecycle.model.version.verdicts import VERDICTS, record_verdict
from assets.lifecycle.release.promotion import PromotionError, promote_on_all, withdraw_from_all
from resources.ledger import Ledger
from resources.targets.base import Answer, DeploymentError
from tests.declarations.readings import plain
from tests.stages import Stages

FACTS = {"reason": "better", "verdicts": {"gate": {"passed": True}}, "dagster_run": "r", "who": "ada"}


class Place:
    """A place that notes what it is told, in one list for all of a test."""

    def __init__(self, name: str, told: list[tuple[str, ...]], follows_ledger: bool = False) -> None:
        self.name, self.told, self.follows_ledger = name, told, follows_ledger
        self.broken: set[str] = set()

    def _do(self, what: str, *given: str) -> Answer:
        if what in self.broken:
            raise DeploymentError(f"{what} is impossible here")
        self.told.append((self.name, what, *given))
        return Answer(f"{self.name} did {what}", {"digest": f"sha256:{self.name}"})

    def promote(self, model: str, version: str) -> Answer:
        return self._do("promote", version)

    def roll_back(self, model: str, version: str) -> Answer:
        return self._do("roll_back", version)

    def undeploy(self, model: str) -> Answer:
        return self._do("undeploy")


@pytest.fixture
def told() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def targets(told) -> dict[str, Place]:
    return {name: Place(name, told, name == "local") for name in ("local", "image", "cluster")}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(database_url=f"sqlite:///{tmp_path / 'assetline.db'}")


def entries(ledger: Ledger) -> list[tuple[str, str]]:
    return [(entry.action, entry.version) for entry in ledger.history("toy")]


def test_targets_are_promoted_in_order_and_the_entry_has_their_answers(targets, ledger, told):
    entry = promote_on_all(targets, ledger, "toy", "1", **FACTS)
    assert told == [("image", "promote", "1"), ("cluster", "promote", "1"), ("local", "promote", "1")]
    assert entries(ledger) == [("deploy", "1"), ("promote", "1")]
    assert ledger.history("toy")[0].reason == "goes to local, image, cluster"
    assert entry.verdicts == {
        "gate": {"passed": True},
        "targets": {
            "image": {"passed": True, "message": "image did promote", "digest": "sha256:image"},
            "cluster": {"passed": True, "message": "cluster did promote", "digest": "sha256:cluster"},
        },
    }
    assert ledger.champion("toy") == entry


def test_a_target_that_follows_the_ledger_adds_no_entry(targets, ledger):
    entry = promote_on_all({"local": targets["local"]}, ledger, "toy", "1", **FACTS)
    assert entries(ledger) == [("promote", "1")]
    assert entry.verdicts == FACTS["verdicts"]


def test_if_the_second_target_fails_the_first_is_put_back_to_the_version_before(targets, ledger, told):
    promote_on_all(targets, ledger, "toy", "1", **FACTS)
    told.clear()
    targets["cluster"].broken.add("promote")
    with pytest.raises(
        PromotionError,
        match=r"version 2 of toy: it was not promoted: cluster failed: promote is impossible here; "
        r"image was put back to version 1",
    ):
        promote_on_all(targets, ledger, "toy", "2", **FACTS)
    assert told == [("image", "promote", "2"), ("image", "roll_back", "1")]
    assert entries(ledger)[2:] == [("deploy", "2"), ("refuse", "2")]
    refused = ledger.history("toy")[-1]
    assert refused.verdicts["targets"]["cluster"] == {"passed": False, "message": "failed: promote is impossible here"}
    assert refused.verdicts["targets"]["image"]["message"] == "was put back to version 1"
    assert ledger.champion("toy").version == "1"


def test_if_the_very_first_version_fails_the_targets_before_it_are_cleared(targets, ledger, told):
    targets["cluster"].broken.add("promote")
    with pytest.raises(PromotionError, match="image was cleared again, as there was no version before"):
        promote_on_all(targets, ledger, "toy", "1", **FACTS)
    assert told == [("image", "promote", "1"), ("image", "undeploy")]
    assert ledger.champion("toy") is None


def test_a_target_that_cannot_be_put_back_is_named(targets, ledger):
    promote_on_all(targets, ledger, "toy", "1", **FACTS)
    targets["cluster"].broken.add("promote")
    targets["image"].broken.add("roll_back")
    with pytest.raises(PromotionError, match="image still has the new version, because putting it back failed: roll_b"):
        promote_on_all(targets, ledger, "toy", "2", **FACTS)
    assert "image still has the new version" in ledger.history("toy")[-1].reason


def test_an_error_of_any_kind_takes_the_version_back(targets, ledger, told):
    def crash(model, version):
        raise OSError("disk full")

    targets["cluster"].promote = crash
    with pytest.raises(PromotionError, match="cluster failed: disk full; image was cleared"):
        promote_on_all(targets, ledger, "toy", "1", **FACTS)
    assert told[-1] == ("image", "undeploy")


def test_a_run_after_a_kill_completes_the_promotion(targets, ledger, told, monkeypatch):
    """A kill between the targets and the entry leaves an entry that says where the version went."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "promote", killed)
        with pytest.raises(KeyboardInterrupt):
            promote_on_all(targets, ledger, "toy", "1", **FACTS)
    assert entries(ledger) == [("deploy", "1")]
    promote_on_all(targets, ledger, "toy", "1", **FACTS)
    assert entries(ledger) == [("deploy", "1"), ("promote", "1")]
    assert told[-1] == ("local", "promote", "1")


def test_a_target_that_joins_later_is_on_record_too(targets, ledger):
    promote_on_all({"local": targets["local"]}, ledger, "toy", "1", **FACTS)
    promote_on_all(targets, ledger, "toy", "1", **FACTS)
    assert entries(ledger) == [("promote", "1"), ("deploy", "1"), ("deploy", "1")]
    last = ledger.history("toy")[-1]
    assert last.reason == "image: image did promote; cluster: cluster did promote"
    assert last.verdicts["targets"]["cluster"]["digest"] == "sha256:cluster"


def test_a_rollback_uses_what_the_targets_kept(targets, ledger, told):
    for version in ("1", "2"):
        promote_on_all(targets, ledger, "toy", version, **FACTS)
    told.clear()
    promote_on_all(targets, ledger, "toy", "1", back=True, **FACTS)
    assert told == [("image", "roll_back", "1"), ("cluster", "roll_back", "1"), ("local", "promote", "1")]


def test_a_model_leaves_all_targets_and_the_ledger(targets, ledger, told):
    promote_on_all(targets, ledger, "toy", "1", **FACTS)
    told.clear()
    entry = withdraw_from_all(targets, ledger, "toy", why="replaced", who="bob")
    assert (entry.action, entry.version, entry.reason, entry.who) == ("withdraw", "1", "replaced", "bob")
    assert ledger.champion("toy") is None
    assert sorted(told) == [(name, "undeploy") for name in ("cluster", "image", "local")]
    again = withdraw_from_all(targets, ledger, "toy", why="again", who="bob")
    assert again.id == entry.id


def test_a_target_that_keeps_the_model_is_named_and_the_others_let_it_go(targets, ledger, told):
    promote_on_all(targets, ledger, "toy", "1", **FACTS)
    told.clear()
    targets["image"].broken.add("undeploy")
    with pytest.raises(PromotionError, match="these targets still have it: image: undeploy is impossible here"):
        withdraw_from_all(targets, ledger, "toy", why="replaced", who="bob")
    assert sorted(told) == [("cluster", "undeploy"), ("local", "undeploy")]
    assert ledger.champion("toy") is None


@pytest.mark.parametrize(("why", "words"), [(" ", "needs a reason"), ("old", "no version of 'toy' is in production")])
def test_what_is_not_in_production_cannot_leave_it(targets, ledger, told, why, words):
    with pytest.raises(PromotionError, match=words):
        withdraw_from_all(targets, ledger, "toy", why=why, who="bob")
    assert told == []


def test_a_declared_model_goes_to_each_of_its_targets(tmp_path, told):
    model = plain(targets=("image", "local"))
    places = {f"target_{name}": Place(name, told, name == "local") for name in ("local", "image")}
    stages = Stages(model, tmp_path, **places)
    stages.put("trained_model", pd.DataFrame({"version": ["3"]}))
    for name in VERDICTS:
        record_verdict(stages.mlflow, model, "3", name, True, ["fine"])
    made = stages.make("deployment")
    assert made.success, made.why
    assert told == [("image", "promote", "3"), ("local", "promote", "3")]
    places["target_image"].broken.add("promote")
    stages.put("trained_model", pd.DataFrame({"version": ["4"]}))
    for name in VERDICTS:
        record_verdict(stages.mlflow, model, "4", name, True, ["fine"])
    made = stages.make("deployment")
    assert made.why.startswith("version 4 of meter: it was not promoted: image failed: promote is impossible here")
    assert stages.ledger.champion("meter").version == "3"


@pytest.mark.parametrize("wrong", [(), ("local", "local"), "local"])
def test_targets_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(DeclarationError, match=r"targets=.* is invalid: name each target once, and at least one"):
        plain(targets=wrong)


def test_an_unknown_target_is_refused_on_load_with_the_nearest_name():
    known = ("local", "batch", "kubernetes")
    model = plain(targets=("local", "kubernets"))
    _, [broken] = build([model], targets=known)
    assert broken.reason.endswith(
        "targets=('local', 'kubernets') is invalid: there is no target 'kubernets'; did you mean 'kubernetes'?"
    )
    _, [broken] = build([replace(model, targets=("zzz",))], targets=known)
    assert broken.reason.endswith("there is no target 'zzz'; the targets are: batch, kubernetes, local")
    built, none = build([replace(model, targets=("local", "kubernetes"))], targets=known)
    assert (len(built), none) == (1, [])
