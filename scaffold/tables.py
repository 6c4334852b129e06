"""Reads an unknown file as text, and records how it has to be read.

Belongs here: encoding, separator, header line, foot, and refusing files that are not tables. Does not belong here: the
meaning of columns (``columns.py``), files elsewhere or of a pattern (``stored_tables.py``), reading a file of known
form (``resources/files.py``).
"""

from __future__ import annotations

import csv
import functools
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resources.files import (
    COMPRESSED,
    FOOT_LINES,
    OTHERS,
    CsvForm,
    FileError,
    excel_cells,
    first_filled,
    is_parquet,
    kind_of,
    open_bytes,
    read_excel,
    read_json_lines,
)
from resources.files import read_csv as read_rows
from resources.files import read_parquet as read_parquet_rows

SEPARATORS = ",;\t|"
SNIFFED_BYTES = 1_000_000
SNIFFED_ROWS = 200
MOST_LINES_ABOVE = 30
"""Number of rows at the start of a file that are searched for the header."""
SHOWN_LINES, SHOWN_CHARACTERS = 5, 100
"""Number of first lines, and characters of each, that are shown to a user who has to name the header."""
ALWAYS_FILLED = 0.99
"""Minimum share of filled rows for a column that counts as always filled."""
TOTALS = frozenset((
    "total", "totals", "grand total", "sub total", "subtotal", "sum", "sums", "overall", "all", "average", "avg",
    "mean", "count", "summe", "gesamt", "gesamtsumme", "zwischensumme", "insgesamt", "mittelwert", "somme",
    "total général", "moyenne", "totale", "totali", "somma", "media", "suma", "soma", "total geral", "razem", "łącznie",
    "celkem", "összesen", "toplam", "итого", "всего", "сумма", "сума", "разом", "合计", "总计", "小计", "共计", "总和",
    "合計", "総計", "小計", "總計", "합계", "총계", "المجموع", "الإجمالي", "कुल", "tổng", "tổng cộng", "jumlah",
    "totaal", "totalt", "i alt", "sammanlagt", "yhteensä", "σύνολο",
))  # fmt: skip
"""Words at the start of a line of totals, in lower case."""
_ENCODINGS = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "koi8-r",
    "gb18030", "big5", "shift_jis", "cp932", "euc-jp", "euc-kr", "cp949",
)  # fmt: skip
"""Candidate encodings for text that is neither Unicode nor clearly Western."""
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
"""Byte order marks, the longest first."""
_OTHER_FILES = {
    b"PK\x03\x04": "a ZIP archive, but its name does not end in .zip or .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed, but its name does not end in .gz",
    b"PAR1": "a Parquet file, but its name does not end in .parquet",
    b"SQLite format 3": "a SQLite database (TABLE='sqlite:///file.db#table' reads one)",
    b"%PDF": "a PDF",
    b"{": "JSON, but its name does not end in .jsonl",
    b"[{": "JSON",
    b"<": "HTML or XML",
}
"""First bytes of files that are not CSV, and the type of file."""
_NUMERIC = re.compile(r"[-+]?[\d.,' ]*\d[\d.,' ]*%?")


class ScaffoldError(Exception):
    """A model cannot be added or removed; the message gives the cause and the fix."""


@dataclass(frozen=True)
class SourceCall:
    """The source that read a table, as the declaration writes it.

    Args:
        name: name of the class in ``resources.sources``.
        arguments: its arguments by name; a ``dg.EnvVar`` is written as one.
    """

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class RawTable:
    """A table's rows as text, and how the table has to be read.

    Args:
        path: path of the file, or the name of a database's table.
        rows: text columns; missing values of a Parquet file or database are missing, blanks of a CSV file are blanks.
        form: form of a CSV file.
        notes: what the user should know about the reading.
        first_lines: first lines of a CSV file, numbered, to show to a user who has to name the header.
        source: the source that read the rows; ``None`` for a file, whose source follows from its form.
        key: header of the primary key, if the source knows one.
        texts: headers of columns that the source keeps as text.
        arrivals: headers of columns that look like the time at which a row was written.
    """

    path: Path
    rows: pd.DataFrame
    form: CsvForm = field(default_factory=CsvForm)
    notes: list[str] = field(default_factory=list)
    first_lines: str = ""
    source: SourceCall | None = None
    key: str = ""
    texts: Sequence[str] = ()
    arrivals: Sequence[str] = ()

    @property
    def is_parquet(self) -> bool:
        """Whether the file is a Parquet file."""
        return is_parquet(self.path)


def path_in(root: Path, table: Path) -> str:
    """Returns the file's path relative to the project's root if it needs at most one ``..``, else the absolute path."""
    relative = os.path.relpath(table.resolve(), root.resolve())
    return relative if relative.count("..") <= 1 else str(table.resolve())


