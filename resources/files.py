"""Reads CSV files in any declared form, JSON lines, Excel workbooks and Parquet files as text columns.

Belongs here: converting a file with a declared form to text columns. Does not belong here: detecting that form
(``scaffold/tables.py``), parsing the text (``assets/reading.py``), which files are read and when (``sources/``).
"""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pandas as pd

TEXT = pd.StringDtype("pyarrow")
FOOT_LINES = 10
"""Number of rows at the end of a file that may be footer lines."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")
"""Suffixes of compressed files, which are unpacked when they are read."""
PARQUET = (".parquet", ".pq")
Kind = Literal["csv", "json lines", "parquet", "excel"]
KINDS: dict[str, Kind] = {
    **dict.fromkeys(PARQUET, "parquet"), **dict.fromkeys((".jsonl", ".ndjson"), "json lines"),
    **dict.fromkeys((".xlsx", ".xlsm"), "excel"),
}  # fmt: skip
"""Kinds of file by suffix; a file with any other suffix is read as CSV."""
OTHERS = {
    ".json": "write one object per line and name the file .jsonl",
    ".xls": "save the workbook as .xlsx",
    ".ods": "save the sheet as .xlsx or CSV",
    ".feather": "save the table as Parquet",
    ".arrow": "save the table as Parquet",
    ".7z": "unpack it, or pack it as .gz or .zip",
    ".rar": "unpack it, or pack it as .gz or .zip",
}
"""Suffixes of files that are not read, and what to do instead."""
TABS = (".tsv", ".tab")
"""Suffixes of CSV files whose separator is a tab."""
_NAMELESS = "Unnamed: "


class FileError(Exception):
    """A file cannot be read. The message gives the reason and the fix, without the file's name."""


class IncompleteError(FileError):
    """The end of a file is missing, as while it is being written."""


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


def kind_of(name: str) -> Kind:
    """The kind of a file by its name; the suffix of a compression does not count."""
    return KINDS.get(_suffix(name), "csv")


def separator_of(name: str) -> str:
    """The separator that the name of a CSV file promises."""
    return "\t" if _suffix(name) in TABS else ","


def read_rows(path: Path, form: CsvForm, sheet: str = "") -> pd.DataFrame:
    """Reads a file of any kind (:func:`kind_of`) as text columns.

    Args:
        path: path of the file; its name decides how it is read.
        form: form of a CSV file. Its header and foot apply to a workbook too, its encoding to JSON lines too.
        sheet: name of the sheet of a workbook; empty for the only one with cells.

    Raises:
        FileError: the file cannot be read. :class:`IncompleteError`: its end is missing.
        FileNotFoundError: the file does not exist.
    """
    if (mend := OTHERS.get(_suffix(path.name))) is not None:
        raise FileError(f"{_suffix(path.name)} files are not read; {mend}")
    match kind_of(path.name):
        case "parquet":
            return read_parquet(path)
        case "json lines":
            return read_json_lines(path, form.encoding)
        case "excel":
            return read_excel(path, form, sheet)
    return read_csv(path, form)


def ends_with_a_line(path: Path) -> bool:
    """Whether the last character of a text file is a line end, in any encoding."""
    end = _last(path, min(path.stat().st_size, 4)).rstrip(b"\x00")  # UTF-16 and UTF-32 fill up with zero bytes
    return end.endswith((b"\n", b"\r"))


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
        case ".zst":
            return _zstandard(path)
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
    return _read_csv(lambda: _lines(path, form), form, path)


def _read_csv(opened: Callable[[], IO[str]], form: CsvForm, path: Path) -> pd.DataFrame:
    try:
        names, lines, width = _header(opened, form)
        with opened() as file:
            for _ in range(lines):
                file.readline()
            nameless = [f"{_NAMELESS}{i}" for i in range(len(names), width)]
            rows = pd.read_csv(
                file, sep=form.separator, header=None, names=names + nameless, dtype=TEXT, keep_default_na=False,
                index_col=False,
            )  # fmt: skip
    except _UNREADABLE as error:
        raise _named(error, path, form.encoding) from error
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

    packed = path.suffix.lower() in COMPRESSED
    try:
        content = io.BytesIO(open_bytes(path).read()) if packed else path
        if not packed and (path.stat().st_size < 12 or (_first(path, 4) == b"PAR1" and _last(path, 4) != b"PAR1")):
            raise IncompleteError("it has no footer")
        # Nullable types keep whole numbers whole in columns with missing values.
        frame = pd.read_parquet(content, dtype_backend="numpy_nullable")
    except FileNotFoundError:
        raise
    except EOFError as error:
        raise IncompleteError(f"it cannot be unpacked ({error})") from error
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


