"""Old days of the request log, once the table ``requests`` has them.

Belongs here: which days go. Does not belong here: the log (``request_log.py``), days of the table itself, which have a
period of their own (``tables.py``).

A day without its table stays, whatever its age, because the log is then the only place that has it.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from functools import partial

import dagster as dg

from resources.request_log import LogError, RequestLog
from resources.retention.periods import Retention
from resources.retention.plan import Removal, RetentionError
from resources.tables import ParquetTables


def logged_days(log: RequestLog, tables: ParquetTables, retention: Retention, now: dt.datetime) -> Iterator[Removal]:
    """Removals of days before ``request_days``, and of files that an earlier release has logged.

    Raises:
        RetentionError: the log cannot be read.
    """
    before = str((now - dt.timedelta(days=retention.request_days)).date())
    try:
        for model in log.models():
            for day in log.days(model):
                if day < before and tables.stamp(dg.AssetKey([model, "requests"]), day):
                    size, what = log.store.size(model, day), f"requests to {model} of {day}, in the log"
                    yield Removal("requests", what, size, partial(log.store.remove, model, day))
            for path in log.earlier_release(model):
                if path.stem < before:
                    what = f"rows of {model} of {path.stem}, in the log of an earlier release"
                    yield Removal("requests", what, path.stat().st_size, partial(os.unlink, path))
    except LogError as error:
        raise RetentionError(f"{error}; nothing was removed") from error
