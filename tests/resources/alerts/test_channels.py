"""What each channel sends for each change, as documented; and that no secret is in what is logged or kept."""

import datetime as dt
import shutil
import subprocess
import time
from email import message_from_bytes

import httpx
import pytest

from resources.alerts import AlertStore, Messenger
from resources.alerts.channels import (
    AlertmanagerChannel,
    AppriseChannel,
    Channel,
    ConsoleChannel,
    EmailChannel,
    PagerDutyChannel,
    PrometheusChannel,
    SlackChannel,
    WebhookChannel,
)
from resources.processes import free_port
from tests.resources.alerts.doubles import ADDRESSES, ROUTING_KEY, SLACK_PATH, Doubles

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def doubles():
    server = Doubles()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'alerts.db'}"


def live(url: str, channel: Channel, each=lambda: None) -> AlertStore:
    """A warning that opens, escalates, is acknowledged, silenced, updated and resolved; each change told at once."""
    store = AlertStore(url, [channel.route("c")])
    messenger = Messenger(store, "c", channel, ADDRESSES)

    def told():
        time.sleep(channel.group_seconds if channel.GROUPS else 0)
        messenger.deliver()
        each()

    said = {
        "owner": "team:risk",
        "runbook": "docs/runbooks/drift.md",
        "links": {"run": "/runs/1", "report": "/state/reports/1.html"},
    }
    alert, _ = store.report("fraud", "drift/drift", severity="warn", summary="2 of 9 columns", day="2026-03-01", **said)
    told()
    store.report("fraud", "drift/drift", severity="page", summary="3 of 9 columns", day="2026-03-02", **said)
    told()
    store.acknowledge(alert.id, who="ada")
    told()
    store.update(alert.id, "version 2 was refused: worse by .03")
    told()
    store.silence(alert.id, until=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), who="ada", comment="known")
    told()
    store.resolve("fraud", "drift/drift", reason="the check passed")
    told()
    assert store.outbox.backlog() == {}, "all of it was taken"
    return store


CHANGES = ["opened", "escalated", "acknowledged", "updated", "silenced", "resolved"]


def test_the_console_has_a_line_for_each_change(url, caplog):
    live(url, ConsoleChannel())
    lines = [record.getMessage() for record in caplog.records if record.name == "assetline.alerts"]
    assert [line.split()[0] for line in lines] == [change.upper() for change in CHANGES]
    assert lines[1] == "ESCALATED page [fraud] drift/drift: 3 of 9 columns"


def test_a_channel_that_cannot_send_is_none():
    class Mute(Channel):
        """Has fields, and no way to tell anybody."""

    with pytest.raises(TypeError, match=r"abstract method '?send"):
        Mute()


def test_a_part_of_a_secret_is_hidden_too():
    channel = WebhookChannel(url="https://hooks.example.org/T000/a-token-of-the-hook?key=1")
    assert channel.hidden("no route to hooks.example.org/a-token-of-the-hook") == "no route to ***/***"


def test_slack_gets_a_message_for_each_change(url, doubles):
    live(url, SlackChannel(webhook_url=doubles.url + SLACK_PATH, group_seconds=0))
    bodies = doubles.bodies(SLACK_PATH)
    assert [body["text"].split()[0] for body in bodies] == [change.upper() for change in CHANGES]
    text = bodies[0]["blocks"][0]["text"]["text"]
    assert text.splitlines() == [
        "*OPENED warn [fraud] drift/drift: 2 of 9 columns*", "owner: team:risk",
        "runbook: https://alerts/runbooks/drift", "alert: https://alerts/alerts/1", "run: https://dagster/runs/1",
        "report: https://alerts/alerts/1/report",
    ]  # fmt: skip


