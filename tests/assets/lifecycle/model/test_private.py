"""A private fit spends what the accountant says, clips each row, and is refused where it cannot be private."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from assets.declaration import DeclarationError, Privacy, Training
from assets.language import Language
from assets.lifecycle.model.fitting import fit, outputs_of, select
from assets.lifecycle.model.learners.private import (
    Plan,
    PrivacyError,
    epsilon_of,
    least_noise,
    steps_an_epoch,
    steps_of,
)
from assets.lifecycle.model.metrics import roc_auc
from assets.lifecycle.release.model_card import markdown, read_facts
from assets.models.fraud import model as fraud
from assets.task import Task
from resources.compute import Compute
from resources.compute.group import TorchGroup
from resources.mlflow import MlflowTracking, create_store
from tests.assets.lifecycle.model.test_fitting import make
from tests.declarations.readings import plain, readings
from tests.declarations.telco import model as telco
from tests.stages import Stages

PRIVACY = Privacy(epsilon=4.0, delta=1e-5, repeatable=True)
RECIPE = Training(ensemble=(), batch_size=64, members=1, network_arguments={"blocks": 1}, privacy=PRIVACY, max_epochs=2)


def test_epsilon_is_that_of_opacus_own_tests():
    # accountants_test.py of Opacus, test_rdp_accountant
    assert epsilon_of(1.5, sample_rate=0.04, steps=2_250, delta=1e-5) == pytest.approx(7.32911117143)


def test_the_plan_spends_what_the_accountant_counts_step_by_step():
    from opacus.accountants import RDPAccountant

    plan = Plan.of_recipe(RECIPE, rows=1_000, epochs=5)
    accountant = RDPAccountant()
    for _ in range(5 * 16):
        accountant.step(noise_multiplier=plan.noise_multiplier, sample_rate=0.064)
    assert (plan.steps, plan.sample_rate) == (80, 0.064)
    assert plan.epsilon == pytest.approx(accountant.get_epsilon(delta=1e-5))
    assert 3.98 < plan.epsilon <= 4.0
    assert "epsilon 4 of 4 spent" in str(replace(plan, epsilon=4.0))


def test_epsilon_grows_with_the_epochs_and_so_does_the_noise_for_the_same_epsilon():
    spent = [epsilon_of(1.0, sample_rate=0.05, steps=20 * epochs, delta=1e-5) for epochs in (1, 5)]
    noise = [Plan.of_recipe(RECIPE, rows=1_000, epochs=epochs).noise_multiplier for epochs in (1, 5)]
    assert spent == sorted(set(spent))
    assert noise == sorted(set(noise))


class Line(torch.nn.Module):
    """A linear network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).squeeze(-1)


def steps(network: torch.nn.Module, rows: torch.Tensor, recipe: Training = RECIPE, **others):
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    return steps_of(network, optimiser, recipe, rows, epochs=1, **others)


def summed(rows: torch.Tensor, network: torch.nn.Module, limit: float) -> torch.Tensor:
    """The sum of the clipped gradients of the rows, before the noise."""
    recipe = replace(RECIPE, privacy=replace(PRIVACY, max_grad_norm=limit))
    stepping, _ = steps(network, rows, recipe)
    stepping.zero_grad(set_to_none=True)
    network(rows).square().mean().backward()
    stepping.step()
    return torch.cat([p.summed_grad.flatten() for p in network.parameters()])


def test_an_extreme_row_moves_the_gradient_by_at_most_the_norm():
    rows = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    extreme = rows.clone()
    extreme[0] = 1e6
    for limit in (0.5, 2.0):
        torch.manual_seed(0)
        with_it = summed(extreme, Line(3), limit)
        torch.manual_seed(0)
        without = summed(extreme[1:], Line(3), limit)
        assert float((with_it - without).norm()) == pytest.approx(limit, rel=1e-3)


def test_the_noise_has_the_planned_deviation():
    network = torch.nn.Linear(2_000, 1)
    rows = torch.zeros(64, 2_000)
    plan = Plan.of_recipe(RECIPE, rows=64, epochs=1)
    stepping, _ = steps(network, rows)
    stepping.zero_grad(set_to_none=True)
    network(rows).mean().backward()  # rows of zeros: the weights' gradient is the noise alone
    stepping.step()
    assert float(network.weight.grad.std()) == pytest.approx(plan.noise_multiplier / 64, rel=0.1)


def test_each_row_is_drawn_by_itself():
    _, draw = steps(Line(3), torch.zeros(1_000, 3))
    batches = [batch for _ in range(20) for batch in draw(torch.arange(1_000))]
    sizes = [len(batch) for batch in batches]
    assert len(batches) == 20 * steps_an_epoch(1_000, 64)
    assert len(set(sizes)) > 10  # a binomial number, not a fixed one
    assert np.mean(sizes) == pytest.approx(64, abs=2)
    assert all(len(set(batch.tolist())) == len(batch) for batch in batches)


