"""The life of a model on a small stream: trained, judged, promoted, scored, drifting; and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.model.fitting import fit
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from resources.dagster_internals import check_evaluations
from sensors.alerts import DRIFT_CAUSE, alerts_sensor
from tests.payments import payments_model
from tests.worlds import World, days, why

LANDED, LABELLED, SEEN = 51, 44, 42
"""Number of the last day that lands, that is labelled, and that the first candidate sees labels of."""


def upstream(**settings) -> PaymentSimulator:
    return PaymentSimulator(customers=300, terminals=600, seed=2, **settings)


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory):
    """A champion in production, and a scored day. Tests only add to it: versions and later days."""
    world = make_world(payments_model(upstream()), tmp_path_factory.mktemp("stream"))
    for work, until in {"land": LANDED, "clean": 49, "label": LABELLED, "features": 49}.items():
        result = world.run(work, days(0, until))
        assert result.success, (work, why(result))
    result = world.run("train", training_set={"as_of": days(SEEN, SEEN)[0]})
    assert result.success, why(result)
    result = world.run("deploy")
    assert result.success, why(result)
    result = world.run("daily", days(49, 49))
    assert result.success, why(result)
    return world


def tick_alerts(world: World) -> None:
    given = {"alerts": world.alerts, "ledger": world.ledger}
    with dg.build_sensor_context(instance=world.instance, resources=given) as context:
        alerts_sensor([world.model]).evaluate_tick(context)


def with_gate(world: World, gate: Gate, **replaced) -> World:
    """The same state folder under another declaration."""
    return World(payments_model(upstream(), gate=gate, **replaced), world.settings, world.instance)


def test_the_champion_has_its_reasons_in_the_ledger_and_the_alias(world):
    champion = world.ledger.champion("fraud")
    assert champion.version == "1"
    assert "meets the floor" in champion.reason
    assert set(champion.verdicts) == {"gate", "staging"}
    assert world.mlflow.version_of_alias("fraud", "champion") == "1"


def test_the_mlflow_run_is_finished_and_tells_all(world):
    from mlflow import MlflowClient

    client = MlflowClient(world.settings.tracking_uri)
    run = client.get_run(world.mlflow.run_of_version("fraud", "1"))
    assert run.info.status == "FINISHED"
    assert world.instance.get_run_by_id(run.data.tags["dagster_run_id"]).job_name == "fraud_train"
    assert run.data.tags["data_version"] == world.tables.stamp(fraud.key("training_set")).data_version
    assert "git.commit" in run.data.tags or "mlflow.source.git.commit" in run.data.tags
    assert run.data.params["window_days"] == "14"
    assert len(client.get_metric_history(run.info.run_id, "loss.fold_1")) == int(run.data.params["max_epochs"])
    assert "test.average_precision" in run.data.metrics
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"evaluation.html", "evaluation.json"} <= files
    # and back: the materialisation links to the run
    found = world.instance.get_latest_materialization_event(fraud.key("trained_model")).asset_materialization
    assert run.info.run_id in found.metadata["mlflow"].value


def test_the_version_carries_its_code_its_contract_and_its_reference(world):
    folder = world.mlflow.download("fraud", "1")
    assert (folder / "code" / "features.py").exists()
    assert "transaction_id" in (folder / "contract.json").read_text()
    assert (folder / "reference").is_dir()


def test_the_reference_is_of_whole_weeks_that_nothing_was_fitted_on_and_knows_how_rows_hang_together(world):
    reference = ReferenceProfile.load(world.mlflow.download("fraud", "1") / "reference")
    assert reference.days == 21, "two weeks would have fewer than 20,000 rows, a fourth would be fitted on"
    assert reference.rows == sum(world.tables.stamp(fraud.key("features"), day).rows for day in days(29, 49))
    assert sum(reference.rows_of_weekday) == pytest.approx(reference.rows / 3)
    effects = reference.design_effects
    assert set(effects) == set(reference.counted)
    assert effects["customer_count_7d"].whole > effects["customer_count_7d"].day > effects["amount"].day >= 1


def test_the_report_has_all_that_a_stream_can_show(world):
    report = json.loads(world.row("evaluation")["report"])
    assert {"torch", "xgboost", "linear", "ceiling"} <= set(report["models"])
    assert {"average_precision", "roc_auc", "cp_at_k", "brier"} <= set(report["models"]["torch"])
    assert "scenario 2, terminals" in json.dumps(report)


def test_test_rows_are_later_than_all_that_chose_or_fitted(world):
    shown = world.instance.get_latest_materialization_event(fraud.key("training_set")).asset_materialization.metadata
    assert shown["test"].value == f"{days(36, 36)[0]} … {days(42, 42)[0]}"
    assert shown["fit"].value == f"{days(15, 15)[0]} … {days(28, 28)[0]}"


def test_nothing_is_trained_twice_on_the_same_rows(world):
    before = world.row("trained_model")
    assert world.run("train", training_set={"as_of": days(SEEN, SEEN)[0]}).success
    after = world.row("trained_model")
    assert after["version"] == before["version"]
    assert after["run_id"] == before["run_id"]


def test_a_day_is_scored_by_the_champion_and_keeps_its_scores(world):
    day = days(49, 49)
    said = world.tables.read(fraud.key("predictions"), day)
    assert set(said["version"]) == {"1"}
    assert len(said) == len(world.tables.read(fraud.key("payments"), day))
    assert world.run("daily", day).success
    pd.testing.assert_frame_equal(world.tables.read(fraud.key("predictions"), day), said)


def test_performance_comes_when_labels_mature(world):
    day = days(43, 43)
    assert world.run("daily", day).success
    assert world.run("mature", day).success, "its labels landed a week later"
    row = world.row("performance", day[0])
    assert row["rows"] > 500
    assert row["trailing_days"] == 1


def test_a_candidate_that_the_gate_refuses_is_neither_staged_nor_promoted(world):
    strict = with_gate(world, Gate(metric="average_precision", floor=0.99))
    result = strict.run("train", training_set={"as_of": days(41, 41)[0]})
    assert not result.success
    version = str(strict.row("trained_model")["version"])
    assert version != "1"
    refused = strict.ledger.history("fraud")[-1]
    assert (refused.action, refused.version) == ("refuse", version)
    assert "misses the floor 0.9900" in refused.reason

    # A person who materialises the promotion alone, or stages it first, is refused as well.
    for staged_too in (False, True):
        if staged_too:
            assert strict.materialize("staged").success
        alone = strict.materialize("deployment")
        assert not alone.success
        assert f"version {version} of fraud is not promoted: gate: " in why(alone)
        assert "misses the floor" in why(alone)
    assert world.ledger.champion("fraud").version == "1"
    assert world.mlflow.version_of_alias("fraud", "champion") == "1"

    tick_alerts(world)
    told = {alert.cause: alert.severity for alert in world.alerts.store.open_alerts("fraud")}
    assert told["evaluation/gate"] == "warn"


def test_a_version_that_was_never_staged_is_not_promoted(world):
    result = world.run("train", training_set={"as_of": days(43, 43)[0]})
    assert result.success, why(result)
    alone = world.materialize("deployment")
    assert not alone.success
    assert "staging: no verdict yet" in why(alone)
    assert world.mlflow.version_of_alias("fraud", "champion") == "1"
    tick_alerts(world)
    assert "evaluation/gate" not in {alert.cause for alert in world.alerts.store.open_alerts("fraud")}, "it passed"


def test_a_training_that_fails_leaves_a_failed_mlflow_run_and_no_version(world):
    from mlflow import MlflowClient

    def broken(X, y):
        raise RuntimeError("no such layer")

    versions = {world.row("trained_model")["version"]}
    failing = with_gate(world, world.model.gate, network=broken)
    result = failing.materialize("trained_model")
    assert not result.success
    assert "no such layer" in why(result)
    client = MlflowClient(world.settings.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("fraud").experiment_id])
    assert runs[0].info.status == "FAILED"
    assert not [run for run in runs if run.info.status == "RUNNING"]
    assert world.row("trained_model")["version"] in versions


def test_too_few_labelled_days_are_named(world):
    result = world.run("train", training_set={"as_of": days(20, 20)[0]})
    assert not result.success
    assert "labelled days" in why(result)
    assert "the first is" in why(result)


def test_the_same_seed_gives_the_same_weights(world):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 4)).astype(np.float32), (rng.random(600) < 0.3).astype(float)
    one, two = (fit(X, y, recipe=world.model.training, epochs=2).state_dict() for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)


def test_a_backtest_refits_the_recipe_on_rolling_weeks(world):
    result = world.run("backtest", backtest={"weeks": 1, "as_of": days(SEEN, SEEN)[0]})
    assert result.success, why(result)
    rounds = world.tables.read(fraud.key("backtest")).set_index("score")
    assert set(rounds.index) == {"torch", "xgboost", "linear", "ceiling"}
    from mlflow import MlflowClient

    run = MlflowClient(world.settings.tracking_uri).get_run(world.mlflow.run_of_version("fraud", "1"))
    # The same rows, recipe and seed as the champion's training: the same figure.
    assert rounds.loc["torch", "average_precision"] == pytest.approx(run.data.metrics["test.average_precision"])


def test_a_shift_warns_then_pages_and_its_end_resolves(world):
    shifted = World(payments_model(upstream(shift_from=days(50, 50)[0], shift_amount=1.6)), world.settings,
                    world.instance)  # fmt: skip
    key = fraud.key("drift")
    levels = []
    for number in (50, 51):
        assert shifted.run("land", days(number, number)).success
        result = shifted.run("daily", days(number, number))
        assert result.success, why(result)
        levels.append(shifted.row("drift", days(number, number)[0])["level"])
        tick_alerts(world)
    assert levels == ["warn", "page"]
    [alert] = [a for a in world.alerts.store.open_alerts("fraud") if a.cause == DRIFT_CAUSE]
    assert (alert.severity, alert.since_day, alert.count) == ("page", days(50, 50)[0], 2)
    report = f"{world.tables.root}/fraud/drift/reports/{days(51, 51)[0]}.html"
    assert "<html" in Path(report).read_text()[:2_000].lower()
    of_day = [e for e in check_evaluations(world.instance) if e.asset_key == key and e.day == days(51, 51)[0]]
    [page] = [e for e in of_day if e.check == "drift"]
    assert page.severity == dg.AssetCheckSeverity.ERROR

    # The upstream is as ever from the next day on; what is watched forgets the two days within a week or so.
    for work, first, last in (("land", 52, 61), ("clean", 50, 61), ("label", 45, 54), ("features", 50, 61)):
        result = world.run(work, days(first, last))
        assert result.success, (work, why(result))
    assert world.run("daily", days(61, 61)).success
    assert world.row("drift", days(61, 61)[0])["columns"] == ""
    tick_alerts(world)
    [resolved] = [a for a in world.alerts.store.alerts("fraud") if a.cause == DRIFT_CAUSE]
    assert resolved.resolved_day == days(61, 61)[0]


def test_scoring_before_any_champion_says_what_to_do(make_world, tmp_path):
    fresh = make_world(replace(payments_model(upstream())), tmp_path / "fresh")
    for work in ("land", "clean", "features"):
        assert fresh.run(work, days(0, 1)).success
    result = fresh.run("daily", days(1, 1))
    assert not result.success
    assert "deployment" in why(result)
