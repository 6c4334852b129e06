"""The stages in their order, the folder that travels between them, and the records that they leave in it.

Belongs here: order, records, and the refusal of a stage whose predecessor has not run. Does not belong here: what a
stage does.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STAGES: Final = (
    "make lint",
    "make unit",
    "make integration",
    "make performance",
    "make train",
    "make gate",
    "make compare",
    "make image WHAT=service",
    "make deploy ENV=staging",
    "make smoke ENV=staging",
    "make promote ENV=production",
)
"""The stages of every provider, in this order. ``tests/pipelines`` compares each provider's file with it."""

TRAINED, STATE = "train.json", "state.tar.gz"
"""The record of the stage ``train``, and the packed state folder."""


class StageError(Exception):
    """A stage that cannot run or does not pass. The message is one sentence with the reason and the fix."""


@dataclass(frozen=True)
class Folder:
    """The folder of a pipeline run.

    Args:
        root: absolute path; ``build`` in the checkout by default.
    """

    root: Path

    @property
    def home(self) -> Path:
        """State folder of the pipeline."""
        return self.root / "home"

    @property
    def state(self) -> Path:
        """Records and the packed state folder."""
        return self.root / "state"

    @property
    def releases(self) -> Path:
        """One folder per model that the gate passed."""
        return self.root / "releases"

    @property
    def reports(self) -> Path:
        """What people read."""
        return self.root / "reports"

    def report(self, model: str, name: str) -> Path:
        """Path of a report on a model; its folder exists afterwards."""
        path = self.reports / model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes the record of a stage, complete or not at all."""
        self.state.mkdir(parents=True, exist_ok=True)
        write(self.state / name, json.dumps({"at": _now(), **values}, indent=1, default=str))

    def recorded(self, name: str, *, stage: str, needs: str) -> dict[str, Any]:
        """Reads the record that ``stage`` needs.

        Args:
            name: file of the record.
            stage: the stage that reads it, for the message.
            needs: the make target that writes it.

        Raises:
            StageError: there is no such record, or it is damaged.
        """
        path = self.state / name
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise StageError(
                f"`{stage}` needs `{needs}`, which has not run here: {path} is missing; run it first, or fetch the "
                "artifacts of its job"
            ) from error
        except ValueError as error:
            raise StageError(f"{path} is damaged ({error}); run `{needs}` again") from error


def write(path: Path, text: str) -> None:
    """Writes a file under a temporary name first, so that it is complete or as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def replace_folder(made: Path, at: Path) -> None:
    """Moves the finished folder ``made`` to ``at``; a folder that is there is removed first."""
    at.parent.mkdir(parents=True, exist_ok=True)
    old = at.with_name(f".{at.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if at.exists():
        os.replace(at, old)
    os.replace(made, at)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def environment(changed: Mapping[str, str | None]) -> Iterator[None]:
    """Sets variables (``None`` removes one) for a block and the processes that it starts; restores them afterwards."""
    before = {name: os.environ.get(name) for name in changed}
    _set(changed)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
