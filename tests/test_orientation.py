"""Where a grid is on the ground, compared with the factors of its projection from PROJ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from pyproj import Proj

from rs_embed.embedding.drawing import NORTH_UP_DEG, scale_bar
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.orientation import Orientation

# CRS, easting and northing of the corner.
PLACES = [
    (32618, 445000, 4172000),
    (32618, 200000, 6900000),
    (32718, 700000, 7500000),
    (3857, -8417000, 4536000),
    (3413, 1200000, -900000),
    (3031, -1500000, 800000),
    (2056, 2700000, 1200000),
]


@pytest.mark.parametrize("turn_deg", [0.0, 20.0, -70.0])
@pytest.mark.parametrize(("epsg", "x", "y"), PLACES)
def test_north_and_scale_are_those_of_proj(epsg: int, x: float, y: float, turn_deg: float) -> None:
    transform = Affine.translation(x, y) @ Affine.rotation(turn_deg) @ Affine.scale(100, -100)
    grid = Grid(known_crs(epsg), transform, (40, 60))
    found = Orientation.of(grid)
    assert found is not None
    factors = Proj(known_crs(epsg)).get_factors(found.lon, found.lat)
    # True north is the convergence to the left of grid north, which the rotation turns right.
    expected = turn_deg - factors.meridian_convergence
    assert math.remainder(found.north_deg - expected, 360) == pytest.approx(0, abs=0.02)
    assert found.cell_m == pytest.approx(100 / factors.meridional_scale, rel=0.01)


def test_without_a_place_it_is_unknown() -> None:
    assert Orientation.of(Grid(None, Affine.scale(1, -1), (4, 4))) is None
    outside = Grid(known_crs(32618), Affine(1e9, 0, 1e9, 0, -1e9, 1e9), (4, 4))
    assert Orientation.of(outside) is None


@pytest.mark.parametrize(("metres", "length"), [(10, 100), (1, 100), (33, 151.5), (0.3, 167)])
def test_a_scale_bar_is_as_long_as_it_says(metres: float, length: float) -> None:
    bar = np.asarray(scale_bar(metres, 512, 16).convert("L"))
    middle = bar[bar.shape[0] // 2]
    dark = int(np.argmax(middle > 128))  # the label comes after a gap
    assert dark == pytest.approx(length, abs=2)
    assert bar.shape[0] < np.asarray(scale_bar(metres, 512, 16, NORTH_UP_DEG + 1)).shape[0]
