"""The code location: it loads fast, everything in it says what it is, and a fork can replace any part."""

import datetime as dt
import subprocess
import sys
from dataclasses import replace

import dagster as dg
import pytest

from assets.build import build
from assets.models import read_folders
from assets.models.fraud import model as fraud
from definitions import build_defs, defs
from resources.settings import project_root
from tests.declarations.telco import model as telco

HEAVY = ("torch", "mlflow", "evidently", "dagster_mlflow", "xgboost", "sklearn", "matplotlib", "scipy", "optuna")


def test_it_can_be_loaded():
    dg.Definitions.validate_loadable(defs)
    dg.Definitions.validate_loadable(build_defs(models=[telco]))


def test_streams_that_start_on_other_days_load_together():
    later = replace(fraud, name="later", table=replace(fraud.table, start=dt.date(2026, 2, 2)))
    dg.Definitions.validate_loadable(build_defs(models=[fraud, later, telco]))


def test_no_model_is_broken():
    models, broken = read_folders()
    assert broken == []
    assert build(models)[1] == []


def test_it_imports_nothing_heavy():
    """What it costs is measured by `make bench`."""
    code = f"import sys, definitions; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


SPECS = sorted(
    [*defs.resolve_all_asset_specs(), *build_defs(models=[telco]).resolve_all_asset_specs()], key=lambda spec: spec.key
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key.to_user_string())
def test_every_asset_says_what_it_is(spec):
    assert spec.description
    assert spec.owners
    assert spec.kinds
    assert spec.group_name.startswith(f"{spec.key.path[0]}/")
    assert spec.code_version


def test_a_table_may_stand_on_any_asset_of_the_graph():
    @dg.asset(key=["warehouse", "customers"], io_manager_key="tables")
    def customers():
        """Never made."""

    table = replace(telco.table, source=dg.AssetKey(["warehouse", "customers"]))
    made = build_defs(models=[replace(telco, table=table, assets=[customers])])
    raw = made.get_assets_def(telco.key("raw_customers"))
    assert dg.AssetKey(["warehouse", "customers"]) in raw.dependency_keys
    assert "churn_source" not in made.resources


def test_the_jobs_of_a_model_are_the_same_beside_other_models():
    """Otherwise the cost of a load grows with the square of the number of models."""
    others = [replace(telco, name=f"other{number}") for number in range(3)]
    alone, beside = build_defs(models=[telco]), build_defs(models=[telco, *others])
    for job in alone.jobs or ():
        if job.name.startswith("churn_"):
            jobs = [made.resolve_job_def(job.name) for made in (alone, beside)]
            assert jobs[0].get_job_snapshot_id() == jobs[1].get_job_snapshot_id(), job.name
            assert not {f"{other.name}_source" for other in others} & set(jobs[1].resource_defs)


@pytest.mark.parametrize("executor", [None, dg.multiprocess_executor], ids=["default", "processes"])
def test_the_executor_of_all_jobs_is_set_in_one_place(executor):
    made = build_defs(models=[telco], executor=executor) if executor else build_defs(models=[telco])
    jobs = [made.resolve_job_def(job.name) for job in made.jobs or () if job.name.startswith("churn_")]
    assert len(jobs) >= 4
    assert {job.executor_def.name for job in jobs} == {(executor or dg.in_process_executor).name}
