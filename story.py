"""`make run`: the whole life of the example model, from raw payments to a resolved alert.

Belongs here: the order of the story, the account it keeps of itself, and the table at its end. Each step is a run of a
job that the UI shows, or a tick of a sensor that the daemon ticks: nothing here does the work itself. What is fresh by
code version and data version is not done again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.table import Table as RichTable

from assets.declaration import Model
from assets.lifecycle.freshness import stale_days
from assets.lifecycle.jobs import CLEAN, DAILY, DEPLOY, FEATURES, LABEL, LAND, MATURE, TRAIN, assets_of_jobs, job_name
from resources.settings import Settings

STORY_DAYS = 183
LEARNING_DAYS = 150
SHIFT_AFTER_DAYS = 153
CHUNK_DAYS = 62
"""Days in one run: bounds the memory of a run over months."""

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


class StoryError(Exception):
    """A step of the story that did not happen; the message says which, and where to look."""


@dataclass
class Journal:
    """What happened so far, kept in the state folder after each step, so that a killed story goes on where it was."""

    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """The journal at ``path``; an empty one where there is none."""
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def once(self, step: str, of: str, act: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """What ``act`` returned for ``step``, now or earlier, while ``of`` (the versions it rests on) is the same.

        Returns the result and whether it was done now.
        """
        known = self.entries.get(step)
        if known is not None and known["of"] == of:
            return known["result"], False
        result = act()
        self.entries[step] = {"of": of, "result": result}
        scratch = self.path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(self.entries, indent=1, default=str))
        os.replace(scratch, self.path)
        return result, True


def upstream_world(home: Path, until: dt.date) -> dict[str, str]:
    """First day and day of the injected shift of the simulated upstream, drawn up once for a state folder.

    The simulator reads the same file, so that the daemon lands tomorrow's payments from the same world.
    """
    path = home / "upstream.json"
    if not path.exists():
        first = until - dt.timedelta(days=STORY_DAYS - 1)
        world = {"first_day": first.isoformat(), "shift_from": str(first + dt.timedelta(days=SHIFT_AFTER_DAYS))}
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(world))
        os.replace(scratch, path)
    return json.loads(path.read_text())


class Story:
    """Plays the life of one model of a stream on a state folder."""

    def __init__(self, defs: dg.Definitions, model: Model, settings: Settings, instance: dg.DagsterInstance) -> None:
        from resources.defaults import default_resources

        self.defs, self.model, self.settings, self.instance = defs, model, settings, instance
        self.resources = default_resources([model], settings)
        self.tables = self.resources["tables"]
        self.assets = {key.path[-1]: asset for asset in defs.assets or () for key in getattr(asset, "keys", ())
                       if key.path[0] == model.name}  # fmt: skip
        self.journal = Journal.open(settings.home / "story.json")
        self.console = Console(highlight=False)
        self.began = time.monotonic()
        self.last_run_id = ""
        self.warned: list[str] = []

    # -- steps -------------------------------------------------------------------------------------------------------

    def run(self, work: str, days: Sequence[str] = (), config: dict[str, Any] | None = None, why: str = "") -> bool:
        """One run of one of the model's jobs, in this process; whether it succeeded."""
        tags = {"assetline/story": why} if why else {}
        if days:
            tags |= {RANGE_START: days[0], RANGE_END: days[-1]}
        job = self.defs.resolve_job_def(job_name(self.model, work))
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = job.execute_in_process(
            instance=self.instance, run_config={**quiet, **(config or {})}, tags=tags, raise_on_error=False
        )
        self.last_run_id = result.run_id
        if not result.success and work not in (TRAIN, DEPLOY):
            raise StoryError(f"{job_name(self.model, work)} failed{f' on {days[0]}…{days[-1]}' if days else ''}: "
                             f"{_why(result)}; see run {result.run_id} in the UI")  # fmt: skip
        return result.success

    def make(self, work: str, days: Sequence[str]) -> int:
        """Makes those of ``days`` that are stale, a chunk of consecutive days in a run; how many were."""
        stale: set[str] = set()
        for name in assets_of_jobs(self.model)[work]:
            stale |= set(stale_days(self.assets[name], self.tables, days))
        for chunk in _chunks([day for day in days if day in stale]):
            self.run(work, chunk)
        return len(stale)

    def train(self, as_of: str, why: str) -> dict[str, Any]:
        """A candidate as of the latest labelled day, and its promotion if the gate lets it pass."""

        def act() -> dict[str, Any]:
            config = {"ops": {f"{self.model.name}__training_set": {"config": {"as_of": as_of}}}}
            self.run(TRAIN, config=config, why=why)
            training_run = self.last_run_id
            version = self._row("trained_model")["version"]
            judged = self._row("evaluation")
            if judged["version"] != version:
                raise StoryError(f"the candidate as of {as_of} was not evaluated; see run {training_run} in the UI")
            if judged["passed"] and not self.run(DEPLOY, why=why):
                raise StoryError(f"version {version} passed the gate but was not deployed; see run {self.last_run_id}")
            return {
                "as_of": as_of,
                "why": why,
                "version": version,
                "promoted": bool(judged["passed"]),
                "reasons": [reason["words"] for reason in json.loads(judged["verdict"])["reasons"]],
                "report": _short(json.loads(judged["report"])),
                "run": training_run,
            }

        result, now = self.journal.once(f"train as of {as_of}", self._training_inputs(as_of), act)
        self.say(
            f"version {result['version']} {'promoted' if result['promoted'] else 'refused'}: "
            f"{'; '.join(result['reasons'])}",
            fresh=not now,
        )
        return result

    def check_alerts(self) -> None:
        """One tick of the sensor that opens and resolves alerts, as the daemon ticks it."""
        from sensors.alerts import alerts_sensor

        with dg.build_sensor_context(instance=self.instance, resources={"alerts": self.resources["alerts"]}) as context:
            _requests(alerts_sensor([self.model])(context))

    def retraining_request(self) -> dg.RunRequest | None:
        """What the retraining sensor asks for, if anything."""
        from sensors.retraining import retraining_sensor

        given = {name: self.resources[name] for name in ("alerts", "tables")}
        with dg.build_sensor_context(instance=self.instance, resources=given) as context:
            return next(iter(_requests(retraining_sensor(self.model)(context))), None)

    # -- what it says ------------------------------------------------------------------------------------------------

    def say(self, words: str, *, fresh: bool = False) -> None:
        """One line of progress, with the seconds since the start."""
        seconds = time.monotonic() - self.began
        mark = "[dim]fresh[/dim]" if fresh else "[green] done[/green]"
        self.console.print(f"[dim]{seconds:6.1f} s[/dim] {mark}  {words}")

    def _row(self, asset: str) -> dict[str, Any]:
        return self.tables.read(self.model.key(asset)).iloc[0].to_dict()

    def _training_inputs(self, as_of: str) -> str:
        """What a training run as of a day rests on: rows by data version, stages by code version."""
        from assets.lifecycle.windows import iso_days, windows_of

        split = windows_of(dt.date.fromisoformat(as_of), self.model.training, self.model.label_delay_days)
        days = iso_days((split.first, split.test[1]))
        rows = {name: self.tables.versions(self.model.key(name), days) for name in ("features", "labels")}
        stages = ("training_set", "trained_model", "evaluation", "staged", "deployment")
        code = {name: next(iter(self.assets[name].specs)).code_version for name in stages}
        return hashlib.blake2b(json.dumps([rows, code]).encode(), digest_size=8).hexdigest()


