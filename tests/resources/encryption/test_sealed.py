"""The format of sealed files: any size, in a stream, and each change to it is found."""

import io

import pytest

from resources.encryption.sealed import CHUNK, SealError, Sealing, Unsealing, is_sealed, key_of, seal, unseal
from resources.keys import Key, KeyRing, MissingKeyError

OLD, NEW = Key("a", b"\1" * 32), Key("b", b"\2" * 32)
RING = KeyRing({"backups": (OLD, NEW)}, {"backups": "keys.toml"})
HEADER = 69
"""Length of the header of a file for backups."""


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_what_is_sealed_is_read_again(size):
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    sealed = seal(content, "backups", RING)
    assert is_sealed(sealed)
    assert key_of(sealed) == ("backups", NEW.fingerprint)
    assert unseal(sealed, RING) == content
    assert size < 64 or content[:64] not in sealed
    assert seal(content, "backups", RING) != sealed  # each file has a key of its own


def test_it_is_written_and_read_in_a_stream_of_any_parts():
    out = io.BytesIO()
    with Sealing(out, "backups", OLD) as sealing:
        for n in range(700):
            sealing.write(bytes([n % 256]) * n)
    reading = io.BufferedReader(Unsealing(io.BytesIO(out.getvalue()), RING), 1000)
    assert b"".join(iter(lambda: reading.read(977), b"")) == b"".join(bytes([n % 256]) * n for n in range(700))


def test_any_change_is_found():
    content = b"x" * (2 * CHUNK + 100)
    sealed = seal(content, "backups", RING)
    chunk = CHUNK + 16
    one, two = sealed[HEADER : HEADER + chunk], sealed[HEADER + chunk : HEADER + 2 * chunk]
    changed = {
        "a bit": bytes([*sealed[:500], sealed[500] ^ 1, *sealed[501:]]),
        "the salt": sealed[:50] + (b"0" if sealed[50:51] != b"0" else b"1") + sealed[51:],
        "cut in a chunk": sealed[:-5],
        "cut between chunks": sealed[: HEADER + 2 * chunk],
        "only a header": sealed[:HEADER],
        "swapped": sealed[:HEADER] + two + one + sealed[HEADER + 2 * chunk :],
        "repeated": sealed[: HEADER + chunk] + one + sealed[HEADER + chunk :],
        "longer": sealed + b"x",
        "another purpose": sealed.replace(b" backups ", b" tables  ", 1),
    }
    assert len(sealed) == HEADER + 2 * chunk + 116
    for what, altered in changed.items():
        with pytest.raises((SealError, MissingKeyError)):
            print(what, len(unseal(altered, RING)))


def test_a_file_that_was_left_incomplete_is_refused():
    out = io.BytesIO()
    sealing = Sealing(out, "backups", OLD)
    sealing.write(b"x" * 3 * CHUNK)
    sealing.abandon()
    with pytest.raises(SealError, match="damaged, cut off or altered"):
        unseal(out.getvalue(), RING)


def test_a_missing_key_is_named(monkeypatch):
    sealed = seal(b"x", "backups", RING)
    with pytest.raises(MissingKeyError, match=f"the key {NEW.fingerprint} for backups is not in keys.toml"):
        unseal(sealed, KeyRing({"backups": (OLD,)}, {"backups": "keys.toml"}))
    with pytest.raises(MissingKeyError, match="there is no key for tables"):
        seal(b"x", "tables", RING)


@pytest.mark.parametrize("head", [b"", b"PK\3\4", b"ASSETLINE-SEALED-1 x y z\n", b"ASSETLINE-SEALED-2 "])
def test_another_file_is_not_taken_for_one(head):
    assert key_of(head) is None
    with pytest.raises(SealError, match="its header is damaged"):
        unseal(head, RING)
