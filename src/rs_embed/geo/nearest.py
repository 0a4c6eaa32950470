"""For every pixel, the nearest valid one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Index = NDArray[np.int64]


def filled(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Return ``(bands, height, width)`` values, each invalid pixel as its nearest valid one.

    No edge appears that is not on the ground. ``valid`` is ``(height, width)`` with at least one
    True; the values themselves are returned where all is valid.
    """
    if valid.all():
        return values
    rows, columns = nearest_valid(valid)
    return values[:, rows, columns]


def nearest_valid(valid: NDArray[np.bool_]) -> tuple[Index, Index]:
    """Return row and column of the valid pixel nearest to each pixel, by Euclidean distance.

    Exact, in time proportional to the number of pixels, however large the holes are.

    Parameters
    ----------
    valid : numpy.ndarray
        ``(height, width)`` bool with at least one True.

    Returns
    -------
    rows, columns : numpy.ndarray
        ``(height, width)`` int64 each.

    Notes
    -----
    Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions (2012): nearest in the
    column first, then the lower envelope of parabolas along each row; all rows at once here.
    """
    height, width = valid.shape
    rows = np.arange(height)[:, None]
    never = 4 * (height + width)  # farther than any pixel
    above = np.maximum.accumulate(np.where(valid, rows, -never), axis=0)
    below = np.minimum.accumulate(np.where(valid, rows, never)[::-1], axis=0)[::-1]
    in_column = np.where(rows - above <= below - rows, above, below)  # h w
    columns = np.broadcast_to(np.arange(width), valid.shape).copy()
    holed = ~valid.all(axis=1)
    columns[holed] = _lowest_parabolas((in_column - rows)[holed] ** 2)
    return in_column[rows, columns], columns


def _lowest_parabolas(heights: Index) -> Index:
    """Return ``(h, w)``: the q that minimises ``heights[row, q] + (q - column) ** 2``."""
    height, width = heights.shape
    rows = np.arange(height)
    apex = np.zeros((height, width), np.int64)  # column of each parabola in the envelope
    start = np.full((height, width + 1), np.inf)  # where each takes over from the one before
    start[:, 0] = -np.inf
    last = np.zeros(height, np.int64)
    for q in range(1, width):
        active = rows
        while active.size:
            p = apex[active, last[active]]
            rise = (heights[active, q] + q * q) - (heights[active, p] + p * p)
            crossing = rise / (2 * (q - p))
            hidden = crossing <= start[active, last[active]]
            stays = active[~hidden]
            last[stays] += 1
            apex[stays, last[stays]] = q
            start[stays, last[stays]] = crossing[~hidden]
            start[stays, last[stays] + 1] = np.inf
            active = active[hidden]
            last[active] -= 1

    lowest = np.empty((height, width), np.int64)
    current = np.zeros(height, np.int64)
    for q in range(width):
        while (passed := start[rows, current + 1] < q).any():
            current += passed
        lowest[:, q] = apex[rows, current]
    return lowest
