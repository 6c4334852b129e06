"""The scoring service: latency of one row, beside a bare FastAPI + torch application and `mlflow models serve`.

All of them answer in the same run, one after the other, from processes of their own, over connections that stay open.
The bare application and MLflow get features that are ready; the service gets a raw payment, finds the past of its
customer and its terminal, computes 39 features and logs the row before it answers.

Belongs here: the peers and the figures. Does not belong here: what the service answers (its tests).

    python -m benchmarks.service
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from resources.processes import free_port
from resources.settings import Settings, one_thread_each, project_root

MOST_TIMES_BARE = 2.0
"""Median latency of a raw payment, as a multiple of the bare application's on ready features."""
DAYS = 80
REQUESTS = 2_000
WARM_UP = 200
CLIENTS = (1, 8)
BARE = """
import sys
import torch
torch.set_num_threads(1)
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

network = torch.export.load(sys.argv[1]).module()


class Rows(BaseModel):
    features: list[list[float | None]]


app = FastAPI()


@app.post("/score")
async def score(rows: Rows):
    x = torch.tensor([[float("nan") if v is None else v for v in row] for row in rows.features])
    with torch.inference_mode():
        return {"scores": torch.sigmoid(network(x)).tolist()}


@app.get("/health")
async def health():
    return {"status": "ok"}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


def prepare(home: Path) -> Path:
    """Tables of the last 80 days and a champion with the recipe's three parts. Returns the version's folder."""
    from assets.lifecycle.data.event_days import event_day
    from assets.lifecycle.data.features import compute_features, events_of, features_of
    from assets.lifecycle.data.landing import number_rows
    from assets.lifecycle.data.row_outcomes import first_landed, type_and_refuse
    from assets.lifecycle.model.fitting import fit
    from assets.lifecycle.model.learners.ensemble import boosted_trees, linear_model, mixture
    from assets.lifecycle.model.learners.trees import as_module
    from assets.lifecycle.model.objectives import ScoreTransform
    from assets.lifecycle.model.version.bundle import Bundle
    from assets.models.fraud import model
    from assets.models.fraud.simulator import PaymentSimulator
    from resources.home import prepare as prepare_home
    from resources.ledger import CHAMPION
    from resources.mlflow import MlflowTracking
    from resources.tables import ParquetTables

    settings = Settings.from_env({"ASSETLINE_HOME": str(home)})
    prepare_home(settings)
    tables, upstream = ParquetTables(root=str(settings.tables)), PaymentSimulator.small()
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    days = [yesterday - dt.timedelta(days=n) for n in reversed(range(DAYS))]
    raw = number_rows({day.isoformat(): upstream.land(day) for day in days})
    accepted, _ = type_and_refuse(raw, model.table)
    payments = accepted[first_landed(accepted, model.table)].sort_values(["paid_at", "transaction_id"])
    known = pd.concat([upstream.land_labels(day) for day in days]).apply(pd.to_numeric)
    labels = payments[["transaction_id", "paid_at"]].merge(known.drop_duplicates("transaction_id"), on="transaction_id")
    for name, rows in {"payments": payments, "labels": labels}.items():
        for day, of_day in rows.groupby(event_day(rows, model.table)):
            tables.write(model.key(name), of_day.reset_index(drop=True), str(day))

    events = events_of(payments, labels, model)
    wanted = np.flatnonzero(~np.isnan(events["label"]))[-20_000:]
    X, y = compute_features(features_of(model), events, wanted), events["label"][wanted]
    recipe = model.training.sized_for(len(X))
    trees = as_module(boosted_trees(X, y, task=model.task, seed=0, rounds=150), model.task, ())
    network = fit(X, y, recipe=recipe, epochs=1, task=model.task, network=model.network)
    parts = {"network": network, "linear": linear_model(X, y, task=model.task), "trees": trees}
    mixed = mixture(parts, dict.fromkeys(parts, 1 / 3))
    names = features_of(model).names
    Bundle.save(
        home / "bundle", module=mixed, model=model, feature_names=names, head=ScoreTransform(), threshold=0.5, fitted={}
    )
    mlflow = MlflowTracking.from_settings(settings)
    client = mlflow.client()
    experiment = client.create_experiment("bench", artifact_location=f"{mlflow.artifact_location}/bench")
    run = client.create_run(experiment).info.run_id
    version = mlflow.register(model.name, run, home / "bundle", loader_module="assets.lifecycle.model.version.bundle")
    mlflow.set_alias(model.name, CHAMPION, version)
    return mlflow.download(model.name, version)


class Process:
    """A server, ended by its process id."""

    def __init__(self, command: Sequence[str], port: int, home: Path) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # mlflow calls uvicorn
        env = {**os.environ, "ASSETLINE_HOME": str(home), "PYTHONPATH": str(project_root()), "PATH": path}
        env.update(ASSETLINE_RATE_LIMIT="999999999")  # thousands of requests in a few seconds, which are counted
        self.port, self.log = port, home / f"log-{port}"
        with self.log.open("w") as log:
            self.child = subprocess.Popen(command, cwd=project_root(), env=env, stdout=log, stderr=log)

    def wait(self, health: str) -> None:
        """Until it answers. Raises :class:`SystemExit` with what it wrote where it does not."""
        for _ in range(3_000):  # ten minutes, for a machine that does much else
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{health}", timeout=5)
                return
            except OSError:
                if self.child.poll() is not None:
                    break
                time.sleep(0.2)
        raise SystemExit(f"port {self.port} does not answer:\n{self.log.read_text()[-2000:]}")

    def end(self) -> None:
        """Ends it."""
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()


def milliseconds(
    port: int, path: str, body: Callable[[int], bytes | None], clients: int, token: str = ""
) -> tuple[float, float]:
    """Median and 99th percentile of the latency, over all clients, each on a connection of its own."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    taken: list[float] = []
    failed: list[str] = []

    def ask(first: int, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for n in range(first, first + number):
            sent = body(n)
            began = time.perf_counter()
            connection.request("GET" if sent is None else "POST", path, sent, headers)
            answer = connection.getresponse()
            content = answer.read()
            if n - first >= WARM_UP // clients:
                taken.append(1e3 * (time.perf_counter() - began))
            if answer.status != 200:
                failed.append(content.decode()[:300])
        connection.close()

    each = (REQUESTS + WARM_UP) // clients
    threads = [threading.Thread(target=ask, args=(n * each, each)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"port {port}, {path}: {len(failed)} requests failed, the first with {failed[0]}")
    return float(np.median(taken)), float(np.quantile(taken, 0.99))


def payment(n: int) -> bytes:
    """A payment of this moment, of some customer at some terminal."""
    now = dt.datetime.now(dt.UTC)
    row = {"transaction_id": 10**15 + time.monotonic_ns() % 10**14 * 1_000 + n, "paid_at": f"{now:%Y-%m-%d %H:%M:%S}",
           "customer_id": n * 7919 % 100, "terminal_id": n * 104_729 % 200, "amount": 12.5 + n % 90}  # fmt: skip
    return json.dumps(row).encode()


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints the figures; whether the claim holds."""
    argparse.ArgumentParser(prog="python -m benchmarks.service").parse_args(arguments)
    one_thread_each()
    figures: dict[str, dict[int, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        folder = prepare(home)
        names = json.loads((folder / "bundle.json").read_text())["feature_names"]
        rows = np.random.default_rng(0).normal(50, 20, (1, len(names))).tolist()
        ready = json.dumps({"features": rows}).encode()
        split = json.dumps({"dataframe_split": {"columns": names, "data": rows}}).encode()
        (home / "bare.py").write_text(BARE)
        ports = [free_port() for _ in range(3)]
        python, mlflow = sys.executable, [sys.executable, "-m", "mlflow"]
        network = str(folder / "network.pt2")
        of_mlflow = ["models", "serve", "-m", str(folder), "--env-manager", "local"]
        commands = {
            "service": ([python, "-m", "serving.scoring.service", "--port", str(ports[0])], "/health"),
            "bare": ([python, str(home / "bare.py"), network, str(ports[1])], "/health"),
            "mlflow": ([*mlflow, *of_mlflow, "-p", str(ports[2])], "/ping"),
        }
        asked: dict[str, tuple[str, str, Callable[[int], bytes | None]]] = {
            "the bare application, features": ("bare", "/score", lambda n: ready),
            "the service, a raw payment": ("service", "/models/fraud/predict", payment),
            "the service, features": ("service", "/models/fraud/score", lambda n: ready),
            "the service, /health": ("service", "/health", lambda n: None),
            "mlflow models serve, features": ("mlflow", "/invocations", lambda n: split),
        }
        with contextlib.ExitStack() as stack:
            servers = {}
            for (server, (command, health)), port in zip(commands.items(), ports, strict=True):
                servers[server] = Process(command, port, home)
                stack.callback(servers[server].end)
                servers[server].wait(health)
            token = Settings.from_env({"ASSETLINE_HOME": str(home)}).first_service_token.read_text().strip()
            for clients in CLIENTS:
                for what, (server, path, body) in asked.items():
                    measured = milliseconds(servers[server].port, path, body, clients, token * (server == "service"))
                    figures.setdefault(what, {})[clients] = measured
    return say(figures)


def say(figures: dict[str, dict[int, tuple[float, float]]]) -> bool:
    """Prints the table; whether the service holds its multiple of the bare application."""
    print("| | " + " | ".join(f"p50, {c} client{'s' * (c > 1)} | p99" for c in CLIENTS) + " | p50 to the bare one |")
    print("|---" * (2 + 2 * len(CLIENTS)) + "|")
    bare = figures["the bare application, features"][1][0]
    for what, by_clients in figures.items():
        cells = " | ".join(f"{p50:.2f} ms | {p99:.2f} ms" for p50, p99 in by_clients.values())
        print(f"| {what} | {cells} | {by_clients[1][0] / bare:.2f} |")
    times = figures["the service, a raw payment"][1][0] / bare
    print(f"\na raw payment takes {times:.2f} times the bare application (at most {MOST_TIMES_BARE})")
    return times <= MOST_TIMES_BARE


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)
