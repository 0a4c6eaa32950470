"""A STAC Item beside a map, so that catalogues can list it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from rs_embed._optional import require
from rs_embed.embedding.provenance import (
    ITEM_KEY,
    chip_layout,
    proj_fields,
)
from rs_embed.embedding.stac import (
    EXTENSIONS,
    band_fields,
    links_of,
    mlm_fields,
    time_fields,
    weights_asset,
    write_item_file,
)
from rs_embed.errors import SpecError
from rs_embed.geo.grid import known_crs, transformer
from rs_embed.maps.formats.encoding import INT8_NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.grid import Grid

_EXTENSIONS = (*EXTENSIONS, "https://stac-extensions.github.io/projection/v2.0.0/schema.json")
# Steps along a side of an outline, before it is simplified.
_STEPS_PER_SIDE = 200
_LEAST_TOLERANCE_DEG = 1e-6


def write_item(
    map_path: Path,
    media_type: str,
    grid: Grid,
    meta: Mapping[str, Any],
    *,
    scales: NDArray[Any] | None = None,
    when: datetime | None = None,
) -> None:
    """Write a STAC 1.1 Item of a map with relative paths; it appears whole or not at all.

    ``meta`` is that of `map_meta`, and ``scales`` the steps of a map in int8. Its time is
    ``meta["temporal"]``, the end excluded; else the time of the source items; else
    ``when``, in UTC if it has no time zone. The item is written beside the map, to `item_path`.

    Raises
    ------
    SpecError
        If the time is not known, or the map has no CRS.
    ExportError
        If the file cannot be written.
    """
    write_item_file(map_path, _item(map_path, media_type, grid, meta, scales, when))


def _item(
    map_path: Path,
    media_type: str,
    grid: Grid,
    meta: Mapping[str, Any],
    scales: NDArray[Any] | None,
    when: datetime | None,
) -> dict[str, Any]:
    encoding = meta["encoding"]
    geometry, bbox = footprint(grid)
    properties = {
        **time_fields(meta, when),
        "title": f"{meta['model']} embeddings",
        "data_type": encoding["dtype"],
        **({"gsd": meta["gsd_m"]} if isinstance(meta.get("gsd_m"), int | float) else {}),
        "proj:code": None,  # if no authority has one
        **proj_fields(grid),
        "proj:shape": list(grid.shape),
        "proj:transform": [float(value) for value in tuple(grid.transform)[:6]],
        "proj:bbox": [float(value) for value in grid.bounds],
        **_emb(meta, scales),
        **mlm_fields(meta, encoding["token_dimensions"], "patch tokens", "token"),
        **band_fields(meta),
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": str(meta.get("id") or map_path.stem),
        "geometry": geometry,
        "bbox": bbox,
        "properties": properties,
        "links": links_of(meta),
        "assets": {
            "embeddings": {
                "href": f"./{quote(map_path.name)}",
                "type": media_type,
                "title": f"Embeddings, {encoding['dimensions']} dimensions",
                "roles": ["data", "embeddings"],
                "nodata": "nan" if scales is None else INT8_NODATA,
            },
            "model": weights_asset(meta),
        },
    }


def _emb(meta: Mapping[str, Any], scales: NDArray[Any] | None) -> dict[str, Any]:
    """Return fields of the embedding extension 0.0.1.

    Its schema allows type, dimensions and chip layout only in collections; in an Item they are
    among the runtime parameters.
    """
    left_out, encoding = {"source_items", "encoding", "grid"}, meta["encoding"]
    parameters = {
        "type": "chip",
        "dimensions": encoding["dimensions"],
        "chip_layout": chip_layout(meta),
        **{k: v for k, v in meta.items() if k not in left_out},
        "encoding": encoding,
    }
    fields: dict[str, Any] = {ITEM_KEY: parameters}
    if encoding["dtype"] != "float32":
        fields["emb:quantization"] = {
            "method": "cast" if scales is None else "linear",
            "original_dtype": "float32",
            "quantized_dtype": encoding["dtype"],
            **({} if scales is None else {"scale": [float(v) for v in scales]}),
        }
    return fields


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """Return the outline (GeoJSON) and bounding box of a grid in degrees (EPSG:4326).

    The outline has the corners, and as many points between them as keep it within a hundredth of a
    cell of the true edges (at least 1e-6 degrees, about 0.1 m). One that crosses the antimeridian
    is cut there, and the west of its box is then greater than the east. One around a pole becomes
    the cap down to its lowest latitude.

    Raises
    ------
    SpecError
        If the grid has no CRS, or an edge has no coordinates in degrees.
    """
    if grid.crs is None:
        raise SpecError("the map has no CRS, so its place on Earth is unknown; assign one")
    lon, lat = _outline(grid)
    if not np.isfinite([lon, lat]).all():
        raise SpecError(f"the edges of {grid.bounds} are outside the area of {grid.crs.name!r}")
    # Longitudes without jumps: neighbours on the outline are less than half a turn apart.
    lon = np.unwrap(lon, period=360)  # adds whole turns: 180 stays 180
    if abs(lon[-1] - lon[0]) > 180:
        south, north = (lat.min(), 90.0) if lat.mean() > 0 else (-90.0, lat.max())
        lon = np.array([-180.0, 180.0, 180.0, -180.0, -180.0])
        lat = np.array([south, south, north, north, south])
    else:
        lon, lat = _simplified(lon, lat, grid.shape)
    lon = lon - 360 * np.floor((lon.min() + 180) / 360)  # west in -180..180
    west, south, east, north = (float(v) for v in (lon.min(), lat.min(), lon.max(), lat.max()))
    if east <= 180:
        ring = _ring(lon, lat)
        return {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north]
    sides = [_clipped(lon, lat, keep_east=False), _clipped(lon, lat, keep_east=True)]
    rings = [[_ring(side[0] - 360 * part, side[1])] for part, side in enumerate(sides)]
    return {"type": "MultiPolygon", "coordinates": rings}, [west, south, east - 360, north]


def _outline(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitudes and latitudes of the edges, counter-clockwise from the top left."""
    left, bottom, right, top = grid.bounds
    steps = np.arange(_STEPS_PER_SIDE) / _STEPS_PER_SIDE
    across, down = left + steps * (right - left), top + steps * (bottom - top)
    back, up = right + steps * (left - right), bottom + steps * (top - bottom)
    count = _STEPS_PER_SIDE
    xs = np.concatenate([np.full(count, left), across, np.full(count, right), back, [left]])
    ys = np.concatenate([down, np.full(count, bottom), up, np.full(count, top), [top]])
    lon, lat = transformer(known_crs(grid.crs), "EPSG:4326").transform(xs, ys)
    return np.asarray(lon), np.asarray(lat)


