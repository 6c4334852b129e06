"""What `/health` says of a service whose models are served, not deployed yet, or broken."""

import pytest
from fastapi.testclient import TestClient

from assets.models.fraud import model as fraud
from resources.tables import ParquetTables
from serving.scoring.metrics import ServiceMetrics
from serving.scoring.probes import Readiness
from serving.scoring.service import Endpoint, Served, create_app
from tests.declarations.shelf import model as shelf


@pytest.fixture
def health(tmp_path, bundles, monkeypatch):
    """Asks a service with fraud and shelf, of which some are served and some have a problem."""
    monkeypatch.setattr("serving.scoring.service.declared_models", lambda: [fraud, shelf])
    tables = ParquetTables(root=str(tmp_path / "tables"))

    def ask(*, served: bool, problem: str | None = None) -> dict:
        version = Served.prepare("1", bundles["1"], tables, None) if served else None
        endpoints = [Endpoint("fraud", tables, served=version, has_started=True),
                     Endpoint("shelf", tables, problem=problem, has_started=True)]  # fmt: skip
        client = TestClient(create_app(endpoints, ServiceMetrics(), Readiness(endpoints)))
        answer = client.get("/health")
        assert answer.status_code == 200
        return answer.json()

    return ask


def test_a_service_of_which_one_model_is_deployed_is_ok_and_names_the_others(health):
    said = health(served=True)
    assert (said["status"], said["serving"], said["waiting"]) == ("ok", ["fraud"], ["shelf"])
    assert said["models"]["fraud"]["status"] == "ok"
    assert said["models"]["shelf"]["status"] == "waiting"
    assert "materialise shelf/deployment" in said["models"]["shelf"]["problem"]


def test_a_service_without_any_version_waits(health):
    said = health(served=False)
    assert (said["status"], said["serving"], said["waiting"]) == ("waiting", [], ["fraud", "shelf"])


@pytest.mark.parametrize("served", [True, False])
def test_a_broken_model_is_not_hidden_by_the_others(health, served):
    said = health(served=served, problem="version 3 of 'shelf' cannot be used")
    assert said["status"] == "degraded"
    assert "shelf" not in said["serving"] + said["waiting"]
    assert said["models"]["shelf"]["problem"] == "version 3 of 'shelf' cannot be used"