def read_json_lines(path: Path, encoding: str = "utf-8") -> pd.DataFrame:
    """Reads a file with a JSON object in each line as text columns (:func:`rows_of_records`).

    Raises:
        FileError: a line is not a JSON object, wrong encoding, or damaged compression. :class:`IncompleteError`: the
            last line ends in the middle of an object.
        FileNotFoundError: the file does not exist.
    """
    records = []
    line = ""
    number = 0
    try:
        with io.TextIOWrapper(open_bytes(path), encoding=encoding) as file:
            for line in file:
                number += 1
                if line.strip():
                    records.append(parse_json(line.lstrip("\ufeff")))
    except json.JSONDecodeError as error:
        if not line.endswith("\n"):
            raise IncompleteError(f"its last line ({number}) ends in the middle of an object") from error
        raise FileError(f"line {number} is not JSON ({error.msg})") from error
    except _UNREADABLE as error:
        raise _named(error, path, encoding) from error
    return rows_of_records(records)


class _Number(str):
    """A number as it is written in JSON, so that no digit is lost."""

    __slots__ = ()


def parse_json(text: str | bytes) -> Any:
    """Parses JSON; numbers are kept as they are written. Raises ``json.JSONDecodeError``."""
    constants = {"NaN": None, "Infinity": _Number("inf"), "-Infinity": _Number("-inf")}
    return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=constants.__getitem__)


def rows_of_records(records: Iterable[Any]) -> pd.DataFrame:
    """Records of :func:`parse_json` as text columns, in order of first appearance.

    Nested objects become columns ``outer.inner``, lists stay JSON. Numbers stay as they are written; ``true`` and
    ``false`` become ``True`` and ``False``, as in a Parquet file. ``null`` and absent values are missing.

    Raises:
        FileError: a record is not an object, or has the same column twice after its nested objects are flattened.
    """
    flat: list[dict[str, str | None]] = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise FileError(f"record {number} is not an object ({_json(record)[:60]})")
        flat.append(dict(_flattened(record, number)))
    names = dict.fromkeys(name for record in flat for name in record)
    filled = {name for record in flat for name, text in record.items() if text is not None}
    # A nested object that is null in some records leaves no column of its own.
    outer = {name for name in names if name not in filled and any(other.startswith(f"{name}.") for other in names)}
    names = {name: None for name in names if name not in outer}
    return pd.DataFrame({name: pd.array([record.get(name) for record in flat], dtype=TEXT) for name in names})


