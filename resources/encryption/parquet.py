"""Tables at rest: Parquet modular encryption (AES-GCM), with one key for most columns and another for personal ones.

Belongs here: encrypting and opening one file. Does not belong here: where files are (``table_files.py``), stamps
(``tables.py``), and which columns are personal (the declaration of a model).

Each file has random data keys of its own, and its footer holds them, wrapped (RFC 3394) by the project's keys. The
footer itself is signed but readable. So the stamp of a file, its column names and its number of rows need no key, and a
file whose key is lost is not taken for a damaged or a missing one. Minima and maxima of columns are encrypted.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives import keywrap

from resources.keys import KeyProblem, KeyRing, Purpose

if TYPE_CHECKING:
    import pyarrow.dataset as ds

MARK = b"assetline.keys"
"""Metadata of an encrypted file: JSON with the fingerprint of the key of each purpose."""

PERSONAL = b"assetline.personal"
"""Metadata of an encrypted file: JSON with the names of its personal columns, if it has some."""

_ESCAPES = {"%": "%25", ",": "%2C", ";": "%3B", ":": "%3A"}
"""How an encrypted file names columns whose names have a character that Arrow's configuration uses as a delimiter."""


def encrypted(table: pa.Table, metadata: Mapping[bytes, str], ring: KeyRing, personal: Collection[str] = ()) -> bytes:
    """Rows as the bytes of an encrypted Parquet file.

    Args:
        table: the rows, with at least one column.
        metadata: what the readable footer says beside the schema.
        ring: the keys; the newest ones encrypt.
        personal: columns that need the key of the purpose ``personal``; others need ``tables``.

    Raises:
        MissingKeyError: a purpose that is needed has no key.
    """
    own = personal_among(table.column_names, personal)
    columns: dict[Purpose, list[str]] = {"tables": [name for name in table.column_names if name not in own]}
    if own:
        columns["personal"] = own
    used = {purpose: ring.newest(purpose).fingerprint for purpose in columns}
    keys = {_name_of(purpose, used[purpose]): [_stored(one) for one in of] for purpose, of in columns.items() if of}
    configuration = pe.EncryptionConfiguration(
        footer_key=_name_of("tables", used["tables"]), column_keys=keys, encryption_algorithm="AES_GCM_V1",
        plaintext_footer=True, double_wrapping=False, internal_key_material=True, data_key_length_bits=256,
    )  # fmt: skip
    properties = _factory(ring).file_encryption_properties(pe.KmsConnectionConfig(), configuration)
    table = table.rename_columns([_stored(name) for name in table.column_names])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", encryption_properties=properties) as writer:
        writer.write_table(table)
        said = {PERSONAL: json.dumps(own)} if own else {}
        writer.add_key_value_metadata({**metadata, MARK: json.dumps(used), **said})
    return sink.getvalue()


def personal_among(columns: Sequence[str], personal: Collection[str]) -> list[str]:
    """The columns that are personal, or features of a personal column by their name.

    ``x_age`` is the feature ``age`` of a training set, ``row_age`` the column ``age`` of a request. ``plan=basic``,
    ``born.month`` and ``notes#3`` are features of the columns before the sign.
    """
    names = set(personal)
    return [
        column
        for column in columns
        for inner in [re.sub("^(x_|row_)", "", column)]
        if names & {column, inner, re.split("[=.#]", inner, maxsplit=1)[0]}
    ]


def keys_of(metadata: pq.FileMetaData) -> dict[Purpose, str]:
    """The fingerprint of the key of each purpose that a file needs; empty if it is not encrypted."""
    said = json.loads((metadata.metadata or {}).get(MARK, b"{}"))
    return {purpose: str(said[purpose]) for purpose in get_args(Purpose) if purpose in said}


