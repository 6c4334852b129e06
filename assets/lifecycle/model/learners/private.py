"""Differential privacy of a fitted network: DP-SGD with Opacus (Abadi et al., 2016).

Each step draws every row with the same probability (Poisson sampling), clips the gradient of each drawn row to
``max_grad_norm``, and adds Gaussian noise to their sum. The noise is as small as the accountant allows for the declared
ε, δ and number of steps.

Belongs here: the noise, what it spends, and the private steps. Does not belong here: the fit around them
(``fitting.py``), what the card says of it (``release/model_card.py``). docs/privacy.md says what ε covers.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.declaration import Training
from resources.compute import ALONE, Group

if TYPE_CHECKING:
    import torch

Draw = Callable[["torch.Tensor"], Iterable["torch.Tensor"]]
"""The batches of an epoch, as positions of rows, given the positions of all rows."""
CHECKED_ROWS = 8
"""Rows on which a network is asked whether one row's output depends on another row."""


class PrivacyError(Exception):
    """A fit that cannot be private; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """The noise of a private fit, and what it spends.

    Args:
        epsilon: ε that is spent after ``steps``; at most the declared one.
        declared_epsilon: the declared ε.
        delta: the declared δ.
        max_grad_norm: norm to which a row's gradient is clipped.
        noise_multiplier: standard deviation of the noise, as a multiple of ``max_grad_norm``.
        sample_rate: probability with which a step draws a row.
        steps: number of steps of the fit.
        repeatable: whether the noise follows the recipe's seed, which is no secret.
    """

    epsilon: float
    declared_epsilon: float
    delta: float
    max_grad_norm: float
    noise_multiplier: float
    sample_rate: float
    steps: int
    repeatable: bool

    @classmethod
    def of_recipe(cls, recipe: Training, *, rows: int, epochs: int) -> Plan | None:
        """Returns the plan of a fit with the smallest noise that keeps within ε; None for a recipe without privacy.

        Args:
            recipe: the recipe, sized for the rows.
            rows: number of rows of the fit.
            epochs: passes over the rows.

        Raises:
            PrivacyError: Opacus is not installed, δ is too large for so many rows, or ε cannot be reached.
        """
        privacy, batch_size = recipe.privacy, recipe.batch_size
        if privacy is None:
            return None
        assert batch_size is not None
        if privacy.delta >= 1 / rows:
            raise PrivacyError(
                f"training.privacy: delta={privacy.delta:g} allows that one of {rows:,} rows is published as it is; "
                f"give less than 1 divided by the number of rows, e.g. {0.1 / rows:.0e}"
            )
        rate, steps = min(1.0, batch_size / rows), epochs * steps_an_epoch(rows, batch_size)
        noise = least_noise(privacy.epsilon, sample_rate=rate, steps=steps, delta=privacy.delta)
        spent = epsilon_of(noise, sample_rate=rate, steps=steps, delta=privacy.delta)
        return cls(spent, privacy.epsilon, privacy.delta, privacy.max_grad_norm, noise, rate, steps, privacy.repeatable)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for the facts of a version."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"differential privacy: epsilon {self.epsilon:.4g} of {self.declared_epsilon:g} spent, delta "
            f"{self.delta:g}, {self.steps:,} steps, noise multiplier {self.noise_multiplier:.4g}"
        )


def steps_an_epoch(rows: int, batch_size: int) -> int:
    """Returns the number of steps of an epoch, as in a fit without privacy."""
    return max(1, -(-rows // batch_size))


@functools.cache
def least_noise(epsilon: float, *, sample_rate: float, steps: int, delta: float) -> float:
    """Returns the smallest noise multiplier with which so many steps spend at most ε, to a thousandth of ε.

    Raises:
        PrivacyError: Opacus is not installed, or no noise is enough.
    """
    _import_opacus()
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Rényi orders at the end of their range: the bound holds, but is loose
            return float(get_noise_multiplier(
                target_epsilon=epsilon, target_delta=delta, sample_rate=sample_rate, steps=steps, accountant="rdp",
                epsilon_tolerance=epsilon / 1_000,
            ))  # fmt: skip
    except ValueError as error:
        raise PrivacyError(
            f"training.privacy: no noise is enough for epsilon={epsilon:g} and delta={delta:g} in {steps:,} steps that "
            f"draw {sample_rate:.2%} of the rows; give a larger epsilon, or smaller max_epochs"
        ) from error


def epsilon_of(noise_multiplier: float, *, sample_rate: float, steps: int, delta: float) -> float:
    """Returns the ε of so many steps, an upper bound by Rényi differential privacy.

    Raises:
        PrivacyError: Opacus is not installed.
    """
    _import_opacus()
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta))


def steps_of(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Training,
    rows: torch.Tensor,
    *,
    epochs: int,
    weight: object = None,
    group: Group = ALONE,
) -> tuple[Any, Draw]:
    """Returns what makes a step and how the rows of the steps are drawn; private, if the recipe is.

    Without privacy, it is the optimiser itself, and each epoch takes every row once.

    Args:
        network: the layers in training mode; with privacy, they get hooks that compute the gradient of each row.
        optimiser: the optimiser of their parameters.
        recipe: the recipe, sized for the rows.
        rows: the rows of the fit as the network receives them, on its device.
        epochs: passes over the rows.
        weight: row weights, if there are any.
        group: the processes that fit the network together.

    Raises:
        PrivacyError: the recipe is private, and this fit cannot be.
    """
    batch_size = recipe.batch_size
    assert batch_size is not None
    plan = Plan.of_recipe(recipe, rows=len(rows), epochs=epochs)
    if plan is None:
        return optimiser, lambda order: order.split(batch_size)
    if weight is not None:
        raise PrivacyError("training.privacy: rows have weights, and one row would change those of all others")
    if group.size > 1:
        raise PrivacyError("training.privacy: a private fit runs in one process; give compute.data_parallel=False")
    import torch
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    # Torch warns of hooks on layers whose inputs, the features, have no gradient; nobody needs that gradient.
    warnings.filterwarnings("ignore", "Full backward hook is firing")
    _refuse_mixed_rows(network, rows[:CHECKED_ROWS])
    GradSampleModule(network, strict=False)  # strict refuses buffers; the check above finds those that mix rows
    # Whoever knows the draws can subtract the noise. Torch's generator has 32 bits of seed on a CPU, which can be tried
    # one by one; NumPy's gets 128 bits from the system, which are not kept.
    random = np.random.default_rng((recipe.seed, 1) if plan.repeatable else None)

    class Private(DPOptimizer):
        def add_noise(self) -> None:
            for p in self.params:
                noise = torch.from_numpy(random.standard_normal(tuple(p.shape), dtype=np.float32)).to(p.device)
                p.grad = p.summed_grad + noise * (self.noise_multiplier * self.max_grad_norm)

    def draw(order: torch.Tensor) -> Iterator[torch.Tensor]:
        for _ in range(steps_an_epoch(len(order), batch_size)):
            yield torch.from_numpy((random.random(len(order)) < plan.sample_rate).nonzero()[0]).to(order.device)

    private = Private(
        optimiser, noise_multiplier=plan.noise_multiplier, max_grad_norm=plan.max_grad_norm,
        expected_batch_size=batch_size,
    )  # fmt: skip
    return private, draw


def _refuse_mixed_rows(network: torch.nn.Module, rows: torch.Tensor) -> None:
    """Refuses a network in which the output of a row depends on another row, as with batch normalisation."""
    import torch

    normalised = torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm
    given = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(given)[0].sum(), given, allow_unused=True)
    mixed = gradient is not None and bool((gradient[1:] != 0).any())
    if mixed or any(isinstance(part, normalised) for part in network.modules()):
        raise PrivacyError(
            "training.privacy: the network's output of one row depends on the other rows of the batch, so no row has "
            "a gradient of its own; replace batch normalisation by layer or group normalisation"
        )


def _import_opacus() -> None:
    try:
        import opacus  # noqa: F401
    except ImportError as error:
        raise PrivacyError(
            "training.privacy needs the package opacus: pip install -e '.[privacy]' -c constraints.txt"
        ) from error
