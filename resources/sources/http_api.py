"""HTTP APIs that return rows as JSON, page by page: as one whole table, or as a stream of days.

Belongs here: following the pages, finding those that repeat, and choosing the rows of a day. Does not belong here: a
single request with its retries (``http_requests.py``), converting JSON to text columns (``resources/files.py``).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from resources.sources.base import Snapshot, Source, SourceError, SourceUnavailable, Stream
from resources.sources.environment import from_environment, is_long, utc_now

if TYPE_CHECKING:
    import pandas as pd

    from resources.sources.http_requests import Client, Page

STALE_PAGES = 10
"""Number of pages in a row without a new row after which the pages are taken to repeat for ever. A few such pages come
by chance where rows are added in front while pages are read."""
_WHOLE = re.compile(r"[+-]?\d+")


class _Api(Source):
    """Fields and reading that :class:`HttpApi` and :class:`HttpApiByDay` share.

    Pages are followed by the ``Link`` header (``rel="next"``), or by one of ``next_link``, ``next_cursor``,
    ``page_param`` and ``offset_param``.
    """

    url: str = Field(repr=False, description="Base URL, such as https://shop.example/api.")
    path: str = Field(description="Path of the rows, such as /v1/payments.")
    records: str = Field(
        default="",
        description="Where the rows are in the answer: names joined by dots, such as data.items; empty: it is a list.",
    )
    params: dict[str, str] = Field(default={}, repr=False, description="Parameters of each request.")
    headers: dict[str, str] = Field(default={}, repr=False, description="Headers of each request to the url's host.")
    token: str = Field(default="", repr=False, description="Token; give dg.EnvVar('SHOP_TOKEN').")
    token_header: str = Field(
        default="Authorization",
        description="Header of the token. In Authorization it is a bearer token, else it stands alone.",
    )
    next_link: str = Field(default="", description="Where the next page's link is in the answer, such as links.next.")
    next_cursor: str = Field(
        default="", description="Where the next page's cursor is in the answer, such as meta.cursor."
    )
    cursor_param: str = Field(default="cursor", description="Parameter that takes the cursor of `next_cursor`.")
    page_param: str = Field(default="", description="Parameter of the page's number; an empty page is the end.")
    first_page: int = Field(default=1, ge=0, description="Number of the first page.")
    offset_param: str = Field(
        default="", description="Parameter of the number of rows to skip; an empty page is the end."
    )
    total: str = Field(
        default="",
        description="Where the number of all rows is in the answer; then no row can be missed between pages.",
    )
    key: str = Field(default="", description="Column that identifies a row, so that a row on two pages lands once.")
    latest: str = Field(
        default="",
        description="Column of the last change, such as updated_at: of two states of one row, the later lands.",
    )
    optional: list[str] = Field(
        default=[], description="Columns that all rows of a day may lack, because JSON leaves them out; missing then."
    )
    timeout_s: float = Field(default=30, gt=0, description="Longest wait for a connection or for more of an answer.")
    total_s: float = Field(default=900, gt=0, description="Longest time for all pages.")
    max_pages: int = Field(default=10_000, ge=1, description="Most pages of one table or day.")
    tries: int = Field(default=5, ge=1, description="Tries of a request that is not answered, or with 429 or 5xx.")
    backoff_s: float = Field(
        default=1, ge=0, description="Wait before the second try; it doubles. `Retry-After` goes before."
    )

    def _client(self) -> Client:
        from resources.sources.http_requests import Client

        token = from_environment(self.token)
        bearer = f"Bearer {token}" if self.token_header.lower() == "authorization" else token
        headers = {name: from_environment(text) for name, text in self.headers.items()}
        return Client(
            from_environment(self.url),
            headers={**headers, **({self.token_header: bearer} if token else {})},
            secrets=[token, *filter(is_long, [*headers.values(), *map(from_environment, self.params.values())])],
            timeout_s=self.timeout_s,
            total_s=self.total_s,
            tries=self.tries,
            backoff_s=self.backoff_s,
        )

    def _rows(self, path: str, params: Mapping[str, str]) -> pd.DataFrame:
        """All rows of all pages as text, each once.

        Raises:
            SourceError: the pages repeat or are too many, the answer has another form, or a key has two states.
            SourceUnavailable: no answer after all tries, or rows came or went between the pages.
        """
        from resources.files import FileError, rows_of_records, with_columns

        given = {name: from_environment(text) for name, text in self.params.items()}
        states: dict[str, Any] = {}
        totals: list[str] = []
        stale = 0
        with self._client() as client:
            where = client.shown(path)
            for number, (body, page) in enumerate(self._pages(client, path, {**given, **params}), start=1):
                before = len(states)
                for record in page:
                    name = self._name(record, len(states), f"{where}: page {number}")
                    if name in states and states[name] != record:
                        record = self._later(states[name], record, f"{where}: page {number}")  # noqa: PLW2901
                    states[name] = record
                stale = stale + 1 if page and len(states) == before else 0
                if stale == STALE_PAGES:
                    raise SourceError(
                        f"{where}: its pages repeat: no new row in {stale} pages, up to page {number}; check the "
                        "parameters of the pages"
                    )
                if self.total:
                    totals.append(str(at_path(body, self.total, where)))
        if totals and (len(set(totals)) > 1 or totals[0] != str(len(states))):
            counts = " and then ".join(dict.fromkeys(totals))
            raise SourceUnavailable(
                f"{where}: the server counts {counts} rows, and {len(states)} came: rows changed between the pages"
            )
        try:
            return with_columns(rows_of_records(states.values()), self.optional)
        except FileError as error:
            raise SourceError(f"{where}: {error}; check the source's records") from error

    def _name(self, record: Any, position: int, where: str) -> str:
        """What tells a record from the others: its key, or its position if there is no key."""
        if not self.key:
            return str(position)
        value = at_path(record, self.key, where, absent=None)
        if value is None:
            raise SourceError(f"{where}: a row has no '{self.key}', the declared key")
        return str(value)

    def _later(self, one: Any, other: Any, where: str) -> Any:
        """The later of two states of one row."""
        what = (
            f"{where}: the row with {self.key}={at_path(one, self.key, where)} was on a page before with other values"
        )
        if not self.latest:
            raise SourceError(f"{what}; declare latest='column of the last change' if rows change")
        first, second = (str(at_path(row, self.latest, where)) for row in (one, other))
        if first == second:
            raise SourceError(f"{what}, but the same {self.latest}; ask the owner of the API")
        return other if _is_later(second, first) else one

    def _pages(self, client: Client, path: str, params: Mapping[str, str]) -> Iterator[tuple[Any, list[Any]]]:
        """Body and records of each page."""
        ways = [name for name in ("next_link", "next_cursor", "page_param", "offset_param") if getattr(self, name)]
        where = client.shown(path)
        if len(ways) > 1:
            raise SourceError(f"{where}: declare one of {', '.join(ways)}, by which its pages follow")
        url, asked = client.url_of(path), dict(params)
        if self.page_param:
            asked[self.page_param] = str(self.first_page)
        rows = 0
        visited: set[object] = set()
        contents: set[bytes] = set()
        for number in range(1, self.max_pages + 1):
            if (request := (url, *sorted(asked.items()))) in visited:
                raise SourceError(
                    f"{where}: its pages repeat: page {number} is one that was read before; check the source's "
                    "next_link or next_cursor, or ask the owner of the API"
                )
            visited.add(request)
            answer = client.get(url, asked)
            page = at_path(answer.body, self.records, where)
            if not isinstance(page, list):
                raise SourceError(f"{where}: '{self.records}' is not a list; set the source's records")
            if not self.key and page:
                content = hashlib.blake2b(repr(page).encode()).digest()
                if content in contents:
                    raise SourceError(
                        f"{where}: page {number} has the same rows as one before; check the parameters of the pages, "
                        "or declare key='column' so that a row on two pages lands once"
                    )
                contents.add(content)
            yield answer.body, page
            rows += len(page)
            following = self._following(answer, page, number, rows)
            if following is None:
                return
            url, asked = (client.joined(answer.url, following), {}) if isinstance(following, str) else (
                url, asked | following
            )  # fmt: skip
        raise SourceError(f"{where}: more than {self.max_pages} pages (max_pages); check the parameters of the pages")

    def _following(self, answer: Page, page: list[Any], number: int, rows: int) -> str | dict[str, str] | None:
        """Link or parameters of the page after one; ``None`` after the last."""
        if self.page_param:
            return {self.page_param: str(self.first_page + number)} if page else None
        if self.offset_param:
            return {self.offset_param: str(rows)} if page else None
        found = at_path(answer.body, self.next_cursor or self.next_link, "", absent=None)
        if self.next_cursor:
            return {self.cursor_param: str(found)} if found else None
        return str(found or "") or None if self.next_link else answer.link or None


class HttpApi(_Api, Snapshot):
    """All rows of an API as one table."""

    def read(self) -> pd.DataFrame:
        """All rows as text, in order; nested objects are columns ``outer.inner``."""
        return self._rows(self.path, {})


class HttpApiByDay(_Api, Stream):
    """Rows of an API as a stream of days, by arrival, by event time, or by a column that only grows.

    Exactly one of ``arrived``, ``time`` (without ``cursor``) and ``cursor`` is declared. The day's bounds are sent in
    ``since`` and ``until``; rows that the server returns beyond them are left to their own day.
    """

    arrived: str = Field(
        default="", description="Column of the time of a row's arrival, such as created_at; recommended."
    )
    time: str = Field(default="", description="Column of the event time; rows that come after their day are not seen.")
    cursor: str = Field(
        default="", description="Column that only grows, such as id; with `time`, a day ends at the first later event."
    )
    form: str = Field(default="ISO8601", description="Format of these times, as in FilesByDay.")
    since: str = Field(default="", description="Parameter of the begin of the day; without it, all rows are read.")
    until: str = Field(default="", description="Parameter of the end of the day.")
    after: str = Field(default="", description="Parameter of the greatest value of `cursor` that has landed.")
    bound: str = Field(
        default="%Y-%m-%dT%H:%M:%SZ", description="Form of the bounds, UTC; until is 00:00 of the next day."
    )
    labels: str = Field(default="", description="Path of the labels, for labels that come later.")
    labels_arrived: str = Field(default="", description="Column of the time at which a label became known.")
    settle_minutes: int = Field(default=10, ge=0, description="A day is complete this long after its end.")

    def land(self, day: dt.date) -> pd.DataFrame:
        """The rows of ``day`` in the order of the server."""
        self._check()
        return self._of_day(self.path, self.arrived or self.time, day)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """The labels that became known on ``day``.

        Raises:
            SourceError: no labels are declared, because they are in the rows.
        """
        if not self.labels or not self.labels_arrived:
            raise SourceError(
                f"{self.path}: its labels land together with its rows; declare label_delay_days=0, or labels=path and "
                "labels_arrived=column"
            )
        return self._of_day(self.labels, self.labels_arrived, day)

    def landed_until(self) -> dt.date:
        """The last day that is over by our clock and by the server's (its ``Date`` header)."""
        self._check()
        with self._client() as client:
            theirs = client.clock(self.path)
        ours = utc_now()
        now = ours if theirs is None else min(ours, theirs)
        return (now - dt.timedelta(minutes=self.settle_minutes)).date() - dt.timedelta(days=1)

    def growing_column(self) -> str | None:
        """The declared ``cursor``."""
        return self.cursor or None

    def land_after(self, day: dt.date, after: str | None, until: str | None) -> pd.DataFrame:
        """Rows with ``after`` < cursor ≤ ``until``, in its order; see :class:`Stream`."""
        self._check()
        params = {self.after: after} if self.after and after is not None else {}
        rows = self._rows(self.path, params)
        if rows.empty:
            return rows
        if self.cursor not in rows or rows[self.cursor].isna().any():
            raise SourceError(f"{self.path}: {self._absent(rows, self.cursor)}")
        values = rows[self.cursor]
        order = values.map(int) if values.str.fullmatch(_WHOLE.pattern).all() else values
        rows = rows.loc[order.sort_values(kind="stable").index]
        values = rows[self.cursor]
        fitting = [
            (after is None or _is_greater(value, after)) and (until is None or not _is_greater(value, until))
            for value in values
        ]
        rows = rows[fitting]
        if until is None and self.time and len(rows):
            end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time())
            later = (self._times(rows, self.time) >= end).to_numpy()
            rows = rows.iloc[: int(later.argmax()) if later.any() else len(rows)]
        return rows.reset_index(drop=True)

    def _check(self) -> None:
        deciding = [name for name in ("arrived", "cursor") if getattr(self, name)]
        if self.time and not self.cursor:
            deciding.append("time")
        if len(deciding) != 1:
            raise SourceError(
                f"{self.path}: the day of a row comes from {' and '.join(deciding) or 'nowhere'}; declare one of "
                "arrived='created_at', time='paid_at', cursor='id'"
            )

    def _of_day(self, path: str, column: str, day: dt.date) -> pd.DataFrame:
        begin = dt.datetime.combine(day, dt.time())
        end = begin + dt.timedelta(days=1)
        bounds = {self.since: begin.strftime(self.bound), self.until: end.strftime(self.bound)}
        rows = self._rows(path, {name: text for name, text in bounds.items() if name})
        if rows.empty:
            return rows
        times = self._times(rows, column)
        return rows[(times >= begin) & (times < end)].reset_index(drop=True)

    def _times(self, rows: pd.DataFrame, column: str) -> pd.Series:
        from resources.moments import moments

        if column not in rows:
            raise SourceError(f"{self.path}: {self._absent(rows, column)}")
        times = moments(rows[column], self.form)
        if times.isna().any():
            example = rows[column][times.isna()].iloc[0]
            raise SourceError(
                f"{self.path}: {int(times.isna().sum())} rows have no readable '{column}' (for example {example!r}), "
                "so their day is not known; check the source's form",
                quotes=True,
            )
        return times

    def _absent(self, rows: pd.DataFrame, column: str) -> str:
        if column in rows:
            return f"{int(rows[column].isna().sum())} rows have no '{column}', so their order is not known"
        return f"the rows have no '{column}'; their columns are: {', '.join(map(str, rows.columns))}"


