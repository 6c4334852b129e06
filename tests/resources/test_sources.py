"""What every source keeps to: secrets stay out of messages."""

import pytest

from resources.sources import hidden


@pytest.mark.parametrize(
    "message",
    [
        "could not connect to postgresql://ada:p%40ss+w%2Frd@db/shop",
        'password authentication failed: "p@ss+w/rd"',
        "GET /rows?token=p%40ss%2Bw%2Frd failed",
    ],
)
def test_the_password_of_a_url_is_hidden_in_each_form(message):
    told = hidden(message, "postgresql://ada:p%40ss+w%2Frd@db/shop")
    assert "***" in told
    assert not any(form in told for form in ("p%40ss", "p@ss", "rd@", "w%2Frd")), told


def test_tokens_and_errors_are_hidden_and_what_is_absent_is_no_secret():
    assert (
        hidden(ValueError("token abc-123 is wrong"), "abc-123", None, "", "https://host/path") == "token *** is wrong"
    )
