"""MLflow's artifacts at rest: MLflow writes and reads files as before, and what lies in the folder is sealed.

MLflow finds the class that stores artifacts by the scheme of their address, and lets packages register classes of their
own. This one is registered for folders of this machine (no scheme, and ``file:``) in every process that imports it, and
by the entry point ``mlflow.artifact_repository`` in MLflow's own processes, such as its UI.

With the setting ``encrypt``, new files are sealed by the key of the purpose ``artifacts``. Sealed and plain files are
read, so addresses stay, and existing experiments go on.

Belongs here: that class. Does not belong here: the format (``sealed.py``), copies in the clear for who reads a file
(``clear.py``), and runs and versions (``mlflow.py``).
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from resources.encryption import in_use
from resources.encryption.clear import file_is_sealed, in_the_clear, seal_file, unseal_file


class SealedArtifacts(LocalArtifactRepository):
    """Artifacts in a folder of this machine, sealed or plain."""

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Stores one file; see MLflow."""
        with self._stored(Path(local_file)) as file:
            super().log_artifact(str(file), artifact_path)

    def log_artifact_from_stream(self, stream: Any, artifact_file_name: str, artifact_path: str | None = None) -> None:
        """Stores what is uploaded to MLflow's server; see MLflow."""
        if in_use.encrypts():
            out = io.BytesIO()
            seal_file(stream, out, Path(artifact_file_name))
            stream = io.BytesIO(out.getvalue())
        super().log_artifact_from_stream(stream, artifact_file_name, artifact_path)

    async def log_artifact_from_async_stream(
        self, chunks: Any, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """As :meth:`log_artifact_from_stream`."""
        if not in_use.encrypts():
            await super().log_artifact_from_async_stream(chunks, artifact_file_name, artifact_path)
            return
        self.log_artifact_from_stream(
            io.BytesIO(b"".join([chunk async for chunk in chunks])), artifact_file_name, artifact_path
        )

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Stores the files of a folder; see MLflow. Plain files do not lie in the artifacts at any time."""
        if not in_use.encrypts():
            super().log_artifacts(local_dir, artifact_path)
            return
        source = Path(local_dir)
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if path.is_file():
                folder = "/".join([*([artifact_path] if artifact_path else []), *inside.parent.parts])
                self.log_artifact(str(path), folder or None)
            elif path.is_dir():
                self._get_or_create_artifact_dir("/".join([*([artifact_path] if artifact_path else []), *inside.parts]))

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """The path of a file or folder in the clear: the stored one if nothing in it is sealed, else a copy."""
        if dst_path:
            return str(super().download_artifacts(artifact_path, dst_path))
        return str(in_the_clear(Path(self.get_local_path(artifact_path))))

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        stored = Path(self.get_local_path(remote_file_path))
        if file_is_sealed(stored):
            unseal_file(stored, Path(local_path))
        else:
            super()._download_file(remote_file_path, local_path)

    @contextlib.contextmanager
    def _stored(self, file: Path) -> Iterator[Path]:
        """The file as it is to be stored."""
        if not in_use.encrypts():
            yield file
            return
        with tempfile.TemporaryDirectory(prefix="assetline-sealing-") as folder:
            sealed = Path(folder) / file.name
            with file.open("rb") as source, sealed.open("wb") as out:
                seal_file(source, out, file)
            shutil.copystat(file, sealed)
            yield sealed


def register() -> None:
    """Makes MLflow use this class in this process."""
    for scheme in ("", "file"):
        _artifact_repository_registry.register(scheme, SealedArtifacts)


register()
