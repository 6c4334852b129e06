"""What the project says of GDPR, art. 30, and of the EU AI Act, annex IV: from facts of the state, or "not known"."""

import dataclasses
import json
from dataclasses import dataclass, fields, replace

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from assets.declaration import Approval, Card, Compliance, DeclarationError, Model
from assets.metrics import METRICS
from assets.personal import raw_tags_of
from cli import main
from cli.compliance import markdown
from metadata.compliance import AI_ACT, GDPR, Answer, ComplianceFacts, compliance_rows, read_compliance
from metadata.facts import Metadata, MetadataError, UnknownError
from metadata.views import (
    AlertRow,
    CheckRow,
    DataVersionRow,
    DeploymentRow,
    MetricRow,
    ParamRow,
    VerdictRow,
    VersionRow,
)
from resources.access import Access
from resources.alerts import AlertStore
from resources.audit import AuditLog
from resources.keys import KeyFile
from resources.ledger import Ledger
from resources.retention import Retention
from resources.service_tokens import TokenFile
from resources.settings import Settings
from resources.tables import ParquetTables
from resources.tombstones import Tombstone, Tombstones
from serving.watch.alerts_page import create_app
from tests.declarations.members import members

TOKEN = "a-token-of-enough-letters"
API = {"authorization": f"Bearer {TOKEN}"}
ITEMS = [*((GDPR, f"({letter})") for letter in "abcdefg"), *((AI_ACT, str(n)) for n in range(1, 10))]
PEOPLE_SAY = {one.name for one in fields(Compliance)}


def declared(**given: object) -> Model:
    return members("members.csv", **given)


def facts(**given: object) -> ComplianceFacts:
    return ComplianceFacts(**{"model": "members", "declared": declared(), "retention": Retention(), **given})


def answers(given: ComplianceFacts) -> dict[tuple[str, str], tuple[Answer, ...]]:
    return {(row.law, row.item): row.answers for row in compliance_rows(given)}


def changed(before: ComplianceFacts, after: ComplianceFacts) -> set[str]:
    """The items whose answers differ."""
    old, new = answers(before), answers(after)
    return {item for law, item in old if old[law, item] != new[law, item]}


# -- the rows ---------------------------------------------------------------------------------------------------------


def test_each_item_of_the_two_lists_is_there_once():
    rows = compliance_rows(facts())
    assert [(row.law, row.item) for row in rows] == ITEMS
    assert all(row.question.endswith("?") and row.answers for row in rows)


def test_what_nobody_declared_is_not_known_and_says_where_to_declare_it():
    unknown = {one.source for parts in answers(facts()).values() for one in parts if not one.known}
    assert {f"Model(compliance=Compliance({name}=…))" for name in PEOPLE_SAY} <= unknown
    for item in ("5", "7", "8"):
        assert [one.known for one in answers(facts())[AI_ACT, item]] == [False], "no run can know this"
    rows = compliance_rows(facts())
    assert markdown("members", rows).count("**not known**") == sum(
        part["text"] is None for row in rows for part in row.to_json()["answers"]
    )


@pytest.mark.parametrize("name", sorted(PEOPLE_SAY))
def test_what_people_declare_is_shown_in_one_row(name):
    said = facts(declared=declared(compliance=Compliance(**{name: "Said <here>."})))
    assert len(changed(facts(), said)) == 1
    assert "Said <here>." in {one.text for parts in answers(said).values() for one in parts}
    blank = facts(declared=declared(compliance=Compliance(**{name: "  "})))
    assert not changed(facts(), blank), "a blank says nothing"


def test_a_text_that_is_none_is_refused():
    with pytest.raises(DeclarationError, match=r"compliance\.controller=7 is invalid: give a text"):
        declared(compliance=Compliance(controller=7))


def test_of_a_model_that_nothing_declares_only_the_state_is_known():
    given = answers(facts(declared=None))
    said = {one.about for parts in given.values() for one in parts if one.known}
    assert said <= {"named tokens and people", "periods of assetline prune", "encryption at rest",
                    "login before Dagster's and MLflow's UI", "alerts"}  # fmt: skip
    assert given[GDPR, "(a)"][0].source == "no declaration: write assets/models/members"


