"""The tokens of a finished map, read strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rs_embed.geo.grid import Grid
    from rs_embed.maps.formats.offsets import WindowOffsets

# Two strips may be held at once, and arrays derived from them.
_STRIP_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class MapContent:
    """All tokens of a map.

    Attributes
    ----------
    grid : Grid
        Place of the tokens: north up; its shape is ``(rows, columns)`` of tokens.
    dimensions : int
        Length D of a token.
    strips : callable
        ``strips(rows)`` returns an iterator over ``(n, columns, D)`` float32 from north to south:
        n is ``rows``, fewer in the last one; NaN in all D where there is no token. It may be
        called several times and gives the same values each time.
    meta : mapping
        JSON values: how the map was made.
    offsets : WindowOffsets or None
        What was added to the tokens of its windows; None unless it is harmonised.
    """

    grid: Grid
    dimensions: int
    strips: Callable[[int], Iterator[NDArray[np.float32]]]
    meta: Mapping[str, Any]
    offsets: WindowOffsets | None = None

    @property
    def rows_at_once(self) -> int:
        """Rows of a strip of 32 MiB, at least one."""
        height, width = self.grid.shape
        return max(1, min(height, _STRIP_BYTES // (4 * width * self.dimensions)))
