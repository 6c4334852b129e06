"""Too few rows, rows that give the target away and a candidate that learnt nothing stop the lineage; the good pass."""

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate, Training
from assets.lifecycle.training import MIN_OF_EACH_CLASS, _too_few
from tests.models.readings import plain, readings
from tests.stages import Stages, copied_bundle

# -- the training set ------------------------------------------------------------------------------------------------


def frozen(tmp_path, rows: pd.DataFrame, **declared):
    """The training set of a plain table, from its cleaned rows."""
    stages = Stages(plain(**declared), tmp_path)
    stages.put("readings", rows)
    for name in ("labels", "features"):
        made = stages.make(name)
        assert made.success, made.why
    return stages, stages.make("training_set")


def test_rows_enough_that_give_nothing_away_pass(tmp_path):
    stages, made = frozen(tmp_path, readings(600))
    assert made.success, made.why
    enough = made.check("enough")
    assert enough.passed
    assert enough.description == "480 rows to fit on, 120 to report on"
    assert {name: enough.metadata[name].value for name in ("fit_rows", "test_rows")} == {
        "fit_rows": 480, "test_rows": 120,
    }  # fmt: skip
    assert made.check("leakage").passed
    assert len(stages.tables.read(stages.model.key("training_set"))) == 600


@pytest.mark.closes("training_set", "enough")
@pytest.mark.parametrize(
    ("rows", "declared", "words"),
    [
        (readings(124), {}, "fit: needs 100 rows, found 99"),
        (readings(240), {"training": Training()}, "fit: needs 200 rows, found 192; test: needs 50 rows, found 48"),
        (
            readings(600).assign(faulty=np.arange(600) == 0),
            {},
            "fit: needs 10 rows of each class, of faulty found True 1; test: needs 10 rows of each class, of faulty "
            "found True 0",
        ),
        (readings(600).assign(level=50.0), {"target": "level", "gate": Gate()}, "all values of level are the same"),
        (
            readings(600).assign(site=pd.array(["north"] * 591 + ["south"] * 9, dtype="string[pyarrow]")),
            {"target": "site", "gate": Gate()},
            "fit: needs 10 rows of each class, of site found south 7, east 0",
        ),
    ],
    ids=["rows to fit on", "rows to report on", "positives", "values", "classes"],
)  # fmt: skip
def test_too_few_rows_freeze_nothing_and_say_what_is_missing(tmp_path, rows, declared, words):
    stages, made = frozen(tmp_path, rows, **declared)
    assert not made.success
    assert made.checks == ["enough"], "what is too little is not searched for leaks"
    assert not made.check("enough").passed
    assert words in made.why
    assert "land more labelled rows, or declare smaller windows (Training.min_rows)" in made.why
    assert not stages.has("training_set")


@pytest.mark.parametrize(
    ("part", "declared", "target", "enough"),
    [
        ("fit", {}, [0, 1] * 50, True),
        ("fit", {}, [0] * 90 + [1] * MIN_OF_EACH_CLASS, True),
        ("fit", {}, [0] * 91 + [1] * (MIN_OF_EACH_CLASS - 1), False),
        ("fit", {}, [1] * 91 + [0] * (MIN_OF_EACH_CLASS - 1), False),
        ("test", {}, [0, 1] * 25, True),
        ("test", {}, [0, 1] * 24 + [0], False),
        ("test", {}, [0] * 91 + [1] * (MIN_OF_EACH_CLASS - 1), False),
        ("test", {"training": Training(min_rows=20)}, [0, 1] * 10, True),
        ("test", {"training": Training(min_rows=20)}, [0, 1] * 9 + [0], False),
        # Of several classes a rare one need only be there to report on.
        ("test", {"target": "site", "gate": Gate()}, [0] * 49 + [1, 2], True),
        ("test", {"target": "site", "gate": Gate()}, [0] * 51 + [1], False),
        ("test", {"target": "level", "gate": Gate()}, [1.0] * 99 + [2.0], True),
        ("test", {"target": "level", "gate": Gate()}, [1.0] * 100, False),
    ],
)
def test_how_many_are_enough(part, declared, target, enough):
    assert (_too_few(part, pd.Series(target), plain(**declared)) == "") is enough


@pytest.mark.closes("training_set", "leakage")
def test_a_column_that_gives_the_target_away_freezes_nothing(tmp_path):
    stages, made = frozen(tmp_path, readings(600).assign(level=lambda rows: rows["faulty"] * 50.0 + 1))
    assert made.check("enough").passed
    leakage = made.check("leakage")
    assert not leakage.passed
    assert "'level' alone nearly decides the target" in made.why
    assert "No model is trained" in made.why
    assert leakage.metadata["found"].value == ["'level' alone nearly decides the target (AUC 1.000 on held-out rows)"]
    assert not stages.has("training_set")


def test_a_leak_that_was_accepted_by_name_passes_and_says_why(tmp_path):
    leaking = readings(600).assign(level=lambda rows: rows["faulty"] * 50.0 + 1)
    _, made = frozen(tmp_path, leaking, accepted_leaks={"level": "it is read before anybody looks"})
    assert made.success, made.why
    leakage = made.check("leakage")
    assert leakage.passed
    assert leakage.description == "accepted: level (it is read before anybody looks)"


# -- the candidate ---------------------------------------------------------------------------------------------------


def candidate(tmp_path, toy_bundle, **fitted):
    """The version that there is for the frozen rows, as fitted with these figures."""
    stages, _ = frozen(tmp_path / "stages", readings(600))
    stages.mlflow.folders["1"] = copied_bundle(toy_bundle, tmp_path / "bundle", fitted=fitted)
    return stages, stages.make("trained_model")


def test_a_candidate_that_beats_the_base_rate_passes(tmp_path, toy_bundle):
    stages, made = candidate(tmp_path, toy_bundle, folds_score=0.41, chance=0.4)
    assert made.success, made.why
    converged = made.check("converged")
    assert converged.passed
    assert converged.description == "average_precision 0.4100 on the folds, by chance 0.4000"
    assert stages.row("trained_model")["version"] == "1"


@pytest.mark.closes("trained_model", "converged")
@pytest.mark.parametrize("score", [0.4, 0.1, float("nan"), float("-inf")], ids=["chance", "worse", "nan", "-inf"])
def test_a_candidate_that_learnt_nothing_stops_there(tmp_path, toy_bundle, score):
    stages, made = candidate(tmp_path, toy_bundle, folds_score=score, chance=0.4)
    assert not made.success
    assert not made.check("converged").passed
    assert "by chance 0.4000; the candidate learnt nothing: look at the learning curves and the features" in made.why
    assert not stages.has("trained_model")
