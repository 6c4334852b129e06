"""The story's world is drawn up once, and the declaration that is played lands it."""

import datetime as dt

from assets.models.fraud.story import shifted, upstream_world
from resources.settings import Settings


def test_the_injected_shift_reaches_the_upstream_that_is_landed(tmp_path):
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path)})
    assert shifted(settings).table.source.shift_from == ""
    world = upstream_world(settings.home, dt.date(2026, 11, 23))
    assert shifted(settings).table.source.shift_from == world["shift_from"] == "2026-10-25"
    assert upstream_world(settings.home, dt.date(2026, 11, 24)) == world, "drawn up once"
