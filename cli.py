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
    command = parser.parse_args(arguments).command
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        print(f"assetline: {error}", file=sys.stderr)
        return 2
    return {"run": _run, "dev": _dev}[command](settings)


def _run(settings: Settings) -> int:
    from runner import RunError
    from story import play

    try:
        play(settings)
    except RunError as error:
        print(f"assetline run: {error}", file=sys.stderr)
        return 1
    return 0


def _dev(settings: Settings) -> int:
    from serving.supervisor import supervise

    return supervise(settings)


if __name__ == "__main__":
    sys.exit(main())
