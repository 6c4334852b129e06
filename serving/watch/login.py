"""Who a request to the watch is from, and whether its role may do that.

Two kinds of tokens are accepted: the token of the watch, whose holder is an admin and gives a name at the login, and
the named tokens of ``assetline token``, whose role and models decide. A program sends one as ``Authorization: Bearer
…``. A person enters one on the login page and gets a cookie. The cookie proves that its holder had the token, but does
not reveal the token, and stops working when the token is rotated or revoked. It is ``SameSite=Strict``, so no other
site can use it.

Belongs here: tokens, the cookie, the login page, and the right that each route needs. Does not belong here: roles
(``resources/access.py``), what is recorded (``audit_page.py``).
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import datetime as dt
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from resources.access import Access, AccessDenied, Right
from resources.service_tokens import Token, digest_of
from serving.watch.audit_page import Looks

COOKIE = "assetline_watch"


RIGHTS: Mapping[tuple[str, str], Right] = {
    ("POST", "/alerts/{number}/{what}"): "operate",
    ("POST", "/api/alerts/{number}/{what}"): "operate",
    ("POST", "/approvals/{name}/{decision}"): "approve",
    ("POST", "/api/approvals/{name}/{decision}"): "approve",
    ("GET", "/audit"): "administer",
    ("GET", "/audit.json"): "administer",
}
"""The right that a route needs, by its method and path. Any other GET needs ``read``, anything else ``administer``."""
AUTHORIZE = "/authorize"
"""What the login proxy asks before it passes a request on to the UI of Dagster or MLflow."""
OF_NO_MODEL = frozenset({"/runbooks/{name}", "/metadata/views", "/views"})
"""Paths that show nothing of a model, so that limited tokens may open them."""


class Login:
    """Identifies the person or program of a request, and asks for its right.

    Args:
        token: the token of the watch.
        looks: where requests are recorded; ``None``: nowhere.
        named: returns the named tokens; ``None``: there are none.
        model_of_alert: returns the model of an alert by its number; ``None`` if there is no such alert.
    """

    def __init__(
        self,
        token: str,
        looks: Looks | None,
        named: Callable[[], Mapping[str, Token]] | None,
        model_of_alert: Callable[[int], str | None],
    ) -> None:
        self._token, self._looks, self._named, self._model_of_alert = token, looks, named, model_of_alert

    def allowed(self, request: Request) -> Access:
        """The person or program, after its look was recorded.

        Raises:
            HTTPException: the token is absent, wrong or expired (401, or 303 to the login page), its role may not do
                this (403), or the look cannot be recorded (503).
        """
        access = self._who(request)
        path = request.scope["route"].path
        right = RIGHTS.get((request.method, path), "read" if request.method == "GET" else "administer")
        try:
            access.require(right, self._model_of(request, path, access))
        except AccessDenied as error:
            raise self.refusal(request, access, error) from error
        if self._looks:
            self._looks.looked(request, access.name)
        return access

    def refusal(self, request: Request, access: Access, error: AccessDenied) -> HTTPException:
        """The answer to a request that a person or program may not make, after it was recorded."""
        if self._looks:
            self._looks.denied(request, access.name)
        return HTTPException(403, str(error))

    def entered(self, token: str, name: str, request: Request) -> tuple[Access, str] | None:
        """The person and the cookie for a token that was entered on the login page; ``None`` if it is wrong."""
        token = token.strip()
        if hmac.compare_digest(token.encode(), self._token.encode()):
            plain = "".join(c for c in name if c.isalnum() or c in " .@-_")[:60].strip() or "page"
            return Access(plain, "admin"), f"{self._proof('', b'')}||{quote(plain)}"
        if found := self._named_token(token):
            return found.access, f"{self._proof(found.name, found.digest)}|{found.name}|"
        if self._looks:
            self._looks.denied(request)
        return None

    def _who(self, request: Request) -> Access:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        proof, name, who = ([*request.cookies.get(COOKIE, "").split("|"), "", ""])[:3]
        if bearer and hmac.compare_digest(bearer.encode(), self._token.encode()):
            return Access(request.headers.get("x-assetline-user", "api"), "admin")
        if bearer and (found := self._named_token(bearer)):
            return found.access
        if proof and not name and hmac.compare_digest(proof.encode(), self._proof("", b"").encode()):
            return Access(unquote(who) or "page", "admin")
        known = self._tokens().get(name) if proof and name else None
        if known and not known.has_expired(_now()) and self._proves(proof, known):
            return known.access
        if self._looks and (bearer or proof):
            self._looks.denied(request)
        if "text/html" in request.headers.get("accept", "") and request.url.path != AUTHORIZE:
            raise HTTPException(303, headers={"Location": "/login"})
        raise HTTPException(401, "send the token as `Authorization: Bearer …`", headers={"WWW-Authenticate": "Bearer"})

    def _named_token(self, given: str) -> Token | None:
        digest, now, found = digest_of(given), _now(), None
        for token in self._tokens().values():
            if token.matches(digest, now) and not token.has_expired(now):
                found = token
        return found

    def _tokens(self) -> Mapping[str, Token]:
        return self._named() if self._named else {}

    def _proves(self, proof: str, token: Token) -> bool:
        return hmac.compare_digest(proof.encode(), self._proof(token.name, token.digest).encode())

    def _proof(self, name: str, digest: bytes) -> str:
        return hmac.new(self._token.encode(), b"assetline watch" + name.encode() + digest, hashlib.sha256).hexdigest()

    def _model_of(self, request: Request, path: str, access: Access) -> str | None:
        """The model that a request concerns, from its path or its query; ``None`` if it concerns all models."""
        if path in OF_NO_MODEL and access.models:
            return access.models[0]
        values = {**request.query_params, **request.path_params}
        if "number" in request.path_params and "/alerts/" in path:
            return self._model_of_alert(int(values["number"]))
        return values.get("model") or (values.get("name") if "/approvals/" in path else None)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def add_login_page(app: FastAPI, login: Login, page: Callable[..., str]) -> None:
    """Adds the pages ``/login`` and ``/logout``.

    Args:
        app: the application.
        login: the token and the cookie.
        page: renders a template to HTML.
    """

    @app.get("/login")
    def login_page() -> HTMLResponse:
        return HTMLResponse(page("login.html", wrong=False))

    @app.post("/login")
    def enter(request: Request, token: Annotated[str, Form()], name: Annotated[str, Form()] = "") -> Response:
        found = login.entered(token, name, request)
        if found is None:
            return HTMLResponse(page("login.html", wrong=True), 401)
        access, cookie = found
        home = f"/?model={quote(access.models[0])}" if access.models else "/"
        response = RedirectResponse(home, 303)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", max_age=12 * 3600)
        return response

    @app.get(AUTHORIZE)
    def authorize(who: Annotated[Access, Depends(login.allowed)]) -> Response:
        right = "operate" if who.may("operate", None) else "read"
        return Response(status_code=204, headers={"X-Assetline-Right": right})

    @app.post("/logout")
    def leave() -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response
