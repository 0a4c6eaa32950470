"""From raw values to the image that the model sees, its grid, its GSD and its valid tokens.

The pipeline is the evaluation pipeline of MAE and ScaleMAE, bit for bit that of torchvision on
Pillow images: ``Resize(short side, bicubic) -> CenterCrop -> ToTensor -> Normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from rs_embed.errors import ImageryError
from rs_embed.grid import Grid
from rs_embed.nearest import nearest_valid
from rs_embed.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

Display = Literal["reflectance", "visual"]
DISPLAYS: tuple[Display, ...] = ("reflectance", "visual")

# Reflectance that becomes 255: everything, or the range of Sentinel-2's true-colour images.
_WHITE = {"reflectance": 1.0, "visual": 0.3}
# Share of the short side that the crop keeps up to 224 px (torchvision's 256 -> 224).
_CROP_SHARE = 224 / 256
MIN_SIDE_PX = 16
DEFAULT_REFLECTANCE = (1 / 10000, 0.0)
# A token counts where at least this share of its footprint is valid.
MIN_TOKEN_VALID = 0.5
# Bright clouds and sun glint reach about 2; below 0 there is only the noise of the correction.
PLAUSIBLE_REFLECTANCE = (-0.5, 3.0)


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What the model sees of one raster.

    Attributes
    ----------
    image : numpy.ndarray
        ``(size, size, 3)`` uint8, red, green, blue.
    token_valid : numpy.ndarray
        ``(rows, columns)`` float64 in 0..1: valid share of each token's footprint.
    grid : Grid
        Place of ``image``.
    input_res_m : float
        Ground metres per pixel of ``image``.
    coverage : float
        Share of the raster's area within ``image``, 0..1.
    """

    image: NDArray[np.uint8]
    token_valid: NDArray[np.float64]
    grid: Grid
    input_res_m: float
    coverage: float

    @property
    def valid_fraction(self) -> float:
        """Valid share of the image, 0..1."""
        return float(self.token_valid.mean())


