"""What a protection does to a value. Nothing stays nothing, and what cannot be read never stays as it is."""

import hashlib
import hmac

import hypothesis.strategies as st
import pytest
from hypothesis import given

from assets.personal import KINDS, Tag
from assets.protections import LARGEST, PSEUDONYM, Form, masked, normalised, protection, pseudonym, whole_pseudonym
from assets.recognisers import NATIONAL, is_card, is_chinese_mobile, is_email, is_iban, is_ip, is_phone, redacted

ONE, TWO = b"1" * 32, b"2" * 32


def protected(text: str, protect: str, kind: str = "name", form: Form = "text", **more) -> str | None:
    return protection(Tag(kind, protect=protect, **more), form, (ONE,))(text)


def test_a_pseudonym_is_a_keyed_hash_and_a_newer_key_hashes_the_older_pseudonym():
    first = "p_" + hmac.new(ONE, b"ada@example.org", hashlib.sha256).hexdigest()[:32]
    assert pseudonym("ada@example.org", (ONE,)) == first
    assert PSEUDONYM.fullmatch(first)
    assert pseudonym("ada@example.org", (ONE, TWO)) == pseudonym(first, (TWO,)) != first
    number = whole_pseudonym("42", (ONE,))
    assert whole_pseudonym("42", (ONE, TWO)) == whole_pseudonym(number, (TWO,)) != number
    assert len({pseudonym(f"{n}", (ONE,)) for n in range(10_000)}) == 10_000
    assert len({whole_pseudonym(f"{n}", (ONE,)) for n in range(10_000)}) == 10_000


@given(st.integers(-(10**18) + 1, 10**18 - 1))
def test_the_pseudonym_of_a_whole_number_is_one_that_a_float_holds(number):
    made = int(whole_pseudonym(str(number), (ONE,)))
    assert 0 <= made < LARGEST
    assert int(float(made)) == made


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("email", ["ada@example.org", " Ada@Example.ORG "]),
        ("name", ["Zoë", "Zoe\u0308", " Zoë "]),
        ("phone", ["+49 30 1234567", "0049 (30) 123-4567"]),
        ("iban", ["DE89 3704 0044 0532 0130 00", "de89370400440532013000"]),
        ("card", ["4111 1111 1111 1111", "4111-1111-1111-1111"]),
    ],
)
def test_one_person_has_one_pseudonym_however_it_is_written(kind, ways):
    assert len({protected(way, "pseudonym", kind) for way in ways}) == 1
    assert protected("ada", "pseudonym") != protected("Ada", "pseudonym"), "names differ by their letters"
    assert protected("42", "pseudonym", "id", "whole") == protected(" 42.0 ", "pseudonym", "id", "whole")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "  ", "NA", "?", "\\N", "null"])
def test_nothing_stays_nothing(kind, text):
    for protect in ("pseudonym", "mask", "band", "prefix", "redact", "drop"):
        assert protected(text, protect, kind) == text


@given(st.text(min_size=1).filter(lambda text: text.strip() and not text.strip().isdigit() and len(text.strip()) > 4))
def test_what_cannot_be_read_is_never_stored_as_it_came(text):
    for protect, form in (("pseudonym", "whole"), ("band", "whole"), ("band", "moment"), ("pseudonym", "text")):
        made = protected(text, protect, "id", form)
        if protect == "band" and made is not None:
            assert made != text.strip() or made.endswith("0") or "01" in made
        else:
            assert made is None or text.strip() not in made


@pytest.mark.parametrize(
    ("text", "made", "how"),
    [
        ("37", "30", {"form": "whole"}),
        ("37", "30-39", {}),
        ("-3", "-10", {"form": "number"}),
        ("37.5", "35", {"form": "number", "width": 5}),
        ("120000", "100000-149999", {"width": 50_000}),
        ("1983-12-24", "1980-01-01", {"form": "moment"}),
        ("24.12.1983 10:11", "01.01.1980 00:00", {"form": "moment"}),
        ("19831224", "19800101", {"form": "moment"}),
        ("1983年12月24日", "1980年01月01日", {"form": "moment"}),
        ("Dec 24, 1983", None, {"form": "moment"}),
        ("24.12.83", None, {"form": "moment"}),
        ("1983-12-24", "1980-01-01", {"kind": "birth_date"}),
        ("1983", "1980", {"form": "whole", "kind": "birth_date"}),
        ("a lot", None, {}),
        ("inf", None, {"form": "number"}),
        ("1e308", None, {"form": "number"}),
    ],
)
def test_bands_of_numbers_and_dates(text, made, how):
    assert protected(text, "band", **{"kind": "age", **how}) == made


