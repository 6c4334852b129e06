"""Files are replaced whole, say what they were made of, and are the same bytes alone and in a range."""

import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from resources.tables import WHOLE, ParquetTables, TableError, inputs_of

KEY = dg.AssetKey(["m", "events"])
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


@pytest.fixture
def tables(tmp_path: Path) -> ParquetTables:
    return ParquetTables(root=str(tmp_path))


def frame(day: str = DAYS[0], n: int = 50) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "at": pd.Timestamp(day) + pd.to_timedelta(np.arange(n), unit="s"),
            "value": np.arange(n) / 3,
            "name": pd.array([None if i % 7 == 0 else f"é{i}" for i in range(n)], dtype="string[pyarrow]"),
        }
    )


def test_a_part_without_columns_still_has_its_rows(tables: ParquetTables) -> None:
    tables.write(KEY, frame())
    assert [len(batch) for batch in tables.batches(KEY, columns=[], rows=30)] == [30, 20]
    assert len(tables.read(KEY, columns=[])) == 50


def test_what_is_written_is_read(tables: ParquetTables) -> None:
    tables.write(KEY, frame())
    pd.testing.assert_frame_equal(tables.read(KEY), frame(), check_dtype=False)
    assert tables.read(KEY)["name"].dtype == "string[pyarrow]"


def test_data_version_is_of_the_rows_alone(tables: ParquetTables) -> None:
    first = tables.write(KEY, frame(), DAYS[0], code_version="a", inputs={"x": {"d": "1"}})
    again = tables.write(KEY, pd.concat([frame(), frame()]).iloc[:50], DAYS[1], code_version="b")
    other = tables.write(KEY, frame().assign(value=1.0), DAYS[2])
    retyped = tables.write(KEY, frame().astype({"value": "float32"}), DAYS[2])
    assert first.data_version == again.data_version
    assert len({first.data_version, other.data_version, retyped.data_version}) == 3
    assert tables.stamp(KEY, DAYS[0]) == first
    assert first.inputs == {"x": {"d": "1"}}


def test_a_damaged_file_is_named_with_its_mend(tables: ParquetTables) -> None:
    tables.write(KEY, frame(), DAYS[0])
    path = Path(tables.path(KEY, DAYS[0]))
    path.write_bytes(path.read_bytes()[:200])
    for look in (lambda: tables.read(KEY, [DAYS[0]]), lambda: tables.stamp(KEY, DAYS[0])):
        with pytest.raises(
            TableError, match=r"2026-01-01.parquet is damaged .* materialise m/events of 2026-01-01 again"
        ):
            look()


def test_an_absent_day_is_named(tables: ParquetTables) -> None:
    tables.write(KEY, frame(), DAYS[0])
    with pytest.raises(TableError, match="m/events: there is no file for 2026-01-02"):
        tables.read(KEY, DAYS[:2])
    with pytest.raises(TableError, match="nothing to read yet"):
        tables.read(dg.AssetKey(["m", "none"]))


def test_a_kill_in_the_middle_leaves_the_old_file_or_the_new_one(tables: ParquetTables) -> None:
    script = (
        "import sys, dagster as dg, numpy as np, pandas as pd\n"
        "from resources.tables import ParquetTables\n"
        "tables = ParquetTables(root=sys.argv[1]); n = 0\n"
        "while True:\n"
        "    n += 1; tables.write(dg.AssetKey(['m', 'events']), pd.DataFrame({'n': np.full(300_000, n)}))\n"
        "    print(n, flush=True)\n"
    )
    for wait in (0.0, 0.004, 0.013):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, tables.root], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(wait)
        writer.kill()
        writer.communicate()
        rows = tables.read(KEY)["n"]
        assert len(rows) == 300_000
        assert rows.nunique() == 1
    assert tables.days(KEY) == [WHOLE]