def play(settings: Settings) -> None:
    """Plays the story on the state folder of ``settings``.

    Raises :class:`StoryError` when a step did not happen. Two at once take turns: the second finds all done.
    """
    from filelock import FileLock

    from resources.home import end_dead_runs, prepare

    prepare(settings)
    with FileLock(settings.home / ".story.lock"), dg.DagsterInstance.get() as instance:
        until = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        world = upstream_world(settings.home, until)
        # Only now: the declaration reads the upstream's world when it is imported.
        from assets.models.fraud import model
        from definitions import build_defs

        story = Story(build_defs(models=[model], settings=settings), model, settings, instance)
        end_dead_runs(instance)
        story.resources["mlflow"].reap(instance)
        story.resources["ledger"].reconcile(story.resources["mlflow"])
        _play(story, dt.date.fromisoformat(world["first_day"]), until, dt.date.fromisoformat(world["shift_from"]))


def _play(story: Story, first: dt.date, until: dt.date, shift: dt.date) -> None:
    model = story.model
    delay = dt.timedelta(days=model.label_delay_days)
    everything = _days(first, until)
    learn_until = first + dt.timedelta(days=LEARNING_DAYS - 1)
    learning = _days(first, learn_until)

    made = story.make(LAND, everything)
    story.say(f"{len(everything)} days of payments landed, {first} to {until}", fresh=not made)
    made = story.make(CLEAN, learning)
    story.say(f"cleaned to {learn_until}; refused rows are in quarantine", fresh=not made)
    made = story.make(LABEL, _days(first, learn_until - delay))
    made += story.make(FEATURES, learning)
    story.say(f"labels to {learn_until - delay}, features to {learn_until}", fresh=not made)
    champion = story.train(str(learn_until - delay), "the first model")
    if not champion["promoted"]:
        raise StoryError(f"the first model was refused: {'; '.join(champion['reasons'])}; see its evaluation in the UI")

    trainings = [champion]
    for day in _days(learn_until + dt.timedelta(days=1), until):
        trainings += story.live_through(day, shift)
    story.close(trainings, shift)
