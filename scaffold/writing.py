"""The files of a new model folder, in the style of handwritten code.

Belongs here: turning a guess into the text of the declaration, the contract with its cleaning, and a test. Does not
belong here: guessing, or moving the folder into place (``new_model.py``).
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

import dagster as dg

from assets.personal import KINDS
from resources.moments import ISO
from scaffold.columns import Column
from scaffold.guessing import ROW, Guess
from scaffold.tables import RawTable

LINE, LONG = 116, 80
"""Maximum characters of a line, and of a string that is written in one piece."""
IMPORTED = ("Model", "Table", "Training", "Evaluation", "Series", "CsvFile", "ParquetFile", "FileByDay", "SqlTable",
            "SqlByDay", "Files", "FilesByDay", "Forecast")  # fmt: skip
"""Names that a contract cannot have, because the files import them."""
ONE_SERIES = "one_series"
"""Name of the column of a forecast that has one series."""
SHARED_LISTS = 3
"""Minimum number of columns with the same categories for which the list gets a name."""


def files_of(name: str, table_name: str, path: str, table: RawTable, guess: Guess) -> dict[str, str]:
    """Returns the text of each file, by file name.

    Args:
        name: name of the model.
        table_name: name of the cleaned table.
        path: path of the file, as the source will have it.
        table: the table as read.
        guess: the guessed structure.
    """
    contract = "".join(word.capitalize() for word in table_name.split("_"))
    if contract in IMPORTED:
        contract += "Row"
    return {
        "__init__.py": _declaration(name, table_name, contract, path, table, guess),
        "table.py": _table(contract, table, guess),
        f"test_{name}.py": _test(name, table, guess),
    }


def _declaration(name: str, table_name: str, contract: str, path: str, table: RawTable, guess: Guess) -> str:
    target, clock = guess.target.name, guess.clock
    source, given = _source(path, table, guess)
    raw_tags = _raw_tags(guess)
    has_entity = guess.entity and not guess.forecast
    imports = ["Model", "Table", *(["Evaluation"] if has_entity else []), *(["Training"] if clock else [])]
    lines = [
        f'"""{_prose(guess.target.header)} of the rows of {_prose(Path(path).name)}."""',
        "",
        *_imports(["import datetime as dt"] if clock else [], ["import dagster as dg"] if "dg." in given else []),
        f"from assets.declaration import {', '.join(sorted(imports))}",
        *(["from assets.forecast import Forecast"] if guess.forecast else []),
        f"from assets.models.{name}.table import {contract}{', clean' if _clean(contract, guess) else ''}",
        *(["from assets.personal import personal"] if raw_tags else []),
        f"from resources.sources import {source}",
        "",
        "model = Model(",
        f'    name="{name}",',
        f"    description={_quoted(f'Predicts {target} from {Path(path).name}.')},",
        "    table=Table(",
        f'        name="{table_name}",',
        f"        source={source}({given}),",
        f'        key="{guess.key}",',
    ]
    if clock is not None:
        start = _date(clock.start)
        lines += [f'        time="{clock.column.name}",', f"        start={start},", "        late_days=0,"]
        lines += ["        quiet_days=True,"] if clock.quiet_days else []
    lines += [f"        contract={contract},", *(["        clean=clean,"] if _clean(contract, guess) else [])]
    if raw_tags:
        lines += ["        raw_tags={", *(f"            {line}," for line in raw_tags), "        },"]
    lines += ["    ),", f'    target="{target}",']
    if guess.forecast:
        series = guess.entity or ONE_SERIES
        lines.append(f'    forecast=Forecast(series="{series}", horizon_hours={guess.forecast}),')
    if has_entity:
        lines.append(f'    evaluation=Evaluation(entity="{guess.entity}"),')
    if clock is not None:
        lines.append(f"    training=Training(window_days={clock.window_days}, test_days={clock.test_days}),")
    return "\n".join([*lines, ")", ""])


def _raw_tags(guess: Guess) -> list[str]:
    """The tags of columns that are not in the contract, or have another name there.

    What nobody reads is dropped. Where the row's text is the key, it gets a pseudonym, so that rows stay different.
    """
    lines = []
    named = {column.header: column.name for column in guess.columns}
    for header, looks in guess.tags.items():
        if header not in named:
            protect = "pseudonym" if guess.key == ROW else "drop"
            lines.append(f'{_quoted(header)}: personal("{looks.kind}", "{protect}")')
        elif header != named[header]:
            lines.append(f"{_quoted(header)}: {_tag(looks.kind, named[header], guess, column=named[header])}")
    return lines


def _tag(kind: str, name: str, guess: Guess, *, column: str = "") -> str:
    """The tag of a column of the contract; one that identifies rows has a pseudonym."""
    identifies = name in (guess.key, guess.entity) and KINDS[kind] != "pseudonym"
    given = [f'"{kind}"', *(['"pseudonym"'] if identifies else []), *([f"column={_quoted(column)}"] if column else [])]
    return f"personal({', '.join(given)})"


def _imports(*groups: list[str]) -> list[str]:
    return [line for group in groups if group for line in (*group, "")]


def _source(path: str, table: RawTable, guess: Guess) -> tuple[str, str]:
    """Returns the name of the source's class, and the source code of its arguments."""
    clock = guess.clock
    form = f', form="{clock.column.form}"' if clock is not None and clock.column.form != ISO else ""
    if table.source is None:
        given = f"path={_quoted(path, 100)}"
        options = "" if table.is_parquet else _csv_options(table)
        if clock is None:
            return ("ParquetFile" if table.is_parquet else "CsvFile"), given + options
        return "FileByDay", f"{given}, time={_quoted(clock.column.header)}{form}{options}"
    given = ", ".join(f"{name}={_argument(value)}" for name, value in table.source.arguments.items())
    if clock is None:
        return table.source.name, given
    if table.source.name == "Files":
        by_path = "{day" in table.source.arguments["path"]
        return "FilesByDay", given if by_path else f"{given}, time={_quoted(clock.column.header)}{form}"
    how = "arrived" if clock.column.header in table.arrivals else "time"
    return "SqlByDay", f"{given}, {how}={_quoted(clock.column.header)}{form}"


