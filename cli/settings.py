"""``assetline settings``: the settings in effect, and where each one is from.

Belongs here: text output. Does not belong here: reading settings (``resources/settings.py``).
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Annotated

import typer

from cli.metadata import format_table
from resources.settings import PREFIX, Settings, is_secret, read, shown


def settings(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the settings in effect with the origin of each value; secrets are hidden. Exit code 2 if some are wrong."""
    found = read()
    if found.settings is None:
        print(f"assetline settings: {found.error}", file=sys.stderr)
        raise typer.Exit(2)
    rows = [
        {
            "setting": one.name,
            "value": shown(one, getattr(found.settings, one.name)),
            "origin": found.origins[one.name],
            "variable": PREFIX + one.name.upper(),
            "secret": is_secret(one),
        }
        for one in fields(Settings)
    ]
    if as_json:
        print(
            json.dumps({"environment": found.settings.env, "settings": rows, "wrong": list(found.problems)}, indent=1)
        )
    else:
        columns = ("setting", "value", "origin")
        print(format_table([columns, *([str(row[name]) for name in columns] for row in rows)]))
    if found.problems:
        print(f"assetline settings: {found.error}", file=sys.stderr)
        raise typer.Exit(2)
