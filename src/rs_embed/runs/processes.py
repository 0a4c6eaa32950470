"""Worker processes on this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any

from rs_embed.errors import EngineError, give_warnings
from rs_embed.models.devices import card_number
from rs_embed.parallel.cores import cores
from rs_embed.runs.shards import Shard
from rs_embed.runs.supervision import Lost
from rs_embed.runs.worker import received, send
from rs_embed.settings import child_environment

# Shards of one process at once: more than it reads ahead, so that it never waits for the next one.
_SHARDS_EACH = 6


class ProcessPool:
    """Processes that each work through a queue of shards; see `rs_embed.runs.supervision.Pool`.

    They are new interpreters that do not import the caller's script, so that this needs no
    ``if __name__ == "__main__"``, and forks neither threads nor CUDA. A context manager; the
    processes end with it, and with this process, however that ends.

    Parameters
    ----------
    work : bytes
        The pickled `rs_embed.runs.shards.Work`.
    count : int
        Processes. They share the processor's cores.
    cards : sequence of str
        CUDA devices, ``"cuda:0"`` and so on: each process sees one of them, in turns. None if
        empty: all see what this process sees.
    """

    def __init__(self, work: bytes, count: int, cards: Sequence[str] = ()) -> None:
        self.lanes, self.depth = count, _SHARDS_EACH
        self._cards = [card_number(card) for card in cards] or [None]
        self._start = (sys.path, max(1, cores() // count), work)
        self._messages: SimpleQueue[tuple[_Worker, bytes | None]] = SimpleQueue()
        self._workers: list[_Worker] = []

    def __enter__(self) -> ProcessPool:
        for lane in range(self.lanes):
            self._workers.append(self._started(lane))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def _started(self, lane: int) -> _Worker:
        card = self._cards[lane % len(self._cards)]
        environment = child_environment(python_path(), card)
        return _Worker(self._start, environment, self._messages)

    def submit(self, lane: int, shard: Shard) -> None:
        """Begin a shard."""
        self._workers[lane].submit(shard)

    def wait(self) -> Sequence[tuple[int, Shard, list[Any] | Lost]]:
        """Return lane, shard and outcome of what has ended, as soon as there is something."""
        worker, sent = self._messages.get()
        lane = self._workers.index(worker)
        if sent is not None:
            message = pickle.loads(sent)  # noqa: S301
            if message == "began":
                worker.began = True
                return []
            number, results, notes = message
            if isinstance(results, BaseException):
                raise results
            give_warnings(notes)
            return [(lane, worker.shards.pop(number), results)]
        reason = worker.ended()
        # What ends by itself before it begins would end each time; others may have killed it.
        if not worker.began and not worker.killed:
            raise EngineError(f"a worker process was {reason} before it began; see its messages")
        worker.stop()
        self._workers[lane] = self._started(lane)
        lost = Lost(f"a worker process was {reason}")
        return [(lane, shard, lost) for shard in worker.shards.values()]


class _Worker:
    """A process, and the shards that it has by their number.

    A thread receives what it sends: None at its end.
    """

    def __init__(
        self,
        start: Any,
        environment: Mapping[str, str],
        messages: SimpleQueue[tuple[_Worker, bytes | None]],
    ) -> None:
        self.shards: dict[int, Shard] = {}
        self.began = False
        self._given = 0
        self._messages = messages
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rs_embed.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._given_to, self._sent_by = map(_opened, (self._process.stdin, self._process.stdout))
        threading.Thread(target=self._receive, name="rs_embed-worker", daemon=True).start()
        self._send(start)

    def _send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # it has ended, which `_receive` notices
            send(self._given_to, message)

    def _receive(self) -> None:
        while True:
            try:
                self._messages.put((self, received(self._sent_by)))
            except (EOFError, OSError, ValueError, pickle.UnpicklingError):
                self._messages.put((self, None))
                return

    def submit(self, shard: Shard) -> None:
        """Give it a shard."""
        self._given += 1
        self.shards[self._given] = shard
        self._send((self._given, shard))

    @property
    def killed(self) -> bool:
        """Whether a signal has ended the process."""
        return self._process.wait() < 0

    def ended(self) -> str:
        """Return how the process ended, once it has."""
        status = self._process.wait()
        if status >= 0:
            return f"ended with exit code {status}"
        return f"ended by signal {-status} ({signal.Signals(-status).name})"

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._given_to, self._sent_by):
            with suppress(OSError):
                stream.close()


def _opened(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a stream of a process, which `subprocess` types as optional."""
    if stream is None:
        raise TypeError("the process has no such stream")
    return stream


def python_path() -> str:
    """Return ``PYTHONPATH`` for a Python that is to find the same packages."""
    return os.pathsep.join(filter(None, sys.path))
