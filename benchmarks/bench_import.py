"""Time to import the package in a fresh interpreter, from start to exit.

    python benchmarks/bench_import.py [--repeats 20]

The baseline is the bare interpreter, ``python -c pass``; nothing is subtracted.
"""

from __future__ import annotations

import statistics
from functools import partial

from measure import Disturbance, arguments, comparison, goal, in_turns, machine

from processes import run_python

GOAL_S = 0.25
BARE = "pass"
PACKAGE = "import rs_embed"
CODES = (BARE, PACKAGE, "from rs_embed import get_embedding", "import numpy", "import torch")


def _start_to_exit(code: str) -> float:
    return run_python(["-c", code]).seconds


def main() -> None:
    repeats = arguments(__doc__, repeats=20).parse_args().repeats
    disturbance = Disturbance()
    samples = in_turns({code: partial(_start_to_exit, code) for code in CODES}, repeats)
    print(f"Import, start to exit ({machine()})\n")
    print(comparison(samples, baselines=[BARE], unit="s", digits=3))
    median = statistics.median(samples[PACKAGE])
    print("\n" + goal(f"{PACKAGE} in less than {GOAL_S} s, {median:.3f} s", median < GOAL_S))
    print(disturbance.report())


if __name__ == "__main__":
    main()
