"""Read tasks and model actors on a Ray cluster, or on this machine with Ray."""

from __future__ import annotations

import logging
import math
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from rs_embed._optional import require
from rs_embed.errors import EngineError, Note, give_warnings
from rs_embed.parallel.cores import cores
from rs_embed.runs.processes import python_path
from rs_embed.runs.supervision import Lost
from rs_embed.runs.worker import notes_of, sendable, stream_for_ever, warnings_kept
from rs_embed.settings import (
    child_environment,
    set_default,
    stated_ray_address,
    stated_threads,
)

if TYPE_CHECKING:
    from rs_embed.runs.shards import Shard, Work, WorkInSteps

logger = logging.getLogger("rs_embed.runs")
# Shards of one actor at once: most of them are being read.
_SHARDS_EACH = 8
# A task that reads mostly waits for files and servers.
_READING_CPUS = 0.5
# What is under way is small. Ray would take a third of the memory; more than this goes to disk.
_STORE_BYTES = 2**30
# In a process of its own: Ray tries for minutes, does not hear Ctrl-C, and may end its process.
_JOIN = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
_JOIN_S, _START_S, _LOOK_S, _SILENT_S = 30, 600, 5, 60


@dataclass(eq=False)
class _Lane:
    """An actor, and the shards that are read, by the reference of their results, in order."""

    actor: Any
    began: Any
    since: float = field(default_factory=time.monotonic)
    finishing: dict[Any, tuple[Shard, Any]] = field(default_factory=dict)
    # Of work that is not in steps: shards by their number.
    streaming: dict[int, Shard] = field(default_factory=dict)


