"""One folder per model, each with its declaration as ``model``. A fork only adds and deletes folders here."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from dataclasses import dataclass

from assets.declaration import DeclarationError, Model


@dataclass(frozen=True)
class Broken:
    """A model folder without a usable declaration, and the reason."""

    name: str
    reason: str


def read_folders() -> tuple[list[Model], list[Broken]]:
    """Returns the declarations of all model folders in order of folder name, and the broken folders.

    A folder is broken if it cannot be imported, has no declaration, or declares a name that another folder has. The
    other folders are not affected.
    """
    models: dict[str, Model] = {}
    broken: list[Broken] = []
    for folder in sorted(name for _, name, is_package in pkgutil.iter_modules(__path__) if is_package):
        try:
            model = _model_in(folder)
            if model.name in models:
                raise DeclarationError(f"two folders declare a model named '{model.name}'; rename the one in {folder}")
            models[model.name] = model
        except Exception as error:  # one broken folder must not hide the models of the others
            broken.append(Broken(folder, said_by(error)))
    return list(models.values()), broken


def declared_models() -> list[Model]:
    """Returns the declarations of all model folders that are not broken."""
    return read_folders()[0]


def said_by(error: Exception) -> str:
    """Describes an error in a model folder.

    A declaration error is described by its message, any other error by its place, type and message.
    """
    if isinstance(error, DeclarationError):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/assets/models/" in frame.filename]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"


def _model_in(folder: str) -> Model:
    model = getattr(importlib.import_module(f"{__name__}.{folder}"), "model", None)
    if not isinstance(model, Model):
        raise DeclarationError(
            f"assets/models/{folder} declares no model; assign `model = Model(...)` in its __init__.py"
        )
    return model
