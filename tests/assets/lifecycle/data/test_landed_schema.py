"""A renamed, dropped or retyped column is named and refused; a new one is only named."""

import pandas as pd
import pytest

from assets.lifecycle.data.landed_schema import CLEAR, FEWEST, changes_of_schema, schema_of, told

NUMBERS, WORDS = [str(n / 4) for n in range(40)], [f"shop {n}" for n in range(40)]


def rows(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype="string[pyarrow]")


BEFORE = rows(amount=NUMBERS, shop=WORDS)


def messages(now: pd.DataFrame, before: pd.DataFrame = BEFORE) -> list[tuple[str, bool]]:
    return [(change.message, change.refused) for change in changes_of_schema(schema_of(before), schema_of(now))]


def test_the_same_columns_in_another_order_are_no_change():
    assert messages(rows(shop=WORDS, amount=NUMBERS)) == []
    assert told([]) == "the same columns with values of the same kind"


def test_a_renamed_column_is_refused_with_its_new_name():
    found = messages(rows(amount_eur=NUMBERS, shop=WORDS))
    assert found == [
        ("the source has no column 'amount' any more; is it 'amount_eur' now?", True),
        ("the column 'amount_eur' is new", False),
    ]


def test_a_dropped_column_is_refused_and_no_unlike_one_is_offered():
    assert messages(rows(amount=NUMBERS, zip=WORDS))[0] == ("the source has no column 'shop' any more", True)


def test_a_new_column_alone_is_only_named():
    changes = changes_of_schema(schema_of(BEFORE), schema_of(rows(amount=NUMBERS, shop=WORDS, tip=NUMBERS)))
    assert told(changes) == "the column 'tip' is new; the contract does not know it yet"


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        (NUMBERS, [f"{n} EUR" for n in NUMBERS], "held numbers and now holds text, for example '0.0 EUR'"),
        (WORDS, NUMBERS, "held text and now holds numbers, for example '0.0'"),
    ],
)
def test_a_column_of_another_kind_is_refused_with_an_example(was, now, message):
    changes = changes_of_schema(schema_of(rows(a=was)), schema_of(rows(a=now)))
    assert [(change.message, change.refused) for change in changes] == [(f"the column 'a' {message}", True)]
    assert "accept_schema: true" in told(changes)


@pytest.mark.parametrize(
    "now",
    [
        WORDS[: FEWEST - 1],  # too few values
        [None] * 40,
        [" "] * 40,
        NUMBERS[:36] + WORDS[:4],  # neither clearly numbers nor clearly text
    ],
)
def test_what_is_not_clear_is_left_to_the_contract(now):
    assert messages(rows(a=now), rows(a=NUMBERS)) == []


def test_the_limits_of_what_is_clear():
    few = int(40 * (1 - CLEAR))
    assert messages(rows(a=WORDS[few:] + NUMBERS[:few]), rows(a=NUMBERS[few:] + WORDS[:few]))
    assert not messages(rows(a=WORDS[few + 1:] + NUMBERS[: few + 1]), rows(a=NUMBERS))  # fmt: skip
    assert messages(rows(a=WORDS[:FEWEST]), rows(a=NUMBERS[:FEWEST]))


def test_blank_values_do_not_count():
    assert messages(rows(a=[*NUMBERS, *[""] * 40]), rows(a=[*WORDS, *[None] * 40]))


def test_typed_columns_of_another_asset_are_compared_too():
    before, now = pd.DataFrame({"a": range(30)}), pd.DataFrame({"a": WORDS})
    assert messages(now, before)[0][0].startswith("the column 'a' held numbers and now holds text")


def test_cells_that_hold_lists_are_text():
    assert schema_of(pd.DataFrame({"a": [[1, 2], None] * 30}))["a"].kind == "text"
