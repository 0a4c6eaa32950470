"""Read many places from one file: CSV or GeoJSON to named points and boxes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rs_embed.addresses import PLACES_BYTES, path_of, read_document
from rs_embed.errors import Note, RsEmbedWarning, SpecError, UnknownNameError, give_warnings
from rs_embed.files.features import (
    check_geojson,
    feature_id,
    id_column,
    located,
    own_id,
    property_names,
    unused_dates,
)
from rs_embed.geo.grid import turns
from rs_embed.specs import BBox, PointBuffer, Spatial, check_positive, finite_number

if TYPE_CHECKING:
    import os

_COLUMNS = {"longitude": "lon", "long": "lon", "lng": "lon", "latitude": "lat"}
POINT, BOX = ("lon", "lat"), ("minlon", "minlat", "maxlon", "maxlat")
_LAYOUTS = "columns lon,lat (and buffer_m) or minlon,minlat,maxlon,maxlat"
# Longitude and latitude on WGS 84 by the names that programs write into the old member "crs".
_WGS84 = re.compile(r"(CRS:?84|EPSG[:/].*\b4326)$", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d+)")
_X_AND_Y = (
    "the columns x and y were taken as longitude and latitude in degrees; name them lon and lat, "
    "or pass a GeoDataFrame with its CRS"
)
_NOT_TEXT = "is not text in UTF-8; export it as 'CSV UTF-8' or as GeoJSON"


@dataclass(frozen=True)
class NamedPlace:
    """A place and the name of its result.

    Parameters
    ----------
    id : str
        Unique within a file. A whole number becomes text.
    spatial : BBox or PointBuffer
        The place.
    """

    id: str
    spatial: Spatial

    def __post_init__(self) -> None:
        given = own_id(self.id)
        if given is None:
            raise SpecError(f"got id={self.id!r}, expected text or a number for each place")
        object.__setattr__(self, "id", str(given))


def read_places(path: str | os.PathLike[str], *, buffer_m: float | None = None) -> list[NamedPlace]:
    """Return the places of a CSV or GeoJSON file, in its order.

    Parameters
    ----------
    path : path
        ``.csv``, ``.tsv`` or ``.txt``: a header with ``lon``, ``lat`` (or ``longitude``,
        ``latitude``) and perhaps ``buffer_m``, or with ``minlon``, ``minlat``, ``maxlon``,
        ``maxlat``; perhaps ``id``, else the row's number from 0; comma, semicolon or tab; UTF-8.
        ``.geojson`` or ``.json`` (RFC 7946): a point with the property ``buffer_m``, or a polygon,
        of which the bounding box is used; its property ``id``, else ``id`` of the feature, else its
        number. Longitudes in 0..360 are taken as such.
    buffer_m : float, optional
        Half of the side of the square around a point that states none, ground metres.

    Returns
    -------
    list of NamedPlace
        At least one, with unique ids.

    Raises
    ------
    UnknownNameError
        If the file is of another type.
    SpecError
        If it cannot be read, or a place in it is invalid; the message names the line or
        the feature.

    Warns
    -----
    TemporalWarning
        If there are columns of dates (``date``, ``start``, ``end``, ...), which are not used.
    """
    source = path_of(path)
    if buffer_m is not None:
        check_positive("buffer_m", buffer_m, "ground metres")
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise UnknownNameError.among("file type of places", source.suffix, _READERS)
    with located(str(source)):
        places = _unique(reader(text_of(source), buffer_m))
        if buffer_m is not None and not any(isinstance(p.spatial, PointBuffer) for p in places):
            raise SpecError(
                f"got buffer_m={buffer_m:g}, but every place is a box, which has its own size; "
                "leave buffer_m out"
            )
    return places


def _unique(entries: Iterator[tuple[str, NamedPlace]]) -> list[NamedPlace]:
    """Return the places; refuse an empty file and repeated ids."""
    places: dict[str, tuple[str, NamedPlace]] = {}
    for where, place in entries:
        if place.id in places:
            raise SpecError(
                f"{where}: got the id {place.id!r}, which {places[place.id][0]} has already, "
                "expected each once; rename one, or leave ids out to number the places"
            )
        places[place.id] = where, place
    if not places:
        raise SpecError("holds no places, expected at least one")
    return [place for _, place in places.values()]


def text_of(source: Path) -> str:
    """Return the content of a table as text; refuse what is not text."""
    try:
        text = read_document(source, PLACES_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise SpecError(f"{_NOT_TEXT} ({exc.reason} at byte {exc.start})") from exc
    except (OSError, ValueError) as exc:
        raise SpecError(f"cannot be read ({exc}), expected a CSV or GeoJSON file") from exc
    if "\0" in text:
        raise SpecError(f"{_NOT_TEXT} (it holds NUL bytes)")
    return text


def _from_csv(text: str, buffer_m: float | None) -> Iterator[tuple[str, NamedPlace]]:
    header, lines, rows = csv_table(text)
    give_warnings(unused_dates(header, "the table"))
    ids = [row[at] for at in [_index_of_id(header)] for row in rows if at is not None]
    spatials, notes = spatials_of(header, rows, lambda number: f"line {lines[number]}", buffer_m)
    give_warnings(notes)
    for number, spatial in enumerate(spatials):
        where = f"line {lines[number]}"
        with located(where):
            yield where, NamedPlace(_name(own_id(ids[number]) if ids else None, number), spatial)


def _index_of_id(header: Sequence[str]) -> int | None:
    column = id_column(header)
    return None if column is None else header.index(column)


def csv_table(text: str) -> tuple[list[str], list[int], list[list[str]]]:
    """Return the header of a table as text, and the line and the cells of each row."""
    found = _csv_rows(text)
    try:
        line, header = next(found)
    except StopIteration:
        raise SpecError(f"is empty, expected a header with {_LAYOUTS}") from None
    with located(f"line {line}"):
        _layout(header)
    lines, rows = [], []
    for line, row in found:
        if len(row) != len(header):
            raise SpecError(
                f"line {line}: got {len(row)} cells, expected {len(header)} as in the header; put "
                "text with separators in double quotes"
            )
        lines.append(line)
        rows.append([cell.strip() for cell in row])
    return [cell.strip() for cell in header], lines, rows


def spatials_of(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    where: Callable[[int], str],
    buffer_m: float | None,
) -> tuple[list[Spatial], list[Note]]:
    """Return the places that the columns of a table state, and what was assumed.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : iterable
        Numbers, or text of them, and empty text or None for a ``buffer_m`` that is not stated.
    where : callable
        Returns what a row is called in messages.
    buffer_m : float or None
        As for `read_places`.
    """
    columns, corners, notes = _layout(header)
    doubt = " (x and y may be metres of a projection: name degrees lon and lat)" if notes else ""
    spatials = []
    number, numbers = 0, dict[str, float | None]()
    try:
        for number, row in enumerate(rows):  # noqa: B007
            numbers = {name: _number(name, row[columns[name]]) for name in corners}
            if "buffer_m" in columns:
                stated = row[columns["buffer_m"]]
                missing = stated is None or stated == "" or stated != stated  # NaN
                numbers["buffer_m"] = None if missing else _number("buffer_m", stated)
            spatials.append(_place(numbers, buffer_m))
    except SpecError as exc:
        raise SpecError(f"{where(number)}{doubt}: {exc}") from exc
    return spatials, notes


def _csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row starts, and its cells; skip empty rows."""
    lines = list(io.StringIO(text, newline=""))
    header = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(",;\t", key=header.count), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise SpecError(f"line {start}: {exc}; check the double quotes") from exc
        if any(cell.strip() for cell in row):
            yield start, row


