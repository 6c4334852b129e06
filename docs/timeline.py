"""`make timeline`: thirty days of a small world with two true drifts, labels a week late and a broken feed, drawn.

Belongs here: what is injected, and the picture. Does not belong here: what the model's life does by itself: it is that
of the example, lived by the jobs and sensors that the daemon runs. The picture is of what the tables and the alert
store hold after the run; nothing is drawn that did not happen. A day is lived in seconds: that an alert of the second
drift reopens the first one's is due to that.
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
LEARNT, LIVED = 50, 30
DRIFT_ONE, DRIFT_TWO, BROKEN = range(51, 53), range(62, 400), range(78, 80)
"""Days by their number from the first: a drift that passes, one that stays, and a feed of which little arrives."""
ARRIVES = 0.15


def day_of(number: int) -> dt.date:
    """The day of a number."""
    return FIRST + dt.timedelta(days=number)


def upstream() -> Any:
    """The simulator with what is injected."""
    from assets.models.fraud.simulator import PaymentSimulator

    class Troubled(PaymentSimulator):
        """Payments that drift twice, and a feed that breaks."""

        def shifted(self, days: int | np.ndarray) -> np.ndarray:
            """Whether a drift holds."""
            number = np.asarray(days) - FIRST.toordinal()
            return np.isin(number, DRIFT_ONE) | np.isin(number, DRIFT_TWO)

        def land(self, day: dt.date) -> pd.DataFrame:
            """What arrives."""
            rows = super().land(day)
            return rows.iloc[: round(len(rows) * ARRIVES)] if (day - FIRST).days in BROKEN else rows

    return Troubled(customers=1_200, terminals=2_400, seed=2, shift_amount=1.5)


def live(folder: Path) -> dict[str, Any]:
    """Lives the days on a state folder, and returns what the picture shows."""
    from assets.declaration import Gate, Training
    from assets.lifecycle.jobs import CLEAN, FEATURES, LABEL, LAND
    from assets.models.fraud import model as fraud
    from assets.models.fraud.story import Story
    from resources.settings import Settings
    from runner import alone

    model = replace(
        fraud,
        table=replace(fraud.table, source=upstream(), start=FIRST),
        training=Training(window_days=14, folds=1, max_epochs=12, batch_size=128, learning_rate=3e-3),
        gate=Gate(metric="average_precision", floor=0.2, margin=-0.05, baseline_margin=-0.5),
        retrain_cooldown_days=7,
    )
    os.environ["ASSETLINE_HOME"] = str(folder)
    days = [str(day_of(number)) for number in range(LEARNT + LIVED)]
    began = time.monotonic()
    with alone(Settings.from_env(), lambda: model) as runner:
        story = Story(runner)
        runner.make(LAND, days)
        runner.make(CLEAN, days[:LEARNT])
        runner.make(LABEL, days[: LEARNT - 7])
        runner.make(FEATURES, days[:LEARNT])
        first = story.train(days[LEARNT - 8], "the first model")
        if not first["promoted"]:
            raise SystemExit(f"the first model was refused: {first['reasons']}")
        trained, alerts = [], {}
        for day in days[LEARNT:]:
            trained += [(day, training) for training in story.live_through(day, day_of(DRIFT_TWO[0]))]
            store = runner.resources["alerts"].store
            alerts[day] = [(alert.title, alert.severity) for alert in store.open_alerts(model.name)]
        lived = days[LEARNT:]
        drift = runner.tables.read(model.key("drift"), lived).set_index("day")
        estimated = runner.tables.read(model.key("estimated_performance"), lived).set_index("day")
        mature = [day for day in lived if runner.tables.stamp(model.key("performance"), day)]
        performance = runner.tables.read(model.key("performance"), mature).set_index("day") if mature else None
        history = [(e.change, e.words, e.day) for e in runner.resources["alerts"].store.history()]
    return {"days": lived, "drift": drift, "estimated": estimated, "performance": performance, "alerts": alerts,
            "trained": trained, "history": history, "seconds": time.monotonic() - began}  # fmt: skip


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
    for row, (name, of) in enumerate({"drift": (*DRIFT_ONE, *DRIFT_TWO), "broken feed": tuple(BROKEN)}.items()):
        here = [number - LEARNT for number in of if LEARNT <= number < LEARNT + LIVED]
        injected.broken_barh([(x - 0.5, 1) for x in here], (row - 0.35, 0.7), color="#5c6bc0")
        injected.text(-1.0, row, name, ha="right", va="center")
    injected.set(yticks=[], ylim=(1.6, -0.6), title="Injected")
    for row, column in enumerate(("level", "quality")):
        for day, level in seen["drift"][column].items():
            checks.barh(row, 1, left=at[str(day.date())] - 0.5, color=colours[level], edgecolor="white")
        checks.text(-1.0, row, {"level": "drift", "quality": "quality"}[column], ha="right", va="center")
    checks.set(yticks=[], ylim=(1.6, -0.6), title="Checks of the day: passed, warned, paged")
    estimated = seen["estimated"]
    x = [at[str(day.date())] for day in estimated.index]
    metric.plot(x, estimated["estimated"], color="#1565c0", label="estimated without labels, the day itself")
    metric.fill_between(x, estimated["low"], estimated["high"], color="#1565c0", alpha=0.15)
    if seen["performance"] is not None:
        known = seen["performance"]["trailing_average_precision"]
        metric.plot([at[str(day.date())] for day in known.index], known, color="#2e7d32", marker="o", markersize=3,
                    label="with labels, known a week later")  # fmt: skip
    metric.axhline(0.2, color="#999", linestyle=":", label="floor of the gate")
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
    for change, words, day in seen["history"]:
        print(f"{day or '':10}  {change:10}  {words[:150]}")
    levels = seen["drift"]["level"].value_counts().to_dict()
    print(json.dumps({"days": len(seen["days"]), "drift": levels, "seconds": round(seen["seconds"])}))
    print(f"{PICTURE}")


if __name__ == "__main__":
    main(sys.argv[1:])
