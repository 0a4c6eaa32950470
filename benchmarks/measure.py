"""Measure alternating cases, compare each with a baseline of the same round, print a table."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Measured = TypeVar("Measured")
# Values of one case, one per round.
Samples = Sequence[float]


def arguments(doc: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring, with ``--repeats``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=positive, default=repeats, help=f"measured rounds (default {repeats})"
    )
    return parser


def positive(text: str) -> int:
    """Return a whole number of at least 1 from a command-line argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


def seconds(action: Callable[[], object]) -> float:
    """Return the seconds of one call; its result is freed after the clock has stopped."""
    start = time.perf_counter()
    result = action()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def in_turns(
    cases: Mapping[str, Callable[[], Measured]], repeats: int
) -> dict[str, list[Measured]]:
    """Return the measurements of each case, round by round.

    A round runs every case once, every second round in reverse order, so that a slow minute on a
    shared machine affects all cases equally. The first round is a warm-up and does not count.

    Parameters
    ----------
    cases : mapping
        Name to a function that returns its measurement.
    repeats : int
        Rounds that count.
    """
    samples: dict[str, list[Measured]] = {name: [] for name in cases}
    order = list(cases)
    for round_ in range(-1, repeats):
        for name in order if round_ % 2 == 0 else reversed(order):
            value = cases[name]()
            if round_ >= 0:
                samples[name].append(value)
    return samples


def ratios(samples: Samples, baseline: Samples) -> list[float]:
    """Return value / baseline, pair by pair."""
    return [value / base for value, base in zip(samples, baseline, strict=True)]


def comparison(
    samples: Mapping[str, Samples], *, baselines: Iterable[str], unit: str, digits: int = 2
) -> str:
    """Return a table of minimum, median and maximum, and paired ratios to each baseline."""
    baselines = list(baselines)
    header = ["case", f"min {unit}", "median", "max", *(f"x {name}" for name in baselines)]
    rows = []
    for name, values in samples.items():
        spread = (min(values), statistics.median(values), max(values))
        compared = (ratios(values, samples[base]) for base in baselines)
        rows.append([name, *(f"{v:.{digits}f}" for v in spread), *map(_ratio, compared)])
    return table(header, rows)


def _ratio(values: Samples) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; numbers are right-aligned."""
    rows = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *(f"{'-' * (w + 1)}:" for w in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def goal(text: str, met: bool) -> str:
    """Return a line that says whether a goal is met."""
    return f"Goal: {text}: {'met' if met else 'NOT met'}"


def machine() -> str:
    """Return cores, processor and versions of Python and PyTorch, without importing PyTorch."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return (
        f"{os.cpu_count()} cores, {processor}, Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch')}"
    )


def _busy_s() -> float:
    """Return processor seconds used since the machine started, including stolen time.

    0 if the system does not report it (only Linux does).
    """
    if not Path("/proc/stat").is_file():
        return 0.0
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    first_line = Path("/proc/stat").read_text().splitlines()[0]
    ticks = dict(zip(names, map(int, first_line.split()[1:]), strict=False))
    return (sum(ticks.values()) - ticks["idle"] - ticks["iowait"]) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Return processor seconds used by this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True)
class Disturbance:
    """Processor time used by other processes from now on; if high, a table is unreliable."""

    _start: float = field(default_factory=time.monotonic)
    _busy: float = field(default_factory=_busy_s)
    _own: float = field(default_factory=_own_s)

    def report(self) -> str:
        """Return a line with the share of processor time used by others so far."""
        capacity = (time.monotonic() - self._start) * (os.cpu_count() or 1)
        others = (_busy_s() - self._busy) - (_own_s() - self._own)
        return (
            f"Other processes and machines took {max(others, 0) / capacity:.0%} of the processors"
        )
