"""A language model that writes, as a local server that speaks the protocol of chat completions."""

import asyncio
import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from assets.lifecycle.retrieval.documents import Chunk
from assets.lifecycle.retrieval.reply import Reply, Sentence
from assets.lifecycle.retrieval.writer import MOST_BYTES, Writer
from resources.settings import Settings, SettingsError

CHUNK = Chunk("cash", 1, "Cash", dt.date(2026, 5, 20), "You have 5 free cash withdrawals a month.")
REPLY = Reply((Sentence(CHUNK.text, CHUNK.name),), (CHUNK,), reason="passages")
KEY = "a-secret-that-nobody-sees"


class Double:
    """The server: it answers with what a test tells it to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.body, self.waits, self.asked = 200, b"{}", 0.0, []
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                double.asked.append((self.path, self.headers.get("Authorization"), sent))
                time.sleep(double.waits)
                self.send_response(double.status)
                self.end_headers()
                self.wfile.write(double.body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def writes(self, text: Any) -> None:
        self.body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def double() -> Iterator[Double]:
    one = Double()
    yield one
    one.server.shutdown()
    one.server.server_close()


def rewritten(double: Double, question: str = "is cash free?", reply: Reply = REPLY, timeout_s: float = 20) -> Reply:
    return asyncio.run(Writer(double.url, "small", KEY, timeout_s).rewritten(question, reply))


def test_a_grounded_text_is_used_with_its_source(double):
    double.writes("You have 5 free withdrawals of cash a month.")
    found = rewritten(double, "is cash free? my mail is ada@example.org")
    assert found.written_by == "model"
    assert found.text == "You have 5 free withdrawals of cash a month. [cash#1]"
    [(path, key, sent)] = double.asked
    assert path == "/v1/chat/completions"
    assert key == f"Bearer {KEY}"
    assert sent["model"] == "small"
    assert CHUNK.text in sent["messages"][1]["content"]
    assert "ada@example.org" not in json.dumps(sent)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("You have 5 free cash withdrawals a month. Have a nice day!", "no passage supports 'Have a nice day!'"),
        ("You have 9 free cash withdrawals a month.", "no passage supports 'You have 9"),
        ("", "it is empty"),
        (None, "does not have the form of a chat completion"),
        (["text"], "does not have the form of a chat completion"),
    ],
)
def test_a_text_that_no_passage_supports_is_not_used(double, text, said):
    double.writes(text)
    found = rewritten(double)
    assert found.written_by == "templates"
    assert found.sentences == REPLY.sentences
    assert said in found.note


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"choices": []}', b'{"choices": [{"message": 3}]}'])
def test_a_malformed_answer_is_not_used(double, body):
    double.body = body
    found = rewritten(double)
    assert found.sentences == REPLY.sentences
    assert "does not have the form of a chat completion" in found.note


def test_an_error_a_silence_and_a_flood_are_not_used(double):
    double.status = 500
    assert "its endpoint answers 500" in rewritten(double).note
    double.status, double.body = 200, b"x" * (MOST_BYTES + 1)
    assert "larger than" in rewritten(double).note
    double.waits = 3
    assert "no answer within 0.2 s" in rewritten(double, timeout_s=0.2).note


def test_an_endpoint_that_is_not_there_is_told_without_the_key(double):
    double.server.shutdown()
    double.server.server_close()
    found = rewritten(double)
    assert found.sentences == REPLY.sentences
    assert "its endpoint cannot be reached" in found.note
    assert KEY not in found.note
    assert KEY not in repr(Writer(double.url, "small", KEY))


def test_hand_overs_and_contradictions_are_not_sent(double):
    for reply in (Reply(abstained=True, reason="why"), Reply(REPLY.sentences, (CHUNK,), contradiction=True), Reply()):
        assert rewritten(double, reply=reply) == reply
    assert double.asked == []


def test_it_is_off_unless_its_address_is_set(tmp_path):
    home = {"ASSETLINE_HOME": str(tmp_path)}
    assert Writer.of(Settings.from_env(home)) is None
    given = {**home, "ASSETLINE_WRITER_URL": "http://127.0.0.1:9/v1", "ASSETLINE_WRITER_KEY": KEY}
    found = Settings.from_env(given)
    assert Writer.of(found) == Writer("http://127.0.0.1:9/v1", "default", KEY)
    assert KEY not in repr(found)
    with pytest.raises(SettingsError, match="is not a web address"):
        Settings.from_env({**home, "ASSETLINE_WRITER_URL": "localhost"})
    with pytest.raises(SettingsError, match="WRITER_KEY has blanks"):
        Settings.from_env({**home, "ASSETLINE_WRITER_KEY": "two words"})