VERSION = VersionRow(
    model="members", version=3, status="production", created_at="2026-03-01 10:00:00", data_version="d0", rows=900,
    fit_rows=700, fit_positives=70, test_rows=200, test_positives=20, fit_days="2026-01-01 … 2026-01-14",
    test_days=None, code="c0", git_commit="0123456789", git_dirty=False, git_branch="main", lock="l0", gate=True,
    staging=True, mlflow_run_id="m", dagster_run_id="r",
)  # fmt: skip
OF_VERSION = {"model": "members", "version": 3}
PROMOTED = DeploymentRow(
    **OF_VERSION, number=2, action="promote", previous=1, reason="", who="ada", at="2026-03-02 10:00:00", until=None,
    dagster_run_id="r",
)  # fmt: skip
FIGURE = MetricRow(**OF_VERSION, mlflow_run_id="m", measured_on="test", score="torch", slice="", metric="roc_auc",
                   value=0.81, low=0.78, high=0.84, rows=200)  # fmt: skip
CHECK = CheckRow(model="members", asset="drift", check_name="drift", day="2026-03-03", passed=False, severity="WARN",
                 description="", at="2026-03-04 10:00:00", dagster_run_id="r")  # fmt: skip
ALERT = AlertRow(
    alert_id=1, model="members", cause="drift/drift", column_name="", severity="warn", state="open", owner="",
    summary="", seen=1, first_day="2026-03-03", last_day="2026-03-03", opened_at="2026-03-04 10:00:00",
    resolved_at=None, resolution="", dagster_run_id=None,
)  # fmt: skip
GAP = {"column": "plan", "figure": "true_positive_rate", "gap": 0.2, "low": 0.1, "high": 0.3, "worst_group": "basic",
       "best_group": "full"}  # fmt: skip
GONE = Tombstone(column="email", digest="d" * 32, keys={"members/visits": ["x"]}, at="2026-03-05T10:00:00+00:00",
                 until="2026-03-05", who="ada", state="done")  # fmt: skip
LIVED = facts(version=VERSION, versions=3, entries=[PROMOTED])


