"""From a table to a model folder: what is guessed, what is refused, and that nothing half-made stays behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.made import machines, tickets
from resources.settings import project_root
from scaffold.new_model import drafted, new_model
from scaffold.report import format_report
from scaffold.tables import ScaffoldError


@pytest.fixture
def root(tmp_path) -> Path:
    """A project's folder for models, and nothing else."""
    (tmp_path / "assets" / "models").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text((project_root() / "pyproject.toml").read_text())
    return tmp_path


def csv(root: Path, frame: pd.DataFrame | str | bytes, name: str = "table.csv", **how) -> Path:
    path = root / name
    if isinstance(frame, pd.DataFrame):
        frame.to_csv(path, index=False, **how)
    elif isinstance(frame, bytes):
        path.write_bytes(frame)
    else:
        path.write_text(frame)
    return path


def people(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, city = rng.integers(18, 80, rows), rng.choice(["Rome", "Oslo", "Bonn"], rows)
    bought = rng.random(rows) < 1 / (1 + np.exp(-(age - 50) / 10 - (city == "Oslo")))
    return pd.DataFrame({"age": age, "city": city, "income": rng.normal(3_000, 500, rows).round(2),
                         "bought": np.where(bought, "yes", "no")})  # fmt: skip


def declared(root: Path, frame: pd.DataFrame, target: str, **how):
    """The declaration and the guess of a table, as the folder would have them."""
    with drafted(root, "shop", csv(root, frame), target, **how) as draft:
        return draft.model, draft.guess, (draft.folder / "table.py").read_text()


# -- what is guessed ---------------------------------------------------------------------------------------------------


def test_each_kind_of_column_is_seen_for_what_it_is(root):
    rng = np.random.default_rng(0)
    n = 800
    signed_up = pd.Timestamp(2020, 1, 1) + pd.to_timedelta(rng.integers(0, 900, n), "D")
    said = ["very", "good", "bad", "slow", "fast", "service"]
    frame = people(n).assign(**{
        " Signed Up ": signed_up.strftime("%d/%m/%Y"),
        "class": rng.choice(["A", "B"], n),
        "price (€)": [f"€ {value:,.2f}" for value in rng.gamma(2, 2_000, n)],
        "rate": [f"{value:.1f}%" for value in rng.uniform(0, 9, n)],
        "member": rng.choice(["Y", "N"], n),
        "postcode": [f"{value:05d}" for value in rng.integers(0, 400, n)],
        "E-Mail": [f"user{i}@example.org" for i in range(n)],
        "ticket id": [f"T-{i:05d}" for i in range(n)],
        "empty": [None] * n,
        "one": ["x"] * n,
        "remarks": [" ".join(rng.choice(said, 6)) + f" {i}" for i in range(n)],
        "gap": np.where(rng.random(n) < 0.2, "N/A", rng.integers(0, 99, n).astype(str)),
    })  # fmt: skip
    model, guess, _ = declared(root, frame, "bought")
    kinds = {column.name: column.kind for column in guess.columns}
    assert kinds == {
        "age": "integer", "city": "category", "income": "number", "bought": "boolean", "signed_up": "moment",
        "class_": "category", "price": "number", "rate": "number", "member": "boolean", "postcode": "text",
        "ticket_id": "identifier", "remarks": "text", "gap": "integer",
    }  # fmt: skip
    assert model.table.key == "ticket_id"
    assert set(guess.left_out) == {"E-Mail", "empty", "one"}
    assert "e-mail addresses" in guess.left_out["E-Mail"]
    assert next(column for column in guess.columns if column.name == "gap").nullable


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["yes", "no"], "binary", (False, True)),
        (["good", "good", "bad"], "binary", ("good", "bad")),
        ([0, 1], "binary", (False, True)),
        ([1, 2, 3, 4], "multiclass", (1, 2, 3, 4)),
        (["a", "b", "c"], "multiclass", ("a", "b", "c")),
        ([f"{n}.5" for n in range(30)], "regression", ()),
        (list(range(100)), "regression", ()),
    ],
)
def test_the_kind_of_target_follows_from_its_values(root, values, kind, classes):
    frame = people(600).assign(goal=np.resize(values, 600))
    model, guess, _ = declared(root, frame, "goal")
    assert (model.task.kind, model.task.classes) == (kind, classes)
    assert guess.task == kind


