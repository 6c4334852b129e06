"""What a column of text is: number, category, moment, free text, identifier, or something about a person.

Belongs here: guessing the kind of one column from its values and its name. Does not belong here: what the table as a
whole is (``guessing.py``).
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
import pandera.pandas as pa

from assets.reading import FALSE, TRUE, number

Kind = Literal[
    "boolean", "integer", "number", "category", "moment", "text", "identifier", "personal", "constant", "empty"
]

MISSING_IN_TEXT = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?", "#N/A")
"""Words that stand for a missing value in any column."""
MISSING_WORDS = (*MISSING_IN_TEXT, "na", "None", "none", "-", "--", ".", "nil")
"""The same where all else in the column is numbers, moments or booleans; in text 'None' and '-' may mean something."""
TAKEN = frozenset(
    ("row_id", "landing_day", "reason", "label", "row", "pa", "pd", "Series", "typed", "number", "moment", "row_key")
)
"""Names that no column can have: what the lifecycle calls its own, and what a contract's module imports."""
MOST_CATEGORIES = 50
ROWS_A_CATEGORY = 10
"""A category has at least so many rows on average."""
UNREADABLE = 0.02
"""Share of values that may be unreadable before a column is no number (or moment)."""
FORMS = (
    "ISO8601",
    *(f"{day}{time}" for day in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d-%b-%Y",
                                 "%d %b %Y", "%b %d %Y", "%B %d, %Y", "%d/%m/%y", "%m/%d/%y")
      for time in ("", " %H:%M", " %H:%M:%S")),
)  # fmt: skip

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[$€£¥]?\s*\d{1,3}(,\d{3})+(\.\d+)?\s*[%€$£¥]?")
_AMOUNT = re.compile(r"[-+]?\s*[$€£¥]?\s*\d+(\.\d+)?\s*(%|€|\$|£|¥|USD|EUR|GBP)?")
_COMMA = re.compile(r"[-+]?\s*[€£]?\s*(\d{1,3}(\.\d{3})+|\d+),\d+\s*[%€£]?")
_IDENTIFIER_NAME = re.compile(
    r"(^|_|\s|\.)(id|ids|uuid|guid|key|no|nr|num|number|code|ref|reference|serial|index)$|[a-z]I[Dd]$|^ID$", re.I
)
_PERSONAL_NAME = re.compile(
    r"(^|_)(e_?mail|phone|mobile|telephone|fax|ssn|social_security|passport|iban|card_number|surname|"
    r"(first|last|full|middle|customer|patient|client|person|user)_?name|name|street|address|birth_?(date|day)|"
    r"date_of_birth|dob|ip_address)($|_)", re.I)  # fmt: skip
