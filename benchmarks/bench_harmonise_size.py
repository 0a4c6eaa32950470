"""Time and memory of harmonising a whole Sentinel-2 tile: 10 980 x 10 980 px.

    python benchmarks/bench_harmonise_size.py [--side 10980] [--dimensions 192 1024]
        [--tile-size 224]

The windows hold noise and one vector each, so that only what harmonising adds is measured: reading
the overlaps ("overlaps"), the solution, and the peak memory of the process minus that of the case
of one dimension and two windows. ViT-L has patches of 16 px, hence a quarter of the tokens.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import numpy as np
from affine import Affine
from measure import arguments, machine, positive, table
from numpy.typing import NDArray
from pyproj import CRS

from processes import run_python
from rs_embed.geo.grid import Grid
from rs_embed.geo.tiling import Tile
from rs_embed.maps.harmonising import differences
from rs_embed.maps.layout import layout_of

PATCH_PX = {192: 8, 1024: 16}


def case(side: int, dimensions: int, patch: int, tile_size: int) -> dict[str, float]:
    """Return what the overlaps and the solution took."""
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 400_000, 0, -10, 5_200_000), (side, side))
    overlap = tile_size // 4 // patch * patch
    layout = layout_of(
        grid,
        within=None,
        tile_size=tile_size,
        overlap_px=overlap,
        patch_size=patch,
        stride_px=patch,
    )
    generator = np.random.default_rng(0)
    shape = (1, 1, *layout.tile_patches, dimensions)
    noise = generator.normal(size=shape).astype(np.float32)

    def windows(tiles: list[Tile]) -> Iterator[NDArray[np.float32]]:
        for _ in tiles:
            yield noise + generator.normal(size=dimensions).astype(np.float32)

    start = time.perf_counter()
    found = differences(layout, windows, dimensions)
    read = time.perf_counter()
    found.offsets(0.05)
    solved = time.perf_counter()
    return {"windows": len(layout.tiles), "overlaps": read - start, "solution": solved - read}


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--side", type=positive, default=10_980)
    parser.add_argument("--dimensions", type=int, choices=[*PATCH_PX], nargs="+", default=PATCH_PX)
    parser.add_argument("--tile-size", type=positive, default=224)
    options = parser.parse_args()
    print(machine())
    rows, least_gb = [], 0.0
    for side, dimensions in [(400, 1), *((options.side, each) for each in options.dimensions)]:
        patch = PATCH_PX.get(dimensions, 8)
        done = run_python(
            [__file__, "case", *map(str, (side, dimensions, patch, options.tile_size))]
        )
        found = json.loads(done.output)
        least_gb = least_gb or done.peak_gb
        rows.append(
            [f"{side}", f"{dimensions}", f"{patch}", f"{found['windows']}",
             f"{found['overlaps']:.1f}", f"{found['solution']:.2f}",
             f"{1000 * (done.peak_gb - least_gb):.0f}"]
        )  # fmt: skip
    head = ["side px", "dimensions", "patch px", "windows", "overlaps s", "solution s", "peak MB"]
    print(table(head, rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(case(*map(int, sys.argv[2:6]))))
    else:
        main()
