"""Two trained versions of a small stream, as commands, SQL, pages and the endpoint tell of them."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from assets.lifecycle.model.metrics import evaluate
from assets.lifecycle.model.training_set import matrix
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.version.training_rows import RowsError, find_rows
from cli import main
from metadata.comparison import compare
from metadata.compliance import compliance_rows, read_compliance
from metadata.facts import Metadata, MetadataError
from metadata.lineage import lineage_of
from metadata.query import query
from metadata.views import VIEWS
from resources.git import branch_of
from resources.retention import Retention
from resources.runtime import Runtime
from resources.settings import Settings, project_root
from resources.tables import ParquetTables
from serving.watch.alerts_page import create_app
from tests.declarations.gauges import model
from tests.declarations.readings import START
from tests.stages import copied_bundle
from tests.worlds import World, why

TOKEN = "a-token-of-enough-letters"
API = {"authorization": f"Bearer {TOKEN}"}
SCORED = ["2026-01-16", "2026-01-17"]


@dataclass
class Lived(World):
    """The world, and what was in ``training_set`` after each training."""

    rows_of: dict[int, bytes] | None = None

    @property
    def metadata(self) -> Metadata:
        return Metadata(self.settings, [model], self.instance)


@pytest.fixture(scope="module")
def lived(make_world, tmp_path_factory) -> Lived:
    """Version 1 in production with predictions of two days; version 2 with another recipe, refused; an alert."""
    world = make_world(model, tmp_path_factory.mktemp("asked"))
    days = [str(day.date()) for day in pd.date_range(START, SCORED[-1])]
    for work, until in (("land", 17), ("clean", 17), ("label", 16), ("features", 17)):
        result = world.run(work, days[:until])
        assert result.success, (work, why(result))
    rows_of = {}
    longer = World(replace(model, training=replace(model.training, max_epochs=3)), world.settings, world.instance)
    for number, (trained, as_of) in enumerate(((world, "2026-01-14"), (longer, "2026-01-16")), start=1):
        result = trained.run("train", training_set={"as_of": as_of})
        assert result.success, why(result)
        rows_of[number] = world.tables.read_bytes(model.key("training_set"))
    for number, branch in (("1", "main"), ("2", "pull-request/mine")):
        world.mlflow.set_version_tag("gauge", number, "git_branch", branch)
    facts = {"verdicts": {}, "dagster_run": "run-1", "who": "ada"}
    world.ledger.promote("gauge", "1", reason="the first", **facts)
    world.ledger.refuse("gauge", "2", reason="not needed", **facts)
    for day in SCORED:
        version = pd.array(["1"] * 60, dtype="string[pyarrow]")
        world.tables.write(model.key("predictions"), pd.DataFrame({"version": version}), day)
    world.alerts.store.report("gauge", "drift/drift", severity="page", summary="1 of 2 columns drifted",
                              day=SCORED[0], links={"run": "/runs/run-2"})  # fmt: skip
    return Lived(model, world.settings, world.instance, world.overrides, rows_of)


@pytest.fixture
def command(lived, monkeypatch, capsys):
    """Runs a command on the state folder: exit code, output and errors."""

    def run(*arguments: str, home=lived.settings.home) -> tuple[int, str, str]:
        monkeypatch.setenv("ASSETLINE_HOME", str(home))
        capsys.readouterr()
        code = main(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def moved(lived, tmp_path) -> tuple[Settings, ParquetTables]:
    """A copy of the state folder, to change its tables; MLflow's files stay where they are."""
    home = tmp_path / "home"
    shutil.copytree(lived.settings.home, home)
    settings = replace(lived.settings, home=home, tables="", database_url=f"sqlite:///{home / 'assetline.db'}")
    return settings, ParquetTables(root=str(settings.tables))


@pytest.fixture
def client(lived) -> TestClient:
    app = create_app(lived.alerts.store, TOKEN, ui_url="http://dagster", metadata=lambda: lived.metadata)
    return TestClient(app, follow_redirects=False)


