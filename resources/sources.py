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

    def missing_settings(self) -> list[str]:
        """What an operator must still set, as sentences; empty when it can be read."""
        return []


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
    """A CSV file with a header line."""

    path: str = Field(description="Path of the CSV file; relative paths start at the project's root.")
    separator: str = Field(default=",", description="Column separator.")
    encoding: str = Field(default="utf-8", description="Text encoding of the file.")

    def read(self) -> pd.DataFrame:
        """All rows as text; blanks stay blanks (the cleaning decides what they mean)."""
        import pandas as pd

        try:
            return pd.read_csv(
                project_root() / self.path, sep=self.separator, encoding=self.encoding, dtype="string[pyarrow]",
                keep_default_na=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the CSV to be read") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: not {self.encoding} text ({error}); set the source's encoding") from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise SourceError(f"{self.path}: not a readable CSV ({error}); check the file and the separator") from error


class ParquetFile(Snapshot):
    """A Parquet file, its values as text: a contract types them, whatever the file calls them."""

    path: str = Field(description="Path of the Parquet file; relative paths start at the project's root.")

    def read(self) -> pd.DataFrame:
        """All rows as text; a missing value stays missing."""
        import pandas as pd
        import pyarrow as pa

        try:
            frame = pd.read_parquet(project_root() / self.path)
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the file to be read") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{self.path}: not a readable Parquet file ({error}); write it again") from error
        return frame.astype("string[pyarrow]")


class FileByDay(Stream):
    """A file of the past read as a stream: each row lands on the day of its time, labels with it.

    Rows whose time cannot be read never land.
    """

    path: str = Field(description="Path of the CSV or Parquet file; relative paths start at the project's root.")
    time: str = Field(description="Column of the event time, as the header has it.")
    form: str = Field(default="ISO8601", description="`strptime` form of the time.")
    separator: str = Field(default=",", description="Column separator of a CSV file.")
    encoding: str = Field(default="utf-8", description="Text encoding of a CSV file.")

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
        import pandas as pd

        file = project_root() / self.path
        if not file.exists():
            raise SourceError(f"{self.path}: no such file; set the source's path to the file to be read")
        state = (file.stat().st_mtime_ns, file.stat().st_size)
        if self._of_day is None or self._of_day[0] != state:
            snapshot = ParquetFile(path=self.path) if file.suffix == ".parquet" else CsvFile(
                path=self.path, separator=self.separator, encoding=self.encoding)  # fmt: skip
            rows = snapshot.read()
            if self.time not in rows:
                raise SourceError(f"{self.path}: no column '{self.time}'; there are: {', '.join(rows.columns)}")
            times = pd.to_datetime(rows[self.time].str.strip(), format=self.form, errors="coerce", utc=True)
            if times.isna().all():
                raise SourceError(f"{self.path}: no '{self.time}' has the form {self.form}; set the source's form")
            days = times.dt.strftime("%Y-%m-%d")
            self._of_day = (state, {str(day): part for day, part in rows.groupby(days, sort=True)})
        return self._of_day[1]
