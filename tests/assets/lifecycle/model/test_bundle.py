"""A version as a folder: it scores, it carries its code, and damage is named."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assets.lifecycle.model.fitting import fit, outputs_of
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle, BundleError, model_code, package_of
from assets.models.fraud import model as fraud
from resources.settings import project_root

NAMES = fraud.features.names


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, len(NAMES))).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    return X


@pytest.fixture(scope="module")
def network(X) -> torch.nn.Module:
    y = (np.nan_to_num(X[:, 0]) > 0.5).astype(float)
    return fit(X, y, recipe=replace(fraud.training, batch_size=64), epochs=1)


def save(folder: Path, network: torch.nn.Module, **replaced) -> Path:
    given = {"module": network, "model": fraud, "feature_names": NAMES, "head": ScoreTransform("binary", 2.0, -1.0),
             "threshold": 0.25, "fitted": {"epochs": 1}}  # fmt: skip
    Bundle.save(folder, **{**given, **replaced})
    return folder


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("bundle") / "1", network)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 400])
def test_what_comes_back_scores_as_the_trained_one(folder, network, X, rows):
    expected = ScoreTransform("binary", 2.0, -1.0)(outputs_of(network, X[:rows])) if rows else np.empty(0)
    assert Bundle.load(folder).predict(X[:rows]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 2, 100])
def test_traced_it_scores_to_the_bit_as_exported(folder, X, rows):
    exported = Bundle.load(folder)
    traced = exported.traced()
    assert isinstance(traced.network, torch.jit.ScriptModule)
    np.testing.assert_array_equal(traced.predict(X[:rows]), exported.predict(X[:rows]))


class Counts(torch.nn.Module):
    """A trace would keep the number of rows that it was made with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x).sum(dim=1) + x.shape[0]


def test_a_network_that_a_trace_does_not_hold_stays_exported(tmp_path, X):
    exported = Bundle.load(save(tmp_path, Counts().eval()))
    assert exported.traced() is exported
    assert len(exported.predict(X[:3])) == 3


def test_it_knows_what_it_is_and_how_it_came_about(folder):
    facts = Bundle.load(folder).facts
    assert (facts.name, facts.package, facts.feature_names) == ("fraud", "assets.models.fraud", NAMES)
    assert facts.code == model_code(fraud)
    assert facts.fitted == {"epochs": 1}


def test_an_alert_is_what_is_worth_looking_at(folder):
    bundle = Bundle.load(folder)
    p, amount = np.array([0.01, 0.01, 0.5]), np.array([100.0, 300.0, 3.0])
    assert bundle.alerts(p, amount).tolist() == [False, True, False], "a review costs 2"
    assert bundle.alerts(p, None).tolist() == [False, False, True], "without an amount, above the threshold"


def test_another_number_of_features_is_an_error(folder):
    with pytest.raises(BundleError, match=f"fraud expects {len(NAMES)} features per row"):
        Bundle.load(folder).predict(np.zeros((2, 3), np.float32))


class OfNothing(torch.nn.Module):
    """A network with parts for features of which this table has none, as one of text alone has."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(9, 1)[:0])
        self.register_buffer("numbers", torch.zeros(4, dtype=torch.long)[4:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] + (x.index_select(1, self.numbers) @ self.weights).sum(dim=1)


def test_a_network_with_empty_parts_is_saved_and_comes_back(tmp_path, X):
    bundle = Bundle.load(save(tmp_path / "1", OfNothing()))
    expected = ScoreTransform("binary", 2.0, -1.0)(np.nan_to_num(X[:, 0]))
    assert bundle.predict(np.nan_to_num(X)) == pytest.approx(expected, abs=1e-6)


def test_a_network_of_one_batch_size_is_refused(tmp_path):
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.reshape(2, -1).sum(1)

    with pytest.raises(BundleError, match=r"the network of fraud cannot be exported .* forward\(\) must not depend"):
        save(tmp_path / "fixed", Fixed())


@pytest.mark.parametrize("file", ["bundle.json", "network.pt2"])
@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_damage_is_named_with_its_mend(folder, tmp_path, file, damage):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    if damage == "absent":
        (copy / file).unlink()
    else:
        (copy / file).write_bytes((copy / file).read_bytes()[:100])
    with pytest.raises(BundleError, match=f"{copy / file}: .*train the model again"):
        Bundle.load(copy)


def test_the_declaration_of_today_is_used_while_the_code_is_the_same(folder):
    bundle = Bundle.load(folder)
    assert bundle.code_difference() == []
    assert bundle.model is fraud


def test_a_version_of_other_code_brings_its_own(folder, tmp_path):
    """A rollback is a rollback: features, cleaning and contract are those of then, and today's stay as they are."""
    copy = Path(shutil.copytree(folder, tmp_path / "older"))
    features = copy / "code" / "features.py"
    features.write_text(features.read_text() + "\nOF_THEN = True\n")
    facts = (copy / "bundle.json").read_text().replace(Bundle.load(folder).facts.code, "0123456789abcdef")
    (copy / "bundle.json").write_text(facts)
    bundle = Bundle.load(copy)
    assert bundle.code_difference() == ["features.py"]
    then = bundle.model
    assert then is not fraud
    assert then.features.compute.__globals__["OF_THEN"] is True
    assert not hasattr(sys.modules["assets.models.fraud.features"], "OF_THEN")
    assert sys.modules[package_of(fraud)].model is fraud
    assert bundle.model is then, "loaded once"


def test_mlflow_can_load_it_without_our_words(folder, tmp_path, X):
    code = f"""
import numpy as np
from assets.lifecycle.model.version.bundle import _load_pyfunc
print(_load_pyfunc({str(folder)!r}).predict(np.zeros((2, {len(NAMES)}))).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2,)"
