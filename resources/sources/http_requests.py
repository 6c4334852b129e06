"""One request after another to the host of an API, each with retries, within one limit of time.

Belongs here: timeouts, retries with back-off and ``Retry-After``, redirects, the token and who may see it, the server's
clock, and the errors of all these. Does not belong here: pages and rows (``http_api.py``).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import functools
import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from resources.files import parse_json
from resources.sources.base import SourceError, SourceUnavailable, hidden

MOST_REDIRECTS = 5
LONGEST_PAUSE_S = 60
"""Longest wait between two tries that we choose; a server may ask for a longer one."""
_BUSY = (408, 425, 429)
"""Statuses below 500 that mean: later."""


Result = TypeVar("Result")


class _Later(Exception):
    """A request failed that may succeed when it is tried again; ``wait_s`` is the wait that the server asks for."""

    def __init__(self, why: str, wait_s: float | None) -> None:
        super().__init__(why)
        self.why, self.wait_s = why, wait_s


@dataclass(frozen=True)
class _Answer:
    """An answer with its whole body."""

    head: httpx.Response
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status_code

    @property
    def url(self) -> str:
        return str(self.head.url)

    @property
    def date(self) -> dt.datetime | None:
        return _date(self.head.headers.get("date", ""))


@dataclass(frozen=True)
class Page:
    """An answer: its URL, parsed body, and the next page's link if the headers have one."""

    url: str
    body: Any
    link: str


