"""The past of a row online is its past in batch, and what was acknowledged is not lost."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.data.features import compute_features
from assets.models.fraud import model
from resources.request_log import Appended, RequestLog
from resources.tables import ParquetTables
from serving.scoring.entity_events import EntityEvents, TooOldError
from serving.scoring.recording import Call
from serving.scoring.request_parsing import RequestParser
from tests.serving.conftest import TABLE, as_raw, payment

PARSER = RequestParser(model)


def history(tables: ParquetTables, folder) -> EntityEvents:
    return EntityEvents(model, PARSER, tables, RequestLog(folder=str(folder)) if folder else None)


def log_of(folder, *rows: dict, role: str = "champion") -> list[Appended]:
    """Logs rows as the service does when it has scored them."""
    call, scores = Call().as_role(role), np.full(len(rows), 0.5)
    return RequestLog(folder=str(folder)).append(
        call.scored(model, "1", rows, typed(*rows), scores, scores > 0.5)  # a writer of its own, like a new process
    )


def add(past: EntityEvents, *rows: dict) -> None:
    """Rows that the process has just scored and logged; where they are in its log does not matter here."""
    past.add(typed(*rows), [])


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
        add(past, earlier(payment(2), 60))
    assert customer_count(past, new) == before + 1
    add(past, new)
    assert customer_count(past, new) == before + 1, "a row that is sent again saw itself"
    assert customer_count(past, payment(3, paid_at=new["paid_at"])) == before + 1, "rows of one second saw each other"


def test_a_row_that_a_table_has_does_not_count_again(tables, tmp_path, batch):
    past, rows = history(tables, tmp_path / "log"), tables.read(TABLE, [tables.days(TABLE)[-1]])
    size = past.rows
    add(past, *as_raw(rows))
    assert past.rows == size


def test_the_log_is_replayed_without_its_torn_line(tables, tmp_path):
    nothing = history(tables, tmp_path).rows
    log_of(tmp_path, earlier(payment(1), 60))
    (path,) = tmp_path.glob("fraud/requests/*/*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"n":2,"row": {"transaction_id": 12')  # no answer was sent for this one
    assert history(tables, tmp_path).rows == nothing + 1


def test_what_another_process_answers_is_history_from_then_on_and_what_a_shadow_scores_is_not(tables, tmp_path):
    past, new = history(tables, tmp_path), payment(1)
    before = customer_count(past, new)
    log_of(tmp_path, earlier(payment(2), 60))
    past.refresh(PARSER)
    past.refresh(PARSER)
    assert customer_count(past, new) == before + 1
    log_of(tmp_path, earlier(payment(3), 60), role="shadow")
    past.refresh(PARSER)
    assert customer_count(past, new) == before + 1
    third = log_of(tmp_path, earlier(payment(4), 60))
    past.add(typed(earlier(payment(4), 60)), third)  # its own: known already, and not read again
    assert past._follower.fetch() == []
    assert customer_count(past, new) == before + 2


def test_a_logged_row_that_the_contract_refuses_by_now_is_left_out(tables, tmp_path, caplog):
    nothing = history(tables, tmp_path).rows
    log_of(tmp_path, earlier(payment(1), 60), earlier(payment(2), 60))
    (path,) = tmp_path.glob("fraud/requests/*/*.jsonl")
    path.write_text(path.read_text().replace('"amount":12.5', '"amount":-1', 1))
    assert history(tables, tmp_path).rows == nothing + 1
    assert "1 logged rows are no history, for the contract has changed" in caplog.text


def test_the_log_of_an_earlier_release_is_replayed(tables, tmp_path):
    nothing, row = history(tables, tmp_path), earlier(payment(1), 60)
    as_logged = {name: str(v[0]) if v.dtype.kind == "M" else v[0].item() for name, v in typed(row).items()}
    line = {"row": as_logged, "score": 0.5, "version": "1", "at": "2026-11-30T09:00:00.000+00:00"}
    (tmp_path / "fraud").mkdir()
    path = tmp_path / "fraud" / f"{row['paid_at'][:10]}.jsonl"
    path.write_text(f'{json.dumps(line)}\n{{"row": {{"transaction_id": 12')
    past = history(tables, tmp_path)
    assert past.rows == nothing.rows + 1
    assert customer_count(past, payment(2)) == customer_count(nothing, payment(2)) + 1
    log_of(tmp_path, row)  # the same row, sent again
    past.refresh(PARSER)
    assert past.rows == nothing.rows + 1


def test_a_new_day_file_takes_over_from_the_log(home, tmp_path):
    tables = ParquetTables(root=str(home / "tables"))
    last = tables.days(TABLE)[-1]
    of_last_day = tables.read(TABLE, [last])
    (home / "tables" / "fraud" / "payments" / f"{last}.parquet").unlink()
    past = history(tables, tmp_path / "log")
    assert str(past.until) < last
    add(past, *as_raw(of_last_day))
    add(past, payment(1))
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
    add(past, old)
    assert past.rows == size


def test_many_rows_fit(tables, tmp_path):
    past = history(tables, tmp_path / "log")
    size = past.rows
    for start in range(0, 3000, 500):
        rows = [payment(n, customer_id=n % 50) for n in range(start, start + 500)]
        past.add(typed(*rows), log_of(tmp_path / "log", *rows))
    assert past.rows == size + 3000
    assert history(tables, tmp_path / "log").rows == size + 3000


def test_a_new_version_with_other_needs_takes_over_what_was_scored(tables, tmp_path):
    old = history(tables, tmp_path / "log")
    new = history(tables, tmp_path / "log")  # loaded while the old one serves
    add(old, earlier(payment(1), 60))
    before = new.rows
    new.take_over(old)
    new.take_over(old)
    assert new.rows == before + 1
