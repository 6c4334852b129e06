"""The asset of the knowledge base: what is embedded again, what disappears, and its recall."""

import json

import pandas as pd
import pytest

from assets.lifecycle.data import embeddings
from assets.lifecycle.retrieval import knowledge
from tests.declarations.helpdesk import ARTICLES, helpdesk, write_article, write_knowledge
from tests.declarations.questions import small_language_model
from tests.stages import Stages


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return small_language_model(tmp_path_factory.mktemp("language") / "small")


@pytest.fixture
def stages(tmp_path, language_model):
    return Stages(helpdesk(write_knowledge(tmp_path / "knowledge"), language_model), tmp_path)


@pytest.fixture
def embedded(monkeypatch):
    """The texts of documents that get a vector."""
    seen: list[str] = []

    def counted(texts, language=None):
        seen.extend(texts)
        return embeddings.vectors_of(texts, language)

    monkeypatch.setattr(knowledge, "vectors_of", counted)
    return seen


def of_documents(texts):
    return [text for text in texts if ". " in text]  # declared questions have no title


def test_only_changed_chunks_are_embedded_again_and_deleted_documents_disappear(stages, tmp_path, embedded):
    assert stages.make("knowledge").success
    first = stages.tables.read(stages.model.key("knowledge"))
    assert set(first["document"]) == set(ARTICLES)
    assert len(of_documents(embedded)) == len(first)
    embedded.clear()
    assert stages.make("knowledge").success
    assert of_documents(embedded) == []
    version = stages.tables.existing_stamp(stages.model.key("knowledge")).data_version
    write_article(tmp_path / "knowledge", "cash", "Cash", "2026-04-01", "You have 6 free cash withdrawals a month.")
    assert stages.make("knowledge").success
    assert of_documents(embedded) == ["Cash. You have 6 free cash withdrawals a month."]
    assert stages.tables.existing_stamp(stages.model.key("knowledge")).data_version != version
    (tmp_path / "knowledge" / "fees.md").unlink()
    pairs = pd.DataFrame([("new card", "cards")], columns=["question", "document"])
    pairs.to_csv(tmp_path / "knowledge" / "pairs.csv", index=False)
    assert stages.make("knowledge").success
    assert set(stages.tables.read(stages.model.key("knowledge"))["document"]) == {"cards", "cash"}


def test_the_declared_questions_find_their_documents(stages):
    check = stages.make("knowledge").check("recall_at_5")
    assert check.passed
    assert check.metadata["recall_at_5"].value == 1


@pytest.mark.closes("knowledge", "recall_at_5")
def test_a_knowledge_base_that_lacks_documents_is_refused_and_the_former_stays(stages, tmp_path):
    assert stages.make("knowledge").success
    before = stages.tables.existing_stamp(stages.model.key("knowledge")).data_version
    (tmp_path / "knowledge" / "cards.md").unlink()
    done = stages.make("knowledge")
    assert not done.success
    check = done.check("recall_at_5")
    assert not check.passed
    assert "these documents are not there: cards" in check.description
    assert "when does a new card arrive" in check.description
    assert stages.tables.existing_stamp(stages.model.key("knowledge")).data_version == before


def test_a_document_that_cannot_be_read_fails_with_the_fix(stages, tmp_path):
    (tmp_path / "knowledge" / "bad.md").write_text("no head")
    done = stages.make("knowledge")
    assert not done.success
    assert "bad.md: begins without its day" in done.why


def test_the_digest_follows_the_files(stages, tmp_path):
    before = knowledge.digest_of(stages.model)
    write_article(tmp_path / "knowledge", "more", "More", "2026-04-01", "Text.")
    assert knowledge.digest_of(stages.model) != before


def test_vectors_survive_a_table(stages):
    assert stages.make("knowledge").success
    frame = stages.tables.read(stages.model.key("knowledge"))
    found = knowledge.index_of(frame)
    assert found.vectors.shape[0] == len(frame)
    assert json.dumps(frame["chunk"].tolist()) == json.dumps([chunk.name for chunk in found.chunks])
