"""Landing of a table with tagged columns: what is stored, what is refused, and what no message quotes."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from assets.lifecycle.data import landing as module
from assets.lifecycle.data.protection import WITHHELD, Protection, ProtectionError, pseudonym_of, tags_digest
from assets.personal import personal
from assets.protections import PSEUDONYM
from resources.keys import Key, KeyFile
from resources.pseudonyms import RECORD, in_force, pseudonym_keys
from resources.settings import Settings
from resources.sources import SourceError, SourceUnavailable, Stream
from resources.table_files import LocalFiles
from tests.declarations.canaries import visits
from tests.declarations.members import members
from tests.declarations.readings import plain
from tests.stages import Stages

DAY = "2026-03-02"
KEYS = (Key("one", b"1" * 32),)
SECRET = "zqxmail1@zqxmail.example.org"


@pytest.fixture
def stages(tmp_path, monkeypatch) -> Stages:
    """The stages of the members, whose state folder has a key."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    KeyFile(Settings.from_env().keys).create("pseudonyms")
    return stages_of(tmp_path)


def stages_of(tmp_path, **table) -> Stages:
    visits().to_csv(tmp_path / "visits.csv", index=False)
    model = members(str(tmp_path / "visits.csv"))
    return Stages(replace(model, table=replace(model.table, **table)), tmp_path)


def events(stages: Stages) -> str:
    """All that Dagster has stored."""
    runs = stages.instance.get_runs()
    return "\n".join(str(entry) for run in runs for entry in stages.instance.all_logs(run.run_id))


def test_what_lands_is_protected_in_the_file_the_sample_and_the_schema(stages):
    made = stages.make("raw_visits", DAY)
    assert made.success, made.why
    landed = stages.tables.read(stages.model.key("raw_visits"))
    assert landed["E-Mail"].str.fullmatch(PSEUDONYM).all()
    readable = visits().query(f"at.str.startswith('{DAY}')")["Card No"].str.isdigit().to_numpy()
    assert landed["Card No"][readable].str.fullmatch(r"\d{1,16}").all(), "whole numbers stay whole numbers"
    assert landed["Card No"][~readable].str.fullmatch(PSEUDONYM).all(), "one that cannot be read is not kept either"
    assert landed["born"].eq("1980-01-01").all()
    assert landed["notes"].str.fullmatch("mail <EMAIL>, call <PHONE>, pay <IBAN>").all()
    assert landed[["diagnosis", "Street"]].isna().all(axis=None)
    assert "zqx" not in landed.to_csv().lower()
    assert "zqx" not in events(stages).lower()
    [event] = made.result.get_asset_materialization_events()
    schema = event.materialization.metadata["columns"].schema
    tags = {column.name: dict(column.tags) for column in schema.columns}
    assert tags["E-Mail"] == {"personal": "email", "protection": "pseudonym"}
    assert tags["diagnosis"] == {"sensitive": "yes", "protection": "drop"}
    assert tags["minutes"] == {}


