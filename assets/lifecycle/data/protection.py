"""Protects the tagged columns of raw rows: of a landing before anything is written, and of a request before it is kept.

Belongs here: one pure function over rows, for both places, and the errors that must not quote a value. Does not belong
here: what is done to one value (``assets/protections.py``), tags (``assets/personal.py``), keys
(``resources/pseudonyms.py``).

Everything after this function has protected values only: checks, quarantine, logs, samples, features, versions,
reports and alerts. So no other place has to know which column is tagged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.sent_values import Raw, as_text
from assets.personal import made_of, not_landed, raw_tags_of, tags_of
from assets.protections import Form, Function, form_of, protection
from resources.keys import Key

WITHHELD = (
    "its message is withheld, because it may quote a personal value: the table has tagged columns. Look at the rows in "
    "the source itself"
)


class ProtectionError(Exception):
    """Rows cannot be protected, so they are not used. The message names the column and the fix, and no value."""


def needs_key(model: Model) -> bool:
    """Whether a model's rows need a key of pseudonyms."""
    return any(tag.protect == "pseudonym" for tag in raw_tags_of(model).values())


def tags_digest(model: Model) -> str:
    """A short text that differs where other columns are protected, or otherwise; empty without tags."""
    tags = raw_tags_of(model)
    if not any(tag.protects for tag in tags.values()):
        return ""
    text = json.dumps({name: vars(tag) for name, tag in sorted(tags.items())}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


class Protection:
    """The protection of one model's raw rows. Pure: equal rows and keys give equal rows.

    Args:
        model: the declaration.
        keys: the keys of pseudonyms that are in force, the oldest first; empty if the model needs none.
    """

    def __init__(self, model: Model, keys: Sequence[Key]) -> None:
        self._model, self._keys = model, keys
        secrets = [key.secret for key in keys]
        self._functions: dict[str, Function] = {
            name: protection(tag, _form(model, name), secrets)
            for name, tag in raw_tags_of(model).items()
            if tag.protects
        }

    def frame(self, rows: pd.DataFrame, *, complete: bool = True) -> pd.DataFrame:
        """Protects landed rows.

        Args:
            rows: text columns, ``[n]`` each.
            complete: whether each tagged column must be there; labels have some of them only.

        Returns:
            The same rows and columns; values of tagged columns are protected, and missing ones stay missing.

        Raises:
            ProtectionError: a tagged column is absent, and may have landed under another name.
        """
        if complete and len(rows) and (name := not_landed(self._model, [str(column) for column in rows.columns])):
            raise ProtectionError(
                f"the tagged column '{name}' did not land (there are: {', '.join(map(str, rows.columns))}), so nothing "
                "was kept; if it lands under another name, say so: "
                f'Table(raw_tags={{"its name": personal("{self._kind(name)}", column="{name}")}})'
            )
        protected = {name: _column(rows[name], function) for name, function in self._functions.items() if name in rows}
        return rows.assign(**protected) if protected else rows

    def _kind(self, name: str) -> str:
        return ({**raw_tags_of(self._model), **tags_of(self._model)})[name].kind

    def row(self, raw: Raw) -> Raw:
        """Protects one row as it was parsed from JSON; columns that it lacks stay absent.

        A list or an object is no value of a column, and is emptied, so that the refusal cannot quote it.
        """
        changed = {name: self._value(raw[name], function) for name, function in self._functions.items() if name in raw}
        return {**raw, **changed} if changed else raw

    def stored(self, column: str, value: Any) -> Any:
        """The stored value that belongs to a plain value of a column of the contract; see :func:`pseudonym_of`."""
        return pseudonym_of(self._model, column, value, self._keys)

    @staticmethod
    def _value(value: Any, function: Function) -> Any:
        if isinstance(value, list | dict):
            return type(value)()
        text = as_text(value)
        return text if text is None else function(text)


def pseudonym_of(model: Model, column: str, value: Any, keys: Sequence[Key]) -> Any:
    """The stored value that belongs to a plain value of a column of the contract.

    Args:
        model: the declaration.
        column: a column of the contract.
        value: the value as a person writes it.
        keys: the keys of pseudonyms that are in force, the oldest first.

    Returns:
        The stored value, a number for a column of whole numbers; the value itself for a column without a tag; ``None``
        where the value is not stored.
    """
    text, tag = as_text(value), tags_of(model).get(column)
    if text is None or tag is None or not tag.protects:
        return value
    form = form_of(str(model.table.contract.to_schema().columns[column].dtype))
    stored = protection(tag, form, [key.secret for key in keys])(text)
    return int(stored) if stored is not None and form in ("whole", "number") and stored.isdigit() else stored


def _form(model: Model, raw: str) -> Form:
    columns = model.table.contract.to_schema().columns
    becomes = made_of(model, raw)
    return form_of(str(columns[becomes].dtype)) if becomes is not None else "text"


def _column(values: pd.Series, function: Callable[[str], str | None]) -> pd.Series:
    """Each distinct value is protected once."""
    text = values.astype("string[pyarrow]")
    made: Mapping[str, str | None] = {value: function(value) for value in text.dropna().unique()}
    return text.map(made, na_action="ignore").astype("string[pyarrow]")
