"""Fits a candidate, and selects its epochs, ensemble weights, calibration and threshold by cross-validation.

A candidate is an ensemble of a network, a linear model and boosted trees. The ensemble weights are fitted on the folds'
validation rows; test rows select nothing.

Belongs here: the optimiser, the selection over folds, the ensemble; pure functions of arrays. Does not belong here: the
split into rows (``windows.py``, ``training_set.py``), the layers and the other two learners (``learners``), the loss
and the validation metric of a kind of target (``objectives.py``).
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.declaration import NetworkFactory, Training
from assets.lifecycle.data.text import WORDS
from assets.lifecycle.model.drawing import odds_of
from assets.lifecycle.model.learners.ensemble import LEARNERS, NETWORK
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.learners.preprocessing import preprocessing
from assets.lifecycle.model.learners.threads import on_one_thread
from assets.lifecycle.model.objectives import Objective, ScoreTransform, objective_of
from assets.lifecycle.profile.reference import calibration_of
from assets.task import BINARY, Task

if TYPE_CHECKING:
    import torch

Log = Callable[[str], None]
Watch = Callable[[int, int, float], None]
"""Receives a fold (from 1), an epoch (from 1) and the best validation metric of the fold's network so far."""
FoldOutputs = tuple[np.ndarray, int | None]
"""Validation outputs of a learner on one fold, and its number of boosting rounds."""
Fold = tuple[np.ndarray, np.ndarray]
"""Positions of the training rows and of the validation rows."""

SMOOTHING_STEPS = 500
"""Number of recent steps, roughly, over which weights are averaged. The average after any epoch is a usable model."""
LEAST_SHARE = 0.05
"""Minimum ensemble weight. A learner with less is dropped, because it would still cost time in every fit and score."""
PREDICT_ROWS = 512
"""Rows per scoring batch. A batch of this size fits in the processor's cache, which makes trees three times as fast."""