def test_a_private_fit_learns_and_the_same_seed_gives_the_same_weights():
    X, y = make(1_000)
    X_new, y_new = make(1_000, seed=1)
    one, two = (fit(X, y, recipe=RECIPE, epochs=5) for _ in range(2))
    assert all(torch.equal(one.state_dict()[name], two.state_dict()[name]) for name in one.state_dict())
    assert roc_auc(y_new, outputs_of(one, X_new)) > 0.65


def test_without_repeatable_the_noise_is_another_each_time():
    X, y = make(300)
    recipe = replace(RECIPE, privacy=replace(PRIVACY, repeatable=False))
    one, two = (fit(X, y, recipe=recipe, epochs=1) for _ in range(2))
    assert not torch.equal(next(one.parameters()), next(two.parameters()))


def test_every_layer_of_the_default_network_gets_a_clipped_gradient_with_members_and_classes():
    X, y = make(300)
    recipe = replace(RECIPE, members=2, network_arguments={})
    fit(X, y, recipe=recipe, epochs=1)
    classes = Task("multiclass", ("a", "b", "c"))
    fit(X, (X[:, 0] > 0) + (X[:, 1] > 0).astype(float), recipe=recipe, epochs=1, task=classes)


def test_a_private_recipe_has_larger_steps_of_one_member():
    private = [
        replace(RECIPE, batch_size=None, members=None, max_epochs=None).sized_for(n) for n in (500, 5_634, 10**6)
    ]
    assert [(one.batch_size, one.max_epochs, one.members) for one in private] == [
        (64, 20, 1),
        (512, 20, 1),
        (1_024, 8, 1),
    ]


def test_the_folds_do_not_choose_the_epochs():
    X, y = make(200)
    halves = np.arange(100), np.arange(100, 200)
    recipe = replace(RECIPE, batch_size=128, max_epochs=3, patience=1)
    selection = select(X, y, [halves, halves[::-1]], recipe=recipe)
    assert selection.epochs == 3
    assert [len(curve) for curve in selection.curves["loss"].values()] == [3, 3]


