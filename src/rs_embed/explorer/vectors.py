"""Vectors as a browser holds them: seen from their common mean, in int8, and their colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.quicklook import Components
from rs_embed.embedding.similarity import from_mean
from rs_embed.errors import SpecError
from rs_embed.maps.formats.encoding import principal_components
from rs_embed.specs import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A browser holds all vectors at once, in one array.
MOST_BYTES = 1_000_000_000
# Vectors that are widened to float64 at once.
ROWS = 8192
# The colours are fitted to as many vectors, spread evenly, up to twice that number.
_SAMPLE = 10_000


@dataclass(frozen=True, eq=False)
class Basis:
    """How vectors are written, found in a first pass over all of them.

    Attributes
    ----------
    mean : numpy.ndarray
        ``(D,)`` float64: the mean of all vectors, which is subtracted.
    colours : Components
        Principal components that colour them, of up to 20,000 vectors.
    axes : numpy.ndarray or None
        ``(k, D)``: the principal components that are kept instead of all dimensions.
    kept : float or None
        Share of the variance along these.
    """

    mean: NDArray[np.float64]
    colours: Components
    axes: NDArray[np.float64] | None = None
    kept: float | None = None

    @property
    def dimensions(self) -> int:
        """Length of a vector as it is written."""
        return len(self.mean) if self.axes is None else len(self.axes)

    def int8(self, rows: NDArray[Any]) -> NDArray[np.int8]:
        """Return ``(n, k)`` of ``(n, D)``: each row fills -127 to 127; zeros if it is the mean."""
        seen, lengths = from_mean(rows, self.mean)
        seen[np.isnan(lengths)] = 0
        if self.axes is not None:
            seen = seen @ self.axes.T
        largest = np.abs(seen).max(axis=1, keepdims=True)
        written: NDArray[np.int8] = np.rint(seen / np.where(largest > 0, largest, 1) * 127).astype(
            np.int8
        )
        return written

    def rgb(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the colours ``(n, 3)`` of ``(n, D)`` vectors."""
        colours, _ = self.colours.colours(np.asarray(rows).T[:, None])
        return np.asarray(colours[0])


def basis_of(read: Callable[[], Iterable[NDArray[Any]]], pca: int | None) -> Basis:
    """Return the basis of vectors that ``read`` yields, each time, in blocks ``(n, D)``.

    Raises
    ------
    SpecError
        If ``pca`` is not a number of components, there are fewer vectors or dimensions, all
        vectors are equal, or they are too large for a browser.
    """
    pca = None if pca is None else whole("pca", pca, 1)
    count, held, step = 0, 0, 1
    sums: Any = 0.0
    sample: list[NDArray[Any]] = []
    for rows in _blocks(read):
        sums = sums + rows.sum(axis=0, dtype=np.float64)
        sample.append(rows[-count % step :: step].copy())
        count, held = count + len(rows), held + len(sample[-1])
        while held > 2 * _SAMPLE:
            sample, step = [np.concatenate(sample)[::2]], 2 * step
            held = len(sample[0])
    if not count:
        raise SpecError("got no vectors, expected at least one cell or place that has one")
    depth = len(sums)
    if pca is not None and pca > min(count, depth):
        raise SpecError(
            f"got pca={pca} for {count} vectors of {depth} dimensions, expected at most "
            f"{min(count, depth)} components; use a smaller pca=, or none"
        )
    check_size(count, depth if pca is None else pca)
    mean = sums / count
    chosen = np.concatenate(sample)
    if np.isnan(from_mean(chosen, mean)[1]).all():
        raise SpecError(
            f"got {count} vectors that are all equal, expected some that differ; is the imagery "
            "of one value?"
        )
    colours = Components.of([chosen.T[:, None]])
    if pca is None:
        return Basis(mean, colours)
    found = principal_components(_blocks(read), depth, pca)
    return Basis(mean, colours, found.components.astype(np.float64), float(found.explained.sum()))


def check_size(count: int, dimensions: int) -> None:
    """Raise `SpecError` if a browser cannot hold so many vectors."""
    size = count * dimensions
    if size > MOST_BYTES:
        fits = MOST_BYTES // count
        smaller = f"keep fewer dimensions with pca={fits} (--pca {fits}), " if fits > 2 else ""
        raise SpecError(
            f"got {count} vectors of {dimensions} dimensions, {size / 1e6:,.0f} MB in a browser, "
            f"expected at most {MOST_BYTES / 1e6:,.0f} MB; {smaller}cut a part out of it, or embed "
            "it with a larger stride_px"
        )


def _blocks(read: Callable[[], Iterable[NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    return (rows for rows in read() if len(rows))
