"""The Dagster resource that opens pools.

Belongs here: the choice between this process and a cluster. Does not belong here: the pools.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a resource's fields.
import contextlib
from collections.abc import Callable, Iterator
from typing import Self

import dagster as dg
from pydantic import Field

from resources.compute.need import Compute
from resources.compute.pool import HERE, Pool
from resources.settings import Settings
from resources.table_files import is_url


class Computing(dg.ConfigurableResource):
    """Opens pools for the models that declare ``compute``; without an address, all of them are this process."""

    address: str = Field(
        default="", description="`local`: a Ray on this machine; host:port: the head of a cluster; empty: no Ray."
    )
    checkpoints: str = Field(
        default="",
        description="Folder or bucket for checkpoints of data-parallel fits, which all nodes of the cluster reach.",
    )
    patience_s: float = Field(
        default=120.0, description="Seconds that a cluster has to grow until it has what a model declares."
    )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The resource for ``settings``; checkpoints are beside the tables if those are in a bucket."""
        tables = settings.tables.removeprefix("delta+")
        checkpoints = f"{tables}/.checkpoints" if is_url(tables) else str(settings.home / "checkpoints")
        return cls(address=settings.ray, checkpoints=checkpoints)

    @contextlib.contextmanager
    def open(self, need: Compute | None, log: Callable[[str], None] = lambda _: None) -> Iterator[Pool]:
        """Yields a pool for a model: on the cluster if there is one and the model declares ``compute``.

        Args:
            need: what the model declares.
            log: receives one line about the cluster.

        Raises:
            ComputeError: Ray is not installed, the cluster does not answer, it has other versions, or too little for
                the request.
        """
        if not self.address or need is None:
            yield HERE
            return
        from resources.compute.on_ray import opened

        with opened(self.address, need, checkpoints=self.checkpoints, patience_s=self.patience_s, log=log) as pool:
            yield pool
