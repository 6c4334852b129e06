"""Any file at rest: one header, then chunks of AES-256-GCM, so that a file of any size is read and written in a stream.

    ASSETLINE-SEALED-1 backups 3fa1b2c4 <32 hexadecimal digits of salt>\\n
    chunk, chunk, …

Each file has a key of its own: HKDF-SHA256 of the project's key, with the salt, and the header as its context. A chunk
is 64 KiB of the content and a tag of 16 bytes. Its nonce is its number (11 bytes) and one byte that is 1 for the last
chunk. So a chunk that is altered, moved, repeated or missing is found, at the end of the file as well. This is the
construction of age and of Tink (STREAM), with the keys of this project.

Belongs here: the format. Does not belong here: what is sealed, and where it is.
"""

from __future__ import annotations

import io
import os
import re
from typing import IO, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from resources.keys import Key, KeyProblem, KeyRing, Purpose

CHUNK = 64 * 1024
"""Bytes of the content in a chunk."""

HEAD = 128
"""Bytes at the beginning of a file that tell whether it is sealed, and by which key."""

_TAG = 16
_START = b"ASSETLINE-SEALED-1 "
_HEADER = re.compile(rb"ASSETLINE-SEALED-1 ([a-z]+) ([0-9a-f]{8}) ([0-9a-f]{32})\n")


class SealError(KeyProblem):
    """A sealed file is damaged or was altered; nothing of it should be used."""


def is_sealed(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least 19) is sealed."""
    return head.startswith(_START)


def key_of(head: bytes) -> tuple[Purpose, str] | None:
    """Purpose and fingerprint of the key of a file that begins with these bytes; ``None``: it is not sealed.

    Args:
        head: the first :data:`HEAD` bytes.
    """
    found = _HEADER.match(head)
    if found is None or found[1].decode() not in get_args(Purpose):
        return None
    return found[1].decode(), found[2].decode()  # type: ignore[return-value]


class Sealing(io.RawIOBase):
    """Writes a sealed file; ``close`` writes its last chunk, and leaves ``out`` open.

    Args:
        out: where the bytes go.
        purpose: what the key is for.
        key: the key.
    """

    def __init__(self, out: IO[bytes], purpose: Purpose, key: Key) -> None:
        super().__init__()
        header = b"%s%s %s %s\n" % (_START, purpose.encode(), key.fingerprint.encode(), os.urandom(16).hex().encode())
        out.write(header)
        self._out, self._cipher = out, _cipher(key, header)
        self._number, self._waiting = 0, bytearray()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """Adds content."""
        self._waiting += content
        while len(self._waiting) > CHUNK:  # the last chunk is known only at the end
            self._put(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]
        return len(content)

    def close(self) -> None:
        """Writes the last chunk."""
        if not self.closed:
            self._put(bytes(self._waiting), last=True)
        super().close()

    def abandon(self) -> None:
        """Ends without the last chunk, so that the file is incomplete and is refused."""
        super().close()

    def _put(self, content: bytes, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._number, last), content, None))
        self._number += 1


class Unsealing(io.RawIOBase):
    """Reads the content of a sealed file. Each chunk is verified before a byte of it is returned.

    Args:
        source: the file, at its beginning.
        ring: the keys.

    Raises:
        MissingKeyError: the key is not there.
        SealError: the file is not sealed or damaged; also while it is read.
    """

    def __init__(self, source: IO[bytes], ring: KeyRing) -> None:
        super().__init__()
        header = source.readline(HEAD)
        named = key_of(header)
        if named is None:
            raise SealError("its header is damaged; restore it from a copy")
        self._cipher = _cipher(ring.key(*named), header)
        self._source, self._number, self._ended = source, 0, False
        self._next = _exactly(source, CHUNK + _TAG)
        self._left = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fills the buffer with the next bytes; see :class:`io.RawIOBase`."""
        while not self._left and not self._ended:
            self._left = self._take()
        part = self._left[: len(buffer)]
        buffer[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def _take(self) -> bytes:
        chunk, self._next = self._next, _exactly(self._source, CHUNK + _TAG)
        self._ended = not self._next
        try:
            content = self._cipher.decrypt(_nonce(self._number, self._ended), chunk, None)
        except (InvalidTag, ValueError) as error:
            raise SealError("it is damaged, cut off or altered; restore it from a copy") from error
        self._number += 1
        return content


def seal(content: bytes, purpose: Purpose, ring: KeyRing) -> bytes:
    """Content as a sealed file. Raises :class:`~resources.keys.MissingKeyError` if there is no key."""
    out = io.BytesIO()
    with Sealing(out, purpose, ring.newest(purpose)) as sealing:
        sealing.write(content)
    return out.getvalue()


def unseal(content: bytes, ring: KeyRing) -> bytes:
    """The content of a sealed file. Raises :class:`~resources.keys.KeyProblem` if it cannot be read."""
    return io.BufferedReader(Unsealing(io.BytesIO(content), ring)).read()


def _cipher(key: Key, header: bytes) -> AESGCM:
    salt = bytes.fromhex(header.split()[-1].decode())
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=header).derive(key.secret))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _exactly(source: IO[bytes], size: int) -> bytes:
    """The next ``size`` bytes; fewer at the end of the file."""
    parts = []
    while size and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
