"""Reads CSV files in any declared form, and Parquet files, as text columns.

Belongs here: converting a file with a declared form to text columns. Does not belong here: detecting that form
(``scaffold/tables.py``), parsing the text (``assets/reading.py``), when a file is read (``sources.py``).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd

TEXT = pd.StringDtype("pyarrow")
FOOT_LINES = 10
"""Number of rows at the end of a file that may be footer lines."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
"""Suffixes of compressed files, which are unpacked when they are read."""
PARQUET = (".parquet", ".pq")
_NAMELESS = "Unnamed: "


class FileError(Exception):
    """A file cannot be read. The message gives the reason and the fix, without the file's name."""


@dataclass(frozen=True)
class CsvForm:
    """The form of a CSV file.

    Args:
        separator: column separator.
        encoding: Python's name of the text encoding.
        header: number of the line with the column names, counted from 1. The lines above it are skipped.
        foot: prefixes, such as ``Total``, that mark a footer line by its first filled cell. Only lines at the end of
            the file are footer lines.
    """

    separator: str = ","
    encoding: str = "utf-8"
    header: int = 1
    foot: Sequence[str] = ()


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, judged by its suffix."""
    return path.suffix.lower() in PARQUET


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file, unpacked if it is compressed. Raises :class:`FileError` for a ZIP without exactly one file."""
    match path.suffix.lower():
        case ".gz":
            return cast("IO[bytes]", gzip.GzipFile(path))
        case ".bz2":
            return bz2.BZ2File(path)
        case ".xz":
            return lzma.LZMAFile(path)
        case ".zip":
            return _only_member(path)
    return path.open("rb")


def read_csv(path: Path, form: CsvForm) -> pd.DataFrame:
    """Reads the rows as text columns. Blanks stay blank; fields that a short line lacks are blank too.

    Empty lines and lines that repeat the header are dropped. A column without a name is dropped if it is entirely
    blank, and is named ``Unnamed: <position>`` otherwise.

    Raises:
        FileError: wrong encoding, lines with more fields than the header, an unclosed quote, no header line, or
            damaged compression.
        FileNotFoundError: the file does not exist.
    """
    try:
        names, lines, width = _header(path, form)
        with _lines(path, form) as file:
            for _ in range(lines):
                file.readline()
            nameless = [f"{_NAMELESS}{i}" for i in range(len(names), width)]
            rows = pd.read_csv(
                file, sep=form.separator, header=None, names=names + nameless, dtype=TEXT, keep_default_na=False,
                index_col=False,
            )  # fmt: skip
    except UnicodeError as error:
        raise FileError(f"not {form.encoding} text ({error})") from error
    except LookupError as error:
        raise FileError(f"Python does not know the encoding '{form.encoding}'") from error
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise FileError(f"it cannot be unpacked ({error})") from error
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=[*names, *nameless], dtype=TEXT)
    except pd.errors.ParserError as error:
        raise FileError(f"not a readable CSV ({_in_file_lines(str(error), lines)})") from error
    rows = rows[~_all_cells(rows, lambda name: "") & ~_all_cells(rows, str.strip)]
    for name in [name for name in rows if str(name).startswith(_NAMELESS)]:
        filled = rows[name].fillna("") != ""
        if not filled.any():
            rows = rows.drop(columns=name)
        elif name in nameless:
            raise FileError(f"its rows have more fields than its header (first in row {int(filled.argmax()) + 1})")
    return _without_foot(rows, form.foot).reset_index(drop=True)


def read_parquet(path: Path) -> pd.DataFrame:
    """Reads the rows as text columns. Missing values stay missing, a named index becomes a column, durations are in s.

    Raises:
        FileError: not a Parquet file, or columns with lists or structures.
        FileNotFoundError: the file does not exist.
    """
    import pyarrow as pa

    try:
        # Nullable types keep whole numbers whole in columns with missing values.
        frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"not a readable Parquet file ({str(error).splitlines()[0]})") from error
    named = [name for name in frame.index.names if name is not None]
    if named:
        frame = frame.reset_index()
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    nested = [str(name) for name, values in frame.items() if _is_nested(values)]
    if nested:
        raise FileError(f"the columns {', '.join(nested)} hold lists or structures; flatten them first")
    return pd.DataFrame({name: _as_text(values) for name, values in frame.items()}, index=frame.index)


