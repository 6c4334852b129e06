"""Default features for a declaration without features: the contract's columns, encoded row by row.

Belongs here: the encoding of each kind of column. Does not belong here: anything learnt from rows (medians and scales
are part of the network), and features that use other rows (the model folder).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assets.declaration import Columns, DeclarationError, Features
from assets.lifecycle.data.text import WORDS, word_numbers
from assets.lifecycle.data.word_pieces import pieces_of
from assets.lifecycle.prediction_format import PREDICTED, SCORE
from assets.personal import tags_of
from assets.task import NUMBERS

if TYPE_CHECKING:
    from assets.declaration import Model

MOST_CATEGORIES = 100
"""A column with more categories than this is encoded as free text, because its values may share words."""
EPOCH = np.datetime64("2000-01-01", "s")
PARTS = ("month", "weekday", "hour")
"""Periodic parts of a moment."""


def default_features(model: Model) -> Features:
    """Returns one feature per number, boolean, and category of an ``isin`` column; several per moment and text column.

    A moment becomes its days since 2000 and its periodic parts. Free text becomes word numbers, or the numbers of word
    pieces of the declared language model.

    The key, the target and ``evaluation.entity`` are not features. Of the event time, only the periodic parts are.
    Pseudonyms are none either: they mean nothing, and another key would change them. Dropped columns have no values.

    Raises:
        DeclarationError: no column is left to make a feature of, or a column has a name that the drift check reserves.
    """
    table = model.table
    numbers: list[str] = []
    moments: list[str] = []
    texts: list[str] = []
    categories: dict[str, tuple[str, ...]] = {}
    meaningless = {name for name, tag in tags_of(model).items() if tag.protect in ("pseudonym", "drop")}
    for name, column in table.contract.to_schema().columns.items():
        if name in (table.key, table.time, model.target, model.evaluation.entity, *meaningless):
            continue
        if model.forecast and name not in (model.forecast.series, *model.forecast.known):
            continue  # its value is not known yet when the forecast is made
        allowed = next((check.statistics["allowed_values"] for check in column.checks if check.name == "isin"), None)
        kind = str(column.dtype)
        if kind.startswith((*NUMBERS, "bool")):
            numbers.append(name)
        elif kind.startswith("datetime"):
            moments.append(name)
        elif allowed is not None and len(allowed) <= MOST_CATEGORIES:
            categories[name] = tuple(map(str, allowed))
        elif model.forecast and name == model.forecast.series:
            continue  # its past tells the series apart; the letters of its name do not
        else:
            texts.append(name)
    recurring = tuple(f"{table.time}.{part}" for part in PARTS) if table.time else ()
    words = tuple(f"{name}#{place}" for name in texts for place in range(WORDS))
    names = (
        *numbers,
        *(f"{column}={value}" for column, values in categories.items() for value in values),
        *(f"{name}.{part}" for name in moments for part in ("days", *PARTS)),
        *recurring,
        *words,
    )
    origins = (
        *numbers,
        *(column for column, values in categories.items() for _ in values),
        *(name for name in moments for _ in ("days", *PARTS)),
        *(str(table.time) for _ in recurring),
        *(name for name in texts for _ in range(WORDS)),
    )
    if not names:
        raise DeclarationError(f"model '{model.name}': the contract has no column that can be a feature")
    if own := {SCORE, PREDICTED} & set(names):
        raise DeclarationError(
            f"model '{model.name}': a column is named '{min(own)}', which the drift check uses for the model's output; "
            "rename it in clean() and the contract"
        )

    language = model.language

    def numbers_of(column: np.ndarray) -> np.ndarray:
        return pieces_of(language).numbers(column) if language else word_numbers(column)

    def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        made = {name: _number(events[name][wanted]) for name in numbers}
        for column, values in categories.items():
            raw = events[column][wanted]
            text = raw.astype(str)
            text[_missing(raw)] = ""  # otherwise a missing value reads as a word such as None, which may be a category
            made |= {f"{column}={value}": (text == value).astype(np.float32) for value in values}
        for name in moments:
            made |= {f"{name}.{part}": values for part, values in _moment(events[name][wanted]).items()}
        if table.time:
            of_event = _moment(events[table.time][wanted])
            made |= {f"{table.time}.{part}": of_event[part] for part in PARTS}
        for name in texts:
            numbered = numbers_of(events[name][wanted])
            made |= {f"{name}#{place}": numbered[:, place] for place in range(WORDS)}
        return made

    return Features(compute=compute, lookback_days=0, names=names, calendar=recurring, words=words, origins=origins)


def _missing(values: np.ndarray) -> np.ndarray:
    """Returns whether each value of a text column is missing, boolean ``[n]``."""
    import pandas as pd

    return np.asarray(pd.isna(values))


def _number(values: np.ndarray) -> np.ndarray:
    """Converts numbers and booleans to float32 ``[n]``; missing values become NaN."""
    if values.dtype == object:
        import pandas as pd

        return pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=np.float32, na_value=np.nan)
    return values.astype(np.float32)


def _moment(values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns days since 2000, month (1 to 12), weekday (Monday is 0) and hour, float32 ``[n]``; NaN where missing."""
    moments = values.astype("datetime64[s]")
    known = ~np.isnat(moments)
    days = (moments - EPOCH) / np.timedelta64(86_400, "s")
    parts = {
        "days": days,
        "month": moments.astype("datetime64[M]").astype(np.int64) % 12 + 1,
        "weekday": (np.floor(days) + 5) % 7,  # 1 January 2000 was a Saturday
        "hour": np.floor(days % 1 * 24 + 1e-6),
    }
    return {name: np.where(known, part, np.nan).astype(np.float32) for name, part in parts.items()}
