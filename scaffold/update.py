"""`assetline update`: merges a newer template into a fork with its own models, as a three-way git merge.

Belongs here: which paths take part, the merge, and its report. Does not belong here: what a fork is (see
``docs/fork.md``).

The merge base is the template's commit of the fork's last update. The fork's own model folders take no part: those that
the template does not have, those that the fork changed, and those that it removed. Everything else is merged like a
branch, including renames, modes and binary files.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

MARK = ".template"
"""File that stores the template's location and the template commit that the fork has."""
OLDEST_GIT = (2, 38)
FOLDERS = ("assets/models", "tests/assets/models")
"""Folders in which each model has a folder of its own."""


class UpdateError(Exception):
    """An update cannot begin; nothing was changed, and the message says what to do."""


@dataclass(frozen=True)
class Updated:
    """Result of an update.

    Args:
        base, new: commits of the template: the one the fork had, and the one it has now.
        left_alone: paths that took no part, with the reason.
        conflicts: files that now hold conflict markers; empty if the update was committed.
    """

    base: str
    new: str
    left_alone: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def update(root: Path, source: str = "", ref: str = "main", base: str = "") -> Updated:
    """Merges the template's changes since ``base`` into the fork at ``root``.

    Args:
        root: root of the fork's work tree.
        source: address or path of the template's repository; default: the one in :data:`MARK`.
        ref: branch, tag or commit of the template.
        base: the template's commit that the fork was made from, if neither :data:`MARK` nor the history has it.

    Raises:
        UpdateError: the work tree has changes, the template cannot be read, or the base is unknown.
    """
    git = _Git(root)
    git.refuse_old()
    if changed := git.run("status", "--porcelain", "--untracked-files=no").rstrip():
        files = ", ".join(line[3:] for line in changed.splitlines()[:5])
        raise UpdateError(f"the work tree has changes ({files}); commit or stash them first")
    marked = _marked(root)
    source = source or marked.get("source", "")
    if not source:
        raise UpdateError("the template's location is not known yet; give it once: make update FROM=<address or path>")
    git.run("fetch", "--quiet", "--no-tags", source, ref, why=f"the template cannot be fetched from {source} ({ref})")
    new = git.run("rev-parse", "FETCH_HEAD").strip()
    base = _base(git, base or marked.get("commit", ""), new)
    if base == new:
        return Updated(base, new)
    left_alone = _left_alone(git, base, new)
    theirs = _without(git, new, base, list(left_alone))
    tree, conflicts = _merge(git, base, theirs)
    tree = _with_mark(git, tree, source, new)
    git.run("read-tree", "-m", "-u", "HEAD", tree, why="untracked files are in the way")
    if not conflicts:
        git.run("commit", "--quiet", "--no-verify", "-m", f"Template {base[:10]}..{new[:10]}")
    return Updated(base, new, left_alone, conflicts)


