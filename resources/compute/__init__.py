"""Where long computations run: in this process, or on a Ray cluster (``ASSETLINE_RAY``).

A computation asks a :class:`Pool` to run a function on independent items, or on several workers together. Without Ray,
these are plain calls in this process. Nothing of Ray is imported before a pool on Ray is opened.

Belongs here: pools, what a model asks of them, and errors of a cluster. The Dagster resource is in ``resource.py``,
which workers do not import. Does not belong here: what is computed (``assets/lifecycle``), and how a cluster is started
(``deploy/kubernetes``, docs/scale.md).
"""

from resources.compute.group import ALONE, Group
from resources.compute.need import Compute
from resources.compute.pool import HERE, ComputeError, Pool, Tell

__all__ = ["ALONE", "HERE", "Compute", "ComputeError", "Group", "Pool", "Tell"]
