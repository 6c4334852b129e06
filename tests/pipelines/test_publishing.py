"""The figures as a job summary and as a note at a merge request, on an API that speaks GitLab's documented HTTP."""

import http.server
import json
import threading
from urllib.parse import urlsplit

import pytest

from pipeline.publishing import evaluation_text, publish
from pipeline.stages import Folder, StageError

NOTES = "/api/v4/projects/5/merge_requests/3/notes"


@pytest.fixture
def gitlab():
    """The notes of merge request 3 of project 5: variables of the provider, and the notes."""
    notes: list[dict] = [{"id": 1, "body": "good work"}]

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, body) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def handle_with(self, act) -> None:
            if self.headers["PRIVATE-TOKEN"] != "a-secret":
                self.answer(401, {"message": "401 Unauthorized"})
            else:
                act(urlsplit(self.path).path)

        def body(self) -> str:
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

        def do_GET(self):
            self.handle_with(lambda path: self.answer(200, notes) if path == NOTES else self.answer(404, {}))

        def do_POST(self):
            def act(path: str) -> None:
                assert path == NOTES
                notes.append({"id": len(notes) + 1, "body": self.body()})
                self.answer(201, notes[-1])

            self.handle_with(act)

        def do_PUT(self):
            def act(path: str) -> None:
                note = next(one for one in notes if path == f"{NOTES}/{one['id']}")
                note["body"] = self.body()
                self.answer(200, note)

            self.handle_with(act)

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = f"http://127.0.0.1:{server.server_port}/api/v4"
    yield {"CI_API_V4_URL": api, "CI_PROJECT_ID": "5", "CI_MERGE_REQUEST_IID": "3", "GITLAB_TOKEN": "a-secret"}, notes
    server.shutdown()
    server.server_close()


def test_a_note_is_written_once_and_replaced_by_the_next_pipeline(gitlab, tmp_path):
    env, notes = gitlab
    folder = Folder(tmp_path)
    for text in ("before", "after"):
        said = publish(text, folder, "comparison", env)
        assert said.endswith("comparison.md and a note at merge request 3")
    assert [note["body"] for note in notes] == ["good work", "<!-- assetline comparison -->\nafter"]
    publish("figures", folder, "evaluation", env)
    assert len(notes) == 3, "each text has a note of its own"


def test_without_a_token_or_a_request_there_is_no_note(gitlab, tmp_path):
    env, notes = gitlab
    for absent in ("GITLAB_TOKEN", "CI_MERGE_REQUEST_IID"):
        publish("text", Folder(tmp_path), "comparison", {k: v for k, v in env.items() if k != absent})
    assert len(notes) == 1
    assert (tmp_path / "reports" / "comparison.md").read_text() == "text"


def test_a_token_that_is_refused_is_named_and_not_shown(gitlab, tmp_path):
    env, _ = gitlab
    with pytest.raises(StageError, match="check that GITLAB_TOKEN may use the API") as caught:
        publish("text", Folder(tmp_path), "comparison", {**env, "GITLAB_TOKEN": "another-secret"})
    assert "another-secret" not in str(caught.value)


def test_the_job_summary_is_added_to(tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("of an earlier step\n")
    assert publish("text", Folder(tmp_path), "evaluation", {"GITHUB_STEP_SUMMARY": str(summary)}).endswith(
        "job summary"
    )
    assert summary.read_text() == "of an earlier step\ntext\n"


def test_the_evaluation_as_text(tmp_path):
    figure = {"value": 0.9, "low": 0.8, "high": 0.95}
    stored = {
        "verdict": {"reasons": [
            {"rule": "baseline", "passed": True, "message": "as good"},
            {"rule": "floor", "passed": False, "message": "roc_auc 0.9 | misses"},
        ]},
        "report": {"rows": 1234, "models": {"torch": {"roc_auc": figure, "brier": {**figure, "low": None}},
                                            "linear": {"roc_auc": figure}}},
    }  # fmt: skip
    path = Folder(tmp_path).report("churn", "evaluation.json")
    path.write_text(json.dumps(stored))
    lines = evaluation_text(Folder(tmp_path)).splitlines()
    assert "### churn" in lines
    assert lines[lines.index("### churn") + 4] == "| **failed** | floor | roc_auc 0.9 \\| misses |", (
        "failed rules first"
    )
    assert "1,234 test rows, with 95 % intervals." in lines
    assert "| metric | candidate | linear |" in lines
    assert any(line.endswith("| 0.9000 [0.8000, 0.9500] | 0.9000 [0.8000, 0.9500] |") for line in lines)
    assert any(line.endswith("| 0.9000 |  |") for line in lines)
