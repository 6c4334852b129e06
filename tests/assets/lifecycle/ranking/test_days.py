"""The daily assets of a ranking in Dagster: what its lists earned, and the watch over its figures."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.erasure.forget import Erasure
from assets.lifecycle.monitoring.trailing import TRAILING_DAYS
from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import log_of
from assets.lifecycle.ranking.fitting import fit_ranking
from assets.lifecycle.ranking.ranker import explore
from resources.request_log import RequestLog, RequestRecord
from tests.declarations.shelf import BOOKS, START, loans, shelf_model
from tests.stages import Stages
from tests.worlds import World, why

MODEL = shelf_model()
K, SHARE = MODEL.ranking.k, MODEL.ranking.exploration


def day(number: int) -> str:
    return str(START + dt.timedelta(days=number))


# -- what lists earned -------------------------------------------------------------------------------------------------


def a_list(number: int, reader: int, at: dt.datetime) -> RequestRecord:
    """What `/rank` logs of a list: the books of a reader's genre first, and some drawn places."""
    order = np.array(sorted(range(BOOKS), key=lambda book: (book % 4 != reader % 4, book)))
    item, propensity, explored = explore(order, K, SHARE, np.random.default_rng(number))
    row = {"reader": f"r{reader}", "events": [], "listed": [f"b{one}" for one in item],
           "propensity": propensity.tolist(), "explored": explored.tolist()}  # fmt: skip
    return RequestRecord(
        request_id=f"q{number}", at=at, model="shelf", version="1", role="champion", key=f"q{number}",
        entity=f"r{reader}", row=row, score=None, alert=None, latency_ms=1.0, outcome="ok",
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory) -> World:
    """Three days of loans; many lists on the second day, three on the third and none on the first."""
    world = make_world(MODEL, tmp_path_factory.mktemp("shelf"))
    days = [day(n) for n in range(4)]
    for work in ("land", "clean"):
        result = world.run(work, days)
        assert result.success, why(result)
    log = RequestLog(folder=str(world.settings.serving))
    for number, lists in ((1, 240), (2, 3)):
        midnight = dt.datetime.combine(START + dt.timedelta(days=number), dt.time())
        log.append([a_list(1_000 * number + n, n % 60, midnight + dt.timedelta(seconds=n)) for n in range(lists)])
    log.close()
    return world


def made(world: World, number: int) -> tuple[pd.DataFrame, dg.AssetCheckEvaluation]:
    result = world.materialize("requests", "off_policy", day=day(number))
    assert result.success, why(result)
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "support"]
    return world.tables.read(MODEL.key("off_policy"), [day(number)]).set_index("rule"), check


def test_a_day_with_many_lists_has_values_with_intervals(world):
    values, check = made(world, 1)
    assert check.passed, check.description
    assert set(values.index) == {"logged", "list", "random"}
    assert (values["low"] <= values["value"]).all()
    assert (values["value"] <= values["high"]).all()
    assert (values["low"] < values["high"]).all()
    assert values.loc["list", "value"] > values.loc["random", "value"], "the lists have the reader's genre"
    assert values.loc["logged", "decisions"] == 240 * K
    drawn = values.loc["random", "decisions"]
    assert 0.1 < drawn / (240 * K) < 0.3
    assert f"{drawn:,} places were drawn, at least 30 needed" in check.description


def test_its_lists_are_in_the_table_of_requests(world):
    made(world, 1)
    rows = world.tables.read(MODEL.key("requests"), [day(1)])
    assert len(rows) == 240
    assert rows["sent"].str.contains('"reader": "r7"').sum() == 4


def test_a_day_with_few_lists_warns_and_says_what_to_do(world):
    values, check = made(world, 2)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "effective decisions for the list without exploration, at least 100 needed" in check.description
    assert "wait for a day with more lists, or raise `exploration`" in check.description
    assert values.loc["logged", "decisions"] == 3 * K


def test_a_day_without_lists_passes_and_says_so(world):
    values, check = made(world, 0)
    assert check.passed
    assert check.description == "no lists were asked for"
    assert values["decisions"].tolist() == [0]


