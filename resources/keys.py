"""The keys of the project: which there are, for what, and the file or the variables that hold them.

    # keys.toml in the state folder, or ASSETLINE_KEYS; readable by its owner only
    [tables]
    "2026-12-02" = "kJ0m…"        # 32 bytes in base64; the last one encrypts, all of them decrypt
    "2027-03-01" = "Zt1b…"

    ASSETLINE_KEY_TABLES=kJ0m…,Zt1b…      # a variable takes the place of the purpose's table in the file

Belongs here: reading, checking and changing keys. Does not belong here: what is done with a key
(``encryption/``), and the commands (``cli/keys.py``).

No message, representation or log shows a secret. A key has two names, neither of which is secret: its id in the file,
and its fingerprint, which is the start of the SHA-256 of the secret. What is encrypted names the fingerprint, so a key
may move from the file to a variable, where it has no other id.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import difflib
import hashlib
import os
import secrets
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from resources.settings import PREFIX, Settings

Purpose = Literal["pseudonyms", "tables", "personal", "artifacts", "backups"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

LENGTH = 32
"""Bytes of a secret."""

_LOCK_TIMEOUT_S = 30
_HEADER = (
    "# Keys of Assetline. Keep a copy in another place: what they encrypt cannot be read without them.\n"
    "# `assetline keys` changes this file. Only its owner may read it.\n"
)


class KeyProblem(Exception):
    """Keys cannot be used. The message is one sentence with the name and the fix, and no secret."""


class MissingKeyError(KeyProblem):
    """A key that is needed is not there. The message names it and where it was looked for."""


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        id: its name, e.g. ``2026-12-02``; not secret.
        secret: 32 bytes.
    """

    id: str
    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The first 8 hexadecimal digits of the SHA-256 of the secret; not secret."""
        return hashlib.sha256(self.secret).hexdigest()[:8]


class KeyRing:
    """All keys, by purpose, as they were when they were read.

    Args:
        keys: the keys by purpose, the oldest first.
        origins: by purpose, where they are from; for messages.
    """

    def __init__(self, keys: Mapping[Purpose, tuple[Key, ...]], origins: Mapping[Purpose, str]) -> None:
        self._keys, self._origins = dict(keys), dict(origins)

    @classmethod
    def of(cls, settings: Settings) -> KeyRing:
        """Reads the keys. Without a file and variables it is empty.

        Raises:
            KeyProblem: the file cannot be read, others may read it, or a key in it or in a variable is wrong.
        """
        stored = KeyFile(settings.keys).read()
        keys: dict[Purpose, tuple[Key, ...]] = {}
        origins: dict[Purpose, str] = {}
        for purpose in PURPOSES:
            if text := str(getattr(settings, f"key_{purpose}")):
                keys[purpose] = keys_in(variable_of(purpose), text)
                origins[purpose] = variable_of(purpose)
            else:
                keys[purpose] = stored.get(purpose, ())
                origins[purpose] = str(settings.keys)
        return cls(keys, origins)

    def versions(self, purpose: Purpose) -> tuple[Key, ...]:
        """The keys of a purpose, the oldest first; ``()`` if there is none."""
        return self._keys.get(purpose, ())

    def newest(self, purpose: Purpose) -> Key:
        """The key that encrypts now. Raises :class:`MissingKeyError` if the purpose has none."""
        if not self.versions(purpose):
            raise MissingKeyError(
                f"there is no key for {purpose} in {self.origin(purpose)}; `assetline keys create {purpose}` makes one"
            )
        return self.versions(purpose)[-1]

    def key(self, purpose: Purpose, key_id: str) -> Key:
        """The key of an id or a fingerprint. Raises :class:`MissingKeyError` if it is not there."""
        for key in self.versions(purpose):
            if key_id in (key.id, key.fingerprint):
                return key
        there = ", ".join(f"{key.id} ({key.fingerprint})" for key in self.versions(purpose)) or "none"
        raise MissingKeyError(
            f"the key {key_id} for {purpose} is not in {self.origin(purpose)} (there: {there}); put it back from the "
            "copy of your keys"
        )

    def origin(self, purpose: Purpose) -> str:
        """Where the keys of a purpose are from: the path of the file, or the name of a variable."""
        return self._origins.get(purpose, "the keys")

    def __repr__(self) -> str:
        counts = ", ".join(f"{purpose}: {len(keys)}" for purpose, keys in self._keys.items() if keys)
        return f"KeyRing({counts})"


class KeyFile:
    """The file of the keys.

    Args:
        path: its path; the file need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[Purpose, tuple[Key, ...]]:
        """The keys by purpose, the oldest first; empty if there is no file.

        Raises:
            KeyProblem: it cannot be read, others may read it, or something in it is wrong.
        """
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                content = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KeyProblem(f"the key file {self.path} cannot be read ({error.strerror}); correct that") from error
        if mode & 0o077:
            raise KeyProblem(
                f"others than its owner may read the key file {self.path} (mode {mode:04o}); `chmod 600 {self.path}`, "
                "and rotate the keys if somebody may have read it"
            )
        try:
            tables = tomllib.loads(content.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            # The error of the parser may quote a line, and so a secret.
            raise KeyProblem(
                f"the key file {self.path} is not TOML, or holds an id twice; restore it from your copy"
            ) from error
        return dict(_parsed(str(self.path), tables))

    def create(self, purpose: Purpose) -> Key:
        """Adds the first key of a purpose. Raises :class:`KeyProblem` if it has one, or the file is wrong."""
        with self._locked():
            keys = self.read()
            if keys.get(purpose):
                raise KeyProblem(
                    f"{purpose} has a key in {self.path} already; `assetline keys rotate {purpose}` adds a newer one"
                )
            return self._add(keys, purpose)

    def rotate(self, purpose: Purpose) -> Key:
        """Adds a newer key of a purpose; the older ones stay. Raises :class:`KeyProblem` if there is none yet."""
        with self._locked():
            keys = self.read()
            if not keys.get(purpose):
                raise KeyProblem(f"{purpose} has no key in {self.path}; `assetline keys create {purpose}` makes one")
            return self._add(keys, purpose)

    def remove(self, purpose: Purpose, key_id: str) -> Key:
        """Removes an old key, by id or fingerprint, and returns it.

        Raises:
            KeyProblem: there is no such key, or it is the newest one, which encrypts.
        """
        with self._locked():
            keys = self.read()
            old = KeyRing(keys, {purpose: str(self.path)}).key(purpose, key_id)
            if old == keys[purpose][-1]:
                raise KeyProblem(
                    f"{old.id} is the newest key for {purpose}; `assetline keys rotate {purpose}` makes another one"
                )
            self._save({**keys, purpose: tuple(key for key in keys[purpose] if key != old)})
        return old

    def _add(self, keys: dict[Purpose, tuple[Key, ...]], purpose: Purpose) -> Key:
        there = keys.get(purpose, ())
        new = Key(_new_id({key.id for key in there}), secrets.token_bytes(LENGTH))
        self._save({**keys, purpose: (*there, new)})
        return new

    def _save(self, keys: Mapping[Purpose, tuple[Key, ...]]) -> None:
        lines = [_HEADER]
        for purpose, versions in keys.items():
            lines.append(f"\n[{purpose}]\n")
            lines += [f'"{key.id}" = "{base64.b64encode(key.secret).decode()}"\n' for key in versions]
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        scratch.unlink(missing_ok=True)
        with open(scratch, "x", encoding="utf-8", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, self.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                yield
        except OSError as error:  # a lock that is held for too long is one, too
            raise KeyProblem(f"the key file {self.path} cannot be written ({error}); check the folder") from error


def purpose_of(name: str) -> Purpose:
    """The purpose of this name. Raises :class:`KeyProblem` if there is none, with the nearest one."""
    if name in PURPOSES:
        return name
    close = difflib.get_close_matches(name, PURPOSES, n=1, cutoff=0.6)
    mend = f"did you mean {close[0]}?" if close else f"the purposes are {', '.join(PURPOSES)}"
    raise KeyProblem(f"{name!r} is not a purpose of keys ({mend})")


def variable_of(purpose: Purpose) -> str:
    """The environment variable that may hold the keys of a purpose."""
    return f"{PREFIX}KEY_{purpose.upper()}"


def secret_of(where: str, text: str) -> bytes:
    """The 32 bytes of a key in base64.

    Args:
        where: the name of the key, for messages.
        text: the base64.

    Raises:
        KeyProblem: it is no base64, or another number of bytes.
    """
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        # Not chained: the error of a character that is not ASCII holds the text.
        raise KeyProblem(f"{where} is not base64; give {LENGTH} bytes, as `openssl rand -base64 32` prints") from None
    if len(secret) != LENGTH:
        raise KeyProblem(
            f"{where} has {len(secret)} bytes, and {LENGTH} are needed; `openssl rand -base64 32` prints a key"
        )
    return secret


def keys_in(name: str, text: str) -> tuple[Key, ...]:
    """The keys in the value of a variable, the oldest first. Raises :class:`KeyProblem` if one is wrong.

    Args:
        name: name of the variable, for messages.
        text: base64, with commas between several.
    """
    texts = text.split(",")
    parts = [
        secret_of(f"{name}, key {number}" if len(texts) > 1 else name, one) for number, one in enumerate(texts, start=1)
    ]
    return _distinct(name, tuple(Key(hashlib.sha256(secret).hexdigest()[:8], secret) for secret in parts))


def _parsed(where: str, tables: Mapping[str, Any]) -> Iterator[tuple[Purpose, tuple[Key, ...]]]:
    for name, stored in tables.items():
        try:
            purpose = purpose_of(name)
        except KeyProblem as error:
            raise KeyProblem(f"the key file {where}: {error}") from error
        if not isinstance(stored, dict) or not all(isinstance(text, str) for text in stored.values()):
            raise KeyProblem(f'the key file {where}: [{name}] is not a table of lines like "2026-12-02" = "base64"')
        keys = tuple(
            Key(key_id, secret_of(f"the key {key_id} of [{name}] in {where}", text)) for key_id, text in stored.items()
        )
        yield purpose, _distinct(f"[{name}] in {where}", keys)


def _distinct(where: str, keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """The keys; raises :class:`KeyProblem` if one id or secret is there twice."""
    for at, key in enumerate(keys):
        if any(key.secret == other.secret or key.id == other.id for other in keys[:at]):
            raise KeyProblem(f"{where} holds the key {key.id} twice; remove one of the two")
    return keys


def _new_id(there: set[str]) -> str:
    today = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    return next(name for n in range(1, len(there) + 2) if (name := today if n == 1 else f"{today}.{n}") not in there)
