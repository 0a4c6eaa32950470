"""A look at some windows before the long work: whether they can be read, and in which units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.embedding.checks import check_units
from rs_embed.errors import NoImageryError, RsEmbedError
from rs_embed.geo.raster import Raster

if TYPE_CHECKING:
    from rs_embed.embedding.source import Acquired
    from rs_embed.geo.tiling import Tile
    from rs_embed.maps.request import AreaTask

# Windows with valid pixels to look at; a provider is asked for no more in all.
_WINDOWS = 5
# Of own imagery, where valid pixels may be rare: windows that may be read, and that may fail.
_MOST_READ = 200
_MOST_FAILURES = 25


def probe(asked: AreaTask) -> bool:
    """Read some windows, raise what is wrong with all of them, return whether units were seen.

    Of own imagery more are read, until some have valid pixels: nobody else vouches for its units.
    A provider is asked for no more than a few, each of which may cost patience.

    Returns
    -------
    bool
        Whether the windows together are known to be of their units; if not, each must be checked
        by itself.

    Raises
    ------
    RsEmbedError
        What reading the first one raised, if none can be read, whatever the reason but that there
        is no imagery; `ImageryError` if the valid pixels cannot be of the stated units.
    """
    own = asked.source.own_pixels
    most_read, most_failures = (_MOST_READ, _MOST_FAILURES) if own else (_WINDOWS, _WINDOWS)
    taken: list[Acquired] = []
    failed: list[tuple[RsEmbedError, Tile]] = []
    readable = 0
    for tile in islice(scattered(asked.layout.tiles), most_read):
        try:
            acquired = asked.read(asked.layout.window(tile))
        except RsEmbedError as exc:
            failed.append((exc, tile))
        else:
            readable += 1
            taken += [acquired] if acquired.raster.valid.any() else []
        if len(taken) == _WINDOWS or len(failed) == most_failures:
            break
    if failed and not readable and not isinstance(failed[0][0], NoImageryError):
        raise _of_window(asked, *failed[0])
    if taken:
        _check_together(taken)
    return bool(taken) or not own


def scattered(tiles: Sequence[Tile]) -> Iterator[Tile]:
    """Yield all tiles in a random order, always the same: no column or row comes first."""
    for index in np.random.default_rng(0).permutation(len(tiles)):
        yield tiles[index]


def with_message(error: RsEmbedError, message: str) -> RsEmbedError:
    """Return the error with another message; its kind, and whether it may pass, are kept."""
    error.args = (message, *error.args[1:])
    return error


def _of_window(asked: AreaTask, error: RsEmbedError, tile: Tile) -> RsEmbedError:
    """Return the error with the window that it is about, where there are several."""
    if len(asked.layout.tiles) == 1:
        return error
    at = ", ".join(f"{edge:.10g}" for edge in asked.layout.window(tile).bounds)
    message = f"none of the windows looked at can be read; the one at {at}: {error}"
    return with_message(error, message)


def _check_together(taken: Sequence[Acquired]) -> None:
    """Raise `ImageryError` unless the pixels of some windows together can be of their units.

    Alone, a window of dark water may look like another unit.
    """
    rasters = [acquired.raster for acquired in taken]
    pixels = np.concatenate([raster.data[:, raster.valid] for raster in rasters], axis=1)
    first = taken[0]
    grid = first.raster.grid.window(0, 0, 1, pixels.shape[1])
    valid = np.ones(grid.shape, dtype=bool)
    together = Raster(pixels[:, None], valid, first.raster.bands, grid)
    check_units(together, reflectance=first.reflectance, vouched=first.vouched)