Named = Callable[[str], bool]
"""Returns whether a header cell names the requested column."""


def read_table(path: Path, *, header: int = 0, named: Named = lambda cell: False, sheet: str = "") -> RawTable:
    """Reads the table in a CSV or Parquet file, JSON lines or a workbook.

    Args:
        path: path of the file.
        header: line number of the header of a CSV file or a sheet; 0 to search for it.
        named: whether a cell names a column that must exist. A line with such a cell is the header.
        sheet: sheet of a workbook; empty for the only one with cells.

    Raises:
        ScaffoldError: the file is absent, empty or not a table, two columns have the same name, or no line has column
            names.
    """
    if not path.is_file():
        raise ScaffoldError(f"{path}: no such file; give the path of a table as TABLE")
    if path.stat().st_size == 0:
        raise ScaffoldError(f"{path} is empty; give a file with a header line and rows")
    if (mend := OTHERS.get(path.suffix.lower())) is not None:
        raise ScaffoldError(f"{path}: {path.suffix} files are not supported; {mend}")
    try:
        match kind_of(path.name):
            case "parquet":
                table = _parquet(path)
            case "json lines":
                table = RawTable(path, read_json_lines(path))
            case "excel":
                table = _excel(path, sheet, header, named)
            case _:
                table = _csv(path, header, named)
    except FileError as error:
        mend = f"give TABLE='{path}#sheet'" if str(error).endswith("name one") else "fix the file"
        raise ScaffoldError(f"{path}: {error}; {mend}") from error
    if table.rows.shape[1] < 2:
        names = "', '".join(map(str, table.rows.columns))
        raise ScaffoldError(
            f"{path} has one column ('{names}'); a model needs a target and at least one other column. "
            f"If the file has more, its separator is not one of {' '.join(repr(s) for s in SEPARATORS)}"
        )
    if table.rows.empty:
        raise ScaffoldError(f"{path} has a header but no rows; give a file with rows")
    return table


def _excel(path: Path, sheet: str, header: int, named: Named) -> RawTable:
    cells = excel_cells(path, sheet)
    filled = [(at, row) for at, row in enumerate(cells) if at >= header - 1 and _filled(row)][:SNIFFED_ROWS]
    split = _Split(",", filled)
    found = (0 if header else split.header_at(named)) if filled else None
    first_lines = _shown([", ".join(row) for row in cells])
    if found is None:
        raise ScaffoldError(
            f"{path}: no row {f'from row {header} on ' if header else ''}holds column names; give HEADER=row. "
            f"The first rows are:\n{first_lines}"
        )
    at, names = filled[found]
    _refuse_twice(path, names)
    notes = []
    if at:
        above = "; ".join(", ".join(_filled(row))[:60] for row in cells[:at] if _filled(row))
        notes.append(f"the column names are in row {at + 1}; the rows above it are left out ('{above or 'blank'}')")
    form = CsvForm(header=at + 1)
    rows, form = _without_ends(read_excel(path, form, sheet), form, notes)
    return RawTable(path, rows, form, notes, first_lines)


def _parquet(path: Path) -> RawTable:
    import pyarrow.parquet as pq

    try:
        _refuse_twice(path, [str(name) for name in pq.read_schema(path).names])
    except (ValueError, OSError) as error:
        raise FileError(f"not a readable Parquet file ({str(error).splitlines()[0]})") from error
    return RawTable(path, read_parquet_rows(path))


def _csv(path: Path, header: int, named: Named) -> RawTable:
    encoding, notes = _encoding(path)
    with io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="") as file:
        text = file.read(SNIFFED_BYTES)
        cut = bool(file.read(1))
    if not text.strip():
        raise ScaffoldError(f"{path} has only blank lines; give a file with a header line and rows")
    lines = io.StringIO(text, newline="").readlines()
    if cut and len(lines) > 1:
        lines.pop()  # the last line may be incomplete
    first_lines = _shown(lines)
    form = _form(path, lines, header, named, first_lines)
    if form.separator != ",":
        notes.append(f"the columns are separated by {form.separator!r}")
    if form.header > 1:
        above = [line.strip(' ,;|\t\r\n\ufeff"') for line in lines[: form.header - 1]]
        quoted_lines = ", ".join(f"'{line[:60]}'" for line in above if line)
        notes.append(
            f"the column names are in line {form.header}; the lines above it are left out ({quoted_lines or 'blank'})"
        )
    form = replace(form, encoding=encoding)
    _refuse_twice(path, _cells(lines, form))
    rows, form = _without_ends(read_rows(path, form), form, notes)
    if path.suffix.lower() in COMPRESSED:
        notes.append(f"the file is compressed ({path.suffix}) and is unpacked whenever it is read")
    return RawTable(path, rows, form, notes, first_lines)