class Rows:
    """The rows of an open file, encrypted or plain; all names of columns are those of the table.

    Args:
        file: a file object that can seek.
        ring_of: the keys; called only if the file is encrypted.
    """

    def __init__(self, file: Any, ring_of: Callable[[], KeyRing]) -> None:
        self._file = pq.ParquetFile(file, pre_buffer=False)
        self.metadata: pq.FileMetaData = self._file.metadata
        self.keys = keys_of(self.metadata)
        self._one_by_one = False
        if self.keys:
            ring = ring_of()
            file.seek(0)
            self._file = pq.ParquetFile(file, pre_buffer=False, decryption_properties=properties(ring))
            # Whoever reads several columns at once is asked for the keys of the columns between them, too.
            own = self.keys.get("personal", "")
            self._one_by_one = bool(own) and own not in {key.fingerprint for key in ring.versions("personal")}

    @property
    def personal(self) -> list[str]:
        """The personal columns of an encrypted file; none if it has none or is not encrypted."""
        return personal_columns_of(self.metadata)

    def read(self, columns: Sequence[str] | None = None, *, use_threads: bool = True) -> pa.Table:
        """All rows, of some columns or of all."""
        if self._one_by_one and columns:
            return _beside([self._named(self._file.read(self._stored([one]), use_threads=False)) for one in columns])
        return self._named(self._file.read(self._stored(columns), use_threads=use_threads))

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in batches of at most ``rows``."""
        sets = [[one] for one in columns] if self._one_by_one and columns else [columns]
        for batches in zip(*(self._file.iter_batches(rows, columns=self._stored(one)) for one in sets), strict=True):
            yield _beside([self._named(pa.Table.from_batches([batch])) for batch in batches])

    def _stored(self, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        return [_stored(name) for name in columns] if self.keys else list(columns)

    def _named(self, table: pa.Table) -> pa.Table:
        return table.rename_columns([_shown(name) for name in table.column_names]) if self.keys else table


def _beside(parts: Sequence[pa.Table]) -> pa.Table:
    """Tables of the same rows as one, column after column."""
    if len(parts) == 1:
        return parts[0]
    schema = pa.schema([field for part in parts for field in part.schema])
    return pa.Table.from_arrays([column for part in parts for column in part.columns], schema=schema)


def differs(metadata: pq.FileMetaData, personal: Collection[str], ring: KeyRing | None) -> bool:
    """Whether a file is not encrypted by the newest keys (``ring=None``: whether it is encrypted at all).

    Args:
        metadata: its footer.
        personal: columns that should need the key of the purpose ``personal``.
        ring: the keys.
    """
    used, columns = keys_of(metadata), schema_of(metadata).names
    if not columns:
        return False
    if ring is None or not used:
        return (ring is None) == bool(used)
    if any(ring.newest(purpose).fingerprint != fingerprint for purpose, fingerprint in used.items()):
        return True
    return not set(personal_among(columns, personal)) <= set(personal_columns_of(metadata))


def schema_of(metadata: pq.FileMetaData) -> pa.Schema:
    """Names and types of the columns of a file, encrypted or plain."""
    schema = metadata.schema.to_arrow_schema().remove_metadata()
    if not keys_of(metadata):
        return schema
    return pa.schema([column.with_name(_shown(column.name)) for column in schema])


def properties(ring: KeyRing) -> Any:
    """What reads an encrypted file; a plain one is read as well. A key is looked up when its first column is read."""
    return _factory(ring).file_decryption_properties(pe.KmsConnectionConfig())


def dataset(paths: Collection[str], ring: KeyRing, schema: pa.Schema) -> ds.Dataset:
    """Files of this machine as one dataset, which reads only the columns that a query needs.

    Args:
        paths: the files; all encrypted, or all plain.
        ring: the keys.
        schema: the columns to offer, under the names that :func:`stored_names` gives for these files.
    """
    import pyarrow.dataset as ds

    configuration = ds.ParquetDecryptionConfig(_factory(ring), pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
    options = ds.ParquetFragmentScanOptions(decryption_config=configuration)
    return ds.dataset(list(paths), schema=schema, format=ds.ParquetFileFormat(default_fragment_scan_options=options))


def stored_names(schema: pa.Schema, *, is_encrypted: bool) -> pa.Schema:
    """The columns as files of a kind name them."""
    return pa.schema([one.with_name(_stored(one.name)) for one in schema]) if is_encrypted else schema


def personal_columns_of(metadata: pq.FileMetaData) -> list[str]:
    """The personal columns of an encrypted file; none if it has none or is not encrypted."""
    return [str(name) for name in json.loads((metadata.metadata or {}).get(PERSONAL, b"[]"))]


class _Wrapping(pe.KmsClient):
    """Wraps and unwraps the data keys of files by the keys of a ring."""

    def __init__(self, keys: KeyRing) -> None:
        super().__init__()
        self._keys = keys

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        """The data key of a file, wrapped, in hexadecimal."""
        return keywrap.aes_key_wrap(self._secret(master_key_identifier), key_bytes).hex()

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        """The data key. Raises :class:`~resources.keys.KeyProblem` if the key is missing or another one."""
        text = wrapped_key if isinstance(wrapped_key, str) else bytes(wrapped_key).decode()
        secret = self._secret(master_key_identifier)
        try:
            return keywrap.aes_key_unwrap(secret, bytes.fromhex(text))
        except (keywrap.InvalidUnwrap, ValueError) as error:
            raise KeyProblem(
                f"the key {master_key_identifier.replace('-', ' ')} does not open it, so its footer was altered; "
                "restore the file from a backup"
            ) from error

    def _secret(self, name: str) -> bytes:
        purpose, _, fingerprint = (name if isinstance(name, str) else bytes(name).decode()).partition("-")
        if purpose not in get_args(Purpose):
            raise KeyProblem(f"it was encrypted by another program, with the key {name!r}")
        return self._keys.key(purpose, fingerprint).secret  # type: ignore[arg-type]


def _stored(name: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in name)


def _shown(stored: str) -> str:
    for character, escape in reversed(_ESCAPES.items()):
        stored = stored.replace(escape, character)
    return stored


def _name_of(purpose: Purpose, fingerprint: str) -> str:
    return f"{purpose}-{fingerprint}"


@functools.lru_cache(maxsize=4)
def _factory(keys: KeyRing) -> pe.CryptoFactory:
    """Arrow's factory for a ring; it keeps its client for ten minutes, so a new ring needs a new one."""
    return pe.CryptoFactory(lambda _: _Wrapping(keys))
