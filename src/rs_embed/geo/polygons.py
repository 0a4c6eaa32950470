"""Areas drawn as polygons: in another CRS, and on the cells of grids."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed._optional import require
from rs_embed.errors import GridError, SpecError, some
from rs_embed.geo.grid import LATTICE_TOLERANCE, Grid, ground_crs, known_crs, transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS, Transformer
    from shapely.geometry.base import BaseGeometry

# Largest error of edges in another CRS: far below any pixel.
EDGE_TOLERANCE_M = 0.01
# The shores of Natural Earth end at 180.00000000000006 degrees.
DEGREE_TOLERANCE = 1e-6
KINDS = ("Polygon", "MultiPolygon")
_EARTH_RADIUS_M = 6_371_000
# Edges are first cut to this length: shorter than any bend of a projection.
_LONGEST_SEGMENT_M = 100_000
_MAX_VERTICES = 10_000_000
# Crossings of cell edges that are computed at once: some 100 MB of working arrays.
_MAX_CROSSINGS = 1_000_000


@dataclass(frozen=True)
class Polygons:
    """Polygons in one CRS; :func:`rs_embed.files.polygons.read_polygons` makes and checks them.

    Attributes
    ----------
    geometries : tuple of shapely.Polygon or shapely.MultiPolygon
        One per feature, x and y in units of ``crs``, valid and not empty; they may overlap.
    ids : tuple of str
        Id of each feature, for messages and results; not always unique.
    crs : pyproj.CRS
        CRS of the coordinates, always x (longitude, easting) first.
    name : str
        Their source: the file, or the type of the object.
    integer_ids : bool
        True if the ids are integers in the source.

    Raises
    ------
    SpecError
        If a geometry is empty.
    GridError
        If the CRS is neither geographic nor projected.
    """

    geometries: tuple[BaseGeometry, ...]
    ids: tuple[str, ...]
    crs: CRS
    name: str
    integer_ids: bool = False

    def __post_init__(self) -> None:
        ground_crs(self.crs)
        empty = [i for i, g in zip(self.ids, self.geometries, strict=True) if g.is_empty]
        if empty:
            raise SpecError(
                f"{self.name}: got empty geometries (ids {some(empty, 5)}), expected polygons; "
                "leave them out"
            )

    @property
    def _array(self) -> NDArray[Any]:
        return np.array(self.geometries, dtype=object)

    def typed_ids(self) -> list[int] | list[str]:
        """Return the ids as in the source: integers of 64 bits, or text."""
        fits = self.integer_ids and all(-(2**63) <= int(i) < 2**63 for i in self.ids)
        return [int(i) for i in self.ids] if fits else list(self.ids)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in CRS units."""
        left, bottom, right, top = require_shapely().total_bounds(self._array)
        return float(left), float(bottom), float(right), float(top)

    def geographic_bounds(self) -> tuple[float, float, float, float]:
        """Return west, south, east, north in degrees (EPSG:4326).

        The narrowest box around all polygons. If it crosses the antimeridian, west is greater
        than east, as in RFC 7946, section 5.2.

        Raises
        ------
        GridError
            If they are outside the area of the CRS.
        """
        shapely = require_shapely()
        degrees = known_crs("EPSG:4326")
        to_degrees = transformer(self.crs, degrees)
        spans: list[tuple[float, float]] = []
        lats: list[float] = []
        # The outer ring of every part; holes are within it.
        for ring in shapely.get_exterior_ring(shapely.get_parts(self._array)):
            lon, lat = _drawn(shapely.get_coordinates(ring), to_degrees, self, degrees).T
            unwrapped = np.unwrap(lon, period=360)
            spans.append((float(unwrapped.min()), float(unwrapped.max())))
            lats += [float(lat.min()), float(lat.max())]
        if not self.crs.is_geographic:
            from_degrees = transformer(degrees, self.crs)
            for pole in (-90.0, 90.0):
                x, y = from_degrees.transform(0.0, pole)
                if np.isfinite([x, y]).all():
                    inside = shapely.intersects_xy(self._array, x, y)
                    lats += [pole] * bool(inside.any())
                    spans += [(-180.0, 180.0)] * bool(inside.any())
        west, east = narrowest(*np.array(spans).T)
        return west, max(min(lats), -90.0), east, min(max(lats), 90.0)

    def to_crs(self, crs: CRS | str) -> Polygons:
        """Return the polygons in another CRS, with their edges in the same place.

        An edge is straight in the CRS it was drawn in. Vertices are added until the edges in
        ``crs`` are within 1 cm on the ground of the true ones. Edges that are closer to each other
        than that may then cross; such a crossing is resolved.

        Raises
        ------
        GridError
            If ``crs`` is unknown, or neither geographic nor projected, or the polygons are outside
            its area, or one of them is so narrow (about a nanometre) that rounding removes it.
        """
        target = ground_crs(crs)
        if target == self.crs:
            return self
        shapely = require_shapely()
        to_target = transformer(self.crs, target)

        def drawn(geometry: BaseGeometry) -> BaseGeometry:
            polygons = []
            for part in shapely.get_parts(geometry):
                rings = [
                    _drawn(shapely.get_coordinates(ring), to_target, self, target)
                    for ring in (part.exterior, *part.interiors)
                ]
                if target.is_geographic and (np.abs(np.diff(rings[0][:, 0])) > 180).any():
                    raise GridError(
                        f"{self.name} crosses the antimeridian or holds a pole, so that it is not "
                        f"a polygon in {target.to_string()}; split it there"
                    )
                polygons.append(shapely.Polygon(rings[0], rings[1:]))
            whole = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
            return whole if whole.is_valid else self._unfolded(whole, target)

        moved = tuple(drawn(geometry) for geometry in self.geometries)
        lost = [i for i, geometry in zip(self.ids, moved, strict=True) if geometry.is_empty]
        if lost:
            raise GridError(
                f"{self.name}: rounding to {target.to_string()} leaves no area of the polygons "
                f"with ids {some(lost)}, expected wider ones than a nanometre; leave them out"
            )
        return Polygons(moved, self.ids, target, self.name)

    def _unfolded(self, folded: BaseGeometry, target: CRS) -> BaseGeometry:
        """Return the area without crossings of the size of the tolerance, or refuse larger ones."""
        shapely = require_shapely()
        repaired = shapely.make_valid(folded, method="structure", keep_collapsed=False)
        slack = 10 * folded.length * EDGE_TOLERANCE_M / metres_per_unit(target)
        if repaired.geom_type not in KINDS or abs(repaired.area - folded.area) > slack:
            raise GridError(
                f"{self.name} folds onto itself in {target.to_string()}, so it is at the edge of "
                "the area of that CRS or beyond; choose a CRS for the place"
            )
        return repaired

    def in_cells(self, grid: Grid) -> tuple[BaseGeometry, ...]:
        """Return the geometries in columns (x) and rows (y, downward) of a grid.

        A cell is a square of side 1, the first one from (0, 0) to (1, 1). Vertices that miss an
        edge between cells by less than a millionth of a cell are put on it. A part that collapses
        to a line by that is left out; if all of a polygon does, it stays as it is.

        Raises
        ------
        GridError
            If the grid has no CRS, or the polygons are outside its area.
        """
        crs, to_cell = _crs_of(grid), ~grid.transform

        def placed(at: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack(to_cell @ (at[:, 0], at[:, 1]), axis=1)

        def snapped(cells: NDArray[np.float64]) -> NDArray[np.float64]:
            lines = np.round(cells)
            return np.where(np.abs(cells - lines) <= LATTICE_TOLERANCE, lines, cells)

        shapely = require_shapely()
        exact = shapely.transform(np.array(self.to_crs(crs).geometries, dtype=object), placed)
        shapes = shapely.transform(exact, snapped)
        bad = ~shapely.is_valid(shapes)
        shapes[bad] = shapely.make_valid(shapes[bad], method="structure", keep_collapsed=False)
        return tuple(np.where(shapely.area(shapes) > 0, shapes, exact))

    def meets(self, grid: Grid) -> bool:
        """Return whether a polygon shares area with the rectangle of a grid.

        Also False if the polygons are outside the area of the CRS of the grid.

        Raises
        ------
        GridError
            If the grid has no CRS.
        """
        shapely = require_shapely()
        _crs_of(grid)
        try:
            shapes = np.array(self.in_cells(grid), dtype=object)
        except GridError:
            return False
        within = shapely.clip_by_rect(shapes, 0, 0, grid.shape[1], grid.shape[0])
        return bool((shapely.area(within) > 0).any())

    def order_hint(self, grid: Grid) -> str:
        """Return a hint for the message that polygons are outside a grid of a map or of imagery.

        Returns
        -------
        str
            Text that begins with ``"; "`` if they are in degrees and would be on the grid with
            longitude and latitude swapped; else empty.
        """
        shapely = require_shapely()
        if not self.crs.is_geographic:
            return ""
        left, bottom, right, top = self.bounds
        if min(left, bottom) < -90 or max(right, top) > 90:
            return ""  # no latitudes
        turned = tuple(shapely.transform(g, lambda at: at[:, ::-1]) for g in self.geometries)
        if not Polygons(turned, self.ids, self.crs, self.name).meets(grid):
            return ""
        return (
            "; with longitude and latitude swapped they would be there: put longitude first, "
            "then latitude"
        )

    def touched(self, grid: Grid) -> NDArray[np.bool_]:
        """Return which cells of a grid share area with a polygon.

        Parameters
        ----------
        grid : Grid
            Any grid with a CRS; the polygons are brought to it with :meth:`to_crs`.

        Returns
        -------
        numpy.ndarray
            Boolean, of ``grid.shape``. True where a polygon covers some of the cell, even only a
            corner; False where they share just an edge, a point, or a strip narrower than a
            millionth of a cell.

        Raises
        ------
        GridError
            If the grid has no CRS, or the polygons are outside its area.
        """
        from rasterio.features import rasterize

        shapely = require_shapely()
        in_cells = self.in_cells(grid)
        # A cell shares area with a polygon if its boundary runs through the cell, or if no
        # boundary does and its centre is inside.
        rings = shapely.get_rings(shapely.get_parts(np.array(in_cells, dtype=object)))
        lines = [shapely.get_coordinates(ring) for ring in rings]
        starts = np.concatenate([line[:-1] for line in lines])
        ends = np.concatenate([line[1:] for line in lines])
        touched = _crossed(starts, ends, grid.shape)
        window = shapely.box(-1, -1, grid.shape[1] + 1, grid.shape[0] + 1)
        near = [geometry for geometry in in_cells if shapely.intersects(geometry, window)]
        if near:
            # rasterio takes the identity for "no georeferencing", so both are shifted.
            shift = Affine.translation(1, 1)
            shifted = [shapely.transform(geometry, lambda at: at + 1) for geometry in near]
            touched |= rasterize(shifted, grid.shape, transform=shift, dtype="uint8").astype(bool)
        return touched

    def identity(self) -> str:
        """Return a SHA-256 (hexadecimal) of the area and its CRS.

        It does not depend on the order of features, parts, rings and start points, on whether
        features have one part or several, or on their ids.
        """
        shapely = require_shapely()
        parts = shapely.normalize(shapely.get_parts(self._array))
        digest = hashlib.sha256(self.crs.to_string().encode())
        for content in sorted(shapely.to_wkb(parts, output_dimension=2, byte_order=1)):
            digest.update(content)
        return digest.hexdigest()


def _crs_of(grid: Grid) -> CRS:
    if grid.crs is None:
        raise GridError("got a grid without CRS, expected one with a CRS to place the polygons in")
    return grid.crs


def require_shapely() -> Any:
    """Return the module, or raise `MissingDependencyError`."""
    return require("shapely", extra="maps", purpose="an area drawn as polygons")


def metres_per_unit(crs: CRS) -> float:
    """Return the approximate metres on the ground of one unit of the CRS."""
    if crs.is_geographic:
        return math.radians(1) * _EARTH_RADIUS_M
    return crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0


def _drawn(line: NDArray[np.float64], to_target: Transformer, of: Polygons, target: CRS) -> Any:
    """Return ``(n, 2)`` positions of a line in another CRS, with vertices added where it bends.

    The gap between an arc and its chord shrinks with the square of the chord, so a segment that
    misses by ``k`` tolerances is cut into ``sqrt(k)`` parts; a few rounds settle it.
    """
    tolerance = EDGE_TOLERANCE_M / metres_per_unit(target)
    turn = 360.0 if target.is_geographic else None
    longest = _LONGEST_SEGMENT_M / metres_per_unit(of.crs)
    lengths = np.hypot(*np.diff(line, axis=0).T)
    line = _subdivided(line, np.maximum(1, np.ceil(lengths / longest)).astype(np.int64))
    for _ in range(5):
        vertices = _transformed(line, to_target, of, target)
        parts = np.ones(len(line) - 1)
        for share in (0.25, 0.5, 0.75):
            inner = line[:-1] + share * np.diff(line, axis=0)
            between = _transformed(inner, to_target, of, target)
            steps, gap = np.diff(vertices, axis=0), between - vertices[:-1]
            if turn:  # positions on either side of the antimeridian are near each other
                for offset in (steps, gap):
                    offset[:, 0] = (offset[:, 0] + turn / 2) % turn - turn / 2
            missed = np.hypot(*(gap - share * steps).T) / tolerance
            parts = np.maximum(parts, np.ceil(np.sqrt(missed)))
        if (parts == 1).all():
            return vertices
        if parts.sum() > _MAX_VERTICES:
            break
        line = _subdivided(line, parts.astype(np.int64))
    raise GridError(
        f"{of.name} cannot be drawn in {target.to_string()}: its edges are not continuous "
        "there; choose a CRS for the place"
    )


def _subdivided(line: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the line with each segment cut into its number of equal parts."""
    segment = np.repeat(np.arange(len(parts)), parts)
    share = (np.arange(len(segment)) - np.repeat(np.cumsum(parts) - parts, parts)) / parts[segment]
    inner = line[segment] + share[:, None] * (line[segment + 1] - line[segment])
    return np.concatenate([inner, line[-1:]])


def _transformed(at: NDArray[np.float64], to_target: Transformer, of: Polygons, target: CRS) -> Any:
    target_at = np.stack(to_target.transform(at[:, 0], at[:, 1]), axis=1)
    if not np.isfinite(target_at).all():
        lost = at[~np.isfinite(target_at).all(axis=1)][0]
        raise GridError(
            f"{of.name} is outside the area of {target.to_string()}: "
            f"({lost[0]:.10g}, {lost[1]:.10g}) has no place there; choose a CRS for the place"
        )
    return target_at


def narrowest(west: NDArray[np.float64], east: NDArray[np.float64]) -> tuple[float, float]:
    """Return west and east of the shortest arc that holds all spans of longitude."""
    if (east - west >= 360 - DEGREE_TOLERANCE).any():
        return -180.0, 180.0
    starts = (west + 180) % 360 - 180
    ends = starts + (east - west)
    over = ends > 180
    starts = np.concatenate([starts, np.full(np.count_nonzero(over), -180.0)])
    ends = np.concatenate([np.minimum(ends, 180), ends[over] - 360])
    order = np.argsort(starts)
    starts, reached = starts[order], np.maximum.accumulate(ends[order])
    gaps = starts - np.append(reached[-1] - 360, reached[:-1])  # before each start
    widest = int(gaps.argmax())
    return float(starts[widest]), float(reached[widest - 1])


def _crossed(
    starts: NDArray[np.float64], ends: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the cells whose interior a segment crosses; positions are columns and rows."""
    touched = np.zeros(shape, dtype=np.bool_)
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    size = np.array(shape[::-1], dtype=np.float64)
    near = ((high >= 0) & (low <= size)).all(axis=1)
    starts, ends, low, high = starts[near], ends[near], low[near], high[near]
    # Lines between cells that each segment meets, columns and rows, within the grid.
    first = np.clip(np.ceil(low), 0, size).astype(np.int64)
    last = np.clip(np.floor(high), 0, size).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    counts[ends == starts] = 0
    reach = np.cumsum(counts.sum(axis=1) + 2)
    chunks = np.flatnonzero(np.diff(reach // _MAX_CROSSINGS)) + 1
    for chunk in np.split(np.arange(len(reach)), chunks):
        _mark(starts[chunk], ends[chunk], first[chunk], counts[chunk], touched)
    return touched


def _mark(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
    touched: NDArray[np.bool_],
) -> None:
    """Mark the cells of the pieces into which the lines between cells cut each segment."""
    steps, number = ends - starts, np.arange(len(starts))
    segments, shares = [number, number], [np.zeros(len(starts)), np.ones(len(starts))]
    for axis in (0, 1):
        count = counts[:, axis]
        segment = np.repeat(number, count)
        line = first[segment, axis] + np.arange(len(segment))
        line = line - np.repeat(np.cumsum(count) - count, count)
        segments.append(segment)
        shares.append((line - starts[segment, axis]) / steps[segment, axis])
    segment, share = np.concatenate(segments), np.concatenate(shares)
    order = np.lexsort((share, segment))
    segment, share = segment[order], share[order]
    is_crossing = order >= 2 * len(starts)
    length = np.hypot(*steps[segment[:-1]].T) * np.diff(share)
    # Where a segment passes a corner between cells, rounding leaves a piece of no length.
    noise = is_crossing[:-1] & is_crossing[1:] & (length <= LATTICE_TOLERANCE)
    kept = (segment[1:] == segment[:-1]) & (length > 0) & ~noise
    segment, middle = segment[:-1][kept], (share[:-1][kept] + share[1:][kept]) / 2
    at = starts[segment] + middle[:, None] * steps[segment]
    cell = np.floor(at)
    along_line = ((steps[segment] == 0) & (at == cell)).any(axis=1)
    inside = ((cell >= 0) & (cell < touched.shape[::-1])).all(axis=1) & ~along_line
    column, row = cell[inside].astype(np.int64).T
    touched[row, column] = True
