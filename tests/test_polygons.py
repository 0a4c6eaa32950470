"""Areas drawn as polygons: what is read and refused, other CRSs, and the cells they share."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping

from rs_embed.errors import GridError, SpecError, UnknownNameError
from rs_embed.files.polygons import read_polygons
from rs_embed.geo.grid import Grid
from rs_embed.geo.polygons import Polygons

UTM = CRS.from_epsg(32633)
SQUARE = box(13, 47, 13.1, 47.1)
BOW_TIE = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])


def feature(geometry: Any, **members: Any) -> dict[str, Any]:
    shape = None if geometry is None else mapping(geometry)
    return {"type": "Feature", "properties": {}, "geometry": shape, **members}


def collection(*features: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), **members}


def written(
    path: Path, geometries: list[Any], *, crs: str | None = "EPSG:32633", **more: Any
) -> Path:
    kind = more.pop("geometry_type", "Polygon")
    fields = more.pop("fields", {})
    columns = [np.array(values) for values in fields.values()]
    content = np.array([None if g is None else shapely.to_wkb(g) for g in geometries], dtype=object)
    pyogrio.raw.write(path, content, columns, list(fields), geometry_type=kind, crs=crs, **more)
    return path


class TestReading:
    def test_a_geojson_file_keeps_each_feature_and_its_id(self, tmp_path: Path) -> None:
        path = tmp_path / "fields.geojson"
        both = collection(
            feature(SQUARE, id="a"),
            feature(MultiPolygon([box(1, 1, 2, 2), box(3, 3, 4, 4)]), properties={"id": 7}),
            feature(SQUARE),
        )
        path.write_text(json.dumps(both), encoding="utf-8-sig")
        polygons = read_polygons(path)
        assert polygons.ids == ("a", "7", "2")
        assert polygons.crs == CRS.from_epsg(4326)
        assert polygons.name == str(path)
        assert polygons.geometries[0].equals(SQUARE)
        assert polygons.bounds == (1, 1, 13.1, 47.1)

    @pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb"])
    def test_gis_files_keep_their_crs_and_ids(self, tmp_path: Path, name: str) -> None:
        shapes = [box(500000, 5000000, 500100, 5000100), box(500200, 5000000, 500300, 5000100)]
        path = written(tmp_path / name, shapes, fields={"id": ["north", "south"]})
        polygons = read_polygons(path)
        by_id = dict(zip(polygons.ids, polygons.geometries, strict=True))  # .fgb sorts by place
        assert polygons.crs == UTM
        assert by_id["north"].equals(shapes[0])
        assert by_id["south"].equals(shapes[1])

    def test_without_a_field_id_the_feature_id_names_it(self, tmp_path: Path) -> None:
        assert read_polygons(written(tmp_path / "a.gpkg", [SQUARE, SQUARE])).ids == ("1", "2")
        assert read_polygons(written(tmp_path / "a.shp", [SQUARE, SQUARE])).ids == ("0", "1")

    def test_a_layer_is_chosen_by_name(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.gpkg", [box(0, 0, 1, 1)], layer="one")
        written(path, [box(0, 0, 2, 2)], layer="two", append=False)
        assert read_polygons(path, layer="two").bounds == (0, 0, 2, 2)
        with pytest.raises(SpecError, match="layers one, two, expected one; choose it with layer="):
            read_polygons(path)
        with pytest.raises(UnknownNameError, match="unknown layer of .*a.gpkg 'tow'.*'two'"):
            read_polygons(path, layer="tow")

    @pytest.mark.parametrize(
        "source",
        [SQUARE, mapping(SQUARE), feature(SQUARE), collection(feature(SQUARE))],
        ids=["geometry", "mapping", "feature", "collection"],
    )
    def test_objects_are_longitude_and_latitude(self, source: Any) -> None:
        polygons = read_polygons(source)
        assert polygons.crs == CRS.from_epsg(4326)
        assert polygons.geometries[0].equals(SQUARE)
        assert read_polygons(polygons) is polygons

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_a_list_has_a_polygon_for_each_entry(self, kind: type) -> None:
        others = [box(1, 1, 2, 2), box(3, 3, 4, 4)]
        both = kind([SQUARE, mapping(others[0]), feature(others[1], id="c"), SQUARE])
        polygons = read_polygons(both)
        assert polygons.ids == ("0", "1", "c", "3")
        assert polygons.crs == CRS.from_epsg(4326)
        for found, expected in zip(polygons.geometries, (SQUARE, *others, SQUARE), strict=True):
            assert found.equals(expected)
        with pytest.raises(SpecError, match="which has no layers"):
            read_polygons(both, layer="x")

    def test_an_object_states_its_crs_as_geopandas_does(self) -> None:
        class Frame:
            crs = UTM
            __geo_interface__ = collection(feature(box(500000, 0, 500010, 10), id="0"))

        assert read_polygons(Frame()).crs == UTM

    def test_the_old_crs_member_is_honoured(self, tmp_path: Path) -> None:
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        area = collection(feature(box(500000, 0, 500010, 10)), crs=crs)
        assert read_polygons(area).crs == UTM
        with pytest.raises(SpecError, match="got the CRS .*nonsense.*expected a name such as"):
            read_polygons({**area, "crs": {"properties": {"name": "nonsense"}}})

    def test_heights_are_left_out(self, tmp_path: Path) -> None:
        high = shapely.force_3d(SQUARE, z=100)
        for source in (high, mapping(high), written(tmp_path / "a.gpkg", [high], crs="EPSG:4326",
                                                    geometry_type="Polygon Z")):  # fmt: skip
            geometry = read_polygons(source).geometries[0]
            assert not geometry.has_z
            assert geometry.equals(SQUARE)


REFUSED = {
    "no features": (collection(), "holds no features, expected at least one polygon"),
    "no list": ({"type": "FeatureCollection"}, "got no list 'features'"),
    "not an object": (collection(5), "feature 0: got 5, expected a GeoJSON object"),  # type: ignore[arg-type]
    "no geometry": (
        collection(feature(SQUARE), feature(None, id="x")),
        r"feature 1 \(id 'x'\) has no geometry, expected a polygon",
    ),
    "text as geometry": (
        {"type": "Feature", "geometry": "here"},
        "got 'here', expected a GeoJSON geometry",
    ),
    "point": (feature(Point(1, 2)), "feature 0: got a geometry of type 'Point', expected Polygon"),
    "line geometry": (
        shapely.LineString([(0, 0), (1, 1)]),
        "the geometry: got a geometry of type 'LineString', expected Polygon",
    ),
    "empty": (Polygon(), "is an empty Polygon"),
    "empty coordinates": ({"type": "Polygon", "coordinates": []}, "is an empty Polygon"),
    "no coordinates": ({"type": "Polygon"}, "feature 0: got coordinates that are not a Polygon"),
    "open ring": (
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1]]]},
        "are not a Polygon .*closed.*expected closed rings of",
    ),
    "object as number": (
        {"type": "Polygon", "coordinates": [[[0, object()]]]},
        "coordinates that are not numbers",
    ),
    "infinite": (
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, float("inf")], [0, 0]]]},
        "feature 0: got a coordinate that is not finite",
    ),
    "infinity": (
        Polygon([(0, 0), (1, 0), (1, float("inf"))]),
        "the geometry: got a coordinate that is not finite",
    ),
    "crossing": (
        BOW_TIE,
        r"the geometry is not a valid polygon \(Self-intersection at longitude 1, latitude 1\), .*"
        "shapely.make_valid",
    ),
    "empty list": ([], "the list: holds no features, expected at least one polygon"),
    "numbers": ((13, 47, 14, 48), "the tuple: feature 0: got int, expected shapely geometries or"),
    "crossing in a list": (
        [SQUARE, BOW_TIE],
        "the list: feature 1 is not a valid polygon .Self-intersection at longitude 1, latitude 1",
    ),
    "point in a list": ([SQUARE, mapping(Point(1, 2))], "feature 1: got a geometry of type 'Point"),
    "collection in a list": ([collection(feature(SQUARE))], "pass that object alone, not in a l"),
    "another CRS in a list": (
        [{**mapping(SQUARE), "crs": {"properties": {"name": "EPSG:32633"}}}],
        "feature 0: got a GeoJSON object with many features or a CRS of its own",
    ),
    "metres": (box(400000, 5e6, 400100, 5000100), "are these metres of a projection"),
    "latitude": (box(0, 80, 1, 91), r"to \(1, 91\), expected longitudes .* in -90..90"),
    "latitude first": (box(31, 121, 32, 122), "in -90..90; does latitude come first in them?"),
    "antimeridian": (
        Polygon([(179, 0), (-179, 0), (-179, 1), (179, 1)]),
        "polygon from -179 to 179 degrees east.*split it there into a MultiPolygon, as RFC 7946",
    ),
    "number": (5, "got int, expected a path, a shapely geometry"),
}


class TestRefusals:
    @pytest.mark.parametrize(("source", "message"), REFUSED.values(), ids=REFUSED)
    def test_what_is_no_area_is_named(self, source: Any, message: str) -> None:
        with pytest.raises(SpecError, match=message):
            read_polygons(source)

    def test_files_are_named(self, tmp_path: Path) -> None:
        missing = tmp_path / "nowhere.gpkg"
        with pytest.raises(SpecError, match=r"nowhere.gpkg: no such file, expected .* \(.gpkg\)"):
            read_polygons(str(missing))
        (tmp_path / "broken.gpkg").write_text("no")
        with pytest.raises(SpecError, match="broken.gpkg: cannot be read .*not recognized"):
            read_polygons(tmp_path / "broken.gpkg")
        (tmp_path / "broken.json").write_text("{")
        with pytest.raises(SpecError, match="broken.json: is not valid JSON in UTF-8"):
            read_polygons(tmp_path / "broken.json")
        (tmp_path / "folder.json").mkdir()
        with pytest.raises(SpecError, match="folder.json: cannot be read"):
            read_polygons(tmp_path / "folder.json")

    def test_features_of_gis_files_are_named(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.gpkg", [SQUARE, BOW_TIE], fields={"id": ["a", "b"]})
        with pytest.raises(
            SpecError,
            match=r"feature 1 \(id 'b'\) is not a valid polygon \(Self-intersection at x 1, y 1\)",
        ):
            read_polygons(path)
        path = written(tmp_path / "b.gpkg", [Point(1, 2)], geometry_type="Point")
        with pytest.raises(SpecError, match=r"feature 0 \(id '1'\): got a geometry of type 'Point"):
            read_polygons(path)
        path = written(tmp_path / "c.gpkg", [SQUARE, None])
        with pytest.raises(SpecError, match=r"c.gpkg: feature 1 \(id '2'\) has no geometry"):
            read_polygons(path)
        path = tmp_path / "n.gpkg"
        wkb = shapely.to_wkb(box(0, 0, 1, 1)).replace(
            struct.pack("<d", 1), struct.pack("<d", np.nan)
        )
        pyogrio.raw.write(
            path, np.array([wkb], dtype=object), [], [], geometry_type="Polygon", crs="EPSG:4326"
        )
        with pytest.raises(
            SpecError, match=r"feature 0 \(id '1'\): got a geometry that cannot be read"
        ):
            read_polygons(path)
        path = written(tmp_path / "d.gpkg", [])
        with pytest.raises(SpecError, match="d.gpkg: holds no features"):
            read_polygons(path)

    @pytest.mark.parametrize("name", ["a.gpkg", "a.shp"])
    def test_a_file_without_crs(self, tmp_path: Path, name: str) -> None:
        with pytest.warns(UserWarning, match="'crs' was not provided"):
            path = written(tmp_path / name, [SQUARE], crs=None)
        with pytest.raises(SpecError, match="states no CRS .* ogr2ogr -a_srs"):
            read_polygons(path)

    def test_a_table_without_geometries(self, tmp_path: Path) -> None:
        path = tmp_path / "table.csv"
        path.write_text("name,count\na,1\n")
        with pytest.raises(SpecError, match="holds no layer with geometries"):
            read_polygons(path)

    def test_a_layer_where_there_are_none(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text(json.dumps(mapping(SQUARE)))
        for source in (path, SQUARE, read_polygons(SQUARE)):
            with pytest.raises(SpecError, match="got layer='x' for .*, which has no layers"):
                read_polygons(source, layer="x")


class TestMeeting:
    GRID = Grid(UTM, Affine(100, 0, 400000, 0, -100, 5250000), (100, 120))  # around 13.7 E, 47.3 N

    def test_polygons_meet_a_grid_with_which_they_share_area(self) -> None:
        assert read_polygons(box(13.7, 47.3, 13.75, 47.35)).meets(self.GRID)
        assert read_polygons(box(0, 30, 30, 60)).meets(self.GRID)
        assert not read_polygons(box(14.7, 47.3, 14.75, 47.35)).meets(self.GRID)
        beside = Polygons((box(399000, 5240000, 400000, 5250000),), ("0",), UTM, "p")
        assert not beside.meets(self.GRID)
        assert not read_polygons(box(0, -90, 1, -80)).meets(
            replace(self.GRID, crs=CRS("EPSG:2154"))
        )
        with pytest.raises(GridError, match="grid without CRS"):
            beside.meets(Grid(None, Affine.identity(), (2, 2)))

    def test_the_order_is_hinted_at_where_it_is_the_reason(self) -> None:
        swapped = read_polygons(box(47.3, 13.7, 47.35, 13.75))
        assert swapped.order_hint(self.GRID).endswith("put longitude first, then latitude")
        for other in (box(14.7, 47.3, 14.75, 47.35), box(113, 13, 114, 14)):
            assert read_polygons(other).order_hint(self.GRID) == ""
        metres = Polygons((box(5240000, 400000, 5250000, 401000),), ("0",), UTM, "p")
        assert metres.order_hint(self.GRID) == ""


class TestOtherCrs:
    def test_edges_stay_where_they_are(self) -> None:
        """Points of a parallel 4 degrees long lie on the edge: its chord misses by kilometres."""
        there = read_polygons(box(13, 60, 17, 61)).to_crs(UTM)
        to_utm = Transformer.from_crs("EPSG:4326", UTM, always_xy=True)
        lons = np.linspace(13, 17, 1001)
        points = shapely.points(*to_utm.transform(lons, np.full(1001, 60.0)))
        assert shapely.distance(there.geometries[0].exterior, points).max() < 0.011
        chord = shapely.LineString([points[0], points[-1]])
        assert shapely.distance(chord, points).max() > 1000

    def test_the_area_is_that_on_the_ellipsoid(self) -> None:
        """In an equal-area CRS; pyproj's geodesic area is the oracle, fed with dense parallels."""
        outer, hole = box(10, 50, 14, 54), box(11, 51, 12, 52)
        there = read_polygons(outer.difference(hole)).to_crs("EPSG:3035").geometries[0]
        dense = shapely.segmentize(outer.difference(hole), 0.001)
        area, _ = Geod(ellps="GRS80").geometry_area_perimeter(shapely.orient_polygons(dense))
        assert len(there.interiors) == 1
        assert there.area == pytest.approx(area, rel=1e-6)

    def test_there_and_back(self) -> None:
        polygons = read_polygons(MultiPolygon([SQUARE, box(14, 47, 14.1, 47.1)]))
        back = polygons.to_crs(UTM).to_crs("EPSG:4326")
        assert shapely.hausdorff_distance(back.geometries[0], polygons.geometries[0]) < 2e-7
        assert polygons.to_crs(4326) is polygons  # type: ignore[arg-type]

    def test_outside_the_area_of_the_crs(self) -> None:
        with pytest.raises(GridError, match=r"outside the area of EPSG:2154: .* has no place"):
            read_polygons(box(0, -90, 1, -80)).to_crs("EPSG:2154")
        with pytest.raises(GridError, match="known CRS"):
            read_polygons(SQUARE).to_crs("nonsense")

    def test_nothing_is_left_of_a_polygon_narrower_than_rounding(self) -> None:
        # Numbers beside 0 are a thousand million times finer than those beside 166 km.
        speck = box(0, 0, 1e-20, 1e-20)
        with pytest.raises(GridError, match="leaves no area of the polygons with ids 1"):
            Polygons((SQUARE, speck), ("0", "1"), CRS.from_epsg(4326), "s").to_crs("EPSG:32631")

    def test_empty_ones_are_no_polygons(self) -> None:
        with pytest.raises(SpecError, match=r"got empty geometries \(ids b\)"):
            Polygons((SQUARE, Polygon()), ("a", "b"), UTM, "p")

    def test_across_the_antimeridian_there_is_no_polygon_in_degrees(self) -> None:
        fiji = Polygons((box(700000, 8e6, 1000000, 8100000),), ("0",), CRS.from_epsg(32760), "f")
        with pytest.raises(GridError, match="crosses the antimeridian"):
            fiji.to_crs("EPSG:4326")
        with pytest.raises(GridError, match="not continuous there"):
            fiji.to_crs("EPSG:3857")