@dataclass(frozen=True)
class _Git:
    root: Path

    def run(self, *arguments: str, why: str = "", index: str = "", stdin: str = "") -> str:
        """Returns a git command's output.

        Raises:
            UpdateError: the command failed; the message begins with ``why``.
        """
        ran = self.ran(*arguments, index=index, stdin=stdin)
        if ran.returncode:
            lines = (ran.stderr or ran.stdout).strip().splitlines()
            raise UpdateError(f"{why or 'git ' + arguments[0] + ' failed'}: {' '.join(lines[:3])}")
        return ran.stdout

    def ran(self, *arguments: str, index: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Returns a finished git command, whether it succeeded or failed."""
        environment = {**os.environ, **({"GIT_INDEX_FILE": index} if index else {})}
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=environment)

    def refuse_old(self) -> None:
        """Checks the git version and the repository.

        Raises:
            UpdateError: git is too old to merge trees, or there is no repository with a commit.
        """
        found = re.search(r"(\d+)\.(\d+)", self.run("--version"))
        if found is None or (int(found[1]), int(found[2])) < OLDEST_GIT:
            raise UpdateError(f"this needs git {OLDEST_GIT[0]}.{OLDEST_GIT[1]} or newer")
        self.run("rev-parse", "--verify", "--quiet", "HEAD", why=f"{self.root} is not a git repository with a commit")

    def files(self, commit: str, folder: str) -> set[str]:
        """Returns the paths of a commit's files below a folder."""
        return set(self.run("ls-tree", "-r", "--name-only", commit, f"{folder}/").splitlines())


def _marked(root: Path) -> dict[str, str]:
    path = root / MARK
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _base(git: _Git, given: str, new: str) -> str:
    if given:
        found = git.ran("rev-parse", "--verify", "--quiet", f"{given}^{{commit}}")
        if found.returncode:
            raise UpdateError(f"the template has no commit {given}; give another BASE, or a REF that contains it")
        return found.stdout.strip()
    common = git.ran("merge-base", "HEAD", new)
    if common.returncode:
        raise UpdateError(
            "the fork and the template share no history; give once the template commit that the fork was made from: "
            "make update FROM=<address or path> BASE=<commit>"
        )
    return common.stdout.strip()


def _left_alone(git: _Git, base: str, new: str) -> dict[str, str]:
    """Returns the paths that take no part, with the reason.

    These are the fork's own model folders, and files that the fork removed.
    """
    found: dict[str, str] = {}
    was, is_, mine = (git.files(commit, FOLDERS[0]) for commit in (base, new, "HEAD"))
    for name in sorted({path.split("/")[2] for path in was | is_ if path.count("/") > 2}):
        inside = f"{FOLDERS[0]}/{name}/"
        before, here = (any(path.startswith(inside) for path in paths) for paths in (was, mine))
        if before and not here:
            why = "the fork removed it"
        elif here and not before:
            why = "the fork has a model of this name"
        elif here and git.ran("diff", "--quiet", base, "HEAD", "--", inside).returncode:
            why = "the fork changed it"
        else:
            continue
        found |= {f"{folder}/{name}": why for folder in FOLDERS}
    gone = git.run("diff", "--name-only", "--no-renames", "--diff-filter=D", base, "HEAD").splitlines()
    moved = git.run("diff", "--name-status", "-M", "--diff-filter=R", base, "HEAD").splitlines()
    renamed = {line.split("\t")[1] for line in moved}
    for path in gone:
        if path not in renamed and not any(path.startswith(f"{folder}/") for folder in found):
            found[path] = "the fork removed it"
    return {path: why for path, why in found.items() if git.run("diff", "--name-only", base, new, "--", path)}


def _without(git: _Git, new: str, base: str, paths: list[str]) -> str:
    """Returns a commit equal to ``new``, except that ``paths`` are as in ``base``; the merge then keeps the fork's."""
    with tempfile.TemporaryDirectory() as scratch:
        index = str(Path(scratch) / "index")
        git.run("read-tree", new, index=index)
        if paths:
            listed = git.run("ls-files", "-z", "--", *paths, index=index)
            git.run("update-index", "-z", "--force-remove", "--stdin", index=index, stdin=listed)
            entries = git.run("ls-tree", "-r", "-z", base, "--", *paths)
            git.run("update-index", "-z", "--index-info", index=index, stdin=entries)
        tree = git.run("write-tree", index=index).strip()
    return _commit(git, tree, base)


def _commit(git: _Git, tree: str, base: str) -> str:
    """Creates a commit on ``base`` that is on no branch."""
    who = ["-c", "user.name=template", "-c", "user.email=template@localhost"]
    return git.run(*who, "commit-tree", tree, "-p", base, "-m", "template").strip()


def _merge(git: _Git, base: str, theirs: str) -> tuple[str, list[str]]:
    """Returns the merged tree, and its files that hold conflict markers."""
    # Both commits are made on `base`, so it is the merge base regardless of the histories of fork and template.
    ours = _commit(git, "HEAD^{tree}", base)
    ran = git.ran("merge-tree", "--write-tree", "--name-only", "--no-messages", ours, theirs)
    if ran.returncode not in (0, 1):
        raise UpdateError(f"git cannot merge the template: {ran.stderr.strip()}")
    tree, *conflicts = ran.stdout.split("\n")
    return tree, sorted({path for path in conflicts if path})


def _with_mark(git: _Git, tree: str, source: str, commit: str) -> str:
    text = (
        "# The template's location and the template commit that this project has: `make update` reads and writes it.\n"
        f'source = "{source}"\ncommit = "{commit}"\n'
    )
    blob = git.run("hash-object", "-w", "--stdin", stdin=text).strip()
    with tempfile.TemporaryDirectory() as scratch:
        index = str(Path(scratch) / "index")
        git.run("read-tree", tree, index=index)
        git.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{MARK}", index=index)
        return git.run("write-tree", index=index).strip()


def format_update(done: Updated) -> str:
    """Returns the report of an update as text for a terminal."""
    if done.base == done.new:
        return f"Nothing to do: this is the template at {done.new[:10]}."
    lines = [f"{path}: left alone, {why}" for path, why in sorted(done.left_alone.items())]
    if done.conflicts:
        lines += [
            f"Template {done.base[:10]}..{done.new[:10]}: {len(done.conflicts)} files conflict and contain markers:",
            *(f"  {path}" for path in done.conflicts),
            "Fix them, then: git add -A && git commit.    Or undo the update: git reset --hard",
        ]
    else:
        lines.append(
            f"Template {done.base[:10]}..{done.new[:10]}: merged and committed. Next: make install && make test"
        )
    return "\n".join(lines)
