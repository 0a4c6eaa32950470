"""Nearest neighbours in a table of embeddings: exact, by cosine similarity."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.addresses import path_of
from rs_embed.embedding.comparing import check_made_alike
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.similarity import cosines, directions
from rs_embed.errors import (
    CoverageWarning,
    GsdWarning,
    Note,
    RsEmbedWarning,
    SpecError,
    UnknownNameError,
    give_warnings,
    some,
)
from rs_embed.files.formats import PICTURES, Format, Formats
from rs_embed.files.writing import written
from rs_embed.geo.grid import MAX_LONGITUDE
from rs_embed.parallel.cores import cores
from rs_embed.tables.export import load_export

if TYPE_CHECKING:
    from numpy.typing import NDArray

HITS = Formats(
    "nearest neighbours",
    Format(name="GeoJSON", suffixes=(".geojson", ".json"), media_type="application/geo+json"),
)
_GSD_TOLERANCE = 0.05
# A part of the table that stays in the cache of a core, and similarities that are held at once.
_PART_BYTES, _MOST_SIMILARITIES = 2**20, 2**24
# What may say where images are read for a picture.
_PIXELS = ("imagery", "backend", "temporal", "sensor", "fetch", "cache")
# Ids whose spelling is compared with an unknown one.
_MOST_SPELLINGS = 20_000


def nearest(
    table: Any,
    query: Any,
    k: int = 10,
    *,
    centred: bool = True,
    output: str | os.PathLike[str] | None = None,
    picture: str | os.PathLike[str] | None = None,
    **pixels: Any,
) -> Any:
    """Return the ``k`` places of a table whose embeddings are most similar to a query.

    All embeddings are compared, so the result is exact. Similarity is the cosine of the angle
    between embeddings, seen from the mean of the table: without that all of them are similar.

    Parameters
    ----------
    table : path or table
        A file of `export_batch`, or an object with ``ids``, ``embeddings`` (``(N, D)``, also
        memory-mapped) and ``frame`` (N rows), such as `EmbeddingTable`.
    query : int, str, Embedding, array-like or Point
        Id of a place in the table; an `Embedding`; a vector ``(D,)`` or several ``(Q, D)``; or
        longitude and latitude (a shapely Point, or one of GeoJSON), for the place of the table
        nearest to it. A place of the table is not its own neighbour.
    k : int
        Number of neighbours. If there are fewer, all are returned, with a warning.
    centred : bool
        Whether the mean of the table is subtracted first, from the query too.
    output : path, optional
        A ``.geojson`` to write, in EPSG:4326.
    picture : path, optional
        A ``.png`` of query and neighbours to write: their images if ``pixels`` says where to read
        them, or if they are images themselves; else a map of their similarity.
    **pixels
        ``imagery`` or ``backend``, and ``temporal`` (that of the table by default), ``sensor``,
        ``fetch``, ``cache``, as for `inspect_input`.

    Returns
    -------
    pandas.DataFrame or geopandas.GeoDataFrame
        A row for each neighbour, most similar first: ``rank`` from 1, ``similarity`` (-1 to 1) and
        ``id``, then the columns of ``table.frame``; one of these names there becomes
        ``<name>_of_table``. With several queries, ``query`` in front is their number from 0.
        Places that failed are left out. ``attrs`` has ``compared``, the number of places, and the
        ``query``, its ``distance_m`` from the point, and ``centred``.

    Raises
    ------
    SpecError
        If ``k`` or the query is invalid, the query was not made like the table, or nothing can be
        compared; `UnknownNameError` for an unknown id.
    ExportError
        If the file cannot be read or written.
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise SpecError(f"got k={k!r}, expected the number of neighbours, 1 or more")
    target = None if output is None else path_of(output)
    if target is not None:
        HITS.check(target)
    for name in pixels:
        if name not in _PIXELS:
            raise UnknownNameError.among("argument of nearest", name, _PIXELS)
    drawn = None if picture is None else path_of(picture)
    if drawn is not None:
        PICTURES.check(drawn)
    elif pixels:
        raise SpecError(f"got {', '.join(pixels)} without picture=, which they are for")
    table = _opened(table)
    if not table.embeddings.size:
        raise SpecError("got a table without embeddings, expected at least one place that has one")
    if target is not None and getattr(table.frame, "crs", None) is None:
        raise SpecError(f"got output={str(target)!r} for a table without geometry or CRS")
    own, attrs = _own_row(table, query)
    vectors = _vectors(table, query) if own is None else table.embeddings[own]
    if drawn is not None and vectors.ndim > 1:
        raise SpecError("got picture= for several queries, expected one query")
    queries, mean = np.atleast_2d(vectors), np.zeros(table.embeddings.shape[1])
    units = directions(queries, mean, of="table")
    if centred:
        mean = _mean(table.embeddings)
        units = directions(queries, mean, of="table")
    rows, similarity, compared = _search(table.embeddings, units, mean, int(k), own)
    if compared < k:
        message = f"got k={k}, but only {compared} places can be compared; all are returned"
        give_warnings([Note(message, RsEmbedWarning)])
    hits = _hits(table, rows, similarity, numbered=vectors.ndim == 2)
    hits.attrs = {"compared": compared, "centred": centred, **attrs}
    if target is not None:
        with written(target) as partial:
            partial.write_text(hits.to_json(to_wgs84=True, drop_id=True, default=str))
    if drawn is not None:
        image = _drawn(table, query, own, (rows[0], similarity[0]), pixels)
        with written(drawn) as partial:
            image.save(partial, format="PNG")
    return hits