def _argument(value: object) -> str:
    if isinstance(value, dg.EnvVar):
        return f"dg.EnvVar({_quoted(value.env_var_name)})"
    if isinstance(value, list):
        return _words(tuple(value))
    return _quoted(value, 100) if isinstance(value, str) else repr(value)


def _csv_options(table: RawTable) -> str:
    form, given = table.form, ""
    if form.separator != ",":
        given += f", separator={_quoted(form.separator)}"
    if form.encoding != "utf-8":
        given += f", encoding={_quoted(form.encoding)}"
    if form.header != 1:
        given += f", header={form.header}"
    return given + (f", foot={_words(tuple(form.foot))}" if form.foot else "")


def _table(contract: str, table: RawTable, guess: Guess) -> str:
    named = _shared_lists(guess)
    key = [f'    {ROW}: Series[str] = pa.Field(description="The key, made of the row\'s text.")']
    one = [f'    {ONE_SERIES}: Series[str] = pa.Field(description="All rows are of one series.")']
    made = [*(key if guess.key == ROW else []), *(one if _is_one_series(guess) else [])]
    fields = [*made, *(_field(column, guess, named) for column in guess.columns)]
    lists = [f"{name} = {_words(values)}" for values, name in named.items()]
    body = _clean(contract, guess)
    readers = sorted(
        {word for word in ("number", "hours", "moment", "row_key", "typed") if re.search(rf"\b{word}\(", body)}
    )
    file = _prose(table.path.name)
    left = f" Left out: {', '.join(_prose(header) for header in guess.left_out)}." if guess.left_out else ""
    doc = f"A row of {file}.{left}"
    if len(doc) > LINE - 6:
        doc = f"A row of {file}; {len(guess.left_out)} of its columns are left out."
    return "\n".join(
        [
            f'"""The table: the contract of a clean row of {file}, and how text is converted to it."""'
            if body
            else f'"""The table: the contract of a clean row of {file}, by which landed text is typed."""',
            "",
            *(["import pandas as pd"] if body or any("pd." in field for field in fields) else []),
            "import pandera.pandas as pa",
            "from pandera.typing.pandas import Series",
            "",
            *(["from assets.personal import personal"] if any("metadata=" in field for field in fields) else []),
            *([f"from assets.reading import {', '.join(readers)}"] if readers else []),
            *([""] if readers or any("metadata=" in field for field in fields) else []),
            *([*lists, "", ""] if lists else [""]),
            f"class {contract}(pa.DataFrameModel):",
            f'    """{doc}"""',
            "",
            *fields,
            *(["", "", body] if body else []),
            "",
        ]
    )


