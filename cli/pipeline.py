"""``assetline pipeline …``: the stages of a pipeline that need the project. ``make`` calls them.

Belongs here: arguments, exit codes, text output. Does not belong here: what a stage does (``pipeline/``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.audited import needs
from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from assets.declaration import Model
    from pipeline.stages import Folder

pipeline_app = typer.Typer(
    help="The stages of a pipeline; `make train`, `make gate` and so on call them.", no_args_is_help=True
)

Models = Annotated[
    list[str] | None, typer.Option("--model", help="Name of a declared model; may be repeated (default: all).")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder that travels between stages (default: build in the checkout)."),
]
Environment = Annotated[Literal["staging", "production"], typer.Option("--env", help="The environment.")]


@contextlib.contextmanager
def _stage(name: str) -> Iterator[None]:
    """Ends the command with one line if the stage cannot run or does not pass."""
    from assets.lifecycle.model.version.bundle import BundleError
    from assets.lifecycle.release.promotion import PromotionError
    from pipeline.stages import StageError
    from resources.backup import BackupError
    from resources.mlflow import TrackingError
    from resources.restore import RestoreError
    from resources.settings import SettingsError
    from resources.sources import SourceError
    from resources.targets.base import DeploymentError
    from runner import RunError

    expected = (
        RunError,
        StageError,
        BackupError,
        RestoreError,
        TrackingError,
        BundleError,
        DeploymentError,
        PromotionError,
    )
    command = f"assetline pipeline {name}"
    with reported(command, SettingsError, code=2), reported(command, *expected, SourceError):
        yield


def _folder(out: Path | None) -> Folder:
    from pipeline.stages import Folder
    from resources.settings import project_root

    return Folder((project_root() / (out or "build")).resolve())


def _declared(names: list[str] | None) -> list[Model]:
    """The declarations that were asked for. Raises ``StageError`` if one is broken or not declared."""
    from assets.models import read_folders
    from pipeline.stages import StageError

    found, broken = read_folders()
    if reasons := [f"{one.name} ({one.reason})" for one in broken if not names or one.name in names]:
        raise StageError(f"a model folder is broken: {'; '.join(reasons)}")
    by_name = {model.name: model for model in found}
    if unknown := [name for name in names or () if name not in by_name]:
        there = ", ".join(by_name) or "none"
        raise StageError(f"no model '{unknown[0]}' is declared; the declared models are: {there}")
    return [model for model in found if not names or model.name in names]


@pipeline_app.command(epilog="Example: `assetline pipeline train --model churn`")
@needs("operate")
def train(
    model: Models = None,
    until: Annotated[
        dt.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="Last day to land (default: the latest one)."),
    ] = None,
    landed: Annotated[
        bool, typer.Option("--landed", help="Use the rows that have landed in the folder, and land none.")
    ] = False,
    out: Out = None,
) -> None:
    """Land and clean what a training run needs, and train a version of each model."""
    read_settings("assetline pipeline train")
    from pipeline.training import train as run_stage

    with _stage("train"):
        last = until.date() if until else None
        run_stage(_folder(out), _declared(model), _say, until=last, landed=landed)


@pipeline_app.command(epilog="Example: `assetline pipeline gate`")
@needs("read")
def gate(out: Out = None) -> None:
    """Evaluate the trained versions and run the gate; reports are kept, and a release of each version that passes."""
    read_settings("assetline pipeline gate")
    from pipeline.publishing import evaluation_text, publish
    from pipeline.training import gate as run_stage

    with _stage("gate"):
        folder = _folder(out)
        refused = run_stage(folder, _declared(None), _say)
        _say(publish(evaluation_text(folder), folder, "evaluation"))
    if refused:
        raise typer.Exit(1)


@pipeline_app.command(epilog="Example: `assetline pipeline compare --base origin/main`")
@needs("read")
def compare(
    base: Annotated[
        str,
        typer.Option(metavar="REF", help="Branch, tag or commit (default: the target of the request, else HEAD~1)."),
    ] = "",
    model: Models = None,
    out: Out = None,
) -> None:
    """Train the models of the base on the same rows, and compare both sides on the same test rows."""
    read_settings("assetline pipeline compare")
    from pipeline.comparison import change_since, default_base, text_of
    from pipeline.comparison import compare as run_stage
    from pipeline.publishing import publish

    with _stage("compare"):
        folder, declared = _folder(out), _declared(model)
        change = change_since(base or default_base(os.environ))
        found = run_stage(folder, declared, change, _say)
        _say(publish(text_of(found, change), folder, "comparison"))


@pipeline_app.command(epilog="Example: `assetline pipeline deploy --env staging`")
@needs("operate")
def deploy(env: Environment, model: Models = None, out: Out = None) -> None:
    """Move the releases into an environment, with their hashes verified."""
    from pipeline.delivery import deploy as run_stage

    with _stage("deploy"):
        run_stage(_folder(out), env, model or [], _say)


@pipeline_app.command(epilog="Example: `assetline pipeline smoke --env staging`")
@needs("operate")
def smoke(env: Environment, model: Models = None, out: Out = None) -> None:
    """Start the released versions in an environment, and compare their scores with those of the training."""
    from pipeline.delivery import smoke as run_stage

    with _stage("smoke"):
        run_stage(_folder(out), env, _declared(model), model or [], _say)


@pipeline_app.command(epilog="Example: `assetline pipeline promote --env production`")
@needs("operate")
def promote(
    env: Environment,
    who: Annotated[str, typer.Option(help="Name for the ledger (default: the provider's user, or yours).")] = "",
    model: Models = None,
    out: Out = None,
) -> None:
    """Promote the released versions in an environment, by its ledger and its deployment target."""
    from pipeline.delivery import promote as run_stage
    from pipeline.telling import job_of

    with _stage("promote"):
        name = who or job_of(os.environ).who or getpass.getuser()
        run_stage(_folder(out), env, _declared(model), model or [], name, _say)


@pipeline_app.command(epilog="Example: `assetline pipeline tell-failure --stage gate`")
@needs("operate")
def tell_failure(
    stage: Annotated[str, typer.Option(help="Name of the stage.")],
    status: Annotated[str, typer.Option(help="What the provider says of it; `success` resolves the alert.")] = "failed",
) -> None:
    """Tell people about a failed stage through the channels of the alerts."""
    command = "assetline pipeline tell-failure"
    settings = read_settings(command)
    from pipeline.stages import StageError
    from pipeline.telling import nothing_to_tell, tell

    with reported(command, StageError):
        if said := nothing_to_tell(settings, stage, status):
            _say(said)
            return
        from resources.alerts import AlertError, ChannelsError

        with reported(command, AlertError, ChannelsError):
            _say(tell(settings, stage, status))


def _say(line: str) -> None:
    """Prints one line at once, so that the log of a job shows it before the next step ends."""
    if line:
        print(line, flush=True)
