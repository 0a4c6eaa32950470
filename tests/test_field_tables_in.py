"""Tables of places that people have: frames, layers, tables, geometries, chips; and bad rows.

A row of a table is a situation: its name, how the input is made, and what is right: the ids and
boxes that are read, or what the refusal or the warning says. Boxes are written out or come from
pyproj, shapely and geopandas.
"""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import astuple
from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import Transformer
from shapely.geometry import MultiPoint, MultiPolygon, Point, Polygon, box, mapping

from rs_embed import (
    BBox,
    FetchSpec,
    NamedPlace,
    OutputSpec,
    Places,
    PointBuffer,
    TemporalSpec,
    estimate,
    export_batch,
    get_embedding,
    get_embeddings_batch,
    places_of,
    read_vectors,
)
from rs_embed.errors import RsEmbedWarning, SpecError, UnknownNameError

Make = Callable[[Path], Any]
A, B = box(10, 50, 10.1, 50.1), box(10.2, 50, 10.3, 50.1)
BOXES: list[Any] = [BBox(10, 50, 10.1, 50.1), BBox(10.2, 50, 10.3, 50.1)]
POINTS: list[Any] = [PointBuffer(10, 50, 640), PointBuffer(10.2, 50, 640)]
BOWTIE = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
BY_SIZE: dict[str, Any] = {"buffer_m": 640}


def frame(geometry: Any = (A, B), crs: Any = 4326, **columns: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=list(geometry), crs=crs)


def file(name: str, written: gpd.GeoDataFrame, **options: Any) -> Make:
    def write(folder: Path) -> Path:
        path = folder / name
        if path.suffix == ".parquet":
            written.to_parquet(path)
        elif path.suffix == ".zip":
            (folder / "z").mkdir()
            written.to_file(folder / "z" / "a.shp")
            shutil.make_archive(str(path.with_suffix("")), "zip", folder / "z")
        else:
            written.to_file(path, **options)
        return path

    return write


def text(content: str, name: str = "p.csv") -> Make:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return write


def given(value: Any) -> Make:
    return lambda _: value


UTM = Transformer.from_crs(32632, 4326, always_xy=True)
NAMED = frame(id=["a", "b"])
# Name -> how the places are made, arguments, ids, places.
PLACES: dict[str, tuple[Make, dict[str, Any], list[Any], list[Any]]] = {
    "GeoDataFrame": (given(NAMED), {}, ["a", "b"], BOXES),
    "GeoSeries": (given(NAMED.geometry), {}, [0, 1], BOXES),
    "in UTM": (
        given(frame([Point(5e5, 5.5e6)], 32632)), BY_SIZE, [0],
        [PointBuffer(*UTM.transform(5e5, 5.5e6), 640)],
    ),
    "in NAD83": (given(frame(crs=4269)), {}, [0, 1], BOXES),
    "index of a selection": (given(frame(n=[1, 2]).set_index(pd.Index([7, 3]))), {}, [7, 3], BOXES),
    "id column": (given(frame(id=[1, 1], code=[5, 6])), {"id_column": "code"}, [5, 6], BOXES),
    "GeoPackage": (file("p.gpkg", NAMED), {}, ["a", "b"], BOXES),
    "GeoPackage, FIDs": (file("p.gpkg", frame(n=[1, 2])), {}, [1, 2], BOXES),
    "a layer": (file("p.gpkg", NAMED, layer="one"), {"layer": "one"}, ["a", "b"], BOXES),
    "GeoParquet": (file("p.parquet", NAMED), {}, ["a", "b"], BOXES),
    "Shapefile": (file("p.shp", NAMED), {}, ["a", "b"], BOXES),
    "zipped Shapefile": (file("p.zip", NAMED), {}, ["a", "b"], BOXES),
    "GeoJSON": (file("p.geojson", NAMED), {}, ["a", "b"], BOXES),
    "GeoJSON mapping": (given(NAMED.__geo_interface__), {}, ["a", "b"], BOXES),
    "shapely": (given([A, B]), {}, [0, 1], BOXES),
    "one geometry": (given(A), {}, [0], BOXES[:1]),
    "lone mappings": (given([mapping(A), mapping(B)]), {}, [0, 1], BOXES),
    "points": (given([Point(10, 50), Point(10.2, 50)]), BY_SIZE, [0, 1], POINTS),
    "MultiPoint of one": (given(frame([MultiPoint([(10, 50)])])), BY_SIZE, [0], POINTS[:1]),
    "heights": (given([shapely.force_3d(A, 5), shapely.force_3d(B, 5)]), {}, [0, 1], BOXES),
    "pairs": (given([(10, 50), (10.2, 50)]), BY_SIZE, [0, 1], POINTS),
    "array": (given(np.array([(10, 50), (10.2, 50)])), BY_SIZE, [0, 1], POINTS),
    "BBox": (given(BOXES), {}, [0, 1], BOXES),
    "BBox and PointBuffer": (given([BOXES[0], POINTS[0]]), {}, [0, 1], [BOXES[0], POINTS[0]]),
    "NamedPlace": (given([NamedPlace("x", BOXES[0])]), {}, ["x"], BOXES[:1]),
    "DataFrame": (
        given(pd.DataFrame({"Longitude": [10, 10.2], "lat": 50})), BY_SIZE, [0, 1], POINTS,
    ),
    "CSV": (text("id,lng,Latitude\n007,10,50\n8,10.2,50\n"), BY_SIZE, ["007", "8"], POINTS),
    "decimal commas": (
        text("long;lat;buffer_m\n10,0;50;640,0\n10,2;50,0;640\n"), {}, [0, 1], POINTS,
    ),
    "own buffer_m": (
        given(frame([Point(10, 50)], buffer_m=[640])), {"buffer_m": 5}, [0], POINTS[:1],
    ),
    "0..360": (given([box(284.5, 0, 285, 1)]), {}, [0], [BBox(-75.5, 0, -75, 1)]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "ids", "right"), PLACES.values(), ids=PLACES)
