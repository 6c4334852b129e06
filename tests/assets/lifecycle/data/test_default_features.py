"""A declaration without features gets its contract's columns, encoded row by row."""

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from assets.declaration import DeclarationError, Model, Table
from assets.lifecycle.data.default_features import default_features
from assets.lifecycle.data.features import compute_features, events_of
from resources.sources import CsvFile
from tests.declarations.telco import Customers, model


def rows(**replaced) -> pd.DataFrame:
    one = {
        "customerID": "1-A", "gender": "Female", "SeniorCitizen": False, "Partner": True, "Dependents": False,
        "tenure": 3, "PhoneService": True, "MultipleLines": "No", "InternetService": "DSL", "OnlineSecurity": "No",
        "OnlineBackup": "Yes", "DeviceProtection": "No", "TechSupport": "No", "StreamingTV": "No",
        "StreamingMovies": "No", "Contract": "One year", "PaperlessBilling": True,
        "PaymentMethod": "Mailed check", "MonthlyCharges": 29.85, "TotalCharges": np.nan, "Churn": False,
    }  # fmt: skip
    return pd.DataFrame([one | replaced])


def encoded(frame: pd.DataFrame) -> dict[str, float]:
    features = default_features(model)
    values = compute_features(features, events_of(frame, None, model), np.arange(len(frame)))
    return dict(zip(features.names, values[0].tolist(), strict=True))


def test_numbers_and_booleans_stay_categories_become_indicators_and_what_is_missing_stays_so():
    made = encoded(rows())
    assert made["tenure"] == 3
    assert made["Partner"] == 1
    assert made["SeniorCitizen"] == 0
    assert np.isnan(made["TotalCharges"])
    contract = {name: value for name, value in made.items() if name.startswith("Contract=")}
    assert contract == {"Contract=Month-to-month": 0, "Contract=One year": 1, "Contract=Two year": 0}


def test_key_and_target_are_no_features():
    assert not [name for name in default_features(model).names if name.startswith(("customerID", "Churn"))]
    assert len(default_features(model).names) == 41
    assert len(Customers.to_schema().columns) == 21


class Odd(pa.DataFrameModel):
    key: Series[str]
    plan: Series[str] = pa.Field(isin=["None", "nan", "<NA>", "full"], nullable=True)
    y: Series[bool]


def declared(contract, **how) -> Model:
    table = Table(name="rows", source=CsvFile(path="none.csv"), key="key", contract=contract)
    return Model(name="odd", table=table, target="y", **how)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_category_is_not_the_word_for_it(missing):
    features = default_features(declared(Odd))
    events = {"plan": np.array(["None", missing, "full"], dtype=object)}
    made = features.compute(events, np.arange(3))
    assert {name: values.tolist() for name, values in made.items()} == {
        "plan=None": [1, 0, 0], "plan=nan": [0, 0, 0], "plan=<NA>": [0, 0, 0], "plan=full": [0, 0, 1]
    }  # fmt: skip


def test_a_column_named_as_what_the_model_says_is_refused_with_the_mend():
    class Scored(Odd):
        score: Series[float]

    with pytest.raises(DeclarationError, match=r"a column is named 'score'.*rename it in clean"):
        default_features(declared(Scored))
