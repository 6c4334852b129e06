"""The commands of deployment targets: ``deployments`` and ``undeploy``.

Belongs here: arguments, and text output. Does not belong here: the targets (``resources/targets``), the order in which
they are changed (``assets/lifecycle/release/promotion.py``).
"""

from __future__ import annotations

import contextlib
import getpass
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from assets.declaration import Model
    from resources.targets.base import DeploymentTarget


class UnknownModelError(Exception):
    """No such model is declared. The message gives the declared models."""


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def targets_ready(command: str, models: list[Model]) -> Iterator[tuple[dict[str, DeploymentTarget], Any]]:
    """The targets of some models by name, and the ledger, ready for use."""
    settings = read_settings(command)
    import dagster as dg

    from resources.defaults import default_resources
    from resources.targets.base import resource_key

    resources = default_resources(settings, {})
    names = sorted({name for model in models for name in model.targets})
    wanted = {key: resources[key] for key in ("ledger", *map(resource_key, names))}
    with dg.build_resources(wanted) as ready:
        yield {name: getattr(ready, resource_key(name)) for name in names}, ready.ledger


def deployments(
    model: Annotated[str | None, typer.Argument(help="Name of the model (default: all models).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each deployment target says about each model."""
    command = "assetline deployments"
    with reported(command, UnknownModelError):
        models = _declared(model)
    rows = []
    with targets_ready(command, models) as (targets, _):
        for one in models:
            states = {name: targets[name].status(one.name) for name in one.targets}
            rows += [{"model": one.name, "target": name, **asdict(state)} for name, state in states.items()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    columns = ("model", "target", "state", "version", "message")
    shown = [columns, *(tuple(row[column] or "" for column in columns) for row in rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(4)]
    for row in shown:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip())


def undeploy(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    why: Annotated[str, typer.Option(help="Reason, for the ledger.")],
    who: Annotated[
        str, typer.Option(default_factory=getpass.getuser, show_default=False, help="Name (default: your user).")
    ],
) -> None:
    """Take a model out of production on all its targets. Its versions, images and records stay."""
    command = "assetline undeploy"
    from assets.lifecycle.release.promotion import PromotionError, withdraw_from_all

    with reported(command, UnknownModelError, PromotionError):
        models = _declared(model)
        with targets_ready(command, models) as (targets, ledger):
            entry = withdraw_from_all(targets, ledger, model, why=why, who=who)
    print(f"{model} is not in production any more; version {entry.version} was withdrawn by {entry.who}")


def _declared(name: str | None) -> list[Model]:
    from assets.models import declared_models

    models = declared_models()
    found = [one for one in models if name in (None, one.name)]
    if not found:
        known = ", ".join(one.name for one in models) or "none"
        raise UnknownModelError(f"no model '{name}' is declared; the declared models are: {known}")
    return found
