"""The request log: what the scoring service was asked, and what it answered. One record for each row of a request.

Belongs here: the records, their line, the log as files, reading it, and following it. Does not belong here: the log in
PostgreSQL (``request_log_postgres.py``), which rows a version needs (``serving/scoring/entity_events.py``), the asset
made from the log (``assets/lifecycle/monitoring/requests.py``).

A process writes the records of a request with one write, to a file of its own for each model and day of arrival (UTC):
``<folder>/<model>/requests/<day>/<writer>.jsonl``. So several processes never share a file. The write reaches the
operating system before the answer is sent: a killed process loses no answered row, a power failure may lose the last
seconds. Records of one writer are numbered from 1 on each day, and a record that cannot be written uses up its number.
So what the log lost shows as a gap.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import dagster as dg
import pandas as pd
import sqlalchemy as sa
from pydantic import Field, PrivateAttr

from resources.settings import Settings

_log = logging.getLogger(__name__)

Role = Literal["champion", "canary", "shadow"]
"""Why a version scored a row: it is in production, it gets a share of the requests, or it gets a copy of them."""

Outcome = Literal["ok", "refused", "error"]
"""A row was scored; it was refused (the caller's fault); it could not be scored (the service's fault)."""

SHADOW: Role = "shadow"
"""Role of a version whose answers nobody gets. Its rows are no history."""

COLUMNS = (
    "request_id", "at", "model", "version", "role", "key", "entity", "row", "score", "alert", "latency_ms", "outcome",
    "problem", "writer", "n",
)  # fmt: skip
"""Columns of :meth:`RequestLog.read`."""


class LogError(Exception):
    """The log cannot be written or read; the message gives the reason and the fix."""


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One row of a request, and its answer.

    Args:
        request_id: id of the request; its rows share it.
        at: when the request arrived (UTC, naive).
        model: name of the model.
        version: version that answered; empty if none serves.
        role: see :data:`Role`.
        key: the row's key; ``None`` if it is unknown.
        entity: the row's entity (:attr:`assets.declaration.Model.entity`); ``None`` if it is unknown.
        row: the raw input; ``None`` if the request could not be read.
        score: the score: a number, or a list with one for each class; ``None`` without a score.
        alert: the decision; ``None`` if the model makes none.
        latency_ms: milliseconds from the request's arrival until it was logged; while a version is rolled out, the
            processor time that this version took to score.
        outcome: see :data:`Outcome`.
        problem: why there is no score; empty if there is one.
    """

    request_id: str
    at: dt.datetime
    model: str
    version: str
    role: Role
    key: Any
    entity: Any
    row: Mapping[str, Any] | None
    score: float | list[float] | None
    alert: bool | None
    latency_ms: float
    outcome: Outcome
    problem: str = ""

    def line(self, n: int) -> str:
        """The record as a line of JSON, without line break. ``n`` is its number among those of its writer and day."""
        values: dict[str, Any] = {
            "n": n, "request_id": self.request_id, "at": self.at.isoformat(timespec="milliseconds"),
            "version": self.version, "role": self.role, "key": self.key, "entity": self.entity, "row": self.row,
            "score": self.score, "alert": self.alert, "latency_ms": round(self.latency_ms, 3), "outcome": self.outcome,
        }  # fmt: skip
        if self.problem:
            values["problem"] = self.problem
        return json.dumps(values, separators=(",", ":"))


@dataclass(frozen=True)
class Appended:
    """Where one write went: the positions before and after it, as the followers of the log count them."""

    day: str
    writer: str
    start: int
    end: int


@dataclass(frozen=True)
class LoggedLines:
    """The lines of one writer on one day: parsed lines, and how many could not be read (a kill amid a write).

    ``forgotten`` are the numbers of lines whose content was erased (:meth:`Store.forget`).
    """

    writer: str
    lines: list[dict[str, Any]]
    torn: int
    forgotten: frozenset[int] = frozenset()

    @property
    def missing(self) -> int:
        """How many numbers are missing up to the highest one."""
        numbers = {int(line["n"]) for line in self.lines} | self.forgotten
        return max(numbers, default=0) - len(numbers)


