"""Join the tokens of overlapping windows into one map: discard their rims or blend them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import numpy as np

from rs_embed.maps.window_tokens import interleaved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Span, Tile
    from rs_embed.maps.layout import Layout

Seams = Literal["harmonise", "blend", "discard"]
SEAMS: tuple[Seams, ...] = ("harmonise", "blend", "discard")

# Finished rows are yielded in parts of this size.
_PART_BYTES = 16 * 2**20

_Windows = Callable[[list["Tile"]], Iterable["NDArray[np.float32] | None"]]


def strips(
    layout: Layout, windows: _Windows, dimensions: int, seams: Seams, rows: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the map from north to south, ``(rows, columns, D)`` float32 at a time.

    The last strip may have fewer rows. Memory holds a row of windows and a strip. The same windows
    give the same bits, in whatever groups they were embedded.

    ``windows`` returns the tokens of tiles, ``(k, k, h, w, D)`` float32, in their order, None if a
    tile has none; ``dimensions`` is D; ``seams`` has the meaning that `embed_area` documents.
    """
    height, width = layout.tokens.shape
    left, count = height, 0
    strip = np.empty((min(rows, left), width, dimensions), np.float32)
    for part in _within_area(layout, _finished(layout, windows, dimensions, seams)):
        rest = part
        while len(rest):
            piece, rest = np.split(rest, [len(strip) - count])
            strip[count : count + len(piece)] = piece
            count += len(piece)
            if count == len(strip):
                yield strip
                left, count = left - count, 0
                strip = np.empty((min(rows, left), width, dimensions), np.float32)


def _within_area(
    layout: Layout, finished: Iterator[NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the cells of the area, cut from the lattice; unwanted cells become nodata."""
    height, width = layout.tokens.shape
    top, left = (before * layout.passes for before in layout.offset)
    at = -top
    for part in finished:
        first, last = max(at, 0), min(at + len(part), height)
        if first < last:
            inside = part[first - at : last - at, left : left + width]
            inside[~layout.wanted[first:last]] = np.nan
            yield inside
        at += len(part)


def _finished(
    layout: Layout, windows: _Windows, dimensions: int, seams: Seams
) -> Iterator[NDArray[np.float32]]:
    """Yield all rows of cells of the lattice in order, once no further window changes them."""
    passes = layout.passes
    height, width = (side // layout.patch_size * passes for side in layout.lattice.shape)
    most = max(1, _PART_BYTES // (4 * width * dimensions))
    at = 0
    total = np.zeros((0, width, dimensions), np.float32)
    weight = np.zeros((0, width), np.float32)

    def flush(stop: int) -> Iterator[NDArray[np.float32]]:
        nonlocal at, total, weight
        known = min(stop - at, len(total))
        for first in range(0, known, most):
            part = slice(first, min(first + most, known))
            with np.errstate(invalid="ignore"):  # 0 / 0 is nodata
                yield total[part] / weight[part, :, None]
        total, weight = total[known:], weight[known:]
        at += known
        while at < stop:
            rows = min(stop - at, most)
            yield np.full((rows, width, dimensions), np.nan, np.float32)
            at += rows

    for span, of_row in groupby(layout.tiles, key=lambda tile: tile.rows):
        yield from flush(span.start * passes)
        more = span.stop * passes - at - len(total)
        total = np.concatenate([total, np.zeros((more, width, dimensions), np.float32)])
        weight = np.concatenate([weight, np.zeros((more, width), np.float32)])
        tiles = list(of_row)
        for tile, tokens in zip(tiles, windows(tiles), strict=True):
            if tokens is None:
                continue
            rows = slice(span.start * passes - at, span.stop * passes - at)
            columns = slice(tile.columns.start * passes, tile.columns.stop * passes)
            added = interleaved(tokens)
            valid = ~np.isnan(added[..., 0])
            share = np.where(valid, tile_weight(layout, tile, seams), np.float32(0))
            by_token = share[..., None]
            total[rows, columns] += by_token * np.where(by_token > 0, added, np.float32(0))
            weight[rows, columns] += share
    yield from flush(height)


def tile_weight(layout: Layout, tile: Tile, seams: Seams) -> NDArray[np.float32]:
    """Return the weight of each token of a tile, ``(h * k, w * k)`` float32, in 0..1.

    Unless rims are discarded, it rises linearly from the edge of the tile over the width of the
    overlap, so that the difference of two windows is spread over as many tokens. With ``"discard"``
    it is 1 in the part that the tile owns.
    """
    down, across = (_axis_weight(layout, span, seams) for span in (tile.rows, tile.columns))
    return down[:, None] * across[None, :]


def _axis_weight(layout: Layout, span: Span, seams: Seams) -> NDArray[np.float32]:
    passes = layout.passes
    count = (span.stop - span.start) * passes
    at = (np.arange(count) + 0.5) / passes  # patches from the tile's first edge
    if seams == "discard":
        place = at + span.start
        return ((place >= span.own_start) & (place < span.own_stop)).astype(np.float32)
    return ramp(count, layout.overlap_px / layout.patch_size * passes).astype(np.float32)


def ramp(count: int, overlap: float) -> NDArray[np.float64]:
    """Return ``(count,)``: weights that rise from either edge over the width of the overlap."""
    at = np.arange(count) + 0.5
    depth = np.minimum(at, count - at)
    weights: NDArray[np.float64] = np.minimum(depth / max(overlap, 1e-6), 1)
    return weights
