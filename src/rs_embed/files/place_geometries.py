"""Geometries in any CRS as places: checked, in longitude and latitude."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import CoverageWarning, Note, SpecError, some
from rs_embed.files.columns import numbers_of
from rs_embed.files.places import point_of
from rs_embed.files.polygons import REPAIR, check_degrees, within_half_turn, wrong_kind
from rs_embed.geo.grid import ground_crs, known_crs, transformer, turns
from rs_embed.geo.polygons import KINDS, Polygons, metres_per_unit, require_shapely
from rs_embed.specs import BBox, PointBuffer, Spatial

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS

PLACE_KINDS = ("Point", *KINDS)
# The edges of polygons are straight in their own CRS: those of this length miss by 2 cm in degrees.
_EDGE_M = 1000


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as read: attributes, and the places where neither geometry nor columns state them."""

    name: str
    table: Any
    where: Callable[[int], str] = "row {}".format
    own: Sequence[Any] | None = None
    header: Sequence[str] | None = None
    rows: Iterable[Sequence[Any]] = ()
    spatials: list[Spatial] | None = None
    imageries: list[str] | None = None


def spatials_of_geometries(
    given: Rows, buffer_m: float | None
) -> tuple[list[Spatial], list[Any], list[Note]]:
    """Return the places of geometries, and the polygons among them in degrees."""
    shapely = require_shapely()
    try:
        geometry, crs = given.table.geometry, given.table.crs
    except AttributeError as exc:
        raise SpecError(f"{given.name}: has no geometry column; set it with set_geometry") from exc
    if crs is None:
        raise SpecError(
            f"{given.name}: states no CRS, so its place is unknown; state the one it was drawn in, "
            "e.g. frame.set_crs('EPSG:4326') for longitude and latitude"
        )
    shapes = shapely.force_2d(np.array(geometry, dtype=object))
    single = (shapely.get_type_id(shapes) == 4) & (shapely.get_num_geometries(shapes) == 1)
    shapes[single] = shapely.get_geometry(shapes[single], 0)
    _check(shapes, given)
    shapes = _in_degrees(shapes, ground_crs(crs), given)
    sizes = numbers_of(given.table, "buffer_m") or [None] * len(shapes)
    spatials: list[Spatial] = []
    crossing = []
    bounds = shapely.bounds(shapes).tolist()
    points = (shapely.get_dimensions(shapes) == 0).tolist()
    number = 0
    try:
        for number, (corners, is_point, size) in enumerate(zip(bounds, points, sizes, strict=True)):
            west, south, east, north = corners
            if is_point:
                spatials.append(point_of(west, south, buffer_m if size is None else size))
            elif size is not None:
                raise SpecError(  # noqa: TRY301
                    f"got buffer_m={size!r} for a polygon, which has its own size; leave it empty"
                )
            elif east - west > 180:
                spatials.append(_square(shapes[number], given.where(number)))
                crossing.append(given.where(number))
            else:
                box = max(west, -180.0), max(south, -90.0), min(east, 180.0), min(north, 90.0)
                spatials.append(BBox(*box))
    except SpecError as exc:
        raise SpecError(f"{given.name}: {given.where(number)}: {exc}") from exc
    message = (
        f"{given.name}: {some(crossing)} {'cross' if len(crossing) > 1 else 'crosses'} the "
        "antimeridian, so the square around it is embedded instead of its bounding box"
    )
    notes = [Note(message, CoverageWarning)] if crossing else []
    shapes[points] = None
    return spatials, shapes.tolist(), notes


def _check(shapes: NDArray[Any], given: Rows) -> None:
    """Raise `SpecError` for geometries that are not points or polygons, with the first rows."""
    shapely = require_shapely()
    kinds = shapely.get_type_id(shapes)
    infinite = ~np.isfinite(shapely.bounds(shapes)).all(axis=1)
    for bad, what in (
        (shapely.is_missing(shapes), "no geometry, expected a point or polygon; leave it out"),
        (shapely.is_empty(shapes), "an empty geometry, expected a point or polygon; leave it out"),
        (~np.isin(kinds, (0, 3, 6)), ""),
        (infinite, "a coordinate that is not finite, expected numbers"),
        (~shapely.is_valid(shapes), "an invalid polygon ({}), expected rings that do not cross; "
         f"{REPAIR}"),
    ):  # fmt: skip
        if not bad.any():
            continue
        rows = np.flatnonzero(bad).tolist()
        first = shapes[rows[0]]
        if not what:
            raise wrong_kind(given.name, given.where(rows[0]), first.geom_type, PLACE_KINDS)
        reason = shapely.is_valid_reason(first) if first is not None else ""
        names = some([given.where(row) for row in rows])
        raise SpecError(f"{given.name}: {names}: got {what.format(reason)}")


def _in_degrees(shapes: NDArray[Any], crs: CRS, given: Rows) -> NDArray[Any]:
    """Return geometries in longitude and latitude, within -180..180."""
    shapely = require_shapely()
    target = known_crs("EPSG:4326")
    if not crs.is_geographic:
        areas = shapely.get_dimensions(shapes) == 2
        shapes[areas] = shapely.segmentize(shapes[areas], _EDGE_M / metres_per_unit(crs))
    if not crs.equals(target, ignore_axis_order=True):
        to_degrees = transformer(crs, target)
        shapes = shapely.transform(
            shapes, lambda at: np.stack(to_degrees.transform(at[:, 0], at[:, 1]), axis=1)
        )
    west, south, east, north = shapely.bounds(shapes).T
    outside = ~np.isfinite(west + south + east + north)
    if outside.any():
        names = some([given.where(row) for row in np.flatnonzero(outside).tolist()])
        raise SpecError(f"{given.name}: {names}: is outside the area of {crs.to_string():.100}")
    wide = east - west > 180
    if not crs.is_geographic:  # what is short in metres crosses the antimeridian
        shapes[wide] = shapely.transform(
            shapes[wide], lambda at: np.stack([at[:, 0] % 360, at[:, 1]], axis=1)
        )
    doubtful = wide | (np.maximum(-west, east) > 180) | (np.maximum(-south, north) > 90)
    for row in np.flatnonzero(doubtful).tolist():
        check_degrees(shapes[row], given.name, given.where(row))
        if shapes[row].geom_type == "Point":
            x, y = shapes[row].x, shapes[row].y
            shapes[row] = shapely.Point(x - turns(x), y)
        else:
            shapes[row] = within_half_turn(shapes[row])
    return shapes


def _square(shape: Any, name: str) -> PointBuffer:
    """Return a square around a polygon that crosses the antimeridian."""
    crs = known_crs("EPSG:4326")
    west, south, east, north = Polygons((shape,), ("0",), crs, name).geographic_bounds()
    width = east - west + (360 if west > east else 0)
    if width > 180:
        raise SpecError(
            f"got a polygon from {west:g} to {east:g} degrees east, expected at most half the Earth"
        )
    nearest = 0.0 if south < 0 < north else min(abs(south), abs(north))
    metres = metres_per_unit(crs) * max(width * math.cos(math.radians(nearest)), north - south)
    lon = west + width / 2
    # A little more: grid north is not north, and the ellipsoid is not a sphere.
    return PointBuffer(lon - turns(lon), (south + north) / 2, 0.53 * metres)
