"""`assetline new-model`: creates a model folder from a table and tests it before moving it into place.

Belongs here: the order of the steps and their messages. Does not belong here: reading, guessing, writing text.
"""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from assets.declaration import DeclarationError, Model
from assets.forecast import LONGEST_DAYS
from resources.moments import moments
from resources.sources import SourceError, Stream
from scaffold.databases import is_database, read_database
from scaffold.guessing import Asked, Guess, guess, is_named
from scaffold.stored_tables import read_any_table
from scaffold.tables import RawTable, ScaffoldError, path_in
from scaffold.writing import files_of

TAKEN = frozenset(
    ("features", "labels", "raw_labels", "quarantine", "training_set", "tuning", "trained_model", "evaluation",
     "backtest", "staged", "approval", "deployment", "model_card", "predictions", "forecasts", "performance", "drift")
)  # fmt: skip
"""Names of a model's other assets, which its table cannot have."""


@dataclass(frozen=True)
class NewModel:
    """The new model folder and what the user should know about it."""

    folder: Path
    guess: Guess
    lines: int
    features: int
    leaks: list[str]


def new_model(
    root: Path, name: str, table: Path | str, target: str, *, time: str = "", key: str = "", task: Asked = "",
    header: int = 0, forecast: str = "", series: str = "",
) -> NewModel:  # fmt: skip
    """Writes ``assets/models/<name>/`` from a table.

    The folder is tested on the table's rows before it is moved into place. If anything fails, no folder remains.

    Args:
        root: root of the project.
        name: name of the model.
        table: path, pattern or URL of files, or the URL of a database with ``#`` and a table or view.
        target: header of the column that holds the truth.
        time: header of the event time; without it, the table is a snapshot.
        key: header of the key, if the guess would be wrong.
        task: kind of target, if the guess would be wrong.
        header: line number of a CSV file's column names, if the guess would be wrong; 0 to guess.
        forecast: how far ahead the target is forecast, e.g. ``24h`` or ``7d``; empty: it is predicted from its own row.
        series: header of the column that tells the series of a forecast apart, if the guess would be wrong.

    Raises:
        ScaffoldError: no model can be made from the table; the message gives the reason and the fix.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ScaffoldError(f"NAME={name}: use lower-case letters, digits and _, beginning with a letter")
    folder = root / "assets" / "models" / name
    if folder.exists():
        raise ScaffoldError(f"{folder.relative_to(root)} already exists and nothing was changed; choose another NAME")
    with drafted(
        root, name, table, target, time=time, key=key, task=task, header=header, forecast=forecast, series=series
    ) as draft:
        features, leaks = _try_out(draft.model, draft.raw)
        _try_day(draft)
        shutil.rmtree(draft.folder / "__pycache__", ignore_errors=True)
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in draft.folder.iterdir())
        try:
            os.rename(draft.folder, folder)
        except OSError as error:
            raise ScaffoldError(f"{folder}: cannot be created ({error})") from error
    return NewModel(folder, draft.guess, lines, features, leaks)


@dataclass(frozen=True)
class Draft:
    """A model folder that is not in its final place yet, and its inputs."""

    folder: Path
    model: Model
    guess: Guess
    raw: RawTable


@contextmanager
def drafted(
    root: Path, name: str, table: Path | str, target: str, *, time: str = "", key: str = "", task: Asked = "",
    header: int = 0, forecast: str = "", series: str = "",
) -> Iterator[Draft]:  # fmt: skip
    """Yields an imported draft folder and deletes it at the end, unless it has been moved away.

    Arguments and errors are those of :func:`new_model`.
    """
    if task not in ("", "binary", "multiclass", "regression"):
        raise ScaffoldError(f"TASK={task}: use binary, multiclass or regression, or leave it out")
    if header < 0:
        raise ScaffoldError(f"HEADER={header}: give the number of the line with the column names, counted from 1")
    if is_database(table):
        raw = read_database(root, str(table))
        path = str(raw.path)
    else:
        raw = read_any_table(root, table, header=header, named=lambda cell: is_named(cell, target))
        path = path_in(root, Path(table)) if raw.source is None else str(raw.path)
        if raw.source is not None and "{day" in raw.source.arguments["path"] and not time:
            raise ScaffoldError(f"TABLE={table}: files by day need TIME=column, the time of each row")
    found = guess(raw, target, time=time, key=key, task=task, forecast=_hours(forecast), series=series)
    files = files_of(name, _table_name(raw, name), path, raw, found)
    models = root / "assets" / "models"
    _sweep(models)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=models) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        _format(folder, root)
        with _imported(name, folder) as model:
            yield Draft(folder, model, found, raw)


def _hours(forecast: str) -> int:
    """The hours of ``24h`` or ``7d``; 0 without a forecast."""
    if not forecast:
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,3})([hd])", forecast.strip().lower())
    hours = int(found[1]) * (24 if found[2] == "d" else 1) if found else 0
    if not 1 <= hours <= 24 * LONGEST_DAYS:
        raise ScaffoldError(f"FORECAST={forecast}: give hours or days ahead, from 1h to {LONGEST_DAYS}d, e.g. 24h")
    return hours


def _sweep(models: Path) -> None:
    """Removes drafts that a killed process left behind: those older than an hour, because a draft lives for seconds."""
    for left in models.glob(".new-*"):
        if datetime.now().timestamp() - left.stat().st_mtime > 3_600:
            shutil.rmtree(left)


def _table_name(raw: RawTable, name: str) -> str:
    made = re.sub(r"[^a-z0-9]+", "_", raw.path.stem.lower()).strip("_")
    if not made or made[0].isdigit() or made in TAKEN or made.startswith("raw_") or keyword.iskeyword(made):
        made = f"{name}_rows"
    return made


def _format(folder: Path, root: Path) -> None:
    """Formats the files with ruff if it is installed; the code is the same without it."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        return
    command = [str(ruff), "format", "--quiet", "--config", str(root / "pyproject.toml"), str(folder)]
    subprocess.run(command, check=False, capture_output=True)