def _simplified(
    lon: NDArray[np.float64], lat: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return an outline without the points that are near the line between their neighbours."""
    shapely = require("shapely", extra="maps", purpose="the outline of a map")
    # The side of a cell, degrees of a great circle, follows from the length of the outline.
    east = np.diff(lon) * np.cos(np.radians(lat[:-1]))
    cell = float(np.hypot(east, np.diff(lat)).sum()) / (2 * sum(shape))
    tolerance = max(0.01 * cell, _LEAST_TOLERANCE_DEG)
    at = np.stack([lon, lat], axis=1)
    starts = range(0, len(at) - 1, _STEPS_PER_SIDE)
    sides = [shapely.linestrings(at[start : start + _STEPS_PER_SIDE + 1]) for start in starts]
    simple = shapely.simplify(sides, tolerance, preserve_topology=False)
    corners_once = [shapely.get_coordinates(side)[:-1] for side in simple]
    outline = np.concatenate([*corners_once, at[-1:]])
    return outline[:, 0], outline[:, 1]


def _clipped(
    lon: NDArray[np.float64], lat: NDArray[np.float64], *, keep_east: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the part of a closed outline on one side of longitude 180."""
    points: list[tuple[float, float]] = []
    for start in range(len(lon) - 1):
        first, second = lon[start], lon[start + 1]
        if (first >= 180) == keep_east:
            points.append((first, lat[start]))
        if (first >= 180) != (second >= 180):
            share = (180 - first) / (second - first)
            points.append((180.0, lat[start] + share * (lat[start + 1] - lat[start])))
    closed = np.array([*points, points[0]])
    return closed[:, 0], closed[:, 1]


def _ring(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> list[list[float]]:
    return [[round(float(x), 7), round(float(y), 7)] for x, y in zip(lon, lat, strict=True)]
