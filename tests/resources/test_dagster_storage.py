"""Dagster's stores with one engine a process: the same events and answers as the classes they come from, and faster."""

import inspect
import os
import sqlite3
import threading

import dagster as dg
import pytest
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage

from resources.dagster_storage import EventLog, Runs, Schedules
from resources.settings import project_root

DAYS = dg.DailyPartitionsDefinition("2026-03-01", end_date="2026-03-21")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), code_version="1")
def rows(context: dg.AssetExecutionContext):
    return dg.MaterializeResult(metadata={"rows": 3}, tags={"of": "test"})


@dg.asset_check(asset=rows)
def sound():
    return dg.AssetCheckResult(passed=True, metadata={"n": 1})


DEFS = dg.Definitions(assets=[rows], asset_checks=[sound])
OURS = """
event_log_storage: {module: resources.dagster_storage, class: EventLog, config: {base_dir: HOME}}
run_storage: {module: resources.dagster_storage, class: Runs, config: {base_dir: HOME}}
schedule_storage: {module: resources.dagster_storage, class: Schedules, config: {base_dir: HOME}}
"""
DAGSTERS = """
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: HOME}
run_storage: {module: dagster._core.storage.runs, class: SqliteRunStorage, config: {base_dir: HOME}}
schedule_storage: {module: dagster._core.storage.schedules, class: SqliteScheduleStorage, config: {base_dir: HOME}}
"""


def instance_in(folder, config: str) -> dg.DagsterInstance:
    folder.mkdir()
    (folder / "dagster.yaml").write_text(config.replace("HOME", str(folder)) + "telemetry: {enabled: false}\n")
    return dg.DagsterInstance.from_config(str(folder))


@pytest.fixture
def ours(tmp_path):
    with instance_in(tmp_path / "ours", OURS) as instance:
        yield instance


def make(instance: dg.DagsterInstance):
    tags = {"dagster/asset_partition_range_start": "2026-03-01", "dagster/asset_partition_range_end": "2026-03-05"}
    return DEFS.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, tags=tags)


def what_is_stored(instance: dg.DagsterInstance, run_id: str) -> dict:
    events = [entry.dagster_event.event_type_value for entry in instance.all_logs(run_id) if entry.is_dagster_event]
    found = instance.fetch_materializations(rows.key, limit=50).records
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key([next(iter(sound.check_keys))])
    return {
        "events": events,
        "days": sorted(record.partition_key for record in found),
        "tags": {record.asset_materialization.tags["of"] for record in found},
        "materialized": instance.get_materialized_partitions(rows.key),
        "asset": instance.get_asset_keys(),
        "check": [record.status.value for record in checks.values()],
        "run": instance.get_run_by_id(run_id).status,
    }


@pytest.mark.parametrize("at_once", ["0", "500"])
def test_the_same_is_stored_as_by_dagsters_own_classes(tmp_path, ours, monkeypatch, at_once):
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", at_once)
    with instance_in(tmp_path / "dagsters", DAGSTERS) as theirs:
        expected = what_is_stored(theirs, make(theirs).run_id)
    assert what_is_stored(ours, make(ours).run_id) == expected


def test_what_one_wrote_the_other_reads(tmp_path, ours):
    run = make(ours).run_id
    expected = what_is_stored(ours, run)
    (tmp_path / "ours" / "dagster.yaml").write_text(DAGSTERS.replace("HOME", str(tmp_path / "ours")))
    with dg.DagsterInstance.from_config(str(tmp_path / "ours")) as theirs:
        assert what_is_stored(theirs, run) == expected


def test_an_event_that_cannot_be_stored_whole_is_not_stored_at_all(ours, monkeypatch):
    """The event, the asset's latest state and the check's are one transaction."""

    def fails(*_):
        raise sqlite3.OperationalError("disk full")

    before = len(ours.fetch_materializations(rows.key, limit=50).records)
    monkeypatch.setattr(EventLog, "_store_asset_event", fails)
    with pytest.raises(Exception, match="disk full"):
        ours.report_runless_asset_event(dg.AssetMaterialization(rows.key, partition="2026-03-07"))
    assert len(ours.fetch_materializations(rows.key, limit=50).records) == before


def test_threads_do_not_share_a_transaction(ours):
    """One thread that stores a batch does not lend its connection to another."""
    log = ours.event_log_storage
    seen = {}

    def look():
        with log.index_connection() as connection:
            seen["other"] = connection

    with log._one_transaction():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(120)
        with log.index_connection() as mine:
            assert mine is not seen["other"]
            with log.index_connection() as again:
                assert again is mine


def test_a_forked_child_opens_connections_of_its_own(ours):
    run = make(ours).run_id
    child = os.fork()
    if child == 0:
        found = ours.get_run_by_id(run) is not None and len(ours.all_logs(run)) > 0
        os._exit(0 if found else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ours.get_run_by_id(run) is not None


@pytest.mark.parametrize(
    ("mine", "theirs", "methods"),
    [
        (EventLog, ConsolidatedSqliteEventLogStorage,
         ["_connect", "store_event", "store_event_batch", "has_table", "_has_asset_key_col_on_connection", "dispose"]),
        (Runs, SqliteRunStorage, ["connect", "dispose"]),
        (Schedules, SqliteScheduleStorage, ["connect", "dispose"]),
    ],
)  # fmt: skip
def test_what_is_replaced_is_still_there_to_be_replaced(mine, theirs, methods):
    for name in methods:
        assert name in vars(mine)
        replaced, original = (inspect.signature(getattr(cls, name)) for cls in (mine, theirs))
        assert list(replaced.parameters) == list(original.parameters), name


def test_the_instance_of_the_project_uses_them():
    config = (project_root() / "deploy" / "dagster.yaml").read_text()
    for cls in (EventLog, Runs, Schedules):
        assert f"module: {cls.__module__}\n  class: {cls.__name__}\n" in config
