"""SQL over the views: what it answers, and what it refuses."""

import pytest

from metadata import query as module
from metadata.facts import Metadata, UnknownError
from metadata.query import QueryError, query
from metadata.views import VIEWS, columns_of
from resources.settings import Settings, project_root
from tests.declarations.readings import plain, stream


@pytest.fixture
def empty(tmp_path) -> Metadata:
    """Two declared models, and no store of any kind."""
    settings = Settings(home=tmp_path / "home", database_url=f"sqlite:///{tmp_path / 'home' / 'assetline.db'}")
    return Metadata(settings, [plain(), stream(name="metre")], None)


def test_before_anything_ran_every_view_is_there_and_nothing_is_created(empty):
    for view in VIEWS:
        columns = ", ".join(column.name for column in columns_of(view))
        result = query(empty, f"SELECT {columns} FROM {view}")
        assert result.columns == tuple(column.name for column in columns_of(view))
        assert len(result.rows) == (2 if view == "models" else 0)
    assert query(empty, "SELECT model, declared, kind FROM models ORDER BY model").to_json() == [
        {"model": "meter", "declared": 1, "kind": "binary"}, {"model": "metre", "declared": 1, "kind": "binary"},
    ]  # fmt: skip
    assert not empty.settings.home.exists()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "the query is empty; a query is one SELECT on the views"),
        ("DELETE FROM models", "a query is one SELECT on the views; nothing else is allowed"),
        ("INSERT INTO models (model) VALUES ('x')", "nothing else is allowed"),
        ("UPDATE models SET model = 'x'", "nothing else is allowed"),
        ("DROP TABLE models", "nothing else is allowed"),
        ("CREATE TABLE other (x)", "nothing else is allowed"),
        ("ATTACH '/tmp/other.db' AS other", "nothing else is allowed"),
        ("PRAGMA query_only = 0", "nothing else is allowed"),
        ("SELECT load_extension('x')", "nothing else is allowed"),
        ("SELECT 1; DROP TABLE models", "a query is one SELECT on the views, not several statements"),
        ("SELECT * FROM model", "no such table: model; the views are: models, versions, runs, "),
        ("SELECT colour FROM models", "no such column: colour; `assetline query` without a query lists the columns"),
        ("SELEKT 1", 'the query is wrong: near "SELEKT": syntax error'),
        ("SELECT readfile('/etc/passwd')", "the query is wrong: no such function: readfile"),
        ("SELECT zeroblob(100000000)", "the query is wrong: string or blob too big"),
    ],
)
def test_all_but_one_select_is_refused_in_one_sentence(empty, sql, message):
    with pytest.raises(QueryError) as refused:
        query(empty, sql)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(empty.models()) == 2


def test_a_query_without_end_is_stopped(empty):
    with pytest.raises(QueryError, match=r"the query was stopped after 0.2 s; ask for fewer rows"):
        query(
            empty, "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r", seconds=0.2
        )


def test_rows_beyond_the_limit_are_left_out_and_that_is_told(empty, monkeypatch):
    numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 30) SELECT n FROM r"
    for limit, rows, more in ((30, 30, False), (29, 29, True), (0, 1, True)):
        result = query(empty, numbers, limit=limit)
        assert (len(result.rows), result.more) == (rows, more)
    monkeypatch.setattr(module, "MOST_ROWS", 20)
    assert len(query(empty, numbers, limit=1_000).rows) == 20


def test_columns_of_the_same_name_are_all_there(empty):
    result = query(empty, "SELECT a.model, b.model FROM models a JOIN models b ON a.model = b.model LIMIT 1")
    assert result.to_json() == [{"model": "meter", "model_2": "meter"}]


def test_only_views_that_a_query_names_are_read(empty, monkeypatch):
    read = []
    rows = Metadata.rows
    monkeypatch.setattr(Metadata, "rows", lambda self, view, model=None: read.append(view) or rows(self, view, model))
    query(empty, "WITH x AS (SELECT model FROM versions) SELECT count(*), (SELECT count(*) FROM alerts) FROM x")
    assert read == ["versions", "alerts"]


def test_an_unknown_view_or_model_is_named_with_those_there_are(empty):
    with pytest.raises(UnknownError, match=r"^there is no view 'model'; the views are: models, versions, runs, "):
        empty.rows("model")
    with pytest.raises(UnknownError, match=r"^there is no model 'fraud'; the models are: meter, metre$"):
        empty.rows("versions", "fraud")
    with pytest.raises(UnknownError, match=r"^there are several models: meter, metre; choose one with --model$"):
        empty.only_model(None)
    assert empty.only_model("metre") == "metre"
    with pytest.raises(UnknownError, match=r"^meter has no version '3'; its versions are: none$"):
        empty.version("meter", "3")
    nothing = Metadata(empty.settings, [], None)
    with pytest.raises(UnknownError, match=r"^there is no model yet; `make new-model` writes one$"):
        nothing.only_model(None)
    assert Metadata(empty.settings, [plain()], None).only_model(None) == "meter"


def test_the_docs_have_each_view_and_each_column():
    text = (project_root() / "docs" / "metadata.md").read_text(encoding="utf-8")
    for view in VIEWS:
        section = text.partition(f"\n### `{view}`\n")[2].partition("\n### ")[0]
        lacking = [column.name for column in columns_of(view) if f"`{column.name}`" not in section]
        assert section, view
        assert not lacking, (view, lacking)
