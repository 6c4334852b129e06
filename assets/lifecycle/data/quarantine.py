"""The asset ``quarantine``: each refused row with its reason, and the number of landed rows by outcome.

Belongs here: the asset and its checks. Does not belong here: the rules for a row (``row_outcomes.py``).
"""

from __future__ import annotations

import dagster as dg
import pandas as pd

from assets.declaration import Model, Table
from assets.lifecycle.data.cleaning import _around
from assets.lifecycle.data.event_days import iso_day
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.lifecycle.data.row_outcomes import REASON, Stale, first_landed, landings, row_outcomes, type_and_refuse
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import WHOLE, InBatches, days_of_window

ONE_FATE = Check(
    name="one_fate",
    description="Every landed row has exactly one outcome: clean, duplicate, quarantined or pending.",
)


REFUSED_SHARE = Check(
    name="refused_share", description="The share of refused rows of this landing is within bounds.", blocking=False
)


def quarantine_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``quarantine``."""
    table = model.table
    around = _around(model, ahead=False)

    def quarantine(context: dg.AssetExecutionContext, raw: InBatches, cleaned: pd.DataFrame) -> StageOutput:
        days = days_in_run(context)
        if table.time is None:
            rows = raw.read()
            accepted, refused = type_and_refuse(rows, table)
            first = first_landed(accepted, table).to_numpy()
            landing = pd.Series(WHOLE, index=rows.index)
            refused_on = pd.Series(WHOLE, index=refused.index)
        else:
            found = landings(raw, table, days, by="landing")
            accepted, refused, first = found.accepted, found.refused, found.first
            rows = raw.read([ROW_ID, LANDING_DAY])
            rows = rows[iso_day(rows[LANDING_DAY]).isin(days)]
            landing, refused_on = iso_day(rows[LANDING_DAY]), iso_day(refused[LANDING_DAY])
        refused = refused.sort_values(ROW_ID)
        outcomes = row_outcomes(
            rows,
            accepted,
            table,
            in_clean=cleaned[ROW_ID],
            in_quarantine=refused[ROW_ID],
            stale=_stale(context, model, days, around),
            first=first,
        )
        outcome_day, refused_on = landing.to_numpy(), refused_on[refused.index]
        check_results, by_day = [], {}
        for day in days:
            account, here = outcomes[outcome_day == day], refused[refused_on == day]
            check_results += _landing_check_results(account, here, table, day)
            by_day[day] = {
                "dagster/partition_row_count": len(here),
                "landed": len(account),
                **_counts(account),
            }
        totals = {"landed": len(outcomes), **_counts(outcomes)}
        return StageOutput(
            refused.reset_index(drop=True),
            check_results,
            {"dagster/row_count": len(refused), **totals},
            {} if days == [WHOLE] else by_day,
        )

    return table_asset(
        model,
        "quarantine",
        quarantine,
        description="Every refused row as it landed, with its reason, by landing day; and the rows by outcome.",
        stage="data",
        kinds={"pandas"},
        inputs={
            "raw": TableInput(model.key(f"raw_{table.name}"), around, in_batches=True),
            "cleaned": TableInput(model.key(table.name), around, columns=(ROW_ID,)),
        },
        checks=[ONE_FATE, REFUSED_SHARE],
        day_column=LANDING_DAY,
        code=[table.contract, table.clean, type_and_refuse, iso_day],
        automation=eager(table.late_days + 1 if model.is_stream else None),
    )


def _stale(context: dg.AssetExecutionContext, model: Model, days: list[str], around: tuple[int, int]) -> Stale:
    """Returns ``(event day, landing day)`` pairs where the cleaned table does not contain that landing yet."""
    if days == [WHOLE]:
        return set()
    tables, raw = context.resources.tables, model.key(f"raw_{model.table.name}")
    pairs = {(event, landing) for landing in days for event in days_of_window(landing, around)}
    # A day that landed again with different rows also counts as not read yet.
    landed = tables.versions(raw, {landing for _, landing in pairs}).items()
    read: dict[str, set[str]] = {}
    for event in {event for event, _ in pairs}:
        stamp = tables.stamp(model.key(model.table.name), event)
        versions = stamp.inputs.get(raw.to_user_string(), {}) if stamp else {}
        read[event] = {landing for landing, _ in versions.items() & landed}
    return {(event, landing) for event, landing in pairs if landing not in read[event]}


def _landing_check_results(account: pd.DataFrame, refused: pd.DataFrame, table: Table, day: str) -> list[CheckResult]:
    """Returns the check results of one landing: each row has exactly one outcome, and few enough were refused."""
    wrong = account.index[account.sum(axis=1) != 1]
    counts = _counts(account)
    share = len(refused) / max(len(account), 1)
    one_fate = CheckResult(
        check=ONE_FATE.name,
        day=None if day == WHOLE else day,
        passed=len(wrong) == 0,
        description=f"{len(account):,} rows landed, each with exactly one outcome"
        if len(wrong) == 0
        else f"{len(wrong)} rows have no outcome or several outcomes, the first is {wrong[0]}; materialise "
        f"{table.name} and quarantine of that day again",
        metadata={"landed": len(account), **counts},
    )
    refused_share = CheckResult(
        check=REFUSED_SHARE.name,
        day=None if day == WHOLE else day,
        passed=share <= table.max_refused,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{share:.2%} of the landed rows were refused (at most {table.max_refused:.0%})",
        metadata={"reasons": {str(reason): int(n) for reason, n in refused[REASON].value_counts().items()}},
    )
    return [one_fate, refused_share]


def _counts(outcomes: pd.DataFrame) -> dict[str, int]:
    """Returns the number of rows by outcome."""
    return {str(outcome): int(outcomes[outcome].sum()) for outcome in outcomes}
