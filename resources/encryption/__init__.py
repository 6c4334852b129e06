"""Encryption at rest, with the keys of ``resources/keys.py``.

- ``in_use.py``: whether this process encrypts, and its keys.
- ``parquet.py``: tables, by Parquet modular encryption.
- ``sealed.py``: any other file, in chunks: pages of reports, MLflow's artifacts, backups.
- ``clear.py``: copies of sealed files in the clear, for who needs a path.
- ``artifacts.py``: MLflow's artifacts, which MLflow reads and writes as before.
- ``rewriting.py``: bringing all files to the newest keys.

Does not belong here: where a table or an artifact is, and what it holds.
"""
