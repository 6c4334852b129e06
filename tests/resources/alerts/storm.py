"""Delivers the outbox of a database to the doubles until it is empty; a test kills it in between.

python -m tests.resources.alerts.storm DATABASE_URL DOUBLES_URL
"""

import datetime as dt
import sys
import time

from resources.alerts import AlertStore, Dispatcher, Messenger
from resources.alerts.channels import Channel, PagerDutyChannel, SlackChannel, WebhookChannel
from tests.resources.alerts.doubles import ADDRESSES, ROUTING_KEY, SLACK_PATH


def channels(doubles: str) -> dict[str, Channel]:
    many = {"per_minute": 60_000}
    return {
        "slack": SlackChannel(webhook_url=doubles + SLACK_PATH, group_seconds=0, **many),
        "pagerduty": PagerDutyChannel(routing_key=ROUTING_KEY, url=doubles, severities=["warn", "page"], **many),
        "hook": WebhookChannel(url=doubles + "/hook", group_seconds=0, most_in_group=1, **many),
    }


def main() -> None:
    store = AlertStore(sys.argv[1])
    quickly = lambda tries: dt.timedelta(milliseconds=20)  # noqa: E731 - half of all fail: with the real one it takes hours
    dispatcher = Dispatcher(
        [Messenger(store, n, c, ADDRESSES, quickly) for n, c in channels(sys.argv[2]).items()], poll_s=0.05
    )
    dispatcher.start()
    while store.outbox.backlog():
        time.sleep(0.2)
    dispatcher.stop()


if __name__ == "__main__":
    main()
