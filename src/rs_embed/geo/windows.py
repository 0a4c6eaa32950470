"""Windows of a lattice: what two grids share, and pixels brought to a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray


def overlap(window: Grid, there: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of ``there`` that ``window`` covers; at least one pixel."""
    rows, columns = common_window(window, there)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise elsewhere(window, there)
    return rows, columns


def common_window(window: Grid, there: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of ``there`` that ``window`` covers; they may be empty."""
    row, column = window.offset_in(there)
    rows = slice(max(row, 0), min(row + window.shape[0], there.shape[0]))
    columns = slice(max(column, 0), min(column + window.shape[1], there.shape[1]))
    return rows, columns


def padded(
    pixels: NDArray[Any], valid: NDArray[np.bool_], grid: Grid, window: Grid
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return ``pixels`` and ``valid`` within ``window``, invalid where there are none."""
    if grid.shape == window.shape:
        return pixels, valid
    row, column = grid.offset_in(window)
    height, width = valid.shape
    margins = (
        (row, window.shape[0] - row - height),
        (column, window.shape[1] - column - width),
    )
    return np.pad(pixels, ((0, 0), *margins)), np.pad(valid, margins)


def elsewhere(asked: Grid, there: Grid) -> ImageryError:
    """Return the error that says where the place lies, and where the imagery."""
    west, south, east, north = there.geographic_bounds()
    box = ", ".join(f"{v:.4f}" for v in asked.geographic_bounds())
    return ImageryError(
        f"the place asked for ({box}) lies outside the imagery, which has valid pixels within "
        f"lon {west:.4f} to {east:.4f}, lat {south:.4f} to {north:.4f}"
    )
