"""Nearest neighbours in a table of a million vectors, beside reading its values once.

    python benchmarks/bench_search.py

The table is random: 1 000 000 x 192 float32 (0.77 GB), in memory and memory-mapped with a warm
page cache. Each call computes the mean, then all similarities, and sorts the best ones.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from measure import Disturbance, arguments, comparison, goal, in_turns, machine, positive, seconds

from rs_embed import nearest

BASELINE, ONE, MAPPED = "sum of all values", "1 query, k = 20", "the same, memory-mapped"
RAW, TEN = "the same, centred=False", "10 queries, k = 20"


def random_table(path: Path, count: int, width: int) -> Any:
    """Write vectors that share a large mean, as embeddings do; return them memory-mapped."""
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, width))
    rng = np.random.default_rng(0)
    for start in range(0, count, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = 3 + rng.standard_normal(part.shape, dtype=np.float32)
    vectors.flush()
    return np.load(path, mmap_mode="r")


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call, and the processor seconds of all its threads."""
    before = time.process_time()
    return seconds(action), time.process_time() - before


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--count", type=positive, default=1_000_000)
    parser.add_argument("--width", type=positive, default=192)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = parsed()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        mapped = random_table(Path(folder) / "vectors.npy", options.count, options.width)
        held = np.array(mapped)
        frame = pd.DataFrame({"place": np.arange(options.count)})
        tables = [
            SimpleNamespace(ids=range(options.count), embeddings=vectors, frame=frame)
            for vectors in (held, mapped)
        ]
        queries = held[:10] + np.float32(0.1)

        def search(table: Any, query: Any, **more: Any) -> tuple[float, float]:
            return timed(functools.partial(nearest, table, query, 20, **more))

        disturbance = Disturbance()
        samples = in_turns(
            {
                BASELINE: lambda: timed(held.sum),
                ONE: lambda: search(tables[0], queries[0]),
                MAPPED: lambda: search(tables[1], queries[0]),
                RAW: lambda: search(tables[0], queries[0], centred=False),
                TEN: lambda: search(tables[0], queries),
            },
            options.repeats,
        )
    for number, unit in enumerate(("s", "s of processors")):
        values = {name: [both[number] for both in pairs] for name, pairs in samples.items()}
        print(comparison(values, baselines=[BASELINE], unit=unit))
    median = float(np.median([wall for wall, _ in samples[ONE]]))
    print(goal("one query in less than a second", median < 1))
    print(disturbance.report())


if __name__ == "__main__":
    main()