_PERSONAL_VALUES = {
    "e-mail addresses": re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}"),
    "telephone numbers": re.compile(
        r"\+?\d{1,3}[\s(-]+\(?\d{2,4}\)?[\s-]+\d{3,4}[\s-]?\d{3,4}|\(\d{3}\)\s?\d{3}-\d{4}|\d{3}-\d{3}-\d{4}"
    ),
    "IBANs": re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}"),
    "social security numbers": re.compile(r"\d{3}-\d{2}-\d{4}"),
    "IP addresses": re.compile(r"\d{1,3}(\.\d{1,3}){3}"),
    "card numbers": re.compile(r"\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}"),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column and what it seems to be.

    Args:
        header: as the file has it.
        name: as the contract calls it: a Python identifier.
        kind: see the module.
        missing: share of rows without a value.
        unreadable: rows whose value the kind cannot read, and one of these values.
        categories: of a category, sorted.
        low, high: of numbers.
        form: of a moment.
        reader: how a number has to be read: ``amount`` (currency, thousands), ``comma`` (decimal comma), or plain.
        words: further words that stand for missing.
        lower: whether categories differ in case alone, and are read in lower case.
        distinct: different values.
        why: what the kind was guessed from, where a person should know.
    """

    header: str
    name: str
    kind: Kind
    missing: float = 0.0
    unreadable: int = 0
    example: str = ""
    categories: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    middle: float = math.nan
    form: str = ""
    reader: Literal["", "amount", "comma"] = ""
    words: tuple[str, ...] = ()
    lower: bool = False
    distinct: int = 0
    why: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def nullable(self) -> bool:
        """Whether values are missing, or become so."""
        return self.missing > 0 or self.unreadable > 0


def identifiers(headers: Sequence[str]) -> dict[str, str]:
    """A Python identifier for each header: itself where it is one, else its words joined by _."""
    taken: dict[str, str] = {}
    for position, header in enumerate(headers):
        plain = header.strip().replace("\ufeff", "")
        name = plain
        if not plain.isidentifier() or keyword.iskeyword(plain) or not plain.isascii() or plain.startswith("_"):
            name = re.sub(r"[^0-9a-zA-Z]+", "_", _ascii(plain)).strip("_").lower() or f"column_{position + 1}"
            if name[0].isdigit():
                name = f"c_{name}"
            if keyword.iskeyword(name):
                name += "_"
        if name in TAKEN or hasattr(pa.DataFrameModel, name):
            name += "_"
        while name in taken.values():
            name += "_"
        taken[header] = name
    return taken


def look_at(header: str, name: str, values: pd.Series) -> Column:
    """What a column of text is."""
    text = values.astype("string[pyarrow]").str.strip()
    text = text.mask(text == "")
    some = text.dropna()
    column = Column(header=header, name=name, kind="empty", missing=float(text.isna().mean()))
    if some.empty:
        return column
    strict = some[~some.isin(MISSING_WORDS)]
    if strict.empty:
        return column
    distinct = int(strict.nunique())
    words = tuple(sorted(set(some[some.isin(MISSING_WORDS)])))
    strictly = replace(column, distinct=distinct, words=words, missing=float(1 - len(strict) / len(text)))
    for guess in (_boolean, _number, _moment):
        if (found := guess(strictly, strict)) is not None:
            return _about_people(found, strict)
    in_text = some[~some.isin(MISSING_IN_TEXT)]
    words = tuple(sorted(set(some[some.isin(MISSING_IN_TEXT)])))
    column = replace(column, distinct=int(in_text.nunique()), words=words, missing=float(1 - len(in_text) / len(text)))
    return _about_people(_text(column, in_text), in_text)


def _boolean(column: Column, values: pd.Series) -> Column | None:
    said = set(values.str.lower().unique())
    if len(said) == 2 and len(said & set(TRUE)) == 1 and len(said & set(FALSE)) == 1:
        return replace(column, kind="boolean")
    return None


Reader = Literal["", "amount", "comma"]
_READERS: dict[Reader, re.Pattern[str]] = {"": _NUMBER, "amount": _THOUSANDS, "comma": _COMMA}


def _number(column: Column, values: pd.Series) -> Column | None:
    # A number that begins with a nought is a name of something: a postcode, an account.
    if values.str.fullmatch(r"0\d+").mean() > 0.01:
        return None
    for reader, pattern in _READERS.items():
        readable = values.str.fullmatch(pattern.pattern)
        if reader == "amount":
            readable |= values.str.fullmatch(_AMOUNT.pattern)
        if reader == "comma":
            readable |= values.str.fullmatch(r"[-+]?\d+")
        if readable.mean() < 1 - UNREADABLE:
            continue
        decimal = "," if reader == "comma" else "."
        read = pd.to_numeric(number(values[readable], decimal=decimal) if reader else values[readable]).astype(float)
        bad = values[~readable]
        found = replace(
            column, kind="number", reader=reader, low=float(read.min()), high=float(read.max()),
            middle=float(read.median()), unreadable=len(bad), example=str(bad.iloc[0]) if len(bad) else "",
            distinct=int(read.nunique()),
        )  # fmt: skip
        if found.low == found.high and not len(bad):
            return replace(found, kind="constant")
        if (read % 1 == 0).all() and read.abs().max() < 2**53:
            found = replace(found, kind="integer")
            unique = found.distinct == len(read) and not found.nullable
            if unique and (_IDENTIFIER_NAME.search(column.header.strip()) or _counts_up(read)):
                return replace(found, kind="identifier", why="each row has its own")
            if _IDENTIFIER_NAME.search(column.header.strip()) and found.distinct > MOST_CATEGORIES:
                return replace(found, kind="identifier", why="named like one")
        return found
    return None


def _counts_up(read: pd.Series) -> bool:
    return bool((read.diff().dropna() == 1).all()) and len(read) > 2


def _moment(column: Column, values: pd.Series) -> Column | None:
    some = values.head(1_000)
    dotted = r"\d{1,2}\.\d{1,2}\.\d{4}"
    digits = some.str.fullmatch(r"[\d.]+").all() and not some.str.fullmatch(dotted).all()
    if digits or some.str.contains(r"\d", regex=True).mean() < 1 - UNREADABLE:
        return None
    able = []
    for form in FORMS:
        if pd.to_datetime(some, format=form, errors="coerce", utc=True).notna().mean() < 1 - UNREADABLE:
            continue
        read = pd.to_datetime(values, format=form, errors="coerce", utc=True)
        if read.notna().mean() >= 1 - UNREADABLE:
            able.append((form, read))
    if not able:
        return None
    form, read = max(able, key=lambda pair: pair[1].notna().sum())
    bad = values[read.isna()]
    found = replace(
        column, kind="moment", form=form, unreadable=len(bad), example=str(bad.iloc[0]) if len(bad) else "",
        distinct=int(read.nunique()),
    )  # fmt: skip
    rivals = [other for other, theirs in able if other != form and theirs.notna().sum() == read.notna().sum()]
    if rivals and form != "ISO8601":
        found = replace(found, notes=(f"read as {form}; {rivals[0]} would fit as well",))
    return replace(found, kind="constant") if found.distinct < 2 and not len(bad) else found


def _text(column: Column, values: pd.Series) -> Column:
    if column.distinct < 2:
        return replace(column, kind="constant")
    lowered = int(values.str.lower().nunique())
    if lowered < column.distinct and lowered <= MOST_CATEGORIES and len(values) >= lowered * ROWS_A_CATEGORY:
        values = values.str.lower()
        column = replace(column, lower=True, distinct=lowered, notes=("read in lower case: its values differ in case",))
    named = _IDENTIFIER_NAME.search(column.header.strip()) is not None
    one_word = float(values.str.count(r"\s+").mean()) < 0.2
    coded = float(values.str.fullmatch(r"[A-Za-z]*[-_]?\d[\w-]*").mean()) > 0.9
    kind: Kind
    if column.distinct == len(values) and column.missing == 0 and one_word:
        kind, why = "identifier", "each row has its own"
    elif column.distinct <= MOST_CATEGORIES and len(values) >= column.distinct * ROWS_A_CATEGORY:
        kind, why = "category" if column.distinct > 1 else "constant", ""
    elif one_word and (named or (coded and column.distinct > 0.9 * len(values))):
        kind, why = "identifier", "named like one" if named else "nearly each row has its own"
    else:
        kind, why = "text", ""
    categories = tuple(sorted(map(str, values.unique()))) if kind == "category" else ()
    return replace(column, kind=kind, why=why, categories=categories)


def _about_people(column: Column, values: pd.Series) -> Column:
    if column.kind in ("boolean", "constant", "category"):
        return column
    some = values.head(2_000)
    for what, pattern in _PERSONAL_VALUES.items():
        if some.str.fullmatch(pattern.pattern).mean() > 0.8:
            return replace(column, kind="personal", why=f"its values are {what}")
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.-]+", "_", column.header.strip())
    if _PERSONAL_NAME.search(snake) and column.kind not in ("number",) and column.distinct > MOST_CATEGORIES:
        return replace(column, kind="personal", why="by its name it is about a person")
    return column


def _ascii(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
