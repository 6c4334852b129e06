"""``assetline alerts …``: list, show and handle alerts. It uses the same functions as the alerts page and the jobs.

Belongs here: arguments, and text output. Does not belong here: changes of an alert (``resources/alerts/store.py``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audited import audited, needs
from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from resources.alerts import Alert, Alerts

alerts_app = typer.Typer(help="List, show and handle alerts.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="ID", help="Number of the alert.")]
Numbers = Annotated[list[int], typer.Argument(metavar="ID...", help="Numbers of the alerts.")]
Who = Annotated[
    str,
    typer.Option(
        default_factory=getpass.getuser, show_default=False, help="Name for the history (default: your user)."
    ),
]
Comment = Annotated[str, typer.Option(help="Reason, for the history.")]


@contextlib.contextmanager
def _alerts() -> Iterator[Alerts]:
    """Yields the alerts; an error that the user can fix ends the command."""
    settings = read_settings("assetline alerts")
    from resources.alerts import AlertError, Alerts, ChannelsError

    with reported("assetline alerts", AlertError), reported("assetline alerts", ChannelsError, code=2):
        yield Alerts.from_settings(settings).process_config_and_initialize()


@alerts_app.command("list", epilog="Example: `assetline alerts list --model fraud --json`")
@audited("read", "{model}/alerts")
def list_alerts(
    all_: Annotated[bool, typer.Option("--all", help="Include resolved alerts.")] = False,
    model: Annotated[str | None, typer.Option(help="Only alerts of this model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List the open alerts."""
    with _alerts() as alerts:
        found = alerts.store.alerts(model) if all_ else alerts.store.open_alerts(model)
        print("\n".join(json.dumps(alert.to_json()) for alert in found) if as_json else format_table(found))


@alerts_app.command()
@audited("read", "alerts", details=("number",))
def show(number: Number) -> None:
    """Show one alert, with its links and its runbook."""
    with _alerts() as alerts:
        print(format_alert(alerts.addresses.link(alerts.store.get(number))))


@alerts_app.command()
@audited("read", "alerts", details=("number",))
def history(number: Number) -> None:
    """Show the history of one alert."""
    with _alerts() as alerts:
        alerts.store.get(number)
        for event in alerts.store.history(number):
            by = f" ({event.who})" if event.who else ""
            print(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.change:12}  {event.message}{by}")


@alerts_app.command(epilog='Example: `assetline alerts ack 3 4 --comment "looking into it"`')
@needs("operate")
def ack(numbers: Numbers, who: Who, comment: Comment = "") -> None:
    """Acknowledge alerts: you are working on them."""
    with _alerts() as alerts:
        for number in numbers:
            changed = alerts.store.acknowledge(number, who=who, comment=comment)
            print(f"alert {number}: acknowledged" if changed else f"alert {number}: was already acknowledged")


@alerts_app.command(epilog='Example: `assetline alerts silence 3 --hours 24 --comment "known, fixed tomorrow"`')
@needs("operate")
def silence(
    numbers: Numbers,
    who: Who,
    comment: Comment = "",
    hours: Annotated[float, typer.Option(help="Duration in hours.")] = 8.0,
) -> None:
    """Silence alerts: for a while, channels receive only their resolution."""
    with _alerts() as alerts:
        for number in numbers:
            until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
            alerts.store.silence(number, until=until, who=who, comment=comment)
            print(f"alert {number}: silenced until {until:%Y-%m-%d %H:%M} UTC")


@alerts_app.command(epilog='Example: `assetline alerts resolve 3 --comment "upstream sent the day again"`')
@needs("operate")
def resolve(numbers: Numbers, who: Who, comment: Comment = "") -> None:
    """Resolve alerts: their cause is gone."""
    with _alerts() as alerts:
        for number in numbers:
            alerts.store.close(number, who=who, comment=comment)
            print(f"alert {number}: resolved")


