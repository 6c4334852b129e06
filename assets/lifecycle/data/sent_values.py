"""Values as JSON has them, and the text that a landed row would contain instead.

Belongs here: the conversion of one value. Does not belong here: whole rows (``raw_rows.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

Raw = Mapping[str, Any]
"""A row as parsed from JSON: column → text, number, true, false or null."""

_THREE_PLACES = re.compile(r"-?\d+\.\d{3}")


def as_text(value: Any) -> str | None:
    """Converts a JSON value to the text that a landed row would contain; ``None`` for null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        # JSON treats 12.0 and 12 as the same number; 1e-07 is written without an exponent.
        text = f"{Decimal(repr(int(value) if value.is_integer() else value)):f}"
    else:
        text = repr(value)
    # 1.234 means 1234 where the point separates thousands; 1.2340 is unambiguous.
    return f"{text}0" if _THREE_PLACES.fullmatch(text) else text
