"""Maps read back: tokens at points, and means of polygons against sums over single cells."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import dask.array
import numpy as np
import pytest
import rioxarray  # noqa: F401  # registers the accessor ``.rio``
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from rs_embed.errors import CoverageWarning, GridError, SpecError
from rs_embed.geo.polygons import Polygons
from rs_embed.maps.sampling import sample_points, zonal_mean

LEFT, TOP, CELL = 500000.0, 5000000.0, 160.0
SHAPE = (9, 14)


def coordinate_map(
    *, shape: tuple[int, int] = SHAPE, epsg: int = 32633, top: float = TOP, cell: float = CELL
) -> xr.DataArray:
    """Each token is (x, y, x + 2 y) of its cell's centre, in cells from the map's corner."""
    x = LEFT + cell * (np.arange(shape[1]) + 0.5)
    y = top - cell * (np.arange(shape[0]) + 0.5)
    east, south = np.meshgrid((x - LEFT) / cell, (top - y) / cell)
    values = np.stack([east, south, east + 2 * south]).astype(np.float32)
    array = xr.DataArray(values, dims=("d", "y", "x"), coords={"d": [0, 1, 2], "y": y, "x": x})
    placed: xr.DataArray = array.rio.write_crs(f"EPSG:{epsg}").rio.write_nodata(np.nan)
    return placed


def at(column: float, row: float) -> tuple[float, float]:
    """Return the place of a position in columns and rows."""
    return LEFT + CELL * column, TOP - CELL * row


def area(*corners: tuple[float, float]) -> Polygon:
    return Polygon([at(*corner) for corner in corners])


def zones(*shapes: Any, epsg: int = 32633) -> Polygons:
    ids = tuple(f"zone {number}" for number in range(len(shapes)))
    return Polygons(tuple(shapes), ids, CRS.from_epsg(epsg), "drawn")


def by_cells(tokens: xr.DataArray, shape: Any) -> tuple[Any, float]:
    """Mean token and coverage, by GEOS's intersection of the shape with each cell."""
    step_x, step_y = (
        tokens.x.values[1] - tokens.x.values[0],
        tokens.y.values[1] - tokens.y.values[0],
    )
    values = tokens.transpose("y", "x", "d").values
    x, y = np.meshgrid(tokens.x.values, tokens.y.values)
    half_x, half_y = abs(step_x) / 2, abs(step_y) / 2
    cells = shapely.box(x - half_x, y - half_y, x + half_x, y + half_y)
    shared = shapely.area(shapely.intersection(shape, cells))
    shared = np.where(np.isfinite(values).all(axis=-1), shared, 0)
    weight = float(shared.sum())
    total = np.einsum("yx,yxd->d", shared, np.nan_to_num(values.astype(np.float64)))
    return total / weight if weight else np.full_like(total, np.nan), weight / shape.area