# -- views -----------------------------------------------------------------------------------------------------------


def test_the_views_say_what_the_stores_say(lived):
    metadata = lived.metadata
    assert all(metadata.rows(view) for view in VIEWS), "each kind of fact is there"
    [listed] = metadata.models()
    assert (listed.versions, listed.latest, listed.production, listed.open_alerts) == (2, 2, 1, 1)
    first, second = metadata.versions()
    assert [(one.version, one.status, one.gate, one.staging) for one in (first, second)] == [
        (1, "production", True, None), (2, "refused", True, None),
    ]  # fmt: skip
    tags = lived.mlflow.version_tags("gauge", "1")
    assert (first.data_version, first.code, first.dagster_run_id) == (
        tags["data_version"], tags["code"], tags["dagster_run_id"]
    )  # fmt: skip
    assert first.mlflow_run_id == lived.mlflow.run_of_version("gauge", "1")
    assert (first.test_days, first.test_rows) == ("2026-01-12 … 2026-01-14", 180)
    assert second.rows == len(pd.read_parquet(lived.tables.path(model.key("training_set"))))
    trained = [(run.job, run.status, run.version) for run in metadata.runs() if run.version is not None]
    assert trained == [("gauge_train", "SUCCESS", 1), ("gauge_train", "SUCCESS", 2)]
    assert {run.model for run in metadata.runs()} == {"gauge"}
    assert {run.git_branch for run in metadata.runs()} == {branch_of(project_root())}
    assert (first.git_branch, second.git_branch) == ("main", "pull-request/mine")
    assert (first.lock, first.git_commit) == (Runtime.read(metadata.folder(first)).lock, second.git_commit)
    assert tags["lock"] == first.lock
    assert [(one.action, one.version, one.until) for one in metadata.deployments()] == [
        ("promote", 1, None), ("refuse", 2, None)
    ]  # fmt: skip
    assert [(one.rule, one.passed) for one in metadata.verdicts() if one.version == 1] == [
        ("floor", True), ("baseline", True), ("latency", True)
    ]  # fmt: skip
    [alert] = metadata.alerts()
    assert (alert.cause, alert.first_day, alert.dagster_run_id) == ("drift/drift", SCORED[0], "run-2")
    assert [(one.day, one.version, one.rows) for one in metadata.predictions()] == [(day, 1, 60) for day in SCORED]


def test_metrics_are_those_of_the_report_and_of_the_training(lived):
    run = lived.mlflow.client().get_run(lived.mlflow.run_of_version("gauge", "2"))
    rows = [row for row in lived.metadata.metrics() if row.version == 2]
    own = {row.metric: row for row in rows if (row.measured_on, row.score, row.slice) == ("test", "torch", "")}
    assert {f"test.{name}": row.value for name, row in own.items()} == {
        name: value for name, value in run.data.metrics.items() if name.startswith("test.")
    }
    assert own["roc_auc"].low < own["roc_auc"].value < own["roc_auc"].high
    assert {row.score for row in rows} == {"torch", "xgboost", "linear"}
    trained = {row.metric for row in rows if row.measured_on == "training"}
    assert {"epochs", "folds_score"} <= trained
    assert not any(name.startswith("test.") for name in trained)
    params = {row.param: row.value for row in lived.metadata.params() if row.version == 2}
    assert params == run.data.params


def test_checks_are_all_pages_of_the_event_log(lived, monkeypatch):
    whole = lived.metadata.checks()
    monkeypatch.setattr("metadata.facts.EVALUATIONS_AT_ONCE", 7)
    assert lived.metadata.checks() == whole
    assert ("features", "complete", SCORED[0], True) in {
        (one.asset, one.check_name, one.day, one.passed) for one in whole
    }


