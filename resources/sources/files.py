"""Files of a pattern, on this machine or elsewhere: as one whole table, or as a stream of days.

Belongs here: which files make up a table or a day, when a day of files is complete, and joining their rows. Does not
belong here: connecting, listing and copying (``storage.py``), reading one file (``resources/files.py``).
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import time as clocks
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr

from resources.sources.base import Snapshot, Source, SourceError, SourceUnavailable, Stream
from resources.sources.environment import from_environment, utc_now

if TYPE_CHECKING:
    import pandas as pd

    from resources.sources.storage import Storage, StoredFile

LOOKED_BACK_DAYS = 7
"""Number of days whose folders are looked at one by one for the latest complete one, before all are listed."""
MEND = "set the source's path to the files to read"
ARRIVED_AT = "arrived_at"
_DAY = re.compile(r"\{day(?::([^{}]*))?\}")
_DIGITS = {"Y": 4, "m": 2, "d": 2}
"""The parts of a day in a path, as in ``strftime``, and their numbers of digits."""


class _FilesOfAPattern(Source):
    """Fields and reading that :class:`Files` and :class:`FilesByDay` share."""

    path: str = Field(
        repr=False,  # a URL may hold a signature
        description="Path or URL, with * ? [ ] ** for several files: data/*.csv, s3://bucket/shop/*.parquet, "
        "sftp://user@host/out/*.csv.gz, https://host/table.csv. A path may be relative to the project's root.",
    )
    separator: str = Field(
        default="", description="Column separator of CSV files; empty: a tab for .tsv, else a comma."
    )
    encoding: str = Field(default="utf-8", description="Text encoding of CSV files and JSON lines.")
    header: int = Field(default=1, ge=1, description="Line of the column names of CSV files and workbooks, from 1.")
    foot: list[str] = Field(
        default=[], description="Prefixes of last lines of CSV files and workbooks that are no rows."
    )
    sheet: str = Field(default="", description="Sheet of a workbook; empty for the only one with cells.")
    optional: list[str] = Field(default=[], description="Columns that a file may lack; they are missing then.")
    token: str = Field(
        default="", repr=False, description="Bearer token of an http(s):// URL; give dg.EnvVar('SHOP_TOKEN')."
    )
    options: dict[str, str] = Field(
        default={}, repr=False,
        description="Options of fsspec's file system, such as endpoint_url, key and secret of S3; 'true' and 'false' "
        "are booleans. Give secrets as dg.EnvVar. Without options, standard variables apply (AWS_ACCESS_KEY_ID, …).",
    )  # fmt: skip
    settle_seconds: float = Field(
        default=2.0, ge=0, description="A file that was changed just before is looked at again after this time."
    )

    def _storage(self) -> Storage:
        from resources.sources.storage import Storage

        options = {name: from_environment(text) for name, text in self.options.items()}
        return Storage(from_environment(self.path), options, from_environment(self.token))

    def _rows(self, storage: Storage, pattern: str) -> pd.DataFrame | None:
        """The rows of all files of a pattern; ``None`` if there is no file. Errors as :meth:`_frames`."""
        import pandas as pd

        from resources.files import with_columns

        frames = self._frames(storage, pattern, storage.find(pattern))
        return with_columns(pd.concat(frames.values(), ignore_index=True), self.optional) if frames else None

    def _frames(
        self, storage: Storage, pattern: str, files: Sequence[StoredFile], *, whole: bool = True
    ) -> dict[StoredFile, pd.DataFrame]:
        """The rows of files that have just been found by a pattern: all of them (``whole``) or some.

        Raises:
            SourceError: a file cannot be read, or has other columns than the others.
            SourceUnavailable: a file is incomplete, or one of them changes while they are read.
        """
        found_at = clocks.time()
        frames: dict[StoredFile, pd.DataFrame] = {}
        cut: list[StoredFile] = []
        for file in files:
            frames[file], ends = self._read(storage, file)
            cut += [] if ends else [file]
        storage.wait_until_settled(list(files), found_at, self.settle_seconds)
        self._refuse_changes(storage, files, storage.find(pattern), whole=whole)
        if cut and len(cut) < len(files):
            raise SourceUnavailable(
                f"{storage.shown}: {cut[0].name} ends in the middle of a line, and other files do not: it is still "
                "being written, or was cut off; write it again"
            )
        self._refuse_other_columns(storage, frames)
        return frames

    def _read(self, storage: Storage, file: StoredFile) -> tuple[pd.DataFrame, bool]:
        """Rows of a file, and whether it ends as a text file should."""
        from resources.files import (
            COMPRESSED,
            CsvForm,
            FileError,
            IncompleteError,
            ends_with_a_line,
            kind_of,
            read_rows,
            separator_of,
        )

        form = CsvForm(self.separator or separator_of(file.name), self.encoding, self.header, tuple(self.foot))
        is_text = kind_of(file.name) in ("csv", "json lines") and not file.name.lower().endswith(COMPRESSED)
        with storage.copied(file) as path:
            try:
                if file.size == 0 or path.stat().st_size == 0:
                    raise IncompleteError("it is empty")
                return read_rows(path, form, self.sheet), not is_text or ends_with_a_line(path)
            except FileNotFoundError:
                raise SourceUnavailable(f"{storage.shown}: {file.name}: it was removed while it was read") from None
            except IncompleteError as error:
                raise SourceUnavailable(
                    f"{storage.shown}: {file.name} is incomplete ({error}): it is still being written, or was cut off; "
                    "write it again"
                ) from error
            except FileError as error:
                mend = "check the file and the source's separator, encoding, header and sheet"
                raise SourceError(f"{storage.shown}: {file.name}: {error}; {mend}") from error

    def _refuse_changes(
        self, storage: Storage, read: Sequence[StoredFile], now: Sequence[StoredFile], *, whole: bool
    ) -> None:
        before, there = {file.path for file in read}, {file.path for file in now}
        changed = [(file, "changed" if file.path in there else "was removed") for file in read if file not in now]
        changed += [(file, "came") for file in now if whole and file.path not in before]
        if changed:
            file, how = changed[0]
            raise SourceUnavailable(
                f"{storage.shown}: {file.name} {how} while the files were read; they are still being written"
            )

    def _refuse_other_columns(self, storage: Storage, frames: dict[StoredFile, pd.DataFrame]) -> None:
        from resources.files import kind_of

        if not frames:
            return
        first, columns = next((file, rows.columns) for file, rows in frames.items())
        for file, rows in frames.items():
            # JSON lines leave out what is null, so their files may differ.
            if kind_of(file.name) == kind_of(first.name) == "json lines":
                continue
            lacking = [str(name) for name in columns if name not in rows and name not in self.optional]
            more = [str(name) for name in rows if name not in columns and name not in self.optional]
            if lacking or more:
                differences = [f"lacks {', '.join(lacking)}"] if lacking else []
                differences += [f"has also {', '.join(more)}"] if more else []
                raise SourceError(
                    f"{storage.shown}: {file.name} {' and '.join(differences)}, compared with {first.name}; give all "
                    "files the same columns, or a narrower pattern"
                )


class Files(_FilesOfAPattern, Snapshot):
    """All files of a pattern as one table: CSV, TSV, JSON lines, Parquet or Excel, packed or not.

    Columns are matched by name. The files are read as they are at one moment: if one of them is written, comes or goes
    meanwhile, nothing is returned. Files whose name begins with ``_`` or ``.`` are not rows.
    """

    def read(self) -> pd.DataFrame:
        """All rows as text, in the order of the files' paths."""
        storage = self._storage()
        rows = self._rows(storage, storage.url)
        if rows is None:
            raise SourceError(f"{storage.shown}: {storage.missing()}; {MEND}")
        return rows