def test_slack_markup_in_a_summary_is_text(url, doubles):
    channel = SlackChannel(webhook_url=doubles.url + SLACK_PATH, group_seconds=0)
    store = AlertStore(url, [channel.route("c")])
    store.report("fraud", "x", severity="page", summary="<!channel> & co")
    Messenger(store, "c", channel, ADDRESSES).deliver()
    assert "&lt;!channel&gt; &amp; co" in doubles.bodies(SLACK_PATH)[0]["blocks"][0]["text"]["text"]


def test_pagerduty_triggers_acknowledges_and_resolves_one_incident(url, doubles):
    channel = PagerDutyChannel(routing_key=ROUTING_KEY, url=doubles.url, severities=["warn", "page"])
    live(url, channel)
    bodies = doubles.bodies("/v2/enqueue")
    actions = [body["event_action"] for body in bodies]
    assert actions == ["trigger", "trigger", "acknowledge", "trigger", "acknowledge", "resolve"]
    assert len({body["dedup_key"] for body in bodies}) == 1
    assert [body["payload"]["severity"] for body in bodies if "payload" in body] == ["warning", "critical", "critical"]
    assert bodies[1]["payload"]["summary"] == "ESCALATED page [fraud] drift/drift: 3 of 9 columns"
    assert bodies[1]["payload"]["custom_details"]["runbook"] == "https://alerts/runbooks/drift"
    assert bodies[0]["links"] == [
        {"href": "https://alerts/alerts/1", "text": "alert"}, {"href": "https://dagster/runs/1", "text": "run"},
        {"href": "https://alerts/alerts/1/report", "text": "report"},
    ]  # fmt: skip


def test_pagerduty_is_told_of_pages_only_unless_told_otherwise(url, doubles):
    live(url, PagerDutyChannel(routing_key=ROUTING_KEY, url=doubles.url))
    assert doubles.bodies("/v2/enqueue")[0]["payload"]["summary"].startswith("ESCALATED page")


def test_a_webhook_gets_the_whole_alert_and_a_key_to_tell_copies(url, doubles):
    live(url, WebhookChannel(url=doubles.url + "/hook", token="t0ken-of-the-hook", group_seconds=0))
    told = [change for body in doubles.bodies("/hook") for change in body["changes"]]
    assert [change["change"] for change in told] == CHANGES
    assert [change["alert"]["state"] for change in told] == ["open", "open", *["acknowledged"] * 3, "resolved"]
    assert (told[2]["who"], told[2]["alert"]["acknowledged_by"]) == ("ada", "ada")
    assert {headers["Authorization"] for headers in doubles.headers} == {"Bearer t0ken-of-the-hook"}
    assert len({headers["Idempotency-Key"] for headers in doubles.headers}) == len(CHANGES)


def test_apprise_reaches_what_it_knows(url, doubles):
    live(url, AppriseChannel(url=doubles.url.replace("http", "json") + "/hook", group_seconds=0))
    told = doubles.bodies("/hook")
    assert [body["title"].split()[0] for body in told] == [change.upper() for change in CHANGES]
    assert [body["type"] for body in told] == ["warning", *["failure"] * 4, "success"]


@pytest.mark.parametrize("address", ["nosuch://x", "json://127.0.0.1:1/secret-path"])
def test_apprise_that_cannot_deliver_says_so(url, address):
    channel = AppriseChannel(url=address, group_seconds=0)
    store = AlertStore(url, [channel.route("c")])
    store.report("fraud", "x", severity="page", summary="x")
    assert Messenger(store, "c", channel, ADDRESSES).deliver() == 0
    assert "apprise" in store.outbox.backlog()["c"].error


