"""The catalogue says what the declarations and the files say: in the class, on the page, by the command."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import dagster as dg
import pandas as pd
import pandera.pandas as pa
import pytest
from fastapi.testclient import TestClient
from pandera.typing.pandas import Series

from cli import main
from metadata.catalogue import Catalogue, CatalogueColumn
from resources.alerts import AlertStore
from resources.tables import ParquetTables, TableError
from serving.watch.alerts_page import create_app
from serving.watch.catalogue_page import standalone_page
from tests.declarations.readings import Feed, LateReadings, plain, readings, stream

TOKEN = "a-token-of-enough-letters"


class Described(LateReadings):
    """One reading, described."""

    site: Series[str] = pa.Field(isin=["north", "south", "east"], description="Where it <hangs>.")
    level: Series[float] = pa.Field(in_range={"min_value": 0, "max_value": 1_000}, nullable=True)
    batch: Series[str] = pa.Field(isin=[f"b{i}" for i in range(20)], unique=True)

    @pa.check("batch", name="written_small")
    def small(cls, values):
        return values.str.islower()


class SecretFeed(Feed):
    """The feed of a shop, ``readings``."""

    password: str = "hush-hush-hush"


model = stream()
model = replace(model, table=replace(model.table, contract=Described, source=SecretFeed()))
DAYS = ["2026-01-01", "2026-01-03"]


@pytest.fixture
def tables(tmp_path) -> ParquetTables:
    tables = ParquetTables(root=str(tmp_path / "home" / "tables"))
    for n, day in enumerate(DAYS, start=1):
        frame = readings(10 * n).drop(columns="faulty").assign(row_id=pd.array(["r"] * 10 * n, dtype="string[pyarrow]"))
        tables.write(model.key("readings"), frame, day)
    tables.write(model.key("predictions"), pd.DataFrame({"reading_id": [1], "score": [0.5]}), DAYS[0])
    tables.write(dg.AssetKey(["old", "leftover"]), pd.DataFrame({"a": [1]}))
    return tables


@pytest.fixture
def listing(tables):
    return {table.name: table for table in Catalogue(tables, [model, plain(name="other")]).listing()}


def test_each_declared_table_is_there_in_the_order_of_the_lifecycle_and_then_what_has_only_files(listing):
    names = list(listing)
    assert names[:5] == ["meter.raw_readings", "meter.raw_labels", "meter.readings", "meter.quarantine", "meter.labels"]
    assert names[-1] == "old.leftover"
    assert not listing["old.leftover"].declared
    assert listing["old.leftover"].columns == (CatalogueColumn(name="a", type="int64"),)


def test_a_table_tells_what_its_declaration_tells(listing):
    table = listing["meter.readings"]
    assert table.description.startswith("readings, typed, deduplicated")
    assert (table.owner, table.group, table.kinds) == (model.owner, "meter/data", ("pandas", "pandera"))
    assert table.reads == ("meter.raw_readings",)
    assert [(check.name, check.blocking) for check in table.checks] == [("contract", True)]
    assert table.expected == "made again within 48 hours"
    assert (table.source, table.daily) == ("", True)
    raw = listing["meter.raw_readings"]
    assert raw.source == "SecretFeed: The feed of a shop, readings."
    assert "hush" not in str(listing), "a field of a source may be a secret"


def test_a_column_has_the_type_of_the_file_and_the_meaning_and_rules_of_the_contract(listing):
    columns = {column.name: column for column in listing["meter.readings"].columns}
    assert list(columns) == ["reading_id", "read_at", "site", "level", "row_id"], "as in the file, not as declared"
    assert columns["reading_id"] == CatalogueColumn(name="reading_id", type="int64", rules="the key, ≥ 0")
    assert columns["read_at"].type == "timestamp"
    site = CatalogueColumn(name="site", type="string", meaning="Where it <hangs>.", rules="one of north, south, east")
    assert columns["site"] == site
    assert columns["level"].rules == "may be missing, from 0 to 1,000"
    assert columns["row_id"].meaning == "Identifies the landed row."
    scored = {column.name: column for column in listing["meter.predictions"].columns}
    assert scored["reading_id"].rules == "", "the contract is asked of the cleaned rows"


def test_before_there_is_a_file_the_columns_are_those_of_the_contract(tmp_path):
    found = {table.name: table for table in Catalogue(ParquetTables(root=str(tmp_path)), [model]).listing()}
    columns = {column.name: column.rules for column in found["meter.readings"].columns}
    assert columns["batch"] == "unique, one of 20 values, written_small"
    assert {column.type for column in found["meter.readings"].columns} == {""}
    assert found["meter.readings"].written_at is None
    assert found["meter.features"].columns == ()
    assert not list(tmp_path.iterdir()), "a question creates nothing"


def test_days_rows_and_time_are_those_of_the_files_now(tables):
    catalogue = Catalogue(tables, [model])

    def now():
        return {table.name: table for table in catalogue.listing()}["meter.readings"]

    first = now()
    assert (first.days, first.first_day, first.latest_day, first.rows) == (2, *DAYS, 30)
    assert first.bytes == sum(tables.size(model.key("readings"), day) for day in DAYS)
    assert first.data_version == tables.stamp(model.key("readings"), DAYS[1]).data_version
    tables.write(model.key("readings"), readings(5), "2026-01-04")
    assert (now().days, now().latest_day, now().rows) == (3, "2026-01-04", 35)
    assert now().written_at >= first.written_at


# -- the page --------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Ids of a page, and the links to them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.inside: set[str] = set()
        self.outside: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and given.get("href", "").startswith("#"):
            self.inside.add(given["href"][1:])
        elif tag == "a":
            self.outside.add(given["href"])


@pytest.fixture
def client(tables, tmp_path) -> TestClient:
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}")
    return TestClient(create_app(store, TOKEN, reports=tables, models=[model]), follow_redirects=False)


def test_the_page_needs_the_token(client):
    assert client.get("/catalogue", headers={"accept": "text/html"}).headers["location"] == "/login"
    assert client.get("/catalogue.json").status_code == 401


def test_the_page_shows_tables_and_columns(client):
    client.headers["authorization"] = f"Bearer {TOKEN}"
    html = client.get("/catalogue").text
    shown = ["meter.readings", "2026-01-03", "Where it &lt;hangs&gt;.", "one of north, south, east", "not made yet"]
    for words in (*shown, "old.leftover", "no declaration has it", 'href="/catalogue"'):
        assert words in html, words
    links = Links(html)
    assert links.inside <= links.ids
    chosen = client.get("/catalogue?model=meter").text
    assert "meter.readings" in chosen
    assert "old.leftover" not in chosen
    found = client.get("/catalogue.json?model=meter").json()
    assert [t["name"] for t in found][:2] == ["meter.raw_readings", "meter.raw_labels"]
    assert found[2]["rows"] == 30


def test_a_damaged_file_is_named_on_the_page(client, tables):
    client.headers["authorization"] = f"Bearer {TOKEN}"
    tables.files.replace(f"meter/readings/{DAYS[0]}.parquet", b"damaged")
    answer = client.get("/catalogue")
    assert answer.status_code == 409
    assert "is damaged" in answer.text
    with pytest.raises(TableError, match="is damaged"):
        tables.types(model.key("readings"), DAYS[0])


def test_the_file_needs_no_server(tables):
    html = standalone_page(Catalogue(tables, [model]).listing())
    links = Links(html)
    assert links.outside == set(), "and leads nowhere else"
    assert links.inside <= links.ids
    assert "<script" not in html
    assert "<form" not in html


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tables, tmp_path, monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
        monkeypatch.setattr("assets.models.declared_models", lambda: [model])
        code = main(["catalogue", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_command_lists_tables_and_shows_one(command):
    code, out, _ = command()
    assert code == 0
    [line] = [line for line in out.splitlines() if line.startswith("meter.readings ")]
    assert line.split()[:5] == ["meter.readings", model.owner, "2", "2026-01-03", "30"]
    code, out, _ = command("meter/readings")
    assert code == 0
    assert "  made from     meter.raw_readings" in out
    assert "one of north, south, east" in out
    assert json.loads(command("--json")[1])[2]["name"] == "meter.readings"


def test_the_command_writes_the_page_and_refuses_what_it_cannot_write(command, tmp_path):
    code, out, _ = command("--out", str(tmp_path / "tables.html"))
    assert code == 0
    assert out.startswith(f"wrote {tmp_path / 'tables.html'}: ")
    assert "meter.readings" in (tmp_path / "tables.html").read_text()
    for arguments, said in (
        (["--out", "x.pdf"], "--out x.pdf: the page has all tables; give a file that ends with .html"),
        (["meter.readings", "--out", "x.html"], "--out x.html: the page has all tables; leave out the table"),
        (["meter.nope"], "there is no table meter.nope; `assetline catalogue` lists them"),
    ):
        assert command(*arguments) == (1, "", f"assetline catalogue: {said}\n")
