"""The command `assetline`, the command-line interface; it calls the same code as the jobs in the UI.

Belongs here: arguments, exit codes, display of errors. Does not belong here: any work.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resources.settings import Settings, SettingsError, give_memory_back, one_thread_each, quiet_telemetry


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 on success, 1 if it failed, 2 if it could not start."""
    quiet_telemetry()
    one_thread_each()
    give_memory_back()
    from resources.alerts import command as alerts_command

    parser = argparse.ArgumentParser(prog="assetline", description="The life of a model, from the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    play = commands.add_parser("run", help="play the whole life of the example, from raw rows to a resolved alert")
    play.add_argument("--until", type=_day, help="last day to play, e.g. 2026-10-03 (default: yesterday)")
    play.add_argument("--size", default="", choices=("", "small", "published"), help="of the simulated world")
    play.add_argument("--seed", type=int, help="of the simulated world (default: 0)")
    commands.add_parser("dev", help="Dagster UI, MLflow UI, scoring service and alerts under one supervisor")
    materialize = commands.add_parser("materialize", help="bring one model up to date: to a champion and its scores")
    materialize.add_argument("--model", required=True, help="name of a declared model")
    new = commands.add_parser("new-model", help="write a model folder from a table")
    new.add_argument("--name", required=True, help="of the model: lower-case letters, digits and _")
    new.add_argument("--table", required=True, type=Path, help="path of a CSV or Parquet file")
    new.add_argument("--target", required=True, help="column that holds the truth")
    new.add_argument("--time", default="", help="column of the event time; without it the table is a snapshot")
    new.add_argument("--key", default="", help="column that identifies a row, where the guess is another")
    new.add_argument("--task", default="", help="binary, multiclass or regression, where the guess is another")
    new.add_argument("--header", default=0, type=int, help="line of the column names, where the guess is another")
    remove = commands.add_parser("remove-model", help="remove a model folder and the tests that stand on it")
    remove.add_argument("--name", required=True, help="of the folder")
    remove.add_argument("--force", action="store_true", help="also where git could not bring it back")
    renew = commands.add_parser("update", help="bring a newer template into this fork")
    renew.add_argument("--from", dest="source", default="", help="address or path of the template (default: as before)")
    renew.add_argument("--ref", default="main", help="its branch, tag or commit (default: %(default)s)")
    renew.add_argument("--base", default="", help="its commit that this fork was made of, where git cannot know")
    alerts_command.add_to(commands)
    given = parser.parse_args(arguments)
    other = {"alerts": alerts_command.run, "update": _update, "new-model": _scaffold, "remove-model": _scaffold}
    if given.command in other:
        return other[given.command](given)
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        print(f"assetline: {error}", file=sys.stderr)
        return 2
    if given.command == "dev":
        from serving.supervisor import supervise

        return supervise(settings)
    from runner import RunError

    try:
        if given.command == "run":
            _play(settings, until=given.until, size=given.size, seed=given.seed)
        else:
            _materialize(settings, given.model)
    except RunError as error:
        print(f"assetline {given.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _scaffold(given: argparse.Namespace) -> int:
    from resources.settings import project_root
    from scaffold.new_model import new_model
    from scaffold.remove_model import remove_model
    from scaffold.report import words_of
    from scaffold.tables import ScaffoldError

    root = project_root()
    try:
        if given.command == "new-model":
            made = new_model(
                root, given.name, given.table, given.target, time=given.time, key=given.key, task=given.task,
                header=given.header,
            )  # fmt: skip
            print(words_of(made, root))
        else:
            for path in remove_model(root, given.name, force=given.force):
                print(f"removed {path}")
            print("What it left in the state folder (tables, versions, ledger) stays.")
    except ScaffoldError as error:
        print(f"assetline {given.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _update(given: argparse.Namespace) -> int:
    from resources.settings import project_root
    from scaffold.update import UpdateError, update, words_of

    try:
        done = update(project_root(), given.source, given.ref, given.base)
    except UpdateError as error:
        print(f"assetline update: {error}", file=sys.stderr)
        return 1
    print(words_of(done))
    return 1 if done.conflicts else 0


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write it as 2026-10-03") from None


def _play(settings: Settings, **how: Any) -> None:
    """Plays the story of the example. Raises ``RunError`` if a fork has removed it."""
    import pkgutil

    import story
    from runner import RunError

    for _, name, _ in pkgutil.iter_modules(story.__path__):
        importlib.import_module(f"story.{name}").play(settings, **how)
        return
    raise RunError("there is no story to play in story/; bring a model up to date with `assetline materialize`")


def _materialize(settings: Settings, name: str) -> None:
    from assets.build import build
    from assets.models import read_folders
    from runner import RunError, alone

    found, broken = read_folders()
    built, unbuildable = build(found)
    models = {one.model.name: one.model for one in built}
    reasons = {one.name: one.reason for one in (*broken, *unbuildable)}
    if name in reasons and name not in models:
        raise RunError(f"the model '{name}' is broken: {reasons[name]}")
    if name not in models:
        raise RunError(f"no model '{name}' is declared; there are: {', '.join(models) or 'none'}")
    with alone(settings, lambda: models[name]) as runner:
        runner.live(print)


if __name__ == "__main__":
    sys.exit(main())
