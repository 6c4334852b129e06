"""Tells people about a failed stage through the project's own alerts, and resolves the alert when the stage passes.

Belongs here: the alert of a stage, and links to the provider's page. Does not belong here: channels and their delivery
(``resources/alerts``).
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.stages import StageError
from resources.settings import Settings, project_name

if TYPE_CHECKING:
    from resources.alerts import Alert, Change

PASSED = ("success", "passed", "0")
"""Words of the providers for a stage that passed."""
URGENT = ("deploy", "smoke", "promote")
"""Stages whose failure is a page: a release is on its way. That of any other stage is a warning."""


@dataclass(frozen=True)
class Job:
    """Where a stage runs, from the variables of the provider.

    Args:
        url: page of the job; empty if it runs by hand.
        commit, branch: what it runs on; empty if they are unknown.
        who: who started it; empty if it is unknown.
        request: whether it runs for a merge or pull request.
    """

    url: str
    commit: str
    branch: str
    who: str
    request: bool


def job_of(env: Mapping[str, str]) -> Job:
    """Reads the variables of GitHub, GitLab, Jenkins and Travis."""

    def first(*names: str) -> str:
        return next((env[name] for name in names if env.get(name)), "")

    url = first("CI_JOB_URL", "BUILD_URL", "TRAVIS_JOB_WEB_URL")
    if env.get("GITHUB_RUN_ID"):
        url = (
            f"{env.get('GITHUB_SERVER_URL', '')}/{env.get('GITHUB_REPOSITORY', '')}/actions/runs/{env['GITHUB_RUN_ID']}"
        )
    return Job(
        url=url,
        commit=first("CI_COMMIT_SHA", "GITHUB_SHA", "GIT_COMMIT", "TRAVIS_COMMIT"),
        branch=first("CI_COMMIT_REF_NAME", "GITHUB_REF_NAME", "TAG_NAME", "BRANCH_NAME", "TRAVIS_TAG", "TRAVIS_BRANCH"),
        who=first("GITLAB_USER_LOGIN", "GITHUB_ACTOR", "BUILD_USER_ID"),
        request=bool(first("CI_MERGE_REQUEST_IID", "GITHUB_HEAD_REF", "CHANGE_ID"))
        or env.get("TRAVIS_PULL_REQUEST", "false") != "false",
    )


def nothing_to_tell(settings: Settings, stage: str, status: str, env: Mapping[str, str] | None = None) -> str:
    """Says why nobody has to be told about a stage; empty if somebody has. Arguments are those of :func:`tell`.

    A stage that passes on a fresh machine ends here, without the seconds that the alerts take to import.

    Raises:
        StageError: the stage has no name.
    """
    name = stage.strip().lower()
    if not name:
        raise StageError("STAGE is empty; name the stage, e.g. `make tell-failure STAGE=gate`")
    if job_of(os.environ if env is None else env).request:
        return f"the stage {name}: {status}; the provider tells the author of the request, so no alert is opened"
    if status in PASSED and _no_alerts_yet(settings):
        return f"the stage {name} passed; there is nothing to tell"
    return ""


def tell(settings: Settings, stage: str, status: str, env: Mapping[str, str] | None = None) -> str:
    """Opens the alert of a failed stage, or resolves it if the stage passed, and delivers the change.

    Args:
        settings: the database of the alerts and the channels.
        stage: name of the stage, e.g. ``gate``.
        status: what the provider says of it, one of :data:`PASSED` or any other word.
        env: variables of the provider; default: those of this process.

    Returns:
        What was done, in one sentence.

    Raises:
        StageError: the stage has no name, or a channel cannot be reached; the alert is stored all the same.
        ChannelsError: the secret of a channel is not set.
    """
    if said := nothing_to_tell(settings, stage, status, env):
        return said
    stage, job = stage.strip().lower(), job_of(os.environ if env is None else env)
    from resources.alerts import Alerts, AlertStore, Messenger
    from resources.alerts.causes import PIPELINE
    from resources.alerts.delivery import deliver_all
    from resources.alerts.runbooks import runbook_of

    alerts = Alerts.from_settings(settings).process_config_and_initialize()
    # A machine of a provider is gone in seconds, so the change does not wait for others to share a message.
    routes = [replace(channel.route(name), delay=dt.timedelta(0)) for name, channel in alerts.declared.items()]
    store = AlertStore(alerts.database_url, routes)
    cause, model = f"{PIPELINE}{stage}", project_name()
    where = " ".join(part for part in (f"on {job.branch}" if job.branch else "", job.commit[:10]) if part)
    changed: tuple[Alert, Change] | None
    if status in PASSED:
        changed = store.resolve(model, cause, reason=f"the stage {stage} passed {where}".strip())
        words = "its alert is resolved" if changed else "there is nothing to tell"
        said_of_stage = f"the stage {stage} passed; {words}"
    else:
        changed = store.report(
            model,
            cause,
            severity="page" if stage in URGENT else "warn",
            summary=f"the stage {stage} of the pipeline failed {where}".strip(),
            runbook=runbook_of(cause),
            links={"job": job.url} if job.url else {},
        )
        said_of_stage = f"the stage {stage} failed; this is alert {changed[0].id}" if changed else ""
    alerts.tell(changed)
    deliver_all([Messenger(store, name, channel, alerts.addresses) for name, channel in alerts.channels().items()])
    unreached = {name: one for name, one in store.outbox.backlog().items() if one.error}
    if unreached:
        reasons = "; ".join(f"{name} ({one.error})" for name, one in unreached.items())
        raise StageError(
            f"{said_of_stage}, but not every channel could be reached, and the message waits for it: {reasons}"
        )
    return said_of_stage


def _no_alerts_yet(settings: Settings) -> bool:
    """Whether the database of the alerts is a file that does not exist."""
    prefix = "sqlite:///"
    return settings.database_url.startswith(prefix) and not Path(settings.database_url.removeprefix(prefix)).exists()
