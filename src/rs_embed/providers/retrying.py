"""Requests that fail for a while: retried with growing waits, up to a limit."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rs_embed._optional import require
from rs_embed.errors import ProviderError
from rs_embed.specs import check_positive, check_whole

Result = TypeVar("Result")

# Without a handler each retry would print a line, and libraries stay silent.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Patience:
    """How often, and for how long, a request that may succeed later is tried.

    Waits double from ``wait_initial_s`` up to ``wait_max_s``, with a random part so that threads do
    not return all at once. If the service states how long to wait, that counts, unless it is
    longer than ``timeout_s``.

    Attributes
    ----------
    attempts : int
        Tries in all.
    wait_initial_s, wait_max_s : float
        First and longest wait between two tries, seconds.
    timeout_s : float
        Time after which nothing is retried, seconds.

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
        unless: Callable[[ProviderError], bool] = lambda _: False,
    ) -> Result:
        """Return what ``request`` returns, retried while its `ProviderError` is transient.

        Transient errors for which ``unless`` returns True are not retried.

        Raises
        ------
        ProviderError
            The last one, still transient if only the patience ended.
        """
        stamina = require("stamina", extra="stac", purpose="a request over the network")
        caller = stamina.RetryingCaller(
            attempts=self.attempts,
            timeout=self.timeout_s,
            wait_initial=self.wait_initial_s,
            wait_max=self.wait_max_s,
            wait_jitter=self.wait_initial_s,
        )
        result: Result = caller(lambda exc: self._again(exc, unless), request)
        return result

    def _again(self, error: Exception, unless: Callable[[ProviderError], bool]) -> bool | float:
        """Return whether to retry, or the seconds to wait before."""
        if not isinstance(error, ProviderError) or not error.transient or unless(error):
            return False
        if error.retry_after_s is None:
            return True
        if error.retry_after_s > self.timeout_s:
            return False
        return error.retry_after_s + random.uniform(0, self.wait_initial_s)  # noqa: S311
