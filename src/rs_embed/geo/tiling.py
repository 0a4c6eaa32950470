"""Divide an image into tiles on one lattice of tokens; each token comes from exactly one tile."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rs_embed.errors import SpecError


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in patches of the lattice.

    Attributes
    ----------
    start, stop : int
        Extent of the tile.
    own_start, own_stop : int
        Tokens that the tile provides; the spans of one axis own each token exactly once.
    """

    start: int
    stop: int
    own_start: int
    own_stop: int


@dataclass(frozen=True)
class Tile:
    """A window of the image for one forward pass, and the tokens that it provides.

    Attributes
    ----------
    rows, columns : Span
        In patches of the lattice.
    patch_size : int
        Side of a patch, pixels.
    """

    rows: Span
    columns: Span
    patch_size: int

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Row, column, height, width of the tile, pixels of the lattice."""
        size = self.patch_size
        height, width = (span.stop - span.start for span in (self.rows, self.columns))
        return self.rows.start * size, self.columns.start * size, height * size, width * size

    @property
    def own(self) -> tuple[slice, slice]:
        """Rows and columns of the tokens that the tile provides, counted on the lattice."""
        rows, columns = self.rows, self.columns
        return slice(rows.own_start, rows.own_stop), slice(columns.own_start, columns.own_stop)

    @property
    def own_within(self) -> tuple[slice, slice]:
        """Rows and columns of the same tokens, counted from the first token of the tile."""
        rows, columns = (
            slice(span.own_start - span.start, span.own_stop - span.start)
            for span in (self.rows, self.columns)
        )
        return rows, columns


def check_tiling(tile_size: int, overlap_px: int, patch_size: int) -> None:
    """Raise `SpecError` unless tiles of that size and overlap start at whole patches."""
    for name, value in (("tile_size", tile_size), ("overlap_px", overlap_px)):
        if value % patch_size:
            below = value // patch_size * patch_size
            nearest = f"{below} or {below + patch_size}" if below else str(patch_size)
            raise SpecError(
                f"got {name}={value}, expected a multiple of the patch size {patch_size}, such as "
                f"{nearest}"
            )
    if overlap_px >= tile_size:
        raise SpecError(f"got overlap_px={overlap_px} for tiles of {tile_size} px, expected less")


def whole_patches(side_px: int, patch_size: int) -> int:
    """Return how many patches cover a side; the last one may be incomplete."""
    return -(-side_px // patch_size)


def tiles_of(
    shape: tuple[int, int], *, tile_size: int, overlap_px: int, patch_size: int
) -> list[Tile]:
    """Return the tiles of an image, row by row.

    All tiles have the same size and start at multiples of the patch size. Tiles at the far edges
    are shifted inward so that they are within the lattice. An axis shorter than a tile has one
    shorter tile.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image, pixels; the last patch of an axis may extend beyond it.
    tile_size, overlap_px, patch_size : int
        Pixels; see :func:`check_tiling`.
    """
    row_spans, column_spans = (
        _spans(whole_patches(side, patch_size), tile_size // patch_size, overlap_px // patch_size)
        for side in shape
    )
    return [Tile(rows, columns, patch_size) for rows in row_spans for columns in column_spans]


def _spans(count: int, tile: int, overlap: int) -> list[Span]:
    """Return the tiles along an axis of ``count`` patches."""
    if count <= tile:
        return [Span(0, count, 0, count)]
    last = count - tile
    starts = [*range(0, last, tile - overlap), last]
    # Borders run through the middle of an overlap, so that tokens are far from their tile's edge.
    borders = [(start + previous + tile) // 2 for previous, start in pairwise(starts)]
    return [
        Span(start, start + tile, own_start, own_stop)
        for start, own_start, own_stop in zip(starts, [0, *borders], [*borders, count], strict=True)
    ]
