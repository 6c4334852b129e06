"""Rollout: a version takes over step by step, and goes back by itself, where a model declares it.

The steps are entries of the ledger: ``shadow`` (the version scores a copy of the requests), ``canary`` (it answers a
share of the entities) and ``abort``. The service follows the latest of them. The asset ``rollout`` compares both
versions and takes the next step; it produces its table only when the version has arrived, so ``deployment`` is skipped
until then and no worker waits. A sensor materialises it when a step is due (``sensors/rollouts.py``).

Belongs here: what a comparison means for the rollout, the steps, the asset, the actions of a person. Does not belong
here: the figures (``paired_answers.py``), which version answers a request (``serving/scoring/routing.py``), the
promotion (``deployment.py``), the command (``cli/rollout.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dagster as dg
import pandas as pd

from assets.declaration import Model, Rollout
from assets.lifecycle.model.version.verdicts import failures, verdicts_on
from assets.lifecycle.release.approval import approval_against
from assets.lifecycle.release.paired_answers import Figure, Pairs, as_table, compare
from assets.lifecycle.release.policy import policy_against
from assets.lifecycle.stage import Check, StageOutput, TableInput, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.ledger import SHARE, Entry, Ledger
from resources.request_log import RequestLog
from resources.tables import ParquetTables

ARRIVED = Check(
    name="arrived",
    description="The version answers all requests. A warning means that its rollout is under way, or that it was "
    "taken back.",
    blocking=False,
)

Action = Literal["wait", "advance", "abort"]


class RolloutError(Exception):
    """A step that cannot be taken. Nothing was changed; the message gives the reason and the fix."""


@dataclass(frozen=True)
class Step:
    """What a comparison means for the current step, and why."""

    action: Action
    reason: str


@dataclass(frozen=True)
class Progress:
    """The state of a rollout.

    Args:
        entry: the ledger entry of the current step.
        rows: rows compared in this step.
        answered: rows that the version answered in this step.
        figures: the comparison.
        step: what follows from it.
    """

    entry: Entry
    rows: int
    answered: int
    figures: Sequence[Figure]
    step: Step

    @property
    def message(self) -> str:
        """The state in one sentence."""
        return f"{step_in_words(self.entry)}: {self.rows:,} rows compared; {self.step.reason}"


def share_of(entry: Entry) -> float:
    """The share of the entities that a step's version answers; 0 for a shadow."""
    return float(entry.verdicts[SHARE]) if entry.action == "canary" else 0.0


def step_in_words(entry: Entry) -> str:
    """A step as the beginning of a sentence."""
    share = share_of(entry)
    does = f"answers {share:.0%} of the entities" if share else "gets a copy of the requests"
    return f"version {entry.version} {does}"


def next_share(rollout: Rollout, share: float) -> float:
    """The share after ``share``: the next declared one, or 1 after the last."""
    return next((one for one in rollout.steps if one > share), 1.0)


def judge_step(rollout: Rollout, entry: Entry, rows: int, figures: Sequence[Figure], now: dt.datetime) -> Step:
    """Returns what a comparison means for the current step.

    Args:
        rollout: the declaration.
        entry: the ledger entry of the step.
        rows: rows compared in the step.
        figures: the comparison.
        now: current time, UTC with zone.
    """
    beyond = [one.message for one in figures if one.state == "beyond"]
    if beyond:
        return Step("abort", "; ".join(beyond))
    if share_of(entry) >= 1:
        return Step("advance", "it answers all requests")
    needed = rollout.rows if share_of(entry) else rollout.shadow_rows
    unsure = [one.message for one in figures if one.state == "unsure"]
    minutes = (now - entry.at).total_seconds() / 60
    lacking = [f"{rows:,} of {needed:,} rows"] if rows < needed else unsure
    if lacking and minutes > rollout.hours * 60:
        return Step("abort", f"{rollout.hours:g} hours did not show that it is good enough: {'; '.join(lacking)}")
    if lacking:
        return Step(
            "wait", f"waits for {'; '.join(lacking)}" if rows < needed else f"not sure yet: {'; '.join(unsure)}"
        )
    if minutes < rollout.minutes:
        return Step("wait", f"the step lasts {rollout.minutes:g} minutes")
    return Step("advance", "; ".join(one.message for one in figures))


def progress_of(
    model: Model, ledger: Ledger, log: RequestLog, tables: ParquetTables, now: dt.datetime
) -> Progress | None:
    """Compares both versions of a rollout under way; ``None`` if there is none.

    Args:
        model: a declaration with a rollout.
        ledger, log, tables: the resources; labels are read from the tables.
        now: current time, UTC with zone.
    """
    entry = ledger.rollout(model.name)
    if entry is None or model.rollout is None:
        return None
    began = _beginning(ledger.history(model.name), entry)
    records = log.read(model.name, began, now)
    versions = records["version"].astype(str)
    champion = ledger.champion(model.name)
    records = records[(versions == entry.version) | (versions == (champion.version if champion else ""))]
    step = Pairs.of(records[records["at"] >= entry.at.replace(tzinfo=None)], entry.version)
    labels = _labels(model, tables, began)
    whole = Pairs.of(records, entry.version) if len(labels) else step
    figures = compare(model, model.rollout, step, whole, labels)
    judged = judge_step(model.rollout, entry, len(step), figures, now)
    return Progress(entry, len(step), int(step.answered.sum()), figures, judged)


