"""The stages ``train`` and ``gate``: a version of each model on its own rows, and whether it may be released.

Belongs here: landing the days that a training run needs, running the jobs, keeping the reports. Does not belong here:
how a model is fitted or judged (``assets/lifecycle/model``), where a version goes afterwards (``delivery.py``).

Both run in a state folder of the pipeline, so that they change nothing in that of the checkout. The folder is packed at
the end of ``train`` and unpacked by ``gate`` where it is absent: providers run each stage on a machine of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.jobs import CLEAN, FEATURES, LABEL, LAND, LIFECYCLE, TRAIN
from assets.lifecycle.model.version.verdicts import verdicts_on
from assets.lifecycle.model.windows import iso_days, windows_of
from assets.lifecycle.release.model_card import html, markdown, read_facts
from pipeline.release import release
from pipeline.stages import STATE, TRAINED, Folder, StageError, environment, write
from resources.settings import PREFIX, Settings
from resources.sources import Snapshot, Stream
from runner import RunError, Runner, alone

Say = Callable[[str], None]
"""Prints one line of progress."""

KEPT = ("ASSETLINE_TEST_DATA",)
"""Settings that hold for the state folder of the pipeline as well."""


@contextlib.contextmanager
def at_home(folder: Folder) -> Iterator[Settings]:
    """Yields the settings of the pipeline's own state folder, which child processes get as well.

    The caller's settings are not used, because nothing is served or promoted there: neither a database nor an
    environment of theirs may change.
    """
    theirs = {name: None for name in os.environ if name.startswith(PREFIX) and name not in KEPT}
    with environment({**theirs, "ASSETLINE_HOME": str(folder.home), "DAGSTER_HOME": None}):
        yield Settings.from_env()


def train(
    folder: Folder, models: Sequence[Model], say: Say, *, until: dt.date | None = None, landed: bool = False
) -> None:
    """Lands and cleans what a training run needs, and trains a version of each model.

    A second call with the same rows, code and recipe trains nothing.

    Args:
        folder: the folder of the pipeline.
        models: the declarations to train.
        say: called with one line for each step.
        until: last day to land; default: the latest day that is over.
        landed: whether to use the rows that have landed in the state folder, and to land none.

    Raises:
        StageError: there is no model, or the rows of one land by themselves.
        RunError: a run failed; the message has the reason.
    """
    if not models:
        raise StageError("no model is declared in assets/models; add one with `make new-model`")
    trained: dict[str, Any] = {}
    _forget(folder)
    with at_home(folder) as settings:
        for model in models:
            with alone(settings, lambda model=model: model) as runner:  # type: ignore[misc]
                last = prepare_rows(runner, say, until, landed=landed)
                runner.run(TRAIN, only=("training_set", "trained_model"))
                row = runner.row("trained_model")
                tags, _ = runner.resources["mlflow"].run_facts(row["run_id"])
            commit = tags.get("git_commit", "unknown")
            trained[model.name] = {
                "version": row["version"], "data_version": row["data_version"], "commit": commit, "until": last
            }  # fmt: skip
            say(f"version {row['version']} of {model.name} is trained, on rows {row['data_version']}")
        pack(folder, settings)
    folder.record(TRAINED, {"models": trained})


def _forget(folder: Folder) -> None:
    """Removes what an earlier pipeline left, so that no later stage takes it for that of this one."""
    shutil.rmtree(folder.releases, ignore_errors=True)
    for record in folder.state.glob("*.json"):
        record.unlink()


def prepare_rows(runner: Runner, say: Say, until: dt.date | None = None, *, landed: bool = False) -> dt.date | None:
    """Lands, cleans and labels the rows of one training run, and computes their features.

    Args:
        runner: runner of the model.
        say: called with one line for each kind of work.
        until: last day to land; default: the latest day that is over.
        landed: whether to use the rows that have landed, and to land none.

    Returns:
        The last day that landed; ``None`` for a table without days.

    Raises:
        StageError: the rows come from another asset, or no day is over yet.
        RunError: a run failed.
    """
    model, source = runner.model, runner.owner.table.source
    table = model.table.name
    if isinstance(source, Snapshot):
        raw = () if landed else (f"raw_{table}",)
        runner.make_shared_table()
        of_table = () if model.table.of else (*raw, table, "quarantine")
        runner.run(LIFECYCLE, only=(*of_table, "labels", "features"))
        say(f"{model.name}: the table landed, is clean and has features")
        return None
    if not isinstance(source, Stream):
        raise StageError(
            f"{model.name}: its rows come from {source}, which lands by itself; materialise it and train in the UI"
        )
    assert model.table.start is not None
    last = until or source.landed_until()
    if not landed:
        last = min(last, source.landed_until())
    labelled = last - dt.timedelta(days=model.label_delay_days)
    first = windows_of(labelled, model.training, model.label_delay_days).first
    begin = max(first - dt.timedelta(days=features_of(model).lookback_days), model.table.start)
    if begin > labelled:
        raise StageError(f"{model.name}: its first day is {model.table.start}, so no day before {last} has labels yet")
    for work, days in {
        LAND: iso_days((begin, last)),
        CLEAN: iso_days((begin, last)),
        LABEL: iso_days((begin, labelled)),
        FEATURES: iso_days((max(first, begin), last)),
    }.items():
        if work == LAND and landed:
            continue
        say(f"{model.name}: {work}, {runner.make(work, days)} of {len(days)} days were stale")
    return last


def gate(folder: Folder, declared: Sequence[Model], say: Say) -> dict[str, str]:
    """Evaluates the trained versions and runs the gate; keeps the reports, and a release of each that passes.

    Args:
        folder: the folder of the pipeline.
        declared: the declarations; those that were trained are judged.
        say: called with one line for each verdict.

    Returns:
        The reasons of each refused version by model; empty if all passed.

    Raises:
        StageError: ``train`` has not run, or a trained model is not declared any more.
        RunError: an evaluation failed for another reason than the gate.
    """
    trained = folder.recorded(TRAINED, stage="make gate", needs="make train")["models"]
    models = {model.name: model for model in declared}
    if gone := sorted(set(trained) - set(models)):
        raise StageError(f"{', '.join(gone)} was trained and is not declared any more; run `make train` again")
    refused = {}
    unpack(folder)
    shutil.rmtree(folder.releases, ignore_errors=True)
    with at_home(folder) as settings:
        for name, facts in trained.items():
            model, version = models[name], str(facts["version"])
            with alone(settings, lambda model=model: model) as runner:  # type: ignore[misc]
                verdict = _judge(runner, version)
                _keep_reports(folder, runner, version)
                message = "; ".join(verdict["reasons"])
                if verdict["passed"]:
                    made = release(folder.releases / name, runner, version)
                    say(f"version {version} of {name} passed the gate: {message}")
                    say(f"release {made.id} of {name} is in {folder.releases / name}")
                else:
                    refused[name] = message
                    say(f"version {version} of {name} is refused by the gate: {message}")
    return refused


def _judge(runner: Runner, version: str) -> dict[str, Any]:
    """Runs the evaluation and returns the verdict of the gate on ``version``."""
    model, tables = runner.model, runner.tables
    if tables.stamp(model.key("trained_model")) is None or str(runner.row("trained_model")["version"]) != version:
        raise StageError(
            f"{runner.settings.home} does not hold version {version} of {model.name}; run `make train` again"
        )
    error = runner.attempt(TRAIN, only=("evaluation",))
    judged = runner.row("evaluation") if tables.stamp(model.key("evaluation")) is not None else {}
    if str(judged.get("version")) != version:
        raise RunError(f"the evaluation of version {version} of {model.name} failed: {error}")
    verdict = verdicts_on(runner.resources["mlflow"], model, version)["gate"]
    if error and verdict["passed"]:  # the gate fails the run on purpose; any other failure is an error
        raise RunError(f"the evaluation of version {version} of {model.name} failed: {error}")
    return verdict


def _keep_reports(folder: Folder, runner: Runner, version: str) -> None:
    """Writes the evaluation and the model card of a version to the folder of reports."""
    model, mlflow, ledger = runner.model, runner.resources["mlflow"], runner.resources["ledger"]
    run_id = mlflow.run_of_version(model.name, version)
    for name in ("evaluation.html", "evaluation.json"):
        write(folder.report(model.name, name), mlflow.read_text(run_id, name) or "")
    card = read_facts(model.name, version, mlflow, ledger)
    write(folder.report(model.name, "model_card.md"), markdown(card, model))
    write(folder.report(model.name, "model_card.html"), html(card, model))


def pack(folder: Folder, settings: Settings) -> Path:
    """Packs the state folder for the next stage; an earlier archive is replaced."""
    from resources.backup import back_up

    folder.state.mkdir(parents=True, exist_ok=True)
    archive, scratch = folder.state / STATE, folder.state / f"next-{STATE}"
    scratch.unlink(missing_ok=True)
    back_up(settings, scratch)
    scratch.replace(archive)
    return archive


def unpack(folder: Folder) -> None:
    """Unpacks the state folder where it is absent, as on the machine of another job.

    Raises:
        StageError: there is neither a state folder nor an archive.
        RestoreError: the archive is damaged.
    """
    from resources.restore import restore

    if (folder.home / "tables").is_dir():
        return
    if not (folder.state / STATE).is_file():
        raise StageError(
            f"{folder.state / STATE} is missing; run `make train` first, or fetch the artifacts of its job"
        )
    with at_home(folder) as settings:
        restore(settings, folder.state / STATE)
