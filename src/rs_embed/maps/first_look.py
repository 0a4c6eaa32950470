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

# Windows with valid pixels to look at; of a provider no more are read in all.
_WINDOWS = 5
# For own imagery, where valid pixels may be rare: windows that may be read, and that may fail.
_MOST_READ = 200
_MOST_FAILURES = 25


def probe(area: AreaTask) -> bool:
    """Read some windows, raise what is wrong with all of them, return whether units were seen.

    More windows of own imagery are read, until some have valid pixels, since no provider vouches
    for its units. Of a provider only a few are read, as each of them may be slow.

    Returns
    -------
    bool
        Whether the windows together are known to be in their units; if not, each must be checked
        by itself.

    Raises
    ------
    RsEmbedError
        The error of the first window, if none can be read, unless the reason is that there is no
        imagery; `ImageryError` if the valid pixels cannot be in the stated units.
    """
    own = area.source.own_pixels
    most_read, most_failures = (_MOST_READ, _MOST_FAILURES) if own else (_WINDOWS, _WINDOWS)
    with_pixels: list[Acquired] = []
    failed: list[tuple[RsEmbedError, Tile]] = []
    readable = False
    for tile in islice(scattered(area.layout.tiles), most_read):
        try:
            acquired = area.read(area.layout.window(tile))
        except RsEmbedError as exc:
            failed.append((exc, tile))
        else:
            readable = True
            if acquired.raster.valid.any():
                with_pixels.append(acquired)
        if len(with_pixels) == _WINDOWS or len(failed) == most_failures:
            break
    if failed and not readable and not isinstance(failed[0][0], NoImageryError):
        error, tile = failed[0]
        if len(area.layout.tiles) == 1:
            raise error
        at = ", ".join(f"{edge:.10g}" for edge in area.layout.window(tile).bounds)
        message = f"none of the windows that were tried can be read; the one at {at}: {error}"
        raise error.restated(message) from error
    if with_pixels:
        _check_together(with_pixels)
    return bool(with_pixels) or not own


def scattered(tiles: Sequence[Tile]) -> Iterator[Tile]:
    """Yield all tiles in a random order, always the same: no column or row comes first."""
    for index in np.random.default_rng(0).permutation(len(tiles)):
        yield tiles[index]


def _check_together(seen: Sequence[Acquired]) -> None:
    """Raise `ImageryError` unless the pixels of some windows together can be in their units.

    Alone, a window of dark water may look like another unit.
    """
    rasters = [acquired.raster for acquired in seen]
    pixels = np.concatenate([raster.data[:, raster.valid] for raster in rasters], axis=1)
    first = seen[0]
    grid = first.raster.grid.window(0, 0, 1, pixels.shape[1])
    valid = np.ones(grid.shape, dtype=bool)
    together = Raster(pixels[:, None], valid, first.raster.bands, grid)
    check_units(together, reflectance=first.reflectance, vouched=first.vouched)
