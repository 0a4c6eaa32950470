"""Features that people have: ids, CRS, longitudes, small fields and dates of files and objects.

A row of a table is a situation: its name, how the source is made, and what is right: the ids and
shapes that are read, or what the refusal says. Shapes are written out or come from shapely and
GDAL; a refusal with a fix has a row in ``FIXED`` where that fix is tried.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rioxarray  # noqa: F401  # registers the accessor ``.rio``
import shapely
import xarray as xr
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from rs_embed import (
    BBox,
    NamedPlace,
    PointBuffer,
    embed_area,
    export_batch,
    inspect_input,
    read_places,
    read_vectors,
    sample_points,
    zonal_mean,
)
from rs_embed.errors import ImageryError, SpecError, TemporalWarning
from rs_embed.files.polygons import read_polygons

Make = Callable[[Path], Any]
FAR = 9007199254740993  # 2**53 + 1: the first integer that a decimal number cannot hold
A, B, C = (box(number, 0, number + 1, 1) for number in range(3))
JUMP = Polygon([(179, 0), (-179, 0), (-179, 1), (179, 1)])
HALVES = MultiPolygon([box(179, 0, 180, 1), box(-180, 0, -179, 1)])
UTM_SQUARE = box(500000, 0, 500100, 100)
UTM_CORNER = Transformer.from_crs(32633, 4326, always_xy=True).transform(500100, 100)


def feature(shape: Any, properties: Any = None, **members: Any) -> dict[str, Any]:
    geometry = shape if isinstance(shape, dict) else mapping(shape)
    return {"type": "Feature", "properties": properties, "geometry": geometry, **members}


def collection(*features: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), **members}


def crs(name: str) -> dict[str, Any]:
    return {"crs": {"type": "name", "properties": {"name": name}}}


def json_file(content: Any, name: str = "in.geojson") -> Make:
    def write(folder: Path) -> Path:
        (folder / name).write_text(json.dumps(content))
        return folder / name

    return write


def layer(
    name: str,
    fields: dict[str, Any],
    shapes: Any = (A, B, C),
    epsg: int = 4326,
    **more: Any,
) -> Make:
    """Write a file with GDAL; None in a column of integers is NULL."""

    def write(folder: Path) -> Path:
        values = {
            n: np.array([0 if v is None else v for v in column]) for n, column in fields.items()
        }
        masks = [np.array([v is None for v in column]) for column in fields.values()]
        pyogrio.raw.write(
            folder / name, np.array([shapely.to_wkb(s) for s in shapes], dtype=object),
            list(values.values()), list(values), field_mask=masks,
            geometry_type="Polygon", crs=f"EPSG:{epsg}", **more,
        )  # fmt: skip
        return folder / name

    return write


def frame(ids: Any, *, column: str = "id", index: Any = None, **more: Any) -> Make:
    def make(folder: Path) -> Any:
        geopandas = pytest.importorskip("geopandas")
        shapes = [box(i, 0, i + 1, 1) for i in range(len(ids))]
        options = {"crs": 4326} | more
        return geopandas.GeoDataFrame({column: ids}, geometry=shapes, index=index, **options)

    return make


def integers(*values: Any) -> Any:
    return pytest.importorskip("pandas").array(list(values), dtype="Int64")


def frame_read_from(make: Make) -> Make:
    return lambda folder: pytest.importorskip("geopandas").read_file(make(folder))


def frame_as_text(make: Make) -> Make:
    return lambda folder: json.loads(make(folder).to_json())


def ogr2ogr(*options: str, source: Make, name: str) -> Make:
    """Apply the fix of a message with GDAL's own program."""

    def run(folder: Path) -> Path:
        if shutil.which("ogr2ogr") is None:
            pytest.skip("needs ogr2ogr")
        command = ["ogr2ogr", *options, str(folder / name), str(source(folder))]
        subprocess.run(command, check=True, capture_output=True)
        return folder / name

    return run


NULLS = {"id": [7, None, FAR]}

