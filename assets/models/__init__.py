"""One folder per model; each offers ``model``, its declaration. A fork adds and deletes folders here, nothing else."""

from __future__ import annotations

import importlib
import pkgutil

from assets.declaration import DeclarationError, Model


def declared_models() -> list[Model]:
    """The declarations of all model folders, by name.

    Raises :class:`~assets.declaration.DeclarationError` when a folder offers none, or two share a name.
    """
    models: dict[str, Model] = {}
    for folder in sorted(name for _, name, is_package in pkgutil.iter_modules(__path__) if is_package):
        model = getattr(importlib.import_module(f"{__name__}.{folder}"), "model", None)
        if not isinstance(model, Model):
            raise DeclarationError(
                f"assets/models/{folder} offers no declaration: assign `model = Model(...)` in its __init__.py"
            )
        if model.name in models:
            raise DeclarationError(f"two folders declare a model named '{model.name}'; rename the one in {folder}")
        models[model.name] = model
    return list(models.values())
