"""Tokens of the scoring service, on the command line."""

import json

import pytest

from cli import main
from resources.service_tokens import TokenFile, digest_of
from resources.settings import Settings


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["token", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def stored() -> dict:
    settings = Settings.from_env()
    return TokenFile(settings.service_tokens, settings.first_service_token).read()


def test_a_new_token_is_alone_on_the_output_so_that_a_script_can_take_it(run):
    code, out, err = run("create", "nightly", "--expires", "2999-01-01")
    assert code == 0
    token = out.removesuffix("\n")
    assert stored()["nightly"].digest == digest_of(token)
    assert err.startswith("nightly works until 2999-01-01 00:00 UTC. It is shown this once:")
    assert token not in err
    as_json = json.loads(run("create", "batch", "--json")[1])
    assert stored()["batch"].digest == digest_of(as_json["token"])
    assert (as_json["name"], as_json["expires"], as_json["expired"]) == ("batch", None, False)


def test_the_list_shows_names_and_times_and_nothing_secret(run):
    first = run("create", "nightly")[1].strip()
    run("create", "batch", "--expires", "2999-01-01")
    second = run("rotate", "batch", "--keep", "24")[1].strip()
    code, out, _ = run("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", "nightly", "batch"]
    assert "never" in out.splitlines()[1]
    assert "the one before works until" in out.splitlines()[2]
    listed = json.loads(run("list", "--json")[1])
    assert [(one["name"], one["expires"]) for one in listed] == [
        ("nightly", None), ("batch", "2999-01-01T00:00:00+00:00"),
    ]  # fmt: skip
    for text in (out, json.dumps(listed)):
        assert not {first, second, digest_of(first).hex(), digest_of(second).hex()} & set(text.split())


def test_a_revoked_token_is_gone_and_its_name_is_free(run):
    run("create", "nightly")
    run("create", "batch")
    assert run("revoke", "nightly")[1] == "revoked nightly; left: batch\n"
    assert json.loads(run("revoke", "batch", "--json")[1]) == {"revoked": "batch", "left": []}
    assert run("list")[1].startswith("there is no token; the service refuses every request")
    assert run("create", "nightly")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["list"], 1, "assetline token list: the token file "),
        (["create", "Big"], 1, "assetline token create: the name 'Big' is invalid"),
        (["create", "a", "--expires", "2020-01-01"], 1, "--expires 2020-01-01 00:00 UTC is past"),
        (["create", "a", "--expires", "soon"], 2, "'soon' is not a time"),
        (["rotate", "a"], 1, "assetline token rotate: the token file "),
        (["revoke", "a"], 1, "assetline token revoke: the token file "),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, tmp_path, arguments, code, said):
    ended, out, err = run(*arguments)
    assert (ended, out) == (code, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "service-tokens.toml").exists()


def test_a_token_has_a_role_and_may_be_limited_to_models(run):
    assert run("create", "nightly", "--role", "reader", "--model", "fraud", "--model", "churn")[0] == 0
    assert (stored()["nightly"].role, stored()["nightly"].models) == ("reader", ("churn", "fraud"))
    assert "nightly  reader  churn, fraud" in run("list")[1]
    code, _, err = run("create", "other", "--role", "boss")
    assert code == 2
    assert "'boss' is not one of 'scorer', 'reader', 'operator', 'approver', 'admin'" in " ".join(
        err.replace("│", " ").split()
    )


def test_an_unknown_name_is_named_with_those_there_are(run):
    run("create", "nightly")
    for command in ("rotate", "revoke"):
        assert "there is no token 'nigthly'; the tokens are: nightly" in run(command, "nigthly")[2]


def test_a_file_elsewhere_is_used_if_the_setting_names_it(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_SERVICE_TOKENS", str(tmp_path / "mounted" / "tokens.toml"))
    assert run("create", "nightly")[0] == 0
    assert list(stored()) == ["nightly"]
    assert (tmp_path / "mounted" / "tokens.toml").exists()
