"""Features of a declaration that brings none: the contract's columns, encoded, each row by itself.

Belongs here: the encoding by kind of column. Does not belong here: anything learnt from rows (medians and scales are
part of the network), and features that look at other rows (the model folder).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assets.declaration import Columns, DeclarationError, Features

if TYPE_CHECKING:
    from assets.declaration import Model


def default_features(model: Model) -> Features:
    """Numbers and booleans as they are, and one feature for each category of a column with ``isin``.

    Raises :class:`~assets.declaration.DeclarationError` for a column of another kind.
    """
    table = model.table
    numbers: list[str] = []
    categories: dict[str, tuple[str, ...]] = {}
    for name, column in table.contract.to_schema().columns.items():
        if name in (table.key, table.time, model.target):
            continue
        allowed = next((check.statistics["allowed_values"] for check in column.checks if check.name == "isin"), None)
        kind = str(column.dtype)
        if kind.startswith(("int", "uint", "float", "Int", "UInt", "Float", "bool")):
            numbers.append(name)
        elif allowed is not None:
            categories[name] = tuple(map(str, allowed))
        else:
            raise DeclarationError(
                f"model '{model.name}': the contract's column '{name}' ({kind}) has no default encoding: give it "
                "`isin=[...]` with its categories, drop it from the contract, or declare features"
            )
    names = (*numbers, *(f"{column}={value}" for column, values in categories.items() for value in values))
    if not names:
        raise DeclarationError(f"model '{model.name}': the contract has no column to make a feature of")

    def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        made = {name: _number(events[name][wanted]) for name in numbers}
        for column, values in categories.items():
            text = events[column][wanted].astype(str)
            made |= {f"{column}={value}": (text == value).astype(np.float32) for value in values}
        return made

    return Features(compute=compute, lookback_days=0, names=names)


def _number(values: np.ndarray) -> np.ndarray:
    """float32 of numbers and booleans; whatever is missing becomes NaN."""
    if values.dtype == object:
        import pandas as pd

        return pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=np.float32, na_value=np.nan)
    return values.astype(np.float32)
