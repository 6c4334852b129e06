"""Tables at rest: what is encrypted, by which key, and what happens without it."""

import datetime as dt
import io
import json
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metadata.query import QueryError
from metadata.table_sql import ask
from resources.encryption import in_use, parquet
from resources.keys import KeyFile
from resources.settings import Settings
from resources.tables import InBatches, ParquetTables, TableError, TableKeyError
from tests.buckets import new_bucket, reached

KEY = dg.AssetKey(["m", "events"])
DAYS = ["2026-01-01", "2026-01-02"]
SECRET = "hunter-7731"


def frame(n: int = 50) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n), unit="s"),
            "value": np.arange(n) / 3,
            "name": pd.array([None if i % 7 == 0 else f"{SECRET}-{i}" for i in range(n)], dtype="string[pyarrow]"),
            "email": [f"{SECRET}@{i}.example" for i in range(n)],
            "noise": [noise(i) for i in range(n)],
        }
    )


def noise(i: int) -> bytes:
    """Bytes that no compression changes, so that they can be found in a file that is not encrypted."""
    return np.random.default_rng(i).bytes(64)


@pytest.fixture
def tables(settings: Settings) -> ParquetTables:
    return ParquetTables(root=settings.tables)


@pytest.fixture(
    params=["folder", pytest.param("bucket", marks=pytest.mark.slow), pytest.param("delta", marks=pytest.mark.slow)]
)
def anywhere(request, settings, tmp_path):
    """Tables in a folder, in a bucket, and with versions."""
    if request.param == "bucket":
        with reached():
            yield ParquetTables(root=f"s3://{new_bucket()}/x")
    else:
        root = settings.tables if request.param == "folder" else f"delta+file://{tmp_path}/delta"
        yield ParquetTables(root=root)


def raw(tables: ParquetTables, day: str) -> bytes:
    return tables.files.read(f"m/events/{day}.parquet")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def without_keys(settings: Settings) -> None:
    settings.keys.rename(settings.keys.with_name("away.toml"))


def with_other_keys(settings: Settings) -> None:
    without_keys(settings)
    for purpose in ("tables", "personal"):
        KeyFile(settings.keys).create(purpose)


def test_rows_are_read_as_they_were_written_and_lie_nowhere_in_the_clear(anywhere):
    stamps = {day: anywhere.write(KEY, frame(), day, code_version="c", personal=["email"]) for day in DAYS}
    for day in DAYS:
        assert not [i for i in range(50) if noise(i)[:16] in raw(anywhere, day)]
        assert SECRET.encode() not in raw(anywhere, day)
        with pytest.raises(OSError, match="Cannot decrypt"):
            pq.read_table(io.BytesIO(raw(anywhere, day)))
    pd.testing.assert_frame_equal(anywhere.read(KEY, DAYS[:1]), frame(), check_dtype=False)
    assert anywhere.stamps(KEY) == stamps
    assert anywhere.read(KEY, DAYS, ["value"]).shape == (100, 1)
    assert [len(part) for part in anywhere.batches(KEY, DAYS[0], rows=30)] == [30, 20]
    assert anywhere.arrow_schema(KEY, DAYS).names == ["at", "value", "name", "email", "noise"]
    assert anywhere.types(KEY, DAYS[0])["email"] == "string"
    together = InBatches(anywhere, KEY, tuple(DAYS))
    assert len(together.read(["name"])) == 100
    assert together.arrow(DAYS[0], ["at"]).num_rows == 50


def test_the_data_version_and_the_exported_bytes_are_those_of_the_rows(tables, settings, monkeypatch):
    sealed = tables.write(KEY, frame(), DAYS[0], code_version="c", personal=["email"])
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    plain = tables.write(KEY, frame(), DAYS[1], code_version="c")
    assert sealed == plain
    assert all(noise(i) in raw(tables, DAYS[1]) for i in range(50))
    assert tables.read_bytes(KEY, DAYS[0]) == raw(tables, DAYS[1]) == tables.read_bytes(KEY, DAYS[1])
    assert tables.read(KEY, DAYS).shape == (100, 5)  # one day encrypted, one not