def _layout(header: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...], list[Note]]:
    """Return the index of each column, the names of the columns of the place, and a warning."""
    names = [str(cell).strip().casefold() for cell in header]
    notes = []
    if not {"lon", "lat", *_COLUMNS, *BOX} & set(names) and {"x", "y"} <= set(names):
        names = [{"x": "lon", "y": "lat"}.get(name, name) for name in names]
        notes = [Note(_X_AND_Y, RsEmbedWarning)]
    names = [_COLUMNS.get(name, name) for name in names]
    for name in (*POINT, *BOX, "buffer_m", "id"):
        if names.count(name) > 1:
            raise SpecError(f"got {names.count(name)} columns for {name}, expected one")
    columns = {name: at for at, name in enumerate(names)}
    complete = [layout for layout in (POINT, BOX) if columns.keys() >= set(layout)]
    if len(complete) == 1:
        return columns, complete[0], notes
    if complete:
        raise SpecError("got columns of points and of boxes, expected one of them")
    raise SpecError(f"got the columns {', '.join(names)}, expected {_LAYOUTS}")


def _number(name: str, cell: Any) -> float:
    if not isinstance(cell, str):
        return finite_number(name, cell)
    comma = _DECIMAL_COMMA.fullmatch(cell)
    # "1,000" metres may be a thousand; no longitude is.
    text = (
        f"{comma[1]}.{comma[2]}" if comma and (name != "buffer_m" or len(comma[2]) != 3) else cell
    )
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    hint = "; write the decimal point as '.'" if comma else ""
    raise SpecError(f"got {name}={cell!r}, expected a number{hint}")


def _place(numbers: Mapping[str, Any], buffer_m: float | None) -> Spatial:
    stated = numbers.get("buffer_m")
    if "minlon" in numbers:
        if stated is not None:
            raise SpecError(
                f"got buffer_m={stated!r} for a box or polygon, which has its own size; leave one "
                "of the two out"
            )
        return box_of(*(numbers[name] for name in BOX))
    return point_of(numbers["lon"], numbers["lat"], buffer_m if stated is None else stated)


def point_of(lon: float, lat: float, buffer_m: float | None) -> PointBuffer:
    """Return the square around a point; refuse one without a size."""
    if buffer_m is None:
        raise SpecError(
            "got a point without buffer_m, expected half the side of the square around it in "
            "metres: in the file (column or property buffer_m), or for all as buffer_m= "
            "(--buffer-m)"
        )
    return _point(lon, lat, buffer_m)


