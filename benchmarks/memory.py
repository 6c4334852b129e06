"""The stages of the fraud model at 1, 10 and 100 times the published size: peak memory, and CPU seconds a million rows.

    python -m benchmarks.memory                      1 and 10 times (about 10 CPU minutes, 1.5 GB of disk)
    python -m benchmarks.memory --sizes 1 10 100     all three (about 25 CPU minutes, 4 GB of disk)
    python -m benchmarks.memory --sizes 1 --stages features

One day is landed, cleaned (with the copies of seven landings), given features (with 60 days of lookback), scored and
counted for drift; the training set is that of 63 days. Each stage runs in a process of its own on tables on disk. The
days before are made from regions of the published size (``regions.py``); at 100 times, ten copies of ten regions.

Belongs here: the stages in a bounded machine. Does not belong here: the world (``regions.py``), the speed of features
and cleaning beside other libraries (``features.py``, ``cleaning.py``).
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from assets.declaration import Training
from assets.lifecycle.data import features as features_module
from assets.lifecycle.data.event_days import in_order
from assets.lifecycle.data.features import features_of, features_of_days
from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.row_outcomes import landings
from assets.lifecycle.model.reference_rows import reference_rows
from assets.lifecycle.model.training_set import days_of_training, drawn, fit_rows
from assets.lifecycle.model.windows import history_days
from assets.models.fraud import model
from benchmarks.regions import landed, write_days
from resources.settings import one_thread_each
from resources.tables import InBatches, ParquetTables, Stamp, days_of_window

DAY = dt.date(2026, 3, 1)
"""The day that is landed, cleaned and scored."""
MOST_GIGABYTES, MOST_EXPONENT = 4.0, 1.05
"""What the stages must keep to: peak memory at every size, and the exponent of the CPU seconds in the rows."""
RAW = model.key(f"raw_{model.table.name}")
LATE = model.table.late_days


@dataclass(frozen=True)
class Figure:
    """What a stage took.

    Args:
        stage, size: the stage, and the size in published sizes.
        rows: rows of the stage's result; of the training set, the labelled rows that it is drawn from.
        cpu: CPU seconds without the start of the process.
        gigabytes: peak memory of the process.
        version: data version of the result.
    """

    stage: str
    size: int
    rows: int
    cpu: float
    gigabytes: float
    version: str


def land(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The day's landing, from rows that the simulator has made before."""
    rows = pd.read_parquet(Path(tables.root) / "source.parquet").astype("string[pyarrow]")
    stamp = tables.write(model.key("landed"), number_rows({str(DAY): rows}), str(DAY))
    return stamp.rows, stamp.data_version


