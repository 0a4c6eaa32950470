"""Memory needed to write maps of given tokens; it grows with width, not with height.

    python benchmarks/bench_map_width.py [--rows 600]

Each map is written by a separate process. The first row is the memory of Python and its packages.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from affine import Affine
from measure import arguments, machine, positive, table
from numpy.typing import NDArray
from pyproj import CRS

from processes import run_python
from rs_embed.geo.grid import Grid
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.encoding import MapEncoding
from rs_embed.maps.formats.writing import write_map

# Columns, dimensions, suffix, dtype, principal components.
CASES = (
    (1, 1, ".zarr", "float32", ""),
    (2000, 256, ".zarr", "float32", ""),
    (5000, 256, ".zarr", "float32", ""),
    (5000, 256, ".zarr", "int8", ""),
    (1000, 512, ".zarr", "int8", ""),
    (2000, 256, ".zarr", "float32", "8"),
    (2000, 256, ".tif", "float32", ""),
)


def write(rows: int, columns: int, dimensions: int, path: Path, encoding: MapEncoding) -> None:
    """Write a map whose rows are all equal, so that only the writer needs memory."""
    row = np.random.default_rng(0).normal(size=(columns, dimensions)).astype(np.float32)

    def strips(count: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, rows, count):
            yield np.repeat(row[None], min(count, rows - start), axis=0)

    transform = Affine(160, 0, 400_000, 0, -160, 5_200_000)
    grid = Grid(CRS.from_epsg(32633), transform, (rows, columns))
    write_map(path, MapContent(grid, dimensions, strips, {"model": "given"}), encoding)


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--rows", type=positive, default=600)
    rows = parser.parse_args().rows
    print(machine())
    lines = []
    for columns, dimensions, suffix, dtype, pca in CASES:
        case = [str(columns), str(dimensions), suffix, dtype, pca]
        done = run_python([__file__, "write", str(rows if columns > 1 else 1), *case])
        lines.append([*case, f"{done.peak_gb * 1000:.0f}", f"{done.seconds:.0f}"])
    print(table(["columns", "dimensions", "file", "dtype", "pca", "peak MB", "s"], lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        rows, columns, dimensions = map(int, sys.argv[2:5])
        suffix, dtype, pca = sys.argv[5:]
        encoding = MapEncoding(dtype, int(pca) if pca else None)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            write(rows, columns, dimensions, Path(folder, f"map{suffix}"), encoding)
    else:
        main()
