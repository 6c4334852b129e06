"""The file of the scoring service's tokens: what is in it, who can read it, and what is refused."""

import datetime as dt
import multiprocessing
import stat

import pytest

from resources.service_tokens import FIRST, TokenError, TokenFile, digest_of

NOW = dt.datetime.now(dt.UTC)
LATER = NOW + dt.timedelta(days=30)


@pytest.fixture
def file(tmp_path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.toml", tmp_path / "service-token")


def works(file: TokenFile, name: str, token: str, at: dt.datetime = NOW) -> bool:
    return file.read()[name].matches(digest_of(token), at)


def test_the_first_token_is_made_once_and_only_its_owner_can_read_it(file):
    assert file.ensure()
    token = file.shown.read_text().strip()
    assert len(token) >= 40
    assert works(file, FIRST, token)
    assert not works(file, FIRST, token[:-1])
    assert token not in file.path.read_text()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file.path, file.shown)} == {0o600}
    before = file.path.read_bytes()
    assert not file.ensure()
    assert (file.path.read_bytes(), file.shown.read_text().strip()) == (before, token)


def test_after_a_kill_between_the_two_files_the_token_that_was_shown_works(file):
    file.ensure()
    token = file.shown.read_text().strip()
    file.path.unlink()
    assert file.ensure()
    assert file.shown.read_text().strip() == token
    assert works(file, FIRST, token)


def test_a_file_with_something_else_in_the_place_of_the_token_is_refused(file):
    file.shown.write_text("hunter2\n")
    with pytest.raises(TokenError, match="holds less than 16 characters; remove it"):
        file.ensure()
    assert not file.path.exists()


def test_without_a_file_created_tokens_are_the_only_ones(file):
    token = file.create("nightly", LATER)
    assert not file.ensure()
    assert not file.shown.exists()
    assert works(file, "nightly", token)
    stored = file.read()["nightly"]
    assert not stored.has_expired(NOW)
    assert stored.has_expired(LATER + dt.timedelta(seconds=1))


def test_a_rotated_token_works_beside_the_old_one_for_as_long_as_asked(file):
    old = file.create("nightly")
    new = file.rotate("nightly", keep_hours=2)
    assert works(file, "nightly", old)
    assert works(file, "nightly", new)
    assert not works(file, "nightly", old, NOW + dt.timedelta(hours=3))
    assert works(file, "nightly", new, NOW + dt.timedelta(hours=3))
    newest = file.rotate("nightly")
    assert not works(file, "nightly", new)
    assert works(file, "nightly", newest)


def test_the_file_that_shows_the_first_token_follows_it(file):
    file.ensure()
    other = file.create("nightly")
    file.rotate("nightly")
    shown = file.shown.read_text().strip()
    assert works(file, FIRST, shown)
    new = file.rotate(FIRST)
    assert file.shown.read_text().strip() == new != shown
    assert stat.S_IMODE(file.shown.stat().st_mode) == 0o600
    file.revoke(FIRST)
    assert not file.shown.exists()
    assert list(file.read()) == ["nightly"]
    assert not works(file, "nightly", other)


def _create(path, shown, name):
    TokenFile(path, shown).create(name)