class RayPool:
    """Shards that Ray reads anywhere, and actors with a model; see `.supervision.Pool`.

    A context manager. It uses Ray as the caller has initialised it, else joins a cluster, else
    starts Ray on this machine, which then ends with it. It has one actor for each GPU, else one for
    each node; they begin when the cluster has room for them.

    Parameters
    ----------
    work : bytes
        The pickled `rs_embed.runs.shards.Work`.
    in_steps : bool
        Whether it is `rs_embed.runs.shards.WorkInSteps`. If not, actors read what they need.
    workers : int or None
        Actors, if not as many.
    address : str or None
        Of the head node, or ``"auto"``; None is ``RAY_ADDRESS``, else Ray on this machine.
    gpus : bool
        Whether actors may take GPUs.
    start_s : float
        How long the cluster may take to make room for an actor.
    """

    lanes: int
    depth = _SHARDS_EACH

    def __init__(
        self,
        work: bytes,
        workers: int | None,
        address: str | None,
        *,
        in_steps: bool = True,
        gpus: bool = True,
        start_s: float = _START_S,
    ) -> None:
        self._ray = require_ray()
        self._sent, self._workers, self._start_s = work, workers, start_s
        self._in_steps, self._gpus, self._given = in_steps, gpus, 0
        self._ended = time.monotonic()
        self._address = address or stated_ray_address()
        self._stack = ExitStack()
        self._reading: dict[Any, tuple[int, Shard, Any]] = {}
        self._lanes: list[_Lane] = []

    def __enter__(self) -> RayPool:
        with ExitStack() as undone:
            undone.push(self.__exit__)
            self._connect()
            self._plan()
            self._lanes = [self._started() for _ in range(self.lanes)]
            undone.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for read in self._reading:
            self._ray.cancel(read, force=True)
        for lane in self._lanes:
            self._ray.kill(lane.actor)
        self._stack.close()

    def _connect(self) -> None:
        """Join or start Ray, unless the caller has."""
        if self._ray.is_initialized():
            joined = self._ray.get_runtime_context().gcs_address
            if self._address not in (None, "auto", "local", joined):
                raise EngineError(
                    f"got Ray at {self._address}, but this process has joined {joined} already; "
                    "call ray.shutdown() first, or leave the address out (also RAY_ADDRESS)"
                )
            return
        # Ray prints there what happens to its processes.
        self._stack.enter_context(redirect_stdout(sys.stderr))
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address in (None, "local"):
            # Sockets have short paths, and the folder of another user cannot be written.
            folder = tempfile.TemporaryDirectory(
                prefix="rs_ray_", dir="/tmp" if os.path.isdir("/tmp") else None,  # noqa: S108
                ignore_cleanup_errors=True,
            )  # fmt: skip
            set_default("RAY_USAGE_STATS_ENABLED", "0")
            options |= {
                "address": "local", "include_dashboard": False,
                "num_cpus": max(cores(), (self._workers or 1) + 1),
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": self._stack.enter_context(folder),
            }  # fmt: skip
        else:
            check_address(str(self._address))
            options["address"] = self._address
        self._stack.callback(self._ray.shutdown)
        try:
            self._ray.init(**options)
        except Exception as exc:
            raise EngineError(f"Ray cannot be started or joined: {exc}") from exc

    def _plan(self) -> None:
        """Settle how many actors there are, and what each of them and each read takes."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        gpus = [node for node in nodes if self._gpus and node["Resources"].get("GPU", 0) >= 1]
        hosts = gpus or [node for node in nodes if node["Resources"].get("CPU", 0) > 0]
        if not hosts:
            raise EngineError("got a Ray cluster without CPUs, expected nodes that work")
        count = sum(int(node["Resources"].get("GPU", 0)) for node in gpus) or len(hosts)
        self.lanes = self._workers or count
        least = min(node["Resources"].get("CPU", 1) for node in hosts)
        threads = max(1, int(least / math.ceil(self.lanes / len(hosts))))
        # An actor leaves room for reading.
        taken = {"num_cpus": threads - 1 if threads > 1 and not gpus else 0.5}
        self._needs = {**taken, "num_gpus": 1} if gpus else taken
        here = self._ray.get_runtime_context().get_node_id()
        variables = {}
        if [node["NodeID"] for node in nodes] == [here]:
            variables["PYTHONPATH"] = python_path()
        # Before PyTorch and BLAS are imported, which read it once.
        of_actor = {"OMP_NUM_THREADS": str(stated_threads() or threads), **variables}
        once = {"max_retries": 0, "scheduling_strategy": "SPREAD"}
        self._read = self._ray.remote(_read).options(
            num_cpus=_READING_CPUS, num_returns=2, runtime_env={"env_vars": variables}, **once
        )
        self._model = self._ray.remote(_Model if self._in_steps else _Streaming).options(
            max_restarts=0, scheduling_strategy="SPREAD",
            max_concurrency=1 if self._in_steps else _SHARDS_EACH + 1,
            runtime_env={"env_vars": of_actor}, **self._needs,
        )  # fmt: skip
        self._work = self._ray.put((os.getcwd(), self._sent))

    def _started(self) -> _Lane:
        actor = self._model.remote(self._work)
        return _Lane(actor, actor.began.remote())

    def submit(self, lane: int, shard: Shard) -> None:
        """Begin to read a shard."""
        if not self._in_steps:
            self._given += 1
            one = self._lanes[lane]
            one.streaming[self._given] = shard
            one.finishing[one.actor.result.remote(self._given, shard)] = shard, None
            return
        ended, content = self._read.remote(self._work, shard)
        self._reading[ended] = lane, shard, content

    def wait(self) -> Sequence[tuple[int, Shard, list[Any] | Lost]]:
        """Return lane, shard and outcome of what has ended, as soon as there is something."""
        while True:
            number_of = {ref: n for n, lane in enumerate(self._lanes) for ref in lane.finishing}
            ready, _ = self._ray.wait([*number_of, *self._reading], timeout=_LOOK_S)
            if not ready:
                self._check_room()
                continue
            (ref,) = ready
            self._ended = time.monotonic()
            if ref in number_of:
                return self._finished(number_of[ref], ref)
            number, shard, content = self._reading.pop(ref)
            outcome = self._outcome(ref)
            if isinstance(outcome, Lost):
                return [(number, shard, outcome)]
            self._finish(number, shard, content)

    def _finish(self, number: int, shard: Shard, content: Any) -> None:
        lane = self._lanes[number]
        lane.finishing[lane.actor.finish.remote(shard, content)] = shard, content

    def _finished(self, number: int, ref: Any) -> Sequence[tuple[int, Shard, list[Any] | Lost]]:
        """Return the outcome of a shard; an actor that ended is replaced, with what it had left."""
        lane = self._lanes[number]
        outcome = self._outcome(ref)
        if not self._in_steps:
            return self._streamed(number, ref, outcome)
        if not isinstance(outcome, Lost):
            return [(number, lane.finishing.pop(ref)[0], outcome)]
        self._ray.kill(lane.actor)
        self._lanes[number] = self._started()
        outcomes: list[tuple[int, Shard, list[Any] | Lost]] = []
        lost = False
        for each, (shard, content) in lane.finishing.items():
            if lost:  # it had not begun: they come one after the other
                self._finish(number, shard, content)
                continue
            outcome = self._outcome(each)
            outcomes.append((number, shard, outcome))
            lost = isinstance(outcome, Lost)
        return outcomes

    def _streamed(
        self, number: int, ref: Any, outcome: Any
    ) -> Sequence[tuple[int, Shard, list[Any] | Lost]]:
        """Return the outcome of a shard, or that an actor and all that it had are lost."""
        lane = self._lanes[number]
        if not isinstance(outcome, Lost):
            del lane.finishing[ref]
            given, results = outcome
            return [(number, lane.streaming.pop(given), results)]
        self._ray.kill(lane.actor)
        self._lanes[number] = self._started()
        return [(number, shard, outcome) for shard in lane.streaming.values()]

    def _outcome(self, ref: Any) -> Any:
        """Return what was made, or that its process ended; raise the error of the work."""
        errors = self._ray.exceptions
        try:
            result, notes = self._ray.get(ref)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as exc:
            raise EngineError(
                f"a worker process of Ray cannot begin: {exc}; rs_embed and what the request needs "
                "must be installed on each node"
            ) from exc
        except errors.RayError as exc:
            logger.debug("%s", exc)
            return Lost(_reason(exc))
        if isinstance(result, BaseException):
            raise result
        give_warnings(notes)
        return result

    def _check_room(self) -> None:
        """Raise `EngineError` if an actor has waited for too long; log that reads wait."""
        free = self._ray.available_resources().get("CPU", 0)
        if self._reading and free < _READING_CPUS and time.monotonic() - self._ended > _SILENT_S:
            self._ended = time.monotonic()
            logger.info(
                "nothing has ended for %d s: the Ray cluster has %g CPUs free, and each of the %d "
                "reads needs %g; add nodes, or wait until other work has ended",
                _SILENT_S, free, len(self._reading), _READING_CPUS,
            )  # fmt: skip
        waiting = [lane for lane in self._lanes if time.monotonic() - lane.since > self._start_s]
        _, waiting = self._ray.wait([x.began for x in waiting], timeout=0) if waiting else ([], [])
        if waiting:
            has = {k: v for k, v in self._ray.cluster_resources().items() if k in ("CPU", "GPU")}
            raise EngineError(
                f"got a Ray cluster with {has}, which had no room for {len(waiting)} of "
                f"{self.lanes} workers in {self._start_s:g} s, expected {self._needs} for each; "
                "state fewer (--workers), add nodes, or wait until other work has ended"
            )


def require_ray() -> Any:
    """Return the module; `MissingDependencyError` if it is not installed."""
    return require("ray", extra="ray", purpose="engine='ray'")


def check_address(address: str, within_s: float = _JOIN_S) -> None:
    """Raise `EngineError` unless a cluster can be joined."""
    expected = (
        "expected host:port of the head node (ray start --head) or 'auto', the same versions of "
        "Ray and Python there and here, and RAY_AUTH_MODE=token in the environment if the cluster "
        "has a token"
    )
    if address.startswith("ray://"):
        raise EngineError(
            f"got Ray at {address!r}, {expected}; Ray Client is not supported, run the command on "
            "a node (ray job submit)"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=within_s).close()
        except (OSError, OverflowError) as exc:
            raise EngineError(f"no Ray answers at {address!r} ({exc}), {expected}") from exc
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _JOIN, address], capture_output=True, text=True, check=False,
            timeout=within_s, env=child_environment(python_path()),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"no Ray answers at {address!r} within {within_s:g} s, {expected}"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"cannot join Ray at {address!r} ({reason}), {expected}")


def _reason(error: Exception) -> str:
    """Return how a process ended."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    if "OutOfMemoryError" in kinds or "memory" in str(error).partition("Worker exit detail")[0]:
        return "a worker process was ended by Ray, since the memory of its node was nearly full"
    if "NodeDiedError" in kinds or "node" in str(error).partition("\nThe actor is dead")[2][:120]:
        return "a worker process was lost with its node"
    return "a worker process ended unexpectedly"


