"""``assetline token …``: the bearer tokens of the project. A running service uses a change within two seconds.

Belongs here: arguments, and text output. Does not belong here: the file of tokens (``resources/service_tokens.py``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audited import audited
from cli.errors import read_settings, reported
from resources.access import Role

if TYPE_CHECKING:
    from resources.service_tokens import Token, TokenFile

token_app = typer.Typer(
    help="Create, list, revoke and rotate tokens, for the scoring service and the alerts page.", no_args_is_help=True
)


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time; write it as 2027-12-31 or 2027-12-31T12:00 (UTC)") from None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token, e.g. of the program that uses it.")]
Expires = Annotated[
    dt.datetime | None,
    typer.Option(parser=_moment, metavar="TIME", help="When it stops working, e.g. 2027-12-31 (default: never)."),
]
NewExpires = Annotated[
    dt.datetime | None,
    typer.Option(parser=_moment, metavar="TIME", help="When it stops working (default: as before)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def _tokens(command: str) -> Iterator[TokenFile]:
    """Yields the token file; an error that the user can fix ends the command."""
    settings = read_settings(f"assetline token {command}")
    from resources.service_tokens import TokenError, TokenFile

    with reported(f"assetline token {command}", TokenError):
        yield TokenFile(settings.service_tokens, settings.first_service_token)


@token_app.command(epilog="Example: `assetline token create nightly --role reader --expires 2027-12-31`")
@audited("create", "token", details=("name", "role", "model", "table", "hide", "expires"), right="administer")
def create(
    name: Name, expires: Expires = None,
    role: Annotated[Role, typer.Option(help="What it may do; docs/security.md has the table.")] = "scorer",
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Limit it to this model; may be repeated (default: all).")
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Limit it to tables, e.g. fraud/payments or 'fraud/f*'; may be repeated."),
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Hide columns, e.g. fraud/payments.iban or '*.iban'; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Create a token and print it, once: only its hash is stored."""
    with _tokens("create") as tokens:
        made = tokens.create(name, expires, role, model or (), table or (), hide or ())
        _print_new(tokens, name, made, as_json=as_json)


@token_app.command("list", epilog="Example: `assetline token list --json`")
@audited("read", "token", right="administer")
def list_tokens(as_json: AsJson = False) -> None:
    """List the tokens by name, with their creation and expiry."""
    with _tokens("list") as tokens:
        found = list(tokens.read().values())
    now = dt.datetime.now(dt.UTC)
    print(json.dumps([token.to_json(now) for token in found], indent=1) if as_json else format_tokens(found, now))


@token_app.command(epilog="Example: `assetline token revoke nightly`")
@audited("revoke", "token", details=("name",), right="administer")
def revoke(name: Name, as_json: AsJson = False) -> None:
    """Revoke a token: it stops working, and its name is free again."""
    with _tokens("revoke") as tokens:
        tokens.revoke(name)
        left = list(tokens.read())
    print(json.dumps({"revoked": name, "left": left}) if as_json else f"revoked {name}; left: {_listed(left)}")


@token_app.command(epilog="Example: `assetline token rotate nightly --keep 24`")
@audited("rotate", "token", details=("name", "keep", "expires"), right="administer")
def rotate(
    name: Name,
    keep: Annotated[
        float, typer.Option(metavar="HOURS", help="How long the old token works beside the new one (default: 0).")
    ] = 0.0,
    expires: NewExpires = None,
    as_json: AsJson = False,
) -> None:
    """Replace a token by a new one of the same name and print it, once."""
    with _tokens("rotate") as tokens:
        _print_new(tokens, name, tokens.rotate(name, expires, keep), as_json=as_json)


def _print_new(tokens: TokenFile, name: str, secret: str, *, as_json: bool) -> None:
    """Prints a new token; without ``--json`` it is alone on the output, so that a script can take it."""
    token = tokens.read()[name]
    if as_json:
        print(json.dumps({**token.to_json(dt.datetime.now(dt.UTC)), "token": secret}, indent=1))
        return
    until = f" until {_time(token.expires)}" if token.expires else ""
    old = f"; the old one works until {_time(token.previous_until)}" if token.previous_until else ""
    typer.echo(f"{name} works{until}{old}. It is shown this once:", err=True)
    print(secret)


def format_tokens(tokens: list[Token], now: dt.datetime) -> str:
    """Tokens as a text table."""
    if not tokens:
        return "there is no token; the service refuses every request (`assetline token create NAME` makes one)"
    limited = any(token.tables or token.hidden_columns for token in tokens)
    rows = [("name", "role", "models", *(("tables", "without") if limited else ()), "created", "expires", "")]
    for token in tokens:
        note = "expired" if token.has_expired(now) else ""
        if token.previous_until and now < token.previous_until:
            note = f"the one before works until {_time(token.previous_until)}"
        expires = _time(token.expires) if token.expires else "never"
        models = "all" if token.models is None else ", ".join(token.models)
        limits = (", ".join(token.tables or ("all",)), ", ".join(token.hidden_columns)) if limited else ()
        rows.append((token.name, token.role, models, *limits, _time(token.created), expires, note))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    )


def _time(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