def test_commands_at_the_same_time_lose_nothing(file):
    context = multiprocessing.get_context("spawn")
    names = [f"client-{n}" for n in range(4)]
    processes = [context.Process(target=_create, args=(file.path, file.shown, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(file.read()) == names


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda f: f.create("Nightly"), "the name 'Nightly' is invalid"),
        (lambda f: f.create("../x"), "the name '../x' is invalid"),
        (lambda f: f.create("a"), "a token 'a' exists already; `assetline token rotate a`"),
        (lambda f: f.create("b", NOW - dt.timedelta(days=1)), "is past; give a later time"),
        (lambda f: f.rotate("b"), "there is no token 'b'; the tokens are: a"),
        (lambda f: f.rotate("a", NOW), "is past; give a later time"),
        (lambda f: f.rotate("a", keep_hours=-1), "--keep -1 is out of range; give 0 to 8760 hours"),
        (lambda f: f.rotate("a", keep_hours=float("nan")), "--keep nan is out of range"),
        (lambda f: f.revoke("b"), "there is no token 'b'; the tokens are: a"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(file, act, said):
    file.create("a")
    before = file.path.read_bytes()
    with pytest.raises(TokenError) as refused:
        act(file)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert file.path.read_bytes() == before


def test_an_expired_token_is_not_rotated_into_one_that_does_not_work(file):
    file.create("a", LATER)
    text = file.path.read_text()
    expires = next(line for line in text.splitlines() if line.startswith("expires"))
    file.path.write_text(text.replace(expires, "expires = 2020-01-01T00:00:00Z"))
    with pytest.raises(TokenError, match="the token 'a' expired on 2020-01-01 00:00 UTC; give a new --expires"):
        file.rotate("a")
    assert works(file, "a", file.rotate("a", LATER))


HASH = f"sha256:{'0' * 64}"
GOOD = f"[tokens.a]\nhash = '{HASH}'\ncreated = 2026-01-01T00:00:00Z\n".encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "can't decode"),
        (b"[tokens", "at end of document"),
        (b"tokens = 3", "tokens is not a table"),
        (b"[token.a]", "it holds token, not only"),
        (b"[tokens.a]\nhash = 'letmein-letmein'\ncreated = 2026-01-01T00:00:00Z", "hash of [tokens.a] is not sha256:"),
        (f"[tokens.a]\nhash = '{HASH}'".encode(), "has no time of creation"),
        (f"[tokens.a]\nhash = '{HASH}'\ncreated = 2026-01-01".encode(), "created of [tokens.a] is not a time with"),
        (GOOD + b"expire = 1", "[tokens.a] is not a token"),
        (GOOD + f"previous_hash = '{HASH}'".encode(), "without the"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_is_wrong_and_no_value_of_it(file, content, said):
    file.path.write_bytes(content)
    with pytest.raises(TokenError) as refused:
        file.read()
    message = str(refused.value)
    assert message.startswith(f"the token file {file.path} cannot be read (")
    assert said in message
    assert "letmein" not in message
    with pytest.raises(TokenError):
        file.create("b")
    assert file.path.read_bytes() == content, "a command repairs nothing by throwing it away"


def test_a_missing_file_says_how_to_make_one(file):
    with pytest.raises(TokenError, match="does not exist; `assetline token create NAME` makes it"):
        file.read()


@pytest.mark.closes("service", "unauthorized")
def test_an_application_behind_the_guard_answers_nobody_without_a_token(tmp_path):
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from resources.settings import Settings
    from serving.scoring.access import tokens_of
    from serving.scoring.front import guarded
    from serving.scoring.metrics import ServiceMetrics

    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_ACCESS_LOG": "off"})
    app = FastAPI()
    app.get("/models")(lambda: "answered")
    tokens = tokens_of(settings, "127.0.0.1", staged=False)
    client = TestClient(guarded(app, settings, tokens, ServiceMetrics()))
    refused = client.get("/models")
    assert (refused.status_code, refused.headers["WWW-Authenticate"].split()[0]) == (401, "Bearer")
    token = settings.first_service_token.read_text().strip()
    assert client.get("/models", headers={"Authorization": f"Bearer {token}"}).json() == "answered"


@pytest.mark.closes("service", "forbidden")
def test_an_application_behind_the_guard_scores_for_no_token_of_another_model(tmp_path):
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from resources.settings import Settings
    from serving.scoring.access import tokens_of
    from serving.scoring.front import guarded
    from serving.scoring.metrics import ServiceMetrics

    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_ACCESS_LOG": "off"})
    file = TokenFile(settings.service_tokens, settings.first_service_token)
    secret = {name: file.create(name, role=role, models=models) for name, role, models in (
        ("limited", "scorer", ["meter"]), ("reading", "reader", []))}  # fmt: skip
    app = FastAPI()
    app.post("/models/{name}/score")(lambda: "answered")
    app.get("/models")(lambda: "listed")
    client = TestClient(guarded(app, settings, tokens_of(settings, "127.0.0.1", staged=False), ServiceMetrics()))

    def ask(name: str, model: str):
        return client.post(f"/models/{model}/score", headers={"Authorization": f"Bearer {secret[name]}"})

    assert ask("limited", "meter").json() == "answered"
    for name, model in (("limited", "tariff"), ("limited", "meter%2F..%2Ftariff"), ("reading", "meter")):
        assert ask(name, model).status_code in (403, 404)
        assert "answered" not in ask(name, model).text
    assert ask("limited", "tariff").json() == {"detail": "limited is limited to meter, not tariff"}
    assert client.get("/models", headers={"Authorization": f"Bearer {secret['limited']}"}).json() == "listed"
