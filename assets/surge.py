"""What a declaration says about surges: a class of texts that rises on one topic.

Belongs here: the fields, their defaults and their validation. Does not belong here: the rule
(``assets/lifecycle/monitoring/surge_rule.py``), the asset that applies it (``topics_by_day.py`` beside it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Surge:
    """Counts the predicted classes of each day by topic, and alerts when one class rises on a topic.

    The topic of a row comes from a column of the table, or from another model on the same table.

    Args:
        value: the predicted class that is counted, e.g. ``negative``.
        topics: name of the model whose predicted class is the topic; its table is this model's (``Table.of``).
        column: column of the contract that holds the topic. Give either this or ``topics``.
        hourly: whether each hour of the day is judged as well, by the counts since midnight. It then says at which hour
            a surge began to show, also on a day that has only landed in part.
        weeks: weeks of a topic's own history that explain a day.
        least_days: days of history below which a topic is not judged.
        warn_p, page_p: probability of a count as large or larger below which a day warns, and below which a day, or a
            day and the day before together, page.
        least_rise: least multiple of the expected count that warns or pages.
        least_rows: least count that warns or pages.
    """

    value: str
    topics: str = ""
    column: str = ""
    hourly: bool = False
    weeks: int = 8
    least_days: int = 21
    warn_p: float = 0.005
    page_p: float = 0.002
    least_rise: float = 1.3
    least_rows: int = 5

    def wrong(self) -> Iterator[tuple[str, object, str]]:
        """Yields field, value and fix of each value that cannot work on its own."""
        if bool(self.topics) == bool(self.column):
            yield "topics", self.topics, "name the model that gives the topic, or the column with `column`; one of both"
        if not (isinstance(self.weeks, int) and 1 <= self.weeks <= 52):
            yield "weeks", self.weeks, "give a whole number from 1 to 52"
        elif not (isinstance(self.least_days, int) and 14 <= self.least_days <= 7 * self.weeks):
            mend = f"give a whole number from 14, because each weekday is needed twice, to {7 * self.weeks}"
            yield "least_days", self.least_days, mend
        if not 0 < self.page_p <= self.warn_p < 0.5:
            yield "warn_p", self.warn_p, "give a probability below .5 that is not below page_p, which is above 0"
        if not self.least_rise >= 1:
            yield "least_rise", self.least_rise, "give a multiple of at least 1"
        if not (isinstance(self.least_rows, int) and self.least_rows >= 1):
            yield "least_rows", self.least_rows, "give a whole number of at least 1"
