"""Places from files: what is read, and that every refusal names file, line and mend."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed.errors import RsEmbedWarning, SpecError, UnknownNameError
from rs_embed.files.place_tables import places_of
from rs_embed.files.places import NamedPlace, read_places
from rs_embed.specs import BBox, PointBuffer

Write = Callable[..., Path]
SQUARE = [[[10, 50], [10.1, 50], [10.1, 50.2], [10, 50.2], [10, 50]]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: str | bytes | dict[str, Any] | list[Any], name: str = "p.csv") -> Path:
        path = tmp_path / name
        if isinstance(content, dict | list):
            path = path.with_suffix(".geojson")
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def feature(geometry: Any, **members: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": None, **members}


def point(*coordinates: Any) -> dict[str, Any]:
    return {"type": "Point", "coordinates": list(coordinates)}


# --- CSV -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "lon,lat,buffer_m\n10,50,500\n-75.5,37.25,640.5\n",
        "\ufefflon;lat;buffer_m\r\n10;50;500\r\n-75.5;37.25;640.5\r\n",
        "name\tLatitude\tLongitude\tBuffer_M\na\t50\t10\t500\n\"b\t,;\"\t37.25\t-75.5\t640.5",
        "\n lon , lat , buffer_m \n10, 50, 500\n,,\n\n-75.5,37.25,6.405e2\n\n",
    ],
)  # fmt: skip
def test_points_of_a_csv(write: Write, text: str) -> None:
    assert read_places(write(text)) == [
        NamedPlace("0", PointBuffer(10, 50, 500)),
        NamedPlace("1", PointBuffer(-75.5, 37.25, 640.5)),
    ]


def test_buffer_of_the_column_then_of_the_argument(write: Write) -> None:
    path = write("id,lon,lat,buffer_m\na,10,50,500\nÅs,10,50,\n")
    places = read_places(path, buffer_m=1000)
    assert places == [
        NamedPlace("a", PointBuffer(10, 50, 500)),
        NamedPlace("Ås", PointBuffer(10, 50, 1000)),
    ]
    with pytest.raises(SpecError, match=r"p\.csv: line 3: got a point without buffer_m.*buffer-m"):
        read_places(path)


def test_boxes_of_a_csv(write: Write) -> None:
    path = write("ID,minlon,minlat,maxlon,maxlat\nx,10,50,10.5,50.5\n", name="p.tsv")
    assert read_places(path) == [NamedPlace("x", BBox(10, 50, 10.5, 50.5))]
    with pytest.raises(SpecError, match="got buffer_m=5, but every place is a box"):
        read_places(path, buffer_m=5)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "p.csv: is empty, expected a header with columns lon,lat"),
        ("\n \n", "is empty"),
        ("lon,lat\n", "holds no places"),
        ("id,lon\n1,2\n", "line 1: got the columns id, lon, expected columns lon,lat"),
        ("x,y\n1,2e5\n", "line 2 .*x and y may be metres of a projection: name degrees"),
        ("lon,longitude,lat\n1,2,3\n", "got 2 columns for lon"),
        ("lon,lat,minlon,minlat,maxlon,maxlat\n1,2,3,4,5,6\n", "of points and of boxes"),
        ("lon,lat\n1,2\nten,2\n", "line 3: got lon='ten', expected a number$"),
        ("lon;lat;buffer_m\n1;2;1,000\n", "line 2: got buffer_m='1,000'.*decimal point as '.'"),
        ("lon,lat\n1_0,2\n", "got lon='1_0', expected a number"),
        ("lon,lat\n,2\n", "got lon='', expected a number"),
        ("lon,lat\nnan,2\n", "line 2: got lon=nan, expected a finite number"),
        ("lon,lat\n31.2,121.5\n", "line 2: got lat=121.5, .*are longitude and latitude swapped"),
        ("lon,lat,buffer_m\n1,2,-5\n", "line 2: got buffer_m=-5.0, expected more than 0"),
        ("lon,lat\n1,2,3\n", "line 2: got 3 cells, expected 2"),
        ('id,lon,lat\n"a\nb",1,2\n', "line 2: got id='a.*nb', expected printable text"),
        ('id,lon,lat\na,1,2\n"b,1,2\n', "line 3: unexpected end of data; check the double quotes"),
        ("id,lon,lat\na,1,2\n,1,2\n", "line 3: got id=''"),
        ("id,lon,lat\na,1,2\nb,1,2\na,3,4\n", "line 4: got the id 'a', which line 2 has already"),
        ("minlon,minlat,maxlon,maxlat\n3,4,1,6\n", "got minlon=3.0 and maxlon=1.0"),
    ],
)  # fmt: skip
def test_refused_csv(write: Write, text: str, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        read_places(write(text), buffer_m=100)


# --- GeoJSON -------------------------------------------------------------------------------


def test_features_of_a_geojson(write: Write) -> None:
    far = [[[11, 51], [11.1, 51], [11.1, 51.1], [11, 51]]]
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
        "features": [
            feature(point(10, 50, 300), properties={"buffer_m": 500, "id": "own"}, id="member"),
            feature(point(10.5, -50), properties={"id": 7}),
            feature({"type": "Polygon", "coordinates": SQUARE}),
            feature({"type": "MultiPolygon", "coordinates": [SQUARE, far]}, id=None),
        ],
    }
    assert read_places(write(collection), buffer_m=100) == [
        NamedPlace("own", PointBuffer(10, 50, 500)),
        NamedPlace("7", PointBuffer(10.5, -50, 100)),
        NamedPlace("2", BBox(10, 50, 10.1, 50.2)),
        NamedPlace("3", BBox(10, 50, 11.1, 51.1)),
    ]


@pytest.mark.parametrize("content", [point(10, 50), feature(point(10, 50))])
def test_a_lone_feature_or_geometry(write: Write, content: dict[str, Any]) -> None:
    assert read_places(write(content), buffer_m=100) == [NamedPlace("0", PointBuffer(10, 50, 100))]


@pytest.mark.parametrize(
    "name", ["EPSG:4326", "urn:ogc:def:crs:EPSG::4326", "http://www.opengis.net/def/crs/OGC/1.3/CRS84"]
)  # fmt: skip
def test_wgs_84_by_its_other_names(write: Write, name: str) -> None:
    crs = {"type": "name", "properties": {"name": name}}
    assert read_places(write({**point(10, 50), "crs": crs}), buffer_m=100)


def crs_named(name: str) -> dict[str, Any]:
    return {**point(10, 50), "crs": {"type": "name", "properties": {"name": name}}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], r"p\.geojson: got \[\] as the file, expected a GeoJSON object"),
        ({"type": "FeatureCollection"}, "got no list 'features'"),
        ({"type": "FeatureCollection", "features": []}, "holds no places"),
        ({"type": "FeatureCollection", "features": [feature(point(1, 2)), 5]},
         "feature 1: got 5 as the feature"),
        ({"type": "FeatureCollection", "features": [feature(point(1, 2), id=i) for i in "aba"]},
         "feature 2: got the id 'a', which feature 0 has already"),
        ({"type": "FeatureCollection", "features": [], "crs": crs_named("EPSG:32633")["crs"]},
         "in the CRS EPSG:32633, .*ogr2ogr -t_srs EPSG:4326"),
        (crs_named("EPSG:14326"), "CRS EPSG:14326"),
        ({**point(1, 2), "crs": None}, "CRS null"),
        (feature(None), "feature 0: got None as 'geometry'"),
        (feature(point(1, 2), properties=[5]), r"got \[5\] as 'properties'"),
        (feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}),
         "feature 0: got a geometry of type 'LineString', expected Point, Polygon"),
        ({"type": "MultiPoint", "coordinates": [[1, 2]]}, "'MultiPoint'"),
        ({"type": "Topology"}, "'Topology'"),
        (point(), r"got the position \[\], expected \[longitude, latitude\]"),
        (point("1", "2"), r"feature 0: got lon='1' \(str\), expected a number"),
        (point(31.2, 121.5), "longitude and latitude swapped"),
        (point(True, 2), "got lon=True"),
        (point(10**400, 2), "got lon=inf"),
        (feature(point(1, 2), properties={"buffer_m": "5"}), r"got buffer_m='5' \(str\)"),
        (feature(point(1, 2), id=[1]), r"got id=\[1\], expected text or a number"),
        (feature(point(1, 2), id="\ud800"), "expected printable text"),
        ({"type": "Polygon", "coordinates": None}, "got coordinates None"),
        ({"type": "Polygon", "coordinates": []}, "without coordinates"),
        ({"type": "Polygon", "coordinates": [[1, 2]]}, "got coordinates 1, expected nested"),
        ({"type": "Polygon", "coordinates": [[[400000, 5e6], [1, 2]]]}, "got lon=400000"),
        ({"type": "Polygon", "coordinates": [[[1, 2], ["a", 2]]]}, "got lon='a'"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [1, 3]]]}, "expected minlon < maxlon"),
        ({"type": "Polygon", "coordinates": [[[179, 2], [-179, 2], [-179, 3], [179, 2]]]},
         "from -179 to 179 degrees east.*each side of the antimeridian"),
    ],
)  # fmt: skip
def test_refused_geojson(write: Write, content: Any, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        read_places(write(content), buffer_m=100)


@pytest.mark.parametrize("text", ["", "{", '{"type": 1e', "[" * 100_000, "9" * 5000])
def test_what_is_no_json(write: Write, text: str) -> None:
    with pytest.raises(SpecError, match=r"p\.json: is not valid JSON"):
        read_places(write(text, name="p.json"))


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", r"is not text in UTF-8.*\(invalid start byte at byte 0\)"),
        ("lon,lat\n1,2\n".encode("utf-16"), "export it as 'CSV UTF-8'"),
        (b"lon,lat\n1,2\0\n", "NUL bytes"),
    ],
)
@pytest.mark.parametrize("name", ["p.csv", "p.geojson"])
def test_binary_files(write: Write, content: bytes, match: str, name: str) -> None:
    with pytest.raises(SpecError, match=match):
        read_places(write(content, name=name), buffer_m=100)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("missing.csv", "folder.csv", "n\0.csv"):
        with pytest.raises(SpecError, match="cannot be read .*expected a CSV or GeoJSON"):
            read_places(tmp_path / name)
    with pytest.raises(UnknownNameError, match=r"places '\.shp', expected one of \.csv, \.geo"):
        read_places(tmp_path / "places.shp")
    with pytest.raises(SpecError, match="buffer_m=0"):
        read_places(tmp_path / "missing.csv", buffer_m=0)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["Feature", "FeatureCollection", "Point", "Polygon", "MultiPolygon"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "features", "geometry", "coordinates", "properties", "id", "crs"]),
        inner, max_size=5,
    ),
    max_leaves=15,
)  # fmt: skip


texts = st.text(alphabet='lonat,;\t\n\r"5.-', max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=60), json_values.map(json.dumps), texts))
def test_no_file_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    for name in ("any.csv", "any.geojson"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for read in (read_places, places_of):
            with suppress(SpecError), warnings.catch_warnings():
                warnings.simplefilter("ignore", RsEmbedWarning)
                assert len(read(path, buffer_m=100))
