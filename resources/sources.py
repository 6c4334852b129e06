"""Where rows come from.

Belongs here: the two shapes of an upstream (a stream that lands a day at a time, a snapshot that is one table) and
the ready-made ones. A source that belongs to one model lives in that model's folder. Does not belong here: cleaning.
"""

from __future__ import annotations

import abc
import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

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
                self.path, sep=self.separator, encoding=self.encoding, dtype="string[pyarrow]", keep_default_na=False
            )
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: no such file; set the source's path to the CSV to be read") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: not {self.encoding} text ({error}); set the source's encoding") from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise SourceError(f"{self.path}: not a readable CSV ({error}); check the file and the separator") from error
