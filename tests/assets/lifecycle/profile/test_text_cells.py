"""Texts in cells of their vectors: what is the same passes, what is new drifts, and the file holds them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift_rule import EarlierWindow, WindowCounts, compare
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.lifecycle.profile.text_cells import cells_of, variation

WIDTH, DAYS, ROWS = 16, 7, 200


def texts(rows: int, seed: int, mix=None, new: float = 0.0) -> np.ndarray:
    """Vectors of texts of four kinds; ``new``: share of a kind that the reference does not have."""
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(0).normal(size=(5, WIDTH)) * 2
    kind = np.where(rng.random(rows) < new, 4, rng.choice(4, rows, p=mix))
    found = kinds[kind] + rng.normal(size=(rows, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def profile(days=None, **given) -> ReferenceProfile:
    vectors = np.concatenate(days or [texts(ROWS, seed) for seed in range(DAYS)])
    return ReferenceProfile.build(
        pd.DataFrame(index=range(len(vectors))), {}, day=np.arange(len(vectors)) // ROWS, texts={"text": vectors},
        language="small", **given,
    )  # fmt: skip


def counts(reference: ReferenceProfile, vectors: np.ndarray) -> WindowCounts:
    cells = reference.texts["text"]
    return WindowCounts({"text": cells.bins.count(cells.of(vectors))})


@pytest.mark.closes("drift", "drift")
def test_new_texts_warn_and_then_page_and_usual_ones_do_neither():
    reference, rule = profile(), Drift(min_rows=100)
    levels = {}
    for new in (0.0, 0.2):
        first = compare(reference, counts(reference, texts(ROWS, 100, new=new)), rule, day="1")
        before = EarlierWindow("1", counts(reference, texts(ROWS, 100, new=new)), True,
                               {c.column: c for c in first.columns}, first.since)  # fmt: skip
        second = compare(reference, counts(reference, texts(ROWS, 101, new=new)), rule, day="2", before=[before])
        levels[new] = (first.level, second.level)
    assert levels == {0.0: ("ok", "ok"), 0.2: ("warn", "page")}
    assert second.drifted_columns == ["text"]


def test_usual_texts_warn_in_few_windows():
    drifted = 0
    for world in range(10):
        reference = profile([texts(ROWS, 50 * world + seed) for seed in range(DAYS)], seed=world)
        for n in range(10):
            window = counts(reference, texts(ROWS, 10_000 + 50 * world + n))
            drifted += compare(reference, window, Drift(min_rows=100)).drifted
    assert drifted <= 6


def test_days_that_vary_make_the_test_less_sure():
    corrected = plain = 0
    for world in range(8):
        mixes = np.random.default_rng(world).dirichlet(np.full(4, 10), 20)
        reference = profile([texts(ROWS, 100 * world + seed, mixes[seed]) for seed in range(DAYS)], seed=world)
        for seed in range(DAYS, 20):
            window = counts(reference, texts(ROWS, 100 * world + seed, mixes[seed]))
            corrected += compare(reference, window, Drift(min_rows=100)).drifted
            plain += compare(replace(reference, design_effects={}), window, Drift(min_rows=100)).drifted
    assert corrected <= 8
    assert plain >= 3 * corrected


def test_the_cells_are_kept_and_hold_no_text(tmp_path):
    reference = profile()
    reference.save(tmp_path)
    stored = ReferenceProfile.load(tmp_path)
    vectors = texts(ROWS, 5)
    assert (stored.texts["text"].of(vectors) == reference.texts["text"].of(vectors)).all()
    assert stored.texts["text"].language == "small"
    assert stored.histograms["text"].counts.tolist() == reference.histograms["text"].counts.tolist()
    nearest = (stored.texts["text"].centres @ np.concatenate([texts(ROWS, seed) for seed in range(DAYS)]).T).max()
    assert nearest < 0.999, "a centre is no one's text"


def test_a_profile_without_texts_has_no_file_of_them(tmp_path):
    plain = ReferenceProfile.build(pd.DataFrame({"x": np.arange(50.0)}), {})
    plain.save(tmp_path)
    assert not (tmp_path / "texts.npz").exists()
    assert ReferenceProfile.load(tmp_path).texts == {}


def test_equal_or_few_texts_still_have_a_cell():
    same = np.repeat(texts(1, 0), 40, axis=0)
    cells, others = cells_of(same, "small")
    assert len(cells.centres) == 1
    assert len(others) == 20
    assert (cells.of(same) == 0).all()
    assert len(cells.of(same[:0])) == 0
    assert variation(np.zeros(10), np.zeros(10), cells.bins).day == 1