def _drawn(table: Any, query: Any, own: int | None, found: Any, pixels: Mapping[str, Any]) -> Any:
    """Return the picture of a query, at row ``own`` if it has one, and of what was found."""
    from rs_embed.tables import picture  # only one that is wanted needs Pillow

    places = [
        (f"{rank}.  {similarity:.3f}", str(table.ids[row]), picture.meta_of(table, row))
        for rank, (row, similarity) in enumerate(zip(*found, strict=True), 1)
    ]
    if not pixels and not all(picture.is_chip(meta) for *_, meta in places):
        rows, similarity = found
        return picture.of_points(*degrees(table), rows, similarity, own)
    if own is not None:
        places.insert(0, ("query", str(table.ids[own]), picture.meta_of(table, own)))
    elif isinstance(query, Embedding):
        places.insert(0, ("query", "", query.meta))
    return picture.of_images(places, pixels)


def degrees(
    table: Any,
    purpose: str = "a point or picture=",
    fix: str = "; search for an id, and state backend= or imagery= for a picture of images",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude of a point in each place of a table."""
    if getattr(table.frame, "crs", None) is None:
        raise SpecError(f"got {purpose} for a table without geometry or CRS{fix}")
    points = table.frame.geometry.representative_point().to_crs("EPSG:4326")
    x, y = points.x.to_numpy(), points.y.to_numpy()
    if not np.isfinite(x).any():
        raise SpecError(f"got {purpose} for a table without a single geometry")
    return x, y


def _opened(table: Any) -> Any:
    """Return a table; a file is read."""
    if hasattr(table, "embeddings"):
        return table
    if not isinstance(table, str | os.PathLike):
        raise SpecError(f"got a table of type {type(table).__name__}, expected one of export_batch")
    return load_export(table)


def _own_row(table: Any, query: Any) -> tuple[int | None, dict[str, Any]]:
    """Return the row that an id or a point stands for, and what to record of it."""
    attrs: dict[str, Any] = {}
    point = query if isinstance(query, Mapping) else getattr(query, "__geo_interface__", None)
    if point is not None:
        row, attrs["distance_m"] = _row_at(table, point)
    elif isinstance(query, str | Integral) and not isinstance(query, bool):
        row = _row_of(table.ids, query)
    else:
        return None, {}
    name = table.ids[row]
    if not np.isfinite(table.embeddings[row]).all():
        reason = getattr(table, "errors", {}).get(name, "it is NaN")
        raise SpecError(f"the place {name!r} has no embedding ({reason}); search for another one")
    return row, {"query": name, **attrs}


def _row_of(ids: Sequence[int | str], name: Any) -> int:
    rows: dict[Any, int] = {one: row for row, one in enumerate(ids)}
    # Ids of digits are integers in some tables, and text on the command line.
    texts = rows if name in rows else {str(one): row for one, row in rows.items()}
    key = name if name in rows else str(name)
    if key not in texts:
        near = difflib.get_close_matches(key, islice(texts, _MOST_SPELLINGS), cutoff=0.5)
        known = f"did you mean {' or '.join(map(repr, near))}?" if near else some([*texts])
        raise UnknownNameError(f"unknown id {name!r}, expected one of the table: {known}")
    if len(texts) < len(ids) and sum(str(one) == str(key) for one in ids) > 1:
        raise SpecError(f"got id {name!r} of several places; search for a Point or a vector")
    return texts[key]


def _row_at(table: Any, point: Mapping[str, Any]) -> tuple[int, float]:
    """Return the row nearest to a GeoJSON point, and its distance in metres."""
    from pyproj import Geod

    at = point.get("coordinates", ()) if point.get("type") == "Point" else ()
    lon, lat = map(float, at[:2]) if len(at) > 1 else (np.nan,) * 2
    if not (abs(lon) <= MAX_LONGITUDE and abs(lat) <= 90):
        raise SpecError(f"got {dict(point)} as query, expected a Point of longitude and latitude")
    lon -= 360 * round(lon / 360)
    x, y = degrees(table)
    away = Geod(ellps="WGS84").inv(np.full_like(x, lon), np.full_like(y, lat), x, y)[2]
    row = int(np.nanargmin(away))
    if not (np.nanmin(x) <= lon <= np.nanmax(x) and np.nanmin(y) <= lat <= np.nanmax(y)):
        message = (
            f"the point {lon:g}, {lat:g} is outside the area of the table; its nearest place, "
            f"{table.ids[row]!r}, is {away[row] / 1000:.3g} km away"
        )
        give_warnings([Note(message, CoverageWarning)])
    return row, float(away[row])


def _vectors(table: Any, query: Any) -> NDArray[np.float64]:
    """Return a query that is not a place of the table: ``(D,)``, or ``(Q, D)`` for several."""
    if isinstance(query, Embedding):
        give_warnings(check_made_alike(query.meta, getattr(table, "meta", None) or {}))
        give_warnings(_gsd_notes(table, query))
    try:
        return np.asarray(query.data if isinstance(query, Embedding) else query, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise SpecError(
            f"got a query of type {type(query).__name__} ({exc}), expected an id of the table, an "
            "Embedding, a vector (D,), several (Q, D), or a Point"
        ) from exc


def _gsd_notes(table: Any, query: Embedding) -> Iterator[Note]:
    """Yield a warning if the model saw the query at another GSD than every place of the table."""
    own, known = query.meta.get("input_res_m"), getattr(table, "frame", {})
    if own is None or "input_res_m" not in known:
        return
    low, high = float(known["input_res_m"].min()), float(known["input_res_m"].max())
    if own < low * (1 - _GSD_TOLERANCE) or own > high * (1 + _GSD_TOLERANCE):
        yield Note(
            f"the model saw the query at {own:.4g} m per pixel, and the places of the table at "
            f"{low:.4g} to {high:.4g} m, so that similarity is that of scale too; embed the query "
            "with the size, scale_m and input_prep of the places",
            GsdWarning,
        )


def _by_parts(
    function: Callable[[Any], Any], embeddings: NDArray[np.float32], queries: int = 1
) -> list[Any]:
    """Return the results for parts of the rows, in order, from as many threads as cores."""
    # Products with several queries have threads of their own: fewer and larger ones are faster.
    step = max(1, min(queries, 16) * _PART_BYTES // (4 * embeddings.shape[1]))
    parts = (embeddings[start : start + step] for start in range(0, len(embeddings), step))
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(function, parts))


def _mean(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean ``(D,)`` of the rows without NaN."""

    def total(values: NDArray[np.float32]) -> NDArray[np.float64]:
        sums = values.sum(axis=0, dtype=np.float64)
        if not np.isfinite(sums).all():
            values = values[np.isfinite(values).all(axis=1)]
            sums = values.sum(axis=0, dtype=np.float64)
        return np.append(sums, len(values))

    *sums, count = np.sum(_by_parts(total, embeddings), axis=0)
    mean: NDArray[np.float64] = np.array(sums) / max(count, 1)
    return mean


def _search(
    embeddings: NDArray[np.float32],
    units: NDArray[np.float64],
    mean: NDArray[np.float64],
    k: int,
    own: int | None,
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.float64]], int]:
    """Return rows and similarities of the hits of each query, and how many rows were compared."""
    rows, similarities, compared = [], [], 0
    at_once = max(1, _MOST_SIMILARITIES // len(embeddings))
    for group in (units[start : start + at_once] for start in range(0, len(units), at_once)):
        part = functools.partial(cosines, units=group, mean=mean)
        parts = _by_parts(part, embeddings, len(group))
        for similarity in np.concatenate(parts, axis=1):
            if own is not None:
                similarity[own] = np.nan
            known = ~np.isnan(similarity)
            similarity[~known] = -np.inf
            compared = int(np.count_nonzero(known))
            least = np.partition(similarity, -min(k, len(known)))[-min(k, len(known))]
            found = np.flatnonzero(known & (similarity >= least))  # all that equal the k-th
            order = np.lexsort((found, -similarity[found]))[:k]
            rows.append(found[order])
            similarities.append(similarity[found[order]].clip(-1, 1))
    if not compared:
        raise SpecError(
            "nothing to compare: no other place of the table has an embedding, or all are equal to "
            "their mean; then use centred=False (--raw)"
        )
    return rows, similarities, compared


def _hits(table: Any, rows: list[Any], similarities: list[Any], *, numbered: bool) -> Any:
    """Return the hits with the columns of the table."""
    counts = [len(one) for one in rows]
    picked = np.concatenate(rows)
    own = {
        "query": np.repeat(np.arange(len(rows)), counts),
        "rank": np.concatenate([np.arange(1, count + 1) for count in counts]),
        "similarity": np.concatenate(similarities),
        "id": [table.ids[row] for row in picked],
    }
    if not numbered:
        del own["query"]
    hits = table.frame.iloc[picked].reset_index(drop=True)
    if "id" in hits and hits["id"].tolist() == own["id"]:
        del hits["id"]
    hits = hits.rename(columns={name: f"{name}_of_table" for name in own if name in hits})
    for at, (name, values) in enumerate(own.items()):
        hits.insert(at, name, values)
    return hits
