"""The templates of the pages, in ``pages/``.

Belongs here: rendering. Does not belong here: routes (``alerts_page.py`` and the other pages).
"""

from __future__ import annotations

import datetime as dt
import functools
from pathlib import Path
from typing import Any


@functools.cache
def _templates() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )


def render(template: str, **given: Any) -> str:
    """Renders a template to HTML; ``now`` is the time, UTC."""
    return str(_templates().get_template(template).render(now=dt.datetime.now(dt.UTC), **given))
