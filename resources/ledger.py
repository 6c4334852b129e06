"""The ledger: the append-only record of which version was in production when, and why.

Belongs here: entries, and what is derived from them: the alias, the current rollout. Does not belong here: the decision
to promote (``assets/lifecycle``), deployment targets (``targets/``), creating and changing the table (``migrations``).
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from resources import audit
from resources.database import Database
from resources.mlflow import MlflowTracking, TrackingError
from resources.settings import Settings

CHAMPION = "champion"
"""Alias of the version in production."""


_TABLE = sa.Table(
    "promotions",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("previous", sa.String(32)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("verdicts", sa.JSON, nullable=False),
    sa.Column("dagster_run", sa.String(64), nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),  # UTC
    sa.UniqueConstraint("model", "number"),  # two writers cannot take the same number
)


_TRIES = 20


Action = Literal[
    "promote", "refuse", "request", "approve", "reject", "deploy", "withdraw", "shadow", "canary", "abort"
]  # fmt: skip
"""A version went live or was refused by the lifecycle; its approval was requested, given, or rejected by a person; its
targets answered the promotion; the model was taken out of production, with no version in its place; a version got a
copy of the requests, answers a share of them, or was taken back before it went live."""

_SAID = {
    "promote": "promoted", "refuse": "refused", "request": "put up for approval", "approve": "approved",
    "reject": "rejected", "deploy": "deployed", "withdraw": "withdrawn", "shadow": "given a copy of the requests",
    "canary": "given a share of the requests", "abort": "taken back",
}  # fmt: skip


def action_in_words(action: str) -> str:
    """What became of a version, for sentences: ``promoted``, ``refused``, …."""
    return _SAID.get(action, action)


_DECIDING: tuple[Action, ...] = ("promote", "withdraw")
"""The entries that change which version is in production."""

SHARE = "share"
"""Key in the verdicts of a canary's entry: the share of the entities that the version answers, above 0 up to 1."""


class LedgerError(Exception):
    """An entry cannot be written, or an alias cannot be corrected. The message gives the version and the fix."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One ledger entry. ``previous`` is the champion before it; ``number`` counts the model's entries from 1."""

    id: int
    model: str
    number: int
    action: Action
    version: str
    previous: str | None
    reason: str
    verdicts: Mapping[str, Any]
    dagster_run: str
    who: str
    at: dt.datetime

    def to_json(self) -> dict[str, Any]:
        """The entry for JSON; the time is ISO 8601."""
        return {**asdict(self), "at": self.at.isoformat()}


