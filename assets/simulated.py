"""The simulated world of an example in a state folder. It is created once: its n-th day is the same on any date.

Belongs here: the settings of a world (first day, day of the injected change, size, seed), and the file that holds them.
Does not belong here: the events in a world (a model's ``simulator.py``), the story that runs in it (``story/``).
"""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from resources.sources import SourceError


@dataclass(frozen=True)
class World:
    """Settings of a simulated world.

    Args:
        first_day: day 1 of the world.
        shift_from: first day of the injected change.
        size: one of the plan's sizes.
        seed: seed of everything random.
    """

    first_day: dt.date
    shift_from: dt.date
    size: str = "small"
    seed: int = 0


@dataclass(frozen=True)
class WorldPlan:
    """The plan of an example's world, from which a state folder's world is drawn up.

    Args:
        file: name of the world's file in the state folder, e.g. ``world-news.json``.
        story_days: number of days, first and last included, that the story plays.
        shift_after_days: number of days in the world before the injected change.
        sizes: names of the sizes; the first is the default.
    """

    file: str
    story_days: int
    shift_after_days: int
    sizes: tuple[str, ...] = ("small",)

    def ending(self, until: dt.date, *, size: str = "", seed: int = 0) -> World:
        """Returns the world whose story ends on ``until``."""
        first = until - dt.timedelta(days=self.story_days - 1)
        return World(first, first + dt.timedelta(days=self.shift_after_days), size or self.sizes[0], seed)

    def soonest(self, first_day: dt.date) -> dt.date:
        """Returns the last day of a story that begins on ``first_day``."""
        return first_day + dt.timedelta(days=self.story_days - 1)

    def find(self, home: Path) -> World | None:
        """Returns the world of a state folder; ``None`` if it has none yet.

        Raises:
            SourceError: the stored file does not describe a world.
        """
        path = home / self.file
        return _read(path, path.stat().st_mtime_ns, self.sizes) if path.exists() else None

    def world_of(self, home: Path) -> World:
        """Returns the world of a state folder; if there is none, draws one up whose story ends yesterday.

        Raises:
            SourceError: the stored file does not describe a world.
        """
        return self.find(home) or self.draw_up(home, self.ending(yesterday()))

    def draw_up(self, home: Path, world: World) -> World:
        """Stores ``world`` in the state folder and returns it; an existing world is kept and returned instead."""
        home.mkdir(parents=True, exist_ok=True)
        path = home / self.file
        scratch = path.with_name(f".{self.file}.{os.getpid()}")
        scratch.write_text(json.dumps(asdict(world), default=str, indent=1))
        try:
            os.link(scratch, path)  # fails if the file exists, so no world is replaced
        except FileExistsError:
            return self.world_of(home)
        finally:
            scratch.unlink()
        return world


def yesterday() -> dt.date:
    """Returns the latest complete day, UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int, sizes: tuple[str, ...]) -> World:
    try:
        stored = json.loads(path.read_text())
        first, shift = (dt.date.fromisoformat(stored[name]) for name in ("first_day", "shift_from"))
        world = World(first, shift, str(stored["size"]), int(stored["seed"]))
        if world.size not in sizes:
            raise ValueError(f"size '{world.size}' is none of {', '.join(sizes)}")
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} does not describe a simulated world ({error!r}); remove the state folder (`make clean`) to "
            "create a new one"
        ) from error
    return world
