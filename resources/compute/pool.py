"""The interface of a pool of workers, and the pool that is this process.

Belongs here: what every pool can do. Does not belong here: Ray (``on_ray.py``).
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from resources.compute.group import ALONE, Group

Tell = Callable[[Any], bool]
"""Sends a message from a piece of work to the process that asked for it; returns whether the piece should stop."""

Hear = Callable[[int, Any], "bool | None"]
"""Receives the number of a piece and a message of it; returns True to let the piece stop. A piece that is begun again,
because its worker was lost, sends its messages again."""

Work = Callable[[Any, Any, Tell], Any]
"""``(shared, item, tell) -> result``: a function of a module. It must not depend on anything else in this process."""

JointWork = Callable[[Any, Group, Tell], Any]
"""``(shared, group, tell) -> result``: the same call on each worker of a group."""


class ComputeError(Exception):
    """The cluster cannot do what was asked. The message says what is wrong and what to do."""


def _unheard(_number: int, _message: Any) -> bool:
    return False


class Pool(abc.ABC):
    """Workers that run functions."""

    elsewhere: bool = True
    """Whether work runs outside of this process."""
    data_parallel: bool = False
    """Whether :meth:`together` has several workers."""

    @abc.abstractmethod
    def run(
        self, work: Work, items: Iterable[Any], *, shared: Any = None, hear: Hear = _unheard
    ) -> Iterator[tuple[int, Any]]:
        """Runs ``work`` once for each item, and yields ``(number of the item, result)`` in the order in which they end.

        The next item is taken when a worker is free for it, after the results so far have been used. So an item may
        depend on results before it.

        Args:
            work: the function.
            items: what it is called with.
            shared: an argument that all calls have in common; it is sent once.
            hear: receives the messages of the pieces.

        Raises:
            ComputeError: the cluster cannot do it, or was lost.
            Exception: what ``work`` or ``hear`` raises; pieces in progress are given up.
        """

    @abc.abstractmethod
    def together(self, work: JointWork, *, shared: Any = None, hear: Hear = _unheard) -> Any:
        """Runs ``work`` on all workers at once, and returns the first worker's result; raises as :meth:`run` does.

        If a worker is lost, all of them begin again, from what the group saved last.
        """

    def map(self, work: Work, items: Iterable[Any], *, shared: Any = None, hear: Hear = _unheard) -> list[Any]:
        """Returns the results in the order of the items; see :meth:`run`."""
        return [result for _, result in sorted(self.run(work, items, shared=shared, hear=hear), key=lambda one: one[0])]


class Here(Pool):
    """This process: one piece after the other."""

    elsewhere = False

    def run(
        self, work: Work, items: Iterable[Any], *, shared: Any = None, hear: Hear = _unheard
    ) -> Iterator[tuple[int, Any]]:
        """See :class:`Pool`."""
        for number, item in enumerate(items):
            yield number, work(shared, item, functools.partial(_told, hear, number))

    def together(self, work: JointWork, *, shared: Any = None, hear: Hear = _unheard) -> Any:
        """See :class:`Pool`; this process is the only worker."""
        return work(shared, ALONE, functools.partial(_told, hear, 0))


def _told(hear: Hear, number: int, message: Any) -> bool:
    return bool(hear(number, message))


HERE = Here()
"""The pool that is this process."""