def test_without_a_key_nothing_is_read_and_nothing_lands(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    stages = stages_of(tmp_path)
    monkeypatch.setattr(module, "_read", lambda *_: pytest.fail("it was read"))
    made = stages.make("raw_visits", DAY)
    assert not made.success
    assert "visits has pseudonyms: there is no key for pseudonyms in" in made.why
    assert "`assetline keys create pseudonyms` makes one" in made.why
    assert not stages.has("raw_visits", DAY)


def test_a_lost_key_is_named_and_no_other_pseudonym_is_made(stages, tmp_path):
    assert stages.make("raw_visits", DAY).success
    file = KeyFile(Settings.from_env().keys)
    file.path.unlink()
    file.create("pseudonyms")
    made = stages.make("raw_visits", "2026-03-03")
    assert not made.success
    assert "is not in" in made.why
    assert "so none is made" in made.why
    assert not stages.has("raw_visits", "2026-03-03")


def test_a_key_of_another_length_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    stages = stages_of(tmp_path)
    path = Settings.from_env().keys
    path.write_text('[pseudonyms]\n"old" = "c2hvcnQ="\n')
    path.chmod(0o600)
    made = stages.make("raw_visits", DAY)
    assert not made.success
    assert "has 5 bytes, and 32 are needed" in made.why
    assert "c2hvcnQ" not in made.why + events(stages)


def test_a_tagged_column_that_lands_under_another_name_is_refused(stages, tmp_path):
    visits().rename(columns={"E-Mail": "Mail", "phone": "Tel"}).to_csv(tmp_path / "visits.csv", index=False)
    made = stages.make("raw_visits", DAY, accept_schema=True)
    assert not made.success
    assert "the tagged column 'email' did not land" in made.why
    assert "so nothing was kept" in made.why
    assert "zqx" not in events(stages).lower()


class Talking(Stream):
    """A source whose errors quote what they read."""

    kind: str

    def land(self, day):
        if self.kind == "own":
            raise SourceError("no such folder; correct the path")
        if self.kind == "quoting":
            raise SourceError(f"the key is not unique, for example {SECRET}", quotes=True)
        if self.kind == "busy":
            raise SourceUnavailable(f"{SECRET} is locked", quotes=True)
        try:
            raise ValueError(f"invalid literal for int(): '{SECRET}'")
        except ValueError as error:
            if self.kind == "chained":
                raise SourceError(f"it cannot be read: {error}") from error
            raise

    def land_labels(self, day):
        raise NotImplementedError

    def landed_until(self):
        return pd.Timestamp("2026-04-01").date()


@pytest.mark.parametrize("kind", ["quoting", "busy", "chained", "plain"])
def test_a_message_that_may_quote_a_value_is_withheld_with_its_traceback(stages, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0)
    made = stages_of(tmp_path, source=Talking(kind=kind)).make("raw_visits", DAY)
    assert not made.success
    assert WITHHELD in made.why
    for event in made.result.all_events:
        assert SECRET not in str(event)
    unprotected = plain()
    free = Stages(replace(unprotected, table=replace(stages.model.table, source=Talking(kind="chained"), raw_tags={},
                          contract=unprotected.table.contract, clean=None, key="reading_id", time="read_at"),
                          target="faulty"), tmp_path / "free")  # fmt: skip
    assert SECRET in free.make("raw_visits", DAY).why, "a table without tags says all it knows"


def test_a_message_of_ones_own_without_values_is_told(stages, tmp_path):
    made = stages_of(tmp_path, source=Talking(kind="own")).make("raw_visits", DAY)
    assert "no such folder; correct the path" in made.why


def test_columns_that_were_swapped_upstream_are_not_quoted_as_examples(stages, tmp_path):
    assert stages.make("raw_visits", DAY).success
    visits().assign(minutes=visits()["E-Mail"]).to_csv(tmp_path / "visits.csv", index=False)
    made = stages.make("raw_visits", "2026-03-03")
    assert not made.success
    assert "the column 'minutes' held numbers and now holds text" in made.why
    assert "zqx" not in events(stages).lower()


def test_refused_rows_are_in_quarantine_without_a_value(stages):
    for name in ("raw_visits", "visits", "quarantine"):
        made = stages.make(name, DAY)
        assert made.success, (name, made.why)
    refused = stages.tables.read(stages.model.key("quarantine"))
    assert set(refused["reason"]) == {"minutes: less_than_or_equal_to(600)", "card_no: missing or unreadable"}
    assert "zqx" not in refused.to_csv().lower()
    assert "zqx" not in events(stages).lower()


def test_another_protection_makes_the_landed_table_stale(tmp_path):
    model = members("x.csv")
    assert tags_digest(plain()) == ""
    other = replace(model, table=replace(model.table, raw_tags={**model.table.raw_tags, "Street": personal("text")}))
    assert tags_digest(model) != tags_digest(other) != ""


def test_labels_with_some_of_the_columns_are_protected_too():
    rows = pd.DataFrame({"visit_no": ["7", None], "returned": ["1", "0"]}, dtype="string[pyarrow]")
    protection = Protection(members("x.csv"), KEYS)
    made = protection.frame(rows, complete=False)
    assert made["visit_no"][0] == str(pseudonym_of(members("x.csv"), "visit_no", 7, KEYS))
    assert made["visit_no"].isna().tolist() == [False, True]
    with pytest.raises(ProtectionError, match="the tagged column 'email' did not land"):
        protection.frame(rows)
    assert protection.frame(rows.iloc[:0]).empty, "a quiet day has no columns to miss"


def test_the_stored_value_of_a_person_is_found_by_the_plain_one():
    model = members("x.csv")
    row = Protection(model, KEYS).row({"E-Mail": " Ada@Example.org", "Card No": 42, "minutes": 3, "phone": None})
    assert pseudonym_of(model, "email", "ada@example.org", KEYS) == row["E-Mail"]
    assert pseudonym_of(model, "card_no", "42", KEYS) == int(row["Card No"])
    assert (row["minutes"], row["phone"]) == (3, None)
    assert pseudonym_of(model, "minutes", 3, KEYS) == 3
    assert pseudonym_of(model, "diagnosis", "a cold", KEYS) is None


def test_a_list_in_place_of_a_value_is_emptied_so_that_no_refusal_quotes_it():
    row = Protection(members("x.csv"), KEYS).row(
        {"E-Mail": [SECRET], "notes": {"a": SECRET}, "phone": "+49 30 1234567"}
    )
    assert row == {"E-Mail": [], "notes": {}, "phone": "***4567"}


def test_the_record_of_the_keys_in_force_holds_no_secret(tmp_path):
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path)})
    key = KeyFile(settings.keys).create("pseudonyms")
    pseudonym_keys(settings)
    assert in_force(settings.tables) is None, "reading leaves no record"
    pseudonym_keys(settings, writes=True)
    stored = json.loads(LocalFiles(settings.tables).read(RECORD))
    assert stored == {"keys": [key.fingerprint], "becoming": []}
