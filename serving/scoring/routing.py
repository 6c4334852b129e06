"""Which of two versions answers a row while a new one is rolled out, and the score of the other one for comparison.

Belongs here: the side of an entity, scoring by both versions, what happens if the new one cannot score. Does not belong
here: the steps of a rollout (``assets/lifecycle/release/rollout.py``), loading versions and HTTP (``service.py``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resources.request_log import SHADOW, LogError, Role
from serving.scoring.recording import Call
from serving.scoring.request_parsing import Raw

if TYPE_CHECKING:
    from serving.scoring.service import Served

_log = logging.getLogger("assetline.service")


@dataclass(frozen=True)
class Answer:
    """The answer to one row.

    Attributes:
        response: the response.
        served: the version that gave it.
        features: the row's features, float32 ``[n_features]``.
        in_place: whether the champion answered in place of the challenger, which could not.
    """

    response: dict[str, Any]
    served: Served
    features: np.ndarray
    in_place: bool = False


@dataclass(frozen=True)
class Challenger:
    """A version that is being rolled out, and the share of the entities that it answers; 0: it only scores."""

    served: Served
    share: float

    def answers(self, entity: Any) -> bool:
        """Whether the version answers the rows of an entity.

        The hash of the entity decides, so an entity on its side stays there when the share grows. Another version has
        other entities on its side.
        """
        text = f"{self.served.model.name}:{self.served.version}:{entity}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") < self.share * 2**64


@dataclass(frozen=True)
class Route:
    """The versions that score a request: the champion, and the challenger if one is being rolled out."""

    champion: Served
    challenger: Challenger | None = None

    def score(self, raw: Sequence[Raw], call: Call) -> list[Answer]:
        """Scores raw rows, each by the version that answers it. If the challenger fails, the champion answers.

        Raises what :meth:`Served.score` raises for the champion. A row that the champion refuses is refused.
        """
        everything = range(len(raw))
        if self.challenger is None or not raw:
            return list(_scored(self.champion, raw, everything, call).values())
        served, others = self.challenger.served, self._answered_by_challenger(raw, call)
        found = _scored(self.champion, raw, [i for i in everything if i not in others], call.as_role("champion"))
        if others:
            try:
                found |= _scored(served, raw, others, call.as_role("canary"))
            except LogError:  # nothing can be recorded, by the champion either
                raise
            except Exception as error:
                _record_failure(served, [raw[i] for i in others], call.as_role("canary"), error)
                found |= _scored(self.champion, raw, others, call.as_role("champion"), in_place=True)
        return [found[i] for i in everything]

    def compare(self, raw: Sequence[Raw], answers: Sequence[Answer], call: Call) -> None:
        """Lets each version score the rows that the other one answered, for the request log.

        Nothing is raised, because the rows are answered. A failure of the challenger is a record of the log.
        """
        if self.challenger is None:
            return
        pairs = list(zip(raw, answers, strict=True))
        by_champion = [row for row, one in pairs if one.served is self.champion and not one.in_place]
        by_challenger = [row for row, one in pairs if one.served is not self.champion]
        for served, rows in ((self.challenger.served, by_champion), (self.champion, by_challenger)):
            if not rows:
                continue
            shadow = call.as_role(SHADOW)
            try:
                served.score(rows, shadow)
            except LogError as error:
                _log.error("request %s is not compared: %s", call.request_id, error)
            except Exception as error:
                _record_failure(served, rows, shadow, error)

    def _answered_by_challenger(self, raw: Sequence[Raw], call: Call) -> set[int]:
        """Positions of the rows whose entities are on the challenger's side."""
        assert self.challenger is not None
        if self.challenger.share <= 0:
            return set()
        rows = self.champion.readable(raw, call)
        entities = rows[self.champion.model.entity or self.champion.model.table.key].tolist()
        return {i for i, entity in enumerate(entities) if self.challenger.answers(entity)}


def _scored(
    served: Served, raw: Sequence[Raw], positions: Iterable[int], call: Call, *, in_place: bool = False
) -> dict[int, Answer]:
    """The answers of one version to some of the rows, by position."""
    chosen = list(positions)
    if not chosen:
        return {}
    responses, features = served.score([raw[i] for i in chosen], call)
    answers = (Answer(one, served, x, in_place) for one, x in zip(responses, features, strict=True))
    return dict(zip(chosen, answers, strict=True))


def _record_failure(served: Served, rows: Sequence[Raw], call: Call, error: Exception) -> None:
    role: Role = call.role
    _log.warning("version %s of '%s' (%s) cannot score: %s", served.version, served.model.name, role, error)
    if served.log is None:
        return
    try:
        served.log.append(call.failed(served.model, served.version, rows, "error", error))
    except LogError as error_of_log:
        _log.error("a failure of version %s is missing in the log: %s", served.version, error_of_log)
