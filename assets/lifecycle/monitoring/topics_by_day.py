"""The asset ``topics_by_day``: volume and predicted classes of each day by topic, and the check for surges.

Belongs here: counting rows by topic, the history of the counts, the picture, the verdicts as a check. Does not belong
here: the rule (``surge_rule.py``), the scores (``predictions.py``), notification (``sensors/alerts.py``).

The table has a row for each day and topic, also for a topic without rows. Earlier days are read from the table itself.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.event_days import rows_by_day
from assets.lifecycle.model.report import inline, picture
from assets.lifecycle.monitoring.surge_rule import HOURS, Level, SurgeResult, judge, wilson
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from assets.surge import Surge
from resources.dagster_internals import CheckResult
from resources.tables import ParquetTables, days_of_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SURGE = Check(
    name="surge",
    description="No topic has more rows of the counted class than its own history by weekday explains. A count below "
    "`warn_p` warns, one below `page_p` pages, also of two days together.",
    blocking=False,
)
DRAWN_DAYS, MOST_DRAWN = 28, 6
"""Days and topics of the picture; the topics are those that surge, then those with most rows."""


def topics_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``topics_by_day``; ``None`` if the declaration has no ``surge``."""
    if model.surge is None:
        return None
    surge = model.surge
    if surge.topics:
        given = TableInput(dg.AssetKey([surge.topics, "predictions"]), columns=(model.table.key, "prediction"))
        topic = "prediction"
    else:
        topic = surge.column
        given = TableInput(model.key(model.table.name), columns=(model.table.key, topic))

    def topics_by_day(
        context: dg.AssetExecutionContext, predictions: pd.DataFrame, topics: pd.DataFrame
    ) -> StageOutput:
        of_row = topics[[model.table.key, topic]].rename(columns={topic: "topic"})
        scored = predictions.merge(of_row, on=model.table.key)
        days = days_in_run(context)
        past = _Past.of(context.resources.tables, model, days)
        parts: list[pd.DataFrame] = []
        check_results: list[CheckResult] = []
        for day, rows in rows_by_day(scored, model, days).items():
            part, results = _judged(model, surge, day, rows, past)
            past.rows[day] = part
            parts.append(part)
            check_results.append(_check_result(surge, day, results, past))
        frame = pd.concat(parts, ignore_index=True)
        metadata: dict[str, Any] = {
            "rows": len(scored),
            "without_topic": len(predictions) - len(scored),
            "surging": ", ".join(frame.loc[frame["level"] != "ok", "topic"].unique()) or "nothing",
            "picture": inline(drawn(surge, past, days[-1])),
        }
        return StageOutput(frame, check_results, metadata)

    return table_asset(
        model,
        "topics_by_day",
        topics_by_day,
        description=f"Rows and predicted classes of each day by topic, with 95 % intervals, and whether "
        f"'{surge.value}' rises beyond what the topic's own history by weekday explains.",
        stage="monitoring",
        kinds={"pandas"},
        inputs={"predictions": TableInput(model.key("predictions")), "topics": given},
        checks=[SURGE],
        code=[judge, Surge],
        day_column="day",
        automation=eager(model.table.late_days + 1),
        declared=repr(surge),
    )


@dataclass
class _Past:
    """The earlier days of ``topics_by_day`` by ISO day, oldest first; days of this run are added to them."""

    rows: dict[str, pd.DataFrame]

    @classmethod
    def of(cls, tables: ParquetTables, model: Model, days: Sequence[str]) -> _Past:
        # They are read directly and not as an input, because the first day has none and must not wait for it.
        assert model.surge is not None
        key = model.key("topics_by_day")
        window = [day for day in days_of_window(days[0], (-7 * model.surge.weeks, -1)) if tables.stamp(key, day)]
        known = tables.read(key, window) if window else pd.DataFrame({"day": []})
        return cls({day: known[known["day"] == pd.Timestamp(day)] for day in window})

    def before(self, day: str) -> list[str]:
        return sorted(known for known in self.rows if known < day)

    def of_topic(self, topic: str, day: str) -> list[dict[str, Any]]:
        """The rows of a topic before a day, oldest first; a day without the topic has none of its rows."""
        found = []
        for known in self.before(day):
            rows = self.rows[known]
            mine = rows[rows["topic"] == topic]
            empty = {"day": pd.Timestamp(known), "by_hour": "[]", "level": "ok", "since": "", "counted": 0}
            found.append({str(k): v for k, v in mine.iloc[0].items()} if len(mine) else empty)
        return found


