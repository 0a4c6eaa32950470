"""Polygons of files and objects, each of them checked."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.addresses import PLACES_BYTES, check_beside, path_of, read_document
from rs_embed.errors import GridError, SpecError, UnknownNameError, give_warnings, some
from rs_embed.files.databases import check_layer, listed_layers
from rs_embed.files.features import (
    check_geojson,
    feature_id,
    id_column,
    located,
    own_id,
    property_names,
    unused_dates,
)
from rs_embed.geo.grid import MAX_LONGITUDE, ground_crs, known_crs, turns
from rs_embed.geo.polygons import DEGREE_TOLERANCE, KINDS, Polygons, require_shapely

if TYPE_CHECKING:
    from pyproj import CRS
    from shapely.geometry.base import BaseGeometry

GEOJSON = (".geojson", ".json")
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
REPAIR = (
    "repair it, e.g. with shapely.make_valid or ogr2ogr -makevalid valid.gpkg in.gpkg, and check "
    "the result"
)


def read_polygons(source: Any, *, layer: str | None = None) -> Polygons:
    """Return the polygons of a file or an object, each of them checked.

    Parameters
    ----------
    source : path, mapping, geometry, list of these two, or Polygons
        A GeoJSON file (``.geojson``, ``.json``: longitude and latitude of WGS 84, or the CRS of
        the old member ``crs``), or a GeoPackage, Shapefile, FlatGeobuf or another file that
        pyogrio reads; a shapely geometry (longitude and latitude, or its SRID), a GeoJSON mapping,
        or an object with ``__geo_interface__``: longitude and latitude, or the CRS in its
        attribute ``crs``, as geopandas has it; a list or tuple of shapely geometries, GeoJSON
        geometries and GeoJSON features: longitude and latitude. Heights (Z) and measures (M) are
        left out. Longitudes in 0..360, or drawn on past the antimeridian, are taken as such.
    layer : str, optional
        Layer of a file that has several.

    Returns
    -------
    Polygons
        One geometry per feature, in the order of the source. The id is the property or column
        ``id``, else the feature's own (the index of a GeoDataFrame), else its number: the FID in
        files that have one, else counted from 0. Entries of a list count as features.

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

    Warns
    -----
    TemporalWarning
        If there are columns of dates (``date``, ``start``, ``end``, ...), which are not used.

    Examples
    --------
    >>> from rs_embed.files.polygons import read_polygons
    >>> ring = [[13.0, 47.0], [13.5, 47.0], [13.5, 47.5], [13.0, 47.0]]
    >>> area = read_polygons({"type": "Polygon", "coordinates": [ring]})
    >>> area.bounds
    (13.0, 47.0, 13.5, 47.5)
    """
    if isinstance(source, Polygons):
        refuse_layer(layer, source.name)
        return source
    if isinstance(source, str | os.PathLike):
        return _from_path(path_of(source), layer)
    name = f"the {type(source).__name__}"
    refuse_layer(layer, name)
    return _checked(name, *features_of(source, name))


def features_of(
    source: Any, name: str, kinds: tuple[str, ...] = KINDS
) -> tuple[CRS | None, list[Feature]]:
    """Return the CRS that an object states, if it does, and its features of these ``kinds``."""
    shapely = require_shapely()
    if isinstance(source, list | tuple):
        return None, list(_listed(source, name, kinds))
    if isinstance(source, shapely.Geometry):
        return None, [_of_geometry(source, 0, "the geometry")]
    try:
        is_mapping = isinstance(source, Mapping)
        content = source if is_mapping else getattr(source, "__geo_interface__", None)
    except ValueError as exc:  # geopandas: columns of the same name
        raise SpecError(f"{name}: cannot be read ({exc})") from exc
    if not isinstance(content, Mapping):
        raise SpecError(
            f"got {type(source).__name__}, expected a path, a shapely geometry, a GeoJSON mapping, "
            "a list of these two, or an object with __geo_interface__"
        )
    if is_mapping or not hasattr(source, "crs"):
        return _geojson_crs(content, name), list(_geojson_features(content, name, kinds))
    if source.crs is None:
        raise SpecError(
            f"{name}: states no CRS, so its place is unknown; assign the one it was drawn in, e.g. "
            "with set_crs('EPSG:4326') for longitude and latitude"
        )
    return ground_crs(source.crs), list(_geojson_features(content, name, kinds))


@dataclass(frozen=True)
class Feature:
    """A feature as read; ``number`` names it if it has no id of its own."""

    own: int | str | None
    number: int
    label: str
    geometry: BaseGeometry | None
    crs: CRS | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its own id, else its number, as text."""
        return str(self.number if self.own is None else self.own)


