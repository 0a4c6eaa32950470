"""From the options of the command line to the arguments of the public functions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rs_embed import (
    BBox,
    FetchSpec,
    InputPrepSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    describe_model,
)
from rs_embed.addresses import check_regular
from rs_embed.cli.cache import opened_cache
from rs_embed.cli.options import ModelOptions, OnePlace, Period, Pixels, Prep, Rectangle
from rs_embed.cli.printing import echo
from rs_embed.errors import ImageryError, SpecError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from rs_embed import LocalProvider


def warn_if_lost(out: str) -> None:
    """Print a warning if an output ends with this process."""
    if out.lower().startswith("memory:"):
        what = "is in the memory of this command and lost when it ends"
        echo(f"warning: {out} {what}; write to a path, s3://, gs:// or az://", err=True)


def one_place(place: OnePlace, pixels: Pixels) -> dict[str, Any]:
    """Return ``spatial`` and ``input_chw``."""
    if place.input_npy is not None and pixels.local is not None:
        raise SpecError("got --local with --input, expected one source of pixels")
    return {
        "spatial": rectangle(place),
        "input_chw": None if place.input_npy is None else _array(place.input_npy),
    }


def common(
    model: str, pixels: Pixels, period: Period, prep: Prep, options: ModelOptions
) -> dict[str, Any]:
    """Return the arguments that one place and many places share."""
    sensor, fetch = _source(model, pixels)
    return {
        "temporal": _temporal(period),
        "sensor": sensor,
        "fetch": fetch,
        "backend": _backend(pixels),
        "imagery": pixels.imagery,
        "cache": opened_cache(pixels.cache, shared=True) if pixels.cache_shared else pixels.cache,
        "input_prep": _input_prep(prep),
        **({} if pixels.min_valid is None else {"min_valid": pixels.min_valid}),
        **model_options(model, options),
    }


def model_options(model: str, options: ModelOptions) -> dict[str, Any]:
    """Return the options that were given, numbers as numbers where ``model`` expects them."""
    stated = {name: value for name, value in options.values.items() if value is not None}
    types = {o["name"]: o["type"] for o in describe_model(model)["options"]} if stated else {}
    for name in stated:
        if name not in types:
            raise UnknownNameError.among("option", name, types, of=f"model {model!r}")
    return {name: _number(types[name], value) for name, value in stated.items()}


def rectangle(place: Rectangle) -> BBox | PointBuffer | None:
    """Return the stated square or box; None if there is none."""
    lon, lat, buffer_m = point = (place.lon, place.lat, place.buffer_m)
    if place.bbox is not None:
        if any(v is not None for v in point):
            raise SpecError("got --bbox with --lon, --lat or --buffer-m, expected one place")
        try:
            minlon, minlat, maxlon, maxlat = map(float, place.bbox.split(","))
        except ValueError as exc:
            raise SpecError(
                f"got --bbox {place.bbox}, expected minlon,minlat,maxlon,maxlat"
            ) from exc
        return BBox(minlon, minlat, maxlon, maxlat)
    if lon is None and lat is None and buffer_m is None:
        return None
    if lon is None or lat is None or buffer_m is None:
        raise SpecError("got an incomplete point, expected --lon, --lat and --buffer-m together")
    return PointBuffer(lon, lat, buffer_m)


def _temporal(period: Period) -> TemporalSpec | str | None:
    if period.temporal is not None:
        if period.start is not None or period.end is not None:
            raise SpecError("got --temporal with --start or --end, expected one period")
        return period.temporal
    if period.start is None and period.end is None:
        return None
    if period.start is None or period.end is None:
        raise SpecError("got an incomplete period, expected --start and --end together")
    return TemporalSpec.range(period.start, period.end)


def _input_prep(prep: Prep) -> InputPrepSpec:
    if prep.input_prep is None:
        for option, value in (("--tile-size", prep.tile_size), ("--overlap-px", prep.overlap_px)):
            if value is not None:
                raise SpecError(
                    f"got {option} {value} without tiles, expected --input-prep tile (or auto) "
                    "with it"
                )
        return InputPrepSpec()
    return InputPrepSpec(
        prep.input_prep,  # type: ignore[arg-type]  # checked when built
        prep.tile_size,
        prep.overlap_px or 0,
    )


def _number(kind: str, value: Any) -> Any:
    """Return ``value`` as the number that an option expects; as it is where it is not one."""
    if isinstance(value, str) and kind in ("integer", "number"):
        with suppress(ValueError):
            return int(value) if kind == "integer" else float(value)
    return value


def _backend(pixels: Pixels) -> str | LocalProvider:
    if pixels.local is None:
        return pixels.backend
    if pixels.backend != "auto":
        raise SpecError(
            f"got --local with --backend {pixels.backend}, expected one source of pixels"
        )
    if pixels.imagery is not None:
        raise SpecError("got --local with --imagery, expected one source of pixels")
    from rs_embed import LocalProvider

    return LocalProvider(pixels.local)


def _source(model: str, pixels: Pixels) -> tuple[SensorSpec | None, FetchSpec | None]:
    """Return a sensor if collection, bands or units are stated, else the stated fetch values."""
    fetch = FetchSpec(**{field.name: getattr(pixels, field.name) for field in fields(FetchSpec)})
    scale, offset = pixels.reflectance_scale, pixels.reflectance_offset
    if {pixels.collection, pixels.bands, scale, offset} == {None}:
        return None, None if fetch == FetchSpec() else fetch
    contract = describe_model(model)["inputs"]
    names = contract["bands"] if pixels.bands is None else pixels.bands.split(",")
    sensor = SensorSpec(
        pixels.collection or contract["collection"],
        tuple(names),
        reflectance_scale=scale,
        reflectance_offset=offset,
    )
    return sensor.with_fetch(fetch), None


def _array(path: Path) -> Any:
    import numpy as np

    try:
        check_regular(path)
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        missing = "no such file" if isinstance(exc, FileNotFoundError) else str(exc)
        reason = "not a .npy array of numbers" if path.is_file() else missing
        raise ImageryError(f"cannot read {path}: {reason}") from exc
