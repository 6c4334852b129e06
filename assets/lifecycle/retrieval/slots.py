"""What a question says of amounts, cards, countries and addresses, for the slots of a template.

Belongs here: simple recognisers. Does not belong here: personal data that must not be kept (``assets/recognisers.py``).
"""

from __future__ import annotations

import re

from assets.recognisers import EMAIL

COUNTRIES = (
    "Argentina", "Australia", "Austria", "Belgium", "Brazil", "Bulgaria", "Canada", "Chile", "China", "Colombia",
    "Croatia", "Czechia", "Denmark", "Egypt", "Estonia", "Finland", "France", "Germany", "Greece", "Hungary", "India",
    "Indonesia", "Ireland", "Israel", "Italy", "Japan", "Kenya", "Latvia", "Lithuania", "Luxembourg", "Malaysia",
    "Mexico", "Morocco", "the Netherlands", "New Zealand", "Nigeria", "Norway", "Poland", "Portugal", "Romania",
    "Singapore", "Slovakia", "Slovenia", "South Africa", "South Korea", "Spain", "Sweden", "Switzerland", "Thailand",
    "Turkey", "Ukraine", "the United Kingdom", "the United States", "Vietnam",
)  # fmt: skip
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d{1,2})?|\d{1,9}(?:[.,]\d{1,2})?"
_AMOUNT = re.compile(
    rf"[£€$¥₹]\s?(?:{_NUMBER})|(?<![\d.,])(?:{_NUMBER})\s?(?:€|£|\$|euros?|pounds?|dollars?|EUR|USD|GBP|CHF)\b",
    re.IGNORECASE,
)
_CARD = re.compile(r"\b(?:card|ending|ends)\b[^\d.?!]{0,20}(?<!\d)(\d{4})(?!\d)", re.IGNORECASE)
_BY_NAME = {name.lower().removeprefix("the "): name for name in COUNTRIES}
_COUNTRY = re.compile(rf"\b({'|'.join(map(re.escape, _BY_NAME))})\b", re.IGNORECASE)


def slots_of(question: str) -> dict[str, str]:
    """What the question says, by name of the slot; the first mention counts."""
    found: dict[str, str] = {}
    if amount := _AMOUNT.search(question):
        found["amount"] = amount[0].strip()
    if card := _CARD.search(question):
        found["card"] = card[1]
    if country := _COUNTRY.search(question):
        found["country"] = _BY_NAME[country[1].lower()]
    if email := re.search(EMAIL, question):
        found["email"] = email[0]
    return found
