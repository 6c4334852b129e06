"""At least once, in order, grouped, within the rate; a channel that is down delays only itself; kills lose nothing."""

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from resources.alerts import AlertStore, Dispatcher, Messenger, Route, deliver_all
from resources.alerts.channels import Channel
from resources.alerts.delivery import FAILURES_IN_A_ROW, back_off
from tests.resources.alerts.doubles import ADDRESSES, Doubles
from tests.resources.alerts.storm import channels


class Recorder(Channel):
    """Takes messages, or raises as often as it is told to."""

    group_seconds: float = 0.0

    def send(self, changes):
        told.append([change.change for change in changes])
        if fails:
            raise fails.pop(0)

    def heartbeat(self, open_alerts, at):
        told.append(["alive", len(open_alerts)])


told: list[list] = []
fails: list[Exception] = []


@pytest.fixture(autouse=True)
def nothing_told():
    told.clear()
    fails.clear()


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'alerts.db'}"


class Clock:
    """The time of a messenger, which moves when the test says so."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def store_of(url: str, channel: Channel) -> AlertStore:
    return AlertStore(url, [channel.route("c")])


def opened(store, *names: str, severity="page", at=None):
    return [store.report("fraud", name, severity=severity, summary="x", at=at)[0] for name in names]


def test_it_waits_longer_after_each_failure():
    assert [back_off(n).total_seconds() for n in (1, 2, 3, 9, 10, 99)] == [1, 2, 4, 256, 300, 300]


def test_what_was_told_is_not_told_again(url):
    store = store_of(url, Recorder())
    opened(store, "a")
    messenger = Messenger(store, "c", Recorder(), ADDRESSES)
    assert [messenger.deliver(), messenger.deliver()] == [1, 0]
    assert told == [["opened"]]


def test_what_was_not_taken_is_tried_again_when_it_is_time(url, clock):
    store = store_of(url, Recorder())
    opened(store, "a", at=clock())
    fails.append(ConnectionError("nobody answers"))
    messenger = Messenger(store, "c", Recorder(), ADDRESSES, lambda _: dt.timedelta(seconds=2), clock)
    assert messenger.deliver() == 0
    waits = store.outbox.backlog()["c"]
    assert (waits.waiting, waits.tries, waits.error, list(waits.oldest)) == (1, 1, "nobody answers", ["page"])
    clock.move(1.9)
    assert messenger.deliver() == 0
    clock.move(0.2)
    assert messenger.deliver() == 1
    assert store.outbox.backlog() == {}


def test_a_channel_that_is_down_is_left_alone_for_a_while(url):
    store = store_of(url, Recorder(most_in_group=1))
    opened(store, *(f"a{n}" for n in range(10)))
    fails.extend([ConnectionError("down")] * 10)
    messenger = Messenger(store, "c", Recorder(most_in_group=1), ADDRESSES, lambda _: dt.timedelta(minutes=1))
    messenger.deliver()
    messenger.deliver()
    assert len(told) == FAILURES_IN_A_ROW


def test_changes_that_come_together_are_one_message(url, clock):
    channel = Recorder(group_seconds=30, most_in_group=4)
    store = store_of(url, channel)
    messenger = Messenger(store, "c", channel, ADDRESSES, clock=clock)
    opened(store, "a", "b", "c", "d", "e", at=clock())
    clock.move(29)
    assert messenger.deliver() == 0
    clock.move(2)
    assert messenger.deliver() == 5
    assert told == [["opened"] * 4, ["opened"]]


def test_no_more_messages_than_the_rate_allows_even_after_a_restart(url, clock):
    channel = Recorder(per_minute=3, most_in_group=1)
    store = store_of(url, channel)
    opened(store, *"abcde", at=clock())
    assert Messenger(store, "c", channel, ADDRESSES, clock=clock).deliver() == 3
    clock.move(59)
    assert Messenger(store, "c", channel, ADDRESSES, clock=clock).deliver() == 0
    assert store.outbox.backlog()["c"].waiting == 2
    clock.move(2)
    assert Messenger(store, "c", channel, ADDRESSES, clock=clock).deliver() == 2


def test_warnings_wait_for_the_morning_and_pages_do_not(url):
    now = dt.datetime.now(dt.UTC)
    hours = f"{now - dt.timedelta(hours=1):%H:%M}-{now + dt.timedelta(hours=1):%H:%M}"
    night, day = Recorder(quiet_hours=hours), Recorder()
    store = store_of(url, night)
    opened(store, "a", severity="warn")
    opened(store, "b", severity="page")
    assert [Messenger(store, "c", night, ADDRESSES).deliver(), Messenger(store, "c", night, ADDRESSES).deliver()] == [
        1,
        0,
    ]
    assert store.outbox.backlog()["c"].waiting == 1
    assert Messenger(store, "c", day, ADDRESSES).deliver() == 1


def test_a_warning_that_becomes_a_page_at_night_is_told_from_its_beginning(url):
    now = dt.datetime.now(dt.UTC)
    night = Recorder(quiet_hours=f"{now - dt.timedelta(hours=1):%H:%M}-{now + dt.timedelta(hours=1):%H:%M}")
    store = store_of(url, night)
    opened(store, *(f"other {n}" for n in range(150)), severity="warn")  # more than are looked at at once
    opened(store, "a", severity="warn")
    messenger = Messenger(store, "c", night, ADDRESSES)
    assert messenger.deliver() == 0
    store.report("fraud", "a", severity="page", summary="x")
    assert messenger.deliver() == 2
    assert told == [["opened", "escalated"]]


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        ("22:00-07:00", "12:00", False), ("22:00-07:00", "23:30", True), ("22:00-07:00", "03:00", True),
        ("22:00-07:00", "05:00", False), ("22:00-07:00", "20:00", True), ("22:00-07:00", "19:59", False),
        ("13:00-15:00", "10:59", False), ("13:00-15:00", "11:00", True), ("13:00-15:00", "13:00", False),
    ],
)  # fmt: skip
def test_quiet_hours_are_in_the_zone_of_who_sleeps(hours, at, quiet):
    channel = Recorder(quiet_hours=hours, timezone="Europe/Berlin")  # two hours before UTC in summer
    assert channel.is_quiet(dt.datetime.fromisoformat(f"2026-07-10T{at}:00+00:00")) == quiet


def test_a_sign_of_life_comes_once_in_its_time(url, clock):
    channel = Recorder(heartbeat_minutes=10)
    store = store_of(url, channel)
    opened(store, "a")
    Messenger(store, "c", channel, ADDRESSES, clock=clock).keep()
    clock.move(9 * 60)
    Messenger(store, "c", channel, ADDRESSES, clock=clock).keep()
    assert told == [["alive", 1]]
    clock.move(2 * 60)
    Messenger(store, "c", channel, ADDRESSES, clock=clock).keep()
    assert len(told) == 2


def test_only_one_process_delivers_to_a_channel_and_a_dead_one_loses_its_turn(url):
    store = store_of(url, Recorder())
    opened(store, "a")
    mine = Messenger(store, "c", Recorder(), ADDRESSES)
    now = dt.datetime.now(dt.UTC)
    elsewhere, dead = "another-host:1:1", f"{mine._holder.split(':')[0]}:{2**22 - 3}:1"
    store.outbox.take_turn("c", elsewhere, now + dt.timedelta(minutes=1))
    assert mine.deliver() == 0
    store.outbox.release_turn("c", elsewhere)
    store.outbox.take_turn("c", dead, now + dt.timedelta(minutes=1))
    assert mine.deliver() == 1


class Slow(Channel):
    group_seconds: float = 0.0

    def send(self, changes):
        release.wait(120)


release = threading.Event()


def test_a_channel_that_hangs_delays_only_itself(url):
    store = AlertStore(url, [Route(channel="slow"), Route(channel="quick")])
    release.clear()
    dispatcher = Dispatcher(
        [Messenger(store, "slow", Slow(), ADDRESSES), Messenger(store, "quick", Recorder(), ADDRESSES)], poll_s=0.02
    )
    dispatcher.start()
    opened(store, *"abc")
    deadline = time.monotonic() + 60
    while "quick" in store.outbox.backlog() and time.monotonic() < deadline:
        time.sleep(0.05)
    waiting = {name: found.waiting for name, found in store.outbox.backlog().items()}
    release.set()
    dispatcher.stop()
    assert waiting == {"slow": 3}


def test_by_hand_it_delivers_to_all_and_ends(url):
    store = AlertStore(url, [Route(channel="c")])
    opened(store, "a")
    assert deliver_all([Messenger(store, "c", Recorder(), ADDRESSES)]) == {"c": 1}


ALERTS, KILLS, SECONDS = 1_000, 5, 54


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_thousand_alerts_half_failing_and_killed_five_times(url, tmp_path):
    """1,000 alerts, in a minute where the machine can; each channel fails half the time; five kills on the way."""
    doubles = Doubles(fail=0.5)
    routes = [channel.route(name) for name, channel in channels(doubles.url).items()]
    store = AlertStore(url, routes)

    def start() -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.resources.alerts.storm", url, doubles.url]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    process = start()
    began = time.monotonic()
    dice, kills = random.Random(1), 0
    at = sorted(dice.sample(range(50, ALERTS - 50), KILLS))
    for n in range(ALERTS):
        store.report("fraud", f"cause {n}", severity="page" if n % 2 else "warn", summary=f"number {n}")
        pause = began + (n + 1) * SECONDS / ALERTS - time.monotonic()
        time.sleep(max(0.0, pause))
        if n in at:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process, kills = start(), kills + 1
    assert kills == KILLS
    deadline = time.monotonic() + 600  # how long is not the claim: a busy machine takes its time
    while store.outbox.backlog() and time.monotonic() < deadline:
        if process.poll() is not None:  # it ends when it finds nothing
            process = start()
        time.sleep(0.5)
    waiting = store.outbox.backlog()
    process.kill()
    process.wait()
    doubles.shutdown()
    assert waiting == {}
    per_channel = {
        "slack": Counter(
            line for body in doubles.bodies("/services/T000/B000/secret-of-the-hook")
            for line in [block["text"]["text"].splitlines()[0] for block in body["blocks"]]
        ),
        "pagerduty": Counter(body["payload"]["summary"] for body in doubles.bodies("/v2/enqueue")),
        "hook": Counter(c["alert"]["cause"] for body in doubles.bodies("/hook") for c in body["changes"]),
    }  # fmt: skip
    lost = {name: ALERTS - len(counter) for name, counter in per_channel.items()}
    # Of a message that tells of several changes a kill repeats the message.
    messages = {path: Counter(json.dumps(body) for body in doubles.bodies(path)) for path, _ in doubles.told}
    twice = {path: sum(n - 1 for n in counter.values()) for path, counter in messages.items()}
    print(f"lost {lost}, told twice {twice}, kills {kills}, {time.monotonic() - began:.0f} s")
    assert lost == dict.fromkeys(per_channel, 0)
    assert sum(twice.values()) <= KILLS, twice
