"""The figures of a pipeline as Markdown, for the job summary of GitHub and a note at a merge request of GitLab.

Belongs here: the text, and where it is shown. Does not belong here: computing a figure (``assets/lifecycle/model``,
``comparison.py``).

What is shown where depends only on the variables that the provider sets, so no provider's file decides it. Every text
is also a file among the reports.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.metrics import METRICS
from pipeline.stages import Folder, StageError, write

TOKEN = "GITLAB_TOKEN"
"""Variable with a token that may write notes at merge requests; without it there are none."""
TIMEOUT_S = 30.0
MARK = "<!-- assetline {name} -->"
"""First line of a note, by which the next pipeline finds and replaces it."""
SHOWN = {"torch": "candidate", "champion": "champion", "xgboost": "XGBoost", "linear": "linear", "ceiling": "ceiling"}


def evaluation_text(folder: Folder) -> str:
    """The verdict of the gate and the figures of each evaluated model, as Markdown."""
    parts = ["## Evaluation and gate"]
    for path in sorted(folder.reports.glob("*/evaluation.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"### {path.parent.name}", _verdict(stored["verdict"]), _figures(stored["report"])]
    return "\n\n".join(parts) + "\n"


def _verdict(verdict: Mapping[str, Any]) -> str:
    reasons = sorted(verdict["reasons"], key=lambda reason: bool(reason["passed"]))
    lines = ["| | rule | result |", "|---|---|---|"]
    for one in reasons:
        message = one["message"].replace("|", "\\|")
        lines.append(f"| {'passed' if one['passed'] else '**failed**'} | {one['rule']} | {message} |")
    return "\n".join(lines)


def _figures(report: Mapping[str, Any]) -> str:
    scores = report["models"]
    names = list(next(iter(scores.values())))
    lines = [
        "| metric | " + " | ".join(SHOWN.get(score, score) for score in scores) + " |",
        "|---" * (len(scores) + 1) + "|",
    ]
    for name in names:
        cells = [_estimate(figures.get(name)) for figures in scores.values()]
        lines.append(f"| {METRICS[name].label if name in METRICS else name} | {' | '.join(cells)} |")
    return f"{report['rows']:,} test rows, with 95 % intervals.\n\n" + "\n".join(lines)


def _estimate(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    interval = "" if one["low"] is None else f" [{one['low']:.4f}, {one['high']:.4f}]"
    return f"{one['value']:.4f}{interval}"


def publish(text: str, folder: Folder, name: str, env: Mapping[str, str] | None = None) -> str:
    """Writes a text to the reports, and shows it where the provider has a place for it.

    Args:
        text: Markdown.
        folder: the folder of the pipeline.
        name: name of the file without its ending; a note with the same name is replaced.
        env: variables of the provider; default: those of this process.

    Returns:
        Where the text is, in one sentence.

    Raises:
        StageError: GitLab does not accept the note.
    """
    given = os.environ if env is None else env
    write(folder.reports / f"{name}.md", text)
    places = [str(folder.reports / f"{name}.md")]
    if given.get("GITHUB_STEP_SUMMARY"):
        with Path(given["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as summary:
            summary.write(f"{text}\n")
        places.append("the job summary")
    if given.get("CI_MERGE_REQUEST_IID") and given.get(TOKEN):
        _note(text, name, given)
        places.append(f"a note at merge request {given['CI_MERGE_REQUEST_IID']}")
    return f"{name}: {' and '.join(places)}"


def _note(text: str, name: str, env: Mapping[str, str]) -> None:
    """Writes a note at the merge request, or replaces the one of an earlier pipeline."""
    import httpx

    mark = MARK.format(name=name)
    request = f"projects/{env['CI_PROJECT_ID']}/merge_requests/{env['CI_MERGE_REQUEST_IID']}/notes"
    try:
        with httpx.Client(
            base_url=f"{env['CI_API_V4_URL']}/", headers={"PRIVATE-TOKEN": env[TOKEN]}, timeout=TIMEOUT_S
        ) as api:
            notes = api.get(request, params={"per_page": 100}).raise_for_status().json()
            before = next((note["id"] for note in notes if note["body"].startswith(mark)), None)
            body = {"body": f"{mark}\n{text}"}
            answer = api.post(request, json=body) if before is None else api.put(f"{request}/{before}", json=body)
            answer.raise_for_status()
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise StageError(
            f"the note at merge request {env['CI_MERGE_REQUEST_IID']} cannot be written ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); check that {TOKEN} may use the API of the project, or remove it"
        ) from error