def test_places(
    make: Make, arguments: dict[str, Any], ids: list[Any], right: list[Any], tmp_path: Path
) -> None:
    places = places_of(make(tmp_path), **arguments)
    assert places.notes == ()
    assert places.ids == ids
    assert [type(own) for own in places.ids] == [type(own) for own in ids]
    for place, expected in zip(places.spatials, right, strict=True):
        assert type(place) is type(expected)
        assert astuple(place) == pytest.approx(astuple(expected), abs=2e-6)
    assert isinstance(places.frame, gpd.GeoDataFrame)
    assert len(places.frame) == len(ids)


MIXED = [shapely.set_srid(A, 4326), shapely.set_srid(B, 32632)]
REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "no CRS": (given(frame(crs=None)), {}, r"states no CRS.*frame\.set_crs\('EPSG:4326'\)"),
    "null": (given(frame([A, None])), {}, "row 1: got no geometry, .*leave it out"),
    "empty": (given(frame([A, Polygon()])), {}, "row 1: got an empty geometry"),
    "invalid": (given(frame([A, BOWTIE])), {}, "row 1: got an invalid polygon.*shapely.make_valid"),
    "not finite": (given(frame([Point(np.inf, 1)])), BY_SIZE, "row 0: got a coordinate that is"),
    "lines": (given(frame([A.exterior])), {}, "row 0: got a geometry of type 'Lin"),
    "mixed CRSs": (given(MIXED), {}, "feature 1: got the CRS EPSG:32632, expected EPSG:4326"),
    "no rows": (given(frame([])), {}, "holds no places"),
    "empty list": (given([]), {}, "holds no places"),
    "beyond the pole": (given([Point(10, 95)]), BY_SIZE, "feature 0.*latitudes in -90..90"),
    "swapped": (given([Point(37.7, -122.4)]), BY_SIZE, "does latitude come first .*Then swap"),
    "swapped CSV": (text("lon,lat\n37.7,-122.4\n"), BY_SIZE, "line 2: .*swapped"),
    "metres": (given([box(500000, 5e6, 500100, 5000100)]), {}, "reproject them: ogr2ogr"),
    "metres as x and y": (text("x,y\n5e5,5e6\n"), BY_SIZE, "line 2 .*metres of a projection"),
    "outside the CRS": (given(frame([Point(1e12, 1e12)], 32632)), BY_SIZE, "outside the area of"),
    "no size": (given([Point(10, 50)]), {}, "got a point without buffer_m"),
    "size of a polygon": (given(frame(buffer_m=[5, None])), {}, "row 0: got buffer_m=5"),
    "size for all polygons": (given(frame()), BY_SIZE, "every place is a box or polygon"),
    "size for boxes": (given(BOXES), BY_SIZE, "places that have a size of their own"),
    "negative size": (given([Point(1, 2)]), {"buffer_m": -5}, "got buffer_m=-5"),
    "zero scale": (given(frame(scale_m=[10, 0])), {}, "row 1: got scale_m=0"),
    "not a date": (given(frame(date=["2020-01-01", "May"])), {}, "row 1, date: got 'May'.*rename"),
    "half a period": (given(frame(start=["2020-01-01", None], end=["2020-02-01"] * 2)), {},
                      "row 1, start and end: got one of the two"),
    "turned period": (given(frame(start=["2020-03-01"] * 2, end=["2020-02-01"] * 2)), {},
                      "row 0, start and end: got the period"),
    "no such column": (given(frame()), {"id_column": "code"}, "unknown id column 'code'"),
    "ids of a list": (given(frame(id=[[1], [2]])), {}, r"row 0: got id=\[1\]"),
    "layer of a frame": (given(frame()), {"layer": "a"}, "which has no layers"),
    "two columns": (
        given(pd.DataFrame([[1, 2, 3]], columns=["lon", "lat", "lat"])), BY_SIZE, "several columns",
    ),
    "no columns": (given(pd.DataFrame({"name": ["a"]})), {}, "expected columns lon,lat"),
    "mixed list": (given([A, "here"]), {}, "row 1: got 'here' .*expected all of one kind"),
    "a number": (given(3), {}, "got the int as places, expected a file"),
    "no file": (given("gone.gpkg"), {}, "gone.gpkg: cannot be read .no such file"),
    "no images": (lambda folder: folder, {}, "holds no images"),
    "no such layer": (file("p.gpkg", NAMED), {"layer": "b"}, "unknown layer of .*'b'"),
    "half the Earth": (given([box(-100, 0, 100, 1)]), {}, "expected at most half the Earth"),
    "unknown polygons": (given([A]), {"polygons": "cover it"}, "unknown polygons"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "match"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(make: Make, arguments: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=match):
        places_of(make(tmp_path), **arguments)


def test_fixes_work() -> None:
    assert places_of(frame(crs=None).set_crs("EPSG:4326")).spatials == BOXES
    bowtie = frame([BOWTIE])
    bowtie.geometry = shapely.make_valid(bowtie.geometry.to_numpy())
    assert places_of(bowtie).spatials == [BBox(0, 0, 1, 1)]
    swapped = shapely.transform(Point(37.7, -122.4), lambda at: at[:, ::-1])
    assert places_of([swapped], buffer_m=5).spatials == [PointBuffer(-122.4, 37.7, 5)]


TOLD: dict[str, tuple[Make, dict[str, Any], str, list[Any]]] = {
    "repeated id": (given(frame(id=["a", "a"])), {},
                    r"row 1 has the id of an earlier one \('a'\), so the rows are", [0, 1]),
    "int and text": (given(frame(id=[1, "1"])), {}, "row 1 has the id of an earlier one", [0, 1]),
    "missing id": (given(frame(id=["a", None])), {}, "row 1 has no id, so the rows are", [0, 1]),
    "empty cell": (text("id,lon,lat\na,1,2\n,1,2\n"), BY_SIZE, "line 3 has no id", [0, 1]),
    "repeated index": (given(pd.concat([frame([A]), frame([B])])), {}, "row 1 has the id", [0, 1]),
    "x and y": (text("id,x,y\na,10,50\n"), BY_SIZE, "x and y were taken as longitude", ["a"]),
    "whole decimal ids": (given(frame(id=[7.0, 8.0])), {}, "decimal .*7.0, .*used as 7, 8", [7, 8]),
    "decimal ids": (given(frame(id=[7.5, 8.0])), {}, "used as '7.5', '8'$", ["7.5", "8"]),
    "half a period": (given(frame(start=["2020-01-01"] * 2)), {}, "of dates 'start'", [0, 1]),
    "antimeridian": (given([box(179.9, 0, 180.1, 0.1)]), {},
                     "crosses the antimeridian, so the square around it", [0]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "match", "ids"), TOLD.values(), ids=TOLD)
def test_told(
    make: Make, arguments: dict[str, Any], match: str, ids: list[Any], tmp_path: Path
) -> None:
    places = places_of(make(tmp_path), **arguments)
    (note,) = places.notes
    assert re.search(match, note.message)
    assert places.ids == ids


def test_attributes_keep_their_types(tmp_path: Path) -> None:
    """Whole numbers stay whole beside missing ones, which GDAL and pandas make decimal."""
    columns = {"id": [2**53 + 1, 7], "crop": ["maize", None], "n": pd.array([1, None], "Int64"),
               "x": [0.5, 1.5], "ok": [True, False]}  # fmt: skip
    for name in ("a.gpkg", "a.parquet", "a.geojson"):
        found = places_of(file(name, frame(**columns))(tmp_path))
        assert found.ids == columns["id"]
        types = {name: str(kind) for name, kind in found.frame.dtypes.items()}
        assert types["id"] == "int64"
        assert types["n"] == "Int64"
        assert types["x"] == "float64"
        assert types["ok"] == "bool"
        assert found.frame["crop"][found.frame.index[0]] == "maize"
        assert found.frame.crs.is_geographic
    table = text("id,lon,lat,zip,n,x\n1,10,50,01234,5,0.5\n2,10,50,1,,2\n")(tmp_path)
    found = places_of(table, buffer_m=5)
    assert found.frame["zip"].tolist() == ["01234", "1"]
    assert str(found.frame["n"].dtype) == "Int64"
    assert str(found.frame["x"].dtype) == "float64"
    metres = frame([box(500000, 0, 500100, 100)], 32633)
    assert places_of(metres).frame.crs == 32633


JUNE = TemporalSpec.range("2022-06-01", "2022-07-01")
PERIODS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "days": ({"date": ["2022-06-01", date(2022, 6, 2)]},
             [TemporalSpec.range(f"2022-06-0{d}", f"2022-06-0{d + 1}") for d in (1, 2)]),
    "periods": ({"Start": ["2022-06-01", None], "END": ["2022-07-01", None]}, [JUNE, None]),
    "times": ({"start": pd.to_datetime(["2022-06-01"] * 2),
               "end": pd.to_datetime(["2022-06-30T23:59:59"] * 2)}, [JUNE, JUNE]),
    "time zone": ({"date": pd.to_datetime(["2022-06-01T23:00-05:00"] * 2)},
                  [TemporalSpec.range("2022-06-02", "2022-06-03")] * 2),
    "scene": ({"start_datetime": ["2022-06-01T00:00:00Z"] * 2, "datetime": ["2022-06-05"] * 2,
               "end_datetime": ["2022-06-30T10:00:00Z"] * 2}, [JUNE, JUNE]),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "right"), PERIODS.values(), ids=PERIODS)