@dataclass(frozen=True)
class LoggedDay:
    """The records of one day.

    Args:
        records: the records, as :meth:`RequestLog.read` returns them.
        torn: number of lines that cannot be read.
        missing: by writer, how many numbered records are not in the log; only writers that miss some.
        writers: number of processes that wrote.
    """

    records: pd.DataFrame
    torn: int
    missing: dict[str, int]
    writers: int


class Follower(Protocol):
    """Reads what was appended to one model's log since the last call."""

    def fetch(self) -> list[dict[str, Any]]:
        """Lines that any process has appended since the last call. Raises :class:`LogError`."""

    def passed(self, appended: Sequence[Appended]) -> None:
        """Leaves out what this process has just appended and knows already."""

    def close(self) -> None:
        """Frees connections."""


Change = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Returns what takes the place of a line; ``None`` if it stays."""


class Store(Protocol):
    """Where the lines are."""

    def write(self, model: str, day: str, writer: str, first: int, lines: Sequence[str]) -> Appended:
        """Appends the lines of one writer, numbered from ``first``, with one write. Raises :class:`LogError`."""

    def days(self, model: str) -> list[str]:
        """ISO days that have lines, sorted."""

    def lines(self, model: str, day: str) -> Iterator[LoggedLines]:
        """The lines of a day by writer."""

    def state(self, model: str, day: str) -> str:
        """A text that differs once a day has more lines."""

    def follow(self, model: str, since: str) -> Follower:
        """A follower that begins with the lines of the day ``since``."""

    def models(self) -> list[str]:
        """Models that have lines, sorted."""

    def size(self, model: str, day: str) -> int:
        """Bytes of the lines of a day."""

    def remove(self, model: str, day: str) -> None:
        """Removes the lines of a day; for retention only."""

    def rewrite(self, model: str, day: str, change: Change) -> int:
        """Replaces lines of a day and returns how many; those that cannot be read stay. Nothing may follow the log."""

    def forget(self, model: str, day: str, theirs: Callable[[Sequence[Mapping[str, Any]]], Sequence[bool]]) -> int:
        """Erases the lines of a day of which a function returns true, and returns how many; their numbers stay."""

    def close(self) -> None:
        """Frees files and connections."""


class RequestLog(dg.ConfigurableResource):
    """The log of all requests and answers, shared by all processes that name the same folder or the same database."""

    folder: str = Field(description="Folder of the scoring service's state.")
    url: str = Field(default="", description="SQLAlchemy URL of a PostgreSQL that holds the log; default: files.")

    _writer: str = PrivateAttr(default="")
    _numbers: dict[tuple[str, str], int] = PrivateAttr(default_factory=dict)
    _store: Store | None = PrivateAttr(default=None)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The log of ``settings``; a URL with a password is hidden from the UI."""
        url: Any = settings.history_url
        if url and sa.make_url(url).password is not None:
            url = dg.EnvVar("ASSETLINE_HISTORY_URL")
        return cls(folder=str(settings.serving), url=url)

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[RequestRecord]) -> list[Appended]:
        """Writes the records; one write for each model and day. Once it returns, a kill of this process loses none.

        Raises:
            LogError: the log cannot be written. The numbers of the records stay unused.
        """
        groups: dict[tuple[str, str], list[RequestRecord]] = {}
        for record in records:
            groups.setdefault((record.model, record.at.date().isoformat()), []).append(record)
        appended = []
        for (model, day), of_group in groups.items():
            first = self._next_number(model, day, len(of_group))
            lines = [record.line(n) for n, record in enumerate(of_group, first)]
            appended.append(self.store.write(model, day, self._writer, first, lines))
        return appended

    def _next_number(self, model: str, day: str, count: int) -> int:
        # A forked process must not write to its parent's file.
        if not self._writer.startswith(f"{os.getpid()}-"):
            self._writer, self._numbers = f"{os.getpid()}-{uuid.uuid4().hex[:12]}", {}
        first = self._numbers.get((model, day), 0) + 1
        self._numbers[model, day] = first + count - 1
        return first

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, model: str, since: dt.datetime, until: dt.datetime) -> pd.DataFrame:
        """Records that arrived from ``since`` to before ``until`` (UTC if they have no zone), in the order of arrival.

        It has what other processes have appended so far.

        Returns:
            :data:`COLUMNS`, ``[n]`` each. ``row`` holds dictionaries and ``score`` numbers or lists; a value that a
            record does not have is ``None``. The attribute ``attrs["torn"]`` is the number of unreadable lines.

        Raises:
            LogError: the log cannot be read.
        """
        first, last = naive_utc(since), naive_utc(until)
        days = [day for day in self.days(model) if str(first.date()) <= day <= str(last.date())]
        logged = [self.day(model, day) for day in days]
        frame = _frame([], model) if not logged else pd.concat([one.records for one in logged], ignore_index=True)
        within = frame[(frame["at"] >= first) & (frame["at"] < last)].reset_index(drop=True)
        within.attrs["torn"] = sum(one.torn for one in logged)
        return within

    def day(self, model: str, day: str) -> LoggedDay:
        """The records that arrived on an ISO day, and what the log lost of it. Raises :class:`LogError`."""
        writers = list(self.store.lines(model, day))
        lines = [{**line, "writer": one.writer} for one in writers for line in one.lines]
        missing = {one.writer: one.missing for one in writers if one.missing}
        return LoggedDay(_frame(lines, model), sum(one.torn for one in writers), missing, len(writers))

    def days(self, model: str) -> list[str]:
        """Sorted ISO days on which requests arrived. Raises :class:`LogError`."""
        return self.store.days(model)

    def state(self, model: str, day: str) -> str:
        """A short text that changes when a day gets more records. Raises :class:`LogError`."""
        return hashlib.blake2b(self.store.state(model, day).encode(), digest_size=6).hexdigest()

    def follow(self, model: str, since: str = "") -> Follower:
        """Follows one model's log from an ISO day on (default: from its first day).

        A follower belongs to one thread at a time. What a process appends is seen by the next ``fetch`` of any process.
        """
        return self.store.follow(model, since)

    def models(self) -> list[str]:
        """Names of the models that have lines, of this or of an earlier release. Raises :class:`LogError`."""
        earlier = {path.parent.name for path in Path(self.folder).glob("*/*.jsonl")}
        return sorted({*self.store.models(), *earlier})

    def rewrite(self, model: str, day: str, change: Change) -> int:
        """Replaces lines of an ISO day and returns how many. A kill leaves each line as it was or as it becomes.

        No service may follow the log meanwhile. Raises :class:`LogError`.
        """
        return self.store.rewrite(model, day, change)

    def earlier_release(self, model: str) -> list[Path]:
        """Files of releases before this log, one for each event day, with the typed rows that were scored."""
        return sorted((Path(self.folder) / model).glob("*.jsonl"))

    def close(self) -> None:
        """Closes files and connections; they are opened again when needed."""
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> Store:
        """Where the lines are."""
        if self._store is None:
            from resources.request_log_postgres import Postgres

            # Dagster resolves the variable only for runs and sensors.
            url = self.url.get_value() if isinstance(self.url, dg.EnvVar) else self.url
            self._store = Postgres(url) if url else Files(Path(self.folder))
        return self._store