def test_a_reader_is_forgotten_with_the_lists_that_were_made_for_them(world):
    made(world, 1)
    erasure = Erasure(world.settings, [MODEL], world.instance, column="reader", value="r7")
    found = erasure.find()
    assert found.lines == {f"shelf, {day(1)}": 4}
    assert found.rows["shelf/requests"] == {day(1): 4}
    erasure.forget("ada")
    rows = world.tables.read(MODEL.key("requests"), [day(1)])
    assert len(rows) == 236
    assert not rows["sent"].str.contains('"reader": "r7"').any()
    assert not (world.tables.read(MODEL.key("loans"))["reader"] == "r7").any()
    assert not [path for path in world.settings.serving.rglob("*.jsonl") if '"r7"' in path.read_text()]


# -- the watch over its figures ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version") / "v"
    items, past = log_of(pd.concat([loans(START + dt.timedelta(days=n)) for n in range(5)]), MODEL)
    ranking = replace(MODEL.ranking, epochs=3)
    RankingBundle.write(folder, fit_ranking(past, items, ranking, seed=0, log=lambda _: None).ranker, MODEL, {})
    return folder


def watched(folder, version, *, turned: bool) -> Stages:
    """Thirteen days with their champion. ``turned``: from the sixth on, readers borrow whatever they see first."""
    stages = Stages(shelf_model(gate=Gate(metric="ndcg", floor=0.12, calibration_error=None)), folder)
    stages.mlflow.folders["1"] = version
    stages.ledger.promote("shelf", "1", reason="the first", verdicts={}, dagster_run="run-1", who="ada")
    for number in range(13):
        rows = loans(START + dt.timedelta(days=number), rows=400)
        if turned and number >= 5:
            anything = np.random.default_rng(number).random(len(rows)) < 0.2
            rows["event"] = np.where(anything, "borrow", "look")
        stages.put("loans", rows, day(number))
        stages.put("labels", rows[["loan_id", "at", "event"]], day(number))
        stages.put("predictions", rows[["loan_id", "at"]].assign(prediction=0.0, version="1"), day(number))
    return stages


def test_good_lists_pass_and_a_week_is_needed_to_judge(tmp_path, version):
    stages = watched(tmp_path, version, turned=False)
    days = [day(n) for n in range(5, 5 + TRAILING_DAYS)]
    outcome = stages.make("performance", *days)
    assert outcome.success, outcome.why
    assert all(outcome.check("floor", one).passed for one in days)
    assert "over the 6 days" in outcome.check("floor", days[-2]).description
    assert "fewer than 7 days, so it is not judged yet" in outcome.check("floor", days[-2]).description
    assert "not judged" not in outcome.check("floor", days[-1]).description
    last = stages.row("performance", days[-1])
    assert last["ndcg"] > 0.12
    assert 0 < last["recall"] <= 1
    assert 0 < last["coverage"] <= 1
    assert last["novelty"] > 0
    of_days = [stages.row("performance", one)["ndcg"] for one in days]
    assert last["trailing_ndcg"] == pytest.approx(np.mean(of_days))
    assert (last["trailing_days"], last["version"]) == (7, "1")


@pytest.mark.closes("performance", "floor")
def test_lists_that_nobody_likes_any_more_are_told_after_a_week(tmp_path, version):
    stages = watched(tmp_path, version, turned=True)
    days = [day(n) for n in range(6, 6 + TRAILING_DAYS)]
    early = stages.make("performance", *days[:-1])
    assert early.success, early.why
    assert all(early.check("floor", one).passed for one in days[:-1]), "not judged yet"
    outcome = stages.make("performance", days[-1])
    check = outcome.check("floor", days[-1])
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "over the 7 days" in check.description
    assert check.description.endswith("floor 0.12")
    assert check.metadata["trailing_ndcg"].value < 0.12


def test_without_a_champion_it_says_what_to_do(tmp_path):
    bare = Stages(MODEL, tmp_path)
    bare.put("predictions", pd.DataFrame({"loan_id": ["a"]}), day(5))
    bare.put("labels", pd.DataFrame({"loan_id": ["a"]}), day(5))
    outcome = bare.make("performance", day(5))
    assert not outcome.success
    assert "no version of shelf is deployed yet; materialise its deployment first" in outcome.why
