"""The past of a row online is its past in batch, and what was acknowledged is not lost."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.data.features import compute_features
from assets.models.fraud import model
from resources.tables import ParquetTables
from serving.scoring.entity_events import EntityEvents, LogError, TooOldError
from serving.scoring.request_parsing import RequestParser
from tests.serving.conftest import TABLE, as_raw, payment

PARSER = RequestParser(model)


def history(tables: ParquetTables, folder) -> EntityEvents:
    return EntityEvents(model, PARSER.dtypes, tables, folder)


def typed(*rows: dict) -> dict[str, np.ndarray]:
    return PARSER.parse(rows, dt.datetime.now(dt.UTC).replace(tzinfo=None))


def features(past: EntityEvents, rows) -> np.ndarray:
    return compute_features(model.features, *past.events(rows))


def customer_count(past: EntityEvents, row: dict) -> float:
    return float(features(past, typed(row))[0, model.features.names.index("customer_count_1d")])


def earlier(row: dict, seconds: int) -> dict:
    return {**row, "paid_at": str(pd.Timestamp(row["paid_at"]) - pd.Timedelta(seconds=seconds))}


def test_features_of_one_row_and_of_a_list_are_those_of_the_batch_bit_for_bit(tables, batch):
    rows, offline = batch
    past = history(tables, None)
    one = np.vstack([features(past, typed(row)) for row in as_raw(rows)])
    np.testing.assert_array_equal(one, offline)
    np.testing.assert_array_equal(features(past, typed(*as_raw(rows))), offline)


def test_a_scored_row_is_the_past_of_the_next_and_counts_once(tables, tmp_path):
    past, new = history(tables, tmp_path / "log"), payment(1)
    before = customer_count(past, new)
    for _ in range(3):
        past.add(typed(earlier(payment(2), 60)), [0.5], "1")
    assert customer_count(past, new) == before + 1
    past.add(typed(new), [0.5], "1")
    assert customer_count(past, new) == before + 1, "a row that is sent again saw itself"
    assert customer_count(past, payment(3, paid_at=new["paid_at"])) == before + 1, "rows of one second saw each other"


def test_a_row_that_a_table_has_does_not_count_again(tables, tmp_path, batch):
    past, rows = history(tables, tmp_path / "log"), tables.read(TABLE, [tables.days(TABLE)[-1]])
    size = past.rows
    past.add(typed(*as_raw(rows)), [0.5] * len(rows), "1")
    assert past.rows == size
    assert not (tmp_path / "log").exists()


def test_the_log_is_replayed_without_its_torn_line_and_goes_on_behind_it(tables, tmp_path):
    past = history(tables, tmp_path / "log")
    past.add(typed(earlier(payment(1), 60)), [0.5], "1")
    (path,) = (tmp_path / "log").iterdir()
    path.write_bytes(path.read_bytes() + b'{"row": {"transaction_id": 12')  # no answer was sent for this one
    again = history(tables, tmp_path / "log")
    assert again.rows == past.rows
    again.add(typed(earlier(payment(2), 30)), [0.5], "1")
    assert history(tables, tmp_path / "log").rows == past.rows + 1


def test_a_new_day_file_takes_over_from_the_log(home, tmp_path):
    tables = ParquetTables(root=str(home / "tables"))
    last = tables.days(TABLE)[-1]
    of_last_day = tables.read(TABLE, [last])
    (home / "tables" / "fraud" / "payments" / f"{last}.parquet").unlink()
    past = history(tables, tmp_path / "log")
    assert str(past.until) < last
    past.add(typed(*as_raw(of_last_day)), [0.1] * len(of_last_day), "1")
    past.add(typed(payment(1)), [0.1], "1")
    scored = past.rows
    assert not past.is_stale()
    tables.write(TABLE, of_last_day, last)
    assert past.is_stale()
    past.adopt(past.load())
    window_moved_by = len(tables.read(TABLE, [tables.days(TABLE)[-past._kept_days - 2]]))
    assert past.rows == scored - window_moved_by, "rows of the day count twice, or today's row was forgotten"
    assert str(past.until) == last


def test_a_row_whose_past_is_not_kept_is_refused(tables, tmp_path):
    long_ago = payment(1, paid_at=f"{tables.days(TABLE)[20]} 12:00:00")
    with pytest.raises(TooOldError, match="is too old"):
        history(tables, None).events(typed(long_ago))


def test_rows_that_no_table_can_get_any_more_do_not_pile_up(tables, tmp_path):
    past = history(tables, tmp_path / "log")
    size = past.rows
    old = payment(1, paid_at=f"{tables.days(TABLE)[-8]} 12:00:00")
    past.add(typed(old), [0.5], "1")
    assert past.rows == size


def test_many_rows_fit(tables, tmp_path):
    past = history(tables, tmp_path / "log")
    size = past.rows
    for start in range(0, 3000, 500):
        rows = [payment(n, customer_id=n % 50) for n in range(start, start + 500)]
        past.add(typed(*rows), [0.5] * 500, "1")
    assert past.rows == size + 3000
    assert history(tables, tmp_path / "log").rows == size + 3000


def test_what_cannot_be_logged_does_not_count(tables, tmp_path):
    (tmp_path / "log").write_text("a file where the folder should be")
    past = history(tables, tmp_path / "log")
    size = past.rows
    with pytest.raises(LogError, match="nothing was recorded"):
        past.add(typed(payment(1)), [0.5], "1")
    assert past.rows == size


def test_a_new_version_with_other_needs_takes_over_what_was_scored(tables, tmp_path):
    old = history(tables, tmp_path / "log")
    new = history(tables, tmp_path / "log")  # loaded while the old one serves
    old.add(typed(earlier(payment(1), 60)), [0.5], "1")
    before = new.rows
    new.take_over(old)
    new.take_over(old)
    assert new.rows == before + 1
