"""Forward passes side by side on the CPU, so that cores do not wait for each other.

PyTorch splits every operation over all cores and waits for the slowest, dozens of times per pass. A
core that another program uses then delays all others. Passes of some images each, side by side,
wait only at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

from rs_embed.parallel.cores import cores
from rs_embed.settings import stated_threads

Part = TypeVar("Part")
Result = TypeVar("Result")
_MAKING = Lock()


def usable_threads() -> int:
    """Return how many threads a forward pass may use.

    PyTorch's own number (``OMP_NUM_THREADS`` or `torch.set_num_threads`), but no more than the
    cores that the process may use, unless ``OMP_NUM_THREADS`` states it.
    """
    threads = torch.get_num_threads()
    return threads if stated_threads() else min(threads, cores())


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return ``work(part)`` for each part, in order, as many at once as there are threads.

    With fewer parts than threads, each part has several. The number of threads of the caller is
    left as it is.

    Raises
    ------
    SettingsError
        If ``OMP_NUM_THREADS`` is invalid.
    """
    threads = usable_threads()
    lanes = max(1, min(threads, len(parts)))
    each = threads // lanes
    if lanes == 1 and each == torch.get_num_threads():
        return [work(part) for part in parts]
    with _MAKING:
        pool = _lanes(lanes, each, os.getpid())
    passes = [pool.submit(work, part) for part in parts]
    try:
        return [one.result() for one in passes]
    finally:  # after Ctrl-C or an error: a process that ends while PyTorch computes is aborted
        for one in passes:
            one.cancel()
        wait(passes)


@lru_cache(maxsize=4)
def _lanes(count: int, threads: int, process: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """Return ``count`` threads that compute with ``threads`` threads of PyTorch each.

    ``process`` is the id of the process: one that was forked has no threads but its own.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "rs_embed lane", _compute_with, (threads,))
    started = Barrier(count)
    wait([pool.submit(started.wait) for _ in range(count)])
    # The number counts for the thread that sets it, and for all that have not computed yet.
    torch.set_num_threads(before)
    return pool


def _compute_with(threads: int) -> None:
    torch.get_num_threads()  # a thread takes over the number of the process when it first asks
    torch.set_num_threads(threads)
