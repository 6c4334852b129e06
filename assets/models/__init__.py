"""One folder per model; each offers ``model``, its declaration. A fork adds and deletes folders here, nothing else."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from dataclasses import dataclass

from assets.declaration import DeclarationError, Model


@dataclass(frozen=True)
class Broken:
    """A model folder that offers no usable declaration, and why."""

    name: str
    reason: str


def read_folders() -> tuple[list[Model], list[Broken]]:
    """The declarations of all model folders by folder name, and the folders that are broken.

    A folder that cannot be imported, that offers no declaration, or one of a name that another has, is broken; the
    others stand.
    """
    models: dict[str, Model] = {}
    broken: list[Broken] = []
    for folder in sorted(name for _, name, is_package in pkgutil.iter_modules(__path__) if is_package):
        try:
            model = _model_in(folder)
            if model.name in models:
                raise DeclarationError(f"two folders declare a model named '{model.name}'; rename the one in {folder}")
            models[model.name] = model
        except Exception as error:  # whatever is wrong with one folder, the others' models are to be seen
            broken.append(Broken(folder, said_by(error)))
    return list(models.values()), broken


def declared_models() -> list[Model]:
    """The declarations of all model folders that are not broken."""
    return read_folders()[0]


def said_by(error: Exception) -> str:
    """An error in a model folder in words: a wrong declaration's own, or the place and kind of any other."""
    if isinstance(error, DeclarationError):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/assets/models/" in frame.filename]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"


def _model_in(folder: str) -> Model:
    model = getattr(importlib.import_module(f"{__name__}.{folder}"), "model", None)
    if not isinstance(model, Model):
        raise DeclarationError(
            f"assets/models/{folder} offers no declaration: assign `model = Model(...)` in its __init__.py"
        )
    return model
