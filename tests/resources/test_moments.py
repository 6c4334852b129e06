"""Moments in any form are naive UTC, each read by itself."""

import numpy as np
import pandas as pd
import pytest

from resources import moments as module
from resources.moments import moments, plain_moments


def read(*texts: str | None, form: str = "ISO8601") -> list[str]:
    return [str(moment) for moment in moments(pd.Series(texts, dtype="string[pyarrow]"), form)]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-26T01:40:00Z", "2026-11-26 01:40:00"),
        ("2026-11-26T01:40:00+02:00", "2026-11-25 23:40:00"),
        ("2026-11-26T01:40:00-0530", "2026-11-26 07:10:00"),
        ("2026-11-26T01:40:00.250Z", "2026-11-26 01:40:00.250000"),
        ("2026-11-26T01:40:00,5Z", "2026-11-26 01:40:00.500000"),
        ("2026-11-26t01:40:00z", "2026-11-26 01:40:00"),
        ("2026-11-26 01:40:00 UTC", "2026-11-26 01:40:00"),
        ("2026-11-26T01:40:00+01:00[Europe/Berlin]", "2026-11-26 00:40:00"),
        (" 2026-11-26 01:40 ", "2026-11-26 01:40:00"),
        ("2026-11-26", "2026-11-26 00:00:00"),
        ("9999-12-31", "NaT"),
        ("2026-02-31", "NaT"),
        ("yesterday", "NaT"),
        ("", "NaT"),
        (None, "NaT"),
    ],
)
def test_iso_8601_as_programs_send_it_is_utc(text, moment):
    assert read(text) == [moment]


def test_a_moment_without_an_offset_is_utc_whatever_stands_before_it():
    # pandas by itself gives the second the offset of the first (issue 61389).
    east, west, none = "2026-11-26T01:40:00+02:00", "2026-11-26T01:40:00-05:00", "2026-11-26 01:40"
    assert read(east, none, west, none) == [
        "2026-11-25 23:40:00", "2026-11-26 01:40:00", "2026-11-26 06:40:00", "2026-11-26 01:40:00"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "form", "moment"),
    [
        ("26/11/2026 01:40", "%d/%m/%Y %H:%M", "2026-11-26 01:40:00"),
        ("Thu, 26 Nov 2026 01:40:00 +0100", "%a, %d %b %Y %H:%M:%S %z", "2026-11-26 00:40:00"),
        ("1795657200", "seconds since 1970-01-01", "2026-11-26 01:40:00"),
        ("1795657200.25", "seconds since 1970-01-01", "2026-11-26 01:40:00.250000"),
        ("1795657200250", "milliseconds since 1970-01-01", "2026-11-26 01:40:00.250000"),
        ("1795657200000000123", "nanoseconds since 1970-01-01", "2026-11-26 01:40:00.000000123"),
        ("-86400", "seconds since 1970-01-01", "1969-12-31 00:00:00"),
        ("46352.25", "days since 1899-12-30", "2026-11-26 06:00:00"),
        ("20261126", "%Y%m%d", "2026-11-26 00:00:00"),
        ("99999999999999999999", "milliseconds since 1970-01-01", "NaT"),
        ("inf", "seconds since 1970-01-01", "NaT"),
        ("soon", "seconds since 1970-01-01", "NaT"),
    ],
)
def test_other_forms_are_utc_and_iso_8601_is_read_beside_them(text, form, moment):
    assert read(text, "2026-11-26T01:40:00+02:00", form=form) == [moment, "2026-11-25 23:40:00"]


def test_every_row_keeps_its_place():
    text = pd.Series(["2026-11-26T01:40:00Z", "x", "2026-11-27"], index=[7, 7, 3], dtype="string[pyarrow]")
    found = moments(text)
    assert list(found.index) == [7, 7, 3]
    assert str(found.dtype) == str(moments(text.iloc[:0]).dtype) == "datetime64[ns]"


@pytest.mark.parametrize("seed", range(20))
def test_plain_text_is_read_as_pandas_reads_it(seed: int) -> None:
    """Moments of all centuries with a few letters replaced: what is read so is what pandas reads."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(-8_600_000_000, 7_300_000_000, 400)
    texts = list(pd.Series(seconds.astype("datetime64[s]")).dt.strftime("%Y-%m-%d %H:%M:%S"))
    for place in rng.integers(0, len(texts), 200):
        letters = list(texts[place])
        letters[rng.integers(0, len(letters))] = rng.choice(list("0123456789 -:TZé"))
        texts[place] = "".join(letters)
    texts += ["2023-02-29 00:00:00", "2024-02-29 23:59:59", "2023-00-10 00:00:00", "2023-04-31 00:00:00", None, ""]
    texts += ["2023-01-01 24:00:00", "2023-01-01 00:60:00", "2023-01-01 00:00:60", "1699-12-31 00:00:00"]
    plain = pd.Series(texts, dtype="string[pyarrow]")
    ours, theirs = plain_moments(plain), module._strictly_iso_of_pandas(plain)
    read = ours.notna()
    assert read.sum() > 200
    assert (ours[read] == theirs[read]).all()
    everything = module._strictly_iso(plain)
    assert (everything.isna() == theirs.isna()).all()
    assert (everything[theirs.notna()] == theirs[theirs.notna()]).all(), "the others are left to pandas"


def test_plain_moments_of_nothing_and_of_a_slice() -> None:
    assert len(plain_moments(pd.Series([], dtype="string[pyarrow]"))) == 0
    column = pd.Series(["2026-01-01 00:00:00", "no", "2026-01-03T00:00:01"], dtype="string[pyarrow]", index=[5, 6, 7])
    assert plain_moments(column[1:]).tolist() == [pd.NaT, pd.Timestamp("2026-01-03 00:00:01")]
    assert list(plain_moments(column).index) == [5, 6, 7]
