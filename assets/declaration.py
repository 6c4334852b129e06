"""Model declarations: the frozen, typed dataclasses from which the lifecycle builds every asset.

Belongs here: the fields a fork may set, their defaults, and the validation that rejects values that cannot work.
Does not belong here: anything that computes (``assets/lifecycle``) or names a concrete model (``assets/models``).
"""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import dagster as dg
import numpy as np

from assets.forecast import Forecast
from assets.knowledge import Answers, wrong_answers
from assets.language import Language
from assets.metrics import DEFAULT_METRIC, METRICS, gate_metrics
from assets.personal import METADATA, wrong_tags
from assets.ranking import Ranking
from assets.search_space import (
    DEFAULT_NETWORK_ARGUMENTS,
    DEFAULT_NETWORK_SPACE,
    DEFAULT_SPACE,
    LANGUAGE_NETWORK_ARGUMENTS,
    NETWORK_PREFIX,
    SEARCHABLE,
    Choice,
    Range,
    Space,
    Tuning,
)
from assets.surge import Surge
from assets.task import BINARY, NUMBERS, Task, TaskError, TaskKind
from resources.compute import Compute
from resources.sources import Snapshot, Source, Stream

if TYPE_CHECKING:
    import pandas as pd
    import torch

Columns = Mapping[str, np.ndarray]
"""Numpy columns of equal length, by name. Features are computed from this form, in batch and for a single row."""

FeatureFunction = Callable[[Columns, np.ndarray], dict[str, np.ndarray]]
"""``(events, wanted) -> features``: see :class:`Features`."""

NetworkFactory = Callable[..., "torch.nn.Module"]
"""``(X, y) -> module``: builds a module that maps float32 ``[n, n_features]`` to outputs with the shape of ``y``. It
may set parameters of its structure from the rows ``X`` and ``y``. ``y`` is float32: ``[n]`` of 0 and 1, ``[n]``
standardised values, or one-hot ``[n, classes]``. The outputs are logits, standardised values, or class logits. In
training mode the module may return ``[n, k]`` (or ``[n, k, classes]``) for k members, which are all fitted to the same
target. Keyword arguments come from ``Training.network_arguments``."""


LEARNERS = ("linear", "trees")
"""Learners that may join the network in the ensemble."""

MOST_NUMBERS = 10
"""Maximum number of values of a numeric column that is compared for fairness."""

LEAST_PRIVATE_BATCH = 32
"""Minimum rows per step with :class:`Privacy`. A step of 32 rows, drawn one by one, is empty once in 10^14 steps."""

FAIRNESS_FIGURES: Mapping[TaskKind, tuple[str, ...]] = {
    "binary": ("selection_rate", "true_positive_rate", "false_positive_rate"),
    "multiclass": ("accuracy",),
    "regression": ("mean_error",),
    "ranking": (),
}
"""The figures that are compared between groups, by kind of target."""

GateMode = Literal["enforce", "advise"]
"""Whether the gate refuses a candidate or only warns."""


DriftSource = Literal["table", "requests"]
"""Rows that the drift check compares."""


