"""Read the pixels of overlapping windows once: in blocks, ahead of the windows that need them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import tee
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ImageryError, NoImageryError, Note, RsEmbedError
from rs_embed.geo.raster import Raster
from rs_embed.geo.windows import common_window
from rs_embed.parallel.pipeline import ordered

if TYPE_CHECKING:
    from rs_embed.embedding.source import Acquired
    from rs_embed.geo.grid import Grid
    from rs_embed.geo.tiling import Tile
    from rs_embed.maps.layout import Layout

BLOCK_PX = 1024
# Memory for the blocks of one row; two rows are held while windows span both.
_ROW_BYTES = 128e6
_PIXEL_BYTES = 7


@dataclass(frozen=True, eq=False)
class WindowPixels:
    """Pixels of a window, joined from the blocks that it overlaps.

    Attributes
    ----------
    raster : Raster or None
        None if there is no imagery.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    sources : tuple of mapping
        ``Raster.source`` of each block.
    meta : mapping
        ``Acquired.meta`` of the first block.
    notes : tuple of Note
        Warnings to give.
    """

    raster: Raster | None
    reflectance: tuple[float, float]
    sources: tuple[Mapping[str, Any], ...]
    meta: Mapping[str, Any]
    notes: tuple[Note, ...]


def read_windows(
    layout: Layout,
    tiles: Iterable[Tile],
    read: Callable[[Grid], Acquired],
    *,
    workers: int,
) -> Generator[WindowPixels | RsEmbedError, None, None]:
    """Yield the pixels of each tile's window, in order, or the error that prevents it.

    Every block is read once, in threads, a few ahead of the first window that needs it. A window in
    a block that cannot be read is read alone. ``tiles`` are in the layout's order, row by row, so
    that few blocks are held: those above a window are released, and read again if an earlier row
    follows. Without ``workers`` the calling thread reads.
    """
    # Smaller for areas so wide that a row of blocks is large.
    side = int(min(BLOCK_PX, max(256, _ROW_BYTES / (_PIXEL_BYTES * layout.seen.shape[1]))))
    ahead, behind = tee((tile, _blocks_of(layout, tile, side)) for tile in tiles)
    reads = ordered(
        _unread(blocks for _, blocks in ahead),
        partial(_read_block, layout.seen, side, read),
        workers=workers,
        ahead=workers,
    )
    held: dict[tuple[int, int], tuple[Grid, Acquired | RsEmbedError]] = {}
    with closing(reads):
        for tile, blocks in behind:
            _release(held, blocks)
            while not all(block in held for block in blocks):
                at, block = next(reads)
                held[at] = block
            yield _window_of(layout.window(tile), [held[at] for at in blocks], read)


def _unread(needs: Iterable[list[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    """Yield the blocks that must be read, as each window needs them."""
    held: dict[tuple[int, int], None] = {}
    for blocks in needs:
        _release(held, blocks)
        yield from (block for block in blocks if block not in held)
        held.update(dict.fromkeys(blocks))


def _release(held: dict[tuple[int, int], Any], needed: list[tuple[int, int]]) -> None:
    """Let go of the blocks above those that are needed."""
    for at in [at for at in held if at[0] < needed[0][0]]:
        del held[at]


def _blocks_of(layout: Layout, tile: Tile, side: int) -> list[tuple[int, int]]:
    """Return row and column of each block that the window of a tile overlaps."""
    window = layout.window(tile)
    row, column = window.offset_in(layout.seen)
    rows, columns = (
        range(start // side, (start + length - 1) // side + 1)
        for start, length in zip((row, column), window.shape, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def _read_block(
    seen: Grid, side: int, read: Callable[[Grid], Acquired], at: tuple[int, int]
) -> tuple[tuple[int, int], tuple[Grid, Acquired | RsEmbedError]]:
    row, column = (index * side for index in at)
    height, width = seen.shape
    grid = seen.window(row, column, min(side, height - row), min(side, width - column))
    try:
        return at, (grid, read(grid))
    except RsEmbedError as exc:
        return at, (grid, exc)


def _window_of(
    window: Grid,
    blocks: Sequence[tuple[Grid, Acquired | RsEmbedError]],
    read: Callable[[Grid], Acquired],
) -> WindowPixels | RsEmbedError:
    """Return the pixels of a window; pixels in blocks without imagery are invalid."""
    parts: list[tuple[Grid, Acquired]] = []
    try:
        for grid, outcome in blocks:
            if not isinstance(outcome, RsEmbedError):
                parts.append((grid, outcome))
            elif not isinstance(outcome, NoImageryError):
                parts = [(window, read(window))]  # what fails may be elsewhere in the block
                break
        return _joined(window, parts)
    except NoImageryError:
        return _joined(window, [])
    except RsEmbedError as exc:
        return exc


def _joined(window: Grid, parts: Sequence[tuple[Grid, Acquired]]) -> WindowPixels:
    if not parts:
        return WindowPixels(None, (1.0, 0.0), (), {}, ())
    units = {acquired.reflectance for _, acquired in parts}
    if len(units) > 1:
        raise ImageryError(
            f"got imagery of several units {sorted(units)} (reflectance scale and offset) within "
            "one window, expected one; state them with SensorSpec"
        )
    rasters = [acquired.raster for _, acquired in parts]
    data = np.zeros(
        (rasters[0].data.shape[0], *window.shape), np.result_type(*(r.data for r in rasters))
    )
    valid = np.zeros(window.shape, dtype=bool)
    for grid, acquired in parts:
        in_block = common_window(window, grid)
        in_window = common_window(grid, window)
        data[:, *in_window] = acquired.raster.data[:, *in_block]
        valid[in_window] = acquired.raster.valid[in_block]
    return WindowPixels(
        Raster(data, valid, rasters[0].bands, window),
        units.pop(),
        tuple(raster.source for raster in rasters),
        parts[0][1].meta,
        tuple(note for _, acquired in parts for note in acquired.notes),
    )
