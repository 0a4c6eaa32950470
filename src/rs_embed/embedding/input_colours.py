"""Mean and spread of what a model sees, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def moments(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``(1 + 2C,)``: pixels of an image ``(h, w, C)``, their sums, and those of squares.

    Those of several images can be added.
    """
    pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
    return np.array([len(pixels), *pixels.sum(axis=0), *np.square(pixels).sum(axis=0)])


def colour_meta(total: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return ``input_mean`` and ``input_std`` of each channel from the sum of `moments`."""
    mean, square = np.split(total[1:] / total[0], 2)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return {"input_mean": mean.round(4).tolist(), "input_std": deviation.round(4).tolist()}
