"""Common work with the weights that ship, compared with another version of the library.

    python benchmarks/bench_speed.py --baseline ../other/src [--repeats 3] [--cases images busy ...]

``--baseline`` is the ``src`` folder of another checkout (``git worktree add ../other REVISION``);
without it, only this version is measured. Each measurement is a process of its own. ``images``,
``busy``, ``one thread`` and ``map`` time the work alone, after a first embedding; ``batch`` is the
whole command. For ``busy`` and ``one thread`` another process computes all the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from measure import Disturbance, arguments, comparison, goal, in_turns, machine, ratios
from scenes import add_scene, write_mirrored

from processes import run_python

SRC = Path(__file__).parents[1] / "src"
# Case -> work, threads of PyTorch if stated, whether another process computes, and the goal.
CASES: dict[str, tuple[str, str, bool, float]] = {
    "images": ("images", "", False, 1.25),
    "busy": ("images", "", True, 2.0),
    "one thread": ("images", "1", True, 0.0),
    "batch": ("batch", "", False, 1.5),
    "map": ("map", "", False, 1.3),
}
IMAGES, PLACES, MAP_PX = 400, 240, 2048
WORK = """
import json, os, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
from rs_embed import FetchSpec, embed_area, get_embeddings_batch
kind, folder, more = sys.argv[1:]
options = {"weights": "scalemae-tiny", "device": "cpu", **json.loads(more)}
images = np.load(folder + "/images.npy")
few = lambda count: get_embeddings_batch(
    "scalemae", input_chws=list(images[:count]), fetch=FetchSpec(scale_m=10), image_size=64,
    **options,
)
few(2)
start = time.perf_counter()
if kind == "images":
    few(len(images))
else:
    embed_area("scalemae", imagery=folder + "/scene.tif", output=folder + "/map.zarr",
               overwrite=True, progress=False, tile_size=224, **options)
print(json.dumps(time.perf_counter() - start))
"""
COMMAND = "from rs_embed.cli import main; main()"


@contextmanager
def _other_process(wanted: bool) -> Iterator[None]:
    """Run a process that does nothing but compute."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def _seconds(case: str, src: Path, options: Mapping[str, str], folder: Path) -> float:
    work, threads, busy, _ = CASES[case]
    environment = {"PYTHONPATH": str(src), "PYTHONWARNINGS": "ignore"}
    if threads:
        environment["OMP_NUM_THREADS"] = threads
    with _other_process(busy):
        if work == "batch":
            command = (
                f"batch {folder}/places.csv -o {folder}/vectors.npz --overwrite "
                "--backend sample --buffer-m 1120 --image-size 224 --variant tiny --device cpu "
                + " ".join(f"--{name} {value}" for name, value in options.items())
            )
            return run_python(["-c", COMMAND, *command.split()], environment).seconds
        done = run_python(["-c", WORK, work, str(folder), json.dumps(options)], environment)
    seconds: float = json.loads(done.output.splitlines()[-1])
    return seconds


def _write_inputs(folder: Path, scene: Path) -> None:
    from rs_embed import SAMPLE_PLACE

    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(200, 4000, (IMAGES, 3, 64, 64), dtype=np.uint16))
    write_mirrored(scene, MAP_PX, folder / "scene.tif")
    east, north = SAMPLE_PLACE.centre
    offsets = rng.uniform(-0.015, 0.015, (PLACES, 2))  # degrees: windows inside of the scene
    rows = (f"{n},{east + x},{north + y}" for n, (x, y) in enumerate(offsets))
    (folder / "places.csv").write_text("\n".join(["id,lon,lat", *rows]))


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    add_scene(parser)
    parser.add_argument("--baseline", type=_src, help="src of another checkout")
    parser.add_argument("--onnx", action="store_true", help="also with runtime='onnx'")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    versions: dict[str, tuple[Path, dict[str, str]]] = {
        "this": (SRC, {}),
        **({"this, onnx": (SRC, {"runtime": "onnx"})} if args.onnx else {}),
        **({"baseline": (args.baseline, {})} if args.baseline else {}),
    }
    print(f"Common work, seconds ({machine()})\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_inputs(folder, args.scene)
        for case in args.cases:
            disturbance = Disturbance()
            cases = {
                name: partial(_seconds, case, *version, folder)
                for name, version in versions.items()
            }
            seconds = in_turns(cases, args.repeats)
            print(f"{case}\n\n{comparison(seconds, baselines=['this'], unit='s')}\n")
            if args.baseline and (wanted := CASES[case][3]):
                gain = statistics.median(ratios(seconds["baseline"], seconds["this"]))
                print(goal(f"{wanted} x the baseline, {gain:.2f} x", gain >= wanted))
            print(f"{disturbance.report()}\n", flush=True)


def _src(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "rs_embed").is_dir():
        raise argparse.ArgumentTypeError(f"got {text}, expected a folder with rs_embed in it")
    return path


if __name__ == "__main__":
    main()
