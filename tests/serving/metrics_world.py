"""A state folder in which there is something to measure, for what reads metrics."""

import dagster as dg
import pandas as pd

from assets.models.fraud import model as fraud
from resources.alerts import AlertStore, Route
from resources.ledger import Ledger
from resources.settings import Settings
from resources.tables import ParquetTables

DRIFT, PERFORMANCE = fraud.key("drift"), fraud.key("performance")


@dg.asset(key=DRIFT, check_specs=[dg.AssetCheckSpec("drift", asset=DRIFT)])
def drift_checked():
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(check_name="drift", passed=False, metadata={"effects": {"amount": 0.25}})


@dg.asset(key=PERFORMANCE, check_specs=[dg.AssetCheckSpec("floor", asset=PERFORMANCE)])
def performance_checked():
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(check_name="floor", passed=True, metadata={"trailing_average_precision": 0.7})


def fill(settings: Settings, instance: dg.DagsterInstance) -> AlertStore:
    """Runs, verdicts, two days of predictions, a promotion, a page for a channel `hook`."""
    store = AlertStore(settings.database_url, [Route(channel="hook")])
    store.report("fraud", "drift/drift", severity="page", summary="x")
    Ledger(database_url=settings.database_url).promote("fraud", "3", reason="x", verdicts={}, dagster_run="r", who="w")
    tables = ParquetTables(root=str(settings.tables))
    for day, rows in (("2026-03-01", 5), ("2026-03-02", 7)):
        tables.write(fraud.key("predictions"), pd.DataFrame({"probability": [0.1] * rows}), day)
    dg.materialize([drift_checked, performance_checked], instance=instance)
    return store
