"""`make run` towards 28 last days: each weekday of four weeks, in worlds that were not chosen.

The first week plays the world that everybody gets (seed 0) on each weekday; the other 21 days have a seed each. A story
counts when it ends with exit code 0, which means that each step that it promises happened. The table says what it cost,
how often the drift check paged between the promotion of a version that met the new world and the next shift (there is
none), and how the challengers did beside XGBoost on the same rows.

Belongs here: playing them, and reading what is left in the state folder. Does not belong here: what a story is
(``story/``).

    python -m benchmarks.stories                    all 28, two at a time, about an hour on 2 cores
    python -m benchmarks.stories --jobs 1           one after the other: wall times that nothing shares
    python -m benchmarks.stories 2026-10-05 7       one last day with one seed
    python -m benchmarks.stories --model news       each weekday of a week, a seed each: exit codes and costs alone
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assets.simulated import yesterday
from resources.settings import Settings, project_root
from resources.tables import ParquetTables

FIRST_LAST_DAY = dt.date(2026, 9, 28)
"""A Monday. The days after it are past, so that a story may live on where it needs to."""
DAYS = 28
FRAUD = "fraud"
MOST_PAGED = 0.01
"""Share of the lived days that page although nothing shifted."""
OF_XGBOOST = -0.005
"""Lowest end of the paired interval of the challengers' average precision minus XGBoost's."""


@dataclass
class Played:
    """One story: what it cost and what it left behind.

    Args:
        until: last day asked for.
        seed: of the world.
        exit_code: of `assetline run`.
        seconds: wall time.
        cpu_seconds: of the process and its children.
        peak_gb: largest resident set of the process.
        words: last line of its output.
        trainings: by version, whether it was promoted and what its report says.
        levels: by lived day, the drift check's level.
        shift: first shifted day.
        met: day of the first promotion after the shift.
        further: days lived after ``until``.
        other_pages: alerts of severity page that are not the drift's, by cause.
    """

    until: dt.date
    seed: int
    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_gb: float
    words: str
    trainings: list[dict[str, Any]] = field(default_factory=list)
    levels: dict[str, str] = field(default_factory=dict)
    shift: str = ""
    met: str = ""
    further: int = 0
    other_pages: list[str] = field(default_factory=list)

    @property
    def paged_outside(self) -> list[str]:
        """Days that paged before the shift, or after the day of the first promotion that followed it."""
        return [d for d, level in self.levels.items() if level == "page" and not self.shift <= d <= self.met]

    @property
    def warned_first_and_paged_second(self) -> bool:
        """Whether the shift warned on its first day and paged on its second."""
        second = str(dt.date.fromisoformat(self.shift) + dt.timedelta(days=1))
        return self.levels.get(self.shift) == "warn" and self.levels.get(second) == "page"

    def gains(self) -> list[float]:
        """Of each challenger trained after the shift, its average precision minus XGBoost's."""
        figures = [training["report"]["models"] for training in self.trainings if training["as_of"] >= self.shift]
        return [one["torch"]["average_precision"] - one["xgboost"]["average_precision"] for one in figures]


