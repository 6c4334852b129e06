"""Forgetting a person: what would go, removing it so that a killed run can go on, and the proof.

Belongs here: the order of the steps, and what is refused. Does not belong here: the single steps (``stored.py``,
``elsewhere.py``, ``search.py``), the command (``cli/forget.py``).

A removal has three steps. First a tombstone with the state ``removing`` is written: from then on no landing brings the
person back. Then everything of theirs is removed, file by file, each whole or not at all. Last, a search has to find
nothing; only then the tombstone says ``done``. A run that is killed in between leaves a tombstone with the digests of
all keys, so the same command goes on, even where the rows that named the keys are gone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.erasure.elsewhere import (
    compact,
    events_with,
    explained_with,
    feature_rows,
    samples_with,
    texts_with,
)
from assets.lifecycle.erasure.person import Person, stored_value
from assets.lifecycle.erasure.questions import alerts_with, excerpts_of, questions_with
from assets.lifecycle.erasure.search import search
from assets.lifecycle.erasure.stored import (
    Scope,
    days_with,
    lines_with,
    old_files_with,
    remove_from_log,
    remove_from_table,
    with_keys,
)
from assets.lifecycle.model.version.training_rows import RowsError, RowsRecord
from resources.alerts.store import AlertStore
from resources.backup import PROJECT_DATABASE, SUFFIX, BackupError, maintenance, manifest_of
from resources.keys import KeyProblem
from resources.mlflow import MlflowTracking, TrackingError
from resources.request_log import RequestLog
from resources.settings import Settings
from resources.table_files import BucketFiles, TableError, is_url
from resources.tables import WHOLE, ParquetTables
from resources.tombstones import Tombstone, TombstoneError, Tombstones

DATABASES = ("dagster/event_log.db", PROJECT_DATABASE)
"""SQLite files whose free pages may hold text that was removed."""


class ErasureError(Exception):
    """A person cannot be forgotten, or is not yet forgotten everywhere. The message gives the reason and the fix."""


@dataclass(frozen=True)
class Findings:
    """What is stored of a person.

    Attributes:
        rows: by table, the number of their rows by day.
        old_files: files of earlier versions of tables with rows of theirs.
        lines: by place, the number of their lines in the log of requests.
        samples: by file, the number of their rows that a version keeps for explanations.
        explained: by file, the number of their rows among the explained ones of an evaluation.
        texts: by file, the number of their values in logs and pages.
        questions: by table, the number of their questions that are kept without a key, as examples or as vectors.
        events: number of Dagster's events with a sample or a message about them.
        alerts: number of alerts, and of changes of these, with a message about them.
        trained: versions that were trained on days with their rows: model, version, days, rows.
        backups: archives that hold files with their rows: file, made_at, problem.
        not_reached: what this command cannot change, one sentence each.
    """

    rows: Mapping[str, Mapping[str, int]]
    old_files: Sequence[str] = ()
    lines: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    explained: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, int] = field(default_factory=dict)
    questions: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    alerts: int = 0
    trained: Sequence[Mapping[str, Any]] = ()
    backups: Sequence[Mapping[str, Any]] = ()
    not_reached: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored of them."""
        counted = (self.rows, self.old_files, self.lines, self.samples, self.explained, self.texts, self.questions)
        return not any(counted) and not self.events and not self.alerts