def clean(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The clean rows of the day, whose copies may have landed three days before and after."""
    days = days_of_window(str(DAY), (-LATE, LATE))
    found = landings(InBatches(tables, RAW, tuple(days)), model.table, [str(DAY)], by="event")
    return _written(tables, "cleaned", in_order(found.accepted[found.first], model.table))


def features(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The features of the day."""
    back = features_of(model).lookback_days
    cleaned = InBatches(tables, model.key(model.table.name), tuple(days_of_window(str(DAY), (-back, 0))))
    labels = InBatches(tables, model.key("labels"), tuple(days_of_window(str(DAY), (-back, -model.label_delay_days))))
    found = features_of_days(model, cleaned, labels, [str(DAY)])
    assert not any(seeing for _, seeing in found.seeing.values())
    values = pd.DataFrame(found.values, columns=list(features_of(model).names))
    return _written(tables, "features_made", pd.concat([found.carried, values], axis=1))


def training_set(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The training set, drawn from the labelled rows of its days."""
    frozen, draw, counts = drawn(tables, model, days_of_training(tables, model))
    if not draw.is_all:
        print(f"training_set: {draw.told(counts)}", file=sys.stderr)
    stamp = tables.write(model.key("training_set"), frozen)
    return counts.rows, stamp.data_version


def fit(tables: ParquetTables, size: int) -> tuple[int, str]:
    """One small fit on the training set, and the reference profile of the version."""
    from assets.lifecycle.model.candidate import fit_candidate
    from assets.lifecycle.model.version.bundle import REFERENCE, Bundle
    from assets.lifecycle.prediction_format import format_of
    from assets.lifecycle.profile.reference import ReferenceProfile

    recipe = Training(folds=1, max_epochs=1, batch_size=4096, learning_rate=6e-3, ensemble=("linear",))
    small = replace(model, training=recipe)
    frozen = tables.read(model.key("training_set"))
    rows = int(fit_rows(frozen, small).sum())
    candidate = fit_candidate(frozen, small, lambda _: None)
    recent = reference_rows(tables, frozen, small)
    del frozen
    names = list(features_of(model).names)
    scores = candidate.predict(recent.features[names].to_numpy(dtype=np.float32))
    compared = [*(model.drift.columns or ()), *features_of(model).calendar]
    profile = ReferenceProfile.build(
        recent.features[compared],
        format_of(model.task).compared(scores),
        calendar=features_of(model).calendar,
        rows_of_weekday=recent.rows_of_weekday,
        entities=recent.entities,
        day=recent.day,
        unwatched=recent.features[[name for name in features_of(model).compared if name not in compared]],
        share=recent.share,
    )
    folder = Path(tables.root) / "bundle"
    Bundle.save(
        folder, module=candidate.network, model=small, feature_names=tuple(names), head=candidate.head,
        threshold=candidate.selection.threshold, fitted={},
    )  # fmt: skip
    profile.save(folder / REFERENCE)
    return rows, f"{scores.mean():.5f}"


def evaluate(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The metrics of the small model on the test rows."""
    from assets.lifecycle.model import metrics
    from assets.lifecycle.model.training_set import matrix, test_rows
    from assets.lifecycle.model.version.bundle import loaded

    frozen = tables.read(model.key("training_set"))
    rows = frozen[test_rows(frozen, model)].reset_index(drop=True)
    del frozen
    scores = loaded(Path(tables.root) / "bundle").predict(matrix(rows, model))
    found = metrics.evaluate(
        rows, {"torch": scores}, model.evaluation, target=model.target, task=model.task, time=model.table.time
    )
    return len(rows), f"{found.numbers('torch')['average_precision']:.4f}"


def score(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The scores of the day's rows."""
    from assets.lifecycle.model.version.bundle import loaded
    from assets.lifecycle.prediction_format import format_of

    rows = tables.read(model.key("features"), [str(DAY)])
    bundle = loaded(Path(tables.root) / "bundle")
    scores = bundle.predict(rows[list(features_of(model).names)].to_numpy(dtype=np.float32))
    carried = rows[[model.table.key, str(model.table.time)]]
    return _written(tables, "predictions", carried.assign(**format_of(model.task).columns(scores, None)))


def drift(tables: ParquetTables, size: int) -> tuple[int, str]:
    """The counts of the day's features and scores in the bins of the reference."""
    from assets.lifecycle.model.version.bundle import REFERENCE
    from assets.lifecycle.monitoring.drift_rule import count
    from assets.lifecycle.prediction_format import format_of
    from assets.lifecycle.profile.reference import ReferenceProfile

    reference = ReferenceProfile.load(Path(tables.root) / "bundle" / REFERENCE)
    form = format_of(model.task)
    names = list(features_of(model).names)

    def batches():
        yield from tables.batches(model.key("features"), str(DAY), names)
        for batch in tables.batches(model.key("predictions"), str(DAY), form.score_columns):
            yield pd.DataFrame(form.compared(form.scores_in(batch)))

    found = count(reference, batches())
    return found.rows, str(found.rows)


def _written(tables: ParquetTables, name: str, rows: pd.DataFrame) -> tuple[int, str]:
    stamp: Stamp = tables.write(model.key(name), rows, str(DAY))
    return stamp.rows, stamp.data_version


STAGES: dict[str, Callable[[ParquetTables, int], tuple[int, str]]] = {
    "landing": land,
    "cleaning": clean,
    "features": features,
    "training_set": training_set,
    "fit": fit,
    "evaluation": evaluate,
    "scoring": score,
    "drift": drift,
}
"""The stages in order; a later one may read what an earlier one has written."""
NEED_TORCH = ("fit", "evaluation", "scoring")
"""Stages whose imports take seconds; they are not counted."""
BOUNDED = ("fit", "evaluation")
"""Stages of drawn rows, whose number does not grow with the table."""


def make(tables: ParquetTables, size: int) -> None:
    """Writes the days that the stages read."""
    days = [DAY - dt.timedelta(days=n) for n in range(history_days(model) + model.label_delay_days + 1)][::-1]
    write_days(tables, model, days, size, with_features=True, known=len(days) - model.label_delay_days)
    for n in range(-LATE, LATE + 1):
        day = DAY + dt.timedelta(days=n)
        rows = landed(day, size)
        tables.write(RAW, number_rows({str(day): rows}), str(day))
        if day == DAY:
            rows.to_parquet(Path(tables.root) / "source.parquet")


def one(stage: str, home: Path, size: int, at_once: int | None) -> None:
    """Runs one stage in this process and prints its figure as JSON."""
    tables = ParquetTables(root=str(home))
    if at_once is not None:
        features_module.ROWS_AT_ONCE = at_once
    if stage == "make":
        make(tables, size)
        return
    if stage in NEED_TORCH:
        for name in ("torch", "assets.lifecycle.model.candidate", "assets.lifecycle.model.version.bundle"):
            importlib.import_module(name)
    begun = time.process_time()
    rows, version = STAGES[stage](tables, size)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(asdict(Figure(stage, size, rows, time.process_time() - begun, gigabytes, version))))


def in_process(stage: str, home: Path, size: int, *arguments: str) -> str:
    """The output of a stage in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--stages", stage, "--sizes", str(size), "--home", str(home)]
    command.append("--here")
    return subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures; ends with an error where memory or CPU seconds grow with the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10], help="in published sizes: 1, 10, 100")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), help="the stages to run")
    parser.add_argument("--home", type=Path, help="folder of the tables, which are kept; default: a temporary one")
    parser.add_argument("--at-once", type=int, help="events whose features are computed together")
    parser.add_argument("--here", action="store_true", help="run one stage in this process, for one size")
    given = parser.parse_args(arguments)
    if given.here:
        one(given.stages[0], given.home, given.sizes[0], given.at_once)
        return
    one_thread_each()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in given.sizes:
            home = (given.home or Path(scratch)) / f"times-{size}"
            if not home.exists():
                in_process("make", home, size)
            for stage in given.stages:
                figures.append(Figure(**json.loads(in_process(stage, home, size))))
                print(_line(figures[-1]), flush=True)
            if "features" in given.stages and size == min(given.sizes):
                sharded = Figure(**json.loads(in_process("features", home, size, "--at-once", "100000")))
                whole = next(one for one in figures if one.stage == "features" and one.size == size)
                print(f"{'':6}features in shards of 100,000 events: the same bytes" if sharded.version == whole.version
                      else "NOT the same bytes in shards")  # fmt: skip
                if sharded.version != whole.version:
                    raise SystemExit("memory: the features of shards are not those of the whole lookback")
    failed = [one for one in figures if one.gigabytes > MOST_GIGABYTES]
    exponents = _exponents(figures)
    for stage, exponent in exponents.items():
        print(f"{stage:<14} CPU seconds grow as rows^{exponent:.2f}")
    if failed or any(exponent > MOST_EXPONENT for exponent in exponents.values()):
        raise SystemExit("memory: a stage takes more memory or CPU than claimed; see the figures above")


def _line(figure: Figure) -> str:
    each = figure.cpu / max(figure.rows, 1) * 1e6
    return (f"{figure.size:>4} × {figure.stage:<14}{figure.rows:>12,} rows {figure.cpu:>8.2f} CPU s {each:>8.1f} a "
            f"million {figure.gigabytes:>6.2f} GB  {figure.version}")  # fmt: skip


def _exponents(figures: Sequence[Figure]) -> dict[str, float]:
    """By stage, the exponent of the CPU seconds in the rows, from the smallest to the largest size."""
    found = {}
    for stage in dict.fromkeys(one.stage for one in figures if one.stage not in BOUNDED):
        of_stage = sorted((one for one in figures if one.stage == stage), key=lambda one: one.size)
        least, most = of_stage[0], of_stage[-1]
        if most.rows > least.rows:
            found[stage] = math.log(most.cpu / least.cpu) / math.log(most.rows / least.rows)
    return found


if __name__ == "__main__":
    main()
