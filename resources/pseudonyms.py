"""Which keys the stored pseudonyms were made with.

A pseudonym is that of the newest key on the pseudonym by the older ones. A newer key in the key file changes nothing by
itself: the keys in force are written down beside the tables, and only ``assetline rekey`` changes them, once it has
given all stored pseudonyms the newer key. So rows of before and after can never have different pseudonyms.

Belongs here: the record of the keys in force, and refusing others. Does not belong here: the keys (``keys.py``), making
pseudonyms (``assets/protections.py``), changing stored ones (``assets/lifecycle/rekeying.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from resources.keys import Key, KeyProblem, KeyRing, MissingKeyError
from resources.settings import Settings
from resources.table_files import files_of

RECORD = "pseudonym-keys.json"
"""Name of the record, below the root of the tables."""


@dataclass(frozen=True)
class InForce:
    """The record.

    Attributes:
        keys: fingerprints of the keys that stored pseudonyms were made with, the oldest first.
        becoming: those of a change that is under way; empty if there is none.
    """

    keys: tuple[str, ...]
    becoming: tuple[str, ...] = ()


def in_force(root: str) -> InForce | None:
    """The record beside the tables; ``None`` if no row with a pseudonym was ever stored here.

    Raises:
        KeyProblem: the record is damaged.
    """
    try:
        stored = json.loads(files_of(root).read(RECORD))
        return InForce(tuple(stored["keys"]), tuple(stored["becoming"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise KeyProblem(f"{root}/{RECORD} is damaged; restore it from the latest backup") from error


def record(root: str, state: InForce) -> None:
    """Replaces the record whole or not at all."""
    files_of(root).replace(RECORD, json.dumps(vars(state), indent=1).encode())


def pseudonym_keys(settings: Settings, *, writes: bool = False) -> tuple[Key, ...]:
    """The keys that make pseudonyms now, the oldest first.

    Without a record, these are all keys of the ring; the first landing writes it.

    Args:
        settings: the settings.
        writes: whether rows are about to be stored in the tables.

    Raises:
        KeyProblem: there is no key, one that is in force is lost, or a change of keys is not finished.
    """
    ring = KeyRing.of(settings)
    state = in_force(settings.tables)
    if state is None:
        ring.newest("pseudonyms")  # says how to make a key if there is none
        keys = ring.versions("pseudonyms")
        if writes:
            record(settings.tables, InForce(tuple(key.fingerprint for key in keys)))
        return keys
    if state.becoming:
        raise KeyProblem(
            "the stored pseudonyms are getting a newer key, and that is not finished; run `assetline rekey` to its end"
        )
    return keys_of(ring, state.keys)


def keys_of(ring: KeyRing, fingerprints: Sequence[str]) -> tuple[Key, ...]:
    """The keys of these fingerprints. Raises :class:`MissingKeyError` if one is lost."""
    try:
        return tuple(ring.key("pseudonyms", fingerprint) for fingerprint in fingerprints)
    except MissingKeyError as error:
        raise MissingKeyError(
            f"{error}. Without it, rows of a known person would get another pseudonym, so none is made"
        ) from error