def naive_utc(time: dt.datetime) -> dt.datetime:
    """A time in UTC without its zone."""
    return time if time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)


def parsed(text: str) -> dict[str, Any] | None:
    """A line of the log; ``None`` if it is incomplete. An erased line has a number and ``forgotten``, no more."""
    with contextlib.suppress(json.JSONDecodeError):
        line = json.loads(text)
        if isinstance(line, dict) and ({"n", "at", "row", "outcome", "role"} <= line.keys() or is_forgotten(line)):
            return line
    return None


def is_forgotten(line: Mapping[str, Any]) -> bool:
    """Whether the content of a line was erased."""
    return line.get("forgotten") is True and "n" in line


def forgotten_line(line: Mapping[str, Any], length: int) -> str:
    """What takes the place of an erased line: its number, filled up to its length with blanks.

    With the same length, the positions of all other lines stay, on which the writer and all readers rely.
    """
    return json.dumps({"n": line["n"], "forgotten": True}, separators=(",", ":")).ljust(length)


def _frame(lines: Sequence[Mapping[str, Any]], model: str) -> pd.DataFrame:
    columns: dict[str, Any] = {name: [line.get(name) for line in lines] for name in COLUMNS}
    columns["model"] = [model] * len(lines)
    columns["problem"] = [line.get("problem", "") for line in lines]
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    frame = frame.assign(
        at=pd.to_datetime(frame["at"]).astype("datetime64[ns]"),
        latency_ms=frame["latency_ms"].astype("float64"),
        n=frame["n"].astype("int64"),
        **{name: frame[name].astype("string[pyarrow]") for name in _TEXT},
    )
    return frame.sort_values(["at", "writer", "n"], kind="stable", ignore_index=True)