IDS: dict[str, tuple[Make, list[Any]]] = {
    "integers of a GeoPackage": (layer("a.gpkg", {"id": [7, 8, FAR]}), [7, 8, FAR]),
    "NULL in a GeoPackage": (layer("a.gpkg", NULLS), [7, 2, FAR]),
    "NaN beside numbers": (layer("a.gpkg", {"id": [7.5, np.nan, 9.0]}), ["7.5", "2", "9"]),
    "NULL in a Shapefile": (layer("a.shp", NULLS), [7, 1, FAR]),
    "NULL in GeoJSON": (layer("a.geojson", NULLS), [7, 1, FAR]),
    "integers of 32 bits": (layer("a.gpkg", {"id": np.array([7, 8], "int32")}, (A, B)), [7, 8]),
    "decimal column": (layer("a.gpkg", {"id": [7.0, 8.0, 9.0]}), [7, 8, 9]),
    "true decimals": (layer("a.gpkg", {"id": [7.5, 8.0, 9.0]}), ["7.5", "8", "9"]),
    "leading zeros": (layer("a.gpkg", {"id": ["007", "07", "7"]}), ["007", "07", "7"]),
    "column ID": (layer("a.shp", {"ID": [7, 8, 9]}), [7, 8, 9]),
    "id is the FID": (layer("a.gpkg", {"id": [7, 8, 9]}, layer_options={"FID": "id"}), [7, 8, 9]),
    "no ids": (layer("a.gpkg", {"name": ["a", "b", "c"]}), ["1", "2", "3"]),
    "beyond 64 bits": (lambda _: feature(A, {"id": 2**70}), [str(2**70)]),
    "property before member": (lambda _: collection(feature(A, {"id": 7}, id="0")), [7]),
    "member alone": (lambda _: collection(feature(A, {"a": 1}, id=7), feature(B, id=8)), [7, 8]),
    "whole decimal in JSON": (lambda _: feature(A, {"id": 7.0}), [7]),
    "JSON with null": (lambda _: collection(feature(A, {"id": "a"}), feature(B, {"id": None})),
                       ["a", "1"]),
    "frame": (frame([8, 7]), [8, 7]),
    "frame with text": (frame(["007", "7"]), ["007", "7"]),
    "frame, sorted": (frame([8, 7], index=[1, 0]), [8, 7]),
    "frame, column ID": (frame([8, 7], column="ID"), [8, 7]),
    "frame with <NA>": (lambda f: frame(integers(7, None, FAR))(f), [7, 1, FAR]),
    "frame, NULL as NaN": (frame([7.0, np.nan]), [7, 1]),
    "frame of a GeoPackage": (frame_read_from(layer("a.gpkg", {"id": [7, None, 9]})), [7, 1, 9]),
    "frame with an index of text": (frame([1, 2], column="a", index=["x", "y"]), ["x", "y"]),
    "frame with an index twice": (frame([1, 2], column="a", index=[5, 5]), ["5", "5"]),
    "frame, columns of numbers": (lambda f: frame([8, 7])(f).assign(a=1).rename(
        columns={"a": 0}), [8, 7]),
    "frame, unsigned": (lambda f: frame(np.array([2**64 - 1], np.uint64))(f), [str(2**64 - 1)]),
    "frame, categories": (lambda f: frame(["b", "a"])(f).astype({"id": "category"}), ["b", "a"]),
    "frame as GeoJSON": (frame_as_text(frame([8, 7])), [8, 7]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "ids"), IDS.values(), ids=IDS)
def test_ids_keep_type_and_digits(make: Make, ids: list[Any], tmp_path: Path) -> None:
    polygons = read_polygons(make(tmp_path))
    assert polygons.typed_ids() == ids
    assert polygons.ids == tuple(map(str, ids))


