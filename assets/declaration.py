"""What a model is: the frozen, typed declaration from which the lifecycle builds every asset.

Belongs here: the fields a fork may set, their defaults, and the refusal of values that cannot work.
Does not belong here: anything that computes (``assets/lifecycle``) or names a concrete model (``assets/models``).
"""

from __future__ import annotations

import datetime as dt
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from assets.task import BINARY, DEFAULT_FLOOR, DEFAULT_METRIC, METRICS, Task, TaskError
from resources.sources import Snapshot, Source, Stream

if TYPE_CHECKING:
    import pandas as pd
    import torch

Columns = Mapping[str, np.ndarray]
"""Equally long numpy columns by name: the form in which features are computed, in batch and for one row."""

FeatureFunction = Callable[[Columns, np.ndarray], dict[str, np.ndarray]]
"""``(events, wanted) -> features``: see :class:`Features`."""

NetworkFactory = Callable[["torch.Tensor", "torch.Tensor"], "torch.nn.Module"]
"""``(X, y) -> module`` from float32 ``[n, n_features]`` to outputs of the shape of ``y``; X, y are rows it may shape
itself on. ``y`` is float32: ``[n]`` of 0 and 1, ``[n]`` standardised values, or one-hot ``[n, classes]``. The outputs
are logits, standardised values, or logits of the classes. While it is in training mode, the module may return
``[n, k]`` (or ``[n, k, classes]``) of k members, which are all fitted to the same target."""