_TEXT = ("request_id", "model", "version", "role", "outcome", "problem", "writer")


class Files:
    """The log as files on this machine: ``<folder>/<model>/requests/<day>/<writer>.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, _OpenFile] = {}

    def write(self, model: str, day: str, writer: str, first: int, lines: Sequence[str]) -> Appended:
        """See :class:`Store`."""
        try:
            file = self._file(model, f"{day}/{writer}.jsonl")
            start = file.end
            file.append(("\n".join(lines) + "\n").encode())
        except OSError as error:
            if model in self._open:
                self._open.pop(model).close()
            raise LogError(
                f"the log of requests cannot be written ({error}); nothing was recorded; send the request again"
            ) from error
        return Appended(day, writer, start, file.end)

    def _file(self, model: str, name: str) -> _OpenFile:
        file = self._open.get(model)
        if file is None or file.name != name:
            if file is not None:
                self._open.pop(model).close()
            path = self._of(model) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open[model] = _OpenFile(path, name)
        return file

    def days(self, model: str) -> list[str]:
        """See :class:`Store`."""
        return sorted(name for name in _names(self._of(model)) if not name.startswith("."))

    def lines(self, model: str, day: str) -> Iterator[LoggedLines]:
        """See :class:`Store`."""
        for path in self._paths(model, day):
            lines, torn, forgotten = _parsed_lines(path.read_bytes().split(b"\n"), path)
            yield LoggedLines(path.stem, lines, torn, forgotten)

    def state(self, model: str, day: str) -> str:
        """See :class:`Store`."""
        return repr([(path.stem, path.stat().st_size) for path in self._paths(model, day)])

    def follow(self, model: str, since: str) -> Follower:
        """See :class:`Store`."""
        return _FileFollower(self._of(model), since)

    def models(self) -> list[str]:
        """See :class:`Store`."""
        return sorted(path.parent.name for path in self._folder.glob("*/requests"))

    def size(self, model: str, day: str) -> int:
        """See :class:`Store`."""
        return sum(path.stat().st_size for path in self._paths(model, day))

    def remove(self, model: str, day: str) -> None:
        """See :class:`Store`."""
        for path in self._paths(model, day):
            path.unlink()
        with contextlib.suppress(OSError):  # another process has just begun a file
            (self._of(model) / day).rmdir()

    def rewrite(self, model: str, day: str, change: Change) -> int:
        """See :class:`Store`."""
        self.close()
        count = 0
        for path in self._paths(model, day):
            texts = path.read_bytes().split(b"\n")
            made = [_changed(text, change) for text in texts]
            if some := sum(one is not None for one in made):
                scratch = path.with_name(f".{path.name}.rewritten")
                scratch.write_bytes(
                    b"\n".join(text if one is None else one for text, one in zip(texts, made, strict=True))
                )
                os.replace(scratch, path)
                count += some
        return count

    def forget(self, model: str, day: str, theirs: Callable[[Sequence[Mapping[str, Any]]], Sequence[bool]]) -> int:
        """See :class:`Store`. Lines are overwritten in place, since a service may be appending to the file."""
        erased = 0
        for path in self._paths(model, day):
            file = os.open(path, os.O_RDWR)  # without O_APPEND, which would write at the end
            try:
                at, places = 0, []
                for text in path.read_bytes().split(b"\n"):
                    line = parsed(text.decode("utf-8", "replace"))
                    if line is not None and not is_forgotten(line):
                        places.append((line, at, len(text)))
                    at += len(text) + 1
                mine = theirs([line for line, _, _ in places])
                for (line, begin, length), is_mine in zip(places, mine, strict=True):
                    if is_mine:
                        os.pwrite(file, forgotten_line(line, length).encode(), begin)
                        erased += 1
                os.fsync(file)
            finally:
                os.close(file)
        return erased

    def close(self) -> None:
        """See :class:`Store`."""
        while self._open:
            self._open.popitem()[1].close()

    def _of(self, model: str) -> Path:
        return self._folder / model / "requests"

    def _paths(self, model: str, day: str) -> list[Path]:
        folder = self._of(model) / day
        return [folder / name for name in sorted(_names(folder)) if name.endswith(".jsonl")]


class _OpenFile:
    """A file of this process, open for appending. ``end`` is its size."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        self.end = os.fstat(self._file).st_size
        if self.end:  # a write of this process failed before; its line may be incomplete
            self.append(b"\n")

    def append(self, content: bytes) -> None:
        """One write to the operating system. Raises :class:`OSError`, also if only part was written."""
        written = os.write(self._file, content)
        self.end += written
        if written != len(content):
            raise OSError(f"{self.path}: the disk took only part of a line; free some space")

    def close(self) -> None:
        os.close(self._file)