SHAPES: dict[str, tuple[Make, str, Any]] = {
    "0..360": (lambda _: box(284.25, 10, 284.5, 11), "EPSG:4326", box(-75.75, 10, -75.5, 11)),
    "0..360 in a GeoPackage": (
        layer("a.gpkg", {}, [box(284.25, 10, 284.5, 11)]), "EPSG:4326", box(-75.75, 10, -75.5, 11)),
    "up to 360": (lambda _: box(350, 0, 360, 1), "EPSG:4326", box(-10, 0, 0, 1)),
    "past Greenwich": (lambda _: box(350, 0, 370, 1), "EPSG:4326", box(-10, 0, 10, 1)),
    "past 180": (lambda _: box(179, 0, 181, 1), "EPSG:4326", HALVES),
    "past 180, clockwise": (lambda _: box(179, 0, 181, 1, ccw=False), "EPSG:4326", HALVES),
    "past -180": (lambda _: box(-181, 0, -179, 1), "EPSG:4326", HALVES),
    "split, both conventions": (
        lambda _: MultiPolygon([box(170, 0, 185, 1), box(-175, 0, -170, 1)]), "EPSG:4326",
        MultiPolygon([box(170, 0, 180, 1), box(-180, 0, -170, 1)])),
    "hole across 180": (
        lambda _: box(178, 0, 182, 4).difference(box(179, 1, 181, 2)), "EPSG:4326",
        MultiPolygon([box(178, 0, 180, 4), box(-180, 0, -178, 4)]).difference(
            MultiPolygon([box(179, 1, 180, 2), box(-180, 1, -179, 2)]))),
    "SRID 3857 by its old number": (
        lambda _: shapely.set_srid(UTM_SQUARE, 900913), "EPSG:900913", UTM_SQUARE),
    "frame in 0..360, heights in its CRS": (
        lambda f: frame([7], crs="EPSG:4979")(f).translate(284), "EPSG:4979", box(-76, 0, -75, 1)),
    "axis order of GML": (
        ogr2ogr("-f", "GML", "-dsco", "FORMAT=GML3.2",
                source=layer("a.gpkg", {}, (box(10, 50, 11, 52),)), name="a.gml"),
        "EPSG:4326", box(10, 50, 11, 52)),
    "northing first (EPSG:2180)": (
        layer("a.gpkg", {}, (box(500000, 300000, 500100, 300200),), epsg=2180), "EPSG:2180",
        box(500000, 300000, 500100, 300200)),
    "crs in the feature": (
        lambda _: collection(feature(UTM_SQUARE, **crs("EPSG:32633"))), "EPSG:32633", UTM_SQUARE),
    "crs in the geometry (PostGIS)": (
        lambda _: feature({**mapping(UTM_SQUARE), **crs("EPSG:32633")}), "EPSG:32633", UTM_SQUARE),
    "WGS 84 in the geometry": (
        lambda _: collection(feature({**mapping(A), **crs("urn:ogc:def:crs:OGC:1.3:CRS84")})),
        "OGC:CRS84", A),
    "SRID of EWKB": (
        lambda _: shapely.from_wkb(
            shapely.to_wkb(shapely.set_srid(UTM_SQUARE, 32633), include_srid=True)),
        "EPSG:32633", UTM_SQUARE),
    "SRIDs in a list": (
        lambda _: [shapely.set_srid(UTM_SQUARE, 32633)], "EPSG:32633", UTM_SQUARE),
    "JSON-FG in degrees": (
        lambda _: feature(A, coordRefSys="http://www.opengis.net/def/crs/EPSG/0/32633", place=None),
        "EPSG:4326", A),
    "mapping with heights": (lambda _: mapping(shapely.force_3d(A, 5)), "EPSG:4326", A),
    "fix: -wrapdateline": (
        ogr2ogr("-wrapdateline", "-datelineoffset", "90", "-t_srs", "EPSG:4326",
                source=json_file(mapping(JUMP)), name="out.gpkg"), "EPSG:4326", HALVES),
    # tidwall/tile38#650: without the offset, GDAL leaves what begins more than 10 degrees away.
    "fix: -wrapdateline, from far": (
        ogr2ogr("-wrapdateline", "-datelineoffset", "90", "-t_srs", "EPSG:4326",
                source=json_file(mapping(box(-178.785, 10, 169.654, 11))), name="out.gpkg"),
        "EPSG:4326", box(169.654, 10, 180, 11) | box(-180, 10, -178.785, 11)),
    "fix: add 360": (
        lambda _: shapely.transform(JUMP, lambda at: at + (at[:, :1] < 0) * [360, 0]), "EPSG:4326",
        HALVES),
    "fix: subtract 360": (
        lambda _: shapely.transform(
            box(10, 0, 350, 1), lambda at: at - (at[:, :1] > 180) * [360, 0]),
        "EPSG:4326", box(-10, 0, 10, 1)),
    "fix: Esri JSON": (
        ogr2ogr("-t_srs", "EPSG:4326", source=json_file({
            "geometryType": "esriGeometryPolygon", "spatialReference": {"wkid": 4326},
            "fields": [{"name": "id", "type": "esriFieldTypeInteger"}],
            "features": [{"attributes": {"id": 7}, "geometry": {
                "rings": [[[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]]}}],
        }, "in.json"), name="out.geojson"), "OGC:CRS84", A),
    "fix: TopoJSON": (
        ogr2ogr("-a_srs", "EPSG:4326", source=json_file({
            "type": "Topology", "arcs": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]],
            "objects": {"a": {"type": "GeometryCollection", "geometries": [
                {"type": "Polygon", "arcs": [[0]]}]}},
        }, "in.json"), name="out.geojson"), "OGC:CRS84", A),
}  # fmt: skip


