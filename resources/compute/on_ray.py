"""A pool on a Ray cluster, seen from the process that asks for work.

Belongs here: connecting, the code that workers get, waiting for results, and what errors of a cluster mean. Does not
belong here: what runs on a worker (``on_worker.py``), and starting a cluster that outlives this process.

Workers get the folders ``assets`` and ``resources`` of this process, so a cluster needs none of our code. It needs the
same Python, Ray and numerical packages, which each worker compares before its first piece.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from resources.compute import on_worker
from resources.compute.need import Compute
from resources.compute.pool import ComputeError, Hear, JointWork, Pool, Work, _unheard
from resources.processes import tied_to_parent
from resources.settings import project_root

LOCAL = "local"
CODE = ("assets", "resources")
"""Folders that workers get."""
ANSWER_S, LOST_S, JOIN_S, JOIN_ATTEMPTS = 10.0, 15.0, 120.0, 3
"""Seconds that a head has to answer when it is asked first, after which a silent head counts as lost, and that this
machine has to become a node, with the number of attempts. Ray ends this process after 60 seconds without its head."""
POLL_S, HEAD_S = 0.2, 2.0
"""Seconds between two looks at messages and results, and between two looks at the head."""
_QUIET = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
}  # fmt: skip
"""Variables of the workers; see ``settings.one_thread_each`` and ``settings.quiet_telemetry``."""


@contextlib.contextmanager
def opened(
    address: str, need: Compute, *, checkpoints: str, patience_s: float, log: Callable[[str], None]
) -> Iterator[OnRay]:
    """Connects to the cluster at ``address`` and yields a pool; disconnects at the end.

    Raises:
        ComputeError: see ``Computing.open``.
    """
    if importlib.util.find_spec("ray") is None:
        raise ComputeError("Ray is not installed; run `pip install 'assetline[ray]'`, or unset ASSETLINE_RAY")
    if address != LOCAL:
        _knock(address)
    with tempfile.TemporaryDirectory() as folder, _joined(address):
        _copy_code(Path(folder))
        with _signals_kept():
            _connect(address, folder)
        try:
            pool = OnRay(address, need, checkpoints=checkpoints, patience_s=patience_s)
            log(f"Ray at {pool.where}: {pool.room()}; asked for {need}")
            yield pool
        finally:
            import ray

            ray.shutdown()


def _copy_code(folder: Path) -> None:
    for name in CODE:
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(project_root() / name, folder / name, ignore=ignored)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts back the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    """Makes this machine a node of the cluster without processors, where it is none: Ray needs one beside a driver.

    The node ends with this process, also if that is killed.
    """
    if address == LOCAL or _is_node(address):
        yield
        return
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--num-cpus=0",
               "--num-gpus=0", "--block", "--disable-usage-stats"]  # fmt: skip
    for attempt in range(JOIN_ATTEMPTS):
        with tempfile.NamedTemporaryFile() as output:
            node = subprocess.Popen(
                tied_to_parent(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            try:
                said = _said_when_started(node, Path(output.name))
                if "Ray runtime started" in said:
                    yield
                    return
            finally:
                node.terminate()
                try:
                    node.wait(timeout=JOIN_S)
                except subprocess.TimeoutExpired:
                    node.kill()
                    node.wait()
        # Ray gives a node 30 seconds to start, which a busy machine may exceed.
        if "timed out during startup" not in said or attempt == JOIN_ATTEMPTS - 1:
            lines = [line.strip() for line in said.splitlines() if "rror" in line or "timed out" in line]
            raise ComputeError(
                f"this machine cannot join the Ray cluster at {address}: {(lines or ['no answer'])[-1]}; it needs the "
                "token of the cluster, the same Ray and Python, and a network in which both reach each other"
            )


def _said_when_started(node: subprocess.Popen[bytes], output: Path) -> str:
    """What `ray start` has said when it has started, has ended, or has taken too long."""
    until = time.monotonic() + JOIN_S
    while True:
        ended = node.poll() is not None
        said = output.read_text(errors="replace")
        if "Ray runtime started" in said or ended or time.monotonic() > until:
            return said
        time.sleep(POLL_S)


def _is_node(address: str) -> bool:
    """Whether a node of the cluster runs on this machine."""
    import psutil

    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        found = []
    heads = {address, *(f"{at[4][0]}:{port}" for at in found)}
    for process in psutil.process_iter(["name", "cmdline"]):
        arguments = process.info["cmdline"] or []
        if process.info["name"] == "raylet" and any(one.partition("=")[2] in heads for one in arguments):
            return True
    return False


def _connect(address: str, code: str) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray asks for a choice, and warns without one
    import ray

    if ray.is_initialized():
        raise ComputeError("this process already uses Ray; call `ray.shutdown()` before")
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(
            address=address,
            runtime_env={"working_dir": code, "env_vars": _QUIET},
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            **options,
        )
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise ComputeError(_unreachable(address, error)) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ComputeError(
            f"the cluster at {address} runs other versions: {' '.join(lines)}; install the same Python and the same "
            "Ray on both sides (constraints.txt has ours)"
        ) from error
    except Exception as error:  # Ray raises many classes here, Exception itself among them
        raise ComputeError(_unreachable(address, error)) from error


def _knock(address: str) -> None:
    """Refuses an address that nothing listens at, for which Ray would wait a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise ComputeError(
            f"ASSETLINE_RAY={address!r} does not answer ({error}); start Ray there (`ray start --head`), correct the "
            "address, or unset it to compute in this process"
        ) from error


