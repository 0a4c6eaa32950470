"""From raw values to the image that the model sees, its grid, its GSD and its valid tokens.

Resized, it is the evaluation pipeline of MAE and ScaleMAE, bit for bit that of torchvision on
Pillow images: ``Resize(short side, bicubic) -> CenterCrop -> ToTensor -> Normalize``. In tiles it
is the same without ``Resize`` and ``CenterCrop``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from affine import Affine
from PIL import Image

from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid
from rs_embed.geo.nearest import nearest_valid
from rs_embed.geo.raster import Raster
from rs_embed.geo.tiling import Tile, tiles_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Display = Literal["reflectance", "visual"]
DISPLAYS: tuple[Display, ...] = ("reflectance", "visual")

# Reflectance that becomes 255: everything, or the range of Sentinel-2's true-colour images.
_WHITE = {"reflectance": 1.0, "visual": 0.3}
# Share of the short side that the crop keeps up to 224 px (torchvision's 256 -> 224).
_CROP_SHARE = 224 / 256
DEFAULT_REFLECTANCE = (1 / 10000, 0.0)
# A token counts where at least this share of its footprint is valid.
MIN_TOKEN_VALID = 0.5


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What the model sees of one raster: one image, or tiles on one lattice of tokens.

    Attributes
    ----------
    grid : Grid
        Place of the whole; its sides are multiples of the patch size.
    token_valid : numpy.ndarray
        ``(rows, columns)`` float64 in 0..1: valid share of each token's footprint.
    input_res_m : float
        Ground metres per pixel of what the model sees.
    valid_fraction : float
        Valid share of the raster's pixels that are seen, 0..1.
    coverage : float
        Share of the raster's area that tokens would cover if all of it were valid, 0..1.
    side_px : int
        Nominal side of what goes through the network at once, pixels.
    tiles : tuple of Tile
        What goes through the network, each at once; those that would give no valid token are
        left out.
    cut : callable
        Returns the ``(height, width, 3)`` uint8 image of a tile: red, green, blue.
    """

    grid: Grid
    token_valid: NDArray[np.float64]
    input_res_m: float
    valid_fraction: float
    coverage: float
    side_px: int
    tiles: tuple[Tile, ...]
    cut: Callable[[Tile], NDArray[np.uint8]]

    @property
    def valid_tokens(self) -> NDArray[np.bool_]:
        """``(rows, columns)`` bool: which tokens count."""
        return self.token_valid >= MIN_TOKEN_VALID

    @property
    def image(self) -> NDArray[np.uint8]:
        """``(height, width, 3)`` uint8: the whole, from the parts that each tile gives.

        Black where no tile was needed.
        """
        whole = np.zeros((*self.grid.shape, 3), dtype=np.uint8)
        for tile in self.tiles:
            paste(whole, tile, self.cut(tile))
        return whole


def paste(whole: NDArray[np.uint8], tile: Tile, image: NDArray[np.uint8]) -> None:
    """Copy the part of a tile's image that the tile gives into the whole, in place."""
    size = tile.patch_size
    there, here = (
        tuple(slice(span.start * size, span.stop * size) for span in spans)
        for spans in (tile.own, tile.own_within)
    )
    whole[there] = image[here]


def resized_side(image_size: int) -> int:
    """Return to how many pixels the short side is resized, before the crop."""
    return image_size if image_size > 224 else int(image_size / _CROP_SHARE)


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
    target = resized_side(image_size)
    long = int(target * max(height, width) / short)
    resized = grid.resized(*((target, long) if height <= width else (long, target)))
    top, left = (round((side - image_size) / 2) for side in resized.shape)
    return resized, resized.window(top, left, image_size, image_size), scale_m * short / target


