"""The service as its clients meet it: a real process, a real registry, real tables."""

import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from assets.lifecycle.model.explain import TOLERANCE
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.models.fraud import model
from resources.ledger import CHAMPION
from resources.mlflow import MlflowTracking
from resources.settings import Settings, project_root
from serving.scoring.bodies import MAX_BYTES, MAX_EXPLAINED_ROWS
from tests.serving.conftest import as_raw, payment


def registry(home) -> MlflowTracking:
    return MlflowTracking.from_settings(Settings.from_env({"ASSETLINE_HOME": str(home)}))


def register(mlflow: MlflowTracking, bundle) -> str:
    client = mlflow.client()
    found = client.get_experiment_by_name("toy")
    where = f"{mlflow.artifact_location}/toy"
    experiment = found.experiment_id if found else client.create_experiment("toy", artifact_location=where)
    return mlflow.register(model.name, client.create_run(experiment).info.run_id, bundle)


@pytest.fixture
def one_thread():
    """Computes as the service does: where a batch is cut between threads, the rows at the cut round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_before_any_model_it_says_what_to_do_and_then_follows_the_alias(home, bundles, batch, serve, tmp_path):
    service = serve(home)
    waiting = service.predict(payment(1))
    assert waiting.status_code == 503
    assert int(waiting.headers["Retry-After"]) > 0
    assert waiting.json()["detail"] == "no version of 'fraud' is deployed yet: materialise fraud/deployment"
    assert service.health()["status"] == "waiting"

    mlflow = registry(home)
    first, second = register(mlflow, bundles["1"]), register(mlflow, bundles["2"])
    mlflow.set_alias("fraud", CHAMPION, first)
    service.until(lambda: service.health()["version"] == first)

    # Raw payments score as their rows of the batch do.
    rows, X = batch
    answers = service.predict(as_raw(rows)).json()
    expected = Bundle.load(bundles["1"]).predict(X)
    np.testing.assert_allclose([a["probability"] for a in answers], expected, rtol=0, atol=1e-12)
    assert [a["transaction_id"] for a in answers] == rows["transaction_id"].tolist()
    assert {a["version"] for a in answers} == {first}
    worth_it = expected * rows["amount"].to_numpy() > model.review_cost
    assert [a["decision"] for a in answers] == ["alert" if worth else "pass" for worth in worth_it]
    assert 0 < worth_it.sum() < len(rows)

    # A swap under load: no request fails, and both versions answered.
    versions, failed, done = set(), [], threading.Event()

    def load() -> None:
        number = 0
        while not done.is_set():
            answer = service.predict(payment(number := number + 1))
            (failed.append(answer.text) if answer.status_code != 200 else versions.add(answer.json()["version"]))

    clients = threading.Thread(target=load)
    clients.start()
    try:
        mlflow.set_alias("fraud", CHAMPION, second)
        service.until(lambda: service.health()["version"] == second and second in versions)
    finally:
        done.set()
        clients.join()
    assert not failed
    assert versions == {first, second}

    # A version that cannot be loaded takes nothing over.
    broken = tmp_path / "broken"
    shutil.copytree(bundles["1"], broken)
    (broken / "network.pt2").write_bytes(b"half of it")
    third = register(mlflow, broken)
    mlflow.set_alias("fraud", CHAMPION, third)
    service.until(lambda: service.health()["status"] == "degraded")
    assert f"version {third}" in service.health()["problem"]
    assert "network.pt2: damaged" in service.health()["problem"]
    assert service.predict(payment(10**6)).json()["version"] == second

    # And back, while the scored rows stay: SIGKILL, and a new process has them all.
    mlflow.set_alias("fraud", CHAMPION, first)
    service.until(lambda: service.health()["version"] == first and service.health()["status"] == "ok")
    acknowledged = service.health()["past"]["rows"]
    assert service.client.get("/readyz").status_code == 200
    mlflow.set_alias("fraud", CHAMPION, third)
    service.until(lambda: service.health()["status"] == "degraded")
    assert service.client.get("/readyz").status_code == 200, "it serves the version before, as all replicas do"
    service.kill()
    # A new process cannot load what is deployed, so no requests should come to it until it can.
    again = serve(home)
    unready = again.client.get("/readyz")
    assert unready.status_code == 503
    assert [f"version {third}" in reason for reason in unready.json()["reasons"]] == [True]
    mlflow.set_alias("fraud", CHAMPION, first)
    again.until(lambda: again.client.get("/readyz").status_code == 200)
    assert again.health()["past"]["rows"] == acknowledged
    assert again.health()["version"] == first
    assert again.client.get("/models/fraud").json()["features"] == list(model.features.names)


def test_a_staged_bundle_answers_for_features_as_offline(staged, bundles, batch):
    _, X = batch
    X = X.copy()
    X[0, 3] = np.nan
    rows = [[None if np.isnan(v) else float(v) for v in row] for row in X]
    answer = staged.client.post("/models/fraud/score", json={"features": rows}).json()
    offline = Bundle.load(bundles["2"]).predict(X)
    np.testing.assert_allclose(answer["scores"], offline, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("row", "column", "said"),
    [
        (payment(1, amount="lots"), "amount", "amount='lots' cannot be read"),
        (payment(1, amount=-1), "amount", "amount=-1 breaks the rule"),
        (payment(1, customer_id=None), "customer_id", "customer_id=None cannot be read"),
        (payment(1, paid_at="2999-01-01 00:00:00"), "paid_at", "paid_at="),
        ({"transaction_id": 1}, "paid_at", "paid_at is missing"),
    ],
)
def test_an_invalid_payment_is_a_422_with_column_value_and_what_is_right(staged, row, column, said):
    answer = staged.predict(row)
    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert problem["column"] == column
    assert problem["value"] == row.get(column)
    assert problem["right"]
    assert said in answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(staged):
    as_json = {"Content-Type": "application/json"}
    host, port = staged.client.base_url.host, staged.client.base_url.port
    with socket.create_connection((host, port), timeout=60) as connection:  # 30 MB are said, and none is sent
        head = "POST /models/fraud/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 30000000\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")

    def parts():
        for _ in range(MAX_BYTES // 65_536 + 2):  # nothing says how large it is
            yield b" " * 65_536

    for path in ("predict", "score"):
        answer = staged.client.post(f"/models/fraud/{path}", content=parts(), headers=as_json)
        assert (answer.status_code, "fewer rows" in answer.json()["detail"]) == (413, True)
    assert staged.predict(payment(1)).status_code == 200


class NotANumber(torch.nn.Module):
    """Has no finite answer for rows whose first feature is above ``over``."""

    def __init__(self, over: float) -> None:
        super().__init__()
        self.over = over

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.nan_to_num(x[:, 0]) > self.over, torch.nan, 0.1)


def saved(folder, module: torch.nn.Module):
    names = model.features.names
    Bundle.save(
        folder, module=module, model=model, feature_names=names, head=ScoreTransform(), threshold=0.5, fitted={}
    )
    return folder


def test_a_version_that_answers_nan_takes_nothing_over(home, bundles, serve, tmp_path):
    service, mlflow = serve(home), registry(home)
    good = register(mlflow, bundles["1"])
    for over in (-1.0, 0.0):  # on rows without any value, and on the latest row of the tables alone
        bad = register(mlflow, saved(tmp_path / f"nan{over}", NotANumber(over)))
        mlflow.set_alias("fraud", CHAMPION, good)
        service.until(lambda: service.health()["version"] == good and service.health()["status"] == "ok")
        mlflow.set_alias("fraud", CHAMPION, bad)
        service.until(lambda: service.health()["status"] == "degraded")
        assert f"version {bad} of 'fraud' cannot be used: it returns the scores [nan" in service.health()["problem"]
        assert service.predict(payment(1)).json()["version"] == good


def test_a_row_without_a_finite_score_is_an_error_and_counts_nothing(home, serve, tmp_path):
    service, mlflow = serve(home), registry(home)
    version = register(mlflow, saved(tmp_path / "sometimes", NotANumber(over=9_000.0)))
    mlflow.set_alias("fraud", CHAMPION, version)
    service.until(lambda: service.health()["version"] == version)
    assert service.predict(payment(1)).status_code == 200
    rows = service.health()["past"]["rows"]
    answer = service.predict([payment(2), payment(3, amount=9_500.0)])
    assert answer.status_code == 500
    said = f"version {version} of 'fraud' has no finite score for {10**15 + 3}; nothing was recorded"
    assert answer.json()["detail"].startswith(said)
    assert service.health()["past"]["rows"] == rows
    assert service.predict(payment(2)).status_code == 200
    assert 'outcome="error"' in service.client.get("/metrics").text


def test_what_is_no_payment_at_all_is_refused_in_words(staged):
    post = staged.client.post
    as_json = {"Content-Type": "application/json"}
    assert post("/models/fraud/predict", content=b"{", headers=as_json).status_code == 422
    assert post("/models/fraud/predict", content=b'{"amount": NaN}', headers=as_json).status_code == 422
    not_json = post("/models/fraud/predict", content=b'{"amount": 1}', headers={"Content-Type": "text/plain"})
    assert (not_json.status_code, "application/json" in not_json.json()["detail"]) == (415, True)
    assert "the served models are: fraud" in post("/models/fruad/predict", json={}).json()["detail"]
    narrow = post("/models/fraud/score", json={"features": [[1.0]]})
    assert (narrow.status_code, "row 0 has 1 features" in narrow.json()["detail"]) == (422, True)
    assert staged.predict([payment(1)] * 2).status_code == 422
    assert staged.predict([payment(n) for n in range(1001)]).status_code == 422
    assert staged.predict([]).json() == []


def test_an_explained_score_is_the_sum_of_its_contributions(staged, batch):
    rows, X = batch
    raw, explained = as_raw(rows)[:3], {"explain": "true"}
    plain_answers = staged.client.post("/models/fraud/predict", json=raw).json()
    answers = staged.client.post("/models/fraud/predict", json=raw, params=explained).json()
    of_features = staged.client.post("/models/fraud/score", json={"features": X[:3].tolist()}, params=explained).json()
    for answer, plain_answer, of_row in zip(answers, plain_answers, of_features["explanations"], strict=True):
        why = answer.pop("explanation")
        assert answer == plain_answer, "the rest is as without an explanation"
        assert set(why["contributions"]) == set(model.features.names)
        output = why["base"] + sum(why["contributions"].values())
        assert 1 / (1 + np.exp(-output)) == pytest.approx(answer["probability"], abs=TOLERANCE)
        assert why == of_row
    one = staged.client.post("/models/fraud/predict", json=raw[0], params=explained).json()
    assert one["explanation"] == of_features["explanations"][0]
    assert "assetline_explained_request_seconds_count" in staged.client.get("/metrics").text


def test_few_rows_are_explained_in_one_request(staged):
    many = {"features": [[1.0] * len(model.features.names)] * (MAX_EXPLAINED_ROWS + 1)}
    refused = staged.client.post("/models/fraud/score", json=many, params={"explain": "true"})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "51 rows to explain in one request; send at most 50 with explain=true"
    assert staged.client.post("/models/fraud/score", json=many, params={"explain": "false"}).status_code == 200
    other = staged.client.post("/models/fraud/score", json={"features": []}, params={"explain": "yes"})
    assert (other.status_code, "explain='yes'" in other.json()["detail"]) == (422, True)
    assert staged.client.post("/models/fraud/predict", json=[], params={"explain": "true"}).json() == []


def test_a_version_of_before_there_were_explanations_says_so_and_counts_nothing(home, serve, tmp_path):
    service, mlflow = serve(home), registry(home)
    version = register(mlflow, saved(tmp_path / "old", NotANumber(over=9_000.0)))
    mlflow.set_alias("fraud", CHAMPION, version)
    service.until(lambda: service.health()["version"] == version)
    rows = service.health()["past"]["rows"]
    refused = service.client.post("/models/fraud/predict", json=payment(1), params={"explain": "true"})
    assert refused.status_code == 409
    said = f"version {version} cannot explain its scores: this version of 'fraud' was trained before"
    assert refused.json()["detail"].startswith(said)
    assert service.health()["past"]["rows"] == rows
    assert service.predict(payment(1)).status_code == 200


def test_the_plain_path_imports_no_captum():
    code = "import sys, serving.scoring.service; sys.exit(sorted({'captum', 'fairlearn'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
