"""One case per target for the contract tests: the target on real parts, with two versions of the model `toy`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.ledger import Ledger
from resources.targets.base import DeploymentError, DeploymentTarget
from resources.targets.batch_table import BatchTable
from resources.targets.local_service import LocalService

SERVICE = "tests.resources.fake_service"
HEALTHY = {"status": "ok", "models": {"toy": {"status": "ok", "version": "staged"}}}
FACTS = {"verdicts": {}, "dagster_run": "r", "who": "ada"}


@dataclass
class Case:
    """A target, and how a promotion and an end of production reach it.

    Args:
        target: the target.
        ledger: a ledger; a target that follows it is changed after its entry, as in a real promotion.
        serves: the state that the target reports for a version that it has taken.
    """

    target: DeploymentTarget
    ledger: Ledger
    serves: str = "serving"

    def promote(self, version: str) -> str:
        if self.target.follows_ledger:
            self.ledger.promote("toy", version, reason=f"promote {version}", **FACTS)
        return self.target.promote("toy", version).message

    def roll_back(self, version: str) -> str:
        if self.target.follows_ledger:
            self.ledger.promote("toy", version, reason=f"back to {version}", **FACTS)
        return self.target.roll_back("toy", version).message

    def undeploy(self) -> str:
        if self.target.follows_ledger and (entry := self.ledger.champion("toy")):
            self.ledger.record("withdraw", "toy", entry.version, reason="no longer needed", **FACTS)
        return self.target.undeploy("toy").message


def bundle_of(folder: Path, content: str = "", **health: object) -> Path:
    """A folder that the fake service takes as a bundle; its health is given, its name is `toy`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps({"name": "toy", "feature_names": ["a"], "content": content}))
    answers = {"GET /health": [200, json.dumps({**HEALTHY, **health})]}
    (folder / "answers.json").write_text(json.dumps(answers))
    return folder


@contextmanager
def local(folder: Path, tracking) -> Iterator[Case]:
    tracking.delete_alias("toy", "champion")
    ledger = Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}")
    yield Case(LocalService(mlflow=tracking, service=SERVICE, start_timeout_s=30), ledger)


@contextmanager
def batch(folder: Path, tracking) -> Iterator[Case]:
    ledger = Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}")
    yield Case(BatchTable(ledger=ledger, service=SERVICE, start_timeout_s=30), ledger, serves="no endpoint")


CASES: dict[str, Callable] = {"local": local, "batch": batch}

__all__ = ["CASES", "Case", "DeploymentError", "bundle_of"]
