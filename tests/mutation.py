"""`make mutate`: small faults are put into the modules that decide, one at a time; a test must fail for each.

    python -m tests.mutation [MODULE …]      e.g. assets/lifecycle/model/gate.py; default: all of TARGETS
    python -m tests.mutation --list [MODULE …]

Belongs here: what is mutated and how, and the page `docs/mutation.md`. Does not belong here: any test.

Each fault lives in a temporary copy of the project, so that processes which a test starts see it, too. A mutant is a
fork of this process, which has imported the libraries already: that is what makes two thousand of them take an hour and
not a day. A mutant is given those tests alone that ran its line. What no test notices is listed in the page with the
reason that a person wrote for it; a survivor without a reason ends the command with status 1.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutation.md"
BEGIN, END = "<!-- written by `make mutate`; the last column by hand -->", "<!-- end of what `make mutate` writes -->"
OURS = (
    "assets",
    "resources",
    "sensors",
    "serving",
    "story",
    "scaffold",
    "tests",
    "benchmarks",
    "definitions",
    "runner",
    "cli",
)


@dataclass(frozen=True)
class Target:
    """The tests of a module, and the part of it that decides (its functions and constants; default: all of it)."""

    tests: tuple[str, ...]
    only: tuple[str, ...] = ()


LIFECYCLE, T = "assets/lifecycle", "tests/assets/lifecycle"
TARGETS = {
    f"{LIFECYCLE}/model/gate.py": Target((f"{T}/model/test_gate.py", f"{T}/model/test_evaluation.py")),
    f"{LIFECYCLE}/model/training_set.py": Target(
        (f"{T}/model/test_training_set.py",),
        ("MIN_OF_EACH_CLASS", "training_set_asset", "_too_few", "_leakage", "freeze", "fold_rows", "fit_rows",
         "test_rows", "_held_out"),
    ),
    f"{LIFECYCLE}/model/trained_model.py": Target((f"{T}/model/test_trained_model.py",), ("trained_model_asset",)),
    f"{LIFECYCLE}/model/leakage.py": Target((f"{T}/model/test_leakage.py",)),
    f"{LIFECYCLE}/release/staging.py": Target((f"{T}/release/test_staging.py", f"{T}/release/test_deployment.py")),
    f"{LIFECYCLE}/release/deployment.py": Target((f"{T}/release/test_deployment.py",)),
    f"{LIFECYCLE}/monitoring/quality.py": Target(
        tuple(f"{T}/monitoring/test_{name}.py" for name in ("quality", "drift_rule_in_worlds", "drift"))
    ),
    f"{LIFECYCLE}/monitoring/drift_rule.py": Target(
        tuple(f"{T}/monitoring/test_{name}.py" for name in ("drift_rule", "drift_rule_in_worlds", "drift"))
    ),
    "resources/ledger.py": Target(
        ("tests/resources/test_ledger.py",), ("CHAMPION", "_TRIES", "Ledger", "_naive_utc")
    ),
    "resources/targets/local_service.py": Target(("tests/resources/targets/test_local_service.py",)),
    "resources/targets/throwaway.py": Target(("tests/resources/targets/test_local_service.py",)),
    f"{LIFECYCLE}/release/promotion.py": Target((f"{T}/release/test_promotion.py",)),
    "resources/alerts/store.py": Target(("tests/resources/alerts/test_store.py",)),
    "resources/alerts/outbox.py": Target(
        ("tests/resources/alerts/test_outbox.py", "tests/resources/alerts/test_delivery.py",
         "tests/resources/alerts/test_store.py")
    ),
    "sensors/alerts.py": Target(("tests/sensors/test_alerts.py",)),
    "sensors/retraining.py": Target(("tests/sensors/test_retraining.py",)),
    "sensors/drift.py": Target(("tests/sensors/test_drift.py",)),
    "sensors/runs.py": Target(("tests/sensors/test_runs.py",)),
}  # fmt: skip


# -- what is mutated -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One fault: the text between two offsets of a module's bytes, and what takes its place.

    ``lines``: of the statement it is in, of a compound statement its head.
    """

    where: str
    lines: range
    begin: int
    end: int
    text: str
    words: str

    def of(self, source: bytes) -> bytes:
        return source[: self.begin] + self.text.encode() + source[self.end :]


COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="), ast.LtE: ("<", ">"), ast.Gt: (">=", "<="), ast.GtE: (">", "<"), ast.Eq: ("!=",),
    ast.NotEq: ("==",), ast.In: ("not in",), ast.NotIn: ("in",), ast.Is: ("is not",), ast.IsNot: ("is",),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*",
    ast.BitOr: "&", ast.BitAnd: "|",
}  # fmt: skip
SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.BitOr: "|", ast.BitAnd: "&", ast.And: "and", ast.Or: "or",
}  # fmt: skip
LEFT_ALONE = (
    "description", "summary", "words", "reason", "help", "mend", "kinds", "stage",  # read by people
    "seed", "random_state", "default_rng",  # any draw is as good as another
    "strict",  # guards against a mistake of ours, not of the input
)  # fmt: skip
"""Arguments (and functions, of their arguments) that decide nothing."""
MOST_SHOWN = 88
"""Letters of a fault that the page shows before and after."""
NAME = re.compile(r"[a-z][a-z_]*")
"""Text that means something to code (``page``, ``promote``), not to a reader."""


class Mutants(ast.NodeVisitor):
    """Finds the faults of a module, in the order of its text."""

    def __init__(self, source: str, only: Sequence[str] = ()) -> None:
        self.bytes, self.only, self.found = source.encode(), only, []  # type: ignore[var-annotated]
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line.encode()))
        self._path: list[str] = []
        self._lines, self._above = range(0), []  # type: ignore[var-annotated]
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        """As ever, and notes the statement that is looked at."""
        before = self._lines
        self._above.append(node)
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
            self._lines = range(node.lineno, (last or node.lineno) + 1)
        super().visit(node)
        self._above.pop()
        self._lines = before

    # -- places

    def _span(self, node: Any) -> tuple[int, int]:
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: Any) -> str:
        begin, end = self._span(node)
        return self.bytes[begin:end].decode()

    def _add(self, node: Any, text: str, shown: Any = None, span: tuple[int, int] | None = None) -> None:
        """A fault in place of ``node``; ``shown``: what is shown of the code around it."""
        begin, end = span or self._span(node)
        shown = shown or self._around(node)
        before = _short(self._text(shown))
        around, after = self._span(shown)
        now = _short((self.bytes[around:begin] + text.encode() + self.bytes[end:after]).decode())
        where = ".".join(self._path) or "the module"
        self.found.append(Mutant(where, self._lines, begin, end, text, f"`{before}` → `{now}`"))

    def _around(self, node: ast.AST) -> ast.AST:
        """A piece of code that shows what a short one is part of."""
        for above in reversed(self._above):
            if isinstance(above, ast.expr | ast.keyword | ast.Assign | ast.AnnAssign | ast.Return):
                if len(self._text(above)) > MOST_SHOWN:
                    break
                node = above
            elif isinstance(above, ast.stmt):
                break
        return node

    def _between(self, left: Any, right: Any, symbol: str) -> tuple[int, int]:
        """Where an operator stands between its operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        pattern = r"\s+".join(map(re.escape, symbol.split()))
        found = re.search(rf"(?<![\w<>=!*/]){pattern}(?![\w<>=*/])" if symbol.isidentifier() or " " in symbol
                          else re.escape(symbol), self.bytes[begin:end].decode())  # fmt: skip
        assert found is not None, (symbol, self.bytes[begin:end])
        return begin + len(self.bytes[begin:end].decode()[: found.start()].encode()), begin + len(
            self.bytes[begin:end].decode()[: found.end()].encode()
        )

    # -- scopes, and what is left out

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if not self._path and self.only and node.name not in self.only:
            return
        self._path.append(node.name)
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(default)
        self._visit_body(node.body)
        self._path.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if not self._path and self.only and node.name not in self.only:
            return
        self._path.append(node.name)
        self._visit_body(node.body)
        self._path.pop()

    def _visit_body(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        self._visit_body(node.body)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        name = ast.unparse(node.targets[0])
        if not self._path and self.only and name not in self.only:
            return
        if not (
            isinstance(node.value, ast.Subscript) and ast.unparse(node.value.value) in ("Literal", "dict", "tuple")
        ):
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, "pass")  # what it says is for people

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Words for people."""

    def visit_Import(self, node: ast.Import) -> None:
        """Nothing to decide."""

    visit_ImportFrom = visit_Import  # type: ignore[assignment]
    visit_Assert = visit_Import  # type: ignore[assignment]

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg == "passed" and not isinstance(node.value, ast.Constant):
            self._add(node.value, "True", shown=node)
        if node.arg not in LEFT_ALONE:
            self.visit(node.value)

    # -- faults

    def _condition(self, test: ast.expr) -> None:
        """A condition that is a plain value is negated; comparisons and the like have faults of their own."""
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.NamedExpr):
            self._add(test, f"not {self._text(test)}")
        if isinstance(test, ast.NamedExpr):
            self._add(test, f"not ({self._text(test)})")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            span = self._between(left, right, SYMBOLS[type(operator)])
            for other in COMPARISONS[type(operator)]:
                self._add(right, other, shown=node, span=span)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        symbol, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._add(right, other, shown=node, span=self._between(left, right, symbol))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self._add(node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        said = any(isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
                   for side in (node.left, node.right))  # fmt: skip
        if type(node.op) in ARITHMETIC and not said:
            span = self._between(node.left, node.right, SYMBOLS[type(node.op)])
            self._add(node.right, ARITHMETIC[type(node.op)], shown=node, span=span)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(node, "pass")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if value is True or value is False:
            self._add(node, str(not value))
        elif isinstance(value, int):
            by = max(1, abs(value) // 2)  # of a size, one more or less is no other size
            self._add(node, str(value + by))
            self._add(node, str(value - by))
        elif isinstance(value, float):
            self._add(node, repr(value * 2 if value else 1.0))
            self._add(node, repr(value / 2 if value else -1.0))
        elif isinstance(value, str) and NAME.fullmatch(value):
            self._add(node, repr(f"not_{value}"))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self._add(node.value, "None", shown=node)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Yield | ast.YieldFrom):
            self._add(node, "pass")
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "continue")

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        for old, new in (("min", "max"), ("max", "min"), ("any", "all"), ("all", "any")):
            if name == old:
                self._add(node.func, new, shown=node)
        if name.rpartition(".")[2] not in LEFT_ALONE:
            self.generic_visit(node)


