"""The sentinel refuses what gives the target away, names it with the evidence, and lets honest tables through."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from assets.declaration import DeclarationError, Evaluation, Features, Model, Table
from assets.lifecycle.model import leakage
from assets.lifecycle.model.leakage import leaks
from assets.lifecycle.model.training_set import _leakage
from assets.task import Task
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
    assert f"'{column}' alone nearly determines the target (AUC" in leak.message


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
    assert words in leak.message


def test_a_product_of_numbers_of_either_sign_is_seen_too():
    frame = rows().assign(amount=lambda f: f["amount"] - 10_000).assign(income=lambda f: f["amount"] * f["rate"])
    assert "'amount' × 'rate' gives 'income'" in found(frame, model("income"))[0].message


def test_a_sum_with_a_little_noise_is_one_all_the_same():
    noise = np.random.default_rng(0).normal(size=N)
    frame = rows().assign(income=lambda f: f["amount"] + f["rate"] * 1_000 + 100 * noise)
    assert found(frame, model("income"))[0].columns == ("amount", "rate")


def test_the_same_row_under_another_key_is_seen():
    frame = rows()
    twice = pd.concat([frame, frame.head(600).assign(loan=lambda f: f["loan"] + N)], ignore_index=True)
    assert "of the test rows are also among the fit rows under another 'loan'" in found(twice, model())[0].message


def test_rows_of_one_identifier_on_both_sides_are_seen_and_keeping_them_together_mends_it():
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 500, N)
    frame = rows().assign(owner=[f"p{i}" for i in owner], paid=(owner % 7 < 3).astype(float))
    frame.loc[rng.random(N) < 0.1, "paid"] = 1.0
    words = " ".join(leak.message for leak in found(frame, model()))
    assert "rows with the same 'owner' are on both sides of the split" in words
    together = model(evaluation=Evaluation(entity="owner"))
    test = owner < 100
    assert [leak for leak in leaks(frame, together, fit=~test, test=test) if "sides" in leak.message] == []


def test_a_moment_after_the_row_s_own_is_seen_unless_no_feature_looks_at_it():
    stream = replace(model(), table=replace(model().table, source=SimpleNamespace()))
    frame = rows()
    table = SimpleNamespace(time="at", key="loan", columns=("loan", "at", "closed", "income", "paid"))
    frame["at"], frame["closed"] = frame["asked"], frame["asked"] + pd.Timedelta(days=3)

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
        seen = [leak for leak in found(given, declared) if "is later than 'at' in 100% of the rows" in leak.message]
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


# -- one column, how far ----------------------------------------------------------------------------------------------


def alone(values, y, kind: str) -> list[str]:
    """What is said of one column."""
    classes = {"binary": (0, 1), "multiclass": ("a", "b", "c"), "regression": ()}[kind]
    return [
        leak.message for leak in leakage._alone({"x": pd.Series(values)}, np.asarray(y, float), Task(kind, classes))
    ]


def noise(n: int = N, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize(
    ("kind", "apart", "told"),
    [
        # AUC of two normals that lie so far apart: .978 and .993; the share of classes told right: .953 and .994.
        ("binary", 2.85, False), ("binary", 3.5, True), ("multiclass", 3.6, False), ("multiclass", 5.5, True),
        # R² of a line with noise: .98 and .99.
        ("regression", 7.0, False), ("regression", 10.0, True),
    ],
)  # fmt: skip
def test_how_well_one_column_must_tell_the_target_to_be_a_leak(kind, apart, told):
    n = 8_000
    if kind == "regression":
        y = noise(n, 1)
        values = apart * y + noise(n, 2)
    else:
        y = np.random.default_rng(1).integers(0, 2 if kind == "binary" else 3, n).astype(float)
        values = apart * y + noise(n, 2)
    assert bool(alone(values, y, kind)) is told


def test_a_measured_value_is_told_by_a_line_through_few_far_rows_and_by_steps_alike():
    far = np.random.default_rng(0).lognormal(0, 3, N)
    assert alone(far, far * 2 + 1, "regression") == [
        "'x' alone nearly determines the target (R² 1.000 on held-out rows)"
    ], "a tree has no rows for the largest"
    steps = np.random.default_rng(0).integers(0, 10, N)
    assert alone(steps, steps % 2 * 5.0, "regression"), "a line says nothing there"


def test_the_sign_of_a_line_does_not_matter_and_missing_values_are_told_too():
    y = noise()
    assert alone(-y, y, "regression")
    assert alone(np.where(y > 0, np.nan, 1.0), (y > 0).astype(float), "binary")
    assert alone(pd.Series(np.where(y > 0, None, "word"), dtype="string"), (y > 0).astype(float), "binary")


def test_classes_are_told_by_text_too():
    y = np.random.default_rng(0).integers(0, 3, N)
    assert alone(pd.Series(y).map({0: "red", 1: "green", 2: "blue"}), y, "multiclass")
    assert not alone(pd.Series(noise()).map(lambda x: "up" if x > 0 else "down"), y, "multiclass")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 7.0, None])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_column_that_is_always_the_same_tells_nothing(kind, value):
    y = np.arange(N) % (3 if kind == "multiclass" else 2)
    assert alone(pd.Series([value] * N, dtype="float64"), y, kind) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [0, 1])
def test_where_one_half_has_one_class_alone_nothing_can_be_told(side):
    half = np.random.default_rng(0).random(100) < 0.5  # as the halves are drawn
    y = np.where(half == bool(side), np.arange(100) % 2, 0).astype(float)
    assert y.sum() > 0
    assert alone(np.arange(100) % 2, y, "binary") == []


def test_at_most_so_many_rows_are_looked_at(monkeypatch):
    looked_at = []
    monkeypatch.setattr(leakage, "_alone", lambda columns, y, task: looked_at.append(len(y)) or [])
    for most, expected in ((N, N), (N - 1, N - 1), (500, 500), (10 * N, N)):
        monkeypatch.setattr(leakage, "MOST_ROWS", most)
        found(rows(), model())
        assert looked_at.pop() == expected


def test_word_numbers_of_a_text_are_no_columns_to_look_at():
    def compute(events, wanted):
        return {}

    features = Features(compute=compute, lookback_days=0, names=("rate", "note#0"), words=("note#0",))
    frame = rows().assign(**{"x_rate": noise(), "x_note#0": lambda f: f["paid"]})
    assert found(frame, model(features=features)) == []
    assert found(frame, model(features=replace(features, words=())))


# -- several columns, how far -----------------------------------------------------------------------------------------


def together(y, **columns) -> list[leakage.Leak]:
    return leakage._together({name: pd.Series(values) for name, values in columns.items()}, np.asarray(y, float), "y")


def uniform(seed: int, n: int = N, low: float = 1.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, n)


def test_two_and_three_columns_are_listed_as_people_would():
    a, b, c, other = uniform(1), uniform(2), uniform(3), uniform(4)
    [leak] = together(a + b, a=a, b=b, other=other)
    assert leak.message == "'a' and 'b' add up to 'y' (R² 1.0000)"
    [leak] = together(a + b - c, a=a, b=b, c=c, other=other)
    assert leak.message == "'a', 'b' and 'c' add up to 'y' (R² 1.0000)"
    [leak] = together(3 * a, a=a, other=other)
    assert leak.message == "'a' add up to 'y' (R² 1.0000)"


@pytest.mark.parametrize(("noisy", "told"), [(0.01, True), (0.02, False)])
def test_a_formula_must_be_all_but_exact(noisy, told):
    """The sum of two uniform columns varies by .41: R² is .9994 and .9976."""
    a, b = uniform(1), uniform(2)
    assert bool(together(a + b + noisy * noise(), a=a, b=b)) is told


@pytest.mark.filterwarnings("error")
def test_columns_that_do_not_vary_and_text_are_left_out():
    a, b = uniform(1), uniform(2)
    assert together(a + b, a=a, b=b, same=np.full(N, 3.0))[0].columns == ("a", "b")
    assert together(a + b, a=a, b=b, small=a * 1e-3 + b)  # its spread is small, and it is one all the same
    assert together(a, same=np.full(N, 3.0), words=pd.Series(["x"] * N)) == []


@pytest.mark.parametrize(("whole", "told"), [(49, False), (50, True)])
def test_fifty_rows_without_a_gap_are_enough(whole, told):
    a, b = uniform(1), uniform(2)
    a[whole:] = np.nan
    leaks = together(np.nan_to_num(a) + b, a=a, b=b)
    assert [leak.columns for leak in leaks] == ([("a", "b")] if told else [])


def test_dates_and_booleans_are_numbers_here():
    begun = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(np.random.default_rng(0).integers(0, 400, N), "D")
    ended = begun + pd.to_timedelta(np.random.default_rng(1).integers(0, 50, N), "D")
    days = (ended - begun).days
    assert set(together(days, begun=begun, ended=ended, other=uniform(3))[0].columns) == {"begun", "ended"}
    flag = np.random.default_rng(2).random(N) < 0.5
    assert set(together(flag + uniform(1), flag=flag, a=uniform(1))[0].columns) == {"flag", "a"}


def test_a_product_is_seen_by_logarithms_only_where_all_is_positive():
    a, b, c = uniform(1), uniform(2), uniform(3)
    assert together(a**2 * b / c, a=a, b=b, c=c)[0].message == "'a', 'b' and 'c' multiply to 'y' (R² 1.0000)"
    assert together(np.where(np.arange(N) < 3, -1.0, a**2 * b / c), a=a, b=b, c=c) == []
    negative = together(a**2 * b, a=a, b=b, minus=-c)
    assert negative[0].columns == ("a", "b"), "a column that is negative takes no part"
    tiny = uniform(1, low=1e-4, high=0.5)
    assert together(tiny**2 * b, a=tiny, b=b)[0].columns == ("a", "b"), "below one is positive, too"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a, b: a * b, "'a' × 'b' gives 'y' (R² 1.0000)"),
        (lambda a, b: -7 * a * b, "'a' × 'b' gives 'y' (R² 1.0000)"),
        (lambda a, b: a / b, "'a' / 'b' gives 'y' (R² 1.0000)"),
        (lambda a, b: b / a, "'b' / 'a' gives 'y' (R² 1.0000)"),
    ],
)
def test_products_and_quotients_of_either_sign_are_seen(make, words):
    a, b = uniform(1) * np.sign(noise()), uniform(2) * np.sign(noise(seed=6))
    [leak] = together(make(a, b), a=a, b=b, other=noise(seed=7))
    assert (leak.columns, leak.message) == (("a", "b"), words)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("zeros", "told"), [(0.05, True), (0.15, False)])
def test_a_quotient_may_be_undefined_in_a_tenth_of_the_rows(zeros, told):
    a, b = uniform(1) * np.sign(noise()), uniform(2) * np.sign(noise(seed=6))
    b[: int(zeros * N)] = 0.0
    with np.errstate(divide="ignore"):
        quotient = a / b
    y = np.where(np.isfinite(quotient), quotient, 0.3)
    assert bool(together(y, a=a, b=b)) is told


def test_of_many_columns_the_pairs_of_the_strongest_are_tried():
    a, b = noise(seed=1) + 3, noise(seed=2) + 3
    others = {f"c{i:02}": noise(seed=10 + i) for i in range(120)}
    [leak] = together(a * b, **others, a=a, b=b)
    assert leak.columns == ("a", "b")


@pytest.mark.filterwarnings("error")
def test_a_pair_whose_product_does_not_vary_is_no_formula():
    a = uniform(1) * np.sign(noise())
    assert together(noise(seed=9), a=a, b=1 / a) == []


def test_small_numbers_make_a_formula_like_large_ones():
    a, b = 0.1 * uniform(1) * np.sign(noise()), 0.1 * uniform(2) * np.sign(noise(seed=6))
    [leak] = together(a * b, a=a, b=b, other=noise(seed=7))
    assert leak.columns == ("a", "b")
    far = 1e-6 * np.random.default_rng(0).lognormal(0, 3, N)
    assert alone(far, far * 2, "regression"), "a line through few far rows, all of them small"


def test_of_classes_no_formula_is_sought():
    a, b = np.random.default_rng(0).integers(0, 2, N), np.random.default_rng(1).integers(0, 2, N)
    frame = rows().assign(rate=a, amount=b, purpose=(a + b).astype(float))
    assert found(frame, model("purpose")) == []
    frame = frame.assign(income=(a + b).astype(float))
    assert found(frame, model("income"))


# -- later moments, how many ------------------------------------------------------------------------------------------


def later(closed: pd.Series, compute=None, at=None) -> list[str]:
    def looks(events, wanted):
        return {"f": (events["closed"][wanted] - events["at"][wanted]).astype("timedelta64[h]").astype(np.float32)}

    frame = pd.DataFrame(
        {"loan": np.arange(len(closed)), "at": at, "closed": closed, "paid": np.arange(len(closed)) % 2}
    )
    table = SimpleNamespace(time="at", key="loan", columns=("loan", "at", "closed", "paid"))
    features = Features(compute=compute or looks, lookback_days=0, names=("f",))
    declared = SimpleNamespace(table=table, target="paid", features=features)
    return [leak.message for leak in leakage._later(frame, declared)]


AT = pd.Series(pd.Timestamp(2024, 1, 1) + pd.to_timedelta(np.arange(1_000), "h"))


@pytest.mark.parametrize(("share", "told"), [(0.009, False), (0.01, True), (1.0, True)])
def test_one_moment_in_a_hundred_may_not_be_later(share, told):
    closed = AT.where(AT.index >= share * len(AT), AT + pd.Timedelta(days=3))
    words = later(closed, at=AT)
    assert bool(words) is told
    if told:
        assert words == [
            f"'closed' is later than 'at' in {share:.0%} of the rows, so it is not known when a row is scored"
        ]


def test_the_same_moment_is_not_later():
    assert later(AT, at=AT) == []


def test_features_that_are_missing_whatever_the_moment_do_not_look_at_it():
    def missing(events, wanted):
        return {"f": np.full(len(wanted), np.nan, np.float32)}

    assert later(AT + pd.Timedelta(days=3), missing, at=AT) == []


# -- both sides of the split, how many --------------------------------------------------------------------------------


def halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are fitted on, and which report: the last fifth."""
    test = np.arange(n) >= 0.8 * n
    return ~test, test


