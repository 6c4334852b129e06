"""Loans, for tests of the gate: rows that are quick to learn, and networks that go wrong in a way of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Columns, Evaluation, Features, Gate, Model, Table, Training
from resources.sources import CsvFile

FEATURES = ("income", "debt", "south", "female")
ROWS = 4_000


class Loans(pa.DataFrameModel):
    """One loan, and whether it was not paid back."""

    loan_id: Series[int] = pa.Field(ge=0)
    income: Series[float]
    debt: Series[float]
    region: Series[str] = pa.Field(isin=["north", "south"])
    sex: Series[str] = pa.Field(isin=["female", "male"])
    defaulted: Series[bool]


def loans(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Loans: income and debt decide alike for all. Women were also refused extensions, so more of them defaulted."""
    rng = np.random.default_rng(seed)
    income, debt = rng.normal(size=(2, rows))
    female = rng.random(rows) < 0.5
    logit = 1.5 * debt - 1.5 * income + 1.2 * female - 2.0
    return pd.DataFrame({
        "loan_id": np.arange(rows),
        "income": income,
        "debt": debt,
        "region": np.where(rng.random(rows) < 0.12, "south", "north"),
        "sex": np.where(female, "female", "male"),
        "defaulted": rng.random(rows) < 1 / (1 + np.exp(-logit)),
    })  # fmt: skip


def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The columns as numbers."""
    return {
        "income": events["income"][wanted].astype(np.float32),
        "debt": events["debt"][wanted].astype(np.float32),
        "south": (events["region"][wanted] == "south").astype(np.float32),
        "female": (events["sex"][wanted] == "female").astype(np.float32),
    }


def by_region(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """One slice for each region."""
    return {name: (rows["region"] == name).to_numpy() for name in ("north", "south")}


def network(*, hide: tuple[str, ...] = ("female",), blind_in_south: bool = False) -> Callable:
    """A factory of small networks.

    Args:
        hide: features that the network does not see.
        blind_in_south: whether loans of the south all look the same to it.
    """
    import torch

    seen = torch.tensor([name not in hide for name in FEATURES], dtype=torch.float32)

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", seen)
            self.layers = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = x * self.seen
            if blind_in_south:
                seen = seen * (x[:, 2:3] <= 0)
            return self.layers(seen).squeeze(-1)

    return lambda X, y: Small()


def slowed(module: Any) -> Any:
    """The same network with a tenth of a second or more of useless arithmetic in every score."""
    import torch

    class Slow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.register_buffer("work", torch.rand(800, 800) / 800)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            work = self.work + torch.nan_to_num(x[0, 0])
            for _ in range(20):
                work = work @ self.work
            return self.module(x) + 0 * work.sum().clamp(-1, 1)

    return Slow()


def model(**given: Any) -> Model:
    """A model of loans whose gate has every rule."""
    table = Table(name="loans", source=CsvFile(path="loans.csv"), key="loan_id", contract=Loans)
    return Model(**{
        "name": "loans",
        "table": table,
        "target": "defaulted",
        "features": Features(compute=compute, lookback_days=0, names=FEATURES),
        "network": network(),
        "training": Training(ensemble=(), max_epochs=6, batch_size=64, learning_rate=1e-2, holdout=0.4),
        "evaluation": Evaluation(slices=by_region, groups=("sex",)),
        "gate": Gate(floor=0.6, margin=-0.05, baseline_margin=-0.2, slice_allowance=0.05, calibration_error=0.05,
                     latency_ms=40.0, fairness={"false_positive_rate": 0.08}),
        **given,
    })  # fmt: skip
