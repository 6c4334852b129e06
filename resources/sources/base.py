"""What every source offers: the two kinds of source, their errors, and taking secrets out of messages.

Belongs here: the contract between a source and the landing. Does not belong here: a source (the other modules of this
package; one of a single model is in that model's folder), retries and alerts (``assets/lifecycle/data/landing.py``,
``sensors/arrivals.py``).
"""

from __future__ import annotations

import abc
import datetime as dt
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, urlsplit

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd


class SourceError(Exception):
    """A source cannot be read until a person fixes something. The message names it and the fix.

    Args:
        message: the message.
        quotes: whether it quotes a value of a row, or the message of a library, which may do so. A table with tagged
            columns does not log such a message.
    """

    def __init__(self, message: str = "", *, quotes: bool = False) -> None:
        super().__init__(message)
        self.quotes = quotes


class SourceUnavailable(SourceError):
    """A source cannot be read now, but probably later: it is down, too busy, or still being written.

    The landing tries again (``assets/lifecycle/data/landing.py``), and the arrivals sensor after it.
    """


class Source(dg.ConfigurableResource, abc.ABC):
    """The base class of sources. It is a Dagster resource, so the UI shows it and tests can replace it.

    A field that may hold a secret takes ``dg.EnvVar("NAME")``, which the UI shows by its name.
    """


class Stream(Source, abc.ABC):
    """A source that delivers rows one day at a time and their labels later.

    Each row lands exactly once. A stream decides to which day a row belongs in one of three ways: by the time of its
    arrival upstream, by its event time, or by a column that only grows (see :meth:`growing_column`).
    """

    @abc.abstractmethod
    def land(self, day: dt.date) -> pd.DataFrame:
        """Rows that *arrived* on ``day``, as text (``string[pyarrow]`` columns); ``arrived_at`` is one of the columns.

        It is deterministic: the same day returns the same rows. It returns all rows or raises: :class:`SourceError` if
        it cannot be read, :class:`SourceUnavailable` if it cannot be read now.
        """

    @abc.abstractmethod
    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """Labels that became known on ``day``: the table's key, the target, and any columns that explain the target."""

    @abc.abstractmethod
    def landed_until(self) -> dt.date:
        """Latest day whose rows are complete (for a real-time source: yesterday, UTC).

        A source with a clock of its own returns the last day that has ended by both clocks, the source's and ours.
        """

    def growing_column(self) -> str | None:
        """Name of the column that only grows and decides which rows are new; ``None`` if time decides.

        With such a column, the landing calls :meth:`land_after` instead of :meth:`land`, with marks that it reads from
        the rows that have landed. So the landed rows are the only record of how far a source has been read.
        """
        return None

    def land_after(self, day: dt.date, after: str | None, until: str | None) -> pd.DataFrame:
        """Rows whose growing column is above ``after`` and at most ``until``, in its order, as text.

        Args:
            day: the landing day.
            after: greatest value that has landed on an earlier day; ``None`` if no row has.
            until: greatest value that landed on ``day`` before, so that landing it again returns the same rows.
                ``None`` on the first landing: then the rows end before the first one whose event happened after
                ``day``, or with the last row of a source without event times.
        """
        raise NotImplementedError(f"{type(self).__name__} names a growing column, but has no land_after")


class Snapshot(Source, abc.ABC):
    """A source that is one whole table."""

    @abc.abstractmethod
    def read(self) -> pd.DataFrame:
        """All rows, as text (``string[pyarrow]`` columns).

        It returns all rows or raises: :class:`SourceError` if they cannot be read, :class:`SourceUnavailable` if they
        cannot be read now.
        """


def hidden(message: object, *secrets: str | None) -> str:
    """The text of a message without secrets, for errors and logs.

    Args:
        message: a text or an exception.
        secrets: URLs, whose passwords are hidden, and tokens, which are hidden as they are and in URL encoding.
    """
    text = str(message)
    for secret in secrets:
        given = (urlsplit(secret).password if secret and "://" in secret else secret) or ""
        plain = unquote(given)
        for form in {given, plain, quote(plain, safe=""), quote_plus(plain)} - {""}:
            text = text.replace(form, "***")
    return text
