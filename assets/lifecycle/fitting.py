"""Fitting a torch network on a table, and choosing epochs, calibration and threshold on rows that do not report.

Belongs here: the optimiser, preprocessing as part of the network, the choice over folds; pure functions of arrays.
Does not belong here: which rows are which (``windows.py``, ``training.py``), the layers (``networks.py``).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from assets.declaration import NetworkFactory, Training
from assets.lifecycle.metrics.ranking import average_precision
from assets.lifecycle.networks import line, tabular
from assets.lifecycle.reference import calibration_of
from assets.lifecycle.text import WORDS
from assets.task import BINARY, Kind, Task

if TYPE_CHECKING:
    import torch

Log = Callable[[str], None]
Fold = tuple[np.ndarray, np.ndarray]
"""Positions fitted on, positions validated on."""

SMOOTHING_STEPS = 500
"""Weights are averaged over about so many last steps: any epoch's average is a model that could be kept."""
SHARES = tuple(tenths / 10 for tenths in range(1, 11))
"""Of the linear model beside the default network, to choose from (or none)."""
PREDICT_ROWS = 8_192
"""Rows scored at once: a row of 38 features is a thousand numbers inside a network."""


@dataclass(frozen=True)
class Head:
    """From a network's outputs to scores: what is settled on the folds, or by the target's scale.

    *binary*: probabilities ``sigmoid(slope · output + offset)`` (Platt, 1999). *multiclass*: ``softmax(slope ·
    outputs)`` (temperature scaling: Guo et al., 2017). *regression*: ``slope · output + offset``, within the values
    that were there to learn from.
    """

    kind: Kind = "binary"
    slope: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """float64 scores ``[n]``, or ``[n, classes]``, of the outputs of that shape."""
        scaled = self.slope * outputs.astype(np.float64) + self.offset
        if self.kind == "regression":
            return np.clip(scaled, self.low, self.high)
        if self.kind == "binary":
            return 1 / (1 + np.exp(-np.clip(scaled, -60, 60)))
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Choice:
    """What the folds decided.

    Args:
        epochs: passes over the rows for the final fit.
        head: fitted on the folds' validation outputs at that epoch.
        threshold: binary: probability above which a row is alerted when it has no amount (best F1 on the same rows).
        score: mean over the folds of :data:`FOLD_METRIC` at that epoch; higher is better.
        chance: what that metric is for whoever knows nothing but the base rate.
        line_share: what the regularised linear model says counts so much beside the network, 0 to 1; ``score`` and
            ``curves`` are the network's alone.
        calibration: of probabilities, on the folds' validation rows: what was said and what was, by rising probability.
        curves: by quantity (``loss`` and the metric) and fold, the value after each epoch.
    """

    epochs: int
    head: Head
    score: float
    chance: float
    threshold: float = 0.5
    line_share: float = 0.0
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    calibration: list[dict[str, float]] = field(default_factory=list)


FOLD_METRIC: dict[Kind, str] = {"binary": "average_precision", "multiclass": "log_likelihood", "regression": "r2"}
"""What the folds choose by."""


def as_target(y: np.ndarray, task: Task) -> tuple[np.ndarray, Head]:
    """What a network is fitted to (float32 ``[n]``, one-hot ``[n, classes]`` for classes), and its head."""
    if task.kind == "binary":
        return y.astype(np.float32), Head()
    if task.kind == "multiclass":
        return np.eye(len(task.classes), dtype=np.float32)[y.astype(int)], Head("multiclass")
    mean, spread = float(y.mean()), float(y.std()) or 1.0
    head = Head("regression", slope=spread, offset=mean, low=float(y.min()), high=float(y.max()))
    return ((y - mean) / spread).astype(np.float32), head


