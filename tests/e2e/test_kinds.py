"""Each kind of target through the whole lifecycle, in the folder that `new-model` wrote, unedited.

`make test` lives one of them; the others differ in what `tests/assets/lifecycle` shows by itself.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from benchmarks.made import energy, machines, tickets
from resources.settings import project_root
from runner import RunError, Runner
from scaffold.new_model import drafted
from tests.serving.processes import Service
from tests.worlds import why


@pytest.fixture(scope="module")
def live(make_world, tmp_path_factory):
    """Makes a folder of a table, lives its life, and keeps the folder importable until the end."""
    drafts = []

    def start(name: str, frame: pd.DataFrame, target: str, epochs: int | None = None, **how):
        folder = tmp_path_factory.mktemp(name)
        path = folder / f"{name}_table.csv"
        frame.to_csv(path, index=False)
        draft = drafted(project_root(), name, path, target, **how)
        model = draft.__enter__().model
        if epochs:
            model = replace(
                model, training=replace(model.training, max_epochs=epochs), gate=Gate(floor=0.5, baseline_margin=-1)
            )
        drafts.append(draft)
        world = make_world(model, folder)
        lines: list[str] = []
        Runner(model, world.settings, world.instance).live(lines.append)
        return model, world, lines, path

    yield start
    for draft in drafts:
        draft.__exit__(None, None, None)


def raw_row(path: Path, target: str, at: int = 3) -> dict:
    return pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=target).iloc[at].to_dict()


def answered(world, model, row: dict) -> dict:
    """What the real service says of a row as it landed."""
    service = Service(world.settings.home, "--bundle", str(world.mlflow.download(model.name, "1")))
    try:
        answer = service.predict([row], model.name)
        assert answer.status_code == 200, answer.text
        return answer.json()[0]
    finally:
        service.end()


@pytest.mark.slow
def test_four_classes_with_dates_mixed_kinds_and_missing_values(live):
    model, world, lines, path = live("machine", machines(4_000), "Failure")
    assert lines[-1].startswith("version 1 of machine is in production: roc_auc ")
    report = json.loads(world.row("evaluation")["report"])
    assert report["kind"] == "multiclass"
    assert set(report["models"]["torch"]) == {"accuracy", "balanced_accuracy", "roc_auc", "log_loss"}
    assert np.sum(report["confusion"]["rows"]) == report["rows"] == 800
    said = world.tables.read(model.key("predictions"))
    shares = said[[f"p_{name}" for name in model.task.names]]
    assert len(said) == 4_000
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares.columns[shares.to_numpy().argmax(axis=1)] == "p_" + said["prediction"]).all()
    assert world.row("drift")["level"] == "ok"
    answer = answered(world, model, raw_row(path, "Failure"))
    expected = said.set_index("machine_no").loc[answer["machine_no"]]
    assert answer["prediction"] == expected["prediction"]
    assert answer["probabilities"] == pytest.approx({n: expected[f"p_{n}"] for n in model.task.names}, abs=1e-5)


@pytest.mark.slow
def test_a_measured_value(live):
    model, world, lines, path = live("energy", energy(1_500), "use")
    assert lines[-1].startswith("version 1 of energy is in production: r2 0.9")
    report = json.loads(world.row("evaluation")["report"])
    assert report["models"]["torch"]["rmse"]["value"] > 0
    assert len(report["fit"]["truth"]) == 300
    said = world.tables.read(model.key("predictions"))["prediction"]
    truth = world.tables.read(model.key("labels"))["use"]
    assert np.corrcoef(said, truth)[0, 1] > 0.97
    answer = answered(world, model, raw_row(path, "use"))
    assert set(answer) == {"row", "prediction", "model", "version"}
    assert said.sub(answer["prediction"]).abs().min() < 1e-2


@pytest.mark.slow
def test_a_drift_of_a_table_without_days_warns_at_one_landing_and_pages_at_the_next(live):
    model, world, _, path = live("plant", energy(3_000), "use")

    def landed(frame: pd.DataFrame) -> str:
        frame.to_csv(path, index=False)
        done = world.materialize(
            "raw_plant_table", "plant_table", "quarantine", "labels", "features", "predictions", "drift"
        )
        assert done.success, why(done)
        return world.row("drift")["level"]

    assert landed(energy(3_000, seed=1)) == "ok"
    warm = energy(3_000, seed=2).assign(outside=lambda rows: rows["outside"] + 6)
    assert [landed(warm), landed(warm)] == ["warn", "warn"], "the same rows are the same window"
    assert landed(energy(3_000, seed=3).assign(outside=lambda rows: rows["outside"] + 6)) == "page"
    lines = world.tables.read(model.key("drift"))
    assert list(lines["level"]) == ["page", "warn", "ok", "ok"], "a line for each landing, the newest first"
    assert lines["since"][0] == lines["at"][1]
    assert landed(energy(3_000, seed=4)) == "ok"


@pytest.mark.slow
def test_free_text_tells_who_leaves(live):
    frame = tickets(3_000)
    frame.loc[:99, "left"] = ""  # not known yet: scored, and not learnt from
    model, world, lines, path = live("ticket", frame, "left")
    assert len(world.tables.read(model.key("labels"))) == 2_900
    assert len(world.tables.read(model.key("predictions"))) == 3_000
    assert float(re.search(r"production: roc_auc ([\d.]+)", lines[-1])[1]) > 0.75
    assert answered(world, model, raw_row(path, "left"))["decision"] in ("alert", "pass")
    verdicts = json.loads(world.row("drift")["verdicts"])["columns"]
    assert {v["column"] for v in verdicts} == {"months", "open_cases", "score"}, (
        "word numbers are compared with nothing"
    )


@pytest.mark.slow
def test_a_table_of_nothing_but_text_goes_the_whole_way(live):
    rng = np.random.default_rng(0)
    good, bad = ["love", "great", "fast", "good"], ["hate", "slow", "late", "awful"]
    words = [[*rng.choice(good if n % 2 else bad, 4), f"order {n}"] for n in range(400)]
    frame = pd.DataFrame({"text": [" ".join(of) for of in words], "said": np.resize(["neg", "pos"], 400)})
    model, world, _, path = live("opinion", frame, "said", epochs=3)
    assert model.task.classes == ("neg", "pos")
    assert len(world.tables.read(model.key("predictions"))) == 400
    drift = world.row("drift")
    assert (drift["level"], drift["window_rows"], drift["judged"]) == ("ok", 400, True)
    assert [one["column"] for one in json.loads(drift["verdicts"])["columns"]] == ["score"]
    frame.head(300).assign(text=[" ".join(rng.choice(good, 5)) + f" {n}" for n in range(300)]).to_csv(path, index=False)
    done = world.materialize(
        "raw_opinion_table", "opinion_table", "quarantine", "labels", "features", "predictions", "drift"
    )
    assert done.success, why(done)
    assert (world.row("drift")["level"], world.row("drift")["columns"]) == ("warn", "score")


@pytest.mark.slow
def test_a_table_with_names_of_another_script_and_awkward_values_is_served(live):
    rng = np.random.default_rng(0)
    amount = rng.normal(size=300).round(3)
    frame = pd.DataFrame({
        "编号": [str(10**17 + 7 * n) for n in range(300)],
        "金额": np.where(rng.random(300) < 0.05, "inf", amount.astype(str)),
        "城市": rng.choice(["北京", "上海"], 300),
        "score": rng.normal(size=300).round(2),
        "开户": [f"2026-03-{1 + n % 28:02d}T10:00:00+08:00" for n in range(300)],
        "是否违约": np.where(amount + rng.normal(size=300) > 0.5, "是", "否"),
    })  # fmt: skip
    model, world, _, path = live("default_cn", frame, "是否违约", epochs=2)
    said = world.tables.read(model.key("predictions")).set_index("编号")
    answer = answered(world, model, raw_row(path, "是否违约"))
    assert answer["probability"] == pytest.approx(said["probability"][answer["编号"]], abs=1e-5)
    assert world.row("drift")["level"] == "ok"


def test_rows_by_time_with_days_without_any(live):
    rng = np.random.default_rng(0)
    times = pd.Timestamp(2026, 2, 2) + pd.to_timedelta(rng.integers(0, 28 * 1_440, 3_000), "min")
    frame = energy(3_000).assign(at=times.strftime("%d.%m.%Y %H:%M"))[times.weekday < 5]
    model, world, lines, _ = live("meter", frame, "use", time="at")
    assert model.table.quiet_days
    assert lines[-1].startswith("version 1 of meter is in production: r2 ")
    assert len(world.tables.days(model.key("features"))) == len(world.tables.days(model.key("raw_meter_table")))
    assert sum(
        len(world.tables.read(model.key("meter_table"), [d])) for d in world.tables.days(model.key("labels"))
    ) == len(frame)


def test_a_leak_stops_the_command_before_anything_is_trained(live):
    frame = tickets(1_500).assign(closed_as=lambda f: np.where(f["left"] == "yes", "gone", "stays"))
    with pytest.raises(
        RunError, match=r"training_set: leakage: 'closed_as' alone nearly determines the target \(AUC 1"
    ):
        live("leaky", frame, "left")


def test_a_column_that_sums_to_the_target_stops_it_too(live):
    frame = energy(1_500).assign(day=lambda f: f["use"] * 0.6).assign(night=lambda f: f["use"] - f["day"])
    frame["day"] += np.random.default_rng(0).normal(0, 300, 1_500)
    frame["night"] = frame["use"] - frame["day"]
    with pytest.raises(RunError, match=r"leakage: 'day' and 'night' add up to 'use'"):
        live("summed", frame, "use")
