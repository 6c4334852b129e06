"""The simulated world of a state folder. It is created once, so that its n-th day does not depend on the date.

Belongs here: the settings of the world (first day, size, seed, day of the injected shift), and the file that stores
them. Does not belong here: the events in the world (``simulator.py``), the story that runs in it (``story/fraud.py``).
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
"""Number of days, first and last included, that ``make run`` plays."""
SHIFT_AFTER_DAYS = 143
"""Number of days in the world before its payments shift permanently."""


@dataclass(frozen=True)
class Size:
    """Numbers of customers and terminals. The rates of payments and frauds are the published ones."""

    customers: int
    terminals: int


SIZES = {"small": Size(1_750, 3_500), "published": Size(5_000, 10_000)}
"""``small`` is the default of ``make run``; ``published`` is the size of Le Borgne et al. (2022)."""


@dataclass(frozen=True)
class World:
    """Settings of a simulated world.

    Args:
        first_day: day 1 of the world.
        shift_from: first day of the injected shift.
        size: a key of :data:`SIZES`.
        seed: seed of everything random.
    """

    first_day: dt.date
    shift_from: dt.date
    size: str = "small"
    seed: int = 0

    @classmethod
    def ending(cls, until: dt.date, *, size: str = "small", seed: int = 0) -> World:
        """Returns the world whose story ends on ``until``."""
        first = until - dt.timedelta(days=STORY_DAYS - 1)
        return cls(first, first + dt.timedelta(days=SHIFT_AFTER_DAYS), size, seed)


def world_of(home: Path) -> World:
    """Returns the world of a state folder; if there is none, creates one whose story ends yesterday.

    Raises:
        SourceError: the stored file does not describe a world.
    """
    path = home / WORLD_FILE
    if not path.exists():
        return draw_up(home, World.ending(yesterday()))
    return _read(path, path.stat().st_mtime_ns)


def draw_up(home: Path, world: World) -> World:
    """Stores ``world`` in the state folder and returns it; an existing world is kept and returned instead."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / WORLD_FILE
    scratch = path.with_name(f".{WORLD_FILE}.{os.getpid()}")
    scratch.write_text(json.dumps(asdict(world), default=str, indent=1))
    try:
        os.link(scratch, path)  # fails if the file exists, so no world is replaced
    except FileExistsError:
        return world_of(home)
    finally:
        scratch.unlink()
    return world


def yesterday() -> dt.date:
    """Returns the latest complete day, UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> World:
    try:
        stored = json.loads(path.read_text())
        first, shift = (dt.date.fromisoformat(stored[name]) for name in ("first_day", "shift_from"))
        world = World(first, shift, str(stored["size"]), int(stored["seed"]))
        _ = SIZES[world.size]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} does not describe a simulated world ({error!r}); remove the state folder (`make clean`) to "
            "create a new one"
        ) from error
    return world