class TestBounds:
    def test_of_degrees(self) -> None:
        polygons = read_polygons(MultiPolygon([SQUARE, box(14, 47, 14.1, 48)]))
        assert polygons.geographic_bounds() == pytest.approx((13, 47, 14.1, 48), abs=1e-9)

    def test_of_metres(self) -> None:
        there = read_polygons(SQUARE).to_crs(UTM)
        assert there.geographic_bounds() == pytest.approx((13, 47, 13.1, 47.1), abs=2e-7)

    def test_across_the_antimeridian_west_is_greater_than_east(self) -> None:
        split = MultiPolygon([box(177, -19, 180, -16), box(-180, -19, -178, -16)])
        assert read_polygons(split).geographic_bounds() == pytest.approx((177, -19, -178, -16))
        there = Transformer.from_crs(32760, 4326, always_xy=True)
        fiji = Polygons((box(700000, 8e6, 1000000, 8100000),), ("0",), CRS.from_epsg(32760), "f")
        expected = there.transform_bounds(700000, 8e6, 1000000, 8100000, densify_pts=200)
        assert fiji.geographic_bounds() == pytest.approx(expected, abs=1e-6)
        assert expected[0] > expected[2]

    def test_around_a_pole(self) -> None:
        arctic = Polygons((box(-1e6, -1e6, 2e6, 1e6),), ("0",), CRS.from_epsg(3413), "arctic")
        west, south, east, north = arctic.geographic_bounds()
        assert (west, east, north) == (-180, 180, 90)
        corner = Transformer.from_crs(3413, 4326, always_xy=True).transform(2e6, 1e6)
        assert south == pytest.approx(corner[1])

    def test_the_whole_world(self) -> None:
        halves = MultiPolygon([box(-180, -60, 0, 60), box(0.5, -60, 180.00000000000006, 60)])
        assert read_polygons(halves).geographic_bounds() == pytest.approx((0.5, -60, 0, 60))


