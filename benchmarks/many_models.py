"""The code location with 1, 20 and 100 models: what a load and a tick of automation cost, beside `import dagster`.

Belongs here: the cost by number of models. Does not belong here: the code location of this repository (``load.py``).

A load is what Dagster's code server does: build the definitions, resolve every job, and describe all of it to the UI
and the daemon as one text. A tick asks the automation sensors of all models once.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from resources.settings import project_root

NUMBERS = (1, 20, 100)
PARTS = ("declarations", "definitions", "repository", "jobs", "snapshot", "text")

MOST_GROWTH = 1.6
"""How many times as much a model may cost among many as among a fifth of them. A cost that grows with the square of
their number would be 5 times as much."""
MOST_SECONDS_A_TICK = 1.0
"""CPU seconds of a tick of all automation sensors after one model's day has landed."""


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

    from benchmarks.streams import streams
    from definitions import build_defs

    models = timed("declarations", lambda: streams(number))
    defs = timed("definitions", lambda: build_defs(models=models))
    if broken := [key for asset in defs.assets or () for key in asset.keys if key.path[-1] == "broken"]:
        raise SystemExit(f"{broken[0].path[0]} is broken; see the log")
    repository = timed("repository", defs.get_repository_def)
    timed("jobs", repository.load_all_definitions)
    snapshot = timed("snapshot", lambda: RepositorySnap.from_def(repository, defer_snapshots=True))
    text = timed("text", lambda: serialize_value(snapshot))
    return {**parts, "megabytes": len(text) / 1e6, "number_of_jobs": len(repository.get_all_jobs())}


def ticks(number: int) -> dict[str, float]:
    """CPU seconds of one tick of all automation sensors: the first, one without events, and one after a landing.

    Ten days and all tables without days are there, so that the conditions look at a usual state.
    """
    import dagster as dg

    from benchmarks.streams import streams
    from definitions import build_defs
    from resources.home import prepare
    from resources.settings import Settings

    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ASSETLINE_HOME"] = folder
        os.environ.pop("DAGSTER_HOME", None)
        prepare(Settings.from_env())
        defs = build_defs(models=streams(number))
        sensors = [one for one in defs.sensors or () if one.name.endswith("_automation")]
        cursors: dict[str, str | None] = {}
        today = dt.datetime.now(dt.UTC).date()
        days = [str(today - dt.timedelta(days=ago)) for ago in range(10, 0, -1)]
        with dg.DagsterInstance.get() as instance:
            for spec in defs.resolve_all_asset_specs():
                for day in days if spec.partitions_def else [None]:
                    instance.report_runless_asset_event(dg.AssetMaterialization(spec.key, partition=day))

            def tick() -> float:
                before = time.process_time()
                for sensor in sensors:
                    cursor = cursors.get(sensor.name)
                    with dg.build_sensor_context(instance=instance, definitions=defs, cursor=cursor) as context:
                        cursors[sensor.name] = sensor.evaluate_tick(context).cursor
                return time.process_time() - before

            first, _ = tick(), tick()  # the second one remembers which assets each sensor concerns
            quiet = tick()
            landed = dg.AssetMaterialization(["m000", "raw_payments"], partition=days[-1])
            instance.report_runless_asset_event(landed)
            return {"first": first, "quiet": quiet, "landed": tick()}


def fresh(what: str, number: int) -> dict[str, float]:
    """:func:`measured` or :func:`ticks` in a process of its own."""
    # Not as `__main__`: code versions are hashes of the modules that declare a source and features.
    program = f"import json\nfrom benchmarks.many_models import {what}\nprint(json.dumps({what}({number})))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project_root(), stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> bool:
    """Prints the figures; whether the claims hold."""
    parser = argparse.ArgumentParser(description="What many models cost.")
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="numbers of models")
    numbers = sorted(parser.parse_args().numbers)
    each, most = {}, 0.0
    for number in numbers:
        parts = fresh("measured", number)
        load = sum(parts[name] for name in PARTS)
        each[number] = load / number
        print(
            f"{number} models: {load:.2f} CPU s after the imports ({parts['project'] + parts['dagster']:.2f} s), "
            f"{1e3 * load / number:.0f} ms a model; `import dagster` takes {parts['dagster']:.2f} s; "
            + ", ".join(f"{name} {parts[name]:.2f}" for name in PARTS)
            + f"; {parts['megabytes']:.1f} MB, {parts['number_of_jobs']:.0f} jobs",
            flush=True,
        )
        tick = fresh("ticks", number)
        most = max(most, tick["landed"])
        print(
            f"  a tick of all automation sensors: {tick['quiet']:.3f} CPU s without events, {tick['landed']:.3f} after "
            f"the landing of one model, {tick['first']:.3f} if all conditions are evaluated",
            flush=True,
        )
    compared = [number for number in numbers if number >= 20]
    growth = each[compared[-1]] / each[compared[0]] if len(compared) > 1 else 1.0
    print(
        f"growth of the load of a model: {growth:.2f} (at most {MOST_GROWTH}); a tick at most {MOST_SECONDS_A_TICK} s"
    )
    return growth <= MOST_GROWTH and most <= MOST_SECONDS_A_TICK


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
