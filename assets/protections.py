"""What a protection does to one value: text to text, or to nothing.

Belongs here: pseudonyms, masks, bands, prefixes, regions and redaction of one value, and whether a column's contract
can hold the result. Does not belong here: which columns are protected (``personal.py``), rows
(``assets/lifecycle/data/protection.py``).

Nothing stays nothing: a missing value, a blank, and a word that means missing are returned as they are. A value that
cannot be read as what a protection needs is never returned as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from assets.recognisers import redacted

if TYPE_CHECKING:
    from assets.personal import Tag

Form = Literal["text", "whole", "number", "moment", "truth"]
"""What a column of the contract holds."""

Function = Callable[[str], str | None]

PSEUDONYM = re.compile(r"p_[0-9a-f]{32}")
"""What the pseudonym of a text looks like."""
LARGEST = 2**53
"""Pseudonyms of whole numbers are below this, so that float64 holds them exactly."""
SAYS_MISSING = frozenset(("NA", "N/A", "n/a", "NaN", "nan", "<NA>", "NULL", "null", "\\N", "?", "-", "--"))
"""Words that stand for a missing value in files; they say nothing of a person, and a reader must still know them."""

_WHOLE = re.compile(r"([+-]?\d{1,18})(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_YEAR = r"(?:1[89]|20)\d\d"
_LETTERS = re.compile(r"[^\W\d_]+")
_IN_DATES = frozenset(("T", "Z", "年", "月", "日"))
_COMPACT = {"phone": r"[\s()./-]", "iban": r"[\s-]", "card": r"[\s-]", "national_id": r"[\s./-]"}
"""What does not count in values of a kind: people write it or leave it out."""


def form_of(dtype: str) -> Form:
    """What a column with this dtype of a contract holds."""
    lower = dtype.lower()
    if lower.startswith(("int", "uint")):
        return "whole"
    if lower.startswith("float"):
        return "number"
    if lower.startswith("datetime"):
        return "moment"
    return "truth" if lower.startswith("bool") else "text"


def protection(tag: Tag, form: Form, secrets: Sequence[bytes]) -> Function:
    """The function that protects a value of a tagged column.

    Args:
        tag: the tag.
        form: what the column of the contract holds.
        secrets: the keys of pseudonyms, the oldest first; only ``pseudonym`` needs them.
    """
    protect: Function
    if tag.protect == "pseudonym":
        assert secrets, "a pseudonym needs a key"
        numeric = form in ("whole", "number")

        def protect(text: str) -> str | None:
            whole = _WHOLE.fullmatch(text.strip()) if numeric else None
            # A number that cannot be read becomes a text, which the contract refuses as unreadable.
            return (
                pseudonym(normalised(tag.kind, text), secrets) if whole is None else whole_pseudonym(whole[1], secrets)
            )

    elif tag.protect == "band":
        protect = _banded(tag.width, form, tag.kind)
    elif tag.protect == "redact":
        protect = _redacting(tag.by)
    else:
        protect = {
            "mask": lambda text: masked(tag.kind, text.strip()),
            "prefix": lambda text: text.strip()[: tag.length],
            "region": lambda text: _region(text.strip(), tag.regions),
            "drop": lambda _: None,
            "keep": lambda text: text,
        }[tag.protect]
    return lambda text: text if not text.strip() or text.strip() in SAYS_MISSING else protect(text)


def normalised(kind: str, text: str) -> str:
    """The form of a value by which one person has one pseudonym: without blanks around it, in Unicode NFC."""
    plain = unicodedata.normalize("NFC", text.strip())
    if kind == "email":
        return plain.lower()
    if kind in _COMPACT:
        plain = re.sub(_COMPACT[kind], "", plain).upper()
        return f"+{plain[2:]}" if kind == "phone" and plain.startswith("00") else plain
    return plain


def pseudonym(text: str, secrets: Sequence[bytes]) -> str:
    """The pseudonym of a normalised text: ``p_`` and 32 hexadecimal digits of an HMAC-SHA-256.

    With several keys, it is that of the newest key on the pseudonym by the older ones, so that a stored pseudonym can
    get a newer key without the value.
    """
    for secret in secrets:
        text = f"p_{_digest(secret, text).hex()[:32]}"
    return text


def whole_pseudonym(digits: str, secrets: Sequence[bytes]) -> str:
    """The pseudonym of a whole number: a whole number of at most 53 bits, as text."""
    number = int(digits)
    for secret in secrets:
        number = int.from_bytes(_digest(secret, str(number))[:8], "big") >> 11
    return str(number)


def _digest(secret: bytes, text: str) -> bytes:
    return hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def masked(kind: str, text: str) -> str:
    """A value with most of it hidden: the domain of an e-mail address stays, the first letter of a name, else the last
    four characters of a long value."""
    if kind == "email":
        _, at, domain = text.rpartition("@")
        return f"***@{domain.lower()}" if at and re.fullmatch(r"[\w.-]+\.\w+", domain) else "***"
    if kind == "name":
        return f"{text[:1]}***"
    if kind in ("phone", "iban", "card", "id", "national_id"):
        signs = re.sub(r"\W", "", text)
        return f"***{signs[-4:]}" if len(signs) >= 8 else "***"
    return "***"


def _banded(width: float, form: Form, kind: str) -> Function:
    def number(text: str) -> str | None:
        found = _NUMBER.fullmatch(text.strip())
        if found is None or not math.isfinite(value := float(found[0])):
            return None
        low = math.floor(value / width) * width
        if form != "text":
            return f"{low:.15g}" if abs(low) < 1e15 else None
        return f"{low:.15g}-{low + width - (1 if float(width).is_integer() else 0):.15g}"

    is_date = form == "moment" or (form == "text" and kind == "birth_date")
    return (lambda text: _banded_date(text.strip(), width)) if is_date else number


def _banded_date(text: str, width: float) -> str | None:
    """The first day of a date's band of years, written as the date was; nothing if it has no clear year."""
    if any(letters not in _IN_DATES for letters in _LETTERS.findall(text)):
        return None  # a month by name would stay
    if re.fullmatch(rf"{_YEAR}\d{{4}}", text):
        return f"{_first_year(text[:4], width)}0101"
    years = re.findall(rf"(?<!\d){_YEAR}(?!\d)", text)
    if len(years) != 1:
        return None
    parts = iter(["01", "01"])
    return re.sub(
        r"\d+", lambda m: _first_year(m[0], width) if m[0] == years[0] else next(parts, "0" * len(m[0])), text
    )