def twins(frame: pd.DataFrame, columns=("income", "amount")) -> list[str]:
    fit, test = halves(len(frame))
    return [leak.message for leak in leakage._twins(frame, list(columns), model(), fit, test)]


@pytest.mark.parametrize(("copies", "told"), [(11, False), (12, True), (600, True)])
def test_two_in_a_hundred_test_rows_may_not_be_fit_rows(copies, told):
    frame = rows()
    copied = [column for column in frame if column != "loan"]
    frame.loc[N - copies :, copied] = frame.loc[: copies - 1, copied].to_numpy()
    words = twins(frame)
    assert bool(words) is told
    if told:
        share = f"{copies / 600:.0%}"
        assert words == [
            f"{share} of the test rows are also among the fit rows under another 'loan'; land each row once"
        ]


@pytest.mark.parametrize(("values", "told"), [(149, False), (150, True)])
def test_a_few_categories_repeat_by_themselves(values, told):
    frame = rows().assign(income=np.arange(N) % values, amount=0.0, paid=0.0)
    assert bool(twins(frame)) is told


def test_a_table_of_a_key_and_a_target_has_no_twins():
    assert twins(rows(), columns=()) == []


@pytest.mark.parametrize(
    ("name", "values", "an_identifier"),
    [
        ("customer_id", [1, 2], True), ("customerId", [1, 2], True), ("uuid", ["x"], True), ("BOX_NO", ["x"], True),
        ("postcode", [1, 2], False), ("post_code", [1, 2], True), ("id", [1.5], False), ("is_key", [True], False),
        ("the_number", pd.to_datetime(["2024-01-01"]), False), ("amount", [1, 2], False), ("idle", [3, 4], False),
        ("owner", ["p1", "AB-77", None], True), ("owner", ["x_12"] * 91 + ["ann"] * 9, True),
        ("owner", ["x_12"] * 90 + ["ann"] * 10, False), ("owner", ["12"], True), ("city", ["Rome", "Oslo"], False),
        ("owner", ["abcde1"], False),
    ],
)  # fmt: skip
def test_what_names_things_by_its_name_or_its_look(name, values, an_identifier):
    assert leakage._names_things(name, pd.Series(values)) is an_identifier


