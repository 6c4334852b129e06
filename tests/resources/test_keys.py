"""The keys: the file, the variables, and what is refused. No message shows a secret."""

import base64
import multiprocessing
import os
import re
import stat

import pytest

from resources.keys import Key, KeyFile, KeyProblem, KeyRing, MissingKeyError
from resources.settings import Settings, SettingsError, read, shown

ONE, TWO = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings.from_env({"ASSETLINE_HOME": str(tmp_path)})


def written(settings: Settings, text: str, mode: int = 0o600) -> None:
    settings.keys.write_text(text, encoding="utf-8")
    settings.keys.chmod(mode)


def test_keys_are_made_rotated_and_removed_and_only_their_owner_can_read_them(settings):
    file = KeyFile(settings.keys)
    assert KeyRing.of(settings).versions("tables") == ()
    first = file.create("tables")
    second, third = file.rotate("tables"), file.rotate("tables")
    other = file.create("backups")
    ring = KeyRing.of(settings)
    assert ring.versions("tables") == (first, second, third)
    assert (ring.newest("tables"), ring.newest("backups")) == (third, other)
    assert ring.key("tables", first.id) == ring.key("tables", first.fingerprint) == first
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", first.id)
    assert [second.id, third.id] == [f"{first.id}.2", f"{first.id}.3"]
    assert {len(key.secret) for key in (first, second, third, other)} == {32}
    assert len({key.secret for key in (first, second, third, other)}) == 4
    assert stat.S_IMODE(settings.keys.stat().st_mode) == 0o600
    assert file.remove("tables", first.id) == first
    assert KeyRing.of(settings).versions("tables") == (second, third)
    assert file.rotate("tables").id == first.id


def test_a_variable_takes_the_place_of_the_purposes_keys_in_the_file(settings):
    stored = KeyFile(settings.keys).create("tables"), KeyFile(settings.keys).create("backups")
    given = Settings.from_env({"ASSETLINE_HOME": str(settings.home), "ASSETLINE_KEY_TABLES": f"{ONE},{TWO}"})
    ring = KeyRing.of(given)
    assert [key.secret for key in ring.versions("tables")] == [b"\1" * 32, b"\2" * 32]
    assert [key.id for key in ring.versions("tables")] == [key.fingerprint for key in ring.versions("tables")]
    assert ring.versions("backups") == stored[1:]
    assert (ring.origin("tables"), ring.origin("backups")) == ("ASSETLINE_KEY_TABLES", str(given.keys))


def test_a_key_that_moves_from_the_file_to_a_variable_keeps_its_fingerprint(settings):
    key = KeyFile(settings.keys).create("tables")
    text = base64.b64encode(key.secret).decode()
    given = Settings.from_env({"ASSETLINE_HOME": str(settings.home), "ASSETLINE_KEY_TABLES": text})
    assert KeyRing.of(given).key("tables", key.fingerprint).secret == key.secret


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'[tables]\n"a" = "{ONE[:-8]}"\n', r"the key a of \[tables\] in \S+keys.toml has 27 bytes, and 32 are needed"),
        ('[tables]\n"a" = "hunter2§hunter2"\n', r"the key a of \[tables\] in \S+ is not base64"),
        (f'[tables]\n"a" = "{ONE}"\n"a" = "{TWO}"\n', "is not TOML, or holds an id twice"),
        (f'[tables]\n"a" = "{ONE}"\n"b" = "{ONE}"\n', r"\[tables\] in \S+ holds the key b twice"),
        (f'[tabels]\n"a" = "{ONE}"\n', r"'tabels' is not a purpose of keys \(did you mean tables\?\)"),
        (f'[x]\n"a" = "{ONE}"\n', r"'x' is not a purpose of keys \(the purposes are pseudonyms, tables, personal, "),
        (f'tables = "{ONE}"\n', r"\[tables\] is not a table of lines like"),
        (f'[tables]\n"a" = {ONE}\n', "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence_without_its_contents(settings, text, said):
    written(settings, text)
    for use in (lambda: KeyRing.of(settings), lambda: KeyFile(settings.keys).create("backups")):
        with pytest.raises(KeyProblem, match=said) as refused:
            use()
        assert "\n" not in str(refused.value)
        assert not [secret for secret in (ONE[:12], TWO[:12], "hunter2") if secret in str(refused.value)]
    assert settings.keys.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_may_read_is_refused(settings, mode):
    written(settings, f'[tables]\n"a" = "{ONE}"\n', mode)
    with pytest.raises(KeyProblem, match=rf"may read the key file .* \(mode 0{mode:o}\); `chmod 600 "):
        KeyRing.of(settings)
    settings.keys.chmod(0o400)
    assert KeyRing.of(settings).newest("tables") == Key("a", b"\1" * 32)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("aHVudGVyMg==", "ASSETLINE_KEY_TABLES has 7 bytes, and 32 are needed"),
        (f"{ONE},hunter2§", "ASSETLINE_KEY_TABLES, key 2 is not base64"),
        (f"{ONE},{ONE}", "ASSETLINE_KEY_TABLES holds the key .* twice"),
    ],
)
def test_a_wrong_variable_is_refused_without_its_value(tmp_path, value, said):
    with pytest.raises(SettingsError, match=said) as refused:
        Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_KEY_TABLES": value})
    assert not [part for part in value.split(",") if part in str(refused.value)]


