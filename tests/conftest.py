"""Fixtures of all tests."""

import functools
import gc
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from resources.processes import heed_signals
from resources.settings import Settings, one_thread_each

one_thread_each()
heed_signals()  # tests end the processes that they start by SIGTERM

import alembic.util  # noqa: E402
import dagster as dg  # noqa: E402 - what computes reads the number of threads when it is imported
import hypothesis  # noqa: E402
import pytest  # noqa: E402
import sqlalchemy as sa  # noqa: E402

from assets.declaration import Model  # noqa: E402
from resources import home  # noqa: E402
from tests.worlds import World  # noqa: E402

# Speed is measured in benchmarks/, never by a test: on a busy machine an example may take any time.
hypothesis.settings.register_profile("assetline", deadline=None)
hypothesis.settings.load_profile("assetline")

# One thread each: two processes of two threads on two cores wait for one another, and take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST = (
    "resources/test_sql_on_postgres.py", "e2e/test_ui.py", "e2e/test_kills.py", "pipelines/test_gitlab.py",
    "assets/lifecycle/erasure/test_forget.py", "scaffold/test_copy_of_the_project.py", "e2e/test_stream.py",
    "e2e/test_kinds.py", "resources/sources/test_landing_faults.py", "test_runner.py", "e2e/test_story_news.py",
    "story/test_recommend.py", "e2e/test_story.py", "scaffold/test_new_model.py", "serving/scoring/test_service.py",
    "e2e/test_days.py", "pipelines/test_stages.py", "metadata/test_metadata.py",
)  # fmt: skip
"""The files that take longest begin first, so that no process is left alone with one of them at the end."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves files without a slow test out of `make slow` and `make long`: each process would import all of them."""
    only_slow = config.option.markexpr in ("long", "slow", "slow and not long")
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if only_slow and is_test and "slow" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first; the order of the others, and within a file, stays."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Lets the garbage collector look at what the tests make, and not at the modules that were imported for them.

    A full collection otherwise goes through all objects of torch, MLflow and Dagster, which nobody ever frees. That was
    a tenth of the CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _load_each_revision_of_dagster_once() -> None:
    """Lets Alembic run a revision file of Dagster once in this process, and not again for each database of a test.

    Each instance of Dagster has three databases, and all of its revisions, some ninety, are read for each of them.
    ``env.py`` migrates when it is loaded, so it is loaded each time.
    """
    load = alembic.util.load_python_file
    dagster = Path(dg.__file__).parent

    @functools.cache
    def loaded(path: Path) -> ModuleType:
        return load(path.parent, path.name)

    def load_once(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> ModuleType:
        path = Path(folder, name)
        return loaded(path) if path.is_relative_to(dagster) and path.name != "env.py" else load(folder, name)

    alembic.util.load_python_file = load_once


_load_each_revision_of_dagster_once()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Forgets the Dagster instance of a test that is over.

    Dagster keeps the store of the instance that was entered last in a context variable. Instances of fixtures are left
    in another order than they were entered, and then it keeps one that no longer exists, for all tests after it.
    """
    from dagster._core.storage.defs_state.base import _current_storage

    try:
        return (yield)
    finally:
        _current_storage.set(None)


def _leave_writing_to_the_system(connection: Any, _record: Any) -> None:
    """Turns SQLite's sync at each commit off: after a crash of the machine nobody looks at the databases of a test.

    A killed process loses nothing by it. Each event of Dagster is a commit: a test that runs jobs waited for the disk a
    hundred times and more. Processes that a test starts sync as in production.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def sqlite_without_sync() -> Iterator[Callable[..., None]]:
    """Holds for all tests; ``tests/resources/test_sqlite.py`` does without it."""
    sa.event.listen(sa.Engine, "connect", _leave_writing_to_the_system)
    yield _leave_writing_to_the_system
    sa.event.remove(sa.Engine, "connect", _leave_writing_to_the_system)


@pytest.fixture(scope="session")
def make_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes worlds, and puts the environment back.

    Their evaluations permute 300 rows instead of 2,000, which was a quarter of the time of a world:
    ``tests/assets/lifecycle/model/test_details.py`` looks at what importance says.
    """
    from assets.lifecycle.model import importance

    rows = importance.MOST_ROWS
    importance.MOST_ROWS = 300
    before = {name: os.environ.get(name) for name in ("ASSETLINE_HOME", "DAGSTER_HOME")}
    # MLflow migrates a new database for more than a second: once is enough, a world begins with a copy.
    fresh = tmp_path_factory.mktemp("prepared") / "home"
    os.environ["ASSETLINE_HOME"] = str(fresh)
    home.prepare(Settings.from_env())

    def make(model: Model, folder: Path, **overrides: Any) -> World:
        os.environ["ASSETLINE_HOME"] = str(folder)
        settings = Settings.from_env()
        if not settings.dagster_home.exists():
            shutil.copytree(fresh, folder, dirs_exist_ok=True)
        home.prepare(settings)
        return World(model, settings, dg.DagsterInstance.get(), overrides)

    yield make
    importance.MOST_ROWS = rows
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the toy model of ``tests/declarations/readings``: a line, never fitted. Copy it to change it."""
    import torch

    from assets.lifecycle.data.features import features_of
    from assets.lifecycle.model.objectives import ScoreTransform
    from assets.lifecycle.model.version.bundle import Bundle
    from tests.declarations.readings import plain

    class Line(torch.nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.line = torch.nn.Linear(inputs, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(torch.nan_to_num(x) / 1_000).squeeze(-1)

    names = features_of(plain()).names
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    torch.manual_seed(0)
    Bundle.save(folder, module=Line(len(names)), model=plain(), feature_names=names, head=ScoreTransform(),
                threshold=0.5, fitted={"folds_score": 0.5, "chance": 0.4, "epochs": 1, "curves": {}})  # fmt: skip
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the user `postgres` may enter; pytest takes the rights of others from its own folders."""
    folder = Path(tempfile.mkdtemp(prefix="assetline-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
