"""Which customers of a telephone company leave? A plain table without a clock, from the folder of test data."""

import os
from pathlib import Path

import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Gate, Model, Table
from resources.sources import CsvFile

CSV = Path(os.environ.get("ASSETLINE_TEST_DATA", "set ASSETLINE_TEST_DATA")) / "telco_churn.csv"

BY_INTERNET = ["Yes", "No", "No internet service"]


class Customers(pa.DataFrameModel):
    """A customer, and whether they left within the last month."""

    customerID: Series[str] = pa.Field(unique=True)
    gender: Series[str] = pa.Field(isin=["Female", "Male"])
    SeniorCitizen: Series[bool]
    Partner: Series[bool]
    Dependents: Series[bool]
    tenure: Series[int] = pa.Field(ge=0, description="Months.")
    PhoneService: Series[bool]
    MultipleLines: Series[str] = pa.Field(isin=["Yes", "No", "No phone service"])
    InternetService: Series[str] = pa.Field(isin=["DSL", "Fiber optic", "No"])
    OnlineSecurity: Series[str] = pa.Field(isin=BY_INTERNET)
    OnlineBackup: Series[str] = pa.Field(isin=BY_INTERNET)
    DeviceProtection: Series[str] = pa.Field(isin=BY_INTERNET)
    TechSupport: Series[str] = pa.Field(isin=BY_INTERNET)
    StreamingTV: Series[str] = pa.Field(isin=BY_INTERNET)
    StreamingMovies: Series[str] = pa.Field(isin=BY_INTERNET)
    Contract: Series[str] = pa.Field(isin=["Month-to-month", "One year", "Two year"])
    PaperlessBilling: Series[bool]
    PaymentMethod: Series[str] = pa.Field(
        isin=["Electronic check", "Mailed check", "Bank transfer (automatic)", "Credit card (automatic)"]
    )
    MonthlyCharges: Series[float] = pa.Field(ge=0)
    TotalCharges: Series[float] = pa.Field(ge=0, nullable=True, description="Blank in the first month.")
    Churn: Series[bool]


model = Model(
    name="churn",
    table=Table(name="customers", source=CsvFile(path=str(CSV)), key="customerID", contract=Customers),
    target="Churn",
    gate=Gate(metric="roc_auc", floor=0.8),
)
