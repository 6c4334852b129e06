"""The example in the code location: its jobs, its own assets, and another model beside it. Goes with the example."""

from dataclasses import replace

import dagster as dg

from assets.lifecycle.jobs import assets_of_jobs
from assets.models.fraud import model as fraud
from definitions import build_defs
from tests.declarations.telco import model as telco

defs = build_defs(models=[fraud])


def test_every_job_and_sensor_says_what_it_does():
    for job in fraud_jobs():
        assert job.description
    for sensor in defs.sensors:
        assert sensor.description


def fraud_jobs():
    return [defs.resolve_job_def(f"fraud_{work}") for work in assets_of_jobs(fraud)]


def test_the_jobs_cover_the_lifecycle():
    in_jobs = {key.path[-1] for job in fraud_jobs() for key in job.asset_layer.executable_asset_keys}
    of_fraud = [spec.key for spec in defs.resolve_all_asset_specs() if spec.key.path[0] == fraud.name]
    assert in_jobs == {key.path[-1] for key in of_fraud}


def test_a_declaration_brings_an_asset_of_its_own_in_place_of_a_stages():
    @dg.asset(key=fraud.key("payments"), partitions_def=dg.DailyPartitionsDefinition("2025-06-01"),
              description="Ours.", io_manager_key="tables")  # fmt: skip
    def ours():
        """Never made."""

    @dg.asset(key=fraud.key("chargebacks"), description="Beside the others.", io_manager_key="tables")
    def beside():
        """Never made."""

    made = build_defs(models=[replace(fraud, assets=[ours, beside])])
    specs = {spec.key: spec for spec in made.resolve_all_asset_specs()}
    assert specs[fraud.key("payments")].description == "Ours."
    assert fraud.key("chargebacks") in specs
    assert len(specs) == len(defs.resolve_all_asset_specs()) + 1


def test_two_models_stand_side_by_side():
    both = build_defs(models=[fraud, telco])
    groups = {spec.group_name for spec in both.resolve_all_asset_specs()}
    assert {"fraud/data", "churn/data", "fraud/model", "churn/model"} <= groups
    assert {"fraud_source", "churn_source"} <= set(both.resources)