class DeclarationError(dg.DagsterInvalidDefinitionError):
    """A declaration that cannot work; the message names the model, the field, the value and the mend."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The table a model stands on.

    Args:
        name: name of the cleaned table's asset, e.g. ``payments``; the raw one is ``raw_payments``.
        source: where rows come from: a :class:`~resources.sources.Stream` (lands a day at a time), a
            :class:`~resources.sources.Snapshot` (one whole table), or the key of any asset of the graph.
        key: column that identifies a row.
        contract: pandera model of the *cleaned* rows; it types, documents and refuses.
        clean: ``raw text rows -> typed rows``, same index and at least the contract's columns; what it
            cannot parse becomes missing, which the contract then refuses. Default: types by the contract.
        time: event time column (UTC, naive); ``None`` for a plain table without a clock.
        start: first day there may be rows of; needed with ``time``.
        late_days: a row may land this many days after its event day; later ones are quarantined.
        max_refused: share of a landing that may be quarantined before the landing is refused as a whole.
        quiet_days: whether a day without any row is nothing unusual; otherwise an empty landing is refused.
    """

    name: str
    source: Source | dg.AssetKey
    key: str
    contract: type[Any]
    clean: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    time: str | None = None
    start: dt.date | None = None
    late_days: int = 3
    max_refused: float = 0.05
    quiet_days: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names of the contract, in its order."""
        return tuple(self.contract.to_schema().columns)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Point-in-time features: one function for training, batch scoring and the endpoint.

    ``compute(events, wanted)`` gets the cleaned table's columns plus ``label`` (float; NaN where unknown) as
    equally long arrays in any order, and the integer positions of the rows to compute. It returns one float32
    array of ``len(wanted)`` per feature. It must use, for each row, only rows of strictly earlier seconds (and
    the row itself), and only labels of rows at least ``label_delay_days`` older: the ``features`` asset's check
    and the property tests hold it to that.

    Args:
        compute: the function; its module must need nothing outside its model folder, numpy and pandas.
        lookback_days: how far back of a row ``compute`` looks, labels included.
        names: the features, in the order in which the network gets them.
        entities: columns whose past rows are enough to compute a row's features (the endpoint keeps these).
        calendar: features that follow the calendar; drift checks leave them out.
        words: features that hold word numbers (``assets/lifecycle/data/text.py``), for each text its block of them;
            they are read by the network's text encoder and compared with nothing.
    """

    compute: FeatureFunction
    lookback_days: int
    names: tuple[str, ...]
    entities: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def compared(self) -> list[str]:
        """Features that a drift check can compare."""
        return [name for name in self.names if name not in {*self.calendar, *self.words}]

    @property
    def word_positions(self) -> list[int]:
        """Where the word numbers are among the features."""
        words = set(self.words)
        return [i for i, name in enumerate(self.names) if name in words]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The recipe. Windows are in days for tables with a clock; a plain table uses ``holdout`` and random folds.

    Args:
        window_days: days of labelled rows to fit on.
        test_days: latest labelled days, which report and never select.
        folds: earlier rolling weeks (or random folds) on which epochs, calibration and threshold are chosen.
        max_epochs: most passes over the rows that a fold may choose; default: what 800,000 rows are, 8 to 100.
        patience: passes without a better figure after which a fold ends.
        batch_size: rows per step; default: 64, 128 or 256 with the number of rows.
        learning_rate: AdamW's; default: .006, or .003 from 20,000 rows on.
        members: networks side by side in the default network; default: 8, or 2 from 20,000 rows on, where noise is less
            of a danger and the same time is better spent on more steps of fewer, wider ones.
        weight_decay: AdamW's.
        beside: what stands beside the network in the candidate: ``linear`` (a regularised linear model), ``trees``
            (boosted trees), both or none. The folds settle what share each has.
        half_life_days: a row this much older than another counts half as much; default: all rows count alike.
        seed: everything random is drawn from it.
        holdout: share of a plain table that is the test rows.
        min_rows: fewer labelled rows than this (or fewer than 10 of a class) and training refuses.
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
    beside: tuple[str, ...] = ("linear", "trees")
    half_life_days: float | None = None
    seed: int = 0
    holdout: float = 0.2
    min_rows: int = 200

    def sized_for(self, rows: int) -> Training:
        """The recipe with all that follows from the number of rows to fit on settled; what is declared stays."""
        many = rows >= 20_000
        return replace(
            self,
            batch_size=self.batch_size or (256 if rows >= 12_000 else 128 if rows >= 2_000 else 64),
            max_epochs=self.max_epochs or min(100, max(8, 800_000 // rows)),
            learning_rate=self.learning_rate or (3e-3 if many else 6e-3),
            members=self.members or (2 if many else 8),
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the report shows beyond the metrics every model gets.

    Args:
        entity: column of which the ``top_k`` are looked at each day (CP@k); entities already known as
            positive when a test row happens are removed from the test rows.
        top_k: how many a day can be reviewed.
        amount: column that weighs a row in money; enables the cost metrics.
        slices: ``(rows) -> {slice name: boolean array}``; rows carry the table, the labels and the features.
        ceiling: ``(source, events, wanted) -> probabilities`` of the best possible model, where one can be
            computed (a simulator's true posterior).
        published: figures from the literature by metric (``average_precision``, ``roc_auc``, ``cp_at_k``), shown
            beside ours and labelled as published.
    """

    entity: str | None = None
    top_k: int = 100
    amount: str | None = None
    slices: Callable[[pd.DataFrame], dict[str, np.ndarray]] | None = None
    ceiling: Callable[[Source, pd.DataFrame, np.ndarray], np.ndarray] | None = None
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must pass before it may be staged.

    Args:
        metric: the metric compared, on the candidate's test rows: one of :data:`~assets.task.METRICS` of the target's
            kind; default: ``roc_auc`` for classes, ``r2`` for measured values.
        floor: worst value that may go live (a highest value where lower is better); default: .6 and .1 for these.
        margin: candidate minus champion on the same rows must be at least this.
        baseline_margin: candidate minus the simple baseline (a regularised linear model) must be at least this; a loss
            whose 95 % interval holds zero is chance, and passes.
    """

    metric: str = ""
    floor: float = math.nan
    margin: float = -0.005
    baseline_margin: float = -0.005


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How a window of rows (a day, or a plain table as it is now) is held against the champion's reference profile.

    Args:
        columns: features compared; default all but the calendar ones.
        alpha: family error rate of one window, shared among the columns (Bonferroni).
        page_alpha: that of ``page_after`` windows together, or of each, which a page asks for.
        min_effect: smallest effect that counts: the K-S distance, or total variation for categories.
        min_importance: a column that moves the score by less than this share of the most important one's never pages.
        min_rows: a window with fewer rows takes in the days before it; one that still has fewer is not judged.
        window_days: most days of a window.
        max_rows: rows sampled of each side before Evidently sees them.
        page_after: windows in a row with the same column after which a warning becomes a page.
        missing: rise of a column's share of missing values that is a fault.
        new: share of rows with a category that the reference does not know.
        outside: share of rows outside the range of the reference.
        volume: rows of a day, as a share of those usual on its weekday: fewer than this, or more than its inverse.
    """

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
class Model:
    """One model. Everything but ``name``, ``table`` and ``target`` has a default that is right for a plain table.

    Args:
        name: key prefix of its assets and name of its registered model; ``[a-z][a-z0-9_]*``.
        table: the table it stands on.
        target: column holding the truth. Its kind is read off the contract: a boolean or two ``isin`` values (the
            second is what the probability is of), more ``isin`` values (classes), or a number. Labels that land later
            are 0 or 1.
        owner: ``team:…`` or an e-mail address.
        description: one sentence for the UI.
        label_delay_days: days after a row's event until its label lands; 0 means the label is in the table.
        features: point-in-time features; default: the contract's columns, encoded.
        network: builds the torch module; default: the one of ``assets/lifecycle/model/learners/networks.py``.
        accepted_leaks: ``{column: reason}`` of columns (or features) that the leakage check would refuse, and why they
            are known when a row is scored.
        training, evaluation, gate, drift: see there.
        retrain: cron of the declared retraining (UTC), or ``None``.
        retrain_cooldown_days: labelled days between two trainings that drift asks for.
        review_cost: cost of looking at one alert, in the unit of ``evaluation.amount``.
        assets: assets of its own; one with the key of a stage's asset takes that one's place.
    """

    name: str
    table: Table
    target: str
    owner: str = "team:models"
    description: str = ""
    label_delay_days: int = 0
    features: Features | None = None
    network: NetworkFactory | None = None
    accepted_leaks: Mapping[str, str] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    gate: Gate = field(default_factory=Gate)
    drift: Drift = field(default_factory=Drift)
    retrain: str | None = None
    retrain_cooldown_days: int = 14
    review_cost: float = 2.0
    assets: Sequence[dg.AssetsDefinition] = ()

    def __post_init__(self) -> None:
        refuse_wrong_declaration(self)
        metric = self.gate.metric or DEFAULT_METRIC[self.task.kind]
        floor = DEFAULT_FLOOR[metric] if math.isnan(self.gate.floor) else self.gate.floor
        object.__setattr__(self, "gate", replace(self.gate, metric=metric, floor=floor))

    @cached_property
    def task(self) -> Task:
        """The kind of its target."""
        columns = self.table.contract.to_schema().columns
        return Task.of(columns[self.target]) if self.target in columns else BINARY

    @property
    def is_stream(self) -> bool:
        """Whether its tables have a clock, and therefore day partitions."""
        return self.table.time is not None

    def key(self, asset: str) -> dg.AssetKey:
        """Asset key of one of its assets."""
        return dg.AssetKey([self.name, asset])


def refuse_wrong_declaration(model: Model) -> None:
    """Raises :class:`DeclarationError` for the first value that cannot work, with the mend."""
    parts = (
        _wrong_names, _wrong_table, _wrong_columns, _wrong_features, _wrong_training, _wrong_gate, _wrong_drift,
        _wrong_retrain,
    )  # fmt: skip
    for part in parts:
        for field_name, value, mend in part(model):
            raise DeclarationError(f"model '{model.name}': {field_name}={value!r} cannot work: {mend}")


Wrong = Iterator[tuple[str, object, str]]
"""Field, value, and what would be right."""


def _wrong_names(model: Model) -> Wrong:
    for name, value in {"name": model.name, "table.name": model.table.name}.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
            yield name, value, "use lower-case letters, digits and _, beginning with a letter"
    if not (model.owner.startswith("team:") or "@" in model.owner):
        yield "owner", model.owner, "use 'team:name' or an e-mail address"


def _wrong_table(model: Model) -> Wrong:
    table = model.table
    if (table.time is None) != (table.start is None):
        yield "table.start", table.start, "a table with `time` needs the day its rows start, and only that one does"
    if isinstance(table.source, Stream) and not model.is_stream:
        yield "table.source", type(table.source).__name__, "a Stream goes with `time`"
    if isinstance(table.source, Snapshot) and model.is_stream:
        yield "table.source", type(table.source).__name__, "a Snapshot goes without `time`"
    if model.label_delay_days < 0 or (model.label_delay_days and not model.is_stream):
        yield (
            "label_delay_days",
            model.label_delay_days,
            "labels land later (0 or more) only where there is `time`",
        )


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


def _wrong_features(model: Model) -> Wrong:
    features = model.features
    if features is None:
        return
    if len(inspect.signature(features.compute).parameters) != 2:
        yield "features.compute", features.compute.__name__, "it takes (events, wanted): see Features"
    if not features.names or len(set(features.names)) != len(features.names):
        yield "features.names", features.names, "name each feature once, and at least one"
    for unknown in (set(features.calendar) | set(model.drift.columns or ())) - set(features.names):
        yield "features.calendar / drift.columns", unknown, f"name features: {', '.join(features.names)}"
    for unknown in set(features.entities) - set(model.table.columns):
        yield "features.entities", unknown, f"name columns of the contract: {', '.join(model.table.columns)}"


def _wrong_training(model: Model) -> Wrong:
    beside, half_life = model.training.beside, model.training.half_life_days
    if not set(beside) <= {"linear", "trees"} or len(set(beside)) != len(beside):
        yield "training.beside", beside, "name 'linear', 'trees', both or none, in a tuple"
    if half_life is not None and not (half_life > 0 and model.is_stream):
        yield "training.half_life_days", half_life, "give more than 0 days, and only where there is `table.time`"


def _wrong_gate(model: Model) -> Wrong:
    kind, metric = model.task.kind, model.gate.metric or DEFAULT_METRIC[model.task.kind]
    if metric not in METRICS[kind]:
        yield "gate.metric", metric, f"a {kind} target is held to one of {', '.join(METRICS[kind])}"
    if model.gate.metric == "cp_at_k" and (model.evaluation.entity is None or not model.is_stream):
        yield "gate.metric", model.gate.metric, "it needs `evaluation.entity` and a table with `time`"
    if math.isnan(model.gate.floor) and metric not in DEFAULT_FLOOR:
        yield "gate.floor", None, f"declare the worst {metric} that may go live"


def _wrong_drift(model: Model) -> Wrong:
    drift = model.drift
    for name in ("alpha", "page_alpha", "min_effect", "missing", "new", "outside", "volume"):
        if not 0 < getattr(drift, name) < 1:
            yield f"drift.{name}", getattr(drift, name), "give a share between 0 and 1"
    if not 0 <= drift.min_importance <= 1:
        yield "drift.min_importance", drift.min_importance, "give a share from 0 (all columns page) to 1"
    for name in ("min_rows", "window_days", "max_rows", "page_after"):
        if getattr(drift, name) < 1:
            yield f"drift.{name}", getattr(drift, name), "give a whole number from 1 on"


def _wrong_retrain(model: Model) -> Wrong:
    if model.retrain is not None:
        try:
            dg.TimeWindowPartitionsDefinition(
                cron_schedule=model.retrain, start=dt.datetime(2020, 1, 1), fmt="%Y", timezone="UTC"
            )
        except dg.DagsterInvalidDefinitionError:
            yield "retrain", model.retrain, "give a cron of five fields in UTC, e.g. '0 6 * * MON'"
