"""Maps and tables in colours: principal components, similarity, clusters, change."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.classification.class_maps import CLASS_NODATA, MUTED
from rs_embed.classification.clusters import by_size, clusters_of_maps, kmeans
from rs_embed.embedding.quicklook import NOISE, NOISE_CONTIGUITY, Components, contiguity
from rs_embed.errors import ImageryWarning, Note, SpecError, give_warnings
from rs_embed.geo.grid import known_crs, transformer
from rs_embed.maps import change as changes
from rs_embed.maps.sampling import placed_map
from rs_embed.maps.similarity import similarity_map
from rs_embed.plotting.canvas import NODATA, canvas, colour_bar, legend
from rs_embed.plotting.subjects import MapSubject, Subject, TableSubject, subject, subjects
from rs_embed.tables.nearest import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Tokens that components are found with; all are drawn.
_MOST_TOKENS = 100_000
_COMPONENTS = 3


def pca(*sources: Any, ax: Axes | Sequence[Axes] | None = None) -> Figure:
    """Return maps or tables in the colours of their first three principal components.

    Parameters
    ----------
    *sources : path, xarray.DataArray, Embedding or EmbeddingTable
        Maps (`open_map`), token grids or tables of one model and CRS. All share their components,
        so that equal colours mean equal tokens.
    ax : matplotlib.axes.Axes or sequence of these, optional
        One for each source; a new figure if not given.

    Raises
    ------
    SpecError
        If a source has no grid or places, they differ in model or CRS, or there are fewer tokens
        than make three components.

    Warns
    -----
    ImageryWarning
        If the colours are noise: neighbouring tokens differ as much as any two.

    Notes
    -----
    The 2nd to 98th percentile of each component is shown as 0 to 1 in red, green and blue, as in
    `Embedding.quicklook`. Of more than 100,000 tokens, so many determine the components.
    """
    drawn = subjects(sources)
    most = _MOST_TOKENS // len(drawn)
    tokens = np.concatenate([one.tokens(most) for one in drawn])
    if len(tokens) <= _COMPONENTS:
        raise SpecError(
            f"got {len(tokens)} tokens, expected at least {_COMPONENTS + 1} for {_COMPONENTS} "
            "principal components; plot more places or a larger area"
        )
    components = Components.of([_as_grid(tokens)])
    figure, axes = canvas(ax, len(drawn), shape=drawn[0].grid.shape)
    noise, missing = [], False
    for one, own in zip(drawn, axes, strict=True):
        scores = one.values(lambda rows: components.scores(_as_grid(rows))[:, 0], _COMPONENTS)
        if isinstance(one, MapSubject):
            noise.append(contiguity(scores) > NOISE_CONTIGUITY)
        colours, known = components.shades(scores)
        missing = missing or not known.all()
        one.draw(own, np.concatenate([colours / 255, known[..., None]], axis=-1))
    if noise and all(noise):
        give_warnings([Note(NOISE, ImageryWarning)])
    shares = zip(("red", "lime", "blue"), components.explained, (1, 2, 3), strict=True)
    entries: list[tuple[Any, str]] = [
        (colour, f"component {number} ({share:.0%} of the variance)")
        for colour, share, number in shares
    ]
    legend(axes[-1], [*entries, *[(NODATA, _without(drawn))] * missing])
    return figure


def _without(drawn: Sequence[Subject]) -> str:
    """Return what cells or places in grey have not."""
    return "no token" if isinstance(drawn[0], MapSubject) else "no embedding"


def _as_grid(tokens: NDArray[Any]) -> NDArray[Any]:
    return tokens.T[:, :, None]  # N d -> d N 1


def similarity(
    source: Any,
    *,
    point: tuple[float, float] | None = None,
    like_id: int | str | None = None,
    centred: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Return a map or table in the colours of its cosine similarity to one of its tokens.

    Parameters
    ----------
    source : path, xarray.DataArray, Embedding or EmbeddingTable
        A map, token grid or table.
    point : tuple of float, optional
        Longitude and latitude: of a cell, or of the place nearest to it.
    like_id : int or str, optional
        Id of a place of a table.
    centred : bool
        Whether the mean of all is subtracted first, as in `similarity_map` and `nearest`.
    ax : matplotlib.axes.Axes, optional
        Where it is drawn.

    Raises
    ------
    SpecError
        If the point is outside the map or has no token, the id is unknown, or not exactly one of
        both is given; only a table has ids.
    """
    if (point is None) == (like_id is None):
        raise SpecError(
            "expected one of point=(lon, lat) (--point lon,lat) and like_id= (--like-id)"
        )
    one = subject(source)
    shape = one.grid.shape
    query: Any = like_id
    if point is not None:
        query = {"type": "Point", "coordinates": list(point)}
    elif isinstance(one, MapSubject):
        raise SpecError(f"got like_id={like_id!r} for {one.name}, a map; use point=(lon, lat)")
    if isinstance(one, MapSubject):
        values = similarity_map(one.placed.array, [query["coordinates"]], centred=centred).values
    else:
        values = _similarity_of_places(one, query, centred=centred)
    figure, (own,) = canvas(ax, 1, shape=shape)
    drawn = one.draw(own, values, cmap="viridis")
    label = f"cosine similarity{', from the mean' if centred else ''}"
    grey = f" (grey: {_without([one])})" if np.isnan(values).any() else ""
    colour_bar(own, drawn, label + grey)
    if point is not None and isinstance(one, MapSubject):
        x, y = transformer("EPSG:4326", known_crs(one.grid.crs)).transform(*point)
        own.plot(x, y, "+", color="red", markersize=12, markeredgewidth=2)
    return figure


