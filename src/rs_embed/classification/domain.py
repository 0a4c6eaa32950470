"""Where a classifier knows what it sees: the embeddings and colours that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import Note, RsEmbedWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.classification.features import Making

# Share of the variance that is compared, and of the training set that is inside. A share outside,
# or a shift of a colour in standard deviations, that is above the other two gives a warning.
# docs/tutorial-classify.md has the measurements.
_VARIANCE, _INSIDE, _MOST_OUTSIDE, _MOST_SHIFT = 0.95, 0.99, 0.25, 1.0
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Domain:
    """Mean ``(D,)`` and spread of the embeddings that a classifier was trained on.

    ``axes`` are ``(k, D)``: principal components divided by the standard deviation along them.
    Within ``limit``, a Mahalanobis distance along these, are 99 % of the training set.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    limit: float

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Domain:
        """Return the domain of a training set ``(N, D)``: a component for ten rows at most."""
        mean = rows.mean(axis=0, dtype=np.float64)
        values, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        shares = np.cumsum(values[::-1]) / max(values.sum(), _TINY)
        count = min(int(np.searchsorted(shares, _VARIANCE)) + 1, max(len(rows) // 10, 1))
        axes = (vectors[:, -count:] / np.sqrt(np.maximum(values[-count:], _TINY))).T
        return cls(mean, axes, float(np.quantile(_distances(rows, mean, axes), _INSIDE)))

    def outside(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which of ``(n, D)`` embeddings are farther from the mean than the limit."""
        outside: NDArray[np.bool_] = _distances(rows, self.mean, self.axes) > self.limit
        return outside


def _distances(rows: Any, mean: Any, axes: Any) -> Any:
    return np.linalg.norm((rows - mean) @ axes.T, axis=1)


def domain_notes(made: Making, trained: Making, outside: float, what: str) -> list[Note]:
    """Return the warning where ``what`` is unlike the training set; ``outside`` is a share."""
    reasons = []
    if outside > _MOST_OUTSIDE:
        reasons.append(
            f"{outside:.0%} of its embeddings are farther out than 99% of the training set"
        )
    if trained.mean and len(made.mean) == len(trained.mean):
        shift = np.abs(np.subtract(made.mean, trained.mean)) / np.maximum(trained.std, _TINY)
        if (shift > _MOST_SHIFT).any():
            reasons.append(
                f"mean ± standard deviation of its input channels are {_colours(made)}, there "
                f"{_colours(trained)}"
            )
    message = (
        f"the {what} is unlike the training set, so do not trust its classes: "
        f"{'; '.join(reasons)}. Add labelled places of this imagery to the training set, or check "
        "that units, processing level and season are the same"
    )
    return [Note(message, RsEmbedWarning)] if reasons else []


def _colours(made: Making) -> str:
    return ", ".join(f"{m:.0f} ± {s:.0f}" for m, s in zip(made.mean, made.std, strict=True))
