"""The champion: the version in production according to the ledger, ready to score.

Belongs here: finding and loading it. Does not belong here: the use of its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.model.version.bundle import Bundle, loaded


@dataclass(frozen=True)
class Champion:
    """The model version in production: its version number, loaded bundle and folder."""

    version: str
    bundle: Bundle
    directory: Path


def champion_of(resources: Any, model: Model) -> Champion | None:
    """Returns the champion, or ``None`` before the first promotion."""
    entry = resources.ledger.champion(model.name)
    if entry is None:
        return None
    directory = resources.mlflow.download(model.name, entry.version)
    return Champion(entry.version, loaded(directory), directory)


def the_champion(resources: Any, model: Model) -> Champion:
    """Returns the champion. Raises :class:`dagster.Failure` if there is none."""
    champion = champion_of(resources, model)
    if champion is None:
        raise dg.Failure(
            description=f"no version of {model.name} is deployed yet; materialise its deployment first",
            allow_retries=False,
        )
    return champion
