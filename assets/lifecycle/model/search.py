"""Searches a better recipe on the folds: Optuna proposes, the folds score, and a repetition confirms the best.

A fold is scored with epochs, ensemble weights and head that the other folds selected: a recipe whose curve is rougher
gains more from choosing them on the scored rows. The first trial is the declared recipe. The best of many noisy scores
is better than it deserves, so the best trial and the declared recipe are both fitted again, with other seeds and
(without `time`) more and other folds. The best is used only if its gain there is above two standard errors. Test rows
are never read.

Belongs here: the trials, the pruning, the choice; functions of a frozen training set. Does not belong here: the fit
(``candidate.py``, ``fitting.py``), the asset (``tuning.py``), where studies are stored (``resources/studies.py``).
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from assets.declaration import Model, Training
from assets.lifecycle.model.candidate import network_of, select_on_folds
from assets.lifecycle.model.fitting import FoldOutputs, Log, Selection, Watch
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.metrics.intervals import bootstrap
from assets.lifecycle.model.objectives import objective_of
from assets.lifecycle.model.recipe import format_values
from assets.lifecycle.model.training_set import fit_rows, fold_rows, test_rows
from assets.search_space import NETWORK_PREFIX, Choice, Range
from resources.compute import HERE, Pool, Tell
from resources.studies import DECLARED, Studies

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

CONFIRMATIONS, CONFIRMATION_FOLDS = 2, 5
"""Number of times that the best trial and the declared recipe are fitted again, and the least number of folds without
`time`: with more folds, a fit has nearly as many rows as the final one."""
CLEAR = 2.0
"""Standard errors that the gain of the best trial must be above."""
RESAMPLES = 100
"""Bootstrap draws of rows (or entities) for the standard error of the gain."""
WARMUP, COMPARED_TRIALS = 0.5, 4
"""A trial is not pruned in this share of the epochs of the declared recipe, because a low learning rate is behind at
first; nor before this many trials are complete."""
_ERROR = "error"

OpenTrial = Callable[[str], contextlib.AbstractContextManager[Any]]
"""Opens the record of one trial by name, e.g. a child run of MLflow."""


@dataclass(frozen=True)
class Trial:
    """One tried recipe.

    Args:
        number: from 1, in the order of the trials.
        state: ``complete``, ``pruned`` or ``failed``.
        values: its settings as they are stored; without those that the declared recipe has outside the search space.
        declared: whether it is the declared recipe.
        score: validation score on the folds; ``None`` unless complete.
        note: why it has no score.
    """

    number: int
    state: str
    values: dict[str, Any]
    declared: bool
    score: float | None
    note: str = ""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        trials: all trials of the study, of earlier runs too.
        best: the trial with the best score; ``None`` without a complete trial.
        declared: the trial of the declared recipe; ``None`` if it is not complete.
        gain: score of the best trial minus that of the declared recipe, both fitted again; 0 for the declared recipe.
        error: standard error of the gain.
        importance: share of the variation of the score by setting; empty with too few trials.
    """

    trials: list[Trial]
    best: Trial | None
    declared: Trial | None
    gain: float
    error: float
    importance: dict[str, float]

    @property
    def clear(self) -> bool:
        """Whether the best trial is used: its gain is above :data:`CLEAR` standard errors."""
        return self.gain > CLEAR * self.error

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings to use, as they are stored; empty for the declared recipe."""
        return dict(self.best.values) if self.best is not None and self.clear else {}


def search(
    studies: Studies,
    name: str,
    frozen: pd.DataFrame,
    model: Model,
    *,
    trials: int,
    minutes: float,
    log: Log = lambda _: None,
    open_trial: OpenTrial = lambda _: contextlib.nullcontext(),
    pool: Pool = HERE,
) -> SearchResult:
    """Continues a study until it has ``trials`` trials or the time is over, and confirms its best trial.

    Trials and confirmations that the study already has are not repeated. The proposals depend on the seed and on the
    trials before, so a study that was interrupted goes the same way as one that was not. With several workers, a
    proposal does not know the trials that are in progress, so another order of their ends gives other proposals.

    Args:
        studies: where studies are stored.
        name: name of the study.
        frozen: the frozen training set.
        model: the declaration.
        trials: number of trials of the study, those of earlier runs included.
        minutes: no trial begins later than this.
        log: receives one line per trial.
        open_trial: opens the record of one trial; its ``log_params``, ``log_metrics``, ``log_dict`` and ``set_tags``
            are used if it has any.
        pool: where trials and confirmations are fitted. The study stays in this process.
    """
    study = studies.open(name)
    folds = _Folds(frozen, model, pool)
    if not any(trial.user_attrs.get(DECLARED) for trial in _ended(study) + _waiting(study)):
        study.enqueue_trial(folds.declared_values(), user_attrs={DECLARED: True})
    deadline = time.monotonic() + 60 * minutes
    tries = _Tries(studies, study, folds, open_trial, trials=trials, deadline=deadline)
    with tries:
        rows = (folds.frozen, model)
        for number, fitted in pool.run(_fit_trial, tries.proposals(pool.elsewhere), shared=rows, hear=tries.hear):
            tries.end(number, fitted)
            log(_line(trials_of(study), trials, objective_of(model.task).metric))
    tried = trials_of(study)
    complete = [trial for trial in tried if trial.score is not None]
    # The earliest of equal trials, so the declared recipe stays if nothing is better.
    best = max(complete, key=lambda trial: (trial.score, -trial.number), default=None)
    declared = next((trial for trial in complete if trial.declared), None)
    gain, error = 0.0, 0.0
    if best is not None and declared is not None and best is not declared:
        key = f"confirmed {best.number}"
        if key not in study.user_attrs:
            log(f"confirming trial {best.number}: {CONFIRMATIONS} more fits of it and of the declared recipe")
            study.set_user_attr(key, folds.confirm(best.values))
        gain, error = study.user_attrs[key]
    return SearchResult(tried, best, declared, gain, error, _importance(study))


def trials_of(study: optuna.Study) -> list[Trial]:
    """Returns the ended trials of a study, in order."""
    return [
        Trial(
            number,
            {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
            dict(trial.params),
            bool(trial.user_attrs.get(DECLARED)),
            trial.value if trial.state.name == "COMPLETE" else None,
            str(trial.user_attrs.get(_ERROR, "")),
        )
        for number, trial in enumerate(_ended(study), start=1)
    ]


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended, in the order in which they did; one that a kill interrupted is tried again instead."""
    ended = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED") or _ERROR in t.user_attrs]
    return sorted(ended, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete, trial.number))


