"""Parts of a request: place, period, sensor, output. Frozen, and checked when built."""

from __future__ import annotations

import functools
import inspect
import math
import re
import reprlib
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from rs_embed.errors import SpecError, UnknownNameError, did_you_mean
from rs_embed.printable import html_table

Spec = TypeVar("Spec")
Composite = Literal["median", "mosaic"]
CloudMask = Literal["scl", "cloud_score_plus"]
OutputMode = Literal["pooled", "grid"]
Pooling = Literal["mean", "max", "cls"]
InputPrepMode = Literal["resize", "tile", "auto"]

COMPOSITES: tuple[Composite, ...] = ("median", "mosaic")
CLOUD_MASKS: tuple[CloudMask, ...] = ("scl", "cloud_score_plus")
OUTPUT_MODES: tuple[OutputMode, ...] = ("pooled", "grid")
POOLINGS: tuple[Pooling, ...] = ("mean", "max", "cls")
INPUT_PREPS: tuple[InputPrepMode, ...] = ("resize", "tile", "auto")


def _explained(spec: type[Spec]) -> type[Spec]:
    """Return a dataclass whose wrong calls raise `SpecError`, shown as a table in notebooks."""
    build: Any = vars(spec)["__init__"]
    signature = inspect.signature(spec)

    @functools.wraps(build)
    def checked(self: Spec, *given: Any, **named: Any) -> None:
        try:
            build(self, *given, **named)
        except TypeError:
            try:
                signature.bind(*given, **named)
            except TypeError as exc:
                raise _wrong_call(spec.__name__, signature, given, named, exc) from None
            raise

    spec._repr_html_ = lambda self: html_table(spec.__name__, to_json(self))  # type: ignore[attr-defined]
    spec.__init__ = checked  # type: ignore[method-assign,assignment]
    return spec


def _wrong_call(
    name: str, signature: inspect.Signature, given: Any, named: Any, reason: TypeError
) -> SpecError:
    known = list(signature.parameters)
    unknown = [key for key in named if key not in known]
    call = ", ".join([*map(reprlib.repr, given), *(f"{k}={v!r:.60}" for k, v in named.items())])
    hint = "".join(did_you_mean(key, known) for key in unknown)
    if len(given) == 1 and isinstance(given[0], tuple | list) and len(given[0]) > 1:
        hint = f"; did you mean {name}(*values)?"
    right = f"{name}({', '.join(f'{key}=...' for key in known)})"
    return SpecError(f"got {name}({call}): {reason}, expected {right}{hint}")


@_explained
@dataclass(frozen=True)
class BBox:
    """A box in geographic coordinates (EPSG:4326), in degrees.

    Parameters
    ----------
    minlon, minlat, maxlon, maxlat : float
        Edges. Longitudes in [-180, 180], latitudes in [-90, 90], each minimum below its maximum.

    Raises
    ------
    SpecError
        If an edge is not a finite number, is out of range, or min >= max.
    """

    minlon: float
    minlat: float
    maxlon: float
    maxlat: float

    def __post_init__(self) -> None:
        for name in ("minlon", "maxlon"):
            _check_between(name, getattr(self, name), -180, 180)
        for name in ("minlat", "maxlat"):
            _check_between(name, getattr(self, name), -90, 90)
        for low, high in (("minlon", "maxlon"), ("minlat", "maxlat")):
            if getattr(self, low) >= getattr(self, high):
                raise SpecError(
                    f"got {low}={getattr(self, low)} and {high}={getattr(self, high)}, expected "
                    f"{low} < {high}; the order is minlon, minlat, maxlon, maxlat, and a box "
                    "across the antimeridian must be split in two"
                )

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle, degrees."""
        return (self.minlon + self.maxlon) / 2, (self.minlat + self.maxlat) / 2


@_explained
@dataclass(frozen=True)
class PointBuffer:
    """A square around a point: half its side is ``buffer_m`` metres on the ground.

    Parameters
    ----------
    lon, lat : float
        Centre in EPSG:4326, degrees.
    buffer_m : float
        Half of the side, ground metres; more than 0.

    Raises
    ------
    SpecError
        If a value is not a finite number or is out of range.
    """

    lon: float
    lat: float
    buffer_m: float

    def __post_init__(self) -> None:
        _check_between("lon", self.lon, -180, 180)
        _check_between("lat", self.lat, -90, 90)
        check_positive("buffer_m", self.buffer_m, "metres")

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle, degrees."""
        return self.lon, self.lat


Spatial = BBox | PointBuffer
SPATIALS: dict[str, type[Spatial]] = {"BBox": BBox, "PointBuffer": PointBuffer}


