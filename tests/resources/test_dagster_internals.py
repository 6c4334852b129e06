"""What we use of Dagster that is not public, pinned: verdicts by day, what a run planned, removing events."""

import datetime as dt

import dagster as dg
import pytest

from resources.dagster_internals import (
    CheckResult,
    Planned,
    QuietAutomation,
    check_evaluations,
    check_events,
    narrow_job,
    newest_event,
    planned_assets,
    remove_chatter,
    runs_with_current_facts,
    size_of_events,
)

DAYS = dg.DailyPartitionsDefinition("2026-03-01", end_date="2026-03-10")
KEY = dg.AssetKey(["m", "rows"])
SPEC = dg.AssetCheckSpec("sound", asset=KEY, blocking=True, partitions_def=DAYS)


def rows_asset(bad: set[str]) -> dg.AssetsDefinition:
    @dg.asset(key=KEY, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), check_specs=[SPEC])
    def rows(context: dg.AssetExecutionContext):
        yield dg.MaterializeResult()
        check_results = [CheckResult(check="sound", day=day, passed=day not in bad, description=f"of {day}",
                            metadata={"n": 1}) for day in context.partition_keys]  # fmt: skip
        yield from check_events(context, [SPEC], check_results)

    return rows


WINDOW = dg.AutomationCondition.in_latest_time_window(dt.timedelta(days=30))


@dg.asset(
    key=["m", "after"],
    deps=[KEY],
    partitions_def=DAYS,
    automation_condition=dg.AutomationCondition.eager().replace("in_latest_time_window", WINDOW)
    & dg.AutomationCondition.all_deps_blocking_checks_passed(),
)
def after():
    """Follows."""


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def make(instance, first: str, last: str, bad: set[str] = frozenset()):  # type: ignore[assignment]
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = dg.Definitions(assets=[rows_asset(bad)]).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def test_each_day_of_a_run_has_its_own_verdict(instance):
    make(instance, "2026-03-01", "2026-03-03", bad={"2026-03-02"})
    found = check_evaluations(instance)
    assert {e.day: e.passed for e in found} == {"2026-03-01": True, "2026-03-02": False, "2026-03-03": True}
    assert {(e.asset_key, e.check, e.description, e.metadata["n"]) for e in found if e.day == "2026-03-02"} == {
        (KEY, "sound", "of 2026-03-02", 1)
    }


def test_they_are_read_on_from_a_position(instance):
    make(instance, "2026-03-01", "2026-03-02")
    first = check_evaluations(instance, limit=1)
    assert len(first) == 1
    rest = check_evaluations(instance, after=first[0].storage_id)
    assert [e.day for e in (*first, *rest)] == ["2026-03-01", "2026-03-02"]
    assert check_evaluations(instance, after=rest[-1].storage_id) == []


def test_automation_goes_on_with_the_days_that_passed_and_holds_back_the_others(instance):
    defs = dg.Definitions(assets=[rows_asset(set()), after])
    first = dg.evaluate_automation_conditions(defs, instance)
    assert first.total_requested == 0
    make(instance, "2026-03-08", "2026-03-09", bad={"2026-03-08"})
    second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor)
    assert second.get_requested_partitions(after.key) == {"2026-03-09"}


def test_a_table_without_days_has_one_verdict(instance):
    spec = dg.AssetCheckSpec("sound", asset=["m", "whole"])

    @dg.asset(key=spec.asset_key, check_specs=[spec])
    def whole(context: dg.AssetExecutionContext):
        yield dg.MaterializeResult()
        check_result = CheckResult(check="sound", passed=False, severity=dg.AssetCheckSeverity.WARN)
        yield from check_events(context, [spec], [check_result])

    dg.materialize([whole], instance=instance)
    [found] = check_evaluations(instance)
    assert (found.day, found.passed, found.severity) == (None, False, dg.AssetCheckSeverity.WARN)