@alerts_app.command()
@needs("operate")
def deliver() -> None:
    """Send waiting changes to the channels if no watch is running."""
    from resources.alerts.delivery import deliver_all

    with _alerts() as alerts:
        delivered = deliver_all(alerts.messengers())
        backlog = alerts.store.outbox.backlog()
    for name, count in delivered.items():
        waits = backlog.get(name)
        rest = f", {waits.waiting} wait ({waits.error or 'not due yet'})" if waits else ""
        print(f"{name}: {count} delivered{rest}")
    raise typer.Exit(1 if any(waits.error for waits in backlog.values()) else 0)


@alerts_app.command("test", epilog="Example: `assetline alerts test slack`")
@needs("operate")
def send_test(
    names: Annotated[list[str] | None, typer.Argument(metavar="CHANNEL...", help="Channels (default: all).")] = None,
) -> None:
    """Send a test message through channels."""
    with _alerts() as alerts:
        failed = not _sent_to_all(alerts, names or [])
    raise typer.Exit(1 if failed else 0)


def _sent_to_all(alerts: Alerts, names: Sequence[str]) -> bool:
    """Sends a test message through each channel; returns whether all of them took it."""
    from resources.alerts import Alert, AlertError, Delivery, fingerprint_of

    channels = alerts.channels()
    if unknown := set(names) - set(channels):
        raise AlertError(f"no channel {', '.join(sorted(unknown))}; the channels are: {', '.join(channels) or 'none'}")
    now = dt.datetime.now(dt.UTC)
    test = Alert(
        id=0, fingerprint=fingerprint_of("assetline", "test"), model="assetline", cause="test", column="",
        severity="warn", owner="", summary="a test, nothing is wrong", runbook="", links={}, count=1, since_day=None,
        last_day=None, opened_at=now, updated_at=now, acknowledged_at=None, acknowledged_by=None, silenced_until=None,
        clear_since=None, flapping=False, resolved_at=now, resolved_day=None, resolution="a test, nothing is wrong",
    )  # fmt: skip
    delivery = Delivery(id=0, change="resolved", message=test.summary, who="", at=now, alert=test, tries=0)
    all_sent = True
    for name in names or channels:
        try:
            channels[name].send([delivery])
            print(f"{name}: sent")
        except Exception as error:  # the test reports any error of a channel
            all_sent = False
            print(f"{name}: {channels[name].hidden(error)}")
    return all_sent


def format_table(alerts: Sequence[Alert]) -> str:
    """Alerts as a text table: unresolved first, then pages, then newest."""
    if not alerts:
        return "no alert is open"
    rows = [("#", "severity", "state", "model", "cause", "seen", "since", "summary")]
    for a in sorted(alerts, key=lambda a: (a.state == "resolved", a.severity != "page", -a.id)):
        state = f"{a.state}, silenced" if a.is_silenced() and a.state != "resolved" else a.state
        since = a.since_day or f"{a.opened_at:%Y-%m-%d}"
        rows.append((str(a.id), a.severity, state, a.model, a.title, str(a.count), since, a.summary[:100]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    )


def format_alert(alert: Alert) -> str:
    """The details of one alert as text."""
    days = f", data of {alert.since_day} to {alert.last_day}" if alert.since_day else ""
    facts = {
        "state": f"{alert.state}, by {alert.acknowledged_by}" if alert.state == "acknowledged" else alert.state,
        "silenced until": f"{alert.silenced_until:%Y-%m-%d %H:%M} UTC" if alert.is_silenced() else "",
        "seen": f"{alert.count} times{days}",
        "opened": f"{alert.opened_at:%Y-%m-%d %H:%M:%S} UTC", "owner": alert.owner, "runbook": alert.runbook,
        **alert.links, "resolved": alert.resolution or "", "fingerprint": alert.fingerprint,
    }  # fmt: skip
    lines = [f"{alert.severity} [{alert.model}] {alert.title}", alert.summary]
    return "\n".join([*lines, *(f"  {name:15} {value}" for name, value in facts.items() if value)])
