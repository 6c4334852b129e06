"""A newer key for stored pseudonyms: without the values, all of them, once, and finished after a kill."""

import datetime as dt
import json
from dataclasses import replace

import pandas as pd
import pytest

from assets.lifecycle import rekeying
from assets.lifecycle.data.protection import Protection
from assets.lifecycle.rekeying import rekey
from resources.keys import KeyFile, KeyProblem, KeyRing
from resources.pseudonyms import InForce, in_force, pseudonym_keys
from resources.request_log import RequestLog, RequestRecord
from resources.settings import Settings
from resources.table_files import LocalFiles
from resources.tables import ParquetTables
from tests.declarations.canaries import visits
from tests.declarations.members import members

AT = dt.datetime(2026, 3, 9, 12)
FEW = 60


class Stored:
    """A state folder with one table, what is made of it, and a log, all with pseudonyms."""

    def __init__(self, folder) -> None:
        self.settings = Settings.from_env({"ASSETLINE_HOME": str(folder)})
        self.model = members(str(folder / "visits.csv"))
        self.tables, self.log = ParquetTables(root=self.settings.tables), RequestLog(folder=str(self.settings.serving))
        self.file = KeyFile(self.settings.keys)
        self.file.create("pseudonyms")
        rows = self.landed = self.protected()
        raw, cleaned, other = (self.model.key(name) for name in ("raw_visits", "visits", "performance"))
        first = self.tables.write(raw, rows, "2026-03-02")
        typed = pd.DataFrame({"email": rows["E-Mail"], "card_no": rows["Card No"].where(
            rows["Card No"].str.isdigit()).astype("Int64"), "minutes": rows["minutes"]})  # fmt: skip
        second = self.tables.write(cleaned, typed, "2026-03-02", inputs={"members/raw_visits": {
            "2026-03-02": first.data_version, "2026-03-01": "gone"}})  # fmt: skip
        self.tables.write(other, pd.DataFrame({"n": [1], "at": pd.to_datetime(["2026-03-02"])}),
                          inputs={"members/visits": {"2026-03-02": second.data_version}},
                          code_version="c1")  # fmt: skip
        row = {"E-Mail": rows["E-Mail"][0], "Card No": rows["Card No"][0], "minutes": "1", "visit_no": "9007"}
        made = RequestRecord(
            request_id="r", at=AT, model="members", version="1", role="champion", key=9007, entity=rows["E-Mail"][0],
            row=row, score=0.5, alert=False, latency_ms=1.0, outcome="ok",
        )  # fmt: skip
        refused = replace(made, outcome="refused", problem=f"email='{rows['E-Mail'][0]}' is odd", row=None)
        self.log.append([made, refused, replace(made, row={"minutes": "1"}, key=None, entity=None)])

    def protected(self) -> pd.DataFrame:
        """What lands of the same rows with the keys that are in force now."""
        rows = visits().head(FEW).drop(columns=["at"]).astype("string[pyarrow]")
        return Protection(self.model, pseudonym_keys(self.settings, writes=True)).frame(rows)

    def rekey(self) -> rekeying.Rekeyed:
        return rekey([self.model], self.tables, self.log, KeyRing.of(self.settings), say=lambda _: None)

    def check(self) -> None:
        """Everything is as if the rows had landed with the keys that are in force now."""
        now = self.protected()
        assert not now["E-Mail"].eq(self.landed["E-Mail"]).any()
        raw = self.tables.read(self.model.key("raw_visits"))
        pd.testing.assert_frame_equal(raw, now.reset_index(drop=True), check_dtype=False)
        cleaned = self.tables.read(self.model.key("visits"))
        assert cleaned["email"].tolist() == now["E-Mail"].tolist()
        numbers = now["Card No"].where(now["Card No"].str.isdigit()).astype("Int64").tolist()
        assert cleaned["card_no"].astype("Int64").tolist() == numbers
        stamps = {name: self.tables.existing_stamp(self.model.key(name), day) for name, day in
                  {"raw_visits": "2026-03-02", "visits": "2026-03-02", "performance": "all"}.items()}  # fmt: skip
        assert stamps["visits"].inputs["members/raw_visits"] == {
            "2026-03-02": stamps["raw_visits"].data_version, "2026-03-01": "gone",
        }  # fmt: skip
        assert stamps["performance"].inputs["members/visits"] == {"2026-03-02": stamps["visits"].data_version}
        assert stamps["performance"].code_version == "c1"
        lines = self.log.day("members", "2026-03-09").records
        assert lines["row"][0]["E-Mail"] == lines["entity"][0] == now["E-Mail"][0]
        assert lines["row"][0]["Card No"] == now["Card No"][0]
        assert lines["problem"][1] == f"email='{now['E-Mail'][0]}' is odd"
        assert lines["row"][2] == {"minutes": "1"}


@pytest.fixture
def stored(tmp_path) -> Stored:
    return Stored(tmp_path)


