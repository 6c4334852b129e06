"""Values of a database become the text that those of a Parquet file become, and the same text in every chunk."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.files import read_parquet
from resources.moments import moments
from resources.sources.sql_values import NestedError, TextColumns, as_text

BERLIN = dt.timezone(dt.timedelta(hours=2))
TIMES = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))  # what pandas can hold in nanoseconds
DURATIONS = st.timedeltas(dt.timedelta(days=-9_999), dt.timedelta(days=9_999))
KINDS = {
    "whole": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "float": (st.floats(allow_nan=False), pa.float64()),
    "decimal": (st.decimals(-(10**20), 10**20, places=9), pa.decimal128(38, 9)),
    "boolean": (st.booleans(), pa.bool_()),
    "text": (st.text(st.characters(exclude_categories=["Cs"])), pa.string()),
    "bytes": (st.binary(), pa.binary()),
    "date": (st.dates(), pa.date32()),
    "time": (st.times(), pa.time64("us")),
    "duration": (DURATIONS, pa.duration("us")),
}


def as_columns(values, chunk=None, **how):
    columns = TextColumns(["v"], **how)
    for at in range(0, len(values), chunk or len(values)):
        columns.add([(value,) for value in values[at : at + (chunk or len(values))]])
    return columns.frame()["v"]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_each_type_is_written_as_parquet_writes_it(tmp_path_factory, kind, data):
    values, arrow = KINDS[kind]
    drawn = data.draw(
        st.lists(st.none() | values, min_size=1, max_size=6).filter(lambda v: any(x is not None for x in v))
    )
    path = tmp_path_factory.getbasetemp() / f"{kind}.parquet"
    pq.write_table(pa.table({"v": pa.array(drawn, arrow)}), path)
    assert as_columns(drawn).tolist() == read_parquet(path)["v"].tolist()


@given(st.lists(st.none() | TIMES, min_size=1, max_size=6), st.booleans())
@settings(max_examples=30)
def test_times_are_the_same_moments_as_those_of_parquet(tmp_path_factory, times, zoned):
    path = tmp_path_factory.getbasetemp() / "times.parquet"
    in_utc = [t and t.replace(tzinfo=dt.UTC) if zoned else t for t in times]
    pq.write_table(pa.table({"v": pa.array(in_utc, pa.timestamp("us", "UTC" if zoned else None))}), path)
    texts = as_columns([t and t.astimezone(BERLIN) if zoned else t for t in in_utc])
    assert moments(texts).tolist() == moments(read_parquet(path)["v"]).tolist()
    assert texts.dropna().tolist() == [str(t) for t in times if t]
    assert not texts.dropna().str.contains("[+Z]").any()


@given(
    st.lists(st.none() | st.one_of(*(values for values, _ in KINDS.values())), min_size=1, max_size=12),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_a_value_has_the_same_text_in_every_chunk_and_company(values, chunk):
    together, apart = as_columns(values), as_columns(values, chunk)
    assert together.dtype == "string[pyarrow]"
    assert together.equals(apart)
    assert together.dropna().tolist() == [as_text(v) for v in values if v is not None]


def test_the_text_of_one_value_of_each_kind():
    one = uuid.UUID(int=1)
    expected = [
        (Decimal("1.10"), "1.10"), (Decimal("0E-10"), "0E-10"), (dt.datetime(2026, 3, 1), "2026-03-01 00:00:00"),
        (dt.datetime(2026, 3, 1, 1, 30, tzinfo=BERLIN), "2026-02-28 23:30:00"), (b"ab\xff", "ab\\xff"), (True, "True"),
        (dt.timedelta(minutes=1.5), "90.0"), (dt.date(2026, 3, 1), "2026-03-01"), (dt.time(10), "10:00:00"),
        (1e16, "1e+16"), (-0.0, "-0.0"), (one, str(one)),
    ]  # fmt: skip
    assert [as_text(value) for value, _ in expected] == [text for _, text in expected]
    assert as_text(memoryview(b"ab")) == "ab"
    assert as_text(None) is None


def test_floats_of_single_precision_have_no_digits_of_their_own():
    value = float(np.float32(0.1))
    assert as_columns([value, None], single=["v"]).tolist()[0] == "0.1"
    assert as_columns([value])[0] == "0.10000000149011612"


@pytest.mark.parametrize("value", [[1], (1,), {"a": 1}, {1}])
def test_lists_and_structures_are_refused_by_name(value):
    with pytest.raises(NestedError, match="v"):
        as_columns([None, value])
