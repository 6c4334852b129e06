"""A shelf of books: a ranking without a language model, whose readers like one of four genres."""

import datetime as dt

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Columns, Drift, Features, Gate, Model, Table, Training
from assets.ranking import Ranking
from resources.sources import Stream

START = dt.date(2026, 1, 1)
GENRES = ("crime", "poems", "travel", "science")
WORDS = {"crime": "murder detective alibi", "poems": "verse rhyme sonnet", "travel": "island train map",
         "science": "atom gene planet"}  # fmt: skip
READERS, BOOKS = 60, 80


class Loans(pa.DataFrameModel):
    """A reader looked at or borrowed a book, or a book appeared or was removed."""

    loan_id: Series[str]
    at: Series[pd.Timestamp]
    reader: Series[str] = pa.Field(nullable=True)
    book: Series[str]
    event: Series[str] = pa.Field(isin=("look", "borrow", "publish", "withdraw"))
    title: Series[str] = pa.Field(nullable=True)
    genre: Series[str] = pa.Field(nullable=True)


def title_of(book: int) -> str:
    """The title of a book: words of its genre, and its number."""
    return f"{WORDS[GENRES[book % 4]]} volume {book}"


def loans(day: dt.date, rows: int = 200) -> pd.DataFrame:
    """The rows of a day. Reader n likes genre n modulo 4; the first day publishes all books."""
    rng = np.random.default_rng(day.toordinal())
    reader, book = rng.integers(0, READERS, rows), rng.integers(0, BOOKS, rows)
    likes = rng.random(rows) < np.where(reader % 4 == book % 4, 0.8, 0.05)
    found = pd.DataFrame({
        "loan_id": [f"{day}-{i}" for i in range(rows)],
        "at": pd.Timestamp(day) + pd.to_timedelta(np.sort(rng.integers(3_600, 86_400, rows)), "s"),
        "reader": [f"r{i}" for i in reader], "book": [f"b{i}" for i in book],
        "event": np.where(likes, "borrow", "look"),
        "title": [title_of(i) for i in book], "genre": [GENRES[i % 4] for i in book],
    })  # fmt: skip
    if day != START:
        return found
    new = pd.DataFrame({
        "loan_id": [f"new-{i}" for i in range(BOOKS)], "at": pd.Timestamp(day), "reader": "",
        "book": [f"b{i}" for i in range(BOOKS)], "event": "publish",
        "title": [title_of(i) for i in range(BOOKS)], "genre": [GENRES[i % 4] for i in range(BOOKS)],
    })  # fmt: skip
    return pd.concat([new, found], ignore_index=True)


class Desk(Stream):
    """The rows of each day."""

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return loans(day).astype("string[pyarrow]")

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """There are none."""
        raise NotImplementedError

    def landed_until(self) -> dt.date:
        """See :class:`~resources.sources.Stream`."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def genre_liked(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The genre of what is borrowed."""
    number = {name: float(i) for i, name in enumerate(GENRES)}
    return {"genre": np.array([number.get(str(one), np.nan) for one in events["genre"][wanted]], np.float32)}


def shelf_model(**given: object) -> Model:
    """The declaration."""
    ranking = Ranking(user="reader", item="book", event="event", weights={"borrow": 1.0}, text="title",
                      facts=("genre",), k=5, history=20, epochs=6, width=16, exploration=0.2)  # fmt: skip
    defaults: dict[str, object] = {
        "name": "shelf",
        "table": Table(name="loans", source=Desk(), key="loan_id", contract=Loans, time="at", start=START, late_days=1),
        "target": "event", "ranking": ranking,
        "features": Features(compute=genre_liked, lookback_days=8, names=("genre",), entities=("reader",)),
        "training": Training(window_days=8, test_days=2, folds=0, min_rows=50),
        "gate": Gate(metric="ndcg", floor=0.02, margin=-0.5, baseline_margin=-0.5, calibration_error=None),
        "drift": Drift(min_rows=100),
    }  # fmt: skip
    return Model(**{**defaults, **given})  # type: ignore[arg-type]


model = shelf_model()