@pytest.mark.parametrize(
    ("given", "items", "text"),
    [
        ({"version": replace(VERSION, status="candidate")}, {"1"}, "version 3, candidate"),
        ({"version": replace(VERSION, rows=901)}, {"2"}, "901 rows, data version d0, fit 2026-01-01 … 2026-01-14"),
        ({"version": replace(VERSION, git_dirty=True),
          "runtime": {"python": "3.11.9", "packages": {"torch": "2.9"}, "machine": "x86_64", "cpu": "AVX2",
                      "threads": 2}}, {"1"}, "Python 3.11.9, torch 2.9; commit 01234567, with uncommitted changes"),
        ({"versions": 4}, {"6"}, "4 registered"),
        ({"entries": [replace(PROMOTED, previous=2)]}, {"1"},
         "version 3, in production since 2026-03-02 10:00:00 UTC, after version 2"),
        ({"entries": [PROMOTED, replace(PROMOTED, action="refuse", version=4)]}, {"6"},
         "1 promoted, 1 refused; the last: version 4, 2026-03-02 10:00:00 UTC"),
        ({"runtime": {"python": "3.11.9", "packages": {"torch": "2.9"}, "machine": "x86_64", "cpu": "AVX2",
                      "threads": 2}}, {"1"}, "Python 3.11.9, torch 2.9; commit 01234567"),
        ({"params": [ParamRow(**OF_VERSION, mlflow_run_id="m", param="seed", value="0")]}, {"2"},
         "1 parameter; code c0"),
        ({"verdicts": [VerdictRow(**OF_VERSION, verdict="gate", rule="floor", passed=False, metric=None, value=None,
                                  required=None, reason="")]}, {"2"}, "floor failed"),
        ({"figures": [FIGURE]}, {"3", "4"}, f"{METRICS['roc_auc'].label} 0.81 (0.78 to 0.84) on 200 test rows"),
        ({"figures": [replace(FIGURE, slice="full"), replace(FIGURE, slice="basic", metric="brier")]}, {"3"},
         "full: 0.81 (0.78 to 0.84); basic: not measured"),
        ({"privacy": {"privacy.epsilon": 2.998, "privacy.delta": 1e-5}}, {"2"},
         "epsilon 2.998 spent on the weights, delta 1e-05"),
        ({"gaps": [GAP]}, {"3"}, "plan, true positive rate: 0.2 (0.1 to 0.3) between basic and full"),
        ({"data": [DataVersionRow(**OF_VERSION, table_name="members/visits", day="2026-01-01", data_version="a",
                                  now="b", changed=True)]}, {"2"},
         "members/visits of 2026-01-01; 1 of 1 days have changed since"),
        ({"checks": [CHECK]}, {"9"}, "drift/drift: 1 result, 1 failed, the last failed for 2026-03-03"),
        ({"alerts": [ALERT, replace(ALERT, state="resolved")]}, {"9"}, "2, 1 not resolved"),
        ({"encrypt": True}, {"(g)"}, "on for new files"),
        ({"encrypted": {"members/visits": True, "members/labels": False}}, {"(f)", "(g)"},
         "off for new files; of 2 tables, 1 have an encrypted latest file"),
        ({"secure": True}, {"(g)"}, "on"),
        ({"store": "a bucket (s3)"}, {"(e)"}, "a bucket (s3)"),
        ({"retention": Retention(request_days=8)}, {"(f)"},
         "log of requests 8 days, resolved alerts 365 days, versions that the ledger does not name 90 days, "
         "runs 90 days"),
        ({"audit_lines": 7}, {"(d)", "(f)", "(g)"}, "none is recorded"),
        ({"audit_lines": 7, "pruned_at": "2026-03-06 10:00:00"}, {"(d)", "(f)", "(g)"}, "2026-03-06 10:00:00 UTC"),
        ({"audit_lines": 7, "audit_until": "2026-03-07 10:00:00"}, {"(d)", "(f)", "(g)"},
         "7 lines to 2026-03-07 10:00:00 UTC"),
        ({"audit_lines": 7, "exports": ["2026-03-07 09:00:00"]}, {"(d)", "(f)", "(g)"},
         "1, the last on 2026-03-07 09:00:00 UTC"),
        ({"holders": {"admin": 2, "reader": 1}, "people_listed": True}, {"(d)", "(g)"}, "2 admins, 1 reader"),
        ({"forgotten": [GONE]}, {"(f)", "(g)"}, "1 person, the last on 2026-03-05"),
        ({"forgotten": [replace(GONE, state="removing")]}, {"(f)", "(g)"}, "nobody; 1 begun and not finished"),
        ({"tags": raw_tags_of(declared())}, {"(c)", "(g)"}, "12 of 12 columns with a tag are stored in another form"),
        ({"kept_tags": 2}, {"(c)"}, "2 more, kept from you"),
        ({"declared": declared(approval=Approval(by="team:risk"))}, {"2", "3"},
         "team:risk approves each version, not who trained it"),
        ({"declared": declared(card=Card(intended_use="To plan staff."))}, {"1"}, "To plan staff."),
        ({"declared": declared(targets=("local", "batch"))}, {"(d)", "1"}, "local, batch"),
        ({"declared": declared(retrain="0 6 * * MON")}, {"9"}, "by the schedule 0 6 * * MON, UTC"),
    ],
)  # fmt: skip
def test_a_fact_of_the_state_changes_its_rows_and_no_other(given, items, text):
    after = replace(LIVED, **given)
    assert changed(LIVED, after) == items
    assert text in {one.text for parts in answers(after).values() for one in parts}


def test_every_fact_is_in_some_row():
    tried = {name for case in test_a_fact_of_the_state_changes_its_rows_and_no_other.pytestmark[0].args[1]
             for name in case[0]}  # fmt: skip
    assert tried | {"model"} == {one.name for one in dataclasses.fields(ComplianceFacts)}


