"""A whole Sentinel-2 tile as one map: memory in addition to the model, time, disk space.

    python benchmarks/bench_map_memory.py [--scene scene.tif] [--side 10980] [--small 1280]
        [--weights random-init] [--variant tiny] [--formats .zarr .tif] [--folder temporary]

Each map is computed by a separate process, which loads the model and runs one batch before the
measurement starts: "beyond the model" is the peak resident set (VmHWM) minus the memory at that
time. The area of ``--small`` px is the baseline: memory must not grow with the area. Use
``--side 2048`` for a quick trial.
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


def watched(args: dict[str, Any]) -> dict[str, Any]:
    """Return the output of the process of one map."""
    ended = run_python([SCRIPT, "watch", json.dumps(args)], {"PYTHONWARNINGS": "ignore"})
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
    parser.add_argument("--folder", type=Path, help="where maps are written (and removed)")
    args = parser.parse_args()
    disturbance = Disturbance()
    model = {"model": "scalemae", "weights": args.weights, "variant": args.variant}
    rows, peaks = [], []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        scenes = {side: Path(folder) / f"{side}.tif" for side in (args.small, args.side)}
        for side, path in scenes.items():
            write_mirrored(args.scene, side, path)
        for suffix in args.formats:
            for round_ in range(args.repeats):
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
                    rows.append(_row(name, took[side], took[args.small]))
                    peaks.append(took[side]["beyond_mb"])
    print(f"Maps with {args.weights}, {args.variant} ({machine()})\n")
    print(table(_HEADER, rows))
    text = f"at most {GOAL_MB:.0f} MB (1.5 GiB) beyond the model, {max(peaks):.0f} MB"
    print("\n" + goal(text, max(peaks) <= GOAL_MB))
    print(disturbance.report())


if __name__ == "__main__":
    main()