class Client:
    """Asks one host, in a ``with`` block.

    Args:
        url: base URL of the API.
        headers: headers of each request to the host of ``url``, the token among them. No other host gets them.
        secrets: texts that no message may have.
        timeout_s: longest wait for a connection or for more of an answer, seconds.
        total_s: longest time for all requests, seconds.
        tries: tries of each request.
        backoff_s: wait before the second try, which doubles with each further one.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], secrets: Sequence[str], timeout_s: float, total_s: float,
        tries: int, backoff_s: float,
    ) -> None:  # fmt: skip
        self._base = url.rstrip("/")
        if urlsplit(self._base).scheme not in ("http", "https") or not urlsplit(self._base).hostname:
            raise SourceError("the source's url is not one of an API; give https://host/…")
        self._headers, self._secrets = dict(headers), [url, *secrets]
        self._until, self._total_s = time.monotonic() + total_s, total_s
        self._tries, self._backoff_s = tries, backoff_s
        self._client = httpx.Client(timeout=timeout_s, verify=_trusted())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def url_of(self, path: str) -> str:
        """The URL of a path below the base URL."""
        return f"{self._base}/{path.lstrip('/')}"

    def joined(self, url: str, link: str) -> str:
        """The URL of a link, which may be relative to ``url``."""
        return urljoin(url, link)

    def shown(self, path: str) -> str:
        """The URL of a path, for messages: without query and password."""
        return self._plain(self.url_of(path))

    def get(self, url: str, params: Mapping[str, str]) -> Page:
        """The answer to a GET, tried again while the server is not reached, too busy or broken.

        Raises:
            SourceError: refused, not found, or not JSON.
            SourceUnavailable: no answer after all tries, or within the limit of time.
        """
        return self._tried(url, lambda: self._page(url, self._sent("GET", url, params)))

    def clock(self, path: str) -> dt.datetime | None:
        """The server's time now, UTC with zone; ``None`` if it does not tell it. Errors as :meth:`get`."""
        url = self.url_of(path)
        return self._tried(url, lambda: self._dated(url, self._sent("HEAD", url, {})))

    def _tried(self, url: str, ask: Callable[[], Result]) -> Result:
        for number in range(1, self._tries + 1):
            asked: float | None = None
            try:
                return ask()
            except httpx.InvalidURL as error:
                raise self._error(SourceError, url, f"not a URL ({error}); check the source's url and path") from None
            except httpx.RequestError as error:
                why = self._unreached(url, error)
            except _Later as error:
                why, asked = error.why, error.wait_s
            if number == self._tries:
                break
            # The random part keeps clients that failed together from coming back together.
            pause = asked if asked is not None else (
                min(self._backoff_s * 2 ** (number - 1), LONGEST_PAUSE_S) * random.uniform(0.8, 1.2)
            )  # fmt: skip
            if time.monotonic() + pause > self._until:
                message = f"{why}; the next try, in {pause:.0f} s, would be after {self._total_s:g} s (total_s)"
                raise self._error(SourceUnavailable, url, message)
            time.sleep(pause)
        raise self._error(SourceUnavailable, url, f"{why}; tried {self._tries} times")

    def _page(self, url: str, answer: _Answer) -> Page:
        if answer.status >= 400:
            self._refuse(url, answer)
        try:
            return Page(answer.url, parse_json(answer.body), answer.head.links.get("next", {}).get("url", ""))
        except (json.JSONDecodeError, UnicodeDecodeError):
            if answer.body.lstrip().startswith((b"{", b"[")):
                raise _Later("the answer ends in the middle, or is not JSON", None) from None
            kind = answer.head.headers.get("content-type", "of unknown type")
            message = f"the answer is not JSON ({kind}); check the source's url and path"
            raise self._error(SourceError, url, message) from None

    def _dated(self, url: str, answer: _Answer) -> dt.datetime | None:
        # Other answers have the time too, also those of a server that does not know HEAD (405 or 501).
        if answer.status in (401, 403, *_BUSY) or (answer.status >= 500 and answer.status != 501):
            self._refuse(url, answer)
        return answer.date

    def _unreached(self, url: str, error: httpx.RequestError) -> str:
        """Why there was no answer.

        Raises:
            SourceError: there is no such host, or its certificate is not trusted.
        """
        cause: BaseException | None = error
        while cause is not None:
            host = urlsplit(url).hostname
            if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
                raise self._error(SourceError, url, f"there is no host '{host}'; check the source's url") from None
            if isinstance(cause, ssl.SSLCertVerificationError):
                message = f"the certificate of '{host}' is not trusted ({cause.verify_message}); set SSL_CERT_FILE"
                raise self._error(SourceError, url, message) from None
            cause = cause.__cause__ or cause.__context__
        return f"no answer ({type(error).__name__}: {error})"

    def _refuse(self, url: str, answer: _Answer) -> NoReturn:
        """Raises ``_Later`` if another try may help, and :class:`SourceError` otherwise."""
        status, reason = answer.status, answer.head.reason_phrase
        if status >= 500 or status in _BUSY:
            wait_s = _seconds(answer.head.headers.get("retry-after"), answer.date)
            raise _Later(f"the server answers {status} {reason}", wait_s)
        mend = {
            401: "set the source's token=dg.EnvVar(…) to a valid one",
            403: "the token may not read this; ask the owner of the API for the right",
            404: "check the source's url and path",
        }.get(status, "check the source's params")
        if status in (401, 403) and not self._is_ours(answer.url):
            other = self._plain(answer.url)
            mend = f"it redirects to {other}, which does not get the token; set the source's url to it"
        raise self._error(SourceError, url, f"the server answers {status} {reason}; {mend}")

    def _sent(self, method: str, url: str, params: Mapping[str, str]) -> _Answer:
        """The answer, after redirects. Only the API's own host gets the headers."""
        where = str(httpx.URL(url).copy_merge_params(dict(params)))
        for _ in range(MOST_REDIRECTS + 1):
            headers = self._headers if self._is_ours(where) else {}
            body = []
            with self._client.stream(method, where, headers=headers) as head:
                for chunk in head.iter_bytes():
                    body.append(chunk)
                    self._refuse_delay(url)
            self._refuse_delay(url)
            if not head.has_redirect_location:
                return _Answer(head, b"".join(body))
            where = urljoin(where, head.headers["location"])
        raise self._error(SourceError, url, f"more than {MOST_REDIRECTS} redirects; check the source's url")

    def _refuse_delay(self, url: str) -> None:
        if time.monotonic() > self._until:
            raise self._error(SourceUnavailable, url, f"not all pages came within {self._total_s:g} s (total_s)")

    def _is_ours(self, url: str) -> bool:
        return _origin(url) == _origin(self._base)

    def _error(self, kind: type[SourceError], url: str, message: str) -> SourceError:
        return kind(hidden(f"{self._plain(url)}: {message}", *self._secrets))

    def _plain(self, url: str) -> str:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates that httpx trusts, read once: that takes longer than a request."""
    return httpx.create_ssl_context()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _date(text: str) -> dt.datetime | None:
    try:
        return email.utils.parsedate_to_datetime(text).astimezone(dt.UTC)
    except ValueError:
        return None


def _seconds(retry_after: str | None, now: dt.datetime | None) -> float | None:
    """The wait of a ``Retry-After`` header: seconds, or a date by the server's own clock; ``None`` if it is neither."""
    if not retry_after:
        return None
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        until = _date(retry_after)
        return None if until is None else max((until - (now or dt.datetime.now(dt.UTC))).total_seconds(), 0.0)
