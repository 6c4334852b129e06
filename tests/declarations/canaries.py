"""Visits of members (``members``) whose tagged columns hold texts that are nowhere else.

They are not in the folder of the model, because each version keeps that folder.
"""

import numpy as np
import pandas as pd

from tests.declarations.members import START

CANARIES = (
    "zqxmail", "zqxname", "zqxnote", "zqxdiag", "zqxstreet",
    "15775550", "73100000", "1987-03-17", "370400440532", "8904170",
)  # fmt: skip
"""Texts that are in the tagged columns of :func:`visits`, and nowhere else: of e-mail, name, free text, diagnosis,
street, phone, card, birth date, an IBAN in the free text, and postcode."""


def visits(days: int = 24, a_day: int = 40, seed: int = 0) -> pd.DataFrame:
    """Visits as the file has them: 60 members, canaries in all tagged columns, and some rows that are refused."""
    rng = np.random.default_rng(seed)
    n = days * a_day
    who, minutes = rng.integers(0, 60, n), rng.uniform(5, 200, n)
    at = pd.Timestamp(START) + pd.to_timedelta(
        np.repeat(np.arange(days), a_day) * 86_400 + rng.integers(0, 86_000, n), "s"
    )
    frame = pd.DataFrame({
        "visit_no": [str(500_000 + i) for i in range(n)],
        "at": at.strftime("%Y-%m-%d %H:%M:%S"),
        "E-Mail": [f"Zqxmail{i}@zqxmail.example.org" if k % 2 else f" zqxmail{i}@zqxmail.example.org"
                   for k, i in enumerate(who)],
        "Card No": [str(7310000000 + i) for i in who],
        "Full Name": [f"Zqxname{i} Zqxnameson" for i in who],
        "Street": [f"{i} Zqxstreet" for i in who],
        "phone": [f"+49 15775550{i:03d}" for i in who],
        "born": "1987-03-17",
        "postcode": "8904170",
        "notes": [f"mail zqxnote{i}@zqxnote.example.org, call +49 15775550{i:03d}, pay DE89370400440532013000"
                  for i in who],
        "diagnosis": [f"zqxdiag{i}" for i in who],
        "plan": rng.choice(["basic", "full"], n),
        "minutes": minutes.round(2).astype(str),
        "returned": np.where(rng.random(n) < minutes / 250, "yes", "no"),
    })  # fmt: skip
    frame.loc[::37, "minutes"] = "99999"  # refused by a rule
    frame.loc[5::41, "Card No"] = "zqxmail-is-no-number"  # refused as unreadable
    frame.loc[9::43, "phone"] = None
    return frame
