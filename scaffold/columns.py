"""Guesses the kind of a text column: number, category, moment, free text, identifier, or personal data.

Belongs here: guessing the kind of one column from its values and its name. Does not belong here: guesses about the
whole table (``guessing.py``).
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import pandas as pd
import pandera.pandas as pa

from assets.reading import POINTED, hours, number
from assets.words import FALSE, TRUE
from resources.moments import ISO, moments

ColumnKind = Literal[
    "boolean", "integer", "number", "category", "moment", "text", "identifier", "personal", "constant", "empty"
]

NUMBERS = ("integer", "number")
"""Kinds of columns with measured values."""
MISSING_IN_TEXT = (
    "NA", "N/A", "n/a", "NaN", "nan", "NaT", "NULL", "null", "Null", "<NA>", "<null>", "(null)", "\\N", "?", "#N/A",
    "#DIV/0!", "#REF!", "#VALUE!", "#NUM!", "#NAME?", "#NULL!",
)  # fmt: skip
"""Words that stand for a missing value in any column."""
MISSING_WORDS = (*MISSING_IN_TEXT, "na", "n.a.", "N.A.", "None", "none", "-", "--", "—", "–", ".", "..", "...", "nil")
"""The same for columns whose other values are all numbers, moments or booleans; in text, 'None' and '-' may be
values."""
TAKEN = frozenset(
    ("row_id", "landing_day", "reason", "label", "row", "pa", "pd", "Series", "typed", "number", "hours", "moment",
     "row_key", "personal", "str", "int", "float", "bool", "self", "raw", "score", "predicted")
)  # fmt: skip
"""Names that no column can have: the lifecycle's own names and the names that a contract's module uses."""
TAKEN_BY_ANSWERS = frozenset(("version", "probability", "prediction", "alert", "model", "decision"))
"""Names that no key and no event time can have, because tables that carry the key and time have columns of that
name."""
MOST_CATEGORIES = 50
MOST_CLASSES = 100
"""Maximum number of classes of a target; a table of intents may have many."""
LONG_DIGITS = "whole numbers of 16 digits and more"
"""Reason why such a column is an identifier: as numbers, different values would become equal."""
ROWS_A_CATEGORY = 10
"""Minimum average number of rows per category."""
LONGEST_CATEGORY = 100
"""Maximum characters of a category; longer values and values of several lines are text."""
LONGEST_NAME = 60
UNREADABLE = 0.02
"""Share of unreadable values from which a column is not a number (or moment)."""
MOST_WORDS, FEW_WORDS = 0.3, 5
"""Maximum share of words in a column of numbers, and maximum number of different words."""
RARELY, MOSTLY = 0.01, 0.99
"""A column with one distinct value is informative if its share of missing values is between these two."""
EXACT = 2**53
"""From here on, float64 cannot distinguish all whole numbers, so they are read as text."""
FORMS = (
    ISO,
    *(f"{day}{time}" for day in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
                                 "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%d/%m/%y",
                                 "%m/%d/%y", "%d.%m.%y", "%d-%b-%y", "%Y年%m月%d日")
      for time in ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")),
    "%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S %z",
)  # fmt: skip
"""Forms of moments, tried in this order."""
DIGIT_FORMS = {"%Y%m%d": 8, "%Y%m%d%H%M": 12, "%Y%m%d%H%M%S": 14}
"""Forms of moments that look like whole numbers, with their number of digits."""
EPOCHS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
"""Units of moments counted since 1970, with the number of units per second."""
EXCEL = "days since 1899-12-30"

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_INFINITE = r"(?i)[-+]?(?:inf(?:inity)?|∞)"
_GROUPED_OR_SHORT = r"[-+]?(?:\d{1,3}|[1-9]\d{0,2}(?:\.\d{3})+)"
"""Values that may be numbers with points as thousands separators: 1.234 or 12."""
_UNIT = r"^[-+−]?\d[\d.,'’ ]*?\s*([^\d\s.,'’%()+-][^\d]{0,11})$"
_TIME_OF_DAY = r"\d{1,3}:[0-5]\d(?::[0-5]\d(?:\.\d+)?)?\s*(?:[AaPp]\.?[Mm]\.?)?"
_DATE_LIKE = r".{0,5}?\d{1,4}.{0,2}\D.{0,10}\d.*"
_IDENTIFIER_NAME = re.compile(
    r"(^|_|\s|\.)(id|ids|uuid|guid|key|no|nr|num|number|code|ref|reference|serial|index)$|[a-z]I[Dd]$|^ID$|"
    r"(编号|編號|号|番号|번호|номер|код)$", re.I
)  # fmt: skip
_MOMENT_NAME = re.compile(
    r"(^|_)(ts|time|times|timestamp|datetime|date|epoch|at|on|when|created|updated|modified|datum|zeit|zeitstempel|"
    r"fecha|hora|data|heure)($|_)|(时间|日期|時間|日時|日付|時刻|날짜|시간|время|дата)", re.I
)  # fmt: skip
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


Reader = Literal["", "amount", "comma", "hours"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column and its guessed properties.

    Args:
        header: name in the file.
        name: name in the contract: a Python identifier.
        kind: guessed kind; see the module.
        missing: share of rows without a value.
        unreadable: number of rows whose value cannot be read as the kind.
        example: one of the unreadable values.
        categories: sorted values of a category.
        low, high, middle: minimum, maximum and median of numbers.
        infinite: number of rows with an infinite number; these become missing.
        form: form of a moment.
        reader: reader of a number: ``amount`` (currency, thousands), ``comma`` (decimal comma), ``hours`` (time of
            day), or plain.
        unit: unit after each number, such as ``kg``.
        rival: another reader that reads every value as well, some of them as other numbers.
        words: further words that stand for missing.
        lower: whether categories differ only in case and are read in lower case.
        distinct: number of distinct values.
        why: reason for the guess, where the user should know it.
        notes: further remarks for the user.
    """

    header: str
    name: str
    kind: ColumnKind
    missing: float = 0.0
    unreadable: int = 0
    example: str = ""
    categories: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    middle: float = math.nan
    form: str = ""
    infinite: int = 0
    reader: Reader = ""
    rival: Reader = ""
    unit: str = ""
    words: tuple[str, ...] = ()
    lower: bool = False
    distinct: int = 0
    why: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def nullable(self) -> bool:
        """Whether values are missing or become missing."""
        return self.missing > 0 or self.unreadable > 0 or self.infinite > 0