def _similarity_of_places(one: TableSubject, query: Any, *, centred: bool) -> NDArray[np.float64]:
    """Return the similarity of each place to the query, 1 for itself, NaN where it failed."""
    table, count = one.table, int(one.known.sum())
    numbered = SimpleNamespace(
        ids=table.ids, embeddings=table.embeddings, errors=getattr(table, "errors", {}),
        frame=table.frame[[table.frame.geometry.name]].assign(row=np.arange(len(table.ids))),
        meta=one.meta,
    )  # fmt: skip
    hits = nearest(numbered, query, k=max(count - 1, 1), centred=centred)
    values = np.full(len(table.ids), np.nan)
    values[hits["row"]] = hits["similarity"]
    values[one.known & np.isnan(values)] = 1.0
    return values


def clusters(*sources: Any, k: int = 6, ax: Axes | Sequence[Axes] | None = None) -> Figure:
    """Return maps or tables in the colours of their k-means clusters, with their shares.

    Parameters
    ----------
    *sources : path, xarray.DataArray, Embedding or EmbeddingTable
        Maps and token grids, or tables, of one model and CRS, all with the same clusters.
    k : int
        Number of clusters, 2 to 9; `cluster_map` writes them as a file for GIS.
    ax : matplotlib.axes.Axes or sequence of these, optional
        One for each source.

    Raises
    ------
    SpecError
        As `pca`, or if there are fewer tokens than clusters, or ``k`` is invalid.
    MissingDependencyError
        If scikit-learn is not installed.
    """
    drawn = subjects(sources)
    maps = [one.placed for one in drawn if isinstance(one, MapSubject)]
    if len(maps) == len(drawn):
        codes = [found.values for found in clusters_of_maps(maps, k)]
    elif maps:
        raise SpecError("got maps and tables, expected one kind; plot them apart")
    else:
        codes = _clusters_of_tables(drawn, k)
    figure, axes = canvas(ax, len(drawn), shape=drawn[0].grid.shape)
    counts = np.zeros(256, np.int64)
    for one, own, code in zip(drawn, axes, codes, strict=True):
        one.draw(own, in_colours(code, MUTED))
        counts += np.bincount(code.ravel(), minlength=256)
    total = max(int(counts[:CLASS_NODATA].sum()), 1)
    entries: list[tuple[Any, str]] = [
        (colour, f"cluster {number + 1}: {counts[number] / total:.1%}")
        for number, colour in enumerate(MUTED[:k])
    ]
    legend(axes[-1], [*entries, *[(NODATA, _without(drawn))] * bool(counts[CLASS_NODATA])])
    return figure


def _clusters_of_tables(tables: Sequence[Subject], k: int) -> list[NDArray[np.uint8]]:
    """Return the clusters of all tables together, 255 for a place that failed."""
    fitted = kmeans(np.concatenate([one.tokens(_MOST_TOKENS) for one in tables]), k)
    found = [
        one.values(lambda rows: fitted.predict(rows.astype(np.float32))[:, None], 1)[:, 0]
        for one in tables
    ]
    known = np.concatenate(found)
    order = by_size(known[np.isfinite(known)].astype(np.int64), k)
    table = np.append(order, np.uint8(CLASS_NODATA))
    return [table[np.nan_to_num(one, nan=k).astype(np.int64)] for one in found]


def in_colours(codes: NDArray[np.uint8], colours: Sequence[str]) -> NDArray[np.float64]:
    """Return ``(..., 4)`` colours of codes, transparent for other codes."""
    from matplotlib.colors import to_rgba

    table = np.zeros((256, 4))
    table[: len(colours)] = [to_rgba(colour) for colour in colours]
    found: NDArray[np.float64] = table[codes]
    return found


def change(
    first: Any,
    second: Any = None,
    *,
    reference: Any = None,
    centred: bool = False,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Return how far each token has moved between two dates and, with a reference, what is above.

    Parameters
    ----------
    first, second : path, xarray.DataArray, Embedding or Change
        Two maps or grids for `rs_embed.change`; or its result alone.
    reference : path, xarray.DataArray or Embedding, optional
        A third date: its distance is the noise floor, and a second panel shows what is above.
    centred : bool
        As for `rs_embed.change`.
    ax : matplotlib.axes.Axes or sequence of these, optional
        One, or two with a reference.

    Raises
    ------
    SpecError
        If the dates cannot be compared.

    Notes
    -----
    Cosine distance as in Ruzicka et al. 2022, https://doi.org/10.1038/s41598-022-19437-5. The
    colours are cut at the 2nd and 98th percentile.
    """
    found = first
    if not isinstance(first, changes.Change):
        if second is None:
            raise SpecError("got one map, expected two dates, or the result of rs_embed.change")
        found = changes.change(first, second, reference=reference, centred=centred)
    distance = found.distance
    placed = placed_map(distance.expand_dims("d"))
    layers = [distance.values]
    if found.floor is not None:
        layers.append(np.where(found.above.values, distance.values, np.nan))
    low, high = np.nanquantile(distance.values, [0.02, 0.98])
    figure, axes = canvas(ax, len(layers), shape=placed.grid.shape)
    days = " and ".join(found.meta[name]["days"] or name for name in ("first", "second"))
    names = [f"cosine distance of {days}", "above the noise floor (grey: not, or no token)"]
    for own, layer, name in zip(axes, layers, names, strict=False):
        one = MapSubject(name, placed, {key: found.meta[key] for key in ("model", "weights")})
        drawn = one.draw(own, layer, cmap="cividis", vmin=low, vmax=high)
    grey = " (grey: no token)" if np.isnan(distance.values).any() else ""
    colour_bar(axes[-1], drawn, f"cosine distance, 0 to 2{grey}", extend="both")
    return figure