def _first_year(year: str, width: float) -> str:
    return f"{int(math.floor(int(year) / width) * width):04d}"


def _region(text: str, regions: Mapping[str, str]) -> str | None:
    fitting = [beginning for beginning in regions if text.startswith(beginning)]
    return regions[max(fitting, key=len)] if fitting else None


def _redacting(by: str) -> Function:
    if by == "presidio":
        from assets.presidio import redacted_by_presidio

        return lambda text: redacted_by_presidio(redacted(text))
    return redacted


# -- whether a contract can hold the result ---------------------------------------------------------------------------

_FORMS: Mapping[str, Sequence[Form]] = {
    "pseudonym": ("text", "whole", "number"),
    "mask": ("text",),
    "band": ("text", "whole", "number", "moment"),
    "prefix": ("text",),
    "region": ("text",),
    "redact": ("text",),
}
"""What a column must hold for a protection; the others take any."""
_WORDS: Mapping[Form, str] = {
    "text": "text", "whole": "whole numbers", "number": "numbers", "moment": "times", "truth": "true and false",
}  # fmt: skip
_TRIED = (b"0" * 32, b"1" * 32, b"2" * 32)
"""Keys of pseudonyms that are only tried on a contract."""


def misfit(tag: Tag, column: Any) -> str | None:
    """Why a protection cannot meet the contract of a column, and what can; ``None`` if it can.

    Args:
        tag: the tag.
        column: the column of pandera's schema.
    """
    form = form_of(str(column.dtype))
    if tag.protect == "drop":
        return None if column.nullable else "the contract asks for a value; declare nullable=True, or choose another"
    fitting = _FORMS.get(tag.protect)
    if fitting is not None and form not in fitting:
        there = [name for name, forms in _FORMS.items() if form in forms]
        return f"the column holds {_WORDS[form]}, and this takes {_or(fitting)}; use {', '.join([*there, 'drop'])}"
    if not tag.protects:
        return None
    for check in column.checks:
        if (value := _broken(tag, form, column, check)) is not None:
            return (
                f"the contract's rule {check.error or check.name} does not hold for a protected value (for example "
                f"{value}); remove the rule, or choose another protection"
            )
    return None


def _or(forms: Sequence[Form]) -> str:
    return " or ".join(_WORDS[form] for form in forms)


def _broken(tag: Tag, form: Form, column: Any, check: Any) -> str | None:
    """A protected value that breaks a rule of the contract; ``None`` if none of those tried does."""
    import pandas as pd

    function = [protection(tag, form, (secret,)) for secret in _TRIED]
    for value in _examples(form, check, tag.kind):
        for protect in function:
            made = protect(value)
            if made is None:
                continue
            typed: Any = {"whole": int, "number": float, "moment": pd.Timestamp}.get(form, str)(made)
            try:
                passed = bool(check(pd.Series([typed])).check_passed)
            except Exception:  # a rule of its own may need other rows; those that land will tell
                continue
            if not passed:
                return made
    return None


def _examples(form: Form, check: Any, kind: str) -> list[str]:
    """Values of a kind that meet a rule of the contract, as they would come."""
    given = check.statistics or {}
    if "allowed_values" in given:
        return [str(value) for value in given["allowed_values"]]
    bounds = [given[name] for name in ("min_value", "max_value", "value") if given.get(name) is not None]
    if form in ("whole", "number") and bounds:
        return [f"{float(bound):.15g}" for bound in bounds if isinstance(bound, int | float)]
    text = {"email": ["ada@example.org"], "name": ["Ada Lovelace"], "birth_date": ["1983-12-24"], "ip": ["10.2.3.4"]}
    return {"moment": ["1983-12-24"], "text": text.get(kind, ["12345678901"])}.get(form, ["42", "1815"])
