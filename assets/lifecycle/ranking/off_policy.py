"""The asset ``off_policy``: what lists would have earned without exploration, and at random, from logged lists.

Belongs here: the estimate by inverse propensities with its interval and effective sample size, and the match of logged
lists with later events. Does not belong here: the draws of exploration (``ranker.py``), the log
(``serving/scoring/ranking.py``).

A place of a list is one decision. It was made with a known probability: that of the best item, or of a drawn one. A
decision that another rule would have made is weighted by the inverse of it. Weights are normalised by their sum
(self-normalised IPS), which costs a bias of the order of 1 / n and avoids most of the variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.model.metrics.intervals import bootstrap, estimate
from assets.lifecycle.stage import Check, StageOutput, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import ParquetTables

SUPPORT = Check(
    name="support",
    description="The estimates rest on enough decisions and enough drawn places, or there were no lists.",
    blocking=False,
)
LEAST_EFFECTIVE = 100.0
"""Smallest effective sample size that the check accepts."""
LEAST_DRAWN = 30
"""Fewest drawn places that the check accepts; the value of a random rule rests on them alone."""
LATER_DAYS = 1
"""An item counts as liked if its user likes it at most so many days after the list."""
RESAMPLES = 500


@dataclass(frozen=True)
class Value:
    """The estimated value of a rule: likings by place.

    Attributes:
        value, low, high: the estimate and its 95 % interval; NaN without decisions, no interval with a single user.
        effective: effective sample size: the number of equally weighted decisions with the same variance.
        decisions: number of decisions with a weight.
    """

    value: float
    low: float
    high: float
    effective: float
    decisions: int


def value_of(weight: np.ndarray, reward: np.ndarray, user: np.ndarray, *, seed: int = 0) -> Value:
    """Estimates the mean reward of a rule from decisions of another one.

    Args:
        weight: probability of the decision under the rule divided by that of the logged one, ``[n]``; 0 for a decision
            that the rule does not make.
        reward: ``[n]``.
        user: who got the decision, ``[n]``; decisions of a user are resampled together.
        seed: of the draws.
    """
    total = float(weight.sum())
    if total <= 0:
        return Value(float("nan"), float("nan"), float("nan"), 0.0, 0)
    _, code = np.unique(user, return_inverse=True)
    sums = np.stack([np.bincount(code, weights=weight * reward), np.bincount(code, weights=weight)])

    def statistic(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.array([(sums[0] @ drawn) / (sums[1] @ drawn)])

    point, draws = bootstrap(statistic, sums.shape[1], resamples=RESAMPLES, seed=seed)
    found = estimate(point[0], draws[:, 0], bounds=(0.0, float(max(reward.max(), 1.0))))
    low, high = (float("nan") if one is None else one for one in (found.low, found.high))
    effective = total**2 / float((weight**2).sum())
    return Value(found.value, low, high, effective, int((weight > 0).sum()))


def decisions_of(lists: pd.DataFrame, liked: pd.DataFrame, user: str = "user") -> pd.DataFrame:
    """Returns one row for each place of each list: ``user``, ``propensity``, ``explored``, ``reward`` (0 or 1).

    Args:
        lists: logged lists: ``at``, and ``row`` with the user, ``listed``, ``propensity`` and ``explored``.
        liked: likings: ``user``, ``item`` and ``at``.
        user: name of the user's column in ``row``.
    """
    rows = [
        (row[user], item, at, place, p, drawn)
        for at, row in zip(lists["at"], lists["row"], strict=True)
        if isinstance(row, dict) and "listed" in row and user in row
        for place, (item, p, drawn) in enumerate(zip(row["listed"], row["propensity"], row["explored"], strict=True))
    ]
    found = pd.DataFrame(rows, columns=["user", "item", "at", "place", "propensity", "explored"])
    if found.empty:
        return found.assign(reward=pd.Series(dtype=float))
    found["number"] = np.arange(len(found))
    pairs = found.merge(liked, on=["user", "item"], suffixes=("", "_liked"))
    after = pd.to_datetime(pairs["at_liked"]) - pd.to_datetime(pairs["at"])
    hit = pairs.loc[(after >= pd.Timedelta(0)) & (after <= pd.Timedelta(days=LATER_DAYS)), "number"]
    return found.assign(reward=found["number"].isin(hit).astype(float)).drop(columns="number")


def values_of(decisions: pd.DataFrame) -> dict[str, Value]:
    """Returns the values of the lists as they were (``logged``), without exploration (``list``), and at ``random``."""
    if decisions.empty:
        return {}
    user, reward = decisions["user"].to_numpy(), decisions["reward"].to_numpy(dtype=float)
    drawn, probability = decisions["explored"].to_numpy(dtype=bool), decisions["propensity"].to_numpy(dtype=float)
    return {
        "logged": value_of(np.ones(len(user)), reward, user),
        "list": value_of(np.where(drawn, 0.0, 1 / probability), reward, user),
        # Each item of the pool is equally likely, so all drawn decisions of lists of one length weigh the same.
        "random": value_of(drawn.astype(float), reward, user),
    }


def off_policy_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``off_policy``; ``None`` for a ranking without exploration."""
    ranking = model.ranking
    if ranking is None or not ranking.exploration:
        return None

    def off_policy(context: dg.AssetExecutionContext) -> StageOutput:
        tables, log = context.resources.tables, context.resources.request_log
        lines: list[dict[str, Any]] = []
        check_results = []
        for day in days_in_run(context):
            records = log.day(model.name, day).records
            lists = records[records["outcome"] == "ok"] if len(records) else pd.DataFrame({"at": [], "row": []})
            found = values_of(decisions_of(lists, _liked(tables, model, day), ranking.user))
            lines += [{"day": pd.Timestamp(day), "rule": name, **vars(one)} for name, one in found.items()] or [
                {"day": pd.Timestamp(day), "rule": "none", **vars(Value(np.nan, np.nan, np.nan, 0.0, 0))}
            ]
            check_results.append(support(found, day))
        return StageOutput(pd.DataFrame(lines), check_results, {"dagster/row_count": len(lines)})

    return table_asset(
        model,
        "off_policy",
        off_policy,
        description="What the lists of a day earned by place, and what they would have earned without exploration and "
        "at random, from logged propensities (self-normalised IPS, 95 % interval by users).",
        stage="monitoring",
        kinds={"numpy"},
        checks=[SUPPORT],
        day_column="day",
        deps=[model.key("requests"), model.key(model.table.name)],
        automation=eager(model.table.late_days + 1),
        resources={"request_log"},
    )