WRONG = {
    "no epsilon": (telco, {"privacy": Privacy(epsilon=0, delta=1e-5)}, ["privacy.epsilon=0", "above 0"]),
    "an epsilon without end": (
        telco,
        {"privacy": Privacy(epsilon=float("inf"), delta=1e-5)},
        ["privacy.epsilon=inf", "above 0"],
    ),
    "a delta of one": (telco, {"privacy": Privacy(epsilon=1, delta=1)}, ["privacy.delta=1", "below 1"]),
    "a norm below nothing": (
        telco,
        {"privacy": Privacy(epsilon=1, delta=1e-5, max_grad_norm=-1.0)},
        ["privacy.max_grad_norm=-1.0"],
    ),
    "a word for repeatable": (
        telco,
        {"privacy": Privacy(epsilon=1, delta=1e-5, repeatable="no")},  # type: ignore[arg-type]
        ["privacy.repeatable='no'", "True or False"],
    ),
    "a number for privacy": (telco, {"privacy": 3.0}, ["training.privacy=3.0", "Privacy(epsilon=…, delta=…)"]),
    "trees": (telco, {"privacy": PRIVACY, "ensemble": ("trees",)}, ["ensemble=('trees',)", "not private"]),
    "weights of rows": (fraud, {"privacy": PRIVACY, "half_life_days": 9.0}, ["half_life_days=9.0", "leave it out"]),
    "small batches": (telco, {"privacy": PRIVACY, "batch_size": 8}, ["batch_size=8", "at least 32"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_private_is_refused_in_the_declaration(case):
    model, values, words = WRONG[case]
    with pytest.raises(DeclarationError) as refused:
        replace(model, training=replace(model.training, **{"ensemble": (), **values}))
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_language_models_and_groups_are_refused_and_the_rest_is_declared():
    training = replace(telco.training, ensemble=(), privacy=PRIVACY)
    assert replace(telco, training=training).training.privacy == PRIVACY
    with pytest.raises(DeclarationError, match="a language model is not fitted privately"):
        replace(telco, training=training, language=Language(model="all-minilm-l6-v2"))
    with pytest.raises(DeclarationError, match=r"compute\.data_parallel=False"):
        replace(telco, training=training, compute=Compute(data_parallel=True))


class Normalised(Line):
    """A network whose rows depend on each other."""

    def __init__(self, width: int, *parts: torch.nn.Module) -> None:
        super().__init__(width)
        self.before = torch.nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.before(x))


class Centred(torch.nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=0)


@pytest.mark.parametrize("part", [torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3, affine=False), Centred()])
def test_a_network_that_mixes_rows_is_refused(part):
    with pytest.raises(PrivacyError, match="depends on the other rows"):
        steps(Normalised(3, part), torch.randn(64, 3))
    steps(Normalised(3, torch.nn.LayerNorm(3)), torch.randn(64, 3))


def test_batch_normalisation_is_found_before_a_layer_of_zeros_too():
    network = Normalised(3, torch.nn.BatchNorm1d(3))
    torch.nn.init.zeros_(network.layer.weight)  # no gradient passes it at the first step
    with pytest.raises(PrivacyError, match="depends on the other rows"):
        steps(network, torch.randn(64, 3))


def test_the_fit_refuses_weights_groups_and_a_delta_for_fewer_rows():
    X, y = make(300)
    with pytest.raises(PrivacyError, match="rows have weights"):
        fit(X, y, recipe=RECIPE, epochs=1, weight=np.ones(300))
    group = TorchGroup(rank=0, size=2)
    with pytest.raises(PrivacyError, match="runs in one process"):
        steps(Line(3), torch.zeros(64, 3), group=group)
    with pytest.raises(PrivacyError, match=r"delta=0\.01 allows that one of 300 rows is published as it is.*3e-04"):
        fit(X, y, recipe=replace(RECIPE, privacy=Privacy(epsilon=1, delta=0.01)), epochs=1)
    with pytest.raises(PrivacyError, match=r"no noise is enough for epsilon=1e-09.*larger epsilon"):
        least_noise(1e-9, sample_rate=1.0, steps=10_000, delta=1e-12)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    X, y = make(300)
    least_noise.cache_clear()
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(PrivacyError, match=r"pip install -e '\.\[privacy\]' -c constraints\.txt"):
        fit(X, y, recipe=RECIPE, epochs=1)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A private version in MLflow, from the asset, and the lines of its log."""
    folder = tmp_path_factory.mktemp("private")
    create_store(folder / "mlflow.db", folder / "artifacts")
    model = plain(training=replace(RECIPE, min_rows=100, batch_size=512, privacy=replace(PRIVACY, repeatable=False)))
    stages = Stages(model, folder, mlflow=MlflowTracking(tracking_uri=f"sqlite:///{folder}/mlflow.db"))
    stages.put("readings", readings(400))
    for name in ("labels", "features", "training_set", "trained_model"):
        made = stages.make(name)
        assert made.success, made.why
    [run] = stages.instance.get_runs(limit=1)
    return stages, [entry.user_message for entry in stages.instance.all_logs(run.run_id)]


def test_the_version_the_run_the_log_and_the_card_say_what_was_spent(version):
    stages, lines = version
    mlflow, row = stages.resources["mlflow"], stages.row("trained_model")
    card = read_facts("meter", row["version"], mlflow, stages.ledger)
    spent = card.facts.fitted["privacy"]
    plan = Plan.of_recipe(stages.model.training, rows=320, epochs=2)
    assert spent == plan.to_dict()
    assert spent["epsilon"] == epsilon_of(spent["noise_multiplier"], sample_rate=1.0, steps=spent["steps"], delta=1e-5)
    metrics = mlflow.client().get_run(row["run_id"]).data.metrics
    assert (metrics["privacy.epsilon"], metrics["privacy.steps"]) == (spent["epsilon"], 2)
    assert str(plan) in lines
    text = markdown(card, stages.model)
    [section] = re.findall(r"^## Differential privacy\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert f"**ε = {spent['epsilon']:.4g} at δ = 1e-05**" in section
    assert "of 4 declared" in section
    assert "| Seed of draws and noise | drawn by the system, not kept |" in section
    for word in ("medians", "bin edges", "calibration", "threshold", "rows for explanations"):
        assert word in section.partition("ε does not cover it")[2]


def test_the_card_of_a_repeatable_version_says_so_and_that_of_another_version_nothing(version):
    stages, _ = version
    card = read_facts("meter", stages.row("trained_model")["version"], stages.resources["mlflow"], stages.ledger)
    fitted = card.facts.fitted
    repeatable = {**fitted, "privacy": {**fitted["privacy"], "repeatable": True}}
    known = markdown(replace(card, facts=replace(card.facts, fitted=repeatable)), stages.model)
    assert "the recipe's: who knows it can subtract the noise" in known
    without = {name: value for name, value in fitted.items() if name != "privacy"}
    assert "ε" not in markdown(replace(card, facts=replace(card.facts, fitted=without)), stages.model)
