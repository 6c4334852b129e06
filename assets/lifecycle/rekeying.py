"""Gives all stored pseudonyms a newer key, without the values that they stand for.

Belongs here: which stored values are pseudonyms, rewriting the tables and the log of requests, going on after a kill.
Does not belong here: making pseudonyms (``assets/protections.py``), the record of the keys in force
(``resources/pseudonyms.py``), the command (``cli/rekey.py``).

While it lasts, the record says so: landings and the scoring service refuse rows with pseudonyms. Each rewritten day of
a table has an entry in a journal beside the tables, with its data versions before and after, which is written first. So
a run that was killed is finished by the next one, and no pseudonym gets the key twice. At the end, the stamps of all
tables name the new data versions of what they were made from, so nothing becomes stale.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.sent_values import as_text
from assets.personal import made_of, raw_tags_of
from assets.protections import form_of, pseudonym, whole_pseudonym
from resources.keys import Key, KeyProblem, KeyRing
from resources.pseudonyms import InForce, in_force, keys_of, record
from resources.request_log import RequestLog
from resources.table_files import files_of
from resources.tables import Inputs, ParquetTables, encode

_TEXT = re.compile(r"(?<![0-9A-Za-z])p_[0-9a-f]{32}(?![0-9A-Za-z])")
_WHOLE = re.compile(r"\d{1,16}")
_ROW = "row_"
"""Prefix of the columns of a request's row in the table ``requests``."""
_JOURNAL = "pseudonym-keys"
"""Folder of the journals, below the root of the tables."""

Versions = dict[str, tuple[str, str]]
"""Data version before and after, by day."""


@dataclass(frozen=True)
class Rekeyed:
    """What was done: fingerprints of the keys that were added, and how many days of tables and lines were rewritten."""

    added: tuple[str, ...]
    files: int = 0
    lines: int = 0


def rekey(
    models: Sequence[Model], tables: ParquetTables, log: RequestLog, ring: KeyRing, say: Callable[[str], None] = print
) -> Rekeyed:
    """Gives all stored pseudonyms the keys that are newer than those in force, and puts these in force.

    Nothing may land or be scored meanwhile; see the module.

    Args:
        models: the declared models; they say which columns hold pseudonyms that are whole numbers.
        tables: the tables.
        log: the log of requests.
        ring: the keys.
        say: called with one line for each table and log.

    Raises:
        KeyProblem: a key in force is lost, or the keys are in another order than before. Nothing was changed.
    """
    state = in_force(tables.root)
    if state is None:
        return Rekeyed(())
    keys_of(ring, state.keys)
    there = tuple(key.fingerprint for key in ring.versions("pseudonyms"))
    goal = state.becoming or there
    if goal[: len(state.keys)] != state.keys:
        raise KeyProblem(
            f"the keys for pseudonyms in {ring.origin('pseudonyms')} ({', '.join(there)}) do not begin with those in "
            f"force ({', '.join(state.keys)}); put them back in this order, and a new key at the end"
        )
    added = keys_of(ring, goal[len(state.keys) :])
    if not added:
        return Rekeyed(())
    if not state.becoming:
        record(tables.root, replace(state, becoming=goal))
    secrets = [key.secret for key in added]
    changed: dict[str, Versions] = {}
    files = 0
    for name in tables.names():
        changed[name] = _rekey_table(tables, name, _whole_columns(models, name), secrets, goal)
        files += len(changed[name])
        if changed[name]:
            unknown = "" if _declared(models, name) else "; no declared model has it, so only text was looked at"
            say(f"{name}: {len(changed[name])} days{unknown}")
    for name in tables.names():
        _follow_inputs(tables, name, changed)
    lines = sum(_rekey_log(log, name, models, added) for name in log.models())
    if lines:
        say(f"log of requests: {lines:,} lines")
    record(tables.root, InForce(goal))
    for name in changed:
        files_of(tables.root).remove(_journal(name))
    return Rekeyed(tuple(key.fingerprint for key in added), files, lines)


# -- tables -----------------------------------------------------------------------------------------------------------


def _rekey_table(
    tables: ParquetTables, name: str, whole: frozenset[str], secrets: Sequence[bytes], goal: Sequence[str]
) -> Versions:
    """Rewrites the days of a table that hold pseudonyms; those that an earlier run has rewritten are left alone."""
    key, store = dg.AssetKey(name.split("/")), files_of(tables.root)
    done: Versions = {}
    with contextlib.suppress(FileNotFoundError):
        journal = json.loads(store.read(_journal(name)))
        if journal["goal"] == list(goal):  # a run that was killed at its very end leaves its journals
            done = {day: (old, new) for day, (old, new) in journal["days"].items()}
    for day, stamp in tables.stamps(key).items():
        if day in done and stamp.data_version != done[day][0]:
            if stamp.data_version != done[day][1]:
                raise KeyProblem(f"{name} of {day} was written while its pseudonyms got a newer key; restore a backup")
            continue
        rows = _rows(tables, key, day)
        changed = _with_key(rows, whole, secrets)
        if changed is None:
            continue
        _, new = encode(changed, code_version=stamp.code_version, inputs=stamp.inputs)
        done[day] = (stamp.data_version, new.data_version)
        store.replace(_journal(name), json.dumps({"goal": goal, "days": done}).encode())
        personal = tables.personal_columns(key, day)
        tables.write(key, changed, day, code_version=stamp.code_version, inputs=stamp.inputs, personal=personal)
    return done


