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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from assets.declaration import Model, Training
from assets.lifecycle.model.candidate import select_on_folds
from assets.lifecycle.model.fitting import FoldOutputs, Log, Selection, Watch
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.metrics.intervals import bootstrap
from assets.lifecycle.model.objectives import objective_of
from assets.lifecycle.model.recipe import format_values
from assets.lifecycle.model.training_set import fit_rows, fold_rows, test_rows
from assets.search_space import NETWORK_PREFIX, Choice, Range
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
) -> SearchResult:
    """Continues a study until it has ``trials`` trials or the time is over, and confirms its best trial.

    Trials and confirmations that the study already has are not repeated. The proposals depend on the seed and on the
    trials before, so a study that was interrupted goes the same way as one that was not.

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
    """
    study = studies.open(name)
    folds = _Folds(frozen, model)
    if not any(trial.user_attrs.get(DECLARED) for trial in _ended(study) + _waiting(study)):
        study.enqueue_trial(folds.declared_values(), user_attrs={DECLARED: True})
    deadline = time.monotonic() + 60 * minutes
    while (done := len(_ended(study))) < trials and time.monotonic() < deadline:
        study.sampler, study.pruner = _sampler(model.training.seed, done), _pruner(study)
        with open_trial(f"trial {done + 1}") as record:
            _try(studies.ask(study), study, folds, record)
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


def _try(trial: optuna.Trial, study: optuna.Study, folds: _Folds, record: Any) -> None:
    """Scores one recipe and records how it ended. A loss that is not finite is a failed trial; other errors are raised.

    Raises:
        Exception: what building or fitting the network raised; the trial is not counted, and the next search tries it
            again.
    """
    from optuna.trial import TrialState

    declared = bool(trial.user_attrs.get(DECLARED))
    space = folds.model.search_space
    names = folds.declared_values() if declared else space
    values = {name: space[name].value(_suggest(trial, name, space[name])) for name in names}
    curves: dict[str, list[float]] = {}

    def watch(fold: int, epoch: int, best: float) -> None:
        curves.setdefault(f"fold {fold}", []).append(best)
        if fold == 1:  # the first folds of all trials are compared, epoch by epoch
            trial.report(best, epoch)
            if trial.should_prune() and not declared:
                raise _Pruned

    score, note, state = None, "", TrialState.COMPLETE
    try:
        selection = folds.select({} if declared else values, watch=watch)
        score = folds.score(selection)
    except _Pruned:
        state, note = TrialState.PRUNED, f"pruned after epoch {len(curves['fold 1'])}"
    except FloatingPointError as error:
        state, note = TrialState.FAIL, str(error)
    except BaseException:
        study.tell(trial.number, state=TrialState.FAIL)
        raise
    if score is not None and not np.isfinite(score):
        score, state, note = None, TrialState.FAIL, f"the validation score is {score}"
    if note:
        trial.set_user_attr(_ERROR, note)
    study.tell(trial.number, score, state=state)
    if record is not None:
        record.log_params({**values, "declared": declared})
        record.set_tags({"trial": state.name.lower(), **({"note": note} if note else {})})
        if score is not None:
            record.log_metrics({"folds_score": score, "epochs": selection.epochs})
        record.log_dict(curves, "curves.json")


class _Pruned(Exception):
    """The trial is worse than most others at the same epoch."""


class _Folds:
    """The folds of a frozen training set, and the outputs of the learners that settings do not change."""

    def __init__(self, frozen: pd.DataFrame, model: Model) -> None:
        self.model = model
        self.frozen = frozen.copy()
        # Folds hold no test row. The targets are removed nevertheless, so that no mistake could use them.
        self.frozen[model.target] = frozen[model.target].astype(float).mask(test_rows(frozen, model))
        self._learnt: dict[tuple[int, float | None], dict[str, list[FoldOutputs]]] = {}

    def select(self, values: Mapping[str, Any], *, another: int = 0, watch: Watch = lambda *_: None) -> Selection:
        recipe = self.model.training.with_values(values)
        learnt = self._learnt.setdefault((another, recipe.half_life_days), {})
        model = replace(self._divided(another), training=replace(recipe, folds=self._divided(another).training.folds))
        return select_on_folds(self.frozen, model, another=another, watch=watch, learnt=learnt)

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
        pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for another in range(1, CONFIRMATIONS + 1):
            try:
                tuned = self.select(values, another=another)
            except FloatingPointError:
                return 0.0, 0.0  # it does not fit reliably
            declared = self.select({}, another=another)
            folds = fold_rows(self.frozen, self._divided(another), another=another)
            pairs += [(v, a, b) for (_, v), a, b in zip(folds, tuned.held_out, declared.held_out, strict=True)]

        def gain(weight: np.ndarray) -> np.ndarray:
            gains = []
            for valid, tuned, declared in pairs:
                at = np.repeat(np.arange(len(valid)), weight[cluster[valid]].astype(int))
                gains.append(objective.score(y[valid][at], tuned[at]) - objective.score(y[valid][at], declared[at]))
            return np.array([np.mean(gains)])

        point, draws = bootstrap(gain, int(cluster.max()) + 1, resamples=RESAMPLES, seed=model.training.seed)
        return float(point[0]), float(np.nanstd(draws[:, 0], ddof=1))


def _setting(recipe: Training, model: Model, name: str) -> Any:
    """The value of a setting in a recipe; for an argument of the network that it lacks, the network's default."""
    if not name.startswith(NETWORK_PREFIX):
        return getattr(recipe, name)
    argument = name.removeprefix(NETWORK_PREFIX)
    parameters = inspect.signature(model.network or tabular).parameters
    default = parameters[argument].default if argument in parameters else None
    return recipe.network_arguments.get(argument, default)


def _suggest(trial: optuna.Trial, name: str, values: Range | Choice) -> Any:
    if isinstance(values, Choice):
        return trial.suggest_categorical(name, values.labels)
    if values.whole:
        step = int(values.step) if values.step else 1
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log, step=step)
    return trial.suggest_float(name, values.low, values.high, log=values.log, step=values.step)


def _sampler(seed: int, done: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al., 2011), seeded anew for each trial."""
    import optuna

    return optuna.samplers.TPESampler(seed=1_000 * seed + done, multivariate=False)


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
