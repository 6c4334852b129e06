"""``assetline card``: the model card of a version, from what is stored now.

Belongs here: arguments and files. Does not belong here: what the card says
(``assets/lifecycle/release/model_card.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import read_settings, reported


class CardError(Exception):
    """A card that cannot be written. The message gives the reason and the fix."""


def card(
    model: Annotated[str | None, typer.Argument(help="Name of the model (default: the only one declared).")] = None,
    version: Annotated[str, typer.Option(help="Version (default: the one in production).")] = "",
    out: Annotated[Path | None, typer.Option(help="File to write, .md or .html (default: print Markdown).")] = None,
) -> None:
    """Show the model card of a version, or write it to a file."""
    settings = read_settings("assetline card")
    from assets.lifecycle.model.version.bundle import BundleError
    from assets.lifecycle.release.model_card import html, markdown, read_facts
    from assets.models import declared_models
    from resources.ledger import Ledger
    from resources.mlflow import MlflowTracking, TrackingError

    with reported("assetline card", CardError, TrackingError, BundleError, OSError):
        if out is not None and out.suffix not in (".md", ".html"):
            raise CardError(f"--out {out}: give a file that ends with .md or .html")
        declared = {one.name: one for one in declared_models()}
        name = model or (next(iter(declared)) if len(declared) == 1 else "")
        if name not in declared:
            asked = f"no model '{name}' is declared" if name else "name a model"
            raise CardError(f"{asked}; the declared models are: {', '.join(declared) or 'none'}")
        ledger = Ledger.from_settings(settings)
        mlflow = MlflowTracking.from_settings(settings).process_config_and_initialize()
        ledger = ledger.process_config_and_initialize()
        champion = ledger.champion(name)
        if not version and champion is None:
            raise CardError(f"no version of {name} is in production; name one with --version")
        facts = read_facts(name, version or (champion.version if champion else ""), mlflow, ledger)
        text = (html if out and out.suffix == ".html" else markdown)(facts, declared[name])
        if out is not None:
            out.write_text(text, encoding="utf-8")
    print(f"wrote {out}" if out is not None else text.rstrip("\n"))
