"""Reads the table that TABLE names, wherever it is: one file here, files of a pattern, or files elsewhere.

Belongs here: what TABLE may be, and reading through the source that the declaration will have. Does not belong here:
the form of one file (``tables.py``), connecting and copying (``resources/sources/storage.py``).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from resources.files import kind_of, separator_of
from resources.sources import Files, SourceError
from resources.sources.files import any_day
from resources.sources.storage import PACKAGES, Storage
from scaffold.tables import Named, RawTable, ScaffoldError, SourceCall, path_in, read_table

_SECRET = re.compile(r"(?:^|[&_-])(?:access|api|auth|key|password|pw|sig|signature|secret|token)[^=&]*=", re.IGNORECASE)


def read_any_table(root: Path, table: str | Path, *, header: int = 0, named: Named = lambda cell: False) -> RawTable:
    """Reads the table of a path, a pattern or a URL.

    Args:
        root: root of the project.
        table: TABLE; ``#`` and the name of a sheet may follow a workbook.
        header, named: as in :func:`scaffold.tables.read_table`, whose errors it raises.
    """
    given, sheet = _without_sheet(str(table))
    declared = given
    if "://" not in given:
        path = Path(given)
        if kind_of(path.name) in ("csv", "parquet") and (path.exists() or not _is_pattern(given)):
            return read_table(path, header=header, named=named)
        given, declared = str(path.absolute()), path_in(root, path)
    _refuse_secrets(given)
    try:
        storage = Storage(given, {})
        pattern = any_day(storage.url)
        files = storage.find(pattern)
        if not files:
            raise ScaffoldError(f"{storage.shown}: {storage.missing()}; give the files of a table as TABLE")
        with storage.copied(files[0]) as copy:
            first = read_table(copy, header=header, named=named, sheet=sheet)
        form = _form(first, files[0].name, sheet)
        rows = Files(path=pattern, **form).read()
    except SourceError as error:
        raise ScaffoldError(str(error)) from error
    notes = [*first.notes, *([f"{len(files)} files make up the table"] if len(files) > 1 else [])]
    call = SourceCall("Files", {"path": declared, **form})
    return replace(first, path=Path(_name(given)), rows=rows, notes=notes, source=call)


def _form(table: RawTable, name: str, sheet: str) -> dict[str, Any]:
    """The arguments of :class:`Files` that are not as usual."""
    form = table.form
    given = {"separator": form.separator, "encoding": form.encoding, "header": form.header, "foot": list(form.foot)}
    usual = {"separator": separator_of(name), "encoding": "utf-8", "header": 1, "foot": []}
    return {
        **{what: value for what, value in given.items() if value != usual[what]},
        **({"sheet": sheet} if sheet else {}),
    }


def _name(given: str) -> str:
    """The last part of a pattern or URL that names something."""
    path = urlsplit(given).path if "://" in given else given
    plain = [unquote(part) for part in any_day(path).split("/") if part and not _is_pattern(part)]
    return plain[-1] if plain else "files"


def _without_sheet(given: str) -> tuple[str, str]:
    """TABLE without the name of a sheet after ``#``, and that name."""
    before, _, sheet = given.rpartition("#")
    return (before, sheet) if before and kind_of(before) == "excel" else (given, "")


def _is_pattern(given: str) -> bool:
    return any(sign in given for sign in "*?[") or "{day" in given


def _refuse_secrets(given: str) -> None:
    parts = urlsplit(given)
    if "://" in given and parts.scheme.lower() not in (*PACKAGES, "file"):
        known = ", ".join(f"{scheme}://" for scheme in sorted(PACKAGES))
        raise ScaffoldError(f"TABLE={parts.scheme}://…: there is no such storage; give a path or one of {known}")
    if parts.password or _SECRET.search(parts.query):
        raise ScaffoldError(
            f"TABLE={parts.scheme}://{parts.hostname}{parts.path}: a password or token in TABLE is shown to every "
            "user of this machine by `ps`; leave it out, write the model from a copy of the file, and give the "
            "source its options or token as dg.EnvVar(…)"
        )
