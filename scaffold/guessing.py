"""Guesses the structure of a table: its key, its target, the columns to leave out, and what the user should check.

Belongs here: choices that depend on all columns. Does not belong here: the kind of one column (``columns.py``), the
files that are written (``writing.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.task import TaskKind
from assets.words import FALSE, TRUE, says_yes
from resources.moments import moments
from scaffold.columns import (
    LONG_DIGITS,
    MOST_CATEGORIES,
    MOST_CLASSES,
    NUMBERS,
    TAKEN_BY_ANSWERS,
    Column,
    as_moment,
    identifiers,
    look_at,
)
from scaffold.personal import Proposal, propose
from scaffold.tables import RawTable, ScaffoldError

LEAST_WINDOW = 14
"""Minimum number of days of the rows that a forecast is fitted on."""
MOST_REPEATED = 0.01
"""Maximum share of rows with a time that an earlier row of the same series has."""
ROW = "row"
"""Name of the generated key of a table without a key."""
FEW_NUMBERS = 10
"""A target with at most this many distinct whole numbers is a target of classes."""
MOST_ONE_HOT = 500
"""Maximum number of categories, over all columns, that get a feature each. Beyond it, the columns with the most
categories are read as text."""
MOST_DAYS, FEWEST_DAYS = 365, 14
ROWS_OF_A_CLASS = 25
ROWS_TO_TRAIN = 250
ROWS_TO_FIT, ROWS_TO_REPORT, ROWS_OF_EACH = 200, 50, 10
"""Rows that training requires: to fit on, to report on, and of each of two classes."""
LARGEST = 1e37
"""Larger numbers cannot be features, because features are 32-bit floats."""

Asked = Literal["", "binary", "multiclass", "regression"]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The event time of a table: which days it has, and how they are split."""

    column: Column
    start: dt.date
    last: dt.date
    window_days: int
    test_days: int
    quiet_days: bool


