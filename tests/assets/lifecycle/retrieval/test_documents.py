"""Documents of a knowledge base, and their chunks."""

import datetime as dt

import pytest

from assets.lifecycle.retrieval.documents import MOST_WORDS, KnowledgeError, chunks_of, read_document, read_documents
from tests.declarations.helpdesk import write_article, write_knowledge


def test_a_document_is_read_in_chunks_of_whole_sentences(tmp_path):
    sentence = "A sentence of some words that says nothing new."
    text = " ".join([sentence] * 9) + "\n\n## A heading\n\nThe end."
    found = read_document(write_article(tmp_path, "long", "A long text", "2026-02-01", text))
    assert (found.title, found.updated) == ("A long text", dt.date(2026, 2, 1))
    chunks = chunks_of(found)
    assert [chunk.name for chunk in chunks] == ["long#1", "long#2", "long#3", "long#4"]
    assert chunks[-1].text == "The end."
    assert all(len(chunk.text.split()) <= MOST_WORDS for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks[:-1]) == " ".join([sentence] * 9)


def test_a_published_document_replaces_the_one_of_the_project(tmp_path):
    write_knowledge(tmp_path / "project")
    write_article(tmp_path / "state", "cash", "Cash", "2026-05-01", "Cash is free.")
    found = {one.name: one for one in read_documents([tmp_path / "project", tmp_path / "state"])}
    assert sorted(found) == ["cards", "cash", "fees"]
    assert found["cash"].paragraphs == ("Cash is free.",)
    assert len(read_documents([tmp_path / "project", tmp_path / "none"])) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# A title\n\ntext", "begin it with '---', 'updated: 2026-05-31'"),
        ("---\nupdated: yesterday\n---\n# A title\n\ntext", "begins without its day"),
        ("---\nupdated: 2026-05-31\n---\ntext", "no title"),
        ("---\nupdated: 2026-05-31\n---\n# A title\n", "no text under the title"),
    ],
)
def test_a_document_that_cannot_be_used_is_named_with_the_fix(tmp_path, content, said):
    (tmp_path / "bad.md").write_text(content)
    with pytest.raises(KnowledgeError, match=r"bad\.md: ") as refused:
        read_documents([tmp_path])
    assert said in str(refused.value)


def test_bytes_that_are_no_text_and_strange_names_and_no_documents_are_refused(tmp_path):
    with pytest.raises(KnowledgeError, match="no such folder"):
        read_documents([tmp_path / "none"])
    with pytest.raises(KnowledgeError, match=r"no \*.md file"):
        read_documents([tmp_path])
    (tmp_path / "a.md").write_bytes(b"\xff\xfe")
    with pytest.raises(KnowledgeError, match="UTF-8"):
        read_documents([tmp_path])
    with pytest.raises(KnowledgeError, match="rename it"):
        read_document(write_article(tmp_path, "a#b", "t", "2026-01-01", "x"))