class TestPoints:
    def test_each_point_gets_the_token_of_its_cell(self) -> None:
        tokens = coordinate_map()
        points = [at(3.2, 4.9), at(13.99, 8.99), at(0.01, 0.01)]
        found = sample_points(tokens, points, crs="EPSG:32633")
        assert found.dims == ("point", "d")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.values[:, :2], [[3.5, 4.5], [13.5, 8.5], [0.5, 0.5]])
        np.testing.assert_array_equal(found.row, [4, 8, 0])
        np.testing.assert_array_equal(found.column, [3, 13, 0])
        np.testing.assert_array_equal(found.x, [x for x, _ in points])
        np.testing.assert_array_equal(found.y, [y for _, y in points])
        np.testing.assert_array_equal(found.d, tokens.d)

    def test_longitude_and_latitude_are_the_default(self) -> None:
        to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
        lon, lat = to_degrees.transform(*at(7.5, 2.5))
        found = sample_points(coordinate_map(), [(lon, lat)])
        np.testing.assert_array_equal(found.values[0, :2], [7.5, 2.5])
        assert (found.lon.item(), found.lat.item()) == (lon, lat)
        assert {"x", "y"}.isdisjoint(found.coords)

    def test_metres_of_another_crs_come_back_in_that_of_the_map(self) -> None:
        to_other = Transformer.from_crs(32633, 3035, always_xy=True)
        found = sample_points(
            coordinate_map(), [to_other.transform(*at(7.5, 2.5))], crs="EPSG:3035"
        )
        np.testing.assert_array_equal(found.values[0, :2], [7.5, 2.5])
        np.testing.assert_allclose([found.x.item(), found.y.item()], at(7.5, 2.5), atol=1e-3)
        assert {"lon", "lat"}.isdisjoint(found.coords)

    def test_an_edge_belongs_to_the_cell_that_it_begins(self) -> None:
        """On steps that no float holds exactly, too."""
        for cell in (CELL, 0.1, 1 / 3):
            tokens = coordinate_map(cell=cell)
            rows, columns = np.indices(SHAPE).reshape(2, -1)
            points = np.stack([LEFT + cell * columns, TOP - cell * rows], axis=1)
            found = sample_points(tokens, points, crs="EPSG:32633")
            np.testing.assert_array_equal(found.row, rows)
            np.testing.assert_array_equal(found.column, columns)

    def test_outside_there_is_nothing(self) -> None:
        points = [at(14, 3), at(3, 9), at(-0.01, 3), at(3, -0.01), (1e9, 1e9), at(1, 1)]
        with pytest.warns(CoverageWarning) as given:
            found = sample_points(coordinate_map(), points, crs="EPSG:32633")
        assert [str(one.message) for one in given] == [
            "5 of 6 points are outside the map, so their tokens are NaN"
        ]
        assert given[0].filename == __file__
        np.testing.assert_array_equal(np.isnan(found.values).all(axis=1), [True] * 5 + [False])
        np.testing.assert_array_equal(found.row, [-1] * 5 + [1])
        np.testing.assert_array_equal(found.column, [-1] * 5 + [1])

    def test_where_the_crs_has_no_place_there_is_nothing(self) -> None:
        tokens = coordinate_map(epsg=2154)
        with pytest.warns(CoverageWarning, match="1 of 1 points are outside"):
            assert np.isnan(sample_points(tokens, [(0, -90)])).all()

    def test_swapped_points_are_told_the_order(self) -> None:
        to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
        right = [to_degrees.transform(*at(7.5, 2.5)), to_degrees.transform(*at(1.5, 2.5))]
        points = [right[0], right[1][::-1], (0, 0)]
        with pytest.warns(
            CoverageWarning,
            match="2 of 3 points .* swapped 1 of them would be inside: put longitude first, then",
        ):
            found = sample_points(coordinate_map(), points)
        np.testing.assert_array_equal(np.isnan(found.values[:, 0]), [False, True, True])
        with pytest.warns(CoverageWarning, match="put x first, then y"):
            sample_points(coordinate_map(), [at(1, 1)[::-1]], crs="EPSG:32633")

    def test_nodata_is_nan(self) -> None:
        tokens = coordinate_map()
        tokens[:, 2, 5] = np.nan
        found = sample_points(tokens, [at(5.5, 2.5), at(6.5, 2.5)], crs="EPSG:32633")
        np.testing.assert_array_equal(np.isnan(found.values), [[True] * 3, [False] * 3])

    def test_integers_with_a_nodata_value(self) -> None:
        tokens = coordinate_map().fillna(0).astype(np.int16).rio.write_nodata(-5)
        tokens[:, 2, 5] = -5
        found = sample_points(tokens, [at(5.5, 2.5), at(6.5, 2.5)], crs="EPSG:32633")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.values, [[np.nan] * 3, [6, 2, 11]])

    def test_no_points(self) -> None:
        assert sample_points(coordinate_map(), []).shape == (0, 3)
        assert sample_points(coordinate_map(), np.empty((0, 2))).shape == (0, 3)

    def test_a_part_of_a_map_and_one_with_south_up(self) -> None:
        tokens = coordinate_map()
        points = [at(5.5, 3.5), at(9.2, 7.9)]
        expected = sample_points(tokens, points, crs="EPSG:32633").values
        part = tokens.isel(y=slice(3, 8), x=slice(5, 10))
        upside_down = tokens.isel(y=slice(None, None, -1)).transpose("y", "x", "d")
        for other in (part, upside_down):
            found = sample_points(other, points, crs="EPSG:32633")
            np.testing.assert_array_equal(found.values, expected)

    def test_a_map_of_one_cell(self) -> None:
        one = coordinate_map().rio.write_transform().isel(y=[3], x=[5])
        with pytest.warns(CoverageWarning, match="1 of 2 points"):
            found = sample_points(one, [at(5.01, 3.99), at(6, 3.5)], crs="EPSG:32633")
        np.testing.assert_array_equal(found.row, [0, -1])
        with pytest.raises(SpecError, match="one cell along 'x' and no transform"):
            sample_points(coordinate_map().isel(x=[5]), [(15, 45)])

    def test_only_the_chunks_with_points_are_read(self) -> None:
        lazy, read = counted(coordinate_map(shape=(40, 60)), (10, 10))
        found = sample_points(lazy, [at(5, 5), at(7, 8), at(55, 35)], crs="EPSG:32633")
        np.testing.assert_array_equal(found.values[:, 0], [5.5, 7.5, 55.5])
        assert read == {(0, 0): 1, (3, 5): 1}

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            ([1, 2], r"got points of shape \(2,\), expected \(N, 2\)"),
            ([(1, 2, 3)], r"got points of shape \(1, 3\)"),
            ([(1, 2), (3,)], "not an array of numbers"),
            (["a"], "not an array of numbers"),
            ([(1, 2), (np.nan, 2)], r"got point 1 \[nan, 2.0\], expected finite"),
            ([(500000, 5000000)], "expected longitude in -180..180.*state their crs="),
            ([(47, 113)], "then latitude in -90..90"),
        ],
    )
    def test_points_that_cannot_be_meant(self, points: Any, message: str) -> None:
        with pytest.raises(SpecError, match=message):
            sample_points(coordinate_map(), points)

    @pytest.mark.parametrize(
        ("crs", "kind"), [("EPSG:5703", "Vertical CRS"), ("EPSG:4978", "Geocentric CRS")]
    )
    def test_a_crs_without_a_place_on_the_ground(self, crs: str, kind: str) -> None:
        message = f"got crs='{crs}' .*{kind}.*expected a geographic or projected CRS"
        with pytest.raises(GridError, match=message):
            sample_points(coordinate_map(), [at(1, 1)], crs=crs)
        with pytest.raises(GridError, match=message):
            Polygons((area((0, 0), (1, 1), (1, 0)),), ("0",), CRS(crs), "here")
        with pytest.raises(GridError, match=message):
            zones(area((0, 0), (1, 1), (1, 0))).to_crs(crs)

    def test_heights_beside_a_place_do_not_count(self) -> None:
        tokens, point = coordinate_map(), at(5.5, 2.5)
        expected = sample_points(tokens, [point], crs="EPSG:32633").values
        assert np.isfinite(expected).all()
        found = sample_points(tokens, [point], crs="EPSG:32633+5773")
        np.testing.assert_array_equal(found.values, expected)
        degrees = Transformer.from_crs(32633, 4326, always_xy=True).transform(*point)
        for crs in ("EPSG:4979", "EPSG:9518"):
            np.testing.assert_array_equal(sample_points(tokens, [degrees], crs=crs), expected)

    def test_an_unknown_crs(self) -> None:
        with pytest.raises(GridError, match="known CRS"):
            sample_points(coordinate_map(), [(0, 0)], crs="nonsense")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tokens: tokens.values, "got a map of type ndarray"),
        (lambda tokens: tokens.rename(d="band"), r"dimensions \('band', 'y', 'x'\), expected d, y"),
        (lambda tokens: tokens.isel(d=0), "expected d, y and x"),
        (lambda tokens: tokens.drop_vars("spatial_ref"), "got a map without CRS"),
        (lambda tokens: tokens.drop_vars("x"), "without coordinates along 'x'"),
        (lambda tokens: tokens.isel(x=slice(0, 0)), "without coordinates along 'x'"),
        (lambda tokens: tokens.isel(x=[0, 1, 5]), "coordinates along 'x' are not regular"),
    ],
)
def test_maps_that_cannot_be_meant(spoil: Callable[[xr.DataArray], Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sample_points(spoil(coordinate_map()), [(15, 45)])
    with pytest.raises(SpecError, match=message):
        zonal_mean(spoil(coordinate_map()), box(15, 45, 15.01, 45.01))


def counted(tokens: xr.DataArray, chunk: tuple[int, int]) -> tuple[xr.DataArray, Counter[Any]]:
    """Return the map in lazy chunks, and how often each (row, column) of chunks was read."""
    read: Counter[tuple[int, int]] = Counter()
    values = tokens.values

    def block(block_info: Any = None) -> Any:
        spans = block_info[None]["array-location"]
        read[block_info[None]["chunk-location"][1:]] += 1
        return values[tuple(slice(*span) for span in spans)]

    sizes = [
        tuple(min(step, size - start) for start in range(0, size, step))
        for size, step in zip(tokens.shape, (len(values), *chunk), strict=True)
    ]
    map_blocks: Any = dask.array.map_blocks
    array = map_blocks(block, chunks=tuple(sizes), dtype=values.dtype, meta=values[:0])
    return tokens.copy(data=array), read


SHAPES = {
    "triangle": area((1.3, 0.7), (9.9, 2.2), (4.1, 8.8)),
    "within a cell": area((3.2, 3.2), (3.6, 3.3), (3.4, 3.8)),
    "whole cells": area((2, 3), (7, 3), (7, 5), (2, 5)),
    "with a hole": area((1, 1), (12.5, 1.5), (12, 8), (2, 7.7)).difference(
        area((4, 4), (8.5, 4), (8.5, 6.3), (4, 6))
    ),
    "two parts": MultiPolygon([area((0, 0), (1.5, 0), (0, 1.5)), area((9, 8), (10, 6), (11, 8))]),
    "a spike of less than a millionth of a cell": area((0, -1), (1, 0), (1e-7, 1), (0, 2)),
    "less than a millionth of a cell": area((1, 1), (1 + 1e-7, 1), (1 + 1e-7, 2), (1, 2)),
    "beyond the map": area((10, 5), (20, 5), (20, 15), (10, 14)),
}


class TestZones:
    @pytest.mark.parametrize("name", SHAPES)
    def test_it_is_the_mean_weighted_by_area(self, name: str) -> None:
        tokens = coordinate_map()
        found = zonal_mean(tokens, zones(SHAPES[name]))
        mean, coverage = by_cells(tokens, SHAPES[name])
        assert found.dims == ("zone", "d")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.values[0], mean, rtol=1e-5)
        assert found.coverage.item() == pytest.approx(coverage, abs=1e-5)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.floats(-3, 17), st.floats(-3, 12)), min_size=3, max_size=8))
    def test_it_is_so_for_any_polygon(self, corners: list[tuple[float, float]]) -> None:
        drawn = shapely.make_valid(area(*corners), method="structure", keep_collapsed=False)
        if drawn.geom_type != "Polygon" or drawn.area < CELL**2 / 100:
            return
        tokens = coordinate_map()
        tokens[:, 2:5, 3:6] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            found = zonal_mean(tokens, zones(drawn))
        mean, coverage = by_cells(tokens, drawn)
        assert found.coverage.item() == pytest.approx(coverage, abs=1e-5)
        if coverage > 1e-4:
            np.testing.assert_allclose(found.values[0], mean, rtol=2e-4)

    def test_each_feature_is_a_zone_in_its_order(self) -> None:
        tokens = coordinate_map()
        found = zonal_mean(tokens, zones(*SHAPES.values()))
        assert found.id.values.tolist() == [f"zone {number}" for number in range(len(SHAPES))]
        for row, shape in zip(found.values, SHAPES.values(), strict=True):
            np.testing.assert_allclose(row, by_cells(tokens, shape)[0], rtol=1e-5)
        np.testing.assert_array_equal(found.d, tokens.d)

    def test_cells_without_token_have_no_weight(self) -> None:
        tokens = coordinate_map()
        tokens[:, 3:5, 2:4] = np.nan
        tokens[1, 4, 5] = np.nan  # a token that is not whole counts for nothing
        shape = area((2, 3), (7, 3), (7, 5), (2, 5))
        with pytest.warns(
            CoverageWarning,
            match=r"1 of 2 zones hold .* NaN: 1 on cells without one \(ids zone 1\)$",
        ):
            found = zonal_mean(tokens, zones(shape, area((2, 3), (3.5, 3), (3.5, 4.5), (2, 4.5))))
        mean, _ = by_cells(tokens, shape)
        np.testing.assert_allclose(found.values[0], mean, rtol=1e-6)
        assert found.coverage.values[0] == pytest.approx(5 / 10)
        assert np.isnan(found.values[1]).all()
        assert found.coverage.values[1] == 0

    def test_integers_with_a_nodata_value(self) -> None:
        tokens = coordinate_map().astype(np.int16).rio.write_nodata(-5)
        tokens[:, 3, 2] = -5
        found = zonal_mean(tokens, zones(area((2, 3), (4, 3), (4, 4), (2, 4))))
        np.testing.assert_array_equal(found.values, [[3, 3, 10]])
        assert found.coverage.item() == 0.5

    def test_outside_the_map(self) -> None:
        tokens = coordinate_map()
        tokens[:, 0, 0] = np.nan
        there, empty = area((3, 3), (4, 3), (4, 4)), area((0.2, 0.2), (0.8, 0.2), (0.8, 0.8))
        with pytest.warns(CoverageWarning) as given:
            found = zonal_mean(tokens, zones(there, area((20, 20), (25, 20), (25, 25)), empty))
        assert [str(one.message) for one in given] == [
            "2 of 3 zones hold no token, so their means are NaN: 1 outside the map (ids "
            "zone 1) and 1 on cells without one (ids zone 2)"
        ]
        np.testing.assert_array_equal(np.isnan(found.values).all(axis=1), [False, True, True])
        assert found.coverage.values[1] == 0

    def test_a_list_of_polygons_has_a_zone_for_each(self) -> None:
        to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
        shapes = [
            shapely.transform(shape, lambda p: np.stack(to_degrees.transform(*p.T), axis=1))
            for shape in (SHAPES["triangle"], SHAPES["whole cells"])
        ]
        found = zonal_mean(coordinate_map(), [shapes[0], mapping(shapes[1])])
        assert found.id.values.tolist() == ["0", "1"]
        for row, name in zip(found.values, ("triangle", "whole cells"), strict=True):
            np.testing.assert_allclose(row, by_cells(coordinate_map(), SHAPES[name])[0], rtol=1e-4)
        with pytest.warns(CoverageWarning, match="ids 0.; with longitude and latitude swapped"):
            zonal_mean(coordinate_map(), [shapely.transform(shapes[0], lambda p: p[:, ::-1])])

    def test_nothing_is_left_of_a_zone_outside(self) -> None:
        with pytest.warns(
            CoverageWarning, match=r"1 of 1 zones .* outside the map \(ids zone 0\)$"
        ):
            found = zonal_mean(coordinate_map(), zones(area((20, 20), (25, 20), (25, 25))))
        assert np.isnan(found.values).all()
        assert found.coverage.item() == 0

    def test_beside_the_map_edges_in_common_do_not_count(self) -> None:
        with pytest.warns(CoverageWarning, match="1 outside the map"):
            found = zonal_mean(coordinate_map(), zones(area((14, 2), (16, 2), (16, 4), (14, 4))))
        assert np.isnan(found.values).all()

    @pytest.mark.parametrize(("epsg", "top"), [(32633, TOP), (32733, 6200000.0)])
    def test_polygons_in_degrees(self, epsg: int, top: float) -> None:
        """North and south of the equator; the parallels are drawn as the arcs they are."""
        tokens = coordinate_map(epsg=epsg, top=top)
        to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
        west, north = to_degrees.transform(LEFT + 1.5 * CELL, top - 1.2 * CELL)
        east, south = to_degrees.transform(LEFT + 9.1 * CELL, top - 7.7 * CELL)
        shape = box(west, south, east, north)
        dense = shapely.segmentize(shape, (east - west) / 1000)
        to_map = Transformer.from_crs(4326, epsg, always_xy=True)
        there = shapely.transform(dense, lambda p: np.stack(to_map.transform(*p.T), axis=1))
        found = zonal_mean(tokens, mapping(shape))
        mean, coverage = by_cells(tokens, there)
        np.testing.assert_allclose(found.values[0], mean, rtol=1e-5)
        assert found.coverage.item() == pytest.approx(coverage, abs=1e-5)

    def test_a_lazy_map_is_read_once_and_only_under_polygons(self) -> None:
        whole = coordinate_map(shape=(40, 60))
        lazy, read = counted(whole, (10, 10))
        shape = area((2.5, 2.5), (17.5, 3), (12, 8))
        found = zonal_mean(lazy, zones(shape, area((55, 35), (56, 35), (56, 36))))
        np.testing.assert_allclose(found.values[0], by_cells(whole, shape)[0], rtol=1e-5)
        assert read == {(0, 0): 1, (0, 1): 1, (3, 5): 1}

    def test_many_blocks_make_the_same_mean(self) -> None:
        """Tokens so long that a block holds 1024 cells of the 4500; all dimensions are equal."""
        first = coordinate_map(shape=(50, 90)).isel(d=[0])
        deep = xr.DataArray(
            np.broadcast_to(first.values, (32768, 50, 90)),
            dims=("d", "y", "x"),
            coords={"y": first.y, "x": first.x, "spatial_ref": first.spatial_ref},
        )
        shape = area((1.3, 0.7), (84.9, 2.2), (14.1, 48.8))
        found = zonal_mean(deep, zones(shape))
        mean, _ = by_cells(first, shape)
        np.testing.assert_allclose(found.values[0], np.full(32768, mean[0]), rtol=1e-5)

    def test_invalid_polygons_are_refused(self) -> None:
        bow_tie = Polygon([(15, 45), (15.02, 45.02), (15.02, 45), (15, 45.02)])
        with pytest.raises(SpecError, match="is not a valid polygon"):
            zonal_mean(coordinate_map(), bow_tie)
        with pytest.raises(SpecError, match="has no layers"):
            zonal_mean(coordinate_map(), box(15, 45, 15.02, 45.02), layer="x")
