"""The location of pixels (CRS, affine transform, shape) and their size in ground metres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.errors import GridError
from rs_embed.specs import PointBuffer, Spatial

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS, Transformer

# Up to this relative difference the nominal pixel size is used as the ground size. The scale factor
# of UTM is 0.9996 to 1.001 within a zone and up to 1.0013 on Sentinel-2 tiles that overlap the next
# one, so that a "10 m" product has a GSD of 10 m everywhere.
NOMINAL_TOLERANCE = 0.002
# Largest window that is read at once: 1.5 GB for three uint16 bands.
MAX_PIXELS = 250_000_000
# Edges closer to a lattice line than this fraction of a pixel are on it (rounding errors).
LATTICE_TOLERANCE = 1e-6
# Rotation by less than this fraction of a pixel per pixel is a rounding error.
_NO_ROTATION = 1e-9


# One turn beyond the antimeridian on either side: longitudes in 0..360, or drawn on past 180.
MAX_LONGITUDE = 540.0


@dataclass(frozen=True)
class Grid:
    """The georeference of a raster: ``transform`` maps (column, row) to coordinates of ``crs``.

    Parameters
    ----------
    crs : pyproj.CRS or None
        None if the pixels have no georeference; coordinates are then pixels of the input. Of a
        compound or three-dimensional CRS the horizontal part is kept.
    transform : affine.Affine
        Pixel to CRS, with the origin at the outer corner of the first pixel. Rotation that is a
        rounding error is removed.
    shape : tuple of int
        Height and width, pixels.

    Raises
    ------
    GridError
        If a side is shorter than one pixel or the transform is degenerate.
    """

    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise GridError(f"got a grid of shape {self.shape}, expected sides of at least 1 px")
        t = self.transform
        if not all(map(math.isfinite, (t.a, t.b, t.c, t.d, t.e, t.f))) or t.determinant == 0:
            raise GridError(f"got the degenerate transform {tuple(t)[:6]}")
        object.__setattr__(self, "transform", _without_noise(self.transform))
        object.__setattr__(self, "crs", self.crs and _horizontal(self.crs))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in CRS units."""
        height, width = self.shape
        corners = [self.transform @ (c, r) for c in (0, width) for r in (0, height)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def x(self) -> NDArray[np.float64]:
        """Centre of each column, CRS units."""
        columns = np.arange(self.shape[1], dtype=np.float64)
        return self.transform.c + self.transform.a * (columns + 0.5)

    @property
    def y(self) -> NDArray[np.float64]:
        """Centre of each row, CRS units."""
        rows = np.arange(self.shape[0], dtype=np.float64)
        return self.transform.f + self.transform.e * (rows + 0.5)

    def window(self, row: int, column: int, height: int, width: int) -> Grid:
        """Return the grid of a window on the same lattice; it may extend beyond this grid."""
        shift = Affine.translation(column, row)
        return Grid(self.crs, self.transform @ shift, (height, width))

    def enlarged(self, height: int, width: int) -> Grid:
        """Return a larger grid on the same lattice with this one at its centre.

        If the margins cannot be equal, the bottom and right ones are a pixel wider.
        """
        row, column = (height - self.shape[0]) // 2, (width - self.shape[1]) // 2
        return self.window(-row, -column, height, width)

    def resized(self, height: int, width: int) -> Grid:
        """Return a grid with the same bounds and the given shape."""
        scale = Affine.scale(self.shape[1] / width, self.shape[0] / height)
        return Grid(self.crs, self.transform @ scale, (height, width))

    def patch_grid(self, patch_size: int) -> Grid:
        """Return the grid whose cells are the patches of this one.

        Raises
        ------
        GridError
            If a side is not a multiple of ``patch_size``.
        """
        height, width = self.shape
        if height % patch_size or width % patch_size:
            raise GridError(
                f"got a grid of {height} x {width} px, expected sides that are multiples of the "
                f"patch size {patch_size}"
            )
        return self.resized(height // patch_size, width // patch_size)

    def offset_in(self, lattice: Grid) -> tuple[int, int]:
        """Return the row and column of the first pixel on ``lattice``, rounded."""
        relative = ~lattice.transform @ self.transform
        return round(relative.f), round(relative.c)

    def lies_on(self, lattice: Grid) -> bool:
        """Return whether all pixels coincide with pixels of ``lattice``, extended indefinitely."""
        if lattice.crs is not self.crs and lattice.crs != self.crs:
            return False
        relative = ~lattice.transform @ self.transform
        stretch = max(abs(relative.a - 1), abs(relative.e - 1)) * max(self.shape)
        shift = max(abs(offset - round(offset)) for offset in (relative.c, relative.f))
        return bool(max(stretch, shift, abs(relative.b), abs(relative.d)) <= LATTICE_TOLERANCE)

    def geographic_bounds(self) -> tuple[float, float, float, float]:
        """Return minimum lon and lat, then maximum lon and lat, in degrees (EPSG:4326).

        Raises
        ------
        GridError
            If the grid has no CRS.
        """
        to_degrees = transformer(_crs_of(self), "EPSG:4326")
        west, south, east, north = to_degrees.transform_bounds(*self.bounds, densify_pts=21)
        return west, south, east, north

    def to_json(self) -> dict[str, Any]:
        """Return CRS (authority code or WKT), transform (six numbers, a to f) and shape."""
        return {
            "crs": None if self.crs is None else _code_of(self.crs.srs),
            "transform": [float(v) for v in tuple(self.transform)[:6]],
            "shape": list(self.shape),
        }


def gsd_m(grid: Grid) -> float:
    """Return the ground sample distance of ``grid``: metres on the ground per pixel.

    The pixel at the centre of the grid is measured on the WGS 84 ellipsoid. If the nominal pixel
    size in metres agrees within 0.2 %, as in every UTM product, the nominal size is returned.

    Raises
    ------
    GridError
        If the grid has no CRS, is in degrees, is rotated, has coordinates that count to the west or
        south, or has pixels that are not square on the ground within 1 %.
    """
    crs = _crs_of(grid)
    transform = grid.transform
    if transform.b or transform.d or transform.a < 0:
        raise GridError(
            f"got a rotated or mirrored grid (transform {tuple(transform)[:6]}), expected rows "
            "that run east; warp it first, e.g. gdalwarp -t_srs <CRS>"
        )
    if not crs.is_projected and not crs.is_geographic:
        raise GridError(
            f"got the CRS {crs.name!r} ({crs.type_name}), expected a projected CRS; assign one"
        )
    if any(axis.direction == "west" for axis in crs.axis_info):
        names = " and ".join(axis.name.lower() for axis in crs.axis_info)
        target = metric_crs(*_centre(grid))
        raise GridError(
            f"got imagery in {crs.to_string()}, whose coordinates are {names}, expected easting "
            f"and northing: rows and columns would not lie as on the ground; reproject it, e.g. "
            f"gdalwarp -t_srs {target.to_string()} -r bilinear in.tif out.tif"
        )
    if not crs.is_projected:
        target = metric_crs(*_centre(grid))
        raise GridError(
            f"got imagery in degrees ({crs.to_string()}, {transform.a:g} per pixel), expected a "
            "projected CRS: a degree is not the same length in all directions; reproject it, e.g. "
            f"gdalwarp -t_srs {target.to_string()} -r bilinear in.tif out.tif"
        )
    across_x, across_y = _ground_pixel(grid, crs)
    if not 0.99 <= across_x / across_y <= 1.01:
        raise GridError(
            f"got pixels of {across_x:.4g} m by {across_y:.4g} m on the ground, expected square "
            "ones: the model takes one GSD for both axes; resample to square pixels first"
        )
    ground = math.sqrt(across_x * across_y)
    nominal = math.sqrt(abs(transform.determinant))
    in_metres = all(axis.unit_conversion_factor == 1 for axis in crs.axis_info)
    if in_metres and abs(nominal / ground - 1) <= NOMINAL_TOLERANCE:
        return nominal
    return ground


def _centre(grid: Grid) -> tuple[float, float]:
    """Return longitude and latitude of the middle of a grid, degrees."""
    west, south, east, north = grid.geographic_bounds()
    return (west + east) / 2, (south + north) / 2


def _without_noise(transform: Affine) -> Affine:
    t = transform
    turned = abs(t.b) + abs(t.d)
    if turned == 0 or turned > _NO_ROTATION * min(abs(t.a), abs(t.e)):
        return t
    return Affine(t.a, 0.0, t.c, 0.0, t.e, t.f)


def _horizontal(crs: CRS) -> CRS:
    """Return the horizontal part of a compound or three-dimensional CRS, others as they are."""
    return _horizontal_part(crs) if crs.is_compound or len(crs.axis_info) == 3 else crs


@lru_cache(maxsize=64)
def _horizontal_part(crs: CRS) -> CRS:
    if crs.is_compound:
        return _horizontal(crs.sub_crs_list[0])
    return crs if crs.is_geocentric else crs.to_2d()


def transformer(source: CRS | str, target: CRS | str) -> Transformer:
    """Return the transformer between two CRS; x, or longitude, comes first in both.

    Raises
    ------
    GridError
        If PROJ knows no way between them.
    """
    # pyproj makes a CRS from its text ``srs``; to hash the CRS itself takes as long as to use it.
    return _transformer(*(crs if isinstance(crs, str) else crs.srs for crs in (source, target)))


# Creating a transformer takes longer than most uses of it. It is safe to share between threads.
@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError as exc:
        raise GridError(
            f"PROJ cannot transform {source} to {target} ({exc}), expected a CRS that it can; "
            "reproject the data to another one first"
        ) from exc


def _ground_pixel(grid: Grid, crs: CRS) -> tuple[float, float]:
    """Return the width and height of the central pixel on the ellipsoid, metres."""
    from pyproj import Geod

    column, row = grid.shape[1] / 2, grid.shape[0] / 2
    # Measure three pixels: the rounding of the inverse projection then stays far below 0.01 %.
    ends = [(column - 1.5, row), (column + 1.5, row), (column, row - 1.5), (column, row + 1.5)]
    xs, ys = zip(*(grid.transform @ end for end in ends), strict=True)
    lon, lat = transformer(crs, "EPSG:4326").transform(xs, ys)
    if not np.isfinite([*lon, *lat]).all():
        raise GridError(f"the centre of {grid.bounds} is outside the area of {crs.to_string()}")
    _, _, lengths = Geod(ellps="WGS84").inv([lon[0], lon[2]], [lat[0], lat[2]], [lon[1], lon[3]],
                                            [lat[1], lat[3]])  # fmt: skip
    return lengths[0] / 3, lengths[1] / 3


def pixels_per_pixel(grid: Grid, source: Grid) -> float:
    """Return how many pixels of ``source`` fit along one pixel of ``grid``, at its centre.

    Values above 1 mean that ``grid`` is coarser. Return 1 if its centre is outside the area of the
    other CRS.

    Raises
    ------
    GridError
        If either grid has no CRS.
    """
    crs, source_crs = _crs_of(grid), _crs_of(source)
    column, row = grid.shape[1] / 2, grid.shape[0] / 2
    corners = [(column, row), (column + 1, row), (column, row + 1)]
    xs, ys = zip(*(grid.transform @ corner for corner in corners), strict=True)
    if crs != source_crs:
        xs, ys = transformer(crs, source_crs).transform(xs, ys)
    if not np.isfinite([*xs, *ys]).all():
        return 1.0
    to_pixel = ~source.transform
    (x, y), east, south = (to_pixel @ point for point in zip(xs, ys, strict=True))
    area = (east[0] - x) * (south[1] - y) - (east[1] - y) * (south[0] - x)
    return math.sqrt(abs(area))


def turns(lon: float) -> float:
    """Return the degrees to subtract from a longitude to have it in -180..180: whole turns."""
    return 360.0 * round(lon / 360) if abs(lon) <= MAX_LONGITUDE else 0.0


def metric_crs(lon: float, lat: float) -> CRS:
    """Return the CRS in which a metre near (``lon``, ``lat``) is a metre on the ground.

    From 80°S to 84°N this is UTM with its exceptions for Norway and Svalbard. Beyond, where
    distances in UPS are up to 0.6 % too short, it is a polar stereographic projection with true
    scale at the place. One metre of the CRS is one metre on the ground within 0.1 % everywhere.

    Notes
    -----
    Zones: NGA.SIG.0012 (2014), section 2-2 and the MGRS exceptions of its section 3-2, except for
    the west of zone 32V. Where 9°E is further away than the edge of a zone is from its meridian at
    the equator (west of 3.64°E at 56°N, of 3°E at 60°N; open sea), distances in zone 32 are up to
    0.13 % too long, and zone 31 is used.
    """
    from pyproj import CRS

    if lat > 84 or lat < -80:
        pole = 90 if lat > 0 else -90
        return CRS.from_proj4(
            f"+proj=stere +lat_0={pole} +lat_ts={lat:.1f} +lon_0={lon:.0f} +datum=WGS84 +units=m"
        )
    return known_crs((32600 if lat >= 0 else 32700) + _utm_zone(lon, lat))


def _utm_zone(lon: float, lat: float) -> int:
    if 56 <= lat < 64 and 3 <= lon < 12:
        # Ground distance to 9°E in degrees at the equator, where a zone extends over 3 of them.
        return 32 if (9 - lon) * math.cos(math.radians(lat)) <= 3 else 31
    if lat >= 72 and 0 <= lon < 42:
        return 31 if lon < 9 else 33 if lon < 21 else 35 if lon < 33 else 37
    return min(int((lon + 180) // 6) + 1, 60)


def roi_grid(
    spatial: Spatial, scale_m: float, crs: str | None = None, *, most_px: float = MAX_PIXELS
) -> Grid:
    """Return the grid on which a place is sampled, with pixel edges on multiples of ``scale_m``.

    Parameters
    ----------
    spatial : BBox or PointBuffer
        The place. A point becomes a square of ``round(2 * buffer_m / scale_m)`` pixels a side,
        wherever it is within a pixel; a box is snapped outward.
    scale_m : float
        Pixel size, metres of the CRS.
    crs : str or None
        CRS to use instead of :func:`metric_crs` of the centre. Sizes are then in its metres.
    most_px : float
        Maximum number of pixels.

    Raises
    ------
    GridError
        If ``crs`` is unknown or not in metres, or the place is smaller than a pixel.
    """
    target = metric_crs(*spatial.centre) if crs is None else projected_crs(crs)
    lattice = Grid(target, Affine(scale_m, 0, 0, 0, -scale_m, 0), (1, 1))
    return roi_window(lattice, spatial, scale_m, most_px=most_px)


def roi_window(
    lattice: Grid, spatial: Spatial, pixel_m: float | None = None, *, most_px: float = MAX_PIXELS
) -> Grid:
    """Return the window of ``lattice`` that covers a place; it may extend beyond the lattice.

    Parameters
    ----------
    lattice : Grid
        North-up grid whose pixel edges are kept.
    spatial : BBox or PointBuffer
        The place.
    pixel_m : float, optional
        Pixel size of ``lattice`` by which ``buffer_m`` is converted to pixels; measured on the
        ground at the place if not given.
    most_px : float
        Maximum number of pixels.

    Raises
    ------
    GridError
        If the place is smaller than a pixel, larger than ``most_px``, or outside the CRS's area.
    """
    from_geographic = transformer("EPSG:4326", _crs_of(lattice))
    to_pixel = ~lattice.transform
    column, row = to_pixel @ from_geographic.transform(*spatial.centre)
    if not math.isfinite(column) or not math.isfinite(row):
        raise GridError(f"{spatial} is outside the area of {_crs_of(lattice).to_string()}")
    if pixel_m is None:
        pixel_m = gsd_m(lattice.window(math.floor(row), math.floor(column), 1, 1))
    if isinstance(spatial, PointBuffer):
        side = round(2 * spatial.buffer_m / pixel_m)
        spans = [(_centred_start(centre, side), side) for centre in (column, row)]
    else:
        # Parallels near a pole are strongly curved: six points per degree are exact to 0.01 px.
        points = max(21, math.ceil(6 * (spatial.maxlon - spatial.minlon)))
        bounds = from_geographic.transform_bounds(
            spatial.minlon, spatial.minlat, spatial.maxlon, spatial.maxlat, densify_pts=points
        )
        if not np.isfinite(bounds).all():
            raise GridError(f"{spatial} is outside the area of the CRS")
        spans = _snapped(to_pixel, bounds)
    (left, width), (top, height) = spans
    if width < 1 or height < 1:
        raise GridError(f"{spatial} is smaller than one pixel of {pixel_m:g} m; enlarge it")
    if width * height > most_px:
        # As many parts of each side that square parts are small enough.
        down, across = (
            max(1, math.ceil(side / math.isqrt(MAX_PIXELS))) for side in (height, width)
        )
        raise GridError(
            f"{spatial} is {height:,.0f} x {width:,.0f} px of {pixel_m:g} m, expected at most "
            f"{most_px:,} px; split it into at least {down} x {across} places of one batch, or use "
            "larger pixels"
        )
    return lattice.window(top, left, height, width)


def bounds_window(lattice: Grid, bounds: tuple[float, float, float, float]) -> Grid:
    """Return the window of a north-up ``lattice`` that covers ``bounds``, snapped outward.

    ``bounds`` are left, bottom, right, top, CRS units.
    """
    (left, width), (top, height) = _snapped(~lattice.transform, bounds)
    return lattice.window(top, left, max(height, 1), max(width, 1))


def _centred_start(centre: float, side: int) -> int:
    """Return the first pixel of ``side`` pixels around ``centre``.

    An even number is centred on the nearest pixel edge, an odd one on the nearest pixel centre,
    so the size does not depend on the position of the point within a pixel.
    """
    if side % 2:
        return math.floor(centre) - side // 2
    return math.floor(centre + 0.5) - side // 2


def _snapped(to_pixel: Affine, bounds: tuple[float, float, float, float]) -> list[tuple[int, int]]:
    """Return the first pixel and the number of pixels along x and y, snapped outward."""
    left, bottom, right, top = bounds
    columns, rows = zip(to_pixel @ (left, top), to_pixel @ (right, bottom), strict=True)
    spans = []
    for low, high in (columns, rows):
        first = math.floor(low + LATTICE_TOLERANCE)
        spans.append((first, math.ceil(high - LATTICE_TOLERANCE) - first))
    return spans


def _crs_of(grid: Grid) -> CRS:
    if grid.crs is None:
        raise GridError("the pixels have no CRS, so their location and size are unknown")
    return grid.crs


def known_crs(crs: Any) -> CRS:
    """Return the CRS given by a code, WKT, EPSG number, or an object of another library.

    Raises
    ------
    GridError
        If PROJ does not recognise it.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return _named(crs) if isinstance(crs, int | str) else CRS.from_user_input(crs)
    except CRSError as exc:
        raise GridError(f"got crs={crs!r}, expected a known CRS such as 'EPSG:32633'") from exc


@lru_cache(maxsize=64)
def _named(name: int | str) -> CRS:
    from pyproj import CRS

    return CRS.from_user_input(name)


@lru_cache(maxsize=64)
def _code_of(srs: str) -> str:
    return _named(srs).to_string()


def ground_crs(crs: Any) -> CRS:
    """Return a CRS, as `known_crs` does, that must be geographic or projected.

    Raises
    ------
    GridError
        If PROJ does not recognise it, or it is vertical, geocentric or local.
    """
    known = known_crs(crs)
    if not (known.is_geographic or known.is_projected):
        raise GridError(
            f"got crs={known.to_string()!r:.100} ({known.name}, {known.type_name}), expected a "
            "geographic or projected CRS such as 'EPSG:4326' or 'EPSG:32633'"
        )
    return known


def projected_crs(text: str) -> CRS:
    """Return the projected CRS in metres with the given name.

    Raises
    ------
    GridError
        If it is unknown, not projected, or not in metres.
    """
    crs = known_crs(text)
    if not crs.is_projected or any(axis.unit_conversion_factor != 1 for axis in crs.axis_info):
        raise GridError(
            f"got crs={text!r} ({crs.name}), expected a projected CRS in metres; omit crs to use "
            "the UTM zone of the place"
        )
    return crs
