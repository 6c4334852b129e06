"""The reply to a question: template and passages with their sources, or the reason why a person has to answer.

Belongs here: composing a reply, contradictions between documents, and whether each sentence has its source. Does not
belong here: searching (``search.py``), thresholds (``answering.py``), a language model that writes (``writer.py``).

The question is data. It is searched for words, and its slots are copied into a template; nothing in it is followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assets.knowledge import slots_in
from assets.lifecycle.retrieval.documents import Chunk, sentences
from assets.lifecycle.retrieval.search import Passage, words_of
from assets.lifecycle.retrieval.slots import slots_of

TEMPLATE = "template:"
"""Source of a sentence of a template, followed by the intent."""
NEAR_THE_BEST = 0.9
"""A further passage is used if its score is at least this share of the best one's."""
SAME_SUBJECT = 0.5
"""Two sentences are about the same if they share this part of their words, numbers aside."""
GROUNDED_WORDS = 0.7
"""Share of a sentence's words that one passage must have, if the sentence was written freely."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|cannot|without|none)\b|n't\b", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """From which probability an intent is answered by its template, and from which score a passage is used."""

    intent: float
    passage: float


@dataclass(frozen=True)
class Sentence:
    """A sentence of a reply, and its source: a chunk such as ``refunds#1``, or ``template:refund``."""

    text: str
    source: str


@dataclass(frozen=True)
class Reply:
    """An answer, or a hand-over.

    Attributes:
        text: what the customer reads, with sources in brackets; empty if it abstained.
        sentences: the sentences, with their sources.
        citations: the chunks that are cited.
        abstained: whether a person has to answer.
        reason: why.
        contradiction: whether two documents disagree.
        written_by: ``templates``, or ``model`` for a language model that wrote freely.
        note: why a language model's text was not used; empty if none was asked, or it was used.
    """

    sentences: tuple[Sentence, ...] = ()
    citations: tuple[Chunk, ...] = ()
    abstained: bool = False
    reason: str = ""
    contradiction: bool = False
    written_by: str = "templates"
    note: str = ""

    @property
    def text(self) -> str:
        """The reply as it is read; a source follows the last of its sentences."""
        said = []
        for i, one in enumerate(self.sentences):
            last = i + 1 == len(self.sentences) or self.sentences[i + 1].source != one.source
            said.append(f"{one.text} [{one.source}]" if last and not one.source.startswith(TEMPLATE) else one.text)
        return " ".join(said)

    def to_json(self) -> dict[str, Any]:
        """The reply for a response."""
        cited = [
            {**asdict(chunk), "updated": chunk.updated.isoformat(), "chunk": chunk.name} for chunk in self.citations
        ]
        return {
            "reply": self.text,
            "sentences": [asdict(sentence) for sentence in self.sentences],
            "citations": [
                {name: one[name] for name in ("chunk", "document", "title", "updated", "text")} for one in cited
            ],
            "abstained": self.abstained,
            "reason": self.reason,
            "contradiction": self.contradiction,
            "written_by": self.written_by,
            "note": self.note,
        }