@dataclass(frozen=True)
class Selection:
    """The settings selected on the folds.

    Args:
        epochs: passes over the rows for the final fit of the network.
        head: maps the ensemble's outputs to scores; fitted on the folds' validation rows.
        threshold: binary: alert threshold on the probability for rows without an amount (best F1 on the same rows).
        score: validation score: mean over the folds of the ensemble's validation metric; higher is better.
        chance: that metric for a model that knows only the base rate.
        shares: ensemble weight by learner (:data:`NETWORK`, :data:`LINEAR`, :data:`TREES`). The weights add up to 1; a
            dropped learner has 0.
        rounds: boosting rounds for the final fit of the trees; ``None`` where the folds do not select them.
        calibration: binary: predicted and observed rates on the folds' validation rows, by rising probability.
        curves: by quantity (``loss`` and the metric) and fold, the network's value after each epoch.
        held_out: by fold, the ensemble's scores of the validation rows with epochs, weights and head that the other
            folds selected; with one fold, with its own.
    """

    epochs: int
    head: ScoreTransform
    score: float
    chance: float
    threshold: float = 0.5
    shares: dict[str, float] = field(default_factory=lambda: {NETWORK: 1.0})
    rounds: int | None = None
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    calibration: list[dict[str, float]] = field(default_factory=list)
    held_out: list[np.ndarray] = field(default_factory=list, repr=False)


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
    """Fits a network, on a GPU if one is available; on a CPU the same seed gives the same weights.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN.
        y: ``[n]``, class codes or measured values.
        recipe: batch size, learning rate, weight decay, arguments of the network, seed.
        epochs: passes over the rows.
        task: the kind of target.
        tokens: positions of the columns of word numbers; the network receives them last and unchanged.
        network: builds the layers; default: :func:`~assets.lifecycle.model.learners.networks.tabular`.
        weight: row weights in the loss, ``[n]``, with mean 1; default: equal weights.
        log: receives one line per epoch.
        after_epoch: receives the epoch (from 1), the averaged network and the epoch's mean loss; training stops early
            when it returns True.

    Returns:
        A module on the CPU, in evaluation mode. It maps raw float32 ``[n, n_features]`` (NaN allowed) to outputs
        ``[n]`` or ``[n, classes]``, which the transform of :meth:`Objective.target` maps to scores.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch

    recipe, objective = recipe.sized_for(len(X)), objective_of(task)
    batch_size, learning_rate, members = recipe.batch_size, recipe.learning_rate, recipe.members
    assert batch_size is not None
    assert learning_rate is not None
    assert members is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        rows, target = torch.from_numpy(np.asarray(X, np.float32)), torch.from_numpy(objective.target(y)[0])
        before = preprocessing(rows, tokens)
        build = functools.partial(
            network or functools.partial(tabular, texts=len(tokens) // WORDS, members=members),
            **recipe.network_arguments,
        )
        module = torch.nn.Sequential(before, build(before(rows), target)).to(device)
        with torch.no_grad():
            ready, target = module[0](rows.to(device)), target.to(device)  # no trainable parameters: computed once
            weights = None if weight is None else torch.from_numpy(weight.astype(np.float32)).to(device)
        averaged = copy.deepcopy(module).eval()
        optimiser = torch.optim.AdamW(
            module.parameters(), lr=learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        steps_an_epoch = max(1, -(-len(rows) // batch_size))
        warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, 1.0, total_iters=min(steps_an_epoch, 200))
        step = 0
        for epoch in range(1, epochs + 1):
            module.train()
            order = torch.randperm(len(rows), generator=generator).to(device)
            total = torch.zeros((), device=device)
            for start in range(0, len(rows), batch_size):
                batch = order[start : start + batch_size]
                loss = _mean_loss(
                    objective, module[1](ready[batch]), target[batch], None if weights is None else weights[batch]
                )
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
                    f"the loss is {mean} in epoch {epoch}; lower the learning rate, or look for extreme feature values"
                )
            log(f"epoch {epoch}/{epochs}: loss {mean:.5f} on {len(rows):,} rows ({device.type})")
            if after_epoch is not None and after_epoch(epoch, averaged, mean):
                break
    return averaged.cpu().eval()


def _mean_loss(
    objective: Objective, outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """The mean loss of the outputs of one network, or of several members, with optional row weights."""
    if outputs.ndim > objective.output_dims:
        target = target.unsqueeze(1).expand_as(outputs)
    each = objective.losses(outputs, target)
    if weight is None:
        return each.mean()
    return (each * (weight if each.ndim == 1 else weight.unsqueeze(1))).mean()


def _average(averaged: torch.nn.Module, module: torch.nn.Module, step: int) -> None:
    """Updates the moving average of the weights; it covers all steps during the first :data:`SMOOTHING_STEPS`."""
    import torch

    weight = max(1 / step, 1 / SMOOTHING_STEPS)
    with torch.no_grad():
        for mean, now in zip(averaged.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, weight)


@on_one_thread
def outputs_of(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    """Returns float64 outputs ``[n]`` or ``[n, classes]`` of raw features ``[n, n_features]``.

    The computation runs on the module's device in batches of :data:`PREDICT_ROWS` rows.
    """
    import torch

    device = next((part.device for part in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    with torch.inference_mode():
        parts = [
            module(torch.from_numpy(np.ascontiguousarray(X[i : i + PREDICT_ROWS], dtype=np.float32)).to(device)).cpu()
            for i in range(0, len(X), PREDICT_ROWS)
        ]
    return torch.cat(parts).double().numpy() if parts else np.empty(0)


@on_one_thread
def select(
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
    watch: Watch = lambda *_: None,
    learnt: MutableMapping[str, list[FoldOutputs]] | None = None,
    represented: np.ndarray | None = None,
) -> Selection:
    """Selects epochs, ensemble weights, head and threshold on the folds' validation rows.

    First the epoch with the best mean validation metric over the folds is selected. Then the ensemble weights that
    minimise the loss of the pooled validation outputs are fitted (stacking: Breiman, 1996), and head and threshold are
    fitted on the ensemble. A fold's network stops early after ``recipe.patience`` epochs without improvement.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN.
        y: ``[n]``, class codes or measured values.
        folds: positions of training and validation rows.
        recipe: training settings; sized for the training rows of each fold.
        task: the kind of target.
        tokens: positions of the columns of word numbers.
        network: builds the layers; default as for :func:`fit`.
        weight: row weights ``[n]``; default: equal weights.
        log: receives one line per fold and epoch.
        watch: called after each epoch; what it raises ends the selection.
        learnt: fold outputs by learner. Learners that it holds are not fitted again; the others are added. They depend
            on the rows, the folds, their weights and the seed, but not on the network's settings.
        represented: number of rows that each row stands for, ``[n]``, if rows were drawn by class; head, threshold and
            calibration are then those of all rows. Default: every row stands for itself.

    Raises:
        FloatingPointError: the loss of a network is not finite.
    """
    objective, odds = objective_of(task), odds_of(y, represented)
    learnt = {} if learnt is None else learnt
    looks: list[_Look] = []
    fold_arguments: list[dict[str, Any]] = []
    for fitted, _ in folds:
        weighed = None if weight is None else weight[fitted] / weight[fitted].mean()
        fold_arguments.append({"task": task, "tokens": tokens, "weight": weighed})

    def fit_fold(part: str, fold: int) -> FoldOutputs:
        """A fold's validation outputs of a learner, and its number of boosting rounds."""
        (rows, valid), arguments = folds[fold], fold_arguments[fold]
        fitted = LEARNERS[part].fit(X[rows], y[rows], seed=recipe.seed, valid=(X[valid], y[valid]), **arguments)
        return outputs_of(fitted.module, X[valid]), fitted.rounds

    # The other learners are fitted in a second thread, because the network leaves a second core idle. The network stays
    # in this thread, because it uses the global random state.
    with ThreadPoolExecutor(max_workers=1) as second, contextlib.ExitStack() as at_exit:
        # After an error or SIGTERM, fits that have not begun are dropped, so that the process ends soon.
        at_exit.callback(second.shutdown, wait=False, cancel_futures=True)
        waiting = {
            part: [second.submit(fit_fold, part, fold) for fold in range(len(folds))]
            for part in recipe.ensemble
            if part not in learnt
        }
        for number, (fitted, valid) in enumerate(folds, start=1):
            looked = _Look(X[valid], y[valid], objective, objective.target(y[fitted])[1], recipe.patience)
            sized = recipe.sized_for(len(fitted))
            assert sized.max_epochs is not None
            fit(X[fitted], y[fitted], recipe=sized, epochs=sized.max_epochs, network=network,
                after_epoch=functools.partial(_look_and_tell, looked, watch, number),
                log=functools.partial(_log_fold, log, number, len(folds)), **fold_arguments[number - 1])  # fmt: skip
            looks.append(looked)
        learnt.update({part: [one.result() for one in waits] for part, waits in waiting.items()})
    found = {part: learnt[part] for part in recipe.ensemble}
    rounds = [n for of_part in found.values() for _, n in of_part if n is not None]
    curves = {"loss": {f"fold {n}": look.losses for n, look in enumerate(looks, start=1)},
              objective.metric: {f"fold {n}": look.metric for n, look in enumerate(looks, start=1)}}  # fmt: skip
    truth = [y[valid] for _, valid in folds]
    every = range(len(folds))
    epochs, shares, head = _settled(looks, found, truth, task, every, odds)
    scores = [_scored(looks[n], found, n, epochs, shares, head, objective) for n in every]
    held_out = scores
    if len(folds) > 1:
        settled = [_settled(looks, found, truth, task, [other for other in every if other != n], odds) for n in every]
        held_out = [_scored(looks[n], found, n, *settled[n], objective) for n in every]
    score = float(np.mean([objective.score(y_fold, p_fold) for y_fold, p_fold in zip(truth, scores, strict=True)]))
    all_truth, all_scores = np.concatenate(truth), np.concatenate(scores)
    standing = None if represented is None else np.concatenate([represented[valid] for _, valid in folds])
    return Selection(
        epochs=epochs,
        head=head,
        score=score,
        chance=objective.chance(all_truth),
        threshold=best_threshold(all_scores, all_truth, standing) if objective.has_threshold else 0.5,
        shares=shares,
        # The final fit has more rows than a fold, so it gets 10 % more trees.
        rounds=int(1.1 * np.mean(rounds)) + 1 if rounds and objective.stops_trees else None,
        curves=curves,
        calibration=calibration_of(all_scores, all_truth, represented=standing) if objective.has_threshold else [],
        held_out=held_out,
    )