def _beginning(entries: Sequence[Entry], entry: Entry) -> dt.datetime:
    """When the rollout of an entry began: its first step since the last entry of another version."""
    began = entry.at
    for one in reversed(entries):
        if one.number > entry.number or one.action not in ("shadow", "canary", "abort", "promote", "withdraw"):
            continue
        if one.version != entry.version or one.action in ("abort", "promote", "withdraw"):
            break
        began = one.at
    return began


def _labels(model: Model, tables: ParquetTables, since: dt.datetime) -> pd.Series:
    """Labels of rows of the rollout's days, by key as text; empty if none are known."""
    key, first = model.key("labels"), f"{since:%Y-%m-%d}"
    days = [day for day in tables.days(key) if not model.is_stream or day >= first]
    if not days:
        return pd.Series(dtype=float)
    frame = tables.read(key, days)
    return pd.Series(frame[model.target].to_numpy(dtype=float), index=frame[model.table.key].astype(str))


def begin(ledger: Ledger, model: Model, version: str, **facts: Any) -> Entry:
    """Records the first step of a version's rollout. Another version that is being rolled out is taken back."""
    assert model.rollout is not None
    current = ledger.rollout(model.name)
    if current is not None and current.version == version:
        return current
    if current is not None:
        ledger.record("abort", model.name, current.version, reason=f"version {version} takes its place",
                      verdicts={}, **facts)  # fmt: skip
    if model.rollout.shadow_rows:
        return ledger.record(
            "shadow", model.name, version, reason="it gets a copy of the requests", verdicts={}, **facts
        )
    return _canary(ledger, model, version, next_share(model.rollout, 0.0), "no shadow is declared", (), **facts)


def take(ledger: Ledger, model: Model, progress: Progress, **facts: Any) -> Entry:
    """Records what follows from a comparison, and returns the entry that is current then."""
    assert model.rollout is not None
    entry, step = progress.entry, progress.step
    if step.action == "abort":
        verdicts = {
            "rollout": {"passed": False, "reasons": [step.reason], "figures": [asdict(f) for f in progress.figures]}
        }
        return ledger.record("abort", model.name, entry.version, reason=step.reason, verdicts=verdicts, **facts)
    if step.action == "wait" or share_of(entry) >= 1:
        return entry
    return _canary(ledger, model, entry.version, next_share(model.rollout, share_of(entry)), step.reason,
                   progress.figures, **facts)  # fmt: skip


def _canary(
    ledger: Ledger, model: Model, version: str, share: float, why: str, figures: Sequence[Figure], **facts: Any
) -> Entry:
    verdicts = {SHARE: share, "rollout": {"passed": True, "reasons": [why], "figures": [asdict(f) for f in figures]}}
    reason = f"it answers {share:.0%} of the entities; {why}"
    return ledger.record("canary", model.name, version, reason=reason, verdicts=verdicts, **facts)


def act(ledger: Ledger, model: Model, action: Literal["advance", "abort", "restart"], *, who: str, why: str) -> Entry:
    """Takes a step by a person's decision, whatever the comparison says.

    Raises:
        RolloutError: the model declares no rollout, there is nothing to act on, or a name or a reason is missing.
    """
    name = model.name
    if model.rollout is None:
        raise RolloutError(f"{name} declares no rollout; declare Model(rollout=Rollout()) if it should")
    if not who.strip() or not why.strip():
        raise RolloutError(f"a step of {name} that a person takes needs a name and a reason")
    facts = {"dagster_run": "", "who": who.strip()}
    current = ledger.rollout(name)
    if action == "restart":
        last = next((one for one in reversed(ledger.history(name)) if one.action in ("promote", "abort")), None)
        if current is not None:
            raise RolloutError(f"{step_in_words(current)}; advance or abort it")
        if last is None or last.action != "abort":
            raise RolloutError(f"no version of {name} was taken back since the last promotion; train a new one")
        first: Literal["shadow", "canary"] = "shadow" if model.rollout.shadow_rows else "canary"
        verdicts = {} if first == "shadow" else {SHARE: next_share(model.rollout, 0.0)}
        return ledger.record(first, name, last.version, reason=f"restarted: {why.strip()}", verdicts=verdicts, **facts)
    if current is None:
        raise RolloutError(f"no version of {name} is being rolled out")
    if action == "abort":
        return ledger.record("abort", name, current.version, reason=why.strip(), verdicts={}, **facts)
    if share_of(current) >= 1:
        raise RolloutError(f"{step_in_words(current)} already; materialise {name}/deployment")
    return _canary(
        ledger, model, current.version, next_share(model.rollout, share_of(current)), why.strip(), (), **facts
    )


