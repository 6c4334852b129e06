"""`assetline remove-model`: removes a model folder and the code that depends only on it.

The rest still loads and passes its tests.

Belongs here: finding what to remove, and removing it. Does not belong here: a model's data in the state folder; its
tables, versions and ledger are kept for audits.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from scaffold.tables import ScaffoldError

MAY_GO = ("story", "tests", "benchmarks", "docs")
"""Folders whose modules are removed with the model that they import; an import elsewhere blocks the removal."""
NOT_OURS = frozenset((".venv", "var", ".git", "node_modules", "build", "dist"))


def remove_model(root: Path, name: str, *, force: bool = False) -> list[Path]:
    """Removes ``assets/models/<name>/``, its tests, and every test, benchmark or script that imports it.

    Args:
        root: root of the project.
        name: name of the folder.
        force: whether to remove files that git cannot restore.

    Returns:
        The removed paths, relative to ``root``.

    Raises:
        ScaffoldError: the folder does not exist, other code imports it, or git cannot restore the files.
    """
    folder = root / "assets" / "models" / name
    if not (folder / "__init__.py").exists():
        there = sorted(path.parent.name for path in folder.parent.glob("*/__init__.py"))
        raise ScaffoldError(f"NAME={name}: there is no such model folder; there are: {', '.join(there) or 'none'}")
    going = _standing_on(root, f"assets.models.{name}")
    in_the_way = [path for path in going if path.relative_to(root).parts[0] not in MAY_GO]
    if in_the_way:
        raise ScaffoldError(f"{_listed(in_the_way, root)} imports assets/models/{name}; remove that import first")
    folders = [folder, *(p for p in [root / "tests" / "assets" / "models" / name] if p.exists())]
    files = [path for path in going if not any(path.is_relative_to(one) for one in folders)]
    if not force and (unsaved := _not_in_git(root, [*folders, *files])):
        raise ScaffoldError(
            f"git cannot restore {', '.join(unsaved[:3])}; commit first, or add FORCE=1 to remove permanently"
        )
    for one in folders:
        shutil.rmtree(one)
    for path in files:
        path.unlink()
    return [path.relative_to(root) for path in (*folders, *files)]


def _standing_on(root: Path, package: str) -> list[Path]:
    """Returns the modules outside the package that import it, directly or indirectly.

    They include the tests that use a fixture of a conftest that does.
    """
    modules = {path: _module_name(root, path) for path in _sources(root)}
    imports = {path: _imported_by(path) for path in modules}
    gone = {package}
    going: set[Path] = set()
    while True:
        more = {
            path
            for path, names in imports.items()
            if path not in going
            and not _within(modules[path], package)
            and (any(_within(name, one) for name in names for one in gone) or _under_a_gone_conftest(path, going))
        }
        if not more:
            return sorted(going)
        going |= more
        gone |= {modules[path] for path in more if path.name != "__init__.py"}


def _sources(root: Path) -> Iterable[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not NOT_OURS & set(parts) and not parts[0].startswith("."):
            yield path


def _module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _under_a_gone_conftest(path: Path, going: set[Path]) -> bool:
    """Returns whether a test uses a fixture of a conftest that is removed."""
    gone = {one for one in going if one.name == "conftest.py" and path.is_relative_to(one.parent)}
    if not gone or not path.name.startswith("test_"):
        return False
    own, used = _fixtures(path)
    return any(_fixtures(conftest)[0] & (used - own) for conftest in gone)


def _fixtures(path: Path) -> tuple[set[str], set[str]]:
    """Returns the names of the fixtures that a module defines, and the argument names of its functions."""
    defined, used = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            used |= {argument.arg for argument in node.args.args}
            if any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list):
                defined.add(node.name)
    return defined, used


def _not_in_git(root: Path, paths: Iterable[Path]) -> list[str]:
    """Returns the paths with uncommitted changes; outside a git repository, all paths.

    A file that is gone already, such as a test of two models whose other model was removed before, is in git.
    """
    command = ["git", "-C", str(root), "status", "--porcelain", "--", *map(str, paths)]
    try:
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return [str(path.relative_to(root)) for path in paths]
    return [line[3:] for line in output.splitlines() if line[:2].strip() != "D"]


def _listed(paths: Iterable[Path], root: Path) -> str:
    return ", ".join(str(path.relative_to(root)) for path in paths)
