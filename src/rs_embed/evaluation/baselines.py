"""Baselines without a model: colour statistics, which a useful embedding must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def colour_statistics(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return means, then standard deviations, of the bands of a ``(height, width, 3)`` image."""
    return np.concatenate([image.mean(axis=(0, 1)), image.std(axis=(0, 1))])


def standardised(vectors: NDArray[Any], references: NDArray[Any]) -> NDArray[np.float64]:
    """Return vectors ``(N, D)`` less the mean of the references, by their standard deviation.

    Dimensions in which the references do not vary become 0.
    """
    exact = references.astype(np.float64)
    mean, deviation = exact.mean(axis=0), exact.std(axis=0)
    # A constant dimension has rounding noise for a deviation; it must not be blown up.
    varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-30)
    scores: NDArray[np.float64] = np.where(varies, vectors - mean, 0) / np.where(
        varies, deviation, 1
    )
    return scores
