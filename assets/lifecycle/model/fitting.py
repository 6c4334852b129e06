"""Fitting a candidate on a table, and choosing epochs, shares, calibration and threshold on rows that do not report.

A candidate is a mixture: the network, a linear model and boosted trees, each with the share that the folds give it.

Belongs here: the optimiser, the choice over folds, the mixture; pure functions of arrays. Does not belong here: which
rows are which (``windows.py``, ``training.py``), the layers (``networks.py``), the other two learners (``linear.py``,
``trees.py``).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.declaration import NetworkFactory, Training
from assets.lifecycle.data.text import WORDS
from assets.lifecycle.model.learners.linear import fit_linear
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.learners.preprocessing import preprocessing
from assets.lifecycle.model.learners.threads import on_one_thread
from assets.lifecycle.model.learners.trees import Trees, as_module, fit_trees
from assets.lifecycle.model.metrics.ranking import average_precision
from assets.lifecycle.profile.reference import calibration_of
from assets.task import BINARY, Kind, Task

if TYPE_CHECKING:
    import torch

Log = Callable[[str], None]
Fold = tuple[np.ndarray, np.ndarray]
"""Positions fitted on, positions validated on."""

SMOOTHING_STEPS = 500
"""Weights are averaged over about so many last steps: any epoch's average is a model that could be kept."""
NETWORK, LINEAR, TREES = "network", "linear", "trees"
"""What a candidate may be mixed of."""
LEAST_SHARE = 0.05
"""A part with a smaller share than this is left out: it would cost its time at each fit and each score."""
PREDICT_ROWS = 512
"""Rows scored at once. What a batch needs then stays in the processor's cache: trees are three times as fast."""


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
        epochs: passes over the rows for the final fit of the network.
        head: from the mixture's outputs to scores, fitted on the folds' validation rows.
        threshold: binary: probability above which a row is alerted when it has no amount (best F1 on the same rows).
        score: mean over the folds of the mixture's :data:`FOLD_METRIC`; higher is better.
        chance: what that metric is for whoever knows nothing but the base rate.
        shares: by part (:data:`NETWORK`, :data:`LINEAR`, :data:`TREES`), what its outputs count in the mixture; they
            add up to 1, and a part that is left out has 0.
        rounds: rounds of boosting of the trees' final fit; ``None`` where that is not for the folds to settle.
        calibration: of probabilities, on the folds' validation rows: what was said and what was, by rising probability.
        curves: by quantity (``loss`` and the metric) and fold, the network's value after each epoch.
    """

    epochs: int
    head: Head
    score: float
    chance: float
    threshold: float = 0.5
    shares: dict[str, float] = field(default_factory=lambda: {NETWORK: 1.0})
    rounds: int | None = None
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


@on_one_thread
def fit(
    X: np.ndarray,
    y: np.ndarray,
    *,
    recipe: Training,
    epochs: int,
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    network: NetworkFactory | None = None,
    weight: np.ndarray | None = None,
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
        network: builds the layers; default: :func:`~assets.lifecycle.model.learners.networks.tabular`.
        weight: of each row in the loss, ``[n]``, 1 in the mean; default: all alike.
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
            weights = None if weight is None else torch.from_numpy(weight.astype(np.float32)).to(device)
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
                loss = lose(module[1](ready[batch]), target[batch], None if weights is None else weights[batch])
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


def _loss(task: Task) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """Mean loss of outputs, of one network or of members side by side, against the target; weighed by row."""
    import torch
    from torch.nn import functional

    per_class = 1 if task.kind == "multiclass" else 0

    def lose(outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        if outputs.ndim > 1 + per_class:
            target = target.unsqueeze(1).expand_as(outputs)
        if task.kind == "binary":
            each = functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
        elif task.kind == "regression":
            each = functional.mse_loss(outputs, target, reduction="none")
        else:
            each = -(torch.log_softmax(outputs, dim=-1) * target).sum(-1)
        if weight is None:
            return each.mean()
        return (each * (weight if each.ndim == 1 else weight.unsqueeze(1))).mean()

    return lose


def _average(averaged: torch.nn.Module, module: torch.nn.Module, step: int) -> None:
    """Moves the averaged weights towards the current ones; early on the average spans what there is."""
    import torch

    weight = max(1 / step, 1 / SMOOTHING_STEPS)
    with torch.no_grad():
        for mean, now in zip(averaged.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, weight)


@on_one_thread
def outputs_of(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    """float64 outputs ``[n]`` or ``[n, classes]`` of raw features ``[n, n_features]``, on the module's device."""
    import torch

    device = next((part.device for part in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    with torch.inference_mode():
        parts = [
            module(torch.from_numpy(np.ascontiguousarray(X[i : i + PREDICT_ROWS], dtype=np.float32)).to(device)).cpu()
            for i in range(0, len(X), PREDICT_ROWS)
        ]
    return torch.cat(parts).double().numpy() if parts else np.empty(0)


@on_one_thread
def choose(
    X: np.ndarray,
    y: np.ndarray,
    folds: Sequence[Fold],
    *,
    recipe: Training,
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    network: NetworkFactory | None = None,
    weight: np.ndarray | None = None,
    log: Log = lambda _: None,
) -> Choice:
    """Epochs, shares, head and threshold from validation rows that nothing was fitted on.

    The epoch with the best mean :data:`FOLD_METRIC` over the folds is taken. Then the network's, the linear model's and
    the trees' validation outputs of all folds are mixed with the shares that lose least (stacking: Breiman, 1996), and
    head and threshold are settled on the mixture. A fold's network ends early once it has not got better for long.
    """
    metric = FOLD_METRIC[task.kind]
    looks: list[_Look] = []
    hows: list[dict[str, Any]] = []
    for fitted, _ in folds:
        weighed = None if weight is None else weight[fitted] / weight[fitted].mean()
        hows.append({"task": task, "tokens": tokens, "weight": weighed})

    def beside(part: str, fold: int) -> tuple[np.ndarray, int | None]:
        """What another part than the network says of a fold's validation rows, and its rounds of boosting."""
        (fitted, valid), how = folds[fold], hows[fold]
        if part == LINEAR:
            return outputs_of(linear_model(X[fitted], y[fitted], **how), X[valid]), None
        trees = boosted_trees(X[fitted], y[fitted], seed=recipe.seed, valid=(X[valid], y[valid]), **how)
        return outputs_of(as_module(trees, task, tokens), X[valid]), trees.rounds

    # The other parts are fitted while the network is: it leaves a second core idle, and draws on the random state.
    with ThreadPoolExecutor(max_workers=1) as second:
        waiting = {part: [second.submit(beside, part, fold) for fold in range(len(folds))] for part in recipe.beside}
        for number, (fitted, valid) in enumerate(folds, start=1):
            looked = _Look(X[valid], y[valid], task, as_target(y[fitted], task)[1], recipe.patience)
            sized = recipe.sized_for(len(fitted))
            assert sized.max_epochs is not None
            fit(X[fitted], y[fitted], recipe=sized, epochs=sized.max_epochs, network=network, **hows[number - 1],
                log=lambda line, number=number: log(f"fold {number}/{len(folds)}, {line}"), after_epoch=looked)  # type: ignore[misc]  # fmt: skip
            looks.append(looked)
        found = {part: [one.result() for one in waits] for part, waits in waiting.items()}
    outputs = {part: [said for said, _ in of_part] for part, of_part in found.items()}
    rounds = [n for _, n in found.get(TREES, ()) if n is not None]
    curves = {"loss": {f"fold {n}": look.losses for n, look in enumerate(looks, start=1)},
              metric: {f"fold {n}": look.metric for n, look in enumerate(looks, start=1)}}  # fmt: skip
    # A fold that ended early stands where it ended: later epochs would have been no better.
    longest = max(len(look.metric) for look in looks)
    mean = np.mean([np.pad(look.metric, (0, longest - len(look.metric)), mode="edge") for look in looks], axis=0)
    epochs = int(mean.argmax()) + 1
    outputs[NETWORK] = [look.outputs[min(epochs, len(look.outputs)) - 1] for look in looks]
    scales = [look.head for look in looks]
    truth = [y[valid] for _, valid in folds]
    shares, head = mixed(outputs, truth, scales, task)
    scores = [
        (scale if task.kind == "regression" else head)(
            np.sum([shares[part] * of[n] for part, of in outputs.items()], axis=0)
        )
        for n, scale in enumerate(scales)
    ]
    score = float(np.mean([_figure(of_fold, said, task) for of_fold, said in zip(truth, scores, strict=True)]))
    every, said = np.concatenate(truth), np.concatenate(scores)
    return Choice(
        epochs=epochs,
        head=head,
        score=score,
        chance=_figure_by_chance(every, task),
        threshold=best_threshold(said, every) if task.kind == "binary" else 0.5,
        shares=shares,
        # A fold has fewer rows than the final fit, which has use for a few more trees.
        rounds=int(1.1 * np.mean(rounds)) + 1 if rounds and task.kind != "binary" else None,
        curves=curves,
        calibration=calibration_of(said, every) if task.kind == "binary" else [],
    )


def mixed(
    outputs: Mapping[str, Sequence[np.ndarray]], truth: Sequence[np.ndarray], scales: Sequence[Head], task: Task
) -> tuple[dict[str, float], Head]:
    """The shares of the parts that lose least on the folds, and the head of their mixture.

    Shares are at least :data:`LEAST_SHARE`, or 0; they add up to 1.

    Args:
        outputs: by part and fold, ``[n]`` or ``[n, classes]``.
        truth: by fold, ``[n]``, class codes or measured values.
        scales: by fold, the head of a measured value's scale.
        task: the kind of target.
    """
    parts = list(outputs)
    while True:
        columns = np.stack([np.concatenate(outputs[part]) for part in parts], axis=-1)
        if task.kind == "regression":
            wanted = [(y - scale.offset) / scale.slope for y, scale in zip(truth, scales, strict=True)]
            found, head = _least_squares(columns, np.concatenate(wanted)), Head(task.kind)
        else:
            found, head = _likeliest(columns, np.concatenate(truth), task)
        least = int(found.argmin())
        if found[least] >= LEAST_SHARE or len(parts) == 1:
            return dict.fromkeys(outputs, 0.0) | dict(zip(parts, map(float, found), strict=True)), head
        parts.pop(least)


def _least_squares(columns: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The convex weights ``[k]`` of ``columns`` ``[n, k]`` that come closest to ``wanted``."""
    from scipy.optimize import minimize

    errors = columns - wanted[:, None]
    squares = errors.T @ errors / len(errors)
    squares /= np.trace(squares)
    k = len(squares)
    if k == 1:
        return np.ones(1)
    found = minimize(
        lambda w: float(w @ squares @ w), np.full(k, 1 / k), jac=lambda w: 2 * squares @ w, method="SLSQP",
        bounds=[(0, 1)] * k, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-12},
    )  # fmt: skip
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def _likeliest(columns: np.ndarray, y: np.ndarray, task: Task) -> tuple[np.ndarray, Head]:
    """Convex weights of the columns ``[n, k]`` or ``[n, classes, k]``, and the head, that make ``y`` likeliest.

    Weights times the head's slope are what is looked for: none below 0, and the problem is convex.
    """
    from scipy.optimize import minimize

    columns = np.clip(columns, -30, 30)
    k = columns.shape[-1]

    def surprise(at: np.ndarray) -> tuple[float, np.ndarray]:
        raised = columns @ at[:k]
        if task.kind == "binary":
            raised = raised + at[k]
            lost = np.logaddexp(0, raised) - y * raised
            error = (1 / (1 + np.exp(-np.clip(raised, -60, 60))) - y) / len(y)
            return float(lost.mean()), np.append(columns.T @ error, error.sum())
        raised = raised - raised.max(axis=1, keepdims=True)
        chances = np.exp(raised)
        chances /= chances.sum(axis=1, keepdims=True)
        lost = -np.log(np.clip(chances[_each(y)], 1e-300, 1))
        chances[_each(y)] -= 1
        return float(lost.mean()), np.einsum("nc,nck->k", chances, columns) / len(y)

    more = [(None, None)] if task.kind == "binary" else []
    start = np.append(np.full(k, 1 / k), np.zeros(len(more)))
    found = minimize(surprise, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * k + more).x
    slope = float(found[:k].sum())
    if slope <= 0:  # nothing that was said is worth anything: never turn its order around
        return np.full(k, 1 / k), Head(task.kind)
    return found[:k] / slope, Head(task.kind, slope, float(found[k]) if more else 0.0)


@on_one_thread
def linear_model(
    X: np.ndarray, y: np.ndarray, *, task: Task, tokens: Sequence[int] = (), weight: np.ndarray | None = None
) -> torch.nn.Module:
    """The regularised linear model, from and to what :func:`fit`'s network is."""
    return fit_linear(X, _learnt(y, task), task=task, tokens=tokens, weight=weight)


def boosted_trees(X: np.ndarray, y: np.ndarray, *, task: Task, **how: Any) -> Trees:
    """The trees, whose module goes from and to what :func:`fit`'s network does; see :func:`fit_trees`."""
    if (valid := how.get("valid")) is not None and task.kind == "regression":
        head = as_target(y, task)[1]
        how["valid"] = valid[0], (valid[1] - head.offset) / head.slope
    return fit_trees(X, _learnt(y, task), task=task, **how)


def _learnt(y: np.ndarray, task: Task) -> np.ndarray:
    """Class codes, or measured values standardised as the network gets them."""
    return as_target(y, task)[0] if task.kind == "regression" else y


def mixture(parts: Mapping[str, torch.nn.Module], shares: Mapping[str, float]) -> torch.nn.Module:
    """A module that says what its parts say, each by its share; the only one itself where there is one."""
    import torch

    if len(parts) == 1:
        return next(iter(parts.values()))

    class Mixture(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleDict(dict(parts))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            said = [shares[name] * part(x) for name, part in self.parts.items()]
            return torch.stack(said).sum(dim=0)

    return Mixture().eval()


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


def best_threshold(probability: np.ndarray, y: np.ndarray) -> float:
    """The probability above which alerting gives the best F1."""
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + hits[-1])
    return float(probability[order][int(f1.argmax())])
