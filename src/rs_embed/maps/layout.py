"""The token grid of a map, and the windows of pixels that are embedded for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.errors import SpecError
from rs_embed.geo.grid import Grid
from rs_embed.geo.tiling import Tile, check_tiling, tiles_of, whole_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Layout:
    """The token grid of an area, and its overlapping windows.

    With a stride below the patch size each window is seen several times, shifted by the stride
    (a pass each), and the tokens of the passes are interleaved. Every cell of the token grid is
    ``stride_px`` wide and holds the token whose footprint, a patch, has the same centre.

    Attributes
    ----------
    area : Grid
        Pixels that the map covers; its sides are whole patches.
    lattice : Grid
        Pixels that are tiled: the area, or more around it if it is smaller than a window.
    tile_size, overlap_px, patch_size, stride_px : int
        Pixels.
    wanted : numpy.ndarray
        ``(rows, columns)`` bool, shape of ``tokens``: which cells are requested.
    """

    area: Grid
    lattice: Grid
    tile_size: int
    overlap_px: int
    patch_size: int
    stride_px: int
    wanted: NDArray[np.bool_]

    @property
    def tokens(self) -> Grid:
        """Grid of the map's cells; same bounds as ``area``."""
        height, width = self.area.shape
        return self.area.resized(height // self.stride_px, width // self.stride_px)

    @property
    def passes(self) -> int:
        """Passes along each axis: how many strides make a patch."""
        return self.patch_size // self.stride_px

    @property
    def margin_px(self) -> int:
        """Pixels around a tile that only the shifted passes see."""
        return (self.patch_size - self.stride_px) // 2

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles with a wanted token, row by row; all have the same shape."""
        found = tiles_of(
            self.lattice.shape,
            tile_size=self.tile_size,
            overlap_px=self.overlap_px,
            patch_size=self.patch_size,
        )
        return tuple(tile for tile in found if self.wanted[self.cells(tile)].any())

    @property
    def tile_patches(self) -> tuple[int, int]:
        """Rows and columns of patches of every tile."""
        height, width = (min(self.tile_size, side) for side in self.lattice.shape)
        return height // self.patch_size, width // self.patch_size

    @property
    def tokens_per_window(self) -> int:
        """Tokens of one window, all passes together."""
        rows, columns = self.tile_patches
        return rows * columns * self.passes**2

    def window(self, tile: Tile) -> Grid:
        """Return the pixels that are read for a tile: the tile and its margin."""
        row, column, height, width = tile.window
        margin = self.margin_px
        return self.lattice.window(
            row - margin, column - margin, height + 2 * margin, width + 2 * margin
        )

    @property
    def seen(self) -> Grid:
        """All pixels that windows may see: the lattice and its margin."""
        height, width = self.lattice.shape
        margin = self.margin_px
        return self.lattice.window(-margin, -margin, height + 2 * margin, width + 2 * margin)

    @cached_property
    def offset(self) -> tuple[int, int]:
        """Row and column of the area's first patch, counted in patches of the lattice."""
        row, column = self.area.offset_in(self.lattice)
        return row // self.patch_size, column // self.patch_size

    def cells(self, tile: Tile) -> tuple[slice, slice]:
        """Return rows and columns of the cells of the map that a tile has tokens for."""
        rows, columns = (
            slice(
                max(0, (span.start - before) * self.passes),
                max(0, (span.stop - before) * self.passes),
            )
            for span, before in zip((tile.rows, tile.columns), self.offset, strict=True)
        )
        return rows, columns


def layout_of(
    requested: Grid,
    *,
    within: Grid | None,
    tile_size: int,
    overlap_px: int,
    patch_size: int,
    stride_px: int,
) -> Layout:
    """Return the layout of a rectangle of pixels, all of its cells wanted.

    Parameters
    ----------
    requested : Grid
        Requested pixels. They are enlarged to whole patches: around their middle where there is
        imagery, else at the bottom and on the right.
    within : Grid or None
        Pixels of the imagery, on the same lattice; None for a provider without an extent.
    tile_size, overlap_px, patch_size, stride_px : int
        Pixels.

    Raises
    ------
    SpecError
        If tiles or overlap are not whole patches, or the stride does not divide one.
    """
    check_tiling(tile_size, overlap_px, patch_size)
    known = [s for s in range(1, patch_size + 1) if patch_size % s == 0 == (patch_size - s) % 2]
    if stride_px not in known:
        raise SpecError(
            f"got stride_px={stride_px}, expected one of {', '.join(map(str, known))}: it must "
            f"divide the patch size {patch_size}, and shifted footprints must start at whole pixels"
        )
    row, column = (0, 0) if within is None else requested.offset_in(within)
    limits = (None, None) if within is None else within.shape
    spans = [
        _axis(start, side, limit, tile_size, patch_size)
        for start, side, limit in zip((row, column), requested.shape, limits, strict=True)
    ]
    (top, rows, above, height), (left, columns, before, width) = spans
    area = requested.window(top - row, left - column, rows * patch_size, columns * patch_size)
    lattice = area.window(
        -above * patch_size, -before * patch_size, height * patch_size, width * patch_size
    )
    passes = patch_size // stride_px
    wanted = np.ones((rows * passes, columns * passes), dtype=bool)
    return Layout(area, lattice, tile_size, overlap_px, patch_size, stride_px, wanted)


def _axis(
    start: int, side: int, limit: int | None, tile_size: int, patch: int
) -> tuple[int, int, int, int]:
    """Return the start of the area, its patches, patches tiled before it, and all tiled patches."""
    count = whole_patches(side, patch)
    spare = count * patch - side
    first = start - spare // 2
    tile = tile_size // patch
    if limit is None:
        room_before = room_after = tile
    else:
        first = max(0, min(first, limit - count * patch))
        room_before = first // patch
        room_after = max(0, (limit - first) // patch - count)
    need = max(0, tile - count)
    before = min(need // 2, room_before)
    after = min(need - before, room_after)
    before = min(need - after, room_before)
    return first, count, before, before + count + after
