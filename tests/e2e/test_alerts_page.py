"""The alerts' page in a real browser: log in, list, filter, acknowledge, silence, resolve, history, the report."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from resources.alerts import AlertStore
from resources.processes import free_port
from resources.settings import Settings, project_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="install the Debian packages chromium and chromium-driver",
    ),
]
TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def store(tmp_path, monkeypatch) -> AlertStore:
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    settings = Settings.from_env()
    store = AlertStore(settings.database_url)
    reports = Path(settings.tables) / "fraud" / "drift" / "reports"
    reports.mkdir(parents=True)
    (reports / "2026-03-02.html").write_text("<html><body><p>what Evidently drew</p></body></html>")
    store.report(
        "fraud", "drift/drift", severity="page", summary="2026-03-02: 4 of 12 columns drifted", owner="team:risk",
        day="2026-03-02", runbook="docs/runbooks/drift.md",
        links={"run": "/runs/r1", "report": str(reports / "2026-03-02.html")},
    )  # fmt: skip
    store.report("churn", "drift/quality", column="age", severity="warn", summary="a new category")
    return store


@pytest.fixture
def address(store, tmp_path):
    port = free_port()
    log = (tmp_path / "watch.log").open("w")
    watch = subprocess.Popen(
        [sys.executable, "-m", "serving.watch.app", "--port", str(port)], cwd=project_root(), stdout=log, stderr=log,
        env={**os.environ, "ASSETLINE_TOKEN": TOKEN},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            httpx.get(f"{address}/health", trust_env=False)
            break
        except httpx.TransportError:
            assert watch.poll() is None, (tmp_path / "watch.log").read_text()
            time.sleep(0.1)
    yield address
    watch.terminate()
    watch.wait(60)
    log.close()


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000", "--no-proxy-server",
                 "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"):  # fmt: skip
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.implicitly_wait(30)
    yield driver
    driver.quit()


def test_a_person_handles_an_alert(browser, address, store):
    from selenium.common.exceptions import StaleElementReferenceException

    def seen() -> str:
        try:
            return browser.find_element("tag name", "body").text
        except StaleElementReferenceException:  # the next page has just come
            return ""

    def shows(words: str) -> bool:
        deadline = time.monotonic() + 60
        while words not in seen() and time.monotonic() < deadline:
            time.sleep(0.1)
        return words in seen()

    def field(name: str, words: str, form: str = "") -> None:
        box = browser.find_element("css selector", f"{form} input[name={name}]")
        box.clear()
        box.send_keys(words)

    browser.get(address)
    assert shows("Your name, for the history")
    field("token", "a-wrong-token-of-letters")
    browser.find_element("css selector", "form button").click()
    assert shows("The token is wrong")
    field("name", "Ada")
    field("token", TOKEN)
    browser.find_element("css selector", "form button").click()
    assert shows("4 of 12 columns drifted")
    assert shows("drift/quality (age)")

    browser.get(f"{address}/?severity=page")
    assert "drift/quality" not in seen()
    if folder := os.environ.get("ALERTS_PICTURE"):
        browser.get(address)
        browser.save_screenshot(f"{folder}/alerts.png")
        browser.get(f"{address}/?severity=page")

    browser.find_element("link text", "drift/drift").click()
    assert shows("# Drift: the champion's world has changed")
    field("comment", "looking at it", 'form[action$="/acknowledge"]')
    browser.find_element("id", "acknowledge").click()
    assert shows("acknowledged looking at it Ada")
    assert shows("acknowledged by\nAda")
    field("hours", "2", 'form[action$="/silence"]')
    browser.find_element("id", "silence").click()
    assert shows("silenced until")
    if folder:
        browser.save_screenshot(f"{folder}/alert.png")
    browser.switch_to.frame(browser.find_element("tag name", "iframe"))
    assert shows("what Evidently drew")
    browser.switch_to.default_content()
    field("comment", "the upstream was mended", 'form[action$="/resolve"]')
    browser.find_element("id", "resolve").click()
    assert shows("resolved the upstream was mended Ada")
    browser.implicitly_wait(0)
    assert not browser.find_elements("id", "acknowledge"), "nothing is left to be done"
    changes = [(event.change, event.who) for event in store.history(1)]
    assert changes == [("opened", ""), ("acknowledged", "Ada"), ("silenced", "Ada"), ("resolved", "Ada")]

    browser.get(f"{address}/?state=resolved")
    assert shows("drift/drift")
    browser.find_element("css selector", 'form[action="/logout"] button').click()
    assert shows("Your name, for the history")
    browser.get(f"{address}/alerts/1")
    assert shows("Your name, for the history")
