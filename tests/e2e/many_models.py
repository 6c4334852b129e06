"""A code location of ten small models, for runs in parallel: the landings of two days of each, requested at once."""

import time
from dataclasses import replace

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.landing import raw_labels_asset, raw_table_asset, source_resources
from assets.lifecycle.jobs import LAND, job_name
from resources.defaults import default_resources
from resources.settings import Settings
from tests.declarations.readings import Feed, stream

TOGETHER = 3
"""Number of models whose runs are waited for, so that runs are in progress at the same time on any machine."""


class Meeting(Feed):
    """Waits for the landings of other models before it lands."""

    def land(self, day):
        folder = Settings.from_env().home / "landing"
        folder.mkdir(exist_ok=True)
        (folder / self.model).touch()
        deadline = time.monotonic() + 300
        while len(list(folder.iterdir())) < TOGETHER and time.monotonic() < deadline:
            time.sleep(0.1)
        return super().land(day)

    model: str


def _model(name: str) -> Model:
    return stream(name=name, table=replace(stream().table, source=Meeting(model=name)))


MODELS = [_model(f"m{number}") for number in range(10)]
DAYS = ("2026-01-10", "2026-01-11")

_assets = {model.name: [raw_table_asset(model), raw_labels_asset(model)] for model in MODELS}
_jobs = [dg.define_asset_job(job_name(model, LAND), selection=_assets[model.name]) for model in MODELS]


@dg.sensor(jobs=_jobs, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1)
def all_at_once():
    for day in DAYS:
        for model in MODELS:
            job = job_name(model, LAND)
            yield dg.RunRequest(run_key=f"{model.name}-{day}", job_name=job, partition_key=day)


defs = dg.Definitions(
    assets=[asset for of_model in _assets.values() for asset in of_model],
    jobs=_jobs,
    sensors=[all_at_once],
    resources=default_resources(Settings.from_env(), source_resources(MODELS)),
    executor=dg.in_process_executor,
)