def test_what_a_run_was_to_make_is_known_by_step_and_day(instance):
    @dg.asset(key=["m", "broken"], deps=[KEY], partitions_def=DAYS)
    def broken():
        raise ValueError("out of cheese")

    tags = {"dagster/asset_partition_range_start": "2026-03-01", "dagster/asset_partition_range_end": "2026-03-02"}
    job = dg.Definitions(assets=[rows_asset(set()), broken]).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    assert not result.success
    expected = [
        Planned(dg.AssetKey(["m", name]), f"2026-03-0{n}", f"m__{name}", made=name == "rows")
        for name in ("rows", "broken")
        for n in (1, 2)
    ]
    assert sorted(planned_assets(instance, result.run_id), key=str) == sorted(expected, key=str)


def test_the_runs_of_the_latest_facts_are_known_and_chatter_goes_without_them(instance):
    first = make(instance, "2026-03-01", "2026-03-02").run_id
    second = make(instance, "2026-03-02", "2026-03-02").run_id
    assert runs_with_current_facts(instance) == {first, second}, "the first made the 1st of March"
    third = make(instance, "2026-03-01", "2026-03-02").run_id
    assert runs_with_current_facts(instance) == {third}
    before, chatter = (size_of_events(instance, third, chatter_only=only) for only in (False, True))
    assert 0 < chatter < before
    remove_chatter(instance, third)
    assert size_of_events(instance, third, chatter_only=True) == 0
    assert size_of_events(instance, third, chatter_only=False) == before - chatter
    assert [e.day for e in check_evaluations(instance) if e.run_id == third] == ["2026-03-01", "2026-03-02"]
    assert {planned.made for planned in planned_assets(instance, third)} == {True}
    assert size_of_events(instance, first, chatter_only=True) > 0, "the events of other runs stay"


def asset_of(name: str, *deps: str, needs: str = "common"):
    @dg.asset(key=["m", name], deps=[["m", dep] for dep in deps], partitions_def=DAYS, required_resource_keys={needs})
    def made():
        """Makes nothing."""

    return made


LINE = [asset_of("landed", needs="source"), asset_of("clean", "landed"), asset_of("scored", "clean")]
AFTER = [dg.AssetKey(["m", "clean"]), dg.AssetKey(["m", "scored"])]


def jobs_of(*others: str) -> dg.Definitions:
    """A narrow job and Dagster's own of the same assets, beside other assets with a resource each."""
    tags = {"why": "a test"}
    return dg.Definitions(
        assets=[*LINE, *(asset_of(name, needs=f"of_{name}") for name in others)],
        jobs=[
            narrow_job("narrow", AFTER, description="Ours.", tags=tags),
            dg.define_asset_job("plain", dg.AssetSelection.assets(*AFTER), description="Ours.", tags=tags),
        ],
        resources={"common": 1, "source": 2, "unused": 3, **{f"of_{name}": 4 for name in others}},
    )


def test_a_narrow_job_is_dagsters_own_with_fewer_resources():
    narrow, plain = (jobs_of("x", "y").resolve_job_def(name) for name in ("narrow", "plain"))
    assert narrow.asset_layer.executable_asset_keys == plain.asset_layer.executable_asset_keys == set(AFTER)
    assert narrow.dependencies == plain.dependencies
    assert narrow.partitions_def == plain.partitions_def == DAYS
    assert (
        (narrow.description, dict(narrow.tags)) == (plain.description, dict(plain.tags)) == ("Ours.", {"why": "a test"})
    )
    assert {"of_x", "of_y", "unused"} <= set(plain.resource_defs)
    assert not {"of_x", "of_y", "unused"} & set(narrow.resource_defs)


