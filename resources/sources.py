"""Where rows come from.

Belongs here: the two shapes of an upstream (a stream that lands a day at a time, a snapshot that is one table) and
the ready-made ones. A source that belongs to one model lives in that model's folder. Does not belong here: cleaning.
"""

from __future__ import annotations

import abc
import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from resources.settings import project_root

if TYPE_CHECKING:
    import pandas as pd


class SourceError(Exception):
    """An upstream that cannot be read; the message names it and the mend."""


class Source(dg.ConfigurableResource, abc.ABC):
    """Anything a table can be read from; a Dagster resource, so the UI shows it and a test can replace it."""


class Stream(Source, abc.ABC):
    """An upstream that lands rows a day at a time, with the labels later."""

    @abc.abstractmethod
    def land(self, day: dt.date) -> pd.DataFrame:
        """Rows that *arrived* on ``day``, as text (``string[pyarrow]`` columns), ``arrived_at`` among them.

        Deterministic: the same day gives the same rows. Raises :class:`SourceError`.
        """

    @abc.abstractmethod
    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """Labels that became known on ``day``: the table's key, the target, and any column that explains it."""

    @abc.abstractmethod
    def landed_until(self) -> dt.date:
        """Latest day whose landing is complete (for a real-time upstream: yesterday, UTC)."""


class Snapshot(Source, abc.ABC):
    """An upstream that is one whole table."""

    @abc.abstractmethod
    def read(self) -> pd.DataFrame:
        """All rows, as text (``string[pyarrow]`` columns). Raises :class:`SourceError`."""


class CsvFile(Snapshot):
    """A CSV file with a header line; ``.gz``, ``.bz2``, ``.xz`` and ``.zip`` are unpacked."""

    path: str = Field(description="Path of the CSV file; relative paths start at the project's root.")
    separator: str = Field(default=",", description="Column separator.")
    encoding: str = Field(default="utf-8", description="Text encoding of the file.")
    header: int = Field(default=1, ge=1, description="Line of the column names, the first is 1; lines above are left.")
    foot: list[str] = Field(
        default=[],
        description="Beginnings of the first filled cell of lines at the end that are not rows, such as 'Total'.",
    )

    def read(self) -> pd.DataFrame:
        """All rows as text; blanks stay blanks (the cleaning decides what they mean)."""
        from resources.files import CsvForm, FileError, read_csv

        form = CsvForm(self.separator, self.encoding, self.header, tuple(self.foot))
        try:
            return read_csv(project_root() / self.path, form)
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the CSV to be read") from error
        except FileError as error:
            mend = "check the file and the source's separator, encoding and header"
            raise SourceError(f"{self.path}: {error}; {mend}") from error


class ParquetFile(Snapshot):
    """A Parquet file, its values as text: a contract types them, whatever the file calls them."""

    path: str = Field(description="Path of the Parquet file; relative paths start at the project's root.")

    def read(self) -> pd.DataFrame:
        """All rows as text; a missing value stays missing."""
        from resources.files import FileError, read_parquet

        try:
            return read_parquet(project_root() / self.path)
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the file to be read") from error
        except FileError as error:
            raise SourceError(f"{self.path}: {error}; write it again") from error


class FileByDay(Stream):
    """A file of the past read as a stream: each row lands on the day of its time, labels with it.

    Rows whose time cannot be read never land.
    """

    path: str = Field(description="Path of the CSV or Parquet file; relative paths start at the project's root.")
    time: str = Field(description="Column of the event time, as the header has it.")
    form: str = Field(
        default="ISO8601",
        description="Form of the time: ISO8601, a `strptime` form, or numbers such as 'milliseconds since 1970-01-01'.",
    )
    separator: str = Field(default=",", description="Column separator of a CSV file.")
    encoding: str = Field(default="utf-8", description="Text encoding of a CSV file.")
    header: int = Field(default=1, ge=1, description="Line of the column names of a CSV file.")
    foot: list[str] = Field(default=[], description="Beginnings of lines at a CSV file's end that are not rows.")

    _of_day: tuple[tuple[int, int], dict[str, pd.DataFrame]] | None = PrivateAttr(default=None)

    def land(self, day: dt.date) -> pd.DataFrame:
        """Rows whose time is on ``day``; none on a day without any."""
        days = self._days()
        return days.get(day.isoformat(), next(iter(days.values())).iloc[:0])

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """The labels are in the rows: nothing lands apart from them."""
        raise SourceError(f"{self.path}: its labels land with its rows; declare label_delay_days=0")

    def landed_until(self) -> dt.date:
        """The file's last day, or yesterday if it reaches further."""
        yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        return min(dt.date.fromisoformat(max(self._days())), yesterday)

    def _days(self) -> dict[str, pd.DataFrame]:
        """The file's rows by ISO day, read once for each state of the file."""
        from resources.files import is_parquet
        from resources.moments import moments

        file = project_root() / self.path
        if not file.exists():
            raise SourceError(f"{self.path}: no such file; set the source's path to the file to be read")
        state = (file.stat().st_mtime_ns, file.stat().st_size)
        if self._of_day is None or self._of_day[0] != state:
            snapshot = ParquetFile(path=self.path) if is_parquet(file) else CsvFile(
                path=self.path, separator=self.separator, encoding=self.encoding, header=self.header, foot=self.foot,
            )  # fmt: skip
            rows = snapshot.read()
            if self.time not in rows:
                raise SourceError(f"{self.path}: no column '{self.time}'; there are: {', '.join(rows.columns)}")
            times = moments(rows[self.time], self.form)
            if times.isna().all():
                raise SourceError(f"{self.path}: no '{self.time}' has the form {self.form}; set the source's form")
            days = times.dt.strftime("%Y-%m-%d")
            self._of_day = (state, {str(day): part for day, part in rows.groupby(days, sort=True)})
        return self._of_day[1]
