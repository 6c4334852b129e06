"""The report of `new-model`: what was guessed, what to check, and which commands to run next.

Belongs here: wording. Does not belong here: any guess.
"""

from __future__ import annotations

import math
from pathlib import Path

from scaffold.columns import Column
from scaffold.guessing import ROW, Guess
from scaffold.new_model import NewModel


def format_report(made: NewModel, root: Path) -> str:
    """Returns the report as text for a terminal.

    Args:
        made: the new model.
        root: root of the project; the folder is shown relative to it.
    """
    guess, name = made.guess, made.folder.name
    target = guess.target
    what = {
        "binary": f"two classes; the probability is that of '{guess.positive}'",
        "multiclass": f"{len(target.categories)} classes",
        "regression": f"a measured value from {target.low:g} to {target.high:g}",
    }[guess.task]
    key = f"made of the row's text ('{ROW}')" if guess.key == ROW else f"'{guess.key}'"
    time = f"by day, '{guess.clock.column.header}'" if guess.clock else "a snapshot; TIME=column splits it by time"
    if guess.forecast:
        what += f"; forecast {guess.forecast} hours ahead"
    lines = [
        f"{made.folder.relative_to(root)}: {made.lines} lines, {made.features} features",
        "",
        f"  target  '{target.header.strip()}': {what}",
        f"  key     {key}",
        f"  time    {time}",
        "",
        "Columns, as guessed:",
        *(f"  {column.name:<28} {_kind(column, guess)}" for column in guess.columns),
    ]
    if guess.left_out:
        lines += [
            "",
            "Left out of the contract:",
            *(f"  {_short(h.strip(), 60):<28} {why}" for h, why in guess.left_out.items()),
        ]
    if guess.tags:
        lines += ["", "Personal, and tagged (correct the tags; docs/privacy.md):"]
        lines += [_tagged(header, guess) for header in guess.tags]
    if guess.notes:
        lines += ["", "Good to know:", *(f"  {note}" for note in guess.notes)]
    if guess.warnings or made.leaks:
        lines += ["", "Look at:", *(f"  {warning}" for warning in guess.warnings)]
        lines += [f"  LEAK? {leak}; training will refuse it" for leak in made.leaks]
    if any(_protection(header, guess) == "pseudonymised" for header in guess.tags):
        lines += ["", "Before the first landing: .venv/bin/assetline keys create pseudonyms"]
    lines += [
        "",
        f"Next: .venv/bin/assetline materialize --model {name}    (or `make dev`, to see its lineage)",
        f"      .venv/bin/python -m pytest assets/models/{name}",
    ]
    return "\n".join(lines)


def _tagged(header: str, guess: Guess) -> str:
    looks = guess.tags[header]
    what = f"{looks.kind.replace('_', ' ')}: {looks.why}; {_protection(header, guess)}"
    return f"  {_short(header.strip(), 60):<28} {what}"


def _protection(header: str, guess: Guess) -> str:
    """How the generated tag protects a column."""
    if header in guess.left_out:
        return "pseudonymised" if guess.key == ROW else "dropped"
    return "redacted" if guess.tags[header].kind == "text" else "pseudonymised"


def _kind(column: Column, guess: Guess) -> str:
    parts: list[str] = [column.kind if column.why != "class" else "class"]
    if column.kind in ("integer", "number") and not math.isnan(column.low) and column.why != "class":
        parts.append(f"{column.low:g} to {column.high:g}")
    if column.categories:
        listed = ", ".join(_short(str(name), 30) for name in column.categories[:4])
        listed += ", …" if len(column.categories) > 4 else ""
        parts.append(f"{len(column.categories)}: {listed}")
    if column.form and column.form != "ISO8601":
        parts.append(f"as {column.form}")
    if column.unit:
        parts.append(f"in {column.unit.strip()}")
    elif column.reader:
        parts.append(
            {"amount": "with currency, % or thousands", "comma": "with decimal comma", "hours": "hours of a time"}[
                column.reader
            ]
        )
    if column.missing:
        parts.append(f"{column.missing:.1%} missing" + (f" ({', '.join(column.words)})" if column.words else ""))
    roles = {
        guess.target.name: "the target",
        guess.key: "the key",
        guess.entity: "the series" if guess.forecast else "the entity, not a feature",
    }
    if column.name in roles:
        parts.append(f"← {roles[column.name]}")
    if column.name != column.header:
        parts.append(f"('{_short(column.header, 60)}' in the file)")
    return "  ".join(parts)


def _short(text: str, most: int) -> str:
    """Returns a text on one line, truncated to ``most`` characters."""
    plain = " ".join(text.split()) if "\n" in text or "\r" in text else text
    return plain if len(plain) <= most else plain[: most - 1] + "…"
