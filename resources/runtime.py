"""What a training depends on besides rows and code: the locked packages, Python, the processor and its threads.

Belongs here: reading and comparing these facts, and their hash. Does not belong here: the commit (``git.py``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resources.settings import project_root

RUNTIME = "runtime.json"
"""File in the folder of a version with these facts."""

LOCK = "lock"
"""Tag of a version with the hash of these facts."""

PACKAGES = (
    "torch", "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "xgboost-cpu", "tabm", "rtdl_num_embeddings",
    "optuna", "dagster", "mlflow",
)  # fmt: skip
"""Packages whose version may change the rows or the weights of a training."""


@dataclass(frozen=True)
class Runtime:
    """The facts of one process.

    Args:
        constraints: SHA-256 of ``constraints.txt`` in hex; empty if there is none.
        packages: installed version by package; empty text for one that is not installed.
        python: version of Python.
        machine: architecture of the processor, e.g. ``x86_64``.
        cpu: instructions that torch uses, e.g. ``AVX512``.
        threads: number of threads of torch.
    """

    constraints: str
    packages: Mapping[str, str]
    python: str
    machine: str
    cpu: str
    threads: int

    @classmethod
    def now(cls, root: Path | None = None) -> Runtime:
        """The facts of this process, with the ``constraints.txt`` of ``root`` (default: this project)."""
        import torch

        constraints = (root or project_root()) / "constraints.txt"
        return cls(
            constraints=hashlib.sha256(constraints.read_bytes()).hexdigest() if constraints.exists() else "",
            packages={name: _version(name) for name in PACKAGES},
            python=platform.python_version(),
            machine=platform.machine(),
            cpu=torch.backends.cpu.get_cpu_capability(),
            threads=torch.get_num_threads(),
        )

    @property
    def lock(self) -> str:
        """Hash of all facts, 16 hex digits."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=8).hexdigest()

    def save(self, directory: Path) -> None:
        """Writes the facts to the folder of a version."""
        (directory / RUNTIME).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Runtime | None:
        """Reads the facts; ``None`` for a version that was trained before they were recorded.

        Raises :class:`ValueError` or :class:`TypeError` if the file is damaged.
        """
        path = directory / RUNTIME
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def differences(self, other: Runtime) -> list[str]:
        """Returns what differs in ``other``, a phrase each, e.g. ``torch 2.9.0, now 2.9.1``."""
        mine, theirs = self._flat(), other._flat()
        return [
            f"{name} {mine.get(name) or 'not installed'}, now {theirs.get(name) or 'not installed'}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def _flat(self) -> dict[str, Any]:
        facts = asdict(self)
        packages = facts.pop("packages")
        return {**facts, "constraints": self.constraints[:10], **packages}


def threads_variables(threads: int) -> dict[str, str]:
    """Variables that give the numerical libraries of a new process this number of threads."""
    return {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
