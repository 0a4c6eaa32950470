"""How visible the borders of windows are in a map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Span
    from rs_embed.maps.layout import Layout


@dataclass(frozen=True)
class SeamMetric:
    """Mean cosine distances of neighbouring tokens.

    Attributes
    ----------
    borders : float
        Of pairs across the border between the parts of two windows.
    edges : float
        Of pairs across the outer edge of a window, where its weight begins.
    interior : float
        Of all other pairs.
    """

    borders: float
    edges: float
    interior: float

    @property
    def ratio(self) -> float:
        """The greater of borders and edges over the interior; 1 where no seam shows."""
        return max(self.borders, self.edges) / self.interior


def seam_metric(tokens: NDArray[np.float32], layout: Layout) -> SeamMetric:
    """Return the mean distance of neighbouring tokens across borders of windows and within them.

    Parameters
    ----------
    tokens : numpy.ndarray
        ``(rows, columns, D)``, the map of the area of the layout; NaN where there is no token.
    layout : Layout
        Its windows.

    Raises
    ------
    SpecError
        If the layout has a single window, and so no border.
    """
    distances: dict[str, list[NDArray[np.float64]]] = {"borders": [], "edges": [], "interior": []}
    for axis, spans in enumerate(
        ({tile.rows for tile in layout.tiles}, {tile.columns for tile in layout.tiles})
    ):
        along = np.moveaxis(_steps(tokens, axis), axis, 0)
        count = tokens.shape[axis]
        borders = _lines(layout, spans, axis, count, own=True)
        edges = _lines(layout, spans, axis, count, own=False)
        for line, step in enumerate(along, 1):
            kind = "borders" if line in borders else "edges" if line in edges else "interior"
            distances[kind].append(step[~np.isnan(step)])
    if not distances["borders"]:
        raise SpecError("got a map of one window, which has no seam; expected several windows")
    found = {kind: np.concatenate(parts) for kind, parts in distances.items() if parts}
    edge = found.get("edges", found["borders"])
    return SeamMetric(
        float(found["borders"].mean()), float(edge.mean()), float(found["interior"].mean())
    )


def _steps(tokens: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Return the cosine distance of each token to the next one along an axis."""
    unit = tokens.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    first, second = (np.moveaxis(unit, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
    cosine = np.einsum("ijd,ijd->ij", first, second)
    return np.moveaxis(1 - cosine, 0, axis)


def _lines(layout: Layout, spans: Iterable[Span], axis: int, count: int, *, own: bool) -> set[int]:
    """Return the cells before which windows, or the parts that they own, begin or end."""
    before = layout.offset[axis]
    ends = {
        end
        for span in spans
        for end in ((span.own_start, span.own_stop) if own else (span.start, span.stop))
    }
    cells = {(end - before) * layout.passes for end in ends}
    return {cell for cell in cells if 0 < cell < count}
