"""What the stories of the examples have in common: the steps of a live system, the journal, and the tables at the end.

Belongs here: steps and tables that fit any model whose rows land by day. Does not belong here: the order of a story and
what must have happened in it (``fraud.py`` and its neighbours), the work itself. Each step is a run of a job that the
UI shows, or a tick of a sensor that the daemon also ticks. A step that is fresh by code version and data version is not
repeated.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.table import Table as RichTable

from assets.declaration import Model
from assets.lifecycle.jobs import CLEAN, DAILY, DEPLOY, FEATURES, LABEL, LAND, MATURE, TRAIN
from assets.lifecycle.model.windows import Windows, iso_days, windows_of
from assets.simulated import World, WorldPlan, yesterday
from resources.alerts import Alert
from runner import RunError, Runner


class StoryError(RunError):
    """A step of the story that did not happen; the message names the step and where to look."""


def is_open_page(alert: Alert) -> bool:
    """Whether an alert still needs somebody.

    A warning does not: of a hundred windows without a change, one warns. Nor does a flapping alert whose cause is gone:
    it stays open for a while by the clock, and a story plays a day in seconds.
    """
    return alert.resolved_at is None and alert.severity == "page" and alert.clear_since is None


@dataclass
class Journal:
    """The completed steps, saved in the state folder after each step so that a killed story can resume."""

    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Reads the journal at ``path``; an empty one if there is no file."""
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def once(self, step: str, inputs: str, act: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """Runs ``act`` for ``step``, unless it ran earlier with the same ``inputs``.

        Args:
            step: name of the step.
            inputs: versions of the inputs of the step.
            act: does the step and returns its result.

        Returns:
            The result, and whether the step ran now.
        """
        known = self.entries.get(step)
        if known is not None and known["inputs"] == inputs:
            return known["result"], False
        result = act()
        self.entries[step] = {"inputs": inputs, "result": result}
        scratch = self.path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(self.entries, indent=1, default=str))
        os.replace(scratch, self.path)
        return result, True


