"""Two processes fit one network together, by gloo, without Ray: the same network as one process fits."""

import os
import subprocess
import sys

import numpy as np
import pytest

from assets.declaration import Training
from assets.lifecycle.model.fitting import _part, fit, outputs_of
from resources.compute import ALONE, Group
from resources.settings import project_root
from tests.declarations.tunable import line

RECIPE = Training(batch_size=32, learning_rate=0.05, seed=3)


def rows() -> tuple[np.ndarray, np.ndarray]:
    """A hundred rows: the last batch of 32 has four."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(float)


def fitted(group: Group = ALONE, epochs: int = 4, **given) -> np.ndarray:
    X, y = rows()
    return outputs_of(fit(X, y, recipe=RECIPE, epochs=epochs, network=line, group=group, **given), X)


class Kept(Group):
    """A group of one process that keeps its states, and begins from one of them."""

    def __init__(self, begin=None):
        self.states, self.begin = [], begin

    def saved(self):
        return self.begin

    def save(self, state):
        import copy

        self.states.append(copy.deepcopy(state()))


def test_two_processes_fit_what_one_process_fits(tmp_path):
    code = f"""
import sys
import numpy as np
import torch
from resources.compute.group import TorchGroup
from tests.assets.lifecycle.model.test_fitting_together import fitted
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/meet", rank=rank, world_size=2)
seen = []
outputs = fitted(TorchGroup(rank, 2), after_epoch=lambda epoch, *_: seen.append(epoch) or epoch == 3)
np.save("{tmp_path}/" + sys.argv[1], outputs)
assert seen == ([1, 2, 3] if rank == 0 else []), seen
"""
    env = {**os.environ, "PYTHONPATH": str(project_root())}
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(rank)], cwd=project_root(), env=env, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    ended = [process.communicate()[1].decode()[-2000:] for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    one, two = (np.load(tmp_path / f"{rank}.npy") for rank in range(2))
    assert np.array_equal(one, two), "both processes have the same weights, and stopped after the same epoch"
    np.testing.assert_allclose(one, fitted(epochs=3), atol=1e-4)


def test_a_fit_that_goes_on_from_a_state_ends_as_one_that_was_not_interrupted():
    kept = Kept()
    whole = fitted(kept)
    assert [state["epoch"] for state in kept.states] == [1, 2, 3, 4]
    lines = []
    assert np.array_equal(fitted(Kept(kept.states[1]), log=lines.append), whole)
    assert [said.partition(":")[0] for said in lines] == ["epoch 3/4", "epoch 4/4"]


def test_a_fit_that_had_stopped_is_not_continued():
    kept, seen = Kept(), []
    stopped = fitted(kept, after_epoch=lambda epoch, *_: epoch == 2, carried={"seen": seen})
    assert kept.states[-1]["stopped"]
    again = fitted(Kept(kept.states[-1]), after_epoch=lambda *_: pytest.fail("it went on"), carried={"seen": seen})
    assert np.array_equal(again, stopped)


def test_what_was_seen_so_far_is_restored():
    kept, seen = Kept(), []
    fitted(kept, after_epoch=lambda epoch, *_: seen.append(epoch), carried={"seen": seen})
    later: list = []
    fitted(Kept(kept.states[1]), after_epoch=lambda epoch, *_: later.append(epoch), carried={"seen": later})
    assert later == seen == [1, 2, 3, 4]


@pytest.mark.parametrize(("batch", "sizes"), [(32, [16, 16]), (5, [3, 2]), (1, [1, 1])])
def test_each_process_gets_its_part_of_a_batch_and_its_weight_in_the_mean(batch, sizes):
    import torch

    values = torch.arange(1.0, batch + 1)
    parts = []
    for rank in range(2):
        group = Group()
        group.rank, group.size = rank, 2
        parts.append(_part(values, group))
    assert [len(part) for part, _ in parts] == sizes
    assert np.mean([float(part.mean()) * share for part, share in parts]) == pytest.approx(float(values.mean()))
