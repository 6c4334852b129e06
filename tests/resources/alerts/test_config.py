"""What a file of channels may say, what is refused, and that no secret stands in it or is shown."""

import dagster as dg
import pytest

from definitions import build_defs
from resources.alerts import ChannelsError, read_channels, with_secrets
from resources.alerts.channels import KINDS
from resources.settings import Settings, project_root
from tests.declarations.telco import model as telco

FILE = """
[oncall]
kind = "pagerduty"
routing_key = { env = "PAGERDUTY_ROUTING_KEY" }

[risk]
kind = "slack"
webhook_url = { env = "SLACK_WEBHOOK_URL" }
owners = ["team:risk"]
quiet_hours = "22:00-07:00"
timezone = "Europe/Berlin"
"""


def file(tmp_path, text: str):
    path = tmp_path / "channels.toml"
    path.write_text(text)
    return path


def test_the_template_has_no_channel_and_can_be_read():
    assert read_channels(project_root() / "deploy" / "channels.toml") == {}


def test_secrets_come_from_the_environment_when_they_are_needed(tmp_path, monkeypatch):
    channels = read_channels(file(tmp_path, FILE))
    assert isinstance(channels["risk"].webhook_url, dg.EnvVar)
    with pytest.raises(ChannelsError, match="channel risk: set the environment variable SLACK_WEBHOOK_URL"):
        with_secrets(channels["risk"], "risk")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "https://hooks/secret")
    ready = with_secrets(channels["risk"], "risk")
    assert ready.webhook_url == "https://hooks/secret"
    assert "secret" not in repr(ready)
    assert channels["risk"].route("risk").owners == ("team:risk",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[a]\nkind = "pigeon"', "`kind` must be one of console, slack"),
        (
            '[a]\nkind = "slack"\nwebhook_url = "https://x"',
            'webhook_url is a secret; write webhook_url = { env = "A_WEB',
        ),
        ('[a]\nkind = "slack"\nwebhok = 1', "webhok is not a field of slack"),
        ('[a]\nkind = "prometheus"', "prometheus needs path"),
        ('[a]\nkind = "prometheus"\npath = "x"\nquiet_hours = "22"', "quiet_hours"),
        ('[a]\nkind = "prometheus"\npath = "x"\nquiet_hours = "22:00-22:00"', "a different end"),
        ('[a]\nkind = "prometheus"\npath = "x"\ntimezone = "Berlin"', "Berlin"),
        ('[a]\nkind = "prometheus"\npath = "x"\nseverities = ["fatal"]', "use 'warn' and 'page'"),
        ('[a]\nkind = "pagerduty"\nrouting_key = { env = "X" }\nheartbeat_minutes = 5', "pagerduty has no heartbeat"),
        ('["a b"]\nkind = "prometheus"\npath = "x"', "letters, digits and _"),
        ("[a", "channels.toml: Expected"),
    ],
)
def test_what_cannot_work_is_refused_in_words(tmp_path, text, words):
    with pytest.raises(ChannelsError, match=r"channels\.toml") as refused:
        read_channels(file(tmp_path, text))
    assert words in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ChannelsError, match="no such file; set ASSETLINE_CHANNELS"):
        read_channels(tmp_path / "none.toml")


def test_each_channel_is_a_resource_of_its_own(tmp_path):
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'x.db'}", channels=file(tmp_path, FILE))
    made = build_defs(models=[telco], settings=settings)
    assert {"channel_oncall", "channel_risk"} <= set(made.resources)


def test_the_docs_name_every_kind():
    said = (project_root() / "docs" / "alerts.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in said] == []
