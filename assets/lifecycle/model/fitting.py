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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.declaration import NetworkFactory, Training
from assets.lifecycle.data.text import WORDS
from assets.lifecycle.model.drawing import odds_of
from assets.lifecycle.model.learners.ensemble import LEARNERS, NETWORK
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.learners.preprocessing import preprocessing
from assets.lifecycle.model.learners.private import steps_of
from assets.lifecycle.model.learners.threads import on_one_thread
from assets.lifecycle.model.objectives import Objective, ScoreTransform, objective_of
from assets.lifecycle.profile.reference import calibration_of
from assets.task import BINARY, Task
from resources.compute import ALONE, HERE, Group, Pool, Tell

if TYPE_CHECKING:
    import torch

Log = Callable[[str], object]
Watch = Callable[[int, int, float], object]
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
    group: Group = ALONE,
    carried: Mapping[str, list[Any]] | None = None,
) -> torch.nn.Module:
    """Fits a network, on a GPU if one is available; on a CPU the same seed gives the same weights.

    The processes of a group take equal parts of each batch and average their gradients. Their weights are those of one
    process, except for rounding and for what the network itself draws (dropout). After each epoch the group saves the
    state, and a group that begins again goes on from there.

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
            when it returns True. In a group, only the first process calls it.
        group: the processes that fit the network together.
        carried: lists in which ``after_epoch`` keeps what it saw; they are saved and restored with the state.

    Returns:
        A module on the CPU, in evaluation mode. It maps raw float32 ``[n, n_features]`` (NaN allowed) to outputs
        ``[n]`` or ``[n, classes]``, which the transform of :meth:`Objective.target` maps to scores.

    Raises:
        FloatingPointError: the loss is not finite.
        PrivacyError: ``recipe.privacy`` cannot be kept.
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
        own_rates = getattr(module[1], "parameter_groups", None)  # a network may give its parts learning rates
        optimiser = torch.optim.AdamW(
            own_rates(learning_rate) if own_rates else module.parameters(),
            lr=learning_rate, weight_decay=recipe.weight_decay, fused=True,
        )  # fmt: skip
        arranged = getattr(module[1], "arranged", None)  # a network may prefer some rows in one batch
        steps_an_epoch = max(1, -(-len(rows) // batch_size))
        warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, 1.0, total_iters=min(steps_an_epoch, 200))
        network_of_group = group.joined(module[1])
        stepping, draw = steps_of(module[1], optimiser, recipe, ready, epochs=epochs, weight=weight, group=group)
        state = _State(module, averaged, optimiser, warm, generator, carried or {})
        begun, stopped = state.restore(group.saved())
        step = begun * steps_an_epoch
        for epoch in range(begun + 1, 0 if stopped else epochs + 1):
            if group.size > 1:  # each process draws for its own rows, and the same again if the epoch is repeated
                torch.manual_seed((recipe.seed * epochs + epoch) * group.size + group.rank)
            module.train()
            order = torch.randperm(len(rows), generator=generator)
            order = (arranged(order, ready.cpu(), batch_size, generator) if arranged else order).to(device)
            total = torch.zeros((), device=device)
            for whole in draw(order):
                batch, share = _part(whole, group)
                loss = _mean_loss(
                    objective, network_of_group(ready[batch]), target[batch],
                    None if weights is None else weights[batch],
                )  # fmt: skip
                stepping.zero_grad(set_to_none=True)
                (loss if share == 1.0 else loss * share).backward()
                stepping.step()
                warm.step()
                step += 1
                _average(averaged, module, step)
                total += loss.detach() * (share * len(whole))
            mean = group.mean(float(total) / len(rows))
            if not np.isfinite(mean):
                raise FloatingPointError(
                    f"the loss is {mean} in epoch {epoch}; lower the learning rate, or look for extreme feature values"
                )
            log(f"epoch {epoch}/{epochs}: loss {mean:.5f} on {len(rows):,} rows ({device.type})")
            if state.ends(
                epoch, group, after_epoch is not None and group.rank == 0 and after_epoch(epoch, averaged, mean)
            ):
                break
    return averaged.cpu().eval()


@dataclass(frozen=True)
class _State:
    """All that changes during a fit, for a group that begins again after an epoch."""

    module: torch.nn.Module
    averaged: torch.nn.Module
    optimiser: torch.optim.Optimizer
    warm: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    carried: Mapping[str, list[Any]]

    def ends(self, epoch: int, group: Group, stop: bool | None) -> bool:
        """Saves the state after an epoch; returns whether the fit stops there, which the first process decides."""
        stopped = group.agreed(bool(stop))
        group.save(functools.partial(self.now, epoch, stopped))
        return stopped

    def now(self, epoch: int, stopped: bool) -> dict[str, Any]:
        """The state after an epoch."""
        import torch

        return {
            "epoch": epoch, "stopped": stopped, "random": torch.get_rng_state(), "order": self.generator.get_state(),
            "carried": dict(self.carried),
            **{name: getattr(self, name).state_dict() for name in ("module", "averaged", "optimiser", "warm")},
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any] | None) -> tuple[int, bool]:
        """Puts a state back; returns its epoch (0 without a state) and whether the fit had stopped there."""
        import torch

        if saved is None:
            return 0, False
        for name in ("module", "averaged", "optimiser", "warm"):
            getattr(self, name).load_state_dict(saved[name])
        for name, values in self.carried.items():
            values[:] = saved["carried"][name]
        torch.set_rng_state(saved["random"])
        self.generator.set_state(saved["order"])
        return saved["epoch"], saved["stopped"]


def _part(batch: torch.Tensor, group: Group) -> tuple[torch.Tensor, float]:
    """A process's rows of a batch, and the factor of their mean loss in the mean of the group."""
    if group.size == 1:
        return batch, 1.0
    mine = batch[group.rank :: group.size]
    # A batch with fewer rows than processes: all have to take part in the step, those without a row with weight 0.
    return (mine, len(mine) * group.size / len(batch)) if len(mine) else (batch[:1], 0.0)


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
            if now.requires_grad:
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
    pool: Pool = HERE,
) -> Selection:
    """Selects epochs, ensemble weights, head and threshold on the folds' validation rows.

    First the epoch with the best mean validation metric over the folds is selected. Then the ensemble weights that
    minimise the loss of the pooled validation outputs are fitted (stacking: Breiman, 1996), and head and threshold are
    fitted on the ensemble. A fold's network stops early after ``recipe.patience`` epochs without improvement. With
    privacy, all fits make ``recipe.max_epochs`` epochs.

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
        pool: where the fits of the folds run. The result is the same; in a pool elsewhere, the folds' lines and calls
            of ``watch`` alternate.

    Raises:
        FloatingPointError: the loss of a network is not finite.
        ComputeError: see :class:`~resources.compute.Pool`.
    """
    objective, odds = objective_of(task), odds_of(y, represented)
    learnt = {} if learnt is None else learnt
    rows = _FoldRows(X, y, folds, recipe, task, tokens, network, weight)
    lacking = [part for part in recipe.ensemble if part not in learnt]
    looks = (_fit_elsewhere if pool.elsewhere else _fit_here)(rows, lacking, learnt, pool, log, watch)
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


