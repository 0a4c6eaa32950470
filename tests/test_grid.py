"""Grids, their ground sample distance, and the window of a place."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Proj, Transformer

from rs_embed.errors import GridError
from rs_embed.geo.grid import Grid, gsd_m, metric_crs, roi_grid, roi_window
from rs_embed.specs import BBox, PointBuffer

GEOD = Geod(ellps="WGS84")


def near(values: st.SearchStrategy[float], within: float) -> st.SearchStrategy[float]:
    """One of ``values`` exactly, almost exactly, or up to ``within`` degrees away."""
    offsets = st.one_of(st.sampled_from([0, 1e-9, -1e-9, 1e-5, -1e-5]), st.floats(-within, within))
    return st.builds(lambda value, offset: value + offset, values, offsets)


lons, lats = st.floats(-180, 180), st.floats(-90, 90)
zone_edges = near(st.integers(-29, 29).map(lambda n: 6.0 * n), 0.1)
both_sides = st.sampled_from([-1, 1])
# Where metres are at risk: a zone's edges, its exceptions, the antimeridian, and the ends of UTM.
REGIONS: dict[str, st.SearchStrategy[tuple[float, float]]] = {
    "anywhere": st.tuples(lons, lats),
    "zone edges": st.tuples(zone_edges, near(st.floats(-79, 83), 0.5)),
    "equator": st.tuples(zone_edges, near(st.just(0.0), 0.5)),
    "Norway": st.tuples(
        near(st.one_of(st.floats(3, 12), st.just(3.0), st.just(12.0)), 0.5),
        near(st.one_of(st.floats(56, 64), st.just(56.0), st.just(64.0)), 0.5),
    ),
    "Svalbard": st.tuples(
        near(st.sampled_from([0.0, 9.0, 21.0, 33.0, 42.0]), 3),
        near(st.one_of(st.floats(72, 84), st.just(72.0), st.just(84.0)), 0.2),
    ),
    "antimeridian": st.tuples(
        st.builds(lambda side, off: side * (180 - off), both_sides, st.floats(0, 0.05)), lats
    ),
    "ends of UTM": st.tuples(lons, near(st.sampled_from([-80.0, 84.0]), 0.1)),
    "poles": st.tuples(
        lons, st.builds(lambda side, off: side * (90 - off), both_sides, st.floats(0, 0.1))
    ),
}
places = st.one_of(*REGIONS.values())


@st.composite
def boxes(draw: st.DrawFn) -> BBox:
    """A box of up to a degree around, or ending at, one of the places; wider near the poles."""
    lon, lat = draw(places)
    height = draw(st.floats(0.005, 0.5))
    width = draw(st.floats(0.005, 0.5)) * draw(st.sampled_from([1, 20 if abs(lat) > 89 else 1]))
    low_lon, low_lat = max(lon - width, -180), max(lat - height, -90)
    high_lon, high_lat = min(lon + width, 180), min(lat + height, 90)
    return BBox(low_lon, low_lat, high_lon, high_lat)


def utm(epsg: int = 32633, pixel: float = 10, shape: tuple[int, int] = (100, 80)) -> Grid:
    return Grid(CRS.from_epsg(epsg), Affine(pixel, 0, 400000, 0, -pixel, 5200000), shape)


def ground_pixel(grid: Grid) -> tuple[float, float]:
    """Width and height of the central pixel by an independent route: neighbouring centres."""
    to_geographic = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    row, column = grid.shape[0] // 2, grid.shape[1] // 2
    points = [(column + 0.5, row + 0.5), (column + 1.5, row + 0.5), (column + 0.5, row + 1.5)]
    (a, b, c) = [to_geographic.transform(*(grid.transform @ p)) for p in points]
    return GEOD.inv(*a, *b)[2], GEOD.inv(*a, *c)[2]


def ground_extent(grid: Grid) -> tuple[float, float]:
    """Metres on the ground between the middles of opposite edges, west to east, south to north."""
    to_geographic = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    (rows, columns) = grid.shape
    ends = [(0, rows / 2), (columns, rows / 2), (columns / 2, 0), (columns / 2, rows)]
    (a, b, c, d) = [to_geographic.transform(*(grid.transform @ p)) for p in ends]
    return GEOD.inv(*a, *b)[2], GEOD.inv(*c, *d)[2]


@pytest.mark.parametrize("region", REGIONS)
def test_pixels_and_buffers_are_true_metres(region: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(REGIONS[region], st.floats(100, 3000), st.sampled_from([5, 10, 30]))
    def check(place: tuple[float, float], buffer_m: float, scale_m: float) -> None:
        grid = roi_grid(PointBuffer(*place, buffer_m), scale_m)
        for side in ground_pixel(grid):
            assert side == pytest.approx(scale_m, rel=1e-3)
        assert gsd_m(grid) == scale_m
        for extent in ground_extent(grid):
            assert abs(extent - 2 * buffer_m) <= 1e-3 * 2 * buffer_m + scale_m / 2

    check()


def test_no_place_on_earth_has_a_scale_off_by_more_than_a_thousandth() -> None:
    # Coarse over the Earth, and right next to every edge of a zone or of an exception.
    edges = [edge + hair for edge in range(-180, 181, 3) for hair in (-1e-9, 0, 1e-9)]
    worst = 0.0
    for lat in (
        -90,
        -80.001,
        -80,
        -60,
        -30,
        0,
        30,
        56,
        57.3,
        58.9,
        60,
        63.9,
        72,
        78,
        84,
        84.1,
        89.96,
    ):
        by_crs: dict[CRS, list[float]] = {}
        for lon in (*edges, *np.arange(3, 4, 0.02)):
            if -180 <= lon <= 180 and (abs(lat) < 89 or lon == 0):
                by_crs.setdefault(metric_crs(float(lon), lat), []).append(lon)
        for crs, longitudes in by_crs.items():
            factors = Proj(crs).get_factors(longitudes, [lat] * len(longitudes))
            scales = np.array([factors.meridional_scale, factors.parallel_scale])
            worst = max(worst, np.abs(scales - 1).max())
    assert 0.00098 < worst < 0.00099  # a zone's edge at the equator


@settings(max_examples=60, deadline=None)
@given(places, st.floats(100, 3000), st.sampled_from([0.5, 3, 10, 20]))
def test_point_grids_have_one_shape_and_are_on_the_lattice(
    place: tuple[float, float], buffer_m: float, scale_m: float
) -> None:
    lon, lat = place
    grid = roi_grid(PointBuffer(lon, lat, buffer_m), scale_m)
    side = round(2 * buffer_m / scale_m)
    assert grid.shape == (side, side)
    for origin in (grid.transform.c, grid.transform.f):
        assert origin / scale_m == pytest.approx(round(origin / scale_m), abs=1e-6)
    # The point is within half a pixel of the middle.
    to_grid = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    column, row = ~grid.transform @ to_grid.transform(lon, lat)
    assert abs(column - side / 2) <= 0.5 + 1e-6
    assert abs(row - side / 2) <= 0.5 + 1e-6


def test_spec_example_is_410_pixels() -> None:
    assert roi_grid(PointBuffer(lon=121.5, lat=31.2, buffer_m=2048), 10).shape == (410, 410)


def edge_points(box: BBox, count: int = 2000) -> tuple[list[float], list[float]]:
    """Longitudes and latitudes all along the box's edges."""
    lon = np.linspace(box.minlon, box.maxlon, count)
    lat = np.linspace(box.minlat, box.maxlat, count)
    west, south, east, north = (np.full(count, edge) for edge in astuple(box))
    return [*lon, *lon, *west, *east], [*south, *north, *lat, *lat]


