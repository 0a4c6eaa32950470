"""One vector for each window of a map, so that overlapping windows say the same of the same ground.

What two windows say of one cell differs by nearly the same vector in all cells that they share. The
vectors ``b`` that are added to the tokens of the windows minimise ::

    sum over pairs i, j of overlapping windows: n_ij |b_i - b_j - mean(t_j - t_i)|**2
    + screen * sum over windows: |b_i|**2

where ``t`` are tokens, the mean is over the cells that both have tokens for, and ``n_ij`` is their
number as a share of a window's. The screen keeps what no overlap determines near zero: the mean
over windows that hang together is zero, and differences do not add up over long distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from rs_embed._optional import require
from rs_embed.embedding.similarity import cosine_distances
from rs_embed.maps.window_tokens import interleaved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Tile
    from rs_embed.maps.layout import Layout

DEFAULT_SCREEN = 0.2

Windows = Callable[[list["Tile"]], Iterable["NDArray[np.float32] | None"]]


@dataclass(frozen=True, eq=False)
class Differences:
    """How the overlapping windows of a map differ.

    Attributes
    ----------
    pairs : list of tuple
        Numbers of two windows in the order of the layout, and the share of their cells that both
        have tokens for.
    present : numpy.ndarray
        ``(W,)`` bool: which windows have tokens.
    sums : numpy.ndarray
        ``(W, D)`` float64: for each window the sum, over its pairs, of share times mean difference
        of the other's tokens from its own.
    apart : float or None
        Mean cosine distance of the tokens of two windows for one cell, divided by that of
        neighbouring tokens of one window; None without overlap, or without neighbours.
    """

    pairs: list[tuple[int, int, float]]
    present: NDArray[np.bool_]
    sums: NDArray[np.float64]
    apart: float | None

    def offsets(self, screen: float) -> NDArray[np.float32]:
        """Return ``(W, D)``: what is added to the tokens of each window; NaN if it has none."""
        sparse = require("scipy.sparse", extra="maps", purpose="harmonising a map")
        factorised = require("scipy.sparse.linalg", extra="maps", purpose="harmonising a map").splu
        count = len(self.sums)
        table = np.array(self.pairs, np.float64).reshape(-1, 3)
        first, second = table[:, :2].astype(np.int64).T
        share = table[:, 2]
        links = sparse.coo_array((share, (first, second)), (count, count))
        links = links + links.T
        system = sparse.diags_array(links.sum(axis=1) + screen) - links
        solved: NDArray[np.float64] = factorised(system.tocsc()).solve(self.sums)
        return np.where(self.present[:, None], solved, np.nan).astype(np.float32)


def differences(layout: Layout, windows: Windows, dimensions: int) -> Differences:
    """Return how the overlapping windows of a map differ.

    Memory holds a row of windows and what the next one overlaps. ``windows`` and ``dimensions``
    are as for `rs_embed.maps.blending.strips`.
    """
    pairs: list[tuple[int, int, float]] = []
    sums = np.zeros((len(layout.tiles), dimensions))
    present = np.zeros(len(layout.tiles), bool)
    between, within = _Mean(), _Mean()
    held: list[tuple[int, Tile, NDArray[np.float32]]] = []
    number = -1
    for span, of_row in groupby(layout.tiles, key=lambda tile: tile.rows):
        held = [
            (i, tile, cells[-(tile.rows.stop - span.start) * layout.passes :].copy())
            for i, tile, cells in held
            if tile.rows.stop > span.start
        ]
        tiles = list(of_row)
        for tile, tokens in zip(tiles, windows(tiles), strict=True):
            number += 1
            if tokens is None:
                continue
            present[number] = True
            cells = interleaved(tokens)
            within.add(cosine_distances(cells[:, :-1], cells[:, 1:]))
            for other, other_tile, other_cells in held:
                mine, theirs = _common(layout, tile, cells, other_tile, other_cells)
                ok = ~(np.isnan(mine[..., 0]) | np.isnan(theirs[..., 0]))
                if not ok.any():
                    continue
                share = int(ok.sum()) / layout.tokens_per_window
                difference = (mine[ok].astype(np.float64) - theirs[ok]).mean(axis=0)
                pairs.append((other, number, share))
                sums[other] += share * difference
                sums[number] -= share * difference
                between.add(cosine_distances(mine, theirs))
            held.append((number, tile, cells))
    apart = between.value / within.value if between.count and within.value else None
    return Differences(pairs, present, sums, apart)


def _common(
    layout: Layout,
    tile: Tile,
    cells: NDArray[np.float32],
    other: Tile,
    other_cells: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the cells that two windows share; of the other one the last rows are given."""
    passes = layout.passes
    start = max(tile.columns.start, other.columns.start)
    stop = max(start, min(tile.columns.stop, other.columns.stop))
    rows = (min(tile.rows.stop, other.rows.stop) - tile.rows.start) * passes

    def of(one: Tile, values: NDArray[np.float32], first: int) -> NDArray[np.float32]:
        columns = slice(*((at - one.columns.start) * passes for at in (start, stop)))
        return values[first : first + rows, columns]

    skipped = len(other_cells) - (other.rows.stop - tile.rows.start) * passes
    return of(tile, cells, 0), of(other, other_cells, skipped)


def shifted(
    layout: Layout, windows: Windows, offsets: NDArray[np.float32]
) -> Callable[[list[Tile]], Iterator[NDArray[np.float32] | None]]:
    """Return the windows of a map with the offset of each added to its tokens."""
    offset_of = dict(zip(layout.tiles, offsets, strict=True))

    def added(tiles: list[Tile]) -> Iterator[NDArray[np.float32] | None]:
        for tile, tokens in zip(tiles, windows(tiles), strict=True):
            yield None if tokens is None else tokens + offset_of[tile]

    return added


class _Mean:
    """A mean that is gathered."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: NDArray[np.float64]) -> None:
        values = values[np.isfinite(values)]
        self.total += float(values.sum())
        self.count += values.size

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else 0.0
