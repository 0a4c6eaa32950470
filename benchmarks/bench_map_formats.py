"""Chunks and blocks of maps: file size, and the cost of different reads.

    python benchmarks/bench_map_formats.py [--repeats 3] [--side 500] [--dimensions 128]

A map of smooth fields with noise is written as Zarr in several chunks and as GeoTIFF in several
blocks, float32. From each file the script reads one dimension of the whole map, all dimensions of a
token, and all dimensions of a square of 64 x 64 tokens. It reports the megabytes that the process
reads (Linux) and the median time with the file in the page cache. The last table compares
encodings.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from measure import arguments, machine, positive, seconds, table
from numpy.typing import NDArray
from pyproj import CRS

from rs_embed.geo.grid import Grid
from rs_embed.maps.formats.cog import CogLayout, write_cog
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.encoding import FittedEncoding, MapEncoding
from rs_embed.maps.formats.paths import size_bytes
from rs_embed.maps.formats.zarr import ZarrLayout, write_zarr

CHUNKS = (
    ZarrLayout(1, 256),
    ZarrLayout(8, 64),
    ZarrLayout(16, 32),
    ZarrLayout(16, 64),
    ZarrLayout(32, 32),
    ZarrLayout(192, 16),
)
BLOCKS = tuple(CogLayout(side, "band") for side in (128, 256, 512)) + tuple(
    CogLayout(side, "pixel") for side in (128, 256, 512)
)
SQUARE = 64
HEADER = ("", "MB", "write s", "dimension MB", "ms", "token MB", "ms", "square MB", "ms")
# Parts of (d, y, x) to read.
Part = tuple[slice, slice, slice]


def content(side: int, depth: int) -> MapContent:
    """Return a map of 12 smooth fields mixed into all dimensions, and a tenth of noise."""
    random = np.random.default_rng(0)
    waves, phases = random.normal(size=(12, 2)) * 8, random.uniform(0, 6, 12)
    mixing = random.normal(size=(12, depth)).astype(np.float32)
    at = np.linspace(0, 1, side)
    values = np.empty((side, side, depth), np.float32)
    for row in range(side):
        fields = np.sin(at[row] * waves[:, 0] + at[:, None] * waves[:, 1] + phases)
        noise = random.standard_normal((side, depth), np.float32)
        values[row] = fields.astype(np.float32) @ mixing + np.float32(0.1) * noise

    def strips(rows: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, side, rows):
            yield values[start : start + rows]

    grid = Grid(CRS.from_epsg(32633), Affine(160, 0, 500_000, 0, -160, 5_000_000), (side, side))
    return MapContent(grid, depth, strips, {"model": "scalemae"})


def read_zarr(path: Path, part: Part) -> NDArray[Any]:
    import zarr

    group = zarr.open_group(path, mode="r")
    array: Any = group["embedding"]
    values: NDArray[Any] = array[part]
    return values


def read_cog(path: Path, part: Part) -> NDArray[Any]:
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as file:
        bands = list(file.indexes)[part[0]]
        window = Window.from_slices(*part[1:], height=file.height, width=file.width)
        values: NDArray[Any] = file.read(bands, window=window)
    return values


def bytes_asked() -> int:
    """Return the bytes that this process has read so far, from disk or the page cache."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar:"))


def cost(action: Callable[[], object], repeats: int) -> tuple[str, str]:
    action()
    before = bytes_asked()
    times = [seconds(action) for _ in range(repeats)]
    megabytes = (bytes_asked() - before) / repeats / 1e6
    return f"{megabytes:.2f}", f"{1000 * statistics.median(times):.0f}"


def row(
    name: str,
    path: Path,
    write: Callable[[], object],
    read: Callable[[Path, Part], object],
    side: int,
    repeats: int,
) -> list[str]:
    taken = seconds(write)
    everything, middle = slice(None), side // 2
    one, square = slice(middle, middle + 1), slice(middle, middle + min(SQUARE, side - middle))
    parts: tuple[Part, ...] = (
        (slice(0, 1), slice(0, side), slice(0, side)),
        (everything, one, one),
        (everything, square, square),
    )
    costs = [cell for part in parts for cell in cost(lambda p=part: read(path, p), repeats)]  # type: ignore[misc]
    return [name, f"{size_bytes(path) / 1e6:.0f}", f"{taken:.1f}", *costs]


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--side", type=positive, default=500, help="tokens per side")
    parser.add_argument("--dimensions", type=positive, default=128, help="dimensions of a token")
    options = parser.parse_args()
    made, side = content(options.side, options.dimensions), options.side
    print(machine(), f"{side} x {side} tokens of {options.dimensions}", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        store, file = Path(folder) / "map.zarr", Path(folder) / "map.tif"

        def of_zarr(fitted: FittedEncoding, layout: ZarrLayout, name: str) -> list[str]:
            return row(name, store, lambda: write_zarr(store, made, fitted, layout), read_zarr,
                       side, options.repeats)  # fmt: skip

        def of_cog(fitted: FittedEncoding, layout: CogLayout, name: str) -> list[str]:
            return row(name, file, lambda: write_cog(file, made, fitted, layout), read_cog,
                       side, options.repeats)  # fmt: skip

        fitted = MapEncoding().fitted(made)
        rows = [
            of_zarr(fitted, layout, f"zarr {layout.dimensions} x {layout.side}²")
            for layout in CHUNKS
        ]
        rows += [
            of_cog(fitted, layout, f"tif {layout.interleave} {layout.block_px}")
            for layout in BLOCKS
        ]
        print(table(HEADER, rows), flush=True)
        rows = []
        for dtype, pca in product(("float32", "float16", "int8"), (None, 12)):
            fitted = MapEncoding(dtype, pca).fitted(made)  # type: ignore[arg-type]
            rows += [of_zarr(fitted, ZarrLayout(), f"zarr {dtype} pca={pca}")]
            rows += [of_cog(fitted, CogLayout(), f"tif {dtype} pca={pca}")]
            print(f"{dtype} pca={pca}: {fitted.error}")
        print(table(HEADER, rows))


if __name__ == "__main__":
    main()
