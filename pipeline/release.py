"""A release: a model version that passed the gate, as a folder that any environment can take in.

    manifest.json   model, version, commit, data version, verdict of the gate, and the SHA-256 of every other file
    bundle/         the files of the version (``assets/lifecycle/model/version/bundle.py``)
    evidence/       evaluation, model card, parameters and tags of the MLflow run, and ``probe.npz``
    evidence/probe.npz   rows of features float32 ``[n, n_features]`` and their scores where the version was trained

Belongs here: writing that folder, and reading it with all hashes verified. Does not belong here: taking it into an
environment (``delivery.py``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.lifecycle.model.training_set import matrix, test_rows
from assets.lifecycle.model.version.bundle import loaded
from assets.lifecycle.model.version.verdicts import verdicts_on
from assets.lifecycle.release.model_card import HTML, MARKDOWN, html, markdown, read_facts
from assets.lifecycle.release.staging import PARITY_ROWS
from pipeline.stages import StageError, replace_folder
from resources.settings import project_root

if TYPE_CHECKING:
    from runner import Runner

FORMAT = 1
"""Version of the folder's layout."""
MANIFEST, BUNDLE, EVIDENCE, PROBE, RUN = "manifest.json", "bundle", "evidence", "probe.npz", "run.json"
EVALUATION = ("evaluation.html", "evaluation.json")
MLMODEL = "MLmodel"
"""Written by the registry for its own run, so each registry writes its own."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a release says about itself.

    Args:
        format: version of the layout.
        model: name of the model.
        version: its version in the pipeline's registry; an environment gives it a version of its own.
        commit: commit that it was trained at, or the reason why it is unknown.
        dirty: whether files differed from the commit.
        lock: SHA-256 of ``constraints.txt``.
        data_version, code: of the version.
        gate: reasons of the gate's verdict.
        dagster_run: run that trained it.
        files: SHA-256 of each file by its path in the folder.
    """

    format: int
    model: str
    version: str
    commit: str
    dirty: bool
    lock: str
    data_version: str
    code: str
    gate: tuple[str, ...]
    dagster_run: str
    files: Mapping[str, str]

    @property
    def text(self) -> str:
        """The manifest as it is stored."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)


@dataclass(frozen=True)
class Release:
    """A release whose files have the hashes of its manifest."""

    folder: Path
    manifest: Manifest
    id: str
    """The first 16 hex digits of the manifest's SHA-256; it covers every file."""

    @property
    def bundle(self) -> Path:
        """The files of the version."""
        return self.folder / BUNDLE

    @property
    def evidence(self) -> Path:
        """What speaks for the version."""
        return self.folder / EVIDENCE

    @property
    def probe(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of features float32 ``[n, n_features]``, and their scores ``[n]`` or ``[n, classes]``."""
        with np.load(self.evidence / PROBE, allow_pickle=False) as stored:
            return stored["features"], stored["scores"]

    @property
    def run(self) -> dict[str, dict[str, str]]:
        """``params`` and ``tags`` of the MLflow run."""
        return dict(json.loads((self.evidence / RUN).read_text(encoding="utf-8")))


def release(folder: Path, runner: Runner, version: str) -> Release:
    """Writes the release of a version that passed the gate; an earlier one in ``folder`` is replaced.

    Args:
        folder: where the release goes.
        runner: runner on the state folder that holds the version and its training set.
        version: the version.

    Raises:
        StageError: the gate has not passed the version.
    """
    model, mlflow = runner.model, runner.resources["mlflow"]
    verdict = verdicts_on(mlflow, model, version)["gate"]
    if not verdict["passed"]:
        reasons = "; ".join(verdict["reasons"])
        raise StageError(f"version {version} of {model.name} is not released, because of the gate: {reasons}")
    run_id = mlflow.run_of_version(model.name, version)
    tags, params = mlflow.run_facts(run_id)
    source, bundle = mlflow.download(model.name, version), loaded(mlflow.download(model.name, version))
    frozen = runner.tables.read(model.key("training_set"))
    X = matrix(frozen[test_rows(frozen, model)].head(PARITY_ROWS), model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "release"
        shutil.copytree(source, made / BUNDLE, ignore=shutil.ignore_patterns(MLMODEL, "__pycache__", "*.pyc"))
        evidence = made / EVIDENCE
        evidence.mkdir()
        for name in EVALUATION:
            (evidence / name).write_text(mlflow.read_text(run_id, name) or "", encoding="utf-8")
        card = read_facts(model.name, version, mlflow, runner.resources["ledger"])
        (evidence / MARKDOWN).write_text(markdown(card, model), encoding="utf-8")
        (evidence / HTML).write_text(html(card, model), encoding="utf-8")
        run = {
            "params": params,
            "tags": {name: value for name, value in tags.items() if not name.startswith("mlflow.")},
        }
        (evidence / RUN).write_text(json.dumps(run, indent=1, sort_keys=True), encoding="utf-8")
        np.savez(evidence / PROBE, features=X, scores=bundle.predict(X))
        manifest = Manifest(
            format=FORMAT,
            model=model.name,
            version=version,
            commit=tags.get("git_commit", "unknown"),
            dirty=tags.get("git_dirty") == "true",
            lock=_digest(project_root() / "constraints.txt"),
            data_version=str(bundle.facts.fitted.get("data_version", "")),
            code=bundle.facts.code,
            gate=tuple(verdict["reasons"]),
            dagster_run=tags.get("dagster_run_id", ""),
            files=_hashes(made),
        )
        (made / MANIFEST).write_text(manifest.text, encoding="utf-8")
        replace_folder(made, folder)
    return read(folder)


def read(folder: Path) -> Release:
    """Reads a release and verifies the hash of every file.

    Raises:
        StageError: the manifest is damaged or of a newer layout, or a file is missing, changed or not in the manifest.
    """
    path = folder / MANIFEST
    again = "run `make gate` again, or fetch the artifacts of its job again"
    try:
        text = path.read_text(encoding="utf-8")
        stored = json.loads(text)
        manifest = Manifest(**{**stored, "gate": tuple(stored["gate"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StageError(f"{path} is no manifest of a release ({error}); {again}") from error
    if manifest.format != FORMAT:
        raise StageError(f"{path} has the layout {manifest.format}, and this project reads {FORMAT}; {again}")
    found = _hashes(folder)
    wrong = sorted(name for name in {*found, *manifest.files} if found.get(name) != manifest.files.get(name))
    if wrong:
        what = "changed" if wrong[0] in found and wrong[0] in manifest.files else "missing"
        what = what if wrong[0] in manifest.files else "not in the manifest"
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise StageError(f"{folder / wrong[0]} is {what}{more}, so the release is not used; {again}")
    return Release(folder, manifest, hashlib.sha256(text.encode()).hexdigest()[:16])


def releases_in(folder: Path) -> list[Path]:
    """The folders of the releases in ``folder``, by model."""
    return sorted(path.parent for path in folder.glob(f"[a-z]*/{MANIFEST}"))


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a release except its manifest, by path."""
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """What a registry stores of a release as tags of the version, by tag."""
    return {
        "data_version": manifest.data_version,
        "code": manifest.code,
        "git_commit": manifest.commit,
        "git_dirty": str(manifest.dirty).lower(),
        "lock": manifest.lock,
    }
