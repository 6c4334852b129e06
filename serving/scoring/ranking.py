"""``POST /models/{model}/rank``: a user and recent events in, a ranked list with reasons out.

Belongs here: the request and its limits, the user's events since the tables were read, and the log of a list. Does not
belong here: the list itself (``assets/lifecycle/ranking/ranker.py``), the tables' events (``entity_events.py``).

An event that a request brings counts at once, for this list and for those that follow. It is in the request log with
the list, so other processes and the next start know it too, until the tables have it. With a share of exploration,
the log holds the probability of each item at its place, which ``off_policy`` reads.
"""

from __future__ import annotations

import collections
import datetime as dt
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from fastapi import HTTPException, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assets.lifecycle.data.word_pieces import LanguageError
from assets.lifecycle.ranking.baselines import popularity
from assets.lifecycle.ranking.behaviour import Behaviour, Histories, Items
from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import log_of
from assets.lifecycle.ranking.ranker import Moment, Ranker
from assets.ranking import MOST_LISTED, Ranking
from resources.request_log import Follower, RequestLog, RequestRecord
from serving.scoring.bodies import first_of, not_understood, read_body
from serving.scoring.errors import Json
from serving.scoring.recording import Call

MOST_EVENTS, MOST_CANDIDATES, MOST_USERS = 200, 10_000, 50_000
"""Maximum events and candidates of a request, and users whose events are kept in memory beside the tables."""

_log = logging.getLogger("assetline.service")


class SentEvent(BaseModel):
    """Something that a user did."""

    model_config = ConfigDict(strict=True, extra="forbid")

    item: str = Field(min_length=1, max_length=200)
    event: str = Field(min_length=1, max_length=100)
    at: str | None = Field(default=None, description="ISO time, UTC; default: now.")