@_explained
@dataclass(frozen=True)
class TemporalSpec:
    """A period of whole days, half-open: it includes ``start`` but not ``end``.

    Build it with :meth:`range` or :meth:`year`.

    Raises
    ------
    SpecError
        If a date is malformed or start >= end.
    """

    start: date
    end: date

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, as_day(name, getattr(self, name)))
        if self.start >= self.end:
            raise SpecError(
                f"got the period {self.start} to {self.end}, expected start < end; the end day is "
                "not part of the period: one day is 2022-06-01 to 2022-06-02"
            )

    @classmethod
    def range(cls, start: str | date, end: str | date) -> TemporalSpec:
        """Return the period from ``start`` up to, not including, ``end`` (``YYYY-MM-DD``)."""
        return cls(start, end)  # type: ignore[arg-type]  # text is converted on building

    @classmethod
    def year(cls, year: int) -> TemporalSpec:
        """Return the calendar year ``year``."""
        if isinstance(year, bool) or not isinstance(year, int) or not 1 <= year <= 9998:
            raise SpecError(f"got year={year!r}, expected a whole number from 1 to 9998")
        return cls(date(year, 1, 1), date(year + 1, 1, 1))


@_explained
@dataclass(frozen=True)
class SensorSpec:
    """The imagery for the model; replaces the model's default sensor as a whole.

    Parameters
    ----------
    collection : str
        Name of the collection at the provider, or of the product that own pixels come from.
    bands : tuple of str
        Band names in the model's order (red, green, blue).
    scale_m : float or None
        Ground sample distance, metres per pixel. None is the model's default at a provider, and
        the file's pixel size for own imagery.
    cloudy_pct : float or None
        Keep scenes with less cloud cover than this, percent; None is the model's default.
    composite : {"median", "mosaic"} or None
        How several scenes become one image; None is the model's default.
    fill_value : float or None
        Pixel value that means nodata; None is the nodata value of the imagery, else 0.
    crs : str or None
        CRS to sample in; None is the UTM zone (or polar projection) of the place.
    cloud_mask : {"scl", "cloud_score_plus"} or None
        How clouds in each scene are masked; None masks none. See `FetchSpec`.
    reflectance_scale, reflectance_offset : float or None
        Reflectance = value * scale + offset. None is 1/10000 and 0, as for
        Sentinel-2. If they are stated, the units of the values are not checked.

    Raises
    ------
    SpecError
        If a value has the wrong type or is out of range.
    """

    collection: str
    bands: tuple[str, ...]
    scale_m: float | None = None
    cloudy_pct: float | None = None
    composite: Composite | None = None
    fill_value: float | None = None
    crs: str | None = None
    cloud_mask: CloudMask | None = None
    reflectance_scale: float | None = None
    reflectance_offset: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.collection, str) or not self.collection:
            raise SpecError(f"got collection={self.collection!r}, expected a non-empty name")
        bands = self.bands
        if isinstance(bands, str) or not all(isinstance(b, str) and b for b in bands):
            raise SpecError(f"got bands={bands!r}, expected names such as ('B4', 'B3', 'B2')")
        object.__setattr__(self, "bands", tuple(bands))
        if len(set(self.bands)) != len(self.bands) or not self.bands:
            raise SpecError(f"got bands={self.bands!r}, expected at least one name, each once")
        _check_fetch_values(self)
        if self.reflectance_scale is not None:
            check_positive("reflectance_scale", self.reflectance_scale, "per digital number")
        if self.reflectance_offset is not None:
            finite_number("reflectance_offset", self.reflectance_offset)

    def with_fetch(self, fetch: FetchSpec) -> SensorSpec:
        """Return this sensor with the values that ``fetch`` states."""
        stated = {f.name: getattr(fetch, f.name) for f in fields(fetch)}
        return replace(self, **{k: v for k, v in stated.items() if v is not None})


@_explained
@dataclass(frozen=True)
class FetchSpec:
    """Single values that override the model's default sensor; None keeps the default.

    Parameters
    ----------
    scale_m : float or None
        Ground sample distance, metres per pixel. For own pixels: their size on the ground.
    cloudy_pct : float or None
        Keep scenes with less cloud cover than this, percent.
    composite : {"median", "mosaic"} or None
        How several scenes become one image.
    crs : str or None
        CRS to sample in instead of the UTM zone of the place.
    fill_value : float or None
        Pixel value that means nodata.
    cloud_mask : {"scl", "cloud_score_plus"} or None
        Mask each scene before they are combined: the classes nodata, saturated, cloud, cirrus and
        shadow of Sentinel-2's scene classification (``"scl"``), or a Cloud Score+ below 0.6
        (``"cloud_score_plus"``, Earth Engine only).

    Raises
    ------
    SpecError
        If a value has the wrong type or is out of range; `UnknownNameError` for names.
    """

    scale_m: float | None = None
    cloudy_pct: float | None = None
    composite: Composite | None = None
    crs: str | None = None
    fill_value: float | None = None
    cloud_mask: CloudMask | None = None

    def __post_init__(self) -> None:
        _check_fetch_values(self)