# --- in other processes --------------------------------------------------------------------


@lru_cache(maxsize=1)
def _loaded(work: bytes) -> WorkInSteps:
    loaded: WorkInSteps = pickle.loads(work)  # noqa: S301  # of the driver
    return loaded


def _result(
    start: tuple[str, bytes], action: Callable[[WorkInSteps], Any]
) -> tuple[Any, list[Note]]:
    """Return what comes of an action, its error included, and the warnings of the library."""
    folder, work = start
    try:
        os.chdir(folder)
    except OSError:
        os.chdir(Path(folder).anchor)  # a relative path must not name another file
    with warnings_kept() as caught:
        try:
            return action(_loaded(work)), notes_of(caught)
        except Exception as exc:  # noqa: BLE001  # raised by the driver
            return sendable(exc), []


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError:
        os.chdir(Path(folder).anchor)  # a relative path must not name another file


def _read(start: tuple[str, bytes], shard: Shard) -> tuple[tuple[Any, list[Note]], bytes]:
    # As bytes: Ray would make the arrays read-only.
    result, notes = _result(start, lambda work: pickle.dumps(work.read(shard)))
    if isinstance(result, bytes):
        return (None, notes), result
    return (result, notes), b""


class _Model:
    def __init__(self, start: tuple[str, bytes]) -> None:
        self._start = start

    def began(self) -> None:
        """Return once the actor is there."""

    def finish(self, shard: Shard, content: bytes) -> tuple[Any, list[Note]]:
        return _result(
            self._start,
            lambda work: work.finish(shard, pickle.loads(content)),  # noqa: S301
        )


class _Streaming:
    """Reads ahead of the model, from one shard to the next; results come in the order of shards."""

    def __init__(self, start: tuple[str, bytes]) -> None:
        self._start = start
        self._inbox: SimpleQueue[bytes] = SimpleQueue()
        self._outbox: SimpleQueue[tuple[int, Any, list[Note]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def began(self) -> None:
        """Return once the actor is there."""

    def result(self, number: int, shard: Shard) -> tuple[Any, list[Note]]:
        """Take a shard; return the number and results of the next one that is done."""
        self._inbox.put(pickle.dumps((number, shard)))
        done, results, notes = self._outbox.get()
        return (results, []) if isinstance(results, BaseException) else ((done, results), notes)

    def _work(self) -> None:
        folder, sent = self._start
        _enter(folder)
        with warnings_kept() as caught:
            try:
                work: Work = _loaded(sent)
                stream_for_ever(work, self._inbox, self._outbox.put, caught)
            except Exception as exc:  # noqa: BLE001  # raised by the driver
                self._outbox.put((0, sendable(exc), []))