@pytest.mark.parametrize(("make", "name", "shape"), SHAPES.values(), ids=SHAPES)
def test_places_of_features(make: Make, name: str, shape: Any, tmp_path: Path) -> None:
    polygons = read_polygons(make(tmp_path))
    (geometry,) = polygons.geometries
    assert polygons.crs.to_string() == name
    assert geometry.is_valid
    assert geometry.symmetric_difference(shape).area < 1e-9 * shape.area


REFUSED: dict[str, tuple[Make, str]] = {
    "decimals beyond 2**53": (
        frame_read_from(layer("a.gpkg", NULLS)), "feature 2: got id=9007199254740992.0, a decimal"),
    "number is another's id": (
        layer("a.gpkg", {"id": [2, None]}, (A, B)), "its number 2 is the id of feature 0"),
    "id true": (lambda _: feature(A, {"id": True}), "feature 0: got id=True, expected text or a n"),
    "empty id": (layer("a.gpkg", {"id": ["a", ""]}, (A, B)), "a.gpkg: got id='', expected print"),
    "frame without CRS": (frame([1], crs=None), "states no CRS, .*set_crs"),
    "two columns of a name": (
        lambda f: frame([1])(f).assign(x=2).rename(columns={"x": "id"}), "duplicated column names"),
    "crs null": (lambda _: {**mapping(A), "crs": None}, "got the CRS None, expected a name"),
    "two CRSs": (
        lambda _: collection(feature(A), feature(UTM_SQUARE, **crs("EPSG:32633"))),
        "feature 1: got the CRS EPSG:32633, expected EPSG:4326"),
    "crs of a part differs": (
        lambda _: collection(feature(A, **crs("EPSG:4326")), **crs("EPSG:32633")),
        "feature 0: got the CRS EPSG:4326, expected EPSG:32633"),
    "two SRIDs": (
        lambda _: [A, shapely.set_srid(UTM_SQUARE, 32633)], "feature 1: got the CRS EPSG:32633"),
    "crs of a geometry in a list": (
        lambda _: [feature({**mapping(A), **crs("EPSG:32633")})], "or a CRS of its own"),
    "drawn from 179 to -179": (lambda _: JUMP, "add 360 to its negative longitudes, or split it"),
    "drawn from 350 to 10": (lambda _: box(10, 0, 350, 1), "subtract 360 from its longitudes"),
    "two turns": (lambda _: box(700, 0, 701, 1), "expected longitudes in -180..180 or 0..360"),
    "TopoJSON": (json_file({"type": "Topology"}, "a.json"), "feature 0: got TopoJSON .*ogr2ogr"),
    "Esri JSON": (
        lambda _: {"attributes": {}, "geometry": {"rings": []}}, "got Esri JSON, expected GeoJSON"),
    "collection of geometries": (
        lambda _: shapely.GeometryCollection([A]), "type 'GeometryCollection', expected Polygon"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(make: Make, match: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=match):
        read_polygons(make(tmp_path))


def test_measures_are_left_out_as_heights_are(tmp_path: Path) -> None:
    """GDAL's own program writes the layer: pyogrio cannot write M."""
    table = tmp_path / "m.csv"
    table.write_text('id,WKT\n7,"POLYGON ZM((0 0 1 5,1 0 1 5,1 1 1 5,0 0 1 5))"\n')
    options = ("-a_srs", "EPSG:4326", "-nlt", "POLYGONZM", "-oo", "GEOM_POSSIBLE_NAMES=WKT")
    polygons = read_polygons(ogr2ogr(*options, source=lambda _: table, name="m.gpkg")(tmp_path))
    assert polygons.geometries[0].equals(Polygon([(0, 0), (1, 0), (1, 1)]))
    assert not polygons.geometries[0].has_z


# --- tables of places ----------------------------------------------------------------------

CROSSING = "make one box or polygon on each side of the antimeridian, or a point with buffer_m"
PLACES: dict[str, tuple[Make, list[NamedPlace] | str]] = {}


def table(name: str, text: str, right: list[NamedPlace] | str) -> None:
    def write(folder: Path) -> Path:
        (folder / "p.csv").write_text(text)
        return folder / "p.csv"

    PLACES[name] = write, right


def geojson(name: str, content: dict[str, Any], right: list[NamedPlace] | str) -> None:
    PLACES[name] = json_file(content), right


table("leading zeros", "id,lon,lat\n007,10,50\n", [NamedPlace("007", PointBuffer(10, 50, 80))])
table("digits", f"id,lon,lat\n{FAR},10,50\n", [NamedPlace(str(FAR), PointBuffer(10, 50, 80))])
table("0..360", "lon,lat\n284.5,50\n", [NamedPlace("0", PointBuffer(-75.5, 50, 80))])
table(
    "boxes in 0..360",
    "minlon,minlat,maxlon,maxlat\n284.5,1,285,2\n1,1,2,2\n",
    [NamedPlace("0", BBox(-75.5, 1, -75, 2)), NamedPlace("1", BBox(1, 1, 2, 2))],
)
table(
    "box past 180",
    "minlon,minlat,maxlon,maxlat\n179.5,0,180.5,1\n",
    f"line 2: .*{CROSSING}: lon=180, lat=0.5",
)
table(
    "fix: two boxes",
    "minlon,minlat,maxlon,maxlat\n179.5,0,180,1\n180,0,180.5,1\n",
    [NamedPlace("0", BBox(179.5, 0, 180, 1)), NamedPlace("1", BBox(-180, 0, -179.5, 1))],
)
table("fix: a point", "lon,lat\n180,0.5\n", [NamedPlace("0", PointBuffer(180, 0.5, 80))])
table("two turns", "lon,lat\n700,50\n", "line 2: got lon=700")
table(
    "boxes with buffer_m",
    "minlon,minlat,maxlon,maxlat,buffer_m\n1,1,2,2,80\n",
    "line 2: got buffer_m=80.* for a box or polygon",
)
geojson("polygon past 180", feature(box(179.5, 0, 180.5, 1)), f"feature 0: .*{CROSSING}")
geojson(
    "polygon in 0..360",
    feature(box(284.5, 0, 285, 1), {"id": "a"}),
    [NamedPlace("a", BBox(-75.5, 0, -75, 1))],
)
geojson("whole decimal", feature(A, {"id": 7.0}), [NamedPlace("7", BBox(0, 0, 1, 1))])
geojson("digits in JSON", feature(A, {"id": FAR}), [NamedPlace(str(FAR), BBox(0, 0, 1, 1))])
geojson("decimals beyond 2**53", feature(A, {"id": 1e17}), "feature 0: got id=1e.17, a decimal")
geojson(
    "property before member", feature(A, {"ID": "a"}, id="0"), [NamedPlace("a", BBox(0, 0, 1, 1))]
)
geojson("polygon with buffer_m", feature(A, {"buffer_m": 80}), "got buffer_m=80 for a box or poly")
geojson(
    "crs in the geometry",
    feature({**mapping(UTM_SQUARE), **crs("EPSG:32633")}),
    "got coordinates in the CRS EPSG:32633",
)
geojson("Esri JSON", {"geometryType": "esriGeometryPoint", "features": []}, "got Esri JSON")
PLACES["fix: reprojected"] = (
    ogr2ogr("-t_srs", "EPSG:4326", "-s_srs", "EPSG:32633", "-noNativeData", "-lco", "RFC7946=YES",
            source=json_file(feature({**mapping(UTM_SQUARE), **crs("EPSG:32633")}, {"id": 7})),
            name="out.geojson"),
    [NamedPlace("7", BBox(15, 0, *UTM_CORNER))],
)  # fmt: skip


@pytest.mark.parametrize(("make", "right"), PLACES.values(), ids=PLACES)
def test_tables_of_places(make: Make, right: list[NamedPlace] | str, tmp_path: Path) -> None:
    path = make(tmp_path)
    points = "lon,lat\n" in path.read_text()
    if isinstance(right, str):
        with pytest.raises(SpecError, match=right):
            read_places(path, buffer_m=80)
        return
    found = read_places(path, buffer_m=80 if points else None)
    assert [place.id for place in found] == [place.id for place in right]
    for place, expected in zip(found, right, strict=True):
        assert type(place.spatial) is type(expected.spatial)
        assert astuple(place.spatial) == pytest.approx(astuple(expected.spatial), abs=1e-7)


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (
            lambda folder: _text(folder, "id,lon,lat,Start,end,buffer_m\na,1,2,x,y,80\n"),
            read_places,
        ),
        (json_file(collection(feature(A, {"Start": 1}), feature(B, {"end": 2}))), read_places),
        (json_file(collection(feature(A, {"Start": 1}), feature(B, {"end": 2}))), read_polygons),
        (layer("a.gpkg", {"Start": ["2020"] * 3, "end": ["2021"] * 3}), read_polygons),
        (lambda f: frame([7])(f).assign(Start="2020", end="2021"), read_polygons),
        (
            lambda _: [feature(A, {"Start": 1}), B, feature(C, {"Start": 1, "end": 2})],
            read_polygons,
        ),
    ],
    ids=["csv", "places of GeoJSON", "zones of GeoJSON", "GeoPackage", "frame", "list"],
)
def test_columns_of_dates_are_named_once(make: Make, read: Any, tmp_path: Path) -> None:
    with pytest.warns(TemporalWarning) as given:
        read(make(tmp_path))
    assert len(given) == 1
    assert "columns of dates 'Start', 'end', which are not used" in str(given[0].message)