def test_ids_join_the_views(lived):
    sql = """
        SELECT v.version, r.job, d.action, c.check_name, m.value FROM versions v
        JOIN runs r USING (dagster_run_id) JOIN deployments d USING (model, version)
        JOIN checks c ON c.dagster_run_id = r.dagster_run_id AND c.asset = 'evaluation'
        JOIN metrics m ON m.mlflow_run_id = v.mlflow_run_id AND m.metric = 'roc_auc' AND m.score = 'torch'
        ORDER BY v.version"""
    rows = query(lived.metadata, sql).rows
    assert [row[:4] for row in rows] == [
        (1, "gauge_train", "promote", "gate"), (2, "gauge_train", "refuse", "gate"),
    ]  # fmt: skip
    counted = query(lived.metadata, "SELECT table_name, count(*), sum(changed) FROM data_versions "
                                    "WHERE version = 1 GROUP BY 1 ORDER BY 1")  # fmt: skip
    days = len(json.loads((lived.mlflow.download("gauge", "1") / "rows.json").read_text())["stamp"]["inputs"]
               ["gauge/labels"])  # fmt: skip
    assert days > 9, "fit, fold and test days"
    assert counted.rows == [(f"gauge/{name}", days, 0) for name in ("features", "labels", "readings")]


# -- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2], ids=["joined again", "still in the table"])
def test_the_rows_of_a_version_are_written_byte_for_byte(lived, command, tmp_path, version):
    out = tmp_path / "rows.parquet"
    code, said, _ = command("rows", "--model", "gauge", "--version", str(version), "--out", str(out))
    assert code == 0
    assert out.read_bytes() == lived.rows_of[version]
    assert lived.rows_of[1] != lived.rows_of[2]
    data_version = lived.mlflow.version_tags("gauge", str(version))["data_version"]
    assert said == f"{out}: the {len(pd.read_parquet(out)):,} rows of version {version} of gauge, data version " \
                   f"{data_version}\n"  # fmt: skip
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
    code, _, err = command("rows", "--model", "gauge", "--version", str(version), "--out", str(out), "--json")
    assert (code, err) == (1, f"assetline rows: {out} exists already; remove it, or give another file\n")
    assert out.read_bytes() == lived.rows_of[version]


def test_days_that_have_changed_are_named_and_nothing_is_written(lived, moved, command, tmp_path):
    settings, tables = moved
    key = model.key("labels")
    labels = tables.read(key, ["2026-01-13"])
    labels.loc[0, "faulty"] = 1 - labels.loc[0, "faulty"]
    tables.write(key, labels, "2026-01-13")
    out = tmp_path / "rows.parquet"
    given = ("rows", "--model", "gauge", "--version", "1", "--out", str(out))
    code, said, err = command(*given, home=settings.home)
    assert (code, said) == (1, "")
    assert err == (
        "assetline rows: the rows of version 1 of gauge are not those of today's tables; changed since the "
        "training: gauge/labels of 2026-01-13\n"
    )
    (Path(settings.tables) / "gauge" / "features" / "2026-01-12.parquet").unlink()
    (Path(settings.tables) / "gauge" / "readings" / "2026-01-12.parquet").write_bytes(b"damaged")
    code, said, err = command(*given, home=settings.home)
    assert "; changed since the training: gauge/features of 2026-01-12 (gone), " in err
    assert "gauge/readings of 2026-01-12 (gone)" in err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    changed = query(Metadata(settings, [model], None), "SELECT table_name, day, now IS NULL FROM data_versions "
                    "WHERE version = 1 AND changed ORDER BY 1").rows  # fmt: skip
    assert changed == [("gauge/features", "2026-01-12", 1), ("gauge/labels", "2026-01-13", 0),
                       ("gauge/readings", "2026-01-12", 1)]  # fmt: skip
    assert (
        "changed since: 2026-01-13" in command("lineage", "--model", "gauge", "--version", "1", home=settings.home)[1]
    )
    assert command("rows", "--model", "gauge", "--version", "2", "--out", str(out), home=settings.home)[0] == 0
    assert out.read_bytes() == lived.rows_of[2], "the table training_set still holds them"


