"""Limits the number of threads that a computation uses.

Belongs here: thread limits for libraries. Does not belong here: the computations.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits PyTorch and NumPy's linear algebra to one thread each.

    The steps of a small network are too short to split among threads: the threads busy-wait for one another. On two
    busy cores, fitting a table of 600 rows took 35 CPU seconds with two threads and 1 with one. Whole fits can run in
    parallel, because they do not depend on one another (``fitting.select``). One thread also fixes the order of
    summation on every machine, so the same rows give the same weights.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def on_one_thread(work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator that runs ``work`` within :func:`one_thread`."""

    @functools.wraps(work)
    def on_one(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with one_thread():
            return work(*args, **kwargs)

    return on_one