def _waiting(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if trial.state.name in ("WAITING", "RUNNING")]


@dataclass(frozen=True)
class _Proposal:
    """What a worker fits: settings, the repetition, and outputs of learners that they do not change, if known."""

    values: Mapping[str, Any]
    another: int
    learnt: dict[str, list[FoldOutputs]]


@dataclass(frozen=True)
class _FittedTrial:
    """What came of it. ``note``: why it has no score; ``curves``: by fold, the best metric after each epoch."""

    score: float | None = None
    epochs: int = 0
    pruned: bool = False
    note: str = ""
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    learnt: Mapping[str, list[FoldOutputs]] = field(default_factory=dict)


def _fit_trial(rows: tuple[pd.DataFrame, Model], proposal: _Proposal, tell: Tell) -> _FittedTrial:
    """Fits one proposal on the folds. A loss that is not finite is a result; other errors are raised."""
    folds, curves = _Folds(*rows), dict[str, list[float]]()

    def watch(fold: int, epoch: int, best: float) -> None:
        curves.setdefault(f"fold {fold}", []).append(best)
        if fold == 1 and tell((epoch, best)):  # the first folds of all trials are compared, epoch by epoch
            raise _Pruned

    learnt = proposal.learnt
    try:
        selection = folds.select(proposal.values, another=proposal.another, watch=watch, learnt=learnt)
        score = folds.score(selection)
    except _Pruned:
        return _FittedTrial(pruned=True, note=f"pruned after epoch {len(curves['fold 1'])}", curves=curves)
    except FloatingPointError as error:
        return _FittedTrial(note=str(error), curves=curves)
    if not np.isfinite(score):
        return _FittedTrial(note=f"the validation score is {score}", curves=curves)
    return _FittedTrial(score, selection.epochs, curves=curves, learnt=learnt)


