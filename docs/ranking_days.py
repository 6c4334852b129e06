"""Draws the days of `assetline run --model recommend` from the tables that it left: NDCG of the lists, and the drift.

    python -m docs.ranking_days        reads ASSETLINE_HOME, writes docs/images/recommend.png

Belongs here: the picture. Does not belong here: the story (``story/recommend.py``); nothing is drawn that is not in the
tables.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from assets.models.recommend import model
from assets.models.recommend.world import PLAN
from resources.settings import Settings
from resources.tables import ParquetTables

PICTURE = Path(__file__).parent / "images" / "recommend.png"
COLOURS = {"ok": "#2e7d32", "warn": "#f9a825", "page": "#c62828"}


def main() -> None:
    """Reads the tables ``performance`` and ``drift`` and draws them by day."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = Settings.from_env()
    world, tables = PLAN.world_of(settings.home), ParquetTables(root=settings.tables)
    lists, drift = (tables.read(model.key(name), tables.days(model.key(name))) for name in ("performance", "drift"))
    figure, axes = pyplot.subplots(figsize=(10, 3.6))
    axes.plot(lists["day"], lists["ndcg"], color="#37474f", marker="o", label="NDCG@10 of the lists of the day")
    for level, colour in COLOURS.items():
        days = drift[drift["level"] == level]["day"]
        axes.scatter(days, [0.005] * len(days), color=colour, marker="s", label=f"drift: {level}")
    axes.axvline(pd.Timestamp(world.shift_from), color="#c62828", linestyle=":", label="tastes turn")
    newest = lists["version"].ne(lists["version"].shift())
    for _, row in lists[newest].iterrows():
        axes.annotate(
            f"version {row['version']}", (row["day"], row["ndcg"]), xytext=(0, 10), textcoords="offset points"
        )
    axes.set_ylim(0, lists["ndcg"].max() * 1.3)
    axes.legend(loc="upper right", ncols=3, fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.autofmt_xdate()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
