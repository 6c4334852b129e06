"""The asset ``tuning``: a search for a better recipe, whose result the next training uses.

Belongs here: running the search in MLflow, its result as a table, the check, the plots. Does not belong here: the
search itself (``search.py``), which recipe training uses (``recipe.py``).
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from assets.declaration import Model, for_workers
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model import report
from assets.lifecycle.model.candidate import network_of, select_on_folds
from assets.lifecycle.model.fitting import fit
from assets.lifecycle.model.learners.ensemble import linear_model
from assets.lifecycle.model.learners.linear import fit_linear
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.learners.trees import fit_trees
from assets.lifecycle.model.objectives import objective_of
from assets.lifecycle.model.recipe import fingerprint, format_value, format_values
from assets.lifecycle.model.search import CLEAR, SearchResult, Trial, search
from assets.lifecycle.model.training_set import fold_rows
from assets.lifecycle.model.version.bundle import model_code
from assets.lifecycle.stage import TRAINING_POOL, Check, StageOutput, TableInput, table_asset
from resources.dagster_internals import CheckResult

LEAST_TRIALS = 5
"""A result rests on at least this many scored or pruned trials, or on all of a smaller budget."""

SEARCHED = Check(
    name="searched",
    description=f"The declared recipe has a score, and at least {LEAST_TRIALS} trials (or all that the budget asks "
    "for) ended without an error.",
)


def tuning_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``tuning``."""

    class TuningConfig(dg.Config):
        """Run configuration of a search."""

        trials: int = Field(
            default=model.tuning.trials,
            ge=1,
            description="Number of recipes to try, with the declared one and those of earlier runs on the same rows.",
        )
        minutes: float = Field(
            default=model.tuning.minutes,
            gt=0,
            description="No trial begins later than this. The running trial and the confirmation of the best one end.",
        )

    def tuning(context: dg.AssetExecutionContext, training_set: pd.DataFrame) -> StageOutput:
        config = TuningConfig(**context.op_execution_context.op_config)
        mlflow, studies = context.resources.mlflow, context.resources.studies
        data_version = context.resources.tables.existing_stamp(model.key("training_set")).data_version
        name = _study_name(model, data_version, code)
        with mlflow.run(context, experiment=model.name, tags={"data_version": data_version, "study": name}) as run:
            with context.resources.compute.open(model.compute, context.log.info) as pool:
                found = search(
                    studies,
                    name,
                    training_set,
                    for_workers(model) if pool.elsewhere else model,
                    trials=config.trials,
                    minutes=config.minutes,
                    log=context.log.info,
                    open_trial=functools.partial(mlflow.child_run, run.mlflow_run_id),
                    pool=pool,
                )
            run.log_params({"study": name, "trials": len(found.trials), **_settings(model, found)})
            if found.best is not None and found.best.score is not None:
                run.log_metrics({"folds_score": found.best.score, "gain": found.gain, "gain_error": found.error})
            run.log_dict(_trials_frame(found).to_dict("records"), "trials.json")
            run_id = run.mlflow_run_id
        metric = objective_of(model.task).metric
        verdict = _verdict(found, metric)
        context.log.info(verdict)
        frame = pd.DataFrame(
            {
                "chosen": [json.dumps(found.chosen)],
                "score": [_score(found.best if found.clear else found.declared)],
                "declared_score": [_score(found.declared)],
                "gain": [found.gain],
                "gain_error": [found.error],
                "trials": [len(found.trials)],
                "study": [name],
                "declaration": [fingerprint(model)],
                "data_version": [data_version],
            }
        )
        metadata: dict[str, Any] = {
            "result": verdict,
            "chosen": found.chosen,
            "study": name,
            "trials": len(found.trials),
            "best_trials": dg.MetadataValue.md(_best_trials(found, metric)),
            "mlflow": dg.MetadataValue.url(mlflow.run_url(run_id)),
        }
        metadata |= {picture: report.inline(png) for picture, png in _plots(found, metric).items()}
        return StageOutput(frame, [_searched(found, config.trials, config.minutes)], metadata)

    features = features_of(model)
    asset = table_asset(
        model,
        "tuning",
        tuning,
        description="A search for a better recipe on the folds, on request or by schedule; `trained_model` uses its "
        "result.",
        stage="model",
        kinds={"optuna", "torch", "mlflow"},
        inputs={"training_set": TableInput(model.key("training_set"))},
        checks=[SEARCHED],
        config=TuningConfig,
        op_tags=model.training.tags,
        pool=TRAINING_POOL,
        code=[
            features.compute, network_of(model), search, select_on_folds, fold_rows, fit, linear_model, fit_linear,
            fit_trees, objective_of, tabular,
        ],
        resources={"mlflow", "studies", "compute"},
        by_day=False,
    )  # fmt: skip
    code = f"{next(iter(asset.specs)).code_version} {model_code(model)}"
    return asset


