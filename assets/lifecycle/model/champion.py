"""The version in production, as the ledger has it, ready to score.

Belongs here: finding and loading it. Does not belong here: what is done with its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.model.bundle import Bundle, loaded


@dataclass(frozen=True)
class Champion:
    """A model version in production."""

    version: str
    bundle: Bundle
    directory: Path


def champion_of(resources: Any, model: Model) -> Champion | None:
    """The champion; ``None`` before the first promotion."""
    entry = resources.ledger.champion(model.name)
    if entry is None:
        return None
    directory = resources.mlflow.download(model.name, entry.version)
    return Champion(entry.version, loaded(directory), directory)


def the_champion(resources: Any, model: Model) -> Champion:
    """The champion. Raises :class:`dagster.Failure` when there is none."""
    champion = champion_of(resources, model)
    if champion is None:
        raise dg.Failure(
            description=f"no version of {model.name} is deployed yet; materialise its deployment first",
            allow_retries=False,
        )
    return champion