def test_a_period_for_each(columns: dict[str, Any], right: list[Any]) -> None:
    found = places_of(frame(**columns))
    assert found.temporals == right
    assert found.notes == ()


@pytest.mark.filterwarnings("ignore:Normalized/laundered field name", "ignore:Column names longer")
def test_names_that_a_shapefile_cuts(tmp_path: Path) -> None:
    """GDAL writes ``start_date`` and ``end_dateti``; for other names an error has the near one."""
    written = frame(start_datetime="2022-06-01", end_datetime="2022-07-01", field_number=[5, 6])
    path = file("p.shp", written)(tmp_path)
    found = places_of(path, id_column="field_numb")
    assert found.temporals == [JUNE, JUNE]
    assert found.ids == [5, 6]
    assert found.notes == ()
    with pytest.raises(UnknownNameError, match="did you mean 'field_numb'"):
        places_of(path, id_column="field_number")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: [(10 + i / n, 50) for i in range(n)],
        lambda n: pd.DataFrame({"lon": np.linspace(10, 11, n), "lat": 50.0, "id": np.arange(n)}),
        lambda n: gpd.GeoSeries(gpd.points_from_xy(np.linspace(4e5, 5e5, n), [5e6] * n), crs=32632),
    ],
    ids=["pairs", "DataFrame", "GeoSeries"],
)
def test_time_grows_with_the_number_of_rows(make: Any) -> None:
    def seconds(count: int) -> float:
        places = make(count)
        began = time.process_time()
        assert len(places_of(places, buffer_m=80)) == count
        return time.process_time() - began

    seconds(100)
    assert seconds(40_000) < 30 * max(seconds(5_000), 0.05)  # 64 times if it were quadratic