def fit(
    X: np.ndarray,
    y: np.ndarray,
    *,
    recipe: Training,
    epochs: int,
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    network: NetworkFactory | None = None,
    log: Log = lambda _: None,
    after_epoch: Callable[[int, torch.nn.Module, float], bool | None] | None = None,
) -> torch.nn.Module:
    """A network fitted on ``X``, on the GPU when there is one; the same seed gives the same weights on a CPU.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN.
        y: ``[n]``, class codes or measured values.
        recipe: batch size, learning rate, weight decay, seed.
        epochs: passes over the rows.
        task: the kind of target.
        tokens: positions of the columns of word numbers; the network gets them last, as they are.
        network: builds the layers; default: :func:`~assets.lifecycle.networks.tabular`.
        log: gets a line per epoch.
        after_epoch: gets the epoch (from 1), the averaged network and the epoch's mean loss; true ends the fit.

    Returns:
        On the CPU, in evaluation mode, from raw float32 ``[n, n_features]`` (NaN allowed) to outputs ``[n]`` or
        ``[n, classes]``, which :func:`as_target`'s head turns into scores.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch

    recipe = recipe.sized_for(len(X))
    batch_size, learning_rate, members = recipe.batch_size, recipe.learning_rate, recipe.members
    assert batch_size is not None
    assert learning_rate is not None
    assert members is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        rows, target = torch.from_numpy(np.asarray(X, np.float32)), torch.from_numpy(as_target(y, task)[0])
        before = preprocessing(rows, tokens)
        build = network or functools.partial(tabular, texts=len(tokens) // WORDS, members=members)
        module = torch.nn.Sequential(before, build(before(rows), target)).to(device)
        with torch.no_grad():
            ready, target = module[0](rows.to(device)), target.to(device)  # it learns nothing: once is enough
        averaged = copy.deepcopy(module).eval()
        optimiser = torch.optim.AdamW(
            module.parameters(), lr=learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        steps_an_epoch = max(1, -(-len(rows) // batch_size))
        warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, 1.0, total_iters=min(steps_an_epoch, 200))
        lose = _loss(task)
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
            if after_epoch is not None and after_epoch(epoch, averaged, mean):
                break
    return averaged.cpu().eval()


def _loss(task: Task) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Mean loss of outputs, of one network or of members side by side, against the target."""
    import torch
    from torch.nn import functional

    per_class = 1 if task.kind == "multiclass" else 0

    def lose(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if outputs.ndim > 1 + per_class:
            target = target.unsqueeze(1).expand_as(outputs)
        if task.kind == "binary":
            return functional.binary_cross_entropy_with_logits(outputs, target)
        if task.kind == "regression":
            return functional.mse_loss(outputs, target)
        return -(torch.log_softmax(outputs, dim=-1) * target).sum(-1).mean()

    return lose


def _average(averaged: torch.nn.Module, module: torch.nn.Module, step: int) -> None:
    """Moves the averaged weights towards the current ones; early on the average spans what there is."""
    import torch

    weight = max(1 / step, 1 / SMOOTHING_STEPS)
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(module.parameters()), weight)


def preprocessing(rows: torch.Tensor, tokens: Sequence[int] = ()) -> torch.nn.Module:
    """Fills missing values with the median, standardises, and adds an indicator per feature that was ever missing.

    Word numbers (``tokens``: their positions) come last, untouched. A part of the network, so that what is exported
    takes raw features.
    """
    import torch

    is_token = torch.zeros(rows.shape[1], dtype=torch.bool)
    is_token[list(tokens)] = True
    rows = rows[:, ~is_token]

    class Preprocessing(torch.nn.Module):
        medians: torch.Tensor
        means: torch.Tensor
        scales: torch.Tensor
        missing: torch.Tensor
        numbers: torch.Tensor
        words: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            medians = torch.nan_to_num(rows.nanmedian(dim=0).values)
            filled = torch.where(rows.isnan(), medians, rows)
            scales = filled.std(dim=0, unbiased=False)
            self.register_buffer("medians", medians)
            self.register_buffer("means", filled.mean(dim=0))
            self.register_buffer("scales", torch.where(scales > 0, scales, torch.ones_like(scales)))
            self.register_buffer("missing", rows.isnan().any(dim=0).nonzero().flatten())
            self.register_buffer("numbers", (~is_token).nonzero().flatten())
            self.register_buffer("words", is_token.nonzero().flatten())

        def forward(self, everything: torch.Tensor) -> torch.Tensor:
            x = everything.index_select(1, self.numbers) if len(self.words) else everything
            unknown = x.isnan()
            standard = (torch.where(unknown, self.medians, x) - self.means) / self.scales
            parts = [standard, unknown.index_select(1, self.missing).to(x.dtype)]
            if len(self.words):
                parts.append(everything.index_select(1, self.words))
            return torch.cat(parts, dim=1)

    return Preprocessing()