def _study_name(model: Model, data_version: str, code: str) -> str:
    """The same for the same rows, code and declaration, so that a study is continued only where trials compare."""
    text = f"{data_version} {code} {fingerprint(model)}"
    return f"{model.name}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def _searched(found: SearchResult, trials: int, minutes: float) -> CheckResult:
    """The verdict of the check; a refused result is not written, and the trials stay in the study."""
    sound = sum(trial.state != "failed" for trial in found.trials)
    failed = len(found.trials) - sound
    least = min(LEAST_TRIALS, trials)
    passed = found.declared is not None and sound >= least
    message = f"{sound} trials ended without an error, {failed} failed"
    if not passed and found.declared is None and found.trials:
        broken = next((trial.note for trial in found.trials if trial.declared), "it was not tried")
        message = f"the declared recipe has no score to compare with: {broken}"
    elif not passed:
        first = next((trial.note for trial in found.trials if trial.state == "failed"), "")
        message += f", {least} are needed; " + (
            f"the first failed because {first}; narrow the search space"
            if failed and len(found.trials) >= trials
            else f"the {minutes:g} minutes were too few: run it again to continue, or give more minutes"
        )
    return CheckResult(
        check=SEARCHED.name, passed=passed, description=message, metadata={"trials": sound, "failed": failed}
    )


def _verdict(found: SearchResult, metric: str) -> str:
    """One sentence on the result."""
    if found.best is None or found.declared is None:
        return "no result: the declared recipe has no score"
    if found.best is found.declared:
        return f"the declared recipe stays: none of {len(found.trials)} trials has a better {metric} on the folds"
    said = f"{metric} {found.gain:+.4f} ± {found.error:.4f} (standard error) when fitted again"
    if found.clear:
        return f"tuned: {format_values(found.best.values)}; {said}, against the declared recipe"
    return (
        f"the declared recipe stays: trial {found.best.number} is the best of {len(found.trials)}, but {said}, "
        f"which is not above {CLEAR:g} standard errors"
    )


def _settings(model: Model, found: SearchResult) -> dict[str, Any]:
    return {f"chosen.{name}": found.chosen.get(name, "as declared") for name in model.search_space}


def _score(trial: Trial | None) -> float:
    return float("nan") if trial is None or trial.score is None else trial.score


def _trials_frame(found: SearchResult) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"trial": t.number, "state": t.state, "score": t.score, "declared": t.declared, "note": t.note, **t.values}
            for t in found.trials
        ]
    )


def _best_trials(found: SearchResult, metric: str, most: int = 10) -> str:
    """The best trials and the declared recipe as a Markdown table."""
    ranked = sorted((t for t in found.trials if t.score is not None), key=lambda t: (-_score(t), t.number))
    shown = ranked[:most] + [trial for trial in ranked[most:] if trial.declared]
    names = list(dict.fromkeys(name for trial in shown for name in trial.values))
    lines = ["| " + " | ".join(["trial", metric, *names]) + " |", "|" + " --- |" * (len(names) + 2)]
    for trial in shown:
        label = f"{trial.number} (declared)" if trial.declared else str(trial.number)
        cells = [format_value(trial.values[name]) if name in trial.values else "" for name in names]
        lines.append("| " + " | ".join([label, f"{_score(trial):.4f}", *cells]) + " |")
    return "\n".join(lines)


def _plots(found: SearchResult, metric: str) -> dict[str, bytes]:
    """Draws the history of the scores and the importance of the settings, where there are enough trials."""
    drawn = {}
    complete = [trial for trial in found.trials if trial.score is not None]
    if complete:
        drawn["history"] = report.picture(lambda axes: _history(axes[0], found.trials, metric), width=7.0)
    if found.importance:
        height = 1.0 + 0.35 * len(found.importance)
        drawn["importance"] = report.picture(lambda axes: _importance(axes[0], found), width=7.0, height=height)
    return drawn


def _history(axes: Any, trials: list[Trial], metric: str) -> None:
    scored = [trial for trial in trials if trial.score is not None]
    numbers, scores = [trial.number for trial in scored], [_score(trial) for trial in scored]
    axes.scatter(numbers, scores, s=18, color=report.COLOURS[0], label="trial", zorder=3)
    axes.step(numbers, np.maximum.accumulate(scores), where="post", color=report.COLOURS[2], label="best so far")
    for trial in scored:
        if trial.declared:
            axes.axhline(_score(trial), color=report.QUIET, linestyle="--", linewidth=1, label="declared recipe")
    unscored = [trial.number for trial in trials if trial.score is None]
    if unscored:
        axes.scatter(
            unscored, [min(scores)] * len(unscored), s=18, marker="x", color=report.QUIET, label="pruned or failed"
        )
    axes.set(xlabel="trial", ylabel=f"{metric} on the folds")
    axes.legend(fontsize=8, frameon=False)


def _importance(axes: Any, found: SearchResult) -> None:
    ranked = sorted(found.importance.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ranked], [share for _, share in ranked], color=report.COLOURS[0])
    axes.set(xlabel="share of the variation of the score")
