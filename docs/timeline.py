"""`make timeline`: thirty days of the example with two true drifts, labels a week late and a broken feed, drawn.

Belongs here: what is injected, and the picture. Does not belong here: what the model's life does by itself: it is that
of the example, lived by the jobs and sensors that the daemon runs. The picture is of what the tables and the alert
store hold after the run; nothing is drawn that did not happen.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PICTURE = Path(__file__).parent / "images" / "timeline.png"
FIRST = dt.date(2026, 3, 2)
LEARNT, LIVED = 110, 30
BROKEN, MENDED = (1, 2), 3
"""Days of which little arrives, and the day on which the rest is landed; by their number among those lived."""
PASSES, STAYS = (5, 6), 15
"""Days of a drift that passes, and the first of one that stays."""
ARRIVES = 0.15


def day_of(lived: int) -> dt.date:
    """The day of a number among those lived."""
    return FIRST + dt.timedelta(days=LEARNT + lived)


def upstream() -> Any:
    """The simulator at its published size with what is injected."""
    from assets.models.fraud.simulator import PaymentSimulator

    class Troubled(PaymentSimulator):
        """Payments that drift twice, and a feed that breaks and is mended."""

        def shifted(self, days: int | np.ndarray) -> np.ndarray:
            """Whether a drift holds."""
            number = np.asarray(days) - day_of(0).toordinal()
            return np.isin(number, PASSES) | (number >= STAYS)

        def land(self, day: dt.date) -> pd.DataFrame:
            """What arrives: until the feed is mended, little."""
            rows = super().land(day)
            broken = (day - day_of(0)).days in BROKEN and not mended
            return rows.iloc[: round(len(rows) * ARRIVES)] if broken else rows

    return Troubled()


mended: list[dt.date] = []
"""When the feed was mended; empty before that."""


def live(folder: Path) -> dict[str, Any]:
    """Lives the days on a state folder, and returns what the picture shows."""
    from assets.lifecycle.jobs import CLEAN, DAILY, FEATURES, LABEL, LAND
    from assets.models.fraud import model as fraud
    from resources.settings import Settings
    from runner import alone
    from story.playing import Story

    model = replace(fraud, table=replace(fraud.table, source=upstream(), start=FIRST))
    os.environ["ASSETLINE_HOME"] = str(folder)
    days = [str(FIRST + dt.timedelta(days=n)) for n in range(LEARNT + LIVED)]
    learnt, lived = days[:LEARNT], days[LEARNT:]
    began = time.monotonic()
    with alone(Settings.from_env(), lambda: model) as runner:
        story = Story(runner)
        runner.make(LAND, days)
        runner.make(CLEAN, learnt)
        runner.make(LABEL, learnt[: -model.label_delay_days])
        runner.make(FEATURES, learnt)
        first = story.train(learnt[-model.label_delay_days - 1], "the first model")
        if not first["promoted"]:
            raise SystemExit(f"the first model was refused: {first['reasons']}")
        store = runner.resources["alerts"].store
        trained, alerts, seen = [], {}, {}
        for number, day in enumerate(lived):
            if number == MENDED:
                mended.append(day_of(number))
                broken = [lived[n] for n in BROKEN]
                runner.run(LAND, broken)
                runner.make(DAILY, broken)
                story.check_alerts()
            trained += [(day, training) for training in story.live_through(day, day_of(STAYS))]
            alerts[day] = [(alert.title, alert.severity) for alert in store.open_alerts(model.name)]
            seen[day] = runner.tables.read(model.key("drift"), [day]).iloc[0].to_dict()
        estimated = runner.tables.read(model.key("estimated_performance"), lived).set_index("day")
        mature = [day for day in lived if runner.tables.stamp(model.key("performance"), day)]
        performance = runner.tables.read(model.key("performance"), mature).set_index("day")
        history = [(store.get(e.alert_id).title, e.change, e.message) for e in store.history()]
    return {"days": lived, "drift": seen, "estimated": estimated, "performance": performance, "alerts": alerts,
            "floor": model.gate.floor, "trained": trained, "history": history,
            "seconds": time.monotonic() - began}  # fmt: skip


def draw(seen: dict[str, Any]) -> None:
    """The picture: what was injected, what the checks found, performance, alerts, trainings."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    at = {day: number for number, day in enumerate(seen["days"])}
    colours = {"ok": "#c8e6c9", "warn": "#ffb74d", "page": "#d32f2f"}
    figure, (injected, checks, metric, alerts) = plt.subplots(
        4, 1, figsize=(13, 9.5), sharex=True, height_ratios=(0.9, 1.0, 1.9, 1.5), layout="constrained"
    )
    for row, (name, of) in enumerate({"drift": (*PASSES, *range(STAYS, LIVED)), "broken feed": BROKEN}.items()):
        injected.broken_barh([(x - 0.5, 1) for x in of], (row - 0.35, 0.7), color="#5c6bc0")
        injected.text(-1.0, row, name, ha="right", va="center")
    injected.text(MENDED - 0.4, 1, "mended: the rest is landed", va="center", fontsize=8)
    injected.text(PASSES[1] + 0.6, 0, "what is watched remembers a week", va="center", fontsize=8)
    injected.set(yticks=[], ylim=(1.6, -0.6), title="Injected")
    for row, column in enumerate(("level", "quality")):
        for day, verdict in seen["drift"].items():
            checks.barh(row, 1, left=at[day] - 0.5, color=colours[verdict[column]], edgecolor="white")
        checks.text(-1.0, row, {"level": "drift", "quality": "quality"}[column], ha="right", va="center")
    checks.set(yticks=[], ylim=(1.6, -0.6), title="Checks, as they were said that day: passed, warned, paged")
    estimated = seen["estimated"]
    x = [at[str(day.date())] for day in estimated.index]
    metric.plot(x, estimated["estimated"], color="#1565c0", label="estimated without labels, the day itself")
    metric.fill_between(x, estimated["low"], estimated["high"], color="#1565c0", alpha=0.15)
    known = seen["performance"]["trailing_average_precision"]
    metric.plot([at[str(day.date())] for day in known.index], known, color="#2e7d32", marker="o", markersize=3,
                label="with labels, known a week later")  # fmt: skip
    metric.axhline(seen["floor"], color="#999", linestyle=":", label="floor of the gate")
    metric.set(title="Average precision of the trailing week", ylim=(0, 1))
    metric.legend(loc="lower left", fontsize=8)
    titles = sorted({title for of_day in seen["alerts"].values() for title, _ in of_day})
    for row, title in enumerate(titles):
        for day, of_day in seen["alerts"].items():
            for severity in [s for t, s in of_day if t == title]:
                alerts.barh(row, 1, left=at[day] - 0.5, height=0.7, color=colours[severity])
        alerts.text(-1.0, row, title, ha="right", va="center", fontsize=8)
    for day, training in seen["trained"]:
        said = f"version {training['version']}\n{'promoted' if training['promoted'] else 'refused'}"
        for axis in (metric, alerts):
            axis.axvline(at[day], color="#6a1b9a", linewidth=1)
        alerts.text(at[day] + 0.1, len(titles) - 0.4, said, fontsize=7, color="#6a1b9a", va="top")
    alerts.set(yticks=[], ylim=(len(titles) + 0.6, -0.6), title="Open alerts (orange warns, red pages); trainings")
    ticks = range(0, len(seen["days"]), 3)
    alerts.set_xticks(list(ticks), [seen["days"][n][5:] for n in ticks])
    alerts.set_xlim(-0.6, len(seen["days"]) - 0.4)
    for axis in (injected, checks, metric, alerts):
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(PICTURE, dpi=80)


def main(arguments: Sequence[str]) -> None:
    """Lives the days in a temporary folder (or a given one) and draws them."""
    with tempfile.TemporaryDirectory() as scratch:
        seen = live(Path(arguments[0]) if arguments else Path(scratch) / "home")
    draw(seen)
    for title, change, words in seen["history"]:
        print(f"{title:40}  {change:10}  {words[:150]}")
    levels = {level: sum(v["level"] == level for v in seen["drift"].values()) for level in ("ok", "warn", "page")}
    print(json.dumps({"days": len(seen["days"]), "drift": levels, "seconds": round(seen["seconds"])}))
    print(f"{PICTURE}")


if __name__ == "__main__":
    main(sys.argv[1:])
