"""Free text becomes word numbers that any process gets alike, and an encoder that can be exported."""

import numpy as np
import torch

from assets.lifecycle.data.text import BUCKETS, WORDS, text_encoder, word_numbers


def test_words_are_numbered_alike_whatever_their_case_and_place():
    numbers = word_numbers(["Late, again!", "again late", None, "", "x " * 99])
    assert numbers.shape == (5, WORDS)
    assert numbers.dtype == np.float32
    assert numbers[0, 0] == numbers[1, 1]
    assert numbers[0, 1] == numbers[1, 0]
    assert (numbers[:, 2:4].sum(axis=0)[0] > 0) == (numbers[4, 2] > 0)
    assert not numbers[2:4].any()
    assert (numbers[4] == numbers[4, 0]).all()
    assert numbers.max() <= BUCKETS
    assert numbers[0, 0] == np.float32(int(numbers[0, 0]))


def test_a_word_has_the_same_number_for_good():
    assert word_numbers(["refund"])[0, 0] == 5_209  # a bundle of last year rests on it


def test_the_encoder_sees_words_that_recur_and_no_others():
    texts = ["late parcel"] * 50 + ["happy parcel"] * 50 + ["unheard of"]
    numbers = torch.from_numpy(word_numbers(texts))
    encode = text_encoder(numbers).eval()
    with torch.no_grad():
        seen = encode(numbers)
        strange = encode(torch.from_numpy(word_numbers(["never seen before", ""])))
    assert seen.shape[0] == len(texts)
    assert not torch.allclose(seen[0], seen[60])
    assert not seen[-1].any(), "words of a single text are no evidence"
    assert not strange.any()