def test_a_narrow_job_does_not_depend_on_other_assets(instance):
    alone, beside = (jobs_of(*others).resolve_job_def("narrow") for others in ((), ("x", "y", "z")))
    assert set(alone.resource_defs) == set(beside.resource_defs)
    assert alone.get_job_snapshot_id() == beside.get_job_snapshot_id()
    part = beside.execute_in_process(instance=instance, partition_key="2026-03-02", asset_selection=[AFTER[1]])
    assert [event.step_key for event in part.get_asset_materialization_events()] == ["m__scored"]


UPSTREAM = dg.AssetKey(["m", "landed"])


@dg.asset(key=["m", "follows"], deps=[UPSTREAM], automation_condition=dg.AutomationCondition.eager())
def follows():
    """Follows."""


@dg.asset(key=["n", "other"])
def other():
    """Concerns nobody."""


@dg.asset(key=UPSTREAM)
def landed():
    """Is followed."""


class Ticks:
    """A quiet automation sensor, as a daemon asks it; it keeps the cursor of each tick."""

    def __init__(self, instance):
        self.instance, self.cursor = instance, None
        self.sensor = QuietAutomation("quiet", target=dg.AssetSelection.key_prefixes(["m"]),
                                      at_least_every=dt.timedelta(hours=1))  # fmt: skip
        self.defs = dg.Definitions(assets=[landed, follows, other], sensors=[self.sensor])

    def __call__(self) -> str:
        """What the tick requested or why it skipped."""
        with dg.build_sensor_context(
            instance=self.instance,
            repository_def=self.defs.get_repository_def(),
            cursor=self.cursor,
            sensor_name="quiet",
        ) as context:
            ticked = self.sensor.evaluate_tick(context)
        self.cursor = ticked.cursor
        if ticked.run_requests:
            return ",".join(key.to_user_string() for key in ticked.run_requests[0].asset_selection)
        return "quiet" if "nothing has happened" in (ticked.skip_message or "") else "evaluated"


def test_conditions_are_evaluated_when_something_happens(instance):
    tick = Ticks(instance)
    assert tick() == "evaluated"
    assert [tick(), tick()] == ["quiet", "quiet"]
    instance.report_runless_asset_event(dg.AssetMaterialization(["n", "other"]))
    assert tick() == "quiet", "no event about its assets"
    instance.report_runless_asset_event(dg.AssetMaterialization(UPSTREAM))
    assert tick() == "m/follows"
    assert [tick(), tick()] == ["quiet", "quiet"]


def test_an_end_of_a_run_of_the_assets_is_an_event(instance):
    tick = Ticks(instance)
    assert [tick(), tick()] == ["evaluated", "quiet"]
    run = tick.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(["n", "other"])]
    )
    assert run.success
    assert tick() == "quiet"
    before = newest_event(instance)
    run = tick.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[UPSTREAM]
    )
    keys = [UPSTREAM, dg.AssetKey(["m", "follows"])]
    assert before < newest_event(instance, before, keys) <= newest_event(instance)
    with instance.event_log_storage.index_connection() as connection:
        kind = "dagster_event_type = 'PIPELINE_SUCCESS'"
        end = connection.exec_driver_sql(f"select max(id) from event_logs where {kind}").scalar()
    assert newest_event(instance, before, keys) == end
    assert tick() == "m/follows"


def test_conditions_are_evaluated_again_on_a_new_day_after_an_hour_and_with_another_cursor(instance, monkeypatch):
    tick = Ticks(instance)
    assert [tick(), tick()] == ["evaluated", "quiet"]
    for earlier in (dt.timedelta(days=1), dt.timedelta(hours=1, seconds=1)):
        seen = tick.sensor._evaluated
        tick.sensor._evaluated = type(seen)(seen.event, seen.at - earlier, seen.cursor)
        assert [tick(), tick()] == ["evaluated", "quiet"]
    tick.cursor = None  # Dagster did not keep the cursor
    assert [tick(), tick()] == ["evaluated", "quiet"]
    tick.sensor = Ticks(instance).sensor  # a new process
    assert tick() == "evaluated"
