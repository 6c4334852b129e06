"""The steps of `make run` on a small world, as a command that a test can kill in the middle of any asset.

    ASSETLINE_HOME=<folder> [KILL=<asset>] python -m tests.e2e.small_story

``KILL=<asset>`` ends the process by SIGKILL when the asset's rows are computed and half of them written;
``KILL=fit`` in the middle of the training.
"""

import os
import signal
import sys

from assets.lifecycle.jobs import CLEAN, FEATURES, LABEL, LAND
from assets.models.fraud.simulator import PaymentSimulator
from resources.settings import Settings
from resources.tables import ParquetTables
from runner import alone
from story.playing import Story
from tests.payments import payments_model
from tests.worlds import FIRST, days

LAST, SEEN = 50, 42


def arm(asset: str) -> None:
    """Makes this process die when it gets there."""
    whole = ParquetTables.handle_output

    def dying(self, context, obj):
        if context.asset_key.path[-1] == asset:
            half = self.path(context.asset_key, "half").replace("half.parquet", ".half.tmp")
            os.makedirs(os.path.dirname(half), exist_ok=True)
            obj.iloc[: len(obj) // 2].to_parquet(half)
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, context, obj)

    ParquetTables.handle_output = dying  # type: ignore[method-assign]
    if asset == "fit":
        from assets.lifecycle.model import fitting

        average = fitting._average

        def dying_average(averaged, module, step):
            if step == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            average(averaged, module, step)

        fitting._average = dying_average


def main() -> None:
    model = payments_model(PaymentSimulator(customers=600, terminals=1_200, seed=2))
    with alone(Settings.from_env(), lambda: model) as runner:
        story = Story(runner)
        runner.make(LAND, days(0, LAST))
        runner.make(CLEAN, days(0, LAST - 1))
        runner.make(LABEL, days(0, SEEN))
        runner.make(FEATURES, days(0, LAST - 1))
        result = story.train(days(SEEN, SEEN)[0], "the first model")
        assert result["promoted"], result
        story.live_through(days(LAST, LAST)[0], FIRST)


if __name__ == "__main__":
    if given := os.environ.get("KILL"):
        arm(given)
    sys.exit(main())
