"""The colours of numbers in pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Colours of the lowest, middle and highest value, from matplotlib's viridis.
_COLOURS = ((68, 1, 84), (33, 145, 140), (253, 231, 37))


def colours(shares: Any) -> NDArray[np.uint8]:
    """Return ``(..., 3)`` uint8: red, green, blue of numbers from 0 (lowest) to 1 (highest)."""
    bands = [np.interp(shares, (0, 0.5, 1), band) for band in np.transpose(_COLOURS)]
    return np.stack(bands, axis=-1).astype(np.uint8)


def colour(share: float) -> tuple[int, ...]:
    """Return the colour of one such number, as Pillow takes it."""
    return tuple(colours(share).tolist())
