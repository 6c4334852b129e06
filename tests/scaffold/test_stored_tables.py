"""TABLE as files of a pattern or elsewhere, JSON lines and workbooks: read by the source that the declaration names."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from assets.lifecycle.dry_run import dry_run
from resources.settings import project_root
from resources.sources import Files, FilesByDay
from scaffold.new_model import drafted
from scaffold.tables import ScaffoldError
from tests.resources.sources.conftest import CANARY, old, s3, s3_server, web  # noqa: F401

N = 300


def plain(rows: int = N) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x, city = rng.normal(size=rows), rng.choice(list("abc"), rows)
    at = pd.date_range("2020-01-01", periods=rows, freq="6h").strftime("%Y-%m-%dT%H:%M:%SZ")
    bought = x + (city == "a") + rng.normal(size=rows) > 0
    return pd.DataFrame({"at": at, "x": x.round(3), "city": city, "y": np.where(bought, "yes", "no")})


@pytest.fixture
def root(tmp_path) -> Path:
    """A project far from its files, so that they are named by their whole path."""
    folder = tmp_path / "far" / "from" / "here"
    (folder / "assets" / "models").mkdir(parents=True)
    (folder / "pyproject.toml").write_text((project_root() / "pyproject.toml").read_text())
    return folder


@pytest.fixture
def made(root):
    """Drafts a model, and gives its source, guess and texts; all rows are read again by the declared source."""

    def make(table: str | Path, target: str = "y", **how):
        with drafted(root, "trial", table, target, **how) as draft:
            tried = dry_run(draft.model, None if draft.guess.clock is None else draft.raw.rows)
            assert tried.reasons == {}
            assert tried.landed == N
            texts = {path.name: path.read_text() for path in draft.folder.iterdir() if path.is_file()}
            return draft.model.table.source, draft.guess, texts

    return make


def write(path: Path, frame: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case ".xlsx":
            frame.to_excel(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return old(path)


@pytest.mark.parametrize("ending", ["jsonl", "xlsx"])
def test_one_file_of_another_kind_is_read_by_files(made, tmp_path, ending):
    path = write(tmp_path / f"sales.{ending}", plain())
    source, guess, texts = made(path)
    assert isinstance(source, Files)
    assert f'source=Files(path="{path}"),' in texts["__init__.py"]
    assert 'name="sales"' in texts["__init__.py"]
    assert [column.name for column in guess.columns] == ["at", "x", "city", "y"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_a_pattern_is_one_table(made, tmp_path, ending):
    parts = np.array_split(np.arange(N), 3)
    for number, part in enumerate(parts):
        write(tmp_path / "sales" / f"{number}.{ending}", plain().iloc[part])
    source, guess, texts = made(f"{tmp_path}/sales/*.{ending}")
    assert isinstance(source, Files)
    assert source.path.endswith(f"/sales/*.{ending}")
    assert "3 files make up the table" in guess.notes
    assert "separator" not in texts["__init__.py"]


def test_a_pattern_with_a_time_lands_by_day(made, tmp_path):
    write(tmp_path / "a.csv", plain().iloc[:200])
    write(tmp_path / "b.csv", plain().iloc[200:])
    source, _, texts = made(f"{tmp_path}/*.csv", time="at")
    assert isinstance(source, FilesByDay)
    assert 'time="at"' in texts["__init__.py"]
    assert len(source.land(dt.date(2020, 1, 2))) == 4


def test_a_pattern_with_the_day_in_it_lands_by_folder(made, tmp_path):
    for day, part in plain().groupby(plain()["at"].str[:10]):
        write(tmp_path / "sales" / str(day).replace("-", "/") / "a.csv", part)
    pattern = f"{tmp_path}/sales/{{day:%Y/%m/%d}}/*.csv"
    source, _, texts = made(pattern, time="at")
    assert (source.path, source.time) == (pattern, "")
    assert 'name="sales"' in texts["__init__.py"]
    assert len(source.land(dt.date(2020, 1, 2))) == 4
    assert source.landed_until() == dt.date(2020, 3, 15)
    with pytest.raises(ScaffoldError, match="files by day need TIME=column"):
        made(pattern)


def test_the_form_of_csv_files_is_found_in_the_first(made, tmp_path):
    for name in "ab":
        frame = plain().iloc[:150] if name == "a" else plain().iloc[150:]
        text = "Report\n" + frame.replace({"city": {"a": "Málaga"}}).to_csv(index=False, sep=";")
        path = tmp_path / f"{name}.csv"
        path.write_bytes(text.encode("cp1252"))
        old(path)
    source, _, texts = made(f"{tmp_path}/*.csv")
    assert (source.separator, source.encoding, source.header) == (";", "cp1252", 2)
    assert 'separator=";", encoding="cp1252", header=2' in " ".join(texts["__init__.py"].split())


def test_a_sheet_is_read_as_it_means_its_cells(made, tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(["Report of sales"])
    sheet.append(["zip", "on", "lasted", "x", "y"])
    for number in range(N):
        sheet.append([number, dt.datetime(2020, 1, 1 + number % 28), dt.timedelta(hours=1), number / 3, number % 2])
        sheet.cell(number + 3, 1).number_format = "00000"
        sheet.cell(number + 3, 2).number_format = "yyyy-mm-dd"
    sheet.append(["Total", None, None, 9.0, None])
    book.create_sheet("Notes").append(["made by hand"])
    book.save(tmp_path / "sales.xlsx")
    old(tmp_path / "sales.xlsx")
    with pytest.raises(ScaffoldError, match=r"several sheets \(Sales, Notes\); name one; give TABLE='.*#sheet'"):
        made(tmp_path / "sales.xlsx")
    source, guess, _ = made(f"{tmp_path}/sales.xlsx#Sales")
    assert (source.sheet, source.header, source.foot) == ("Sales", 2, ["Total"])
    assert source.read().iloc[7].to_dict() == {
        "zip": "00007", "on": "2020-01-08", "lasted": "3600.0", "x": "2.33333333333333", "y": "1",
    }  # fmt: skip
    assert any("the column names are in row 2" in note for note in guess.notes)


def test_an_object_of_s3_works_like_a_file(made, s3):  # noqa: F811
    s3.pipe_file("shop/sales/a.csv", plain().iloc[:100].to_csv(index=False).encode())
    s3.pipe_file("shop/sales/b.csv", plain().iloc[100:].to_csv(index=False).encode())
    source, _, texts = made("s3://shop/sales/*.csv")
    assert 'source=Files(path="s3://shop/sales/*.csv"),' in texts["__init__.py"]
    assert 'name="sales"' in texts["__init__.py"]
    assert len(source.read()) == N
    with pytest.raises(ScaffoldError, match="there is no bucket 'nobody' at this storage; give the files of a table"):
        made("s3://nobody/x.csv")


def test_a_url_works_like_a_file(made, web):  # noqa: F811
    url, folder = web
    write(folder / "sales.csv", plain())
    _, _, texts = made(f"{url}/sales.csv")
    assert f'source=Files(path="{url}/sales.csv"),' in texts["__init__.py"]
    assert "except SourceUnavailable" in texts["test_trial.py"]


@pytest.mark.parametrize(
    "table",
    [
        f"sftp://ann:{CANARY}@host/x.csv",
        f"https://host/x.csv?X-Amz-Signature={CANARY}",
        f"https://host/x.csv?api_key={CANARY}",
    ],
)
def test_a_secret_in_table_is_refused_and_not_repeated(made, table):
    with pytest.raises(ScaffoldError, match="a password or token in TABLE is shown to every user") as refused:
        made(table)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.json", "write one object per line"),
        ("x.ods", "save the sheet"),
        ("x.7z", "unpack it"),
        ("x.xls", "as .xlsx"),
    ],
)
def test_other_files_are_refused_with_what_to_do(made, tmp_path, name, words):
    (tmp_path / name).write_text(json.dumps([{"x": 1}]))
    with pytest.raises(ScaffoldError, match=f"files are not supported; .*{words}"):
        made(tmp_path / name)


def test_tables_that_are_not_there_are_named(made, tmp_path):
    with pytest.raises(ScaffoldError, match="no such file; give the files of a table as TABLE"):
        made(f"{tmp_path}/none/*.csv")
    with pytest.raises(ScaffoldError, match=r"TABLE=ftp://…: there is no such storage"):
        made("ftp://host/x.csv")
    write(tmp_path / "a.csv", plain())
    write(tmp_path / "b.csv", plain().rename(columns={"x": "z"}))
    with pytest.raises(ScaffoldError, match=r"b\.csv lacks x and has also z"):
        made(f"{tmp_path}/*.csv")


def test_a_formula_that_was_never_computed_is_named(made, tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["x", "y"])
    book.active.append([1, "=A2*2"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(ScaffoldError, match="the formula in B2 has no stored result; open the workbook"):
        made(tmp_path / "a.xlsx")
