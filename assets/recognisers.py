"""What personal data looks like: addresses and numbers, those with check digits proven by them.

Belongs here: recognising one value, and finding such values in free text. Does not belong here: what is done with them
(``protections.py``), what a whole column looks like (``scaffold/personal.py``).

Names and addresses of people have no form, so nothing here finds them in free text.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping

Valid = Callable[[str], bool]
"""Whether a text without blanks, points, slashes and hyphens is a number of some kind."""

EMAIL = r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,4}[^\W\d_]{2,24}"
_IP = r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_ABROAD = r"\+\d{1,3}[\s./-]?(?:\(0?\d{1,4}\)[\s./-]?)?\d(?:[\s./-]?\d){5,12}"
_PHONE = re.compile(
    rf"{_ABROAD}"
    r"|\(\d{2,5}\)[\s./-]?\d(?:[\s./-]?\d){4,9}"
    r"|00[1-9]\d(?:[\s./-]?\d){7,12}"
    r"|0[1-9]\d{1,4}[\s/-]\d(?:[\s./-]?\d){4,9}"
    r"|\d{3}[-.\s]\d{3}[-.\s]\d{4}"
    r"|(?:\+?86[\s-]?)?1[3-9]\d[\s-]?\d{4}[\s-]?\d{4}"
)
_SIGNS = r"[\s./-]"


def is_email(text: str) -> bool:
    """Whether a text is an e-mail address."""
    return re.fullmatch(EMAIL, text.strip()) is not None


def is_ip(text: str) -> bool:
    """Whether a text is an IPv4 address."""
    return re.fullmatch(_IP, text.strip()) is not None


def is_phone(text: str) -> bool:
    """Whether a text is a telephone number as people write them: international, in groups, or a Chinese mobile."""
    return _PHONE.fullmatch(text.strip()) is not None


def is_chinese_mobile(text: str) -> bool:
    """Whether a text is a Chinese mobile number."""
    return re.fullmatch(r"(?:\+?86)?1[3-9]\d{9}", compact(text)) is not None


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN with its check digits (ISO 13616)."""
    plain = compact(text).upper()
    if re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", plain) is None:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether a text is a card number of a known network, with its check digit (Luhn)."""
    plain = compact(text)
    known = re.fullmatch(
        r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
        r"|35\d{14}|62\d{14,17}", plain)  # fmt: skip
    return known is not None and luhn(plain)


def compact(text: str) -> str:
    """A text without the signs between groups of a number."""
    return re.sub(_SIGNS, "", text.strip())


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of ISO 7812."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        total += digit if place % 2 == 0 else 2 * digit - 9 * (digit > 4)
    return total % 10 == 0


# -- national identity numbers ----------------------------------------------------------------------------------------


def _weighted(digits: str, weights: str | list[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, map(int, weights), strict=False))


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        dt.date(year, month, day)
    except ValueError:
        return False
    return True


