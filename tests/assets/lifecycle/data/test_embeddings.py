"""Vectors of texts by a language model that is not fitted."""

import numpy as np
import pytest
import torch

from assets.language import Language
from assets.lifecycle.data.embeddings import AT_ONCE, vectors_of
from assets.lifecycle.data.word_pieces import LanguageError, LanguageFiles
from tests.declarations.questions import small_language_model

TEXTS = ["where is my card", "", "card " * 20_000, "你好，我的卡在哪里？", "😀🎉", "the the the", None]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return Language(model=str(small_language_model(tmp_path_factory.mktemp("language"))))


def test_a_text_has_one_vector_of_length_one_whatever_is_beside_it(language):
    together = vectors_of(TEXTS * AT_ONCE, language)
    alone = np.concatenate([vectors_of([text], language) for text in TEXTS])

    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert together[: len(TEXTS)] == pytest.approx(alone, abs=1e-5)
    assert vectors_of([None], language) == pytest.approx(vectors_of([""], language), abs=1e-6)


def test_the_vector_is_the_mean_of_what_the_language_model_gives(language):
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(language.model)("where is my card", return_tensors="pt")
    with torch.no_grad():
        mean = AutoModel.from_pretrained(language.model)(**tokens).last_hidden_state[0].mean(dim=0)

    assert vectors_of(["where is my card"], language)[0] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_no_texts_have_no_vectors(language):
    assert vectors_of([], language).shape == (0, LanguageFiles.of(language.model).network().config.hidden_size)


def test_a_language_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LanguageError, match="no-such-model"):
        vectors_of(["a"], Language(model=str(tmp_path / "no-such-model")))
