"""Words for yes and no in many languages.

Belongs here: pairs of words of which one means yes. Does not belong here: reading a column with them (``reading.py``).
"""

from __future__ import annotations

YES_AND_NO = (
    ("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("1", "0"), ("1.0", "0.0"), ("on", "off"),
    ("vrai", "faux"), ("oui", "non"), ("o", "non"),  # French
    ("wahr", "falsch"), ("ja", "nein"), ("j", "n"),  # German
    ("verdadero", "falso"), ("sí", "no"), ("si", "no"), ("s", "n"),  # Spanish, Italian, Catalan
    ("verdadeiro", "falso"), ("sim", "não"), ("sim", "nao"), ("vero", "falso"),  # Portuguese, Italian
    ("waar", "onwaar"), ("ja", "nee"),  # Dutch, Afrikaans
    ("sand", "falsk"), ("sann", "usann"), ("ja", "nej"), ("ja", "nei"),  # Danish, Swedish, Norwegian
    ("kyllä", "ei"), ("jah", "ei"), ("jā", "nē"), ("taip", "ne"),  # Finnish, Estonian, Latvian, Lithuanian
    ("prawda", "fałsz"), ("tak", "nie"), ("ano", "ne"), ("áno", "nie"), ("da", "ne"),  # Polish, Czech, Slovak, Slovene
    ("igaz", "hamis"), ("igen", "nem"), ("da", "nu"), ("bai", "ez"),  # Hungarian, Romanian, Basque
    ("истина", "ложь"), ("да", "нет"), ("д", "н"), ("так", "ні"), ("да", "не"),  # Russian, Ukrainian, Bulgarian
    ("αληθές", "ψευδές"), ("ναι", "όχι"), ("doğru", "yanlış"), ("evet", "hayır"),  # Greek, Turkish
    ("是", "否"), ("真", "假"), ("对", "错"), ("對", "錯"), ("有", "无"), ("有", "無"), ("真", "偽"),  # Chinese
    ("はい", "いいえ"), ("예", "아니오"), ("네", "아니요"), ("참", "거짓"),  # Japanese, Korean
    ("ya", "tidak"), ("có", "không"), ("đúng", "sai"), ("ใช่", "ไม่ใช่"), ("ใช่", "ไม่"),  # Indonesian, Thai, …
    ("हाँ", "नहीं"), ("हां", "नहीं"), ("सही", "गलत"), ("হ্যাঁ", "না"), ("ஆம்", "இல்லை"),  # Hindi, Bengali, Tamil
    ("نعم", "لا"), ("صحيح", "خطأ"), ("بله", "خیر"), ("ہاں", "نہیں"), ("כן", "לא"), ("אמת", "שקר"),  # Arabic, Hebrew
    ("ndiyo", "hapana"), ("oo", "hindi"),  # Swahili, Filipino
)  # fmt: skip
"""Pairs of a word that means yes (or true) and its opposite, in lower case."""
TRUE = tuple(dict.fromkeys(yes for yes, _ in YES_AND_NO))
FALSE = tuple(dict.fromkeys(no for _, no in YES_AND_NO))
"""Words that are read as booleans, in lower case. No word is in both tuples."""

SIGNS = (
    ("positive", "negative"), ("pos", "neg"), ("present", "absent"), ("+", "-"), ("✓", "✗"), ("✔", "✘"), ("○", "×"),
    ("positiv", "negativ"), ("positif", "négatif"), ("positivo", "negativo"), ("阳性", "阴性"), ("陽性", "陰性"),
)  # fmt: skip
"""Further pairs of classes, in lower case; the probability should be that of the first class."""


def says_yes(word: str, other: str) -> bool:
    """Returns whether ``word`` is the positive one of two classes."""
    word, other = word.strip().lower(), other.strip().lower()
    return (word in TRUE and other in FALSE) or (word, other) in SIGNS
