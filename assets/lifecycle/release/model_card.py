"""The model card: one page on a version for readers outside the team, and the asset ``model_card`` that stores it.

Belongs here: what the card says, from what was stored of the version, its run and the ledger; only the intended use and
the limits come from the declaration. Does not belong here: any figure that is not in ``evaluation.json``.

The Markdown text is the card. The HTML page is the same text with pictures.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.model import report as reports
from assets.lifecycle.model.details import Details
from assets.lifecycle.model.metrics import Estimate, Report
from assets.lifecycle.model.metrics.thresholds import Thresholds
from assets.lifecycle.model.version.bundle import Facts
from assets.lifecycle.stage import Check, StageOutput, TableInput, eager, table_asset
from assets.metrics import METRICS, gate_metrics
from resources.dagster_internals import CheckResult
from resources.ledger import Entry, Ledger
from resources.mlflow import MlflowTracking

WRITTEN = Check(
    name="written",
    description="The card of the version is stored with its MLflow run.",
    blocking=False,  # a version in production scores, with or without a card
)
MARKDOWN, HTML = "model_card.md", "model_card.html"
"""Artifacts of the version's MLflow run."""
NOT_DECLARED = "not declared"
NOT_COVERED = (
    "medians, means, scales and missing-value columns of the preprocessing, bin edges and known words of the "
    "network, the scale of a measured target, calibration, threshold, tuned settings, the figures of this card and "
    "of the report, and the reference profile and the rows for explanations that are in the files of the version"
)
"""What a version with differential privacy has that looked at rows without noise."""
MOST_FEATURES = 10
"""Number of features in the table of importance."""
THRESHOLDS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Thresholds in the table, as multiples of the chosen one."""


@dataclass(frozen=True)
class CardFacts:
    """What is stored of a version.

    Args:
        version: version number.
        facts: the facts of its bundle.
        tags, params: of its MLflow run.
        run_url: address of the run.
        entries: ledger entries of the version, oldest first.
        in_production: whether it is in production now.
        report: the evaluation; None if there is none.
        details: importance, groups and thresholds; None for a version evaluated before there were any.
        reasons: the gate's reasons, with ``passed`` and ``message``.
    """

    version: str
    facts: Facts
    tags: Mapping[str, str]
    params: Mapping[str, str]
    run_url: str
    entries: Sequence[Entry]
    in_production: bool
    report: Report | None
    details: Details | None
    reasons: Sequence[Mapping[str, Any]]


def read_facts(name: str, version: str, mlflow: MlflowTracking, ledger: Ledger) -> CardFacts:
    """Collects what is stored of a version.

    Raises:
        TrackingError: there is no such version.
        BundleError: its files are damaged.
    """
    run_id = mlflow.run_of_version(name, version)
    tags, params = mlflow.run_facts(run_id)
    stored = mlflow.read_json(run_id, "evaluation.json") or {}
    champion = ledger.champion(name)
    return CardFacts(
        version=version,
        facts=Facts.read(mlflow.download(name, version)),
        tags=tags,
        params=params,
        run_url=mlflow.run_url(run_id),
        entries=[entry for entry in ledger.history(name) if entry.version == version],
        in_production=champion is not None and champion.version == version,
        report=Report.from_dict(stored["report"]) if "report" in stored else None,
        details=Details.from_dict(stored["details"]) if "details" in stored else None,
        reasons=stored.get("verdict", {}).get("reasons", []),
    )


def markdown(card: CardFacts, model: Model, pictures: Mapping[str, str] | None = None) -> str:
    """Returns the card as Markdown.

    Args:
        card: what is stored of the version.
        model: the declaration, for the intended use, the limits and the contact.
        pictures: addresses of pictures by the names of ``report.PICTURES``; default: none.
    """
    parts = [f"# {model.name}, version {card.version}: model card", *_head(card, model), *_version(card, model)]
    parts += _privacy(card.facts)
    if card.report is None:
        parts += ["## Evaluation", "This version was not evaluated."]
    else:
        parts += [*_gate(card), *_figures(card.report), *_calibration(card.report), *_slices(card.report)]
    if card.details is None:
        parts += ["## Groups, thresholds and features", "This version was evaluated before the card showed them."]
    else:
        parts += [*_thresholds(card.details), *_groups(card.details), *_importance(card.details)]
    parts += _ledger(card)
    return "\n\n".join(_with_pictures(parts, pictures or {})) + "\n"


def html(card: CardFacts, model: Model) -> str:
    """Returns the card as one self-contained HTML page, with pictures."""
    from jinja2 import Environment, FileSystemLoader
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    drawn = reports.plots(card.report, details=card.details) if card.report else {}
    text = markdown(card, model, {name: reports.data_url(png) for name, png in drawn.items()})
    # HTML in names and texts stays text.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    folders = [Path(__file__).parent, Path(reports.__file__).parent]
    template = Environment(loader=FileSystemLoader(folders), autoescape=True).get_template("model_card.html")
    return template.render(title=f"{model.name}, version {card.version}: model card", body=Markup(body))


# --- The parts, each a list of Markdown blocks ---


def _head(card: CardFacts, model: Model) -> Iterator[str]:
    if model.description:
        yield _text(model.description)
    promoted = [entry for entry in card.entries if entry.action == "promote"]
    refused = [entry for entry in card.entries if entry.action == "refuse"]
    if promoted:
        last = promoted[-1]
        state = "In production" if card.in_production else "No longer in production; it was promoted"
        yield f"**{state} since {_time(last.at)}**, promoted by {_text(last.who)}: {_text(last.reason)}".replace(
            "promoted since", "promoted on"
        )
    elif refused:
        yield f"**Refused on {_time(refused[-1].at)}** by {_text(refused[-1].who)}: {_text(refused[-1].reason)}"
    else:
        yield "**Never promoted or refused.**"
    yield "## Intended use"
    yield _text(model.card.intended_use) or NOT_DECLARED
    yield "## Limits"
    yield "\n".join(f"- {_text(limit)}" for limit in model.card.limits) or NOT_DECLARED
    yield f"Contact: {_text(model.card.contact or model.owner)}"


def _version(card: CardFacts, model: Model) -> Iterator[str]:
    facts, fitted, tags = card.facts, card.facts.fitted, card.tags
    classes = f" ({', '.join(facts.classes)})" if facts.classes else ""
    commit = tags.get("git_commit", "unknown")
    if tags.get("git_dirty") == "true":
        commit += ", with uncommitted changes"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in fitted.get("shares", {}).items())
    recipe = {name: card.params[name] for name in ("window_days", "test_days", "folds", "batch_size", "learning_rate",
              "members", "half_life_days", "seed") if card.params.get(name) not in (None, "None")}  # fmt: skip
    rows = {
        "Target": f"{model.target}, {facts.head['kind']}{classes}",
        "Data version": fitted.get("data_version", tags.get("data_version", "unknown")),
        "Days of the fit": fitted.get("fit", "a random part of the table"),
        "Days of the test": fitted.get("test", f"{model.training.holdout:.0%} of the rows, drawn at random"),
        "Rows frozen for training": card.params.get("rows", "unknown"),
        "Features": str(len(facts.feature_names)),
        "Learners and their weights": shares or "network",
        "Recipe": ", ".join(f"{name} {value}" for name, value in recipe.items()) or "unknown",
        "Epochs": str(fitted.get("epochs", "unknown")),
        "Code of the model": facts.code,
        "Git commit": commit,
        "Torch": fitted.get("torch", "unknown"),
        "Dagster run": tags.get("dagster_run_id", "unknown"),
        "MLflow run": card.run_url,
    }
    yield "## Version"
    yield _table(["", ""], ([name, _text(str(value))] for name, value in rows.items()))


def _privacy(facts: Facts) -> Iterator[str]:
    spent = facts.fitted.get("privacy")
    if not spent:
        return
    yield "## Differential privacy"
    yield (
        f"**ε = {spent['epsilon']:.4g} at δ = {spent['delta']:g}** was spent on the weights of the network, of "
        f"{spent['declared_epsilon']:g} declared. It holds for one row of the training set, with its features: rows of "
        "one person, and features that other rows made, add up."
    )
    yield _table(["", ""], [
        ["Noise multiplier", f"{spent['noise_multiplier']:.4g}"],
        ["Norm to which a row's gradient is clipped", f"{spent['max_grad_norm']:g}"],
        ["Steps", f"{spent['steps']:,}"],
        ["Share of the rows that a step draws", f"{spent['sample_rate']:.2%}"],
        ["Seed of draws and noise", "the recipe's: who knows it can subtract the noise" if spent["repeatable"]
         else "drawn by the system, not kept"],
    ])  # fmt: skip
    yield f"Computed from the rows without noise, so ε does not cover it: {NOT_COVERED}."


def _gate(card: CardFacts) -> Iterator[str]:
    yield "## Gate"
    rows = ([_text(str(r["rule"])), "passed" if r["passed"] else "failed", _text(r["message"])] for r in card.reasons)
    yield _table(["Rule", "Verdict", "Result"], rows)


def _figures(report: Report) -> Iterator[str]:
    names = [name for name in gate_metrics(report.kind) if any(name in own for own in report.models.values())]
    if report.money:
        names += [name for name in ("saved", "saved_share", "alert_rate") if name in report.models[report.candidate]]
    positives = f", {report.positives:,} of them positive" if report.positives is not None else ""
    yield "## Performance"
    yield f"On {report.rows:,} test rows{positives}, which were not used to fit or to choose anything. {report.method}"
    rows = (
        [reports.SCORES.get(score, score), *(_estimate(name, own.get(name)) for name in names)]
        for score, own in report.models.items()
    )
    yield _table(["", *(METRICS[name].label for name in names)], rows)


def _calibration(report: Report) -> Iterator[str]:
    bins = report.reliability.get(report.candidate)
    if not bins:
        return
    yield "## Calibration"
    yield "Predicted and observed shares of positives, with 95 % intervals, in bins of equal expected positives."
    yield "picture:reliability"
    rows = (
        [f"{one.rows:,}", f"{one.predicted:.2%}", f"{one.observed:.2%}", f"{one.low:.2%} to {one.high:.2%}"]
        for one in bins
    )
    yield _table(["Rows", "Predicted", "Observed", "Interval"], rows)


def _slices(report: Report) -> Iterator[str]:
    yield "## Slices"
    if not report.slices:
        yield f"{NOT_DECLARED} (`Evaluation.slices`)"
        return
    names = [name for name in METRICS if any(name in part.figures for part in report.slices.values())]
    rows = (
        [_text(slice_name), f"{part.rows:,}", *(_estimate(name, part.figures.get(name)) for name in names)]
        for slice_name, part in report.slices.items()
    )
    yield _table(["Slice", "Rows", *(METRICS[name].label for name in names)], rows)


def _thresholds(details: Details) -> Iterator[str]:
    curve = details.thresholds
    if curve is None:
        return
    yield "## Threshold"
    if curve.review_cost is not None:
        yield (
            "A row is alerted when its probability times its amount is above the review cost of "
            f"{curve.review_cost:g}. For calibrated probabilities no other threshold saves more."
        )
    else:
        yield f"A row is alerted at a probability of {curve.chosen:.4g} or more, which was selected on the folds."
    yield "picture:thresholds"
    head = [f"Threshold of the {curve.by}", "Alerted", "Precision", "Recall", "F1", *(["Saved"] if curve.saved else [])]
    yield _table(head, (_threshold(curve, i) for i in _places(curve)))


def _places(curve: Thresholds) -> list[int]:
    """Positions on the curve of the multiples of the chosen threshold."""
    at = np.array(curve.threshold)
    return sorted({int(np.abs(at - curve.chosen * times).argmin()) for times in THRESHOLDS})


def _threshold(curve: Thresholds, i: int) -> list[str]:
    chosen = curve.threshold[i] == curve.chosen
    precision = curve.precision[i]
    cells = [
        f"{curve.threshold[i]:.4g}{' (in use)' if chosen else ''}",
        f"{curve.alert_rate[i]:.2%}",
        "–" if precision is None else f"{precision:.1%}",
        f"{curve.recall[i]:.1%}",
        f"{curve.f1[i]:.3f}",
        *([reports.number("saved", curve.saved[i])] if curve.saved else []),
    ]
    return [f"**{cell}**" for cell in cells] if chosen else cells


def _groups(details: Details) -> Iterator[str]:
    yield "## Fairness"
    if not details.fairness:
        yield f"{NOT_DECLARED} (`Evaluation.groups` names the columns to compare)"
        return
    yield (
        "The figures of each group, the largest difference between two of them with its 95 % interval, and the ratio "
        "of the smallest to the largest. Groups with fewer than 30 rows that count are shown and not compared."
    )
    rows = []
    for gap in details.fairness:
        groups = ", ".join(f"{_text(name)} {value:.3g} ({gap.rows[name]:,})" for name, value in gap.by_group.items())
        difference = "too few rows"
        if gap.gap is not None:
            between = f"{_text(str(gap.worst_group))} – {_text(str(gap.best_group))}"
            interval = "" if gap.low is None else f", {gap.low:.3g} to {gap.high:.3g}"
            difference = f"{gap.gap:.3g}{interval}: {between}"
        ratio = "" if gap.ratio is None else f"{gap.ratio:.2f}"
        rows.append([_text(gap.column), gap.figure.replace("_", " "), groups, difference, ratio])
    yield _table(["Column", "Figure", "By group (rows that count)", "Largest difference", "Ratio"], rows)


def _importance(details: Details) -> Iterator[str]:
    found = details.importance
    yield "## Features"
    yield (
        f"{METRICS[found.metric].label} lost on {found.rows:,} test rows when the values of a feature are exchanged "
        "among them, with 95 % intervals."
    )
    yield "picture:importance"
    rows = ([_text(name), _estimate(found.metric, one)] for name, one in list(found.lost.items())[:MOST_FEATURES])
    yield _table(["Feature", "Lost"], rows)


def _ledger(card: CardFacts) -> Iterator[str]:
    yield "## Ledger"
    if not card.entries:
        yield "The ledger has no entry of this version."
        return
    yield _table(
        ["Time (UTC)", "Action", "By", "Reason"],
        ([f"{e.at:%Y-%m-%d %H:%M}", e.action, _text(e.who), _text(e.reason)] for e in card.entries),
    )


# --- Markdown ---


def _with_pictures(parts: Iterable[str], pictures: Mapping[str, str]) -> Iterator[str]:
    for part in parts:
        if not part.startswith("picture:"):
            yield part
        elif (name := part.removeprefix("picture:")) in pictures:
            yield f"![{reports.PICTURES[name]}]({pictures[name]})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Text of others, on one line, without the signs that would end a cell or begin a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")


def _estimate(name: str, one: Estimate | None) -> str:
    if one is None:
        return "–"
    interval = reports.interval(name, one)
    return f"{reports.number(name, one.value)}{f' ({interval})' if interval else ''}"


def _time(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


# --- The asset ---


def model_card_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``model_card``."""

    def model_card(context: dg.AssetExecutionContext, trained_model: pd.DataFrame) -> StageOutput:
        mlflow, ledger = context.resources.mlflow, context.resources.ledger
        version, run_id = str(trained_model["version"].iloc[0]), str(trained_model["run_id"].iloc[0])
        text = ""
        try:
            card = read_facts(model.name, version, mlflow, ledger)
            text, page = markdown(card, model), html(card, model)
            with mlflow.reopen(run_id) as log:
                log.log_text(text, MARKDOWN)
                log.log_text(page, HTML)
            message = f"{MARKDOWN} and {HTML} are stored with the run of version {version}"
        except Exception as error:  # the check reports it; a version in production scores without a card
            context.log.exception(f"the card of version {version} of {model.name} cannot be written")
            message = (
                f"the card of version {version} cannot be written: {error}; `assetline card {model.name} --version "
                f"{version}` writes it again"
            )
            text = ""
        frame = pd.DataFrame({"version": [version], "card": [text]})
        check_result = CheckResult(check=WRITTEN.name, passed=bool(text), description=message)
        return StageOutput(frame, [check_result], {"version": version, "card": dg.MetadataValue.md(text or message)})

    return table_asset(
        model,
        "model_card",
        model_card,
        description="The model card of the promoted version, in Markdown and HTML, stored with its MLflow run.",
        stage="release",
        kinds={"mlflow"},
        inputs={"trained_model": TableInput(model.key("trained_model"))},
        checks=[WRITTEN],
        deps=[model.key("deployment")],
        automation=eager(None),
        resources={"mlflow", "ledger"},
        by_day=False,
    )
