"""The simulated world of a state folder: drawn up once, so that its n-th day is the same whatever the date.

Belongs here: what is decided about the world once (first day, size, seed, day of the injected shift), and the file that
keeps it. Does not belong here: what happens in the world (``simulator.py``), what is played in it (``story/fraud.py``).
"""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from resources.sources import SourceError

WORLD_FILE = "world.json"
STORY_DAYS = 173
"""Days from the first one to the last that ``make run`` plays."""
SHIFT_AFTER_DAYS = 143
"""Days of the world before its payments shift for good."""


@dataclass(frozen=True)
class Size:
    """How many customers and terminals there are. The rates of payments and frauds are the published ones."""

    customers: int
    terminals: int


SIZES = {"small": Size(1_750, 3_500), "published": Size(5_000, 10_000)}
"""``small`` is what ``make run`` plays by default, ``published`` is the size of Le Borgne et al. (2022)."""


@dataclass(frozen=True)
class World:
    """What is decided about a world once.

    Args:
        first_day: its day 1.
        shift_from: first day of the injected shift.
        size: one of :data:`SIZES`.
        seed: everything random is drawn from it.
    """

    first_day: dt.date
    shift_from: dt.date
    size: str = "small"
    seed: int = 0

    @classmethod
    def ending(cls, until: dt.date, *, size: str = "small", seed: int = 0) -> World:
        """The world whose story ends on ``until``."""
        first = until - dt.timedelta(days=STORY_DAYS - 1)
        return cls(first, first + dt.timedelta(days=SHIFT_AFTER_DAYS), size, seed)


def world_of(home: Path) -> World:
    """The world of a state folder; where there is none yet, one whose story ends yesterday is drawn up."""
    path = home / WORLD_FILE
    if not path.exists():
        return draw_up(home, World.ending(yesterday()))
    return _read(path, path.stat().st_mtime_ns)


def draw_up(home: Path, world: World) -> World:
    """Keeps ``world`` as that of the state folder, and returns it; a world that is there already stays."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / WORLD_FILE
    scratch = path.with_name(f".{WORLD_FILE}.{os.getpid()}")
    scratch.write_text(json.dumps(asdict(world), default=str, indent=1))
    try:
        os.link(scratch, path)  # fails where the file is there already: nobody's world is replaced
    except FileExistsError:
        return world_of(home)
    finally:
        scratch.unlink()
    return world


def yesterday() -> dt.date:
    """The latest day that is over, UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> World:
    try:
        said = json.loads(path.read_text())
        first, shift = (dt.date.fromisoformat(said[name]) for name in ("first_day", "shift_from"))
        world = World(first, shift, str(said["size"]), int(said["seed"]))
        _ = SIZES[world.size]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} does not describe a simulated world ({error!r}); remove the state folder (`make clean`) to have "
            "another one drawn up"
        ) from error
    return world