@settings(max_examples=60, deadline=None)
@given(boxes())
def test_box_grids_cover_the_box_and_no_more_than_a_pixel(box: BBox) -> None:
    grid = roi_grid(box, 10)
    to_grid = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    x, y = to_grid.transform(*edge_points(box))
    asked, given = (min(x), min(y), max(x), max(y)), grid.bounds
    for inner, outer, outward in zip(asked, given, (-1, -1, 1, 1), strict=True):
        assert -0.5 <= (outer - inner) * outward <= 10 + 0.5  # metres
    for side in ground_pixel(grid):
        assert side == pytest.approx(10, rel=1e-3)
    assert gsd_m(grid) == 10


def test_a_box_around_the_pole_is_covered() -> None:
    # Its edge is a circle; with too few points along it, half a kilometre would be missing.
    grid = roi_grid(BBox(-180, 89.5, 180, 90), 10)
    radius = GEOD.inv(0, 89.5, 0, 90)[2]
    assert np.abs(grid.bounds) == pytest.approx([radius] * 4, abs=10)


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (3.6, 56, 32631), (3.7, 56, 32632), (2.99, 60, 32631), (3, 60.1, 32632), (3, 64, 32631),
        (11.99, 63.9, 32632), (8.99, 72, 32631), (9, 72, 32633), (20.99, 80, 32633),
        (21, 84, 32635), (33, 72, 32637), (42, 80, 32638), (-180, 10, 32601), (180, 10, 32660),
        (-75.6, 37.7, 32618), (39.3, -7.8, 32737), (0, -80, 32731), (0, 0, 32631),
    ],
)  # fmt: skip
def test_utm_zones_with_their_exceptions(lon: float, lat: float, epsg: int) -> None:
    assert metric_crs(lon, lat).to_epsg() == epsg


