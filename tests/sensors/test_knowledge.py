"""When the documents of a knowledge base are read again."""

from typing import Any

import dagster as dg
import pandas as pd

from resources.tables import ParquetTables
from sensors.defaults import default_sensors
from sensors.knowledge import knowledge_sensor
from tests.declarations.helpdesk import helpdesk, write_article, write_knowledge
from tests.declarations.readings import stream


def test_a_changed_document_is_read_once(tmp_path):
    model = helpdesk(write_knowledge(tmp_path / "knowledge"))
    tables, sensor = ParquetTables(root=str(tmp_path / "tables")), knowledge_sensor(model)

    def tick(cursor: str | None) -> Any:
        with (
            dg.instance_for_test() as instance,
            dg.build_sensor_context(instance=instance, resources={"tables": tables}, cursor=cursor) as context,
        ):
            return sensor.evaluate_tick(context)

    assert "first training run" in str(tick(None).skip_message)
    tables.write(model.key("knowledge"), pd.DataFrame({"document": ["cards"]}))
    first = tick(None)
    assert len(first.run_requests) == 1
    assert not tick(first.cursor).run_requests
    write_article(tmp_path / "knowledge", "cash", "Cash", "2026-06-01", "Cash is free.")
    again = tick(first.cursor)
    assert len(again.run_requests) == 1
    assert again.run_requests[0].run_key != first.run_requests[0].run_key


def test_only_a_model_with_answers_has_it(tmp_path):
    names = [sensor.name for sensor in default_sensors([helpdesk(tmp_path), stream()])]
    assert [name for name in names if name.endswith("_knowledge")] == ["desk_knowledge"]