def siblings(owner: np.ndarray, y: np.ndarray, target: str = "paid", fit=None, test=None) -> str:
    """What is said of rows that have an owner in common."""
    frame = pd.DataFrame({"owner_id": owner, target: y})
    if fit is None:
        test = np.random.default_rng(3).random(len(frame)) < 0.2
        fit = ~test
    leak = leakage._siblings(frame, "owner_id", model(target), fit, test)
    return leak.message if leak else ""


def owned(groups: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(n) % groups)


@pytest.mark.parametrize(
    ("groups", "told"),
    # As many as 50 and as a fiftieth of the rows, and each twice in most cases.
    [(49, False), (59, False), (60, True), (300, True), (1_500, True), (2_700, False), (2_701, False), (N, False)],
)
def test_how_many_owners_there_may_be(groups, told):
    owner = owned(groups)
    assert bool(siblings(owner, (owner % 2).astype(float))) is told


def test_a_small_table_has_fewer_owners():
    assert siblings(owned(50, 500), (owned(50, 500) % 2).astype(float))
    assert not siblings(owned(49, 500), (owned(49, 500) % 2).astype(float))


@pytest.mark.parametrize(
    ("agree", "told"), [(1.0, True), (0.8, True), (0.5, False), (0.0, False)]
)  # correlations of about 1, .8, .45 and 0
def test_owners_must_agree_on_the_target(agree, told):
    owner, rng = owned(300), np.random.default_rng(1)
    y = np.where(rng.random(N) < agree, owner % 2, rng.integers(0, 2, N)).astype(float)
    assert bool(siblings(owner, y)) is told


