"""The asset `topics_by_day` on days of a toy stream, its check, and the alerts that it opens."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.build import build
from assets.declaration import DeclarationError, Gate
from assets.surge import Surge
from resources.alerts import Alerts
from resources.dagster_internals import check_evaluations
from sensors.alerts import handle_all
from tests.declarations.readings import START, labelled_stream
from tests.stages import Stages

SITES = {"north": 12, "south": 30}
SURGE = Surge(value="east", column="site", least_days=14)


def model_with(surge: Surge = SURGE, **given):
    return labelled_stream(target="site", gate=Gate(), surge=surge, **given)


def iso(number: int) -> str:
    return str(START + dt.timedelta(days=number))


def put(stages: Stages, number: int, counts: dict[str, int]) -> None:
    """A day of predictions and of the table; as many rows are predicted `east` by topic (here: `faulty`) as is said."""
    said = [("east", topic) for topic, n in counts.items() for _ in range(n)]
    said += [("north", topic) for topic in counts for _ in range(20)]
    at = pd.Timestamp(START) + pd.Timedelta(days=number, hours=9)
    ids = number * 10_000 + np.arange(len(said))
    prediction = pd.array([one for one, _ in said], dtype="string[pyarrow]")
    stages.put("predictions", pd.DataFrame({"reading_id": ids, "read_at": at, "prediction": prediction}), iso(number))
    topics = pd.array([topic for _, topic in said], dtype="string[pyarrow]")
    stages.put("readings", pd.DataFrame({"reading_id": ids, "read_at": at, "site": topics}), iso(number))


@pytest.fixture
def stages(tmp_path):
    """Three quiet weeks, which are counted."""
    made = Stages(model_with(SURGE), tmp_path)
    rng = np.random.default_rng(0)
    for number in range(21):
        put(made, number, {topic: int(rng.poisson(n)) for topic, n in SITES.items()})
    counted = made.make("topics_by_day", iso(0), iso(20))
    assert counted.success, counted.why
    return made


@pytest.mark.closes("topics_by_day", "surge")
def test_a_topic_that_surges_pages_alone_and_resolves(stages, tmp_path):
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'alerts.db'}")
    put(stages, 21, {"north": 48, "south": 29})
    put(stages, 22, {"north": 44, "south": 66})
    put(stages, 23, {"north": 11, "south": 31})
    made = stages.make("topics_by_day", iso(21), iso(23))
    assert made.success, made.why
    first, second, third = (made.check("surge", iso(number)) for number in (21, 22, 23))
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.ERROR
    assert first.description.startswith("north: 48 east, ")
    assert set(second.metadata["columns"].value) == {"north", "south"}
    assert second.metadata["since"].value["north"] == iso(21)
    assert third.passed
    assert third.description == "2 topics as usual"
    found = check_evaluations(stages.instance, after=0)
    before = [one for one in found if (one.day or "") <= iso(22)]
    handle_all(alerts, before, {"meter": "team:x"})
    opened = {alert.column: alert for alert in alerts.store.open_alerts()}
    assert opened["north"].severity == "page"
    assert opened["north"].cause == "topics_by_day/surge"
    assert opened["north"].since_day == iso(21)
    assert opened["north"].runbook == "docs/runbooks/surge.md"
    assert opened["south"].severity == stages_level(stages, 22, "south")
    handle_all(alerts, found[len(before) :], {"meter": "team:x"})
    assert alerts.store.open_alerts() == []


def stages_level(stages: Stages, number: int, topic: str) -> str:
    rows = stages.tables.read(stages.model.key("topics_by_day"), [iso(number)]).set_index("topic")
    return str(rows.loc[topic, "level"])


def test_quiet_days_pass_and_have_shares_with_intervals(stages):
    put(stages, 21, {"north": 12, "south": 30})
    made = stages.make("topics_by_day", iso(21))
    assert made.check("surge", iso(21)).passed
    row = stages.row("topics_by_day", iso(21))
    assert (row["topic"], row["texts"], row["n_east"], row["n_north"]) == ("north", 32, 12, 20)
    assert row["low_east"] < row["share_east"] == 12 / 32 < row["high_east"]
    assert 8 < row["expected"] < 16
    drawn = made.result.asset_materializations_for_node("meter__topics_by_day")[0].metadata["picture"]
    assert drawn.value.startswith("![picture](data:image/png;base64,")


def test_too_short_a_history_says_so_and_does_not_page(tmp_path):
    stages = Stages(model_with(SURGE), tmp_path)
    put(stages, 0, {"north": 500, "south": 1})
    made = stages.make("topics_by_day", iso(0))
    result = made.check("surge", iso(0))
    assert result.passed
    assert result.description.startswith("not judged: 0 of the 14 days of history that the rule needs; materialise")


def test_a_day_without_rows_counts_as_none(stages):
    put(stages, 21, {})
    made = stages.make("topics_by_day", iso(21))
    assert made.success, made.why
    assert made.check("surge", iso(21)).passed
    assert stages.row("topics_by_day", iso(21))["texts"] == 0


@pytest.mark.parametrize(
    ("surge", "message"),
    [
        (Surge(value="east"), "surge.topics='' is invalid: name the model that gives the topic, or the column"),
        (Surge(value="west", column="site"), "surge.value='west' is invalid: name a class of the target: north, "),
        (Surge(value="east", column="place"), "surge.column='place' is invalid: name a column of the contract"),
        (Surge(value="east", topics="meter"), "surge.topics='meter' is invalid: name another model"),
        (Surge(value="east", column="site", weeks=0), "surge.weeks=0 is invalid"),
        (Surge(value="east", column="site", least_days=7), "surge.least_days=7 is invalid: give a whole number from"),
        (Surge(value="east", column="site", warn_p=0.0001), "surge.warn_p=0.0001 is invalid"),
        (Surge(value="east", column="site", least_rise=0.5), "surge.least_rise=0.5 is invalid"),
        (Surge(value="east", column="site", least_rows=0), "surge.least_rows=0 is invalid"),
    ],
)
def test_a_surge_that_cannot_work_is_refused(surge, message):
    with pytest.raises(DeclarationError) as error:
        model_with(surge)
    assert message in str(error.value)


def test_a_surge_needs_days_and_classes():
    with pytest.raises(DeclarationError, match=r"surge.value='east' is invalid: .* a binary target has none"):
        labelled_stream(surge=Surge(value="east", column="site"))


def test_topics_come_from_a_declared_model_of_classes_on_the_same_table():
    def refused(*others, topics="topics"):
        _, broken = build([model_with(Surge(value="east", topics=topics)), *others])
        return broken[0].reason if broken else ""

    table = replace(labelled_stream().table, source=None, of="meter")
    contract = type("Other", (labelled_stream().table.contract,), {})
    topics = labelled_stream(name="topics", target="site", gate=Gate(), table=replace(table, contract=contract))
    assert refused(topics) == ""
    assert "surge.topics='topic' is invalid: no such model is declared; did you mean 'topics'?" in refused(
        topics, topics="topic"
    )
    assert "has a binary target; a topic is one of several classes" in refused(
        labelled_stream(name="topics", table=replace(table, contract=contract))
    )
    assert "'topics' has another table; declare it with Table(of='meter')" in refused(
        labelled_stream(name="topics", target="site", gate=Gate())
    )