# -- from the stores --------------------------------------------------------------------------------------------------


@dataclass
class Stores:
    """A state folder with a table, and what writes into it."""

    settings: Settings
    model: Model

    @property
    def tables(self) -> ParquetTables:
        return ParquetTables(root=self.settings.tables)

    def read(self, person: Access | None = None) -> ComplianceFacts:
        metadata = Metadata(self.settings, [self.model], None).of_person(person)
        return read_compliance(metadata, "members", Retention())


@pytest.fixture
def stores(tmp_path, monkeypatch) -> Stores:
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    made = Stores(Settings.from_env(), declared())
    made.tables.write(made.model.key("visits"), pd.DataFrame({"visit_no": [1]}), "2026-03-02")
    return made


def test_the_facts_are_those_of_the_stores(stores, monkeypatch):
    url, before = stores.settings.database_url, stores.read()
    assert (before.audit_lines, before.holders, before.forgotten, before.alerts, before.entries) == (
        None,
        {},
        [],
        [],
        [],
    )
    assert before.encrypted == {"members/visits": False}
    assert not (stores.settings.home / "assetline.db").exists(), "a question creates nothing"

    AlertStore(url).report("members", "drift/drift", severity="page", summary="drifted")
    log = AuditLog(url)
    log.record("export", "members/training_set", who="ada")
    log.record("export", "churn/training_set", who="ada")
    log.record("delete", "state folder", who="ada")
    Ledger(database_url=url).promote("members", "1", reason="", verdicts={}, dagster_run="r", who="ada")
    file = TokenFile(stores.settings.service_tokens, stores.settings.first_service_token)
    file.create("ada", role="reader", models=["members"])
    file.create("ben", role="reader", models=["churn"])
    people = Tombstones.read(stores.tables.files)
    people.having(GONE).having(replace(GONE, digest="e" * 32, keys={"churn/calls": []})).write(stores.tables.files)
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "true")
    KeyFile(stores.settings.keys).create("tables")
    KeyFile(stores.settings.keys).create("personal")
    stores.settings = Settings.from_env()
    stores.tables.write(stores.model.key("visits"), pd.DataFrame({"visit_no": [1]}), "2026-03-03")

    after = stores.read()
    assert (len(after.exports), after.audit_lines) == (1, len(list(log.lines())))
    assert after.pruned_at is not None
    assert (after.holders, after.people_listed) == ({"reader": 1}, False)
    assert [one.digest for one in after.forgotten] == ["d" * 32]
    assert (len(after.alerts), [one.action for one in after.entries]) == (1, ["promote"])
    assert (after.encrypt, after.encrypted) == (True, {"members/visits": True})
    assert changed(before, after) == {"(d)", "(f)", "(g)", "6", "9"}


def test_what_is_kept_from_a_person_is_not_shown(stores):
    person = Access("eve", "reader", ("members",), ("members/labels",), ("members/raw_visits.Street", "*.email"))
    given = stores.read(person)
    assert given.encrypted == {}
    assert given.kept_tags == 2
    said = json.dumps([row.to_json() for row in compliance_rows(given)])
    assert "2 more, kept from you" in said
    assert "Street" not in said
    assert "email: " not in said


def test_a_damaged_file_is_one_sentence(stores):
    stores.tables.files.replace("forgotten.json", b"{")
    with pytest.raises(MetadataError, match=r"forgotten\.json beside the tables is damaged"):
        stores.read()


def test_an_unknown_model_is_named_with_those_that_are_known(stores):
    with pytest.raises(UnknownError, match="there is no model 'member'; the models are: members"):
        read_compliance(Metadata(stores.settings, [stores.model], None), "member", Retention())


