"""Model quality at the published size: the ``backtest`` asset on the published calendar, mean of its four test weeks.

Belongs here: landing the published half year into a folder of its own, and holding the backtest to the claims. Does not
belong here: how the weeks are cut or scored.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import dagster as dg

from resources.home import prepare
from resources.settings import Settings

FIRST, AS_OF = dt.date(2018, 4, 1), dt.date(2018, 8, 21)
"""The published data begin on the first; the four published test weeks end on the second."""
OF_CEILING, OF_XGBOOST = 0.975, 0.008
"""Average precision is at least this share of the ceiling's, and at most this much below XGBoost's."""


def main(_: Sequence[str] = ()) -> bool:
    """Prints the mean of the four weeks for each score; whether the claims hold."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings.from_env({"ASSETLINE_HOME": home})
        os.environ["ASSETLINE_HOME"] = home
        prepare(settings)
        from assets.models.fraud import model as declared
        from assets.models.fraud.simulator import PaymentSimulator
        from runner import Runner

        source = PaymentSimulator(compromised_from=FIRST.isoformat())
        model = replace(declared, table=replace(declared.table, start=FIRST, source=source))
        with dg.DagsterInstance.get() as instance:
            runner = Runner(model, settings, instance)
            days = [str(FIRST + dt.timedelta(days=n)) for n in range((AS_OF - FIRST).days + 8)]
            for work, until in (("land", 8), ("clean", 8), ("label", 1), ("features", 1)):
                runner.make(work, days[: (AS_OF - FIRST).days + until])
            config = {"ops": {"fraud__backtest": {"config": {"as_of": AS_OF.isoformat()}}}}
            runner.run("backtest", config=config)
            weeks = runner.tables.read(model.key("backtest"))
    mean = weeks.groupby("score", sort=False)[["roc_auc", "average_precision", "cp_at_k", "brier"]].mean()
    print(f"mean of the {weeks['round'].nunique()} published test weeks, {int(weeks['rows'].sum() / len(mean)):,} rows")
    print(mean.round(4).to_string())
    torch, xgboost, ceiling = (mean.loc[name, "average_precision"] for name in ("torch", "xgboost", "ceiling"))
    print(f"torch / ceiling {torch / ceiling:.4f} (at least {OF_CEILING}); torch − XGBoost {torch - xgboost:+.4f} "
          f"(at least {-OF_XGBOOST})")  # fmt: skip
    return bool(torch >= OF_CEILING * ceiling and torch >= xgboost - OF_XGBOOST)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
