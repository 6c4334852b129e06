"""Members of a club and their visits, with tagged columns of every kind; for tests of what is kept of a person.

The variable ``MEMBERS_UNPROTECTED`` takes all tags out, so that a test can show that it would find what they hide.
"""

import datetime as dt
import os
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Columns, Evaluation, Features, Gate, Model, Table, Training
from assets.personal import personal, sensitive
from assets.reading import typed
from resources.sources import FileByDay

PROTECTED = "MEMBERS_UNPROTECTED" not in os.environ
START = dt.date(2026, 3, 2)


def tagged(tag: dict[str, Any]) -> dict[str, Any] | None:
    """The tag, unless all are taken out."""
    return tag if PROTECTED else None


class Visits(pa.DataFrameModel):
    """One visit of a member, and whether the member came back within a week."""

    visit_no: Series[int] = pa.Field(ge=0, metadata=tagged(personal("id")), description="The key.")
    at: Series[pd.Timestamp]
    email: Series[str] = pa.Field(metadata=tagged(personal("email")))
    card_no: Series[int] = pa.Field(ge=0, metadata=tagged(personal("national_id")))
    phone: Series[str] = pa.Field(nullable=True, metadata=tagged(personal("phone", "mask")))
    born: Series[pd.Timestamp] = pa.Field(nullable=True, metadata=tagged(personal("birth_date")))
    postcode: Series[str] = pa.Field(metadata=tagged(personal("postcode")))
    notes: Series[str] = pa.Field(nullable=True, metadata=tagged(personal("text")))
    diagnosis: Series[str] = pa.Field(nullable=True, metadata=tagged(sensitive("drop")))
    plan: Series[str] = pa.Field(isin=["basic", "full"])
    minutes: Series[float] = pa.Field(ge=0, le=600)
    returned: Series[bool]


RENAMED = {"E-Mail": "email", "Card No": "card_no"}


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Names columns as the contract does; a value that cannot be read becomes missing."""
    return typed(raw.rename(columns=RENAMED), Visits)


def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """How often the member came within ten days before, and what the visit was like."""
    at, who = events["at"], events["email"]
    before = [((who == who[i]) & (at < at[i]) & (at >= at[i] - np.timedelta64(10, "D"))).sum() for i in wanted]
    born = events["born"][wanted].astype("datetime64[Y]").astype(float)
    return {
        "visits": np.array(before, np.float32),
        "minutes": events["minutes"][wanted].astype(np.float32),
        "full": (events["plan"][wanted] == "full").astype(np.float32),
        "decade": np.where(np.isnat(events["born"][wanted]), np.nan, born).astype(np.float32),
    }


def members(path: str, **given: Any) -> Model:
    """The model on a file of visits."""
    table = Table(
        name="visits", source=FileByDay(path=path, time="at"), key="visit_no", contract=Visits, clean=clean, time="at",
        start=START, late_days=0, max_refused=0.2,
        raw_tags={
            "E-Mail": personal("email", column="email"),
            "Card No": personal("national_id", column="card_no"),
            "Full Name": personal("name"),
            "Street": personal("address"),
        }
        if PROTECTED
        else {},
    )  # fmt: skip
    defaults: dict[str, Any] = {
        "name": "members", "table": table, "target": "returned",
        "features": Features(
            compute=compute, lookback_days=10, names=("visits", "minutes", "full", "decade"), entities=("email",),
            origins=("visits", "minutes", "plan", "born"),
        ),
        "training": Training(window_days=14, test_days=4, folds=1, max_epochs=3, min_rows=100),
        "evaluation": Evaluation(groups=("plan",)),
        "gate": Gate(floor=0.4, baseline_margin=-1, calibration_error=None, latency_ms=None),
    }  # fmt: skip
    return Model(**{**defaults, **given})


model = members(os.environ.get("MEMBERS_FILE", "members.csv"))
