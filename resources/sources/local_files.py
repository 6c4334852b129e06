"""Files on this machine: a CSV or Parquet file as a whole table, or as a stream of days.

Belongs here: sources that need one local file and nothing else. Does not belong here: files elsewhere or by pattern,
reading a file's bytes (``resources/files.py``).
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from pydantic import Field, PrivateAttr

from resources.settings import project_root
from resources.sources.base import Snapshot, SourceError, Stream

if TYPE_CHECKING:
    import pandas as pd


class CsvFile(Snapshot):
    """A CSV file with a header line; it may be compressed (``.gz``, ``.bz2``, ``.xz`` or ``.zip``)."""

    path: str = Field(description="Path of the CSV file, absolute or relative to the project's root.")
    separator: str = Field(default=",", description="Column separator.")
    encoding: str = Field(default="utf-8", description="Text encoding of the file.")
    header: int = Field(
        default=1, ge=1, description="Line number of the column names, from 1; lines above it are skipped."
    )
    foot: list[str] = Field(
        default=[],
        description="Prefixes such as 'Total': last lines whose first filled cell starts with one are skipped.",
    )

    def read(self) -> pd.DataFrame:
        """All rows as text. Blank values stay blank, because the cleaning step interprets them."""
        from resources.files import CsvForm, FileError, read_csv

        form = CsvForm(self.separator, self.encoding, self.header, tuple(self.foot))
        try:
            return read_csv(project_root() / self.path, form)
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the CSV file to read") from error
        except FileError as error:
            mend = "check the file and the source's separator, encoding and header"
            raise SourceError(f"{self.path}: {error}; {mend}") from error


class ParquetFile(Snapshot):
    """A Parquet file. Its values are read as text, because the contract defines the types, not the file."""

    path: str = Field(description="Path of the Parquet file, absolute or relative to the project's root.")

    def read(self) -> pd.DataFrame:
        """All rows as text; missing values stay missing."""
        from resources.files import FileError, read_parquet

        try:
            return read_parquet(project_root() / self.path)
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the file to read") from error
        except FileError as error:
            raise SourceError(f"{self.path}: {error}; write it again") from error


class FileByDay(Stream):
    """A file of historical rows, read as a stream: each row lands on its event day, together with its label.

    Rows whose time cannot be parsed never land.
    """

    path: str = Field(description="Path of the CSV or Parquet file, absolute or relative to the project's root.")
    time: str = Field(description="Column of the event time, as named in the header.")
    form: str = Field(
        default="ISO8601",
        description="Format of the time: ISO8601, a `strptime` format, or e.g. 'milliseconds since 1970-01-01'.",
    )
    separator: str = Field(default=",", description="Column separator of a CSV file.")
    encoding: str = Field(default="utf-8", description="Text encoding of a CSV file.")
    header: int = Field(default=1, ge=1, description="Line number of the column names of a CSV file, from 1.")
    foot: list[str] = Field(default=[], description="Prefixes of the last lines of a CSV file that are not rows.")

    _of_day: tuple[tuple[int, int], dict[str, pd.DataFrame]] | None = PrivateAttr(default=None)

    def land(self, day: dt.date) -> pd.DataFrame:
        """Rows whose time is on ``day``; empty if there are none."""
        days = self._days()
        return days.get(day.isoformat(), next(iter(days.values())).iloc[:0])

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """Raises :class:`SourceError`, because the labels are in the rows."""
        raise SourceError(f"{self.path}: its labels land together with its rows; declare label_delay_days=0")

    def landed_until(self) -> dt.date:
        """The last day in the file, but at most yesterday (UTC)."""
        yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        return min(dt.date.fromisoformat(max(self._days())), yesterday)

    def _days(self) -> dict[str, pd.DataFrame]:
        """The rows by ISO day. The file is read again only if it has changed."""
        from resources.files import is_parquet
        from resources.moments import moments

        file = project_root() / self.path
        if not file.exists():
            raise SourceError(f"{self.path}: no such file; set the source's path to the file to read")
        state = (file.stat().st_mtime_ns, file.stat().st_size)
        if self._of_day is None or self._of_day[0] != state:
            snapshot = ParquetFile(path=self.path) if is_parquet(file) else CsvFile(
                path=self.path, separator=self.separator, encoding=self.encoding, header=self.header, foot=self.foot,
            )  # fmt: skip
            rows = snapshot.read()
            if self.time not in rows:
                raise SourceError(f"{self.path}: no column '{self.time}'; the columns are: {', '.join(rows.columns)}")
            times = moments(rows[self.time], self.form)
            if times.isna().all():
                raise SourceError(f"{self.path}: no '{self.time}' has the format {self.form}; set the source's form")
            days = times.dt.strftime("%Y-%m-%d")
            self._of_day = (state, {str(day): part for day, part in rows.groupby(days, sort=True)})
        return self._of_day[1]