def _text(folder: Path, text: str) -> Path:
    (folder / "p.csv").write_text(text)
    return folder / "p.csv"


# --- from one end to the other -------------------------------------------------------------


def degree_map() -> xr.DataArray:
    """Tokens around 75.5 W on a UTM grid; each is the centre of its cell."""
    x, y = 445000 + 100.0 * np.arange(40), 4174000 - 100.0 * np.arange(40)
    values = np.stack(np.broadcast_arrays(x[None, :], y[:, None])).astype(np.float32)
    array = xr.DataArray(values, dims=("d", "y", "x"), coords={"y": y, "x": x})
    placed: xr.DataArray = array.rio.write_crs("EPSG:32618")
    return placed


def test_zones_and_points_in_0_to_360_are_the_same_places(tmp_path: Path) -> None:
    zone, there = box(284.39, 37.69, 284.41, 37.71), box(-75.61, 37.69, -75.59, 37.71)
    path = layer("a.gpkg", {"id": [FAR]}, (zone,))(tmp_path)
    found, right = zonal_mean(degree_map(), path), zonal_mean(degree_map(), there)
    np.testing.assert_allclose(found.values, right.values, rtol=1e-6)
    assert np.isfinite(right.values).all()
    assert found.id.dtype == np.int64
    assert found.id.values.tolist() == [FAR]
    points = sample_points(degree_map(), [(284.4, 37.7), (-75.6, 37.7)])
    np.testing.assert_array_equal(points.values[0], points.values[1])
    assert np.isfinite(points.values).all()
    assert points.lon.values.tolist() == [284.4, -75.6]