# -- the command and the page -----------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_the_rows(stores, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("assets.models.declared_models", lambda: [stores.model])
    assert main(["compliance", "members", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["law"], row["item"]) for row in rows] == ITEMS
    assert main(["compliance", "members"]) == 0
    shown = capsys.readouterr().out
    assert "### (a) Who is responsible, and how can they be reached?" in shown
    assert "- controller: **not known** (`Model(compliance=Compliance(controller=…))`)" in shown
    for name in ("it.md", "it.html", "it.json"):
        assert main(["compliance", "members", "--out", str(tmp_path / name)]) == 0
        assert "controller" in (tmp_path / name).read_text(encoding="utf-8")
    assert "href" not in (tmp_path / "it.html").read_text(encoding="utf-8"), "a file has no server to link to"
    capsys.readouterr()
    for wrong, said in (
        (["member"], "assetline compliance: there is no model 'member'; the models are: members\n"),
        (["members", "--out", "it.pdf"], "assetline compliance: --out it.pdf: give a file that ends with .md or .html"),
        (
            ["members", "--json", "--out", "it.md"],
            "assetline compliance: --out it.md: give a file that ends with .json",
        ),
        (["members", "--out", str(tmp_path / "no" / "it.md")], "assetline compliance: [Errno 2]"),
    ):
        assert main(["compliance", *wrong]) == 1
        printed = capsys.readouterr()
        assert (printed.out, printed.err.startswith(said)) == ("", True), printed.err


def test_the_page_shows_the_rows_and_links_what_the_person_may_open(stores):
    store = AlertStore(stores.settings.database_url)
    stores.model = declared(compliance=Compliance(controller="<b>Club</b>"))
    log = AuditLog(stores.settings.database_url)
    file = TokenFile(stores.settings.service_tokens, stores.settings.first_service_token)
    secret = file.create("ada", role="reader", models=["members"], hidden_columns=["*.Street"])
    limited = {"authorization": f"Bearer {secret}"}
    app = create_app(
        store, TOKEN, reports=stores.tables, models=[stores.model], audit=log, tokens=file.read,
        metadata=lambda: Metadata(stores.settings, [stores.model], None),
    )  # fmt: skip
    client = TestClient(app)
    page = client.get("/compliance/members", headers=API).text
    assert "&lt;b&gt;Club&lt;/b&gt;" in page
    assert page.count("<tr><td>") == len(ITEMS)
    assert 'href="/audit"' in page.partition("</header>")[2]
    mine = client.get("/compliance/members", headers=limited)
    assert mine.status_code == 200
    assert ("Street" in page, "Street" in mine.text) == (True, False)
    assert 'href="/catalogue?model=members"' in mine.text
    assert 'href="/audit' not in mine.text.partition("</header>")[2], "a reader may not open it"
    for link in {part.partition('"')[0].replace("&amp;", "&") for part in mine.text.split('href="')[1:]}:
        if "model=members" in link or "/members" in link:
            assert client.get(link, headers=limited).status_code == 200, link
    missing = client.get("/compliance/member", headers=API)
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "there is no model 'member'; the models are: members",
    )
    assert client.get("/compliance/member", headers=limited).status_code == 403
    assert 'href="/compliance/members"' in client.get("/versions", headers=API).text
    bare = create_app(store, TOKEN, metadata=lambda: Metadata(stores.settings, [stores.model], None))
    assert "/catalogue" not in TestClient(bare).get("/compliance/members", headers=API).text


def test_the_answers_name_real_commands_and_settings():
    """A source that nobody can type would send people nowhere."""
    from typer.main import get_command

    from cli.app import app

    commands = get_command(app).commands
    sources = {one.source for parts in answers(LIVED).values() for one in parts}
    typed = {source.split()[1] for source in sources if source.startswith("assetline ")}
    assert typed
    assert typed <= set(commands)
    named = {
        source.split()[0].removeprefix("ASSETLINE_").lower() for source in sources if source.startswith("ASSETLINE_")
    }
    assert named
    assert named <= {one.name for one in fields(Settings)}


def test_a_version_without_differential_privacy_says_so():
    told = {part.about: part.text for part in answers(LIVED)[AI_ACT, "2"]}
    unknown = {part.about: part.text for part in answers(facts())[AI_ACT, "2"]}
    assert (told["differential privacy"], unknown["differential privacy"]) == ("not used", "")
