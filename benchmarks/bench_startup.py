"""How long a process takes from its start to its first embedding, and how much memory.

    python benchmarks/bench_startup.py [--repeats 5] [--folder FOLDER]

The weights are a random ViT-L/16 (1.21 GB), the page cache is warm. A first run does not know the
SHA-256 of the weights file: a thread computes it beside other work, and the result waits for it;
later runs remember it. Two baselines come from one process that starts in the same round:

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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from checkpoints import PYTORCH, SAFETENSORS, add_folder, vit_large
from measure import arguments, comparison, goal, in_turns, machine, ratios, table
from processes import run_python

GOAL_RATIO = 1.5
GOAL_GB = 1.7
FLOOR, FLOOR_FORWARD = "floor", "floor + forward"
FIRST = "first run, safetensors"
LATER = "later run, safetensors"
LATER_PYTORCH = "later run, pytorch_model.bin"
SCRIPT = str(Path(__file__).with_name("first_embedding.py"))


@dataclass
class Case:
    """One kind of process, with what its runs said."""

    step: str
    weights: Path
    cache: Path | None
    peaks_gb: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> float:
        """Return seconds from before the process was made until its result was there."""
        with tempfile.TemporaryDirectory() as fresh:
            cache = str(self.cache or fresh)
            done = run_python([SCRIPT, self.step, str(self.weights)], {"XDG_CACHE_HOME": cache})
        told = json.loads(done.output)
        seconds: float = told["ready"] - done.started
        phases: dict[str, float] = told["phases"]
        self.peaks_gb.append(done.peak_gb)
        self.phases.append(phases)
        return seconds


def _phase_table(cases: dict[str, Case], samples: dict[str, list[float]]) -> str:
    """Return the medians of all phases; what no phase covers is the rest."""
    shown = [FLOOR, FIRST, LATER, LATER_PYTORCH]
    names = list(dict.fromkeys(name for label in shown for name in cases[label].phases[-1]))
    rows = []
    for name in names:
        medians = []
        for label in shown:
            values = [phases[name] for phases in cases[label].phases if name in phases]
            counted = label != FLOOR or name != "forward"
            medians.append(f"{statistics.median(values):.2f}" if values and counted else "")
        rows.append([name, *medians])
    rests = []
    for label in shown:
        counted_phases = [
            sum(v for name, v in phases.items() if label != FLOOR or name != "forward")
            for phases in cases[label].phases[-len(samples[label]) :]
        ]
        rest = [s - p for s, p in zip(samples[label], counted_phases, strict=True)]
        rests.append(f"{statistics.median(rest):.2f}")
    rows.append(["rest", *rests])
    return table(["median s", *shown], rows)
