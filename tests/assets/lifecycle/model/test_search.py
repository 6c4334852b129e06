"""The search finds what plainly matters, keeps the declared recipe otherwise, and reads no test row."""

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Evaluation
from assets.lifecycle.model import search as searching
from assets.lifecycle.model.search import search
from assets.lifecycle.model.training_set import fold_rows
from assets.lifecycle.model.training_set import test_rows as held_out
from assets.search_space import Choice, Range, Tuning
from resources.settings import project_root
from resources.studies import Studies
from tests.assets.lifecycle.model.test_training_set import frozen as frozen_stages
from tests.declarations.readings import START, readings, stream
from tests.declarations.tunable import SPACE, line, tunable

BLIND = tunable({"blind": True})  # tests of it find the planted better value: a network that sees


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    stages, _ = frozen_stages(tmp_path_factory.mktemp("rows"), readings(400))
    return stages.tables.read(stages.model.key("training_set"))


@pytest.fixture
def studies(tmp_path):
    return Studies(database_url=f"sqlite:///{tmp_path}/studies.db")


def run(studies, rows, model, *, trials=6, name="study", **given):
    return search(studies, name, rows, model, **{"trials": trials, "minutes": 60, **given})


def essence(found):
    """What a search came to, without times."""
    return [(t.number, t.state, t.values, t.declared, t.score) for t in found.trials], found.chosen, found.gain


def test_a_planted_better_value_is_found_and_clear(studies, rows):
    lines = []
    found = run(studies, rows, BLIND, log=lines.append)
    assert found.trials[0].declared
    assert found.chosen["network.blind"] is False
    assert found.gain > found.error > 0
    assert found.best.score > found.declared.score
    assert lines[0].startswith("trial 1/6: average_precision 0.")
    assert lines[0].endswith("; the declared recipe")
    assert len(lines) == 7, "a line for each trial and one for the confirmation"
    assert set(found.importance) == set(SPACE)
    assert sum(found.importance.values()) == pytest.approx(1)


def test_the_declared_recipe_stays_where_nothing_is_better(studies, rows):
    same = tunable(tuning=Tuning(space={"network.blind": Choice(True)}, trials=3))
    found = run(studies, rows, same, trials=3)
    assert found.best is found.declared
    assert (found.chosen, found.gain, found.clear) == ({}, 0.0, False)


def test_a_gain_within_its_noise_is_not_used(studies, rows, monkeypatch):
    monkeypatch.setattr(searching._Folds, "confirm", lambda self, stored: (0.01, 0.02))
    found = run(studies, rows, BLIND)
    assert found.best is not found.declared
    assert (found.chosen, found.clear) == ({}, False)


def test_test_rows_change_nothing(tmp_path, rows):
    """Other targets and other features in the test rows: the same trials, the same choice."""
    test = held_out(rows, BLIND)
    other = rows.copy()
    other.loc[test, BLIND.target] = 1 - other.loc[test, BLIND.target]
    other.loc[test, [c for c in rows.columns if c.startswith("x_")]] = 99.0
    one, two = (
        run(Studies(database_url=f"sqlite:///{tmp_path}/{n}.db"), frame, BLIND, trials=4)
        for n, frame in enumerate((rows, other))
    )
    assert essence(one) == essence(two)


def test_targets_of_test_rows_are_gone(rows):
    kept = searching._Folds(rows, BLIND).frozen[BLIND.target]
    assert np.array_equal(kept.isna(), held_out(rows, BLIND))


def test_other_folds_are_other_divisions_of_the_same_rows(rows):
    """Another seed would be another split into fit and test rows, and the confirmation would see test rows."""
    (one, _), (two, _) = fold_rows(rows, BLIND), fold_rows(rows, BLIND, another=1)
    assert set(np.concatenate(one)) == set(np.concatenate(two)) == set(np.flatnonzero(~held_out(rows, BLIND)))
    assert not np.array_equal(one[1], two[1])


def test_a_stream_is_searched_on_its_days_before_the_test_day(studies):
    days = [readings(60, START + dt.timedelta(days=n)) for n in range(22)]
    frame = pd.concat(days, ignore_index=True).astype({"faulty": float})
    frame = frame.assign(x_level=frame["level"], x_before=0.0)
    model = stream(network=line, tuning=BLIND.tuning, training=replace(BLIND.training, window_days=5, test_days=2))
    folds, again = fold_rows(frame, model), fold_rows(frame, model, another=1)
    assert all(
        np.array_equal(one, two) for a, b in zip(folds, again, strict=True) for one, two in zip(a, b, strict=True)
    )
    found = run(studies, frame, model, trials=5)
    assert found.chosen["network.blind"] is False
    late = frame["read_at"] >= pd.Timestamp(START + dt.timedelta(days=20))
    other = frame.assign(faulty=frame["faulty"].where(~late, 1 - frame["faulty"]))
    assert essence(run(studies, other, model, trials=5, name="other")) == essence(found)


def test_rows_of_an_entity_are_drawn_together_for_the_error(studies, rows, monkeypatch):
    drawn = []
    bootstrap = searching.bootstrap
    monkeypatch.setattr(searching, "bootstrap", lambda gain, n, **how: drawn.append(n) or bootstrap(gain, n, **how))
    run(studies, rows, replace(BLIND, evaluation=Evaluation(entity="site")), trials=4)
    run(studies, rows, BLIND, trials=4, name="rows")
    assert drawn == [3, 400]


