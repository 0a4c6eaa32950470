"""Class by the nearest neighbours: weighted votes by cosine similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = 20
TEMPERATURE = 0.07
# Queries that are compared at once; fewer where their similarities would take more than 200 MB.
_AT_ONCE = 500
_MOST_SIMILARITIES = 25_000_000


def nearest_neighbours(
    references: NDArray[Any],
    classes: NDArray[np.intp],
    queries: NDArray[Any],
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> NDArray[np.intp]:
    """Return the class ``(Q,)`` of each query.

    The ``k`` references of the greatest cosine similarity vote for their class, each with the
    weight ``exp(similarity / temperature)``. Equal votes go to the class of the lower number.

    Parameters
    ----------
    references, queries : numpy.ndarray
        ``(R, D)`` vectors of known class, and ``(Q, D)`` others.
    classes : numpy.ndarray
        ``(R,)`` class of each reference, from 0.
    k : int
        Neighbours that vote, at most R.
    temperature : float
        The smaller, the more the nearest count.

    Notes
    -----
    The protocol of Reed et al., Scale-MAE (arXiv 2212.14532), section 4, after Wu et al.,
    Unsupervised Feature Learning via Non-Parametric Instance Discrimination (2018).
    """
    known, unknown = _normalised(references), _normalised(queries)
    predicted = [np.empty(0, np.intp)]
    at_once = max(min(_AT_ONCE, _MOST_SIMILARITIES // len(known)), 1)
    for start in range(0, len(unknown), at_once):
        similarity = unknown[start : start + at_once] @ known.T  # q R
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:]
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        votes = np.zeros((len(similarity), int(classes.max()) + 1))
        np.add.at(votes, (np.arange(len(votes))[:, None], classes[nearest]), weights)
        predicted.append(votes.argmax(axis=1))
    return np.concatenate(predicted)


def _normalised(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the vectors at length 1; a vector of zeros stays as it is."""
    unit: NDArray[np.float64] = vectors.astype(np.float64)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(lengths > 0, lengths, 1)
    return unit
