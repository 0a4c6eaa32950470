"""Child processes of tests: nothing waits for them for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Long enough for any child on a busy machine: the end of a test that hangs, never a measurement.
WAIT_S = 120


@contextmanager
def running(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a Python; it is killed at the end of the block, and after ``WAIT_S`` at the latest."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        end = threading.Timer(WAIT_S, process.kill)
        end.daemon = True
        end.start()
        try:
            yield process
        finally:
            end.cancel()
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that a child prints; empty once it has ended."""
    assert process.stdout is not None
    return process.stdout.readline()


def errors_of(process: subprocess.Popen[str]) -> str:
    """Return what a child that has ended wrote to standard error."""
    return process.communicate(timeout=WAIT_S)[1]
