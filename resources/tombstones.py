"""Tombstones: who was forgotten, so that a landing does not bring their rows back.

Belongs here: the file ``forgotten.json`` beside the tables, and the digests in it. Does not belong here: finding and
removing rows (``assets/lifecycle/erasure``), leaving rows out of a landing (``assets/lifecycle/data/forgotten.py``).

A tombstone holds no plain value. It holds a keyed digest of the person's value, and one of each key of their rows, so
that labels, which land with a key alone, are recognised too. The key of the digests is random and lies in the same
file. So the file does not show who was forgotten, but who can read it can try values: it is a pseudonym, no more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import secrets
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from resources.table_files import TableFiles

FILE = "forgotten.json"
"""Name of the file below the root of the tables."""
_LENGTH = 32


class TombstoneError(Exception):
    """The tombstones cannot be read. The message gives the file and the fix."""


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """One person who was forgotten.

    Attributes:
        column: the column that named the person.
        digest: of their value in it.
        keys: by cleaned table (``fraud/payments``), the digests of the keys of their rows.
        at: when the removal began (ISO 8601, UTC).
        until: their rows of landings up to this ISO day are left out; of a whole table always.
        who: the user who asked for it.
        state: ``removing`` until a search has found nothing any more, then ``done``.
        trained: the versions that were trained on days with their rows, as :class:`dict` for JSON.
        backups: archives that hold files with their rows, as :class:`dict` for JSON.
    """

    column: str
    digest: str
    keys: Mapping[str, Collection[str]]
    at: str
    until: str
    who: str
    state: Literal["removing", "done"] = "removing"
    trained: tuple[Mapping[str, Any], ...] = ()
    backups: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """A short name for people and the audit log."""
        return self.digest[:12]

    def holds(self, day: str, whole: str) -> bool:
        """Whether rows of a landing are left out: of a whole table always, of a stream until the last day."""
        return day == whole or day <= self.until


@dataclass(frozen=True)
class Tombstones:
    """All tombstones of one root of tables.

    Attributes:
        salt: key of the digests, in hex.
        people: the tombstones, the oldest first.
    """

    salt: str
    people: tuple[Tombstone, ...] = field(default=())

    @classmethod
    def read(cls, files: TableFiles) -> Self:
        """Reads the tombstones; without the file there are none, and the key is a new one.

        Raises:
            TombstoneError: the file is damaged. Nothing may land then, since it could bring people back.
            TableError: the store cannot be reached.
        """
        try:
            stored = json.loads(files.read(FILE))
            people = tuple(
                Tombstone(**{**one, "trained": tuple(one["trained"]), "backups": tuple(one["backups"]),
                             "keys": {table: frozenset(keys) for table, keys in one["keys"].items()}})
                for one in stored["people"]
            )  # fmt: skip
            return cls(stored["salt"], people)
        except FileNotFoundError:
            return cls(secrets.token_hex(32))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TombstoneError(
                f"{FILE} beside the tables is damaged ({type(error).__name__}); restore it from a backup: "
                "without it, a landing could bring back people who were forgotten"
            ) from error

    def write(self, files: TableFiles) -> None:
        """Replaces the file whole or not at all."""
        people = [
            {**asdict(one), "keys": {t: sorted(keys) for t, keys in sorted(one.keys.items())}} for one in self.people
        ]
        files.replace(FILE, json.dumps({"salt": self.salt, "people": people}, indent=1).encode())

    def digest(self, text: str) -> str:
        """The digest of a value, given as :func:`canonical` text."""
        return hmac.new(bytes.fromhex(self.salt), text.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    def of(self, column: str, text: str) -> Tombstone | None:
        """The tombstone of a value; ``None`` if there is none."""
        digest = self.digest(text)
        return next((one for one in self.people if one.column == column and one.digest == digest), None)

    def having(self, tombstone: Tombstone) -> Tombstones:
        """These tombstones, with one added or replaced."""
        others = [one for one in self.people if (one.column, one.digest) != (tombstone.column, tombstone.digest)]
        return replace(self, people=(*others, tombstone))

    @property
    def finished(self) -> frozenset[str]:
        """Names of removals that are complete, each with its time: one that was repeated counts as another one."""
        return frozenset(f"{one.name} {one.at}" for one in self.people if one.state == "done")


def canonical(value: Any) -> str | None:
    """A value as the text that is compared: ``42``, ``42.0`` and ``" 42 "`` are the same; ``None`` if it is missing."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value).strip()
        whole, _, rest = text.partition(".")
        is_whole = whole.removeprefix("-").isdecimal() and not rest.strip("0")
        return (whole if is_whole else text) or None
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value)


def among(values: pd.Series, wanted: Collection[str]) -> np.ndarray:
    """Whether each value is one of some :func:`canonical` texts, boolean ``[n]``."""
    codes, unique = pd.factorize(values)
    if not len(unique):
        return np.zeros(len(values), dtype=bool)
    hits = np.array([canonical(one) in wanted for one in unique])
    return np.where(codes >= 0, hits[codes], False)


def digested_among(values: pd.Series, wanted: Collection[str], tombstones: Tombstones) -> np.ndarray:
    """Whether the digest of each value is one of ``wanted``, boolean ``[n]``."""
    codes, unique = pd.factorize(values)
    if not len(unique) or not wanted:
        return np.zeros(len(values), dtype=bool)
    texts = [canonical(one) for one in unique]
    hits = np.array([text is not None and tombstones.digest(text) in wanted for text in texts])
    return np.where(codes >= 0, hits[codes], False)
