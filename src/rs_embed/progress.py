"""A progress bar on standard error with a count and a rate."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """A context manager; the bar appears after the first item, if more are to come.

    It is shown if ``show``, or, where that is None, if standard error is a terminal. ``unit`` is
    the name of an item in the singular, ``total`` their number, None if it is unknown.
    """

    def __init__(self, show: bool | None, *, unit: str, total: int | None = 0) -> None:
        self._show = sys.stderr.isatty() if show is None else show
        self._unit = unit
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def expect(self, count: int) -> None:
        """Add ``count`` items to the total."""
        self._total = (self._total or 0) + count

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more items as done."""
        self._done += count
        if not self._show or (self._progress is None and self._done == self._total):
            return
        if self._progress is None:
            self._start()
        if self._progress is not None and self._task is not None:
            per_s = self._done / max(time.monotonic() - self._began, 1e-9)
            rate = f"{per_s:.3g} {self._unit}s/s"
            self._progress.update(self._task, completed=self._done, total=self._total, rate=rate)
            self._progress.refresh()

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            # If requested, the bar is also written to files and notebooks.
            console=Console(stderr=True, force_terminal=True),
            auto_refresh=False,  # does not start a thread
            transient=True,
        )
        self._task = self._progress.add_task(f"{self._unit}s", total=self._total, rate="")
        self._progress.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
