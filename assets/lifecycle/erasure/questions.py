"""A person's questions in what is kept of questions without their keys: examples, messages of checks, vectors.

Belongs here: finding and removing them in the tables ``unknown_intents`` and ``answering``, and in alerts. Does not
belong here: the rows of questions (``stored.py``), messages in Dagster's events and in files (``elsewhere.py``).

An example is a redacted text, so it is recognised by the texts of the person's rows. All of this goes before the rows
do. So a removal that was killed can still recognise what it has not reached yet.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Sequence

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.declaration import Model
from assets.lifecycle.erasure.person import Person
from assets.lifecycle.erasure.stored import Scope, days_with, old_rows
from assets.lifecycle.monitoring.unknown_intents import excerpt_of
from assets.lifecycle.retrieval.knowledge import as_text, vectors_in
from resources.alerts.store import AlertStore
from resources.tables import ParquetTables, TableError
from resources.tombstones import canonical

Cleared = tuple[pa.Table, int]
"""Rows without what is the person's, and how much of theirs was in them."""


def excerpts_of(tables: ParquetTables, scope: Scope, person: Person) -> frozenset[str]:
    """The person's questions as an example of unknown intents shows them.

    Args:
        tables: the tables.
        scope: the models.
        person: the person, with their keys.
    """
    found: set[str] = set()
    for model in scope.models:
        if model.answers is None or model.answers.unknown is None:
            continue
        name, text = scope.cleaned(model), model.answers.column(model)
        key = dg.AssetKey(name.split("/"))
        for day, _ in days_with(tables, name, scope, person):
            try:
                rows = tables.read(key, [day], [model.table.key, text])
            except TableError:  # rows of an older declaration
                continue
            mine = [person.has_key(name, canonical(one)) for one in rows[model.table.key]]
            found |= {excerpt_of(one) for one in rows.loc[mine, text].dropna().astype(str)}
    return frozenset(found)


def questions_with(tables: ParquetTables, scope: Scope, person: Person, *, remove: bool) -> dict[str, int]:
    """Number of the person's examples and vectors by table; or removes them. Earlier versions that have them go."""
    found: dict[str, int] = {}
    plain = getattr(tables.files, "plain", tables.files)
    for model in scope.models:
        if model.answers is None:
            continue
        for asset, cleared in _CLEARED.items():
            key, gone = model.key(asset), 0
            for day in tables.days(key):
                changed, theirs = cleared(tables.arrow(key, [day])[0], model, scope, person)
                gone += theirs
                if theirs and remove:
                    tables.replace_rows(key, day, changed)
            for file, rows in old_rows(tables, posixpath.join(*key.path)):
                theirs = cleared(rows, model, scope, person)[1]
                gone += theirs
                if theirs and remove:
                    plain.remove(file)
            if gone:
                found[key.to_user_string()] = gone
    return found


def _without_examples(rows: pa.Table, model: Model, scope: Scope, person: Person) -> Cleared:
    told = [json.loads(text or "[]") for text in rows["examples"].to_pylist()]
    kept = [[one for one in of_day if one not in person.excerpts] for of_day in told]
    texts = [json.dumps(of_day, ensure_ascii=False) for of_day in kept]
    return _with(rows, examples=texts), sum(map(len, told)) - sum(map(len, kept))


def _without_vectors(rows: pa.Table, model: Model, scope: Scope, person: Person) -> Cleared:
    """The thresholds of versions without the vectors of the person's questions.

    A row that does not say whose vectors it holds is of an earlier release: it loses all of them. The watch then says
    that the version has no thresholds, until ``answering`` is made again.
    """
    table = scope.cleaned(model)
    counts = rows["known_rows"].to_pylist()
    of_rows = rows["known_keys"].to_pylist() if "known_keys" in rows.column_names else [None] * len(counts)
    known, left, keys_left, gone = [], [], [], 0
    for text, count, keys in zip(rows["known"].to_pylist(), counts, of_rows, strict=True):
        named = json.loads(keys) if keys else [None] * count
        unsaid = bool(person.keys.get(table) or person.digests.get(table))
        kept = np.array([not unsaid if one is None else not person.has_key(table, one) for one in named], dtype=bool)
        known.append(as_text(vectors_in(text, count)[kept]) if count else text)
        left.append(int(kept.sum()))
        keys_left.append(json.dumps([one for one, stays in zip(named, kept, strict=True) if stays]) if keys else keys)
        gone += count - left[-1]
    changed = _with(rows, known=known, known_rows=left)
    return (_with(changed, known_keys=keys_left) if "known_keys" in rows.column_names else changed), gone


_CLEARED: dict[str, Callable[[pa.Table, Model, Scope, Person], Cleared]] = {
    "unknown_intents": _without_examples,
    "answering": _without_vectors,
}


def _with(rows: pa.Table, **columns: Sequence[object]) -> pa.Table:
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, pa.array(values, type=rows.schema.field(at).type))
    return rows


def alerts_with(store: AlertStore, person: Person, *, remove: bool) -> int:
    """Number of texts of alerts with a value or an example of the person; or overwrites these with ``*``."""

    def without(text: str) -> str:
        return person.traces.masked(text.encode()).decode()

    return store.rewrite(without, write=remove)
