"""A help desk: questions by day whose intent is said a day later, and a knowledge base that tests write."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Gate, Model, Table, Training
from assets.knowledge import Answers, Documents
from assets.language import Language
from assets.personal import personal
from resources.sources import Stream
from tests.declarations.questions import AROUND, INTENTS

START = dt.date(2026, 3, 2)
TEMPLATES = {"card": "Your card is on its way. It is the card ending {card}.", "fee": "This is what it costs."}


class Asked(pa.DataFrameModel):
    """One question."""

    question_id: Series[int] = pa.Field(ge=0)
    asked_at: Series[pd.Timestamp]
    text: Series[str] = pa.Field(metadata=personal("text"))
    intent: Series[str] = pa.Field(isin=[*INTENTS, "loan"], nullable=True)


def asked(day: dt.date, rows: int = 60) -> pd.DataFrame:
    """The questions of a day with their true intents."""
    rng = np.random.default_rng(day.toordinal())
    intent = rng.choice(list(INTENTS), rows)
    texts = [" ".join(rng.permutation([*rng.choice(AROUND, 5), rng.choice(INTENTS[one])])) for one in intent]
    return pd.DataFrame(
        {
            "question_id": day.toordinal() * 1_000 + np.arange(rows),
            "asked_at": pd.Timestamp(day) + pd.to_timedelta(np.arange(rows) * 600, "s"),
            "text": [f"{text} {n}" for n, text in enumerate(texts)],
            "intent": intent,
        }
    )


class Desk(Stream):
    """Lands the questions of each day, and a day later what they were about."""

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return asked(day).assign(intent=None).astype("string[pyarrow]")

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return asked(day - dt.timedelta(days=1))[["question_id", "intent"]].astype("string[pyarrow]")

    def landed_until(self) -> dt.date:
        """See :class:`~resources.sources.Stream`."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


ARTICLES = {
    "cards": ("New cards", "2026-02-01", "A new card arrives in 3 to 5 days. A chip that is broken is replaced."),
    "cash": ("Cash", "2026-02-02", "You have 5 free cash withdrawals a month. A further one costs 2 euros."),
    "fees": ("Fees", "2026-02-03", "The charge for a paper statement is 4 euros. The account has no monthly price."),
}
PAIRS = [("when does a new card arrive", "cards"), ("free cash withdrawals", "cash"), ("paper statement", "fees"),
         ("chip is broken", "cards"), ("sunny weather tomorrow", ""), ("who won the match", "")]  # fmt: skip


def write_article(folder: Path, name: str, title: str, updated: str, text: str) -> Path:
    """Writes a document of a knowledge base."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text(f"---\nupdated: {updated}\n---\n\n# {title}\n\n{text}\n")
    return path


def write_knowledge(folder: Path) -> Path:
    """Writes the articles and, beside them, the questions with their documents."""
    for name, article in ARTICLES.items():
        write_article(folder, name, *article)
    pd.DataFrame(PAIRS, columns=["question", "document"]).to_csv(folder / "pairs.csv", index=False)
    return folder


def helpdesk(knowledge: Path | str, language_model: Path | str = "where/the/tests/put/it", **given: Any) -> Model:
    """The declaration, with a knowledge base and a language model of folders."""
    answers = Answers(knowledge=Documents(str(knowledge)), templates=TEMPLATES, pairs=f"{knowledge}/pairs.csv")
    return Model(
        **{
            "name": "desk",
            "table": Table(name="asked", source=Desk(), key="question_id", time="asked_at", start=START,
                           contract=Asked),
            "target": "intent",
            "label_delay_days": 1,
            "language": Language(model=str(language_model)),
            "answers": answers,
            "training": Training(window_days=4, test_days=2, folds=1, ensemble=("linear",), max_epochs=4, min_rows=50,
                                 awaited=("loan",)),
            "gate": Gate(metric="accuracy", floor=0.2, calibration_error=None),
            **given,
        }
    )  # fmt: skip


model = helpdesk("where/the/tests/put/them")