@dataclass(frozen=True)
class _FoldRows:
    """What the fits of all folds have in common; see :func:`select`."""

    X: np.ndarray
    y: np.ndarray
    folds: Sequence[Fold]
    recipe: Training
    task: Task
    tokens: Sequence[int]
    network: NetworkFactory | None
    weight: np.ndarray | None

    def arguments(self, fold: int) -> dict[str, Any]:
        """Arguments that the network and the other learners of a fold share."""
        rows = self.folds[fold][0]
        weight = None if self.weight is None else self.weight[rows] / self.weight[rows].mean()
        return {"task": self.task, "tokens": self.tokens, "weight": weight}

    def fit_learner(self, part: str, fold: int) -> FoldOutputs:
        """A fold's validation outputs of a learner, and its number of boosting rounds."""
        rows, valid = self.folds[fold]
        fitted = LEARNERS[part].fit(
            self.X[rows], self.y[rows], seed=self.recipe.seed, valid=(self.X[valid], self.y[valid]),
            **self.arguments(fold),
        )  # fmt: skip
        return outputs_of(fitted.module, self.X[valid]), fitted.rounds

    def fit_network(self, fold: int, log: Log, watch: Watch, group: Group = ALONE) -> _Look:
        """Fits a fold's network, and returns what was seen on its validation rows."""
        (rows, valid), objective = self.folds[fold], objective_of(self.task)
        look = _Look(
            self.X[valid], self.y[valid], objective, objective.target(self.y[rows])[1], self.recipe.patience,
            fixed=self.recipe.privacy is not None,
        )  # fmt: skip
        sized = self.recipe.sized_for(len(rows))
        assert sized.max_epochs is not None
        fit(self.X[rows], self.y[rows], recipe=sized, epochs=sized.max_epochs, network=self.network, group=group,
            after_epoch=functools.partial(_look_and_tell, look, watch, fold + 1),
            log=functools.partial(_log_fold, log, fold + 1, len(self.folds)), carried=look.seen,
            **self.arguments(fold))  # fmt: skip
        return look


