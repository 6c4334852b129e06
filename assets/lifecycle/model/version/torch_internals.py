"""Wrappers of what torch has no public API for: giving up the memory of networks that are not used any more.

torch keeps each trace, and what loading an exported network computes on the way, until the process ends: 1.7 MB for a
version of the example. A service that loads one version after the other would grow by that.
``tests/assets/lifecycle/model/test_torch_internals.py`` tests that it does not.

Belongs here: those two wrappers. Does not belong here: tracing (``bundle.py``), when a version is not used any more
(``serving/scoring/service.py``).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def standing_alone(traced: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The same network, outside of the collection that holds all traces of the process: it goes with its last user."""
    import torch

    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def forget_traces() -> None:
    """Empties the collection of traces and torch's cache of shapes.

    Only for a process that keeps no other network than those of :func:`standing_alone`: any other one that was traced
    or scripted in it cannot be used afterwards.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    torch._C._jit_clear_class_registry()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    torch.jit._state._clear_class_state()
    FakeTensorMode.cache_clear()
