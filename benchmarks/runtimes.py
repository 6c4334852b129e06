"""torch or ONNX Runtime in the scoring service: latency of one row, memory and start time, for the same two networks.

The networks are those of `python -m benchmarks.service` (the fraud model's own network, trees and linear model) and the
default network with trees and a linear model, as most models have it. Each runtime has a process of its own, which
loads the network, scores rows one by one, and reports. torch runs the traced network, as the service does.

Belongs here: the comparison that docs/decisions/0059 rests on. Does not belong here: the service's own latency
(``service.py``).

    pip install onnx onnxruntime onnxscript
    python -m benchmarks.runtimes
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from resources.settings import one_thread_each, project_root

ROWS, WARM_UP, STARTS = 3_000, 300, 3
MOST_DIFFERENCE = 1e-5
"""Largest difference of two scores: the tolerance of the check ``parity``."""
NEEDED = ("onnx", "onnxruntime", "onnxscript")


def default_bundle(folder: Path) -> Path:
    """The default network with trees and a linear model, on made columns: only its shape counts here."""
    from assets.declaration import Training
    from assets.lifecycle.data.features import features_of
    from assets.lifecycle.model.fitting import fit
    from assets.lifecycle.model.learners.ensemble import boosted_trees, linear_model, mixture
    from assets.lifecycle.model.learners.trees import as_module
    from assets.lifecycle.model.objectives import ScoreTransform
    from assets.lifecycle.model.version.bundle import Bundle
    from assets.models.fraud import model

    rng = np.random.default_rng(0)
    n = len(features_of(model).names)
    X = rng.normal(0, 100, (4_000, n)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    y = (np.nan_to_num(X[:, 0]) + rng.normal(0, 50, len(X)) > 0).astype(np.float64)
    recipe = Training().sized_for(len(X))
    network = fit(X, y, recipe=recipe, epochs=1, task=model.task)
    trees = as_module(boosted_trees(X, y, task=model.task, seed=0, rounds=150), model.task, ())
    parts = {"network": network, "linear": linear_model(X, y, task=model.task), "trees": trees}
    Bundle.save(folder, module=mixture(parts, dict.fromkeys(parts, 1 / 3)), model=model,
                feature_names=features_of(model).names, head=ScoreTransform(), threshold=0.5, fitted={})  # fmt: skip
    return folder


def to_onnx(folder: Path) -> None:
    """Writes ``network.onnx`` beside the exported network, from the same program."""
    import torch

    program = torch.export.load(folder / "network.pt2")
    converted = torch.onnx.export(program, dynamo=True, verbose=False)
    assert converted is not None
    converted.save(str(folder / "network.onnx"))


def measure(runtime: str, folder: Path) -> dict[str, float | list[float]]:
    """Loads the network in this process and scores rows one by one. Call it in a fresh process.

    Returns:
        Seconds since the process began until the first score, milliseconds a row, megabytes, and some scores.
    """
    import psutil

    process = psutil.Process()
    score = (_torch if runtime == "torch" else _onnx)(folder)
    n = len(json.loads((folder / "bundle.json").read_text())["feature_names"])
    rng = np.random.default_rng(1)
    X = rng.normal(0, 100, (ROWS + WARM_UP, n)).astype(np.float32)
    X[rng.random(X.shape) < 0.2] = np.nan
    first = score(X[:1])
    start = process.cpu_times().user + process.cpu_times().system
    assert np.isfinite(first).all()
    taken, scores = [], []
    for i in range(len(X)):
        began = time.perf_counter()
        scores.append(float(score(X[i : i + 1])[0]))
        taken.append(1e3 * (time.perf_counter() - began))
    late = taken[WARM_UP:]
    return {"start": start, "p50": float(np.median(late)), "p99": float(np.quantile(late, 0.99)),
            "memory": process.memory_info().rss / 1e6, "scores": scores[:500]}  # fmt: skip


def _torch(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import warnings

    import torch

    torch.set_num_threads(1)
    network = torch.export.load(folder / "network.pt2").module()
    n = len(json.loads((folder / "bundle.json").read_text())["feature_names"])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(torch.jit.trace(network, (torch.zeros(2, n),), check_trace=False).eval())

    def score(X: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return _probability(traced(torch.from_numpy(X)).numpy())

    return score


def _onnx(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "network.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda X: _probability(session.run(None, {name: X})[0])


def _probability(outputs: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-outputs.astype(np.float64)))


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints the table; whether both runtimes give the same scores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes")
    parser.add_argument("--measure", nargs=2, metavar=("RUNTIME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(measure(given.measure[0], Path(given.measure[1]))))
        return True
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise SystemExit(f"this comparison needs packages that nothing else here uses: pip install {' '.join(missing)}")
    one_thread_each()
    from benchmarks.service import prepare

    print("| network | runtime | one row, p50 | p99 | CPU seconds to the first score | memory | ratio of p50 |")
    print("|---|---|---|---|---|---|---|")
    same = True
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            "fraud": prepare(Path(scratch) / "fraud"),
            "default network": default_bundle(Path(scratch) / "default"),
        }
        for what, folder in folders.items():
            to_onnx(folder)
            found = {runtime: _best_of(runtime, folder) for runtime in ("torch", "onnx")}
            difference = float(np.abs(np.subtract(found["torch"]["scores"], found["onnx"]["scores"])).max())
            for runtime, one in found.items():
                print(f"| {what} | {runtime} | {one['p50']:.3f} ms | {one['p99']:.3f} ms | {one['start']:.1f} | "
                      f"{one['memory']:.0f} MB | {one['p50'] / found['torch']['p50']:.2f} |")  # fmt: skip
            print(f"\n{what}: the largest difference of 500 scores is {difference:.1e} (at most {MOST_DIFFERENCE})\n")
            same &= difference <= MOST_DIFFERENCE
    return same


def _best_of(runtime: str, folder: Path) -> dict:
    """The run with the smallest median of a few, each in a fresh process, because other work disturbs single ones."""
    command = [sys.executable, "-m", "benchmarks.runtimes", "--measure", runtime, str(folder)]
    runs = [
        json.loads(subprocess.run(command, cwd=project_root(), capture_output=True, check=True, text=True).stdout)
        for _ in range(STARTS)
    ]
    return min(runs, key=lambda run: run["p50"])


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)