def test_a_changed_column_that_no_version_reads_changes_no_rows(lived, moved):
    _, tables = moved
    key = model.key("features")
    tables.write(key, tables.read(key, ["2026-01-13"]).assign(more=1.0), "2026-01-13")
    found = find_rows(tables, Bundle.load(lived.mlflow.download("gauge", "1")), "1")
    assert found.encoded == lived.rows_of[1], "the proof is the hash of the rows, not that of the days"


def test_rows_that_cannot_be_found_say_why(lived, tmp_path):
    folder = lived.mlflow.download("gauge", "1")
    older = copied_bundle(folder, tmp_path / "older")
    (older / "rows.json").unlink()
    with pytest.raises(RowsError, match=r"^version 1 of gauge was trained before versions recorded their days, and "):
        find_rows(lived.tables, Bundle.load(older), "1")
    damaged = copied_bundle(folder, tmp_path / "damaged")
    (damaged / "rows.json").write_text("{")
    with pytest.raises(RowsError, match=r"rows.json is damaged \(.*\); restore the version's files in MLflow$"):
        find_rows(lived.tables, Bundle.load(damaged), "1")
    other = copied_bundle(folder, tmp_path / "other", fitted={"data_version": "0" * 16})
    with pytest.raises(RowsError, match=r"^the days of version 1 of gauge have not changed, but they are encoded"):
        find_rows(lived.tables, Bundle.load(other), "1")


# -- compare and lineage ---------------------------------------------------------------------------------------------


def test_a_comparison_says_what_differs_in_data_code_recipe_and_figures(lived):
    found = compare(lived.metadata, "gauge", "1", "2")
    assert not found.same_data
    assert found.recipe == {"max_epochs": ("2", "3")}
    assert found.code == []
    assert [(t.table, t.only_a, t.only_b, t.changed) for t in found.tables] == [
        (f"gauge/{name}", [f"2026-01-0{d}" for d in (found_day(found, 0), found_day(found, 1))],
         ["2026-01-15", "2026-01-16"], []) for name in ("features", "labels", "readings")
    ]  # fmt: skip
    own = {pair.metric: pair for pair in found.own_rows if pair.slice == "all rows"}
    for version, figure in (("1", own["roc_auc"].a), ("2", own["roc_auc"].b)):
        report = lived.metadata.evaluation_of("gauge", int(version))["report"]["models"]["torch"]["roc_auc"]
        assert (figure.value, figure.low, figure.high) == (report["value"], report["low"], report["high"])
    assert own["roc_auc"].difference is None


def found_day(found, i: int) -> int:
    return int(found.tables[0].only_a[i][-2:])


def test_both_are_scored_on_the_test_rows_of_the_newer_version(lived):
    frozen = lived.tables.read(model.key("training_set"))
    rows = frozen[rows_of_test(frozen, model)].reset_index(drop=True)
    bundles = {name: Bundle.load(lived.mlflow.download("gauge", name)) for name in ("1", "2")}
    scores = {name: bundle.predict(matrix(rows, model)) for name, bundle in bundles.items()}
    expected = evaluate(rows, scores, model.evaluation, target="faulty", time="read_at",
                        review_cost=model.review_cost).numbers  # fmt: skip
    for a, b in (("1", "2"), ("2", "1")):
        found = compare(lived.metadata, "gauge", a, b)
        assert (found.same_rows_of, found.not_on_same_rows) == (2, "")
        pair = next(pair for pair in found.same_rows if pair.metric == "roc_auc")
        assert (pair.a.value, pair.b.value) == (expected(a)["roc_auc"], expected(b)["roc_auc"])
        assert pair.difference.value == pytest.approx(pair.b.value - pair.a.value)
        assert pair.difference.low < pair.difference.value < pair.difference.high
    same = compare(lived.metadata, "gauge", "2", "2")
    assert same.same_data
    assert all(pair.a == pair.b for pair in same.same_rows)