class Ledger(dg.ConfigurableResource):
    """The append-only record of promotions and refusals, with time, reason and author."""

    database_url: str = Field(description="SQLAlchemy URL of the database that holds the ledger.")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The ledger in the database of ``settings``; a URL with a password is hidden from the UI."""
        if sa.make_url(settings.database_url).password is not None:
            return cls(database_url=dg.EnvVar("ASSETLINE_DATABASE_URL"))
        return cls(database_url=settings.database_url)

    def promote(
        self, model: str, version: str, *, reason: str, verdicts: Mapping[str, Any], dagster_run: str, who: str
    ) -> Entry:
        """Records ``version`` as the champion. If it already is, writes nothing and returns the existing entry.

        Raises:
            LedgerError: other writers took the next number 20 times in a row.
        """
        facts = {"reason": reason, "verdicts": dict(verdicts), "dagster_run": dagster_run, "who": who}
        return self._append("promote", model, version, facts)

    def refuse(
        self, model: str, version: str, *, reason: str, verdicts: Mapping[str, Any], dagster_run: str, who: str
    ) -> Entry:
        """Records that ``version`` was not promoted. Two identical refusals in a row are one entry.

        Raises:
            LedgerError: other writers took the next number 20 times in a row.
        """
        facts = {"reason": reason, "verdicts": dict(verdicts), "dagster_run": dagster_run, "who": who}
        return self._append("refuse", model, version, facts)

    def record(
        self,
        action: Literal["request", "approve", "reject", "deploy", "withdraw", "shadow", "canary", "abort"],
        model: str,
        version: str,
        *,
        reason: str,
        verdicts: Mapping[str, Any],
        dagster_run: str,
        who: str,
    ) -> Entry:
        """Records a request for approval, a decision on it, what the targets answered, a withdrawal, or a step of a
        rollout.

        After a withdrawal no version is in production. Two identical entries in a row are one.

        Raises:
            LedgerError: other writers took the next number 20 times in a row.
        """
        facts = {"reason": reason, "verdicts": dict(verdicts), "dagster_run": dagster_run, "who": who}
        return self._append(action, model, version, facts)

    def champion(self, model: str) -> Entry | None:
        """The current promotion; ``None`` before the first and after a withdrawal."""
        return self._in_effect(self._last(model, actions=_DECIDING))

    def rollout(self, model: str) -> Entry | None:
        """The current step of a rollout (``shadow`` or ``canary``); ``None`` if no version is being rolled out.

        A promotion ends the rollout: that of its version, or that of another version, which then is out of date.
        """
        last = self._last(model, actions=(*_DECIDING, "shadow", "canary", "abort"))
        return last if last is not None and last.action in ("shadow", "canary") else None

    def at(self, model: str, time: dt.datetime) -> Entry | None:
        """The promotion in effect at ``time`` (UTC if it has no zone); ``None`` if there was none."""
        return self._in_effect(self._last(model, actions=_DECIDING, until=_naive_utc(time)))

    def history(self, model: str | None = None) -> list[Entry]:
        """All entries of one model or of all models, oldest first."""
        query = sa.select(_TABLE).order_by(_TABLE.c.id)
        return self._read(query if model is None else query.where(_TABLE.c.model == model))

    def reconcile(self, mlflow: MlflowTracking) -> dict[str, str]:
        """Corrects the aliases that differ from the ledger, and returns their new versions by model.

        A kill between the ledger write and the alias update leaves the alias outdated, so call this at startup.

        Raises:
            LedgerError: MLflow does not have the champion's version.
        """
        moved = {}
        for model in sorted({entry.model for entry in self.history()}):
            champion = self.champion(model)
            if champion is None:
                if self._last(model, actions=_DECIDING) is not None:  # it was withdrawn
                    mlflow.delete_alias(model, CHAMPION)
                continue
            if mlflow.version_of_alias(model, CHAMPION) == champion.version:
                continue
            try:
                mlflow.set_alias(model, CHAMPION, champion.version)
            except TrackingError as error:
                raise LedgerError(
                    f"the ledger says version {champion.version} of {model} is in production, but MLflow does not have "
                    f"it; restore MLflow's store or promote a version that exists"
                ) from error
            moved[model] = champion.version
        return moved

    def _append(self, action: Action, model: str, version: str, facts: dict[str, Any]) -> Entry:
        for _ in range(_TRIES):
            last, champion = self._last(model), self.champion(model)
            if action == "promote" and champion is not None and champion.version == version:
                return champion
            if last is not None and (action, version, facts["reason"]) == (last.action, last.version, last.reason):
                return last
            row = {
                "model": model,
                "number": last.number + 1 if last else 1,
                "action": action,
                "version": version,
                "previous": champion.version if champion else None,
                "at": _naive_utc(dt.datetime.now(dt.UTC)),
                **facts,
            }
            try:
                with self._database.writing() as connection:
                    connection.execute(sa.insert(_TABLE).values(row))
                    audit.add(connection, action, model, who=facts["who"], origin=_origin(facts["dagster_run"]),
                              details={"version": version, "entry": row["number"]})  # fmt: skip
            except sa.exc.IntegrityError:
                continue  # another process was first; its entry may make ours unnecessary
            return next(entry for entry in self.history(model) if entry.number == row["number"])
        raise LedgerError(f"other processes took the next ledger entry of {model} {_TRIES} times in a row; try again")

    @staticmethod
    def _in_effect(entry: Entry | None) -> Entry | None:
        return None if entry is None or entry.action == "withdraw" else entry

    def _last(
        self, model: str, actions: Collection[Action] | None = None, until: dt.datetime | None = None
    ) -> Entry | None:
        query = sa.select(_TABLE).where(_TABLE.c.model == model).order_by(_TABLE.c.number.desc()).limit(1)
        if actions is not None:
            query = query.where(_TABLE.c.action.in_(actions))
        if until is not None:
            query = query.where(_TABLE.c.at <= until)
        return next(iter(self._read(query)), None)

    def _read(self, query: sa.Select[Any]) -> list[Entry]:
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [Entry(**{**row, "at": row["at"].replace(tzinfo=dt.UTC)}) for row in rows]

    @cached_property
    def _database(self) -> Database:
        return Database(self.database_url)


def _origin(dagster_run: str) -> str:
    return f"run {dagster_run}" if dagster_run else ""


def _naive_utc(time: dt.datetime) -> dt.datetime:
    return time if time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)
