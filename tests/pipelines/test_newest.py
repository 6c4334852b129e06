"""What the report on the newest versions says; the environment itself is made only by `make newest`."""

import pytest

from pipeline.newest import NewestError, changes, failures, pinned, text_of
from resources.settings import project_root

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_bad">
<failure message="assert 1 == 2&#10;second&#10;third&#10;fourth"/>
</testcase>
<testcase classname="" name="tests.test_b"><error message="collection failure">ImportError: gone</error></testcase>
</testsuite></testsuites>"""


def test_versions_are_read_from_constraints_and_freeze_alike():
    assert pinned("# a comment\nScikit_Learn==1.7.2\ntorch==2.13.0+cpu\n-e .\n") == {
        "scikit-learn": "1.7.2", "torch": "2.13.0"
    }  # fmt: skip
    assert {"torch", "dagster", "pytest-cov"} <= set(pinned((project_root() / "constraints.txt").read_text()))


def test_changed_new_and_gone_packages_are_listed():
    found = changes({"a": "1", "b": "1", "gone": "1"}, {"a": "1", "b": "2", "new": "3"})
    assert found == [("b", "1", "2"), ("gone", "1", ""), ("new", "", "3")]


def test_failed_tests_and_failed_collections_are_named(tmp_path):
    (tmp_path / "newest.xml").write_text(JUNIT)
    assert failures(tmp_path / "newest.xml") == [
        ("tests.test_a::test_bad", "assert 1 == 2 second third"), ("::tests.test_b", "collection failure")
    ]  # fmt: skip


def test_tests_that_did_not_start_are_an_error(tmp_path):
    with pytest.raises(NewestError, match="did not start"):
        failures(tmp_path / "newest.xml")


def test_the_report_has_what_broke_before_what_changed():
    text = text_of([("b", "1", "2"), ("new", "", "3")], [("tests.test_a::test_bad", "1 | 2")], 7)
    lines = text.splitlines()
    assert lines[2] == "2 packages differ from `constraints.txt`; 1 of 7 tests fail."
    assert lines.index("| `tests.test_a::test_bad` | 1 \\| 2 |") < lines.index("| b | 1 | 2 |")
    assert "| new | not there | 3 |" in lines
    assert "all 7 tests pass" in text_of([], [], 7)
