"""The asset of the cleaned table: typed, deduplicated and validated rows by event day.

Belongs here: the asset and its check. Does not belong here: the rules for a row (``row_outcomes.py``), refused rows
(``quarantine.py``).
"""

from __future__ import annotations

import dagster as dg
import pandas as pd

from assets.declaration import Model, Table
from assets.lifecycle.data.event_days import event_day, in_order, iso_day
from assets.lifecycle.data.landing import LANDING_DAY
from assets.lifecycle.data.row_outcomes import REASON, first_landed, landings, type_and_refuse
from assets.lifecycle.stage import Check, StageOutput, TableInput, daily_freshness, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import InBatches

CONTRACT = Check(name="contract", description="Every row meets the contract, and few enough rows were refused.")


# -- assets ----------------------------------------------------------------------------------------------------------


def cleaned_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset of the cleaned table."""
    table = model.table

    def clean(context: dg.AssetExecutionContext, raw: InBatches) -> StageOutput:
        days = days_in_run(context)
        if table.time is None:
            landed = raw.read()
            accepted, refused = type_and_refuse(landed, table)
            rows = in_order(accepted[first_landed(accepted, table)], table)
            check_results = [_contract_check_result(rows, table, None, len(landed), refused)]
            return StageOutput(rows, check_results, {"dagster/row_count": len(rows)})
        found = landings(raw, table, days, by="event")
        rows = in_order(found.accepted[found.first], table)
        of_day = dict(iter(rows.groupby(event_day(rows, table), sort=False)))
        refused_day = iso_day(found.refused[LANDING_DAY])
        check_results = [
            _contract_check_result(
                of_day.get(d, rows.iloc[:0]), table, d, found.landed.get(d, 0), found.refused[refused_day == d]
            )
            for d in days
        ]
        by_day = {d: {"dagster/partition_row_count": len(of_day.get(d, ()))} for d in days}
        return StageOutput(rows, check_results, {"dagster/row_count": len(rows)}, by_day)

    return table_asset(
        model,
        table.name,
        clean,
        description=f"{table.name}, typed, deduplicated and checked against the contract, by event day.",
        stage="data",
        kinds={"pandas", "pandera"},
        inputs={"raw": TableInput(model.key(f"raw_{table.name}"), _around(model, ahead=True), in_batches=True)},
        checks=[CONTRACT],
        day_column=table.time,
        code=[table.contract, table.clean, type_and_refuse, event_day],
        automation=eager(table.late_days + 1 if model.is_stream else None),
        freshness=daily_freshness(model),
    )


def _around(model: Model, ahead: bool) -> tuple[int, int]:
    late = model.table.late_days if model.is_stream else 0
    return (-late, late if ahead else 0)


def _contract_check_result(
    rows: pd.DataFrame, table: Table, day: str | None, landed: int, refused: pd.DataFrame
) -> CheckResult:
    quiet = table.quiet_days and not landed
    share = len(refused) / landed if landed else 0.0 if quiet else 1.0
    reasons = {str(k): int(v) for k, v in refused[REASON].value_counts().head(10).items()}
    passed = (len(rows) > 0 or quiet) and share <= table.max_refused
    if passed:
        message = f"{len(rows):,} rows meet the contract; {len(refused)} of {landed:,} landed rows were refused"
    else:
        worst = next(iter(reasons), "no rows landed")
        message = (
            f"{day or 'the whole table'}: {share:.1%} of the landed rows were refused (at most "
            f"{table.max_refused:.0%}), mostly for '{worst}'; fix the upstream, or the contract if the upstream "
            "is right, and materialise again"
        )
    return CheckResult(
        check=CONTRACT.name,
        day=day,
        passed=passed,
        description=message,
        metadata={"rows": len(rows), "refused": len(refused), "reasons": reasons},
    )
