"""Functions that tests run on workers."""

import os
import signal
import time
from pathlib import Path

import resources
from assets.lifecycle.model.fitting import fit, outputs_of
from assets.lifecycle.monitoring import predictions
from tests.declarations.tunable import line

score = predictions._scores


def square(shared, item, tell):
    tell(f"piece {item}")
    return shared + item**2


def where(_shared, _item, _tell):
    import ray

    return resources.__file__, os.getcwd(), ray.get_runtime_context().get_node_id()


def fails(_shared, item, _tell):
    if item == 2:
        raise ValueError(f"item {item} is wrong")
    return item


def until_told(_shared, item, tell):
    """Ends when it is told to; the first item ends by itself."""
    told = 0
    while item and not tell(told):
        told += 1
        time.sleep(0.05)
    return told


def crash(_shared, _item, _tell):
    os.kill(os.getpid(), signal.SIGKILL)


def score_slowly(shared, X, tell):
    """The lifecycle's own function; it writes down that it was called."""
    folder = Path(os.environ["MARKS"])
    with (folder / "begun").open("a") as marks:
        marks.write("x\n")
    time.sleep(0.05)
    return score(shared, X, tell)


def fragile(X, y, **arguments):
    """A line whose process is killed in the middle of its third epoch, if a file says so."""
    import torch

    class Fragile(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = line(X, y, **arguments)
            self.steps = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.steps += self.training
            fuse = Path(os.environ["MARKS"]) / "fuse"
            if self.training and self.steps == 11 and os.environ.get("RANK") == "1" and fuse.exists():
                import ray.train

                ray.train.get_all_reported_checkpoints()  # waits until the second epoch is registered
                fuse.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return self.line(x)

    return Fragile()


def fit_of_a_group(rows, group, tell):
    """The network of some rows, as the lifecycle fits it, and its epochs so far."""
    X, y, training = rows
    module = fit(X, y, recipe=training, epochs=5, network=fragile, log=tell, group=group)
    return outputs_of(module, X)