def compose(
    question: str, intent: str, probability: float, passages: Sequence[Passage], templates: Mapping[str, str],
    limits: Limits, most: int = 3,
) -> Reply:  # fmt: skip
    """Composes the reply.

    Args:
        question: the text.
        intent: the most probable intent.
        probability: its probability.
        passages: what was found, the best first.
        templates: template by intent.
        limits: the thresholds.
        most: maximum number of sentences from passages.
    """
    if not words_of(question):
        return Reply(abstained=True, reason="the question has no word that says what it is about")
    sure = probability >= limits.intent and intent in templates
    opening = filled(templates[intent], slots_of(question)) if sure else []
    said = [Sentence(text, f"{TEMPLATE}{intent}") for text in opening]
    good = [one for one in passages if one.score >= limits.passage]
    if not said and not good:
        best = f"the best passage scores {passages[0].score:.2f}" if passages else "no passage was found"
        return Reply(
            abstained=True,
            reason=f"the intent is not certain ({probability:.2f} of at least {limits.intent:.2f} for '{intent}'), and "
            f"the knowledge base has no answer ({best}, at least {limits.passage:.2f} is needed)",
        )
    pair = next(contradictions(good), None)
    if pair is not None:
        newer, older = sorted(pair, key=lambda one: one[0].updated, reverse=True)
        for (chunk, sentence), begin in ((newer, "As of"), (older, "An older document, of")):
            said.append(Sentence(f"{begin} {chunk.updated.isoformat()}, “{chunk.title}”: {sentence}", chunk.name))
        others = [text for text in sentences(newer[0].text) if text != newer[1]]
        said += [Sentence(text, newer[0].name) for text in others[: most - 1]]
        return Reply(tuple(said), (newer[0], older[0]), contradiction=True, reason="two documents disagree")
    cited: list[Chunk] = []
    for one in good:
        room = most - sum(not sentence.source.startswith(TEMPLATE) for sentence in said)
        if room <= 0 or one.score < NEAR_THE_BEST * good[0].score:
            break
        said += [Sentence(text, one.chunk.name) for text in sentences(one.chunk.text)[:room]]
        cited.append(one.chunk)
    return Reply(tuple(said), tuple(cited), reason="intent and passages" if sure and cited else
                 f"intent '{intent}'" if sure else "passages")  # fmt: skip


def filled(template: str, slots: Mapping[str, str]) -> list[str]:
    """The sentences of a template with their slots; a sentence whose slot the question does not say is left out."""
    return [one.format(**slots) for one in sentences(template) if slots_in(one) <= set(slots)]


def contradictions(passages: Sequence[Passage]) -> Iterator[tuple[tuple[Chunk, str], tuple[Chunk, str]]]:
    """Pairs of sentences of different documents that are about the same, and differ in a number or in a "not".

    This finds prices and periods that changed, not every contradiction.
    """
    said = [(one.chunk, text) for one in passages for text in sentences(one.chunk.text)]
    for i, (chunk, text) in enumerate(said):
        for other, another in said[i + 1 :]:
            if other.document != chunk.document and _disagree(text, another):
                yield (chunk, text), (other, another)


def _disagree(text: str, another: str) -> bool:
    words, others = (
        {word for word in words_of(one) if not any(sign.isdigit() for sign in word)} for one in (text, another)
    )
    if not words or not others or len(words & others) / len(words | others) < SAME_SUBJECT:
        return False
    numbers, other_numbers = _NUMBER.findall(text), _NUMBER.findall(another)
    differ = bool(numbers) and bool(other_numbers) and set(numbers) != set(other_numbers)
    return differ or bool(_NEGATION.search(text)) != bool(_NEGATION.search(another))


def without_source(reply: Reply, question: str, templates: Mapping[str, str]) -> list[str]:
    """The sentences of a composed reply that do not stand in their source."""
    cited = {chunk.name: chunk for chunk in reply.citations}
    lacking = []
    for one in reply.sentences:
        if one.source.startswith(TEMPLATE):
            template = templates.get(one.source.removeprefix(TEMPLATE), "")
            there = one.text in filled(template, slots_of(question))
        else:
            chunk = cited.get(one.source)
            there = chunk is not None and any(one.text.endswith(text) for text in sentences(chunk.text))
        if not there:
            lacking.append(one.text)
    return lacking


def source_of(sentence: str, chunks: Sequence[Chunk], question: str = "") -> str:
    """The chunk that a freely written sentence stands on; empty if there is none.

    One chunk must have most of its words, all of its numbers (unless the question says them), and say "not" if the
    sentence does. Addresses of the web must stand in it as they are.
    """
    words = set(words_of(sentence))
    asked = set(_NUMBER.findall(question))
    links = re.findall(r"(?:https?://|www\.)\S+", sentence)
    for chunk in chunks:
        there = set(words_of(chunk.searched))
        numbers = set(_NUMBER.findall(sentence)) - set(_NUMBER.findall(chunk.searched)) - asked
        fits = words and len(words & there) / len(words) >= GROUNDED_WORDS and not numbers
        denies = bool(_NEGATION.search(sentence)) and not _NEGATION.search(chunk.text)
        if fits and not denies and all(link.rstrip(".,;)") in chunk.text for link in links):
            return chunk.name
    return ""
