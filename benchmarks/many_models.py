"""The code location with 1, 20 and 100 models: what it costs to load, beside what `import dagster` alone costs.

Belongs here: the cost by number of models. Does not belong here: the code location of this repository (``load.py``).

A load is what Dagster's code server does: build the definitions, resolve every job, and describe all of it to the UI
and the daemon as one text.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resources.settings import project_root

if TYPE_CHECKING:
    from assets.declaration import Model

NUMBERS = (1, 20, 100)
START = dt.date(2023, 1, 1)
"""First day of every model: three years of days."""


def streams(number: int) -> list[Model]:
    """Declares ``number`` streams, each with a contract, a source, features and late labels of its own."""
    import numpy as np
    import pandas as pd
    import pandera.pandas as pa
    from pandera.typing.pandas import Series

    from assets.declaration import Columns, Features, Model, Table
    from resources.sources import Stream

    class Feed(Stream):
        """Lands nothing: the benchmark never asks."""

        def land(self, day: dt.date) -> pd.DataFrame:
            """See :class:`~resources.sources.Stream`."""
            return pd.DataFrame()

        def land_labels(self, day: dt.date) -> pd.DataFrame:
            """See :class:`~resources.sources.Stream`."""
            return pd.DataFrame()

        def landed_until(self) -> dt.date:
            """See :class:`~resources.sources.Stream`."""
            return START

    def amounts(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        return {"amount": events["amount"][wanted].astype(np.float32)}

    def declared(name: str) -> Model:
        columns = {"row_id_of": int, "paid_at": pd.Timestamp, "customer": str, "amount": float, "country": str}
        contract = type(
            f"Rows_{name}", (pa.DataFrameModel,), {"__annotations__": {key: Series[of] for key, of in columns.items()}}
        )
        return Model(
            name=name,
            table=Table(
                name="payments", source=Feed(), key="row_id_of", contract=contract, time="paid_at", start=START
            ),
            target="is_fraud",
            label_delay_days=7,
            features=Features(compute=amounts, lookback_days=2, names=("amount",), entities=("customer",)),
            retrain="0 6 * * MON",
        )

    return [declared(f"m{n:03d}") for n in range(number)]


def measured(number: int) -> dict[str, float]:
    """Loads a code location of ``number`` models in this process; CPU seconds by part, and the length of its text."""
    parts: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        before = time.process_time()
        result = work()
        parts[name] = time.process_time() - before
        return result

    timed("dagster", lambda: __import__("dagster"))
    timed("project", lambda: __import__("definitions"))
    from dagster._core.remote_representation.external_data import RepositorySnap
    from dagster._serdes import serialize_value

    from definitions import build_defs

    models = timed("declarations", lambda: streams(number))
    defs = timed("definitions", lambda: build_defs(models=models))
    repository = timed("repository", defs.get_repository_def)
    timed("jobs", repository.load_all_definitions)
    snapshot = timed("snapshot", lambda: RepositorySnap.from_def(repository, defer_snapshots=True))
    text = timed("text", lambda: serialize_value(snapshot))
    return {**parts, "megabytes": len(text) / 1e6, "jobs_of_a_model": len(repository.get_all_jobs()) / number}


def fresh(number: int) -> dict[str, float]:
    """:func:`measured` in a process of its own."""
    # Not as `__main__`: code versions are hashes of the modules that declare a source and features.
    program = f"import json\nfrom benchmarks.many_models import measured\nprint(json.dumps(measured({number})))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project_root(), stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> bool:
    """Prints the figures; whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="numbers of models to load")
    given = parser.parse_args()
    totals = {}
    for number in given.numbers:
        parts = fresh(number)
        dagster, project = parts["dagster"], parts["project"]
        load = {name: parts[name] for name in ("declarations", "definitions", "repository", "jobs", "snapshot", "text")}
        totals[number] = sum(load.values())
        print(
            f"{number} models: {totals[number]:.2f} CPU s after the imports ({project + dagster:.2f} s, "
            f"{dagster:.2f} of them `import dagster`), {1e3 * totals[number] / number:.0f} ms a model; "
            + ", ".join(f"{name} {seconds:.2f}" for name, seconds in load.items())
            + f"; {parts['megabytes']:.1f} MB, {parts['jobs_of_a_model']:.0f} jobs a model",
            flush=True,
        )
    return True


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
