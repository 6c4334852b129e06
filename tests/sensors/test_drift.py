"""Days that were held but not checked are requested; days before the model scored are not."""

import dagster as dg

from assets.models.fraud import model as fraud
from definitions import build_defs
from sensors.drift import drift_sensor, unchecked_days

DEFS = build_defs(models=[fraud])


def test_only_days_after_the_first_scored_one_count():
    held = {f"2026-03-{day:02}" for day in range(1, 10)}
    assert unchecked_days({"2026-03-05", "2026-03-06"}, {"2026-03-05"}, held) == [
        "2026-03-06", "2026-03-07", "2026-03-08", "2026-03-09",
    ]  # fmt: skip


def test_a_model_that_never_scored_has_missed_nothing():
    assert unchecked_days(set(), set(), {"2026-03-01"}) == []


def test_the_tick_requests_each_missed_day_once():
    with dg.DagsterInstance.ephemeral() as instance:
        for name, days in {"features": "123", "predictions": "12", "drift": "1"}.items():
            for day in days:
                event = dg.AssetMaterialization(fraud.key(name), partition=f"2026-03-0{day}")
                instance.report_runless_asset_event(event)
        with dg.build_sensor_context(instance=instance, definitions=DEFS) as context:
            requests = drift_sensor(fraud).evaluate_tick(context).run_requests
    assert [(r.partition_key, r.run_key) for r in requests] == [
        ("2026-03-02", "fraud-drift-2026-03-02"),
        ("2026-03-03", "fraud-drift-2026-03-03"),
    ]