def test_without_the_rows_the_recorded_figures_remain(lived, moved):
    settings, _ = moved
    shutil.rmtree(settings.tables)
    found = compare(Metadata(settings, [model], None), "gauge", "1", "2")
    assert found.same_rows == []
    assert found.not_on_same_rows.startswith("the rows of version 2 of gauge are not those of today's tables; ")
    assert found.not_on_same_rows.endswith(" more"), "not all days are named"
    assert found.own_rows == compare(lived.metadata, "gauge", "1", "2", score=False).own_rows != []


def test_code_that_differs_is_named_by_file(lived, tmp_path, monkeypatch):
    folders = {number: copied_bundle(lived.mlflow.download("gauge", str(number)), tmp_path / str(number))
               for number in (1, 2)}  # fmt: skip
    (folders[1] / "code" / "old.py").write_text("")
    (folders[2] / "code" / "new.py").write_text("")
    changed = folders[2] / "code" / "__init__.py"
    changed.write_text(changed.read_text() + "\n# another line\n")
    monkeypatch.setattr(Metadata, "folder", lambda self, row: folders[row.version])
    found = compare(lived.metadata, "gauge", "1", "2", score=False)
    assert [(one.path, one.change) for one in found.code] == [
        ("__init__.py", "changed"), ("new.py", "added"), ("old.py", "removed")
    ]  # fmt: skip


def test_the_lineage_leads_from_the_days_to_the_scored_rows(lived):
    found = lineage_of(lived.metadata, "gauge", "1")
    assert [(one.table, one.last, one.changed) for one in found.upstream] == [
        (f"gauge/{name}", "2026-01-14", []) for name in ("features", "labels", "readings")
    ]
    assert found.params["max_epochs"] == "2"
    assert [one.action for one in found.deployments] == ["promote"]
    assert (found.predictions.days, found.predictions.rows, found.predictions.last) == (2, 120, SCORED[1])
    stamps = lived.tables.versions(model.key("labels"), ["2026-01-14"])
    assert found.to_json()["upstream"]["gauge/labels"]["2026-01-14"]["data_version"] == stamps["2026-01-14"]
    assert lineage_of(lived.metadata, "gauge", "2").predictions is None


# -- commands --------------------------------------------------------------------------------------------------------


