"""A small world of payments as tables, bundles of a toy network, and the service as the process that it is."""

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi import FastAPI

from assets.lifecycle.data.event_days import event_day
from assets.lifecycle.data.features import compute_features, events_of
from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.row_outcomes import first_landed, type_and_refuse
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.models.fraud import model
from assets.models.fraud.simulator import PaymentSimulator
from resources.tables import ParquetTables
from serving.scoring.metrics import ServiceMetrics
from serving.scoring.probes import Readiness
from serving.scoring.service import Endpoint, create_app
from tests.resources.conftest import postgres  # noqa: F401 - a fixture
from tests.serving.processes import Service

DAYS = 80
TABLE = model.key("payments")


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A state folder with the tables of the last 80 days, until yesterday. Not to be written to."""
    home = tmp_path_factory.mktemp("world")
    tables, upstream = ParquetTables(root=str(home / "tables")), PaymentSimulator.small()
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    days = [yesterday - dt.timedelta(days=n) for n in reversed(range(DAYS))]
    raw = number_rows({day.isoformat(): upstream.land(day) for day in days})
    accepted, _ = type_and_refuse(raw, model.table)
    payments = accepted[first_landed(accepted, model.table)].sort_values(["paid_at", "transaction_id"])
    known = (
        pd.concat([upstream.land_labels(day) for day in days]).apply(pd.to_numeric).drop_duplicates("transaction_id")
    )
    labels = payments[["transaction_id", "paid_at"]].merge(known, on="transaction_id")
    for name, rows in {"payments": payments, "labels": labels}.items():
        for day, of_day in rows.groupby(event_day(rows, model.table)):
            tables.write(model.key(name), of_day.reset_index(drop=True), str(day))
    return home


@pytest.fixture
def home(world, tmp_path) -> Path:
    """A copy of the world, to write to."""
    shutil.copytree(world / "tables", tmp_path / "home" / "tables")
    return tmp_path / "home"


@pytest.fixture(scope="session")
def tables(world) -> ParquetTables:
    return ParquetTables(root=str(world / "tables"))


@pytest.fixture(scope="session")
def batch(tables) -> tuple[pd.DataFrame, np.ndarray]:
    """Payments of the last fortnight and their features, as the batch stages compute them."""
    cleaned = tables.read(TABLE)
    events = events_of(cleaned, tables.read(model.key("labels")), model)
    late = np.flatnonzero(cleaned["paid_at"] >= cleaned["paid_at"].max().floor("D") - pd.Timedelta(days=13))
    wanted = np.random.default_rng(0).choice(late, 300, replace=False)
    return cleaned.iloc[wanted].reset_index(drop=True), compute_features(model.features, events, wanted)


class Toy(torch.nn.Module):
    def __init__(self, seed: int, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.line = torch.nn.Linear(inputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(torch.nan_to_num(x) / 100).squeeze(-1)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """Two bundles that answer differently."""
    folder = tmp_path_factory.mktemp("bundles")
    names = model.features.names
    for seed in (1, 2):
        Bundle.save(folder / str(seed), module=Toy(seed, len(names)), model=model, feature_names=names,
                    head=ScoreTransform(offset=-3.0 * seed), threshold=0.5, fitted={},
                    background=np.random.default_rng(seed).normal(0, 100, (32, len(names))))  # fmt: skip
    return {seed: folder / seed for seed in ("1", "2")}


@pytest.fixture
def serve() -> Iterator:
    """Starts services and ends them after the test."""
    started: list[Service] = []

    def start(home: Path, *arguments: str, **settings: str) -> Service:
        started.append(Service(home, *arguments, **settings))
        return started[-1]

    yield start
    for service in started:
        service.end()


@pytest.fixture(scope="module")
def staged(tmp_path_factory, world, bundles) -> Iterator[Service]:
    """The service of one bundle, which keeps no log."""
    home = tmp_path_factory.mktemp("staged")
    shutil.copytree(world / "tables", home / "tables")
    service = Service(home, "--bundle", str(bundles["2"]))
    yield service
    service.end()
    assert sorted(path.name for path in home.iterdir() if path.suffix != ".log") == ["tables"], "it left something"


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> Iterator[Service]:
    """A service without a version, which made its first token."""
    service = Service(tmp_path_factory.mktemp("locked"), "--model", "fraud", ASSETLINE_RATE_LIMIT="600")
    yield service
    service.end()


def app_of(endpoint: Endpoint) -> FastAPI:
    """The application of one endpoint, which asks for no token."""
    return create_app([endpoint], ServiceMetrics(), Readiness([endpoint]))


def as_raw(rows: pd.DataFrame) -> list[dict]:
    """Payments as a client sends them."""
    return [
        {"transaction_id": int(r.transaction_id), "paid_at": f"{r.paid_at:%Y-%m-%d %H:%M:%S}",
         "customer_id": int(r.customer_id), "terminal_id": int(r.terminal_id), "amount": float(r.amount)}
        for r in rows.itertuples()
    ]  # fmt: skip


def payment(number: int, **other) -> dict:
    """A payment of this very moment that no table has."""
    now = dt.datetime.now(dt.UTC)
    return {"transaction_id": 10**15 + number, "paid_at": f"{now:%Y-%m-%d %H:%M:%S}", "customer_id": 5,
            "terminal_id": 7, "amount": 12.5, **other}  # fmt: skip
