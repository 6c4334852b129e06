"""Compares the columns of a landing with those of the landing before, so that an upstream change is named at once.

Belongs here: dropped, renamed, new and retyped columns. Does not belong here: values that the contract refuses
(``cleaning.py``), changed distributions (``monitoring/``).

Rows land as text, so a column's kind is what its values look like: numbers or other text. Only a clear change counts: a
column that held numbers and now holds almost none, or the other way round. Everything between is left to the contract.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

LOOKED_AT = 200
"""Number of first rows of each landing whose values are looked at."""
FEWEST = 20
"""Minimum number of filled values in both landings for a statement about a column's kind."""
CLEAR = 0.95
"""Minimum share of numbers in a column of numbers, and of other text in a column of text."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
SIMILAR = 0.6
"""Minimum similarity of two names, 0 to 1, for one to be offered as the new name of the other."""


@dataclass(frozen=True)
class SchemaChange:
    """One change of a column between two landings; ``refused`` says whether it may spoil the tables made from it."""

    column: str
    message: str
    refused: bool


@dataclass(frozen=True)
class LandedColumn:
    """A column of a landing: ``numbers``, ``text``, or ``None`` where its kind is not clear; and one of its values."""

    kind: str | None
    example: str


LandedSchema = Mapping[str, LandedColumn]
"""The columns of a landing by name."""


def schema_of(rows: pd.DataFrame) -> LandedSchema:
    """The columns of a landing; the first :data:`LOOKED_AT` rows are enough."""
    return {str(name): _column(values) for name, values in rows.head(LOOKED_AT).items()}


def changes_of_schema(before: LandedSchema, now: LandedSchema, *, may_quote: bool = True) -> list[SchemaChange]:
    """Changes from one landing to the next, refused ones first.

    ``may_quote``: whether a message may give a value as an example. Columns that were swapped upstream show values of
    a tagged column under another name.
    """
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    changes = [SchemaChange(name, _gone(name, new), refused=True) for name in gone]
    for name, column in now.items():
        if name in before and before[name].kind and column.kind and before[name].kind != column.kind:
            example = f", for example '{column.example}'" if may_quote else ""
            message = f"the column '{name}' held {before[name].kind} and now holds {column.kind}{example}"
            changes.append(SchemaChange(name, message, refused=True))
    changes += [SchemaChange(name, f"the column '{name}' is new", refused=False) for name in new]
    return changes


def told(changes: Sequence[SchemaChange]) -> str:
    """The changes in a sentence each, and what to do about refused ones."""
    if not changes:
        return "the same columns with values of the same kind"
    message = "; ".join(change.message for change in changes)
    if not any(change.refused for change in changes):
        return f"{message}; the contract does not know it yet"
    return (
        f"{message}. Ask the owner of the source. If the change is meant to stay, adapt `clean` and the contract, and "
        "land the day again with accept_schema: true in the launchpad"
    )


def _gone(name: str, new: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name, new, n=1, cutoff=SIMILAR)
    if similar:
        return f"the source has no column '{name}' any more; is it '{similar[0]}' now?"
    return f"the source has no column '{name}' any more"


def _column(values: pd.Series) -> LandedColumn:
    texts = [str(value).strip() for value in values[values.notna()].tolist()]
    filled = [text for text in texts if text]
    example = filled[0][:40] if filled else ""
    if len(filled) < FEWEST:
        return LandedColumn(None, example)
    numbers = sum(_NUMBER.fullmatch(text) is not None for text in filled) / len(filled)
    kind = "numbers" if numbers >= CLEAR else "text" if numbers <= 1 - CLEAR else None
    return LandedColumn(kind, example)