class TestIdentity:
    def test_the_order_of_things_does_not_count(self) -> None:
        a, b = box(0, 0, 1, 1), box(2, 0, 3, 1)
        turned = Polygon([*a.exterior.coords[2:-1], *a.exterior.coords[:3]][::-1])
        identity = read_polygons(collection(feature(a, id="x"), feature(b))).identity()
        assert read_polygons(collection(feature(b), feature(turned))).identity() == identity
        assert read_polygons(MultiPolygon([b, a])).identity() == identity
        assert len(identity) == 64

    def test_a_vertex_and_the_crs_count(self) -> None:
        area = read_polygons(box(0, 0, 1, 1))
        moved = read_polygons(box(0, 0, 1, 1.0000001))
        elsewhere = Polygons(area.geometries, area.ids, CRS.from_epsg(4258), area.name)
        assert len({area.identity(), moved.identity(), elsewhere.identity()}) == 3


def by_definition(geometries: tuple[Any, ...], grid: Grid) -> Any:
    """Whether the insides of cell and polygon meet, cell by cell, with GEOS."""
    cells = np.empty(grid.shape, dtype=object)
    for row, column in np.ndindex(grid.shape):
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        cells[row, column] = Polygon([grid.transform @ corner for corner in corners])
    shared = [shapely.relate_pattern(geometry, cells, "T********") for geometry in geometries]
    return np.logical_or.reduce(shared)


