"""Rows of files in the forms in which programs write them."""

import bz2
import datetime as dt
import decimal
import gzip
import lzma
import zipfile
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest

from resources.files import (
    CsvForm,
    FileError,
    IncompleteError,
    ends_with_a_line,
    kind_of,
    read_csv,
    read_excel,
    read_json_lines,
    read_parquet,
    read_rows,
    separator_of,
)
from resources.sources import CsvFile, FileByDay, SourceError

ROWS = {"a": ["1", "2"], "b": ["x", ""]}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "rows.csv"


def rows_of(path: Path, content: str | bytes, **form) -> dict[str, list[str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_csv(path, CsvForm(**form)).to_dict("list")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
def test_the_encoding_is_as_declared(file, encoding):
    assert rows_of(file, "a,b\nä,é\n".encode(encoding), encoding=encoding) == {"a": ["ä"], "b": ["é"]}


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("a,b\n1,x\n2,\n", {}),
        ("a,b\r\n1,x\r\n2,\r\n", {}),
        ("a,b\r1,x\r2,\r", {}),
        ("a\tb\n1\tx\n2\t\n", {"separator": "\t"}),
        ("\n\na,b\n\n1,x\n\n2,\n\n", {"header": 3}),
        ("A report,,\n,,\na,b,\n1,x,\n2,,\n,,\n", {"header": 3}),
        ("a,b\n1,x,\n2,,\n", {}),  # a separator at the end of each row, and none at the header's
        ("a,b\n1,x\n2\n", {}),  # a short line
        ("a,b\n1,x\n2,\nTotal,3\n", {"foot": ["Total"]}),
        ("a,b\n1,x\n2,\n,Total: 3\nSource: us,\n", {"foot": ["Total", "Source"]}),
    ],
)
def test_titles_feet_and_blanks_are_no_rows_and_no_columns(file, content, form):
    assert rows_of(file, content, **form) == ROWS


def test_only_lines_at_the_end_are_a_foot(file):
    body = "".join(f"{n},x\n" for n in range(20))
    assert rows_of(file, f"a,b\nTotal,y\n{body}", foot=["Total"])["a"][0] == "Total"


def test_quotes_keep_separators_and_line_breaks(file):
    assert rows_of(file, 'a,"b, or\nc"\n1,"x\r\ny, ""z"""\n') == {"a": ["1"], "b, or\nc": ['x\r\ny, "z"']}


def test_a_column_without_a_name_and_a_name_twice_can_be_told_apart(file):
    assert rows_of(file, ",a,a\n0,1,2\n") == {"Unnamed: 0": ["0"], "a": ["1"], "a.1": ["2"]}


@pytest.mark.parametrize(
    ("content", "form", "words"),
    [
        (b"a,b\n1,\xff\n", {}, "not utf-8 text"),
        (b"a,b\n1,2\n", {"encoding": "utf-99"}, "Python does not know the encoding 'utf-99'"),
        ("title\n\na,b\n1,2\n1,2,3\n", {"header": 3}, "Expected 2 fields in line 5, saw 3"),
        ("a,b\n1,2,3\n4,5,6\n", {}, r"more fields than its header \(first in row 1\)"),
        ('a,b\n1,"2\n3,4\n', {}, "EOF inside string starting at row"),
        ("", {}, "no header line"),
        ("a,b\n1,2\n", {"header": 9}, "fewer than 9 lines"),
    ],
)
def test_a_file_that_is_not_in_its_form_says_where(file, content, form, words):
    with pytest.raises(FileError, match=words):
        rows_of(file, content, **form)


def test_a_header_alone_has_no_rows(file):
    assert rows_of(file, "a,b\n") == {"a": [], "b": []}


def packed(path: Path) -> Path:
    content = b"a,b\n1,x\n2,\n"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rows.csv", content)
            archive.writestr("__MACOSX/._rows.csv", b"")
    else:
        zstandard = lambda data: pa.Codec("zstd").compress(data, asbytes=True)  # noqa: E731
        pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}[path.suffix]
        path.write_bytes(pack(content))
    return path


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip", "zst"])
def test_compressed_files_are_unpacked(tmp_path, ending):
    assert read_csv(packed(tmp_path / f"rows.csv.{ending}"), CsvForm()).to_dict("list") == ROWS


def test_a_compressed_file_that_is_damaged_or_holds_several_says_so(tmp_path):
    (tmp_path / "rows.csv.gz").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(FileError, match="cannot be unpacked"):
        read_csv(tmp_path / "rows.csv.gz", CsvForm())
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("one.csv", "a,b\n")
        archive.writestr("two.csv", "a,b\n")
    with pytest.raises(FileError, match="holds 2 files"):
        read_csv(tmp_path / "two.zip", CsvForm())


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip", "zst"])
def test_a_compressed_file_that_is_cut_off_is_incomplete(tmp_path, ending):
    path = packed(tmp_path / f"rows.csv.{ending}")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IncompleteError, match="cannot be unpacked"):
        read_csv(path, CsvForm())


