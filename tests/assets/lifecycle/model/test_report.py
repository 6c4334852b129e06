"""The pictures and the page: small, self-contained, complete, and true to the figures."""

import base64
import datetime as dt
import functools
import html.parser
import io
import re

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assets.declaration import Evaluation, Gate
from assets.lifecycle.model import report as reports
from assets.lifecycle.model.gate import Evidence, judge
from assets.lifecycle.model.latency import Latency
from assets.lifecycle.model.metrics import evaluate

MADE_AT = dt.datetime(2025, 6, 21, 7, 30)
LEARNING = {"loss": {"fold 1": [0.04, 0.03], "fold 2": [0.05, 0.03]}, "average precision": {"fold 1": [0.6, 0.7]}}


def stream(n=4000):
    rng = np.random.default_rng(0)
    p = rng.beta(0.1, 8, n)
    rows = pd.DataFrame(
        {
            "y": (rng.random(n) < p).astype(int),
            "at": pd.Timestamp("2025-06-01") + pd.to_timedelta(rng.integers(0, 7 * 86_400, n), unit="s"),
            "card": rng.integers(0, 300, n),
            "amount": rng.gamma(2, 30, n),
        }
    )
    noisy = {
        name: np.clip(p * rng.lognormal(0, spread, n), 0, 1)
        for name, spread in {"torch": 0.2, "xgboost": 0.3, "linear": 1.5, "champion": 0.4}.items()
    }
    declared = Evaluation(
        entity="card",
        top_k=20,
        amount="amount",
        slices=lambda rows: (
            {f"<b>{i}</b> & up": (rows["amount"] > 10 * i).to_numpy() for i in range(12)}
            | {"positives": (rows["y"] == 1).to_numpy()}
        ),
    )
    known = (rows["card"] < 20).to_numpy()
    return evaluate(rows, {**noisy, "ceiling": p}, declared, target="y", time="at", known=known, resamples=20)


def plain():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 3, 600)
    rows = pd.DataFrame({"Churn": (rng.random(600) < p).astype(int)})
    return evaluate(rows, {"torch": p, "linear": p**2}, Evaluation(), target="Churn", resamples=20)


@functools.cache
def report_of(kind):
    return {"stream": stream, "plain": plain}[kind]()


def page(kind, *, gate=None, **more):
    found = report_of(kind)
    verdict = judge(
        gate or Gate(metric="roc_auc", floor=0.5, baseline_margin=-0.1),
        Evidence(
            candidate=found.numbers("torch"),
            baseline=found.numbers("linear"),
            calibration=found.calibration,
            latency=Latency(1.0, 2.0),
        ),
    )
    pictures = reports.plots(found, learning=LEARNING)
    return reports.html(found, verdict, title="a model", pictures=pictures, made_at=MADE_AT, **more)


def text_of(source):
    """What a reader sees: the text outside styles, one line."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", source, flags=re.DOTALL))


@pytest.mark.parametrize("kind", ["stream", "plain"])
def test_pictures_are_small_pngs_and_only_those_that_apply(kind):
    pictures = reports.plots(report_of(kind), learning=LEARNING)
    expected = {"precision_recall", "roc", "reliability", "scores", "learning"}
    assert set(pictures) == expected | ({"reviews", "slices"} if kind == "stream" else set())
    for name, png in pictures.items():
        assert len(png) <= 60_000, name
        image = Image.open(io.BytesIO(png))
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 20)) > 5, f"{name} is empty"
    assert "learning" not in reports.plots(report_of(kind))


def test_pictures_are_the_same_every_time():
    assert reports.plots(report_of("plain")) == reports.plots(report_of("plain"))


def test_a_picture_inline_is_markdown_that_holds_the_png():
    shown = reports.inline(b"\x89PNG...")
    assert isinstance(shown, dg.MarkdownMetadataValue)
    coded = re.fullmatch(r"!\[picture\]\(data:image/png;base64,(.*)\)", shown.md_str)
    assert base64.b64decode(coded[1]) == b"\x89PNG..."


@pytest.mark.parametrize("kind", ["stream", "plain"])
def test_the_page_is_whole_and_fetches_nothing(kind):
    source = page(kind, provenance={"MLflow run": "http://127.0.0.1:5000/#/runs/1"})
    assert len(source) < 1_000_000
    fetched = re.findall(
        r"""(?:src|srcset|action|data)=["']([^"']*)|url\(([^)]*)\)|@import|<(?:script|link|iframe)""", source
    )
    assert fetched
    assert all(address.startswith("data:image/png;base64,") for address, *_ in fetched)
    open_tags = []

    class Balance(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balance().feed(source)
    assert open_tags == []


def test_the_page_of_a_stream_says_all_that_was_found():
    found = report_of("stream")
    seen = text_of(
        page(
            "stream",
            subtitle="the week of 1 June",
            published={"average_precision": 0.694, "AP of another split": 0.71},
            provenance={"Data version": "sha256:ab12", "Dagster run": "http://127.0.0.1:3000/runs/1"},
        )
    )
    ap = found.models["torch"]["average_precision"]
    for expected in [
        "the week of 1 June",
        "Gate passed",
        f"{ap.value:.3f} {ap.low:.3f} to {ap.high:.3f}",
        *("torch (candidate)", "XGBoost", "Linear", "Ceiling (best possible)", "Champion"),
        "Published (literature, other rows) 0.694",
        "Also published: AP of another split 0.71",
        "CP@20",
        f"Highest possible value {found.reviews['maximum']:.3f}",
        f"{found.money['oracle']:,.0f}",
        f"{found.removed:,} rows are left out above, because their entity was already known",
        f"positives {found.slices['positives'].rows:,} {found.slices['positives'].positives:,} – –",
        "&lt;b&gt;3&lt;/b&gt; &amp; up",  # a slice's name is text, never markup
        "Data version sha256:ab12",
        "20 bootstrap draws of card (all its rows together)",
        "Created 2025-06-21 07:30 UTC",
    ]:
        assert expected in seen, expected


def test_the_page_of_a_plain_table_leaves_out_what_does_not_apply():
    seen = text_of(page("plain"))
    for absent in (
        "CP@",
        "Saved",
        "Oracle",
        "Slices",
        "Highest possible",
        "known entities",
        "Published",
        "Provenance",
        "Champion",
    ):
        assert absent not in seen, absent
    assert "bootstrap draws of rows" in seen


def test_a_closed_gate_is_on_the_page_with_its_reason():
    seen = text_of(page("plain", gate=Gate(metric="roc_auc", floor=0.99)))
    assert "Gate failed" in seen
    assert "misses the floor 0.9900" in seen


def test_a_gate_that_only_advises_says_so_on_the_page():
    seen = text_of(page("plain", gate=Gate(metric="roc_auc", floor=0.99, mode="advise")))
    assert "Gate failed, advice only" in seen


def test_a_better_brier_is_shown_as_better():
    found = report_of("stream")
    assert found.differences["linear"]["brier"].high < 0
    row = re.search(r"Compared with.*?<th>Linear</th>(.*?)</tr>", page("stream"), re.DOTALL)[1]
    brier = row.split("<td>")[-1]
    assert re.search(r'class="good">−', brier)