class Erasure:
    """The removal of one person from the stores of one state folder.

    Args:
        settings: the state folder, and where the tables and the log of requests are.
        models: all declared models.
        instance: Dagster's instance.
        column: the column that names the person.
        value: their value in it, as a person writes it.
        only: names of the models whose rows go, with those that share their table; empty: all that have the column.

    Raises:
        ErasureError: no such model or column, or an empty value.
    """

    def __init__(
        self, settings: Settings, models: Sequence[Model], instance: dg.DagsterInstance, *, column: str, value: str,
        only: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.settings, self.instance = settings, instance
        self.declared = [model.name for model in models]
        self.scope = Scope(_in_scope(models, column, only), column)
        try:
            stored = {stored_value(model, column, value, settings) for model in self.scope.models}
        except KeyProblem as error:
            raise ErasureError(f"{column} has pseudonyms: {error}") from error
        if len(stored) != 1 or not (text := stored.pop()):
            raise ErasureError(f"give the value of {column}, as --entity {column}=VALUE")
        self.tables = ParquetTables(root=settings.tables)
        self.log = RequestLog(folder=str(settings.serving), url=settings.history_url)
        self.alerts = AlertStore(settings.database_url)
        self.mlflow = MlflowTracking.from_settings(settings).process_config_and_initialize()
        try:
            self.tombstones = Tombstones.read(self.tables.files)
        except TombstoneError as error:
            raise ErasureError(str(error)) from error
        self.before = self.tombstones.of(column, text)
        digests = dict(self.before.keys) if self.before else {}
        self.person = Person(column, text, self.tombstones, digests=digests)
        self.names = self.scope.tables(self.tables, self.declared)

    @property
    def name(self) -> str:
        """What the audit log calls the person: the beginning of the digest of their value."""
        return self.tombstones.digest(self.person.value)[:12]

    def find(self) -> Findings:
        """What is stored of the person now; changes nothing."""
        known = with_keys(self.tables, self.log, self.scope, self.declared, self.person)
        self.person = replace(known, excerpts=excerpts_of(self.tables, self.scope, known))
        rows = {}
        for name in self.names:
            if of_days := {day: part.num_rows for day, part in days_with(self.tables, name, self.scope, self.person)}:
                rows[name] = of_days
        old = [file for name in self.names for file in old_files_with(self.tables, name, self.scope, self.person)]
        lines = lines_with(self.log, self.scope, self.person)
        samples = samples_with(self.settings, feature_rows(self.tables, self.scope, self.person), remove=False)
        return Findings(
            rows=rows, old_files=old, lines=lines, samples=samples,
            explained=explained_with(self.settings, self.person, remove=False),
            texts=texts_with(self.settings, self.person, remove=False),
            questions=questions_with(self.tables, self.scope, self.person, remove=False),
            events=events_with(self.instance, self.person, remove=False),
            alerts=alerts_with(self.alerts, self.person, remove=False),
            trained=self._trained(rows), backups=self._backups(rows, lines), not_reached=self._not_reached(),
        )  # fmt: skip

    def forget(self, who: str) -> Findings:
        """Removes the person from everything, and proves it by a search.

        Returns:
            What was stored of them when the removal began; of a removal that goes on, what was left.

        Raises:
            ErasureError: nothing is stored of them; runs are active; or the search has found something.
        """
        with self._alone():
            found = self.find()
            if found.is_empty and (self.before is None or self.before.state == "done"):
                raise ErasureError(f"nothing that is stored has this {self.person.column}; nothing was changed")
            tombstone = self._tombstone(who, found)
            self.tombstones = self.tombstones.having(tombstone)
            self.tombstones.write(self.tables.files)
            samples_with(self.settings, feature_rows(self.tables, self.scope, self.person), remove=True)
            explained_with(self.settings, self.person, remove=True)
            # Examples of their questions are recognised by the rows, so they go before these.
            questions_with(self.tables, self.scope, self.person, remove=True)
            alerts_with(self.alerts, self.person, remove=True)
            events_with(self.instance, self.person, remove=True)
            texts_with(self.settings, self.person, remove=True)
            plain = getattr(self.tables.files, "plain", self.tables.files)
            for name in self.names:
                remove_from_table(self.tables, name, self.scope, self.person)
                for file in old_files_with(self.tables, name, self.scope, self.person):
                    plain.remove(file)
            remove_from_log(self.log, self.scope, self.person)
            problems = compact(self.settings, DATABASES)
            self._refuse_active_runs("may have written rows back meanwhile; wait for its end, and run this again")
            left = search(self.settings, self.tables, self.log, self.scope, self.names, self.person)
            questions = questions_with(self.tables, self.scope, self.person, remove=False)
            left += [f"{table}: {count} of their questions" for table, count in questions.items()]
            if left or problems:
                shown = "\n".join(f"  {one}" for one in [*left[:20], *problems])
                raise ErasureError(f"not everything is gone; remove it, and run this again:\n{shown}")
            self.tombstones.having(replace(tombstone, state="done")).write(self.tables.files)
        return replace(found, trained=tombstone.trained, backups=tombstone.backups)

    # -- parts -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps backups, prunes and runs of the commands away, and refuses active runs of Dagster."""
        from filelock import FileLock, Timeout

        with maintenance(self.settings, ErasureError):
            try:
                with FileLock(self.settings.home / ".runner.lock", timeout=0):
                    self._refuse_active_runs("is active and may write rows back; wait for its end")
                    yield
            except Timeout as error:
                raise ErasureError(
                    "another command is running on this state folder; try again when it has ended"
                ) from error

    def _refuse_active_runs(self, why: str) -> None:
        active = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
        if runs := self.instance.get_runs(dg.RunsFilter(statuses=list(active)), limit=1):
            raise ErasureError(f"run {runs[0].run_id} ({runs[0].job_name}) {why}")

    def _tombstone(self, who: str, found: Findings) -> Tombstone:
        now = dt.datetime.now(dt.UTC)
        landed = [
            day for model in self.scope.models for day in self.tables.days(model.key(f"raw_{model.table.name}"))
            if day != WHOLE
        ]  # fmt: skip
        late = max((model.table.late_days for model in self.scope.models), default=0)
        last = max([*landed, str(now.date())])
        until = str(dt.date.fromisoformat(last) + dt.timedelta(days=late))
        keys = {
            table: {self.tombstones.digest(key) for key in of_table} | set(self.person.digests.get(table, ()))
            for table, of_table in self.person.keys.items()
        }
        going_on = self.before if self.before and self.before.state == "removing" else None
        return Tombstone(
            column=self.person.column, digest=self.tombstones.digest(self.person.value), keys=keys,
            at=now.isoformat(timespec="seconds"), until=until, who=who,
            trained=going_on.trained if going_on else tuple(found.trained),
            backups=going_on.backups if going_on else tuple(found.backups),
        )  # fmt: skip

    def _trained(self, rows: Mapping[str, Mapping[str, int]]) -> list[Mapping[str, Any]]:
        """The versions whose training rows come from days with rows of the person."""
        found: list[Mapping[str, Any]] = []
        models = {model.name: model for model in self.scope.models}
        for version in self.mlflow.versions():
            if (model := models.get(version.model)) is None:
                continue
            table = self.scope.cleaned(model)
            try:
                record = RowsRecord.read(self.mlflow.download(version.model, version.version))
            except (RowsError, TrackingError, OSError):
                record = None
            if record is None:
                found.append({"model": version.model, "version": version.version, "days": None, "rows": None})
                continue
            days = [day for day in record.stamp.inputs.get(table, {}) if day in rows.get(table, {})]
            if days:
                of_days = sum(rows[table][day] for day in days)
                found.append({"model": version.model, "version": version.version, "days": len(days), "rows": of_days})
        return found

    def _backups(self, rows: Mapping[str, Mapping[str, int]], lines: Mapping[str, int]) -> list[Mapping[str, Any]]:
        """The archives in the folder for backups that hold files with the person's rows."""
        folder = self.settings.backup
        found: list[Mapping[str, Any]] = []
        for file in sorted(folder.glob(f"*{SUFFIX}")) if folder and folder.is_dir() else []:
            try:
                manifest = manifest_of(file)
            except BackupError as error:
                found.append({"file": str(file), "made_at": "", "problem": str(error)})
                continue
            holds = any(
                f"/{name}/{day}.parquet" in member or f"/{name}/_day={day}/" in member
                for member in manifest.files for name, days in rows.items() for day in days
            )  # fmt: skip
            logged = {tuple(place.split(", ")[:2]) for place in lines}
            holds |= any(f"serving/{model}/requests/{day}/" in member for member in manifest.files
                         for model, day in logged)  # fmt: skip
            if holds:
                found.append({"file": str(file), "made_at": manifest.made_at, "problem": ""})
        return found

    def _not_reached(self) -> list[str]:
        """What no file of the state folder shows."""
        said = ["archives outside of the folder for backups (ASSETLINE_BACKUP), and copies that people have made",
                "images and manifests that were built from versions, which hold their files"]  # fmt: skip
        plain = getattr(self.tables.files, "plain", self.tables.files)
        if isinstance(plain, BucketFiles):
            try:
                versioned = plain.keeps_versions()
            except TableError:
                versioned = None
            if versioned is not False:
                said.append("old versions of objects, which the bucket may keep: remove them with its own tools")
        if is_url(self.settings.tracking_uri) and not self.settings.tracking_uri.startswith("sqlite"):
            said.append("files of versions in MLflow's store elsewhere")
        if any(model.answers and model.answers.unknown for model in self.scope.models):
            said.append("alerts with examples of questions that channels have sent already")
        if self.settings.history_url:
            said.append("backups and the log of writes of the PostgreSQL with the log of requests")
        return said


def _in_scope(models: Sequence[Model], column: str, only: Sequence[str]) -> list[Model]:
    """The models whose rows go. Raises :class:`ErasureError` if there is none."""
    names = {model.name: model for model in models}
    for name in only:
        if name not in names:
            raise ErasureError(f"no model '{name}' is declared; the declared models are: {', '.join(names) or 'none'}")
    having = [model for model in models if column in model.table.columns]
    if not having:
        columns = sorted({one for model in models for one in model.table.columns})
        raise ErasureError(f"no declared model has a column '{column}'; the columns are: {', '.join(columns)}")
    landers = {names[name].lander for name in only}
    if missing := [name for name in only if names[name] not in having]:
        raise ErasureError(
            f"{missing[0]} has no column '{column}'; its columns are: {', '.join(names[missing[0]].table.columns)}"
        )
    return [model for model in having if not only or model.lander in landers]
