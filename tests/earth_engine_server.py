"""A loopback server that speaks Earth Engine's HTTP and evaluates what is asked over local images.

It knows the functions that are needed and no more; of the rest it says what the service says.
Images are drawn nearest by default, as there.
"""

# ruff: noqa: A002, N803  # the functions' arguments have the service's names

from __future__ import annotations

import io
import json
import random
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ee
import numpy as np
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rs_embed.testing.providers import BANDS, SCENES, ContractScene

S2 = "COPERNICUS/S2_SR_HARMONIZED"
SCORES = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
TILES = {
    "north-1": "33TWN", "north-2": "33TWN", "north-7": "33TWN", "south-4": "37MEM",
    "zone-32": "32TQT", "zone-33": "33TTN",
}  # fmt: skip
LIMIT_BYTES = 50_331_648
LIMIT_PX = 32_768

Box = tuple[float, float, float, float]
Drawn = tuple[NDArray[Any], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where pixels are asked for."""

    crs: CRS
    transform: Affine
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Stored:
    """An image as an asset: bands on one lattice, and where they are valid."""

    id: str
    properties: Mapping[str, Any]
    bands: Mapping[str, NDArray[Any]]
    valid: NDArray[np.bool_]
    lattice: Lattice

    @cached_property
    def boxes(self) -> list[Box]:
        """Where it lies, degrees; two boxes across the antimeridian."""
        height, width = self.lattice.shape
        corners = [self.lattice.transform @ (c, r) for c in (0, width) for r in (0, height)]
        xs, ys = zip(*corners, strict=True)
        west, south, east, north = rasterio.warp.transform_bounds(
            self.lattice.crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys)
        )
        if west <= east:
            return [(west, south, east, north)]
        return [(west, south, 180, north), (-180, south, east, north)]

    def draw(self, band: str, at: Lattice, how: str) -> Drawn:
        """Return values and validity on another lattice."""
        columns, rows = _positions(self.lattice, at)
        draw = _bilinear if how == "bilinear" else _nearest
        return draw(self.bands[band], self.valid, columns, rows)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _positions(own: Lattice, at: Lattice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return column and row of the centres of ``at`` on another lattice."""
    height, width = at.shape
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = at.transform @ (columns, rows)
    if at.crs != own.crs:
        x, y = _transformer(at.crs.to_wkt(), own.crs.to_wkt()).transform(x, y)
    there = ~own.transform @ (x, y)
    return np.asarray(there[0]), np.asarray(there[1])


def _nearest(
    band: NDArray[Any], valid: NDArray[np.bool_], columns: NDArray[Any], rows: NDArray[Any]
) -> Drawn:
    return _taken(band, valid, np.floor(columns), np.floor(rows))


def _taken(
    band: NDArray[Any], valid: NDArray[np.bool_], columns: NDArray[Any], rows: NDArray[Any]
) -> Drawn:
    height, width = band.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    c, r = np.where(inside, columns, 0).astype(int), np.where(inside, rows, 0).astype(int)
    return band[r, c], inside & valid[r, c]


def _bilinear(
    band: NDArray[Any], valid: NDArray[np.bool_], columns: NDArray[Any], rows: NDArray[Any]
) -> Drawn:
    """Return the mean of the four nearest valid pixels, weighted."""
    left, top = np.floor(columns - 0.5), np.floor(rows - 0.5)
    right, down = columns - 0.5 - left, rows - 0.5 - top
    total = np.zeros(columns.shape)
    weight = np.zeros(columns.shape)
    for below in (0, 1):
        for beside in (0, 1):
            values, there = _taken(band, valid, left + beside, top + below)
            share = np.where(beside, right, 1 - right) * np.where(below, down, 1 - down) * there
            total += share * values
            weight += share
    return total / np.where(weight > 0, weight, 1), weight > 1e-9


class ServiceError(Exception):
    """What the service answers instead."""

    def __init__(self, message: str, status: int = 400, code: str = "INVALID_ARGUMENT") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, eq=False)
