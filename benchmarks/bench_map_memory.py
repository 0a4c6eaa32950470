"""A whole Sentinel-2 tile as one map: its memory beyond the model, its time, its disk.

    python benchmarks/bench_map_memory.py [--scene scene.tif] [--side 10980] [--small 1280]
        [--weights random-init] [--variant tiny] [--formats .zarr .tif] [--folder temporary]

Each map is made by a process of its own, which loads the model and runs one batch before anything
is counted: "beyond the model" is its peak resident set (VmHWM) less what it held then. The area of
``--small`` px is the baseline: memory must not grow with the area. ``--side 2048`` tries the
script.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from measure import Disturbance, arguments, goal, machine, positive, table
from scenes import add_scene, write_mirrored

from processes import run_python

GOAL_MB = 1.5 * 2**30 / 1e6
SCRIPT = str(Path(__file__).with_name("map_cases.py"))
_HEADER = (
    "map", "windows", "windows/s", "s", "writing", "model MB", "beyond the model MB",
    "while embedding", "while writing", "x small", "`.partial` MB", "map MB",
)  # fmt: skip


def watched(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the process of one map prints."""
    ended = run_python([SCRIPT, "watch", json.dumps(asked)], {"PYTHONWARNINGS": "ignore"})
    result: dict[str, Any] = json.loads(ended.output)
    return result


def _row(name: str, took: dict[str, Any], small: dict[str, Any]) -> list[str]:
    return [
        name, str(took["windows"]), f"{took['windows'] / took['seconds']:.2f}",
        f"{took['seconds']:.0f}", f"{took['writing_s'] / took['seconds']:.1%}",
        f"{took['model_mb']:.0f}", f"{took['beyond_mb']:.0f}", f"{took['embedding_mb']:.0f}",
        f"{took['writing_mb']:.0f}", f"{took['beyond_mb'] / small['beyond_mb']:.2f}",
        f"{took['kept_mb']:.0f}", f"{took['bytes'] / 1e6:.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    add_scene(parser)
    parser.add_argument("--side", type=positive, default=10980, help="px (default 10980)")
    parser.add_argument("--small", type=positive, default=1280, help="px (default 1280)")
    parser.add_argument("--weights", default="random-init")
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--formats", nargs="+", default=[".zarr", ".tif"])
    parser.add_argument("--folder", type=Path, help="where the maps are made, and removed")
    asked = parser.parse_args()
    disturbance = Disturbance()
    model = {"model": "scalemae", "weights": asked.weights, "variant": asked.variant}
    rows, peaks = [], []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        scenes = {side: Path(folder) / f"{side}.tif" for side in (asked.small, asked.side)}
        for side, path in scenes.items():
            write_mirrored(asked.scene, side, path)
        for suffix in asked.formats:
            for round_ in range(asked.repeats):
                took = {
                    side: watched(
                        {
                            **model,
                            "imagery": str(path),
                            "output": str(Path(folder) / f"map-{side}-{round_}{suffix}"),
                        }
                    )
                    for side, path in scenes.items()
                }
                for side in scenes:
                    name = f"{side} px, {suffix}"
                    rows.append(_row(name, took[side], took[asked.small]))
                    peaks.append(took[side]["beyond_mb"])
    print(f"Maps with {asked.weights}, {asked.variant} ({machine()})\n")
    print(table(_HEADER, rows))
    text = f"at most {GOAL_MB:.0f} MB (1.5 GiB) beyond the model, {max(peaks):.0f} MB"
    print("\n" + goal(text, max(peaks) <= GOAL_MB))
    print(disturbance.report())


if __name__ == "__main__":
    main()