def _china(text: str) -> bool:
    if re.fullmatch(r"[1-9]\d{16}[\dXx]", text) is None:
        return False
    dated = 1850 < int(text[6:10]) < 2150 and _is_day(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    weights = [2 ** (17 - place) % 11 for place in range(17)]
    return dated and "10X98765432"[_weighted(text[:17], weights) % 11] == text[17].upper()


def _germany(text: str) -> bool:
    """The tax identification number."""
    if re.fullmatch(r"[1-9]\d{10}", text) is None:
        return False
    counts = sorted((text[:10].count(digit) for digit in set(text[:10])), reverse=True)
    product = 10
    for digit in text[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return counts[0] in (2, 3) and counts[1:] == [1] * (len(counts) - 1) and (11 - product) % 10 == int(text[10])


def _spain(text: str) -> bool:
    found = re.fullmatch(r"([XYZ]?)(\d{7,8})([A-Z])", text.upper())
    if found is None or len(text) != 9:
        return False
    number = int(f"{'XYZ'.index(found[1])}{found[2]}") if found[1] else int(found[2])
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == found[3]


def _france(text: str) -> bool:
    plain = text.upper()
    if re.fullmatch(r"[12]\d{2}(?:0[1-9]|1[0-2]|[2-9]\d)(?:\d\d|2[AB])\d{8}", plain) is None:
        return False
    number = int(plain[:13].replace("2A", "19").replace("2B", "18"))
    return 97 - number % 97 == int(plain[13:])


def _italy(text: str) -> bool:
    plain = text.upper()
    if re.fullmatch(r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", plain) is None:
        return False
    odd = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23]
    total = 0
    for place, sign in enumerate(plain[:15]):
        value = int(sign) if sign.isdigit() else ord(sign) - 65
        total += odd[value] if place % 2 == 0 else value
    return chr(65 + total % 26) == plain[15]


def _netherlands(text: str) -> bool:
    return (
        re.fullmatch(r"\d{9}", text) is not None
        and int(text) > 0
        and (_weighted(text[:8], "98765432") - int(text[8])) % 11 == 0
    )


def _belgium(text: str) -> bool:
    if re.fullmatch(r"\d{11}", text) is None or not int(text[2:4]) % 20 <= 12:
        return False
    return any(97 - int(century + text[:9]) % 97 == int(text[9:]) for century in ("", "2"))


def _poland(text: str) -> bool:
    if re.fullmatch(r"\d{11}", text) is None or not _is_day(2000, int(text[2:4]) % 20, min(int(text[4:6]), 31)):
        return False
    return (10 - _weighted(text[:10], "1379137913") % 10) % 10 == int(text[10])


def _sweden(text: str) -> bool:
    plain = text.replace("+", "")
    plain = plain[2:] if len(plain) == 12 else plain
    if re.fullmatch(r"\d{10}", plain) is None:
        return False
    return _is_day(2000, int(plain[2:4]), int(plain[4:6]) % 60) and luhn(plain)


def _britain(text: str) -> bool:
    """The national insurance number, which has no check digit, and the NHS number, which has one."""
    if re.fullmatch(r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", text.upper()):
        return True
    if re.fullmatch(r"\d{10}", text) is None:
        return False
    return (11 - _weighted(text[:9], [10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 == int(text[9])


def _united_states(text: str) -> bool:
    """The social security number, which has no check digit."""
    return re.fullmatch(r"(?!000|666|9)\d{3}(?!00)\d{2}(?!0000)\d{4}", text) is not None


def _brazil(text: str) -> bool:
    if re.fullmatch(r"\d{11}", text) is None or len(set(text)) == 1:
        return False
    first = _weighted(text[:9], list(range(10, 1, -1))) * 10 % 11 % 10
    second = _weighted(text[:10], list(range(11, 1, -1))) * 10 % 11 % 10
    return text[9:] == f"{first}{second}"


def _india(text: str) -> bool:
    """Aadhaar, with the check digit of Verhoeff."""
    if re.fullmatch(r"[2-9]\d{11}", text) is None:
        return False
    check = 0
    for place, digit in enumerate(map(int, reversed(text))):
        turned = digit
        for _ in range(place % 8):
            turned = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[turned]
        check = _dihedral(check, turned)
    return check == 0


def _dihedral(a: int, b: int) -> int:
    """The product of two elements of the dihedral group of order 10."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _japan(text: str) -> bool:
    if re.fullmatch(r"\d{12}", text) is None:
        return False
    rest = _weighted(text[:11], [6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11
    return (0 if rest <= 1 else 11 - rest) == int(text[11])


def _korea(text: str) -> bool:
    if re.fullmatch(r"\d{6}[1-8]\d{6}", text) is None or not _is_day(2000, int(text[2:4]), int(text[4:6])):
        return False
    return (11 - _weighted(text[:12], "234567892345") % 11) % 10 == int(text[12])


NATIONAL: Mapping[str, Valid] = {
    "China": _china, "Germany": _germany, "Spain": _spain, "France": _france, "Italy": _italy,
    "the Netherlands": _netherlands, "Belgium": _belgium, "Poland": _poland, "Sweden": _sweden,
    "Great Britain": _britain, "the United States": _united_states, "Brazil": _brazil, "India": _india,
    "Japan": _japan, "South Korea": _korea,
}  # fmt: skip
"""Identity numbers of persons by country. All but one of Great Britain's and that of the United States have check
digits."""


def is_national_id(text: str) -> bool:
    """Whether a text is the identity number of a person in any of these countries."""
    plain = compact(text)
    return any(valid(plain) for valid in NATIONAL.values())


# -- free text --------------------------------------------------------------------------------------------------------

_BEFORE, _AFTER = r"(?<![A-Za-z0-9@+])", r"(?![A-Za-z0-9@])"
_IN_TEXT: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("EMAIL", re.compile(EMAIL), is_email),
    ("IBAN", re.compile(rf"{_BEFORE}[A-Za-z]{{2}}\d{{2}}(?:[ -]?[A-Za-z0-9]){{11,30}}"), is_iban),
    ("PHONE", re.compile(_ABROAD), is_phone),  # before numbers that its digits may look like
    ("CARD", re.compile(rf"{_BEFORE}\d(?:[ -]?\d){{12,18}}{_AFTER}"), is_card),
    (
        "ID",
        re.compile(
            rf"{_BEFORE}(?:\d[\d ./-]{{7,24}}[\dXx]|[A-Za-z]{{1,6}}[A-Za-z0-9]{{7,14}}|\d{{8}}[A-Za-z]){_AFTER}"
        ),
        is_national_id,
    ),
    ("PHONE", re.compile(rf"(?<![A-Za-z0-9@+]){_PHONE.pattern.join(('(?:', ')'))}{_AFTER}"), is_phone),
    ("IP", re.compile(rf"{_BEFORE}{_IP}{_AFTER}"), is_ip),
)


def redacted(text: str) -> str:
    """Free text with ``<EMAIL>``, ``<PHONE>``, … in place of what looks like one.

    E-mail addresses, telephone numbers, IBANs, card numbers, IP addresses, and identity numbers with valid check digits
    are found. Names and postal addresses are not.
    """
    for kind, pattern, valid in _IN_TEXT:
        text = pattern.sub(lambda one, kind=kind, valid=valid: _marked(one[0], kind, valid), text)  # type: ignore[misc]
    return text


def _marked(found: str, kind: str, valid: Callable[[str], bool]) -> str:
    """What was found with its mark; a number may be followed by words that have the form of another group of it."""
    for end in range(len(found), 6, -1):
        if (end == len(found) or not found[end].isalnum()) and valid(found[:end]):
            return f"<{kind}>{found[end:]}"
    return found