def _field(column: Column, guess: Guess, named: dict[tuple[str, ...], str]) -> str:
    nullable = column.nullable
    is_target, is_key = column.name == guess.target.name, column.name == guess.key
    is_time = guess.clock is not None and column.name == guess.clock.column.name
    whole = column.kind == "integer" or (column.kind == "identifier" and not math.isnan(column.low))
    if column.kind == "boolean":
        kind = "pd.BooleanDtype" if nullable else "bool"
    elif whole:
        kind = "int" if not nullable else "pd.Int64Dtype" if is_target and column.categories else "float"
    else:
        kind = {"number": "float", "moment": "pd.Timestamp"}.get(column.kind, "str")
    rules = []
    if is_key:
        rules.append('description="The key."')
    elif column.categories:
        rules.append(f"isin={named.get(column.categories) or _words(column.categories)}")
    elif column.kind in ("integer", "number"):
        rules += _bounds(column)
    if nullable and not is_key and not is_time:
        rules.append("nullable=True")
    if column.header in guess.tags:
        rules.append(f"metadata={_tag(guess.tags[column.header].kind, column.name, guess)}")
    given = f" = pa.Field({', '.join(rules)})" if rules else ""
    return f"    {column.name}: Series[{kind}]{given}"


def _bounds(column: Column) -> list[str]:
    """Returns generous bounds, so that a value beyond them is an error and not just a large value."""
    low, high, middle = column.low, column.high, column.middle
    # Halved first, because the difference of two floats may overflow.
    below, above = low / 2 - high / 2, high / 2 - low / 2
    lower = 0.0 if low >= 0 else min(low + 2 * below, low)
    # With a long tail, the largest value is a poor guide to the next one.
    upper = 10 * high if low >= 0 and high > 20 * abs(middle) > 0 else high + 2 * above
    if high <= 0:
        upper = min(upper, 0.0)
    rules = [f"ge={_outwards(lower, low, up=False)}"] if math.isfinite(lower) else []
    return [*rules, f"le={_outwards(upper, high, up=True)}"] if math.isfinite(upper) else rules


def _outwards(bound: float, reached: float, *, up: bool) -> str:
    """Rounds a bound up or down to two leading digits, but never inside the range of the values.

    The direction does not depend on the sign: the upper bound of a negative column moves towards zero.
    """
    if bound == 0:
        return "0"
    exponent = math.floor(math.log10(abs(bound))) - 1
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    rounded = Decimal(bound).quantize(Decimal(1).scaleb(exponent), rounding=rounding)
    value = float(rounded)
    if not math.isfinite(value) or (value < reached if up else value > reached):
        return repr(reached)
    if abs(value) >= 1e16 or abs(value) < 1e-4:
        return repr(value)
    return f"{int(value):_}" if value == int(value) else f"{value:.6g}"


