"""Compare this library with its best-known peer, cybergis/rs-embed 0.3.1, on the same inputs.

    python benchmarks/peers/compare.py --peer-python PATH [--places 16] [--side 256] [--repeats 1]

Both embed the same windows of a scene with the same weights, each in its own environment, because
both packages are called ``rs_embed``. The peer needs Python >= 3.12; make its environment with

    python3.12 -m venv peer
    peer/bin/pip install rs-embed==0.3.1 'transformers<5.4' 'huggingface-hub<2' rasterio

Every measurement is a process that embeds one place (its end is the start-up time), and then all of
them into one file. Cases alternate; the first round warms up and does not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from measure import Disturbance, arguments, comparison, in_turns, machine, positive, table  # noqa: E402
from scenes import add_scene  # noqa: E402

PERIOD = ("2016-06-01", "2016-06-02")
OURS, PEER = "ours", "peer"
NO_NORM, OURS_EQUAL = "ours, tokens='pre_norm'", "ours, made equal"
PEER_EQUAL = "peer, made equal"
# `side` stands for the side of the windows: an image of this size is not resized.
CASES: dict[str, dict[str, Any]] = {
    OURS: {},
    PEER: {},
    NO_NORM: {"tokens": "pre_norm"},
    OURS_EQUAL: {"tokens": "pre_norm", "image_size": "side"},
    PEER_EQUAL: {"input_prep": "resize", "image_size": "side", "save_inputs": False},
}
PAIRS = {
    (OURS_EQUAL, PEER_EQUAL): "nothing: the same image, GSD and tokens",
    (OURS, NO_NORM): "the final norm of the encoder, which the peer leaves out",
    (NO_NORM, OURS_EQUAL): "the authors' resize to 8/7 and centre crop, and the GSD it causes",
    (PEER, PEER_EQUAL): "its tiles of 224 px, stitched, instead of one image",
    (OURS, PEER): "all of these",
}


def measured(case: str, python: str, request: dict[str, Any], vectors: dict[str, Any]) -> Any:
    """Run a case in a process of its own; return what it reports, with its start-up in seconds."""
    options = {k: request["side"] if v == "side" else v for k, v in CASES[case].items()}
    script = "ours.py" if case.startswith(OURS) else "peer.py"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RS_EMBED_")}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "all.npz"
        asked = json.dumps({**request, "options": options, "output": str(output)})
        began = time.monotonic()
        command = [python, "-W", "ignore", str(HERE / script), asked]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        result = json.loads(done.stdout.splitlines()[-1])
        vectors[case] = np.load(output.with_suffix(".npy"))
    return {**result, "startup": result["ready"] - began}


def cosines(first: Any, second: Any) -> Any:
    """Return the cosine similarity of each row with the same row of another table."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / lengths


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    add_scene(parser)
    parser.add_argument("--peer-python", required=True, help="interpreter that has the peer")
    parser.add_argument("--places", type=positive, default=16, help="default 16")
    parser.add_argument("--side", type=positive, default=256, help="px of each window (256)")
    parser.add_argument("--weights", help="folder that both load; default: random ViT-L/16")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    vectors: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or f"{folder}/weights"
        command = [sys.executable, str(HERE / "inputs.py"), str(args.scene), str(args.side)]
        made = subprocess.run(
            [*command, str(args.places), folder, weights], check=True, stdout=subprocess.PIPE
        )
        request = {
            **json.loads(made.stdout), "period": PERIOD, "side": args.side, "weights": weights,
            "device": args.device,
        }  # fmt: skip
        pythons = {c: sys.executable if c.startswith(OURS) else args.peer_python for c in CASES}
        cases = {c: partial(measured, c, p, request, vectors) for c, p in pythons.items()}
        disturbance = Disturbance()
        runs = in_turns(cases, args.repeats)
    print(f"{args.places} windows of {args.side} px, {args.device}, {args.weights or 'random'}")
    print(f"{machine()}; " + "; ".join(f"{c}: {runs[c][0]['versions']}" for c in (OURS, PEER)))
    unit = 1e9 if sys.platform == "darwin" else 1e9 / 1024
    figures = {
        "places/s": lambda run: args.places / run["seconds"],
        "s to the first place": lambda run: run["startup"],
        "GB of memory": lambda run: run["peak"] / unit,
        "MB of output": lambda run: run["bytes"] / 1e6,
    }
    for name, figure in figures.items():
        values = {case: [figure(run) for run in of_case] for case, of_case in runs.items()}
        print("\n" + comparison(values, baselines=[PEER], unit=name))
    rows = []
    for (first, second), reason in PAIRS.items():
        each = cosines(vectors[first], vectors[second])
        apart = np.abs(vectors[first] - vectors[second]).max()
        shown = [f"{each.min():.6f}", f"{np.median(each):.6f}", f"{apart:.1e}"]
        rows.append([f"{first} / {second}", *shown, reason])
    print("\n" + table(["vectors", "least cosine", "median", "max difference", "differ by"], rows))
    each = cosines(vectors[OURS], vectors[PEER])
    print("\nours / peer, place by place: " + " ".join(f"{value:.4f}" for value in each))
    print(disturbance.report())


if __name__ == "__main__":
    main()