class Story:
    """Plays the lifecycle of one stream model on a state folder.

    Args:
        runner: runs the jobs of the model.
        journal: name of the journal's file in the state folder.
        rows: what the rows of the model are, e.g. ``payments``.
    """

    def __init__(self, runner: Runner, *, journal: str = "story.json", rows: str = "rows") -> None:
        self.runner, self.model, self.settings, self.tables = runner, runner.model, runner.settings, runner.tables
        self.rows = rows
        self.journal = Journal.open(self.settings.home / journal)
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = 120  # a file has no width, but the tables need one
        self.began = time.monotonic()
        self.windows: dict[str, str] = {}
        self.checked: set[str] = set()

    # -- steps -------------------------------------------------------------------------------------------------------

    def train(self, as_of: str, why: str) -> dict[str, Any]:
        """Trains a candidate on labels up to ``as_of`` (ISO day), and promotes it if it passes the gate.

        Raises:
            RunError: training failed for another reason than the gate, or the deployment failed.
        """

        def act() -> dict[str, Any]:
            config = {"ops": {f"{self.model.name}__training_set": {"config": {"as_of": as_of}}}}
            runner = self.runner
            error = runner.attempt(TRAIN, config=config, why=why)
            training_run = runner.last_run_id
            judged = runner.row("evaluation") if self.tables.stamp(self.model.key("evaluation")) else {}
            version = judged.get("version")
            # The gate fails the run on purpose; any other failure is an error.
            if error and (version is None or version != runner.row("trained_model")["version"] or judged["passed"]):
                raise RunError(f"training as of {as_of} failed: {error}; see run {training_run} in the UI")
            if judged["passed"] and (error := runner.attempt(DEPLOY, why=why)) is not None:
                raise RunError(f"version {version} passed the gate but was not deployed: {error}")
            return {
                "as_of": as_of,
                "why": why,
                "version": version,
                "promoted": bool(judged["passed"]),
                "fitted_until": str(self._windows(as_of).fit[1]),
                "reasons": [json.loads(judged["verdict"])["message"]],
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
        """Ticks the sensor that opens and resolves alerts once, as the daemon does."""
        from sensors.alerts import alerts_sensor

        given = {name: self.runner.resources[name] for name in ("alerts", "ledger")}
        with dg.build_sensor_context(instance=self.runner.instance, resources=given) as context:
            alerts_sensor([self.model]).evaluate_tick(context)

    def retraining_request(self) -> dg.RunRequest | None:
        """The run request of the retraining sensor; ``None`` if there is none."""
        from sensors.retraining import retraining_sensor

        given = {name: self.runner.resources[name] for name in ("alerts", "tables")}
        with dg.build_sensor_context(instance=self.runner.instance, resources=given) as context:
            return next(iter(retraining_sensor(self.model).evaluate_tick(context).run_requests or ()), None)

    def live_through(self, day: str, shift: dt.date) -> list[dict[str, Any]]:
        """Plays one day of the live system: labels that are due, scores, drift check, alerts, requested training.

        Args:
            day: ISO day.
            shift: first day of the injected shift.

        Returns:
            The training of the day, if there was one.
        """
        due = str(dt.date.fromisoformat(day) - dt.timedelta(days=self.model.label_delay_days))
        scored = self.tables.stamp(self.model.key("predictions"), due) is not None
        if self.model.label_delay_days:
            made = self.runner.make(MATURE if scored else LABEL, [due])
            made += self.runner.make(DAILY, [day])
        else:  # the labels are in the rows of the day, which the daily work cleans and scores
            made = self.runner.make(DAILY, [day])
            made += self.runner.make(MATURE, [day])
        self.check_alerts()
        verdict = self.tables.read(self.model.key("drift"), [day]).iloc[0]
        shifted = f" [dim]({self.rows} are shifted on purpose)[/dim]" if day >= str(shift) else ""
        colour = {"ok": "green", "warn": "yellow", "page": "red"}[verdict["level"]]
        what = f": {verdict['columns']}" if verdict["columns"] else ""
        self.say(f"{day} {verdict['rows']:,} scored by version {verdict['version']}, drift "
                 f"[{colour}]{verdict['level']}[/{colour}]{_clip(what)}{shifted}", fresh=not made)  # fmt: skip
        self.windows[day] = str(verdict["level"])
        self.checked.add(str(verdict["version"]))
        known = self.journal.entries.get(f"train on {day}")
        if known is not None:
            why = known["result"]["why"]
        elif (request := self.retraining_request()) is not None:
            why = request.tags["assetline/why"]
        else:
            return []
        result = self.train(due, why)
        self.journal.once(f"train on {day}", "", lambda: {"why": why})
        self.check_alerts()
        return [result]

    def learn(self, first: dt.date, days: int, until: dt.date, what: str) -> dict[str, Any]:
        """Lands all days of the story, and trains the first model on its first days.

        Args:
            first: first day of the world.
            days: number of days before the first model.
            until: last day of the story.
            what: what lands, for the line of progress, e.g. ``payments of 1,750 customers``.

        Returns:
            The first training.

        Raises:
            StoryError: the gate refused the first model.
        """
        everything = iso_days((first, until))
        learn_until = first + dt.timedelta(days=days - 1)
        learning = iso_days((first, learn_until))
        labelled = learn_until - dt.timedelta(days=self.model.label_delay_days)
        made = self.runner.make(LAND, everything)
        self.say(f"{len(everything)} days of {what} landed, {first} to {until}", fresh=not made)
        made = self.runner.make(CLEAN, learning)
        self.say(f"cleaned to {learn_until}; refused rows are in quarantine", fresh=not made)
        made = self.runner.make(LABEL, iso_days((first, labelled))) + self.runner.make(FEATURES, learning)
        self.say(f"labels to {labelled}, features to {learn_until}", fresh=not made)
        champion = self.train(str(labelled), "the first model")
        if not champion["promoted"]:
            reasons = "; ".join(champion["reasons"])
            raise StoryError(f"the first model was refused: {reasons}; see its evaluation in the UI")
        return champion

    def live(
        self, first: dt.date, until: dt.date, shift: dt.date, *, further: int
    ) -> tuple[list[dict[str, Any]], dt.date]:
        """Plays the days of the live system, and further ones until the story has no open end.

        A story does not end with a promotion, because the daemon would check the new version on the next day.

        Args:
            first, until: first and last day.
            shift: first day of the injected change.
            further: maximum number of days after the last one. A day that is not over yet is not played.

        Returns:
            The trainings, and the last day that was played.
        """
        trainings = []
        for day in iso_days((first, until)):
            trainings += self.live_through(day, shift)
        last = until
        while self.unfinished() and last < min(yesterday(), until + dt.timedelta(days=further)):
            last += dt.timedelta(days=1)
            self.runner.make(LAND, [str(last)])
            trainings += self.live_through(str(last), shift)
        return trainings, last

    def unfinished(self) -> list[str]:
        """The open ends of the story in words: a version not checked, an alert not resolved."""
        left = []
        champion = self.runner.resources["ledger"].champion(self.model.name)
        if champion is not None and champion.version not in self.checked:
            left.append(f"version {champion.version} was checked for drift")
        if any(is_open_page(alert) for alert in self.drift_alerts()):
            left.append("the alert was resolved")
        return left

    def drift_alerts(self) -> list[Alert]:
        """The alerts of the drift check, open and resolved."""
        from sensors.alerts import DRIFT_CAUSE

        store = self.runner.resources["alerts"].store
        return [alert for alert in store.alerts(self.model.name) if alert.cause == DRIFT_CAUSE]

    # -- output ------------------------------------------------------------------------------------------------------

    def say(self, message: str, *, fresh: bool = False) -> None:
        """Prints one line of progress, with the seconds since the start."""
        seconds = time.monotonic() - self.began
        mark = "[dim]fresh[/dim]" if fresh else "[green] done[/green]"
        self.console.print(f"[dim]{seconds:6.1f} s[/dim] {mark}  {message}")

    def tell_rows(self, first: dt.date, until: dt.date) -> None:
        """Prints the numbers of rows by outcome, from the first day of the world on."""
        counts: dict[str, int] = dict.fromkeys(("landed", "clean", "duplicate", "quarantined", "pending"), 0)
        key = self.model.key("quarantine")
        days = set(iso_days((first, until)))
        seen: set[str] = set()
        found = self.runner.instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=10_000)
        for record in found.records:  # newest first
            day = record.partition_key
            if day in days and day not in seen and record.asset_materialization is not None:
                seen.add(day)
                metadata = record.asset_materialization.metadata
                counts = {name: n + int(metadata[name].value) for name, n in counts.items()}  # type: ignore[arg-type]
        table = RichTable(title=f"Rows, {first} to {until}")
        for name in counts:
            table.add_column(name, justify="right")
        table.add_row(*(f"{n:,}" for n in counts.values()))
        self.console.print(table)

    def tell_quality(self, trainings: list[dict[str, Any]], metrics: Mapping[str, str], *, positive: str = "") -> None:
        """Prints the figures of each training.

        Args:
            trainings: the trainings of the story.
            metrics: names of metrics, and the titles of their columns.
            positive: what the rows of the positive class are, e.g. ``frauds``; empty: they are not counted.
        """
        from assets.lifecycle.model.report import SCORES

        for training in trainings:
            report = training["report"]
            verdict = "promoted" if training["promoted"] else "refused"
            positives = f"{report['positives']} {positive}; " if positive else ""
            table = RichTable(
                title=f"Version {training['version']}, labels to {training['as_of']}: {report['rows']:,} test rows, "
                f"{positives}{verdict}"
            )
            table.add_column("model")
            for name in metrics.values():
                table.add_column(name, justify="right")
            for score, figures in report["models"].items():
                table.add_row(SCORES.get(score, score), *(f"{figures[m]:.3f}" if m in figures else "" for m in metrics))
            if published := self.model.evaluation.published:
                cells = (f"{published[m]:.3f}" if m in published else "" for m in metrics)
                table.add_row("best published, on the published rows", *cells, style="dim")
            self.console.print(table)

    def tell_alerts(self) -> None:
        """Prints the alerts of the model, open and resolved."""
        table = RichTable(title="Alerts")
        for name in ("cause", "severity", "data since", "opened", "seen", "resolved", "reason"):
            table.add_column(name)
        for alert in self.runner.resources["alerts"].store.alerts(self.model.name):
            resolved = f"{alert.resolved_at:%H:%M:%S} UTC" if alert.resolved_at else "open"
            if alert.resolved_day:
                resolved += f", data of {alert.resolved_day}"
            opened = f"{alert.opened_at:%H:%M:%S} UTC"
            table.add_row(alert.cause, alert.severity, alert.since_day or "", opened, str(alert.count), resolved,
                          _clip(alert.resolution or "", 40))  # fmt: skip
        self.console.print(table)

    def tell_champions(self) -> None:
        """Prints the promotions in order."""
        ledger = self.runner.resources["ledger"].history(self.model.name)
        promotions = [entry for entry in ledger if entry.action == "promote"]
        champions = " → ".join(f"version {entry.version} ({entry.at:%H:%M:%S} UTC)" for entry in promotions)
        self.console.print(f"Champions: {champions}")

    def tell_end(self) -> None:
        """Prints the last line: that every step happened, and where to look."""
        self.console.print(
            f"[bold]Every step happened[/bold], in {time.monotonic() - self.began:.0f} s. `make dev` shows it: the "
            f"Dagster UI at {self.settings.ui_url}, MLflow at {self.settings.mlflow_url}, the scoring service at "
            f"{self.settings.service_url}. Tables, runs and models are in {self.settings.home}."
        )

    def _windows(self, as_of: str) -> Windows:
        return windows_of(dt.date.fromisoformat(as_of), self.model.training, self.model.gap_days)

    def _training_inputs(self, as_of: str) -> str:
        """Hash of the inputs of a training run as of a day: data versions of the rows, code versions of the stages."""
        split = self._windows(as_of)
        days = iso_days((split.first, split.test[1]))
        rows = {name: self.tables.versions(self.model.key(name), days) for name in ("features", "labels")}
        stages = ("training_set", "trained_model", "evaluation", "staged", "deployment")
        code = {name: next(iter(self.runner.assets[name].specs)).code_version for name in stages}
        return hashlib.blake2b(json.dumps([rows, code]).encode(), digest_size=8).hexdigest()