def _short(code: str, width: int = MOST_SHOWN) -> str:
    """Code in one line, with what a table could not show taken out."""
    line = re.sub(r"\s+", " ", code).replace("|", "∣").replace("`", "'").strip()
    return line if len(line) <= width else f"{line[: width - 1]}…"


def mutants_of(module: str, source: str | None = None) -> list[Mutant]:
    """The faults of a module, each a program that can be read."""
    source = source if source is not None else (ROOT / module).read_text()
    only = TARGETS[module].only if module in TARGETS else ()
    found = []
    for mutant in Mutants(source, only).found:
        with contextlib.suppress(SyntaxError):
            ast.parse(mutant.of(source.encode()))
            found.append(mutant)
    return found


# -- what runs -------------------------------------------------------------------------------------------------------


class Copy:
    """The project's files in a folder of its own, in which one mutant at a time lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.folder / name)

    def write(self, module: str, source: bytes) -> None:
        """Puts a module's text in its place, and takes away what Python compiled of it before."""
        path = self.folder / module
        path.write_bytes(source)
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()

    def start(self, tests: Sequence[str], plugin: Any = None, *, cpu_s: float = 0, compiles: bool = False) -> int:
        """Forks a process that runs tests in this folder, and returns its number. Its status is pytest's."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os._exit(self._run(tests, plugin, cpu_s, compiles))
        except BaseException:  # whatever it is, this process must not go on as if it were the first
            os._exit(70)

    def _run(self, tests: Sequence[str], plugin: Any, cpu_s: float, compiles: bool) -> int:
        os.setpgid(0, 0)  # what it starts can be ended with it
        if cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 2))
        scratch = self.folder.parent
        log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(self.folder)
        sys.path[0] = str(self.folder)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]  # the copy's are meant
        sys.dont_write_bytecode = not compiles
        os.environ |= {
            "ASSETLINE_HOME": str(scratch / "home"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "examples"),
        }
        os.environ["PYTHONPATH"] = str(self.folder)
        if plugin:
            plugin.begin()
        options = ["-x", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-m", "not slow", "--hypothesis-seed=0",
                   f"--basetemp={scratch / 'tmp'}"]  # fmt: skip
        return int(pytest.main([*options, *tests], plugins=[plugin] if plugin else []))


@dataclass
class Baseline:
    """What the unchanged module does: by test its seconds and the lines of the module that it ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)
    at_import: list[int] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that ran its lines, the quickest first; all of them where these ran when it was imported."""
        at_import = bool(set(self.at_import) & set(mutant.lines))
        ran = [test for test, lines in self.lines.items() if at_import or set(lines) & set(mutant.lines)]
        return sorted(ran, key=lambda test: self.seconds[test])


class Recorder:
    """A pytest plugin that notes which test runs which lines of one file, those of its fixtures included."""

    def __init__(self, file: Path, to: Path) -> None:
        self.file, self.to, self.result = str(file), to, Baseline()
        self._now: set[int] = set()
        self._of_fixture: dict[str, set[int]] = {}

    def _enter(self, frame: Any, event: str, _: Any) -> Any:
        return self._line(frame, event, _) if frame.f_code.co_filename == self.file else None

    def _line(self, frame: Any, event: str, _: Any) -> Any:
        self._now.add(frame.f_lineno)
        return self._line

    def begin(self) -> None:
        """From here on, so that what a conftest imports is seen, too."""
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def pytest_collection_finish(self) -> None:
        self.result.at_import = sorted(self._now)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        """What a shared fixture runs is run for each test that asks for it, not only for the first."""
        before, self._now = self._now, set()
        made = yield
        self._of_fixture.setdefault(fixturedef.argname, set()).update(self._now)
        self._now |= before
        return made

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[Any]:
        self._now, began = set(), time.process_time()
        ran = yield
        self.result.seconds[item.nodeid] = time.process_time() - began
        shared = (self._of_fixture.get(name, set()) for name in item.fixturenames)
        self.result.lines[item.nodeid] = sorted(self._now.union(*shared))
        return ran

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        libraries = [name for name in sys.modules if name.partition(".")[0] not in {*OURS, "__main__"}]
        self.to.write_text(json.dumps(vars(self.result) | {"libraries": libraries}))


class MutationError(Exception):
    """What keeps a module from being mutated; the message says what to do."""


def baseline_of(module: str, copy: Copy) -> Baseline:
    """Runs the tests of the unchanged module."""
    to = copy.folder.parent / "baseline.json"
    to.unlink(missing_ok=True)
    tests = [test for test in TARGETS[module].tests if (ROOT / test).exists()]
    status = _status_of(copy.start(tests, Recorder(copy.folder / module, to), compiles=True))
    if status or not to.exists():
        said = (copy.folder.parent / "log").read_text()
        raise MutationError(f"{module}: its tests fail without any fault ({status}); mend them first\n{said[-3000:]}")
    return Baseline(**json.loads(to.read_text()))


def _status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def preload(libraries: Sequence[str]) -> None:
    """Imports what the tests import of others, so that no mutant does it again."""
    for name in libraries:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def survivors_of(module: str, copies: Sequence[Copy], say: Callable[[str], None]) -> tuple[list[str], int]:
    """The faults of a module that no test notices, as lines of the page, and how many there were."""
    source = (ROOT / module).read_bytes()
    for copy in copies:
        copy.write(module, source)
    baseline = baseline_of(module, copies[0])
    preload(baseline.libraries)
    tests = list(baseline.lines)
    for copy in copies:  # each compiles what it imports, and shows that all is well in a fork, too
        if status := _status_of(copy.start(tests, compiles=True)):
            said = (copy.folder.parent / "log").read_text()
            raise MutationError(f"{module}: its tests fail in a fork of this process ({status})\n{said[-3000:]}")
    named = _named(mutants_of(module))
    waiting, survived = list(named.items()), []
    running: dict[int, tuple[Copy, str, float]] = {}
    free = list(copies)
    while waiting or running:
        while waiting and free:
            name, mutant = waiting.pop(0)
            chosen = baseline.tests_of(mutant)
            if not chosen:
                survived.append(f"{name} (no test runs it)")
                continue
            copy, seconds = free.pop(), sum(baseline.seconds[test] for test in chosen)
            copy.write(module, mutant.of(source))
            pid = copy.start(chosen, cpu_s=20 + 5 * seconds)
            running[pid] = (copy, name, time.monotonic() + 120 + 10 * seconds)
        pid, status = _next_end(running)
        copy, name, _ = running.pop(pid)
        free.append(copy)
        if status == 0:
            survived.append(name)
            say(f"  survived: {name}")
    for copy in copies:
        copy.write(module, source)
    order = {name: number for number, name in enumerate(named)}
    return sorted(survived, key=lambda name: order[name.removesuffix(" (no test runs it)")]), len(named)


def _next_end(running: Mapping[int, tuple[Copy, str, float]]) -> tuple[int, int]:
    """The next of some processes that ends, and its status; one that takes too long is ended."""
    while True:
        for pid, (_, _, deadline) in running.items():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                ended, status = os.waitpid(pid, 0)
            if ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)  # what its tests left behind
                return pid, os.waitstatus_to_exitcode(status)
        time.sleep(0.01)


def _named(mutants: Sequence[Mutant]) -> dict[str, Mutant]:
    """By place and words; of those that read the same, the second is the second."""
    seen: Counter[str] = Counter()
    named = {}
    for mutant in mutants:
        name = f"`{mutant.where}` | {mutant.words}"
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} (no. {seen[name]})"] = mutant
    return named


# -- the page --------------------------------------------------------------------------------------------------------


@dataclass
class Section:
    """What the page says of a module: the number of its faults, and by those that survived the reason."""

    mutants: int = 0
    survivors: dict[str, str] = field(default_factory=dict)


def read_page(page: str) -> dict[str, Section]:
    """The sections of the page as it stands, by module."""
    sections: dict[str, Section] = {}
    current = ""
    written = page.partition(BEGIN)[2].partition(END)[0]
    for line in written.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| `") and len(cells) == 4 and cells[0].strip("`") in TARGETS:
            sections[cells[0].strip("`")] = Section(int(cells[1]))
        elif line.startswith("## "):
            current = line[3:].strip("` ")
        elif line.startswith("| `") and current in sections:  # a module that is no longer mutated is left out
            where, words, *reason = line.strip("|").split(" | ", 2)
            sections[current].survivors[f"{where.strip()} | {words.strip()}"] = reason[0].strip() if reason else ""
    return sections


def written_page(page: str, sections: Mapping[str, Section]) -> str:
    """The page with its tables made anew."""
    lines = ["", "| module | faults | noticed | not noticed |", "|---|---:|---:|---:|"]
    ordered = [(module, sections[module]) for module in TARGETS if module in sections]
    for module, section in ordered:
        left = len(section.survivors)
        lines.append(f"| `{module}` | {section.mutants} | {section.mutants - left} | {left} |")
    for module, section in ordered:
        if section.survivors:
            lines += ["", f"## `{module}`", "", "| where | fault | why no test notices |", "|---|---|---|"]
            lines += [f"| {name} | {reason} |" for name, reason in section.survivors.items()]
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Mutates modules and writes the page. Returns 1 where a survivor has no reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all of them")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="say which faults there are, and run nothing")
    given = parser.parse_args(arguments)
    if unknown := [module for module in given.modules if module not in TARGETS]:
        parser.error(f"{unknown[0]} is not among the modules that are mutated: {', '.join(TARGETS)}")
    modules = given.modules or [module for module in TARGETS if (ROOT / module).exists()]
    if given.list:
        for module in modules:
            print(*(f"{module} {name}" for name in _named(mutants_of(module))), sep="\n")
        return 0
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    sections = read_page(PAGE.read_text())
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies = [Copy(Path(folder) / str(number)) for number in range(given.jobs)]
        for module in modules:
            began, known = time.monotonic(), sections.get(module, Section()).survivors
            survived, faults = survivors_of(module, copies, print)
            sections[module] = Section(faults, {name: known.get(name, "") for name in survived})
            print(
                f"{module}: {faults} faults, {len(survived)} not noticed, {time.monotonic() - began:.0f} s", flush=True
            )
            PAGE.write_text(written_page(PAGE.read_text(), sections))
    left = [(m, name) for m in modules for name, reason in sections[m].survivors.items() if not reason]
    for module, name in left:
        print(f"{module}: {name}: write a test that notices it, or the reason why none can into {PAGE.name}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
