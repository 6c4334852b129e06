"""``assetline reproduce``: trains a version again and says whether weights and figures are equal.

Belongs here: arguments, exit codes, text output. Does not belong here: the work (``metadata/reproduction.py``).
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import reported
from cli.metadata import AsJson, format_table, opened

if TYPE_CHECKING:
    from metadata.reproduction import Reproduction

MOST_TENSORS = 10
"""Maximum number of different tensors that are named."""


def reproduce(
    version: Annotated[str, typer.Option(metavar="NUMBER", help="Number of the version.")],
    model: Annotated[
        str | None,
        typer.Argument(help="Name of the model (may be left out if there is only one).", show_default=False),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of a weight or figure that still counts as reproduced.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Train a version again from its commit and its rows, and compare weights and figures.

    The exit code is 0 if they are equal, or differ by no more than the tolerance; else 1.
    """
    with opened("assetline reproduce") as metadata:
        from metadata.reproduction import ReproductionError
        from metadata.reproduction import reproduce as train_again

        with reported("assetline reproduce", ReproductionError):
            name = metadata.only_model(model)
            found = train_again(metadata, name, version, say=lambda text: print(text, file=sys.stderr))
    print(json.dumps(found.to_json(), indent=1) if as_json else format_reproduction(found, tolerance))
    raise typer.Exit(0 if found.within(tolerance) else 1)


def format_reproduction(found: Reproduction, tolerance: float) -> str:
    """A reproduction as text; the last line is the verdict."""
    version = found.version
    branch = f" of branch {version.git_branch}" if version.git_branch else ""
    facts = [
        ("commit", f"{version.git_commit[:10]}{branch}"),
        ("rows", f"{found.rows:,}, data version {version.data_version}: the same"),
    ]
    if found.runtime is None:
        facts.append(("environment", "not recorded with this version"))
    else:
        facts.append(("environment", "; ".join(found.runtime) or f"the same, lock {version.lock}"))
    facts.append(("code", "; ".join(f"{one.path}: {one.change}" for one in found.code) or "the same"))
    recipe = [f"{name} {then or 'nothing'}, now {now or 'nothing'}" for name, (then, now) in found.recipe.items()]
    facts.append(("recipe", "; ".join(recipe) or "the same"))
    facts.append(("weights", f"{found.weights:,} in {found.tensors} tensors: {_weights(found)}"))
    different = [one for one in found.figures if one.difference]
    same = len(found.figures) - len(different)
    facts.append(("figures", f"{same} of {len(found.figures)} are equal" + (
        f"; the test figures are missing, because {found.not_scored}" if found.not_scored else "")))  # fmt: skip
    lines = [f"version {version.version} of {version.model}, trained again"]
    lines += [f"  {name:12} {value}" for name, value in facts]
    if found.different:
        table = [["tensor", "largest difference"]]
        table += [[one.tensor, _gap(one.largest)] for one in found.different[:MOST_TENSORS]]
        more = len(found.different) - MOST_TENSORS
        lines += ["", *(f"  {line}" for line in format_table(table).splitlines())]
        lines += [f"  and {more} more"] if more > 0 else []
    if different:
        table = [["figure", "then", "now", "difference"]]
        table += [[one.figure, _number(one.then), _number(one.now), _gap(one.difference)] for one in different]
        lines += ["", *(f"  {line}" for line in format_table(table).splitlines())]
    return "\n".join([*lines, "", _verdict(found, tolerance)])


def _weights(found: Reproduction) -> str:
    if not found.different:
        return "equal bytes"
    return f"{len(found.different)} tensors differ, by up to {_gap(found.largest_weight_difference)}"


def _verdict(found: Reproduction, tolerance: float) -> str:
    if found.equal:
        return "reproduced: the weights have equal bytes, and all figures are equal"
    if found.within(tolerance):
        return f"reproduced: no weight and no figure differs by more than {tolerance:g}"
    return "not reproduced" + (f" within {tolerance:g}" if tolerance else "")


def _gap(value: float | None) -> str:
    return "no number" if value is None or value == float("inf") else f"{value:.2g}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