def outputs_of(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    """float64 outputs ``[n]`` or ``[n, classes]`` of raw features ``[n, n_features]``, on the module's device."""
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
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    network: NetworkFactory | None = None,
    log: Log = lambda _: None,
) -> Choice:
    """Epochs, head and threshold from validation rows that nothing was fitted on.

    The epoch with the best mean :data:`FOLD_METRIC` over the folds is taken; head and threshold are settled on the
    folds' pooled validation outputs of that epoch. A fold ends early once it has not got better for long.

    Where the layers are not declared, the share of a linear model beside them is settled in the same way, by the loss:
    around a line, a network follows some of the noise.
    """
    metric = FOLD_METRIC[task.kind]
    looks: list[_Look] = []
    lines: list[np.ndarray] = []
    for number, (fitted, valid) in enumerate(folds, start=1):
        looked = _Look(X[valid], y[valid], task, as_target(y[fitted], task)[1], recipe.patience)
        sized = recipe.sized_for(len(fitted))
        assert sized.max_epochs is not None
        fit(X[fitted], y[fitted], recipe=sized, epochs=sized.max_epochs, task=task, tokens=tokens, network=network,
            log=lambda line, number=number: log(f"fold {number}/{len(folds)}, {line}"), after_epoch=looked)  # type: ignore[misc]  # fmt: skip
        looks.append(looked)
        if network is None:
            lines.append(outputs_of(linear_model(X[fitted], y[fitted], task=task, tokens=tokens), X[valid]))
    curves = {"loss": {f"fold {n}": look.losses for n, look in enumerate(looks, start=1)},
              metric: {f"fold {n}": look.metric for n, look in enumerate(looks, start=1)}}  # fmt: skip
    # A fold that ended early stands where it ended: later epochs would have been no better.
    longest = max(len(look.metric) for look in looks)
    mean = np.mean([np.pad(look.metric, (0, longest - len(look.metric)), mode="edge") for look in looks], axis=0)
    epochs = int(mean.argmax()) + 1
    outputs = [look.outputs[min(epochs, len(look.outputs)) - 1] for look in looks]
    truth = np.concatenate([y[valid] for _, valid in folds])
    settled = {0.0: _settled(outputs, truth, looks, task)}
    for share in SHARES if lines else ():
        mixed = [share * straight + (1 - share) * own for straight, own in zip(lines, outputs, strict=True)]
        settled[share] = _settled(mixed, truth, looks, task)
    line_share = min(settled, key=lambda share: settled[share][2])
    head, scores, _ = settled[line_share]
    threshold = best_threshold(scores, truth) if task.kind == "binary" else 0.5
    chance = _figure_by_chance(truth, task)
    calibration = calibration_of(scores, truth) if task.kind == "binary" else []
    return Choice(epochs, head, float(mean[epochs - 1]), chance, threshold, line_share, curves, calibration)


