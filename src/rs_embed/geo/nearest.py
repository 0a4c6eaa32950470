"""Nearest valid pixel of every pixel."""

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
    """Return the row and column of the valid pixel nearest to each pixel (Euclidean distance).

    Exact, in time proportional to the number of pixels, whatever the size of the holes.

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
    Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions (2012): first the
    nearest in each column, then the lower envelope of parabolas along all rows at once.
    """
    height, width = valid.shape
    rows = np.arange(height)[:, None]
    beyond = 4 * (height + width)  # further than any pixel
    above = np.maximum.accumulate(np.where(valid, rows, -beyond), axis=0)
    below = np.minimum.accumulate(np.where(valid, rows, beyond)[::-1], axis=0)[::-1]
    in_column = np.where(rows - above <= below - rows, above, below)  # h w
    columns = np.broadcast_to(np.arange(width), valid.shape).copy()
    with_holes = ~valid.all(axis=1)
    columns[with_holes] = _lowest_parabolas((in_column - rows)[with_holes] ** 2)
    return in_column[rows, columns], columns


def _lowest_parabolas(heights: Index) -> Index:
    """Return ``(h, w)``, the q that minimises ``heights[row, q] + (q - column) ** 2``."""
    height, width = heights.shape
    rows = np.arange(height)
    apex = np.zeros((height, width), np.int64)  # column of each parabola in the envelope
    start = np.full((height, width + 1), np.inf)  # where each replaces the previous one
    start[:, 0] = -np.inf
    last = np.zeros(height, np.int64)
    for q in range(1, width):
        active = rows
        while active.size:
            p = apex[active, last[active]]
            rise = (heights[active, q] + q * q) - (heights[active, p] + p * p)
            crossing = rise / (2 * (q - p))
            hidden = crossing <= start[active, last[active]]
            done = active[~hidden]
            last[done] += 1
            apex[done, last[done]] = q
            start[done, last[done]] = crossing[~hidden]
            start[done, last[done] + 1] = np.inf
            active = active[hidden]
            last[active] -= 1

    lowest = np.empty((height, width), np.int64)
    current = np.zeros(height, np.int64)
    for q in range(width):
        while (passed := start[rows, current + 1] < q).any():
            current += passed
        lowest[:, q] = apex[rows, current]
    return lowest
