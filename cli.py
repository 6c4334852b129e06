"""The command `assetline`: what a person types. It calls what the UI's jobs call.

Belongs here: arguments, exit codes, how an error is shown. Does not belong here: any work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from resources.settings import Settings, SettingsError, quiet_telemetry


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 when it failed, 2 when it could not begin."""
    quiet_telemetry()
    parser = argparse.ArgumentParser(prog="assetline", description="The life of a model, from the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="play the whole life of the fraud model, from raw payments to a resolved alert")
    commands.add_parser("dev", help="Dagster UI, MLflow UI and scoring service under one supervisor")
    materialize = commands.add_parser("materialize", help="bring one model up to date: to a champion and its scores")
    materialize.add_argument("--model", required=True, help="name of a declared model")
    given = parser.parse_args(arguments)
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
            from story import play

            play(settings)
        else:
            _materialize(settings, given.model)
    except RunError as error:
        print(f"assetline {given.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _materialize(settings: Settings, name: str) -> None:
    from assets.models import declared_models
    from runner import RunError, alone

    models = {model.name: model for model in declared_models()}
    if name not in models:
        raise RunError(f"no model '{name}' is declared; there are: {', '.join(models) or 'none'}")
    with alone(settings, lambda: models[name]) as runner:
        runner.live(print)


if __name__ == "__main__":
    sys.exit(main())
