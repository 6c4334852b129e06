"""A small model lives on a bucket: everything that reads or writes tables, by the S3 protocol."""

import datetime as dt
import json
import os
import tarfile
from dataclasses import dataclass, replace
from unittest import mock

import pandas as pd
import pytest

from cli import main
from resources.backup import tables_left_out
from resources.retention import Retention, plan, prune
from resources.tables import ParquetTables
from runner import Runner
from tests.buckets import new_bucket, reached
from tests.declarations.gauges import model
from tests.declarations.readings import START
from tests.serving.processes import Service
from tests.worlds import World, why

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]


@dataclass
class Lived:
    """The world, the days, and the tables by a connection of their own."""

    world: World
    days: list[str]

    @property
    def tables(self) -> ParquetTables:
        return self.world.tables


@pytest.fixture(scope="module")
def lived(make_world, tmp_path_factory):
    """Landed, trained, deployed and scored, with all tables in a bucket."""
    root = f"s3://{new_bucket(versioned=True)}/team"
    with reached(ASSETLINE_TABLES=root):
        world = make_world(model, tmp_path_factory.mktemp("on-a-bucket"))
        assert world.tables.root == root
        days = [str(day.date()) for day in pd.date_range(START, "2026-01-17")]
        for work, until in (("land", 17), ("clean", 17), ("label", 16), ("features", 17)):
            result = world.run(work, days[:until])
            assert result.success, (work, why(result))
        for work, chosen in (("train", []), ("deploy", []), ("daily", days[-2:])):
            result = world.run(work, chosen, **({"training_set": {"as_of": "2026-01-14"}} if work == "train" else {}))
            assert result.success, (work, why(result))
        yield Lived(world, days)


def command(lived, capsys, *arguments: str) -> tuple[int, str]:
    with mock.patch.dict(os.environ, {"ASSETLINE_HOME": str(lived.world.settings.home)}):
        capsys.readouterr()
        code = main(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out + shown.err


def test_the_whole_life_is_in_the_bucket_and_nothing_of_it_in_the_state_folder(lived):
    assert lived.world.ledger.champion("gauge").version == "1"
    stages = {"raw_readings", "readings", "features", "labels", "training_set", "evaluation", "predictions", "drift"}
    assert {f"gauge/{name}" for name in stages} <= set(lived.tables.names())
    assert lived.tables.days(model.key("predictions")) == lived.days[-2:]
    assert not (lived.world.settings.home / "tables").exists()


def test_a_day_that_is_up_to_date_is_not_made_again(lived):
    runner = Runner(model, lived.world.settings, lived.world.instance)
    assert [runner.make(work, lived.days[:16]) for work in ("land", "clean", "features")] == [0, 0, 0]


def test_commands_read_the_bucket(lived, capsys, tmp_path):
    code, said = command(
        lived, capsys, "rows", "--model", "gauge", "--version", "1", "--out", str(tmp_path / "rows.parquet")
    )
    assert code == 0, said
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == len(lived.tables.read(model.key("training_set")))
    code, said = command(lived, capsys, "query", "SELECT day, rows FROM predictions", "--json")
    assert [row["day"] for row in json.loads(said)] == lived.days[-2:]
    code, said = command(lived, capsys, "settings")
    assert [line.split() for line in said.splitlines() if line.startswith("tables ")] == [
        ["tables", lived.tables.root, "ASSETLINE_TABLES"]
    ]


def test_the_service_knows_the_history_of_the_bucket(lived):
    service = Service(lived.world.settings.home, "--bundle", str(lived.world.mlflow.download("gauge", "1")))
    try:
        row = {"reading_id": "1", "read_at": "2026-01-18T00:00:01", "site": "north", "level": "10"}
        answer = service.predict([row], "gauge")
        assert answer.status_code == 200, answer.text
        past = service.health("gauge")["past"]
    finally:
        service.end()
    assert past["rows"] > 0
    assert past["until"] == lived.days[-1]


def test_a_backup_says_that_the_bucket_is_not_in_it(lived, capsys, tmp_path):
    code, said = command(lived, capsys, "backup", str(tmp_path / "state.tar.gz"))
    assert code == 0, said
    assert said.endswith(
        f"Not in this archive: the tables in {lived.tables.root}. The bucket keeps old versions of its objects; those "
        "of this time are the backup.\n"
    )
    with tarfile.open(tmp_path / "state.tar.gz") as archive:
        assert not [name for name in archive.getnames() if name.endswith("gauge/labels")]
    bare = replace(lived.world.settings, tables=f"s3://{new_bucket()}/team")
    assert tables_left_out(bare).endswith("Switch on its versioning: until then they have no backup.")
    missing = replace(lived.world.settings, tables="s3://no-such-bucket/team")
    assert "is unknown: s3://no-such-bucket/team: there is no bucket" in tables_left_out(missing)


def test_old_days_are_removed_from_the_bucket(lived):
    now = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    old = Retention(table_days={"gauge/drift": 100})
    removals = [r for r in plan(lived.world.settings, old, lived.world.instance, now) if r.rule == "tables"]
    assert [(r.what, r.size > 0) for r in removals] == [(f"gauge/drift of {day}", True) for day in lived.days[-2:]]
    prune(lived.world.settings, old, lived.world.instance, now)
    assert lived.tables.days(model.key("drift")) == []
    assert len(lived.tables.days(model.key("predictions"))) == 2
