"""Raw values that must not reach a model: too few, too small, in other units, implausible."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE_PX = 16
# Bright clouds and sun glint reach about 2; below 0 there is only the noise of the correction.
PLAUSIBLE_REFLECTANCE = (-0.5, 3.0)
# Scales up to the first are those of digital numbers: 8-bit values would be at most 0.26. Values up
# to the second are reflectance.
_SCALE_OF_NUMBERS, _SCALED_AT_MOST = 0.001, 1.5


def check_values(
    raster: Raster, *, reflectance: tuple[float, float], min_valid: float, vouched: bool
) -> None:
    """Raise unless the pixels can be what the model expects.

    Parameters
    ----------
    raster : Raster
        Raw values.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    min_valid : float
        Least share of valid pixels, 0..1.
    vouched : bool
        True where the user or the imagery stated the units, so that values that look like
        reflectance 0..1 or 8-bit are not questioned, unless these units would make them darker than
        any image.

    Raises
    ------
    ImageryError
        If the image is too small, mostly infinite, has too little valid, holds values that look
        like reflectance 0..1 or 8-bit instead of digital numbers 0..10000, or reflectance that
        no surface has, or was scaled already though its scale is still stated.
    """
    check_side(raster.grid, "got an image of")
    if raster.data.dtype.kind == "f":
        infinite = float(np.isinf(raster.data).any(axis=0).mean())
        if infinite > 0.5:
            raise ImageryError(
                f"got {infinite:.0%} infinite pixels, expected digital numbers; look for a "
                "division by zero where the image was made"
            )
    share = float(raster.valid.mean())
    if share < min_valid or share == 0:
        raise ImageryError(
            f"got {share:.1%} valid pixels, expected at least {min_valid:.0%}: the rest is NaN, "
            "infinite, nodata or outside the imagery; choose another place or period, or lower "
            "min_valid"
        )
    check_units(raster, reflectance=reflectance, vouched=vouched)


def check_side(grid: Grid, what: str, pixel_m: float | None = None) -> None:
    """Raise `ImageryError` if there are too few pixels.

    ``what`` begins the message. ``pixel_m`` is metres per pixel where a larger place has more.
    """
    height, width = grid.shape
    if min(height, width) >= MIN_SIDE_PX:
        return
    scale, fix = "", "include more of the surroundings"
    if pixel_m is not None:
        buffer_m = math.ceil(pixel_m * max(MIN_SIDE_PX, height, width) / 2)
        scale = f" at scale_m={pixel_m:g}"
        fix = (
            f"use the square around its centre, PointBuffer(lon, lat, buffer_m={buffer_m}): in a "
            "table of places the columns lon, lat and buffer_m"
        )
    raise ImageryError(
        f"{what} {height} x {width} px{scale}, expected a short side of at least {MIN_SIDE_PX} px; "
        f"{fix}"
    )


def check_units(raster: Raster, *, reflectance: tuple[float, float], vouched: bool) -> None:
    """Raise `ImageryError` unless the valid pixels, at least one, can be of these units.

    Parameters are those of `check_values`.
    """
    brightest = raster.data.max(axis=0)[raster.valid]
    if not vouched:
        _check_digital_numbers(raster, brightest)
    elif reflectance[0] <= _SCALE_OF_NUMBERS:
        _check_not_scaled(raster, brightest, reflectance)
    _check_reflectance_range(raster.data.min(axis=0)[raster.valid], brightest, reflectance)


def without_odd(raster: Raster, reflectance: tuple[float, float]) -> tuple[Raster, int]:
    """Return the raster without the pixels that `check_values` tolerates, and how many they are.

    Up to 1 % of the pixels may have values outside the range of reflectance (an undeclared nodata
    value, saturation); they become invalid.
    """
    odd = raster.valid & _is_odd(raster.data.min(axis=0), raster.data.max(axis=0), reflectance)
    count = int(odd.sum())
    return (replace(raster, valid=raster.valid & ~odd) if count else raster), count


def _is_odd(
    darkest: NDArray[Any], brightest: NDArray[Any], reflectance: tuple[float, float]
) -> NDArray[np.bool_]:
    low, high = _value_limits(reflectance)
    odd: NDArray[np.bool_] = (darkest < low) | (brightest > high)
    return odd


def _value_limits(reflectance: tuple[float, float]) -> tuple[float, float]:
    scale, offset = reflectance
    low, high = ((limit - offset) / scale for limit in PLAUSIBLE_REFLECTANCE)
    return low, high


def _check_digital_numbers(raster: Raster, brightest: NDArray[Any]) -> None:
    highest = float(brightest.max())
    eight_bit = raster.data.dtype == np.uint8
    # A few wild values must not hide that all others are reflectance 0..1.
    low = np.count_nonzero(brightest <= 1.5) >= 0.99 * brightest.size
    normalised_already = not eight_bit and highest > 0 and low
    if eight_bit or normalised_already or 0 < highest <= 255:
        kind = "normalised to 0..1" if normalised_already else "8-bit"
        scale = "1" if normalised_already else "1 / 255"
        raise ImageryError(
            f"got {raster.data.dtype} values up to {highest:g}, which look {kind}, expected "
            "surface reflectance as digital numbers 0..10000; state the units: "
            f"sensor=SensorSpec(collection='...', bands={raster.bands}, "
            f"reflectance_scale={scale}), or 1 / 10000 if they are digital numbers after all"
        )


def _check_not_scaled(
    raster: Raster, brightest: NDArray[Any], reflectance: tuple[float, float]
) -> None:
    """Raise where values are reflectance or 8-bit while the scale of digital numbers is stated.

    Arithmetic of xarray keeps attributes, and so do most tools that write files.
    """
    highest = float(brightest.max())
    if raster.data.dtype == np.uint8:
        kind = "8-bit"
    elif raster.data.dtype.kind == "f" and np.quantile(brightest, 0.99) <= _SCALED_AT_MOST:
        if (brightest == np.round(brightest)).all():  # digital numbers of dark water
            return
        kind = "scaled to reflectance already"
    else:
        return
    scale, offset = reflectance
    raise ImageryError(
        f"got {raster.data.dtype} values up to {highest:.4g}, which look {kind}, with scale "
        f"{scale:g} and offset {offset:g}, which would make them {highest * scale + offset:.2g} at "
        "most; remove what still states these units: scale_factor and add_offset (or scales and "
        "offsets) in the attributes of an array, gdal_edit.py -scale 1 -offset 0 for a file, "
        "reflectance_scale of a SensorSpec"
    )


def _check_reflectance_range(
    darkest: NDArray[Any], brightest: NDArray[Any], reflectance: tuple[float, float]
) -> None:
    """Raise where more than 1 % of the pixels have a reflectance that no surface or cloud has."""
    scale, offset = reflectance
    low, high = _value_limits(reflectance)
    odd = float(_is_odd(darkest, brightest, reflectance).mean())
    if odd > 0.01:
        raise ImageryError(
            f"got values from {float(darkest.min()):g} to {float(brightest.max()):g}, {odd:.1%} of "
            f"them outside the range of reflectance with scale {scale:g} and offset {offset:g} "
            f"({low:.6g} to {high:.6g}); if the imagery marks nodata with such a value, state it: "
            "fetch={'fill_value': ...}, else state the units with SensorSpec"
        )