@pytest.mark.parametrize(("agree", "told"), [(1.0, True), (0.8, True), (0.4, False), (0.0, False)])
def test_owners_must_agree_on_the_class(agree, told):
    owner, rng = owned(300), np.random.default_rng(1)
    y = np.where(rng.random(N) < agree, owner % 3, rng.integers(0, 3, N)).astype(float)
    assert bool(siblings(owner, y, "purpose")) is told


def test_a_class_that_nearly_all_rows_have_is_no_agreement():
    owner, rng = owned(300), np.random.default_rng(1)
    y = np.where(rng.random(N) < 0.05, rng.integers(1, 3, N), 0).astype(float)
    assert not siblings(owner, y, "purpose")
    assert siblings(owner, np.where(owner % 20 == 0, 1.0, 0.0), "purpose")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("known", "told"), [(19, False), (20, True)])
def test_twenty_rows_with_an_owner_that_is_known_are_enough(known, told):
    owner = np.arange(N)
    owner[-known:] = np.arange(known)  # each of these is in the fit rows, too
    owner[1_000:2_000] = owner[:1_000]
    fit, test = np.arange(N) < N - known, np.arange(N) >= N - known
    y = (owner % 2).astype(float)
    assert bool(siblings(owner, y, fit=fit, test=test)) is told


