"""Answers of the support model: recall of the search, what answers cost, and how long a reply takes.

python -m benchmarks.support [HOME]

Recall@1 and @5 on the declared questions: by words, by vectors, and both. With the state folder HOME, in which
`assetline run --model support` was played: replies of the version in production to the questions of the day after its
last one, and the time of ``POST /models/support/answer`` at a service of its own. The claim: recall@5 of both is at
least that of either.

Belongs here: the measurement. Does not belong here: the search (``assets/lifecycle/retrieval``).
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from pathlib import Path

import numpy as np

from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.retrieval.documents import chunks_of, read_documents
from assets.lifecycle.retrieval.knowledge import pairs_of
from assets.lifecycle.retrieval.search import Index, words_of
from assets.models.support import model
from assets.models.support.simulator import WorldQuestions
from resources.settings import project_root

LATENCIES = 300


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


if __name__ == "__main__":
    raise SystemExit(0 if main(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None) else 1)
