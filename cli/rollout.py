"""The command ``rollout``: how far a new version has come, and the steps that a person takes.

Belongs here: arguments, and text output. Does not belong here: the steps (``assets/lifecycle/release/rollout.py``).
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.errors import read_settings, reported
from cli.ledger import UnknownModelError

if TYPE_CHECKING:
    from assets.lifecycle.release.rollout import Progress


def rollout(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    who: Annotated[
        str, typer.Option(default_factory=getpass.getuser, show_default=False, help="Name (default: your user).")
    ],
    action: Annotated[
        Literal["show", "advance", "abort", "restart"],
        typer.Argument(help="show the state, or take a step: advance, abort, or restart a taken back version."),
    ] = "show",
    why: Annotated[str, typer.Option(help="Reason of the step, for the ledger.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the rollout of a new version, or advance, abort or restart it."""
    command = "assetline rollout"
    settings = read_settings(command)
    from assets.lifecycle.release.rollout import RolloutError, act, progress_of, step_in_words
    from assets.models import declared_models
    from resources.ledger import Ledger
    from resources.request_log import LogError, RequestLog
    from resources.tables import ParquetTables

    models = {one.name: one for one in declared_models()}
    with reported(command, RolloutError, UnknownModelError, LogError):
        if model not in models:
            raise UnknownModelError(f"no model '{model}' is declared; there are: {', '.join(models) or 'none'}")
        ledger = Ledger.from_settings(settings).process_config_and_initialize()
        if action != "show":
            entry = act(ledger, models[model], action, who=who, why=why)
            done = f"version {entry.version} is taken back" if action == "abort" else step_in_words(entry)
            print(json.dumps(entry.to_json(), indent=1) if as_json else f"{model}: {done}")
            return
        log = RequestLog.from_settings(settings).process_config_and_initialize()
        tables = ParquetTables(root=settings.tables)
        progress = progress_of(models[model], ledger, log, tables, dt.datetime.now(dt.UTC))
    if as_json:
        print(json.dumps(_facts(progress), indent=1))
    else:
        print(f"{model}: no version is being rolled out" if progress is None else format_progress(model, progress))


def _facts(progress: Progress | None) -> dict[str, object] | None:
    from assets.lifecycle.release.rollout import share_of

    if progress is None:
        return None
    return {
        "version": progress.entry.version,
        "share": share_of(progress.entry),
        "since": progress.entry.at.isoformat(),
        "rows": progress.rows,
        "answered": progress.answered,
        "next": progress.step.action,
        "reason": progress.step.reason,
        "figures": [asdict(one) for one in progress.figures],
    }


def format_progress(model: str, progress: Progress) -> str:
    """The state of a rollout as text."""
    from assets.lifecycle.release.rollout import step_in_words

    lines = [
        f"{model}: {step_in_words(progress.entry)} since {progress.entry.at:%Y-%m-%d %H:%M:%S} UTC",
        f"  {progress.rows:,} rows compared, of which it answered {progress.answered:,}",
    ]
    width = max(len(one.name) for one in progress.figures)
    lines += [f"  {one.name:{width}}  {one.state:6}  {one.message}" for one in progress.figures]
    return "\n".join([*lines, f"  next: {progress.step.action}: {progress.step.reason}"])