class RankRequest(BaseModel):
    """The body of ``/rank``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    user: str = Field(min_length=1, max_length=200, description="An unknown user gets what is popular and new.")
    events: list[SentEvent] = Field(default_factory=list, max_length=MOST_EVENTS)
    candidates: list[str] | None = Field(default=None, max_length=MOST_CANDIDATES)
    k: int | None = Field(default=None, ge=1, le=MOST_LISTED)


@dataclass(frozen=True)
class Catalogue:
    """What a version ranks with until the tables change: its ranker with today's items, and the tables' events."""

    of: object
    ranker: Ranker
    behaviour: Behaviour
    user: pd.Index
    popular: np.ndarray

    @classmethod
    def read(cls, bundle: RankingBundle, past: Any, model: Any) -> Catalogue:
        """Reads the columns of the tables. New items need their texts read; without the language model they wait."""
        rows = pd.DataFrame({name: past.columns[name] for name in past.columns if name != "label"})
        rows[model.ranking.event] = np.nan_to_num(past.columns["label"])
        ranker = bundle.ranker
        if len(rows):
            items, _ = log_of(rows, model)
            try:
                ranker = bundle.ranker.with_items(_both(bundle.ranker.items, items))
            except LanguageError as error:
                _log.warning("items that are newer than the version are not on lists: %s", error)
        behaviour = Behaviour.of(rows, ranker.items, model.ranking, model.table.time) if len(rows) else _nothing()
        popular = popularity(behaviour, len(ranker.items), _now())
        _ = ranker.vectors, ranker.texts
        return cls(past, ranker, behaviour, pd.Index(behaviour.users), popular)


@dataclass
class Lists:
    """The lists of one model in this process: the catalogue of the served version, and the events sent since."""

    catalogue: Catalogue | None = None
    version: str = ""
    sent: collections.OrderedDict[str, dict[tuple[str, str, str], float]] = field(
        default_factory=collections.OrderedDict
    )
    follower: Follower | None = None

    def of(self, served: Any) -> Catalogue:
        """The catalogue of the served version; read again when the version or the tables have changed."""
        past = served.entity_events.past
        if self.catalogue is None or self.catalogue.of is not past or self.version != served.version:
            self.catalogue, self.version = Catalogue.read(served.bundle, past, served.model), served.version
        return self.catalogue

    def refresh(self, log: RequestLog | None, model: str) -> None:
        """Adds the events that other processes were sent. Raises :class:`~resources.request_log.LogError`."""
        if log is None:
            return
        if self.follower is None:
            self.follower = log.follow(model, (dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)).isoformat())
        for line in self.follower.fetch():
            row = line.get("row") or {}
            if line["outcome"] == "ok" and "listed" in row and line["entity"] is not None:
                self.add(str(line["entity"]), row["events"])

    def add(self, user: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Adds events of a user; the same event at the same moment counts once."""
        if not events:
            return
        known = self.sent.setdefault(user, {})
        for one in events:
            known[one["item"], one["event"], one["at"]] = float(one["weight"])
        self.sent.move_to_end(user)
        while len(self.sent) > MOST_USERS:
            self.sent.popitem(last=False)

    def close(self) -> None:
        """Stops following the log."""
        if self.follower is not None:
            self.follower.close()

    def history(self, catalogue: Catalogue, user: str, ranking: Ranking, now: np.datetime64) -> Histories:
        """The latest likings of one user, of the tables and of requests."""
        behaviour = catalogue.behaviour
        code = catalogue.user.get_indexer(pd.Index([user], dtype=object))[0]
        mine = np.flatnonzero((behaviour.user == code) & (behaviour.weight > 0)) if code >= 0 else np.empty(0, int)
        pairs = {
            (int(item), at): float(weight)
            for item, at, weight in zip(behaviour.item[mine], behaviour.at[mine], behaviour.weight[mine], strict=True)
        }
        sent = self.sent.get(user, {})
        items = catalogue.ranker.items.codes(np.array([key[0] for key in sent], dtype=object))
        for item, (key, weight) in zip(items.tolist(), sent.items(), strict=True):
            if item >= 0 and weight > 0:
                pairs.setdefault((item, np.datetime64(key[2], "s")), weight)
        latest = sorted(pairs.items(), key=lambda one: one[0][1], reverse=True)[: ranking.history]
        found = Histories(np.full((1, ranking.history), -1), np.zeros((1, ranking.history), np.float32))
        for place, ((item, at), weight) in enumerate(latest):
            age = max((now - at) / np.timedelta64(86_400, "s"), 0.0)
            found.item[0, place], found.weight[0, place] = item, weight * 0.5 ** (age / ranking.half_life_days)
        return found


async def rank(endpoint: Any, metrics: Any, request: Request) -> Response:
    """Answers ``POST /models/{model}/rank``."""
    call, outcome, version, listed = Call.of(request), "refused", "", 0
    try:
        try:
            asked = RankRequest.model_validate_json(await read_body(request))
        except ValidationError as error:
            raise not_understood(request, first_of(error)) from error
        served = endpoint.ready()
        version = served.version
        # The user as the tables have it: a column with a tag holds pseudonyms.
        user = endpoint.stored(served.model.ranking.user, asked.user)
        if user is None:
            raise not_understood(request, "user: it counts as a missing value; send who the list is for")
        answer, record = _list(endpoint, served, asked, user, call)
        if endpoint.log is not None:
            outcome = "error"
            endpoint.lists.refresh(endpoint.log, endpoint.name)
            endpoint.log.append([record])
        outcome, listed = "ok", len(answer["items"])
        return Json(answer)
    except HTTPException as error:
        outcome = "refused" if error.status_code < 500 else "unavailable"
        raise
    except Exception:
        outcome = "error"
        raise
    finally:
        metrics.answered(endpoint.name, version, outcome, call.latency_ms / 1_000, listed, explained=False)