# --- from one end to the other -------------------------------------------------------------

TINY: dict[str, Any] = {"backend": "sample", "variant": "tiny", "input_prep": "tile"}
L_SHAPE = box(-75.63, 37.69, -75.61, 37.70).difference(box(-75.62, 37.695, -75.61, 37.70))
FIELD = box(-75.6162, 37.6937, -75.615, 37.6947)  # 106 x 111 m


def pooled_by_shapely(shape: Any, bounds: Any) -> Any:
    """Return the mean token of the window, weighted by areas that shapely computes."""
    grid = get_embedding("scalemae", spatial=bounds, output=OutputSpec.grid(), **TINY).data
    step = abs(grid.rio.resolution()[0]) / 2
    in_crs = gpd.GeoSeries([shapely.segmentize(shape, 1e-4)], crs=4326).to_crs(grid.rio.crs)[0]
    areas = np.array(
        [
            [in_crs.intersection(box(x - step, y - step, x + step, y + step)).area for x in grid.x]
            for y in grid.y
        ]
    )
    areas = areas * np.isfinite(grid.values[0])
    return (np.nan_to_num(grid.values) * areas).sum((1, 2)) / areas.sum()


def test_a_polygon_is_pooled_over_what_it_covers() -> None:
    found = get_embedding("scalemae", spatial=L_SHAPE, **TINY)
    right = pooled_by_shapely(L_SHAPE, BBox(*L_SHAPE.bounds))
    assert np.abs(found.data - right).max() < 2e-5
    assert found.meta["polygon"]["covered"] == pytest.approx(1, abs=1e-6)
    whole = get_embedding("scalemae", spatial=BBox(*L_SHAPE.bounds), **TINY)
    assert np.abs(found.data - whole.data).max() > 1e-3
    assert whole.meta["polygon"] is None
    assert found.meta["fingerprint"] != whole.meta["fingerprint"]
    boxes = get_embeddings_batch("scalemae", spatials=[L_SHAPE], polygons="box", **TINY)
    np.testing.assert_array_equal(boxes[0].data, whole.data)  # type: ignore[union-attr]
    grid = get_embedding("scalemae", spatial=L_SHAPE, output=OutputSpec.grid(), **TINY).data
    assert np.isfinite(grid.values[0]).mean() == pytest.approx(0.75, abs=0.1)
    with pytest.raises(SpecError, match="got pooling='cls' for polygons.*polygons='box'"):
        get_embedding("scalemae", spatial=FIELD, output=OutputSpec.pooled("cls"), **TINY)


