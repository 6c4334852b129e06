"""Builds the assets and jobs of the code location. A model that cannot be loaded is shown as broken.

Belongs here: separating declarations whose assets can be built from those whose assets cannot. Does not belong here:
validation of a declaration (``assets/declaration.py``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from assets.declaration import DeclarationError, Model, refuse_another_table, refuse_another_topic
from assets.lifecycle.factory import lifecycle_assets
from assets.lifecycle.jobs import model_jobs
from assets.models import Broken, said_by


@dataclass(frozen=True)
class Built:
    """A model with its assets and jobs in the code location."""

    model: Model
    assets: Sequence[dg.AssetsDefinition]
    jobs: Sequence[dg.UnresolvedAssetJobDefinition]


def build(models: Sequence[Model], *, targets: Collection[str] | None = None) -> tuple[list[Built], list[Broken]]:
    """Builds the assets and jobs of each model.

    A model is broken if its assets cannot be built, use an asset key of another model, or name an unknown target, or if
    the model whose table it shares is not declared or declares another table.

    Args:
        models: the declarations.
        targets: names of the deployment targets; default: all names are allowed.

    Returns:
        ``(built, broken)``.
    """
    built: list[Built] = []
    broken: list[Broken] = []
    taken: dict[dg.AssetKey, str] = {}
    by_name = {model.name: model for model in models}
    # A model on the table of another model is as broken as that one, so it comes after it.
    for model in sorted(models, key=lambda model: bool(model.table.of)):
        try:
            if model.table.of:
                _refuse_unshared(model, by_name, [one.model.name for one in built])
            if model.surge and model.surge.topics:
                _refuse_no_topics(model, model.surge.topics, by_name)
            if targets is not None:
                _refuse_unknown_targets(model, targets)
            assets = lifecycle_assets(model)
            for key in (key for asset in assets for key in asset.keys):
                if key in taken:
                    raise DeclarationError(
                        f"model '{model.name}': its asset {key.to_user_string()} already belongs to '{taken[key]}'; "
                        "give it another key"
                    )
            built.append(Built(model, assets, model_jobs(model)))
            taken |= {key: model.name for asset in assets for key in asset.keys}
        except Exception as error:  # as in read_folders(): one broken model must not hide the others
            broken.append(Broken(model.name, said_by(error)))
    order = {model.name: number for number, model in enumerate(models)}
    return sorted(built, key=lambda one: order[one.model.name]), broken


def _refuse_unshared(model: Model, declared: Mapping[str, Model], sound: Collection[str]) -> None:
    """Refuses a model whose table is not another model's, or not the same one."""
    owner = declared.get(model.table.of)
    if owner is None:
        close = difflib.get_close_matches(model.table.of, declared, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "declare it, or give the table a source"
        raise DeclarationError(
            f"model '{model.name}': table.of={model.table.of!r} is invalid: no such model is declared; {hint}"
        )
    refuse_another_table(model, owner)
    if owner.name not in sound:
        raise DeclarationError(
            f"model '{model.name}': table.of={model.table.of!r} is invalid: that model is broken; mend it first"
        )


def _refuse_no_topics(model: Model, topics: str, declared: Mapping[str, Model]) -> None:
    """Refuses a model whose topics come from a model that is not declared, or predicts no classes of the same rows."""
    if topics not in declared:
        close = difflib.get_close_matches(topics, declared, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "declare it, or name a column with `column`"
        raise DeclarationError(
            f"model '{model.name}': surge.topics={topics!r} is invalid: no such model is declared; {hint}"
        )
    refuse_another_topic(model, declared[topics])


def _refuse_unknown_targets(model: Model, known: Collection[str]) -> None:
    for name in model.targets:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"the targets are: {', '.join(sorted(known))}"
            found = f"targets={tuple(model.targets)!r}"
            raise DeclarationError(f"model '{model.name}': {found} is invalid: there is no target '{name}'; {hint}")


def broken_asset(broken: Broken) -> dg.AssetsDefinition:
    """Returns the asset that represents a broken model in the UI; it fails with the reason when it is materialized."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", broken.name)

    @dg.asset(
        key=[name, "broken"],
        group_name=f"{name}/broken",
        description=f"**This model is broken and has no other assets.**\n\n```\n{broken.reason}\n```",
        owners=["team:models"],
        kinds={"broken"},
        metadata={"reason": broken.reason},
    )
    def broken_model() -> None:
        raise dg.Failure(description=broken.reason, allow_retries=False)

    return broken_model
