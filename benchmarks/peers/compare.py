"""Compare with the best-known peer, cybergis/rs-embed 0.3.1, on the same windows and weights.

    python benchmarks/peers/compare.py --peer-python peer/bin/python [--places 16] [--side 256]

Both packages are called ``rs_embed``, so each runs in its own environment. Make the peer's with

    python3.12 -m venv peer
    peer/bin/pip install rs-embed==0.3.1 'transformers<5.4' 'huggingface-hub<2' rasterio

Every measurement is a process that embeds one place, then all places into one file.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import measure  # noqa: E402
from scenes import add_scene  # noqa: E402

OURS, PEER = "ours", "peer"
NO_NORM, OURS_EQUAL, PEER_EQUAL = "ours, pre_norm", "ours, made equal", "peer, made equal"
# An image of SIDE, the side of the windows, is not resized by either.
SIDE = "side of the windows"
CASES: dict[str, dict[str, Any]] = {
    OURS: {},
    PEER: {},
    NO_NORM: {"tokens": "pre_norm"},
    OURS_EQUAL: {"tokens": "pre_norm", "image_size": SIDE},
    PEER_EQUAL: {"input_prep": "resize", "image_size": SIDE, "save_inputs": False},
}
PAIRS = {
    (OURS, PEER): "all below",
    (OURS, NO_NORM): "final norm, which the peer omits: tokens='pre_norm'",
    (NO_NORM, OURS_EQUAL): "the authors' resize to 8/7 and crop: image_size above 224",
    (PEER, PEER_EQUAL): "stitched tiles of 224 px: the peer's input_prep='resize'",
    (OURS_EQUAL, PEER_EQUAL): "nothing",
}


def places(scene: Path, side: int, count: int) -> dict[str, Any]:
    """Return the centres of windows, on corners of pixels, and half a side in metres."""
    with rasterio.open(scene) as file:
        number, half = math.isqrt(count - 1) + 1, side // 2
        rows, columns = (
            np.linspace(half, length - half, number).astype(int).tolist() for length in file.shape
        )
        corners = [file.transform @ (column, row) for row in rows for column in columns][:count]
        centres = transform(file.crs, "EPSG:4326", *zip(*corners, strict=True))
        return {"centres": list(zip(*centres, strict=True)), "buffer_m": half * file.transform.a}


def measured(case: str, python: str, asked: dict[str, Any], vectors: dict[str, Any]) -> Any:
    """Run a case in a process; return its report, with its start-up in seconds."""
    options = {k: asked["side"] if v == SIDE else v for k, v in CASES[case].items()}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RS_EMBED_")}
    with tempfile.TemporaryDirectory() as folder:
        request = json.dumps({**asked, "options": options, "output": f"{folder}/all.npz"})
        command = [python, "-W", "ignore", str(HERE / f"{case[:4]}.py"), request]
        began = time.monotonic()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        vectors[case] = np.load(f"{folder}/vectors.npy")
    result = json.loads(done.stdout.splitlines()[-1])
    return {**result, "startup": result["ready"] - began}


def main() -> None:
    parser = measure.arguments(__doc__, repeats=2)
    add_scene(parser)
    parser.add_argument("--peer-python", required=True, help="interpreter that has the peer")
    parser.add_argument("--places", type=measure.positive, default=16)
    parser.add_argument("--side", type=measure.positive, default=256, help="of windows, px")
    parser.add_argument("--weights", help="folder that both load; default random ViT-L/16")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    vectors: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or f"{folder}/weights"
        if not args.weights:
            subprocess.run([sys.executable, str(HERE / "weights.py"), weights], check=True)
        # Dated, so that both find it in the period; the day of the sample scene is not known.
        scene = shutil.copy(args.scene, f"{folder}/scene_20160601.tif")
        asked = {
            **places(args.scene, args.side, args.places), "scene": scene, "side": args.side,
            "period": ("2016-06-01", "2016-06-02"), "weights": weights, "device": args.device,
        }  # fmt: skip
        pythons = {OURS: sys.executable, PEER: args.peer_python}
        disturbance = measure.Disturbance()
        runs: dict[str, list[Any]] = {case: [] for case in CASES}
        for number in range(args.repeats):
            for case in list(CASES)[:: -1 if number % 2 else 1]:
                runs[case].append(measured(case, pythons[case[:4]], asked, vectors))
                print(f"{case}: {runs[case][-1]}", file=sys.stderr)
    print(f"{args.places} windows of {args.side} px on {args.device} ({measure.machine()})")
    print("\n".join(f"{case}: {runs[case][0]['versions']}" for case in (OURS, PEER)))
    unit = 1e9 if sys.platform == "darwin" else 1e9 / 1024
    figures: dict[str, Callable[[Any], float]] = {
        "places/s": lambda run: args.places / run["seconds"],
        "processor s per place": lambda run: run["processors"] / args.places,
        "s to first place": lambda run: run["startup"],
        "GB of memory": lambda run: run["peak"] / unit,
        "MB of output": lambda run: run["bytes"] / 1e6,
    }
    for name, figure in figures.items():
        values = {case: [figure(run) for run in of_case] for case, of_case in runs.items()}
        print("\n" + measure.comparison(values, baselines=[PEER, PEER_EQUAL], unit=name))
    rows = []
    for (first, second), reason in PAIRS.items():
        a, b = vectors[first], vectors[second]
        each = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        shown = [f"{each.min():.6f}", f"{np.median(each):.6f}", f"{np.abs(a - b).max():.1e}"]
        rows.append([f"{first} / {second}", *shown, reason])
        print(f"\n{first} / {second}, cosine of each place:", *(f"{c:.6f}" for c in each))
    header = ["vectors", "least cosine", "median", "largest difference", "differ by"]
    print("\n" + measure.table(header, rows) + "\n\n" + disturbance.report())


if __name__ == "__main__":
    main()
