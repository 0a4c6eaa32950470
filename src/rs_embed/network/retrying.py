"""Requests that fail for a while: retried with growing waits, all within one time limit."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rs_embed.errors import ImageryError, ProviderError
from rs_embed.parallel.pipeline import apart
from rs_embed.specs import check_positive, check_whole

Result = TypeVar("Result")

# Without a handler each retry would print a line, and libraries stay silent.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def is_transient(error: Exception) -> bool:
    """Return whether an error of imagery says that the same request may succeed later."""
    return isinstance(error, ProviderError | ImageryError) and error.transient


@dataclass(frozen=True)
class Patience:
    """How often, and for how long, a request that may succeed later is tried.

    Waits double from ``wait_initial_s`` up to ``wait_max_s``, with a random part so that threads do
    not return all at once. If the service states how long to wait, that counts, unless the time
    does not suffice.

    Attributes
    ----------
    attempts : int
        Tries in all.
    wait_initial_s, wait_max_s : float
        First and longest wait between two tries, seconds.
    timeout_s : float
        Time for all tries and the waits between them, seconds. A try that has not ended by then is
        abandoned.

    Raises
    ------
    SpecError
        If ``attempts`` is below 1, or a time is not a finite number above 0.
    """

    attempts: int = 8
    wait_initial_s: float = 0.5
    wait_max_s: float = 30.0
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, 1)
        for name in ("wait_initial_s", "wait_max_s", "timeout_s"):
            check_positive(name, getattr(self, name), "seconds")

    def persist(
        self,
        request: Callable[[], Result],
        *,
        passes: Callable[[Exception], bool] = is_transient,
        what: str = "the server",
    ) -> Result:
        """Return what ``request`` returns, retried while its errors may pass.

        It runs in a thread of its own, so that neither the end of the time nor Ctrl-C has to wait
        for a server.

        Parameters
        ----------
        request : callable
            What is tried.
        passes : callable
            Whether the same request may succeed after an error; called once for each.
        what : str
            What is asked, for the error if the time ends.

        Raises
        ------
        ProviderError
            Transient, if the time ended while nothing had failed before.
        Exception
            The last error of ``request``.
        """
        import stamina

        end = time.monotonic() + self.timeout_s
        tries = itertools.count()
        last: Exception | None = None

        def attempt() -> Result:
            try:
                return apart(request, within_s=max(end - time.monotonic(), 0))
            except TimeoutError as exc:
                if last is not None:
                    raise last from exc
                raise ProviderError(
                    f"{what} did not answer completely within {self.timeout_s:g} s; check the "
                    "network, or try again later",
                    transient=True,
                ) from exc

        def again(error: Exception) -> bool | float:
            nonlocal last
            if error is last or not passes(error):
                return False
            last = error
            stated = error.retry_after_s if isinstance(error, ProviderError) else None
            jitter_s = random.uniform(0, self.wait_initial_s)  # noqa: S311
            growing_s = min(self.wait_initial_s * 2.0 ** next(tries), self.wait_max_s)
            wait_s = (growing_s if stated is None else stated) + jitter_s
            return wait_s if wait_s < end - time.monotonic() else False

        caller = stamina.RetryingCaller(attempts=self.attempts, timeout=None)
        result: Result = caller(again, attempt)
        return result