@pytest.fixture
def mails():
    """A real SMTP server on the loopback interface that asks for a login, and the e-mails it took."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    class Inbox:
        def __init__(self):
            self.taken = []

        async def handle_DATA(self, server, session, envelope):
            self.taken.append((envelope.mail_from, envelope.rcpt_tos, message_from_bytes(envelope.content)))
            return "250 taken"

    def login(server, session, envelope, mechanism, given):
        right = (given.login, given.password) == (b"assetline", b"pass-word-of-mail")
        return AuthResult(success=right, handled=False)

    controller = Controller(
        Inbox(), hostname="127.0.0.1", port=free_port(), authenticator=login, auth_required=True, auth_require_tls=False
    )
    controller.start()
    yield controller
    controller.stop()


def mail_channel(mails, **given) -> EmailChannel:
    said = {
        "host": "127.0.0.1",
        "port": mails.port,
        "security": "none",
        "user": "assetline",
        "group_seconds": 0,
        "password": "pass-word-of-mail",
        "sender": "assetline@example.org",
        "to": ["ada@example.org", "bob@example.org"],
    }
    return EmailChannel(**{**said, **given})  # fmt: skip


def test_email_gets_a_mail_for_each_change(url, mails):
    live(url, mail_channel(mails))
    taken = mails.handler.taken
    severities = ["warn", *["page"] * 5]
    subjects = [f"{c.upper()} {s} [fraud] drift/drift" for c, s in zip(CHANGES, severities, strict=True)]
    assert [mail["Subject"] for _, _, mail in taken] == subjects
    sender, to, mail = taken[0]
    assert (sender, to) == ("assetline@example.org", ["ada@example.org", "bob@example.org"])
    assert "runbook: https://alerts/runbooks/drift" in mail.get_payload()
    assert len({mail["Message-ID"] for _, _, mail in taken}) == len(CHANGES)


def test_several_changes_are_one_mail_in_their_order(url, mails):
    channel = mail_channel(mails)
    store = AlertStore(url, [channel.route("c")])
    for name in ("a", "b", "c"):
        store.report("fraud", name, severity="page", summary="x\ny")
    assert Messenger(store, "c", channel, ADDRESSES).deliver() == 3
    [(_, _, mail)] = mails.handler.taken
    assert mail["Subject"] == "3 alert changes (3 of pages)"
    lines = [line for line in mail.get_payload().splitlines() if line.startswith("OPENED")]
    assert [line.split()[3] for line in lines] == ["a:", "b:", "c:"]


def test_a_wrong_password_is_an_error_without_the_password(url, mails, caplog):
    channel = mail_channel(mails, password="an-other-pass-word")
    store = AlertStore(url, [channel.route("c")])
    store.report("fraud", "x", severity="page", summary="x")
    assert Messenger(store, "c", channel, ADDRESSES).deliver() == 0
    assert "535" in store.outbox.backlog()["c"].error
    assert "an-other-pass-word" not in store.outbox.backlog()["c"].error + caplog.text + repr(channel) + str(channel)


@pytest.mark.parametrize(
    "channel",
    [
        SlackChannel(webhook_url="http://127.0.0.1:1/services/T0/B0/secret-of-the-hook"),
        WebhookChannel(url="http://127.0.0.1:1/hook?token=secret-of-the-hook"),
        WebhookChannel(url="http://secret-of-the-hook.invalid/x"),
    ],
)
def test_a_secret_is_in_no_error(url, channel, caplog):
    store = AlertStore(url, [channel.route("c")])
    store.report("fraud", "x", severity="page", summary="x")
    due = store.outbox.due("c", dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1))
    messenger = Messenger(store, "c", channel, ADDRESSES)
    assert messenger._send(due) == 0
    assert store.outbox.backlog()["c"].tries == 1
    assert "secret-of-the-hook" not in store.outbox.backlog()["c"].error + caplog.text


def test_the_metrics_file_has_the_open_alerts_and_the_sign_of_life(url, tmp_path):
    channel = PrometheusChannel(path=str(tmp_path / "metrics" / "assetline.prom"), heartbeat_minutes=1, group_seconds=0)
    store = AlertStore(url, [channel.route("c")])
    store.report("fraud", "drift/drift", severity="page", summary="x")
    messenger = Messenger(store, "c", channel, ADDRESSES)
    messenger.keep()
    text = (tmp_path / "metrics" / "assetline.prom").read_text()
    line = 'assetline_alert_open{cause="drift/drift",column="",model="fraud",severity="page",state="open"} 1.0'
    assert line in text
    assert "assetline_heartbeat_timestamp_seconds 1." in text


# -- Alertmanager ----------------------------------------------------------------------------------------------------


@pytest.fixture
def alertmanager(tmp_path):
    """The real one, on the loopback interface; its base address."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("needs the Debian package prometheus-alertmanager")
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = free_port()
    with (tmp_path / "am.log").open("w") as log:
        process = subprocess.Popen(
            [program, f"--config.file={tmp_path / 'am.yml'}", f"--storage.path={tmp_path / 'am'}",
             f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="], stdout=log, stderr=log,
        )  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                if httpx.get(f"{address}/-/ready", trust_env=False).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise AssertionError((tmp_path / "am.log").read_text())
        yield address
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_alertmanager_has_the_alert_its_silence_and_its_end(url, alertmanager):
    seen = []

    def look():
        alerts = httpx.get(f"{alertmanager}/api/v2/alerts", trust_env=False).json()
        silences = httpx.get(f"{alertmanager}/api/v2/silences", trust_env=False).json()
        active = [s for s in silences if s["status"]["state"] != "expired"]
        seen.append(([a["labels"]["severity"] for a in alerts], [(s["createdBy"], s["comment"]) for s in active]))

    channel = AlertmanagerChannel(url=alertmanager)
    live(url, channel, each=look)
    acknowledged, known = ("ada", "assetline: acknowledged by ada"), ("ada", "assetline: known")
    assert [silences for _, silences in seen] == [[], [], [acknowledged], [acknowledged], [known], []]
    assert seen[0][0] == ["warn"]
    assert "page" in seen[1][0]
    firing = httpx.get(f"{alertmanager}/api/v2/alerts", trust_env=False).json()
    assert not [a for a in firing if a["labels"]["severity"] == "page"], "a resolved alert fires no more"


@pytest.mark.slow
def test_what_alertmanager_forgot_is_silenced_there_again(url, alertmanager):
    channel = AlertmanagerChannel(url=alertmanager)
    store = AlertStore(url, [channel.route("c")])
    messenger = Messenger(store, "c", channel, ADDRESSES)
    alert, _ = store.report("fraud", "drift/drift", severity="page", summary="x")
    store.report("fraud", "drift/other", severity="page", summary="x")
    store.acknowledge(alert.id, who="ada")
    messenger.deliver()
    api = httpx.Client(base_url=f"{alertmanager}/api/v2", trust_env=False)

    def silences() -> list[tuple[str, str]]:
        found = [s for s in api.get("/silences").json() if s["status"]["state"] != "expired"]
        for silence in found:
            api.delete(f"/silence/{silence['id']}")
        return [(s["createdBy"], s["matchers"][0]["value"]) for s in found]

    assert silences() == [("ada", alert.fingerprint)]
    messenger.keep()
    assert silences() == [("ada", alert.fingerprint)]
    store.silence(alert.id, until=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1), who="ada")
    messenger.deliver()
    time.sleep(1)
    store.tend()
    messenger.deliver()
    assert silences() == [("ada", alert.fingerprint)], "it is in her hands still"


@pytest.mark.slow
def test_alertmanager_is_posted_to_again_and_gets_the_sign_of_life(url, alertmanager):
    channel = AlertmanagerChannel(url=alertmanager, heartbeat_minutes=1)
    store = AlertStore(url)
    store.report("fraud", "drift/drift", severity="page", summary="x")
    Messenger(store, "c", channel, ADDRESSES).keep()
    names = [a["labels"]["alertname"] for a in httpx.get(f"{alertmanager}/api/v2/alerts", trust_env=False).json()]
    assert sorted(names) == ["AssetlineWatchdog", "drift/drift"]