class Picture:
    """An image while it is computed: how each band is drawn, its type, its own lattice."""

    draw: Callable[[str, Lattice], Drawn]
    bands: tuple[str, ...]
    kind: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    stored: Stored | None = None
    boxes: Sequence[Box] = ()


def _picture(stored: Stored, how: str = "nearest") -> Picture:
    kind = str(next(iter(stored.bands.values())).dtype)
    properties = {"system:index": stored.id, **stored.properties}
    return Picture(
        lambda band, at: stored.draw(band, at, how), tuple(stored.bands), kind, properties, stored,
        stored.boxes,
    )  # fmt: skip


def _with(picture: Picture, **changes: Any) -> Picture:
    kept = {name: getattr(picture, name) for name in Picture.__dataclass_fields__}
    return Picture(**{**kept, **changes})


@dataclass
class Fault:
    """What to do wrong with one request."""

    kind: str
    status: int = 0
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    on: str = ""
    """Part of the path that it waits for."""


@dataclass
class Asked:
    """A request that came in."""

    path: str
    body: Any
    headers: Mapping[str, str]
    fault: str = ""


@dataclass
class Service:
    """Collections, what to do wrong, and the requests that came in."""

    collections: Mapping[str, Sequence[Stored]]
    faults: deque[Fault] = field(default_factory=deque)
    refusal: ServiceError | None = None
    latency_s: float = 0.0
    limit_bytes: int = LIMIT_BYTES
    memory_px: int = 10**9
    faulty_share: float = 0.0
    seed: int = 0
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    peak: int = 0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311

    def of(self, ending: str) -> list[Asked]:
        """Return the requests whose path ends so, oldest first."""
        return [one for one in self.asked if one.path.endswith(ending)]

    def next_fault(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.on in path:
                    self.faults.remove(fault)
                    return fault
            computing = path.endswith((":compute", ":computePixels"))
            if computing and self._random.random() < self.faulty_share:
                return self._random.choice(
                    [
                        Fault("status", 429, "Too Many Requests"),
                        Fault("status", 500, "Internal error"),
                        Fault("reset"),
                        Fault("html"),
                    ]
                )
        return None


class Evaluation:
    """One expression over the collections of a service."""

    def __init__(self, service: Service, expression: Mapping[str, Any]) -> None:
        self._service = service
        self._values = expression["values"]
        self._known: dict[str, Any] = {}
        self._result = expression["result"]

    def result(self) -> Any:
        return self._reference(self._result, {})

    def _reference(self, key: str, scope: Mapping[str, Any]) -> Any:
        if scope:
            return self._node(self._values[key], scope)
        if key not in self._known:
            self._known[key] = self._node(self._values[key], scope)
        return self._known[key]

    def _node(self, node: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
        ((kind, value),) = node.items()
        if kind == "constantValue":
            return value
        if kind == "arrayValue":
            return [self._node(one, scope) for one in value["values"]]
        if kind == "dictionaryValue":
            return {name: self._node(one, scope) for name, one in value["values"].items()}
        if kind == "valueReference":
            return self._reference(value, scope)
        if kind == "argumentReference":
            return scope[value]
        if kind == "functionDefinitionValue":
            (argument,) = value["argumentNames"]
            return lambda item: self._reference(value["body"], {**scope, argument: item})
        if kind == "functionInvocationValue":
            name = value["functionName"]
            if name not in FUNCTIONS:
                raise ServiceError(f"Unknown function '{name}'.")
            arguments = {
                argument: self._node(one, scope) for argument, one in value["arguments"].items()
            }
            return FUNCTIONS[name](self._service, **arguments)
        raise ServiceError(f'Invalid JSON payload received. Unknown name "{kind}".')


FUNCTIONS: dict[str, Callable[..., Any]] = {}


def _function(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS[name] = implementation
        return implementation

    return register


@_function("ImageCollection.load")
def _load(service: Service, id: str) -> list[Picture]:
    if id not in service.collections:
        raise ServiceError(
            f"ImageCollection.load: ImageCollection asset '{id}' not found (does not exist or "
            "caller does not have access).", 404, "NOT_FOUND",
        )  # fmt: skip
    return [_picture(stored) for stored in service.collections[id]]


@_function("Collection.filter")
def _filter(_: Service, collection: list[Any], filter: Callable[[Any], bool]) -> list[Any]:
    return [one for one in collection if filter(one)]


@_function("Projection")
def _projection(_: Service, crs: str) -> CRS:
    return CRS.from_user_input(crs)


@_function("GeometryConstructors.Rectangle")
def _rectangle(_: Service, coordinates: list[float], crs: CRS, geodesic: bool) -> Box:
    west, south, east, north = coordinates
    if crs.to_epsg() != 4326 or geodesic or not (west <= east and south <= north):
        raise ServiceError("Geometry.Rectangle: Invalid coordinates.")
    if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
        raise ServiceError("Geometry.Rectangle: Invalid coordinates.")
    return west, south, east, north


@_function("Feature")
def _feature(_: Service, geometry: Box) -> Box:
    return geometry


@_function("Filter.intersects")
def _intersects(_: Service, leftField: str, rightValue: Box) -> Callable[[Picture], bool]:
    assert leftField == ".all"
    west, south, east, north = rightValue

    def passes(picture: Picture) -> bool:
        return any(
            w <= east and west <= e and s <= north and south <= n for w, s, e, n in picture.boxes
        )

    return passes


@_function("Filter.or")
def _or(_: Service, filters: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda one: any(passes(one) for passes in filters)


@_function("Filter.not")
def _not(_: Service, filter: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda one: not filter(one)


@_function("DateRange")
def _date_range(_: Service, start: str, end: str) -> tuple[float, float]:
    moments = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    first, last = (moment.timestamp() * 1000 for moment in moments)
    return first, last


@_function("Filter.dateRangeContains")
def _in_dates(
    _: Service,
    leftValue: tuple[float, float],
    rightField: str,
) -> Callable[[Picture], bool]:
    return lambda one: leftValue[0] <= one.properties[rightField] < leftValue[1]


@_function("Filter.lessThan")
def _less(_: Service, leftField: str, rightValue: float) -> Callable[[Picture], bool]:
    return lambda one: (
        one.properties.get(leftField) is not None and one.properties[leftField] < rightValue
    )


@_function("Filter.listContains")
def _in_list(_: Service, leftValue: list[Any], rightField: str) -> Callable[[Picture], bool]:
    return lambda one: one.properties.get(rightField) in leftValue


@_function("Collection.map")
def _map(_: Service, collection: list[Any], baseAlgorithm: Callable[[Any], Any]) -> list[Any]:
    return [baseAlgorithm(one) for one in collection]


@_function("ImageCollection.merge")
def _merge(_: Service, collection1: list[Any], collection2: list[Any]) -> list[Any]:
    return [*collection1, *collection2]


@_function("Collection.limit")
def _limit(_: Service, collection: list[Picture], key: str) -> list[Picture]:
    """Sort; images without the property keep their order."""
    return sorted(collection, key=lambda one: one.properties.get(key, 0))


@_function("Image.linkCollection")
def _link(
    _: Service,
    input: Picture,
    imageCollection: list[Picture],
    linkedBands: list[str],
) -> Picture:
    index = input.properties["system:index"]
    others = [one for one in imageCollection if one.properties["system:index"] == index]

    def draw(band: str, at: Lattice) -> Drawn:
        if band not in linkedBands:
            return input.draw(band, at)
        if not others:
            return np.zeros(at.shape), np.zeros(at.shape, bool)
        return others[0].draw(band, at)

    return _with(input, draw=draw, bands=(*input.bands, *linkedBands))


@_function("Image.select")
def _select(_: Service, input: Picture, bandSelectors: list[str]) -> Picture:
    found: list[str] = []
    for pattern in bandSelectors:
        bands = [band for band in input.bands if re.fullmatch(pattern, band)]
        if not bands:
            raise ServiceError(
                f"Image.select: Band pattern '{pattern}' did not match any bands. Available bands: "
                f"[{', '.join(input.bands)}]"
            )
        found += bands
    return _with(input, bands=tuple(found))


@_function("Image.remap")
def _remap(
    _: Service,
    image: Picture,
    to: list[int],
    defaultValue: int,
    **more: list[int],
) -> Picture:
    (band,) = image.bands
    known = dict(zip(more.pop("from"), to, strict=True))

    def draw(_: str, at: Lattice) -> Drawn:
        values, valid = image.draw(band, at)
        changed = np.vectorize(lambda value: known.get(int(value), defaultValue))(values)
        return changed, valid

    return _with(image, draw=draw, bands=("remapped",))


@_function("Image.constant")
def _constant(_: Service, value: float) -> Picture:
    def draw(_: str, at: Lattice) -> Drawn:
        return np.full(at.shape, float(value)), np.ones(at.shape, bool)

    return Picture(draw, ("constant",), "float64")


@_function("Image.gte")
def _gte(_: Service, image1: Picture, image2: Picture) -> Picture:
    (band,), (other,) = image1.bands, image2.bands

    def draw(_: str, at: Lattice) -> Drawn:
        (left, valid), (right, also) = image1.draw(band, at), image2.draw(other, at)
        return (left >= right).astype(float), valid & also

    return _with(image1, draw=draw)


@_function("Image.updateMask")
def _update_mask(_: Service, image: Picture, mask: Picture) -> Picture:
    (only,) = mask.bands

    def draw(band: str, at: Lattice) -> Drawn:
        (values, valid), (clear, stated) = image.draw(band, at), mask.draw(only, at)
        return values, valid & stated & (clear != 0)

    return _with(image, draw=draw)


@_function("Image.resample")
def _resample(_: Service, image: Picture, mode: str) -> Picture:
    if mode not in ("bilinear", "bicubic") or image.stored is None:
        raise ServiceError(f"Image.resample: Unrecognized mode: '{mode}'.")
    stored = image.stored
    return _with(image, draw=lambda band, at: stored.draw(band, at, mode), kind="float64")


@_function("Reducer.mean")
def _mean(_: Service) -> str:
    return "mean"


@_function("Image.reduceResolution")
def _reduce_resolution(
    _: Service,
    image: Picture,
    reducer: str,
    bestEffort: bool,
    maxPixels: int,
) -> Picture:
    assert reducer == "mean"
    assert image.stored is not None
    own = image.stored.lattice

    def draw(band: str, at: Lattice) -> Drawn:
        values, valid = image.draw(band, own)
        coarser = abs(at.transform.determinant / own.transform.determinant)
        if coarser > maxPixels and not bestEffort:
            raise ServiceError(
                "Image.reduceResolution: Too many input pixels per output pixel, max is "
                f"{maxPixels}."
            )
        mean = np.full(at.shape, np.nan)
        rasterio.warp.reproject(
            np.where(valid, values.astype(float), np.nan), mean, src_transform=own.transform,
            src_crs=own.crs.to_wkt(), src_nodata=np.nan, dst_transform=at.transform,
            dst_crs=at.crs.to_wkt(), dst_nodata=np.nan,
            resampling=rasterio.warp.Resampling.average,
        )  # fmt: skip
        return np.nan_to_num(mean), np.isfinite(mean)

    return _with(image, draw=draw, kind="float64", properties={})


def _common(collection: list[Picture]) -> tuple[str, ...]:
    if not collection:
        raise ServiceError("Image.rename: Can't rename 3 bands of an image with no bands.")
    first = collection[0]
    for one in collection:
        if one.kind != first.kind:
            raise ServiceError(
                "Expected a homogeneous image collection, but an image with an incompatible band "
                f"was encountered. Mismatched type for band '{first.bands[0]}':\nExpected type: "
                f"{first.kind}.\nActual type: {one.kind}.\nThis band might require an explicit "
                "cast."
            )
    return first.bands


@_function("ImageCollection.mosaic")
def _mosaic(_: Service, collection: list[Picture]) -> Picture:
    def draw(band: str, at: Lattice) -> Drawn:
        made, filled = np.zeros(at.shape), np.zeros(at.shape, bool)
        for one in collection:
            values, valid = one.draw(band, at)
            made = np.where(valid, values, made)
            filled |= valid
        return made, filled

    return Picture(draw, _common(collection), collection[0].kind)


@_function("reduce.median")
def _median(_: Service, collection: list[Picture]) -> Picture:
    def draw(band: str, at: Lattice) -> Drawn:
        stack = np.stack(
            [
                np.where(valid, values, np.nan)
                for values, valid in (p.draw(band, at) for p in collection)
            ]
        )
        here = np.isfinite(stack)
        if here.all():
            return np.median(stack, axis=0), here[0]
        valid = here.any(axis=0)
        stack[0][~valid] = 0
        return np.nanmedian(stack, axis=0), valid

    return Picture(draw, _common(collection), "float64")


@_function("Image.rename")
def _rename(_: Service, input: Picture, names: list[str]) -> Picture:
    if len(names) != len(input.bands):
        raise ServiceError("Image.rename: The number of names must match the number of bands.")
    before = dict(zip(names, input.bands, strict=True))
    return _with(input, draw=lambda band, at: input.draw(before[band], at), bands=tuple(names))


@_function("Image.unmask")
def _unmask(_: Service, input: Picture, value: Picture, sameFootprint: bool) -> Picture:
    assert not sameFootprint
    assert input.kind == value.kind, "which type comes out is not documented"

    def draw(band: str, at: Lattice) -> Drawn:
        values, valid = input.draw(band, at)
        filling, _ = value.draw("constant", at)
        return np.where(valid, values, filling), np.ones(at.shape, bool)

    return _with(input, draw=draw)


@_function("Image.toFloat")
def _to_float(_: Service, value: Picture) -> Picture:
    """Cast; that properties stay is not documented, as it is not for reduceResolution."""
    return _with(value, kind="float32", properties={})


@_function("Element.get")
def _get(_: Service, object: Picture, property: str) -> Any:
    return object.properties.get(property)


@_function("Element.set")
def _set(_: Service, object: Picture, key: str, value: Any) -> Picture:
    return _with(object, properties={**object.properties, key: value})


@_function("Reducer.toList")
def _to_list(_: Service, tupleSize: int, numOptional: int) -> tuple[int, int]:
    return tupleSize, numOptional


@_function("Collection.reduceColumns")
def _reduce_columns(
    _: Service, collection: list[Picture], reducer: tuple[int, int], selectors: list[str]
) -> dict[str, Any]:
    size, optional = reducer
    assert size == len(selectors)
    rows = [[one.properties.get(name) for name in selectors] for one in collection]
    needed = size - optional
    return {"list": [row for row in rows if None not in row[:needed]]}


@_function("Collection.size")
def _size(_: Service, collection: list[Any]) -> int:
    return len(collection)


@_function("AggregateFeatureCollection.array")
def _array(_: Service, collection: list[Picture], property: str) -> list[Any]:
    values = (one.properties.get(property) for one in collection)
    return [value for value in values if value is not None]


@_function("List.sort")
def _sort(_: Service, list: list[Any]) -> list[Any]:
    return sorted(list)


@_function("List.slice")
def _slice(_: Service, list: list[Any], start: int, end: int | None = None) -> list[Any]:
    return list[start:end]


@_function("List.cat")
def _cat(_: Service, list: list[Any], other: list[Any]) -> list[Any]:
    return [*list, *other]


@_function("Number.add")
def _add(_: Service, left: float, right: float) -> float:
    return left + right


def _lattice_of(grid: Mapping[str, Any]) -> Lattice:
    unknown = set(grid) - {"dimensions", "affineTransform", "crsCode", "crsWkt"}
    if unknown or ("crsCode" in grid) == ("crsWkt" in grid):
        raise ServiceError("Invalid pixel grid.")
    size, numbers = grid["dimensions"], grid["affineTransform"]
    order = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    shape = (size["height"], size["width"])
    if max(shape) > LIMIT_PX:
        raise ServiceError(
            f"Pixel grid dimensions ({shape[1]}x{shape[0]}) must be less than or equal to "
            f"{LIMIT_PX}."
        )
    crs = CRS.from_user_input(grid.get("crsCode") or grid["crsWkt"])
    return Lattice(crs, Affine(*(numbers[name] for name in order)), shape)


def _computed_pixels(service: Service, body: Mapping[str, Any]) -> bytes:
    at = _lattice_of(body["grid"])
    if body["fileFormat"] != "NPY":
        raise ServiceError("Invalid file format.")
    picture = Evaluation(service, body["expression"]).result()
    dtype = np.dtype([(band, np.dtype(picture.kind).newbyteorder("<")) for band in picture.bands])
    pixels = at.shape[0] * at.shape[1]
    total = pixels * (dtype.itemsize + len(picture.bands))
    if total > service.limit_bytes:
        raise ServiceError(
            f"Total request size ({total} bytes) must be less than or equal to "
            f"{service.limit_bytes} bytes."
        )
    if pixels > service.memory_px:
        raise ServiceError("User memory limit exceeded.")
    made = np.zeros(at.shape, dtype)
    for band in picture.bands:
        values, valid = picture.draw(band, at)
        made[band] = np.where(valid, values, 0)
    file = io.BytesIO()
    np.save(file, made)
    return file.getvalue()


def _documents() -> tuple[bytes, bytes]:
    folder = Path(ee.__file__).parent / "tests"
    discovery = (folder / "cloud_api_discovery_document.json").read_text()
    return discovery.replace("v1alpha", "v1").encode(), (folder / "algorithms.json").read_bytes()


def stored(scene: ContractScene, **properties: Any) -> Stored:
    """Return a scene of the contract as an image, with a scene classification and a cloud score.

    Every fifth column is cloud to the first, every fourth to the second.
    """
    pixels = scene.pixels
    valid = (pixels != 0).all(axis=0)
    columns = np.broadcast_to(np.arange(scene.shape[1]), scene.shape)
    bands = dict(zip(BANDS, pixels, strict=True))
    bands["SCL"] = np.where(columns % 5 == 0, 9, 4).astype(np.uint16)
    moment = datetime.fromisoformat(scene.acquired).timestamp() * 1000
    own = Lattice(CRS.from_epsg(scene.epsg), scene.grid.transform, scene.shape)
    said = {
        "system:time_start": moment,
        "CLOUDY_PIXEL_PERCENTAGE": scene.cloud_pct,
        "PROCESSING_BASELINE": "05.09",
        "MGRS_TILE": TILES.get(scene.id, "33TWN"),
        **properties,
    }
    return Stored(scene.id, said, bands, valid, own)


def score(image: Stored) -> Stored:
    """Return the Cloud Score+ of an image: below 0.6 in every fourth column."""
    columns = np.broadcast_to(np.arange(image.lattice.shape[1]), image.lattice.shape)
    clear = np.where(columns % 4 == 0, 0.59, 0.6)
    everywhere = np.ones(image.lattice.shape, bool)
    return Stored(image.id, image.properties, {"cs_cdf": clear}, everywhere, image.lattice)


def contract_service(**changes: Any) -> Service:
    """Return a service that has the scenes of the contract."""
    images = [stored(scene) for scene in reversed(SCENES)]  # in no order, as there
    return Service({S2: images, SCORES: [score(image) for image in images]}, **changes)


@contextmanager
def serve(service: Service) -> Iterator[Service]:
    """Run the server; ``service.url`` is its endpoint."""
    discovery, algorithms = _documents()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            self.counted(None)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.counted(raw)

        def counted(self, raw: bytes | None) -> None:
            path = self.path.partition("?")[0]
            with service.lock:
                service.running += 1
                service.peak = max(service.peak, service.running)
            try:
                self.handle_path(path, raw)
            finally:
                with service.lock:
                    service.running -= 1

        def handle_path(self, path: str, raw: bytes | None) -> None:
            is_json = raw is not None and raw.startswith(b"{")
            asked = Asked(path, json.loads(raw or b"{}") if is_json else raw, dict(self.headers))
            fault = service.next_fault(path)
            asked.fault = "" if fault is None else fault.kind
            with service.lock:
                service.asked.append(asked)
            if service.latency_s:
                time.sleep(service.latency_s)
            if fault is not None and self.spoiled(fault):
                return
            try:
                if service.refusal is not None and path.startswith("/v1/"):
                    raise service.refusal
                body, kind = self.answer(path, asked.body)
            except ServiceError as exc:
                self.refuse(exc.status, str(exc), exc.code)
                return
            if fault is not None:
                body, kind = _changed(fault, body, kind)
            self.reply(200, body, kind)

        def answer(self, path: str, body: Any) -> tuple[bytes, str]:
            if path == "/$discovery/rest":
                return discovery, "application/json"
            if path == "/token":
                token = {"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}
                return json.dumps(token).encode(), "application/json"
            if path.endswith("/algorithms"):
                return algorithms, "application/json"
            if path.endswith("/value:compute"):
                result = Evaluation(service, body["expression"]).result()
                return json.dumps({"result": result}).encode(), "application/json"
            if path.endswith("/image:computePixels"):
                return _computed_pixels(service, body), "application/octet-stream"
            raise ServiceError("Not found", 404, "NOT_FOUND")

        def spoiled(self, fault: Fault) -> bool:
            """Answer wrongly; return False where the right answer is needed first."""
            if fault.kind == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
                return True
            if fault.kind == "html":
                self.reply(fault.status or 200, b"<html>gateway</html>", "text/html")
                return True
            if fault.kind == "status":
                self.refuse(fault.status, fault.message, "RESOURCE_EXHAUSTED", fault.headers)
                return True
            if fault.kind == "cut":  # the length that is stated never comes
                self.reply(200, b"\x93NUMPY", "application/octet-stream", length=1000)
                self.close_connection = True
                return True
            return False

        def refuse(
            self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None
        ) -> None:
            error = {"error": {"code": status, "message": message, "status": code}}
            self.reply(status, json.dumps(error).encode(), "application/json", headers)

        def reply(
            self,
            status: int,
            body: bytes,
            kind: str,
            headers: Mapping[str, str] | None = None,
            length: int | None = None,
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Say nothing of connections that were reset on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def _changed(fault: Fault, body: bytes, kind: str) -> tuple[bytes, str]:
    """Return the right answer, spoiled."""
    if fault.kind == "truncated":
        return body[: len(body) // 2], kind
    if fault.kind == "truncated header":
        return body[:20], kind
    if fault.kind in ("bytes", "nothing"):
        return (b"\x93NUMPY" if fault.kind == "bytes" else b""), kind
    values = np.load(io.BytesIO(body))
    if fault.kind == "shape":
        values = values[:-1]
    elif fault.kind == "dtype":
        values = values.astype([(name, "<f8") for name in values.dtype.names])
    elif fault.kind == "names":
        values = values.astype([(f"x{name}", "<f4") for name in values.dtype.names])
    else:
        raise AssertionError(fault.kind)
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue(), kind