def test_inputs_are_the_versions_within_the_window() -> None:
    versions = {"up": {day: f"v{n}" for n, day in enumerate(DAYS)}, "whole": {WHOLE: "w"}}
    read = inputs_of({"up": (-1, 0), "whole": (0, 0)}, versions, DAYS[1])
    assert read == {"up": {DAYS[0]: "v0", DAYS[1]: "v1"}, "whole": {WHOLE: "w"}}


# -- the IO manager --------------------------------------------------------------------------------------------------

PARTITIONS = dg.DailyPartitionsDefinition(DAYS[0])


def days_of_run(context: dg.AssetExecutionContext) -> list[str]:
    return list(context.partition_keys)


@dg.asset(
    key=KEY,
    partitions_def=PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"day_column": "at"},
    code_version="1",
)
def events(context: dg.AssetExecutionContext):
    return dg.MaterializeResult(value=pd.concat([frame(day) for day in days_of_run(context)], ignore_index=True))


@dg.asset(
    key=["m", "sums"],
    partitions_def=PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"day_column": "at"},
    ins={
        "rows": dg.AssetIn(
            KEY,
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-1, end_offset=0, allow_nonexistent_upstream_partitions=True
            ),
            metadata={"window": [-1, 0]},
        )
    },
)
def sums(context: dg.AssetExecutionContext, rows: pd.DataFrame):
    kept = rows[rows["at"].dt.strftime("%Y-%m-%d").isin(days_of_run(context))]
    return dg.MaterializeResult(value=kept.reset_index(drop=True))


def run(tables: ParquetTables, *days: str) -> None:
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    assert dg.materialize([events, sums], resources={"io_manager": tables}, tags=tags).success


def test_a_range_and_each_day_alone_are_the_same_bytes(tmp_path: Path) -> None:
    together, alone = ParquetTables(root=str(tmp_path / "a")), ParquetTables(root=str(tmp_path / "b"))
    run(together, *DAYS)
    for day in DAYS:
        run(alone, day)
    for key in (KEY, dg.AssetKey(["m", "sums"])):
        for day in DAYS:
            assert Path(together.path(key, day)).read_bytes() == Path(alone.path(key, day)).read_bytes()
    inputs = together.stamp(dg.AssetKey(["m", "sums"]), DAYS[1]).inputs
    assert set(inputs["m/events"]) == set(DAYS[:2])


def test_a_row_of_another_day_is_refused_and_nothing_is_written(tables: ParquetTables) -> None:
    @dg.asset(partitions_def=PARTITIONS, metadata={"day_column": "at"})
    def stray():
        return frame(DAYS[1])

    result = dg.materialize([stray], resources={"io_manager": tables}, partition_key=DAYS[0], raise_on_error=False)
    assert not result.success
    assert tables.days(dg.AssetKey("stray")) == []


def test_a_row_without_a_day_is_refused_and_nothing_is_written(tables: ParquetTables) -> None:
    @dg.asset(partitions_def=PARTITIONS, metadata={"day_column": "at"})
    def lost():
        return pd.concat([frame(DAYS[0]), frame(DAYS[0]).assign(at=pd.NaT)], ignore_index=True)

    result = dg.materialize([lost], resources={"io_manager": tables}, partition_key=DAYS[0], raise_on_error=False)
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "rows have no 'at'" in str(failure.step_failure_data.error)
    assert tables.days(dg.AssetKey("lost")) == []


def test_a_stamp_is_read_again_when_the_file_is_another(tables: ParquetTables) -> None:
    first = tables.write(KEY, frame(DAYS[0]), DAYS[0])
    assert tables.stamp(KEY, DAYS[0]) == first
    other = tables.write(KEY, frame(DAYS[0]).assign(n=7), DAYS[0])
    assert tables.stamp(KEY, DAYS[0]) == other != first
    Path(tables.path(KEY, DAYS[0])).unlink()
    assert tables.stamp(KEY, DAYS[0]) is None
