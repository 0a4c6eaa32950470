"""The offsets of a harmonised map: what was added to the tokens of its windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.maps.blending import ramp
from rs_embed.maps.formats.encoding import array_of, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class WindowOffsets:
    """One vector for each window of a map.

    Attributes
    ----------
    vectors : numpy.ndarray
        ``(W, D)`` float32; NaN for windows without tokens.
    first : numpy.ndarray
        ``(W, 2)`` int64: row and column of the first cell of each window, which may be outside the
        map.
    shape : tuple of int
        Rows and columns of cells of every window.
    overlap : float
        Width of the overlap that windows are blended over, cells.
    """

    vectors: NDArray[np.float32]
    first: NDArray[np.int64]
    shape: tuple[int, int]
    overlap: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; vectors are base64 of little-endian float32."""
        return {
            "windows": self.first.tolist(),
            "shape": list(self.shape),
            "overlap": self.overlap,
            "vectors": text_of(self.vectors),
        }

    @classmethod
    def from_json(cls, values: Any) -> WindowOffsets:
        """Return the inverse of `to_json`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        first = np.array(values["windows"], np.int64).reshape(-1, 2)
        height, width = map(int, values["shape"])
        vectors = array_of(values["vectors"]).reshape(len(first), -1)
        return cls(vectors, first, (height, width), float(values["overlap"]))

    def added(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what was added to the cells in some rows and columns of the map.

        Parameters
        ----------
        rows, columns : numpy.ndarray
            ``(h,)`` and ``(w,)``: their numbers.

        Returns
        -------
        numpy.ndarray
            ``(h, w, D)``: the mean of the windows' vectors by their weights in the blend.
        """
        known: NDArray[np.bool_] = ~np.isnan(self.vectors).any(axis=1)  # type: ignore[assignment]
        down, across = (
            _weights(self.first[:, axis], length, self.overlap, at) * known[:, None]
            for axis, length, at in zip((0, 1), self.shape, (rows, columns), strict=True)
        )
        near = down.any(axis=1) & across.any(axis=1)
        down, across, vectors = down[near], across[near], self.vectors[near]
        total = np.einsum("ih,iw,id->hwd", down, across, vectors, optimize=True)
        weight = np.einsum("ih,iw->hw", down, across)
        with np.errstate(invalid="ignore"):  # 0 / 0: no window
            found: NDArray[np.float32] = (total / weight[..., None]).astype(np.float32)
        return found


def _weights(
    first: NDArray[np.int64], length: int, overlap: float, at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return ``(W, n)``: the weight of each window along one axis at cells ``at``."""
    within = at[None, :] - first[:, None]
    inside = (within >= 0) & (within < length)
    weights = ramp(length, overlap)[np.clip(within, 0, length - 1)]
    return np.where(inside, weights, 0.0)
