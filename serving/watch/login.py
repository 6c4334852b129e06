"""Who a request to the watch is from: the token of a program, or the cookie of a person who has logged in.

Belongs here: the token, the cookie, and the login page. Does not belong here: what is recorded (``audit_page.py``).

The cookie proves that its holder had the token, but does not reveal the token. It is ``SameSite=Strict``, so no other
site can use it.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import hashlib
import hmac
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from serving.watch.audit_page import Looks

COOKIE = "assetline_watch"


class Login:
    """Identifies the person or program of a request.

    Args:
        token: access token that clients must send.
        looks: where requests are recorded; ``None``: nowhere.
    """

    def __init__(self, token: str, looks: Looks | None) -> None:
        self._token, self._looks = token, looks
        self._proof = hmac.new(token.encode(), b"assetline watch", hashlib.sha256).hexdigest()

    def allowed(self, request: Request) -> str:
        """The name of the person or program, after its look was recorded.

        Raises:
            HTTPException: the token is absent or wrong (401, or 303 to the login page), or the look cannot be recorded.
        """
        who = self._who(request)
        if self._looks:
            self._looks.looked(request, who)
        return who

    def accepts(self, token: str, request: Request) -> bool:
        """Whether a token that was entered on the login page is right; a wrong one is recorded."""
        right = hmac.compare_digest(token.strip().encode(), self._token.encode())
        if not right and self._looks:
            self._looks.denied(request)
        return right

    def cookie_of(self, name: str) -> str:
        """The cookie of a person who has entered the token."""
        plain = "".join(c for c in name if c.isalnum() or c in " .@-_")[:60].strip() or "page"
        return f"{self._proof}|{quote(plain)}"

    def _who(self, request: Request) -> str:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        cookie, _, who = request.cookies.get(COOKIE, "").partition("|")
        if bearer and hmac.compare_digest(bearer.encode(), self._token.encode()):
            return request.headers.get("x-assetline-user", "api")
        if cookie and hmac.compare_digest(cookie.encode(), self._proof.encode()):
            return unquote(who) or "page"
        if self._looks and (bearer or cookie):
            self._looks.denied(request)
        if "text/html" in request.headers.get("accept", ""):
            raise HTTPException(303, headers={"Location": "/login"})
        raise HTTPException(401, "send the token as `Authorization: Bearer …`", headers={"WWW-Authenticate": "Bearer"})


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
        if not login.accepts(token, request):
            return HTMLResponse(page("login.html", wrong=True), 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, login.cookie_of(name), httponly=True, samesite="strict", max_age=12 * 3600)
        return response

    @app.post("/logout")
    def leave() -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response