class DeclarationError(dg.DagsterInvalidDefinitionError):
    """A declaration that cannot work. The message gives the model, the field, the value and the fix."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The input table of a model.

    Args:
        name: name of the cleaned table's asset, e.g. ``payments``; the raw table's asset is ``raw_payments``.
        source: where rows come from: a :class:`~resources.sources.Stream` (lands one day at a time), a
            :class:`~resources.sources.Snapshot` (one whole table), or the key of any asset of the graph.
        key: column that identifies a row.
        contract: pandera model of the *cleaned* rows; it defines their types, documents them, and refuses invalid rows.
        clean: ``raw text rows -> typed rows``, with the same index and at least the contract's columns. Values that it
            cannot parse become missing, and the contract then refuses them. Default: types the columns by the contract.
        time: event time column (UTC, naive); ``None`` for a table without event time.
        start: first day that may have rows; required with ``time``.
        late_days: a row may land at most this many days after its event day; later rows are quarantined.
        max_refused: maximum share of a landing that may be quarantined; above it, the whole landing is refused.
        quiet_days: whether a day without rows is normal; if not, an empty landing is refused.
        source_down_hours: hours for which the source of a stream may be unavailable before an alert opens; its days are
            requested again in the meantime. 0 opens the alert at once.
        of: name of the model whose table this is, for a second model on the same rows. It lands and is cleaned once, by
            that model. Leave out the source, and declare the rest as that model does; a difference is refused. A target
            whose labels land later may be a column of one contract only.
        raw_tags: tags of columns of the raw table that are not in the contract, or have another name there, e.g.
            ``{"E-Mail": personal("email")}``; see ``assets/personal.py``. Columns of the contract are tagged there.
    """

    name: str
    source: Source | dg.AssetKey = None  # type: ignore[assignment] # required unless `of` is given
    key: str
    contract: type[Any]
    clean: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    time: str | None = None
    start: dt.date | None = None
    late_days: int = 3
    max_refused: float = 0.05
    quiet_days: bool = False
    source_down_hours: float = 6.0
    of: str = ""
    raw_tags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets that belong to the table; models that share the table share these."""
        return (f"raw_{self.name}", self.name, "quarantine", "raw_labels")

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names of the contract, in the contract's order."""
        return tuple(self.contract.to_schema().columns)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Point-in-time features: one function for training, batch scoring and the endpoint.

    ``compute(events, wanted)`` receives the cleaned table's columns plus ``label`` (float; NaN where unknown) as arrays
    of equal length in any order, and the integer positions of the rows to compute. It returns one float32 array of
    ``len(wanted)`` per feature. For each row, it must use only the row itself, rows of strictly earlier seconds, and
    labels of rows at least ``label_delay_days`` older. The ``features`` asset's check and the property tests enforce
    this.

    Args:
        compute: the feature function; its module may depend only on its model folder, numpy and pandas.
        lookback_days: number of days before a row that ``compute`` reads, labels included.
        names: feature names, in the order of the network's inputs.
        entities: columns whose past rows are enough to compute a row's features (the endpoint keeps only these rows).
        calendar: features that follow the calendar; drift checks leave them out.
        words: features that hold word numbers (``assets/lifecycle/data/text.py``), one block of them per text. The
            network's text encoder reads them; drift checks leave them out.
        origins: for each of ``names``, the name under which it is explained. Features with the same name, e.g. the
            words of a text or the categories of a column, are explained as one. Default: each word number under the
            part of its name before ``#``, and each other feature under its own name.
        reads: columns of the table that ``compute`` reads, ``label`` aside; default: all of the contract.
        parts: for a lookback that does not fit into memory: by entity column, the function of the values that need the
            past of this entity alone. ``(events, wanted) -> values`` as ``compute``; each gets a shard of the entities.
        join: ``(own, values) -> features``: the features of the wanted rows, ``[wanted]`` each, from their own columns
            and the values of all ``parts``. It must agree with ``compute``, which the ``features`` asset checks.
    """

    compute: FeatureFunction
    lookback_days: int
    names: tuple[str, ...]
    entities: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    parts: Mapping[str, FeatureFunction] = field(default_factory=dict)
    join: Callable[[Columns, dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None

    @property
    def explained(self) -> tuple[str, ...]:
        """For each of ``names``, the name under which it is explained."""
        word_features = set(self.words)
        return self.origins or tuple(name.partition("#")[0] if name in word_features else name for name in self.names)

    @property
    def compared(self) -> list[str]:
        """Names of the features that drift checks compare."""
        return [name for name in self.names if name not in {*self.calendar, *self.words}]

    @property
    def word_positions(self) -> list[int]:
        """Positions in ``names`` of the features that hold word numbers."""
        word_features = set(self.words)
        return [i for i, name in enumerate(self.names) if name in word_features]


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Differential privacy of the network's weights, with ``pip install 'assetline[privacy]'``; see docs/privacy.md.

    With it, the network is fitted alone and for all of ``Training.max_epochs``, because boosted trees, the linear model
    and a choice of epochs on the folds would look at the rows without noise.

    Args:
        epsilon: the largest ε that the final fit may spend.
        delta: probability with which the guarantee may fail; less than 1 divided by the number of rows.
        max_grad_norm: norm to which the gradient of each row is clipped.
        repeatable: whether draws and noise follow ``Training.seed``, so that a version can be fitted again bit by bit.
            Whoever knows the seed can then subtract the noise. By default they follow a secret seed that is not kept.
    """

    epsilon: float
    delta: float
    max_grad_norm: float = 1.0
    repeatable: bool = False

    def wrong(self) -> Wrong:
        """Yields field, value and fix of what cannot work."""
        for name, least, below in (("epsilon", 0, math.inf), ("delta", 0, 1), ("max_grad_norm", 0, math.inf)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least < value < below:
                yield name, value, "give a number above 0" + (" and below 1, e.g. 1e-5" if below == 1 else "")
        if not isinstance(self.repeatable, bool):
            yield "repeatable", self.repeatable, "give True or False"


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training recipe. Windows are in days for tables with an event time.

    Tables without event time use ``holdout`` and random folds instead.

    Args:
        window_days: days of labelled rows in the training set.
        test_days: latest labelled days; they are used for reporting and never for selection.
        folds: number of earlier rolling weeks (or random folds) on which epochs, calibration and threshold are chosen.
        max_epochs: maximum number of passes over the rows that a fold may choose; default: 800,000 divided by the
            number of rows, at least 8 and at most 100 (20 with ``privacy``).
        patience: number of passes without a better validation score after which a fold stops.
        batch_size: rows per step; default: 64, 128 or 256, depending on the number of rows. With ``privacy``, the mean
            number of rows, because each step draws them; default: the power of two below a tenth of the rows, at least
            64 and at most 1,024.
        learning_rate: learning rate of AdamW; default: .006, or .003 from 20,000 rows.
        members: number of parallel networks in the default network; default: 8, or 2 from 20,000 rows, because there
            noise matters less and the same time is better spent on more steps of fewer, wider networks. With
            ``privacy``: 1.
        weight_decay: weight decay of AdamW.
        ensemble: learners that join the network in the candidate: ``linear`` (a regularised linear model), ``trees``
            (boosted trees), both or none. The folds determine the ensemble weights.
        network_arguments: keyword arguments of the network factory; those of the default network are ``blocks`` (layers
            of each member) and ``dropout``.
        half_life_days: a row that is older than another by this many days has half its weight; default: equal weights.
        seed: seed of everything random.
        holdout: share of the rows in the test set, for tables without event time.
        min_rows: minimum number of labelled rows; training refuses fewer than this (or fewer than 10 rows of a class).
        awaited: classes that may have fewer rows or none, such as one that is declared before its first label lands.
        max_rows: maximum number of rows of a training set. Of more rows some are drawn: of a binary target the
            positives and some negatives for fitting, and a share of the test rows. Probabilities are corrected for it,
            and the training set's metadata says how many rows of how many. A million rows of 50 numbers take about
            2 GB while they are fitted.
        negatives: binary targets of tables with event time: maximum number of negatives for each positive in the rows
            for fitting; ``None``: as many as there are, up to ``max_rows``.
        privacy: differential privacy of the network; default: none. It needs ``ensemble=()``.
        tags: Dagster tags of the steps that fit (``trained_model``, ``backtest``, ``tuning``), e.g.
            ``dagster-k8s/config`` with the resources of their pod. They are not part of the recipe, so new tags do not
            train a new version.
        beside: former name of ``ensemble``.
    """

    window_days: int = 28
    test_days: int = 7
    folds: int = 2
    max_epochs: int | None = None
    patience: int = 10
    batch_size: int | None = None
    learning_rate: float | None = None
    members: int | None = None
    weight_decay: float = 3e-3
    ensemble: tuple[str, ...] = LEARNERS
    network_arguments: Mapping[str, Any] = field(default_factory=dict)
    half_life_days: float | None = None
    seed: int = 0
    holdout: float = 0.2
    min_rows: int = 200
    awaited: tuple[str, ...] = ()
    max_rows: int = 1_000_000
    negatives: float | None = None
    privacy: Privacy | None = None
    tags: Mapping[str, Any] = field(default_factory=dict, repr=False)
    beside: InitVar[tuple[str, ...] | None] = None

    def __post_init__(self, beside: tuple[str, ...] | None) -> None:
        if beside is not None:
            object.__setattr__(self, "ensemble", beside)

    def with_values(self, values: Mapping[str, Any]) -> Training:
        """Returns the recipe with some settings replaced, by the keys of a search space."""
        arguments = {
            name.removeprefix(NETWORK_PREFIX): value
            for name, value in values.items()
            if name.startswith(NETWORK_PREFIX)
        }
        fields = {name: value for name, value in values.items() if not name.startswith(NETWORK_PREFIX)}
        # In the order of names, so that the same recipe has the same text.
        return replace(self, **fields, network_arguments=dict(sorted({**self.network_arguments, **arguments}.items())))

    def sized_for(self, rows: int) -> Training:
        """Returns the recipe with the defaults that depend on the number of rows filled in; declared values stay.

        Args:
            rows: number of rows to fit on.
        """
        many, private = rows >= 20_000, self.privacy is not None
        usual = 256 if rows >= 12_000 else 128 if rows >= 2_000 else 64
        # The noise of a step is shared by its rows, and each member's weights get noise of their own.
        large = min(1_024, max(64, 2 ** (rows // 10).bit_length() // 2))
        return replace(
            self,
            batch_size=self.batch_size or (large if private else usual),
            max_epochs=self.max_epochs or min(20 if private else 100, max(8, 800_000 // rows)),
            learning_rate=self.learning_rate or (3e-3 if many else 6e-3),
            members=self.members or (1 if private else 2 if many else 8),
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Contents of the report beyond the metrics that every model gets.

    Args:
        entity: column whose ``top_k`` values are reviewed each day (CP@k). A test row is removed if its entity is
            already known as positive when the row happens.
        top_k: number of entities that can be reviewed per day.
        amount: column that holds a row's amount of money; enables the cost metrics.
        slices: ``(rows) -> {slice name: boolean array}``; rows hold the table's columns, the labels and the features.
        ceiling: ``(source, events, wanted) -> probabilities`` of the best possible model, where these can be computed
            (a simulator's true posterior).
        published: values from the literature by metric (``average_precision``, ``roc_auc``, ``cp_at_k``). The report
            shows them beside the model's own values and labels them as published.
        groups: columns of the contract whose groups are compared for fairness. They need not be features. A column of
            numbers needs ``isin`` in the contract, with at most :data:`MOST_NUMBERS` values.
    """

    entity: str | None = None
    top_k: int = 100
    amount: str | None = None
    slices: Callable[[pd.DataFrame], dict[str, np.ndarray]] | None = None
    ceiling: Callable[[Source, pd.DataFrame, np.ndarray], np.ndarray] | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Requirements that a candidate must meet before it can be staged. ``docs/gate.md`` gives their error rates.

    Args:
        metric: metric to compare on the candidate's test rows: one of :func:`~assets.metrics.gate_metrics` of the
            target's kind; default: ``roc_auc`` for classes, ``r2`` for measured values.
        floor: worst value that may go live (a maximum where lower is better); default: .6 for ``roc_auc``, .1 for
            ``r2``.
        margin: non-inferiority margin, 0 or less: candidate minus champion, on the same rows, must be above this with
            95 % confidence. With 0 the candidate must be better than the champion.
        baseline_margin: candidate minus the simple baseline (a regularised linear model) must be at least this. A loss
            whose 95 % interval includes zero counts as chance and passes.
        slice_allowance: largest loss against the champion within a declared slice; one number for all slices, or by
            name of the slice (slices that are not named have no limit). A loss that may be chance passes.
        calibration_error: largest expected calibration error (ECE) of the probabilities; ``None``: no limit. An error
            that may be chance passes. Declare less where positives are rare, because the error is at most about twice
            their share. It does not apply to measured values.
        latency_ms: largest median time to score one row in one process, in milliseconds; ``None``: no limit.
        fairness: largest gap between the groups of a column in ``Evaluation.groups``, by figure:
            ``selection_rate``, ``true_positive_rate``, ``false_positive_rate`` (binary), ``accuracy`` (classes) or
            ``mean_error`` (measured values). A gap that may be chance passes.
        mode: ``enforce`` refuses a candidate that misses a requirement; ``advise`` only warns.
    """

    metric: str = ""
    floor: float = math.nan
    margin: float = -0.01
    baseline_margin: float = -0.005
    slice_allowance: float | Mapping[str, float] = 0.05
    calibration_error: float | None = 0.1
    latency_ms: float | None = 100.0
    fairness: Mapping[str, float] = field(default_factory=dict)
    mode: GateMode = "enforce"

    def allowance(self, name: str) -> float | None:
        """Returns the largest loss within a slice; ``None`` if it has no limit."""
        if isinstance(self.slice_allowance, Mapping):
            return self.slice_allowance.get(name)
        return self.slice_allowance


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's approval, which a candidate needs after the gate and before it goes live.

    Args:
        by: who decides: ``team:…``, or the e-mail address of one person; then only this person may decide.
        four_eyes: whether the person who trained the version may not approve it.
        expires_days: number of days in which the version has to be approved and promoted.
    """

    by: str
    four_eyes: bool = True
    expires_days: float = 7


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a new version takes over from the one in production: first a copy of the requests, then a growing share.

    While a rollout lasts, both versions score every row, and one of them answers. A step ends when the compared rows
    show that all figures are within their limits. The version is taken back as soon as they show that one is not, or
    when the step takes too long. ``docs/rollout.md`` gives the error rates of these decisions.

    Args:
        shadow_rows: rows that the version scores as a copy before it answers any; 0: none.
        steps: shares of the entities that the version answers, in ascending order, above 0 and below 1. After the last
            one it is promoted. A row's entity is the first of ``features.entities``, otherwise its key.
        rows: compared rows that each of these steps needs.
        minutes: least duration of a step.
        hours: longest duration of a step; after it the version is taken back.
        errors: largest share of rows that the version may fail to score.
        latency: largest 95th percentile of the processor time to score a request, as a multiple of the time of the
            version in production.
        score_shift: largest difference of the mean score, in standard deviations of the scores of the version in
            production (for classes: the largest of all classes).
        margin: what the version may lose of the gate's metric on rows whose labels are known, 0 or less.
        labelled_rows: fewest rows with labels from which on the margin counts.
    """

    shadow_rows: int = 500
    steps: tuple[float, ...] = (0.05, 0.25, 0.5)
    rows: int = 500
    minutes: float = 30.0
    hours: float = 72.0
    errors: float = 0.01
    latency: float = 1.5
    score_shift: float = 0.25
    margin: float = -0.02
    labelled_rows: int = 500


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How a window of rows is compared with the champion's reference profile.

    A window is one or more days, or all current rows of a table without event time.

    Args:
        source: which rows are compared: those of the ``table``, once they have landed, or the ``requests`` that the
            scoring service answered on a day. Requests need a table with `time`.
        columns: features to compare; default: all except the calendar features.
        alpha: family-wise error rate of one window, divided among the columns (Bonferroni).
        page_alpha: family-wise error rate for a page. The pooled rows of ``page_after`` consecutive windows, or each of
            these windows alone, must be significant at this level.
        min_effect: smallest effect that counts: the K-S distance, or total variation for categories.
        min_importance: a column never pages if its effect on the score is below this share of the most important
            column's effect.
        min_rows: a window with fewer rows also includes the days before it; if it still has fewer, it is not compared.
        window_days: maximum number of days in a window.
        max_rows: number of rows sampled from each side before Evidently compares them.
        page_after: number of consecutive windows with drift in the same column after which a warning becomes a page.
        missing: increase in a column's share of missing values that counts as a fault.
        new: share of rows with a category that the reference does not contain that counts as a fault.
        outside: share of rows outside the reference's range that counts as a fault.
        volume: minimum number of rows of a day, as a share of the usual number on its weekday; the maximum is its
            inverse.
    """

    source: DriftSource = "table"
    columns: tuple[str, ...] | None = None
    alpha: float = 0.03
    page_alpha: float = 0.01
    min_effect: float = 0.05
    min_importance: float = 0.05
    min_rows: int = 300
    window_days: int = 7
    max_rows: int = 50_000
    page_after: int = 2
    missing: float = 0.05
    new: float = 0.005
    outside: float = 0.01
    volume: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the model card says that no run can know. The card says "not declared" where a field is empty.

    Args:
        intended_use: what the scores are for, and who acts on them.
        limits: where the model must not be used, and what it cannot know, one sentence each.
        contact: whom to ask; default: the model's owner.
    """

    intended_use: str = ""
    limits: tuple[str, ...] = ()
    contact: str = ""


@dataclass(frozen=True, kw_only=True)
class Compliance:
    """What only people know of the questions that ``assetline compliance`` answers; "not known" where it is empty.

    Texts, shown as they are. Nothing checks whether they are true, or whether they suffice.

    Args:
        controller: who decides about the processing: name and address, also of a representative or joint controller.
        contact: how to reach the controller or the data protection officer.
        purpose: what the personal data are processed for.
        legal_basis: why that is allowed.
        people: whose data they are, e.g. customers with a card.
        recipients: who receives data or scores.
        transfers: transfers to third countries or international organisations, with the safeguards; or that there are
            none.
        time_limits: when which data are to be erased.
        provider: who provides the AI system.
        metrics: why the metrics of the gate suit the purpose.
        risks: where the risk management is described.
        standards: the harmonised standards that were applied, or what was done instead.
        declaration: where the EU declaration of conformity is kept.
        monitoring: where the plan for monitoring in use is described.
    """

    controller: str = ""
    contact: str = ""
    purpose: str = ""
    legal_basis: str = ""
    people: str = ""
    recipients: str = ""
    transfers: str = ""
    time_limits: str = ""
    provider: str = ""
    metrics: str = ""
    risks: str = ""
    standards: str = ""
    declaration: str = ""
    monitoring: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model. All fields except ``name``, ``table`` and ``target`` have defaults that suit a table without event time.

    Args:
        name: key prefix of its assets and name of its registered model; ``[a-z][a-z0-9_]*``.
        table: the input table.
        target: column that holds the truth. The contract determines its kind: a boolean or two ``isin`` values (the
            probability is that of the second value), more ``isin`` values (classes), or a number. Labels that land
            later are 0 or 1; those of a nullable column of the contract are its classes or its numbers.
        owner: ``team:…`` or an e-mail address.
        description: one sentence for the UI.
        label_delay_days: days after a row's event until its label lands; 0 means that the label is in the table.
        features: point-in-time features; default: the contract's columns, encoded.
        network: function that builds the torch module; default: that of
            ``assets/lifecycle/model/learners/networks.py``.
        language: a pretrained language model that reads the free text of the table; see
            :class:`~assets.language.Language`. ``None``: free text is read as words.
        forecast: the target is a measured value that is forecast some time ahead; see
            :class:`~assets.forecast.Forecast`.
        answers: answers to the questions of a model whose classes are intents; see :class:`~assets.knowledge.Answers`.
            ``None``: it says the intent only.
        ranking: makes the model a ranking of items for users: see :class:`~assets.ranking.Ranking`. ``target`` is then
            its column of events.
        accepted_leaks: ``{column: reason}`` for columns (or features) that the leakage check would refuse; the reason
            says why the value is known when a row is scored.
        training, evaluation, gate, drift: see :class:`Training`, :class:`Evaluation`, :class:`Gate`, :class:`Drift`.
        surge: counts by topic and the check for a class that rises on one; see :class:`~assets.surge.Surge`.
        approval: a person's approval before a candidate goes live; ``None``: it goes live if the gate passes.
        rollout: how a new version takes over; ``None``: it answers all requests at once.
        tuning: the search for a better recipe; see :class:`~assets.search_space.Tuning`.
        retrain: cron schedule of retraining (UTC), or ``None``.
        retrain_cooldown_days: minimum number of labelled days between two trainings that drift triggers.
        review_cost: cost of reviewing one alert, in the unit of ``evaluation.amount``.
        card: see :class:`Card`.
        compliance: see :class:`Compliance`.
        compute: workers on a Ray cluster for its fits and scorings; see :class:`~resources.compute.Compute`. ``None``:
            one process, also where there is a cluster.
        targets: names of deployment targets; a candidate is staged and promoted on each, in this order. The names are
            those of ``resources/defaults.py``: ``local``, ``batch``, ``image``, ``kubernetes``.
        assets: the model's own assets; an asset with the key of a stage's asset replaces that asset.
    """

    name: str
    table: Table
    target: str
    owner: str = "team:models"
    description: str = ""
    label_delay_days: int = 0
    features: Features | None = None
    network: NetworkFactory | None = None
    language: Language | None = None
    forecast: Forecast | None = None
    answers: Answers | None = None
    ranking: Ranking | None = None
    accepted_leaks: Mapping[str, str] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    tuning: Tuning = field(default_factory=Tuning)
    evaluation: Evaluation = field(default_factory=Evaluation)
    gate: Gate = field(default_factory=Gate)
    drift: Drift = field(default_factory=Drift)
    surge: Surge | None = None
    approval: Approval | None = None
    rollout: Rollout | None = None
    retrain: str | None = None
    retrain_cooldown_days: int = 14
    review_cost: float = 2.0
    card: Card = field(default_factory=Card)
    compliance: Compliance = field(default_factory=Compliance)
    compute: Compute | None = None
    targets: Sequence[str] = ("local",)
    assets: Sequence[dg.AssetsDefinition] = ()

    def __post_init__(self) -> None:
        refuse_wrong_declaration(self)
        metric = self.gate.metric or DEFAULT_METRIC[self.task.kind]
        default = METRICS[metric].floor
        floor = default if math.isnan(self.gate.floor) and default is not None else self.gate.floor
        object.__setattr__(self, "gate", replace(self.gate, metric=metric, floor=floor))
        if self.language and self.language.fine_tune != "none":
            recipe = replace(
                self.training,
                max_epochs=self.training.max_epochs or self.language.max_epochs,
                batch_size=self.training.batch_size or self.language.batch_size,
            )
            object.__setattr__(self, "training", recipe)

    @cached_property
    def task(self) -> Task:
        """The kind of target; :data:`~assets.task.BINARY` if the target is not a column of the contract."""
        if self.ranking is not None:
            return Task("ranking", weights=self.ranking.codes)
        columns = self.table.contract.to_schema().columns
        return Task.of(columns[self.target]) if self.target in columns else BINARY

    @property
    def search_space(self) -> Space:
        """The declared search space, or the default one of the model's network."""
        if self.tuning.space is not None:
            return self.tuning.space
        return (
            DEFAULT_SPACE
            if self.network is not None or self.language is not None
            else {**DEFAULT_SPACE, **DEFAULT_NETWORK_SPACE}
        )

    @property
    def is_stream(self) -> bool:
        """Whether the model's table has an event time, and its tables therefore have day partitions."""
        return self.table.time is not None

    @property
    def entity(self) -> str | None:
        """Column of the entity that a row belongs to: the evaluation's, else the first of the features'.

        A ranking's requests name a user, so it is the user for them.
        """
        if self.ranking is not None:
            return self.ranking.user
        if self.evaluation.entity is not None:
            return self.evaluation.entity
        if self.forecast is not None:
            return self.forecast.series
        return next(iter(self.features.entities), None) if self.features else None

    @property
    def label_age(self) -> dt.timedelta:
        """How much older than a row a label must be at least, to be part of the row's features."""
        if self.forecast is not None:
            return dt.timedelta(hours=self.forecast.horizon_hours)
        return dt.timedelta(days=self.label_delay_days)

    @property
    def reads_labels(self) -> bool:
        """Whether features may be made of the labels of earlier rows."""
        return self.label_age > dt.timedelta(0)

    @property
    def gap_days(self) -> int:
        """Days between the rows of a fit and those of its test: labels that would not be known when scoring begins."""
        return max(self.label_delay_days, self.forecast.horizon_days if self.forecast else 0)

    def key(self, asset: str) -> dg.AssetKey:
        """Returns the asset key of one of the model's assets; those of a shared table have the other model's name."""
        return dg.AssetKey([self.lander if asset in self.table.assets else self.name, asset])

    @property
    def lander(self) -> str:
        """Name of the model that lands and cleans the table: this one, or the one that the table belongs to."""
        return self.table.of or self.name


def for_workers(model: Model) -> Model:
    """Returns the declaration as workers of a cluster get it.

    It has no source, which may hold a password, and none of its own assets, which workers do not need.
    """
    return replace(model, table=replace(model.table, source=model.key("elsewhere")), assets=())


def refuse_wrong_declaration(model: Model) -> None:
    """Validates a declaration.

    Raises:
        DeclarationError: a value cannot work; the message names the first such value and its fix.
    """
    parts = (
        _wrong_names, _wrong_table, _wrong_columns, _wrong_features, _wrong_training, _wrong_tuning, _wrong_gate,
        _wrong_drift, _wrong_crons, _wrong_groups, _wrong_approval, _wrong_rollout, _wrong_card,
        _wrong_compliance, _wrong_targets, _wrong_compute, _wrong_language, _wrong_forecast, _wrong_ranking,
        _wrong_surge, wrong_answers, wrong_tags,
    )  # fmt: skip
    for part in parts:
        for field_name, value, mend in part(model):
            raise DeclarationError(f"model '{model.name}': {field_name}={value!r} is invalid: {mend}")


def refuse_another_topic(model: Model, topics: Model) -> None:
    """Validates the model that ``surge.topics`` names: it predicts classes of the same rows.

    Raises:
        DeclarationError: it does not; the message names the reason.
    """
    mend = ""
    if topics.lander != model.lander:
        mend = f"'{topics.name}' has another table; declare it with Table(of='{model.lander}')"
    elif topics.task.kind != "multiclass":
        mend = f"'{topics.name}' has a {topics.task.kind} target; a topic is one of several classes"
    if mend:
        raise DeclarationError(f"model '{model.name}': surge.topics={topics.name!r} is invalid: {mend}")


def refuse_another_table(model: Model, owner: Model) -> None:
    """Validates a shared table: the declarations of both models describe the same rows.

    Args:
        model: the model whose table names ``owner`` with ``of``.
        owner: the model that lands the table.

    Raises:
        DeclarationError: they differ; the message names the first difference.
    """
    for field_name, value, mend in _other_than(model, owner):
        raise DeclarationError(f"model '{model.name}': {field_name}={value!r} is invalid: {mend}")


Wrong = Iterator[tuple[str, object, str]]
"""Field, value, and the fix."""


def _wrong_names(model: Model) -> Wrong:
    names = {"name": model.name, "table.name": model.table.name, "table.of": model.table.of or model.name}
    for name, value in names.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
            yield name, value, "use lower-case letters, digits and _, beginning with a letter"
    if not (model.owner.startswith("team:") or "@" in model.owner):
        yield "owner", model.owner, "use 'team:name' or an e-mail address"


def _wrong_table(model: Model) -> Wrong:
    table = model.table
    if (table.time is None) != (table.start is None):
        yield "table.start", table.start, "give the day its rows start if the table has `time`, and only then"
    if isinstance(table.source, Stream) and not model.is_stream:
        yield "table.source", type(table.source).__name__, "a Stream needs a table with `time`"
    if isinstance(table.source, Snapshot) and model.is_stream:
        yield "table.source", type(table.source).__name__, "a Snapshot needs a table without `time`"
    if table.of == model.name:
        yield "table.of", table.of, "name the other model that the table belongs to, or leave it out"
    if table.of and table.source is not None:
        yield (
            "table.source",
            type(table.source).__name__,
            f"leave it out, because the model '{table.of}' lands the rows",
        )
    if not table.of and table.source is None:
        yield "table.source", None, "say where the rows come from, or name the model whose table it is with `of`"
    if table.source_down_hours < 0:
        yield "table.source_down_hours", table.source_down_hours, "give 0 or more hours"
    if model.label_delay_days < 0 or (model.label_delay_days and not model.is_stream):
        yield (
            "label_delay_days",
            model.label_delay_days,
            "give 0 or more days; more than 0 needs a table with `time`",
        )


_COMPARED = ("name", "key", "time", "start", "late_days", "max_refused", "quiet_days", "raw_tags")
"""Fields that both declarations of a shared table have; the other model's `source_down_hours` counts."""


def _other_than(model: Model, owner: Model) -> Wrong:
    table, its = model.table, owner.table
    if its.of:
        yield "table.of", table.of, f"name the model that lands the table: '{its.of}'"
    for name in _COMPARED:
        if getattr(table, name) != getattr(its, name):
            mend = f"'{owner.name}', whose table it is, declares {getattr(its, name)!r}; declare the same"
            yield f"table.{name}", getattr(table, name), mend
    if table.contract is its.contract:
        mend = "write the contract into the model's own folder, because each version keeps its folder"
        yield "table.contract", table.contract.__name__, mend
    now, there = (one.contract.to_schema() for one in (table, its))
    late = {one.target for one in (model, owner) if one.label_delay_days}
    for name in sorted((now.columns.keys() ^ there.columns.keys()) - late):
        yield f"table.contract, column '{name}'", name in now.columns, f"'{owner.name}' declares other columns; compare"
    for name, column in now.columns.items():
        if name in there.columns and _described(column) != _described(there.columns[name]):
            mend = f"'{owner.name}', whose table it is, declares {_described(there.columns[name])}; declare the same"
            yield f"table.contract, column '{name}'", _described(column), mend
    if _described(now) != _described(there):
        yield "table.contract", table.contract.__name__, f"'{owner.name}' checks its whole rows otherwise; compare"
    if table.clean is not its.clean and _code(table.clean) != _code(its.clean):
        yield (
            "table.clean",
            getattr(table.clean, "__name__", None),
            f"'{owner.name}' cleans its rows otherwise; compare",
        )
    if model.label_delay_days and model.label_delay_days != owner.label_delay_days:
        mend = f"the labels of '{owner.name}' land {owner.label_delay_days} days after their row; give the same"
        yield "label_delay_days", model.label_delay_days, f"{mend}, or 0 if the target is a column of the table"


def _described(part: Any) -> str:
    """What a contract, or one of its columns, demands of a row; names of classes and descriptions demand nothing."""
    given = [(check.name, dict(check.statistics or {})) for check in part.checks]
    rules = [f"{name}({', '.join(f'{key}={value}' for key, value in of.items())})" for name, of in given]
    flags = [name for name in ("nullable", "unique", "coerce", "required", "strict") if getattr(part, name, None)]
    tags = [f"{METADATA}={tag}"] if (tag := (getattr(part, "metadata", None) or {}).get(METADATA)) else []
    return ", ".join([str(part.dtype), *flags, *sorted(rules), *tags])


def _code(function: Any) -> str:
    """The code of a function without its comments and layout; what it is called where its code cannot be read."""
    try:
        return ast.dump(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):
        return repr(function)


def _wrong_columns(model: Model) -> Wrong:
    columns = model.table.columns
    named = {
        "table.key": model.table.key,
        "table.time": model.table.time,
        "evaluation.entity": model.evaluation.entity,
        "evaluation.amount": model.evaluation.amount,
    }
    for name, column in named.items():
        if column is not None and column not in columns:
            yield name, column, f"name a column of the contract: {', '.join(columns)}"
    if model.label_delay_days == 0 and model.target not in columns:
        mend = f"name a column of the contract ({', '.join(columns)}), or declare label_delay_days if labels land later"
        yield "target", model.target, mend
    try:
        _ = model.task
    except TaskError as error:
        yield "target", model.target, str(error)
    for name, reason in model.accepted_leaks.items():
        if name not in columns and name not in (model.features.names if model.features else ()):
            yield "accepted_leaks", name, f"name a column of the contract or a feature: {', '.join(columns)}"
        if not reason.strip():
            yield "accepted_leaks", {name: reason}, "say why the column is known when a row is scored"


def _wrong_groups(model: Model) -> Wrong:
    columns, groups = model.table.contract.to_schema().columns, model.evaluation.groups
    if isinstance(groups, str) or len(set(groups)) != len(groups):
        yield "evaluation.groups", groups, "name each column once, in a tuple"
        return
    for name in groups:
        if name not in columns:
            yield "evaluation.groups", name, f"name columns of the contract: {', '.join(columns)}"
        elif name in (model.table.key, model.table.time, model.target):
            yield "evaluation.groups", name, "name columns other than the key, the time and the target"
        elif str(columns[name].dtype).startswith(NUMBERS):
            allowed = [check.statistics["allowed_values"] for check in columns[name].checks if check.name == "isin"]
            if not allowed or len(allowed[0]) > MOST_NUMBERS:
                mend = (
                    f"a column of numbers needs isin=[...] in the contract with at most {MOST_NUMBERS} values; "
                    "otherwise let `clean` make a column of bands, and name that"
                )
                yield "evaluation.groups", name, mend


def _wrong_card(model: Model) -> Wrong:
    if isinstance(model.card.limits, str):
        yield "card.limits", model.card.limits, "give one sentence per limit, in a tuple"


def _wrong_compliance(model: Model) -> Wrong:
    for name, value in vars(model.compliance).items():
        if not isinstance(value, str):
            yield f"compliance.{name}", value, "give a text"


def _wrong_targets(model: Model) -> Wrong:
    targets = model.targets
    if isinstance(targets, str) or not targets or len(set(targets)) != len(targets):
        yield "targets", targets, "name each target once, and at least one, in a tuple: ('local',)"


def _wrong_compute(model: Model) -> Wrong:
    for name, value, mend in model.compute.wrong() if model.compute else ():
        yield f"compute.{name}", value, mend


def _wrong_language(model: Model) -> Wrong:
    if model.language is None:
        return
    for name, value, mend in model.language.wrong():
        yield f"language.{name}", value, mend
    if model.network is not None:
        yield "language", model.language.model, "give either `network` or `language`, because each is a network"
    if model.features is not None:
        yield (
            "language",
            model.language.model,
            "leave out `features`, because the language model reads the table's text",
        )


def _wrong_forecast(model: Model) -> Wrong:
    forecast, table = model.forecast, model.table
    if forecast is None:
        return
    for name, value, mend in forecast.wrong(table.columns, (table.key, table.time, model.target)):
        yield f"forecast.{name}", value, mend
    if not model.is_stream:
        yield "forecast", forecast.series, "declare `table.time`, the time of each measurement, and `table.start`"
    if model.target not in table.columns or model.task.kind != "regression":
        yield "target", model.target, "a forecast needs a column of measured values in the contract"
    if model.features is not None or model.language is not None:
        yield "forecast", forecast.series, "leave out `features` and `language`; a forecast has features of its own"


def _wrong_ranking(model: Model) -> Wrong:
    if (ranking := model.ranking) is None:
        return
    for name, value, mend in ranking.wrong(model.table.columns):
        yield f"ranking.{name}", value, mend
    if model.target != ranking.event:
        yield "target", model.target, f"name the column of events, '{ranking.event}', which is what is predicted"
    if not model.is_stream:
        yield "table.time", None, "a ranking is trained on earlier events and tested on later ones; name their time"
    if model.label_delay_days:
        yield "label_delay_days", model.label_delay_days, "leave it out, because an event is its own label"
    if model.features is None or ranking.user not in model.features.entities:
        yield "features", None, f"declare what drift compares, with entities=('{ranking.user}',)"
    if model.tuning.schedule is not None:
        yield "tuning.schedule", model.tuning.schedule, "leave it out, because a ranking is not searched"
    for name in ("network", "language", "compute", "rollout"):
        if getattr(model, name) is not None:
            yield name, "given", "leave it out, because a ranking has towers and a ranking network of its own"


def _wrong_surge(model: Model) -> Wrong:
    if (surge := model.surge) is None:
        return
    for name, value, mend in surge.wrong():
        yield f"surge.{name}", value, mend
    if not model.is_stream:
        yield "surge", surge.value, "it counts by day, so the table needs `time` and `start`"
    if model.task.kind != "multiclass":
        yield "surge.value", surge.value, f"it counts a predicted class, and a {model.task.kind} target has none"
    elif surge.value not in model.task.names:
        yield "surge.value", surge.value, f"name a class of the target: {', '.join(model.task.names)}"
    if surge.column and surge.column not in model.table.columns:
        yield "surge.column", surge.column, f"name a column of the contract: {', '.join(model.table.columns)}"
    if surge.topics == model.name:
        yield "surge.topics", surge.topics, "name another model on the same table, which predicts the topic"


def _wrong_features(model: Model) -> Wrong:
    features = model.features
    if features is None:
        return
    if len(inspect.signature(features.compute).parameters) != 2:
        yield "features.compute", features.compute.__name__, "it must take (events, wanted); see Features"
    if not features.names or len(set(features.names)) != len(features.names):
        yield "features.names", features.names, "name each feature once, and at least one"
    if features.origins and len(features.origins) != len(features.names):
        yield "features.origins", features.origins, f"give one for each of the {len(features.names)} names, or none"
    for unknown in (set(features.calendar) | set(model.drift.columns or ())) - set(features.names):
        yield "features.calendar / drift.columns", unknown, f"name declared features: {', '.join(features.names)}"
    for unknown in set(features.entities) - set(model.table.columns):
        yield "features.entities", unknown, f"name columns of the contract: {', '.join(model.table.columns)}"
    for unknown in set(features.reads) - set(model.table.columns):
        yield "features.reads", unknown, f"name columns of the contract: {', '.join(model.table.columns)}"
    if features.parts and set(features.parts) != set(features.entities):
        yield "features.parts", tuple(features.parts), "give one function for each of `entities`, or none"
    if bool(features.parts) != (features.join is not None):
        yield "features.join", features.join, "give `parts` and `join` together: one needs the other"


def _wrong_training(model: Model) -> Wrong:
    for name, value, mend in _wrong_recipe(model.training, model):
        yield f"training.{name}", value, mend


def _wrong_recipe(training: Training, model: Model) -> Wrong:
    ensemble, half_life = training.ensemble, training.half_life_days
    if not set(ensemble) <= set(LEARNERS) or len(set(ensemble)) != len(ensemble):
        yield "ensemble", ensemble, "name 'linear', 'trees', both or none, in a tuple"
    if half_life is not None and not (half_life > 0 and model.is_stream):
        yield "half_life_days", half_life, "give more than 0 days, and only with `table.time`"
    for name in ("batch_size", "members", "max_epochs", "patience"):
        value = getattr(training, name)
        if value is not None and not (isinstance(value, int) and value >= 1):
            yield name, value, "give a whole number of at least 1"
    if unknown := [name for name in training.awaited if name not in model.task.names]:
        yield "awaited", tuple(unknown), f"name classes of the target: {', '.join(model.task.names) or 'it has none'}"
    if not (isinstance(training.max_rows, int) and training.max_rows >= training.min_rows):
        yield "max_rows", training.max_rows, f"give a whole number of at least min_rows, {training.min_rows}"
    negatives, can_draw = training.negatives, model.is_stream and model.task.kind == "binary"
    if negatives is not None and not (negatives > 0 and can_draw):
        yield (
            "negatives",
            negatives,
            "give more than 0 for each positive, and only for a binary target with `table.time`",
        )
    rate, decay = training.learning_rate, training.weight_decay
    if rate is not None and not (isinstance(rate, int | float) and rate > 0):
        yield "learning_rate", rate, "give a number above 0"
    if not (isinstance(decay, int | float) and decay >= 0):
        yield "weight_decay", decay, "give a number of at least 0"
    if training.privacy is not None:
        yield from _wrong_privacy(training.privacy, training, model)
    known = _network_arguments(model)
    for name in training.network_arguments:
        if known is not None and name not in known:
            yield f"network_arguments['{name}']", training.network_arguments[name], _mend_of_argument(known)


def _wrong_privacy(privacy: Privacy, training: Training, model: Model) -> Wrong:
    if not isinstance(privacy, Privacy):
        yield "privacy", privacy, "give Privacy(epsilon=…, delta=…)"
        return
    for name, value, mend in privacy.wrong():
        yield f"privacy.{name}", value, mend
    if training.ensemble:
        yield (
            "ensemble",
            training.ensemble,
            "give () with `privacy`, because trees and the linear model are not private",
        )
    if training.half_life_days is not None:
        yield (
            "half_life_days",
            training.half_life_days,
            "leave it out with `privacy`, because one row would change the weights of all others",
        )
    if training.batch_size is not None and training.batch_size < LEAST_PRIVATE_BATCH:
        yield (
            "batch_size",
            training.batch_size,
            f"give at least {LEAST_PRIVATE_BATCH} with `privacy`, because a step that draws its rows must not be empty",
        )
    if model.language is not None:
        yield "privacy", privacy, "leave it out with `language`, because a language model is not fitted privately"
    if model.compute is not None and model.compute.data_parallel:
        yield "privacy", privacy, "give compute.data_parallel=False, because a private fit runs in one process"


def _network_arguments(model: Model) -> tuple[str, ...] | None:
    """The keyword arguments of the network's factory after ``X`` and ``y``; ``None`` if it takes any."""
    network = model.network
    if network is None:
        return LANGUAGE_NETWORK_ARGUMENTS if model.language else DEFAULT_NETWORK_ARGUMENTS
    parameters = list(inspect.signature(network).parameters.values())
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [parameter.name for parameter in parameters if parameter.kind in positional][:2]
    variadic = inspect.Parameter.VAR_POSITIONAL
    return tuple(one.name for one in parameters if one.name not in taken and one.kind is not variadic)


def _mend_of_argument(known: tuple[str, ...]) -> str:
    return f"name a keyword argument of the network: {', '.join(known) or 'it has none'}"


def _wrong_tuning(model: Model) -> Wrong:
    tuning, known = model.tuning, _network_arguments(model)
    if not model.search_space:
        yield "tuning.space", {}, "name at least one setting to search"
    for name, values in model.search_space.items():
        where = f"tuning.space['{name}']"
        if name.startswith(NETWORK_PREFIX):
            if known is not None and name.removeprefix(NETWORK_PREFIX) not in known:
                yield where, values, _mend_of_argument(known)
        elif name not in SEARCHABLE:
            yield where, values, f"name one of {', '.join(SEARCHABLE)}, or network.<argument>"
            continue
        if not isinstance(values, Range | Choice):
            yield where, values, "give a Range(low, high) or a Choice(value, …)"
            continue
        if values.problem:
            yield where, values, values.problem
            continue
        for value in values.samples:
            for _, _, mend in _wrong_recipe(model.training.with_values({name: value}), model):
                yield where, value, mend
    if not (isinstance(tuning.trials, int) and tuning.trials >= 1):
        yield "tuning.trials", tuning.trials, "give a whole number of at least 1"
    if not tuning.minutes > 0:
        yield "tuning.minutes", tuning.minutes, "give more than 0 minutes"


def _wrong_gate(model: Model) -> Wrong:
    kind, metric = model.task.kind, model.gate.metric or DEFAULT_METRIC[model.task.kind]
    if metric not in gate_metrics(kind):
        yield "gate.metric", metric, f"a {kind} target needs one of {', '.join(gate_metrics(kind))}"
        return
    if model.gate.metric == "cp_at_k" and (model.evaluation.entity is None or not model.is_stream):
        yield "gate.metric", model.gate.metric, "it needs `evaluation.entity` and a table with `time`"
    if math.isnan(model.gate.floor) and METRICS[metric].floor is None:
        yield "gate.floor", None, f"declare the worst {metric} that may go live"
    yield from _wrong_limits(model.gate, model)


def _wrong_limits(gate: Gate, model: Model) -> Wrong:
    if not gate.margin <= 0:
        yield "gate.margin", gate.margin, "give 0 or less: by how much a candidate may be worse than the champion"
    by_slice = gate.slice_allowance if isinstance(gate.slice_allowance, Mapping) else {"all": gate.slice_allowance}
    for value in by_slice.values():
        if not value >= 0:
            yield "gate.slice_allowance", value, "give 0 or more: by how much a slice may be worse than the champion's"
    if isinstance(gate.slice_allowance, Mapping) and model.evaluation.slices is None:
        yield "gate.slice_allowance", dict(gate.slice_allowance), "declare evaluation.slices, or give one number"
    if gate.calibration_error is not None and not 0 < gate.calibration_error < 1:
        yield "gate.calibration_error", gate.calibration_error, "give a share between 0 and 1, or None for no limit"
    if gate.latency_ms is not None and not gate.latency_ms > 0:
        yield "gate.latency_ms", gate.latency_ms, "give more than 0 milliseconds, or None for no limit"
    figures = FAIRNESS_FIGURES[model.task.kind]
    for figure, limit in gate.fairness.items():
        if figure not in figures:
            yield "gate.fairness", figure, f"a {model.task.kind} target has {', '.join(figures)}"
        elif not limit > 0:
            yield "gate.fairness", {figure: limit}, "give the largest allowed gap, more than 0"
    if gate.fairness and not model.evaluation.groups:
        yield "gate.fairness", dict(gate.fairness), "name the columns of the groups in evaluation.groups"
    if gate.mode not in get_args(GateMode):
        yield "gate.mode", gate.mode, "give 'enforce' or 'advise'"


def _wrong_drift(model: Model) -> Wrong:
    drift = model.drift
    if drift.source not in get_args(DriftSource):
        yield "drift.source", drift.source, f"choose one of {', '.join(get_args(DriftSource))}"
    if drift.source == "requests" and not model.is_stream:
        yield "drift.source", drift.source, "requests need a table with `time`; compare the landed table"
    for name in ("alpha", "page_alpha", "min_effect", "missing", "new", "outside", "volume"):
        if not 0 < getattr(drift, name) < 1:
            yield f"drift.{name}", getattr(drift, name), "give a share between 0 and 1"
    if not 0 <= drift.min_importance <= 1:
        yield "drift.min_importance", drift.min_importance, "give a share from 0 (all columns page) to 1"
    for name in ("min_rows", "window_days", "max_rows", "page_after"):
        if getattr(drift, name) < 1:
            yield f"drift.{name}", getattr(drift, name), "give a whole number of at least 1"


def _wrong_approval(model: Model) -> Wrong:
    if (approval := model.approval) is None:
        return
    if not (re.fullmatch(r"team:\S+", approval.by) or "@" in approval.by):
        yield "approval.by", approval.by, "say who decides: 'team:name' or an e-mail address"
    if not approval.expires_days > 0:
        yield "approval.expires_days", approval.expires_days, "give more than 0 days"


def _wrong_rollout(model: Model) -> Wrong:
    if (rollout := model.rollout) is None:
        return
    steps = rollout.steps
    if not all(0 < share < 1 for share in steps) or list(steps) != sorted(set(steps)):
        yield "rollout.steps", steps, "give ascending shares between 0 and 1; the version is promoted after the last"
    if not steps and not rollout.shadow_rows:
        yield "rollout.steps", steps, "give at least one share, or shadow_rows, or leave out the rollout"
    for name, least in {"shadow_rows": 0, "rows": 1, "labelled_rows": 1}.items():
        if getattr(rollout, name) < least:
            yield f"rollout.{name}", getattr(rollout, name), f"give a whole number of at least {least}"
    if not 0 <= rollout.minutes < rollout.hours * 60:
        yield "rollout.minutes", rollout.minutes, "give 0 or more minutes, and less than rollout.hours"
    if not 0 < rollout.errors < 1:
        yield "rollout.errors", rollout.errors, "give a share between 0 and 1"
    if not rollout.latency > 1:
        yield "rollout.latency", rollout.latency, "give a multiple above 1"
    if not rollout.score_shift > 0:
        yield "rollout.score_shift", rollout.score_shift, "give more than 0 standard deviations"
    if not rollout.margin <= 0:
        yield "rollout.margin", rollout.margin, "give 0 or less: by how much the version may be worse"


def _wrong_crons(model: Model) -> Wrong:
    for name, cron in {"retrain": model.retrain, "tuning.schedule": model.tuning.schedule}.items():
        if cron is None:
            continue
        try:
            dg.TimeWindowPartitionsDefinition(
                cron_schedule=cron, start=dt.datetime(2020, 1, 1), fmt="%Y", timezone="UTC"
            )
        except dg.DagsterInvalidDefinitionError:
            yield name, cron, "give a cron of five fields in UTC, e.g. '0 6 * * MON'"
