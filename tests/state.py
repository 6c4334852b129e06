"""A small state folder in which everything is there that a backup keeps: no model is trained for it."""

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from tests.declarations.readings import plain, readings
from tests.worlds import QUIET, World

DAYS = ["2026-03-01", "2026-03-02", "2026-03-03"]
MODEL = plain()


def small_state(make_world: Any, folder: Path, bundle: Path) -> World:
    """Three days of a table, version 1 in MLflow, promoted by a run of Dagster, and one open alert."""
    world = make_world(MODEL, folder)
    for day in DAYS:
        world.tables.write(MODEL.key("readings"), readings(20, dt.date.fromisoformat(day)), day)
    version = new_version(world, bundle)
    run = run_of(world, "deploying")
    world.ledger.promote(MODEL.name, version, reason="meets the floor", verdicts={}, dagster_run=run.run_id, who="ada")
    world.mlflow.set_alias(MODEL.name, "champion", version)
    world.alerts.store.report(MODEL.name, "drift/drift", severity="warn", summary="drift")
    return world


def run_of(world: World, asset: str, day: str | None = None, fails: bool = False) -> Any:
    """A finished run of Dagster that materialised one asset."""
    parts = dg.StaticPartitionsDefinition(DAYS) if day else None

    @dg.asset(name=asset, partitions_def=parts)
    def made(context: dg.AssetExecutionContext) -> None:
        context.log.info("made")
        if fails:
            raise dg.Failure("it fails")

    return dg.materialize(
        [made], instance=world.instance, partition_key=day, raise_on_error=not fails, run_config=QUIET
    )


def new_version(world: World, bundle: Path, **tags: str) -> str:
    """Registers a version of the model as training does: in a finished run, with the bundle as its artifacts."""
    client = world.mlflow.client()
    run = client.create_run(world.mlflow._experiment_id(client, MODEL.name))
    version = world.mlflow.register(
        MODEL.name, run.info.run_id, bundle, tags=tags, loader_module="assets.lifecycle.model.version.bundle"
    )
    client.set_terminated(run.info.run_id)
    return version


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder; SQLite's files beside a database are left out, since reading makes them."""
    skipped = ("-wal", "-shm", ".lock")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(skipped)
    }


def rows_of(world: World) -> pd.DataFrame:
    """All rows of the table."""
    return world.tables.read(MODEL.key("readings"))