@pytest.mark.parametrize(("lat", "pole"), [(84.1, 90), (90, 90), (-80.1, -90), (-90, -90)])
def test_beyond_utm_the_grid_is_polar(lat: float, pole: int) -> None:
    crs = metric_crs(17, lat)
    assert crs.coordinate_operation is not None
    assert "Polar" in crs.coordinate_operation.method_name
    to_grid = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    assert to_grid.transform(17, pole) == pytest.approx((0, 0), abs=1e-3)


@pytest.mark.parametrize("lat", [0, 31.2, 60, -45])
def test_web_mercator_is_measured_on_the_ground(lat: float) -> None:
    # EPSG:3857 scales by the radius a; the ellipsoid has the radii N cos(lat) and M there.
    grid = roi_grid(PointBuffer(121.5, lat, 2048), 10, "EPSG:3857")
    sine, e2 = math.sin(math.radians(lat)), 0.00669437999014
    east = math.cos(math.radians(lat)) / math.sqrt(1 - e2 * sine**2)
    north = math.cos(math.radians(lat)) * (1 - e2) / (1 - e2 * sine**2) ** 1.5
    assert grid.transform.a == 10
    assert gsd_m(grid) == pytest.approx(10 * math.sqrt(east * north), rel=1e-3)


def test_feet_are_measured_on_the_ground() -> None:
    new_york = Grid(CRS.from_epsg(2263), Affine(10, 0, 984000, 0, -10, 200000), (100, 100))
    assert gsd_m(new_york) == pytest.approx(3.048, rel=1e-3)


@pytest.mark.parametrize(
    ("grid", "match"),
    [
        (Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 15, 0, -1e-4, 47), (50, 50)),
         r"in degrees \(EPSG:4326, 0.0001 per pixel\).*gdalwarp -t_srs EPSG:32633"),
        (Grid(CRS.from_epsg(32633), Affine(10, 1, 4e5, 1, -10, 52e5), (50, 50)), "rotated"),
        (Grid(CRS.from_epsg(32633), Affine(10, 0, 4e5, 0, -20, 52e5), (50, 50)),
         r"10 m by 20.*square ones"),
        (Grid(None, Affine.identity(), (50, 50)), "no CRS"),
    ],
)  # fmt: skip
def test_grids_without_one_ground_size_are_refused(grid: Grid, match: str) -> None:
    with pytest.raises(GridError, match=match):
        gsd_m(grid)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263", "EPSG:99999", "nonsense"])
def test_a_sampling_crs_must_be_in_metres(crs: str) -> None:
    with pytest.raises(GridError, match=f"got crs='{crs}'"):
        roi_grid(PointBuffer(10, 50, 1000), 10, crs)


def test_a_place_smaller_than_a_pixel_is_refused() -> None:
    with pytest.raises(GridError, match="smaller than one pixel of 10 m"):
        roi_grid(PointBuffer(10, 50, 1), 10)


def test_window_of_a_place_keeps_the_files_lattice() -> None:
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 400003, 0, -10, 5200007), (500, 500))
    to_geographic = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_geographic.transform(402003, 5198007)  # pixel corner (200, 200)
    window = roi_window(grid, PointBuffer(lon, lat, 500), 10)
    assert window.offset_in(grid) == (150, 150)
    assert window.shape == (100, 100)
    assert window.lies_on(grid)
    assert not window.lies_on(utm())


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 8, 14, 16]))
def test_patch_grids_keep_the_bounds(rows: int, columns: int, patch: int) -> None:
    grid = utm(shape=(rows * patch, columns * patch))
    patches = grid.patch_grid(patch)
    assert patches.shape == (rows, columns)
    assert patches.bounds == pytest.approx(grid.bounds)
    assert patches.x[0] == pytest.approx(grid.transform.c + 10 * patch / 2)
    assert patches.y[-1] == pytest.approx(grid.bounds[1] + 10 * patch / 2)


def test_patch_grid_refuses_a_remainder() -> None:
    with pytest.raises(GridError, match=r"100 x 80 px, expected sides that are multiples of .* 16"):
        utm().patch_grid(16)


@pytest.mark.parametrize("shape", [(0, 5), (5, -1)])
def test_empty_grid_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(GridError, match="sides of at least 1 px"):
        Grid(None, Affine.identity(), shape)


def test_degenerate_transform_is_refused() -> None:
    with pytest.raises(GridError, match="degenerate"):
        Grid(None, Affine(0, 0, 0, 0, 0, 0), (5, 5))