@contextmanager
def _imported(name: str, draft: Path) -> Iterator[Model]:
    """Yields the declaration in a draft folder; afterwards nothing of it stays imported."""
    package = f"assets.models.{name}"
    spec = importlib.util.spec_from_file_location(
        package, draft / "__init__.py", submodule_search_locations=[str(draft)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    try:
        spec.loader.exec_module(module)
        yield module.model
    except DeclarationError as error:
        raise ScaffoldError(f"the generated declaration is invalid: {error}") from error
    finally:
        for loaded in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[loaded]


def _try_day(draft: Draft) -> None:
    """Lands a day from the source, as the lifecycle will. Raises :class:`ScaffoldError` if it has other rows."""
    source, clock = draft.model.table.source, draft.guess.clock
    if draft.raw.source is None or clock is None or not isinstance(source, Stream):
        return
    if "{day" in draft.raw.source.arguments.get("path", ""):
        return  # a folder may have rows of an earlier day
    times = moments(draft.raw.rows[clock.column.header], clock.column.form)
    expected = int((times.dt.date == clock.last).sum())
    try:
        landed = len(source.land(clock.last))
    except SourceError as error:
        raise ScaffoldError(f"TIME={clock.column.header}: {error}") from error
    if landed != expected:
        raise ScaffoldError(
            f"TIME={clock.column.header}: {landed} rows land on {clock.last}, but {expected} of {draft.raw.path} are "
            "on this day; try again if rows are being written to it, else read a view that casts the time to a "
            "timestamp in UTC"
        )


def _try_out(model: Model, raw: RawTable) -> tuple[int, list[str]]:
    """Cleans all rows, computes features and checks for leaks; returns the number of features and the leaks."""
    from assets.lifecycle.dry_run import dry_run
    from assets.lifecycle.model.leakage import leaks
    from assets.lifecycle.model.training_set import fit_rows, test_rows

    tried = dry_run(model, raw.rows)
    if tried.refused_share > model.table.max_refused or tried.accepted.empty:
        worst = ", ".join(f"'{reason}' {n}" for reason, n in list(tried.reasons.items())[:3])
        raise ScaffoldError(f"{tried.refused_share:.0%} of the rows would be refused ({worst}); clean the file first")
    frozen = tried.frozen()
    found = leaks(frozen, model, fit=fit_rows(frozen, model), test=test_rows(frozen, model))
    return tried.features().shape[1], [leak.message for leak in found]