@_explained
@dataclass(frozen=True)
class OutputSpec:
    """The kind of result: one vector (:meth:`pooled`) or a token grid (:meth:`grid`).

    Raises
    ------
    UnknownNameError
        If the mode or the pooling is not one of the choices.
    """

    mode: OutputMode
    pooling: Pooling | None = None

    def __post_init__(self) -> None:
        if self.mode not in OUTPUT_MODES:
            raise UnknownNameError.among("output mode", self.mode, OUTPUT_MODES)
        if self.mode == "pooled" and self.pooling is None:
            object.__setattr__(self, "pooling", "mean")
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise UnknownNameError.among("pooling", self.pooling, POOLINGS)
        if self.mode == "grid" and self.pooling is not None:
            raise SpecError(
                f"got pooling={self.pooling!r} for a grid, which is not pooled; leave pooling out"
            )

    @classmethod
    def pooled(cls, pooling: Pooling = "mean") -> OutputSpec:
        """Return one vector: mean or max of the valid patch tokens, or the class token."""
        return cls("pooled", pooling)

    @classmethod
    def grid(cls) -> OutputSpec:
        """Return a grid of patch tokens, with nodata where too few pixels are valid."""
        return cls("grid")


@_explained
@dataclass(frozen=True)
class InputPrepSpec:
    """How an image becomes the model's input.

    Parameters
    ----------
    mode : {"resize", "tile", "auto"}
        ``"resize"``: resize the short side and crop the centre; one forward pass.
        ``"tile"``: cut the whole image into windows at its own GSD. ``"auto"``: resize images
        that it neither shrinks nor crops more than usual (no side longer than the short side
        after the resize), tile others.
    tile_size : int or None
        Side of a tile, pixels, a multiple of the patch size; None is the model's ``image_size``.
        A smaller image is one smaller tile.
    overlap_px : int
        Minimum overlap of neighbouring tiles, pixels: a multiple of the patch size, less than
        ``tile_size``. Tokens in an overlap come from the tile whose edge is farther away.

    Raises
    ------
    UnknownNameError
        If the mode is not one of the choices.
    SpecError
        If a size is not a whole number or is given for ``"resize"``, or the overlap is not less
        than the tile.
    """

    mode: InputPrepMode = "resize"
    tile_size: int | None = None
    overlap_px: int = 0

    def __post_init__(self) -> None:
        if self.mode not in INPUT_PREPS:
            raise UnknownNameError.among("input_prep", self.mode, INPUT_PREPS)
        if self.tile_size is not None:
            object.__setattr__(self, "tile_size", whole("tile_size", self.tile_size, 1))
        object.__setattr__(self, "overlap_px", whole("overlap_px", self.overlap_px, 0))
        if self.mode == "resize" and (self.tile_size is not None or self.overlap_px):
            raise SpecError(
                f"got tile_size={self.tile_size} and overlap_px={self.overlap_px} for 'resize', "
                "which has no tiles; use InputPrepSpec.tile(...)"
            )
        if self.tile_size is not None and self.overlap_px >= self.tile_size:
            raise SpecError(
                f"got overlap_px={self.overlap_px} with tile_size={self.tile_size}, expected an "
                "overlap smaller than the tile"
            )

    @classmethod
    def resize(cls) -> InputPrepSpec:
        """Return the preparation of the published evaluation: resize and centre crop."""
        return cls("resize")

    @classmethod
    def tile(cls, tile_size: int | None = None, overlap_px: int = 0) -> InputPrepSpec:
        """Return the preparation that covers the whole image at its own GSD."""
        return cls("tile", tile_size, overlap_px)

    @classmethod
    def auto(cls, tile_size: int | None = None, overlap_px: int = 0) -> InputPrepSpec:
        """Return the preparation that tiles only images too large for one pass."""
        return cls("auto", tile_size, overlap_px)


def to_json(spec: Any) -> dict[str, Any]:
    """Return the fields of a spec as JSON values, dates as ``YYYY-MM-DD``."""
    return {f.name: _json_value(getattr(spec, f.name)) for f in fields(spec)}


def _json_value(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Real) and not isinstance(value, int | float):  # NumPy scalars
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def check_positive(name: str, value: object, unit: str) -> None:
    """Raise `SpecError` unless ``value`` is a finite number above 0."""
    if finite_number(name, value) <= 0:
        raise SpecError(f"got {name}={value!r}, expected more than 0 ({unit})")


