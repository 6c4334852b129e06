"""One stage of a lifecycle alone: a test writes the tables it reads and makes its asset, as a run would."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.landing import source_resource_key
from assets.lifecycle.factory import lifecycle_assets
from resources.compute.resource import Computing
from resources.ledger import Ledger
from resources.release_policy import ReleasePolicy
from resources.request_log import RequestLog
from resources.studies import Studies
from resources.tables import WHOLE, ParquetTables
from runner import RANGE_END, RANGE_START
from tests.worlds import QUIET, why


@dataclass
class Versions:
    """Stands for MLflow: folders of versions, their tags, and what was logged. The real one is used in tests/e2e."""

    folders: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    model: str = ""

    def version_of(self, name: str, tags: dict[str, str]) -> str | None:
        self.asked.append(tags)
        return max(self.folders, default=None)

    def versions(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(model=self.model, version=version) for version in self.folders]

    def run_of_version(self, name: str, version: str) -> str:
        return f"run-of-{version}"

    def run_url(self, run_id: str) -> str:
        return f"http://mlflow/{run_id}"

    def download(self, name: str, version: str) -> Path:
        return self.folders[version]

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags.setdefault(version, {})[key] = value

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        return self.tags.get(version, {})

    def verdict(self, version: str, name: str) -> dict[str, Any]:
        """What was said of a version, for promotion to look up."""
        return json.loads(self.tags[version][f"verdict.{name}"])

    def run_facts(self, run_id: str) -> tuple[dict[str, str], dict[str, str]]:
        return {"git_commit": "0123abc", "git_dirty": "true", "dagster_run_id": "run-0"}, {"rows": "400", "seed": "0"}

    def read_json(self, run_id: str, artifact_file: str) -> Any:
        return json.loads(json.dumps(self.logged[artifact_file])) if artifact_file in self.logged else None

    @contextlib.contextmanager
    def reopen(self, run_id: str) -> Iterator[Any]:
        def log(what: Any, name: str = "metrics") -> None:
            self.logged[name] = what

        yield SimpleNamespace(log_metrics=log, log_text=log, log_dict=log)


@dataclass(frozen=True)
class Outcome:
    """What became of a run: whether it succeeded, why not, and what its checks said."""

    result: dg.ExecuteInProcessResult

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def why(self) -> str:
        """What the step that failed says."""
        return why(self.result)

    @property
    def checks(self) -> list[str]:
        """Names of the checks that were judged."""
        return [check.check_name for check in self.result.get_asset_check_evaluations()]

    def check(self, name: str, day: str | None = None) -> dg.AssetCheckEvaluation:
        """The verdict of a check; fails where there is none or more than one."""
        found = [c for c in self.result.get_asset_check_evaluations() if c.check_name == name and c.partition == day]
        assert len(found) == 1, (name, day, self.checks, self.why)
        return found[0]


class Stages:
    """The assets of a model on an empty folder. What a test does not write is not there."""

    def __init__(self, model: Model, folder: Path, **resources: Any) -> None:
        self.model, self.folder = model, folder
        self.tables = ParquetTables(root=str(folder / "tables"))
        self.ledger = Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}")
        self.mlflow = Versions(model=model.name)
        self.studies = Studies(database_url=self.ledger.database_url)
        self.resources: dict[str, Any] = {
            "tables": self.tables, "mlflow": self.mlflow, "ledger": self.ledger, "studies": self.studies,
            "compute": Computing(), "target_local": None, "request_log": RequestLog(folder=str(folder / "serving")),
            "release_policy": ReleasePolicy(), source_resource_key(model): model.table.source, **resources,
        }  # fmt: skip
        assets = lifecycle_assets(model)
        defs = dg.Definitions(assets=assets, resources=self.resources, executor=dg.in_process_executor)
        self._job = defs.resolve_implicit_global_asset_job_def()
        self.instance = dg.DagsterInstance.ephemeral()

    def put(self, name: str, frame: pd.DataFrame, day: str = WHOLE) -> None:
        """Writes a day of a table, as the run of an earlier stage would have."""
        self.tables.write(self.model.key(name), frame.reset_index(drop=True), day)

    def has(self, name: str, day: str = WHOLE) -> bool:
        """Whether there is a file of a day of a table."""
        return self.tables.stamp(self.model.key(name), day) is not None

    def row(self, name: str, day: str = WHOLE) -> dict[str, Any]:
        """The first row of a day of a table."""
        return self.tables.read(self.model.key(name), [day]).iloc[0].to_dict()

    def make(self, name: str, *days: str, tags: dict[str, str] | None = None, **config: Any) -> Outcome:
        """Materialises one asset (and no check of any other), on days where it has them."""
        tags = {**({RANGE_START: days[0], RANGE_END: days[-1]} if days else {}), **(tags or {})}
        ops = {f"{self.model.name}__{name}": {"config": config}} if config else {}
        return Outcome(
            self._job.execute_in_process(
                instance=self.instance, run_config={**QUIET, "ops": ops}, tags=tags, raise_on_error=False,
                asset_selection=[self.model.key(name)],
            )
        )  # fmt: skip


def copied_bundle(folder: Path, to: Path, **facts: Any) -> Path:
    """A copy of a bundle's folder with other facts; ``fitted`` and ``head`` are merged into what is there."""
    shutil.copytree(folder, to)
    said = json.loads((to / "bundle.json").read_text())
    for name, value in facts.items():
        said[name] = {**said[name], **value} if isinstance(value, dict) else value
    (to / "bundle.json").write_text(json.dumps(said))
    return to