def _settled(
    looks: Sequence[_Look],
    found: Mapping[str, Sequence[FoldOutputs]],
    truth: Sequence[np.ndarray],
    task: Task,
    chosen: Sequence[int],
    odds: float,
) -> tuple[int, dict[str, float], ScoreTransform]:
    """The epochs, ensemble weights and head that some of the folds select; ``odds`` as of :func:`odds_of`."""
    # A fold that stopped early keeps its last value: it had stopped improving.
    longest = max(len(looks[n].metric) for n in chosen)
    curves = [np.pad(looks[n].metric, (0, longest - len(looks[n].metric)), mode="edge") for n in chosen]
    epochs = int(np.mean(curves, axis=0).argmax()) + 1
    outputs = {part: [of_part[n][0] for n in chosen] for part, of_part in found.items()}
    outputs[NETWORK] = [looks[n].after(epochs) for n in chosen]
    shares, head = mixed(outputs, [truth[n] for n in chosen], [looks[n].head for n in chosen], task)
    return epochs, shares, objective_of(task).with_odds(head, odds)


def _scored(
    look: _Look,
    found: Mapping[str, Sequence[FoldOutputs]],
    fold: int,
    epochs: int,
    shares: Mapping[str, float],
    head: ScoreTransform,
    objective: Objective,
) -> np.ndarray:
    """The ensemble's scores of one fold's validation rows with these settings."""
    outputs = {**{part: of_part[fold][0] for part, of_part in found.items()}, NETWORK: look.after(epochs)}
    mixture = np.sum([shares[part] * output for part, output in outputs.items()], axis=0)
    return objective.transform_of_fold(head, look.head)(mixture)