class _Tries:
    """The trials in progress: asks the study for proposals, and tells it how they end.

    If something else than a loss that is not finite is raised, the trials in progress are not counted, and the next
    search tries them again.
    """

    def __init__(
        self, studies: Studies, study: optuna.Study, folds: _Folds, open_trial: OpenTrial, *, trials: int,
        deadline: float,
    ) -> None:  # fmt: skip
        self._studies, self._study, self._folds, self._open_trial = studies, study, folds, open_trial
        self._trials, self._deadline = trials, deadline
        self._open: dict[int, tuple[optuna.Trial, contextlib.ExitStack, Any, dict[str, Any]]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        from optuna.trial import TrialState

        for trial, closing, _, _ in self._open.values():
            self._study.tell(trial.number, state=TrialState.FAIL)
            closing.__exit__(*error)

    def proposals(self, several: bool) -> Iterator[_Proposal]:
        """Yields proposals until there are enough trials or the time is over.

        ``several``: trials are in progress together, so proposals keep away from those whose score is not known yet.
        """
        model, number = self._folds.model, 0
        while True:
            done = len(_ended(self._study)) + len(self._open)
            if done >= self._trials or time.monotonic() >= self._deadline:
                return
            self._study.sampler = _sampler(model.training.seed, done, several)
            self._study.pruner = _pruner(self._study)
            with contextlib.ExitStack() as opening:
                record = opening.enter_context(self._open_trial(f"trial {done + 1}"))
                trial = self._studies.ask(self._study)
                declared = bool(trial.user_attrs.get(DECLARED))
                space = model.search_space
                names = self._folds.declared_values() if declared else space
                values = {name: space[name].value(_suggest(trial, name, space[name])) for name in names}
                self._open[number] = trial, opening.pop_all(), record, values
            yield self._folds.proposal({} if declared else values)
            number += 1

    def hear(self, number: int, message: tuple[int, float]) -> bool:
        """Reports an epoch of a trial; returns whether it is pruned, which the declared recipe never is."""
        trial, (epoch, best) = self._open[number][0], message
        trial.report(best, epoch)
        return trial.should_prune() and not trial.user_attrs.get(DECLARED)

    def end(self, number: int, fitted: _FittedTrial) -> None:
        """Records how a trial ended."""
        from optuna.trial import TrialState

        trial, closing, record, values = self._open.pop(number)
        with closing:
            state = TrialState.PRUNED if fitted.pruned else TrialState.FAIL if fitted.note else TrialState.COMPLETE
            if fitted.note:
                trial.set_user_attr(_ERROR, fitted.note)
            self._study.tell(trial.number, fitted.score, state=state)
            if fitted.learnt:
                self._folds.keep(values, fitted.learnt)
            if record is None:
                return
            record.log_params({**values, "declared": bool(trial.user_attrs.get(DECLARED))})
            record.set_tags({"trial": state.name.lower(), **({"note": fitted.note} if fitted.note else {})})
            if fitted.score is not None:
                record.log_metrics({"folds_score": fitted.score, "epochs": fitted.epochs})
            record.log_dict(dict(fitted.curves), "curves.json")


class _Pruned(Exception):
    """The trial is worse than most others at the same epoch."""


class _Folds:
    """The folds of a frozen training set, and the outputs of the learners that settings do not change."""

    def __init__(self, frozen: pd.DataFrame, model: Model, pool: Pool = HERE) -> None:
        self.model, self._pool = model, pool
        self.frozen = frozen.copy()
        # Folds hold no test row. The targets are removed nevertheless, so that no mistake could use them.
        self.frozen[model.target] = frozen[model.target].astype(float).mask(test_rows(frozen, model))
        self._learnt: dict[tuple[int, float | None], dict[str, list[FoldOutputs]]] = {}

    def select(
        self,
        values: Mapping[str, Any],
        *,
        another: int = 0,
        watch: Watch = lambda *_: None,
        learnt: dict[str, list[FoldOutputs]] | None = None,
    ) -> Selection:
        recipe = self.model.training.with_values(values)
        model = replace(self._divided(another), training=replace(recipe, folds=self._divided(another).training.folds))
        return select_on_folds(self.frozen, model, another=another, watch=watch, learnt=learnt)

    def proposal(self, values: Mapping[str, Any], another: int = 0) -> _Proposal:
        """What a worker needs to fit these settings."""
        return _Proposal(values, another, dict(self._learnt.get(self._learnt_key(values, another), {})))

    def keep(self, values: Mapping[str, Any], learnt: Mapping[str, list[FoldOutputs]], another: int = 0) -> None:
        """Keeps outputs of learners for the next proposals that do not change them."""
        self._learnt.setdefault(self._learnt_key(values, another), {}).update(learnt)

    def _learnt_key(self, values: Mapping[str, Any], another: int) -> tuple[int, float | None]:
        return another, self.model.training.with_values(values).half_life_days

    def score(self, selection: Selection) -> float:
        """The mean over the folds of the validation metric."""
        objective, y = objective_of(self.model.task), self.frozen[self.model.target].to_numpy(dtype=float)
        folds = fold_rows(self.frozen, self.model)
        return float(np.mean([objective.score(y[v], p) for (_, v), p in zip(folds, selection.held_out, strict=True)]))

    def _divided(self, another: int) -> Model:
        """The declaration with the number of folds of a repetition; the folds of a stream are weeks, which stay."""
        if not another or self.model.is_stream:
            return self.model
        entity, folds = self.model.evaluation.entity, CONFIRMATION_FOLDS
        if entity:  # each fold needs an entity of its own
            folds = min(folds, self.frozen.loc[fit_rows(self.frozen, self.model), entity].nunique())
        folds = max(folds, self.model.training.folds)
        return replace(self.model, training=replace(self.model.training, folds=folds))

    def declared_values(self) -> dict[str, Any]:
        """The declared settings as they are stored, without those outside the search space."""
        recipe = self.model.training.sized_for(int(fit_rows(self.frozen, self.model).sum()))
        found = {}
        for name, values in self.model.search_space.items():
            with contextlib.suppress(ValueError):
                found[name] = values.stored(_setting(recipe, self.model, name))
        return found

    def confirm(self, stored: Mapping[str, Any]) -> tuple[float, float]:
        """Fits a recipe and the declared one again; returns the gain and its standard error.

        Rows (or whole entities) are drawn with replacement, and both recipes are scored on the same draws.
        """
        model, objective = self.model, objective_of(self.model.task)
        values = {name: model.search_space[name].value(value) for name, value in stored.items()}
        y = self.frozen[model.target].to_numpy(dtype=float)
        entity = model.evaluation.entity
        cluster = pd.factorize(self.frozen[entity])[0] if entity else np.arange(len(y))
        repeats = range(1, CONFIRMATIONS + 1)
        fits = [(recipe, another) for another in repeats for recipe in (values, {})]
        held_out: dict[int, list[np.ndarray]] = {}
        proposals = (self.proposal(recipe, another) for recipe, another in fits)
        for number, (outputs, learnt) in self._pool.run(_confirm_fit, proposals, shared=(self.frozen, model)):
            if outputs is None and fits[number][0] is values:
                return 0.0, 0.0  # it does not fit reliably
            if outputs is None:
                raise FloatingPointError("the declared recipe has a loss that is not finite when it is fitted again")
            held_out[number] = outputs
            self.keep(fits[number][0], learnt, fits[number][1])
        pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for another in repeats:
            tuned, declared = held_out[2 * another - 2], held_out[2 * another - 1]
            folds = fold_rows(self.frozen, self._divided(another), another=another)
            pairs += [(v, a, b) for (_, v), a, b in zip(folds, tuned, declared, strict=True)]

        def gain(weight: np.ndarray) -> np.ndarray:
            gains = []
            for valid, tuned, declared in pairs:
                at = np.repeat(np.arange(len(valid)), weight[cluster[valid]].astype(int))
                gains.append(objective.score(y[valid][at], tuned[at]) - objective.score(y[valid][at], declared[at]))
            return np.array([np.mean(gains)])

        point, draws = bootstrap(gain, int(cluster.max()) + 1, resamples=RESAMPLES, seed=model.training.seed)
        return float(point[0]), float(np.nanstd(draws[:, 0], ddof=1))


def _confirm_fit(
    rows: tuple[pd.DataFrame, Model], proposal: _Proposal, _: Tell
) -> tuple[list[np.ndarray] | None, dict[str, list[FoldOutputs]]]:
    """Fits settings again; returns the folds' scores (``None``: a loss is not finite) and other learners' outputs."""
    learnt = proposal.learnt
    try:
        return _Folds(*rows).select(proposal.values, another=proposal.another, learnt=learnt).held_out, learnt
    except FloatingPointError:
        return None, {}


def _setting(recipe: Training, model: Model, name: str) -> Any:
    """The value of a setting in a recipe; for an argument of the network that it lacks, the network's default."""
    if not name.startswith(NETWORK_PREFIX):
        return getattr(recipe, name)
    argument = name.removeprefix(NETWORK_PREFIX)
    parameters = inspect.signature(network_of(model) or tabular).parameters
    default = parameters[argument].default if argument in parameters else None
    return recipe.network_arguments.get(argument, default)


def _suggest(trial: optuna.Trial, name: str, values: Range | Choice) -> Any:
    if isinstance(values, Choice):
        return trial.suggest_categorical(name, values.labels)
    if values.whole:
        step = int(values.step) if values.step else 1
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log, step=step)
    return trial.suggest_float(name, values.low, values.high, log=values.log, step=values.step)


