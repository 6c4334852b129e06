"""A declaration that cannot work is refused when it is made, with the field, the value and the mend."""

import importlib
import math
import sys
from dataclasses import replace

import pytest

from assets import models as model_folders
from assets.declaration import DeclarationError, Drift, Evaluation, Features, Gate, Training
from assets.models import declared_models, read_folders
from assets.models.fraud import model as fraud
from resources.sources import CsvFile
from tests.declarations.telco import model as telco


def other_table(**replaced):
    return replace(fraud.table, **replaced)


def declared(**replaced):
    return lambda: replace(fraud, **replaced)


WRONG = {
    "a name that is no key": (declared(name="Fraud Model"), ["name='Fraud Model'", "lower-case"]),
    "an owner nobody can reach": (declared(owner="risk"), ["owner='risk'", "team:name"]),
    "a key that is no column": (
        lambda: replace(fraud, table=other_table(key="payment_id")),
        ["model 'fraud'", "table.key='payment_id'", "transaction_id, paid_at"],
    ),
    "a clock that is no column": (lambda: replace(fraud, table=other_table(time="when")), ["table.time='when'"]),
    "a clock without a first day": (lambda: replace(fraud, table=other_table(start=None)), ["table.start=None"]),
    "a stream without a clock": (
        lambda: replace(fraud, table=other_table(time=None, start=None)),
        ["table.source='WorldPayments'", "a Stream needs a table with `time`"],
    ),
    "a file with a clock": (
        lambda: replace(fraud, table=other_table(source=CsvFile(path="x.csv"))),
        ["table.source='CsvFile'"],
    ),
    "an entity that is no column": (
        declared(evaluation=Evaluation(entity="client")),
        ["evaluation.entity='client'", "customer_id"],
    ),
    "a group that is no column": (declared(evaluation=Evaluation(groups=("sex",))), ["groups='sex'", "customer_id"]),
    "a group that is the key": (
        declared(evaluation=Evaluation(groups=("transaction_id",))),
        ["groups='transaction_id'", "other than the key"],
    ),
    "a group of many numbers": (
        declared(evaluation=Evaluation(groups=("amount",))),
        ["groups='amount'", "isin=[...]", "at most 10", "bands"],
    ),
    "a group that is no tuple": (declared(evaluation=Evaluation(groups="amount")), ["groups='amount'", "in a tuple"]),  # type: ignore[arg-type]
    "a target that is in no table": (
        lambda: replace(telco, target="Left"),
        ["model 'churn'", "target='Left'", "label_delay_days"],
    ),
    "labels later than in a table without a clock": (
        lambda: replace(telco, label_delay_days=7),
        ["label_delay_days=7"],
    ),
    "a metric that is none": (declared(gate=Gate(metric="accuracy")), ["gate.metric='accuracy'", "roc_auc"]),  # type: ignore[arg-type]
    "a metric that needs days": (
        lambda: replace(telco, gate=Gate(metric="cp_at_k")),
        ["gate.metric='cp_at_k'", "evaluation.entity"],
    ),
    "a drift column that is no feature": (
        declared(drift=Drift(columns=("amont",))),
        ["'amont'", "name declared features"],
    ),
    "a features function of one argument": (
        lambda: replace(fraud, features=Features(compute=lambda events: {}, lookback_days=1, names=("a",))),  # type: ignore[arg-type, misc]
        ["features.compute", "(events, wanted)"],
    ),
    "a cron that is none": (declared(retrain="monday"), ["retrain='monday'", "'0 6 * * MON'"]),
    "no feature": (
        lambda: replace(fraud, features=Features(compute=lambda e, w: {}, lookback_days=1, names=())),
        ["features.names=()"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_with_its_mend(case):
    make, words = WRONG[case]
    with pytest.raises(DeclarationError) as refused:
        make()
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_both_models_are_sound():
    assert fraud.is_stream
    assert not telco.is_stream
    assert "fraud" in [model.name for model in declared_models()]


def test_a_broken_folder_is_named_and_the_others_stand(tmp_path, monkeypatch):
    for name, text in {"empty": "", "fraud_two": "from assets.models.fraud import model as model\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    monkeypatch.setattr(model_folders, "__path__", [*model_folders.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    models, broken = read_folders()
    assert "fraud" in [model.name for model in models]
    reasons = {one.name: one.reason for one in broken}
    assert "assets/models/empty declares no model; assign `model = Model(...)`" in reasons["empty"]
    assert "two folders declare a model named 'fraud'; rename the one in fraud_two" in reasons["fraud_two"]
    for name in ("empty", "fraud_two"):
        sys.modules.pop(f"assets.models.{name}", None)


KINDS = {
    "a metric of another kind": (Gate(metric="r2"), ["gate.metric='r2'", "a binary target needs one of"]),
    "a metric without its floor": (Gate(metric="brier"), ["gate.floor=None", "declare the worst brier"]),
    "a margin of the wrong sign": (Gate(margin=0.01), ["gate.margin=0.01", "give 0 or less"]),
    "a margin that is no number": (Gate(margin=math.nan), ["gate.margin=nan", "give 0 or less"]),
    "an allowance of the wrong sign": (Gate(slice_allowance=-0.1), ["gate.slice_allowance=-0.1", "give 0 or more"]),
    "allowances without slices": (
        Gate(slice_allowance={"a": 0.1}),
        ["gate.slice_allowance={'a': 0.1}", "declare evaluation.slices"],
    ),
    "a calibration error in percent": (Gate(calibration_error=5), ["gate.calibration_error=5", "between 0 and 1"]),
    "no time to score": (Gate(latency_ms=0), ["gate.latency_ms=0", "more than 0 milliseconds"]),
    "a figure of fairness that there is not": (
        Gate(fairness={"recall": 0.1}),
        ["gate.fairness='recall'", "a binary target has selection_rate, true_positive_rate, false_positive_rate"],
    ),
    "a gap of nothing": (Gate(fairness={"selection_rate": 0}), ["gate.fairness={'selection_rate': 0}", "more than 0"]),
    "fairness without groups": (
        Gate(fairness={"selection_rate": 0.1}),
        ["gate.fairness={'selection_rate': 0.1}", "name the columns of the groups in evaluation.groups"],
    ),
    "another mode": (Gate(mode="warn"), ["gate.mode='warn'", "give 'enforce' or 'advise'"]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", KINDS)
def test_the_gate_must_fit_the_target(case):
    gate, words = KINDS[case]
    with pytest.raises(DeclarationError) as refused:
        replace(telco, gate=gate)
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_a_target_that_is_no_kind_is_refused_with_what_would_be_one():
    with pytest.raises(DeclarationError, match=r"target='customerID' is invalid: a target of type str needs isin="):
        replace(telco, target="customerID")


def test_a_gate_that_is_not_declared_follows_the_target():
    assert (telco.gate.metric, Gate().metric) == ("roc_auc", "")
    declared = replace(telco, gate=Gate())
    assert (declared.gate.metric, declared.gate.floor) == ("roc_auc", 0.6)
    measured = replace(telco, target="MonthlyCharges", gate=Gate())
    assert (measured.task.kind, measured.gate.metric, measured.gate.floor) == ("regression", "r2", 0.1)
    classes = replace(telco, target="Contract", gate=Gate())
    assert (classes.task.kind, classes.task.classes[0]) == ("multiclass", "Month-to-month")


@pytest.mark.parametrize(
    ("rows", "batch_size", "max_epochs", "learning_rate", "members"),
    [(274_000, 256, 8, 3e-3, 2), (20_000, 256, 40, 3e-3, 2), (5_634, 128, 100, 6e-3, 8), (500, 64, 100, 6e-3, 8)],
)
def test_the_recipe_fits_the_size_of_the_table(rows, batch_size, max_epochs, learning_rate, members):
    recipe = Training().sized_for(rows)
    assert (recipe.batch_size, recipe.max_epochs) == (batch_size, max_epochs)
    assert (recipe.learning_rate, recipe.members) == (learning_rate, members)
    assert recipe.sized_for(10) == recipe, "once settled it stays"


def test_what_is_declared_is_kept():
    declared = Training(batch_size=64, max_epochs=3, learning_rate=0.1, members=4)
    assert declared.sized_for(100_000) == declared


def test_the_former_name_of_the_ensemble_still_works():
    former = Training(beside=("trees",))
    assert former == Training(ensemble=("trees",))
    assert replace(former, seed=1).ensemble == ("trees",)
    assert former.sized_for(100).ensemble == ("trees",)
    assert Training(beside=()).ensemble == ()
    assert "beside" not in vars(former)


@pytest.mark.parametrize("ensemble", [("forest",), ("trees", "trees")])
def test_an_unknown_learner_of_the_ensemble_is_refused(ensemble):
    with pytest.raises(DeclarationError, match=r"training\.ensemble=.*name 'linear', 'trees', both or none"):
        replace(telco, training=Training(ensemble=ensemble))
