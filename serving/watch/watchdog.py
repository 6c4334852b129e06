"""Health checks from outside Dagster: stopped daemons, sensors and schedules, stale tables, the scoring service.

Belongs here: polling (Dagster's GraphQL, the scoring service's health) and evaluating the responses. Does not belong
here: the lifecycle of an alert (``resources/alerts``). A sensor cannot detect that the daemon died, and Dagster
notifies nobody when a sensor stops. So the watchdog runs in the watch, a process of the supervisor.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resources.alerts import Alert, AlertStore, Change, Severity
from resources.alerts.causes import DAEMON, DEGRADED, DOWN, LOCATION, SCHEDULE, SENSOR, STALE, WATCHED, WEBSERVER
from resources.alerts.runbooks import runbook_of

_log = logging.getLogger("assetline.watchdog")

DAEMON_SILENT_S = 120.0
"""Seconds without a heartbeat after which a daemon counts as stopped. A daemon sends one every 30 s; Dagster itself
reports it as dead after 30 minutes."""
TICK_GRACE_S = 180.0
"""Seconds that a sensor may be late after three of its intervals, or a schedule after its scheduled time."""
CONFIRMED_AFTER = 2
"""Number of consecutive checks that must show a problem, so that one slow response does not raise an alert."""
NOBODY = "assetline"
"""Model name of alerts that belong to no model."""

_QUERY = """query Watch($graceAgo: Float!) {
  instance { daemonHealth { allDaemonStatuses { daemonType required lastHeartbeatTime
    lastHeartbeatErrors { message } } } }
  workspaceOrError { __typename
    ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
      __typename
      ... on PythonError { message }
      ... on RepositoryLocation { repositories {
        sensors { name minIntervalSeconds defaultStatus
          sensorState { status ticks(limit: 2) { timestamp status error { message } } } }
        schedules { name defaultStatus potentialTickTimestamps(startTimestamp: $graceAgo, upperLimit: 1, lowerLimit: 1)
          scheduleState { status ticks(limit: 2) { timestamp status error { message } } } }
      } }
    } } }
    ... on PythonError { message } }
  assetNodes { assetKey { path } freshnessStatusInfo { freshnessStatus } }
}"""
_FRESH = ("HEALTHY", "UNKNOWN", "NOT_APPLICABLE")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A current problem: the model, cause, severity and summary of its alert.

    Raises:
        ValueError: ``resources/alerts/causes.py`` does not list the cause for the watchdog.
    """

    model: str
    cause: str
    severity: Severity
    summary: str

    def __post_init__(self) -> None:
        if not self.cause.startswith(WATCHED):
            raise ValueError(
                f"{self.cause} is not a cause of the watchdog; add its prefix to resources/alerts/causes.py"
            )


def problems_of_dagster(seen: Mapping[str, Any], models: Sequence[str], now: float, started: float) -> list[Problem]:
    """The problems in a response of Dagster's GraphQL API.

    Args:
        seen: data of the response to this module's query.
        models: names of the declared models; sensors, schedules and tables are assigned to models by name.
        now: Unix time of the response.
        started: Unix time of the watch's start; heartbeats and ticks are not overdue until enough time has passed.
    """
    return [
        *_of_daemons(seen["instance"]["daemonHealth"]["allDaemonStatuses"], now, started),
        *_of_locations(seen["workspaceOrError"], models, now, started),
        *_of_freshness(seen["assetNodes"], models),
    ]


def _page(cause: str, summary: str, model: str = NOBODY) -> Problem:
    return Problem(model=model, cause=cause, severity="page", summary=summary)


def _of_daemons(statuses: Sequence[Mapping[str, Any]], now: float, started: float) -> Iterator[Problem]:
    for daemon in statuses:
        beat, name = daemon["lastHeartbeatTime"] or 0.0, daemon["daemonType"].lower()
        if not daemon["required"]:
            continue
        if now - max(beat, started) > DAEMON_SILENT_S:
            since = f"since {_clock(beat)}" if beat else "so far"
            yield _page(f"{DAEMON}{name}", f"Dagster's {name} daemon has sent no heartbeat {since}")
        elif daemon["lastHeartbeatErrors"]:
            message = _first_line(daemon["lastHeartbeatErrors"][0]["message"])
            yield _page(f"{DAEMON}{name}", f"Dagster's {name} daemon fails: {message}")


