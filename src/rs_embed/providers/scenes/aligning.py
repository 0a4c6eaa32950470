"""Commands of GDAL that bring files to one grid."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath

from rs_embed.addresses import shown_path
from rs_embed.geo.grid import Grid, bounds_window, known_crs, transformer


def shown_grid(grid: Grid) -> str:
    """Return the CRS, pixel size, size and corner of a grid, for messages."""
    width, height = abs(grid.transform.a), abs(grid.transform.e)
    pixel = f"{width:.10g}" if width == height else f"{width:.10g} x {height:.10g}"
    return (
        f"{known_crs(grid.crs).to_string():.40}, pixels of {pixel}, {grid.shape[0]} x "
        f"{grid.shape[1]} px from {grid.transform.c:.10g}, {grid.transform.f:.10g}"
    )


def window_within(lattice: Grid, *grids: Grid) -> Grid | None:
    """Return the pixels of a lattice whose centres all ``grids`` cover; None if there are none."""
    to = known_crs(lattice.crs)
    bounds = [
        transformer(known_crs(g.crs), to).transform_bounds(*g.bounds, densify_pts=21) for g in grids
    ]
    lefts, bottoms, rights, tops = zip(*bounds, strict=True)
    x, y = abs(lattice.transform.a) / 2, abs(lattice.transform.e) / 2
    inner = (max(lefts) + x, max(bottoms) + y, min(rights) - x, min(tops) - y)
    empty = inner[0] >= inner[2] or inner[1] >= inner[3]
    return None if empty else bounds_window(lattice, inner)


def same_pixels(one: Grid, other: Grid) -> bool:
    """Return whether two grids have the same pixels, but for rounding errors."""
    return one.shape == other.shape and one.lies_on(other) and one.offset_in(other) == (0, 0)


def commands(files: Mapping[str, Grid], target: Grid) -> str:
    """Return the commands that write those files that are not on ``target`` anew, on it.

    What they write is beside each file, with its name, so that the same bands are found.
    """
    crs = shlex.quote(known_crs(target.crs).to_string())
    bounds = " ".join(f"{v:.12g}" for v in target.bounds)
    height, width = target.shape
    warp = f"gdalwarp -t_srs {crs} -te {bounds} -ts {width} {height} -r bilinear"
    moved = [shown_path(path) for path, grid in files.items() if not same_pixels(grid, target)]
    return " && ".join(f"{warp} {shlex.quote(path)} {shlex.quote(_new(path))}" for path in moved)


def _new(path: str) -> str:
    suffix = ".tif" if path.lower().endswith(".vrt") else ".vrt"
    return (
        PurePath(path).stem + suffix if "://" in path else str(PurePath(path).with_suffix(suffix))
    )