def support(found: dict[str, Value], day: str) -> CheckResult:
    """The check :data:`SUPPORT` on the values of a day."""
    effective = found["list"].effective if found else 0.0
    drawn = found["random"].decisions if found else 0
    passed = not found or (effective >= LEAST_EFFECTIVE and drawn >= LEAST_DRAWN)
    message = (
        f"{effective:,.0f} effective decisions for the list without exploration, at least {LEAST_EFFECTIVE:,.0f} "
        f"needed; {drawn:,} places were drawn, at least {LEAST_DRAWN} needed"
        if found
        else "no lists were asked for"
    )
    if not passed:
        message += "; the intervals are too narrow for so few: wait for a day with more lists, or raise `exploration`"
    return CheckResult(
        check=SUPPORT.name, day=day, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=message,
        metadata={"effective": effective, "drawn": drawn},
    )  # fmt: skip


def _liked(tables: ParquetTables, model: Model, day: str) -> pd.DataFrame:
    """The likings of a day and of the days after it, as far as they have landed."""
    ranking, key = model.ranking, model.key(model.table.name)
    assert ranking is not None
    days = [str((pd.Timestamp(day) + pd.Timedelta(days=n)).date()) for n in range(LATER_DAYS + 1)]
    known = [one for one in days if tables.stamp(key, one)]
    if not known:
        return pd.DataFrame({"user": [], "item": [], "at": []})
    rows = tables.read(key, known)
    rows = rows[rows[ranking.event].map(ranking.weight).to_numpy(dtype=float) > 0]
    at = rows[str(model.table.time)].to_numpy()
    return pd.DataFrame(
        {"user": rows[ranking.user].astype(str).to_numpy(), "item": rows[ranking.item].astype(str).to_numpy(), "at": at}
    )