@pytest.mark.parametrize(
    ("name", "kind", "separator"),
    [("a.csv", "csv", ","), ("a.TSV.gz", "csv", "\t"), ("a.txt", "csv", ","), ("a.jsonl.zst", "json lines", ","),
     ("a.ndjson", "json lines", ","), ("a.pq", "parquet", ","), ("a.xlsx", "excel", ",")],
)  # fmt: skip
def test_a_name_says_how_a_file_is_read(name, kind, separator):
    assert (kind_of(name), separator_of(name)) == (kind, separator)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_line_end_is_seen_in_any_encoding(file, encoding):
    for text, ends in (("a\n1\n", True), ("a\n1\r", True), ("a\n1", False), ("\n2,", False)):
        file.write_bytes(text.encode(encoding))
        assert ends_with_a_line(file) == ends


# -- JSON lines --------------------------------------------------------------------------------------------------------


def test_json_keeps_numbers_as_written_and_flattens_objects(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '\ufeff{"n": 1.50, "big": 12345678901234567890, "who": {"name": "ä", "tags": [1, 2.0, {"a": null}]}}\n\n'
        '{"n": -0.1e3, "on": true, "off": false, "who": null, "gone": NaN, "far": Infinity}\n'
    )
    rows = read_json_lines(path)
    assert set(map(str, rows.dtypes)) == {"string"}
    assert rows.iloc[0].dropna().to_dict() == {
        "n": "1.50", "big": "12345678901234567890", "who.name": "ä", "who.tags": '[1, 2.0, {"a": null}]',
    }  # fmt: skip
    assert rows.iloc[1].dropna().to_dict() == {"n": "-0.1e3", "on": "True", "off": "False", "far": "inf"}
    assert "who" not in rows


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ('{"a": 1}\n{"a": \n{"a": 3}\n', FileError, "line 2 is not JSON"),
        ('{"a": 1}\n{"a": 2', IncompleteError, r"its last line \(2\) ends in the middle"),
        ('{"a": 1}\n[1, 2]\n', FileError, r"record 2 is not an object \(\[1, 2\]\)"),
        ('{"a.b": 1, "a": {"b": 2}}\n', FileError, "record 1 has the column 'a.b' twice"),
        (b'{"a": "\xff"}\n', FileError, "not utf-8 text"),
    ],
)
def test_lines_that_are_no_records_are_named(tmp_path, content, kind, words):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FileError, match=words) as refused:
        read_json_lines(path)
    assert refused.type is kind


# -- workbooks ---------------------------------------------------------------------------------------------------------


def workbook(path: Path, **sheets: list[list]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_cells_are_read_as_the_sheet_means_them(tmp_path):
    path = tmp_path / "rows.xlsx"
    book = openpyxl.Workbook()
    sheet = book.active
    cells = [
        (7, "00000", "00007"), (0.1 + 0.2, "General", "0.3"), (1e21, "General", "1e+21"), (5.0, "0.00", "5"),
        (12345678901, "General", "12345678901"), (0.125, "0.0%", "0.125"), (True, "General", "True"),
        (dt.datetime(2026, 1, 2), "yyyy-mm-dd", "2026-01-02"),
        (dt.datetime(2026, 1, 2), "yyyy-mm-dd hh:mm", "2026-01-02 00:00:00"),
        (dt.datetime(2026, 1, 2, 3, 4, 5), "d.m.yy", "2026-01-02 03:04:05"), (dt.time(3, 4), "hh:mm", "03:04:00"),
        (dt.timedelta(hours=25), "[h]:mm", "90000.0"), ("00501", "@", "00501"), ("a, \"b\"\nc", "@", "a, \"b\"\nc"),
        (None, "General", ""), ("#DIV/0!", "General", "#DIV/0!"),
    ]  # fmt: skip
    for column, (value, shape, _) in enumerate(cells, start=1):
        sheet.cell(1, column, f"c{column}")
        sheet.cell(2, column, value).number_format = shape
    sheet.cell(3, 1, "x")
    book.save(path)
    rows = read_excel(path, CsvForm())
    assert list(rows.iloc[0]) == [text for _, _, text in cells]
    assert list(rows.iloc[1])[1:] == [""] * (len(rows.columns) - 1)


def test_titles_and_feet_of_a_sheet_are_no_rows(tmp_path):
    path = workbook(tmp_path / "rows.xlsx", S=[["Report\nof 2026"], [], ["a", "b"], [1, "x"], [2, None], ["Total", 3]])
    assert read_rows(path, CsvForm(header=3, foot=["Total"])).to_dict("list") == ROWS


def test_a_sheet_is_chosen_by_name_unless_it_is_the_only_one(tmp_path):
    path = workbook(tmp_path / "rows.xlsx", A=[["a", "b"], [1, "x"]], B=[["a", "b"], [2, "y"]], Empty=[])
    assert read_rows(path, CsvForm(), "B").to_dict("list") == {"a": ["2"], "b": ["y"]}
    with pytest.raises(FileError, match=r"it has several sheets \(A, B\); name one"):
        read_excel(path, CsvForm())
    with pytest.raises(FileError, match="it has no sheet 'C'; its sheets are: A, B, Empty"):
        read_excel(path, CsvForm(), "C")
    with pytest.raises(FileError, match="no sheet of it has a cell"):
        read_excel(workbook(tmp_path / "none.xlsx", Empty=[]), CsvForm())


def test_what_is_no_workbook_says_so(tmp_path):
    path = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(FileError, match="not a readable workbook"):
        read_excel(path, CsvForm())
    workbook(path, A=[["a", "b"], [1, "=A2"]])
    with pytest.raises(FileError, match="the formula in B2 has no stored result"):
        read_excel(path, CsvForm())


# -- Parquet -----------------------------------------------------------------------------------------------------------


def test_parquet_may_be_packed_and_its_footer_may_be_missing(tmp_path):
    pd.DataFrame({"a": [1], "b": ["x"]}).to_parquet(tmp_path / "rows.parquet")
    content = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress(content))
    assert read_rows(tmp_path / "rows.parquet.gz", CsvForm()).to_dict("list") == {"a": ["1"], "b": ["x"]}
    for part in (content[:-8], content[:4]):
        (tmp_path / "rows.parquet").write_bytes(part)
        with pytest.raises(IncompleteError, match="it has no footer"):
            read_rows(tmp_path / "rows.parquet", CsvForm())