@pytest.mark.parametrize("prep", ["tile", "resize"])
def test_a_small_field_is_seen_with_its_surroundings(prep: str) -> None:
    with pytest.warns(match="smaller than an image must be, .*surroundings, 16 x 16 px") as told:
        found = get_embedding("scalemae", spatial=FIELD, **{**TINY, "input_prep": prep})
    assert len(told) == 1
    assert found.meta["grid"]["shape"] == [16, 16]
    assert found.meta["warnings"] == [str(told[0].message)]
    utm = gpd.GeoSeries([FIELD], crs=4326).to_crs(32618)[0]
    left, bottom, right, top = utm.bounds
    assert found.meta["polygon"]["size_px"] == pytest.approx(
        [(top - bottom) / 10, (right - left) / 10], abs=0.01
    )
    x, y = (found.meta["grid"]["transform"][i] for i in (2, 5))
    assert x <= left < right <= x + 160
    assert y - 160 <= bottom < top <= y
    patch_m = found.meta["used_patch_size"] * found.meta["input_res_m"]
    assert found.meta["polygon"]["tokens"] == pytest.approx(utm.area / patch_m**2, rel=1e-3)


def test_across_the_antimeridian() -> None:
    halves = MultiPolygon([box(179.9, 10, 180, 10.1), box(-180, 10, -179.9, 10.1)])
    drawn_on = box(179.9, 10, 180.1, 10.1)
    in_utm = gpd.GeoSeries([drawn_on], crs=4326).to_crs(32601)
    for shapes in ([halves], [drawn_on], in_utm):
        places = places_of(shapes)
        (place,) = places.spatials
        assert isinstance(place, PointBuffer)
        assert abs(place.lon) == pytest.approx(180, abs=1e-3)
        assert place.lat == pytest.approx(10.05, abs=1e-3)
        assert 10_900 < place.buffer_m < 13_000  # 0.2 degrees are 21.9 km
        assert places.shapes is not None
        assert places.shapes[0].area == pytest.approx(0.02, rel=1e-3)


