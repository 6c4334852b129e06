"""Rows of a person in tables with versions: the current files and those of earlier versions."""

import pandas as pd

from assets.lifecycle.erasure.person import Person
from assets.lifecycle.erasure.stored import Scope, old_files_with, remove_from_table
from resources import tables_delta
from resources.tables import ParquetTables
from resources.tombstones import Tombstones
from tests.declarations.visits import model

KEY = model.key("visits")


def rows(*customers: int) -> pd.DataFrame:
    return pd.DataFrame({"visit_id": range(100, 100 + len(customers)), "customer_id": customers})


def test_files_of_earlier_versions_with_their_rows_go_and_others_stay(tmp_path):
    tables = ParquetTables(root=f"delta+file://{tmp_path}/tables")
    tables.write(KEY, rows(7, 8), "2026-01-01", code_version="c")
    tables.write(KEY, rows(8), "2026-01-02")
    tables.write(KEY, rows(8, 9), "2026-01-02")
    scope, person = Scope([model], "customer_id"), Person("customer_id", "7", Tombstones.read(tables.files))
    assert remove_from_table(tables, "visit/visits", scope, person) == {"2026-01-01": 1}
    assert tables.stamp(KEY, "2026-01-01").code_version == "c"
    old = old_files_with(tables, "visit/visits", scope, person)
    assert len(old) == 1
    for file in old:
        tables.files.plain.remove(file)
    assert old_files_with(tables, "visit/visits", scope, person) == []
    stored = [set(pd.read_parquet(path)["customer_id"]) for path in (tmp_path / "tables").rglob("*.parquet")]
    assert sorted(stored, key=sorted) == [{8}, {8}, {8, 9}], "the earlier version of the second day stays"
    assert tables.read(KEY)["customer_id"].tolist() == [8, 8, 9]
    tables_delta.forget_tables()