def test_maps_in_0_to_360_are_refused_with_a_fix() -> None:
    x, y = 280.5 + np.arange(10), 40.5 - np.arange(10)
    values = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    array = xr.DataArray(values, dims=("d", "y", "x"), coords={"y": y, "x": x})
    array = array.rio.write_crs("EPSG:4326")
    with pytest.raises(SpecError, match="longitudes up to 290, .*assign_coords"):
        sample_points(array, [(284.3, 38.2)])
    fixed = array.assign_coords(x=(array.x + 180) % 360 - 180).sortby("x")
    assert sample_points(fixed, [(284.3, 38.2)]).item() == array.sel(x=284.5, y=38.5).item()


def test_columns_of_points_are_in_order() -> None:
    pandas = pytest.importorskip("pandas")
    points = pandas.DataFrame({"Lat": [37.7], "lon": [-75.6]})
    with pytest.raises(SpecError, match="columns lat, lon, expected .* longitude and latitude"):
        sample_points(degree_map(), points)
    assert np.isfinite(sample_points(degree_map(), points[["lon", "Lat"]]).values).all()


@pytest.mark.parametrize(
    ("build", "fixed"),
    [
        (lambda lon: PointBuffer(lon, 10, 80), PointBuffer(-75.7, 10, 80)),
        (lambda lon: BBox(lon, 10, -75, 11), BBox(-75.7, 10, -75, 11)),
    ],
)
def test_specs_beyond_180_say_what_to_write(build: Any, fixed: Any) -> None:
    with pytest.raises(SpecError, match=r"on=284.3, .*; write it as -75\.7") as refused:
        build(284.3)
    number = re.search(r"write it as ([-.\d]+\d)", str(refused.value))
    assert number is not None
    assert build(float(number[1])) == fixed


