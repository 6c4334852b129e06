"""Presidio without a language model: what it finds more than the project's own patterns, and what it does not."""

import socket

import pytest

from assets.declaration import DeclarationError
from assets.personal import Tag, personal
from assets.protections import protection

FOUND = "Passport 912803456, wallet 1BoatSLRHtKNngkdXEeobR76b53LETtpyT, mail jo@mail.example.org, on 2026-03-01"


def test_without_the_package_the_declaration_is_refused(monkeypatch):
    import importlib.util

    import pandera.pandas as pa
    from pandera.typing.pandas import Series

    from tests.assets.test_personal import model

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        DeclarationError, match=r"it needs the package presidio-analyzer; pip install 'assetline\[presidio\]'"
    ):
        model(x=(Series[str], pa.Field(metadata=personal("text", by="presidio"))))


def test_it_redacts_numbers_with_a_form_and_asks_no_network(monkeypatch):
    pytest.importorskip("presidio_analyzer", reason="install the extra: pip install 'assetline[presidio]'")

    def no_network(*_: object, **__: object):
        raise AssertionError("it asked the network")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    redact = protection(Tag("text", protect="redact", by="presidio"), "text", ())
    made = redact(FOUND)
    assert made == "Passport <US_PASSPORT>, wallet <CRYPTO>, mail <EMAIL>, on 2026-03-01"
    assert redact(made) == made, "what was redacted stays as it is"
    assert redact("Ada Lovelace lives in London") == "Ada Lovelace lives in London", "names need a language model"
