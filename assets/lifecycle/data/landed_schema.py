"""Compares the columns of a landing with those of the landing before, so that an upstream change is named at once.

Belongs here: dropped, renamed, new and retyped columns. Does not belong here: values that the contract refuses
(``cleaning.py``), changed distributions (``monitoring/``).

Rows land as text, so a column's kind is what its values look like: numbers or other text. Only a clear change counts: a
column that held numbers and now holds almost none, or the other way round. Everything between is left to the contract.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

LOOKED_AT = 1_000
"""Number of rows of each landing whose values are looked at."""
FEWEST = 20
"""Minimum number of filled values in both landings for a statement about a column's kind."""
CLEAR = 0.95
"""Minimum share of numbers in a column of numbers, and of other text in a column of text."""
SIMILAR = 0.6
"""Minimum similarity of two names, 0 to 1, for one to be offered as the new name of the other."""


@dataclass(frozen=True)
class SchemaChange:
    """One change of a column between two landings; ``refused`` says whether it may spoil the tables made from it."""

    column: str
    message: str
    refused: bool


def changes_of_schema(before: pd.DataFrame, rows: pd.DataFrame) -> list[SchemaChange]:
    """Changes from one landing to the next, refused ones first.

    Args:
        before: rows of the landing before, text columns; the first :data:`LOOKED_AT` are enough.
        rows: rows that land now.
    """
    gone = [str(name) for name in before if name not in rows]
    new = [str(name) for name in rows if name not in before]
    changes = [SchemaChange(name, _gone(name, new), refused=True) for name in gone]
    for name in rows:
        if name in before and (was := _kind(before[name])) and (now := _kind(rows[name])) and was != now:
            example = str(rows[name].dropna().iloc[0])[:40]
            message = f"the column '{name}' held {was} and now holds {now}, for example '{example}'"
            changes.append(SchemaChange(str(name), message, refused=True))
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


def _kind(values: pd.Series) -> str | None:
    """``numbers`` or ``text``; ``None`` where that is not clear."""
    filled = values.head(LOOKED_AT).astype("string").str.strip()
    filled = filled[filled.notna() & (filled != "")]
    if len(filled) < FEWEST:
        return None
    numbers = float(pd.to_numeric(filled, errors="coerce").notna().mean())
    if numbers >= CLEAR:
        return "numbers"
    return "text" if numbers <= 1 - CLEAR else None
