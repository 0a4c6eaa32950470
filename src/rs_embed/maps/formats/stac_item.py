"""A STAC Item beside a map, so that catalogues can list it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from rs_embed._optional import require
from rs_embed.errors import ExportError, SpecError
from rs_embed.files.writing import sync, sync_name
from rs_embed.geo.bands import canonical_band
from rs_embed.geo.grid import known_crs, transformer
from rs_embed.maps.formats.map_format import item_path
from rs_embed.maps.formats.provenance import (
    ITEM_KEY,
    artifact_type,
    chip_layout,
    input_bands,
    is_uri,
    map_meta,
    model_address,
    model_description,
    proj_fields,
    source_addresses,
    source_items,
    source_title,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.grid import Grid
    from rs_embed.maps.formats.content import MapContent
    from rs_embed.maps.formats.encoding import FittedEncoding

_EXTENSIONS = (
    "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    "https://stac-extensions.github.io/mlm/v1.5.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)
# What the MLM extension calls networks of a family; others go by the name of their family.
_NETWORKS = {
    "ScaleMAE": {"mlm:architecture": "Vision Transformer", "mlm:framework": "PyTorch"},
}
_COLOURS = ["B4", "B3", "B2"]
# Steps along a side of an outline, before it is simplified.
_STEPS_PER_SIDE = 200
_LEAST_TOLERANCE_DEG = 1e-6


def write_item(
    map_path: Path,
    media_type: str,
    content: MapContent,
    encoding: FittedEncoding,
    *,
    when: datetime | None = None,
) -> None:
    """Write a STAC 1.1 Item of a map with relative paths; it appears whole or not at all.

    Its time is ``meta["temporal"]``, the end excluded; else the time of the source items; else
    ``when``, in UTC if it has no time zone. The item is written beside the map, to `item_path`.

    Raises
    ------
    SpecError
        If the time is not known, or the map has no CRS.
    ExportError
        If the file cannot be written.
    """
    path = item_path(map_path)
    item = _item(map_path, media_type, content, encoding, when)
    text = json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False)
    # Always the same name, so that the next run replaces what a killed one left.
    partial = path.with_name(f".{path.name}.writing")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        sync(partial)
        os.replace(partial, path)
        sync_name(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise ExportError(f"cannot write {path}: {exc}; choose another place") from exc


def has_time(meta: Mapping[str, Any]) -> bool:
    """Return whether the meta states the time of the imagery."""
    return bool(meta.get("temporal")) or bool(_item_times(meta))


def _item(
    map_path: Path,
    media_type: str,
    content: MapContent,
    encoding: FittedEncoding,
    when: datetime | None,
) -> dict[str, Any]:
    grid, meta = content.grid, content.meta
    geometry, bbox = footprint(grid)
    properties = {
        **_time(meta, when),
        "title": f"{meta['model']} embeddings",
        "data_type": encoding.dtype.name,
        **({"gsd": meta["gsd_m"]} if isinstance(meta.get("gsd_m"), int | float) else {}),
        "proj:code": None,  # if no authority has one
        **proj_fields(grid),
        "proj:shape": list(grid.shape),
        "proj:transform": [float(value) for value in tuple(grid.transform)[:6]],
        "proj:bbox": [float(value) for value in grid.bounds],
        **_emb(content, encoding),
        **_mlm(content),
        **_bands(meta),
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": str(meta.get("id") or map_path.stem),
        "geometry": geometry,
        "bbox": bbox,
        "properties": properties,
        "links": _links(meta),
        "assets": {
            "embeddings": {
                "href": f"./{quote(map_path.name)}",
                "type": media_type,
                "title": f"Embeddings, {encoding.dimensions} dimensions",
                "roles": ["data", "embeddings"],
                "nodata": "nan" if encoding.scales is None else int(encoding.nodata),
            },
            # The MLM schema requires the weights as an asset.
            "model": {
                "href": model_address(meta),
                "title": f"Weights of {meta['model']}",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": artifact_type(meta),
                **_bands(meta),
            },
        },
    }


def _time(meta: Mapping[str, Any], when: datetime | None) -> dict[str, Any]:
    period = meta.get("temporal")
    if period:
        first, after = _moment(period["start"]), _moment(period["end"])
        last = max(first, after - timedelta(seconds=1))
    elif times := _item_times(meta):
        first, last = times[0], times[-1]
    elif when is not None:
        first = last = when if when.tzinfo else when.replace(tzinfo=UTC)
    else:
        raise SpecError(
            "the meta of the map has neither a period nor times of its imagery, and a STAC Item "
            "needs one; pass the time of the imagery as when=datetime(...)"
        )
    start, end = (
        moment.astimezone(UTC).isoformat().replace("+00:00", "Z") for moment in (first, last)
    )
    if start == end:
        return {"datetime": start}
    return {"datetime": None, "start_datetime": start, "end_datetime": end}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _item_times(meta: Mapping[str, Any]) -> list[datetime]:
    times = (item.get("datetime") for item in source_items(meta))
    return sorted(_moment(text) for text in times if isinstance(text, str))


def _emb(content: MapContent, encoding: FittedEncoding) -> dict[str, Any]:
    """Return fields of the embedding extension 0.0.1.

    Its schema allows type, dimensions and chip layout only in collections; in an Item they are
    among the runtime parameters.
    """
    left_out = {"source_items", "encoding", "grid"}
    parameters = {
        "type": "chip",
        "dimensions": encoding.dimensions,
        "chip_layout": chip_layout(content.meta),
        **{k: v for k, v in map_meta(content, encoding).items() if k not in left_out},
        "encoding": encoding.to_json(),
    }
    fields: dict[str, Any] = {ITEM_KEY: parameters}
    if encoding.dtype != np.float32:
        fields["emb:quantization"] = {
            "method": "linear" if encoding.scales is not None else "cast",
            "original_dtype": "float32",
            "quantized_dtype": encoding.dtype.name,
        } | ({"scale": [float(v) for v in encoding.scales]} if encoding.scales is not None
             else {})  # fmt: skip
    return fields


def _mlm(content: MapContent) -> dict[str, Any]:
    """Return fields of the MLM extension 1.5; -1 is any size.

    Of the tasks in its schema, similarity search fits embeddings.
    """
    meta = content.meta
    description = model_description(meta)
    family = description.get("family", "unknown")
    inputs = description.get("inputs", {})
    bands = inputs.get("bands", [])
    is_rgb = [canonical_band(band) for band in bands] == _COLOURS
    pairs = zip(inputs.get("mean", ()), inputs.get("std", ()), strict=True)
    scaling = [{"type": "z-score", "mean": mean, "stddev": std} for mean, std in pairs]
    tasks = ["similarity-search"]
    side = meta.get("image_size")
    side = side if isinstance(side, int) else -1
    parameters = {
        key: meta[key]
        for key in ("used_patch_size", "gsd_m", "stride_px", "input_res", "tokens_kind")
        if meta.get(key) is not None
    }
    return {
        "mlm:name": re.sub(r"[^A-Za-z0-9_.\-\s]", "-", str(meta["model"])),
        **_NETWORKS.get(family, {"mlm:architecture": family}),
        "mlm:tasks": tasks,
        "mlm:input": [
            {
                "name": "RGB" if is_rgb else "pixels",
                "bands": input_bands(meta),
                "input": {
                    "shape": [-1, len(bands) or -1, side, side],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": scaling or None,
            }
        ],
        "mlm:output": [
            {
                "name": "patch tokens",
                "tasks": tasks,
                "result": {
                    "shape": [-1, -1, content.dimensions],
                    "dim_order": ["batch", "token", "embedding"],
                    "data_type": "float32",
                },
            }
        ],
        **({"mlm:hyperparameters": parameters} if parameters else {}),
    }


def _bands(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``bands`` of STAC 1.1: the input of the model, for its asset and the properties.

    The MLM schema requires the bands of the input in the properties, and STAC allows them there
    only if an asset has them too.
    """
    bands = [{"name": name} for name in input_bands(meta)]
    return {"bands": bands} if bands else {}


def _links(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    links = [{"rel": "emb:model", "href": model_address(meta), "title": str(meta["model"])}]
    links += [
        {"rel": "derived_from", "href": item["href"], "title": str(item.get("id", item["href"]))}
        for item in source_items(meta)
        if is_uri(item.get("href"))
    ]
    title = source_title(meta)
    named = {} if title is None else {"title": title}
    links += [{"rel": "emb:source-data", "href": href, **named} for href in source_addresses(meta)]
    return links


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