def _look_and_tell(looked: _Look, watch: Watch, fold: int, epoch: int, module: torch.nn.Module, loss: float) -> bool:
    stop = looked(epoch, module, loss)
    watch(fold, epoch, max(looked.metric))
    return stop


def _log_fold(log: Log, number: int, folds: int, line: str) -> None:
    log(f"fold {number}/{folds}, {line}")


def mixed(
    outputs: Mapping[str, Sequence[np.ndarray]],
    truth: Sequence[np.ndarray],
    scales: Sequence[ScoreTransform],
    task: Task,
) -> tuple[dict[str, float], ScoreTransform]:
    """Returns the ensemble weights that minimise the loss on the folds, and the ensemble's head.

    Each weight is 0 or at least :data:`LEAST_SHARE`; the weights add up to 1.

    Args:
        outputs: by learner and fold, ``[n]`` or ``[n, classes]``.
        truth: by fold, ``[n]``, class codes or measured values.
        scales: by fold, the head that holds the scale of a measured target.
        task: the kind of target.
    """
    parts = list(outputs)
    while True:
        columns = np.stack([np.concatenate(outputs[part]) for part in parts], axis=-1)
        found, head = objective_of(task).mix(columns, truth, scales)
        least = int(found.argmin())
        if found[least] >= LEAST_SHARE or len(parts) == 1:
            return dict.fromkeys(outputs, 0.0) | dict(zip(parts, map(float, found), strict=True)), head
        parts.pop(least)


@dataclass
class _Look:
    """Records a fold's validation outputs, loss and metric after each epoch, and decides on early stopping."""

    X: np.ndarray
    y: np.ndarray
    objective: Objective
    head: ScoreTransform
    patience: int
    outputs: list[np.ndarray] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)

    def after(self, epochs: int) -> np.ndarray:
        """The outputs after some epochs; the last ones if the fold stopped earlier."""
        return self.outputs[min(epochs, len(self.outputs)) - 1]

    def __call__(self, _: int, module: torch.nn.Module, loss: float) -> bool:
        """Records a validation result; returns True when training should stop early."""
        outputs = outputs_of(module, self.X)
        scores = self.head(outputs)
        self.outputs.append(outputs)
        self.losses.append(loss)
        self.metric.append(self.objective.score(self.y, scores))
        return len(self.metric) - 1 - int(np.argmax(self.metric)) >= self.patience


def best_threshold(probability: np.ndarray, y: np.ndarray, represented: np.ndarray | None = None) -> float:
    """Returns the alert threshold with the best F1.

    Args:
        probability: ``[n]``.
        y: labels 0 and 1, ``[n]``.
        represented: number of rows that each row stands for, ``[n]``; default: itself.
    """
    order = np.argsort(-probability, kind="stable")
    standing = np.ones(len(y)) if represented is None else represented[order]
    hits = np.cumsum(y[order] * standing)
    f1 = 2 * hits / (np.cumsum(standing) + hits[-1])
    return float(probability[order][int(f1.argmax())])
