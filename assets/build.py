"""Builds the assets and jobs of the code location. A model that cannot be loaded is shown as broken.

Belongs here: separating declarations whose assets can be built from those whose assets cannot. Does not belong here:
validation of a declaration (``assets/declaration.py``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from assets.declaration import DeclarationError, Model
from assets.lifecycle.factory import lifecycle_assets
from assets.lifecycle.jobs import model_jobs
from assets.models import Broken, said_by


@dataclass(frozen=True)
class Built:
    """A model with its assets and jobs in the code location."""

    model: Model
    assets: Sequence[dg.AssetsDefinition]
    jobs: Sequence[dg.UnresolvedAssetJobDefinition]


def build(models: Sequence[Model]) -> tuple[list[Built], list[Broken]]:
    """Builds the assets and jobs of each model.

    A model is broken if its assets cannot be built or use an asset key of another model.

    Returns:
        ``(built, broken)``.
    """
    built: list[Built] = []
    broken: list[Broken] = []
    taken: dict[dg.AssetKey, str] = {}
    for model in models:
        try:
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
    return built, broken


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
