"""Run Python in a fresh process; measure its wall time and its peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """A process that finished successfully.

    Attributes
    ----------
    started : float
        Reading of ``time.monotonic()``, a clock that all processes share.
    seconds : float
        From before its start until after its end.
    peak_gb : float
        Peak resident set, 10^9 bytes; pages of a memory-mapped file count.
    output : str
        Its standard output.
    """

    started: float
    seconds: float
    peak_gb: float
    output: str


def run_python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
    """Return the finished process; ``environment`` is added to that of this process.

    The calling process must be small: on Linux the peak of a child starts at that of its parent.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    command = [sys.executable, *arguments]
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(started, elapsed, usage.ru_maxrss * unit / 1e9, output)