def identifiers(headers: Sequence[str]) -> dict[str, str]:
    """Returns a Python identifier for each header.

    It is the header itself if that is valid (in any script), else its words joined by _.
    """
    taken: dict[str, str] = {}
    for position, header in enumerate(headers):
        # Python normalises identifiers to this form, so a name in another form would not be found.
        plain = unicodedata.normalize("NFKC", header.strip().replace("\ufeff", ""))
        name = plain
        if not plain.isidentifier() or keyword.iskeyword(plain) or plain.startswith("_") or len(plain) > LONGEST_NAME:
            words = "".join(letter if f"a{letter}".isidentifier() else " " for letter in plain.replace("_", " "))
            name = "_".join(words.split()).lower()
            if len(name) > LONGEST_NAME:
                name = name[:LONGEST_NAME].rpartition("_")[0] or name[:LONGEST_NAME]
            name = unicodedata.normalize("NFKC", name) or f"column_{position + 1}"
            if not name.isidentifier():
                name = f"c_{name}"
            if keyword.iskeyword(name):
                name += "_"
        if name in TAKEN or hasattr(pa.DataFrameModel, name):
            name += "_"
        while name in taken.values():
            name += "_"
        taken[header] = name
    return taken


def look_at(header: str, name: str, values: pd.Series, *, reader: Reader = "") -> Column:
    """Guesses the kind and the properties of a text column.

    Args:
        header: name in the file.
        name: name in the contract.
        values: text ``[n]``.
        reader: preferred reader if numbers can be read in several ways.
    """
    text = values.astype("string[pyarrow]").str.strip()
    text = text.mask(text == "")
    some = text.dropna()
    column = Column(header=header, name=name, kind="empty", missing=float(text.isna().mean()))
    if some.empty:
        return column
    is_word = some.isin(MISSING_WORDS)
    strict = some[~is_word]
    if strict.empty:
        return column
    distinct = int(strict.nunique())
    words = tuple(sorted(set(some[is_word])))
    strictly = replace(column, distinct=distinct, words=words, missing=float(1 - len(strict) / len(text)))
    if distinct == 1 and RARELY <= strictly.missing <= MOSTLY:
        return _flag(strictly, strict)
    found = _boolean(strictly, strict) or _number(strictly, strict, reader) or _moment(strictly, strict)
    if found is not None:
        return _about_people(found, strict)
    in_text = some[~some.isin(MISSING_IN_TEXT)]
    words = tuple(sorted(set(some[some.isin(MISSING_IN_TEXT)])))
    column = replace(column, distinct=int(in_text.nunique()), words=words, missing=float(1 - len(in_text) / len(text)))
    return _about_people(_text(column, in_text), in_text)


