"""A small model lives with encryption on: landed, trained, deployed, scored, served; and nothing lies in the clear."""

import base64
import os
from unittest import mock

import pandas as pd
import pyarrow.parquet as pq
import pytest

from resources.backup import back_up
from resources.encryption import clear
from resources.encryption.parquet import keys_of
from resources.encryption.sealed import is_sealed
from resources.settings import Settings
from serving.scoring.service import staged_endpoint
from tests.declarations.gauges import model
from tests.declarations.readings import START
from tests.serving.processes import Service
from tests.worlds import why

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

KEYS = {
    f"ASSETLINE_KEY_{purpose}": base64.b64encode(bytes([n]) * 32).decode()
    for n, purpose in enumerate(("TABLES", "PERSONAL", "ARTIFACTS", "BACKUPS"))
}


@pytest.fixture(scope="module")
def lived(make_world, tmp_path_factory):
    """Landed, trained, deployed and scored."""
    with mock.patch.dict(os.environ, {**KEYS, "ASSETLINE_ENCRYPT": "true"}):
        world = make_world(model, tmp_path_factory.mktemp("encrypted"))
        days = [str(day.date()) for day in pd.date_range(START, "2026-01-17")]
        for work, until in (("land", 17), ("clean", 17), ("label", 16), ("features", 17)):
            result = world.run(work, days[:until])
            assert result.success, (work, why(result))
        for work, chosen in (("train", []), ("deploy", []), ("daily", days[-2:])):
            result = world.run(work, chosen, **({"training_set": {"as_of": "2026-01-14"}} if work == "train" else {}))
            assert result.success, (work, why(result))
        yield world


def test_it_is_in_production_and_scores(lived):
    assert lived.ledger.champion("gauge").version == "1"
    assert len(lived.tables.read(model.key("predictions")))


def test_every_table_report_artifact_and_archive_is_encrypted(lived, tmp_path):
    home = lived.settings.home
    tables, pages = list((home / "tables").rglob("*.parquet")), list((home / "tables").rglob("*.html"))
    assert len(tables) > 60
    for path in tables:
        metadata = pq.read_metadata(path)
        assert keys_of(metadata) or not metadata.num_columns, path
        with pytest.raises(OSError, match="Cannot decrypt"):
            pq.read_table(path)
    artifacts = [path for path in (home / "mlflow" / "artifacts").rglob("*") if path.is_file()]
    assert len(artifacts) > 10
    for path in [*pages, *artifacts]:
        assert is_sealed(path.read_bytes()), path
    archive = tmp_path / "state.tar.gz.sealed"
    back_up(Settings.from_env({**KEYS, "ASSETLINE_HOME": str(home), "ASSETLINE_ENCRYPT": "true"}), archive)
    assert is_sealed(archive.read_bytes())


def test_no_sample_of_rows_is_in_dagsters_database(lived):
    event = lived.instance.get_latest_materialization_event(model.key("readings"))
    assert event is not None
    assert "columns" in event.asset_materialization.metadata
    assert "sample" not in event.asset_materialization.metadata


def test_the_service_answers_from_an_encrypted_bundle_and_says_what_is_missing(lived, monkeypatch):
    folder = next(path for path in lived.settings.artifacts.rglob("model") if path.is_dir())
    service = Service(lived.settings.home, "--bundle", str(folder))
    try:
        row = lived.tables.read(model.key("raw_readings")).iloc[-1]
        sent = {name: str(value) for name, value in row.items() if name not in ("row_id", "landing_day")}
        answer = service.client.post("/models/gauge/predict", json=[sent])
        assert answer.status_code == 200, answer.text
    finally:
        service.end()
    monkeypatch.delenv("ASSETLINE_KEY_ARTIFACTS")
    clear._COPIES.clear()
    with pytest.raises(
        SystemExit, match=r"cannot be served: .* is encrypted, and the key \w{8} for artifacts is not in"
    ):
        staged_endpoint(lived.settings, folder)
