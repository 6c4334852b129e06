"""Answers of the support model: recall of the search, what answers cost, and how long a reply takes.

python -m benchmarks.support [HOME]
python -m benchmarks.support --latency

Recall@1 and @5 on the declared questions: by words, by vectors, and both. With the state folder HOME, in which
`assetline run --model support` was played: replies of the version in production to the questions of the day after its
last one, and the time of ``POST /models/support/answer`` at a service of its own. The claim: recall@5 of both is at
least that of either. ``--latency``: ``/answer`` beside ``/predict`` and ``/score`` with the same question over HTTP,
at a service of its own with the example's articles. Its head is not fitted, which costs the same time.

Belongs here: the measurement. Does not belong here: the search (``assets/lifecycle/retrieval``).
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.knowledge import Answers
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.data.features import compute_features, features_of
from assets.lifecycle.model.learners.language import language_network
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.retrieval.documents import chunks_of, read_documents
from assets.lifecycle.retrieval.knowledge import language_of, pairs_of, with_vectors
from assets.lifecycle.retrieval.search import Index, words_of
from assets.models.support import model
from assets.models.support.simulator import WorldQuestions
from assets.models.support.tables import clean
from resources.settings import project_root
from resources.tables import ParquetTables

LATENCIES, WARM_UP = 300, 20


def main(home: Path | None) -> bool:
    """Prints a line for each figure; whether the claim holds."""
    assert model.answers is not None
    folder = project_root() / model.answers.knowledge.folder
    chunks = [chunk for one in read_documents([folder]) for chunk in chunks_of(one)]
    index = Index(chunks, vectors_of([chunk.searched for chunk in chunks]))
    pairs = pairs_of(model)
    pairs = pairs[pairs["document"] != ""]
    recalls = {}
    vectors = vectors_of(list(pairs["question"]))
    for way in ("words", "vectors", "both"):
        places = []
        for question, document, vector in zip(pairs["question"], pairs["document"], vectors, strict=True):
            if way == "both":
                found = [one.chunk.document for one in index.search(question, vector)]
            else:
                scores = index.bm25(words_of(question)) if way == "words" else index.vectors @ vector
                found = [chunks[place].document for place in np.argsort(-scores, kind="stable")[:5]]
            places.append(found.index(document) if document in found else 9)
        recalls[way] = float(np.mean(np.array(places) < 5))
        print(f"{way:<8} recall@1 {np.mean(np.array(places) == 0):.3f}  recall@5 {recalls[way]:.3f}  of {len(pairs)}")
    if home is not None:
        _replies(home)
    return recalls["both"] >= max(recalls.values())


def _replies(home: Path) -> None:
    os.environ["ASSETLINE_HOME"] = str(home)
    from tests.serving.processes import Service

    world = WorldQuestions().simulator()
    asked = world.questions(dt.datetime.now(dt.UTC).date())
    service = Service(home, "--model", "support")
    try:
        service.until(lambda: service.health("support")["status"] == "ok")
        right, wrong, handed, times = 0, 0, 0, []
        texts = list(zip(asked["text"], asked["intent"], strict=True))
        for n in range(LATENCIES):
            text, intent = texts[n % len(texts)]
            began = time.perf_counter()
            said = service.client.post("/models/support/answer", json={"question": text}).raise_for_status().json()
            times.append((time.perf_counter() - began) * 1_000)
            if n < len(texts):
                by_template = any(one["source"].startswith("template:") for one in said["sentences"])
                handed += said["abstained"]
                right += by_template and said["intent"] == intent
                wrong += by_template and said["intent"] != intent
        n = len(texts)
        print(f"{n} questions: template of the right intent {right / n:.3f}, of a wrong one {wrong / n:.3f}, passages "
              f"alone {(n - right - wrong - handed) / n:.3f}, handed over {handed / n:.3f}")  # fmt: skip
        p50, p95 = np.percentile(times, [50, 95])
        print(f"/answer: p50 {p50:.1f} ms, p95 {p95:.1f} ms over {LATENCIES} requests, one after the other")
    finally:
        service.end()


def latency() -> None:
    """Prints the time of ``/answer``, ``/predict`` and ``/score``, which take turns; no text comes twice."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["ASSETLINE_HOME"] = str(home)
        tables = ParquetTables(root=str(home / "tables"))
        chunks = [c for one in read_documents([project_root() / _declared().knowledge.folder]) for c in chunks_of(one)]
        tables.write(model.key("knowledge"), with_vectors(chunks, language_of(model), None)[0])
        tables.write(model.key("answering"), pd.DataFrame([{"version": "1", "intent": 0.9, "passage": 0.3}]))
        _save(home / "bundle")
        from tests.serving.processes import Service

        service = Service(home, "--bundle", str(home / "bundle"))
        times: dict[str, list[float]] = {"answer": [], "predict": [], "score": []}
        try:
            for n in range(WARM_UP + LATENCIES):
                for path, body in _bodies(n).items():
                    began = time.perf_counter()
                    service.client.post(f"/models/support/{path}", json=body).raise_for_status()
                    if n >= WARM_UP:
                        times[path].append((time.perf_counter() - began) * 1_000)
        finally:
            service.end()
    of_score = float(np.median(times["score"]))
    for path, taken in times.items():
        p50, p95 = np.percentile(taken, [50, 95])
        print(f"/{path:<8} p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  {p50 / of_score:.2f} times the median of /score")


def _declared() -> Answers:
    assert model.answers is not None
    return model.answers


def _save(folder: Path) -> None:
    """A version with the declared language model and a head of random weights."""
    import torch

    class Filled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nan_to_num(x)

    names = features_of(model).names
    given = torch.zeros(2, len(names)), torch.zeros(2, len(model.task.names))
    network = language_network(*given, language=language_of(model), texts=1)
    head = ScoreTransform(kind="multiclass", slope=1.0, offset=0.0)
    Bundle.save(folder, module=torch.nn.Sequential(Filled(), network), model=model, feature_names=names, head=head,
                threshold=0.5, fitted={})  # fmt: skip


def _bodies(number: int) -> dict[str, dict[str, Any]]:
    """One question as each path takes it. Its number makes it another text each time."""
    asked = pairs_of(model)["question"]
    text = f"{asked[number % len(asked)]} {number}"
    row = {"question_id": number, "asked_at": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S}", "text": text,
           "channel": "app"}  # fmt: skip
    raw = pd.DataFrame([row]).astype("string[pyarrow]")
    rows = {str(name): values.to_numpy() for name, values in clean(raw).items() if name != model.target}
    X = compute_features(features_of(model), {**rows, "label": np.full(1, np.nan)}, np.arange(1))
    features = [[None if np.isnan(value) else float(value) for value in one] for one in X]
    return {"answer": {"question": text}, "predict": row, "score": {"features": features}}


if __name__ == "__main__":
    if sys.argv[1:] == ["--latency"]:
        latency()
        raise SystemExit(0)
    raise SystemExit(0 if main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None) else 1)
