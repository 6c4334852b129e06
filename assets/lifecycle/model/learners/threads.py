"""How many threads a computation uses.

Belongs here: keeping libraries from using more than helps. Does not belong here: what is computed.
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
    """PyTorch and the linear algebra below NumPy use one thread each.

    The steps of a small network are too short to be shared: threads wait for one another, and they wait by computing.
    On two busy cores a table of 600 rows took 35 CPU seconds to fit with two threads and 1 with one. What can be done
    at the same time is whole fits, which wait for nobody (``fitting.choose``). One thread also sums in one order on
    every machine, so the same rows give the same weights.
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
    """``work`` within :func:`one_thread`."""

    @functools.wraps(work)
    def on_one(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with one_thread():
            return work(*args, **kwargs)

    return on_one
