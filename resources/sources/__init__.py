"""Sources: the upstream systems that tables read their rows from; the ready-made ones by name."""

from resources.sources.base import Snapshot, Source, SourceError, SourceUnavailable, Stream, hidden
from resources.sources.files import Files, FilesByDay
from resources.sources.http_api import HttpApi, HttpApiByDay
from resources.sources.local_files import CsvFile, FileByDay, ParquetFile
from resources.sources.sql import SqlByDay, SqlTable

__all__ = [
    "CsvFile", "FileByDay", "Files", "FilesByDay", "HttpApi", "HttpApiByDay", "ParquetFile", "Snapshot", "Source",
    "SourceError", "SourceUnavailable", "SqlByDay", "SqlTable", "Stream", "hidden",
]  # fmt: skip