def test_the_same_study_is_not_repeated_and_a_larger_budget_continues_it(studies, rows):
    first = run(studies, rows, BLIND, trials=4)
    lines = []
    again = run(studies, rows, BLIND, trials=4, log=lines.append)
    assert lines == []
    assert essence(again) == essence(first)
    more = run(studies, rows, BLIND, trials=6, log=lines.append)
    assert [trial.number for trial in more.trials] == [1, 2, 3, 4, 5, 6]
    assert essence(more)[0][:4] == essence(first)[0]
    assert lines[0].startswith("trial 5/6")


def test_no_trial_begins_when_the_time_is_over(studies, rows):
    found = run(studies, rows, BLIND, minutes=0)
    assert (found.trials, found.best, found.declared, found.chosen) == ([], None, None, {})


def test_a_loss_that_is_not_finite_is_a_failed_trial_and_the_search_goes_on(studies, rows):
    model = tunable(tuning=Tuning(space={"network.broken": Choice(True, False)}))
    found = run(studies, rows, model, trials=5)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert failed
    assert all("the loss is nan" in trial.note and trial.score is None for trial in failed)
    assert len(found.trials) == 5
    assert found.declared.score is not None
    assert found.chosen == {}


def test_another_error_ends_the_search_and_the_trial_is_not_counted(studies, rows):
    def taken(X, y, *, width: int = 1):
        if width == 2:
            raise TypeError("no network of width 2")
        from tests.declarations.tunable import line

        return line(X, y)

    model = tunable(network=taken, tuning=Tuning(space={"network.width": Choice(1, 2)}))
    with pytest.raises(TypeError, match="width 2"):
        run(studies, rows, model, trials=20)
    states = [trial.state.name for trial in studies.open("study").trials]
    assert states.count("FAIL") == 1
    assert "RUNNING" not in states
    done = run(studies, rows, model, trials=1)
    assert all(trial.state == "complete" for trial in done.trials)


def test_a_trial_that_is_far_behind_is_pruned_in_its_first_fold(studies, rows, monkeypatch):
    monkeypatch.setattr(searching, "COMPARED_TRIALS", 1)
    records = []

    @contextlib.contextmanager
    def record(name):
        said = {}
        yield SimpleNamespace(
            log_params=said.update, log_metrics=said.update, set_tags=said.update,
            log_dict=lambda curves, file: said.update({file: curves}),
        )  # fmt: skip
        records.append((name, said))

    model = tunable(tuning=Tuning(space={"network.blind": Choice(True, False)}))
    found = run(studies, rows, model, trials=8, open_trial=record)
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.values["network.blind"] for trial in pruned), "it is the blind ones that are behind"
    assert {(trial.note, trial.score) for trial in pruned} == {("pruned after epoch 3", None)}, "half of its 6 epochs"
    assert [name for name, _ in records] == [f"trial {n}" for n in range(1, 9)]
    of_pruned = [said for _, said in records if said["trial"] == "pruned"]
    assert all(set(said["curves.json"]) == {"fold 1"} and "folds_score" not in said for said in of_pruned)
    assert records[0][1]["declared"] is True
    assert records[0][1]["folds_score"] == found.declared.score


def test_a_declared_recipe_outside_the_space_is_tried_as_it_is(studies, rows):
    space = {"learning_rate": Range(0.001, 0.002), "network.blind": Choice(False)}
    found = run(studies, rows, tunable({"blind": True}, tuning=Tuning(space=space)), trials=3)
    assert found.declared.values == {}, "neither of its settings is in the space"
    inside = run(studies, rows, tunable(tuning=Tuning(space=SPACE)), trials=1, name="inside")
    assert inside.declared.values == {"learning_rate": 0.05, "network.blind": False}


def test_learners_that_no_setting_changes_are_fitted_once(studies, rows, monkeypatch):
    from assets.lifecycle.model.learners.ensemble import LEARNERS, LINEAR

    fits, fit = [], LEARNERS[LINEAR].fit
    monkeypatch.setattr(LEARNERS[LINEAR], "fit", lambda *a, **k: fits.append(1) or fit(*a, **k))
    model = tunable()
    run(studies, rows, replace(model, training=replace(model.training, ensemble=("linear",))), trials=3)
    again = searching.CONFIRMATION_FOLDS * searching.CONFIRMATIONS
    assert len(fits) in (2, 2 + again), "once for each fold, and again to confirm"


KILLED = """
import sys
import pandas as pd
from assets.lifecycle.model.search import search
from resources.studies import Studies
from tests.declarations.tunable import tunable
search(Studies(database_url=sys.argv[1]), "study", pd.read_parquet(sys.argv[2]), tunable({"blind": True}), trials=6,
       minutes=60, log=lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path, rows):
    undisturbed = run(Studies(database_url=f"sqlite:///{tmp_path}/undisturbed.db"), rows, BLIND)
    url = f"sqlite:///{tmp_path}/killed.db"
    rows.to_parquet(tmp_path / "rows.parquet")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(tmp_path / "rows.parquet")],
        stdout=subprocess.PIPE, text=True, cwd=project_root(), env={**os.environ, "PYTHONPATH": str(project_root())},
    )  # fmt: skip
    for said in process.stdout:
        if said.startswith("trial 3/6"):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    lines = []
    resumed = run(Studies(database_url=url), rows, BLIND, log=lines.append)
    assert len(lines) < 6, "the finished trials are not repeated"
    assert essence(resumed) == essence(undisturbed)