def _clean(contract: str, guess: Guess) -> str:
    """The function that types landed text; empty if the contract alone says how, as the lifecycle does by default."""
    columns = list(guess.columns)
    lines = []
    renamed = {c.header: c.name for c in columns if c.header != c.name}
    # A column that is left out may have the name that another column gets.
    renamed |= {header: f"{header}_left_out" for header in guess.left_out if header in renamed.values()}
    if renamed:
        pairs = ", ".join(f"{_quoted(header)}: {_quoted(name)}" for header, name in renamed.items())
        lines.append(f"    raw = raw.rename(columns={{{pairs}}})")
    made = {c.name: _reader(c) for c in columns if _reader(c)}
    if guess.key == ROW:
        made[ROW] = "row_key(raw)"
    if _is_one_series(guess):
        made[ONE_SERIES] = '"all"'
    if made:
        lines.append(f"    raw = raw.assign({', '.join(f'{name}={how}' for name, how in made.items())})")
    words = sorted({w for c in columns if c.kind in ("category", "text", "identifier") for w in c.words})
    missing = f", missing={_words(tuple(words))}" if words else ""
    if not lines and not missing:
        return ""
    lines.append(f"    return typed(raw, {contract}{missing})")
    doc = (
        '    """Converts landed text to typed rows; unreadable values become missing, which the contract may refuse."""'
    )
    return "\n".join(["def clean(raw: pd.DataFrame) -> pd.DataFrame:", doc, *lines])


def _is_one_series(guess: Guess) -> bool:
    return bool(guess.forecast) and guess.entity is None


def _reader(column: Column) -> str:
    """Returns the expression that reads a column before it is typed; empty if the contract is enough."""
    raw = f'raw["{column.name}"]'
    if column.kind in ("integer", "number") and column.reader:
        if column.reader == "hours":
            return f"hours({raw})"
        given = (', decimal=","' if column.reader == "comma" else "") + (
            f", unit={_quoted(column.unit)}" if column.unit else ""
        )
        return f"number({raw}{given})"
    if column.kind == "moment" and column.form != ISO:
        return f'moment({raw}, "{column.form}")'
    return f"{raw}.str.lower()" if column.lower else ""


def _shared_lists(guess: Guess) -> dict[tuple[str, ...], str]:
    """Returns names for lists of categories that several columns share or that are long."""
    counted = Counter(c.categories for c in guess.columns if c.categories)
    named: dict[tuple[str, ...], str] = {}
    for column in guess.columns:
        values = column.categories
        shared = counted[values] >= SHARED_LISTS
        if not values or values in named or not (shared or len(_words(values)) > LINE - 30):
            continue
        text = "_or_".join(map(str, values)) if shared else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.name)
        name = re.sub(r"\W+", "_", text).strip("_").upper()[:40].strip("_")
        usable = name.isidentifier() and name not in named.values()
        named[values] = f"{name}{'' if shared else 'S'}" if usable else f"{column.name}_VALUES".upper()
    return named


def _words(values: tuple[object, ...]) -> str:
    """Returns source code for a list of values; a list too long for a line becomes one string that is split."""
    plain = "[" + ", ".join(_quoted(v) if isinstance(v, str) else str(v) for v in values) + "]"
    texts = [str(v) for v in values]
    if len(plain) <= LINE or not all(isinstance(v, str) for v in values) or any("|" in t for t in texts):
        return plain
    lines: list[str] = [""]
    for number_, text in enumerate(texts):
        part = text + ("|" if number_ < len(texts) - 1 else "")
        if lines[-1] and len(_quoted(lines[-1] + part, LINE)) > LINE - 4:
            lines.append("")
        lines[-1] += part
    return "(\n" + "\n".join(f"    {_quoted(line, LINE)}" for line in lines) + '\n).split("|")'


