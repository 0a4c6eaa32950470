"""A progress bar with a count and a rate: on standard error, or in the cell of a notebook."""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


# Between two messages to a notebook, seconds.
_CELL_S = 0.1


def _in_cell() -> bool:
    """Return whether standard error is shown by a notebook."""
    return type(sys.stderr).__module__.startswith("ipykernel.")


class _Cell:
    """A bar in the output of a cell, as plain HTML: it needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next = 0.0

    def show(self, done: int, total: int | None, text: str) -> None:
        """Draw the bar, unless it was drawn just now."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _CELL_S
        counted = f"{done}/{'?' if total is None else total} {text}"
        most = "" if total is None else f' value="{done}" max="{total}"'
        self._draw({"text/plain": counted, "text/html": f"<progress{most}></progress> {counted}"})

    def stop(self) -> None:
        """Remove the bar."""
        self._draw({"text/plain": "", "text/html": ""})

    def _draw(self, content: dict[str, str]) -> None:
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class Bar:
    """A context manager; the bar appears after the first item, if more are to come.

    It is shown if ``show``, or, where that is None, if standard error is a terminal or a notebook.
    ``unit`` is the name of an item in the singular, ``total`` their number, None if it is unknown.
    """

    def __init__(self, show: bool | None, *, unit: str, total: int | None = 0) -> None:
        self._in_cell = _in_cell()
        self._show = (self._in_cell or sys.stderr.isatty()) if show is None else show
        self._unit = unit
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._cell: _Cell | None = None

    def expect(self, count: int) -> None:
        """Add ``count`` items to the total."""
        self._total = (self._total or 0) + count

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more items as done."""
        self._done += count
        begun = self._progress is not None or self._cell is not None
        if not self._show or (not begun and self._done == self._total):
            return
        if not begun and self._in_cell:
            self._cell = _Cell()
        elif not begun:
            self._start()
        per_s = self._done / max(time.monotonic() - self._began, 1e-9)
        rate = f"{per_s:.3g} {self._unit}s/s"
        if self._cell is not None:
            self._cell.show(self._done, self._total, f"{self._unit}s, {rate}")
        elif self._progress is not None and self._task is not None:
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
            # If requested, the bar is also written to files.
            console=Console(stderr=True, force_terminal=True),
            auto_refresh=False,  # does not start a thread
            transient=True,
        )
        self._task = self._progress.add_task(f"{self._unit}s", total=self._total, rate="")
        self._progress.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for shown in (self._progress, self._cell):
            if shown is not None:
                shown.stop()