def test_every_kind_of_parquet_column_is_text_and_loses_nothing(tmp_path):
    frame = pd.DataFrame(
        {
            "long": pd.array([10**17 + 7, None], dtype="Int64"),
            "amount": [decimal.Decimal("1.50"), None],
            "kind": pd.Categorical(["x", None]),
            "day": [dt.date(2026, 1, 1), None],
            "at": pd.to_datetime(["2026-01-01 10:00:00.5", None], format="ISO8601").tz_localize("Europe/Berlin"),
            "lasted": pd.to_timedelta([1.5, None], unit="h"),
            "raw": [b"ab\xff", None],
            "ratio": [float("inf"), None],
        },
        index=pd.Index(["k1", "k2"], name="key"),
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    read = read_parquet(tmp_path / "rows.parquet")
    assert set(map(str, read.dtypes)) == {"string"}
    assert read.iloc[0].to_dict() == {
        "key": "k1", "long": "100000000000000007", "amount": "1.50", "kind": "x", "day": "2026-01-01",
        "at": "2026-01-01 10:00:00.500000+01:00", "lasted": "5400.0", "raw": "ab\\xff", "ratio": "inf",
    }  # fmt: skip
    assert read.iloc[1].drop("key").isna().all()


def test_nested_parquet_columns_are_named(tmp_path):
    pd.DataFrame({"a": [1], "tags": [[1, 2]]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(FileError, match="the columns tags hold lists"):
        read_parquet(tmp_path / "rows.parquet")


# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_source_reads_by_its_declared_form(file):
    file.write_text("Report\n\na;b\n1;x\n2;\nTotal;3\n", encoding="utf-16")
    source = CsvFile(path=str(file), separator=";", encoding="utf-16", header=3, foot=["Total"])
    assert source.read().to_dict("list") == ROWS
    with pytest.raises(SourceError, match=r"rows\.csv: not utf-8 text .*; check the file and the source's separator"):
        CsvFile(path=str(file)).read()


@pytest.mark.parametrize(
    ("times", "form"),
    [
        (["2026-11-26T23:30:00-05:00", "2026-11-27T05:30:00Z", "2026-11-27 23:59:59.999"], "ISO8601"),
        (["1795753800000", "1795757400000", "1795823999999"], "milliseconds since 1970-01-01"),
        (["27/11/2026 04:30", "2026-11-27T00:30:00-05:00", "27/11/2026 23:59"], "%d/%m/%Y %H:%M"),
    ],
)
def test_rows_land_on_their_day_in_utc(file, times, form):
    file.write_text("at,n\n" + "".join(f"{time},{n}\n" for n, time in enumerate(times)) + "never,9\n")
    landed = FileByDay(path=str(file), time="at", form=form).land(dt.date(2026, 11, 27))
    assert list(landed["n"]) == ["0", "1", "2"]


def test_any_ending_of_parquet_lands_by_day(tmp_path):
    pd.DataFrame({"at": pd.to_datetime(["2026-11-27"]), "n": [1]}).to_parquet(tmp_path / "rows.pq")
    assert len(FileByDay(path=str(tmp_path / "rows.pq"), time="at").land(dt.date(2026, 11, 27))) == 1
