"""``assetline alerts …``: the alerts on the command line. It uses the same functions as the page and the jobs.

Belongs here: arguments, and text output. Does not belong here: the changes of an alert (``store.py``).
"""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import sys
from collections.abc import Sequence
from typing import Any

from resources.settings import Settings, SettingsError


def add_to(commands: Any) -> None:
    """Adds the ``alerts`` command to a parser's subcommands."""
    parser = commands.add_parser("alerts", help="list, show and handle alerts")
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="the open alerts")
    listing.add_argument("--all", action="store_true", help="the resolved ones, too")
    listing.add_argument("--model", help="of one model")
    listing.add_argument("--json", action="store_true", help="a JSON object on each line")
    for verb, words in {
        "show": "one alert, with its links and runbook",
        "history": "what happened to one",
        "ack": "you have it in hand",
        "silence": "nothing but its resolution is told for a while",
        "resolve": "it is over",
    }.items():
        one = verbs.add_parser(verb, help=words)
        one.add_argument("id", type=int, nargs="+" if verb in ("ack", "silence", "resolve") else 1, help="its number")
        if verb in ("ack", "silence", "resolve"):
            one.add_argument("--who", default=getpass.getuser(), help="name for the history (default: %(default)s)")
            one.add_argument("--words", default="", help="why, in a few words")
        if verb == "silence":
            one.add_argument("--hours", type=float, default=8.0, help="for how long (default: %(default)s)")
    verbs.add_parser("deliver", help="tell the channels what waits, where no watch runs")
    test = verbs.add_parser("test", help="send a test message through each channel, or some")
    test.add_argument("channel", nargs="*", help="names of channels (default: all)")


def run(given: argparse.Namespace) -> int:
    """Runs the command. Returns the exit status: 0, 1 for a failure, 2 for invalid settings or channels."""
    from resources.alerts import AlertError, Alerts, ChannelsError

    try:
        settings = Settings.from_env()
        alerts = Alerts.from_settings(settings).process_config_and_initialize()
        return _run(given, alerts)
    except (SettingsError, ChannelsError) as error:
        print(f"assetline alerts: {error}", file=sys.stderr)
        return 2
    except AlertError as error:
        print(f"assetline alerts: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace, alerts: Any) -> int:
    store = alerts.store
    if given.verb == "list":
        found = store.alerts(given.model) if given.all else store.open_alerts(given.model)
        print("\n".join(json.dumps(a.to_json()) for a in found) if given.json else table(found))
    elif given.verb == "show":
        print(shown(alerts.addresses.link(store.get(given.id[0]))))
    elif given.verb == "history":
        store.get(given.id[0])
        for event in store.history(given.id[0]):
            by = f" ({event.who})" if event.who else ""
            print(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.change:12}  {event.words}{by}")
    elif given.verb == "deliver":
        return _deliver(alerts)
    elif given.verb == "test":
        return _test(alerts, given.channel)
    else:
        for number in given.id:
            print(_handle(store, given, number))
    return 0


def _handle(store: Any, given: argparse.Namespace, number: int) -> str:
    said = {"who": given.who, "words": given.words}
    if given.verb == "ack":
        changed = store.acknowledge(number, **said)
        return f"alert {number}: acknowledged" if changed else f"alert {number}: was acknowledged already"
    if given.verb == "silence":
        until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=given.hours)
        store.silence(number, until=until, **said)
        return f"alert {number}: silenced until {until:%Y-%m-%d %H:%M} UTC"
    store.close(number, **said)
    return f"alert {number}: resolved"


def _deliver(alerts: Any) -> int:
    from resources.alerts.delivery import deliver_all

    told = deliver_all(alerts.messengers())
    backlog = alerts.store.outbox.backlog()
    for name, n in told.items():
        waits = backlog.get(name)
        print(f"{name}: {n} delivered" + (f", {waits.waiting} wait ({waits.error or 'not due yet'})" if waits else ""))
    return 1 if any(waits.error for waits in backlog.values()) else 0


def _test(alerts: Any, names: Sequence[str]) -> int:
    from resources.alerts import Alert, AlertError, Delivery, fingerprint_of

    channels = alerts.channels()
    if unknown := set(names) - set(channels):
        raise AlertError(f"no channel {', '.join(sorted(unknown))}; there are: {', '.join(channels) or 'none'}")
    now = dt.datetime.now(dt.UTC)
    nothing = dict.fromkeys(
        ("since_day", "last_day", "acknowledged_at", "acknowledged_by", "silenced_until", "clear_since", "resolved_day")
    )
    test = Alert(
        id=0, fingerprint=fingerprint_of("assetline", "test"), model="assetline", cause="test", column="",
        severity="warn", owner="", summary="a test, nothing is wrong", runbook="", links={}, count=1, opened_at=now,
        updated_at=now, flapping=False, resolved_at=now, resolution="a test, nothing is wrong", **nothing,
    )  # fmt: skip
    failed = False
    for name in names or channels:
        try:
            channels[name].send(
                [Delivery(id=0, change="resolved", words=test.summary, who="", at=now, alert=test, tries=0)]
            )
            print(f"{name}: sent")
        except Exception as error:  # the test reports any error of a channel
            failed = True
            print(f"{name}: {channels[name].hidden(error)}")
    return int(failed)


def table(alerts: Sequence[Any]) -> str:
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


def shown(alert: Any) -> str:
    """The details of one alert as text."""
    days = f", data of {alert.since_day} to {alert.last_day}" if alert.since_day else ""
    said = {
        "state": f"{alert.state}, by {alert.acknowledged_by}" if alert.state == "acknowledged" else alert.state,
        "silenced until": f"{alert.silenced_until:%Y-%m-%d %H:%M} UTC" if alert.is_silenced() else "",
        "seen": f"{alert.count} times{days}",
        "opened": f"{alert.opened_at:%Y-%m-%d %H:%M:%S} UTC", "owner": alert.owner, "runbook": alert.runbook,
        **alert.links, "resolved": alert.resolution or "", "fingerprint": alert.fingerprint,
    }  # fmt: skip
    lines = [f"{alert.severity} [{alert.model}] {alert.title}", alert.summary]
    return "\n".join([*lines, *(f"  {name:15} {value}" for name, value in said.items() if value)])