@pytest.mark.filterwarnings("error")
def test_where_all_known_rows_have_one_value_nothing_can_agree():
    owner = owned(300)
    test = np.random.default_rng(3).random(N) < 0.2
    y = np.where(test, 1.0, owner % 2)
    assert not siblings(owner, y, fit=~test, test=test)


@pytest.mark.parametrize(("share", "told"), [(0.17, False), (0.23, True)])
def test_a_fifth_of_the_test_rows_must_have_an_owner_that_is_known(share, told):
    owner = owned(300)
    fit, test = halves(N)
    strangers = np.flatnonzero(test)[int(share * test.sum()) :]
    owner[strangers] = 1_000 + np.arange(len(strangers))
    words = siblings(owner, (owner % 2).astype(float), fit=fit, test=test)
    assert bool(words) is told
    if told:
        assert words == (
            "rows with the same 'owner_id' are on both sides of the split (23% of the test rows share it with a fit "
            "row), and they agree on the target (correlation 1.00)"
        )


def test_a_city_that_recurs_is_worth_learning():
    fit, test = halves(N)
    frame = pd.DataFrame({"city": [f"city of {'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}" for i in owned(100)],
                          "paid": (owned(100) % 2).astype(float)})  # fmt: skip
    assert leakage._siblings(frame, "city", model(), fit, test) is None
