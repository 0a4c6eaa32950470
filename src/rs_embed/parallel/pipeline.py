"""Bounded, overlapping stages: work ahead in threads, group items for the network, keep the order.

A stage is a generator over the previous one. Nothing runs until the last stage is consumed, none
holds more items than its limit, and closing one (after an error, Ctrl-C, or when the caller stops
early) stops its threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from rs_embed.parallel.threads import begin

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long a stopped stage waits for unfinished work. Its threads end with that work, or with the
# process.
_STOP_TIMEOUT_S = 1.0


class _Workers:
    """Threads that run tasks until they are stopped."""

    def __init__(self, count: int, name: str = "rs_embed-") -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._ended = [begin(self._run, f"{name}{number}") for number in range(count)]

    def submit(self, task: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((future, task))
        return future

    def _run(self) -> None:
        while (entry := self._tasks.get()) is not None:
            future, task = entry
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as exc:  # noqa: BLE001  # raised again by future.result()
                    future.set_exception(exc)
            del entry, future, task  # so that an idle thread does not keep pixels alive

    def stop(self, within_s: float | None = _STOP_TIMEOUT_S) -> None:
        for _ in self._ended:
            self._tasks.put(None)
        deadline = None if within_s is None else time.monotonic() + within_s
        for ended in self._ended:
            ended.wait(None if deadline is None else max(deadline - time.monotonic(), 0))


class _Source(Iterator[Item]):
    """The items of an iterable; its exception is stored until earlier items are processed."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._failure: Exception | None = None

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as exc:  # raised by raise_failure
            self._failure = exc
            raise StopIteration from exc

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def ordered(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    workers: int,
    ahead: int,
    stop_s: float | None = _STOP_TIMEOUT_S,
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, in order, computed in ``workers`` threads.

    0 uses the caller's thread, which always consumes ``items``; if they raise, earlier results are
    yielded first. Exceptions of ``work`` are raised here, in the order of the items. At most
    ``ahead`` items are in progress or wait to be consumed. Closing it waits for at most ``stop_s``
    seconds for what is in progress, until it ends if None.
    """
    if workers == 0:
        yield from map(work, items)
        return
    source, exhausted = _Source(items), False
    waiting: deque[Future[Result]] = deque()
    threads = _Workers(workers)
    try:
        while True:
            added = 0
            # Add at least two for each result, so that the lead grows; more while none is ready.
            while not exhausted and len(waiting) < ahead and not (added >= 2 and waiting[0].done()):
                try:
                    waiting.append(threads.submit(partial(work, next(source))))
                    added += 1
                except StopIteration:
                    exhausted = True
            if not waiting:
                break
            yield waiting.popleft().result()
        source.raise_failure()
    finally:
        for future in waiting:
            future.cancel()
        threads.stop(stop_s)


def apart(work: Callable[[], Result], *, within_s: float | None = None) -> Result:
    """Return ``work()``, done in a thread of its own, for which Ctrl-C need not wait.

    Python handles a signal only between instructions of the main thread, and so not while that
    waits for a server inside a library.

    Raises
    ------
    TimeoutError
        If it takes longer than ``within_s`` seconds; the thread then ends by itself.
    """
    thread = _Workers(1, "rs_embed apart ")  # may outlive the call
    try:
        future = thread.submit(work)
        if not wait([future], within_s).done:
            raise TimeoutError
        return future.result()
    finally:
        thread.stop(0)


def grouped(
    items: Iterable[Item], key: Callable[[Item], Hashable], *, size: int, hold: int
) -> Iterator[list[Item]]:
    """Yield lists of up to ``size`` items with equal keys; full lists are yielded at once.

    An item whose key is None is yielded alone, at once. Others wait for at most ``hold`` later
    items; then their list is yielded unfilled. If ``items`` raise, earlier ones are yielded first.
    """
    pending: dict[Hashable, list[Item]] = {}  # in the order of the first items
    arrival: dict[Hashable, int] = {}
    source = _Source(items)
    for number, item in enumerate(source):
        group_key = key(item)
        if group_key is None:
            yield [item]
        else:
            arrival.setdefault(group_key, number)
            group = pending.setdefault(group_key, [])
            group.append(item)
            if len(group) == size:
                del arrival[group_key]
                yield pending.pop(group_key)
        oldest = next(iter(pending), None)
        if oldest is not None and number - arrival[oldest] >= hold:
            del arrival[oldest]
            yield pending.pop(oldest)
    yield from pending.values()
    source.raise_failure()


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Yield results by their number, 0 first; later ones wait for their turn."""
    waiting: dict[int, Result] = {}
    turn = 0
    for number, result in results:
        waiting[number] = result
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