@dataclass
class _FileFollower:
    """Reads what is new in the files of one model: a listing of each recent day, and one look at each of its files."""

    folder: Path
    since: str
    _ends: dict[str, int] = field(default_factory=dict)
    _today: dt.date | None = None
    _days: list[tuple[str, str]] = field(default_factory=list)

    def fetch(self) -> list[dict[str, Any]]:
        """See :class:`Follower`."""
        found: list[dict[str, Any]] = []
        today = dt.datetime.now(dt.UTC).date()
        if today != self._today:
            self._today, self._days = today, self._days_until(today)
        try:
            for day, folder in self._days:
                for entry in _entries(folder):
                    name = f"{day}/{entry.name}"
                    if entry.stat().st_size > self._ends.get(name, 0) and name.endswith(".jsonl"):
                        found += self._new_of(name)
        except OSError as error:
            raise LogError(f"the log of requests cannot be read ({error}); send the request again") from error
        # The clock of another process may be behind, or ahead, by less than a day.
        if self.since < (yesterday := str(today - dt.timedelta(days=1))):
            self.since, self._days = yesterday, self._days_until(today, yesterday)
            self._ends = {name: end for name, end in self._ends.items() if name >= yesterday}
        return found

    def passed(self, appended: Sequence[Appended]) -> None:
        """See :class:`Follower`."""
        for one in appended:
            name = f"{one.day}/{one.writer}.jsonl"
            if self._ends.get(name, 0) == one.start:
                self._ends[name] = one.end

    def close(self) -> None:
        """See :class:`Follower`."""

    def _days_until(self, today: dt.date, since: str = "") -> list[tuple[str, str]]:
        """Days to look at, with their folders: those there are from the start on, and the ones around today."""
        around = {str(today + dt.timedelta(days=n)) for n in (-1, 0, 1)}
        there = {name for name in _names(self.folder) if not name.startswith(".")}
        first = since or self.since
        return [(day, str(self.folder / day)) for day in sorted(there | around) if day >= first]

    def _new_of(self, name: str) -> list[dict[str, Any]]:
        path, start = self.folder / name, self._ends.get(name, 0)
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
        complete = content.rfind(b"\n") + 1  # another process may be writing the rest of a line
        self._ends[name] = start + complete
        return _parsed_lines(content[:complete].split(b"\n"), path)[0]


def _changed(text: bytes, change: Change) -> bytes | None:
    """The line in place of another one; ``None`` if it stays, or cannot be read."""
    line = parsed(text.decode("utf-8", "replace")) if text else None
    made = change(line) if line is not None and not is_forgotten(line) else None
    return None if made is None else json.dumps(made, separators=(",", ":")).encode()


def _parsed_lines(lines: Iterable[bytes], path: Path) -> tuple[list[dict[str, Any]], int, frozenset[int]]:
    """The readable lines, the number of unreadable ones, and the numbers of erased ones."""
    found, torn, forgotten = [], 0, set()
    for text in lines:
        if not text.strip():
            continue
        line = parsed(text.decode("utf-8", "replace"))
        if line is None:
            torn += 1
        elif is_forgotten(line):
            forgotten.add(int(line["n"]))
        else:
            found.append(line)
    if torn:
        _log.warning("%s has %d incomplete lines, of requests that got no answer; skipped", path, torn)
    return found, torn, frozenset(forgotten)


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder)]


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []
