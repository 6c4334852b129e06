"""Reading a file that nobody has looked at yet, as text, with what had to be found out to do so.

Belongs here: encoding, separator, header, and refusing what is no table. Does not belong here: what the columns mean
(``columns.py``).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

SEPARATORS = ",;\t|"
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "latin-1")
"""Tried in this order; the last one reads anything."""
SNIFFED_BYTES = 1_000_000


class ScaffoldError(Exception):
    """A model that cannot be added or removed; the message names the thing and the mend."""


@dataclass(frozen=True)
class RawTable:
    """A file's rows as text, and how it has to be read.

    Args:
        path: of the file.
        rows: text columns; a missing value of a Parquet file is missing, a blank of a CSV file is a blank.
        separator, encoding: of a CSV file.
        notes: what a person should know about the reading.
    """

    path: Path
    rows: pd.DataFrame
    separator: str = ","
    encoding: str = "utf-8"
    notes: list[str] = field(default_factory=list)

    @property
    def is_parquet(self) -> bool:
        """Whether it is a Parquet file."""
        return self.path.suffix.lower() in (".parquet", ".pq")


def read_table(path: Path) -> RawTable:
    """The table in a CSV or Parquet file.

    Raises :class:`ScaffoldError` for a file that is absent, empty or no table, and for two columns of one name.
    """
    if not path.is_file():
        raise ScaffoldError(f"{path}: no such file; give the path of a CSV or Parquet file as TABLE")
    if path.stat().st_size == 0:
        raise ScaffoldError(f"{path} is empty; give a file with a header line and rows")
    if path.suffix.lower() in (".xlsx", ".xls", ".json", ".jsonl", ".zip", ".gz"):
        raise ScaffoldError(f"{path}: {path.suffix} files are not read; save the table as CSV or Parquet")
    table = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)
    if table.rows.shape[1] < 2:
        raise ScaffoldError(
            f"{path} has one column ('{table.rows.columns[0]}'); a model needs a target and something to tell it by. "
            f"If the file has more, its separator is none of {' '.join(repr(s) for s in SEPARATORS)}"
        )
    if table.rows.empty:
        raise ScaffoldError(f"{path} has a header and no rows; give a file with rows")
    return table


def _read_parquet(path: Path) -> RawTable:
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ScaffoldError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    except pa.ArrowException as error:
        raise ScaffoldError(
            f"{path}: {str(error).splitlines()[0]}; rename the columns so that each name is once"
        ) from error
    _refuse_twice(path, list(map(str, frame.columns)))
    nested = [str(name) for name, values in frame.items() if values.map(lambda v: isinstance(v, (list, dict))).any()]
    if nested:
        raise ScaffoldError(f"{path}: the columns {', '.join(nested)} hold lists; flatten them first")
    return RawTable(path, frame.set_axis(list(map(str, frame.columns)), axis=1).astype("string[pyarrow]"))


def _read_csv(path: Path) -> RawTable:
    encoding, notes = _encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(SNIFFED_BYTES)
    lines = [line for line in head.splitlines() if line.strip()]
    if not lines:
        raise ScaffoldError(f"{path} holds blank lines only; give a file with a header line and rows")
    separator = _separator(lines)
    if separator != ",":
        notes.append(f"the columns are separated by {separator!r}")
    header = next(csv.reader([lines[0]], delimiter=separator))
    _refuse_twice(path, header)
    try:
        rows = pd.read_csv(path, sep=separator, encoding=encoding, dtype="string[pyarrow]", keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ScaffoldError(f"{path}: not a readable CSV ({str(error).strip()}); mend the line it names") from error
    if isinstance(rows.index, pd.MultiIndex) or not isinstance(rows.index, pd.RangeIndex):
        raise ScaffoldError(f"{path}: its rows have more fields than its header; mend the header line")
    return RawTable(path, rows, separator, encoding, notes)


def _encoding(path: Path) -> tuple[str, list[str]]:
    content = path.read_bytes()
    if b"\x00" in content[:SNIFFED_BYTES]:
        raise ScaffoldError(f"{path} is not text; save the table as CSV (UTF-8) or Parquet")
    if content.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig", []
    for encoding in ENCODINGS:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding, [] if encoding == "utf-8" else [f"the text is {encoding}, not UTF-8"]
    raise AssertionError("latin-1 reads anything")


def _separator(lines: list[str]) -> str:
    """The one that splits the first lines into the same number of fields, and most of them."""
    best, most = ",", 1
    for separator in SEPARATORS:
        fields = [len(row) for row in csv.reader(lines[:50], delimiter=separator)]
        if fields and min(fields) == max(fields) and fields[0] > most:
            best, most = separator, fields[0]
    if most == 1:  # ragged lines: go by the header
        return max(SEPARATORS, key=lines[0].count)
    return best


def _refuse_twice(path: Path, header: list[str]) -> None:
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise ScaffoldError(f"{path}: two columns are named '{twice[0]}'; rename one of them in the file")