def _lines(path: Path, form: CsvForm) -> io.TextIOWrapper:
    # newline="" keeps line breaks inside quotes unchanged.
    return io.TextIOWrapper(open_bytes(path), encoding=form.encoding, newline="")


def _header(path: Path, form: CsvForm) -> tuple[list[str], int, int]:
    """Column names, the number of lines before the first row, and the larger field count of header and first row."""
    with _lines(path, form) as file:
        for _ in range(form.header - 1):
            if not file.readline():
                raise FileError(
                    f"it has fewer than {form.header} lines, but its header is declared as line {form.header}"
                )
        reader = csv.reader(file, delimiter=form.separator)
        cells: list[str] = []
        try:
            for cells in reader:
                if cells:
                    break
            else:
                raise FileError("it has no header line")
            lines = form.header - 1 + reader.line_num
            first_row = next((row for row in reader if row), [])
        except csv.Error as error:
            raise FileError(f"not a readable CSV (line {form.header - 1 + reader.line_num}: {error})") from error
    names: list[str] = []
    for position, cell in enumerate(cells):
        name = base = cell if cell.strip() else f"{_NAMELESS}{position}"
        copies = 0
        while name in names:
            copies += 1
            name = f"{base}.{copies}"
        names.append(name)
    return names, lines, max(len(names), len(first_row))


def _all_cells(rows: pd.DataFrame, text: Callable[[str], str]) -> pd.Series:
    """Whether all cells of a row equal ``text(column)``, boolean ``[n]``."""
    left = rows
    for name in rows:
        left = left[left[name].fillna("").str.strip() == text(str(name))]
        if left.empty:
            break
    return pd.Series(rows.index.isin(left.index), index=rows.index)


def _without_foot(rows: pd.DataFrame, foot: Sequence[str]) -> pd.DataFrame:
    """Drops those of the last ``FOOT_LINES`` rows whose first filled cell starts with a prefix in ``foot``."""
    if not foot or rows.empty:
        return rows
    last = rows.tail(FOOT_LINES)
    return rows.drop(index=last.index[first_filled(last).str.startswith(tuple(foot))])


def first_filled(rows: pd.DataFrame) -> pd.Series:
    """The stripped text of each row's first filled cell, ``[n]``; empty if no cell is filled."""
    cells = rows.fillna("").itertuples(index=False)
    first_cells = [next((cell.strip() for cell in row if cell.strip()), "") for row in cells]
    return pd.Series(first_cells, index=rows.index, dtype=TEXT)


def _in_file_lines(message: str, lines: int) -> str:
    """Rewrites the line numbers in a pandas error, which count from the header, to line numbers of the file."""
    plain = message.replace("Error tokenizing data. C error: ", "").strip()
    return re.sub(r"\b(line|row) (\d+)", lambda found: f"{found[1]} {int(found[2]) + lines}", plain)


def _only_member(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    members = [m for m in archive.namelist() if not m.endswith("/") and not m.startswith("__MACOSX/")]
    if len(members) != 1:
        raise FileError(f"the archive holds {len(members)} files ({', '.join(members[:3])}); unpack it and choose one")
    return archive.open(members[0])


def _is_nested(values: pd.Series) -> bool:
    return values.dtype == object and bool(values.map(lambda v: isinstance(v, (list, dict, set, np.ndarray))).any())


def _as_text(values: pd.Series) -> pd.Series:
    if pd.api.types.is_timedelta64_dtype(values.dtype):
        values = values.dt.total_seconds()
    elif values.dtype == object and values.map(lambda v: isinstance(v, bytes)).any():
        values = values.map(lambda v: v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else v)
    return values.astype(TEXT)
