"""The bearer tokens and the people of the project: a file of names, hashes and roles, and the file that shows the first
token.

    [tokens.default]
    hash = "sha256:2c26b46b…"
    created = 2026-12-01T09:30:00+00:00
    role = "operator"                           # optional; default: scorer
    models = ["fraud"]                          # optional; default: all models
    tables = ["fraud/payments", "fraud/f*"]     # optional; default: all tables of these models
    hidden_columns = ["*.customer_id"]          # optional; default: none
    expires = 2027-12-01T00:00:00+00:00         # optional
    previous_hash = "sha256:fcde2b2e…"          # optional: the token before the rotation …
    previous_until = 2026-12-02T09:30:00+00:00  # … and how long it works

    [people.ada]                                # a user of this machine, for the commands
    role = "approver"

Without a person in it, every user of the machine who can read the state folder may run every command.

Belongs here: reading and changing that file. Does not belong here: what a role may do (``access.py``), checking a
request (``serving/scoring/access.py``), arguments and output of the commands (``cli/token.py``).

A token is 32 random bytes, so a plain SHA-256 protects it: there is no dictionary to try. The file is replaced by one
rename under a lock, so a reader never sees half of it, and concurrent commands do not lose a change. It may also be a
read-only file that something else manages (a Kubernetes Secret).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resources.access import Access, Role, parts_of, role_of

FIRST = "default"
"""Name of the token that the service makes at its first start."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PERSON = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@ -]{0,62}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LIMITS = ("models", "tables", "hidden_columns")
"""What a token or a person may be limited by."""
_LEAST_LENGTH = 16
_MOST_HOURS = 24 * 365
_LOCK_TIMEOUT_S = 30
_HEADER = "# Tokens and people: hashes, never the tokens. `assetline token` changes the tokens.\n"


class TokenError(Exception):
    """A token or the token file cannot be used. The message is one sentence with the name, the value and the fix."""


@dataclass(frozen=True)
class Token:
    """One named token; the token itself is not known.

    Attributes:
        name: its name, for people and for the access log.
        digest: SHA-256 of the token.
        created: when it was made or last rotated.
        expires: first moment at which it no longer works; ``None``: it does not expire.
        previous: SHA-256 of the token before the rotation, if that still works for a while.
        previous_until: first moment at which the previous token no longer works.
        role: its role.
        models: names of the models that it is limited to; ``None``: all.
        tables, hidden_columns: as in :class:`~resources.access.Access`.
    """

    name: str
    digest: bytes
    created: dt.datetime
    expires: dt.datetime | None = None
    previous: bytes | None = None
    previous_until: dt.datetime | None = None
    role: Role = "scorer"
    models: tuple[str, ...] | None = None
    tables: tuple[str, ...] | None = None
    hidden_columns: tuple[str, ...] = ()

    @property
    def access(self) -> Access:
        """What its holder may do."""
        return Access(self.name, self.role, self.models, self.tables, self.hidden_columns)

    def matches(self, digest: bytes, at: dt.datetime) -> bool:
        """Whether ``digest`` is that of this token, or of its predecessor while that works; in constant time.

        Expiry is not checked: see :meth:`has_expired`.
        """
        current = hmac.compare_digest(digest, self.digest)
        if self.previous is None or self.previous_until is None:
            return current
        return (hmac.compare_digest(digest, self.previous) and at < self.previous_until) or current

    def has_expired(self, at: dt.datetime) -> bool:
        """Whether the token no longer works at a moment."""
        return self.expires is not None and at >= self.expires

    def to_json(self, at: dt.datetime) -> dict[str, Any]:
        """The token's facts for the command line; nothing in them is secret."""
        return {
            "name": self.name,
            "role": self.role,
            "models": None if self.models is None else list(self.models),
            "tables": None if self.tables is None else list(self.tables),
            "hidden_columns": list(self.hidden_columns),
            "created": self.created.isoformat(timespec="seconds"),
            "expires": self.expires and self.expires.isoformat(timespec="seconds"),
            "expired": self.has_expired(at),
            "previous_until": self.previous_until and self.previous_until.isoformat(timespec="seconds"),
        }


def digest_of(token: str | bytes) -> bytes:
    """SHA-256 of a token: 32 bytes."""
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).digest()


