"""What JSON Schema cannot say: moments are not in the future, keys differ, amounts have two decimals,
and fewer rows may be explained than scored.

Loaded by ``SCHEMATHESIS_HOOKS`` in ``test_openapi.py``.
"""

import datetime as dt

import schemathesis
from hypothesis import strategies as st

MAX_EXPLAINED_ROWS = 50
"""As in the service, which would take long to import."""


def recent_moments() -> st.SearchStrategy[str]:
    """Moments whose past the service still keeps."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0, tzinfo=None)
    moments = st.datetimes(now - dt.timedelta(days=5), now - dt.timedelta(minutes=1), timezones=st.just(dt.UTC))
    return moments.map(lambda moment: moment.isoformat(timespec="seconds"))


schemathesis.openapi.format("date-time", recent_moments())
schemathesis.openapi.format("whole-number", st.integers(0, 999_999).map(str))
schemathesis.openapi.format("decimal-number", st.decimals("0.01", "9999", places=2).map(str))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Mends, in bodies that are right by the schema, what the schema cannot say."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if (case.query or {}).get("explain") == "true":  # fewer rows than without
        rows = case.body.get("features") if isinstance(case.body, dict) else case.body
        if isinstance(rows, list):
            del rows[MAX_EXPLAINED_ROWS:]
    for n, row in enumerate(case.body if isinstance(case.body, list) else [case.body]):
        if isinstance(row, dict) and type(row.get("transaction_id")) in (int, str):
            row["transaction_id"] = type(row["transaction_id"])(int(row["transaction_id"]) // 1000 * 1000 + n)
        if isinstance(row, dict) and type(row.get("amount")) in (int, float):
            row["amount"] = max(round(row["amount"], 2), 0.01)
