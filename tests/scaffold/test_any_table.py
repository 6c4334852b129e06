"""Tables that nobody has shown before: each is read for what it is, or refused with the mend."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.dry_run import dry_run
from resources.settings import project_root
from scaffold.columns import identifiers, look_at
from scaffold.new_model import drafted, new_model
from scaffold.report import format_report
from scaffold.tables import ScaffoldError

N = 300


def plain(rows: int = N, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, city = rng.normal(size=rows), rng.choice(list("abc"), rows)
    bought = x + (city == "a") + rng.normal(size=rows) > 0
    return pd.DataFrame({"x": x.round(3), "city": city, "y": np.where(bought, "yes", "no")})


@pytest.fixture
def root(tmp_path) -> Path:
    """A project far from its files, so that they are named by their whole path."""
    folder = tmp_path / "far" / "from" / "here"
    (folder / "assets" / "models").mkdir(parents=True)
    (folder / "pyproject.toml").write_text((project_root() / "pyproject.toml").read_text())
    return folder


@pytest.fixture
def table(root, tmp_path):
    """Writes a file, and gives the guess that is made of it and what came of all its rows."""

    def make(content: pd.DataFrame | str | bytes, target: str = "y", *, refused: int = 0, **how):
        path = tmp_path / "table.csv"
        if isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with drafted(root, "trial", path, target, **how) as draft:
            # The file is read by the source that was declared, as the lifecycle will.
            tried = dry_run(draft.model, None if draft.guess.clock is None else draft.raw.rows)
            assert sum(tried.reasons.values()) == refused, tried.reasons
            return draft.guess, tried

    return make


def column(values: list, header: str = "v"):
    return look_at(header, header, pd.Series(values, dtype="string[pyarrow]"))


# -- encodings, separators, titles, feet -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda text: text.replace(",", "\t").encode("utf-16"), "UTF-16, as Excel saves"),
        (lambda text: text.encode("utf-16-be"), "UTF-16"),
        (lambda text: b"\xef\xbb\xbf" + text.replace(",", "|").encode(), r"separated by '\|'"),
        (lambda text: "sep=;\r\n" + text.replace(",", ";"), "separated by ';'"),
        (lambda text: text.replace(",", " "), "separated by ' '"),
        (lambda text: text.replace("\n", "\r"), "no column is a key"),
        (lambda text: "\n\n" + text.replace("\n", "\n\n"), "names are in line 3"),
        (
            lambda text: "# made by a tool, on 2026-01-01\n" + text,
            r"in line 2; .* \('# made by a tool, on 2026-01-01'\)",
        ),
        (lambda text: text.replace("\n", ",,\n"), "no column is a key"),
        (lambda text: f"Report of sales,,,\n,,,\n{text.replace(chr(10), ',' + chr(10))}Total,,150,\n", "'Total, 150'"),
        (lambda text: f"{text}\nSource: the office,,\n(300 rows),,\n", r"'\(300 rows\)' at the end does not fit"),
    ],
)
def test_the_form_of_a_file_is_found_and_said(table, content, said):
    guess, tried = table(content(plain().to_csv(index=False)))
    assert [c.name for c in guess.columns] == ["x", "city", "y"]
    assert pd.Series(guess.notes).str.contains(said).any(), guess.notes
    assert tried.landed == N


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("cp1252", "Málaga compró"), ("cp1251", "Москва купил"), ("gb18030", "北京 是否"), ("shift_jis", "東京です 購入")],
)
def test_an_older_encoding_is_guessed_and_said(table, encoding, words):
    city, target = words.split()
    frame = plain().replace({"city": {"a": city}}).rename(columns={"y": target})
    guess, _ = table(frame.to_csv(index=False).encode(encoding), target)
    assert guess.target.name == target
    assert city in guess.columns[1].categories
    assert any(
        encoding.removeprefix("shift_jis") in words and "save the file as UTF-8" in words for words in guess.notes
    )


def test_the_header_line_can_be_given(table):
    text = "x,city,y\nm,code,flag\n" + plain().to_csv(index=False, header=False)
    guess, _ = table(text, "flag", header=2)
    assert [c.name for c in guess.columns] == ["m", "code", "flag"]


def test_where_no_line_has_the_target_the_first_lines_are_shown(table):
    headerless = plain().to_csv(index=False, header=False)
    with pytest.raises(ScaffoldError) as refused:
        table(headerless, "bought")
    said = str(refused.value)
    assert "TARGET=bought" in said
    assert "if the column names are in another line, give HEADER=line" in said
    assert all(f"  {n}: {line}" in said for n, line in enumerate(headerless.splitlines()[:5], start=1))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + b"0" * 99, "is a ZIP archive"),
        ('{"x": 1}\n{"x": 2}\n', "is JSON"),
        (" <html></html>", "is HTML"),
        (b"x,y\n1,a\n2,\x00b\n", "a NUL byte in line 3"),
        ("x,y\n1,a\n1,a,b\n", "Expected 2 fields in line 3, saw 3"),
        ("row_id,y\n1,a\n2,b\n", "a column is named 'row_id'"),
    ],
)
def test_what_is_no_table_is_named(table, content, words):
    with pytest.raises(ScaffoldError, match=words):
        table(content)


def test_a_file_without_so_many_lines_has_no_header_there(table):
    with pytest.raises(ScaffoldError, match="no line from line 900 on holds column names"):
        table(plain(), header=900)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("是否违约", "是否违约"), ("Größe", "Größe"), ("客户 编号", "客户_编号"), ("price (€)", "price"),
        ("class", "class_"), ("str", "str_"), ("score", "score_"), ("label", "label_"), ("self", "self_"),
        ("😀", "column_1"), ("2024", "c_2024"), ("ｘ", "x"), ("e\u0301", "é"), ("_private", "private"), ("a\nb", "a_b"),
    ],
)  # fmt: skip
def test_names_in_any_script_stay_and_others_are_made_of_their_words(header, name):
    assert identifiers([header]) == {header: name}
    assert name.isidentifier()


def test_a_whole_question_as_header_gets_a_short_name_of_its_own():
    question = "How satisfied were you with the service that you received from us in the last twelve months"
    first, second = identifiers([f"{question} (at home)?", f"{question} (at work)?"]).values()
    assert first == "how_satisfied_were_you_with_the_service_that_you_received"
    assert second == f"{first}_"


def test_awkward_names_make_code_that_lints(root):
    names = ("class", 'q"uo\\te\n', "W" * 150, "金额", "float")
    frame = plain().assign(**{name: plain(seed=n)["x"] for n, name in enumerate(names, start=1)})
    path = root / 'a "table".csv'
    frame.to_csv(path, index=False)
    made = new_model(root, "trial", path, "y")
    ruff = Path(sys.executable).with_name("ruff")
    ran = subprocess.run([ruff, "check", "assets"], cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "('q\"uo\\te' in the file)" in format_report(made, root)


def test_a_column_that_is_left_out_may_have_the_name_that_another_gets(table):
    guess, _ = table(plain().assign(**{"a b": plain(seed=1)["x"], "a_b": "same"}))
    assert [c.name for c in guess.columns][-1] == "a_b"


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_long_identifiers_are_text_and_the_key(table):
    guess, tried = table(plain().assign(id=[str(10**17 + 7 * n) for n in range(N)]))
    assert guess.key == "id"
    assert tried.accepted["id"].nunique() == N


def test_long_identifiers_of_several_rows_are_an_entity(table):
    guess, _ = table(plain().assign(card=[str(10**17 + n % 90) for n in range(N)]))
    assert guess.entity == "card"


def test_infinite_numbers_are_missing_and_counted(table):
    values = plain()["x"].astype(str).mask(pd.Series(range(N)) % 20 == 0, "inf")
    guess, tried = table(plain().assign(v=values))
    assert {c.name: c.kind for c in guess.columns}["v"] == "number"
    assert "'v': 15 values are infinite and become missing" in guess.warnings
    assert tried.accepted["v"].isna().sum() == 15


@pytest.mark.parametrize(
    ("values", "reader", "low", "high"),
    [
        (["1.234,50", "0,5"], "comma", 0.5, 1234.5),
        (["0,512", "1,234"], "comma", 0.512, 1.234),
        (["$1,234.50", "($7)"], "amount", -7, 1234.5),
        (["1 234,5 €", "2,5 €"], "comma", 2.5, 1234.5),
        (["14:30", "02:15"], "hours", 2.25, 14.5),
        (["61.2 kg", "70 kg"], "amount", 61.2, 70),
        (["٣٤", "٥٦"], "amount", 34, 56),
        (["1.5e300", "2"], "", 2, 1.5e300),
    ],
)
def test_numbers_are_seen_however_they_are_written(values, reader, low, high):
    found = column(values * 50)
    assert (found.kind in ("number", "integer"), found.reader, found.low, found.high) == (True, reader, low, high)


def test_a_number_that_can_be_read_in_two_ways_is_read_as_the_others_of_the_table_and_said(table):
    either = [f"{n}.{n % 900:03d}" for n in range(1, N + 1)]
    _, tried = table(plain().assign(v=either).to_csv(index=False, sep=";", decimal=","))
    assert tried.accepted["v"].max() > 1_000
    guess, tried = table(plain().assign(v=either))
    assert tried.accepted["v"].max() <= N + 1
    assert any("with a decimal comma they would be other numbers" in words for words in guess.warnings)


def test_numbers_that_features_cannot_hold_are_left_out(table):
    guess, _ = table(plain().assign(v=[f"{n + 1}e299" for n in range(N)]))
    assert "use their logarithm" in guess.left_out["v"]


def test_a_column_that_only_counts_the_rows_is_no_key(table):
    guess, _ = table(plain().to_csv())
    assert guess.left_out == {"Unnamed: 0": "it has no name and counts the rows"}
    assert guess.key == "row"


# -- moments -----------------------------------------------------------------------------------------------------------

FIRST, EXCEL_ZERO = dt.datetime(2026, 3, 2, 1, 30), dt.datetime(1899, 12, 30)
FORMS = {
    "seconds": (lambda t: str(int(t.timestamp())), "seconds since 1970-01-01"),
    "milliseconds": (lambda t: str(int(t.timestamp() * 1e3)), "milliseconds since 1970-01-01"),
    "nanoseconds": (lambda t: f"{int(t.timestamp())}000000000", "nanoseconds since 1970-01-01"),
    "Excel": (lambda t: str((t.replace(tzinfo=None) - EXCEL_ZERO) / dt.timedelta(1)), "days since 1899-12-30"),
    "digits": (lambda t: t.strftime("%Y%m%d%H%M%S"), "%Y%m%d%H%M%S"),
    "offsets": (lambda t: t.astimezone(dt.timezone(dt.timedelta(hours=t.hour % 9 - 4))).isoformat(), "ISO8601"),
    "day first": (lambda t: t.strftime("%d/%m/%Y %H:%M"), "%d/%m/%Y %H:%M"),
    "half days": (lambda t: t.strftime("%m/%d/%Y %I:%M:%S %p"), "%m/%d/%Y %I:%M:%S %p"),
    "short years": (lambda t: t.strftime("%d.%m.%y"), "%d.%m.%y"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_event_time_in_any_form_is_utc(table, form):
    write, expected = FORMS[form]
    times = [(FIRST + dt.timedelta(hours=2 * n)).replace(tzinfo=dt.UTC) for n in range(900)]
    guess, tried = table(plain(900).assign(ts=[write(t) for t in times]), time="ts")
    assert guess.clock.column.form == expected
    days = tried.accepted["ts"].dt.date
    assert (days.min(), days.max()) == (times[0].date(), times[-1].date())
    assert tried.landed == 900


@pytest.mark.parametrize(
    ("header", "values", "kind"),
    [
        ("created_at", [str(1780272000 + 3600 * n) for n in range(99)], "moment"),
        ("visitors", [str(1780272000 + 3600 * n) for n in range(99)], "integer"),
        ("time", [str(n * 7 % 60) for n in range(99)], "integer"),
        ("born", [f"{1930 + n}-05-01" for n in range(60)], "moment"),
        ("valid_to", ["2027-05-01", "9999-12-31", "2026-01-01"] * 30, "moment"),
        ("mixed", ["2026-05-01", "13/05/2026", "14/05/2026"] * 30, "moment"),
    ],
)
def test_columns_of_moments_are_told_from_counts(header, values, kind):
    assert column(values, header).kind == kind


def test_a_clock_reports_on_enough_rows_or_says_that_there_are_too_few(table):
    def by_day(rows: int):
        return table(
            plain(rows).assign(at=pd.date_range("2026-01-01", periods=rows, freq="6h").astype(str)), time="at"
        )[0]

    assert by_day(400).clock.test_days * 4 >= 50
    assert not [words for words in by_day(400).warnings if "training needs" in words]
    assert [words for words in by_day(120).warnings if "training needs 50 and 200" in words]


def test_a_time_that_is_none_shows_some_of_its_values(table):
    with pytest.raises(ScaffoldError, match=r"TIME=x: .* has number values \('-?\d.*\), not dates"):
        table(plain(), time="x")


# -- targets, flags, words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no", "yes"),
    [
        ("否", "是"), ("нет", "да"), ("non", "oui"), ("لا", "نعم"), ("いいえ", "はい"), ("Falsch", "Wahr"),
        ("0.0", "1.0"), ("neg", "pos"), ("Negative", "Positive"), ("-1", "1"),
    ],
)  # fmt: skip
def test_the_probability_is_that_of_the_yes_however_rare(table, no, yes):
    for share in (0.3, 0.7):
        truth = np.where(np.arange(N) < share * N, yes, no)
        guess, tried = table(plain().assign(y=truth))
        assert guess.positive == yes
        assert tried.model.task.codes(tried.accepted["y"]).mean() == pytest.approx(share, abs=0.01)


def test_of_two_words_that_say_nothing_it_is_the_rarer_one(table):
    assert table(plain().assign(y=np.where(np.arange(N) < 90, "red", "blue")))[0].positive == "red"


def test_a_target_written_in_several_ways_is_one(table):
    _, tried = table(plain().assign(y=np.resize([" Yes", "YES", "yes ", "No", "NO"], N)))
    assert set(tried.accepted["y"]) == {True, False}


@pytest.mark.parametrize("truth", [["yes"] * 3 + ["no"] * (N - 3), ["a"] * 3 + ["b"] * 100 + ["c"] * (N - 103)])
def test_a_class_of_few_rows_is_named(table, truth):
    guess, _ = table(plain().assign(y=truth))
    assert any(f"'{truth[0]}' 3" in words and "training needs 10 of each" in words for words in guess.warnings)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["x", "", "", "x"] * 25, "category"),  # a mark or nothing
        (["1", "", "", ""] * 25, "category"),
        (["only"] * 199 + [""], "constant"),
        (["only"] * 100, "constant"),
        (["\\N", "#DIV/0!", "", "NULL"] * 25, "empty"),
        (["5", "\\N", "#DIV/0!", "7"] * 25, "integer"),
        (["a, with\na second line", "b"] * 50, "text"),
        (["word " * 60, "b"] * 50, "text"),
        (["01067", "80331"] * 50, "category"),
        ([f"{n:032x}" for n in range(100)], "identifier"),
        (["A1"] + ["Y", "n"] * 50, "category"),
        (["\u200bseen", "unseen"] * 50, "category"),
    ],
)
def test_words_are_seen_for_what_they_are(values, kind):
    assert column(values).kind == kind


def test_numbers_among_which_are_a_few_words_stay_numbers_and_the_words_are_named():
    found = column(["unknown" if n % 9 == 0 else f"{n}.5" for n in range(99)])
    assert (found.kind, found.words) == ("number", ("unknown",))
    assert found.missing == pytest.approx(1 / 9)
    assert "11 values are words and become missing: unknown" in found.notes
    assert column(["word" if n % 2 else str(n) for n in range(99)]).kind == "text"


def test_a_number_that_may_stand_for_missing_is_named():
    found = column(["-999" if n % 9 == 0 else f"{n % 7}.5" for n in range(99)])
    assert found.notes == ("-999 occurs in 11 rows, far from all others; if it means missing, handle it in clean()",)
    assert column([f"{n % 7}.5" for n in range(99)]).notes == ()


def test_a_line_below_the_header_that_is_no_row_is_named(table):
    numbers = plain().assign(z=plain(seed=1)["x"])
    guess, _ = table(f"x,city,y,z\n(m),code,flag,(s)\n{numbers.to_csv(index=False, header=False)}", refused=1)
    assert guess.target.kind == "boolean"
    assert any("'(m), code, flag, (s)') does not fit" in words for words in guess.notes)


def test_a_header_that_comes_again_is_no_row(table):
    text = plain().to_csv(index=False)
    assert table(text + text.replace("yes", "no"))[1].landed == 2 * N


def test_rows_without_a_key_are_counted(table):
    frame = plain().assign(k=["" if n == 7 else f"k{n}" for n in range(N)])
    guess, _ = table(frame, key="k", refused=1)
    assert "1 rows have no value in the key 'k': they are refused" in guess.warnings


def test_copies_of_rows_are_counted(table):
    frame = plain().assign(n=plain(seed=1)["x"])
    guess, tried = table(pd.concat([frame, frame.head(20)]))
    assert any("(20 rows are copies)" in words for words in guess.notes)
    assert len(tried.accepted) == N