_RAISE = object()


def at_path(body: Any, path: str, where: str, *, absent: Any = _RAISE) -> Any:
    """The value at a path of names joined by dots; the body itself for an empty path.

    Raises:
        SourceError: there is no such value, and ``absent`` is not given.
    """
    value = body
    for name in path.removeprefix("$.").split(".") if path else []:
        if not isinstance(value, dict) or name not in value:
            if absent is not _RAISE:
                return absent
            there = (
                f"it has: {', '.join(map(str, value))}"
                if isinstance(value, dict)
                else f"it is a {type(value).__name__}"
            )
            raise SourceError(f"{where}: the answer has no '{path}' ({there}); set the source's fields to its form")
        value = value[name]
    return value


def _is_greater(one: str, other: str) -> bool:
    """Whether one value of a growing column is above another: whole numbers as numbers, other values as text."""
    if _WHOLE.fullmatch(one) and _WHOLE.fullmatch(other):
        return int(one) > int(other)
    return one > other


def _is_later(one: str, other: str) -> bool:
    """Whether one time of a change, or a number of a version, is after another."""
    import pandas as pd

    from resources.moments import moments

    times = moments(pd.Series([one, other], dtype="string[pyarrow]"))
    return bool(times[0] > times[1]) if times.notna().all() else _is_greater(one, other)