def refuse_layer(layer: str | None, name: str) -> None:
    """Raise `SpecError` if a layer is stated for what has none."""
    if layer is not None:
        raise SpecError(f"got layer={layer!r} for {name}, which has no layers; leave layer out")


def _from_path(path: Path, layer: str | None) -> Polygons:
    if not path.exists():
        raise SpecError(f"{path}: no such file, {_EXPECTED}")
    try:
        check_beside(path)
    except OSError as exc:
        raise SpecError(f"{path}: cannot be read ({exc})") from exc
    if path.suffix.lower() not in GEOJSON:
        return _from_layer(path, layer)
    return _checked(str(path), *features_of_geojson(path, layer))


def features_of_geojson(
    path: Path, layer: str | None, kinds: tuple[str, ...] = KINDS
) -> tuple[CRS | None, list[Feature]]:
    """Return the CRS that a GeoJSON file states, if it does, and its features."""
    refuse_layer(layer, str(path))
    try:
        content = json.loads(read_document(path, PLACES_BYTES).decode("utf-8-sig"))
    except OSError as exc:
        raise SpecError(f"{path}: cannot be read ({exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise SpecError(f"{path}: is not valid JSON in UTF-8 ({exc}), expected GeoJSON") from exc
    return _geojson_crs(content, str(path)), list(_geojson_features(content, str(path), kinds))


def _geojson_crs(content: Any, name: str) -> CRS | None:
    if not isinstance(content, Mapping) or "crs" not in content:
        return None
    stated = content["crs"]
    try:
        return ground_crs(stated["properties"]["name"])
    except (TypeError, KeyError, GridError) as exc:
        raise SpecError(
            f"{name}: got the CRS {stated!r:.200}, expected a name such as "
            "'urn:ogc:def:crs:EPSG::32633', or no 'crs' for longitude and latitude"
        ) from exc


def _listed(source: Sequence[Any], name: str, kinds: tuple[str, ...]) -> Iterator[Feature]:
    """Yield the entries of a list as features, numbered from 0."""
    shapely = require_shapely()
    for number, given in enumerate(source):
        if isinstance(given, shapely.Geometry):
            yield _of_geometry(given, number, f"feature {number}")
            continue
        entry = given if isinstance(given, Mapping) else getattr(given, "__geo_interface__", given)
        if not isinstance(entry, Mapping):
            raise SpecError(
                f"{name}: feature {number}: got {type(entry).__name__}, expected shapely "
                "geometries or GeoJSON mappings in a list of polygons"
            )
        feature = None
        if entry.get("type") != "FeatureCollection":
            feature = _geojson_feature(entry, number, name, kinds)
        if feature is None or feature.crs is not None:
            raise SpecError(
                f"{name}: feature {number}: got a GeoJSON object with many features or a CRS of "
                "its own, expected a geometry or feature in longitude and latitude; pass that "
                "object alone, not in a list"
            )
        yield feature


def _of_geometry(geometry: BaseGeometry, number: int, label: str) -> Feature:
    srid = require_shapely().get_srid(geometry)
    return Feature(None, number, label, geometry, ground_crs(srid) if srid else None)


def _geojson_features(content: Any, name: str, kinds: tuple[str, ...]) -> Iterator[Feature]:
    """Yield the features of a FeatureCollection, a feature, or a lone geometry."""
    if isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        if not isinstance(features, list | tuple):
            raise SpecError(f"{name}: got no list 'features' in the FeatureCollection")
    else:
        features = [content]
    for number, feature in enumerate(features):
        yield _geojson_feature(feature, number, name, kinds)


def _geojson_feature(feature: Any, number: int, name: str, kinds: tuple[str, ...]) -> Feature:
    if not isinstance(feature, Mapping):
        raise SpecError(f"{name}: feature {number}: got {feature!r:.60}, expected a GeoJSON object")
    with located(f"{name}: feature {number}"):
        check_geojson(feature)
        if feature.get("type") != "Feature":
            feature = {"geometry": feature}
        own = feature_id(feature)
    label = _label(number, own, number)
    geometry = feature.get("geometry")
    members = [m for m in (geometry, feature) if isinstance(m, Mapping) and "crs" in m]
    crs = _geojson_crs(members[0], f"{name}: {label}") if members else None
    shape = _geojson_geometry(geometry, name, label, kinds)
    properties = feature.get("properties")
    return Feature(
        own, number, label, shape, crs, properties if isinstance(properties, Mapping) else {}
    )


def _label(position: int, own: int | str | None, number: int) -> str:
    name = str(number if own is None else own)
    return f"feature {position}" + ("" if name == str(position) else f" (id {name!r})")


def _geojson_geometry(
    geometry: Any, name: str, label: str, kinds: tuple[str, ...]
) -> BaseGeometry | None:
    shapely = require_shapely()
    if geometry is None:
        return None
    if not isinstance(geometry, Mapping):
        raise SpecError(f"{name}: {label}: got {geometry!r:.60}, expected a GeoJSON geometry")
    if geometry.get("type") not in kinds:
        raise wrong_kind(name, label, geometry.get("type"), kinds)
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Measured \(M\) geometry types")  # left out, as Z is
        try:
            chosen = chosen_layer(path, layer, pyogrio)
            info = pyogrio.read_info(path, layer=chosen)
            own = _ids(raw, path, chosen, info)
            meta, fids, content, _ = raw.read(
                path, layer=chosen, columns=[], force_2d=True, return_fids=True
            )
        except (errors.DataSourceError, errors.DataLayerError) as exc:
            raise SpecError(f"{path}: cannot be read ({exc}), {_EXPECTED}") from exc
    # GDAL gives columns of dates to every KML.
    dates = () if "KML" in str(info.get("driver")) else info["fields"]
    give_warnings(unused_dates(dates, str(path)))
    features = []
    for position, (fid, wkb) in enumerate(zip(fids.tolist(), content, strict=True)):
        label = _label(position, own.get(fid), fid)
        try:
            with np.errstate(invalid="ignore"):  # a NaN is refused, not warned of
                geometry = None if wkb is None else shapely.from_wkb(wkb)
        except shapely.errors.GEOSException as exc:
            raise SpecError(
                f"{path}: {label}: got a geometry that cannot be read ({exc}), expected closed "
                f"rings; {REPAIR}"
            ) from exc
        features.append(Feature(own.get(fid), fid, label, geometry))
    return _checked(str(path), layer_crs(path, meta["crs"]), features)


def _ids(raw: Any, path: Path, layer: str, info: Mapping[str, Any]) -> dict[int, int | str | None]:
    """Return the ids of a layer by FID; read without NULL, beside which integers become decimal."""
    column = id_column([*info["fields"], info.get("fid_column") or ""])
    if column is None:
        return {}
    _, fids, _, columns = raw.read(
        path,
        layer=layer,
        columns=[column],
        read_geometry=False,
        return_fids=True,
        where=f'"{column}" IS NOT NULL',
    )
    values = columns[0] if columns else fids
    with located(str(path)):
        return {fid: own_id(value) for fid, value in zip(fids.tolist(), values, strict=True)}


def chosen_layer(path: Path, layer: str | None, pyogrio: Any) -> str:
    """Return the layer to read: the one that was named, or the only one with geometries."""
    layers = listed_layers(path)
    chosen = _named_layer(path, layer, pyogrio.list_layers(path) if layers is None else layers)
    check_layer(path, chosen)
    return chosen


def _named_layer(path: Path, layer: str | None, layers: Iterable[Sequence[Any]]) -> str:
    names = [str(name) for name, _ in layers]
    if layer is not None:
        if layer not in names:
            raise UnknownNameError.among(f"layer of {path}", layer, names)
        return layer
    spatial = [str(name) for name, kind in layers if kind is not None]
    if len(spatial) > 1:
        raise SpecError(
            f"{path}: holds the layers {some(spatial, 10)}, expected one; choose it "
            "with layer= (--layer)"
        )
    if not spatial:
        raise SpecError(f"{path}: holds no layer with geometries, expected polygons")
    return spatial[0]


def layer_crs(path: Path, stated: Any) -> CRS:
    """Return the CRS of a file; refuse one that is missing or not tied to the Earth."""
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


def _checked(name: str, stated: CRS | None, features: list[Feature]) -> Polygons:
    if not features:
        raise SpecError(f"{name}: holds no features, expected at least one polygon")
    give_warnings(unused_dates(property_names(map(vars, features)), name))
    crs = common_crs(name, stated, features)
    geometries = tuple(_checked_geometry(name, crs, feature) for feature in features)
    own = {str(feature.own): feature.label for feature in features if feature.own is not None}
    for feature in features:
        if feature.own is None and feature.id in own:
            raise SpecError(
                f"{name}: {feature.label} has no id, and its number {feature.id} is the id of "
                f"{own[feature.id]}; give it one, or leave ids out everywhere"
            )
    whole = bool(own) and not any(isinstance(feature.own, str) for feature in features)
    return Polygons(geometries, tuple(feature.id for feature in features), crs, name, whole)


def common_crs(name: str, stated: CRS | None, features: list[Feature]) -> CRS:
    """Return the CRS of all features, stated for all of them or by each."""
    default = known_crs("EPSG:4326") if stated is None else stated
    first = stated or features[0].crs or default
    for feature in features:
        crs = feature.crs or default
        if crs is not first and not crs.equals(first, ignore_axis_order=True):
            raise SpecError(
                f"{name}: {feature.label}: got the CRS {crs.to_string():.100}, expected "
                f"{first.to_string():.100} as before; reproject all to one CRS, and state it once "
                "for all"
            )
    return first


def _checked_geometry(name: str, crs: CRS, feature: Feature) -> BaseGeometry:
    """Return the geometry without Z; refuse one that is not a valid polygon of the CRS."""
    shapely = require_shapely()
    if feature.geometry is None:
        raise SpecError(
            f"{name}: {feature.label} has no geometry, expected a polygon; leave it out"
        )
    if feature.geometry.geom_type not in KINDS:
        raise wrong_kind(name, feature.label, feature.geometry.geom_type)
    geometry = shapely.force_2d(feature.geometry)
    if geometry.is_empty:
        raise SpecError(
            f"{name}: {feature.label} is an empty {geometry.geom_type}, expected a polygon with "
            "an area; leave it out"
        )
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise _not_finite(name, feature.label)
    if crs.is_geographic:
        check_degrees(geometry, name, feature.label)
    if not geometry.is_valid:
        x, y = ("longitude", "latitude") if crs.is_geographic else ("x", "y")
        place = rf"\g<what> at {x} \g<x>, {y} \g<y>"
        reason = _PLACE.sub(place, shapely.is_valid_reason(geometry))
        raise SpecError(
            f"{name}: {feature.label} is not a valid polygon "
            f"({reason}), expected rings that do not cross or touch along a line; {REPAIR}"
        )
    return within_half_turn(geometry) if _in_degrees(crs) else geometry


def _in_degrees(crs: CRS) -> bool:
    return crs.is_geographic and crs.axis_info[0].unit_name == "degree"


def within_half_turn(geometry: BaseGeometry) -> BaseGeometry:
    """Return the geometry with longitudes in -180..180, cut at the antimeridian."""
    shapely = require_shapely()
    left, _, right, _ = shapely.bounds(geometry)
    if max(-left, right) <= 180 + DEGREE_TOLERANCE:
        return geometry
    pieces = []
    for part in shapely.get_parts(geometry):
        west, _, east, _ = shapely.bounds(part)
        for turn in (-360.0, 0.0, 360.0):
            shift = (turns((west + east) / 2) + turn, 0)
            moved = shapely.transform(part, lambda at, shift=shift: at - shift)
            pieces.append(moved.intersection(shapely.box(-180, -90, 180, 90)))
    return shapely.union_all([p for p in shapely.get_parts(pieces) if p.area > 0])


def check_degrees(geometry: BaseGeometry, name: str, label: str) -> None:
    """Raise `SpecError` if coordinates are not degrees, or a part is wider than half the Earth."""
    shapely = require_shapely()
    left, bottom, right, top = shapely.bounds(geometry)
    beyond_lon = max(-left, right) > MAX_LONGITUDE
    swapped = max(-left, right) <= 90 and max(-bottom, top) <= 180
    if beyond_lon or bottom < -90 - DEGREE_TOLERANCE or top > 90 + DEGREE_TOLERANCE:
        raise SpecError(
            f"{name}: {label}: got coordinates from ({left:g}, {bottom:g}) to ({right:g}, "
            f"{top:g}), expected longitudes in -180..180 or 0..360, then latitudes in -90..90; "
            f"{_SWAP if swapped else _REPROJECT}"
        )
    for part in shapely.get_parts(geometry):
        west, _, east, _ = shapely.bounds(part)
        if east - west > 180:
            fix = "crosses the meridian of Greenwich, subtract 360 from its longitudes above 180"
            if west < 0:
                fix = (
                    "crosses the antimeridian, add 360 to its negative longitudes, or split it "
                    "there into a MultiPolygon, as RFC 7946 (section 3.1.9) wants: ogr2ogr "
                    "-wrapdateline -datelineoffset 90 -t_srs EPSG:4326 out.gpkg in.gpkg"
                )
            raise SpecError(
                f"{name}: {label}: got a polygon from {west:g} to {east:g} degrees east, expected "
                f"at most half the Earth; if it {fix}"
            )


def wrong_kind(name: str, label: str, kind: object, kinds: tuple[str, ...] = KINDS) -> SpecError:
    """Return the error for a geometry of another kind."""
    return SpecError(
        f"{name}: {label}: got a geometry of type {kind!r}, expected {' or '.join(kinds)}; make "
        "polygons of it in a GIS, e.g. with a buffer, or leave it out"
    )


def _not_finite(name: str, label: str) -> SpecError:
    return SpecError(
        f"{name}: {label}: got a coordinate that is not finite, expected numbers; draw that "
        "vertex anew or leave it out"
    )
