"""Which columns look personal, in several languages, and which do not. The generated tags work as they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.dry_run import dry_run
from assets.personal import tags_of
from resources.settings import Settings, project_root
from scaffold.columns import look_at
from scaffold.new_model import NewModel, drafted
from scaffold.personal import propose
from scaffold.report import format_report

N = 120
RNG = np.random.default_rng(0)


def chinese_id(i: int) -> str:
    base = f"110105{1950 + i % 50}{1 + i % 12:02d}{1 + i % 28:02d}{i:03d}"
    return base + "10X98765432"[sum(int(digit) * 2 ** (17 - k) for k, digit in enumerate(base)) % 11]


def card(i: int) -> str:
    base = f"411111{i:09d}"
    doubled = [int(d) if k % 2 else 2 * int(d) - 9 * (int(d) > 4) for k, d in enumerate(reversed(base))]
    return f"{base}{-sum(doubled) % 10}"


def iban(i: int) -> str:
    account = f"37040044{i:010d}"
    return f"DE{98 - int(f'{account}131400') % 97:02d}{account}"


def cpf(i: int) -> str:
    digits = [int(d) for d in f"{123456789 + 7 * i:09d}"]
    for length in (9, 10):
        digits.append(sum(d * (length + 1 - k) for k, d in enumerate(digits[:length])) * 10 % 11 % 10)
    return "".join(map(str, digits))


def many(make) -> list[str]:
    return [str(make(i)) for i in range(N)]


PEOPLE = many(lambda i: f"{['Ada', 'Zoë', 'Ben'][i % 3]} Love{chr(97 + i % 26)}lace{chr(97 + i // 26)}")
PERSONAL = {
    "contact": ("email", many(lambda i: f"user{i}@example.org")),
    "E-Mail": ("email", many(lambda i: f"user{i}@intern")),
    "courriel": ("email", many(lambda i: f"user{i}@example.fr")),
    "邮箱": ("email", many(lambda i: f"user{i}@example.cn")),
    "customerPhone": ("phone", many(lambda i: 3_012_345_000 + i)),
    "Telefonnummer": ("phone", many(lambda i: f"030 1234{i:03d}")),
    "手机号": ("phone", many(lambda i: f"1{3 + i % 7}{i:09d}")),
    "x1": ("phone", many(lambda i: f"1{3 + i % 7}{i % 10}{70_000_000 + 37 * i}")),
    "x2": ("phone", many(lambda i: f"+49 30 1234{i:03d}")),
    "x3": ("iban", many(iban)),
    "x4": ("card", many(card)),
    "x5": ("national_id", many(chinese_id)),
    "x6": ("national_id", many(cpf)),
    "x7": ("ip", many(lambda i: f"10.1.2.{i}")),
    "SSN": ("national_id", many(lambda i: f"{100 + i}-12-{1000 + i}")),
    "身份证号": ("national_id", many(lambda i: f"{i:06d}199001010011")),
    "DNI": ("national_id", many(lambda i: f"{10_000_000 + i}A")),
    "姓名": ("name", many(lambda i: "王" + chr(0x4E00 + i))),
    "first name": ("name", PEOPLE),
    "Nachname": ("name", PEOPLE),
    "name": ("name", PEOPLE),
    "Street": ("address", many(lambda i: f"{i} Long Street")),
    "地址": ("address", many(lambda i: f"北京市朝阳区第{i}号")),
    "date_of_birth": ("birth_date", many(lambda i: f"{1950 + i % 60}-{1 + i % 12:02d}-{1 + i % 28:02d}")),
    "Geburtsdatum": ("birth_date", many(lambda i: f"{1 + i % 28:02d}.{1 + i % 12:02d}.{1950 + i % 60}")),
    "生日": ("birth_date", many(lambda i: f"{1950 + i % 60}年{1 + i % 12}月{1 + i % 28}日")),
    "notes": ("text", many(lambda i: f"please call +49 30 1234{i:03d} today" if i % 3 else f"all fine with {i}")),
}
"""Kind, and values, by header."""
OTHERS = {
    "PhoneService": many(lambda i: "Yes" if i % 2 else "No"),
    "phone_model": many(lambda i: f"Nokia {i}"),
    "name": many(lambda i: f"Product {i}"),
    "title": PEOPLE,
    "file_name": many(lambda i: f"report_{i}.pdf"),
    "email_opened": many(lambda i: i % 2),
    "email_count": many(lambda i: i),
    "ip_traffic": many(lambda i: i * 1.5),
    "address_changes": many(lambda i: i % 30),
    "order_number": many(lambda i: 10_000_000_000 + i),
    "counter": many(lambda i: 13_900_000_000 + i),
    "measured": many(lambda i: 100_000_000 + 12_345 * i),
    "version": many(lambda i: f"1.2.{i}"),
    "born_in": many(lambda i: f"Town {i}"),
    "date": many(lambda i: f"2026-{1 + i % 12:02d}-{1 + i % 28:02d}"),
    "nombre": many(lambda i: i),
    "panel": many(lambda i: f"panel {i}"),
    "telemetry": many(lambda i: RNG.normal()),
    "review": many(lambda i: f"order {i} came on 2026-03-01 at 12:30 and cost 1,234.50"),
    "sku": many(lambda i: f"DE{i:020d}"),
}
"""Columns that look personal at first sight."""


def proposed(header: str, values: list[str]):
    series = pd.Series(values, dtype="string[pyarrow]")
    return propose(look_at(header, "x", series), series)


@pytest.mark.parametrize("header", PERSONAL)
def test_a_column_that_is_personal_gets_its_kind(header):
    kind, values = PERSONAL[header]
    found = proposed(header, values)
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize("header", OTHERS)
def test_a_column_that_is_not_gets_none(header):
    assert proposed(header, OTHERS[header]) is None


def test_few_values_say_nothing():
    assert proposed("email", ["a@b.org"] * 100) is None


def test_no_column_of_the_real_tables_is_proposed():
    folder = Settings.from_env().test_data
    if folder is None:
        pytest.skip("set ASSETLINE_TEST_DATA to a folder with real tables")
    found, columns = {}, 0
    for path in sorted(Path(folder).glob("*.csv")):
        rows = pd.read_csv(path, dtype="string[pyarrow]", keep_default_na=False, nrows=10_000)
        for header, values in rows.items():
            columns += 1
            if (one := proposed(str(header), values.tolist())) is not None:
                found[f"{path.name}: {header}"] = one
    assert found == {}
    assert columns >= 40


def table(folder: Path, *, key: bool = True) -> Path:
    frame = pd.DataFrame({
        **({"no": range(N)} if key else {}), "E-Mail": PERSONAL["contact"][1], "姓名": PERSONAL["姓名"][1],
        "notes": PERSONAL["notes"][1], "plan": ["a", "b"] * (N // 2), "amount": RNG.normal(size=N).round(3),
        "left": RNG.choice(["yes", "no"], N),
    })  # fmt: skip
    frame.to_csv(folder / "people.csv", index=False)
    return folder / "people.csv"


def test_what_nobody_reads_is_dropped_and_free_text_is_redacted(tmp_path):
    with drafted(project_root(), "people", table(tmp_path), "left") as draft:
        raw_tags = {name: tag["personal"]["protect"] for name, tag in draft.model.table.raw_tags.items()}
        assert raw_tags == {"E-Mail": "drop", "姓名": "drop"}
        assert {name: tag.protect for name, tag in tags_of(draft.model).items()} == {"notes": "redact"}
        tried = dry_run(draft.model)
        assert not tried.reasons
        assert tried.accepted["notes"].str.contains("<PHONE>").sum() == 80
        report = format_report(NewModel(draft.folder, draft.guess, 1, 1, []), draft.folder.parent)
    assert "Personal, and tagged" in report
    assert "email: its values are e-mail addresses; dropped" in report
    assert "keys create" not in report, "no pseudonym, no key"


def test_where_the_row_is_the_key_dropping_would_make_rows_equal(tmp_path):
    with drafted(project_root(), "people", table(tmp_path, key=False), "left", key="E-Mail") as draft:
        assert draft.model.table.key == "e_mail"
        assert tags_of(draft.model)["e_mail"].protect == "pseudonym"
        assert draft.model.table.raw_tags["E-Mail"]["personal"]["column"] == "e_mail"
        report = format_report(NewModel(draft.folder, draft.guess, 1, 1, []), draft.folder.parent)
    assert "assetline keys create pseudonyms" in report
    rows = pd.read_csv(tmp_path / "people.csv").drop(columns=["notes"])
    rows["E-Mail"] = [f"user{i % 60}@example.org" for i in range(N)]
    rows.to_csv(tmp_path / "people.csv", index=False)
    with drafted(project_root(), "people", tmp_path / "people.csv", "left") as draft:
        assert draft.model.table.key == "row"
        assert {tag["personal"]["protect"] for tag in draft.model.table.raw_tags.values()} == {"pseudonym"}
        assert len(dry_run(draft.model).accepted) == N