# Eighths of a cell are exact in binary, so that edges along and through cell corners are common.
positions = st.tuples(st.integers(-24, 120), st.integers(-24, 96)).map(
    lambda at: (500000 + at[0] * 10 / 8, 5000000 - at[1] * 10 / 8)
)


@st.composite
def areas(draw: st.DrawFn) -> Any:
    """A polygon, perhaps with holes and parts, whose vertices are on eighths of cells."""
    points = draw(st.lists(positions, min_size=3, max_size=9, unique=True))
    drawn = shapely.make_valid(Polygon(points), method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(drawn) if part.geom_type == "Polygon"]
    valid = MultiPolygon(parts) if len(parts) > 1 else Polygon() if not parts else parts[0]
    # make_valid puts vertices where edges cross: nearly, not exactly, on an eighth.
    return shapely.set_precision(valid, 10 / 8)


class TestTouched:
    GRID = Grid(UTM, Affine(10, 0, 500000, 0, -10, 5000000), (9, 12))

    @settings(max_examples=150, deadline=None)
    @given(st.lists(areas().filter(lambda area: not area.is_empty), min_size=1, max_size=2))
    def test_a_cell_is_touched_where_it_shares_area_with_a_polygon(self, shapes: list[Any]) -> None:
        polygons = Polygons(tuple(shapes), ("0",) * len(shapes), UTM, "drawn")
        expected = by_definition(polygons.geometries, self.GRID)
        np.testing.assert_array_equal(polygons.touched(self.GRID), expected)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(3, 200), st.floats(0.01, 60), st.floats(0.5, 20))
    def test_shores_and_holes_touch_the_cells_that_they_share_area_with(
        self, seed: int, count: int, radius: float, cell: float
    ) -> None:
        """Stars of any size with a hole, vertices anywhere, on rotated and mirrored grids too."""
        rng = np.random.default_rng(seed)
        turn = np.sort(rng.uniform(0, 2 * np.pi, count))
        reach = radius * rng.uniform(0.3, 1, count)
        centre = rng.uniform(-20, 60, 2)
        ring = centre + np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1)
        star = Polygon(ring)
        if not star.is_valid:
            star = shapely.make_valid(star, method="structure")
        assume(star.geom_type == "Polygon")
        area = Polygon(star.exterior).difference(star.centroid.buffer(radius / 8))
        assume(not area.is_empty)
        transform = Affine(cell, 0, -7.3, 0, -cell, 61.9) @ Affine.rotation(rng.choice([0, 0, 33]))
        grid = Grid(UTM, transform @ Affine.scale(rng.choice([-1, 1]), 1), (13, 8))
        polygons = Polygons((area,), ("0",), UTM, "star")
        np.testing.assert_array_equal(polygons.touched(grid), by_definition((area,), grid))

    def test_edges_and_corners_in_common_do_not_count(self) -> None:
        exactly = box(500020, 4999960, 500050, 4999980)
        touched = Polygons((exactly,), ("0",), UTM, "p").touched(self.GRID)
        expected = np.zeros((9, 12), dtype=bool)
        expected[2:4, 2:5] = True
        np.testing.assert_array_equal(touched, expected)

    def test_edges_that_miss_by_float_noise_lie_on_the_lattice(self) -> None:
        grid = Grid(UTM, Affine(0.1, 0, 500000.3, 0, -0.1, 5000000.7), (50, 50))
        xs, ys = [500000.3 + 0.1 * k for k in (7, 31)], [5000000.7 - 0.1 * k for k in (9, 23)]
        touched = Polygons((box(xs[0], ys[1], xs[1], ys[0]),), ("0",), UTM, "p").touched(grid)
        expected = np.zeros((50, 50), dtype=bool)
        expected[9:23, 7:31] = True
        np.testing.assert_array_equal(touched, expected)

    def test_a_hole_is_left_out_but_for_its_rim(self) -> None:
        ring = box(500005, 4999925, 500105, 4999995).difference(
            box(500025, 4999945, 500085, 4999975)
        )
        touched = Polygons((ring,), ("0",), UTM, "p").touched(self.GRID)
        np.testing.assert_array_equal(touched, by_definition((ring,), self.GRID))
        assert not touched[3:5, 3:8].any()
        assert touched[2:6, 2].all()

    def test_far_away_and_all_around(self) -> None:
        away = Polygons((box(0, 0, 10, 10),), ("0",), UTM, "p")
        around = Polygons((box(0, 0, 1e6, 9e6),), ("0",), UTM, "p")
        assert not away.touched(self.GRID).any()
        assert around.touched(self.GRID).all()

    def test_polygons_in_degrees_are_carried_to_the_grid(self) -> None:
        polygons = read_polygons(SQUARE)
        there = polygons.to_crs(UTM)
        left, _, _, top = there.bounds
        grid = Grid(UTM, Affine(600, 0, left - 900, 0, -600, top + 900), (24, 17))
        expected = by_definition(there.geometries, grid)
        np.testing.assert_array_equal(polygons.touched(grid), expected)

    def test_many_vertices_in_few_steps_of_work(self) -> None:
        """More crossings than are looked at in one go, and the bounds of each row as oracle."""
        grid = Grid(UTM, Affine(1, 0, 0, 0, -1, 1000), (1000, 1000))
        teeth = np.arange(0, 1000, 0.5)
        reach = np.where(np.arange(len(teeth)) % 2, 999.25, 0.75)
        comb = Polygon([(0.25, 0), *zip(reach, teeth, strict=True), (0.25, 999.5)])
        touched = Polygons((comb,), ("0",), UTM, "comb").touched(grid)
        assert touched[1:].all(axis=1).all()

    def test_a_grid_without_place(self) -> None:
        with pytest.raises(GridError, match="got a grid without CRS"):
            read_polygons(SQUARE).touched(Grid(None, Affine.identity(), (2, 2)))