def play(until: dt.date | None, seed: int, home: Path, model: str = FRAUD, log: Path | None = None) -> Played:
    """Plays one story on a state folder of its own, as a user does.

    Args:
        until: last day; ``None``: yesterday, as `make run` plays it.
        seed: of the world.
        home: the state folder.
        model: whose story.
        log: file for what the story prints; default: ``log`` beside the state folder.
    """
    env = {**os.environ, "ASSETLINE_HOME": str(home)}
    command = [sys.executable, "-m", "cli", "run", "--model", model, "--seed", str(seed)]
    command += ["--until", str(until)] if until else []
    until = until or yesterday()
    began, log = time.monotonic(), log or home.parent / "log"
    with log.open("w") as out:
        child = subprocess.Popen(command, cwd=project_root(), env=env, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    lines = log.read_text().strip().splitlines()
    played = Played(
        until, seed, child.returncode, time.monotonic() - began, used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1024**2, lines[-1] if lines else "",
    )  # fmt: skip
    if model == FRAUD:
        read(played, home)
    elif ends := re.findall(r"^Rows, .* to (\S+)$", log.read_text(), re.MULTILINE):
        played.further = (dt.date.fromisoformat(ends[-1]) - until).days
    return played


def read(played: Played, home: Path) -> None:
    """Adds what the story left in its state folder, as far as it got."""
    from assets.models.fraud import model
    from assets.models.fraud.world import PLAN
    from resources.alerts import Alerts
    from sensors.alerts import DRIFT_CAUSE

    journal = home / "story.json"
    if not journal.exists():
        return
    entries = json.loads(journal.read_text())
    played.shift = str(PLAN.world_of(home).shift_from)
    played.trainings = [e["result"] for name, e in entries.items() if name.startswith("train as of ")]
    asked = {name.removeprefix("train on "): e for name, e in entries.items() if name.startswith("train on ")}
    labelled = {t["as_of"]: t for t in played.trainings if t["promoted"]}
    delay = dt.timedelta(days=model.label_delay_days)
    promoted = [day for day in sorted(asked) if str(dt.date.fromisoformat(day) - delay) in labelled]
    tables = ParquetTables(root=str(home / "tables"))
    days = tables.days(model.key("drift"))
    lines = tables.read(model.key("drift"), days, ["day", "level"]) if days else None
    if lines is not None:
        played.levels = {f"{day:%Y-%m-%d}": str(level) for day, level in zip(lines["day"], lines["level"], strict=True)}
    played.met = promoted[0] if promoted else max(played.levels, default="")
    played.further = max((dt.date.fromisoformat(max(days)) - played.until).days, 0) if days else 0
    alerts = Alerts.from_settings(Settings.from_env({"ASSETLINE_HOME": str(home)})).store.alerts(model.name)
    played.other_pages = [a.cause for a in alerts if a.severity == "page" and a.cause != DRIFT_CAUSE]


def table_of(stories: Sequence[Played]) -> str:
    """The stories as a Markdown table."""
    head = "| last day | seed | exit | s | CPU s | GB | average precision (XGBoost's, ceiling) of versions | "
    lines = [head + "paged outside | further days |", "|---" * 9 + "|"]
    for one in stories:
        versions = "; ".join(
            f"{t['version']}{'' if t['promoted'] else ' refused'}: "
            f"{t['report']['models']['torch']['average_precision']:.3f} "
            f"({t['report']['models']['xgboost']['average_precision']:.3f}, "
            f"{t['report']['models']['ceiling']['average_precision']:.3f})"
            for t in one.trainings
        )
        lines.append(
            f"| {one.until:%a %Y-%m-%d} | {one.seed} | {one.exit_code} | {one.seconds:.0f} | {one.cpu_seconds:.0f} | "
            f"{one.peak_gb:.2f} | {versions} | {', '.join(one.paged_outside) or '0'} | {one.further} |"
        )
    return "\n".join(lines)


def paired(gains: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean gain over all challengers and its 95 % interval, drawn by worlds: challengers of one world are alike."""
    worlds = [np.asarray(of_world) for of_world in gains if len(of_world)]
    rng = np.random.default_rng(seed)
    drawn = [
        np.concatenate([worlds[i] for i in rng.integers(0, len(worlds), len(worlds))]).mean() for _ in range(2_000)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.concatenate(worlds).mean()), float(low), float(high)


def main(arguments: Sequence[str] = ()) -> bool:
    """Plays and prints; whether the claims hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stories")
    parser.add_argument("until", nargs="?", type=dt.date.fromisoformat, help="one last day (default: all 28)")
    parser.add_argument("seed", nargs="?", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="stories at a time (default: %(default)s)")
    parser.add_argument("--model", default=FRAUD, help="whose story (default: %(default)s)")
    given = parser.parse_args(arguments)
    plan = [(FIRST_LAST_DAY + dt.timedelta(days=n), max(0, n - 6)) for n in range(DAYS)]
    if given.model != FRAUD:
        plan = [(FIRST_LAST_DAY + dt.timedelta(days=n), n) for n in range(7)]
    if given.until:
        plan = [(given.until, given.seed)]

    def one(until: dt.date, seed: int) -> Played:
        with tempfile.TemporaryDirectory() as scratch:
            return play(until, seed, Path(scratch) / "home", given.model)

    if given.model != FRAUD:
        return _costs_of(given.model, one, plan, given.jobs)
    stories = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for played in pool.map(one, *zip(*plan, strict=True)):
            stories.append(played)
            head, ruler, line = table_of([played]).splitlines()
            print("\n".join([head, ruler, line] if len(stories) == 1 else [line]), flush=True)
            if played.exit_code:
                print(f"    {played.words}", flush=True)
    return say(stories)


def _costs_of(
    model: str, one: Callable[[dt.date, int], Played], plan: Sequence[tuple[dt.date, int]], jobs: int
) -> bool:
    """Plays the story of another model, which itself checks that each step happened; whether all ended well."""
    print(f"| {model}: last day | seed | exit | s | CPU s | GB | further days |\n|" + "---|" * 7, flush=True)
    stories = []
    with ThreadPoolExecutor(jobs) as pool:
        for played in pool.map(one, *zip(*plan, strict=True)):
            stories.append(played)
            print(f"| {played.until:%a %Y-%m-%d} | {played.seed} | {played.exit_code} | {played.seconds:.0f} | "
                  f"{played.cpu_seconds:.0f} | {played.peak_gb:.2f} | {played.further} |", flush=True)  # fmt: skip
            if played.exit_code:
                print(f"    {played.words}", flush=True)
    ended = sum(played.exit_code == 0 for played in stories)
    print(f"\n{ended} of {len(stories)} stories ended with exit code 0")
    return ended == len(stories)


def say(stories: Sequence[Played]) -> bool:
    """Prints what all stories together show; whether the claims hold."""
    ended = sum(one.exit_code == 0 for one in stories)
    lived = sum(len(one.levels) for one in stories)
    outside = sum(len(one.paged_outside) for one in stories)
    told = sum(one.warned_first_and_paged_second for one in stories)
    print(f"\n{ended} of {len(stories)} stories ended with exit code 0")
    print(f"{told} warned on the shift's first day and paged on its second")
    print(f"{outside} of {lived} lived days paged outside of the shift until a promotion (at most {MOST_PAGED:.0%})")
    for what in ("seconds", "cpu_seconds", "peak_gb"):
        print(f"{what}: {_spread([getattr(one, what) for one in stories])}")
    causes = [cause for one in stories for cause in one.other_pages]
    print("other pages: " + (", ".join(f"{c} in {causes.count(c)} stories" for c in sorted(set(causes))) or "none"))
    held = ended == told == len(stories) and outside <= MOST_PAGED * lived
    # Seven of the stories are one world on seven weekdays: it counts as one.
    by_seed: dict[int, list[float]] = {}
    for one in stories:
        by_seed.setdefault(one.seed, []).extend(one.gains())
    if sum(map(len, by_seed.values())) > 1:
        mean, low, high = paired(list(by_seed.values()))
        print(f"challengers minus XGBoost, average precision: {mean:+.4f} ({low:+.4f} to {high:+.4f}), lower end at "
              f"least {OF_XGBOOST}")  # fmt: skip
        held = held and low >= OF_XGBOOST
    return held


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}, median {np.median(values):.1f}"


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)