@pytest.mark.parametrize("odd", ["b.b", "b,b", "b;%2Cb", "b:b", "列 %", 'b"b'])
def test_columns_of_all_kinds_and_names_are_encrypted(tables, monkeypatch, odd):
    values = [noise(i) for i in range(5)]
    rows = pd.DataFrame(
        {
            "a": [{"x": values[0], "y": [values[1]]}],
            odd: pd.Categorical([values[2]]),
            "c": [[values[3]]],
            "d": [values[4]],
        }
    )
    for personal in ([], ["a"], [odd], ["c", "d"], ["a", odd, "c", "d"]):
        tables.write(KEY, rows, DAYS[0], personal=personal)
        assert not [i for i, value in enumerate(values) if value[:16] in raw(tables, DAYS[0])], personal
        found = tables.read(KEY, [DAYS[0]]).iloc[0]
        assert (found["a"]["x"], found["a"]["y"][0], found[odd], found["c"][0], found["d"]) == tuple(values)
        assert tables.read(KEY, [DAYS[0]], [odd]).columns.tolist() == [odd]
        assert list(tables.types(KEY, DAYS[0])) == ["a", odd, "c", "d"]
        assert ask(tables, f"select hex({quoted(odd)}) from m.events", cache=Path("/none")).rows == [
            (values[2].hex().upper(),)
        ]
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    tables.write(KEY, rows, DAYS[0])
    assert not [i for i, value in enumerate(values) if value not in raw(tables, DAYS[0])]  # the search finds them


@pytest.mark.parametrize(
    ("rows", "read"),
    [(frame(0), 0), (pd.DataFrame(), 0), (pd.DataFrame({"x": [None, None]}), 2)],
    ids=["no rows", "no columns", "only missing"],
)
def test_odd_tables_are_encrypted_too(tables, rows, read):
    tables.write(KEY, rows, DAYS[0], personal=["email"])
    assert len(tables.read(KEY, [DAYS[0]])) == read


@pytest.mark.parametrize("lose", [without_keys, with_other_keys])
def test_without_the_key_or_with_another_one_reading_is_refused_and_nothing_is_lost(anywhere, settings, lose):
    stamp = anywhere.write(KEY, frame(), DAYS[0], personal=["email"])
    wanted = in_use.ring().newest("tables").fingerprint
    before = raw(anywhere, DAYS[0])
    lose(settings)
    for use in (
        lambda: anywhere.read(KEY), lambda: anywhere.read(KEY, DAYS[:1], ["value"]),
        lambda: next(anywhere.batches(KEY, DAYS[0])), lambda: anywhere.read_bytes(KEY, DAYS[0]),
        lambda: ask(anywhere, "select count(*) from m.events", cache=settings.home / "cache"),
    ):  # fmt: skip
        with pytest.raises(TableKeyError) as refused:
            use()
        said = str(refused.value)
        assert f"encrypted, and the key {wanted} for tables is not in {settings.keys} (there: " in said
        assert "put it back from the copy of your keys" in said
        assert "materiali" not in said
    # What needs no key still works, and the file is as it was.
    assert anywhere.stamp(KEY, DAYS[0]) == stamp
    assert raw(anywhere, DAYS[0]) == before
    (settings.keys.with_name("away.toml")).replace(settings.keys)
    assert len(anywhere.read(KEY)) == 50


def test_without_a_key_nothing_is_written_in_the_clear_and_the_old_file_stays(tables, settings):
    tables.write(KEY, frame(), DAYS[0])
    before = raw(tables, DAYS[0])
    without_keys(settings)
    for day in DAYS:
        with pytest.raises(
            TableKeyError, match=f"m/events of {day} cannot be encrypted: there is no key for tables in"
        ):
            tables.write(KEY, frame(10), day)
    with pytest.raises(TableKeyError, match="there is no key for tables"):
        tables.keep_report(KEY, "page", f"<p>{SECRET}</p>")
    assert raw(tables, DAYS[0]) == before
    assert tables.days(KEY) == DAYS[:1]


def test_personal_columns_need_a_key_of_their_own_and_others_do_not(tables, settings):
    tables.write(KEY, frame(), DAYS[0], personal=["email"])
    stored = settings.keys.read_text().split("[personal]")
    settings.keys.write_text(stored[0] + "[artifacts]" + stored[1].split("[artifacts]")[1])
    others = ["at", "noise", "name", "value"]
    pd.testing.assert_frame_equal(tables.read(KEY, DAYS[:1], others), frame()[others], check_dtype=False)
    assert [part.shape for part in tables.batches(KEY, DAYS[0], others, rows=30)] == [(30, 4), (20, 4)]
    with pytest.raises(TableKeyError, match=r"the key \w{8} for personal is not in"):
        tables.read(KEY, DAYS[:1], ["email"])
    with pytest.raises(TableKeyError, match="for personal is not in"):
        tables.read(KEY)
    there = ask(tables, "select * from m.events limit 1", cache=settings.home / "cache")
    assert there.columns == ("at", "value", "name", "noise")
    with pytest.raises(
        TableKeyError, match=r"email of m.events need a key of their own, and the key \w{8} for personal"
    ):
        ask(tables, "select email from m.events", cache=settings.home / "cache")


@pytest.mark.parametrize("place", [60, 400, -200, -30])
def test_an_altered_file_is_refused(tables, place):
    tables.write(KEY, frame(400), DAYS[0], personal=["email"])
    path = Path(tables.path(KEY, DAYS[0]))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(TableError, match=r"is damaged|was altered"):
        tables.read(KEY)


