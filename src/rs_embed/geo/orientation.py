"""How a grid is on the ground: where its middle is, how wide its cells are, and where north is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rs_embed.errors import GridError
from rs_embed.geo.grid import Grid, transformer

_STEP_DEG = 1e-4  # about 11 m: far above the rounding of projections, far below their curvature


@dataclass(frozen=True)
class Orientation:
    """The middle of a grid on the ground.

    Attributes
    ----------
    lon, lat : float
        The middle, degrees.
    cell_m : float
        Width of the central cell on the WGS 84 ellipsoid, metres.
    north_deg : float
        Direction of true north from the top of the picture, clockwise, -180..180.
    """

    lon: float
    lat: float
    cell_m: float
    north_deg: float

    @classmethod
    def of(cls, grid: Grid) -> Orientation | None:
        """Return that of a grid, None if it has no CRS or is outside the area of its CRS."""
        from pyproj import Geod

        if grid.crs is None:
            return None
        row, column = (side / 2 for side in grid.shape)
        xs, ys = zip(*(grid.transform @ (column + d, row) for d in (0, -0.5, 0.5)), strict=True)
        try:
            to_degrees = transformer(grid.crs, "EPSG:4326")
        except GridError:
            return None
        (lon, west, east), (lat, south, north) = to_degrees.transform(xs, ys)
        _, _, cell_m = Geod(ellps="WGS84").inv(west, south, east, north)
        step = _STEP_DEG if lat < 89 else -_STEP_DEG
        ahead = to_degrees.transform(lon, lat + step, direction="INVERSE")
        to_x, to_y = ~grid.transform @ ahead
        across, down = ((to - at) * step for to, at in ((to_x, column), (to_y, row)))
        north_deg = math.degrees(math.atan2(across, -down))
        known = lon, lat, cell_m, north_deg
        return cls(*known) if np.isfinite(known).all() else None
