"""What tests of several resources share."""

import pytest

from resources.mlflow import MlflowTracking, create_store


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> MlflowTracking:
    folder = tmp_path_factory.mktemp("mlflow")
    create_store(folder / "mlflow.db", folder / "artifacts")
    tracking = MlflowTracking(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    client = tracking.client()
    for name in ("other", "toy"):
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, str(folder))
    return tracking