class TokenFile:
    """The file of tokens.

    Args:
        path: path of the file.
        shown: path of the file that shows the first token to the person who started the service.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path, self.shown = path, shown

    def read(self) -> dict[str, Token]:
        """The tokens by name. Raises :class:`TokenError` if the file is absent or damaged."""
        return self._contents()[0]

    def people(self) -> dict[str, Access]:
        """The people by user name; empty if there is no file. Raises :class:`TokenError` if it is damaged."""
        return self._contents()[1] if self.path.exists() else {}

    def _contents(self) -> tuple[dict[str, Token], dict[str, Access]]:
        try:
            return _parsed(self.path.read_bytes())
        except FileNotFoundError as error:
            raise TokenError(
                f"the token file {self.path} does not exist; `assetline token create NAME` makes it"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise TokenError(
                f"the token file {self.path} cannot be read ({error}); restore it, or remove it and make new tokens"
            ) from error

    def ensure(self) -> bool:
        """Makes the file with its first token if there is no file; returns whether it did.

        The token is written to ``shown`` first, readable only by its owner. After a kill between the two files, the
        next call uses the token that is there.
        """
        if self.path.exists():
            return False
        with self._locked():
            if self.path.exists():
                return False
            try:
                token = self.shown.read_text(encoding="ascii").strip() if self.shown.exists() else ""
            except (OSError, ValueError) as error:
                raise TokenError(f"{self.shown} cannot be read ({error}); remove it") from error
            if token and len(token) < _LEAST_LENGTH:
                raise TokenError(f"{self.shown} holds less than {_LEAST_LENGTH} characters; remove it")
            if not token:
                token = _new_token()
                _write(self.shown, f"{token}\n")
            self._save({FIRST: Token(FIRST, digest_of(token), _now())}, {})
        return True

    def create(
        self, name: str, expires: dt.datetime | None = None, role: Role = "scorer", models: Collection[str] = (),
        tables: Collection[str] = (), hidden_columns: Collection[str] = (),
    ) -> str:  # fmt: skip
        """Adds a token and returns it; it is not stored anywhere.

        Args:
            name: its name.
            expires: first moment at which it no longer works; ``None``: it does not expire.
            role: its role.
            models: names of the models that it is limited to; empty: all.
            tables: patterns of the tables that it is limited to; empty: all.
            hidden_columns: patterns of columns that it may not see.

        Raises:
            TokenError: the name is invalid or exists already, ``expires`` is past, a pattern is wrong, or the file is
                damaged.
        """
        if not _NAME.fullmatch(name):
            raise TokenError(
                f"the name {name!r} is invalid; use lower-case letters, digits, - and _, at most 63 of them"
            )
        _refuse_past(expires)
        try:
            for pattern in hidden_columns:
                parts_of(pattern)
        except ValueError as error:
            raise TokenError(f"the hidden column {error}") from error
        with self._locked():
            tokens, people = self._contents() if self.path.exists() else ({}, {})
            if name in tokens:
                raise TokenError(f"a token {name!r} exists already; `assetline token rotate {name}` replaces it")
            token = _new_token()
            new = Token(
                name, digest_of(token), _now(), expires, role=role, models=tuple(sorted(models)) or None,
                tables=tuple(tables) or None, hidden_columns=tuple(hidden_columns),
            )  # fmt: skip
            self._save({**tokens, name: new}, people)
        return token

    def rotate(self, name: str, expires: dt.datetime | None = None, keep_hours: float = 0.0) -> str:
        """Replaces a token and returns the new one. If ``shown`` holds the old one, it is replaced there, too.

        Args:
            name: name of the token.
            expires: new expiry; ``None``: as before.
            keep_hours: how long the old token works beside the new one.

        Raises:
            TokenError: there is no such token, its expiry is past, ``keep_hours`` is out of range, or the
                file is damaged.
        """
        if not 0 <= keep_hours <= _MOST_HOURS:
            raise TokenError(f"--keep {keep_hours:g} is out of range; give 0 to {_MOST_HOURS} hours")
        _refuse_past(expires)
        with self._locked():
            tokens, people = self._contents()
            old = _known(tokens, name)
            if expires is None and old.has_expired(_now()):
                raise TokenError(
                    f"the token {name!r} expired on {old.expires:%Y-%m-%d %H:%M} UTC; give a new --expires"
                )
            token, now = _new_token(), _now()
            new = replace(
                old, digest=digest_of(token), created=now, expires=expires or old.expires,
                previous=old.digest if keep_hours else None,
                previous_until=now + dt.timedelta(hours=keep_hours) if keep_hours else None,
            )  # fmt: skip
            was_shown = self._shows(old)
            self._save({**tokens, name: new}, people)
            if was_shown:
                _write(self.shown, f"{token}\n")
        return token

    def revoke(self, name: str) -> None:
        """Removes a token. Raises :class:`TokenError` if there is none of this name, or the file is damaged."""
        with self._locked():
            tokens, people = self._contents()
            old = _known(tokens, name)
            was_shown = self._shows(old)
            self._save({other: token for other, token in tokens.items() if other != name}, people)
            if was_shown:
                self.shown.unlink(missing_ok=True)

    def _shows(self, token: Token) -> bool:
        try:
            return hmac.compare_digest(digest_of(self.shown.read_bytes().strip()), token.digest)
        except OSError:
            return False

    def _save(self, tokens: Mapping[str, Token], people: Mapping[str, Access]) -> None:
        named = [*map(_to_toml, tokens.values()), *map(_person_to_toml, people.values())]
        _write(self.path, _HEADER + "".join(named))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                yield
        except OSError as error:  # a lock that is held for too long is one, too
            raise TokenError(f"the token file {self.path} cannot be written ({error}); check the folder") from error


def _known(tokens: Mapping[str, Token], name: str) -> Token:
    if name not in tokens:
        raise TokenError(f"there is no token {name!r}; the tokens are: {', '.join(tokens) or 'none'}")
    return tokens[name]


def _refuse_past(expires: dt.datetime | None) -> None:
    if expires is not None and expires <= _now():
        raise TokenError(f"--expires {expires:%Y-%m-%d %H:%M} UTC is past; give a later time")


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _parsed(content: bytes) -> tuple[dict[str, Token], dict[str, Access]]:
    """Parses the file to tokens and people. Raises :class:`ValueError` with the first thing that is wrong."""
    tables = tomllib.loads(content.decode("utf-8"))
    if unknown := set(tables) - {"tokens", "people"}:
        raise ValueError(f"it holds {', '.join(sorted(unknown))}, not only [tokens.NAME] and [people.NAME] tables")
    tokens, people = tables.get("tokens", {}), tables.get("people", {})
    for table, named in (("tokens", tokens), ("people", people)):
        if not isinstance(named, dict):
            raise ValueError(f"{table} is not a table")
    return (
        {name: _token_of(name, facts) for name, facts in tokens.items()},
        {name: _person_of(name, facts) for name, facts in people.items()},
    )


def _person_of(name: str, facts: Any) -> Access:
    where = f"[people.{name}]"
    if not _PERSON.fullmatch(name) or not isinstance(facts, dict) or not {"role"} <= set(facts) <= {"role", *_LIMITS}:
        raise ValueError(f"{where} is not a user name with role and, if limited, {', '.join(_LIMITS)}")
    return Access(
        name, _role(where, facts), _names(where, facts, "models"), _names(where, facts, "tables"), _hidden(where, facts)
    )


def _role(where: str, facts: Mapping[str, Any]) -> Role:
    try:
        return role_of(str(facts.get("role", "scorer")))
    except ValueError as error:
        raise ValueError(f"role of {where}: {error}") from error


def _names(where: str, facts: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    names = facts.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(one, str) and one for one in names):
        raise ValueError(f"{field} of {where} is not a list of names; leave it out for no limit")
    return tuple(names)


def _hidden(where: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    names = _names(where, facts, "hidden_columns") or ()
    for name in names:
        try:
            parts_of(name)
        except ValueError as error:
            raise ValueError(f"hidden_columns of {where}: {error}") from error
    return names


def _token_of(name: str, facts: Any) -> Token:
    where = f"[tokens.{name}]"
    known = {"hash", "created", "expires", "previous_hash", "previous_until", "role", *_LIMITS}
    if not _NAME.fullmatch(name) or not isinstance(facts, dict) or not set(facts) <= known:
        raise ValueError(f"[tokens.{name}] is not a token with {', '.join(sorted(known))}")
    if ("previous_hash" in facts) != ("previous_until" in facts):
        raise ValueError(f"[tokens.{name}] has one of previous_hash and previous_until without the other")
    created = _moment(name, facts, "created")
    if created is None:
        raise ValueError(f"[tokens.{name}] has no time of creation")
    digest, previous = _digest(name, facts, "hash"), None
    if "previous_hash" in facts:
        previous = _digest(name, facts, "previous_hash")
    return Token(
        name, digest, created, _moment(name, facts, "expires"), previous, _moment(name, facts, "previous_until"),
        role=_role(where, facts), models=_names(where, facts, "models"), tables=_names(where, facts, "tables"),
        hidden_columns=_hidden(where, facts),
    )  # fmt: skip


def _digest(name: str, facts: Mapping[str, Any], field: str) -> bytes:
    found = _DIGEST.fullmatch(str(facts.get(field, "")))
    if not found:
        # The value is not shown: a person may have written the token itself.
        raise ValueError(f"{field} of [tokens.{name}] is not sha256: and 64 hexadecimal digits")
    return bytes.fromhex(found[1])


def _moment(name: str, facts: Mapping[str, Any], field: str) -> dt.datetime | None:
    value = facts.get(field)
    if value is None:
        return None
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise ValueError(f"{field} of [tokens.{name}] is not a time with an offset, like 2026-12-01T00:00:00Z")
    return value.astimezone(dt.UTC)


def _to_toml(token: Token) -> str:
    lines = [f"\n[tokens.{token.name}]", f'hash = "sha256:{token.digest.hex()}"', f"created = {_iso(token.created)}"]
    lines += _access_lines(token.access)
    if token.expires is not None:
        lines.append(f"expires = {_iso(token.expires)}")
    if token.previous is not None and token.previous_until is not None:
        lines += [f'previous_hash = "sha256:{token.previous.hex()}"', f"previous_until = {_iso(token.previous_until)}"]
    return "\n".join([*lines, ""])


def _person_to_toml(person: Access) -> str:
    return "\n".join([f'\n[people."{person.name}"]', *_access_lines(person), ""])


def _access_lines(access: Access) -> list[str]:
    limits = {name: getattr(access, name) for name in _LIMITS}
    # JSON's texts and lists are TOML's, too.
    return [f'role = "{access.role}"', *(f"{name} = {json.dumps(of)}" for name, of in limits.items() if of)]


def _iso(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _write(path: Path, content: str) -> None:
    """Replaces a file by one that only its owner can read, in one step."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch.unlink(missing_ok=True)
    with open(scratch, "x", encoding="utf-8", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
