"""The rows of a version of a plain table are found again by their data version, or the changed table is named."""

import pytest

from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.version.training_rows import MOST_NAMED, RowsError, RowsRecord, changed_days, find_rows
from tests.assets.lifecycle.model.test_training_set import frozen
from tests.declarations.readings import readings
from tests.stages import copied_bundle


def test_a_plain_table_has_one_file_for_all_rows(tmp_path, toy_bundle):
    stages, _ = frozen(tmp_path / "stages", readings(600))
    key, model, tables = stages.model.key("training_set"), stages.model, stages.tables
    was = tables.read_bytes(key)
    record = RowsRecord.of_table(tables, model, tables.read(key))
    assert record.counts["fit_rows"] + record.counts["test_rows"] == record.stamp.rows == 600
    folder = copied_bundle(toy_bundle, tmp_path / "bundle", fitted={"data_version": record.stamp.data_version})
    record.save(folder)
    assert RowsRecord.read(folder) == record
    bundle = Bundle.load(folder)
    bundle.model = model
    stages.put("training_set", readings(10))  # another training
    assert find_rows(tables, bundle, "1").encoded == was
    stages.put("labels", tables.read(model.key("labels")).iloc[1:])
    with pytest.raises(RowsError) as refused:
        find_rows(tables, bundle, "1")
    assert str(refused.value) == (
        "the rows of version 1 of meter are not those of today's tables; changed since the training: meter/labels"
    )


def test_of_many_changed_days_only_some_are_named(tmp_path, toy_bundle):
    stages, _ = frozen(tmp_path / "stages", readings(600))
    inputs = {"meter/labels": {f"2026-01-{day:02}": "0" for day in range(1, 14)}}
    changed = changed_days(stages.tables, inputs)
    assert [one.now for one in changed] == [""] * 13
    stamp = RowsRecord.of_table(stages.tables, stages.model, readings(600)).stamp
    folder = copied_bundle(toy_bundle, tmp_path / "bundle", fitted={"data_version": "1"})
    RowsRecord(type(stamp)(stamp.code_version, "1", inputs, 600), {}, "").save(folder)
    bundle = Bundle.load(folder)
    bundle.model = stages.model
    with pytest.raises(RowsError) as refused:
        find_rows(stages.tables, bundle, "1")
    assert str(refused.value).endswith(f"2026-01-{MOST_NAMED} (gone) and 3 more")