class FilesByDay(_FilesOfAPattern, Stream):
    """The files of a pattern as a stream of days.

    The rows of a day are found in one of three ways (docs/decisions/0074):

    * the day is in the path: ``s3://bucket/payments/{day:%Y/%m/%d}/*.parquet``;
    * ``time`` names a column with each row's time;
    * ``modified=True``: the day on which a file was last changed. Files are written once.
    """

    time: str = Field(default="", description="Column of the time that gives a row its day.")
    form: str = Field(
        default="ISO8601",
        description="Format of the time: ISO8601, a `strptime` format, or e.g. 'milliseconds since 1970-01-01'.",
    )
    modified: bool = Field(default=False, description="A file's rows arrive on the UTC day of its last change.")
    marker: str = Field(
        default="", description="Name of a file that says that a day's folder is complete, such as _SUCCESS."
    )
    quiet_days: bool = Field(default=False, description="A day without files is a day without rows, not a late one.")
    labels: str = Field(
        default="", description="Pattern of the files of labels, with the day in it, for labels that come later."
    )
    settle_minutes: int = Field(
        default=10,
        ge=0,
        description="A day is complete this long after its end, and after its files were changed last.",
    )

    _of_day: tuple[tuple[StoredFile, ...], dict[str, pd.DataFrame]] | None = PrivateAttr(default=None)

    def land(self, day: dt.date) -> pd.DataFrame:
        """The rows of ``day``; empty if it has none. ``arrived_at`` is added if the files' changes decide."""
        storage, how = self._ways()
        if how == "path":
            return self._of_folder(storage, storage.url, day)
        if how == "time":
            days = self._days(storage)
            return days.get(day.isoformat(), next(iter(days.values())).iloc[:0])
        return self._arrived(storage, day)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """The rows of the labels' files of ``day``.

        Raises:
            SourceError: no pattern of labels is declared, because the labels are in the rows.
        """
        storage, _ = self._ways()
        if not self.labels:
            raise SourceError(
                f"{storage.shown}: its labels land together with its rows; declare label_delay_days=0, or "
                "labels=pattern"
            )
        if not _DAY.search(self.labels):
            raise SourceError(
                f"labels={self.labels}: put the day into the pattern, such as labels/{{day:%Y-%m-%d}}.csv"
            )
        from resources.sources.storage import Storage

        options = {name: from_environment(text) for name, text in self.options.items()}
        of_labels = Storage(from_environment(self.labels), options, from_environment(self.token))
        return self._of_folder(of_labels, of_labels.url, day)

    def landed_until(self) -> dt.date:
        """The latest complete day: over by our clock and the storage's, with files that are not changing.

        Raises:
            SourceUnavailable: files match, but no day is complete.
        """
        storage, how = self._ways()
        now = self._now(storage)
        last = self._last_over(now)
        if how == "path":
            return self._last_folder(storage, last, now)
        files = storage.find(storage.url)
        if not files:
            raise SourceError(f"{storage.shown}: {storage.missing()}; {MEND}")
        if how == "modified":
            return last
        latest = dt.date.fromisoformat(max(self._days(storage)))
        # Files that were last written during a day may lack the rest of it.
        written = max((f.modified for f in files if f.modified is not None), default=now)
        return min(last, latest if written.date() > latest else latest - dt.timedelta(days=1))

    def _ways(self) -> tuple[Storage, str]:
        storage = self._storage()
        ways = {"path": bool(_DAY.search(storage.url)), "time": bool(self.time), "modified": self.modified}
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if len(chosen) != 1:
            raise SourceError(
                f"{storage.shown}: the day of a row comes from {' and '.join(chosen) or 'nowhere'}; declare one of: "
                "{day:%Y-%m-%d} in the path, time='column', modified=True"
            )
        parts = set(re.findall("%(.)", "".join(map(_form, _DAY.finditer(storage.url)))))
        if chosen == ["path"] and parts != set(_DIGITS):
            raise SourceError(f"{storage.shown}: a day in a path needs %Y, %m and %d and no other part of a time")
        return storage, chosen[0]

    def _now(self, storage: Storage) -> dt.datetime:
        """The earlier one of our clock and the storage's."""
        ours = utc_now()
        theirs = storage.clock()
        return ours if theirs is None else min(ours, theirs)

    def _last_over(self, now: dt.datetime) -> dt.date:
        return (now - dt.timedelta(minutes=self.settle_minutes)).date() - dt.timedelta(days=1)

    # -- the day in the path ---------------------------------------------------------------------------------------

    def _of_folder(self, storage: Storage, pattern: str, day: dt.date) -> pd.DataFrame:
        of_day = dated(pattern, day)
        files = storage.find(of_day)
        if (lacking := self._lacking(storage, pattern, day, files, self._now(storage))) is not None:
            if files or not self.quiet_days:
                raise SourceUnavailable(f"{dated(storage.shown, day)}: {lacking}")
            return self._without_rows(storage, pattern, day)
        rows = self._rows(storage, of_day)
        if rows is None:
            raise SourceUnavailable(f"{dated(storage.shown, day)}: its files were removed while they were read")
        return rows

    def _lacking(
        self, storage: Storage, pattern: str, day: dt.date, files: Sequence[StoredFile], now: dt.datetime
    ) -> str | None:
        """What a day lacks to be complete; ``None`` if it is."""
        if not files:
            return "no file yet; if days without files are usual, declare quiet_days=True"
        if self.marker:
            is_marked = storage.find(f"{dated(_folder(pattern), day)}/{self.marker}")
            return None if is_marked else f"there is no {self.marker} yet"
        settled = now - dt.timedelta(minutes=self.settle_minutes)
        young = [file for file in files if file.modified is not None and file.modified > settled]
        if young:
            return (
                f"{young[-1].name} was changed less than {self.settle_minutes} minutes ago (settle_minutes), so more "
                "may come"
            )
        return None

    def _last_folder(self, storage: Storage, last: dt.date, now: dt.datetime) -> dt.date:
        days = [last - dt.timedelta(days=n) for n in range(LOOKED_BACK_DAYS)]
        why = ""
        for listed in (False, True):
            if listed:
                days = [day for day in reversed(self._all_days(storage)) if day < days[-1]]
            for day in days:
                files = storage.find(dated(storage.url, day))
                lacking = self._lacking(storage, storage.url, day, files, now)
                if lacking is None:
                    return day
                why = why or (f"{day}: {lacking}" if files else "")
        if why or self._all_days(storage):
            raise SourceUnavailable(
                f"{storage.shown}: no day is complete yet ({why or 'all files are of days to come'})"
            )
        raise SourceError(f"{storage.shown}: {storage.missing()}; {MEND}")

    def _all_days(self, storage: Storage) -> list[dt.date]:
        """All days that have files, in order."""
        path = urlsplit(storage.url).path if "://" in storage.url else storage.url
        regex, end = "", 0
        for found in _DAY.finditer(path):
            regex += _as_regex(path[end : found.start()]) + re.escape(_form(found))
            end = found.end()
        regex += _as_regex(path[end:]) + "$"
        for letter, digits in _DIGITS.items():
            regex = regex.replace(f"%{letter}", rf"(?P<{letter}>\d{{{digits}}})", 1).replace(
                f"%{letter}", f"(?P={letter})"
            )
        days = set()
        for file in storage.find(any_day(storage.url)):
            if (matched := re.search(regex, file.path)) is not None:
                try:
                    days.add(dt.date(*(int(matched[letter]) for letter in _DIGITS)))
                except ValueError:  # a folder with the name of no day, such as 2026/13/01
                    continue
        return sorted(days)

    def _without_rows(self, storage: Storage, pattern: str, day: dt.date) -> pd.DataFrame:
        """No rows, with the columns of the nearest day that has files."""
        days = self._all_days(storage)
        if not days:
            raise SourceError(f"{storage.shown}: {storage.missing()}; {MEND}")
        nearest = min(days, key=lambda other: abs(other - day))
        rows = self._rows(storage, dated(pattern, nearest))
        if rows is None:
            raise SourceUnavailable(f"{storage.shown}: the files of {nearest} were removed while they were read")
        return rows.iloc[:0]

    # -- the day of a column, or of a file's change ----------------------------------------------------------------

    def _days(self, storage: Storage) -> dict[str, pd.DataFrame]:
        """The rows by ISO day of their time. The files are read again only if one of them has changed."""
        from resources.moments import moments

        files = tuple(storage.find(storage.url))
        if not files:
            raise SourceError(f"{storage.shown}: {storage.missing()}; {MEND}")
        if self._of_day is None or self._of_day[0] != files:
            rows = self._rows(storage, storage.url)
            assert rows is not None
            if self.time not in rows:
                close = difflib.get_close_matches(self.time, [str(name) for name in rows], n=1)
                hint = f"; is it '{close[0]}'?" if close else f"; the columns are: {', '.join(map(str, rows.columns))}"
                raise SourceError(f"{storage.shown}: no column '{self.time}'{hint}")
            times = moments(rows[self.time], self.form)
            if times.isna().all():
                raise SourceError(
                    f"{storage.shown}: no '{self.time}' has the format {self.form}; set the source's form"
                )
            days = times.dt.strftime("%Y-%m-%d")
            self._of_day = (files, {str(day): part for day, part in rows.groupby(days, sort=True)})
        return self._of_day[1]

    def _arrived(self, storage: Storage, day: dt.date) -> pd.DataFrame:
        import pandas as pd

        from resources.files import with_columns

        files = storage.find(storage.url)
        if not files:
            raise SourceError(f"{storage.shown}: {storage.missing()}; {MEND}")
        if unknown := [file for file in files if file.modified is None]:
            raise SourceError(f"{storage.shown}: the server does not say when {unknown[0].name} was changed; use time=")
        of_day = [file for file in files if file.modified is not None and file.modified.date() == day]
        frames = self._frames(storage, storage.url, of_day or files[-1:], whole=False)
        parts = []
        for file, rows in frames.items():
            assert file.modified is not None
            at = file.modified.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
            added = {} if ARRIVED_AT in rows else {ARRIVED_AT: pd.array([at] * len(rows), "string[pyarrow]")}
            parts.append(rows.assign(**added))
        return with_columns(pd.concat(parts, ignore_index=True), self.optional).iloc[: None if of_day else 0]


def dated(pattern: str, day: dt.date) -> str:
    """A pattern with a day in the place of ``{day}`` or ``{day:form}``."""
    return _DAY.sub(lambda found: day.strftime(_form(found)), pattern)


def _folder(pattern: str) -> str:
    """The folder of a day: the part of a pattern up to the end of the part that has the day."""
    last = [found.end() for found in _DAY.finditer(pattern)][-1]
    end = pattern.find("/", last)
    return pattern[:end] if end >= 0 else pattern.rpartition("/")[0]


def any_day(pattern: str) -> str:
    """A pattern that matches the files of all days, and perhaps others."""
    return _DAY.sub(lambda found: re.sub("%.", "*", _form(found)), pattern)


def _form(found: re.Match[str]) -> str:
    return found[1] or "%Y-%m-%d"


def _as_regex(pattern: str) -> str:
    """A regular expression of a part of a pattern; sets of characters (``[0-9]``) are the same in both."""
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", pattern)
    return "".join(piece if piece.startswith("[") else wild.get(piece) or re.escape(piece) for piece in pieces)
