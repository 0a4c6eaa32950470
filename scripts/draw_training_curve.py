"""Draw the losses of a pretraining run.

python scripts/draw_training_curve.py metrics.jsonl docs/images/pretraining-curve.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

CURVES = {
    "low": "low frequencies (L2)",
    "high": "high frequencies (L1)",
    "contrast": "two views (InfoNCE)",
    "dense": "same ground (InfoNCE)",
}
# Each point is the mean of this number of steps.
SMOOTHED = 100


def main(metrics: Path, target: Path) -> None:
    """Write the picture: one panel for each loss, and the learning rate in the last one."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = np.array([line["step"] for line in lines])
    curves = {name: what for name, what in CURVES.items() if any(line.get(name) for line in lines)}
    figure, panels = plt.subplots(1, len(curves) + 1, figsize=(12, 2.8), constrained_layout=True)
    for panel, (name, what) in zip(panels, curves.items(), strict=False):
        values = np.array([line[name] for line in lines])
        spread = np.abs(steps[:, None] - steps) <= SMOOTHED / 2
        panel.plot(steps, values, color="0.8", linewidth=0.8)
        panel.plot(steps, spread @ values / spread.sum(axis=1), color="#0b5cad")
        panel.set(title=what, xlabel="step", yscale="log")
    panels[-1].plot(steps, [line["learning_rate"] for line in lines], color="#0b5cad")
    panels[-1].set(title="learning rate", xlabel="step")
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
