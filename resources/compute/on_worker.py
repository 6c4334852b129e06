"""What runs on a worker of a Ray cluster.

Belongs here: calling the work, comparing versions, sending messages, the group of Ray Train. Does not belong here: the
process that asks for the work (``on_ray.py``). This module is imported on workers by name, from the code that they got
from that process, so it imports little.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import importlib.metadata
import pickle
import platform
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.compute.group import TorchGroup

PACKAGES = ("ray", "torch", "numpy", "pandas", "scipy", "scikit-learn", "xgboost-cpu", "tabm", "rtdl_num_embeddings")
"""Packages that must have the same version on both sides: they change weights, scores or what can be sent."""

ATTEMPTS = 4
"""How often a piece is begun before its loss is an error."""

_STATE = "state.pt"


@dataclass(frozen=True)
class Outcome:
    """What became of a piece: its result, or the error that it raised, or why it was not begun."""

    result: Any = None
    error: BaseException | None = None
    refused: str = ""


class Mailbox:
    """Messages of the pieces, for the process that asked; it is an actor of Ray."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, Any]] = []
        self._stopped: set[int] = set()

    def put(self, number: int, message: Any) -> bool:
        """Adds a message; returns whether the piece should stop."""
        self._messages.append((number, message))
        return number in self._stopped

    def take(self) -> list[tuple[int, Any]]:
        """Returns and removes the messages so far."""
        taken, self._messages = self._messages, []
        return taken

    def stop(self, number: int) -> None:
        """Lets a piece stop when it sends its next message."""
        self._stopped.add(number)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of :data:`PACKAGES` in this process; a build such as ``+cpu`` is left out."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def differences(theirs: Mapping[str, str]) -> str:
    """Returns what differs between ``theirs`` and this process, as a list in words; empty if nothing does."""
    mine = versions()
    return ", ".join(f"{name} {value}, here {mine[name]}" for name, value in theirs.items() if mine[name] != value)


def piece(refs: list[Any], item: Any, number: int, mailbox: Any, expected: Mapping[str, str]) -> Outcome:
    """Runs one piece; see ``Pool.run``. ``refs``: the reference of the function and the shared argument."""
    if refused := _refused(expected):
        return Outcome(refused=refused)
    try:
        work, shared = _unpacked(refs[0])
        let_torch_travel()
        return Outcome(work(shared, item, functools.partial(_tell, mailbox, number)))
    except Exception as error:
        return Outcome(error=_portable(error))


def let_torch_travel() -> None:
    """Lets pickles name parts of torch that are modules, but of types of their own.

    A network of a class that a function defines is pickled with all that its methods mention. A method that mentions
    ``classes`` seems to mention ``torch.classes``, which cannot be pickled otherwise.
    """
    import torch

    for part in (torch.classes, torch.ops):
        copyreg.pickle(type(part), _by_name)


def _by_name(module: Any) -> tuple[Any, ...]:
    return importlib.import_module, (module.__name__,)


def _refused(expected: Mapping[str, str]) -> str:
    if not (found := differences(expected)):
        return ""
    import ray

    return f"a worker on node {ray.util.get_node_ip_address()} has other versions: {found}"


def _unpacked(ref: Any) -> tuple[Any, Any]:
    """The function and the shared argument; those of the latest pieces stay in this process."""
    import ray

    key = ref.hex()
    if key not in _latest:
        _latest.clear()
        _latest[key] = ray.get(ref)
    return _latest[key]


_latest: dict[str, tuple[Any, Any]] = {}


def _tell(mailbox: Any, number: int, message: Any) -> bool:
    import ray

    return bool(mailbox is not None and ray.get(mailbox.put.remote(number, message)))


def _portable(error: Exception) -> BaseException:
    """The error with the worker's traceback as a note; an error that cannot be sent becomes a RuntimeError."""
    from ray import cloudpickle

    said = "".join(traceback.format_exception(error))
    try:
        again = pickle.loads(cloudpickle.dumps(error))
        portable = again if type(again) is type(error) else None
    except Exception:  # an error may refuse to be pickled in any way
        portable = None
    if portable is None:
        portable = RuntimeError(f"{type(error).__name__}: {error}")
    portable.__cause__ = None
    portable.add_note(f"on a worker:\n{said}")
    return portable


@dataclass(frozen=True)
class Joint:
    """How a group runs: number of workers, Ray's resources of each, where and under which name states are saved."""

    workers: int
    resources: Mapping[str, float]
    checkpoints: str
    name: str


def jointly(refs: list[Any], joint: Joint, heard: bool, mailbox: Any, expected: Mapping[str, str]) -> Outcome:
    """Runs a function on a group of workers by Ray Train; see ``Pool.together``.

    This is a task of its own without a processor: if its node is lost, Ray begins it again elsewhere, and the workers
    go on from the state that was saved last.
    """
    if refused := _refused(expected):
        return Outcome(refused=refused)
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = joint.resources.get("GPU", 0.0) > 0
    member: Any = _member  # the declared type allows no result, which Ray Train passes on
    trainer = TorchTrainer(
        member,
        train_loop_config={"refs": refs, "number": 0, "heard": heard, "mailbox": mailbox, "expected": dict(expected)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=joint.workers, use_gpu=gpus, resources_per_worker=dict(joint.resources)
        ),
        run_config=ray.train.RunConfig(
            name=joint.name,
            storage_path=joint.checkpoints,
            failure_config=ray.train.FailureConfig(max_failures=ATTEMPTS - 1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
    )
    try:
        ended: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        return Outcome(refused=_first_line(error))
    assert isinstance(ended.return_value, Outcome)
    return ended.return_value


def _member(config: dict[str, Any]) -> Outcome:
    """One worker of a group. An error of the work itself is returned, because beginning again would repeat it."""
    if refused := _refused(config["expected"]):
        return Outcome(refused=refused)
    work, shared = _unpacked(config["refs"][0])
    let_torch_travel()
    group = RayGroup()

    def tell(message: Any) -> bool:
        return group.rank == 0 and config["heard"] and _tell(config["mailbox"], config["number"], message)

    try:
        result = work(shared, group, tell)
    except Exception as error:
        if _lost_peer(error):
            raise
        # The others may be waiting for this worker, so the process that asked is told at once.
        _tell(config["mailbox"], config["number"], outcome := Outcome(error=_portable(error)))
        return outcome
    return Outcome(result if group.rank == 0 else None)


def _lost_peer(error: Exception) -> bool:
    """Whether an error comes from the group, not from the work: a peer is gone, or Ray Train ends the attempt."""
    return type(error).__module__.startswith(("ray.", "torch.distributed")) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "Connection"))
    )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class RayGroup(TorchGroup):
    """A worker of Ray Train, whose states survive it."""

    def __init__(self) -> None:
        import ray.train

        context = ray.train.get_context()
        super().__init__(context.get_world_rank(), context.get_world_size())

    def saved(self) -> dict[str, Any] | None:
        """See :class:`Group`."""
        import ray.train
        import torch

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            state: dict[str, Any] = torch.load(Path(folder) / _STATE, map_location="cpu", weights_only=False)
        return state

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """See :class:`Group`."""
        import ray.train
        import torch

        if self.rank:
            ray.train.report({})
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(now := state(), Path(folder) / _STATE)
            ray.train.report({"epoch": now["epoch"]}, checkpoint=ray.train.Checkpoint.from_directory(folder))
