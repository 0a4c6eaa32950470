"""Overhead of a map over the forward of its windows, and the cost of denser maps.

    python benchmarks/bench_map_overhead.py [--scene scene.tif] [--side 864] [--variant large]
        [--dense-side 448] [--dense-weights scalemae-tiny] [--repeats 3]

The first table compares ``embed_area`` with the bare forward of exactly its windows, in the same
batches, prepared in advance, and checks that both give the same tokens. 864 px are 25 windows of
224 px. On a busy machine the second table is more reliable: the share of the time of each
``embed_area`` that was not spent in the network, measured in the same run. The third compares maps
of smaller strides with the normal one; each needs (patch / stride)^2 images per window.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import (
    Disturbance,
    arguments,
    comparison,
    goal,
    in_turns,
    machine,
    ratios,
    seconds,
    table,
)
from networks import add_count, add_variant, forward, in_batches, network_of, options
from numpy.typing import NDArray
from scenes import add_scene, write_mirrored

from rs_embed import embed_area, open_map
from rs_embed.embedding.model_input import image_of
from rs_embed.embedding.task import gsd_for_model
from rs_embed.errors import RsEmbedWarning
from rs_embed.geo.grid import gsd_m
from rs_embed.maps.blending import strips
from rs_embed.maps.report import MapReport
from rs_embed.maps.request import AreaTask, settle_area
from rs_embed.models.scalemae.network import ScaleMae

GOAL_OVERHEAD = 0.10
BARE, ZARR, TIF = "bare forward of the windows", "embed_area to .zarr", "embed_area to .tif"


class ForwardClock:
    """Adds up the time spent in the forward of a network.

    Attributes
    ----------
    seconds : float
        Total so far.
    """

    def __init__(self, network: ScaleMae) -> None:
        self.seconds = 0.0
        network.register_forward_pre_hook(self._begin)
        network.register_forward_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def embed(args: dict[str, Any], output: Path, **more: Any) -> MapReport:
    """Compute a map from scratch."""
    return embed_area(output=output, overwrite=True, device="cpu", progress=False, **args, **more)


def prepared(task: AreaTask) -> list[torch.Tensor]:
    """Return the inputs of all windows, in the batches that the map takes."""
    preparation = task.task.plan.preparation
    tensors = []
    for tile in task.layout.tiles:
        acquired = task.read(task.layout.window(tile))
        image = image_of(acquired.raster, acquired.reflectance, preparation)
        tensors.append(preparation.tensor(image))
    return in_batches(tensors)


def check(
    task: AreaTask, network: ScaleMae, batches: list[torch.Tensor], gsd: float, path: Path
) -> None:
    """Raise an error unless the bare forward gives the tokens of the map."""
    with torch.inference_mode():
        of_batches = [network(b, torch.full((len(b),), gsd))[1].numpy() for b in batches]
    windows = iter(np.concatenate(of_batches)[:, None, None])  # windows k k h w D
    with open_map(path) as made:
        found: NDArray[np.float32] = made.transpose("y", "x", "d").values
    dimensions = found.shape[-1]
    parts = strips(
        task.layout, lambda tiles: [next(windows) for _ in tiles], dimensions, task.seams, 64
    )
    if np.abs(np.concatenate(list(parts)) - found).max() > 1e-3:
        raise SystemExit("the baseline does not give the same tokens")


def overhead(scene: Path, folder: Path, variant: str, repeats: int) -> None:
    """Print the overhead of a map over the forward."""
    args: dict[str, Any] = {"model": "scalemae", "imagery": scene, **options(variant)}
    task = settle_area(device="cpu", **args)
    batches, network = prepared(task), network_of(variant)
    gsd = gsd_for_model(task.task.plan.gsd, gsd_m(task.layout.area), task.layout.tile_size)
    outputs = {ZARR: folder / "map.zarr", TIF: folder / "map.tif"}
    embed(args, outputs[ZARR])
    check(task, network, batches, gsd, outputs[ZARR])
    cases = {BARE: partial(seconds, partial(forward, network, batches, gsd))}
    clock = ForwardClock(network)
    outside: dict[str, list[float]] = {name: [] for name in outputs}

    def timed(name: str) -> float:
        before = clock.seconds
        took = seconds(partial(embed, args, outputs[name]))
        outside[name].append(1 - (clock.seconds - before) / took)
        return took

    cases.update({name: partial(timed, name) for name in outputs})
    samples = in_turns(cases, repeats)
    print(
        f"{len(task.layout.tiles)} windows of {task.layout.tile_size} px, {variant} network, "
        f"batches of {len(batches[0])} ({machine()})\n"
    )
    print(comparison(samples, baselines=[BARE], unit="s"))
    # The first round warms up.
    rows = [
        [name, *(f"{of(outside[name][1:]):.1%}" for of in (min, statistics.median, max))]
        for name in outputs
    ]
    print("\n" + table(["outside the network, same run", "min", "median", "max"], rows))
    share = max(statistics.median(outside[name][1:]) for name in outputs)
    text = f"all but the network below {GOAL_OVERHEAD:.0%} of the total, {share:.1%}"
    print("\n" + goal(text, share < GOAL_OVERHEAD))


def dense(scene: Path, folder: Path, weights: str, repeats: int) -> None:
    """Print the cost of smaller strides."""
    args: dict[str, Any] = {"model": "scalemae", "imagery": scene, "weights": weights}
    layout = settle_area(**args).layout
    strides = [layout.patch_size >> halvings for halvings in range(3)]
    names = {stride: f"stride {stride} px" for stride in strides}
    made: dict[int, MapReport] = {}

    def run(stride: int) -> float:
        path = folder / f"dense-{stride}.zarr"
        if path.exists():
            shutil.rmtree(path)
        return seconds(lambda: made.update({stride: embed(args, path, stride_px=stride)}))

    samples = in_turns({names[stride]: partial(run, stride) for stride in strides}, repeats)
    plain = names[strides[0]]
    print(f"\n{len(layout.tiles)} windows of {layout.tile_size} px, {weights}, to .zarr\n")
    print(comparison(samples, baselines=[plain], unit="s"))
    rows = []
    for stride in strides:
        passes = (layout.patch_size // stride) ** 2
        cost = statistics.median(ratios(samples[names[stride]], samples[plain])) / passes
        rows.append(
            [names[stride], str(passes), str(made[stride].tokens), f"{cost:.2f}",
             f"{made[stride].bytes / 1e6:.1f}"]
        )  # fmt: skip
    print()
    print(table(["case", "images per window", "tokens", "x normal per image", "MB"], rows))


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    add_scene(parser)
    add_count(parser, "--side", 864, "side of the area, pixels")
    add_variant(parser, "large")
    add_count(parser, "--dense-side", 448, "side of the area of dense maps, pixels")
    parser.add_argument("--dense-weights", default="scalemae-tiny")
    args = parser.parse_args()
    warnings.simplefilter("ignore", RsEmbedWarning)
    disturbance = Disturbance()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [folder / f"{number}.tif" for number in range(2)]
        for path, side in zip(scenes, (args.side, args.dense_side), strict=True):
            write_mirrored(args.scene, side, path)
        overhead(scenes[0], folder, args.variant, args.repeats)
        dense(scenes[1], folder, args.dense_weights, args.repeats)
    print("\n" + disturbance.report())


if __name__ == "__main__":
    main()