def test_whole_numbers_can_be_measured_when_asked(root):
    frame = people(600).assign(stars=np.resize([1, 2, 3, 4, 5], 600))
    assert declared(root, frame, "stars")[0].task.kind == "multiclass"
    assert declared(root, frame, "stars", task="regression")[0].task.kind == "regression"


def test_the_folder_is_short_clean_and_passes_its_own_tests(root):
    made = new_model(root, "shop", csv(root, people(900)), "bought")
    assert made.lines <= 80
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--explicit-package-bases"]):
        tool, *arguments = command
        ran = subprocess.run(
            [str(Path(sys.executable).with_name(tool)), *arguments, str(made.folder)],
            cwd=project_root(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
    said = format_report(made, root)
    assert "'bought': two classes; the probability is that of 'yes'" in said
    assert "assetline materialize --model shop" in said


def test_a_leak_is_seen_when_the_folder_is_written(root):
    refund = np.random.default_rng(1).uniform(5, 50, 900).round(2).astype(str)
    frame = people(900).assign(refund=lambda rows: np.where(rows["bought"] == "yes", "", refund))
    made = new_model(root, "shop", csv(root, frame), "bought")
    assert any("'refund' alone nearly determines the target" in words for words in made.leaks)
    assert "LEAK? 'refund'" in format_report(made, root)


def test_rows_that_share_an_identifier_stay_together(root):
    frame = people(900).assign(patient_id=np.resize(range(200), 900))
    model, guess, _ = declared(root, frame, "bought")
    assert model.evaluation.entity == guess.entity == "patient_id"


def test_a_time_makes_it_a_stream_with_a_split_by_time(root):
    rng = np.random.default_rng(0)
    times = pd.Timestamp(2025, 3, 1) + pd.to_timedelta(rng.integers(0, 80 * 86_400, 2_000), "s")
    model, _, _ = declared(root, people(2_000).assign(at=times), "bought", time="at")
    assert model.is_stream
    assert str(model.table.start) == "2025-03-01"
    assert model.training.test_days == 10
    assert model.training.window_days == 50
    assert not model.table.quiet_days


def test_a_table_without_a_key_gets_one_of_its_text(root):
    model, guess, _ = declared(root, people(600), "bought")
    assert model.table.key == "row"
    assert any("no column is a key" in words for words in guess.notes)


def test_an_identical_row_is_one_row(root):
    frame = people(600)
    twice = pd.concat([frame, frame.head(20)])
    with drafted(root, "shop", csv(root, twice), "bought") as draft:
        from assets.lifecycle.dry_run import dry_run

        assert len(dry_run(draft.model, draft.raw.rows).accepted) == frame.drop_duplicates().shape[0]


def test_text_and_fifty_thousand_rows_of_four_classes_are_read(root):
    model, guess, _ = declared(root, machines(50_000), "Failure")
    assert model.task.classes == ("bearing", "belt", "motor", "none")
    assert model.table.key == "machine_no"
    assert {c.name: c.kind for c in guess.columns}["installed"] == "moment"
    model, guess, _ = declared(root, tickets(800), "left")
    assert {c.name: c.kind for c in guess.columns}["message"] == "text"


# -- how a file is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda f: f.assign(city=f["city"].replace("Rome", "Málaga")).to_csv(index=False).encode("latin-1"), "cp1252"),
        (lambda f: f.to_csv(index=False, sep=";", decimal=",").encode(), "separated by ';'"),
        (lambda f: f.to_csv(index=False, sep="\t").encode(), r"separated by '\t'"),
    ],
)
def test_other_encodings_and_separators_are_handled_and_said(root, content, said):
    made = new_model(root, "shop", csv(root, content(people(600))), "bought")
    assert any(said in words for words in made.guess.notes), made.guess.notes
    assert {c.name: c.kind for c in made.guess.columns}["income"] == "number"


def test_a_byte_order_mark_is_no_part_of_a_header(root):
    made = new_model(root, "shop", csv(root, b"\xef\xbb\xbf" + people(600).to_csv(index=False).encode()), "bought")
    assert made.guess.columns[0].name == "age"


