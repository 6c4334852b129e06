"""What a column of text is: number, category, moment, free text, identifier, or something about a person.

Belongs here: guessing the kind of one column from its values and its name. Does not belong here: what the table as a
whole is (``guessing.py``).
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

Kind = Literal[
    "boolean", "integer", "number", "category", "moment", "text", "identifier", "personal", "constant", "empty"
]

NUMBERS = ("integer", "number")
"""Kinds of columns that are measured."""
MISSING_IN_TEXT = (
    "NA", "N/A", "n/a", "NaN", "nan", "NaT", "NULL", "null", "Null", "<NA>", "<null>", "(null)", "\\N", "?", "#N/A",
    "#DIV/0!", "#REF!", "#VALUE!", "#NUM!", "#NAME?", "#NULL!",
)  # fmt: skip
"""Words that stand for a missing value in any column."""
MISSING_WORDS = (*MISSING_IN_TEXT, "na", "n.a.", "N.A.", "None", "none", "-", "--", "—", "–", ".", "..", "...", "nil")
"""The same where all else in the column is numbers, moments or booleans; in text 'None' and '-' may mean something."""
TAKEN = frozenset(
    ("row_id", "landing_day", "reason", "label", "row", "pa", "pd", "Series", "typed", "number", "hours", "moment",
     "row_key", "str", "int", "float", "bool", "self", "raw", "score", "predicted")
)  # fmt: skip
"""Names that no column can have: what the lifecycle calls its own, and what a contract's module uses."""
TAKEN_BY_ANSWERS = frozenset(("version", "probability", "prediction", "alert", "model", "decision"))
"""Names that no key and no event time can have: the tables that carry these have columns of that name."""
MOST_CATEGORIES = 50
LONG_DIGITS = "whole numbers of 16 digits and more"
"""Why such a column is an identifier: as numbers its values would run together."""
ROWS_A_CATEGORY = 10
"""A category has at least so many rows on average."""
LONGEST_CATEGORY = 100
"""Characters of a category; what is longer, or goes over several lines, is text."""
LONGEST_NAME = 60
UNREADABLE = 0.02
"""Share of values that may be unreadable before a column is no number (or moment)."""
MOST_WORDS, FEW_WORDS = 0.3, 5
"""Share of a column of numbers that may be words, and how many different ones."""
RARELY, MOSTLY = 0.01, 0.99
"""Between these shares a column of one value says something by being filled."""
EXACT = 2**53
"""From here on whole numbers are not told apart as numbers; they are text."""
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
"""Forms of moments that look like whole numbers, and how many digits they have."""
EPOCHS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
"""Units in which moments are counted since 1970, by their number in a second."""
EXCEL = "days since 1899-12-30"

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_INFINITE = r"(?i)[-+]?(?:inf(?:inity)?|∞)"
_GROUPED_OR_SHORT = r"[-+]?(?:\d{1,3}|[1-9]\d{0,2}(?:\.\d{3})+)"
"""What may be a number with points for thousands: 1.234 or 12."""
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
    """One column and what it seems to be.

    Args:
        header: as the file has it.
        name: as the contract calls it: a Python identifier.
        kind: see the module.
        missing: share of rows without a value.
        unreadable: rows whose value the kind cannot read, and one of these values.
        categories: of a category, sorted.
        low, high: of numbers.
        infinite: rows whose number is infinite; these become missing.
        form: of a moment.
        reader: how a number has to be read: ``amount`` (currency, thousands), ``comma`` (decimal comma), ``hours`` (a
            time of the day), or plain.
        unit: what stands behind each number, such as ``kg``.
        rival: another reader that reads every value as well, and most as other numbers.
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
        """Whether values are missing, or become so."""
        return self.missing > 0 or self.unreadable > 0 or self.infinite > 0


def identifiers(headers: Sequence[str]) -> dict[str, str]:
    """A Python identifier for each header: itself where it is one (in any script), else its words joined by _."""
    taken: dict[str, str] = {}
    for position, header in enumerate(headers):
        # Python reads identifiers in this normal form: a name in another one would not be found.
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
    """What a column of text is.

    Args:
        header: as the file has it.
        name: as the contract will have it.
        values: text.
        reader: preferred where numbers can be read in several ways.
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
    """A column of one value, which some rows have and others have not."""
    value = str(values.iloc[0])
    return replace(column, kind="category", categories=(value,), notes=(f"'{value}' or nothing",))


def _boolean(column: Column, values: pd.Series) -> Column | None:
    if column.distinct > 20:
        return None
    said = set(values.str.lower().unique())
    if len(said) == 2 and len(said & set(TRUE)) == 1 and len(said & set(FALSE)) == 1:
        return replace(column, kind="boolean")
    return None


def read_numbers(values: pd.Series, reader: Reader) -> pd.Series:
    """float64 of text by a reader, missing where it cannot be read; infinite values stay infinite."""
    if reader == "hours":
        return hours(values)
    plain = number(values, decimal="," if reader == "comma" else ".") if reader else values
    return pd.to_numeric(plain, errors="coerce").astype("float64")


def _number(column: Column, values: pd.Series, preferred: Reader) -> Column | None:
    # A number that begins with a nought is a name of something: a postcode, an account.
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
    """What to say of numbers such as -999 that stand far from all others, several times."""
    found = []
    for extreme in (float(read.min()), float(read.max())):
        rest = read[read != extreme]
        times = len(read) - len(rest)
        if rest.empty or times < max(3, RARELY * len(read)) or not re.fullmatch(r"-?9{2,}\.0|-1\.0", str(extreme)):
            continue
        if min(abs(extreme - rest.min()), abs(extreme - rest.max())) > rest.max() - rest.min():
            found.append(
                f"{extreme:g} stands in {times} rows, far from all others; clean() has to say if it means missing"
            )
    return found


