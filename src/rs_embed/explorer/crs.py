"""The CRS of a grid in the terms of browsers, which know no registry of datums."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.geo.grid import Grid, known_crs, transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS

_WGS84 = "EPSG:4326"
# The first is what ArcGIS cites; it has no shift of the datum. GDAL reads both, up to a length.
_FILE_WKTS = ("WKT1_ESRI", "WKT1_GDAL")
_MOST_WKT = 2_000
_NEAR_DEG = 1e-6


def browser_crs(grid: Grid) -> dict[str, str | None]:
    """Return ``crs``, its code or definition, ``proj4``, a PROJ string, and ``wkt``.

    The string has the shift of the datum at the centre of the grid (``+towgs84``): without it a
    CRS of a national datum is drawn up to some hundred metres away. ``wkt`` is for the GeoTIFFs
    that the page writes, where the CRS has no code of EPSG.
    """
    crs = known_crs(grid.crs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that PROJ strings say less than WKT
        text = crs.to_proj4().removesuffix(" +type=crs")
    shift = _shift(crs, grid)
    if "+towgs84" not in text and np.abs(shift).max() > 0.05:
        text = f"{text} +towgs84={','.join(f'{value:.3f}' for value in shift)}"
    code = crs.to_string()
    wkt = None if code.removeprefix("EPSG:").isdigit() else _file_wkt(crs, grid)
    return {"crs": code, "proj4": text, "wkt": wkt}


def _file_wkt(crs: CRS, grid: Grid) -> str | None:
    """Return WKT 1 that a GeoTIFF can cite, if it places the grid within a decimetre."""
    from pyproj.exceptions import CRSError

    for version in _FILE_WKTS:
        try:
            text = crs.to_wkt(version)
        except CRSError:
            continue
        if len(text) <= _MOST_WKT and "|" not in text and _same_places(crs, text, grid):
            return text
    return None


def _same_places(crs: CRS, other: str, grid: Grid) -> bool:
    """Return whether two CRS place the corners of a grid within a decimetre."""
    height, width = grid.shape
    for corner in ((0, 0), (width, 0), (0, height), (width, height)):
        x, y = grid.transform @ corner
        here, there = (transformer(one, _WGS84).transform(x, y) for one in (crs, other))
        if not np.abs(np.subtract(here, there)).max() < _NEAR_DEG:  # infinity is far, too
            return False
    return True


def _shift(crs: CRS, grid: Grid) -> NDArray[np.float64]:
    """Return x, y, z of WGS 84 minus those of the own datum, metres from the Earth's centre."""
    own = known_crs(crs.geodetic_crs)
    x, y = grid.transform @ (grid.shape[1] / 2, grid.shape[0] / 2)
    here, there = (transformer(crs, to).transform(x, y) for to in (own, _WGS84))
    shift: NDArray[np.float64] = _geocentric(there, known_crs(_WGS84)) - _geocentric(here, own)
    return shift


def _geocentric(at: tuple[float, float], crs: CRS) -> NDArray[np.float64]:
    """Return x, y, z of a point of longitude and latitude on the ellipsoid of a CRS."""
    lon, lat = map(math.radians, at)
    ellipsoid: Any = crs.ellipsoid
    axis, minor = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
    ratio = (minor / axis) ** 2
    normal = axis / math.sqrt(1 - (1 - ratio) * math.sin(lat) ** 2)
    flat = normal * math.cos(lat)
    return np.array([flat * math.cos(lon), flat * math.sin(lon), ratio * normal * math.sin(lat)])
