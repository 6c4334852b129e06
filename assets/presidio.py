"""Finds more personal data in free text with Presidio's recognisers of patterns: `pip install 'assetline[presidio]'`.

Belongs here: Presidio's engine without a language model. Does not belong here: what is found without it
(``recognisers.py``).

Presidio finds names and places with a spaCy model, and no publisher offers one on PyPI, so it runs without: it finds
what has a form, such as numbers of passports, driving licences, bank accounts and wallets, and not the names of people.
Its recognisers of e-mail addresses and URLs are left out, because they fetch a list of domains from the network, and so
are dates.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

LEAST_SCORE = 0.4
"""Least certainty of a find, 0 to 1. Words around it such as "passport" raise it."""
_LEFT_OUT = {"EmailRecognizer", "UrlRecognizer", "DateRecognizer", "SpacyRecognizer"}


def redacted_by_presidio(text: str) -> str:
    """The text with ``<US_PASSPORT>``, ``<CRYPTO>``, … in place of what Presidio finds."""
    found = sorted(_engine().analyze(text, language="en", score_threshold=LEAST_SCORE), key=lambda one: one.start)
    made, end = [], 0
    for one in found:
        if one.start >= end:
            made += [text[end : one.start], f"<{one.entity_type}>"]
            end = one.end
    return "".join([*made, text[end:]])


@functools.cache
def _engine() -> Any:
    """Presidio's engine; it takes a second to make."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    class WithoutModel(NlpEngine):
        """Cuts text into words, which is all that recognisers of patterns need."""

        def __init__(self) -> None:
            self._words = spacy.blank("en")

        def load(self) -> None:
            """Nothing has to be loaded."""

        def is_loaded(self) -> bool:
            """It is always ready."""
            return True

        def process_text(self, text: str, language: str) -> Any:
            """The words of a text, without entities."""
            words = self._words(text)
            return NlpArtifacts(
                entities=[], tokens=words, tokens_indices=[word.idx for word in words],
                lemmas=[word.text.lower() for word in words], nlp_engine=self, language=language,
            )  # fmt: skip

        def process_batch(self, texts: Any, language: str, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
            """The words of several texts."""
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word: str, language: str) -> bool:
            """No word is left out."""
            return False

        def is_punct(self, word: str, language: str) -> bool:
            """No word is left out."""
            return False

        def get_supported_entities(self) -> list[str]:
            """None: these need a model."""
            return []

        def get_supported_languages(self) -> list[str]:
            """English: the words around a number are looked up in it."""
            return ["en"]

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    registry.recognizers = [one for one in registry.recognizers if str(getattr(one, "name", "")) not in _LEFT_OUT]
    return AnalyzerEngine(registry=registry, nlp_engine=WithoutModel(), supported_languages=["en"])
