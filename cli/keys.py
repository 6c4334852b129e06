"""``assetline keys …``: the keys that make pseudonyms and encrypt. No command shows a secret.

Belongs here: arguments, and text output. Does not belong here: the file of the keys (``resources/keys.py``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.audited import audited
from cli.errors import read_settings, reported
from resources.keys import PURPOSES, Key, KeyFile, KeyProblem, KeyRing, Purpose, purpose_of, variable_of
from resources.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

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


@keys_app.command(epilog="Example: `assetline keys rewrite --dry-run`")
@audited("rewrite", "encrypted files", details=("dry_run", "plain"), right="administer")
def rewrite(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Write them in the clear, with `encrypt` off.")] = False,
) -> None:
    """Encrypt all tables and MLflow's files by the newest keys. It may be stopped and begun again at any time."""
    settings = read_settings("assetline keys rewrite")
    from resources.backup import BackupError, maintenance
    from resources.encryption.rewriting import RewriteError, outdated, refuse_runs
    from resources.tables import TableError

    with reported("assetline keys rewrite", KeyProblem, TableError, RewriteError, BackupError):
        if settings.encrypt == plain:
            mend = "it would be undone; leave --plain out" if plain else "set it, or give --plain to decrypt the files"
            raise RewriteError(f"the setting `encrypt` is {'on' if plain else 'off'}; {mend}")
        if not settings.home.is_dir():
            raise RewriteError(f"there is no state folder {settings.home}; ASSETLINE_HOME names another one")
        counts: Counter[str] = Counter()
        with maintenance(settings, BackupError):
            if not dry_run:
                refuse_runs(settings)
            for one in outdated(settings, _personal_columns(), encrypt=not plain):
                if dry_run:
                    print(one.name)
                else:
                    one.rewrite()
                counts[one.kind] += 1
    done = "to write" if dry_run else "written in the clear" if plain else "encrypted by the newest keys"
    named = ", ".join(f"{counts[kind]:,} {kind}s" for kind in ("table file", "report", "artifact") if counts[kind])
    print(f"{named} {done}" if named else "nothing to do: all files are as they should be")


@keys_app.command(epilog="Example: `assetline keys remove tables 2026-12-02`")
@audited("delete", "key", details=("purpose", "key"), right="administer")
def remove(
    purpose: PurposeName, key: Annotated[str, typer.Argument(metavar="ID", help="Id or fingerprint of an old key.")]
) -> None:
    """Remove an old key that nothing needs any more."""
    settings = read_settings("assetline keys remove")
    from resources.encryption.rewriting import refuse_needed
    from resources.tables import TableError

    with reported("assetline keys remove", KeyProblem, TableError):
        wanted = _in_file(settings, purpose)
        old = KeyRing.of(settings).key(wanted, key)
        refuse_needed(settings, wanted, old)
        KeyFile(settings.keys).remove(wanted, old.id)
    print(f"{settings.keys}: the key {old.id} ({old.fingerprint}) for {wanted} is removed")


def _personal_columns() -> Callable[[dg.AssetKey], Collection[str]]:
    """The personal columns of a table, by the declaration of its model."""
    from assets.lifecycle.stage import personal_columns
    from assets.models import read_folders

    declared = {model.name: personal_columns(model) for model in read_folders()[0]}
    return lambda key: declared.get(key.path[0], ())


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
