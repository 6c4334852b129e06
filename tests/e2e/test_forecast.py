"""A forecast's whole life in the folder that `new-model` wrote: trained, deployed, scored, asked for tomorrow."""

import datetime as dt
import json
from dataclasses import replace

import pandas as pd
import pytest

from resources.settings import project_root
from runner import Runner
from scaffold.new_model import drafted
from tests.declarations.loads import loads
from tests.serving.processes import Service

pytestmark = [pytest.mark.slow]


def test_a_forecast_lives_from_a_file_to_the_service(make_world, tmp_path):
    today = dt.datetime.now(dt.UTC).date()
    rows = pd.concat([loads(today - dt.timedelta(days=n)) for n in range(84, 0, -1)], ignore_index=True)
    path = tmp_path / "demand_table.csv"
    rows.drop(columns="load_id").to_csv(path, index=False)
    with drafted(project_root(), "demand", path, "megawatts", time="hour", forecast="24h") as draft:
        few = replace(draft.model.training, max_epochs=5, members=2)
        model = replace(draft.model, training=few)
        world = make_world(model, tmp_path)
        lines: list[str] = []
        Runner(model, world.settings, world.instance).live(lines.append)

        report = json.loads(world.row("evaluation")["report"])
        figures = {name: one["mae"]["value"] for name, one in report["models"].items()}
        assert figures["torch"] < figures["naive"]
        last = world.tables.days(model.key("forecasts"))[-1]
        ahead = world.tables.read(model.key("forecasts"), [last])
        assert len(ahead) == 72
        scored = world.tables.read(model.key("predictions"), [last])
        assert (scored["low"] < scored["prediction"]).all()
        assert (scored["prediction"] < scored["high"]).all()

        service = Service(world.settings.home, "--bundle", str(world.mlflow.download(model.name, "1")))
        try:
            one = ahead.iloc[30]
            asked = {"hour": str(one["hour"]), "station": one["station"], "temperature": "0", "holiday": "False"}
            answer = service.predict([asked], model.name)
            assert answer.status_code == 200, answer.text
            said = answer.json()[0]
            assert said["prediction"] == pytest.approx(one["prediction"], rel=1e-5)
            assert (said["low"], said["high"]) == pytest.approx((one["low"], one["high"]), rel=1e-5)
            known = service.client.get("/openapi.json").json()
            assert '"low"' in json.dumps(known)
        finally:
            service.end()
