"""Features of shards are those of the whole lookback, bit for bit; where something is wrong, nothing is written."""

import datetime as dt
import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from assets.declaration import Columns, DeclarationError, Features, Model
from assets.lifecycle.data import features as of_days
from assets.lifecycle.data import lookback
from assets.lifecycle.data.features import features_of_days
from assets.lifecycle.data.lookback import shard_of
from resources.tables import InBatches, ParquetTables, days_of_window
from tests.declarations.readings import stream
from tests.stages import Stages

LAST = "2026-01-12"
DAY = np.timedelta64(1, "D")


def of_sites(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Earlier readings of the site in two days."""
    at, site = events["read_at"], events["site"]
    own = at[wanted][:, None]
    seen = (site == site[wanted][:, None]) & (at < own) & (at >= own - 2 * DAY)
    return {"seen": seen.sum(axis=1)}


def of_levels(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """Known faults of readings of the same level."""
    at, level, label = events["read_at"], events["level"], events["label"]
    faults = (level == level[wanted][:, None]) & (at <= at[wanted][:, None] - 7 * DAY) & (label == 1)
    return {"faults": faults.sum(axis=1).astype(np.float64)}


def joined(own: Columns, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    both = values["faults"] / (1 + values["seen"])
    made = {"level": own["level"], "seen": values["seen"], "both": both}
    return {name: of_name.astype(np.float32) for name, of_name in made.items()}


def whole(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    own = {name: events[name][wanted] for name in ("read_at", "site", "level")}
    return joined(own, of_sites(events, wanted) | of_levels(events, wanted))


FEATURES = Features(
    compute=whole,
    lookback_days=9,
    names=("level", "seen", "both"),
    entities=("site", "level"),
    reads=("read_at", "site", "level"),
    parts={"site": of_sites, "level": of_levels},
    join=joined,
)


def model_of(**replaced: object) -> Model:
    return stream(features=replace(FEATURES, **replaced))


def put(stages: Stages, seed: int) -> None:
    """Ten days of readings with text, times and few levels; labels of the days that have them, some rows without."""
    rng = np.random.default_rng(seed)
    for n, day in enumerate(days_of_window(LAST, (-9, 0))):
        rows = int(rng.integers(5, 40))
        frame = pd.DataFrame({
            "reading_id": n * 1_000 + rng.permutation(rows),
            "read_at": pd.Timestamp(day) + pd.to_timedelta(rng.integers(0, 86_400, rows), "s"),
            "site": pd.array(rng.choice(["north", "south", "east"], rows), dtype="string[pyarrow]"),
            "level": rng.integers(0, 6, rows).astype(float),
        })  # fmt: skip
        stages.put("readings", frame, day)
        if n < 3:
            known = frame[["reading_id"]].assign(faulty=rng.integers(0, 2, rows).astype(np.int8))
            stages.put("labels", known.sample(frac=1 - 0.2 * (n == 1), random_state=seed), day)


def inputs(stages: Stages) -> tuple[InBatches, InBatches]:
    tables, model = stages.tables, stages.model
    return tuple(
        InBatches(tables, model.key(name), tuple(tables.days(model.key(name)))) for name in ("readings", "labels")
    )


@pytest.fixture
def in_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_days, "ROWS_AT_ONCE", 30)


@pytest.mark.parametrize("seed", range(20))
def test_features_of_shards_are_those_of_the_whole_lookback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    stages = Stages(model_of(), tmp_path)
    put(stages, seed)
    days = days_of_window(LAST, (-int(seed % 3), 0))
    at_once = features_of_days(stages.model, *inputs(stages), days)
    for rows in (17, 60):
        monkeypatch.setattr(of_days, "ROWS_AT_ONCE", rows)
        in_parts = features_of_days(stages.model, *inputs(stages), days)
        assert in_parts.values.tobytes() == at_once.values.tobytes()
        pd.testing.assert_frame_equal(in_parts.carried, at_once.carried)
        assert in_parts.seeing == at_once.seeing
    assert len(np.unique(at_once.values[:, 2])) > 1, "labels count"


def test_the_asset_writes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(model_of(), tmp_path)
    put(stages, 1)
    key = stages.model.key("features")
    assert stages.make("features", LAST).success
    before = stages.tables.existing_stamp(key, LAST)
    monkeypatch.setattr(of_days, "ROWS_AT_ONCE", 20)
    assert stages.make("features", LAST).success
    assert stages.tables.existing_stamp(key, LAST).data_version == before.data_version


def test_a_part_that_uses_rows_of_other_entities_writes_nothing(tmp_path: Path, in_shards: None) -> None:
    def of_all(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        at = events["read_at"]
        return {"seen": (at < at[wanted][:, None]).sum(axis=1)}

    def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        own = {name: events[name][wanted] for name in ("read_at", "site", "level")}
        return joined(own, of_all(events, wanted) | of_levels(events, wanted))

    stages = Stages(model_of(compute=compute, parts={"site": of_all, "level": of_levels}), tmp_path)
    put(stages, 2)
    made = stages.make("features", LAST)
    assert not made.success
    assert "`parts` and `join` of the features give other values than `compute` for seen" in made.why
    assert not stages.has("features", LAST)


def test_who_sees_the_future_is_found_in_shards_too(tmp_path: Path, in_shards: None) -> None:
    def peeking(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        at, site = events["read_at"], events["site"]
        return {"seen": ((site == site[wanted][:, None]) & (at > at[wanted][:, None])).sum(axis=1)}

    def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        own = {name: events[name][wanted] for name in ("read_at", "site", "level")}
        return joined(own, peeking(events, wanted) | of_levels(events, wanted))

    stages = Stages(model_of(compute=compute, parts={"site": peeking, "level": of_levels}), tmp_path)
    put(stages, 3)
    made = stages.make("features", LAST)
    assert not made.success
    assert "seen, both changed when rows after" in made.why or "seen changed when rows after" in made.why
    assert not stages.has("features", LAST)


def test_a_full_disk_is_one_sentence_and_leaves_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_shards: None
) -> None:
    stages = Stages(model_of(), tmp_path)
    put(stages, 4)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(lookback.tempfile, "tempdir", str(scratch))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(lookback._Writers, "write", full)
        made = stages.make("features", LAST)
    assert not made.success
    assert "has no space for the events of 10 days that the features look back at" in made.why
    assert "set TMPDIR" in made.why
    assert not stages.has("features", LAST)
    assert list(scratch.glob("assetline-lookback-*")) == [], "the shards are gone"
    assert stages.make("features", LAST).success, "the same command again"


def test_a_column_that_some_days_hold_as_another_type_is_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_shards: None
) -> None:
    stages = Stages(model_of(), tmp_path)
    put(stages, 5)
    key, day = stages.model.key("readings"), days_of_window(LAST, (-4, 0))[0]
    frame = stages.tables.read(key, [day])
    stages.tables.write(key, frame.assign(level=frame["level"].astype("int64")), day)
    in_parts = features_of_days(stages.model, *inputs(stages), [LAST])
    monkeypatch.setattr(of_days, "ROWS_AT_ONCE", 10_000)
    assert in_parts.values.tobytes() == features_of_days(stages.model, *inputs(stages), [LAST]).values.tobytes()


def test_equal_entities_are_in_one_shard() -> None:
    for values in (np.arange(1_000) % 100, np.array([f"site {n % 100}" for n in range(1_000)], dtype=object)):
        shards = shard_of(values, 7)
        assert pd.Series(shards).groupby(values).nunique().max() == 1
        assert len(np.unique(shards)) == 7


def test_the_schema_of_days_is_that_of_their_rows_together(tmp_path: Path) -> None:
    tables = ParquetTables(root=str(tmp_path))
    key = stream().key("readings")
    tables.write(key, pd.DataFrame({"a": [1], "b": ["x"]}), "2026-01-01")
    tables.write(key, pd.DataFrame({"a": [1.5], "c": [dt.datetime(2026, 1, 1)]}), "2026-01-02")
    schema = tables.arrow_schema(key, ["2026-01-01", "2026-01-02"])
    assert (schema.field("a").type, schema.names) == (pa.float64(), ["a", "b", "c"])
    frame = InBatches(tables, key, ("2026-01-01", "2026-01-02")).read_as(schema, "2026-01-02")
    assert frame["b"].isna().all()


@pytest.mark.parametrize(
    ("replaced", "field"),
    [
        ({"reads": ("nothing",)}, "features.reads='nothing'"),
        ({"parts": {"site": of_sites}}, "features.parts=('site',)"),
        ({"join": None}, "features.join=None"),
        ({"parts": {}}, "features.join"),
    ],
)
def test_parts_that_cannot_work_are_refused(replaced: dict[str, object], field: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        model_of(**replaced)
    assert field in str(refused.value)