def _point(lon: Any, lat: Any, buffer_m: Any) -> PointBuffer:
    lon = finite_number("lon", lon)
    return PointBuffer(lon - turns(lon), lat, buffer_m)


def box_of(west: float, south: float, east: float, north: float) -> BBox:
    """Return the box; west and east may be beyond 180 degrees."""
    for lon, lat in ((west, south), (east, north)):
        _point(lon, lat, buffer_m=1)
    whole = turns((west + east) / 2)
    west, east = west - whole, east - whole
    if max(-west, east) > 180:
        raise SpecError(
            f"got a box from {west:.10g} to {east:.10g} degrees east; make one box or polygon on "
            "each side of the antimeridian, or a point with buffer_m: "
            f"lon={(west + east) / 2:.10g}, lat={(south + north) / 2:.10g}"
        )
    return BBox(west, south, east, north)


def _name(own: int | str | None, number: int) -> str:
    return str(number if own is None else own)


def _from_geojson(text: str, buffer_m: float | None) -> Iterator[tuple[str, NamedPlace]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise SpecError(f"is not valid JSON ({exc}), expected GeoJSON") from exc
    root = _member(content, "the file")
    check_geojson(root)
    if root.get("type") == "FeatureCollection":
        _check_crs(root)
        features = root.get("features")
        if not isinstance(features, list):
            raise SpecError("got no list 'features' in the FeatureCollection")
    else:
        features = [root]
    give_warnings(unused_dates(property_names(features), "the table"))
    for number, feature in enumerate(features):
        with located(f"feature {number}"):
            place = _from_feature(_member(feature, "the feature"), number, buffer_m)
        yield f"feature {number}", place


def _from_feature(feature: dict[str, Any], number: int, buffer_m: float | None) -> NamedPlace:
    _check_crs(feature)
    if feature.get("type") != "Feature":
        feature = {"geometry": feature}
    properties = _member(feature.get("properties") or {}, "'properties'")
    geometry = _member(feature.get("geometry"), "'geometry'")
    _check_crs(geometry)
    name = _name(feature_id(feature), number)
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Point":
        lon, lat = _position(coordinates)
        point = {"lon": lon, "lat": lat, "buffer_m": properties.get("buffer_m")}
        return NamedPlace(name, _place(point, buffer_m))
    if kind not in ("Polygon", "MultiPolygon"):
        raise SpecError(
            f"got a geometry of type {kind!r}, expected Point, Polygon or MultiPolygon; convert "
            "it to points or polygons in a GIS"
        )
    corners = _bounding_box(coordinates, depth=2 if kind == "Polygon" else 3)
    return NamedPlace(name, _place({**corners, "buffer_m": properties.get("buffer_m")}, None))


def _bounding_box(coordinates: Any, depth: int) -> dict[str, Any]:
    positions = [_position(position) for position in _flattened(coordinates, depth)]
    if not positions:
        raise SpecError("got a polygon without coordinates")
    # PointBuffer checks every position before they are compared.
    for lon, lat in positions:
        _point(lon, lat, buffer_m=1)
    lons, lats = zip(*positions, strict=True)
    if max(lons) - min(lons) > 180:
        raise SpecError(
            f"got a polygon from {min(lons):g} to {max(lons):g} degrees east, expected at most "
            "half the Earth; if it crosses the antimeridian, make one feature on each side of the "
            "antimeridian"
        )
    return dict(zip(BOX, (min(lons), min(lats), max(lons), max(lats)), strict=True))


def _flattened(coordinates: Any, depth: int) -> Iterator[Any]:
    if not isinstance(coordinates, list):
        raise SpecError(f"got coordinates {coordinates!r}, expected nested lists of positions")
    if depth == 0:
        yield coordinates
        return
    for part in coordinates:
        yield from _flattened(part, depth - 1)


def _position(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) < 2:
        raise SpecError(f"got the position {value!r}, expected [longitude, latitude]")
    return value[0], value[1]


def _member(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"got {value!r:.60} as {what}, expected a GeoJSON object")
    return value


def _check_crs(member: Mapping[str, Any]) -> None:
    if "crs" not in member:
        return
    stated = member["crs"]
    try:
        name = str(stated["properties"]["name"])
    except (TypeError, KeyError):
        name = json.dumps(stated)
    if not _WGS84.search(name):
        raise SpecError(
            f"got coordinates in the CRS {name}, expected longitude and latitude on WGS 84; "
            f"reproject it: ogr2ogr -t_srs EPSG:4326 -s_srs {name} -noNativeData -lco RFC7946=YES "
            "out.geojson in.geojson (or leave 'crs' out if they are in degrees already)"
        )


_READERS: dict[str, Callable[[str, float | None], Iterator[tuple[str, NamedPlace]]]] = {
    ".csv": _from_csv,
    ".tsv": _from_csv,
    ".txt": _from_csv,
    ".geojson": _from_geojson,
    ".json": _from_geojson,
}