@pytest.fixture
def fields() -> gpd.GeoDataFrame:
    return frame([L_SHAPE, FIELD], id=["l", "small"], crop=["maize", None])


def export(places: Any, folder: Path, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RsEmbedWarning)
        return export_batch("scalemae", places, output=folder / "v.npz", **TINY, **arguments)


def test_batch_list_and_single_calls_agree(fields: gpd.GeoDataFrame, tmp_path: Path) -> None:
    report = export(fields, tmp_path)
    vectors = read_vectors(report.path)
    assert vectors.id.tolist() == ["l", "small"]
    with pytest.warns(match="surroundings"):
        listed = get_embeddings_batch("scalemae", spatials=fields, **TINY)
    for row, one in zip(vectors.embedding, listed, strict=True):
        assert np.abs(row - one.data).max() <= 1e-5  # type: ignore[union-attr]
    found = estimate("scalemae", spatials=fields, **TINY)
    assert (found.places, found.refused) == (2, {})
    assert export(fields, tmp_path).finished_before


OTHER: dict[str, Any] = {
    "period": lambda f: f.assign(date="2022-06-01"),
    "scale": lambda f: f.assign(scale_m=20.0),
    "shape": lambda f: f.set_geometry([L_SHAPE, box(*FIELD.bounds).buffer(1e-5)]),
    "boxes": lambda f: f,
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_rows_state_is_part_of_the_request(
    change: Any, fields: gpd.GeoDataFrame, tmp_path: Path
) -> None:
    export(fields, tmp_path)
    arguments = {"polygons": "box", "on_error": "return"} if change is OTHER["boxes"] else {}
    with pytest.raises(OSError, match="with another request"):
        export(change(fields), tmp_path, **arguments)


def test_what_rows_state_reaches_the_provider(fields: gpd.GeoDataFrame) -> None:
    own = fields.assign(scale_m=[20.0, None], date=["2022-06-01", "2022-07-01"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RsEmbedWarning)
        first, second = get_embeddings_batch("scalemae", spatials=own, **TINY)
    assert first.meta["used_scale_m"] == pytest.approx(20, rel=1e-3)  # type: ignore[union-attr]
    assert second.meta["used_scale_m"] == pytest.approx(10, rel=1e-3)  # type: ignore[union-attr]
    assert any("2022-06-01 to 2022-06-02" in w for w in first.meta["warnings"])  # type: ignore[union-attr]
    for stated in ({"temporal": TemporalSpec.year(2022)}, {"fetch": [FetchSpec()] * 2}):
        with pytest.raises(SpecError, match="state it for each place, expected one of them"):
            get_embeddings_batch("scalemae", spatials=own, **TINY, **stated)


def test_chips(write_scene: Any, pixels: Any, tmp_path: Path) -> None:
    folder = tmp_path / "chips"
    (folder / "b").mkdir(parents=True)
    shutil.copy(write_scene(np.tile(pixels, (1, 2, 2))), folder / "b" / "one.tif")
    (folder / "broken.tif").write_text("no image")
    places = places_of(folder)
    assert places.ids == ["b/one.tif", "broken.tif"]
    assert places.spatials[1] is None
    options = {"variant": "tiny", "input_prep": "tile"}
    report = export_batch("scalemae", folder, output=tmp_path / "v.npz", **options)
    assert list(report.errors) == ["broken.tif"]
    alone = get_embedding("scalemae", imagery=folder / "b" / "one.tif", **options)
    vectors = read_vectors(report.path)
    assert np.abs(vectors.embedding[0] - alone.data).max() <= 1e-5
    centre = places.frame.geometry[0].centroid
    assert (vectors.lon[0], vectors.lat[0]) == pytest.approx((centre.x, centre.y))


def test_places_go_in_once_read() -> None:
    places = places_of([A])
    assert isinstance(places, Places)
    assert places_of(places) is places
    with pytest.raises(UnknownNameError):
        places_of(A, polygons="boxes")  # type: ignore[arg-type]