def _flag(column: Column, values: pd.Series) -> Column:
    """Returns a category for a column with one distinct value and missing values."""
    value = str(values.iloc[0])
    return replace(column, kind="category", categories=(value,), notes=(f"'{value}' or blank",))


def _boolean(column: Column, values: pd.Series) -> Column | None:
    if column.distinct > 20:
        return None
    distinct = set(values.str.lower().unique())
    if len(distinct) == 2 and len(distinct & set(TRUE)) == 1 and len(distinct & set(FALSE)) == 1:
        return replace(column, kind="boolean")
    return None


def read_numbers(values: pd.Series, reader: Reader) -> pd.Series:
    """Reads text as float64 ``[n]``; unreadable values become missing, infinite values stay infinite."""
    if reader == "hours":
        return hours(values)
    plain = number(values, decimal="," if reader == "comma" else ".") if reader else values
    return pd.to_numeric(plain, errors="coerce").astype("float64")


def _number(column: Column, values: pd.Series, preferred: Reader) -> Column | None:
    # A number with a leading zero is an identifier such as a postcode or an account.
    if values.str.fullmatch(r"0\d+").mean() > 0.01:
        return None
    able = _able_readers(values)
    if not able:
        return _with_unit(column, values, preferred) or _without_words(column, values, preferred)
    reader = preferred if preferred in able else next(iter(able))
    readable = able[reader]
    read = read_numbers(values[readable], reader)
    infinite = read.abs() == math.inf
    finite = read[~infinite]
    if finite.empty:
        return None
    bad = values[~readable]
    found = replace(
        column, kind="number", reader=reader, low=float(finite.min()), high=float(finite.max()),
        rival=next((other for other in able if other != reader and _differs(values, read, other)), ""),
        middle=float(finite.median()), unreadable=len(bad), example=str(bad.iloc[0]) if len(bad) else "",
        infinite=int(infinite.sum()), distinct=int(finite.nunique()), notes=(*column.notes, *_stand_ins(finite)),
    )  # fmt: skip
    if found.low == found.high and not found.nullable:
        return replace(found, kind="constant")
    whole = reader != "hours" and (finite % 1 == 0).all()
    return _whole_numbers(found, values, finite) if whole else found


def _stand_ins(read: pd.Series) -> list[str]:
    """Returns notes about numbers such as -999 that occur several times, far from all others."""
    found = []
    for extreme in (float(read.min()), float(read.max())):
        rest = read[read != extreme]
        times = len(read) - len(rest)
        if rest.empty or times < max(3, RARELY * len(read)) or not re.fullmatch(r"-?9{2,}\.0|-1\.0", str(extreme)):
            continue
        if min(abs(extreme - rest.min()), abs(extreme - rest.max())) > rest.max() - rest.min():
            found.append(
                f"{extreme:g} occurs in {times} rows, far from all others; if it means missing, handle it in clean()"
            )
    return found


def _with_unit(column: Column, values: pd.Series, preferred: Reader) -> Column | None:
    """Reads the column as numbers if nearly all values have the same unit; else returns ``None``."""
    units = values.str.extract(_UNIT)[0]
    if column.unit or units.isna().all() or (units == (unit := str(units.mode()[0]))).mean() < 1 - UNREADABLE:
        return None
    able = _number(replace(column, unit=unit), values.str.removesuffix(unit).str.strip(), preferred)
    return replace(able, reader=able.reader or "amount") if able is not None and able.kind in NUMBERS else None


def _without_words(column: Column, values: pd.Series, preferred: Reader) -> Column | None:
    """Reads the column as numbers if the other values are a few recurring words such as "unknown"."""
    for reader in get_args(Reader):
        readable = _readable(values, reader)
        words = values[~readable]
        if 1 - MOST_WORDS <= readable.mean() < 1 and words.nunique() <= FEW_WORDS and values.nunique() > 4 * FEW_WORDS:
            missing_words = sorted(set(words))
            missing = 1 - (1 - column.missing) * float(readable.mean())
            less = replace(column, words=tuple(sorted({*column.words, *missing_words})), missing=missing)
            found = _number(less, values[readable], preferred)
            note = f"{len(words)} values are words and become missing: {', '.join(missing_words)}"
            return replace(found, notes=(*found.notes, note)) if found is not None else None
    return None


