"""Threads that are used again: GDAL and PROJ begin anew in each thread, which costs 10 ms and more.

They are daemons, unlike those of `concurrent.futures`: a read that hangs on a slow server must not
block Ctrl-C. Each ends when nothing has needed it for a few seconds, or with the process.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

_IDLE_S = 2.0
_IDLE_NAME = "idle rs_embed"


def begin(work: Callable[[], None], name: str) -> threading.Event:
    """Return an event that is set when a thread, which has ``name`` until then, has ended ``work``.

    ``work`` must not raise.
    """
    ended = threading.Event()
    try:
        thread = _idle.pop()  # the last one used, so that no more than needed are kept
    except IndexError:
        thread = _Thread()
    thread.name = name
    thread.tasks.put((work, ended))
    return ended


class _Thread(threading.Thread):
    """Works until it is idle for too long."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.tasks: SimpleQueue[tuple[Callable[[], None], threading.Event] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (task := self._next()) is not None:
            work, ended = task
            work()
            del task, work  # so that an idle thread does not keep pixels alive
            self.name = _IDLE_NAME
            _idle.append(self)
            ended.set()

    def _next(self) -> tuple[Callable[[], None], threading.Event] | None:
        while True:
            try:
                return self.tasks.get(timeout=_IDLE_S)
            except Empty:
                with suppress(ValueError):  # just taken, so its work is about to come
                    _idle.remove(self)
                    return None


_idle: deque[_Thread] = deque()  # its methods are atomic


@atexit.register
def _end() -> None:
    """End idle threads: libraries must not be unloaded, or copied, while these let go of them."""
    while _idle:
        thread = _idle.pop()
        thread.tasks.put(None)
        thread.join(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_end, after_in_child=_idle.clear)
