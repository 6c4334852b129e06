"""``assetline keys …``: the keys that make pseudonyms and encrypt. No command shows a secret.

Belongs here: arguments, and text output. Does not belong here: the file of the keys (``resources/keys.py``).
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cli.audited import audited
from cli.errors import read_settings, reported
from resources.keys import PURPOSES, Key, KeyFile, KeyProblem, KeyRing, Purpose, purpose_of, variable_of
from resources.settings import Settings

keys_app = typer.Typer(
    help="Create, list, rotate and remove the keys that make pseudonyms and encrypt.", no_args_is_help=True
)

PurposeName = Annotated[str, typer.Argument(metavar="PURPOSE", help=f"What it is for: {', '.join(PURPOSES)}.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys_app.command(epilog="Example: `assetline keys create tables`")
@audited("create", "key", details=("purpose",), right="administer")
def create(purpose: PurposeName) -> None:
    """Make the first key of a purpose. Copy the file of the keys to another place afterwards."""
    settings = read_settings("assetline keys create")
    with reported("assetline keys create", KeyProblem):
        wanted = _in_file(settings, purpose)
        new = KeyFile(settings.keys).create(wanted)
    print(_made(wanted, new, settings))


@keys_app.command("list", epilog="Example: `assetline keys list --json`")
@audited("read", "key", right="administer")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys by purpose, without their secrets."""
    settings = read_settings("assetline keys list")
    with reported("assetline keys list", KeyProblem):
        ring = KeyRing.of(settings)
    found = [
        {"purpose": purpose, "id": key.id, "fingerprint": key.fingerprint, "newest": key == ring.newest(purpose),
         "from": ring.origin(purpose)}
        for purpose in PURPOSES for key in ring.versions(purpose)
    ]  # fmt: skip
    print(json.dumps(found, indent=1) if as_json else format_keys(found, settings))


@keys_app.command(epilog="Example: `assetline keys rotate tables`")
@audited("rotate", "key", details=("purpose",), right="administer")
def rotate(purpose: PurposeName) -> None:
    """Add a newer key, which encrypts from now on. The older ones still decrypt."""
    settings = read_settings("assetline keys rotate")
    with reported("assetline keys rotate", KeyProblem):
        wanted = _in_file(settings, purpose)
        new = KeyFile(settings.keys).rotate(wanted)
    print(_made(wanted, new, settings))


def format_keys(found: list[dict[str, Any]], settings: Settings) -> str:
    """Keys as a text table."""
    if not found:
        return f"there is no key in {settings.keys} (`assetline keys create PURPOSE` makes one)"
    rows = [("purpose", "id", "fingerprint", "", "from")]
    rows += [
        (one["purpose"], one["id"], one["fingerprint"], "newest" if one["newest"] else "old", one["from"])
        for one in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _in_file(settings: Settings, name: str) -> Purpose:
    """The purpose, if its keys are in the file. Raises :class:`KeyProblem` if a variable holds them."""
    purpose = purpose_of(name)
    if getattr(settings, f"key_{purpose}"):
        raise KeyProblem(
            f"{variable_of(purpose)} holds the keys for {purpose}, so the file is not used; change the variable (a new "
            "key, from `openssl rand -base64 32`, goes to its end after a comma)"
        )
    return purpose


def _made(purpose: Purpose, key: Key, settings: Settings) -> str:
    return (
        f"{settings.keys}: {purpose} has the new key {key.id} ({key.fingerprint}). Copy the file to another place: "
        "backups leave it out, and nothing can be read without it."
    )