def test_all_stored_pseudonyms_get_the_newer_key_and_nothing_becomes_stale(stored):
    version = stored.tables.existing_stamp(stored.model.key("performance")).data_version
    assert stored.rekey() == rekeying.Rekeyed(()), "there is no newer key"
    new = stored.file.rotate("pseudonyms")
    assert stored.protected().equals(stored.landed), "a key in the file alone changes nothing"
    done = stored.rekey()
    assert (done.added, done.files, done.lines) == ((new.fingerprint,), 2, 2)
    stored.check()
    assert stored.tables.existing_stamp(stored.model.key("performance")).data_version == version
    assert stored.rekey() == rekeying.Rekeyed(())
    stored.file.rotate("pseudonyms")
    stored.file.rotate("pseudonyms")
    assert len(stored.rekey().added) == 2
    stored.check()


def test_a_journal_that_a_killed_run_left_at_its_end_does_not_hold_back_the_next_key(stored, monkeypatch):
    stored.file.rotate("pseudonyms")
    monkeypatch.setattr(rekeying, "_journal", lambda name: f"left/{name.replace('/', '.')}.json")
    monkeypatch.setattr(LocalFiles, "remove", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        stored.rekey()
    monkeypatch.setattr(LocalFiles, "remove", lambda *_: None)
    stored.file.rotate("pseudonyms")
    assert stored.rekey().files == 2
    stored.check()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", range(9))
def test_a_killed_run_is_finished_by_the_next_one(stored, monkeypatch, after):
    stored.file.rotate("pseudonyms")
    left = [after]

    def counted(function):
        def write(*arguments, **given):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **given)

        return write

    for where, name in ((ParquetTables, "write"), (rekeying, "record"), (RequestLog, "rewrite")):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    try:
        stored.rekey()
    except Killed:
        if after:
            with pytest.raises(KeyProblem, match="run `assetline rekey` to its end"):
                pseudonym_keys(stored.settings)
    monkeypatch.undo()
    stored.rekey()
    stored.check()
    assert in_force(stored.settings.tables) == InForce(
        tuple(key.fingerprint for key in KeyRing.of(stored.settings).versions("pseudonyms"))
    )
    assert not list(stored.settings.home.glob("tables/pseudonym-keys/*"))


def test_a_lost_key_or_another_order_is_refused_and_nothing_changes(stored):
    old = KeyRing.of(stored.settings).newest("pseudonyms")
    before = stored.tables.read_bytes(stored.model.key("raw_visits"), "2026-03-02")
    stored.settings.keys.unlink()
    with pytest.raises(KeyProblem, match=r"there is no key for pseudonyms|is not in"):
        stored.rekey()
    stored.file.create("pseudonyms")
    with pytest.raises(KeyProblem, match=rf"the key {old.fingerprint} for pseudonyms is not in .*keys.toml.*there: "):
        stored.rekey()
    with pytest.raises(KeyProblem, match="would get another pseudonym, so none is made"):
        pseudonym_keys(stored.settings)
    swapped = (*KeyRing.of(stored.settings).versions("pseudonyms"), old)
    ring = KeyRing({"pseudonyms": swapped}, {"pseudonyms": "keys.toml"})
    with pytest.raises(KeyProblem, match="do not begin with those in force"):
        rekey([stored.model], stored.tables, stored.log, ring)
    assert stored.tables.read_bytes(stored.model.key("raw_visits"), "2026-03-02") == before


def test_a_damaged_record_is_no_empty_one(stored):
    (stored.settings.home / "tables" / "pseudonym-keys.json").write_text("{")
    with pytest.raises(KeyProblem, match=r"pseudonym-keys\.json is damaged; restore it"):
        pseudonym_keys(stored.settings)


def test_a_day_that_was_written_meanwhile_is_not_rewritten(stored, monkeypatch):
    stored.file.rotate("pseudonyms")
    monkeypatch.setattr(rekeying, "_follow_inputs", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        stored.rekey()
    monkeypatch.undo()
    stored.tables.write(stored.model.key("raw_visits"), stored.landed.head(3), "2026-03-02")
    with pytest.raises(KeyProblem, match=r"members/raw_visits of 2026-03-02 was written while"):
        stored.rekey()
    assert json.loads((stored.settings.home / "tables" / "pseudonym-keys.json").read_text())["becoming"]


def test_encrypted_tables_keep_the_key_of_their_personal_columns(stored, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(stored.settings.home))
    for purpose in ("tables", "personal"):
        stored.file.create(purpose)
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "true")
    raw, cleaned = stored.model.key("raw_visits"), stored.model.key("visits")
    stored.tables.rewrite(raw, "2026-03-02", ["E-Mail"], KeyRing.of(stored.settings))
    stored.tables.rewrite(cleaned, "2026-03-02", ["email"], KeyRing.of(stored.settings))
    stored.file.rotate("pseudonyms")
    stored.rekey()
    stored.check()
    assert stored.tables.personal_columns(raw, "2026-03-02") == ["E-Mail"]
    assert stored.tables.personal_columns(cleaned, "2026-03-02") == ["email"]