def _whole_numbers(column: Column, values: pd.Series, read: pd.Series) -> Column | None:
    """Classifies whole numbers as moments, identifiers or counts.

    Returns ``None`` if different values would become equal as numbers.
    """
    if _MOMENT_NAME.search(_snake(column.header)) and (moment := as_moment(column, values, surely=True)) is not None:
        return moment
    if read.abs().max() >= EXACT:
        # A measured value of this size is written as 1.5e20, not with all 16 digits.
        return None if values.str.fullmatch(r"[-+]?\d+").mean() >= 1 - UNREADABLE else column
    named = _IDENTIFIER_NAME.search(column.header.strip()) is not None
    if column.distinct == len(read) and not column.nullable and (named or _counts_up(read)):
        return replace(column, kind="identifier", why="each row has its own")
    if named and column.distinct > MOST_CATEGORIES:
        return replace(column, kind="identifier", why="named like one")
    return replace(column, kind="integer")


def _able_readers(values: pd.Series) -> dict[Reader, pd.Series]:
    """Returns the readers that read the most values, each with a boolean series of the values that it reads."""
    plain = _readable(values, "")
    if plain.all() and not values.str.fullmatch(_GROUPED_OR_SHORT).all():
        return {"": plain}
    able: dict[Reader, pd.Series] = {}
    tried = values.head(1_000)
    for reader in get_args(Reader):
        if reader == "hours" and (able or not tried.str.fullmatch(_TIME_OF_DAY).mean() >= 1 - UNREADABLE):
            continue
        if _readable(tried, reader).mean() < 1 - 2 * UNREADABLE:
            continue
        readable = _readable(values, reader)
        if readable.mean() >= 1 - UNREADABLE:
            able[reader] = readable
            if reader == "" and not values.str.contains(r"[.,]").any():
                break  # all readers read whole numbers alike
    best = max((readable.mean() for readable in able.values()), default=0)
    return {reader: readable for reader, readable in able.items() if readable.mean() == best}


def _readable(values: pd.Series, reader: Reader) -> pd.Series:
    if reader == "":
        return values.str.fullmatch(_NUMBER) | values.str.fullmatch(_INFINITE)
    if reader == "hours":
        return values.str.fullmatch(_TIME_OF_DAY) & hours(values).notna()
    readable = number(values, decimal=_DECIMAL[reader]).notna()
    # A number that certainly has a decimal point is not written by someone who uses a decimal comma.
    return readable & ~values.str.fullmatch(POINTED) if reader == "comma" else readable


_DECIMAL = {"amount": ".", "comma": ","}


def _differs(values: pd.Series, read: pd.Series, reader: Reader) -> bool:
    """Returns whether another reader reads some values as other numbers."""
    return bool((read_numbers(values[read.index], reader) != read).any())


def _counts_up(read: pd.Series) -> bool:
    return bool((read.diff().dropna() == 1).all()) and len(read) > 2


def as_moment(column: Column, values: pd.Series, *, surely: bool = False) -> Column | None:
    """Reads numbers as moments: digits of a date, a count of seconds (milliseconds, …) since 1970, or Excel days.

    Args:
        column: the guessed column.
        values: its text; may contain blanks and words for missing values.
        surely: whether to reject numbers that are probably not moments.

    Returns:
        The column as moments, or ``None`` if no form fits.
    """
    text = values.astype("string[pyarrow]").str.strip()
    text = text[text.notna() & (text != "") & ~text.isin(MISSING_WORDS)]
    read = pd.to_numeric(text, errors="coerce").astype("float64")
    if text.empty or read.notna().mean() < 1 - UNREADABLE:
        return None
    able = [form for form, length in DIGIT_FORMS.items() if (text.str.len() == length).mean() >= 1 - UNREADABLE]
    middle = abs(float(read.median()))
    first, last = (0.63e9, 2.5e9) if surely else (0.1e9, 4.1e9)  # seconds: 1990 to 2049, or 1973 to 2099
    able += [f"{unit} since 1970-01-01" for unit, n in EPOCHS.items() if first * n <= middle <= last * n]
    able += [EXCEL] if not surely and 20_000 <= middle <= 80_000 else []  # 1954 to 2119
    for form in able:
        if (found := _moments_by(column, text, [form])) is not None:
            form_text = form if form in DIGIT_FORMS else f"{form}, by its size"
            return replace(found, low=math.nan, high=math.nan, notes=(*found.notes, f"read as moments: {form_text}"))
    return None