@dataclass(frozen=True, kw_only=True)
class Guess:
    """The properties of the model folder to be written.

    Args:
        columns: columns of the contract, including the target, in the file's order.
        target: the target's column; a category if the target has classes.
        task: kind of the target.
        positive: text of the class that the probability is of, for two classes.
        key: name of the key; :data:`ROW` if it is generated from the row's text.
        entity: name of the column that identifies the entity of a row, or of a forecast's series.
        forecast: hours ahead that the target is forecast; 0: it is predicted from its own row.
        clock: ``None`` for a snapshot.
        left_out: columns that are not in the contract, with the reason.
        tags: columns that look personal, by header.
        notes: guesses that the user should know.
        warnings: findings that the user should check.
    """

    columns: Sequence[Column]
    target: Column
    task: TaskKind
    key: str
    positive: str = ""
    entity: str | None = None
    forecast: int = 0
    clock: Clock | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    tags: dict[str, Proposal] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def guess(  # noqa: PLR0912
    table: RawTable, target: str, *, time: str = "", key: str = "", task: Asked = "", forecast: int = 0,
    series: str = "",
) -> Guess:  # fmt: skip
    """Guesses the structure of a table and its target.

    Args:
        table: the table as read.
        target, time, key: headers (leading and trailing blanks are ignored).
        task: kind of the target, if the guess would be wrong.
        forecast: hours ahead that the target is forecast; 0: it is predicted from its own row.
        series: header of the column that tells the series of a forecast apart, if the guess would be wrong.

    Raises:
        ScaffoldError: a column is absent, the target cannot be learnt, the time column has no moments, or a forecast
            has no measured values, no time or no series.
    """
    if own := [name for name in (ROW_ID, LANDING_DAY) if name in table.rows]:
        raise ScaffoldError(
            f"{table.path}: a column is named '{own[0]}', a name that is reserved for landed rows; rename it in "
            "the file"
        )
    names = identifiers(list(table.rows.columns))
    roles = {what: _header(table, given, what) if given else "" for what, given in
             {"TARGET": target, "TIME": time, "KEY": key, "SERIES": series}.items()}  # fmt: skip
    found = _columns(table, names)
    if (when := roles["TIME"]) and found[when].kind in ("integer", "number", "identifier"):
        found[when] = as_moment(found[when], table.rows[when]) or found[when]
    goal, kind = _target(found[roles["TARGET"]], table, task)
    notes = list(table.notes)
    warnings: list[str] = []
    left_out: dict[str, str] = {}
    times = found[roles["TIME"]] if roles["TIME"] else None
    clock = _clock(times, table, _truth(goal, table), kind, warnings, gap=-(-forecast // 24)) if times else None
    reserved = {goal.header, roles["TIME"], roles["KEY"]}
    known = table.key if table.key not in reserved else ""
    personal = {header: looks for header, column in found.items() if (looks := propose(column, table.rows[header]))}
    key_header = roles["KEY"] or known or _key(found, reserved, personal)
    if key_header:
        warnings += _about_key(table.rows[key_header])
    used = {*reserved, key_header}
    entity = _series(table, found, roles, kind, used) if forecast else _entity(found, used, len(table.rows))
    for header in {key_header, roles["TIME"]} - {""}:
        if found[header].name in TAKEN_BY_ANSWERS:
            found[header] = replace(found[header], name=f"{found[header].name}_")
    if clock is not None:
        clock = replace(clock, column=found[roles["TIME"]])
    kept = []
    tags: dict[str, Proposal] = {}
    for header, column in found.items():
        looks = personal.get(header) if header not in (goal.header, roles["TIME"]) else None
        if looks is not None:
            tags[header] = looks
        if header == goal.header:
            kept.append(goal)
        elif header in (key_header, entity, roles["TIME"]):
            kept.append(column)
        elif looks is not None and looks.kind != "text":
            left_out[header] = f"it looks like personal data ({looks.why})"
        elif (why := _why_left_out(column)) is not None:
            left_out[header] = why
        else:
            kept.append(column)
    kept = _within_bounds(kept, {goal.header, key_header, entity or ""}, warnings)
    telling = [c for c in kept if c.header not in (goal.header, key_header, entity, roles["TIME"])]
    if not telling and clock is None:
        reasons = "; ".join(f"{header}: {why}" for header, why in left_out.items())
        raise ScaffoldError(f"{table.path}: no column is left to predict '{goal.header}' from ({reasons})")
    warnings += _to_look_at(kept, table)
    notes += _about_arrival(table, clock)
    notes += _good_to_know(goal, key_header, entity, table) if not forecast else _about_forecast(telling)
    return Guess(
        columns=kept,
        target=goal,
        task=kind,
        positive=_positive(goal, table) if kind == "binary" else "",
        key=found[key_header].name if key_header else ROW,
        entity=found[entity].name if entity else None,
        forecast=forecast,
        clock=clock,
        left_out=left_out,
        tags=tags,
        notes=notes,
        warnings=warnings,
    )


def _about_arrival(table: RawTable, clock: Clock | None) -> list[str]:
    """Offers the column with the time of arrival, if the user has named another one."""
    if clock is None or not table.arrivals or clock.column.header in table.arrivals:
        return []
    header = table.arrivals[0]
    return [
        f"'{header}' looks like the time at which a row is written: with arrived=\"{header}\" instead of "
        f'time="{clock.column.header}" in the source and late_days=3 in the table, rows that are written late land, too'
    ]


def _about_key(values: pd.Series) -> list[str]:
    text = values.astype("string[pyarrow]").str.strip()
    blank = text.isna() | (text == "")
    found = (
        [f"{int(blank.sum())} rows have no value in the key '{values.name}': they are refused"] if blank.any() else []
    )
    if not text[~blank].is_unique:
        found.append(f"the key '{values.name}' is not unique: rows that repeat it are dropped as duplicates")
    return found


def _columns(table: RawTable, names: dict[str, str]) -> dict[str, Column]:
    """Guesses each column. Ambiguous numbers are read with the decimal mark of the table's other columns."""
    found = {header: look_at(header, name, table.rows[header]) for header, name in names.items()}
    surely = {
        c.reader for c in found.values() if not c.rival and (c.reader in ("amount", "comma") or c.kind == "number")
    }
    if surely == {"comma"}:
        for header, column in found.items():
            if column.rival == "comma":
                found[header] = look_at(header, column.name, table.rows[header], reader="comma")
    return found


def _to_look_at(kept: Sequence[Column], table: RawTable) -> list[str]:
    found = []
    for column in kept:
        found += [f"'{column.header}': {note}" for note in column.notes]
        if column.header in table.texts and column.kind in NUMBERS:
            found.append(f"'{column.header}': it is text in the database, but its values are numbers and read as such")
        if column.infinite:
            found.append(f"'{column.header}': {column.infinite} values are infinite and become missing")
        if column.rival:
            how = {"": "with a decimal point", "amount": "with commas for thousands", "comma": "with a decimal comma"}
            how_read = f"{how[column.reader]}; {how[column.rival]} they would be other numbers"
            found.append(f"'{column.header}': its numbers are read {how_read}")
        if column.unreadable:
            share = f"{column.unreadable} values cannot be read as {column.kind} (e.g. '{column.example}')"
            found.append(f"'{column.header}': {share} and become missing")
    if len(table.rows) < ROWS_TO_TRAIN:
        found.append(f"{len(table.rows)} rows are few: training needs 200 for fitting (Training.min_rows)")
    return found


def _good_to_know(goal: Column, key_header: str, entity: str | None, table: RawTable) -> list[str]:
    found = []
    if goal.nullable:
        rows = round(goal.missing * len(table.rows)) + goal.unreadable + goal.infinite
        found.append(f"{rows} rows have no '{goal.header}': they are scored, but not used for training")
    if not key_header:
        copies = int(table.rows.duplicated().sum())
        several = f" ({copies} rows are copies)" if copies else ""
        found.append(f"no column is a key: the row's text is the key, so identical rows count as one{several}")
    if entity:
        note = f"rows of one '{entity}' stay on one side of the split, and '{entity}' is not a feature"
        found.append(f"'{entity}' identifies what several rows belong to: {note}")
    return found


def _header(table: RawTable, given: str, what: str) -> str:
    for header in table.rows.columns:
        if is_named(header, given):
            return str(header)
    import difflib

    close = [str(h) for h in table.rows if str(h).strip().lower() == given.strip().lower()]
    close = close or difflib.get_close_matches(given, [str(h) for h in table.rows], n=1)
    hint = f"; did you mean '{close[0].strip()}'?" if close else "."
    there = ", ".join(str(header).strip() for header in table.rows.columns[:40])
    other = ""
    if table.first_lines and not close:
        other = (
            f". They are from line {table.form.header}; if the column names are in another line, give HEADER=line. "
            f"The first lines are:\n{table.first_lines}"
        )
    raise ScaffoldError(f"{what}={given}: {table.path} has no such column{hint} The columns are: {there}{other}")


def is_named(header: str, given: str) -> bool:
    """Returns whether a header is the one that the user gave, either as in the file or as the contract names it."""
    return given.strip() in (header.strip(), next(iter(identifiers([header]).values())))


def _target(column: Column, table: RawTable, task: Asked) -> tuple[Column, TaskKind]:
    """Returns the target's column as the contract will have it, and its kind."""
    where = f"TARGET={column.header.strip()}"
    if column.kind == "empty":
        raise ScaffoldError(f"{where} of {table.path} is empty; give a column that holds the labels")
    if column.kind == "constant" or column.distinct < 2:
        blank = "; fill the blank cells with the other value" if column.missing else ""
        raise ScaffoldError(f"{where} of {table.path} has one value only, so there is nothing to predict{blank}")
    if column.kind == "moment":
        raise ScaffoldError(f"{where} of {table.path} is a date; give a number (of days, say) or classes")
    is_number = column.low == column.low  # False for NaN
    if column.kind == "boolean" and task != "regression":
        values = table.rows[column.header].astype("string[pyarrow]").str.strip().str.lower()
        rare = _rare(values[values.notna() & values.isin((*TRUE, *FALSE))].value_counts())
        return replace(column, notes=(*column.notes, *rare)), "binary"
    whole = column.kind in ("integer", "identifier") and is_number
    if is_number and (task == "regression" or (not (whole and column.distinct <= FEW_NUMBERS) and not task)):
        return replace(column, kind="integer" if whole else "number"), "regression"
    values = table.rows[column.header].astype("string[pyarrow]").str.strip()
    values = values[values.notna() & (values != "") & ~values.isin(column.words)]
    if is_number:
        counted = pd.to_numeric(values, errors="coerce").dropna().astype("int64" if whole else "float64").value_counts()
    else:
        counted = (values.str.lower() if column.lower else values).value_counts()
    if len(counted) > MOST_CLASSES:
        raise ScaffoldError(
            f"{where} of {table.path} has {len(counted):,} different values and is not a number; a model distinguishes "
            f"at most {MOST_CLASSES} classes. Give another column, or group its values first"
        )
    classes = sorted(counted.index)
    if len(classes) == 2:
        classes = _positive_second(classes, counted)
    kind: TaskKind = "binary" if len(classes) == 2 else "multiclass"
    if task and task != kind:
        raise ScaffoldError(
            f"TASK={task}: {where} has {len(classes)} classes; leave TASK out, or use a numeric target for regression"
        )
    notes = list(column.notes)
    notes += _rare(counted)
    made = replace(
        column, kind="integer" if is_number else "category", categories=tuple(classes), notes=tuple(notes), why="class"
    )
    return made, kind


def _rare(counted: pd.Series) -> list[str]:
    """Returns a warning about classes with few rows, if there are any."""
    rare = [f"'{name}' {n}" for name, n in counted.items() if n < ROWS_OF_A_CLASS]
    warning = f"classes with few rows ({', '.join(rare)}): training needs 10 of each; drop or merge them"
    return [warning] if rare else []


def _positive_second(classes: list[Any], counted: pd.Series) -> list[Any]:
    """Orders two classes so that the positive one is second.

    That is the class that means yes, else the number above zero if the other is not, else the rarer class.
    """
    first, second = map(str, classes)
    if says_yes(first, second):
        return classes[::-1]
    if says_yes(second, first):
        return classes
    if all(isinstance(name, (int, float)) for name in classes) and classes[0] <= 0 < classes[1]:
        return classes
    return list(counted.index) if counted.iloc[0] != counted.iloc[1] else classes


def _positive(goal: Column, table: RawTable) -> str:
    if goal.categories:
        return str(goal.categories[1])
    values = table.rows[goal.header].astype("string[pyarrow]").str.strip()
    return str(next(word for word in values.dropna().unique() if word.lower() in TRUE))


def _key(found: dict[str, Column], reserved: set[str], personal: dict[str, Proposal]) -> str:
    """Returns the header of the first identifier column whose values are unique; empty if there is none.

    A personal column is a key only if nothing else is, and if its values belong to one person each.
    """
    own = "each row has its own"
    unique = [
        h for h, c in found.items()
        if c.kind == "identifier" and c.why == own and not c.missing and h not in reserved and not _is_row_number(c)
    ]  # fmt: skip
    own_of_persons = [h for h in unique if h in personal and personal[h].kind in ("email", "national_id")]
    return next(iter([*(h for h in unique if h not in personal), *own_of_persons]), "")


def _entity(found: dict[str, Column], reserved: set[str], rows: int) -> str | None:
    """Returns the header of an identifier column whose values several rows share."""
    for header, column in found.items():
        named = column.kind == "identifier" and column.why in ("named like one", LONG_DIGITS) and not column.nullable
        if named and header not in reserved and MOST_CATEGORIES < column.distinct <= 0.9 * rows:
            return header
    return None


def _series(
    table: RawTable, found: dict[str, Column], roles: dict[str, str], kind: TaskKind, reserved: set[str]
) -> str | None:
    """Returns the header of the column that tells the series of a forecast apart; ``None`` if there is one series."""
    if not roles["TIME"]:
        raise ScaffoldError("FORECAST: give TIME=column, the time of each measurement")
    if kind != "regression":
        raise ScaffoldError(
            f"FORECAST: '{roles['TARGET']}' has classes, but only measured values are forecast; leave FORECAST out, or "
            "give TASK=regression if its values are measurements"
        )
    times = table.rows[roles["TIME"]]
    if roles["SERIES"]:
        return roles["SERIES"]
    if times.duplicated().mean() <= MOST_REPEATED:
        return None
    able = [
        column for header, column in found.items()
        if header not in reserved and column.kind in ("category", "boolean", "integer", "identifier", "text")
        and 2 <= column.distinct <= len(table.rows) / 10 and not column.nullable
    ]  # fmt: skip
    for column in sorted(able, key=lambda one: one.distinct):
        if pd.DataFrame({"series": table.rows[column.header], "time": times}).duplicated().mean() <= MOST_REPEATED:
            return column.header
    raise ScaffoldError(
        f"FORECAST: several rows have the same '{roles['TIME']}', and no column tells their series apart; give "
        "SERIES=column, or a table with one row for each time and series"
    )


def _about_forecast(others: Sequence[Column]) -> list[str]:
    """What the user should know of a forecast: columns that are not known ahead are not read."""
    if not others:
        return []
    names = ", ".join(column.name for column in others)
    return [f"not read, because their values are not known ahead: {names}; name those that are in Forecast(known=…)"]


def _is_row_number(column: Column) -> bool:
    """Returns whether a column without a name numbers the rows; the numbers would change with the next landing."""
    return column.header.startswith("Unnamed: ") and column.kind == "identifier"


def _why_left_out(column: Column) -> str | None:
    if _is_row_number(column):
        return "it has no name and counts the rows"
    if column.kind in NUMBERS and max(abs(column.low), abs(column.high)) > LARGEST:
        return f"its numbers exceed {LARGEST:.0e}, the limit of features; use their logarithm"
    return {
        "empty": "it is empty",
        "constant": "it has one value only",
        "identifier": f"it looks like an identifier ({column.why})",
        "personal": f"it looks like personal data ({column.why})",
    }.get(column.kind)


def _within_bounds(kept: list[Column], fixed: set[str], warnings: list[str]) -> list[Column]:
    """Turns the columns with the most categories into text if there would be too many features."""
    categories = [c for c in kept if c.kind == "category" and c.header not in fixed]
    total = sum(len(c.categories) for c in categories)
    as_text = set()
    for column in sorted(categories, key=lambda c: -len(c.categories)):
        if total <= MOST_ONE_HOT:
            break
        as_text.add(column.header)
        total -= len(column.categories)
    if as_text:
        warnings.append(
            f"{len(as_text)} columns with many categories are read as text: {', '.join(sorted(as_text)[:5])}"
        )
    return [replace(c, kind="text", categories=()) if c.header in as_text else c for c in kept]


def _reports(truth: pd.Series, kind: TaskKind) -> bool:
    """Returns whether there are enough rows to report on, by the rules of the training set."""
    counted = truth.value_counts()
    return counted.sum() >= ROWS_TO_REPORT and (
        kind != "binary" or (len(counted) > 1 and counted.min() >= ROWS_OF_EACH)
    )


def _truth(goal: Column, table: RawTable) -> pd.Series:
    """Returns the target's text in lower case; missing where it is unknown."""
    values = table.rows[goal.header].astype("string[pyarrow]").str.strip().str.lower()
    return values.mask((values == "") | values.isin([word.lower() for word in goal.words]))


def _clock(
    column: Column, table: RawTable, truth: pd.Series, kind: TaskKind, warnings: list[str], *, gap: int
) -> Clock:
    """The split by time. ``gap``: days of a forecast's horizon, which lie between the rows of a fit and its test."""
    if column.kind != "moment":
        some = ", ".join(f"'{value}'" for value in table.rows[column.header].dropna().head(3))
        raise ScaffoldError(
            f"TIME={column.header.strip()}: {table.path} has {column.kind} values ({some}), not dates; give a "
            "column of dates, or leave TIME out to use the table as a snapshot"
        )
    times = moments(table.rows[column.header], column.form)
    days = times.dropna().dt.date
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    first, last = days.min(), min(days.max(), yesterday)
    span = (last - first).days + 1
    if span < FEWEST_DAYS:
        raise ScaffoldError(
            f"TIME={column.header.strip()}: the rows of {table.path} span {span} days, but a split by time needs "
            f"{FEWEST_DAYS}; leave TIME out to use the table as a snapshot"
        )
    if span > MOST_DAYS:
        first, span = last - dt.timedelta(days=MOST_DAYS - 1), MOST_DAYS
        warnings.append(f"the rows go back {span} days or more: those before {first} are left out (Table.start)")
    if late := int((times.dt.date > last).sum()):
        warnings.append(f"{late} rows are after {last}: they land when their day is over")
    if unread := int(times.isna().sum()):
        warnings.append(f"{unread} rows without a readable '{column.header}' never land")
    labelled = truth[(times.dt.date >= first) & (times.dt.date <= last)]
    ago = (pd.Timestamp(last) - times[labelled.index].dt.floor("D")).dt.days
    able = [days for days in range(max(2, span // 8), span // 4 + 1) if _reports(labelled[ago < days], kind)]
    test_days = next(iter(able), max(2, span // 8))
    to_fit = int(labelled[(ago >= test_days) & (ago < span - 2 * test_days)].count())
    if not able or to_fit < ROWS_TO_FIT:
        to_report = int(labelled[ago < test_days].count())
        warnings.append(
            f"a split by day gives {to_report} rows for testing and {to_fit} for fitting: training needs "
            f"{ROWS_TO_REPORT} and {ROWS_TO_FIT}{f', and {ROWS_OF_EACH} of each class' if kind == 'binary' else ''}; "
            "leave TIME out, because a snapshot needs fewer"
        )
    window_days = span - 3 * test_days - 2 * gap
    if window_days < LEAST_WINDOW and gap:
        raise ScaffoldError(
            f"FORECAST: the rows of {table.path} span {span} days; {gap} days ahead need at least "
            f"{span + LEAST_WINDOW - window_days}; give a shorter horizon, or more rows"
        )
    return Clock(
        column=column,
        start=first,
        last=last,
        window_days=window_days,
        test_days=test_days,
        quiet_days=days[(days >= first) & (days <= last)].nunique() < span,
    )
