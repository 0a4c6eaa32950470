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


def browser_crs(grid: Grid) -> dict[str, str]:
    """Return ``crs``, its code or WKT, and ``proj4``, a PROJ string.

    The string has the shift of the datum at the centre of the grid (``+towgs84``): without it a
    CRS of a national datum is drawn up to some hundred metres away.
    """
    crs = known_crs(grid.crs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that PROJ strings say less than WKT
        text = crs.to_proj4().removesuffix(" +type=crs")
    shift = _shift(crs, grid)
    if "+towgs84" not in text and np.abs(shift).max() > 0.05:
        text = f"{text} +towgs84={','.join(f'{value:.3f}' for value in shift)}"
    return {"crs": crs.to_string(), "proj4": text}


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
