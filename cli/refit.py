"""``python -m cli.refit``: fits one version again, in the process that ``assetline reproduce`` starts.

It runs in a git worktree of the version's commit. A newer release calls this module as it is in an older commit, so its
arguments and files do not change.

Belongs here: arguments, and loading what is fitted. Does not belong here: fitting
(``assets/lifecycle/model/refit.py``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from resources.settings import give_memory_back, one_thread_each, quiet_telemetry


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits one version again. Ends with a sentence and status 1 if it cannot be fitted."""
    parser = argparse.ArgumentParser(prog="python -m cli.refit", description="Fits one version again.")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--tables", type=Path, required=True, help="folder of tables with the frozen training set")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the version")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args(arguments)
    quiet_telemetry()
    one_thread_each()
    give_memory_back()
    from assets.lifecycle.model.refit import RefitError, refit
    from assets.lifecycle.model.version.bundle import Facts
    from assets.models import read_folders
    from resources.tables import ParquetTables

    found, broken = read_folders()
    declared = {model.name: model for model in found}
    if given.model not in declared:
        reasons = {one.name: one.reason for one in broken}
        said = reasons.get(given.model, f"the declared models are: {', '.join(declared) or 'none'}")
        raise SystemExit(f"this commit does not declare the model '{given.model}' ({said})")
    model = declared[given.model]
    rows = ParquetTables(root=str(given.tables)).read(model.key("training_set"))
    try:
        refit(model, rows, Facts.read(given.bundle), given.out)
    except RefitError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