def _sampler(seed: int, done: int, several: bool = False) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al., 2011), seeded anew for each trial.

    ``several``: trials in progress count as bad ones, so that the next proposal is not the same again.
    """
    import optuna

    return optuna.samplers.TPESampler(seed=1_000 * seed + done, multivariate=False, constant_liar=several)


def _pruner(study: optuna.Study) -> optuna.pruners.BasePruner:
    """Ends trials whose network is worse than the median of the trials before, at the same epoch."""
    import optuna

    epochs = [len(trial.intermediate_values) for trial in study.trials if trial.user_attrs.get(DECLARED)]
    warmup = round(WARMUP * max(epochs, default=0))
    return optuna.pruners.MedianPruner(n_startup_trials=COMPARED_TRIALS, n_warmup_steps=warmup)


def _importance(study: optuna.Study) -> dict[str, float]:
    """The share of the score's variation by setting (fANOVA: Hutter et al., 2014); empty with fewer than 4 scores."""
    import optuna

    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    shared = set.intersection(*(set(trial.params) for trial in complete)) if complete else set()
    names = [name for name in sorted(shared) if len({trial.params[name] for trial in complete}) > 1]
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2 or not names:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    return {name: float(share) for name, share in found.items()}


def _line(tried: list[Trial], trials: int, metric: str) -> str:
    last = tried[-1]
    outcome = f"{metric} {last.score:.4f}" if last.score is not None else last.note
    scores = [trial.score for trial in tried if trial.score is not None]
    best = f" (best {max(scores):.4f})" if scores else ""
    what = "the declared recipe" if last.declared else format_values(last.values)
    return f"trial {last.number}/{trials}: {outcome}{best}; {what}"
