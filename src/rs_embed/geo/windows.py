"""Windows of a lattice: the overlap of two grids, and pixels padded to a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray


def overlap(window: Grid, imagery: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of ``imagery`` that ``window`` covers; at least one pixel."""
    rows, columns = common_window(window, imagery)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise elsewhere(window, imagery)
    return rows, columns


def common_window(window: Grid, imagery: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of ``imagery`` that ``window`` covers; they may be empty."""
    (row, column), (height, width) = window.offset_in(imagery), imagery.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + window.shape[0], height), min(column + window.shape[1], width)
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def padded(
    pixels: NDArray[Any], valid: NDArray[np.bool_], imagery: Grid, window: Grid
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the part of ``imagery`` within ``window``, padded to it; pixels added are invalid."""
    if valid.shape == window.shape:
        return pixels, valid
    part = common_window(imagery, window)
    whole = np.zeros((len(pixels), *window.shape), pixels.dtype)
    usable = np.zeros(window.shape, dtype=bool)
    whole[:, *part], usable[part] = pixels, valid
    return whole, usable


def elsewhere(window: Grid, imagery: Grid) -> ImageryError:
    """Return the error for a place outside the imagery, with the location of both."""
    west, south, east, north = imagery.geographic_bounds()
    left, bottom, right, top = window.geographic_bounds()
    lon, lat = (left + right) / 2, (bottom + top) / 2
    swapped = west <= lat <= east and south <= lon <= north
    return ImageryError(
        f"the requested place ({_box(left, bottom, right, top)}) is outside the imagery, which has "
        f"valid pixels within {_box(west, south, east, north)}"
        + ("; are its longitude and latitude swapped?" if swapped else "")
    )


def _box(west: float, south: float, east: float, north: float) -> str:
    return f"lon {west:.4f} to {east:.4f}, lat {south:.4f} to {north:.4f}"