def _without_ends(rows: pd.DataFrame, form: CsvForm, notes: list[str]) -> tuple[pd.DataFrame, CsvForm]:
    """The rows without a second header and a foot, which is added to the form; ``notes`` gets what was found."""
    if _is_second_header(rows):
        cells = ", ".join(rows.iloc[0].fillna(""))
        notes.append(
            f"the first row ('{cells[:80]}') does not fit the others and will be refused; is it a second header line?"
        )
        rows = rows.iloc[1:].reset_index(drop=True)
    foot = _foot(rows)
    if foot:
        form = replace(form, foot=tuple(dict.fromkeys(foot.values())))
        for at in foot:
            cells = ", ".join(cell for cell in rows.loc[at].fillna("").str.strip() if cell)
            notes.append(f"the line '{cells[:80]}' at the end does not fit the others and is left out")
        rows = rows.drop(index=list(foot)).reset_index(drop=True)
    return rows, form


# -- encoding ----------------------------------------------------------------------------------------------------------


def _encoding(path: Path) -> tuple[str, list[str]]:
    with open_bytes(path) as file:
        content = file.read()
    for begins, what in _OTHER_FILES.items():
        if content[:1_000].lstrip().startswith(begins):
            raise ScaffoldError(f"{path} is {what}; save the table as CSV (UTF-8) or Parquet")
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "") or _wide(content)
    if encoding.startswith(("utf-16", "utf-32")):
        return encoding, [f"the text is {encoding.upper()}, as Excel saves 'Unicode text'"]
    if (at := content.find(b"\x00")) >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise ScaffoldError(
            f"{path} is not text: there is a NUL byte in line {line}; save the table as CSV (UTF-8) or Parquet"
        )
    if encoding:
        return encoding, []
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        encoding = _legacy(content)
    else:
        return "utf-8", []
    mend = "if letters look wrong below, save the file as UTF-8"
    return encoding, [f"the text is {encoding}, not UTF-8 (guessed; {mend})"]


def _wide(content: bytes) -> str:
    """Returns the encoding of UTF-16 without a byte order mark; empty for other text.

    In plain letters of UTF-16, every second byte is zero.
    """
    some = content[:2_000]
    even, odd = some[::2].count(0), some[1::2].count(0)
    if len(some) >= 4 and max(even, odd) > 0.4 * len(some) / 2 and min(even, odd) < 0.05 * len(some):
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _legacy(content: bytes) -> str:
    """Returns the encoding of a text that is not Unicode.

    In Western text, single accented letters stand between ASCII letters. In other scripts, whole words are outside
    ASCII, and chardet tells these encodings apart.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", content[:SNIFFED_BYTES])]
    if sum(runs) / len(runs) >= 1.5:
        import chardet

        detected = chardet.detect(content[:SNIFFED_BYTES], include_encodings=_ENCODINGS, prefer_superset=True)
        found = str(detected["encoding"] or "").lower()
        try:
            content.decode(found)
        except (LookupError, UnicodeDecodeError):
            pass
        else:
            return found.replace("windows-", "cp")
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"  # decodes any bytes
    return "cp1252"


# -- separator and header ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Split:
    """The first rows of a file by one separator: each row's first line and cells, without blank lines."""

    separator: str
    rows: list[tuple[int, list[str]]]

    @functools.cached_property
    def usual(self) -> int:
        """The most frequent number of filled cells per row; the largest of several equally frequent numbers."""
        counted = Counter(len(_filled(cells)) for _, cells in self.rows)
        return max(counted, key=lambda width: (counted[width], width), default=0)

    def header_at(self, named: Named) -> int | None:
        """Returns the position of the header: the first row that fills most columns and has the requested column.

        If no row has that column, returns the first row that fills most columns; ``None`` if there is none.
        """
        able = [
            at
            for at, (_, cells) in enumerate(self.rows[:MOST_LINES_ABOVE])
            if len(_filled(cells)) >= 0.75 * self.usual or (not cells[0].strip() and len(cells) >= self.usual)
        ]
        having = [at for at in able if any(named(cell) for cell in self.rows[at][1])]
        return next(iter(having or able), None)

    def fitness(self, at: int, named: Named) -> tuple[bool, bool, float, int]:
        """Returns a sort key for how likely the separator is correct if the header is the row at this position."""
        cells = self.rows[at][1]
        widths = [len(row) for _, row in self.rows[at + 1 :]] or [len(cells)]
        agreeing = max(Counter(widths).values()) / len(widths)
        return len(cells) > 1, any(named(cell) for cell in cells), round(agreeing, 1), len(cells)