def _of_locations(workspace: Mapping[str, Any], models: Sequence[str], now: float, started: float) -> Iterator[Problem]:
    if workspace["__typename"] == "PythonError":
        yield _page(LOCATION, f"the workspace does not load: {_first_line(workspace['message'])}")
    for entry in workspace.get("locationEntries", ()):
        location = entry["locationOrLoadError"] or {"__typename": "still loading"}
        if location["__typename"] == "PythonError":
            yield _page(LOCATION, f"{entry['name']} does not load: {_first_line(location['message'])}")
        for repository in location.get("repositories", ()):
            for sensor in repository["sensors"]:
                allowed = 3 * max(sensor["minIntervalSeconds"] or 30, 30) + TICK_GRACE_S
                yield from _of_ticks("sensor", sensor, sensor["sensorState"], now - allowed, started, models)
            for schedule in repository["schedules"]:
                due = min(schedule["potentialTickTimestamps"])  # the latest scheduled time before the grace period
                yield from _of_ticks("schedule", schedule, schedule["scheduleState"], due, started, models)


def _of_freshness(nodes: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Iterator[Problem]:
    for node in nodes:
        status = (node["freshnessStatusInfo"] or {}).get("freshnessStatus", "UNKNOWN")
        if status in _FRESH:
            continue
        model, *asset = node["assetKey"]["path"]
        yield Problem(
            model=model if model in models else NOBODY,
            cause=f"{STALE}{'/'.join(asset)}",
            severity="warn" if status == "WARNING" else "page",
            summary=f"{model}/{'/'.join(asset)} is not fresh ({status.lower()}): no new data arrived in time",
        )


def _of_ticks(
    kind: str, what: Mapping[str, Any], state: Mapping[str, Any], due: float, started: float, models: Sequence[str]
) -> Iterator[Problem]:
    """Problems of one sensor or schedule: off although on by default, no tick since ``due``, or latest ticks failed."""
    name = what["name"]
    model = max((model for model in models if name.startswith(f"{model}_")), key=len, default=NOBODY)
    ticks, cause = state["ticks"], f"{SENSOR if kind == 'sensor' else SCHEDULE}{name}"
    if state["status"] != "RUNNING":
        if what["defaultStatus"] == "RUNNING":
            message = f"the {kind} {name} is switched off; switch it on, or silence this alert while it should be off"
            yield Problem(model=model, cause=cause, severity="warn", summary=message)
        return
    last = ticks[0]["timestamp"] if ticks else 0.0
    failed = [tick for tick in ticks if tick["status"] == "FAILURE"]
    if last < due and started < due:
        since = f"since {_clock(last)}" if last else "so far"
        yield _page(cause, f"the {kind} {name} has not ticked {since}", model)
    elif failed and len(failed) == len(ticks):
        error = failed[0]["error"]
        message = _first_line(error["message"]) if error else "no reason is given"
        yield _page(cause, f"the {kind} {name} fails: {message}", model)


def problems_of_service(health: Mapping[str, Any]) -> list[Problem]:
    """The problems in a ``/health`` response of the scoring service; waiting for a first version is not a problem."""
    problems = [
        Problem(model=name, cause=DEGRADED, severity="page", summary=str(model["problem"]))
        for name, model in health["models"].items()
        if model["status"] == "degraded"
    ]
    of_nobody = [health.get("access", {}).get("problem"), *(one["problem"] for one in health.get("processes", []))]
    if any(of_nobody):
        summary = "; ".join(str(problem) for problem in of_nobody if problem)
        problems.append(Problem(model=NOBODY, cause=DEGRADED, severity="page", summary=summary))
    return problems


Look = Callable[[], list[Problem]]
"""Checks once and returns the problems. Raises :class:`OSError` or :class:`ValueError` if there is no valid answer."""


@dataclass
class Watchdog:
    """Runs several checks, confirms their problems, and opens and resolves the alerts.

    Args:
        store: alert store.
        looks: by the prefixes of the causes it reports, each check and the problem to report if nothing answers.
        owners: owner of the alerts, by model.
        tell: prints a change on the console.
    """

    store: AlertStore
    looks: Mapping[tuple[str, ...], tuple[Look, Problem]]
    owners: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[tuple[Alert, Change] | None], None] = lambda _: None
    _times: dict[tuple[str, str], int] = field(default_factory=dict)

    def look(self, at: dt.datetime | None = None) -> list[Problem]:
        """Runs every check once. Opens alerts for confirmed problems and resolves alerts of problems that are gone.

        Returns:
            The confirmed problems.
        """
        confirmed = []
        for begins, (see, silent) in self.looks.items():
            answered = True
            try:
                problems = see()
            except (OSError, ValueError, KeyError) as error:
                answered, message = False, f"{silent.summary}: {_first_line(str(error))}"
                problems = [Problem(model=silent.model, cause=silent.cause, severity=silent.severity, summary=message)]
                _log.warning(message)
            confirmed += self._judge(begins, silent.cause, problems, answered, at)
        return confirmed

    def _judge(
        self, begins: tuple[str, ...], silent: str, problems: list[Problem], answered: bool, at: dt.datetime | None
    ) -> list[Problem]:
        there = {(problem.model, problem.cause): problem for problem in problems}
        mine = [a for a in self.store.open_alerts() if a.cause == silent or a.cause.startswith(begins)]
        for alert in mine:
            # Without an answer, no alert can be resolved.
            if answered and (alert.model, alert.cause) not in there:
                reason = "the watchdog no longer sees the problem"
                self.tell(self.store.resolve(alert.model, alert.cause, reason=reason, at=at))
        for known in [known for known in self._times if known not in there]:
            if answered and (known[1] == silent or known[1].startswith(begins)):
                del self._times[known]
        confirmed = []
        is_open = {(alert.model, alert.cause): alert for alert in mine}
        for identity, problem in there.items():
            self._times[identity] = self._times.get(identity, 0) + 1
            if self._times[identity] < CONFIRMED_AFTER:
                continue
            confirmed.append(problem)
            known_as = is_open.get(identity)
            if known_as is not None and known_as.severity in ("page", problem.severity):
                continue  # a problem that persists is not reported again
            changed = self.store.report(
                problem.model, problem.cause, severity=problem.severity, summary=problem.summary, at=at,
                owner=self.owners.get(problem.model, ""), runbook=runbook_of(problem.cause),
            )  # fmt: skip
            self.tell(changed)
        return confirmed


def dagster_look(ui_url: str, models: Sequence[str], started: float) -> tuple[Look, Problem]:
    """The check of Dagster through its web server, and the problem to report if that does not answer."""
    silent = Problem(model=NOBODY, cause=WEBSERVER, severity="page", summary=f"{ui_url} does not answer")

    def see() -> list[Problem]:
        now = dt.datetime.now(dt.UTC).timestamp()
        response = _get(f"{ui_url}/graphql", {"query": _QUERY, "variables": {"graceAgo": now - TICK_GRACE_S}})
        if "errors" in response:
            raise ValueError(f"GraphQL error: {response['errors'][0]['message']}")
        return problems_of_dagster(response["data"], models, now, started)

    return see, silent


def service_look(service_url: str) -> tuple[Look, Problem]:
    """The check of the scoring service, and the problem to report if it does not answer."""
    silent = Problem(model=NOBODY, cause=DOWN, severity="page", summary=f"{service_url} does not answer")
    return (lambda: problems_of_service(_get(f"{service_url}/health"))), silent


def _get(url: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=15) as response:
        return json.loads(response.read())


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason is given"


def _clock(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M} UTC"
