"""A declaration without features gets its contract's columns, encoded row by row."""

import numpy as np
import pandas as pd

from assets.lifecycle.default_features import default_features
from assets.lifecycle.features import compute_features, events_of
from tests.models.telco import Customers, model


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