def _form(path: Path, lines: Sequence[str], header: int, named: Named, first_lines: str) -> CsvForm:
    """Finds separator and header line; a line with the requested column is preferred, with any separator."""
    directive = re.fullmatch(r"\ufeff?sep=(.)\s*", lines[0])  # a directive for Excel
    first = max(header - 1, 1 if directive else 0)
    splits = [_split(lines, separator, first) for separator in (directive[1] if directive else SEPARATORS)]
    if all(split.usual < 2 for split in splits):
        splits = [_split(lines, " ", first)]
    found = [(split, 0 if header else split.header_at(named)) for split in splits if split.rows]
    able = [(split, at) for split, at in found if at is not None]
    if not able:
        raise ScaffoldError(
            f"{path}: no line {f'from line {header} on ' if header else ''}holds column names; give HEADER=line. "
            f"The first lines are:\n{first_lines}"
        )
    split, at = max(able, key=lambda pair: pair[0].fitness(pair[1], named))
    return CsvForm(split.separator, header=split.rows[at][0] + 1)


def _split(lines: Sequence[str], separator: str, first: int) -> _Split:
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole document
    reader = csv.reader(lines[first:], delimiter=separator)
    rows, began = [], first
    try:
        for cells in reader:
            if _filled(cells):
                rows.append((began, cells))
            began = first + reader.line_num
            if len(rows) == SNIFFED_ROWS:
                break
    except csv.Error:  # not a CSV with this separator
        pass
    return _Split(separator, rows)


def _filled(cells: Sequence[str]) -> list[str]:
    return [cell for cell in cells if cell.strip()]


def _cells(lines: Sequence[str], form: CsvForm) -> list[str]:
    """Returns the header's cells."""
    return next((row for row in csv.reader(lines[form.header - 1 :], delimiter=form.separator) if row), [])


def _shown(lines: Sequence[str]) -> str:
    some = [line.strip("\r\n\ufeff")[:SHOWN_CHARACTERS] for line in lines[:SHOWN_LINES]]
    return "\n".join(f"  {number}: {line}" for number, line in enumerate(some, start=1))


def _refuse_twice(path: Path, header: Sequence[str]) -> None:
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise ScaffoldError(f"{path}: two columns are named '{twice[0]}'; rename one of them in the file")


def _is_second_header(rows: pd.DataFrame) -> bool:
    """Returns whether the first row has words in all columns of numbers, at least two, for example units."""
    if len(rows) < 2 * FOOT_LINES:
        return False
    text_columns = [name for name in rows if (text := str(rows[name].iloc[0]).strip()) and not _NUMERIC.fullmatch(text)]
    below = rows.iloc[1:]
    strange = [name for name in text_columns if _reads_as_numbers(below[name].fillna("").str.strip())]
    fitting = [
        name for name in rows if name not in text_columns and _reads_as_numbers(below[name].fillna("").str.strip())
    ]
    return len(strange) > 1 and not fitting


# -- foot --------------------------------------------------------------------------------------------------------------


def _foot(rows: pd.DataFrame) -> dict[int, str]:
    """Returns rows at the end that do not fit the others, such as totals or source notes: first filled cell by index.

    Such a row lacks most of the always filled columns, and begins with a word for a total or with a value that its
    column never has.
    """
    if len(rows) < 2 * FOOT_LINES:
        return {}
    body, last = rows.iloc[:-FOOT_LINES], rows.iloc[-FOOT_LINES:]
    blank = (last.fillna("").apply(lambda cells: cells.str.strip()) == "").to_numpy()
    begins = first_filled(last)
    if not blank.any() and not begins.map(_is_total).any():
        return {}
    always = np.array([(body[name].fillna("") != "").mean() >= ALWAYS_FILLED for name in rows])
    found: dict[int, str] = {}
    for at in reversed(range(FOOT_LINES)):
        begin, lacking = str(begins.iloc[at]), int((blank[at] & always).sum())
        known = body.iloc[:, int((~blank[at]).argmax())].fillna("").str.strip()
        if (known == begin).any():
            break
        is_total = _is_total(begin)
        telling = known.nunique() < len(known) / 2 or _reads_as_numbers(known)
        is_strange = telling and not _NUMERIC.fullmatch(begin)
        if not (is_total and (lacking or at == FOOT_LINES - 1)) and not (
            is_strange and lacking >= max(2, always.sum() / 2)
        ):
            break
        found[int(last.index[at])] = begin
    return dict(sorted(found.items()))


def _is_total(begin: str) -> bool:
    return re.sub(r"[\s_-]+", " ", begin.strip(" :=*.").lower()) in TOTALS


def _reads_as_numbers(values: pd.Series) -> bool:
    some = values[values != ""].head(1_000)
    return len(some) > 0 and float(some.str.fullmatch(_NUMERIC.pattern).mean()) > 0.9