def _follow_inputs(tables: ParquetTables, name: str, changed: Mapping[str, Versions]) -> None:
    """Puts the new data versions of its inputs into the stamps of a table, whose rows stay as they are."""
    key = dg.AssetKey(name.split("/"))
    for day, stamp in tables.stamps(key).items():
        inputs: Inputs = {
            upstream: {d: _now(changed.get(upstream, {}), d, version) for d, version in versions.items()}
            for upstream, versions in stamp.inputs.items()
        }
        if inputs != stamp.inputs:
            tables.write(
                key, _rows(tables, key, day), day, code_version=stamp.code_version, inputs=inputs,
                personal=tables.personal_columns(key, day),
            )  # fmt: skip


def _now(versions: Versions, day: str, version: str) -> str:
    return versions[day][1] if day in versions and versions[day][0] == version else version


def _rows(tables: ParquetTables, key: dg.AssetKey, day: str) -> pd.DataFrame:
    """The rows of a day with exactly the types of the file, so that rows that stay have the same data version."""
    return tables.arrow(key, [day])[0].to_pandas(types_mapper=pd.ArrowDtype)


def _with_key(rows: pd.DataFrame, whole: frozenset[str], secrets: Sequence[bytes]) -> pd.DataFrame | None:
    """The rows with newer pseudonyms; ``None`` if there are none in them."""
    changed: dict[str, pd.Series] = {}
    for name, values in rows.items():
        is_whole = str(name).removeprefix(_ROW) in whole
        found = {value: new for value in values.dropna().unique() if (new := _newer(value, is_whole, secrets)) != value}
        if found:
            changed[str(name)] = values.map(
                lambda value, found=found: found.get(value, value), na_action="ignore"
            ).astype(values.dtype)
    return rows.assign(**changed) if changed else None


def _newer(value: Any, is_whole: bool, secrets: Sequence[bytes]) -> Any:
    """A value with newer pseudonyms in place of those in it, in the same type."""
    if isinstance(value, str):
        if is_whole and _WHOLE.fullmatch(value):
            return whole_pseudonym(value, secrets)
        return _TEXT.sub(lambda one: pseudonym(one[0], secrets), value)
    if is_whole and not isinstance(value, bool) and isinstance(value, int | float):
        return type(value)(whole_pseudonym(str(as_text(value)), secrets))
    return value


def _whole_columns(models: Sequence[Model], table: str) -> frozenset[str]:
    """The columns of a table whose pseudonyms are whole numbers, by their raw names and those of the contract."""
    return frozenset(name for model in _declared(models, table) for name in _whole(model))


def _declared(models: Sequence[Model], table: str) -> list[Model]:
    return [model for model in models if table.partition("/")[0] in (model.name, model.lander)]


def _whole(model: Model) -> Iterator[str]:
    columns = model.table.contract.to_schema().columns
    for raw, tag in raw_tags_of(model).items():
        column = made_of(model, raw)
        if tag.protect == "pseudonym" and column and form_of(str(columns[column].dtype)) in ("whole", "number"):
            yield from {raw, column}


def _journal(name: str) -> str:
    return f"{_JOURNAL}/{name.replace('/', '.')}.json"


# -- the log of requests ----------------------------------------------------------------------------------------------


def _rekey_log(log: RequestLog, name: str, models: Sequence[Model], added: Sequence[Key]) -> int:
    """Rewrites the lines of a model; each names the newest key that it has, so none gets one twice."""
    model = next((one for one in models if one.name == name), None)
    whole = frozenset(_whole(model)) if model else frozenset()
    keys = {"key": model.table.key, "entity": model.entity} if model else {}
    secrets, mark = [key.secret for key in added], added[-1].fingerprint

    def newer(line: dict[str, Any]) -> dict[str, Any] | None:
        if line.get("rekeyed") == mark:
            return None
        changed = dict(line)
        if isinstance(line.get("row"), dict):
            changed["row"] = {c: _newer(value, c in whole, secrets) for c, value in line["row"].items()}
        for field, column in keys.items():
            changed[field] = _newer(line.get(field), column in whole, secrets)
        changed["problem"] = _newer(line.get("problem", ""), False, secrets)
        if not changed["problem"]:
            del changed["problem"]
        return None if changed == line else {**changed, "rekeyed": mark}

    return sum(log.rewrite(name, day, newer) for day in log.days(name))