def taken_back(ledger: Ledger, model: str, version: str) -> Entry | None:
    """The entry that took a version back, unless its rollout was begun again; ``None`` if it was not taken back."""
    of_version = [e for e in ledger.history(model) if e.version == version and e.action in
                  ("promote", "shadow", "canary", "abort")]  # fmt: skip
    return of_version[-1] if of_version and of_version[-1].action == "abort" else None


def rollout_against(ledger: Ledger, model: Model, version: str) -> list[str]:
    """Returns why a version may not be promoted yet; empty if its rollout has arrived, or it needs none."""
    champion = ledger.champion(model.name)
    if model.rollout is None or champion is None or champion.version == version:
        return []
    if (entry := taken_back(ledger, model.name, version)) is not None:
        return [f"rollout: version {version} was taken back: {entry.reason}"]
    entry = ledger.rollout(model.name)
    if entry is None or entry.version != version:
        return [f"rollout: version {version} has answered no request yet; materialise rollout first"]
    return [] if share_of(entry) >= 1 else [f"rollout: {step_in_words(entry)}; it is promoted after the last step"]


def rollout_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``rollout``; ``None`` if the model declares none."""
    if model.rollout is None:
        return None

    def rollout(context: dg.AssetExecutionContext, trained_model: pd.DataFrame) -> StageOutput:
        resources = context.resources
        ledger, version = resources.ledger, str(trained_model["version"].iloc[0])
        against = [
            *failures(verdicts_on(resources.mlflow, model, version)),
            *approval_against(ledger, model, version),
            *policy_against(resources, model, version),
        ]
        if against:
            raise dg.Failure(
                description=f"version {version} of {model.name} is not rolled out: {' | '.join(against)}",
                allow_retries=False,
            )
        facts = {"dagster_run": context.run.run_id, "who": context.run.tags.get("user", "dagster")}
        champion = ledger.champion(model.name)
        if champion is None or champion.version == version:
            message = "no other version is in production, so there is nothing to compare it with"
            return _arrived(version, ledger, model, message, [])
        if (entry := taken_back(ledger, model.name, version)) is not None:
            return _under_way(
                entry, f"version {version} was taken back: {entry.reason}", [], harmed=_answered(ledger, entry)
            )
        entry = begin(ledger, model, version, **facts)
        progress = progress_of(model, ledger, resources.request_log, resources.tables, dt.datetime.now(dt.UTC))
        if progress is None:
            raise dg.Failure(description=f"the rollout of {model.name} has just ended; materialise it again")
        entry = take(ledger, model, progress, **facts)
        if entry.action == "abort":
            message = f"version {version} was taken back: {entry.reason}"
            return _under_way(entry, message, progress.figures, harmed=_answered(ledger, entry))
        if share_of(entry) >= 1:
            return _arrived(version, ledger, model, f"version {version} answers all requests", progress.figures)
        return _under_way(entry, f"{step_in_words(entry)}: {progress.step.reason}", progress.figures)

    return table_asset(
        model,
        "rollout",
        rollout,
        description="The comparison of the candidate with the version in production on live requests, and its rollout "
        "in steps. The deployment is skipped until it has arrived.",
        stage="release",
        kinds={"fastapi"},
        inputs={"trained_model": TableInput(model.key("trained_model"))},
        deps=[model.key(name) for name in ("staged", "evaluation", *(["approval"] if model.approval else []))],
        checks=[ARRIVED],
        automation=eager(None),
        resources={"mlflow", "ledger", "request_log", "release_policy", "tables"},
        may_wait=True,
        by_day=False,
    )


def _answered(ledger: Ledger, entry: Entry) -> bool:
    """Whether a version that was taken back had answered requests."""
    return any(e.action == "canary" and e.version == entry.version for e in ledger.history(entry.model))


def _arrived(version: str, ledger: Ledger, model: Model, message: str, figures: Sequence[Figure]) -> StageOutput:
    entry = ledger.rollout(model.name)
    number = entry.id if entry is not None else None
    rows = [{**asdict(one), "version": version, "ledger_entry": number} for one in figures]
    columns = ["version", "ledger_entry", *Figure.__dataclass_fields__]
    frame = pd.DataFrame(rows or [{"version": version, "ledger_entry": number}]).reindex(columns=columns)
    result = CheckResult(check=ARRIVED.name, passed=True, description=message)
    return StageOutput(frame, [result], _metadata(version, message, figures))


def _under_way(entry: Entry, message: str, figures: Sequence[Figure], *, harmed: bool = False) -> StageOutput:
    result = CheckResult(
        check=ARRIVED.name, passed=False, description=message, severity=dg.AssetCheckSeverity.WARN,
        metadata={"severity": "page"} if harmed else {},
    )  # fmt: skip
    return StageOutput(None, [result], _metadata(entry.version, message, figures))


def _metadata(version: str, message: str, figures: Sequence[Figure]) -> dict[str, Any]:
    table = {"comparison": dg.MetadataValue.md(as_table(figures))} if figures else {}
    return {"version": version, "state": message, **table}
