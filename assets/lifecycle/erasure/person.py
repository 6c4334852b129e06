"""A person as the stores know them: a value of a column, the keys of their rows, and what both look like in text.

Belongs here: recognising. Does not belong here: reading and writing the stores (``stored.py``, ``elsewhere.py``).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from assets.declaration import Model
from assets.lifecycle.data.protection import pseudonym_of
from assets.personal import tags_of
from resources.pseudonyms import pseudonym_keys
from resources.settings import Settings
from resources.tombstones import Tombstones, canonical

ROW = "row_"
"""Prefix of the contract's columns in the table ``requests``."""
LEAST_LENGTH, LEAST_DIGITS = 6, 9
"""Fewest characters of a value, and of a number, that is looked for without the name of its column beside it."""


def stored_value(model: Model, column: str, value: str, settings: Settings) -> str:
    """The value under which the stores know a person, as canonical text; of a tagged column its pseudonym.

    Raises:
        KeyProblem: the key of the pseudonyms is missing.
    """
    tag = tags_of(model).get(column)
    if tag is None or not tag.protects:
        return canonical(value) or ""
    return canonical(pseudonym_of(model, column, value.strip(), pseudonym_keys(settings))) or ""


@dataclass(frozen=True)
class Person:
    """Somebody who is to be forgotten.

    Attributes:
        column: the column that names them.
        value: their value, as canonical text.
        keys: by cleaned table (``fraud/payments``), the keys of their rows, as canonical text.
        key_columns: by cleaned table, the column of its key.
        tombstones: the digests, by which a second run knows keys whose rows are gone already.
        digests: by cleaned table, the digests of keys that an earlier run found.
        excerpts: their questions, as an example of unknown intents shows them.
    """

    column: str
    value: str
    tombstones: Tombstones
    keys: Mapping[str, Collection[str]] = field(default_factory=dict)
    key_columns: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, Collection[str]] = field(default_factory=dict)
    excerpts: frozenset[str] = frozenset()

    def has_key(self, table: str, text: str | None) -> bool:
        """Whether a key, as canonical text, is one of theirs in a cleaned table."""
        if text is None:
            return False
        digests = self.digests.get(table, ())
        return text in self.keys.get(table, ()) or (bool(digests) and self.tombstones.digest(text) in digests)

    @cached_property
    def traces(self) -> Traces:
        """What they look like in text."""
        keys = frozenset(text.encode() for of_table in self.keys.values() for text in of_table)
        digests = frozenset(digest for of_table in self.digests.values() for digest in of_table)
        known: dict[bytes, bool] = {}

        def is_key(word: bytes) -> bool:
            if word in keys or not digests:
                return word in keys
            if word not in known:
                known[word] = self.tombstones.digest(word.decode("ascii", "replace")) in digests
            return known[word]

        return Traces(self.column, self.value, is_key, frozenset(self.key_columns.values()), self.excerpts)


@dataclass(frozen=True)
class Traces:
    """What a person looks like in text.

    A short value such as ``42`` stands in every file for something else. So it counts only beside the name of its
    column (``customer_id=42``, ``"customer_id": 42``), and the same holds for short keys. Longer ones count anywhere:
    from 6 characters on, and numbers from 9 digits on.

    Attributes:
        column: the column that names the person.
        value: their value.
        is_key: whether a word is the key of one of their rows.
        key_columns: names of the columns of keys.
        excerpts: their questions as examples. They count only in the message of a check that quotes examples, because
            others may have written the same words.
    """

    column: str
    value: str
    is_key: Callable[[bytes], bool]
    key_columns: frozenset[str]
    excerpts: frozenset[str] = frozenset()

    def spans(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Where they are in the bytes of a text: begin and end of each value."""
        for found in self._named.finditer(content):
            if found[1] is not None:
                yield found.span(1)
            elif self.is_key(found[2]):
                yield found.span(2)
        if self._example is not None:
            yield from (found.span(1) for found in self._example.finditer(content))
        if self._long is not None:
            yield from (found.span() for found in self._long.finditer(content))
        yield from (found.span() for found in _WORD.finditer(content) if _is_long(found[0]) and self.is_key(found[0]))

    def masked(self, content: bytes) -> bytes:
        """The text with ``*`` for each character of theirs; its length stays."""
        changed = bytearray(content)
        for begin, end in self.spans(content):
            changed[begin:end] = b"*" * (end - begin)
        return bytes(changed)

    def is_in(self, content: bytes) -> bool:
        """Whether they are in the bytes of a text."""
        return next(self.spans(content), None) is not None

    @cached_property
    def _named(self) -> re.Pattern[bytes]:
        names = "|".join(re.escape(f"{prefix}{self.column}") for prefix in ("", ROW))
        keys = "|".join(re.escape(f"{prefix}{name}") for name in sorted(self.key_columns) for prefix in ("", ROW))
        between = r"""\\?["']?\s{0,3}[=:]\s{0,3}\\?["']?"""
        return re.compile(
            rf"(?:\b(?:{names}){between}({re.escape(self.value)})(?![\w]))"
            rf"|(?:\b(?:{keys or 'row_key'}){between}([\w-]+)(?!\w))".encode()
        )

    @cached_property
    def _example(self) -> re.Pattern[bytes] | None:
        """An excerpt between the marks of a message with examples, also where the message is part of JSON or HTML."""
        if not self.excerpts:
            return None
        written = {
            form for one in self.excerpts
            for form in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], html.escape(one))
        }  # fmt: skip
        any_of_them = b"|".join(re.escape(one.encode()) for one in sorted(written, key=len, reverse=True))
        return re.compile(rb"(?:e\.g\.: | \| )(" + any_of_them + rb")(?= \| |; )")

    @cached_property
    def _long(self) -> re.Pattern[bytes] | None:
        if not _is_long(self.value.encode()):
            return None
        return re.compile(rf"(?<!\w){re.escape(self.value)}(?!\w)".encode())


def _is_long(word: bytes) -> bool:
    return len(word) >= (LEAST_DIGITS if word.isdigit() else LEAST_LENGTH)


_WORD = re.compile(rb"(?<![\w.-])[\w-]{%d,64}(?![\w-])" % LEAST_LENGTH)
