"""Bounded, overlapping stages: work ahead in threads, group for the network, keep the order.

A stage is a generator over the stage before it. Nothing runs before the last one is consumed, none
holds more than its bound, and closing one (after an error, Ctrl-C, or a caller who breaks off)
stops its threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long a stopped stage waits for work under way. Its threads end with that work, or with the
# process.
_PATIENCE_S = 1.0


class _Workers:
    """Threads that run tasks until they are stopped.

    Unlike those of `concurrent.futures` they do not keep the process alive: a read that hangs on
    a slow server must not hold up Ctrl-C.
    """

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"rs_embed-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

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
            del entry, future, task  # an idle thread keeps no pixels alive

    def stop(self) -> None:
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + _PATIENCE_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))


class _Source(Iterator[Item]):
    """The items of an iterable; what it raises is kept until what came before is dealt with."""

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
    items: Iterable[Item], work: Callable[[Item], Result], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, in order, computed in threads.

    Parameters
    ----------
    items : iterable
        Consumed in the caller's thread. If it raises, what came before is yielded first.
    work : callable
        Runs in any thread. What it raises is raised here, at its item's turn.
    workers : int
        Threads; 0 works in the caller's thread.
    ahead : int
        Greatest number of items at work or waiting to be taken.
    """
    if workers == 0:
        yield from map(work, items)
        return
    source, exhausted = _Source(items), False
    waiting: deque[Future[Result]] = deque()
    threads = _Workers(workers)
    try:
        while True:
            taken = 0
            # At least two for each one given, so that the lead grows; more while nothing is ready.
            while not exhausted and len(waiting) < ahead and not (taken >= 2 and waiting[0].done()):
                try:
                    waiting.append(threads.submit(partial(work, next(source))))
                    taken += 1
                except StopIteration:
                    exhausted = True
            if not waiting:
                break
            yield waiting.popleft().result()
        source.raise_failure()
    finally:
        for future in waiting:
            future.cancel()
        threads.stop()


def grouped(
    items: Iterable[Item], key: Callable[[Item], Hashable], *, size: int, hold: int
) -> Iterator[list[Item]]:
    """Yield lists of items of equal key, full ones as soon as there are any.

    Parameters
    ----------
    items : iterable
        What to group. If it raises, what came before is yielded first.
    key : callable
        Items of equal key may share a list; one whose key is None comes alone, at once.
    size : int
        Length of a full list.
    hold : int
        Greatest number of later items that an item waits for; then its list goes unfilled.
    """
    pending: dict[Hashable, list[Item]] = {}  # in the order of their first items
    arrival: dict[Hashable, int] = {}
    source = _Source(items)
    for number, item in enumerate(source):
        kind = key(item)
        if kind is None:
            yield [item]
        else:
            arrival.setdefault(kind, number)
            group = pending.setdefault(kind, [])
            group.append(item)
            if len(group) == size:
                del arrival[kind]
                yield pending.pop(kind)
        oldest = next(iter(pending), None)
        if oldest is not None and number - arrival[oldest] >= hold:
            del arrival[oldest]
            yield pending.pop(oldest)
    yield from pending.values()
    source.raise_failure()


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Yield results by their number, 0 first; those that come early are held."""
    early: dict[int, Result] = {}
    turn = 0
    for number, result in results:
        early[number] = result
        while turn in early:
            yield early.pop(turn)
            turn += 1