def test_a_lost_key_is_named_with_the_place_that_was_read(settings):
    with pytest.raises(MissingKeyError, match=r"no key for tables in \S+keys.toml; `assetline keys create tables`"):
        KeyRing.of(settings).newest("tables")
    written(settings, f'[tables]\n"a" = "{ONE}"\n')
    there = KeyRing.of(settings).newest("tables").fingerprint
    with pytest.raises(MissingKeyError, match=rf"the key b for tables is not in \S+keys.toml \(there: a \({there}\)\)"):
        KeyRing.of(settings).key("tables", "b")


def test_create_rotate_and_remove_refuse_what_would_lose_a_key(settings):
    file = KeyFile(settings.keys)
    with pytest.raises(KeyProblem, match=r"tables has no key in .*; `assetline keys create tables` makes one"):
        file.rotate("tables")
    assert not settings.keys.exists()
    key = file.create("tables")
    before = settings.keys.read_bytes()
    with pytest.raises(KeyProblem, match=r"tables has a key in .* already; `assetline keys rotate tables`"):
        file.create("tables")
    with pytest.raises(KeyProblem, match="is the newest key for tables; `assetline keys rotate tables`"):
        file.remove("tables", key.id)
    with pytest.raises(MissingKeyError, match="the key x for tables is not in"):
        file.remove("tables", "x")
    assert settings.keys.read_bytes() == before


def test_nothing_shows_a_secret(settings):
    written(settings, f'[tables]\n"a" = "{ONE}"\n')
    given = {"ASSETLINE_HOME": str(settings.home), "ASSETLINE_KEY_BACKUPS": TWO}
    found = read(given).settings
    assert found is not None
    ring = KeyRing.of(found)
    texts = [repr(ring), repr(ring.newest("tables")), repr(found), str(found)]
    texts += [shown(one, getattr(found, one.name)) for one in found.__dataclass_fields__.values()]
    for text in texts:
        assert ONE not in text
        assert TWO not in text
        assert repr(b"\1" * 32) not in text


def _rotate(path) -> None:
    KeyFile(path).rotate("tables")


def test_two_who_rotate_at_once_lose_no_key(settings):
    KeyFile(settings.keys).create("tables")
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_rotate, args=(settings.keys,)) for _ in range(4)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(KeyRing.of(settings).versions("tables")) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_cannot_be_read_is_not_an_empty_one(settings):
    written(settings, f'[tables]\n"a" = "{ONE}"\n', 0o000)
    with pytest.raises(KeyProblem, match="cannot be read"):
        KeyRing.of(settings)
