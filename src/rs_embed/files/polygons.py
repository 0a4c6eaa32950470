"""Polygons of files and objects, each of them checked."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.errors import GridError, SpecError, UnknownNameError, some
from rs_embed.geo.grid import ground_crs, known_crs
from rs_embed.geo.polygons import DEGREE_TOLERANCE, KINDS, Polygons, require_shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS
    from shapely.geometry.base import BaseGeometry

_GEOJSON = (".geojson", ".json")
_EXPECTED = (
    "expected polygons as GeoJSON (.geojson), GeoPackage (.gpkg), Shapefile (.shp) or FlatGeobuf "
    "(.fgb)"
)
_REPROJECT = (
    "are these metres of a projection? Then reproject them: ogr2ogr -s_srs EPSG:<code> -t_srs "
    "EPSG:4326 out.geojson in.geojson"
)
_SWAP = (
    "does latitude come first in them? Then swap the two, e.g. with shapely.transform(polygon, "
    "lambda at: at[:, ::-1])"
)
# How GEOS describes an invalid polygon: Self-intersection[1 2].
_PLACE = re.compile(r"^(?P<what>[^\[]+)\[(?P<x>\S+) (?P<y>\S+)\]$")
_FIX = (
    "repair it, e.g. with shapely.make_valid or ogr2ogr -makevalid valid.gpkg in.gpkg, and check "
    "the result"
)


def read_polygons(source: Any, *, layer: str | None = None) -> Polygons:
    """Return the polygons of a file or an object, each of them checked.

    Parameters
    ----------
    source : path, mapping, geometry, list of these two, or Polygons
        A GeoJSON file (``.geojson``, ``.json``: longitude and latitude of WGS 84, or the CRS of
        its old member ``crs``), or a GeoPackage, Shapefile, FlatGeobuf or another file that
        pyogrio reads; a shapely geometry, a GeoJSON mapping, or an object with
        ``__geo_interface__``: longitude and latitude, or the CRS in its attribute ``crs``, as
        geopandas has it; a list or tuple of shapely geometries, GeoJSON geometries and GeoJSON
        features: longitude and latitude. Heights (Z) are left out.
    layer : str, optional
        Layer of a file that has several.

    Returns
    -------
    Polygons
        One geometry per feature, in the order of the source. The id is the feature's own, its
        property ``id``, or its number: the FID in files that have one, else counted from 0.
        Entries of a list count as features.

    Raises
    ------
    SpecError
        If it cannot be read, or a feature is not a valid polygon; the message names the
        feature, the place and a fix. Nothing is repaired silently.
    UnknownNameError
        If the file has no such layer.
    GridError
        If the ``crs`` of the object is unknown, or neither geographic nor projected.
    MissingDependencyError
        If shapely or, for files but GeoJSON, pyogrio is not installed.

    Examples
    --------
    >>> from rs_embed.files.polygons import read_polygons
    >>> ring = [[13.0, 47.0], [13.5, 47.0], [13.5, 47.5], [13.0, 47.0]]
    >>> area = read_polygons({"type": "Polygon", "coordinates": [ring]})
    >>> area.bounds
    (13.0, 47.0, 13.5, 47.5)
    """
    shapely = require_shapely()
    if isinstance(source, Polygons):
        _refuse_layer(layer, source.name)
        return source
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), layer)
    name = f"the {type(source).__name__}"
    _refuse_layer(layer, name)
    if isinstance(source, list | tuple):
        return _checked(name, known_crs("EPSG:4326"), list(_listed(source, name)))
    if isinstance(source, shapely.Geometry):
        return _checked(name, known_crs("EPSG:4326"), [_Feature("0", "the geometry", source)])
    content = source if isinstance(source, Mapping) else getattr(source, "__geo_interface__", None)
    if not isinstance(content, Mapping):
        raise SpecError(
            f"got {type(source).__name__}, expected a path, a shapely geometry, a GeoJSON mapping, "
            "a list of these two, or an object with __geo_interface__"
        )
    stated = None if isinstance(source, Mapping) else getattr(source, "crs", None)
    crs = _geojson_crs(content, name) if stated is None else ground_crs(stated)
    return _checked(name, crs, list(_geojson_features(content, name)))


@dataclass(frozen=True)
class _Feature:
    id: str
    label: str
    geometry: BaseGeometry | None


def _refuse_layer(layer: str | None, name: str) -> None:
    if layer is not None:
        raise SpecError(f"got layer={layer!r} for {name}, which has no layers; leave layer out")


def _from_path(path: Path, layer: str | None) -> Polygons:
    if not path.exists():
        raise SpecError(f"{path}: no such file, {_EXPECTED}")
    if path.suffix.lower() not in _GEOJSON:
        return _from_layer(path, layer)
    _refuse_layer(layer, str(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise SpecError(f"{path}: cannot be read ({exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise SpecError(f"{path}: is not valid JSON in UTF-8 ({exc}), expected GeoJSON") from exc
    name = str(path)
    return _checked(name, _geojson_crs(content, name), list(_geojson_features(content, name)))


def _geojson_crs(content: Any, name: str) -> CRS:
    stated = content.get("crs") if isinstance(content, Mapping) else None
    if stated is None:
        return known_crs("EPSG:4326")
    try:
        return ground_crs(stated["properties"]["name"])
    except (TypeError, KeyError, GridError) as exc:
        raise SpecError(
            f"{name}: got the CRS {stated!r:.200}, expected a name such as "
            "'urn:ogc:def:crs:EPSG::32633', or no 'crs' for longitude and latitude"
        ) from exc


def _listed(source: Sequence[Any], name: str) -> Iterator[_Feature]:
    """Yield the entries of a list as features, numbered from 0."""
    shapely = require_shapely()
    for number, entry in enumerate(source):
        if isinstance(entry, shapely.Geometry):
            yield _Feature(str(number), f"feature {number}", entry)
            continue
        if not isinstance(entry, Mapping):
            raise SpecError(
                f"{name}: feature {number}: got {type(entry).__name__}, expected shapely "
                "geometries or GeoJSON mappings in a list of polygons"
            )
        if entry.get("crs") is not None or entry.get("type") == "FeatureCollection":
            raise SpecError(
                f"{name}: feature {number}: got a GeoJSON object with many features or a CRS of "
                "its own, expected a geometry or feature in longitude and latitude; pass that "
                "object alone, not in a list"
            )
        yield from _geojson_features(entry, name, first=number)


def _geojson_features(content: Any, name: str, *, first: int = 0) -> Iterator[_Feature]:
    """Yield the features of a FeatureCollection, a feature, or a lone geometry."""
    if isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        if not isinstance(features, list | tuple):
            raise SpecError(f"{name}: got no list 'features' in the FeatureCollection")
    else:
        features = [content]
    for number, feature in enumerate(features, first):
        if not isinstance(feature, Mapping):
            raise SpecError(
                f"{name}: feature {number}: got {feature!r:.60}, expected a GeoJSON object"
            )
        if feature.get("type") != "Feature":
            feature = {"geometry": feature}
        properties = feature.get("properties")
        own = properties.get("id") if isinstance(properties, Mapping) else None
        named = (feature.get("id"), own, number)
        feature_id = str(next(value for value in named if value is not None))
        label = _label(number, feature_id)
        yield _Feature(feature_id, label, _geojson_geometry(feature.get("geometry"), name, label))


def _label(number: int, feature_id: str) -> str:
    return f"feature {number}" + ("" if feature_id == str(number) else f" (id {feature_id!r})")


def _geojson_geometry(geometry: Any, name: str, label: str) -> BaseGeometry | None:
    shapely = require_shapely()
    if geometry is None:
        return None
    if not isinstance(geometry, Mapping):
        raise SpecError(f"{name}: {label}: got {geometry!r:.60}, expected a GeoJSON geometry")
    if geometry.get("type") not in KINDS:
        raise _wrong_kind(name, label, geometry.get("type"))
    plain = {"type": geometry["type"], "coordinates": geometry.get("coordinates")}
    try:
        text = json.dumps(plain, allow_nan=False)
    except ValueError as exc:
        raise _not_finite(name, label) from exc
    except TypeError as exc:
        raise SpecError(f"{name}: {label}: got coordinates that are not numbers ({exc})") from exc
    try:
        return shapely.from_geojson(text)
    except shapely.errors.GEOSException as exc:
        raise SpecError(
            f"{name}: {label}: got coordinates that are not a {geometry['type']} ({exc}), expected "
            "closed rings of [longitude, latitude] as in RFC 7946"
        ) from exc


def _from_layer(path: Path, layer: str | None) -> Polygons:
    """Return the polygons of a file that GDAL reads."""
    shapely = require_shapely()
    pyogrio, raw, errors = (
        require(module, extra="maps", purpose=f"reading polygons of {path.name}")
        for module in ("pyogrio", "pyogrio.raw", "pyogrio.errors")
    )
    try:
        chosen = _layer(path, layer, pyogrio.list_layers(path))
        fields = pyogrio.read_info(path, layer=chosen)["fields"]
        names = [field for field in fields if field == "id"]
        meta, fids, content, columns = raw.read(
            path, layer=chosen, columns=names, force_2d=True, return_fids=True
        )
    except (errors.DataSourceError, errors.DataLayerError) as exc:
        raise SpecError(f"{path}: cannot be read ({exc}), {_EXPECTED}") from exc
    own = columns[0] if names else [None] * len(fids)
    features = []
    for number, (fid, value, wkb) in enumerate(zip(fids, own, content, strict=True)):
        is_null = value is None or (isinstance(value, float) and math.isnan(value))
        feature_id = str(fid if is_null else value)
        label = _label(number, feature_id)
        try:
            with np.errstate(invalid="ignore"):  # a NaN is refused, not warned of
                geometry = None if wkb is None else shapely.from_wkb(wkb)
        except shapely.errors.GEOSException as exc:
            raise SpecError(
                f"{path}: {label}: got a geometry that cannot be read ({exc}), expected closed "
                f"rings; {_FIX}"
            ) from exc
        features.append(_Feature(feature_id, label, geometry))
    return _checked(str(path), _layer_crs(path, meta["crs"]), features)


def _layer(path: Path, layer: str | None, layers: NDArray[Any]) -> str:
    """Return the layer to read: the one that was named, or the only one with geometries."""
    names = [str(name) for name, _ in layers]
    if layer is not None:
        if layer not in names:
            raise UnknownNameError.among(f"layer of {path}", layer, names)
        return layer
    spatial = [str(name) for name, kind in layers if kind is not None]
    if len(spatial) > 1:
        raise SpecError(
            f"{path}: holds the layers {some(spatial, 10)}, expected one; choose it with layer="
        )
    if not spatial:
        raise SpecError(f"{path}: holds no layer with geometries, expected polygons")
    return spatial[0]


def _layer_crs(path: Path, stated: str | None) -> CRS:
    crs = None if stated is None else known_crs(stated)
    # GeoPackage has two entries for "not known", one of them with degrees.
    unknown = crs is None or not (crs.is_geographic or crs.is_projected)
    if crs is None or unknown or crs.name.casefold().startswith("undefined"):
        raise SpecError(
            f"{path}: states no CRS that is tied to the Earth (got {stated!r}), so its place is "
            "unknown; assign the one it was drawn in: ogr2ogr -a_srs EPSG:<code> out.gpkg "
            f"{path.name} (a Shapefile needs its .prj beside it)"
        )
    return crs


def _checked(name: str, crs: CRS, features: list[_Feature]) -> Polygons:
    if not features:
        raise SpecError(f"{name}: holds no features, expected at least one polygon")
    geometries = tuple(_checked_geometry(name, crs, feature) for feature in features)
    return Polygons(geometries, tuple(feature.id for feature in features), crs, name)


def _checked_geometry(name: str, crs: CRS, feature: _Feature) -> BaseGeometry:
    """Return the geometry without Z; refuse one that is not a valid polygon of the CRS."""
    shapely = require_shapely()
    if feature.geometry is None:
        raise SpecError(
            f"{name}: {feature.label} has no geometry, expected a polygon; leave it out"
        )
    if feature.geometry.geom_type not in KINDS:
        raise _wrong_kind(name, feature.label, feature.geometry.geom_type)
    geometry = shapely.force_2d(feature.geometry)
    if geometry.is_empty:
        raise SpecError(
            f"{name}: {feature.label} is an empty {geometry.geom_type}, expected a polygon with "
            "an area; leave it out"
        )
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise _not_finite(name, feature.label)
    if crs.is_geographic:
        _check_degrees(geometry, name, feature.label)
    if not geometry.is_valid:
        x, y = ("longitude", "latitude") if crs.is_geographic else ("x", "y")
        place = rf"\g<what> at {x} \g<x>, {y} \g<y>"
        reason = _PLACE.sub(place, shapely.is_valid_reason(geometry))
        raise SpecError(
            f"{name}: {feature.label} is not a valid polygon "
            f"({reason}), expected rings that do not cross or touch along a line; {_FIX}"
        )
    return geometry


def _check_degrees(geometry: BaseGeometry, name: str, label: str) -> None:
    shapely = require_shapely()
    left, bottom, right, top = shapely.bounds(geometry)
    beyond_lon = left < -180 - DEGREE_TOLERANCE or right > 180 + DEGREE_TOLERANCE
    swapped = max(-left, right) <= 90 and max(-bottom, top) <= 180
    if beyond_lon or bottom < -90 - DEGREE_TOLERANCE or top > 90 + DEGREE_TOLERANCE:
        raise SpecError(
            f"{name}: {label}: got coordinates from ({left:g}, {bottom:g}) to ({right:g}, "
            f"{top:g}), expected longitudes in -180..180, then latitudes in -90..90; "
            f"{_SWAP if swapped else _REPROJECT}"
        )
    for part in shapely.get_parts(geometry):
        west, _, east, _ = shapely.bounds(part)
        if east - west > 180:
            raise SpecError(
                f"{name}: {label}: got a polygon from {west:g} to {east:g} degrees east, expected "
                "at most half the Earth; if it crosses the antimeridian, split it there into a "
                "MultiPolygon, as RFC 7946 (section 3.1.9) wants: ogr2ogr -wrapdateline out.gpkg "
                "in.gpkg"
            )


def _wrong_kind(name: str, label: str, kind: object) -> SpecError:
    return SpecError(
        f"{name}: {label}: got a geometry of type {kind!r}, expected Polygon or MultiPolygon; make "
        "polygons of it in a GIS, e.g. with a buffer, or leave it out"
    )


def _not_finite(name: str, label: str) -> SpecError:
    return SpecError(
        f"{name}: {label}: got a coordinate that is not finite, expected numbers; draw that "
        "vertex anew or leave it out"
    )