def _judged(
    model: Model, surge: Surge, day: str, rows: pd.DataFrame, past: _Past
) -> tuple[pd.DataFrame, dict[str, SurgeResult]]:
    """The rows of the table of one day, and the verdicts by topic."""
    known = {str(topic) for part in past.rows.values() for topic in part["topic"]}
    topics = sorted({*known, *rows["topic"].dropna().astype(str)})
    hours = rows[str(model.table.time)].dt.hour.to_numpy() if len(rows) else np.empty(0, dtype=int)
    until = _hours_landed(surge, day, hours)
    classes = model.task.names
    number = dt.date.fromisoformat(day).toordinal()
    made, results = [], {}
    for topic in topics:
        of_topic = (rows["topic"].astype(str) == topic).to_numpy()
        counted = of_topic & (rows["prediction"] == surge.value).to_numpy(dtype=bool)
        by_hour = np.bincount(hours[counted], minlength=HOURS)
        earlier = past.of_topic(topic, day)
        result = judge(
            number,
            by_hour,
            [one["day"].date().toordinal() for one in earlier],
            np.array([_hours(one["by_hour"]) for one in earlier]).reshape(-1, HOURS),
            [one["level"] for one in earlier],
            surge,
            until_hour=until,
        )
        results[topic] = result
        said = rows.loc[of_topic, "prediction"].value_counts()
        each = np.array([int(said.get(name, 0)) for name in classes])
        low, high = wilson(each, np.full(len(classes), each.sum()))
        expected = result.expected
        bounds = expected.bounds() if expected else (math.nan, math.nan)
        lasts = earlier and earlier[-1]["level"] != "ok" and earlier[-1]["day"].date().toordinal() == number - 1
        made.append({
            "day": pd.Timestamp(day), "topic": topic, "texts": int(each.sum()),
            **{f"n_{name}": int(n) for name, n in zip(classes, each, strict=True)},
            **{f"share_{name}": n / each.sum() if each.sum() else math.nan
               for name, n in zip(classes, each, strict=True)},
            **{f"low_{name}": float(bound) for name, bound in zip(classes, low, strict=True)},
            **{f"high_{name}": float(bound) for name, bound in zip(classes, high, strict=True)},
            "counted": result.count,
            "expected": expected.mean if expected else math.nan,
            "expected_low": bounds[0], "expected_high": bounds[1],
            "p_value": result.p_value, "pooled_p": result.pooled_p, "judged": result.judged, "level": result.level,
            "since": (str(earlier[-1]["since"]) if lasts else day) if result.level != "ok" else "",
            "hour": -1 if result.hour is None else result.hour,
            "history_days": result.history_days, "by_hour": json.dumps(by_hour.tolist()),
        })  # fmt: skip
    return pd.DataFrame(made, columns=_columns(classes)), results


def _columns(classes: Sequence[str]) -> list[str]:
    of_classes = [f"{kind}_{name}" for kind in ("n", "share", "low", "high") for name in classes]
    return ["day", "topic", "texts", *of_classes, "counted", "expected", "expected_low", "expected_high", "p_value",
            "pooled_p", "judged", "level", "since", "hour", "history_days", "by_hour"]  # fmt: skip


def _hours(text: str) -> list[int]:
    return json.loads(text) or [0] * HOURS


def _hours_landed(surge: Surge, day: str, hours: np.ndarray) -> int:
    """Hours of a day that have landed: all, or those up to the latest row if the day is not over."""
    if not surge.hourly or day < str(dt.datetime.now(dt.UTC).date()) or not len(hours):
        return HOURS
    return int(hours.max()) + 1


def _check_result(surge: Surge, day: str, results: Mapping[str, SurgeResult], past: _Past) -> CheckResult:
    columns = {topic: _in_words(surge, topic, one) for topic, one in results.items() if one.level != "ok"}
    short = {topic: one for topic, one in results.items() if not one.judged}
    levels: dict[str, Level] = {topic: results[topic].level for topic in columns}
    pages = "page" in levels.values()
    if columns:
        message = "; ".join(columns.values())
    elif short and len(short) == len(results):
        most = max(one.history_days for one in short.values())
        message = (
            f"not judged: {most} of the {surge.least_days} days of history that the rule needs; materialise "
            "predictions and topics_by_day of earlier days to judge sooner"
        )
    elif short:
        message = f"{len(results) - len(short)} topics as usual; too little history to judge: {', '.join(short)}"
    else:
        message = f"{len(results)} topics as usual" if results else "no rows, and no topic is known yet"
    of_day = past.rows[day].set_index("topic")
    return CheckResult(
        check=SURGE.name,
        day=day,
        passed=not columns,
        severity=dg.AssetCheckSeverity.ERROR if pages else dg.AssetCheckSeverity.WARN,
        description=message,
        metadata={
            "columns": columns,
            "levels": levels,
            "since": {topic: str(of_day.loc[topic, "since"]) for topic in columns},
            "judged": len(results) - len(short),
        },
    )


def _in_words(surge: Surge, topic: str, result: SurgeResult) -> str:
    expected = result.expected
    assert expected is not None
    p = min(result.p_value, result.pooled_p) if result.pooled_p < result.p_value else result.p_value
    of_two = " with the day before" if p != result.p_value else ""
    seen = f", seen at {result.hour + 1:02}:00 UTC" if result.hour is not None else ""
    return f"{topic}: {result.count} {surge.value}, {expected.mean:.1f} expected (p {p:.1g}{of_two}){seen}"


def drawn(surge: Surge, past: _Past, day: str) -> bytes:
    """Draws the counted class of the last days by topic, with what was expected, as PNG."""
    days = [*past.before(day)[-DRAWN_DAYS + 1 :], day]
    rows = pd.concat([past.rows[one] for one in days], ignore_index=True)
    urgency = past.rows[day]["level"].map({"page": 2, "warn": 1, "ok": 0})
    today = past.rows[day].assign(urgency=urgency).sort_values(["urgency", "texts"], ascending=False)
    topics = list(today["topic"])[:MOST_DRAWN] or [""]

    def draw(axes: Sequence[Axes]) -> None:
        for one, topic in zip(axes, topics, strict=True):
            mine = rows[rows["topic"] == topic]
            at = (mine["day"] - pd.Timestamp(day)).dt.days.to_numpy()
            colours = mine["level"].map({"ok": "#9db4c0", "warn": "#e0a030", "page": "#c0392b"}).to_list()
            one.fill_between(at, mine["expected_low"], mine["expected_high"], step="mid", color="#dfe7ea", linewidth=0)
            one.bar(at, mine["counted"], color=colours, width=0.8)
            one.step(at, mine["expected"], where="mid", color="#34495e", linewidth=1.0)
            one.set_title(topic, fontsize=9)
            one.set_xlabel(f"days before {day}" if one is axes[0] else "")
            one.set_ylabel(surge.value if one is axes[0] else "")

    return picture(draw, panels=len(topics), width=2.2 * len(topics) + 0.6, height=2.4)