def check_seen(token_valid: NDArray[np.float64], image: NDArray[np.uint8]) -> None:
    """Raise `ImageryError` unless there is something to see: a valid token, and not one colour.

    Parameters
    ----------
    token_valid : numpy.ndarray
        Valid share of each token's footprint.
    image : numpy.ndarray
        ``(height, width, 3)`` uint8: what is seen, or some of its pixels.
    """
    if not (token_valid >= MIN_TOKEN_VALID).any():
        raise ImageryError(
            f"got no token of which {MIN_TOKEN_VALID:.0%} is valid in what the model sees, "
            "expected at least one; choose another place or period"
        )
    nearly_all = 0.999 * image.size
    white = np.count_nonzero(image == 255) >= nearly_all
    if white or np.count_nonzero(image == 0) >= nearly_all:
        colour = "white" if white else "black"
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

    Raises
    ------
    ImageryError
        If no token of it is valid, or it is black or white throughout.
    """
    resized, cropped, input_res_m = model_grid(raster.grid, scale_m, image_size)
    picture = Image.fromarray(to_uint8(raster, reflectance=reflectance, display=display))
    picture = picture.resize((resized.shape[1], resized.shape[0]), Image.Resampling.BICUBIC)
    top, left = cropped.offset_in(resized)
    image = np.asarray(picture.crop((left, top, left + image_size, top + image_size)))
    token_valid = _token_valid(raster.valid, raster.grid, cropped.patch_grid(patch_size))
    check_seen(token_valid, image)
    whole = tiles_of(cropped.shape, tile_size=image_size, overlap_px=0, patch_size=patch_size)
    return ModelInput(
        grid=cropped,
        token_valid=token_valid,
        input_res_m=input_res_m,
        valid_fraction=float(token_valid.mean()),
        coverage=image_size**2 / (resized.shape[0] * resized.shape[1]),
        side_px=image_size,
        tiles=tuple(whole),
        cut=lambda _: image,
    )


def prepare_tiles(
    raster: Raster,
    *,
    scale_m: float,
    tile_size: int,
    overlap_px: int,
    patch_size: int,
    reflectance: tuple[float, float] = DEFAULT_REFLECTANCE,
    display: Display = "reflectance",
) -> ModelInput:
    """Return what the model sees of ``raster`` in tiles: its own pixels, all of them.

    A side that is no multiple of the patch is filled up to one with invalid pixels, at the bottom
    and on the right; a patch there of which less than half lies within the raster gives no token.
    Invalid pixels take the colour of the nearest valid one in their tile.

    Parameters
    ----------
    raster : Raster
        Three bands: red, green, blue.
    scale_m : float
        Ground metres per pixel of ``raster``.
    tile_size, overlap_px, patch_size : int
        Pixels; see `rs_embed.geo.tiling.tiles_of`.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    display : {"reflectance", "visual"}
        See :func:`to_uint8`.

    Raises
    ------
    ImageryError
        As for :func:`prepare`.
    """
    shown = partial(to_uint8, reflectance=reflectance, display=display)
    token_valid = patch_valid(raster.valid, patch_size)
    check_seen(token_valid, shown(_thinned(raster)))
    tiles = tiles_of(
        raster.grid.shape, tile_size=tile_size, overlap_px=overlap_px, patch_size=patch_size
    )
    rows, columns = (count * patch_size for count in token_valid.shape)
    return ModelInput(
        grid=raster.grid.window(0, 0, rows, columns),
        token_valid=token_valid,
        input_res_m=scale_m,
        valid_fraction=float(raster.valid.mean()),
        coverage=_covered_share(raster.grid.shape, patch_size),
        side_px=tile_size,
        tiles=tuple(t for t in tiles if (token_valid[t.own] >= MIN_TOKEN_VALID).any()),
        cut=lambda tile: shown(_window(raster, *tile.window)),
    )


def _covered_share(shape: tuple[int, int], patch_size: int) -> float:
    """Return the share of an image within patches of which enough lies within the image."""
    whole = np.ones(shape, dtype=bool)
    shares = patch_valid(whole, patch_size)
    counted = shares[shares >= MIN_TOKEN_VALID].sum() * patch_size**2
    return float(counted / whole.size)


def _window(raster: Raster, row: int, column: int, height: int, width: int) -> Raster:
    """Return a window of a raster; what lies beyond it is invalid."""
    rows, columns = slice(row, row + height), slice(column, column + width)
    data, valid = raster.data[:, rows, columns], raster.valid[rows, columns]
    margins = ((0, height - valid.shape[0]), (0, width - valid.shape[1]))
    if margins != ((0, 0), (0, 0)):
        data, valid = np.pad(data, ((0, 0), *margins)), np.pad(valid, margins)
    grid = raster.grid.window(row, column, height, width)
    return replace(raster, data=data, valid=valid, grid=grid)


def _thinned(raster: Raster) -> Raster:
    """Return some valid pixels of a raster, in no place: some ten thousand where it has them."""
    step = max(math.isqrt(raster.valid.size // 16384), 1)
    rows, columns = np.nonzero(raster.valid[::step, ::step])
    if not len(rows):
        step = 1
        rows, columns = np.nonzero(raster.valid)
    data = raster.data[:, rows * step, columns * step][:, None]
    valid = np.ones((1, len(rows)), dtype=bool)
    return Raster(data, valid, raster.bands, Grid(None, Affine.identity(), (1, len(rows))))


def patch_valid(valid: NDArray[np.bool_], patch_size: int) -> NDArray[np.float64]:
    """Return the valid share of each patch, 0..1; what lies beyond the raster is invalid.

    Parameters
    ----------
    valid : numpy.ndarray
        ``(height, width)`` bool.
    patch_size : int
        Pixels.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` float64.
    """
    rows, columns = (np.arange(0, side, patch_size) for side in valid.shape)
    by_row = np.add.reduceat(valid, rows, axis=0, dtype=np.int64)
    counts = np.add.reduceat(by_row, columns, axis=1)
    shares: NDArray[np.float64] = counts / patch_size**2
    return shares


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
