"""Cosine similarity and distance of embeddings, from their mean or from the origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Shorter than this share of the mean, a difference from the mean is rounding of float32.
_ROUNDING = 1e-6


def directions(vectors: Any, mean: NDArray[np.float64], *, of: str) -> NDArray[np.float64]:
    """Return ``(Q, D)`` queries at length 1, seen from the mean ``(D,)``; zeros: the origin.

    Raises
    ------
    SpecError
        If they have another dimension than the mean, NaN or infinite values, or no direction.
    """
    expected = f"expected {mean.size} numbers as in the {of}"
    given = np.asarray(vectors, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != mean.size or not len(given):
        raise SpecError(
            f"got queries of shape {given.shape}, {expected}, in one row for each query; embed "
            f"them with the model and weights of the {of}"
        )
    bad = ~np.isfinite(given).all(axis=1)
    if bad.any():
        raise SpecError(
            f"got query {int(bad.argmax())} of {len(given)} with NaN or infinite values, "
            f"{expected}; a place that failed has no embedding, so leave it out"
        )
    seen = given - mean
    lengths = np.linalg.norm(seen, axis=1)
    none = lengths <= _ROUNDING * np.linalg.norm(mean)
    if none.any():
        raise SpecError(
            f"got query {int(none.argmax())} of {len(given)} equal to the "
            f"{'mean of the ' + of if mean.any() else 'origin'}, so it has no direction"
            + ("; use centred=False (--raw)" if mean.any() else "")
        )
    unit: NDArray[np.float64] = seen / lengths[:, None]
    return unit


def cosines(
    rows: NDArray[np.floating[Any]], units: NDArray[np.float64], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``(Q, n)``: cosine similarity of ``(n, D)`` rows to the queries of `directions`.

    NaN for rows with NaN, or equal to the mean.
    """
    seen, lengths = from_mean(rows, mean)
    similarity: NDArray[np.float64] = units @ seen.T / lengths
    return similarity


def from_mean(
    rows: NDArray[np.floating[Any]], mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(n, D)`` rows minus the mean, and their lengths: NaN for rows equal to the mean."""
    seen = rows - mean
    lengths = np.sqrt(np.einsum("nd,nd->n", seen, seen))
    lengths[lengths <= _ROUNDING * np.linalg.norm(mean)] = np.nan
    return seen, lengths


def cosine_distances(
    one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the cosine distance ``(...)`` of each pair of vectors ``(..., D)``, 0 to 2.

    One minus the cosine of the angle at the origin; NaN where one of them has NaN, or no length.
    """
    dots, first, second = (
        np.einsum("...d,...d->...", a, b, dtype=np.float64)
        for a, b in ((one, other), (one, one), (other, other))
    )
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (1 - dots / np.sqrt(first * second)).clip(0, 2)
    return found
