"""Each check, gate rule, refusal of promotion and alert has a test in which it closes.

What there is, is read from the definitions; what is tested, from the marks ``@pytest.mark.closes(subject, name)`` in
the test files. A check is named by the stage's table (``raw``, ``cleaned``, ``features``, …), since every model has it.
That a marked test fails without the line that closes is what ``make mutate`` is for.
"""

import ast
from pathlib import Path
from typing import get_args

import pytest

from assets.declaration import Model
from assets.lifecycle.factory import lifecycle_assets
from assets.lifecycle.model.gate import Rule
from assets.lifecycle.model.version.verdicts import VERDICTS
from assets.models import declared_models
from resources.alerts.causes import CAUSES
from resources.settings import project_root
from serving.scoring.access import Refusal
from tests.declarations.helpdesk import model as helpdesk
from tests.declarations.readings import VARIANTS
from tests.declarations.shelf import model as shelf

Closing = tuple[str, str]
"""Subject and name, as in the mark."""


def checks_of(model: Model) -> set[Closing]:
    """The checks of a model; its own tables go by the names of their stages."""
    stages = {model.table.name: "cleaned", f"raw_{model.table.name}": "raw"}
    keys = [spec.key for asset in lifecycle_assets(model) for spec in asset.check_specs]
    assets = ("/".join(key.asset_key.path[1:]) for key in keys)
    return {(stages.get(asset, asset), key.name) for asset, key in zip(assets, keys, strict=True)}


def all_that_closes() -> set[Closing]:
    """Of every declared model and of every kind of model."""
    models = [*declared_models(), *VARIANTS.values(), helpdesk, shelf]
    return {
        *(check for model in models for check in checks_of(model)),
        *(("gate", rule) for rule in get_args(Rule)),
        *(("deployment", verdict) for verdict in (*VERDICTS, "approval", "rollout", "branch", "commit")),
        ("alerts", "check"),
        *(("alerts", cause) for cause in CAUSES),
        *(("service", reason) for reason in get_args(Refusal)),
    }


def marks_in(source: str) -> set[Closing]:
    """The marks of the tests of a file that run by ``make test``."""
    try:
        tree = ast.parse(source)
    except SystemError:  # CPython gh-106905: another thread of the process parsed at the same time
        tree = ast.parse(source)
    found: set[Closing] = set()
    if any(isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node) and ".slow" in ast.unparse(node)
           for node in tree.body):  # fmt: skip
        return found
    for test in ast.walk(tree):
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            decorators = [ast.unparse(decorator) for decorator in test.decorator_list]
            if "pytest.mark.slow" not in decorators:
                calls = [node for decorator in test.decorator_list for node in ast.walk(decorator)]
                found |= {_arguments(node) for node in calls if isinstance(node, ast.Call) and _is_mark(node)}
    return found


def _is_mark(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "pytest.mark.closes"


def _arguments(call: ast.Call) -> Closing:
    subject, name = (ast.literal_eval(argument) for argument in call.args)
    return subject, name


def all_that_is_tested() -> set[Closing]:
    root = project_root()
    # Not rglob: a draft of a model may come and go beside the models (`assets/models/.new-…`).
    files = [*root.glob("tests/**/test_*.py"), *root.glob("assets/models/[a-z]*/test_*.py")]
    assert Path(__file__) in files
    return {mark for path in files for mark in marks_in(path.read_text())}


def test_each_thing_that_closes_has_a_test_in_which_it_does():
    without = sorted(all_that_closes() - all_that_is_tested())
    assert not without, "mark a test in which it closes with @pytest.mark.closes: " + "; ".join(map(str, without))


def test_no_test_is_marked_with_what_there_is_not():
    assert all_that_is_tested() - all_that_closes() == set()


def test_the_list_is_of_all_stages():
    assert len(all_that_closes()) >= 36, "20 checks, 3 rules, 2 verdicts, 11 causes"


@pytest.mark.parametrize(
    ("source", "marks"),
    [
        ("@pytest.mark.closes('a', 'b')\ndef test_x(): ...", {("a", "b")}),
        ("@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.closes('a', 'b'))])\ndef test_x(n): ...",
         {("a", "b")}),
        ("@pytest.mark.slow\n@pytest.mark.closes('a', 'b')\ndef test_x(): ...", set()),
        ("pytestmark = [pytest.mark.slow]\n@pytest.mark.closes('a', 'b')\ndef test_x(): ...", set()),
        ("@pytest.mark.closes('a', 'b')\ndef helper(): ...", set()),
    ],
)  # fmt: skip
def test_only_marks_of_tests_that_run_count(source, marks):
    assert marks_in(source) == marks
