"""Fitting a torch network on a table, and choosing epochs, calibration and threshold on rows that do not report.

Belongs here: the optimiser, preprocessing as part of the network, the choice over folds; pure functions of arrays.
Does not belong here: which rows are which (``windows.py``, ``training.py``), the layers (``networks.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from assets.declaration import NetworkFactory, Training
from assets.lifecycle.metrics import average_precision
from assets.lifecycle.networks import tabular

if TYPE_CHECKING:
    import torch

Log = Callable[[str], None]
Fold = tuple[np.ndarray, np.ndarray]
"""Positions fitted on, positions validated on."""

SMOOTHING_STEPS = 500
"""Weights are averaged over about so many last steps: any epoch's average is a model that could be kept."""
PREDICT_ROWS = 8_192
"""Rows scored at once: a row of 38 features is 900 numbers inside the default network."""


@dataclass(frozen=True)
class Calibrator:
    """From logits to probabilities: ``sigmoid(slope · logit + offset)`` (Platt, 1999)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """float64 ``[n]`` probabilities of logits ``[n]``."""
        return 1 / (1 + np.exp(-np.clip(self.slope * logits.astype(np.float64) + self.offset, -60, 60)))


@dataclass(frozen=True)
class Choice:
    """What the folds decided.

    Args:
        epochs: passes over the rows for the final fit.
        calibrator: fitted on the folds' validation logits at that epoch.
        threshold: probability above which a row is alerted when it has no amount: best F1 on the same logits.
        average_precision: of the pooled validation rows at that epoch.
        curves: by quantity (``loss``, ``average_precision``) and fold, the value after each epoch.
    """

    epochs: int
    calibrator: Calibrator
    threshold: float
    average_precision: float
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def fit(
    X: np.ndarray,
    y: np.ndarray,
    *,
    recipe: Training,
    epochs: int,
    network: NetworkFactory | None = None,
    log: Log = lambda _: None,
    after_epoch: Callable[[int, torch.nn.Module, float], None] | None = None,
) -> torch.nn.Module:
    """A network fitted on ``X``, on the GPU when there is one; the same seed gives the same weights on a CPU.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN.
        y: ``[n]``, 0 or 1.
        recipe: batch size, learning rate, weight decay, seed.
        epochs: passes over the rows.
        network: builds the layers; default: :func:`~assets.lifecycle.networks.tabular`.
        log: gets a line per epoch.
        after_epoch: gets the epoch (from 1), the averaged network and the epoch's mean loss.

    Returns:
        On the CPU, in evaluation mode, from raw float32 ``[n, n_features]`` (NaN allowed) to logits ``[n]``.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch

    batch_size = recipe.sized_for(len(X)).batch_size
    assert batch_size is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        rows, target = torch.from_numpy(np.asarray(X, np.float32)), torch.from_numpy(np.asarray(y, np.float32))
        before = preprocessing(rows)
        module = torch.nn.Sequential(before, (network or tabular)(before(rows), target)).to(device)
        with torch.no_grad():
            ready, target = module[0](rows.to(device)), target.to(device)  # it learns nothing: once is enough
        averaged = copy.deepcopy(module).eval()
        optimiser = torch.optim.AdamW(
            module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        steps_an_epoch = max(1, -(-len(rows) // batch_size))
        warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, 1.0, total_iters=min(steps_an_epoch, 200))
        lose = torch.nn.BCEWithLogitsLoss()
        step = 0
        for epoch in range(1, epochs + 1):
            module.train()
            order = torch.randperm(len(rows), generator=generator).to(device)
            total = torch.zeros((), device=device)
            for start in range(0, len(rows), batch_size):
                batch = order[start : start + batch_size]
                loss = lose(module[1](ready[batch]), target[batch])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                warm.step()
                step += 1
                _average(averaged, module, step)
                total += loss.detach() * len(batch)
            mean = float(total) / len(rows)
            if not np.isfinite(mean):
                raise FloatingPointError(
                    f"the loss is {mean} in epoch {epoch}: lower the learning rate, or look for absurd feature values"
                )
            log(f"epoch {epoch}/{epochs}: loss {mean:.5f} on {len(rows):,} rows ({device.type})")
            if after_epoch is not None:
                after_epoch(epoch, averaged, mean)
    return averaged.cpu().eval()


def _average(averaged: torch.nn.Module, module: torch.nn.Module, step: int) -> None:
    """Moves the averaged weights towards the current ones; early on the average spans what there is."""
    import torch

    weight = max(1 / step, 1 / SMOOTHING_STEPS)
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(module.parameters()), weight)


def preprocessing(rows: torch.Tensor) -> torch.nn.Module:
    """Fills missing values with the median, standardises, and adds an indicator per feature that was ever missing.

    A part of the network, so that what is exported takes raw features.
    """
    import torch

    class Preprocessing(torch.nn.Module):
        medians: torch.Tensor
        means: torch.Tensor
        scales: torch.Tensor
        missing: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            medians = torch.nan_to_num(rows.nanmedian(dim=0).values)
            filled = torch.where(rows.isnan(), medians, rows)
            scales = filled.std(dim=0, unbiased=False)
            self.register_buffer("medians", medians)
            self.register_buffer("means", filled.mean(dim=0))
            self.register_buffer("scales", torch.where(scales > 0, scales, torch.ones_like(scales)))
            self.register_buffer("missing", rows.isnan().any(dim=0).nonzero().flatten())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            unknown = x.isnan()
            standard = (torch.where(unknown, self.medians, x) - self.means) / self.scales
            return torch.cat([standard, unknown.index_select(1, self.missing).to(x.dtype)], dim=1)

    return Preprocessing()


def predict_logits(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    """float64 ``[n]`` logits of raw features ``[n, n_features]``, on the module's device."""
    import torch

    device = next(module.parameters()).device
    with torch.inference_mode():
        parts = [
            module(torch.from_numpy(np.ascontiguousarray(X[i : i + PREDICT_ROWS], dtype=np.float32)).to(device)).cpu()
            for i in range(0, len(X), PREDICT_ROWS)
        ]
    return torch.cat(parts).double().numpy() if parts else np.empty(0)


def choose(
    X: np.ndarray,
    y: np.ndarray,
    folds: Sequence[Fold],
    *,
    recipe: Training,
    network: NetworkFactory | None = None,
    log: Log = lambda _: None,
) -> Choice:
    """Epochs, calibrator and threshold from validation rows that come after what each fold was fitted on.

    The epoch with the best mean average precision over the folds is taken; calibrator and threshold are fitted on the
    folds' pooled validation logits of that epoch.
    """
    logits: list[list[np.ndarray]] = []
    curves: dict[str, dict[str, list[float]]] = {"loss": {}, "average_precision": {}}
    for number, (fitted, valid) in enumerate(folds, start=1):
        seen: list[np.ndarray] = []
        losses: list[float] = []

        def look(
            _: int, module: torch.nn.Module, loss: float, valid: np.ndarray = valid, seen: list[np.ndarray] = seen,
            losses: list[float] = losses,
        ) -> None:  # fmt: skip
            seen.append(predict_logits(module, X[valid]))
            losses.append(loss)

        sized = recipe.sized_for(len(fitted))
        assert sized.max_epochs is not None
        fit(X[fitted], y[fitted], recipe=sized, epochs=sized.max_epochs, network=network,
            log=lambda line, number=number: log(f"fold {number}/{len(folds)}, {line}"), after_epoch=look)  # type: ignore[misc]  # fmt: skip
        logits.append(seen)
        curves["loss"][f"fold {number}"] = losses
        curves["average_precision"][f"fold {number}"] = [average_precision(y[valid], p) for p in seen]
    mean = np.mean(list(curves["average_precision"].values()), axis=0)
    epochs = int(mean.argmax()) + 1
    pooled = np.concatenate([seen[epochs - 1] for seen in logits])
    truth = np.concatenate([y[valid] for _, valid in folds])
    calibrator = calibrate(pooled, truth)
    return Choice(
        epochs=epochs,
        calibrator=calibrator,
        threshold=best_threshold(calibrator(pooled), truth),
        average_precision=float(mean[epochs - 1]),
        curves=curves,
    )


def calibrate(logits: np.ndarray, y: np.ndarray) -> Calibrator:
    """The calibrator that makes ``y`` likeliest; never one that turns the order around."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e4).fit(np.clip(logits, -30, 30)[:, None], y)
    slope = float(fitted.coef_[0, 0])
    return Calibrator(slope, float(fitted.intercept_[0])) if slope > 0 else Calibrator()


def best_threshold(probability: np.ndarray, y: np.ndarray) -> float:
    """The probability above which alerting gives the best F1."""
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + hits[-1])
    return float(probability[order][int(f1.argmax())])