def with_columns(rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The rows with these columns too; the values of those that they lack are missing."""
    lacking = {name: pd.array([None] * len(rows), dtype=TEXT) for name in names if name not in rows}
    return rows.assign(**lacking)


def read_excel(path: Path, form: CsvForm, sheet: str = "") -> pd.DataFrame:
    """Reads a sheet of a workbook as text columns, by the same rules as :func:`read_csv`.

    A number keeps the 15 digits that Excel has, and leading zeros if its format is ``00000``. Times are ISO 8601, of a
    date without a time only the date; durations are in seconds.

    Args:
        path: path of the ``.xlsx`` file.
        form: header (number of the row, from 1) and foot.
        sheet: name of the sheet; empty for the only one with cells.

    Raises:
        FileError: not a workbook, no such sheet, several sheets to choose from, or a formula without a stored result.
        FileNotFoundError: the file does not exist.
    """
    cells = excel_cells(path, sheet)[form.header - 1 :]
    if not cells:
        raise FileError(f"it has fewer than {form.header} rows, but its header is declared as row {form.header}")
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    plain = replace(form, separator=",", encoding="utf-8", header=1)
    return _read_csv(lambda: io.StringIO(text.getvalue(), newline=""), plain, path)


def excel_cells(path: Path, sheet: str = "") -> list[list[str]]:
    """The cells of a sheet as text, row by row; errors as :func:`read_excel`."""
    try:
        import openpyxl
    except ImportError as error:
        raise FileError("workbooks need another package: pip install 'assetline[files]'") from error
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        content = open_bytes(path).read()
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except (InvalidFileException, KeyError, ValueError) as error:
        raise FileError(f"not a readable workbook ({error})") from error
    except _UNREADABLE as error:
        raise _named(error, path, "utf-8") from error
    sheets = {one.title: one for one in book.worksheets}
    if sheet and sheet not in sheets:
        raise FileError(f"it has no sheet '{sheet}'; its sheets are: {', '.join(sheets)}")
    chosen = [sheet] if sheet else [
        name for name, one in sheets.items()
        if one.sheet_state == "visible" and any(c.value is not None for row in one.iter_rows() for c in row)
    ]  # fmt: skip
    if not chosen:
        raise FileError("no sheet of it has a cell")
    if len(chosen) > 1:
        raise FileError(f"it has several sheets ({', '.join(chosen)}); name one")
    rows = [[_excel_text(cell) for cell in row] for row in sheets[chosen[0]].iter_rows()]
    formulas = openpyxl.load_workbook(io.BytesIO(content), read_only=True)[chosen[0]]
    for filled, row in zip(rows, formulas.iter_rows(), strict=True):
        for text, cell in zip(filled, row, strict=False):
            if not text and cell.data_type == "f":
                raise FileError(
                    f"the formula in {cell.coordinate} has no stored result; open the workbook in a spreadsheet "
                    "program and save it"
                )
    return rows


def _excel_text(cell: Any) -> str:
    value, shape = cell.value, str(getattr(cell, "number_format", ""))
    match value:
        case None:
            return ""
        case bool():
            return str(value)
        case dt.datetime():
            is_day = value.time() == dt.time() and not re.search(r"[hs]", shape, re.IGNORECASE)
            return str(value.date()) if is_day else value.isoformat(sep=" ")
        case dt.timedelta():
            return str(value.total_seconds())
        case int() | float():
            plain = str(value) if isinstance(value, int) else repr(float(f"{value:.15g}")).removesuffix(".0")
            return plain.zfill(len(shape)) if re.fullmatch("00+", shape) else plain
    return str(value)


def _flattened(record: Mapping[str, Any], number: int, prefix: str = "") -> Iterable[tuple[str, str | None]]:
    seen: set[str] = set()
    for name, value in record.items():
        inner: Iterable[tuple[str, str | None]] = [(prefix + name, None)]
        if isinstance(value, dict) and value:
            inner = _flattened(value, number, f"{prefix}{name}.")
        elif value is not None and value != {}:
            inner = [(prefix + name, str(value) if isinstance(value, (str, bool)) else _json(value))]
        for column, text in inner:
            if column in seen:
                raise FileError(f"record {number} has the column '{column}' twice after its objects are flattened")
            seen.add(column)
            yield column, text


def _json(value: Any) -> str:
    match value:
        case _Number():
            return str(value)
        case list():
            return f"[{', '.join(map(_json, value))}]"
        case dict():
            return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {_json(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


_UNREADABLE = (UnicodeError, LookupError, EOFError, lzma.LZMAError, zipfile.BadZipFile, OSError)
"""What is raised by text of another encoding, an unknown encoding, and damaged compression."""


def _named(error: Exception, path: Path, encoding: str) -> Exception:
    """What to raise for one of ``_UNREADABLE``."""
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, UnicodeError):
        return FileError(f"not {encoding} text ({error})")
    if isinstance(error, LookupError):
        return FileError(f"Python does not know the encoding '{encoding}'")
    is_cut = (
        isinstance(error, EOFError)
        or (isinstance(error, OSError) and "Truncated" in str(error))  # Arrow's word for a cut Zstandard stream
        or (isinstance(error, zipfile.BadZipFile) and _first(path, 4) == b"PK\x03\x04")
    )
    return (IncompleteError if is_cut else FileError)(f"it cannot be unpacked ({error})")


def _suffix(name: str) -> str:
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix


def _first(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _last(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(-size, io.SEEK_END)
        return file.read()


def _zstandard(path: Path) -> IO[bytes]:
    import pyarrow as pa

    return cast("IO[bytes]", io.BufferedReader(pa.input_stream(str(path), compression="zstd")))


def _lines(path: Path, form: CsvForm) -> io.TextIOWrapper:
    # newline="" keeps line breaks inside quotes unchanged.
    return io.TextIOWrapper(open_bytes(path), encoding=form.encoding, newline="")


def _header(opened: Callable[[], IO[str]], form: CsvForm) -> tuple[list[str], int, int]:
    """Column names, the number of lines before the first row, and the larger field count of header and first row."""
    with opened() as file:
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