def test_masks_prefixes_and_regions():
    assert masked("email", "Ada@Example.org") == "***@example.org"
    assert masked("email", "no address") == "***"
    assert masked("name", "Ada") == "A***"
    assert masked("card", "4111 1111 1111 1234") == "***1234"
    assert masked("phone", "12345") == masked("address", "1 Long Street") == "***"
    assert protected("10115", "prefix", "postcode", length=2) == "10"
    regions = {"1": "east", "10": "Berlin"}
    assert protected("10115", "region", "postcode", regions=regions) == "Berlin"
    assert protected("12345", "region", "postcode", regions=regions) == "east"
    assert protected("80331", "region", "postcode", regions=regions) is None
    assert protected("anything", "drop") is None
    assert protected("anything", "keep") == "anything"
    assert normalised("phone", "0049 30/123") == "+4930123"


NUMBERS = {
    "China": ("11010519491231002X", "110105194912310021"),
    "Germany": ("36574261809", "36574261890"),
    "Spain": ("54362315K", "54362315Z"),
    "France": ("295109912611193", "295109912611199"),
    "Italy": ("RCCMNL83S18D969H", "RCCMNL83S18D969"),
    "the Netherlands": ("111222333", "111252333"),
    "Belgium": ("85073003328", "85073003356"),
    "Poland": ("44051401359", "44051401358"),
    "Sweden": ("8803200016", "8803200018"),
    "Great Britain": ("9434765870", "9434765871"),
    "the United States": ("536904399", "000904399"),
    "Brazil": ("39053344705", "23100299900"),
    "India": ("234123412346", "234123412347"),
    "Japan": ("123456789018", "123456789010"),
    "South Korea": ("9710131019901", "9710131019903"),
}
"""A valid identity number of each country as published in examples, and one with a wrong check digit."""


@pytest.mark.parametrize("country", NATIONAL)
def test_identity_numbers_are_told_by_their_check_digits(country):
    valid, invalid = NUMBERS[country]
    assert NATIONAL[country](valid)
    assert not NATIONAL[country](invalid)
    assert not NATIONAL[country]("hello")


def test_addresses_and_numbers_of_other_kinds():
    assert is_email("ada.l+x@mail.example.org")
    assert not is_email("ada@localhost")
    assert is_iban("GB82 WEST 1234 5698 7654 32")
    assert not is_iban("GB82 WEST 1234 5698 7654 33")
    assert is_card("4111 1111 1111 1111")
    assert not is_card("4111 1111 1111 1112")
    assert is_chinese_mobile("138 1234 5678")
    assert not is_chinese_mobile("12812345678")
    assert is_phone("+49 (0)30 1234567")
    assert not is_phone("2026-03-01")
    assert is_ip("10.2.3.254")
    assert not is_ip("10.2.3.256")


def test_free_text_loses_what_has_a_form_and_keeps_the_rest():
    text = (
        "Order 12345 of 2026-03-01 at 12:30, 1,234.50 EUR. Mail ada@mail.example.org, call +49 30 1234567 or "
        "(555) 123-4567, pay DE89 3704 0044 0532 0130 00 please or 4111 1111 1111 1111, from 10.2.3.4; "
        "电话13812345678，身份证11010519491231002X。"
    )
    assert redacted(text) == (
        "Order 12345 of 2026-03-01 at 12:30, 1,234.50 EUR. Mail <EMAIL>, call <PHONE> or <PHONE>, pay <IBAN> please or "
        "<CARD>, from <IP>; 电话<PHONE>，身份证<ID>。"
    )
    assert protected("Ada Lovelace says hello", "redact", "text") == "Ada Lovelace says hello", "names have no form"