def test_commands_show_text_and_json(lived, command):
    assert "gauge" in command("models")[1]
    header, *lines = command("versions", "gauge")[1].splitlines()
    assert header.split()[:3] == ["model", "version", "status"]
    assert [line.split()[:3] for line in lines] == [["gauge", "1", "production"], ["gauge", "2", "refused"]]
    assert [one["version"] for one in json.loads(command("versions", "gauge", "--json")[1])] == [1, 2]
    runs = json.loads(command("runs", "gauge", "--last", "1", "--json")[1])
    assert [(run["job"], run["version"]) for run in runs] == [("gauge_train", 2)]
    assert len(command("runs", "gauge", "--last", "3")[1].splitlines()) == 4
    lineage = command("lineage", "--model", "gauge", "--version", "1")[1]
    assert "version 1 of gauge: production" in lineage
    assert "120 rows on 2 days, 2026-01-16 to 2026-01-17" in lineage
    assert json.loads(command("lineage", "--model", "gauge", "--version", "2", "--json")[1])["predictions"] is None
    text = command("compare", "1", "2", "--model", "gauge")[1]
    assert "Figures, both on the test rows of version 2 (2026-01-14 … 2026-01-16)" in text
    assert "max_epochs  2          3" in text
    assert "no file of the model folder differs" in text
    shown = json.loads(command("compare", "1", "2", "--model", "gauge", "--json")[1])
    assert shown["same_rows_of"] == 2
    assert "branch main and pull-request/mine" in text
    assert command("compare", "main", "mine", "--model", "gauge")[1] == text, "branches stand for their latest versions"
    assert command("compare", "main", "pull-request/mine", "--model", "gauge")[1] == text
    rows = json.loads(command("query", "SELECT version, status FROM versions ORDER BY version", "--json")[1])
    assert rows == [{"version": 1, "status": "production"}, {"version": 2, "status": "refused"}]
    code, out, err = command("query", "SELECT version, NULL AS other FROM versions ORDER BY 1", "--limit", "1")
    assert (code, out) == (0, "version  other\n1\n")
    assert err == "assetline query: there are more than 1 rows; raise --limit, or ask for fewer\n"
    listed = command("query")[1]
    assert all(f"{view}: " in listed for view in VIEWS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["versions", "gague"], "versions: there is no model 'gague'; the models are: "),
        (["runs", "gague"], "runs: there is no model 'gague'; the models are: "),
        (["compare", "1", "3", "--model", "gauge"], "compare: gauge has no version '3'; its versions are: 1, 2"),
        (
            ["compare", "main", "yours", "--model", "gauge"],
            "compare: gauge has no version of a branch 'yours'; its "
            "branches are: main, pull-request/mine; its versions are: 1, 2",
        ),
        (
            ["lineage", "--model", "gauge", "--version", "one"],
            "lineage: gauge has no version 'one'; its versions are: 1",
        ),
        (["rows", "--model", "gauge", "--version", "3", "--out", "x.parquet"], "rows: gauge has no version '3'; "),
        (["rows", "--model", "gauge", "--version", "1", "--out", "nosuch/x.parquet"], "rows: nosuch is not a folder; "),
        (["query", "DELETE FROM versions"], "query: a query is one SELECT on the views; nothing else is allowed"),
    ],
)
def test_what_does_not_exist_is_one_sentence_and_nothing_changes(lived, command, arguments, message, monkeypatch,
                                                                 tmp_path):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"assetline {message}")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_on_a_folder_that_does_not_exist_nothing_is_created(command, tmp_path):
    home = tmp_path / "home"
    assert command("runs", home=home)[:2] == (0, "there is no run yet\n")
    assert command("versions", home=home)[:2] == (0, "no version is registered yet\n")
    assert not home.exists()


def test_the_answers_on_compliance_are_those_of_the_version_in_production(lived):
    rows = compliance_rows(read_compliance(lived.metadata, "gauge", Retention()))
    said = {one.about: one.text for row in rows for one in row.answers}
    first = lived.metadata.version("gauge", "1")
    runtime = Runtime.read(lived.metadata.folder(first))
    promoted, _ = lived.metadata.deployments()
    assert said["version"] == f"version 1, in production since {promoted.at} UTC"
    assert said["software"].startswith(f"Python {runtime.python}, torch {runtime.packages['torch']}")
    assert said["training data"] == f"{first.rows:,} rows, data version {first.data_version}, fit {first.fit_days}"
    assert "gauge/labels of 2026-01-" in said["its tables and days"]
    assert said["tests before use"] == "floor passed, baseline passed, latency passed"
    [figure] = [one for one in lived.metadata.metrics() if (one.version, one.score, one.slice, one.metric,
                one.measured_on) == (1, "torch", "", "roc_auc", "test")]  # fmt: skip
    assert f" {figure.value:.4g} (" in said["accuracy"]
    assert said["decisions"].startswith("1 promoted, 1 refused; the last: version 2, ")
    assert (said["versions"], said["alerts"]) == ("2 registered", "1, 1 not resolved")


# -- pages -----------------------------------------------------------------------------------------------------------


