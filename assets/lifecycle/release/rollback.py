"""Rollback: puts an earlier version back into production, after it has answered in a process of its own.

Belongs here: the conditions of a rollback, the test of the old version, the ledger entry, the job for the launchpad.
Does not belong here: the first promotion of a version (``deployment.py``), the command (``cli/ledger.py``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the op.

from collections.abc import Mapping, Sequence

import dagster as dg
from pydantic import Field

from assets.declaration import Model
from assets.lifecycle.model.version.bundle import BundleError, loaded
from assets.lifecycle.release.promotion import PromotionError, promote_on_all
from assets.lifecycle.release.staging import PARITY_TOLERANCE, largest_difference, probe_rows, request_scores_of_all
from resources.ledger import Entry, Ledger
from resources.mlflow import MlflowTracking, TrackingError
from resources.targets.base import DeploymentTarget, resource_key


class RollbackError(Exception):
    """A rollback that cannot be made. Nothing was changed; the message gives the reason and the fix."""


def roll_back(
    name: str,
    *,
    to: str = "",
    why: str,
    who: str,
    dagster_run: str = "",
    mlflow: MlflowTracking,
    ledger: Ledger,
    targets: Mapping[str, DeploymentTarget],
) -> Entry:
    """Promotes a version that was in production before.

    The version is started in a temporary service on each target first. It must answer over HTTP as it does offline.

    Args:
        name: name of the model.
        to: version to promote; default: the one before the version in production.
        why: reason, for the ledger.
        who: who rolls back, for the ledger.
        dagster_run: id of the run, if a run does it.
        mlflow, ledger: the resources.
        targets: the targets of the model by name, in the declared order.

    Returns:
        The ledger entry.

    Raises:
        RollbackError: there is no such version, its files are gone or damaged, it does not answer as it should, or a
            target cannot put it back.
    """
    if not why.strip():
        raise RollbackError("a rollback needs a reason; say why")
    champion = ledger.champion(name)
    if champion is None:
        known = sorted({entry.model for entry in ledger.history() if entry.action == "promote"})
        raise RollbackError(
            f"no version of '{name}' is in production; models in production: {', '.join(known) or 'none'}"
        )
    version = to or champion.previous
    earlier = {entry.version for entry in ledger.history(name) if entry.action == "promote"} - {champion.version}
    choice = f"versions that were in production before: {', '.join(sorted(earlier, key=_number)) or 'none'}"
    if version is None:
        raise RollbackError(
            f"version {champion.version} of {name} is the first in production; there is no version before it"
        )
    if version == champion.version:
        raise RollbackError(f"version {version} of {name} is in production already; {choice}")
    if version not in earlier:
        raise RollbackError(f"version {version} of {name} was never in production; {choice}")
    tested = _tested(name, version, champion.version, mlflow, targets)
    reason = f"rollback from version {champion.version}: {why.strip()}"
    verdicts = {"rollback": {"passed": True, "reasons": [reason, tested]}}
    try:
        return promote_on_all(
            targets,
            ledger,
            name,
            version,
            reason=reason,
            verdicts=verdicts,
            dagster_run=dagster_run,
            who=who,
            back=True,
        )
    except PromotionError as error:
        raise RollbackError(str(error)) from error


def _tested(
    name: str, version: str, champion: str, mlflow: MlflowTracking, targets: Mapping[str, DeploymentTarget]
) -> str:
    """Starts the version in a temporary process and compares its scores; returns what was found."""
    stays = f"version {champion} stays in production"
    try:
        directory = mlflow.download(name, version)
        bundle = loaded(directory)
    except (TrackingError, BundleError, OSError) as error:
        raise RollbackError(f"the files of version {version} of {name} cannot be read ({error}); {stays}") from error
    X = probe_rows(len(bundle.facts.feature_names))
    response = request_scores_of_all(targets, directory, bundle, version, X)
    if response.scores is None:
        raise RollbackError(f"version {version} of {name} does not serve ({response.fault}); {stays}")
    difference = largest_difference(bundle, bundle.predict(X), response.scores)
    if not difference <= PARITY_TOLERANCE:
        raise RollbackError(
            f"version {version} of {name} scores over HTTP differ from offline by {difference:.1e}; {stays}"
        )
    return f"it started in a process of its own and scored {len(X)} rows as it does offline"


def _number(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (0, version)


class RollbackConfig(dg.Config):
    """Config of the rollback job."""

    model: str = Field(description="Name of the model.")
    to: str = Field(default="", description="Version to promote; empty: the one before the version in production.")
    why: str = Field(description="Reason, for the ledger.")
    who: str = Field(description="Your name, for the ledger.")


def rollback_job(models: Sequence[Model] = ()) -> dg.JobDefinition:
    """Returns ``model_rollback`` for the declared models; the launchpad edits its config."""
    names = {model.name: tuple(model.targets) for model in models}
    keys = {resource_key(target) for declared in names.values() for target in declared} | {resource_key("local")}

    @dg.op(name="rollback", required_resource_keys={"mlflow", "ledger", *keys})
    def rolling(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
        """Puts an earlier version back into production, after it has answered in a service of its own."""
        declared = names.get(config.model, ("local",))
        targets = {name: getattr(context.resources, resource_key(name)) for name in declared}
        try:
            entry = roll_back(
                config.model, to=config.to, why=config.why, who=config.who, dagster_run=context.run_id,
                mlflow=context.resources.mlflow, ledger=context.resources.ledger, targets=targets,
            )  # fmt: skip
        except RollbackError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        context.log.info(f"version {entry.version} of {entry.model} is in production, in place of {entry.previous}")

    @dg.job(name="model_rollback", description="Puts an earlier version of a model back into production.")
    def rolling_back() -> None:
        rolling()

    return rolling_back