def world_to_play(
    plan: WorldPlan, model: Model, home: Path, until: dt.date | None, size: str, seed: int | None
) -> tuple[World, dt.date]:
    """Returns the world of a state folder, created if there is none, and the last day to play.

    Args:
        plan: the plan of the world.
        model: the model of the story; its table starts no later than the world.
        home: the state folder.
        until: last day to play; default: yesterday.
        size: one of the plan's sizes; default: the first, or that of the existing world.
        seed: seed of the world; default: 0, or that of the existing world.

    Raises:
        RunError: the day is not over yet or too early, the plan has no such size, or the existing world
            has another size or seed.
    """
    last = until or yesterday()
    if last > yesterday():
        raise RunError(f"{last} is not over yet; the latest day that can be played is {yesterday()}")
    start = model.table.start
    assert start is not None
    if size and size not in plan.sizes:
        raise RunError(f"--size {size}: the world of '{model.name}' has the sizes: {', '.join(plan.sizes)}")
    if plan.find(home) is None:
        drawn = plan.ending(last, size=size, seed=seed or 0)
        if drawn.first_day < start:
            raise RunError(
                f"{last} is too early: the table of {model.table.name} starts on {start}, choose {plan.soonest(start)} "
                "or later"
            )
        plan.draw_up(home, drawn)
    world = plan.world_of(home)
    if (size and size != world.size) or (seed is not None and seed != world.seed):
        raise RunError(
            f"the world of {home} was created with size '{world.size}' and seed {world.seed}; remove that folder "
            "(`make clean`), or set ASSETLINE_HOME to another one, for another world"
        )
    soonest = plan.soonest(world.first_day)
    if last < soonest:
        raise RunError(
            f"the world of {home} begins on {world.first_day} and its story ends on {soonest}; choose that day or a "
            "later one, or set ASSETLINE_HOME to another folder for another world"
        )
    return world, last


def _clip(message: str, width: int = 60) -> str:
    return message if len(message) <= width else message[: width - 1] + "…"


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """The parts of an evaluation that the closing table needs."""
    return {
        "rows": report["rows"],
        "positives": report["positives"],
        "models": {
            name: {metric: figure["value"] for metric, figure in figures.items()}
            for name, figures in report["models"].items()
        },
    }
