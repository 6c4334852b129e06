"""The sentinel refuses what gives the target away, names it with the evidence, and lets honest tables through."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from assets.declaration import DeclarationError, Evaluation, Model, Table
from assets.lifecycle.leakage import leaks
from assets.lifecycle.training import _leakage
from resources.sources import CsvFile

N = 3_000


class Loans(pa.DataFrameModel):
    loan: Series[int]
    income: Series[float]
    amount: Series[float]
    rate: Series[float]
    purpose: Series[str] = pa.Field(isin=["car", "house", "boat"])
    asked: Series[pd.Timestamp]
    owner: Series[str]
    paid: Series[bool]


def model(target: str = "paid", **given) -> Model:
    """A plain table's declaration; the target may be any of its columns."""
    table = Table(name="loans", source=CsvFile(path="loans.csv"), key="loan", contract=Loans)
    return Model(name="credit", table=table, target=target, **given)


def rows(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    income, amount = rng.normal(3_000, 800, N), rng.gamma(2, 5_000, N)
    chance = 1 / (1 + np.exp(-(income - 3_000) / 500 + amount / 20_000))
    return pd.DataFrame({
        "loan": np.arange(N), "income": income, "amount": amount, "rate": rng.uniform(1, 9, N),
        "purpose": rng.choice(["car", "house", "boat"], N),
        "asked": pd.Timestamp(2024, 1, 1) + pd.to_timedelta(rng.integers(0, 400 * 24, N), "h"),
        "owner": [f"p{i}" for i in rng.permutation(N)], "paid": (rng.random(N) < chance).astype(float),
    })  # fmt: skip


def found(frame: pd.DataFrame, declared: Model):
    test = np.random.default_rng(1).random(len(frame)) < 0.2
    return leaks(frame, declared, fit=~test, test=test)


def test_an_honest_table_passes():
    assert found(rows(), model()) == []
    assert found(rows(), model("income")) == []


LEAKS = {
    "a number": lambda f: f.assign(rate=f["paid"] * 5 + np.random.default_rng(2).normal(size=N) * 0.5),
    "a category": lambda f: f.assign(purpose=np.where(f["paid"] == 1, "car", "boat")),
    "being missing": lambda f: f.assign(rate=f["rate"].mask(f["paid"] == 1)),
    "a moment": lambda f: f.assign(asked=f["asked"] + pd.to_timedelta(f["paid"] * 5_000, "D")),
    "text": lambda f: f.assign(owner=np.where(f["paid"] == 1, "x", "y")),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_column_that_alone_decides_is_named_with_its_evidence(kind):
    leak = found(LEAKS[kind](rows()), model())[0]
    column = {"a category": "purpose", "a moment": "asked", "text": "owner"}.get(kind, "rate")
    assert leak.columns == (column,)
    assert f"'{column}' alone nearly decides the target (AUC" in leak.words


def test_classes_and_measured_values_have_a_single_column_that_decides_too():
    frame = rows()
    frame["rate"] = frame["income"] * 2 + np.random.default_rng(0).normal(size=N) * 10
    assert found(frame, model("income"))[0].columns == ("rate",)
    frame = rows().assign(purpose=lambda f: f["purpose"].map({"car": 0.0, "house": 1.0, "boat": 2.0}))
    frame["rate"] = frame["purpose"]
    assert found(frame, model("purpose"))[0].columns == ("rate",)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: f["amount"] + f["rate"] * 1_000, "add up to 'income'"),
        (lambda f: f["amount"] - f["rate"] * 1_000, "add up to 'income'"),
        (lambda f: f["amount"] * f["rate"], "multiply to 'income'"),
        (lambda f: (f["amount"] + 1) / f["rate"], "multiply to 'income'"),
    ],
)
def test_columns_that_make_up_the_target_are_named_together(make, words):
    leak = found(rows().assign(income=make), model("income"))[0]
    assert set(leak.columns) == {"amount", "rate"}
    assert words in leak.words


def test_a_product_of_numbers_of_either_sign_is_seen_too():
    frame = rows().assign(amount=lambda f: f["amount"] - 10_000).assign(income=lambda f: f["amount"] * f["rate"])
    assert "'amount' × 'rate' gives 'income'" in found(frame, model("income"))[0].words


def test_a_sum_with_a_little_noise_is_one_all_the_same():
    noise = np.random.default_rng(0).normal(size=N)
    frame = rows().assign(income=lambda f: f["amount"] + f["rate"] * 1_000 + 100 * noise)
    assert found(frame, model("income"))[0].columns == ("amount", "rate")


def test_the_same_row_under_another_key_is_seen():
    frame = rows()
    twice = pd.concat([frame, frame.head(600).assign(loan=lambda f: f["loan"] + N)], ignore_index=True)
    assert "of the test rows are among the fit rows, too, under another 'loan'" in found(twice, model())[0].words


def test_rows_of_one_identifier_on_both_sides_are_seen_and_keeping_them_together_mends_it():
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 500, N)
    frame = rows().assign(owner=[f"p{i}" for i in owner], paid=(owner % 7 < 3).astype(float))
    frame.loc[rng.random(N) < 0.1, "paid"] = 1.0
    words = " ".join(leak.words for leak in found(frame, model()))
    assert "rows of the same 'owner' are on both sides of the split" in words
    together = model(evaluation=Evaluation(entity="owner"))
    test = owner < 100
    assert [leak for leak in leaks(frame, together, fit=~test, test=test) if "sides" in leak.words] == []


def test_a_moment_after_the_row_s_own_is_seen_unless_no_feature_looks_at_it():
    stream = replace(model(), table=replace(model().table, source=SimpleNamespace()))
    frame = rows()
    table = SimpleNamespace(time="at", key="loan", columns=("loan", "at", "closed", "income", "paid"))
    frame["at"], frame["closed"] = frame["asked"], frame["asked"] + pd.Timedelta(days=3)
    from assets.declaration import Features

    def looks(events, wanted):
        return {"f": (events["closed"][wanted] - events["at"][wanted]).astype("timedelta64[h]").astype(np.float32)}

    def does_not(events, wanted):
        return {"f": events["income"][wanted].astype(np.float32)}

    for compute, expected in ((looks, 1), (does_not, 0)):
        features = Features(compute=compute, lookback_days=0, names=("f",))
        declared = SimpleNamespace(
            table=table, target="paid", features=features, task=stream.task, evaluation=Evaluation(), accepted_leaks={}
        )
        given = frame.assign(x_f=np.random.default_rng(0).normal(size=N))
        seen = [leak for leak in found(given, declared) if "is later than 'at' in 100% of the rows" in leak.words]
        assert len(seen) == expected


def test_an_accepted_column_passes_with_its_reason_and_others_do_not():
    frame = rows().assign(rate=lambda f: f["paid"] * 5)
    refused = _leakage(frame, model())
    assert not refused.passed
    assert "'rate' alone" in refused.description
    assert "No model is trained" in refused.description
    accepted = _leakage(frame, model(accepted_leaks={"rate": "set by hand before the loan is paid out"}))
    assert accepted.passed
    assert "set by hand" in accepted.description
    assert not _leakage(frame, model(accepted_leaks={"income": "known"})).passed


@pytest.mark.parametrize(("accepted", "words"), [({"rat": "x"}, "accepted_leaks='rat'"), ({"rate": " "}, "say why")])
def test_what_is_accepted_must_exist_and_have_a_reason(accepted, words):
    with pytest.raises(DeclarationError, match=words):
        model(accepted_leaks=accepted)