def _moment(column: Column, values: pd.Series) -> Column | None:
    some = values.head(100)
    if some.str.fullmatch(_DATE_LIKE).mean() < 1 - 2 * UNREADABLE or some.str.len().median() > 40:
        return None
    if some.str.fullmatch(r"[\d.]+").all() and not some.str.fullmatch(r"\d{1,4}\.\d{1,2}\.\d{1,4}").all():
        return None
    return _moments_by(column, values, FORMS)


def _moments_by(column: Column, values: pd.Series, forms: Sequence[str]) -> Column | None:
    """Reads the column as moments in the form that reads the most values; ``None`` if no form fits."""
    endless = values.str.contains(r"\b(?:9999|0001)\b") & ~values.str.fullmatch(r"\d+")  # 'no end date' in many systems
    bounded = values[~endless]
    some = bounded.head(1_000)
    able: list[tuple[str, pd.Series]] = []
    for form in forms:
        if some.empty or moments(some.head(20), form).notna().mean() < 0.75:  # most forms fail here
            continue
        if moments(some, form).notna().mean() < 1 - UNREADABLE:
            continue
        read = moments(bounded, form)
        if read.notna().mean() >= 1 - UNREADABLE:
            able.append((form, read))
            if form == ISO and read.notna().all():
                break
    if not able:
        return None
    form, read = max(able, key=lambda pair: pair[1].notna().sum())
    bad = pd.concat([bounded[read.isna()], values[endless]])
    found = replace(
        column, kind="moment", form=form, unreadable=len(bad), example=str(bad.iloc[0]) if len(bad) else "",
        distinct=int(read.nunique()), reader="", rival="",
    )  # fmt: skip
    rivals = [other for other, theirs in able if other != form and theirs.notna().sum() == read.notna().sum()]
    if rivals and form != ISO:
        found = replace(found, notes=(f"read as {form}; {rivals[0]} would fit as well",))
    return replace(found, kind="constant") if found.distinct < 2 and not len(bad) else found


def _text(column: Column, values: pd.Series) -> Column:
    if column.distinct < 2:
        return replace(column, kind="constant")
    lowered = int(values.str.lower().nunique())
    if lowered < column.distinct and lowered <= MOST_CATEGORIES and len(values) >= lowered * ROWS_A_CATEGORY:
        values = values.str.lower()
        column = replace(
            column, lower=True, distinct=lowered, notes=("read in lower case, because its values differ in case",)
        )
    named = _IDENTIFIER_NAME.search(column.header.strip()) is not None
    one_word = float(values.str.count(r"\s+").mean()) < 0.2
    coded = float(values.str.fullmatch(r"[A-Za-z]*[-_]?\d[\w-]*").mean()) > 0.9
    long_digits = float(values.str.fullmatch(r"\d{16,}").mean()) > 1 - UNREADABLE
    kind: ColumnKind
    if column.distinct == len(values) and one_word:
        kind, why = "identifier", "each row has its own"
    elif _are_short(values) and column.distinct <= MOST_CATEGORIES and len(values) >= column.distinct * ROWS_A_CATEGORY:
        kind, why = "category" if column.distinct > 1 else "constant", ""
    elif one_word and (named or long_digits or (coded and column.distinct > 0.9 * len(values))):
        kind, why = "identifier", "named like one" if named else "nearly each row has its own"
        if long_digits and not named:
            why = LONG_DIGITS
    else:
        kind, why = "text", ""
    categories = tuple(sorted(map(str, values.unique()))) if kind == "category" else ()
    return replace(column, kind=kind, why=why, categories=categories)


def _are_short(values: pd.Series) -> bool:
    return int(values.str.len().max()) <= LONGEST_CATEGORY and not values.str.contains(r"[\r\n]").any()


def _about_people(column: Column, values: pd.Series) -> Column:
    if column.kind in ("boolean", "constant", "category"):
        return column
    is_plain_number = column.kind in NUMBERS and not column.reader
    some = values.head(2_000)
    for what, pattern in _PERSONAL_VALUES.items() if not is_plain_number else ():
        if some.str.fullmatch(pattern.pattern).mean() > 0.8:
            return replace(column, kind="personal", why=f"its values are {what}")
    if (
        _PERSONAL_NAME.search(_snake(column.header))
        and column.kind not in ("number",)
        and column.distinct > MOST_CATEGORIES
    ):
        return replace(column, kind="personal", why="its name suggests a person")
    return column


def _snake(header: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.-]+", "_", header.strip())