def _list(
    endpoint: Any, served: Any, asked: RankRequest, user: str, call: Call
) -> tuple[dict[str, Any], RequestRecord]:
    """The answer, and its record for the log."""
    ranking, lists = served.model.ranking, endpoint.lists
    now = _now()
    events = [_event(i, one, ranking, now) for i, one in enumerate(asked.events)]
    lists.refresh(endpoint.log, endpoint.name)
    catalogue = lists.of(served)
    ranker, items = catalogue.ranker, catalogue.ranker.items
    lists.add(user, events)
    there = items.there(now)
    candidates, unknown = None, []
    if asked.candidates is not None:
        codes = items.codes(np.array(asked.candidates, dtype=object))
        usable = (codes >= 0) & np.where(codes >= 0, there[np.maximum(codes, 0)] if len(there) else False, False)
        candidates = np.unique(codes[usable])
        unknown = [one for one, ok in zip(asked.candidates, usable, strict=True) if not ok]
    unknown += [one["item"] for one in events if items.codes(np.array([one["item"]], dtype=object))[0] < 0]
    history = lists.history(catalogue, user, ranking, now)
    moment = Moment(now, catalogue.popular, there)
    seed = zlib.crc32(f"{call.request_id} {user}".encode("utf-8", "surrogatepass"))
    found = ranker.lists(history, moment, asked.k or ranking.k, candidates=candidates, seed=seed)[0]
    ids = items.ids[found.item].tolist()
    shown = zip(
        ids, found.score.tolist(), found.reason, found.propensity.tolist(), found.explored.tolist(), strict=True
    )
    answer = {
        "model": served.model.name, "version": served.version, "request_id": call.request_id, "user": asked.user,
        "items": [
            {"item": item, "score": score, "reason": "explored" if drawn else reason, "propensity": probability}
            for item, score, reason, probability, drawn in shown
        ],
        "unknown": unknown,
    }  # fmt: skip
    # The user goes by the name of the column, by which erasure and `assetline rekey` know it.
    row = {
        ranking.user: user, "events": events, "listed": ids, "propensity": found.propensity.tolist(),
        "explored": found.explored.tolist(),
    }  # fmt: skip
    record = RequestRecord(
        request_id=call.request_id, at=call.at, model=served.model.name, version=served.version, role=call.role,
        key=call.request_id, entity=user, row=row, score=None, alert=None, latency_ms=call.latency_ms,
        outcome="ok",
    )  # fmt: skip
    return answer, record


def _event(number: int, one: SentEvent, ranking: Ranking, now: np.datetime64) -> dict[str, Any]:
    """An event with its moment and weight. Raises HTTP 422 for a time that cannot be read or is in the future."""
    at = now
    if one.at is not None:
        try:
            moment = dt.datetime.fromisoformat(one.at)
        except ValueError as error:
            raise HTTPException(
                422, f"events.{number}.at={one.at!r} is no ISO time; send e.g. 2026-10-01T12:00:00"
            ) from error
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
        at = np.datetime64(moment.replace(microsecond=0), "s")
        if at > now + np.timedelta64(300, "s"):
            raise HTTPException(422, f"events.{number}.at={one.at!r} is in the future; send UTC")
    return {"item": one.item, "event": one.event, "at": str(at), "weight": max(ranking.weight(one.event), 0.0)}


def _now() -> np.datetime64:
    return np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0), "s")


def _both(fitted: Items, today: Items) -> Items:
    """The version's items with what the tables say of them, and the tables' newer ones."""
    missing = today.codes(fitted.ids) < 0
    parts = [(getattr(today, n), getattr(fitted, n)[missing]) for n in ("ids", "texts", "facts", "since", "until")]
    ids, texts, facts, since, until = (np.concatenate(pair) for pair in parts)
    order = np.argsort(ids.astype(str), kind="stable")
    both = Items(ids[order], texts[order], facts[order], since[order], until[order])
    # An item of the version keeps its first moment, which may be before the days that are in memory.
    code = fitted.codes(both.ids)
    known = code >= 0
    both.since[known] = np.minimum(both.since[known], fitted.since[code[known]])
    return replace(both)


def _nothing() -> Behaviour:
    none = np.empty(0, np.int64)
    return Behaviour(np.empty(0, object), none, none, np.empty(0, np.float32), np.empty(0, "datetime64[s]"))


async def no_rows(endpoint: Any, _: Request) -> Response:
    """Refuses rows of a ranking."""
    raise HTTPException(422, f"'{endpoint.name}' ranks items for a user; POST to /models/{endpoint.name}/rank")