def _settled(
    outputs: Sequence[np.ndarray], truth: np.ndarray, looks: Sequence[_Look], task: Task
) -> tuple[Head, np.ndarray, float]:
    """The head for the folds' outputs, the scores it makes of them, and their mean loss."""
    if task.kind == "regression":
        scores = np.concatenate([look.head(of_fold) for look, of_fold in zip(looks, outputs, strict=True)])
        return Head(task.kind), scores, float(np.square(scores - truth).mean())
    pooled = np.concatenate(outputs)
    head = (calibrate if task.kind == "binary" else temperature)(pooled, truth)
    scores = head(pooled)
    of_truth = np.where(truth == 1, scores, 1 - scores) if task.kind == "binary" else scores[_each(truth)]
    return head, scores, -float(np.log(np.clip(of_truth, 1e-15, 1)).mean())


def linear_model(X: np.ndarray, y: np.ndarray, *, task: Task, tokens: Sequence[int] = ()) -> torch.nn.Module:
    """The regularised linear model, from and to what :func:`fit`'s network is."""
    import torch

    rows, target = torch.from_numpy(np.asarray(X, np.float32)), torch.from_numpy(as_target(y, task)[0])
    before = preprocessing(rows, tokens)
    fitted = line(before(rows), target, texts=len(tokens) // WORDS, measured=task.kind == "regression")
    return torch.nn.Sequential(before, fitted).eval()


def beside(network: torch.nn.Module, other: torch.nn.Module, share: float) -> torch.nn.Module:
    """A module that says what the network does, but for the other's share."""
    import torch

    class Beside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.other = network, other

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            said: torch.Tensor = share * self.other(x) + (1 - share) * self.network(x)
            return said

    return Beside().eval() if share else network


@dataclass
class _Look:
    """What a fold's validation rows say after each epoch; true when it is time to end."""

    X: np.ndarray
    y: np.ndarray
    task: Task
    head: Head
    patience: int
    outputs: list[np.ndarray] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)

    def __call__(self, _: int, module: torch.nn.Module, loss: float) -> bool:
        outputs = outputs_of(module, self.X)
        scores = self.head(outputs)
        self.outputs.append(outputs)
        self.losses.append(loss)
        self.metric.append(_figure(self.y, scores, self.task))
        return len(self.metric) - 1 - int(np.argmax(self.metric)) >= self.patience


def _figure(y: np.ndarray, scores: np.ndarray, task: Task) -> float:
    """The :data:`FOLD_METRIC` of scores."""
    if task.kind == "binary":
        return average_precision(y, scores)
    if task.kind == "regression":
        return 1 - float(np.square(scores - y).sum() / max(np.square(y - y.mean()).sum(), np.finfo(float).tiny))
    return float(np.log(np.clip(scores[_each(y)], 1e-15, 1)).mean())


def _each(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of each row's own class."""
    return np.arange(len(y)), y.astype(int)


def _figure_by_chance(y: np.ndarray, task: Task) -> float:
    if task.kind == "binary":
        return float(y.mean())
    if task.kind == "regression":
        return 0.0
    shares = np.bincount(y.astype(int)) / len(y)
    return float((shares[shares > 0] * np.log(shares[shares > 0])).sum())


def calibrate(logits: np.ndarray, y: np.ndarray) -> Head:
    """The binary head that makes ``y`` likeliest; never one that turns the order around."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e4).fit(np.clip(logits, -30, 30)[:, None], y)
    slope = float(fitted.coef_[0, 0])
    return Head("binary", slope, float(fitted.intercept_[0])) if slope > 0 else Head()


def temperature(logits: np.ndarray, y: np.ndarray) -> Head:
    """The multiclass head that makes ``y`` likeliest."""
    from scipy.optimize import minimize_scalar

    def surprise(log_slope: float) -> float:
        p = Head("multiclass", float(np.exp(log_slope)))(logits)
        return -float(np.log(np.clip(p[_each(y)], 1e-15, 1)).mean())

    found = minimize_scalar(surprise, bounds=(-3, 3), method="bounded")
    return Head("multiclass", float(np.exp(found.x)))


def best_threshold(probability: np.ndarray, y: np.ndarray) -> float:
    """The probability above which alerting gives the best F1."""
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + hits[-1])
    return float(probability[order][int(f1.argmax())])