def test_parquet_is_read_as_well(root):
    path = root / "table.parquet"
    people(600).assign(bought=lambda f: f["bought"] == "yes", seen=pd.Timestamp(2024, 5, 1)).to_parquet(path)
    model = new_model(root, "shop", path, "bought")
    assert "ParquetFile" in (model.folder / "__init__.py").read_text()


def test_rows_without_a_target_are_scored_and_not_learnt_from(root):
    frame = people(600)
    frame.loc[:49, "bought"] = None
    made = new_model(root, "shop", csv(root, frame), "bought")
    assert any("50 rows have no 'bought'" in words for words in made.guess.notes)


def test_a_million_categories_are_no_million_features(root):
    rng = np.random.default_rng(0)
    wide = {f"c{i}": rng.choice([f"v{n}" for n in range(45)], 900) for i in range(40)}
    frame = people(900).assign(**wide, many=[f"x{n}-{n % 7}" for n in rng.permutation(900)])
    made = new_model(root, "shop", csv(root, frame), "bought")
    assert any("many categories are read as text" in words for words in made.guess.warnings)


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "an empty file": ("", "bought", {}, "is empty"),
    "a header alone": ("a,b\n", "a", {}, "has a header but no rows"),
    "one column": ("a\n1\n2\n", "a", {}, "has one column"),
    "two columns of one name": ("a,b,a\n1,2,3\n", "b", {}, "two columns are named 'a'"),
    "a target that is not there": (people(300), "bougt", {}, "did you mean 'bought'"),
    "a constant target": (people(300).assign(goal="x"), "goal", {}, "has one value only"),
    "an empty target": (people(300).assign(goal=None), "goal", {}, "is empty"),
    "a date as target": (people(300).assign(goal=pd.date_range("2024-01-01", periods=300)), "goal", {}, "is a date"),
    "free text as target": (
        people(300).assign(goal=[f"word{n} and {n * 7}" for n in range(300)]), "goal", {}, "different values",
    ),
    "a time that is none": (people(300), "bought", {"time": "city"}, "not dates"),
    "a time of a few days": (
        people(300).assign(at=pd.date_range("2025-01-01", periods=300, freq="h")), "bought", {"time": "at"},
        "span 13 days",
    ),
    "a kind that is none": (people(300), "bought", {"task": "ranking"}, "TASK=ranking"),
    "nothing to tell by": (people(300)[["bought"]].assign(one=1), "bought", {}, "no column is left"),
    "bytes": (b"\x00\x01\x02,\x03\n", "a", {}, "is not text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_one_clear_sentence_and_no_folder(root, case):
    table, target, how, words = REFUSED[case]
    with pytest.raises(ScaffoldError, match=words) as refused:
        new_model(root, "shop", csv(root, table), target, **how)
    assert "\n" not in str(refused.value)
    assert list((root / "assets" / "models").iterdir()) == []


def test_a_file_that_is_not_there_is_named(root):
    with pytest.raises(ScaffoldError, match=r"nowhere\.csv: no such file"):
        new_model(root, "shop", root / "nowhere.csv", "x")


@pytest.mark.parametrize("name", ["Shop", "2shop", "class", "a-b", ""])
def test_a_name_that_is_none_is_refused(root, name):
    with pytest.raises(ScaffoldError, match="NAME="):
        new_model(root, name, csv(root, people(300)), "bought")


def test_nothing_is_ever_overwritten(root):
    made = new_model(root, "shop", csv(root, people(300)), "bought")
    before = {path: path.read_bytes() for path in made.folder.iterdir()}
    with pytest.raises(ScaffoldError, match="already exists and nothing was changed"):
        new_model(root, "shop", csv(root, people(300)), "bought")
    assert {path: path.read_bytes() for path in made.folder.iterdir()} == before


def test_a_draft_that_a_killed_process_left_is_gone_with_the_next_model(root):
    models = root / "assets" / "models"
    for name in (".new-left", ".new-alive"):
        (models / name).mkdir()
    os.utime(models / ".new-left", (0, 0))
    new_model(root, "shop", csv(root, people()), "bought")
    assert sorted(path.name for path in models.iterdir()) == [".new-alive", "shop"]


def test_tests_that_an_earlier_template_generated_still_find_their_import():
    from assets.lifecycle.dry_run import dry_run
    from assets.lifecycle.rehearsal import rehearse

    assert rehearse is dry_run