def _quoted(text: object, most: int = LONG) -> str:
    if len(str(text)) > most:
        parts = re.findall(rf".{{1,{LONG}}}", str(text), re.DOTALL)
        return "(\n" + "\n".join(_quoted(part) for part in parts) + "\n)"
    quoted = "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1]
        for letter in json.dumps(str(text), ensure_ascii=False)
    )
    if '"' in str(text) and "'" not in str(text):
        return "'" + quoted[1:-1].replace('\\"', '"') + "'"
    return quoted


def _prose(text: str) -> str:
    """Returns a file's or column's name in a form that is safe in a docstring."""
    plain = " ".join(text.replace("\\", "/").replace('"', "'").split())
    return plain if len(plain) <= LONG else plain[: LONG - 1] + "…"


def _test(name: str, table: RawTable, guess: Guess) -> str:
    spoilt = next(
        (c for c in guess.columns if c.kind in ("number", "integer", "moment", "boolean") and not c.nullable
         and c.name not in (guess.key, guess.target.name) and not (guess.clock and c is guess.clock.column)),
        guess.target,
    )  # fmt: skip
    if table.source is not None:
        return _test_of_source(name, table, guess, spoilt)
    nullable = spoilt.nullable
    lines = [
        f'"""The rows of the {name} table meet their contract, and one that does not is refused with its reason."""',
        "",
        "from assets.lifecycle.dry_run import dry_run",
        f"from assets.models.{name} import model",
        "",
        "",
        "def test_the_table_meets_its_contract():",
        "    found = dry_run(model)",
        "    assert found.refused_share <= model.table.max_refused, found.reasons",
    ]
    if not nullable:
        header = _quoted(spoilt.header)
        reason = f"{spoilt.name}: missing or unreadable"
        lines += [
            "",
            "",
            "def test_a_value_that_cannot_be_read_is_refused_with_its_reason():",
            f'    assert set(dry_run(model, spoil={{{header}: "~"}}).reasons) == {{{_quoted(reason)}}}',
        ]
    return "\n".join([*lines, ""])


def _test_of_source(name: str, table: RawTable, guess: Guess, spoilt: Column) -> str:
    """The same tests on rows of a database or of files elsewhere, which may not be there where the tests run."""
    assert table.source is not None
    url, clock = next(iter(table.source.arguments.values())), guess.clock
    rows = "model.table.source.read()" if clock is None else f"model.table.source.land({_date(clock.last)})"
    variable = url.env_var_name if isinstance(url, dg.EnvVar) else ""
    skipped = [
        f'    if "{variable}" not in os.environ:',
        f'        pytest.skip("needs {variable}, the URL of the database")',
    ] if variable else []  # fmt: skip
    lines = [
        f'"""The rows of the {name} table meet their contract, and one that does not is refused with its reason."""',
        "",
        *_imports([*(["import datetime as dt"] if clock else []), *(["import os"] if variable else [])]),
        "import pandas as pd",
        "import pytest",
        "",
        "from assets.lifecycle.dry_run import dry_run",
        f"from assets.models.{name} import model",
        "from resources.sources import SourceUnavailable",
        "",
        "",
        '@pytest.fixture(scope="module")',
        "def rows() -> pd.DataFrame:",
        *skipped,
        "    try:",
        f"        return {rows}",
        "    except SourceUnavailable as error:",
        "        pytest.skip(str(error))",
        "",
        "",
        "def test_the_table_meets_its_contract(rows):",
        "    found = dry_run(model, rows)",
        "    assert found.refused_share <= model.table.max_refused, found.reasons",
    ]  # fmt: skip
    if not spoilt.nullable:
        reason = _quoted(f"{spoilt.name}: missing or unreadable")
        lines += [
            "",
            "",
            "def test_a_value_that_cannot_be_read_is_refused_with_its_reason(rows):",
            f'    assert set(dry_run(model, rows, spoil={{{_quoted(spoilt.header)}: "~"}}).reasons) == {{{reason}}}',
        ]
    return "\n".join([*lines, ""])


def _date(day: dt.date) -> str:
    return f"dt.date({day.year}, {day.month}, {day.day})"
