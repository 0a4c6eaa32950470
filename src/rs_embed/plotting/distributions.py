"""Distributions over the places of a table or the cells of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rs_embed.classification.class_maps import MUTED
from rs_embed.embedding.drawing import plain
from rs_embed.embedding.similarity import cosine_distances
from rs_embed.errors import SpecError, UnknownNameError
from rs_embed.plotting.canvas import canvas
from rs_embed.plotting.subjects import MapSubject, Subject, subjects
from rs_embed.tables.picture import meta_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

Of = Literal["gsd", "validity", "cosine"]
_LABELS = {
    "gsd": "GSD of the model input, metres on the ground",
    "validity": "valid share of the model input",
    "cosine": "cosine similarity of two embeddings",
}
_MOST_PAIRS, _MOST_ROWS, _BINS = 200_000, 20_000, 60


def histogram(*sources: Any, of: Of = "cosine", ax: Axes | None = None) -> Figure:
    """Return a histogram over tables or maps, as shares of their places, cells or pairs.

    Parameters
    ----------
    *sources : path, xarray.DataArray, Embedding or EmbeddingTable
        Tables, maps or token grids.
    of : {"gsd", "validity", "cosine"}
        The GSD that the model saw (``input_res_m``); the valid share of each place, of a map which
        cells have a token; or the cosine similarity of pairs, from the origin and (dashed) from
        the mean of all: how well embeddings can be told apart.
    ax : matplotlib.axes.Axes, optional
        Where it is drawn.

    Raises
    ------
    SpecError
        If a source does not state what is asked for, or has fewer than two embeddings for pairs.

    Notes
    -----
    Of more than about 630 embeddings, 200,000 random pairs from a fixed seed are drawn.
    """
    if of not in get_args(Of):
        raise UnknownNameError.among("of", of, get_args(Of))
    drawn = subjects(sources, alike=False)
    curves = [curve for one in drawn for curve in _values(one, of)]
    figure, (own,) = canvas(ax, 1, shape=(0.7, 1))
    low, high = (f([f(values) for _, values, _ in curves]) for f in (np.min, np.max))
    margin = 0 if high - low > 1e-3 * abs(high) else max(abs(high) / 20, 1e-6)  # all are equal
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    for name, values, style in curves:
        shares = np.histogram(values, edges)[0] / len(values)
        colour = MUTED[[one.name for one in drawn].index(name[0]) % len(MUTED)]
        all_are = f"all are {values[0]:.4g}" if np.ptp(values) == 0 else ""
        label = plain(": ".join(filter(None, (*name, all_are))), 80)
        own.stairs(shares, edges, label=label, color=colour, linestyle=style, linewidth=1.5)
    what = {"gsd": "places", "validity": "places or cells", "cosine": "pairs"}[of]
    own.set(xlabel=_LABELS[of], ylabel=f"share of the {what} in each bin")
    for text in own.legend(fontsize="small").get_texts():
        text.set_parse_math(False)
    return figure


def _values(one: Subject, of: Of) -> list[tuple[tuple[str, str], NDArray[np.float64], str]]:
    """Return names, values and the style of each curve."""
    if of == "cosine":
        return _cosines(one)
    if isinstance(one, MapSubject):
        values = _of_map(one, of)
    else:
        key = {"gsd": "input_res_m", "validity": "valid_fraction"}[of]
        metas = (meta_of(one.table, row) for row in np.flatnonzero(one.known).tolist())
        values = np.array([meta[key] for meta in metas if key in meta], np.float64)
    if not len(values):
        raise SpecError(f"got {one.name}, which does not state {_LABELS[of]}; plot of='cosine'")
    return [((one.name, ""), values, "-")]


def _of_map(one: MapSubject, of: Of) -> NDArray[np.float64]:
    """Return a value for each cell of a map, as far as it states them."""
    if of == "validity":
        return np.nan_to_num(one.values(lambda rows: np.ones((len(rows), 1)), 1)).ravel()
    stated = one.meta.get("gsd_m_range") or [one.meta[k] for k in ("input_res_m",) if k in one.meta]
    if stated and max(stated) > min(stated) * 1.001:
        raise SpecError(
            f"got {one.name}, whose windows have a GSD from {min(stated):.4g} to "
            f"{max(stated):.4g} m; a map does not state that of each cell"
        )
    return np.array(stated[:1], np.float64)


def _cosines(one: Subject) -> list[tuple[tuple[str, str], NDArray[np.float64], str]]:
    """Return the similarities of pairs, from the origin and from the mean."""
    rows = one.tokens(_MOST_ROWS).astype(np.float64)
    count = len(rows)
    if count < 2:
        raise SpecError(f"got {one.name} with {count} embeddings, expected two or more for pairs")
    first, second = np.triu_indices(count, 1) if count <= 633 else _pairs(count)
    found = []
    ways = ("from the origin", "-", 0.0), ("from the mean", "--", rows.mean(axis=0))
    for way, style, origin in ways:
        seen = rows - origin
        parts = zip(*(np.array_split(index, 50) for index in (first, second)), strict=True)
        values = np.concatenate([1 - cosine_distances(seen[a], seen[b]) for a, b in parts])
        found.append(((one.name, way), values[np.isfinite(values)], style))
    return found


def _pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    first = random.integers(0, count, _MOST_PAIRS)
    return first, (first + random.integers(1, count, _MOST_PAIRS)) % count
