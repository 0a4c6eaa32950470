"""What the threads of a process share; it goes through pickle empty."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Turns(threading.BoundedSemaphore):
    """At most so many uses at once; all are free on the other side of a pickle."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._most = most

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns, (self._most,)


class Latest(Generic[Key, Value]):
    """The last value that was made, and what for; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entry: tuple[Key, Value] | None = None

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """Return the value for ``key``; one thread makes it if the last was for another key."""
        with self._lock:
            if self._entry is None or self._entry[0] != key:
                self._entry = key, make(key)
            return self._entry[1]

    def forget(self) -> None:
        """Have the value made again."""
        self._entry = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Latest, ()
