"""Who may ask: every request needs a bearer token, except for what machines read before they have one.

Belongs here: checking the token of a request, and reading the token file again when it changes. Does not belong here:
the file's format (``resources/service_tokens.py``), how often one token may ask (``limits.py``).

The middleware is plain ASGI, because Starlette's ``BaseHTTPMiddleware`` starts a task for each request. A check takes
a few microseconds; a request takes a millisecond.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
import os
import time
from collections.abc import Callable
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from resources.access import Access, AccessDenied
from resources.service_tokens import Token, TokenError, TokenFile, digest_of
from resources.settings import PREFIX, Settings
from serving.scoring.errors import Json

OPEN_PATHS = frozenset(
    {"/health", "/livez", "/readyz", "/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)
"""Paths that need no token: probes and Prometheus come from machines that have none, and the documentation holds no
data. ``docs/service.md`` lists what each of them reveals."""
REREAD_S = 1.0
"""Seconds between two looks at the token file's time and size."""
Refusal = Literal["unauthorized", "forbidden", "rate_limited"]
"""Why a request was refused before it reached a model."""
_TOKEN_WAYS = "`assetline token create NAME` makes one; the first one is in the file service-token of the state folder"

_INVALID = ', error="invalid_token"'
_log = logging.getLogger("assetline.service")


class AccessError(Exception):
    """The service would be open to others; the message gives the settings and the fix."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an interface; a name other than ``localhost`` counts as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Tokens:
    """The tokens of the file as it was last read without an error.

    Args:
        file: the token file.

    Raises:
        TokenError: the file is absent or damaged; there are no earlier tokens to go on with.
    """

    def __init__(self, file: TokenFile) -> None:
        self._file = file
        self._signature = self._signature_now()
        self._tokens = file.read()
        self._read_at = dt.datetime.now(dt.UTC)
        self._next_look = time.monotonic() + REREAD_S
        self.problem: str | None = None

    def find(self, presented: bytes) -> Token | None:
        """The token that was presented, even if it has expired; ``None`` if it is unknown.

        Compares with every token, each in constant time.
        """
        self.refresh()
        digest, now, found = digest_of(presented), dt.datetime.now(dt.UTC), None
        for token in self._tokens.values():
            if token.matches(digest, now):
                found = token
        return found

    def refresh(self) -> None:
        """Reads the file again if it has changed; after an error, the tokens stay and ``problem`` says why."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + REREAD_S
        signature = self._signature_now()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._tokens = self._file.read()
        except TokenError as error:
            self.problem = f"{error}; the tokens read at {self._read_at:%Y-%m-%d %H:%M:%S} UTC stay valid"
            _log.error("%s", self.problem)
        else:
            self.problem, self._read_at = None, dt.datetime.now(dt.UTC)
            _log.info("read %d tokens from %s", len(self._tokens), self._file.path)

    def _signature_now(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._file.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def tokens_of(settings: Settings, host: str, *, staged: bool) -> Tokens | None:
    """The tokens of a service that listens on ``host``; makes the first one if there is no token file.

    Args:
        settings: the operator's settings.
        host: interface that the service listens on.
        staged: whether it is a temporary process of one bundle. On a loopback interface that one needs no token.

    Returns:
        The tokens; ``None`` if requests need none.

    Raises:
        AccessError: tokens are off, but others can reach the interface.
        TokenError: the token file is damaged, or cannot be made.
    """
    if staged and is_loopback(host):
        return None
    if settings.service_auth == "off":
        if not is_loopback(host):
            raise AccessError(
                f"{PREFIX}SERVICE_AUTH=off with --host {host}: others could ask for scores without a token; "
                "listen on 127.0.0.1, or unset it"
            )
        return None
    file = TokenFile(settings.service_tokens, settings.first_service_token)
    if file.ensure():
        _log.info("made the first token of the service; it is in %s", settings.first_service_token)
    return Tokens(file)


def access_health(tokens: Tokens | None) -> dict[str, str | None]:
    """The ``access`` entry of the ``/health`` response."""
    if tokens is None:
        return {"auth": "off", "problem": None}
    tokens.refresh()
    return {"auth": "token", "problem": tokens.problem}


def model_of(path: str, access: Access) -> str | None:
    """The model that a path concerns. The list of models concerns none, so a limited token may ask for it."""
    parts = path.split("/")
    if len(parts) > 2 and parts[1] == "models":
        return parts[2]
    return access.models[0] if access.models else None


class _NoTokenError(Exception):
    """A request has no valid token; ``code`` is RFC 6750's error code, which a request without any token has not."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RequireToken:
    """ASGI middleware: answers 401 to a request without a valid token, and 403 if the token may not score the model.

    Open paths need no token.

    The name of the token is in ``request.state.token`` for what comes after.

    Args:
        app: the application behind it.
        tokens: the valid tokens.
        refused: called for each refused request, e.g. to count it.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, refused: Callable[[Refusal], None]) -> None:
        self._app, self._tokens, self._refused = app, tokens, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        try:
            token = self._token_of(scope)
        except _NoTokenError as error:
            self._refused("unauthorized")
            challenge = {"WWW-Authenticate": f'Bearer realm="assetline"{error.code}'}
            await Json({"detail": str(error)}, 401, headers=challenge)(scope, receive, send)
            return
        scope.setdefault("state", {})["token"] = token.name
        try:
            token.access.require("score", model_of(scope["path"], token.access))
        except AccessDenied as error:
            self._refused("forbidden")
            await Json({"detail": str(error)}, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _token_of(self, scope: Scope) -> Token:
        """The valid token of a request. Raises :class:`_NoTokenError` if there is none."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, presented = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        presented = presented.strip()
        if scheme.lower() != b"bearer" or not presented:
            raise _NoTokenError(f"send one header Authorization: Bearer TOKEN; {_TOKEN_WAYS}")
        token = self._tokens.find(presented)
        if token is None:
            raise _NoTokenError(f"the token is unknown or was revoked; {_TOKEN_WAYS}", _INVALID)
        if token.has_expired(dt.datetime.now(dt.UTC)):
            raise _NoTokenError(
                f"the token '{token.name}' expired on {token.expires:%Y-%m-%d %H:%M} UTC; "
                f"`assetline token rotate {token.name} --expires TIME` makes a new one", _INVALID,
            )  # fmt: skip
        return token
