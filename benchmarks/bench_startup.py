"""Time and memory of a process from its start to its first embedding.

    python benchmarks/bench_startup.py [--repeats 5] [--folder FOLDER]

The weights are a random ViT-L/16 (1.21 GB) and the page cache is warm. A first run does not know
the SHA-256 of the weights file: a thread computes it in parallel, and the result waits for it.
Later runs read it from a record. Two baselines come from one process that starts in the same round:

floor
    import torch, then read the weights file once through a small buffer: no memory allocated,
    nothing parsed, nothing computed.
floor + forward
    the same, plus one forward of the bare network with everything warm.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from checkpoints import PYTORCH, SAFETENSORS, add_folder, vit_large
from measure import Disturbance, arguments, comparison, goal, in_turns, machine, ratios, table

from processes import run_python

GOAL_RATIO = 1.5
GOAL_GB = 1.7
FLOOR, FLOOR_FORWARD = "floor", "floor + forward"
FIRST, LATER = "first run, safetensors", "later run, safetensors"
LATER_PYTORCH = "later run, pytorch_model.bin"
SCRIPT = str(Path(__file__).with_name("first_embedding.py"))


@dataclass(frozen=True)
class Run:
    """Measurements of one process: seconds until the result, memory, seconds by phase."""

    seconds: float
    peak_gb: float
    phases: Mapping[str, float]
    forward_s: float


def _run(step: str, weights: Path, cache: Path | None) -> Run:
    """Run one process; without ``cache`` it starts with an empty one."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {"XDG_CACHE_HOME": str(cache or empty), "PYTHONWARNINGS": "ignore"}
        done = run_python([SCRIPT, step, str(weights)], environment)
    timings = json.loads(done.output)
    total = timings["ready"] - done.started
    phases = {"start Python": timings["entered"] - done.started, **timings["phases"]}
    phases["rest"] = total - sum(phases.values())
    return Run(total, done.peak_gb, phases, timings.get("forward_s", 0.0))


def _measure(folder: Path, repeats: int) -> dict[str, list[Run]]:
    safetensors, pytorch = folder / SAFETENSORS, folder / PYTORCH
    with tempfile.TemporaryDirectory() as kept:
        cases = {
            FLOOR: partial(_run, "floor", safetensors, None),
            FIRST: partial(_run, "embed", safetensors, None),
            # The warm-up round stores the hashes in this cache.
            LATER: partial(_run, "embed", safetensors, Path(kept)),
            LATER_PYTORCH: partial(_run, "embed", pytorch, Path(kept)),
        }
        return in_turns(cases, repeats)


def _phase_table(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the median seconds of each phase, in chronological order."""
    names = dict.fromkeys(
        name for name in (*runs[FIRST][0].phases, *runs[FLOOR][0].phases) if name != "rest"
    )
    rows = []
    for name in (*names, "rest"):
        columns = (
            [r.phases[name] for r in of_case if name in r.phases] for of_case in runs.values()
        )
        rows.append([name, *(f"{statistics.median(c):.2f}" if c else "" for c in columns)])
    return table(["median s", *runs], rows)


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    add_folder(parser)
    args = parser.parse_args()
    with vit_large(args.folder) as folder:
        disturbance = Disturbance()
        runs = _measure(folder, args.repeats)
        disturbed = disturbance.report()
    seconds = {name: [run.seconds for run in of_case] for name, of_case in runs.items()}
    with_forward = [run.seconds + run.forward_s for run in runs[FLOOR]]
    compared = {FLOOR: seconds.pop(FLOOR), FLOOR_FORWARD: with_forward, **seconds}
    print(f"Process start to first embedding ({machine()})\n")
    print(comparison(compared, baselines=[FLOOR, FLOOR_FORWARD], unit="s"))
    print("\nPhases\n\n" + _phase_table(runs))
    peaks = {name: [run.peak_gb for run in runs[name]] for name in seconds}
    print("\nPeak memory, mapped weights included\n")
    print(comparison(peaks, baselines=[], unit="GB"))

    ratio = statistics.median(ratios(compared[LATER], compared[FLOOR]))
    peak = max(map(max, peaks.values()))
    print("\n" + goal(f"later run in {GOAL_RATIO} x floor, {ratio:.2f} x", ratio <= GOAL_RATIO))
    print(goal(f"peak memory of {GOAL_GB} GB, {peak:.2f} GB", peak <= GOAL_GB))
    print(disturbed)


if __name__ == "__main__":
    main()
