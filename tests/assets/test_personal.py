"""Tags of personal columns: which can be declared, and which are refused when the declaration loads."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from assets.declaration import DeclarationError, Evaluation, Model, Table, refuse_another_table
from assets.lifecycle.data.default_features import default_features
from assets.lifecycle.factory import lifecycle_assets
from assets.personal import KINDS, Tag, lineage_tags, made_of, personal, raw_tags_of, sensitive, tag_of_column, tags_of
from resources.sources import CsvFile, Stream
from tests.declarations.members import members
from tests.declarations.readings import Readings, plain


def contract(**fields: Any) -> type[pa.DataFrameModel]:
    """A contract with a key, a target, and these columns: type and field."""
    given = {"no": (Series[int], pa.Field(ge=0)), "left": (Series[bool], pa.Field()), **fields}
    annotations = {name: kind for name, (kind, _) in given.items()}
    return type("C", (pa.DataFrameModel,), {"__annotations__": annotations, **{n: f for n, (_, f) in given.items()}})


def model(raw_tags: dict[str, Any] | None = None, **fields: Any) -> Model:
    table = Table(name="people", source=CsvFile(path="x.csv"), key="no", contract=contract(**fields),
                  raw_tags=raw_tags or {})  # fmt: skip
    return Model(name="people", table=table, target="left")


def test_tags_are_those_of_the_contract_and_of_raw_columns_with_other_names():
    found = model(
        {"E-Mail": personal("email", column="email"), "Notes": personal("text", "drop")},
        email=(Series[str], pa.Field(metadata=personal("email"))),
        age=(Series[int], pa.Field(metadata=personal("age", width=5))),
        ill=(Series[bool], pa.Field(metadata=sensitive("keep", reason="the premium depends on it"))),
        plan=(Series[str], pa.Field(metadata={"other": 1})),
    )
    assert tags_of(found) == {
        "email": Tag("email", protect="pseudonym"),
        "age": Tag("age", protect="band", width=5),
        "ill": Tag("sensitive", sensitive=True, protect="keep", reason="the premium depends on it"),
    }
    assert set(raw_tags_of(found)) == {"email", "age", "ill", "E-Mail", "Notes"}
    assert [made_of(found, name) for name in ("email", "E-Mail", "Notes")] == ["email", "email", None]
    assert str(tags_of(found)["age"]) == "age, in bands"
    assert tags_of(plain()) == {}


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ((Series[str], personal("emial")), "'emial' is invalid: did you mean 'email'"),
        ((Series[str], personal("zzz")), "the kinds are id, name, email"),
        ((Series[str], personal("email", "pseudonim")), "'pseudonim' is invalid: did you mean 'pseudonym'"),
        ((Series[str], sensitive("hide")), "the protections are pseudonym, mask"),
        ((Series[str], personal("email", "keep")), "give the reason why"),
        ((Series[float], personal("age", width=0)), "give a width above 0"),
        ((Series[str], personal("postcode", length=0)), "give a length of at least 1"),
        ((Series[str], personal("postcode", "region")), "give the regions"),
        ((Series[str], {"personal": "email"}), "write it with personal"),
        ((Series[str], {"personal": {"sort": "email"}}), "write it with personal"),
        ((Series[str], personal("text", by="magic")), "give one of patterns, presidio"),
        ((Series[str], personal("email", column="no")), "`column` is for raw_tags"),
        ((Series[bool], personal("id")), "the column holds true and false, and this takes text or whole numbers"),
        ((Series[pd.Timestamp], personal("birth_date", "pseudonym")), "use band, drop"),
        ((Series[int], personal("phone", "mask")), "the column holds whole numbers, and this takes text"),
        ((Series[str], personal("name", "drop")), "declare nullable=True"),
    ],
)  # fmt: skip
def test_a_tag_that_cannot_work_is_refused_when_the_declaration_loads(field, says):
    kind, metadata = field
    with pytest.raises(DeclarationError, match=r"model 'people': table\.contract, column 'x'") as refused:
        model(x=(kind, pa.Field(metadata=metadata)))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        (pa.Field(isin=["ada", "ben"], metadata=personal("name")), "isin"),
        (pa.Field(str_length={"max_value": 10}, metadata=personal("name")), "str_length"),
        (pa.Field(str_matches=r".+@.+", metadata=personal("email")), "str_matches"),
        (pa.Field(isin=["10115", "80331"], metadata=personal("postcode")), "isin"),
    ],
)
def test_a_protection_whose_values_break_a_rule_of_the_contract_is_refused(field, rule):
    with pytest.raises(DeclarationError, match=rf"the contract's rule .*{rule}.* does not hold for a protected value"):
        model(x=(Series[str], field))


def test_rules_that_hold_for_protected_values_are_no_hindrance():
    model(
        email=(Series[str], pa.Field(str_matches=r".+@.+", metadata=personal("email", "mask"))),
        age=(Series[int], pa.Field(isin=[20, 30, 40], metadata=personal("age"))),
        years=(Series[float], pa.Field(ge=0, le=120, metadata=personal("age"))),
        area=(Series[str], pa.Field(isin=["10", "80"], metadata=personal("postcode"))),
        city=(Series[str], pa.Field(isin=["a", "b"], metadata=personal("address", "keep", reason="a district"))),
    )
    with pytest.raises(DeclarationError, match="for example 10"):
        model(age=(Series[int], pa.Field(ge=18, le=120, metadata=personal("age"))))
    with pytest.raises(DeclarationError, match="less_than_or_equal_to"):
        model(no=(Series[int], pa.Field(le=10**6, metadata=personal("id"))))


def test_columns_that_decide_days_rows_and_truth_keep_what_they_decide(tmp_path):
    with pytest.raises(DeclarationError, match="it identifies rows, so that different values must stay different"):
        model(no=(Series[int], pa.Field(metadata=personal("id", "band"))))
    with pytest.raises(DeclarationError, match="it is the target"):
        model(left=(Series[int], pa.Field(isin=[0, 1], metadata=sensitive("band", width=1))))
    visits = members(str(tmp_path / "x.csv"))
    with pytest.raises(DeclarationError, match="it identifies rows"):
        replace(visits, evaluation=Evaluation(entity="phone"))
    timed = type("Timed", (visits.table.contract,), {
        "__annotations__": {"at": Series[pd.Timestamp]}, "at": pa.Field(metadata=personal("birth_date")),
    })  # fmt: skip
    with pytest.raises(DeclarationError, match="it is the event time"):
        replace(visits, table=replace(visits.table, contract=timed))


class Growing(Stream):
    """A stream whose new rows are those with the greatest numbers."""

    def land(self, day):
        raise NotImplementedError

    def land_labels(self, day):
        raise NotImplementedError

    def landed_until(self):
        raise NotImplementedError

    def growing_column(self):
        return "visit_no"


def test_the_column_that_says_which_rows_are_new_cannot_be_a_pseudonym(tmp_path):
    visits = members(str(tmp_path / "x.csv"))
    with pytest.raises(DeclarationError, match="its rows land in the order of this column"):
        replace(visits, table=replace(visits.table, source=Growing()))


def test_raw_tags_name_raw_columns_and_agree_with_the_contract():
    field = (Series[str], pa.Field(metadata=personal("email")))
    with pytest.raises(DeclarationError, match="it is a column of the contract; tag it there"):
        model({"email": personal("email")}, email=field)
    with pytest.raises(DeclarationError, match=r'give personal\("…"\) or sensitive'):
        model({"E-Mail": "email"})
    with pytest.raises(DeclarationError, match="its column 'email' of the contract has pseudonym; give both the same"):
        model({"E-Mail": personal("email", "keep", reason="no", column="email")}, email=field)
    with pytest.raises(DeclarationError, match="`column` is for raw_tags, and names one of no, left"):
        model({"E-Mail": personal("email", column="mail")})


def test_a_shared_table_has_the_same_tags():
    owner = plain()
    tagged = type("Tagged", (Readings,), {
        "__annotations__": {"level": Series[float]}, "level": pa.Field(ge=0, le=100, metadata=sensitive("band")),
    })  # fmt: skip
    table = replace(owner.table, of="meter", source=None, contract=tagged)
    with pytest.raises(DeclarationError, match="column 'level'"):
        refuse_another_table(replace(owner, name="other", table=table), owner)
    table = replace(owner.table, of="meter", source=None, contract=type("Same", (Readings,), {}),
                    raw_tags={"Note": personal("text", "drop")})  # fmt: skip
    with pytest.raises(DeclarationError, match="raw_tags"):
        refuse_another_table(replace(owner, name="other", table=table), owner)


def test_a_pseudonym_is_no_default_feature_and_other_tags_follow_their_column(tmp_path):
    found = model(
        email=(Series[str], pa.Field(metadata=personal("email"))),
        age=(Series[int], pa.Field(metadata=personal("age"))),
        born=(Series[pd.Timestamp], pa.Field(metadata=personal("birth_date"))),
        plan=(Series[str], pa.Field(isin=["a", "b"])),
    )
    names = default_features(found).names
    assert not any("email" in name for name in names)
    tags = lineage_tags(found)
    shown = {name: str(tag) for name in (*names, "x_age", "row_email", "email") if (tag := tag_of_column(name, tags))}
    assert shown == {
        "age": "age, in bands", "born.days": "birth date, in bands", "born.month": "birth date, in bands",
        "born.weekday": "birth date, in bands", "born.hour": "birth date, in bands", "x_age": "age, in bands",
        "row_email": "email, pseudonymised", "email": "email, pseudonymised",
    }  # fmt: skip
    visits = lineage_tags(members(str(tmp_path / "x.csv")))
    assert str(tag_of_column("x_decade", visits)) == "birth date, in bands", "by the origin of a feature"
    assert tag_of_column("x_minutes", visits) is None


def test_every_kind_has_a_protection_and_a_landing_says_what_it_changes(tmp_path):
    assert {personal(kind)["personal"]["protect"] for kind in KINDS} <= {
        "pseudonym",
        "drop",
        "prefix",
        "band",
        "redact",
    }
    landing = next(
        spec for asset in lifecycle_assets(members(str(tmp_path / "x.csv"))) for spec in asset.specs
        if spec.key.path[-1] == "raw_visits"
    )  # fmt: skip
    assert "with tagged columns protected" in (landing.description or "")
