"""Proposes tags for columns that look personal: by their values, or by their name and their values together.

Belongs here: what a column of personal data looks like, and what its name is in several languages. Does not belong
here: one value (``assets/recognisers.py``), what the tags do (``assets/personal.py``), writing them (``writing.py``).

A name alone proves nothing: ``PhoneService`` is yes or no, and the name of a film is no person's. So a name counts only
where the values could be that, too. Values count alone where they have a form of their own, such as an e-mail address,
or check digits that chance does not meet in nearly all rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from assets.recognisers import (
    NATIONAL,
    compact,
    is_card,
    is_chinese_mobile,
    is_email,
    is_iban,
    is_ip,
    is_phone,
    redacted,
)
from scaffold.columns import NUMBERS, Column

LOOKED_AT = 500
"""Number of distinct values of a column that are looked at."""
FEWEST = 10
"""Fewest distinct values about which anything is said."""
NEARLY_ALL, MOST = 0.95, 0.8
"""Share of the values that must have a form, and of those that must be possible under a name."""
IN_TEXT, FEWEST_IN_TEXT = 0.01, 5
"""Least share and number of free texts with an address or number of a person in it."""


@dataclass(frozen=True)
class Proposal:
    """A tag that is proposed: its kind, and why."""

    kind: str
    why: str


def _names(*words: str) -> re.Pattern[str]:
    """Matches a header with one of these words as a word of its own; of scripts without blanks, anywhere in it."""
    latin = "|".join(
        word for word in words if word.isascii() or (re.fullmatch(r"[\w?()|]+", word) and word[0] < "\u0400")
    )
    other = "|".join(word for word in words if word[0] >= "\u0400")
    return re.compile(rf"(?:^|_)(?:{latin})(?:$|_)" + (rf"|{other}" if other else ""))


_NAMES: Mapping[str, re.Pattern[str]] = {
    "email": _names("e_?mails?", "e_?mail_?addr(?:ess)?", "courriel", "correo(?:_electronico)?", "邮箱", "邮件", "郵件",
                    "メール", "이메일", "почта"),
    "phone": _names("phones?", "mobile", "cell(?:phone)?", "tel", "telephone", "telefon(?:nummer)?", "telefono",
                    "handy", "fax", "手机", "手機", "电话", "電話", "携帯", "전화", "휴대", "телефон"),
    "ip": _names("ip", "ip_?addr(?:ess)?", "client_?ip", "remote_?addr"),
    "iban": _names("iban"),
    "card": _names("card_?(?:no|nr|num|number)", "credit_?card", "pan", "kreditkarte", "carte_bancaire", "银行卡",
                   "信用卡", "卡号", "クレジット"),
    "national_id": _names("ssn", "social_security(?:_number)?", "passport(?:_no|_number)?", "national_?id",
                          "identity_?(?:card|number)", "nino", "nhs_?(?:no|number)", "steuer_?id", "dni", "nif", "nie",
                          "nir", "codice_fiscale", "bsn", "pesel", "personnummer", "cpf", "aadhaar", "curp", "身份证",
                          "身份證", "护照", "マイナンバー", "주민등록", "паспорт", "снилс"),
    "birth_date": _names("birth_?(?:date|day|dt)?", "born", "date_?of_?birth", "dob", "geburts(?:datum|tag)",
                         "geboren", "date_de_naissance", "naissance", "fecha_(?:de_)?nacimiento", "data_di_nascita",
                         "data_de_nascimento", "出生", "生日", "生年月日", "생년월일", "생일", "дата_рождения"),
    "address": _names("address", "addr", "street", "adresse", "strasse", "straße", "direccion", "dirección",
                      "indirizzo", "rue", "endereco", "地址", "住址", "住所", "주소", "адрес"),
    "name": _names("(?:first|last|full|middle|family|given|maiden|customer|patient|client|person|user|employee|contact|"
                   "holder|card_?holder|member|passenger|guest)_?names?", "surname", "forename", "vorname", "nachname",
                   "familienname", "prenom", "prénom", "nom_de_famille", "apellidos?", "cognome", "sobrenome", "姓名",
                   "名字", "氏名", "お名前", "이름", "성명", "имя", "фамилия", "фио"),
}  # fmt: skip
_BARE_NAMES = _names(
    "name", "nom", "nombre", "nome", "naam", "passenger", "customer", "patient", "名前", "顾客", "客户"
)
"""Headers that name persons or something else; their values decide."""

_PERSON = re.compile(r"[^\W\d_][^\W\d_'’.-]*(?:[ ,.'’-]+[^\W\d_][^\W\d_'’.-]*){1,4}\.?")
_CHINESE_PERSON = re.compile(r"[\u4e00-\u9fff]{2,4}")
_POSSIBLE: Mapping[str, Callable[[str], bool]] = {
    "email": lambda text: "@" in text,
    "phone": lambda text: 6 <= len(re.sub(r"\D", "", text)) <= 15 and not re.search(r"[^\W\d_]{3,}", text),
    "ip": lambda text: is_ip(text) or text.count(":") >= 2,
    "iban": lambda text: re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{8,30}", compact(text).upper()) is not None,
    "card": lambda text: 12 <= len(re.sub(r"[\D*xX]", "", text)) <= 19 or "*" in text,
    "national_id": lambda text: len(re.sub(r"\D", "", text)) >= 5,
    "birth_date": lambda text: re.search(r"(?:1[89]|20)\d\d|\d{1,2}[./-]\d{1,2}[./-]\d\d", text) is not None,
    "address": lambda text: re.search(r"[^\W\d_]{2,}", text) is not None and len(text) >= 4,
    "name": lambda text: re.search(r"[^\W\d_]", text) is not None and re.search(r"\d", text) is None,
}
_BY_VALUE: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "e-mail addresses": ("email", is_email),
    "IBANs with valid check digits": ("iban", is_iban),
    "card numbers with a valid check digit": ("card", is_card),
    "IP addresses": ("ip", is_ip),
    "telephone numbers": ("phone", is_phone),
}


def propose(column: Column, values: pd.Series) -> Proposal | None:
    """The tag that a column looks like; ``None`` if it does not look personal.

    Args:
        column: the column, as it was looked at.
        values: its text ``[n]``.
    """
    if column.kind in ("boolean", "constant", "empty"):
        return None
    some = _some(values)
    if len(some) < FEWEST:
        return None
    has_form = column.kind not in ("moment", "category")
    if has_form and (by_value := _by_value(column, some)) is not None:
        return by_value
    header = _snake(column.header)
    for kind, pattern in _NAMES.items():
        measured = kind in ("email", "address", "name") and column.kind in (*NUMBERS, "moment")
        if pattern.search(header) and not measured and _share(some, _POSSIBLE[kind]) >= MOST:
            return Proposal(kind, "its name and its values")
    if _BARE_NAMES.search(header) and _share(some, _is_person) >= MOST and column.kind != "category":
        return Proposal("name", "its name and its values")
    return _in_text(values) if column.kind == "text" else None


def _by_value(column: Column, some: list[str]) -> Proposal | None:
    is_number = all(text.isdigit() for text in some)
    for what, (kind, valid) in _BY_VALUE.items():
        if not (is_number and kind in ("phone", "ip")) and _share(some, valid) >= NEARLY_ALL:
            return Proposal(kind, f"its values are {what}")
    if column.kind == "number" or any("." in text for text in some):
        return None
    for country, valid in NATIONAL.items():
        if country == "the United States" and is_number:
            continue  # nine digits without hyphens and without a check digit prove nothing
        if _share([compact(text) for text in some], valid) >= NEARLY_ALL:
            return Proposal("national_id", f"its values are identity numbers of {country}")
    # Numbers that count up have few beginnings, and so do those of a year.
    if _share(some, is_chinese_mobile) >= NEARLY_ALL and len({compact(text)[-11:][:3] for text in some}) >= 5:
        return Proposal("phone", "its values are Chinese mobile numbers")
    return None


def _in_text(values: pd.Series) -> Proposal | None:
    texts = values.dropna().head(4 * LOOKED_AT).tolist()
    hits = sum("<" in made and made != text for text in texts if (made := redacted(text)))
    if hits >= FEWEST_IN_TEXT and hits >= IN_TEXT * len(texts):
        return Proposal("text", f"{hits} of {len(texts)} texts have an address or a number of a person in them")
    return None


def _is_person(text: str) -> bool:
    return bool(_CHINESE_PERSON.fullmatch(text)) or (
        _PERSON.fullmatch(text) is not None and text[:1].isupper() and len(text) <= 40
    )


def _some(values: pd.Series) -> list[str]:
    text = values.astype("string[pyarrow]").str.strip()
    return [str(value) for value in text[text.notna() & (text != "")].drop_duplicates().head(LOOKED_AT)]


def _share(some: list[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, some)) / len(some)


def _snake(header: str) -> str:
    return re.sub(r"(?<=[a-zà-ÿ])(?=[A-Z])|[\s.-]+", "_", header.strip()).lower()