def test_an_altered_stamp_is_found_when_rows_are_read(tables):
    tables.write(KEY, frame(), DAYS[0], code_version="code-of-one")
    path = Path(tables.path(KEY, DAYS[0]))
    path.write_bytes(path.read_bytes().replace(b"code-of-one", b"code-of-two"))
    with pytest.raises(TableError, match="signature verification failed"):
        tables.read(KEY)


def test_sql_answers_over_encrypted_and_plain_days(anywhere, settings, monkeypatch):
    anywhere.write(KEY, frame(), DAYS[0], personal=["email"])
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    anywhere.write(KEY, frame(10).drop(columns="name").astype({"value": "float32"}), DAYS[1])
    cache = settings.home / "cache"
    rows = lambda sql: ask(anywhere, sql, cache=cache).rows  # noqa: E731
    assert rows("select count(*), count(name), count(distinct email) from m.events") == [(60, 42, 50)]
    assert rows("select email from m.events where value > 16") == [(f"{SECRET}@49.example",)]
    assert rows("select rows from assetline.files order by day") == [(50,), (10,)]
    for path in cache.rglob("*2026-01-01*"):
        assert SECRET.encode() not in path.read_bytes()
    with pytest.raises(QueryError, match="files and extensions are out of reach"):
        rows(f"select * from read_parquet('{settings.home}/tables/m/events/{DAYS[1]}.parquet'), m.events")


def test_reports_beside_a_table_are_encrypted(tables, settings):
    link = tables.keep_report(KEY, "page", f"<p>{SECRET}</p>")
    assert SECRET.encode() not in Path(link).read_bytes()
    assert tables.report(link) == f"<p>{SECRET}</p>".encode()
    without_keys(settings)
    with pytest.raises(TableKeyError, match=r"m/events/reports/page.html is encrypted, and the key"):
        tables.report(link)


def test_a_file_that_another_program_encrypted_is_refused_with_a_sentence(tables, ring):
    tables.write(KEY, frame(), DAYS[0])
    import pyarrow.parquet.encryption as pe

    class Other(pe.KmsClient):
        def wrap_key(self, key_bytes, name):
            return key_bytes.hex()

    configuration = pe.EncryptionConfiguration(footer_key="x", uniform_encryption=True)
    properties = pe.CryptoFactory(lambda _: Other()).file_encryption_properties(pe.KmsConnectionConfig(), configuration)
    pq.write_table(pa.table({"x": [1]}), tables.path(KEY, DAYS[0]), encryption_properties=properties)
    with pytest.raises(TableError, match="is damaged"):
        tables.read(KEY)


def test_a_plain_process_that_has_no_keys_reads_plain_files(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    tables = ParquetTables(root=str(tmp_path / "tables"))
    tables.write(KEY, frame(), DAYS[0])
    assert len(tables.read(KEY)) == 50
    assert not parquet.keys_of(pq.read_metadata(tables.path(KEY, DAYS[0])))


def test_the_asset_says_which_columns_are_personal(settings):
    tables = ParquetTables(root=settings.tables)

    @dg.asset(io_manager_key="tables", metadata={"personal_columns": ["email"]})
    def people() -> pd.DataFrame:
        return frame()

    assert dg.materialize([people], resources={"tables": tables}, instance=dg.DagsterInstance.ephemeral()).success
    metadata = pq.read_metadata(tables.path(dg.AssetKey(["people"])))
    assert parquet.personal_columns_of(metadata) == ["email"]
    assert set(parquet.keys_of(metadata)) == {"tables", "personal"}


def test_a_rotated_key_is_seen_by_a_process_that_runs(tables, settings):
    tables.write(KEY, frame(), DAYS[0])
    new = KeyFile(settings.keys).rotate("tables")
    tables.write(KEY, frame(), DAYS[1])
    used = [parquet.keys_of(pq.read_metadata(tables.path(KEY, day)))["tables"] for day in DAYS]
    assert used[1] == new.fingerprint != used[0]
    assert len(tables.read(KEY)) == 100


def test_times_keep_their_zone_and_unit(tables):
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    rows = pd.DataFrame({"at": pd.Series([at]).astype("datetime64[us, UTC]"), "n": pd.array([1], dtype="Int8")})
    tables.write(KEY, rows, DAYS[0])
    pd.testing.assert_frame_equal(
        tables.read(KEY).astype({"n": "Int8"}),
        pd.read_parquet(io.BytesIO(tables.read_bytes(KEY, DAYS[0]))).astype({"n": "Int8"}),
    )
    assert json.loads(pq.read_metadata(tables.path(KEY, DAYS[0])).metadata[b"assetline"])["rows"] == 1
