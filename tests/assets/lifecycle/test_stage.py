"""What makes a table stale: the code that makes it, and nothing else in its module."""

import pytest

from assets.lifecycle.stage import _code_of

CODE = '''"""What it is."""

RATE = 2
"""Per row."""


class Meter:
    """A meter."""

    def read(self, level):
        """Its level."""
        return level * RATE  # twice
'''


def code_of(tmp_path, text: str) -> bytes:
    path = tmp_path / "module.py"
    path.write_text(text)
    _code_of.cache_clear()
    return _code_of(str(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [("What it is.", "What it does."), ("Per row.", "For each row."), ("A meter.", "Any meter."),
     ("Its level.", "The level."), ("# twice", "# two times"), ("level * RATE", "level  *  RATE")],
)  # fmt: skip
def test_docstrings_comments_and_layout_make_nothing_stale(tmp_path, old, new):
    assert old in CODE
    assert code_of(tmp_path, CODE) == code_of(tmp_path, CODE.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("RATE = 2", "RATE = 3"), ("level * RATE", "level + RATE"), ("read", "look")])
def test_other_code_does(tmp_path, old, new):
    assert code_of(tmp_path, CODE) != code_of(tmp_path, CODE.replace(old, new))