def finite_number(name: str, value: object) -> float:
    """Return ``value`` as a float; raise `SpecError` unless it is a finite number."""
    # NumPy scalars are registered as Real; a bool is an int in Python, but not a number here.
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise SpecError(f"got {name}={value!r} ({type(value).__name__}), expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"got {name}={number!r}, expected a finite number")
    return number


def check_whole(name: str, value: object, least: int) -> None:
    """Raise `SpecError` unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise SpecError(f"got {name}={value!r}, expected a whole number of at least {least}")


def whole(name: str, value: object, least: int) -> int:
    """Return ``value``, which may be a NumPy integer, as an int; checked as by `check_whole`."""
    check_whole(name, value, least)
    return int(value)  # type: ignore[call-overload, no-any-return]


def _check_between(name: str, value: object, low: float, high: float) -> None:
    number = finite_number(name, value)
    if not low <= number <= high:
        hint = "; are longitude and latitude swapped?" if abs(number) <= 180 else ""
        if high == 180 < abs(number) <= 360:
            hint = f"; write it as {number - math.copysign(360, number):.10g}"
            box = " (a box across the antimeridian must be split in two)"
            hint += "" if name == "lon" else box
        raise SpecError(f"got {name}={value!r}, expected degrees from {low} to {high}{hint}")


def _check_fetch_values(spec: SensorSpec | FetchSpec) -> None:
    if spec.scale_m is not None:
        check_positive("scale_m", spec.scale_m, "ground metres per pixel")
    if spec.cloudy_pct is not None and not 0 <= finite_number("cloudy_pct", spec.cloudy_pct) <= 100:
        raise SpecError(f"got cloudy_pct={spec.cloudy_pct!r}, expected a percentage from 0 to 100")
    if spec.composite is not None and spec.composite not in COMPOSITES:
        raise UnknownNameError.among("composite", spec.composite, COMPOSITES)
    if spec.cloud_mask is not None and spec.cloud_mask not in CLOUD_MASKS:
        raise UnknownNameError.among("cloud_mask", spec.cloud_mask, CLOUD_MASKS)
    if spec.fill_value is not None:
        finite_number("fill_value", spec.fill_value)
    if spec.crs is not None and (not isinstance(spec.crs, str) or not spec.crs):
        raise SpecError(f"got crs={spec.crs!r}, expected text such as 'EPSG:32633'")


def as_day(name: str, value: object) -> date:
    """Return the day that a date, a text or a time at midnight states; `SpecError` otherwise."""
    if type(value) is date:
        return value
    if isinstance(value, datetime):
        return _day_of(name, value)
    if type(value).__name__ == "datetime64":  # of NumPy
        value = str(value)
    if not isinstance(value, str):
        raise SpecError(
            f"got {name}={value!r} ({type(value).__name__}), expected a day as 'YYYY-MM-DD', a "
            "date, or a time at midnight"
        )
    reason = "not in that format"
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}([T ]\d{2}.*)?", value, re.ASCII):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as exc:
            reason = str(exc)
        else:
            return _day_of(name, moment)
    raise SpecError(
        f"got {name}={value!r} ({reason}), expected a calendar day as 'YYYY-MM-DD'"
        f"{_readings(name, value)}"
    )


def _day_of(name: str, moment: datetime) -> date:
    """Return the day that begins at a moment: nothing is cut off."""
    if moment != moment:  # NaT of pandas
        raise SpecError(f"got {name}={moment}, expected a day")
    if moment.utcoffset():
        raise SpecError(
            f"got {name}={moment.isoformat()}, in another time zone than UTC, expected a day in "
            "UTC; convert it, e.g. with .astimezone(datetime.UTC)"
        )
    if moment.time().isoformat() != "00:00:00":
        raise SpecError(
            f"got {name}={moment.isoformat()}, but periods are whole days; state the day "
            f"'{moment.date()}', and remember that the end of a period is not part of it"
        )
    return moment.date()


def _readings(name: str, value: str) -> str:
    """Return what a date with the year last, or with months and years alone, may mean."""
    found = re.fullmatch(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", value, re.ASCII)
    if found:
        first, second, year = found[1].zfill(2), found[2].zfill(2), found[3]
        days = {f"{year}-{second}-{first}", f"{year}-{first}-{second}"}
        valid = [day for day in sorted(days) if int(day[5:7]) in range(1, 13)]
        return f"; did you mean {' or '.join(map(repr, valid))}?" if valid else ""
    if re.fullmatch(r"\d{4}(-\d{2})?", value, re.ASCII) and name == "end":
        first = f"{value}-01" if len(value) == 7 else f"{value}-01-01"
        return (
            f"; as the end of a period it may mean up to {first}, or all of it: state the day "
            "after the last one"
        )
    return ""