def test_pages_and_endpoint_are_behind_the_token(client):
    paths = (
        "/versions",
        "/versions/gauge/1",
        "/compliance/gauge",
        "/views",
        "/views/runs",
        "/compare?model=gauge&a=1&b=2",
        "/metadata/views",
        "/metadata/versions",
    )
    for path in paths:
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"accept": "text/html"}).headers["location"] == "/login"
        assert client.get(path, headers=API).status_code == 200, path
        assert client.post(path, headers=API).status_code == 405, "nothing can be changed here"


def test_the_pages_show_what_the_commands_show(client, lived):
    page = client.get("/versions?model=gauge", headers=API).text
    assert 'href="/versions/gauge/2"' in page
    assert "version 1 in production since" in page
    assert page.count('<circle class="mark"') == 2, "one dot per version"
    version = client.get("/versions/gauge/1", headers=API).text
    for text in ("gauge/labels", "2026-01-14", "120 rows scored", "promoted", "http://dagster/runs/"):
        assert text in version
    compared = client.get("/compare?model=gauge&a=1&b=2", headers=API).text
    assert "Score both on the same rows" in compared
    assert "max_epochs" in compared
    scored = client.get("/compare?model=gauge&a=1&b=2&score=1", headers=API).text
    assert "Figures, both on the same rows: the test rows of version 2" in scored
    assert 'href="/versions"' in client.get("/", headers=API).text
    listed = client.get("/views", headers=API).text
    assert all(f'href="/views/{view}"' in listed for view in VIEWS)
    checks = client.get("/views/checks?model=gauge", headers=API).text
    total = len(lived.metadata.checks())
    assert f"Rows {total - 99} to {total} of {total}" in checks, "the latest rows come first"
    assert f"offset={max(total - 200, 0)}" in checks
    first = client.get("/views/checks?model=gauge&offset=0", headers=API).text
    assert f"Rows 1 to 100 of {total}" in first
    assert "offset=100" in first
    assert "gauge_train" in client.get("/views/runs", headers=API).text
    without = TestClient(create_app(lived.alerts.store, TOKEN))
    assert 'href="/versions"' not in without.get("/", headers=API).text


def test_the_endpoint_serves_each_view_in_parts(client, lived):
    described = client.get("/metadata/views", headers=API).json()
    assert [one["view"] for one in described] == list(VIEWS)
    for view in VIEWS:
        given = client.get(f"/metadata/{view}?model=gauge&limit=10000", headers=API).json()
        assert len(given["rows"]) == len(lived.metadata.rows(view))
        assert not given["more"]
    first = client.get("/metadata/checks?limit=2", headers=API).json()
    second = client.get("/metadata/checks?limit=2&offset=1", headers=API).json()
    assert first["rows"][1] == second["rows"][0]
    assert first["more"]
    assert client.get("/metadata/checks?limit=0", headers=API).status_code == 422


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/metadata/version", "there is no view 'version'; the views are: models, "),
        ("/views/version", "there is no view 'version'; the views are: models, "),
        ("/metadata/versions?model=gague", "there is no model 'gague'; the models are: gauge"),
        ("/versions?model=gague", "there is no model 'gague'; the models are: gauge"),
        ("/versions/gauge/3", "gauge has no version '3'; its versions are: 1, 2"),
        ("/compare?model=gauge&a=1&b=3", "gauge has no version '3'; its versions are: 1, 2"),
    ],
)
def test_what_does_not_exist_is_not_found_and_named(client, path, message):
    given = client.get(path, headers=API)
    assert given.status_code == 404
    assert given.json()["detail"].startswith(message)


def test_files_that_are_gone_are_one_sentence(lived, monkeypatch):
    monkeypatch.setattr(type(lived.mlflow), "download", lambda *_: (_ for _ in ()).throw(OSError("no such folder")))
    with pytest.raises(MetadataError, match=r"^the files of version 1 of gauge cannot be read \(no such folder\); "):
        compare(lived.metadata, "gauge", "1", "2")