FIELD = box(-75.6162, 37.6937, -75.615, 37.6947)  # 106 x 111 m
SHIPPED: dict[str, Any] = {"backend": "sample", "weights": "scalemae-tiny"}


def test_a_field_below_the_least_size_has_a_fix_that_works(tmp_path: Path) -> None:
    """The fix is what the message says, put into a table and a call."""
    fields = json_file(feature(FIELD, {"id": "007"}))(tmp_path)
    boxes: dict[str, Any] = {"output": tmp_path / "v.npz", "polygons": "box"}
    report = export_batch("scalemae", fields, **boxes, **SHIPPED)
    found = re.search(r"PointBuffer\(lon, lat, buffer_m=(\d+)\)", report.errors["007"])
    assert found is not None
    failed = read_vectors(report.path)
    lon, lat, buffer_m = failed.lon.item(), failed.lat.item(), float(found[1])
    points = _text(tmp_path, f"id,lon,lat,buffer_m\n{failed.id.item()},{lon},{lat},{buffer_m}\n")
    export_batch("scalemae", points, output=tmp_path / "p.npz", **SHIPPED)
    vectors = read_vectors(tmp_path / "p.npz")
    assert vectors.ok.tolist() == [True]
    assert vectors.id.tolist() == ["007"]
    seen = inspect_input(
        "scalemae", spatial=PointBuffer(lon, lat, buffer_m), input_prep="tile", **SHIPPED
    )
    to_utm = Transformer.from_crs(4326, 32618, always_xy=True)
    left, bottom, right, top = to_utm.transform_bounds(*FIELD.bounds)
    x, y = (seen.meta["grid"]["transform"][i] for i in (2, 5))
    assert seen.meta["grid"]["shape"] == [16, 16]
    assert x <= left < right <= x + 160
    assert y - 160 <= bottom < top <= y


def test_windows_of_imagery_and_maps_have_the_same_fix(write_scene: Any, pixels: Any) -> None:
    path = write_scene(np.tile(pixels, (1, 4, 4)))
    field = BBox(13.7, 46.93, 13.7012, 46.931)
    with pytest.raises(ImageryError, match="the place is .* use the square around its") as refused:
        inspect_input("scalemae", imagery=path, spatial=field, variant="tiny")
    found = re.search(r"buffer_m=(\d+)", str(refused.value))
    assert found is not None
    fixed = PointBuffer(*field.centre, float(found[1]))
    seen = inspect_input("scalemae", imagery=path, spatial=fixed, variant="tiny")
    assert min(seen.meta["asked_shape"]) >= 16
    with pytest.raises(ImageryError, match="the area is 1. x 1. px at scale_m=10, .*buffer_m=80"):
        embed_area("scalemae", spatial=FIELD, output="unused.tif", **SHIPPED)
    assert not Path("unused.tif").exists()


def test_ids_of_numpy_are_those_of_python() -> None:
    place = PointBuffer(1, 2, 100)
    assert NamedPlace(np.int64(7), place) == NamedPlace("7", place)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="expected text or a number"):
        NamedPlace(None, place)  # type: ignore[arg-type]


def test_columns_of_dates_without_dates_are_not_told(tmp_path: Path) -> None:
    point = {"type": "Point", "coordinates": [1, 2]}
    empty = {"type": "Feature", "geometry": point, "properties": {"end": None, "buffer_m": 100}}
    path = tmp_path / "places.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [empty]}))
    assert len(read_places(path)) == 1
