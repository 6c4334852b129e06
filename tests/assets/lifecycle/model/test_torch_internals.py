"""A trace that stands alone goes with its last user."""

import subprocess
import sys

import numpy as np
import torch

from assets.lifecycle.model.version.torch_internals import standing_alone
from resources.settings import project_root

SCRIPT = """
import gc
import torch
from assets.lifecycle.model.version.torch_internals import forget_traces, standing_alone

def one(seed, forgets):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
    rows = torch.ones(3, 4)
    with torch.no_grad():
        traced = standing_alone(torch.jit.freeze(torch.jit.trace(network, (rows,), check_trace=False)))
    if forgets:
        forget_traces()
    assert torch.equal(traced(rows), network(rows))
    return traced

kept = one(0, True)
before = kept(torch.ones(2, 4))
def classes():
    gc.collect()  # each trace makes some classes
    return sum(isinstance(one, type) for one in gc.get_objects())

one(1, True)
first = classes()
for n in range(2, 6):
    one(n, True)
assert classes() == first, "a trace was left"
assert torch.equal(kept(torch.ones(2, 4)), before), "a version that still serves must not change"
one(6, False)
assert classes() > first, "without it, torch keeps them"
"""


def test_standing_alone_it_scores_the_same():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    network = torch.nn.Linear(3, 2).eval()
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(network, (rows,), check_trace=False))
        alone = standing_alone(traced)
        assert torch.equal(alone(rows), traced(rows))
        assert torch.equal(alone(rows[:1]), network(rows[:1]))


def test_traces_that_nobody_uses_are_forgotten_and_those_in_use_go_on():
    # A process of its own, because other tests of this one trace networks, too.
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=project_root(), check=True)