def _fit_here(
    rows: _FoldRows,
    parts: Sequence[str],
    learnt: MutableMapping[str, list[FoldOutputs]],
    _: Pool,
    log: Log,
    watch: Watch,
) -> list[_Look]:
    """Fits all folds in this process; adds the outputs of ``parts`` to ``learnt``."""
    # The other learners are fitted in a second thread, because the network leaves a second core idle. The network stays
    # in this thread, because it uses the global random state.
    with ThreadPoolExecutor(max_workers=1) as second, contextlib.ExitStack() as at_exit:
        # After an error or SIGTERM, fits that have not begun are dropped, so that the process ends soon.
        at_exit.callback(second.shutdown, wait=False, cancel_futures=True)
        every = range(len(rows.folds))
        waiting = {part: [second.submit(rows.fit_learner, part, fold) for fold in every] for part in parts}
        looks = [rows.fit_network(fold, log, watch) for fold in every]
        learnt.update({part: [one.result() for one in waits] for part, waits in waiting.items()})
    return looks


def _fit_elsewhere(
    rows: _FoldRows, parts: Sequence[str], learnt: MutableMapping[str, list[FoldOutputs]], pool: Pool, log: Log,
    watch: Watch,
) -> list[_Look]:  # fmt: skip
    """Fits all folds in a pool; adds the outputs of ``parts`` to ``learnt``."""

    def hear(_: int, message: Any) -> None:
        if isinstance(message, str):
            log(message)
        else:
            watch(*message)

    every = range(len(rows.folds))
    pieces = [(part, fold) for part in (*([] if pool.data_parallel else [NETWORK]), *parts) for fold in every]
    fitted = dict(zip(pieces, pool.map(_fit_piece, pieces, shared=rows, hear=hear), strict=True))
    if pool.data_parallel:
        for fold in every:
            fitted[NETWORK, fold] = pool.together(_fit_network_together, shared=(rows, fold), hear=hear)
    learnt.update({part: [fitted[part, fold] for fold in every] for part in parts})
    return [fitted[NETWORK, fold] for fold in every]


def _fit_piece(rows: _FoldRows, piece: tuple[str, int], tell: Tell) -> FoldOutputs | _Look:
    """One fit of a fold on a worker."""
    part, fold = piece
    if part != NETWORK:
        return rows.fit_learner(part, fold)
    return rows.fit_network(fold, tell, lambda *seen: tell(seen)).without_rows()


def _fit_network_together(shared: tuple[_FoldRows, int], group: Group, tell: Tell) -> _Look:
    """A fold's network on the workers of a group."""
    rows, fold = shared
    return rows.fit_network(fold, tell, lambda *seen: tell(seen), group).without_rows()


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
    epochs = longest if any(looks[n].fixed for n in chosen) else int(np.mean(curves, axis=0).argmax()) + 1
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
    fixed: bool = False  # whether the number of epochs is declared, and not selected
    outputs: list[np.ndarray] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)

    @property
    def seen(self) -> dict[str, list[Any]]:
        """The lists that grow with each epoch."""
        return {"outputs": self.outputs, "losses": self.losses, "metric": self.metric}

    def without_rows(self) -> _Look:
        """What was seen, for another process that has the rows."""
        return replace(self, X=self.X[:0], y=self.y[:0])

    def after(self, epochs: int) -> np.ndarray:
        """The outputs after some epochs; the last ones if the fold stopped earlier."""
        return self.outputs[min(epochs, len(self.outputs)) - 1]

    def __call__(self, _: int, module: torch.nn.Module, loss: float) -> bool:
        """Records a validation result; returns True when training should stop early."""
        outputs = outputs_of(module, self.X)
        self.outputs.append(outputs)
        self.losses.append(loss)
        if _fits_pretrained_layers(module):
            # They grow too sure of themselves while they still learn. The ensemble's head corrects that.
            self.metric.append(self.objective.calibrated_score(self.y, outputs, self.head))
        else:
            self.metric.append(self.objective.score(self.y, self.head(outputs)))
        return not self.fixed and len(self.metric) - 1 - int(np.argmax(self.metric)) >= self.patience


def _fits_pretrained_layers(module: torch.nn.Module) -> bool:
    return any(getattr(part, "fits_pretrained_layers", False) for part in module.children())


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
