"""Cut an image into tiles on one lattice of tokens, each token given by exactly one tile."""

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
        What the tile covers.
    own_start, own_stop : int
        The tokens that it gives; the spans of one axis own each token exactly once.
    """

    start: int
    stop: int
    own_start: int
    own_stop: int


@dataclass(frozen=True)
class Tile:
    """A window of the image that goes through the network at once, and the tokens it gives.

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
        """Rows and columns of the lattice's tokens that this tile gives."""
        rows, columns = self.rows, self.columns
        return slice(rows.own_start, rows.own_stop), slice(columns.own_start, columns.own_stop)

    @property
    def own_within(self) -> tuple[slice, slice]:
        """The same tokens, counted from the tile's own first one."""
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
            near = f"{below} or {below + patch_size}" if below else str(patch_size)
            raise SpecError(
                f"got {name}={value}, expected a multiple of the patch size {patch_size}, such as "
                f"{near}"
            )
    if overlap_px >= tile_size:
        raise SpecError(f"got overlap_px={overlap_px} for tiles of {tile_size} px, expected less")


def whole_patches(side_px: int, patch_size: int) -> int:
    """Return how many patches cover a side, the last one perhaps in part."""
    return -(-side_px // patch_size)


def tiles_of(
    shape: tuple[int, int], *, tile_size: int, overlap_px: int, patch_size: int
) -> list[Tile]:
    """Return the tiles of an image, row by row.

    All have the same size, start at multiples of the patch, and those at the far edges are
    shifted inward so that they lie within the lattice. An axis shorter than a tile has one
    shorter tile.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image, pixels; the last patch of an axis may reach beyond it.
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
    # A border runs through the middle of an overlap: each token is deepest in the tile it is of.
    borders = [(start + before + tile) // 2 for before, start in pairwise(starts)]
    return [
        Span(start, start + tile, own_start, own_stop)
        for start, own_start, own_stop in zip(starts, [0, *borders], [*borders, count], strict=True)
    ]