def _with_unit(column: Column, values: pd.Series, preferred: Reader) -> Column | None:
    """The column as numbers where the same unit stands behind nearly all of them."""
    units = values.str.extract(_UNIT)[0]
    if column.unit or units.isna().all() or (units == (unit := str(units.mode()[0]))).mean() < 1 - UNREADABLE:
        return None
    able = _number(replace(column, unit=unit), values.str.removesuffix(unit).str.strip(), preferred)
    return replace(able, reader=able.reader or "amount") if able is not None and able.kind in NUMBERS else None


def _without_words(column: Column, values: pd.Series, preferred: Reader) -> Column | None:
    """The column as numbers where all else are a few words that recur: unknown, not measured."""
    for reader in get_args(Reader):
        readable = _readable(values, reader)
        words = values[~readable]
        if 1 - MOST_WORDS <= readable.mean() < 1 and words.nunique() <= FEW_WORDS and values.nunique() > 4 * FEW_WORDS:
            said = sorted(set(words))
            missing = 1 - (1 - column.missing) * float(readable.mean())
            less = replace(column, words=tuple(sorted({*column.words, *said})), missing=missing)
            found = _number(less, values[readable], preferred)
            note = f"{len(words)} values are words and become missing: {', '.join(said)}"
            return replace(found, notes=(*found.notes, note)) if found is not None else None
    return None


def _whole_numbers(column: Column, values: pd.Series, read: pd.Series) -> Column | None:
    """Whole numbers: moments, names of things, or counts; ``None`` where as numbers they would run together."""
    if _MOMENT_NAME.search(_snake(column.header)) and (moment := as_moment(column, values, surely=True)) is not None:
        return moment
    if read.abs().max() >= EXACT:
        # A measured value is not written to the last of 16 digits, but as 1.5e20.
        return None if values.str.fullmatch(r"[-+]?\d+").mean() >= 1 - UNREADABLE else column
    named = _IDENTIFIER_NAME.search(column.header.strip()) is not None
    if column.distinct == len(read) and not column.nullable and (named or _counts_up(read)):
        return replace(column, kind="identifier", why="each row has its own")
    if named and column.distinct > MOST_CATEGORIES:
        return replace(column, kind="identifier", why="named like one")
    return replace(column, kind="integer")


def _able_readers(values: pd.Series) -> dict[Reader, pd.Series]:
    """The readers that read most values, and all of them as many; by each which values."""
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
                break  # whole numbers are read alike by all
    best = max((readable.mean() for readable in able.values()), default=0)
    return {reader: readable for reader, readable in able.items() if readable.mean() == best}


def _readable(values: pd.Series, reader: Reader) -> pd.Series:
    if reader == "":
        return values.str.fullmatch(_NUMBER) | values.str.fullmatch(_INFINITE)
    if reader == "hours":
        return values.str.fullmatch(_TIME_OF_DAY) & hours(values).notna()
    readable = number(values, decimal=_DECIMAL[reader]).notna()
    # A number that is pointed for sure is nothing that a person writes who uses a decimal comma.
    return readable & ~values.str.fullmatch(POINTED) if reader == "comma" else readable


_DECIMAL = {"amount": ".", "comma": ","}


def _differs(values: pd.Series, read: pd.Series, reader: Reader) -> bool:
    """Whether another reader makes other numbers of some values."""
    return bool((read_numbers(values[read.index], reader) != read).any())


def _counts_up(read: pd.Series) -> bool:
    return bool((read.diff().dropna() == 1).all()) and len(read) > 2


def as_moment(column: Column, values: pd.Series, *, surely: bool = False) -> Column | None:
    """Numbers as moments: digits of a day, or a count of seconds (milliseconds, …) since 1970 or of Excel's days.

    Args:
        column: as guessed.
        values: its text; blanks and words for missing values may be among it.
        surely: take no number for a moment that is likely to be something else.
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
            words = form if form in DIGIT_FORMS else f"{form}, by its size"
            return replace(found, low=math.nan, high=math.nan, notes=(*found.notes, f"read as moments: {words}"))
    return None


def _moment(column: Column, values: pd.Series) -> Column | None:
    some = values.head(100)
    if some.str.fullmatch(_DATE_LIKE).mean() < 1 - 2 * UNREADABLE or some.str.len().median() > 40:
        return None
    if some.str.fullmatch(r"[\d.]+").all() and not some.str.fullmatch(r"\d{1,4}\.\d{1,2}\.\d{1,4}").all():
        return None
    return _moments_by(column, values, FORMS)


def _moments_by(column: Column, values: pd.Series, forms: Sequence[str]) -> Column | None:
    """The column as moments in the form that reads most of its values."""
    endless = values.str.contains(r"\b(?:9999|0001)\b") & ~values.str.fullmatch(r"\d+")  # 'for ever', in many systems
    bounded = values[~endless]
    some = bounded.head(1_000)
    able: list[tuple[str, pd.Series]] = []
    for form in forms:
        if some.empty or moments(some.head(20), form).notna().mean() < 0.75:  # most forms are none of it
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
        column = replace(column, lower=True, distinct=lowered, notes=("read in lower case: its values differ in case",))
    named = _IDENTIFIER_NAME.search(column.header.strip()) is not None
    one_word = float(values.str.count(r"\s+").mean()) < 0.2
    coded = float(values.str.fullmatch(r"[A-Za-z]*[-_]?\d[\w-]*").mean()) > 0.9
    long_digits = float(values.str.fullmatch(r"\d{16,}").mean()) > 1 - UNREADABLE
    kind: Kind
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
        return replace(column, kind="personal", why="by its name it is about a person")
    return column


def _snake(header: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.-]+", "_", header.strip())
