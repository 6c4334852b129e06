"""What leaves a story unfinished."""

import datetime as dt
from types import SimpleNamespace

import pytest

from story.playing import Story, is_open_page

NOW = dt.datetime(2026, 10, 3, tzinfo=dt.UTC)


def alert(severity: str, resolved: bool, clear: bool = False):
    return SimpleNamespace(severity=severity, resolved_at=NOW if resolved else None, clear_since=NOW if clear else None)


@pytest.mark.parametrize(
    ("severity", "resolved", "open_page"),
    [("page", False, True), ("page", True, False), ("warn", False, False), ("warn", True, False)],
)
def test_a_page_is_open_until_it_is_resolved_and_a_warning_waits_for_nobody(severity, resolved, open_page):
    assert is_open_page(alert(severity, resolved)) is open_page


def test_a_flapping_page_is_not_open_once_its_cause_is_gone():
    assert is_open_page(alert("page", False))
    assert not is_open_page(alert("page", False, clear=True))


@pytest.mark.parametrize(
    ("alerts", "checked", "left"),
    [
        ([alert("page", False)], {2}, ["the alert was resolved"]),
        ([alert("page", True), alert("warn", False)], {2}, []),
        ([], set(), ["version 2 was checked for drift"]),
    ],
)
def test_open_pages_and_an_unchecked_version_leave_a_story_unfinished(alerts, checked, left):
    story = SimpleNamespace(
        runner=SimpleNamespace(resources={"ledger": SimpleNamespace(champion=lambda name: SimpleNamespace(version=2))}),
        model=SimpleNamespace(name="any"),
        checked=checked,
        drift_alerts=lambda: alerts,
    )
    assert Story.unfinished(story) == left