def model_grid(grid: Grid, scale_m: float, image_size: int) -> tuple[Grid, Grid, float]:
    """Return the grid after the resize, the grid after the crop, and the metres per pixel there.

    The short side is resized to ``int(image_size * 256 / 224)`` up to 224 px and to ``image_size``
    beyond, the long side in proportion, rounded down (torchvision's ``Resize``); the crop starts
    at ``round((side - image_size) / 2)``, halves to even (torchvision's ``CenterCrop``).

    Parameters
    ----------
    grid : Grid
        Grid of the raster.
    scale_m : float
        Ground metres per pixel of ``grid``.
    image_size : int
        Side of the model's input, pixels.

    Returns
    -------
    resized : Grid
        Same bounds as ``grid``.
    cropped : Grid
        ``image_size`` by ``image_size`` pixels of it.
    input_res_m : float
        ``scale_m * short side / resized short side``.
    """
    height, width = grid.shape
    short = min(height, width)
    target = image_size if image_size > 224 else int(image_size / _CROP_SHARE)
    long = int(target * max(height, width) / short)
    resized = grid.resized(*((target, long) if height <= width else (long, target)))
    top, left = (round((side - image_size) / 2) for side in resized.shape)
    return resized, resized.window(top, left, image_size, image_size), scale_m * short / target


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
        reflectance 0..1 or 8-bit are not questioned.

    Raises
    ------
    ImageryError
        If the image is too small, mostly infinite, has too little valid, holds values that look
        like reflectance 0..1 or 8-bit instead of digital numbers 0..10000, or reflectance that
        no surface has.
    """
    _, height, width = raster.data.shape
    if min(height, width) < MIN_SIDE_PX:
        raise ImageryError(
            f"got an image of {height} x {width} px, expected a short side of at least "
            f"{MIN_SIDE_PX} px; use a larger buffer or a smaller scale_m"
        )
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
    brightest = raster.data.max(axis=0)[raster.valid]
    if not vouched:
        _check_digital_numbers(raster, brightest)
    _check_reflectance_range(raster.data.min(axis=0)[raster.valid], brightest, reflectance)


def _check_digital_numbers(raster: Raster, brightest: NDArray[Any]) -> None:
    highest = float(brightest.max())
    eight_bit = raster.data.dtype == np.uint8
    # A few wild values must not hide that all others are reflectance 0..1.
    normalised_already = not eight_bit and 0 < float(np.percentile(brightest, 99)) <= 1.5
    if eight_bit or normalised_already or 0 < highest <= 255:
        kind = "normalised to 0..1" if normalised_already else "8-bit"
        scale = "1" if normalised_already else "1 / 255"
        raise ImageryError(
            f"got {raster.data.dtype} values up to {highest:g}, which look {kind}, expected "
            "surface reflectance as digital numbers 0..10000; state the units: "
            f"sensor=SensorSpec(collection='...', bands={raster.bands}, "
            f"reflectance_scale={scale}), or 1 / 10000 if they are digital numbers after all"
        )


def _check_reflectance_range(
    darkest: NDArray[Any], brightest: NDArray[Any], reflectance: tuple[float, float]
) -> None:
    """Raise where more than 1 % of the pixels have a reflectance that no surface or cloud has."""
    scale, offset = reflectance
    low, high = ((limit - offset) / scale for limit in PLAUSIBLE_REFLECTANCE)
    odd = float(((darkest < low) | (brightest > high)).mean())
    if odd > 0.01:
        raise ImageryError(
            f"got values from {float(darkest.min()):g} to {float(brightest.max()):g}, of which "
            f"{odd:.1%} are no reflectance with scale {scale:g} and offset {offset:g} (expected "
            f"{low:.6g} to {high:.6g}); if they mark nodata, say so with "
            "fetch=FetchSpec(fill_value=...), else state the units with SensorSpec"
        )


def check_seen(seen: ModelInput) -> None:
    """Raise `ImageryError` unless there is something to see: a valid token, and not one colour."""
    if not (seen.token_valid >= MIN_TOKEN_VALID).any():
        raise ImageryError(
            f"got no token of which {MIN_TOKEN_VALID:.0%} is valid in what the model sees, "
            "expected at least one; choose another place or period"
        )
    low, high = np.percentile(seen.image, [0.1, 99.9])
    if low == 255 or high == 0:
        colour = "white" if low == 255 else "black"
        raise ImageryError(
            f"the model would see nothing but {colour}; check the units (reflectance_scale, "
            "reflectance_offset) and display"
        )


def to_uint8(
    raster: Raster, *, reflectance: tuple[float, float], display: Display
) -> NDArray[np.uint8]:
    """Return the display image: ``(height, width, 3)`` uint8, invalid pixels filled.

    ``clip(value / 10000, 0, 1) * 255``, truncated, in float32; other units and the visual
    stretch change the divisor and the offset. Invalid pixels take the colour of the nearest
    valid one, so that no edge appears that is not on the ground.

    Parameters
    ----------
    raster : Raster
        Three bands: red, green, blue.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    display : {"reflectance", "visual"}
        Whether reflectance 1 or 0.3 becomes 255.
    """
    scale, offset = reflectance
    white = _WHITE[display]
    with np.errstate(over="ignore"):  # beyond float32 is infinite, hence white
        values = np.where(raster.valid, raster.data, 0).astype(np.float32)
    # Dividing by 10000, not multiplying by 0.0001, is what the contract's arithmetic does.
    unit = values / np.float32(white / scale) + np.float32(offset / white)
    image = (np.clip(unit, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    if not raster.valid.all():
        image = image[nearest_valid(raster.valid)]
    return np.ascontiguousarray(image)


def prepare(
    raster: Raster,
    *,
    scale_m: float,
    image_size: int,
    patch_size: int,
    reflectance: tuple[float, float] = DEFAULT_REFLECTANCE,
    display: Display = "reflectance",
) -> ModelInput:
    """Return what the model sees of ``raster``: resized, cropped, with grid and GSD.

    Parameters
    ----------
    raster : Raster
        Three bands: red, green, blue.
    scale_m : float
        Ground metres per pixel of ``raster``.
    image_size : int
        Side of the model's input, pixels; a multiple of ``patch_size``.
    patch_size : int
        Side of a token's footprint, pixels of the input.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    display : {"reflectance", "visual"}
        See :func:`to_uint8`.
    """
    resized, cropped, input_res_m = model_grid(raster.grid, scale_m, image_size)
    picture = Image.fromarray(to_uint8(raster, reflectance=reflectance, display=display))
    picture = picture.resize((resized.shape[1], resized.shape[0]), Image.Resampling.BICUBIC)
    top, left = cropped.offset_in(resized)
    picture = picture.crop((left, top, left + image_size, top + image_size))
    return ModelInput(
        image=np.asarray(picture),
        token_valid=_token_valid(raster.valid, raster.grid, cropped.patch_grid(patch_size)),
        grid=cropped,
        input_res_m=input_res_m,
        coverage=image_size**2 / (resized.shape[0] * resized.shape[1]),
    )


def _token_valid(valid: NDArray[np.bool_], grid: Grid, tokens: Grid) -> NDArray[np.float64]:
    """Return the valid share of each token's footprint on the raster's pixels, exactly."""
    if valid.all():
        return np.ones(tokens.shape)
    to_pixel = ~grid.transform @ tokens.transform
    rows = _overlaps(to_pixel.f, to_pixel.e, tokens.shape[0], grid.shape[0])
    columns = _overlaps(to_pixel.c, to_pixel.a, tokens.shape[1], grid.shape[1])
    shares: NDArray[np.float64] = rows @ valid @ columns.T / (to_pixel.e * to_pixel.a)
    return shares.clip(0, 1)


def _overlaps(start: float, step: float, count: int, pixels: int) -> NDArray[np.float64]:
    """Return ``(count, pixels)``: the length of each pixel that lies within each interval."""
    low = start + step * np.arange(count)[:, None]
    edge = np.arange(pixels)[None, :]
    overlaps: NDArray[np.float64] = np.minimum(low + step, edge + 1) - np.maximum(low, edge)
    return overlaps.clip(0)


def normalised(image: NDArray[np.uint8], mean: Any, std: Any) -> NDArray[np.float32]:
    """Return ``(3, height, width)`` float32: ``(image / 255 - mean) / std`` per channel."""
    unit = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (mean, std))
    result: NDArray[np.float32] = (unit - mean) / std
    return result