def _unreachable(address: str, error: Exception) -> str:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if address == LOCAL:
        return f"Ray cannot be started on this machine: {said}; run this again when the machine is less busy"
    return (
        f"Ray at {address} cannot be used: {said}; it must be the port of a head (`ray start --head`), and "
        "RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH must be those that the cluster was started with"
    )


class _Messages:
    """The mailbox, seen from this process, which never waits for it: the actor takes seconds to start."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.taking = actor.take.remote()

    def taken(self) -> list[tuple[int, Any]]:
        """Returns the messages that have arrived, and asks for the next ones."""
        import ray

        if not ray.wait([self.taking], timeout=0)[0]:
            return []
        messages: list[tuple[int, Any]] = ray.get(self.taking)
        self.taking = self.actor.take.remote()
        return messages


class OnRay(Pool):
    """Workers of a Ray cluster that this process is connected to."""

    def __init__(self, address: str, need: Compute, *, checkpoints: str, patience_s: float) -> None:
        import ray

        self.need, self.data_parallel = need, need.data_parallel and need.workers > 1
        self._checkpoints, self._patience_s = checkpoints, patience_s
        self._head = str(ray.get_runtime_context().gcs_address)
        self.where = self._head if address == LOCAL else address
        self._versions = on_worker.versions()
        self._answered = time.monotonic()
        self._asked = 0.0

    def run(
        self, work: Work, items: Iterable[Any], *, shared: Any = None, hear: Hear = _unheard
    ) -> Iterator[tuple[int, Any]]:
        """See :class:`Pool`."""
        import ray

        on_worker.let_torch_travel()
        with self._explained():
            self._wait_for_room(1)
            call = ray.remote(on_worker.piece).options(
                num_cpus=self.need.cpus, num_gpus=self.need.gpus, memory=self.need.resources.get("memory"),
                max_retries=on_worker.ATTEMPTS - 1, name=getattr(work, "__name__", "piece"),
            )  # fmt: skip
            refs, upcoming = [ray.put((work, shared))], enumerate(items)
        with self._mailbox(hear) as mailbox:
            waiting: dict[Any, int] = {}
            try:
                while True:
                    while len(waiting) < self.need.workers:
                        number, item = next(upcoming, (-1, None))
                        if number < 0:
                            break
                        with self._explained():
                            waiting[call.remote(refs, item, number, mailbox and mailbox.actor, self._versions)] = number
                    if not waiting:
                        return
                    for ref in self._ready(list(waiting), mailbox, hear):
                        yield waiting.pop(ref), self._result(ref)
            finally:
                self._give_up(waiting)

    def together(self, work: JointWork, *, shared: Any = None, hear: Hear = _unheard) -> Any:
        """See :class:`Pool`."""
        import ray
        from ray import cloudpickle

        need = self.need
        workers = need.workers if need.data_parallel else 1
        with self._explained():
            self._wait_for_room(workers)
            # The same fit has the same name, so that one whose cluster was lost goes on from what it saved last.
            name = hashlib.blake2b(cloudpickle.dumps((work, shared, workers)), digest_size=12).hexdigest()
            refs = [ray.put((work, shared))]
            joint = on_worker.Joint(workers, need.resources, self._checkpoints, name)
            call = ray.remote(on_worker.jointly).options(num_cpus=0, max_retries=on_worker.ATTEMPTS - 1)
        waiting: dict[Any, int] = {}
        try:
            with self._mailbox(hear, always=True) as mailbox:
                assert mailbox is not None
                with self._explained():
                    waiting[call.remote(refs, joint, hear is not _unheard, mailbox.actor, self._versions)] = 0
                result = self._result(*self._ready(list(waiting), mailbox, hear))
                waiting.clear()
        except ComputeError:
            raise  # what was saved serves the next run
        except Exception:
            _remove(self._checkpoints, name)
            raise
        finally:
            self._give_up(waiting)
        _remove(self._checkpoints, name)
        return result

    @contextlib.contextmanager
    def _mailbox(self, hear: Hear, *, always: bool = False) -> Iterator[_Messages | None]:
        """An actor for the messages, on this process's own node; ``None`` if nobody hears them."""
        if hear is _unheard and not always:
            yield None
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        with self._explained():
            mailbox = _Messages(ray.remote(on_worker.Mailbox).options(num_cpus=0, scheduling_strategy=here).remote())
        try:
            yield mailbox
        finally:
            with contextlib.suppress(Exception):  # it may be gone with its cluster
                ray.kill(mailbox.actor)

    def _ready(self, waiting: Sequence[Any], mailbox: _Messages | None, hear: Hear) -> Sequence[Any]:
        """Waits until at least one piece has ended, and passes on the messages in the meantime."""
        import ray

        while True:
            with self._explained():
                ready, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_S, fetch_local=True)
                self._look_at_head()
            if mailbox is not None:
                self._pass_on(mailbox, hear)
                while ready and not self._all_passed_on(mailbox, hear):
                    self._look_at_head()
            if ready:
                return ready

    def _pass_on(self, mailbox: _Messages, hear: Hear) -> None:
        with self._explained():
            messages = mailbox.taken()
        for number, message in messages:
            if isinstance(message, on_worker.Outcome):
                assert message.error is not None
                raise message.error
            if hear(number, message):
                with self._explained():
                    mailbox.actor.stop.remote(number)

    def _all_passed_on(self, mailbox: _Messages, hear: Hear) -> bool:
        """Passes on the messages that were sent before now; whether it could within a moment."""
        import ray

        with self._explained():
            arrived = bool(ray.wait([mailbox.taking], timeout=HEAD_S)[0])
        if arrived:
            self._pass_on(mailbox, hear)
        return arrived

    def _result(self, ref: Any) -> Any:
        import ray

        with self._explained():
            outcome = ray.get(ref)
        if outcome.refused:
            raise ComputeError(
                f"Ray at {self.where}: {outcome.refused}; install the same packages on all nodes (constraints.txt has "
                "ours)"
                if "other versions" in outcome.refused
                else f"Ray at {self.where}: {outcome.refused}; the logs of the workers say more"
            )
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    def _give_up(self, waiting: Mapping[Any, int]) -> None:
        import ray

        for ref in waiting:
            with contextlib.suppress(Exception):  # it may have ended, or be gone with its cluster
                ray.cancel(ref, force=True)

    def _look_at_head(self) -> None:
        """Raises :class:`ComputeError` if the head has been silent for :data:`LOST_S` seconds."""
        now = time.monotonic()
        if now - self._asked < HEAD_S:
            return
        self._asked = now
        if self._head_answers():
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > LOST_S:
            self._lost(None)

    def _head_answers(self) -> bool:
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_S).close()
        except OSError:
            return False
        return True

    def _lost(self, cause: BaseException | None) -> NoReturn:
        raise ComputeError(
            f"the head of the Ray cluster at {self.where} was lost; nothing was written: start the cluster again and "
            "run this again, or unset ASSETLINE_RAY to compute in this process"
        ) from cause

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns errors of Ray into sentences."""
        from ray import exceptions

        try:
            yield
        except exceptions.RayError as error:
            if not self._head_answers():
                self._lost(error)
            raise ComputeError(f"Ray at {self.where}: {_said(error)}") from error

    def room(self) -> str:
        """What the nodes of the cluster have, in words."""
        parts = []
        for node in self._nodes():
            words = [f"{node.get('CPU', 0):g} CPU"]
            words += [f"{node['GPU']:g} GPU"] if node.get("GPU") else []
            parts.append(" and ".join([", ".join(words), f"{node.get('memory', 0) / 2**30:.1f} GiB"]))
        return f"{len(parts)} node{'s' if len(parts) != 1 else ''} ({'; '.join(parts)})"

    def _nodes(self) -> list[dict[str, float]]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def _slots(self) -> int:
        """Number of workers that the nodes of the cluster could have, whatever is in use now."""
        need = self.need.resources
        return sum(
            min(int(node.get(name, 0.0) / value + 1e-9) for name, value in need.items()) for node in self._nodes()
        )

    def _wait_for_room(self, workers: int) -> None:
        """Asks an autoscaler for more nodes if there is too little, and waits for them."""
        if self._slots() >= workers:
            return
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[self.need.resources] * workers)
        until = time.monotonic() + self._patience_s
        try:
            while self._slots() < workers:
                if time.monotonic() >= until:
                    asked = str(self.need) if workers > 1 else f"workers with {str(self.need).partition(' with ')[2]}"
                    raise ComputeError(
                        f"Ray at {self.where} has too little: {asked} are declared, and there are {self.room()}; add "
                        "nodes, or declare a smaller `compute` for the model"
                    )
                time.sleep(min(1.0, self._patience_s))
        finally:
            request_resources(bundles=[])


def _said(error: BaseException) -> str:
    """One sentence on an error of Ray, with what to do."""
    from ray import exceptions

    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, exceptions.RayTaskError):
        return f"a worker could not begin a piece: {type(error.cause).__name__}: {error.cause}"
    lost = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError)
    meant: dict[Any, str] = {
        (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError): "the object store of a node is full, and so is "
        "its disk; free disk space there, or start the node with a larger --object-store-memory",
        exceptions.OutOfMemoryError: "a node ran out of memory and ended a worker; declare Compute(memory=…) so that "
        "fewer workers share a node, or add nodes",
        lost: f"a piece lost its worker {on_worker.ATTEMPTS} times; the log of that node says why",
        exceptions.AuthenticationError: "the token is not accepted; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH "
        "to the file that the cluster was started with",
        exceptions.RuntimeEnvSetupError: "a worker could not get our code; the log of that node says why",
    }
    for kinds, sentence in meant.items():
        if isinstance(error, kinds):
            return f"{sentence} ({line})"
    return f"{line}; look at the logs of the cluster and run this again"


def _remove(checkpoints: str, name: str) -> None:
    """Removes what a fit that is over saved."""
    from pyarrow import fs

    with contextlib.suppress(OSError, FileNotFoundError):
        system, path = fs.FileSystem.from_uri(checkpoints if "://" in checkpoints else Path(checkpoints).as_uri())
        system.delete_dir(f"{path}/{name}")
