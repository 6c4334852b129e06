"""Each kind of alert has its page, and each page its kind."""

import pytest

from definitions import build_defs
from resources.alerts.runbooks import RUNBOOKS, runbook_of
from resources.settings import project_root
from tests.declarations.telco import model as telco

FOLDER = project_root() / "docs" / "runbooks"


def test_the_pages_are_those_of_the_map():
    there = {path.stem for path in FOLDER.glob("*.md")}
    assert set(RUNBOOKS.values()) <= there
    for path in FOLDER.glob("*.md"):
        text = path.read_text()
        assert text.startswith("# "), path
        assert "## What to do" in text, path


@pytest.mark.parametrize(
    ("cause", "page"),
    [
        ("drift/drift", "drift"), ("drift/quality", "quality"), ("performance/floor", "performance"),
        ("evaluation/gate", "gate"), ("quarantine/refused_share", "data"), ("raw_payments/arrived", "data"),
        ("run/fraud_daily", "run"), ("watchdog/daemon/sensor", "watchdog"), ("service/down", "service"),
        ("freshness/features", "freshness"), ("staged/parity", "deployment"),
        ("tuning/searched", "training"), ("pipeline/gate", "pipeline"),
        ("topics_by_day/surge", "surge"),
    ],
)  # fmt: skip
def test_a_cause_has_the_page_that_is_about_it(cause, page):
    assert runbook_of(cause) == f"docs/runbooks/{page}.md"


def test_every_check_has_a_page():
    made = build_defs(models=[telco])
    checks = [s.key for one in made.resolve_all_asset_specs() for s in made.get_assets_def(one.key).check_specs]
    assert checks
    for key in checks:
        page = runbook_of("/".join([*key.asset_key.path[1:], key.name]))
        assert (project_root() / page).is_file(), key
