"""The stages ``deploy``, ``smoke`` and ``promote``: a release into an environment, tested there, then in production.

Belongs here: the order and the conditions of these steps. Does not belong here: the settings of an environment
(``deploy/environments``), deployment targets (``resources/targets``), the ledger, the rules of the gate.

The tables of an environment are its own: a release brings a version and its evidence, never rows.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.declaration import Model
from assets.lifecycle.model.version.bundle import BundleError, loaded
from assets.lifecycle.model.version.verdicts import failures, record_verdict, verdicts_on
from assets.lifecycle.release.approval import approval_against, request_approval, waits_for_approval
from assets.lifecycle.release.promotion import promote_on_all
from assets.lifecycle.release.rollout import begin, progress_of, rollout_against, step_in_words, take, taken_back
from assets.lifecycle.release.staging import PARITY_TOLERANCE, largest_difference, request_scores_of_all
from pipeline.release import Release, facts_of, read, releases_in
from pipeline.stages import Folder, StageError, environment
from resources.settings import Settings, project_root
from resources.targets.base import DeploymentTarget, resource_key

Say = Callable[[str], None]

ENVIRONMENTS: Mapping[str, str] = {"staging": "staging", "production": "prod"}
"""The environments of the stages, and the value of ASSETLINE_ENV that chooses their settings."""
RELEASE_TAG = "release"
"""Tag of a version in an environment with the id of its release."""


@dataclass(frozen=True)
class Place:
    """An environment: its name, its settings and its resources by key."""

    name: str
    settings: Settings
    resources: Mapping[str, Any]

    def targets_of(self, model: Model) -> dict[str, DeploymentTarget]:
        """The deployment targets of a model by name, in the declared order."""
        return {name: self.resources[resource_key(name)] for name in model.targets}


@contextlib.contextmanager
def place_of(name: str) -> Iterator[Place]:
    """Yields an environment, prepared; processes that start in the block have its settings.

    Raises:
        StageError: there is no such environment.
        SettingsError: its settings are not complete or not safe.
    """
    import dagster as dg
    from filelock import FileLock

    from resources.defaults import default_resources, default_targets
    from resources.home import prepare

    if name not in ENVIRONMENTS:
        raise StageError(f"ENV={name} is not an environment; the environments are: {', '.join(ENVIRONMENTS)}")
    with environment(variables_of(name) | {"DAGSTER_HOME": None}):
        settings = Settings.from_env()
        prepare(settings)
        resources = default_resources(settings, {})
        targets = default_targets(settings, resources["mlflow"], resources["ledger"])
        keys = ["mlflow", "ledger", "request_log", "tables", *map(resource_key, targets)]
        wanted = {key: resources[key] for key in keys}
        with FileLock(settings.home / ".delivery.lock"), dg.build_resources(wanted) as ready:
            yield Place(name, settings, {key: getattr(ready, key) for key in keys})


def variables_of(name: str) -> dict[str, str | None]:
    """The variables that choose the settings of an environment."""
    return {"ASSETLINE_ENV": ENVIRONMENTS[name]}


def deploy(folder: Folder, name: str, models: Sequence[str], say: Say) -> None:
    """Moves the releases into the registry of an environment. Nothing is served from it yet.

    A release that is already there is not moved again.

    Args:
        folder: the folder of the pipeline.
        name: the environment.
        models: names of models; empty: every model that has a release.
        say: called with one line for each release.

    Raises:
        StageError: there is no release, or one of its files is not as the gate left it.
    """
    found = releases(folder, models, stage=f"make deploy ENV={name}")
    with place_of(name) as place:
        for one in found:
            _moved(place, one, say)


def smoke(folder: Folder, name: str, declared: Sequence[Model], models: Sequence[str], say: Say) -> None:
    """Starts the released versions in an environment and compares their scores with those of the training.

    Args:
        folder: the folder of the pipeline.
        name: the environment.
        declared: the declarations.
        models: names of models; empty: every model that has a release.
        say: called with one line for each version.

    Raises:
        StageError: a release was not deployed there, or a version does not answer as it should.
    """
    found = releases(folder, models, stage=f"make smoke ENV={name}")
    by_name = _declarations(found, declared)
    with place_of(name) as place:
        for one in found:
            version = _version_in(place, one)
            if version is None:
                raise StageError(
                    f"release {one.id} of {one.manifest.model} is not in {name}; run `make deploy ENV={name}` first"
                )
            _tested(place, one, by_name[one.manifest.model], version, say)
    folder.record(_tested_in(name), {"releases": {one.manifest.model: one.id for one in found}})


def promote(folder: Folder, name: str, declared: Sequence[Model], models: Sequence[str], who: str, say: Say) -> None:
    """Promotes the released versions in an environment, by its ledger and its deployment target.

    A release that is not there yet is deployed and tested first.

    Args:
        folder: the folder of the pipeline.
        name: the environment.
        declared: the declarations, which say whether an approval is needed.
        models: names of models; empty: every model that has a release.
        who: who promotes, for the ledger.
        say: called with one line for each step.

    Raises:
        StageError: a release was not tested in staging, is not of the protected branch or a tag, or has verdicts or a
            missing approval against it. The ledger has an entry with the reason.
    """
    found = releases(folder, models, stage=f"make promote ENV={name}")
    by_name = _declarations(found, declared)
    if name == "production":
        _refuse_untested(folder, found)
    with place_of(name) as place:
        for one in found if name == "production" else ():  # all of them, before the first changes anything
            _refuse_unprotected(one, place.settings)
        for one in found:
            version, model = _moved(place, one, say), by_name[one.manifest.model]
            if not verdicts_on(place.resources["mlflow"], model, version)["staging"]["passed"]:
                _tested(place, one, model, version, say)
            _go_live(place, one, model, version, who, say)


def releases(folder: Folder, models: Sequence[str], *, stage: str) -> list[Release]:
    """The releases that the gate left, each with its hashes verified.

    Raises:
        StageError: there is none, or none of a model that was asked for, or one is damaged.
    """
    found = [read(path) for path in releases_in(folder.releases)]
    there = {one.manifest.model: one for one in found}
    if not found:
        raise StageError(
            f"`{stage}` needs `make gate`, which has released nothing: {folder.releases} is empty; run it first, or "
            "fetch the artifacts of its job"
        )
    if absent := [model for model in models if model not in there]:
        raise StageError(f"there is no release of {', '.join(absent)}; there are releases of: {', '.join(there)}")
    return [one for one in found if not models or one.manifest.model in models]


def _version_in(place: Place, one: Release) -> str | None:
    version = place.resources["mlflow"].version_of(one.manifest.model, {RELEASE_TAG: one.id})
    return None if version is None else str(version)


def _moved(place: Place, one: Release, say: Say) -> str:
    """Registers a release as a version of the environment, with its evidence; returns the version."""
    mlflow, manifest = place.resources["mlflow"], one.manifest
    if (there := _version_in(place, one)) is not None:
        say(f"release {one.id} of {manifest.model} is version {there} in {place.name} already")
        return there
    gate = json.dumps({"passed": True, "reasons": list(manifest.gate)})
    tags = {**facts_of(manifest), RELEASE_TAG: one.id, "verdict.gate": gate}
    version = mlflow.adopt(
        manifest.model, one.bundle, one.evidence, run_tags=one.run["tags"], params=one.run["params"], tags=tags,
        loader_module="assets.lifecycle.model.version.bundle",
    )  # fmt: skip
    say(f"release {one.id} of {manifest.model} is version {version} in {place.name}")
    return str(version)


def _tested(place: Place, one: Release, model: Model, version: str, say: Say) -> None:
    """Starts a version through the deployment target, compares its scores, and records the verdict."""
    X, expected = one.probe
    fault = _smoke_fault(place, model, version, X, expected)
    reason = fault or f"{len(X)} rows score over HTTP as where the version was trained"
    record_verdict(place.resources["mlflow"], model, version, "staging", not fault, [reason])
    if fault:
        raise StageError(f"version {version} of {model.name} fails its smoke test in {place.name}: {reason}")
    say(f"version {version} of {model.name} passed its smoke test in {place.name}: {reason}")


def _smoke_fault(place: Place, model: Model, version: str, X: np.ndarray, expected: np.ndarray) -> str:
    """What is wrong with a version in an environment; empty if nothing is."""
    directory = place.resources["mlflow"].download(model.name, version)
    try:
        bundle = loaded(directory)
        offline = bundle.predict(X)
    except BundleError as error:
        return str(error)
    response = request_scores_of_all(place.targets_of(model), directory, bundle, version, X)
    if response.scores is None:
        return response.fault
    for what, scores in (("offline scores here", offline), ("scores where it was trained", expected)):
        difference = largest_difference(bundle, scores, response.scores)
        if not difference <= PARITY_TOLERANCE:  # NaN is not equal
            return f"its scores over HTTP differ from the {what} by {difference:.1e}, more than {PARITY_TOLERANCE}"
    return ""


def _go_live(place: Place, one: Release, model: Model, version: str, who: str, say: Say) -> None:
    """Promotes a version by the ledger and the deployment targets, unless something speaks against it.

    A model with a rollout begins it, or goes on with it; its version is promoted once the rollout has arrived.
    """
    mlflow, ledger = place.resources["mlflow"], place.resources["ledger"]
    verdicts = verdicts_on(mlflow, model, version)
    facts: dict[str, Any] = {"verdicts": verdicts, "dagster_run": one.manifest.dagster_run, "who": who}
    before = ledger.champion(model.name)
    if before is not None and before.version == version:
        say(f"version {version} of {model.name} is live in {place.name} already: {before.reason}")
    else:
        against = failures(verdicts)
        if not against:
            request_approval(ledger, model, version, **facts)
            against = approval_against(ledger, model, version)
        if against:
            reason = " | ".join(against)
            if not waits_for_approval(ledger, model, version):
                ledger.refuse(model.name, version, reason=reason, **facts)
            raise StageError(f"version {version} of {model.name} is not promoted in {place.name}: {reason}")
        if rollout_against(ledger, model, version) and not _rolled_out(place, model, version, who, say):
            return
        reason = "; ".join(verdicts["gate"]["reasons"])
        promote_on_all(
            place.targets_of(model), ledger, model.name, version, reason=f"release {one.id}: {reason}", **facts
        )
        say(f"version {version} of {model.name} is promoted in {place.name} by {who}: {reason}")
        return
    for target in place.targets_of(model).values():
        if target.follows_ledger:  # a kill between the ledger's entry and the alias leaves the alias outdated
            target.promote(model.name, version)


def _rolled_out(place: Place, model: Model, version: str, who: str, say: Say) -> bool:
    """Begins the rollout of a version, or takes its next step; whether the version answers everything."""
    ledger, facts = place.resources["ledger"], {"dagster_run": "", "who": who}
    if (entry := taken_back(ledger, model.name, version)) is not None:
        raise StageError(f"version {version} of {model.name} was taken back in {place.name}: {entry.reason}")
    begin(ledger, model, version, **facts)
    tables, log = place.resources["tables"], place.resources["request_log"]
    progress = progress_of(model, ledger, log, tables, dt.datetime.now(dt.UTC))
    assert progress is not None
    entry = take(ledger, model, progress, **facts)
    if entry.action == "abort":
        raise StageError(f"version {version} of {model.name} was taken back in {place.name}: {entry.reason}")
    if not rollout_against(ledger, model, version):
        return True
    say(f"{model.name}: {step_in_words(entry)} in {place.name}; `make promote` again once its rollout has arrived")
    return False


def _tested_in(name: str) -> str:
    return f"smoke-{name}.json"


def _declarations(found: Sequence[Release], declared: Sequence[Model]) -> dict[str, Model]:
    """The declarations of the released models by name."""
    by_name = {model.name: model for model in declared}
    for one in found:
        if one.manifest.model not in by_name:
            raise StageError(f"the model '{one.manifest.model}' of {one.folder} is not declared; release it again")
    return by_name


def _refuse_untested(folder: Folder, found: Sequence[Release]) -> None:
    """Refuses releases that did not pass the smoke test in staging."""
    tested = folder.recorded(
        _tested_in("staging"), stage="make promote ENV=production", needs="make smoke ENV=staging"
    )["releases"]
    for one in found:
        if tested.get(one.manifest.model) != one.id:
            raise StageError(
                f"release {one.id} of {one.manifest.model} has not passed the smoke test in staging; run "
                "`make deploy ENV=staging` and `make smoke ENV=staging` first"
            )


def _refuse_unprotected(one: Release, settings: Settings) -> None:
    """Refuses a release whose commit is neither on the protected branch nor tagged, or whose files were changed."""
    branch, commit = settings.protected_branch, one.manifest.commit
    what = f"release {one.id} of {one.manifest.model}"
    if one.manifest.dirty:
        raise StageError(f"{what} was trained with changes that are not in commit {commit[:10]}; commit them and train")
    if not is_protected(commit, branch):
        raise StageError(
            f"{what} is of commit {commit[:10]}, which is neither on the protected branch {branch} nor tagged; merge "
            "it, or fetch the branch with its history"
        )


def is_protected(commit: str, branch: str, root: Path | None = None) -> bool:
    """Whether a commit is on ``branch`` (the remote's, else the local one) or has a tag."""
    root = root or project_root()
    if _git(root, "tag", "--points-at", commit).stdout.strip():
        return True
    for ref in (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}"):
        if _git(root, "rev-parse", "--verify", "--quiet", ref).returncode == 0:
            return _git(root, "merge-base", "--is-ancestor", commit, ref).returncode == 0
    return False


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
