"""What a model sees of a raster: its images, their place, their GSD and their valid tokens.

How values become an image is the model's own (`rs_embed.models.base.Preparation`); where that image
is on the ground, how many metres its pixels cover and which tokens count is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid
from rs_embed.geo.nearest import filled
from rs_embed.geo.raster import Raster
from rs_embed.geo.tiling import Tile, tiles_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.models.base import Frame, Preparation

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
        Returns the model's image of a tile, ``(height, width, channels)``; picklable.
    uncropped : str
        What the caller can state to lose nothing to the crop; may be empty.
    covered : numpy.ndarray or None
        ``(rows, columns)`` float64 in 0..1: share of each token's footprint that is pooled over;
        None is all of it.
    """

    grid: Grid
    token_valid: NDArray[np.float64]
    input_res_m: float
    valid_fraction: float
    coverage: float
    side_px: int
    tiles: tuple[Tile, ...]
    cut: Callable[[Tile], NDArray[Any]]
    uncropped: str = ""
    covered: NDArray[np.float64] | None = None

    @property
    def valid_tokens(self) -> NDArray[np.bool_]:
        """``(rows, columns)`` bool: which tokens count."""
        return self.token_valid >= MIN_TOKEN_VALID

    @property
    def weights(self) -> NDArray[np.float64]:
        """``(rows, columns)`` float64: weight of each token in the mean."""
        valid = self.valid_tokens.astype(np.float64)
        return valid if self.covered is None else valid * self.covered

    def picture(self, preparation: Preparation) -> NDArray[np.uint8]:
        """Return ``(height, width, 3)`` uint8: the whole as people look at it.

        Put together from the parts that each tile gives; black where no tile was needed.
        """
        whole = np.zeros((*self.grid.shape, 3), dtype=np.uint8)
        for tile in self.tiles:
            paste(whole, tile, preparation.picture(self.cut(tile)))
        return whole


def paste(whole: NDArray[np.uint8], tile: Tile, image: NDArray[np.uint8]) -> None:
    """Copy the part of a tile's image that the tile gives into the whole, in place."""
    size = tile.patch_size
    target, source = (
        tuple(slice(span.start * size, span.stop * size) for span in spans)
        for spans in (tile.own, tile.own_within)
    )
    whole[target] = image[source]


def framed_grid(grid: Grid, scale_m: float, frame: Frame) -> tuple[Grid, float]:
    """Return the grid of a resized and cropped raster, and the metres per pixel there.

    Parameters
    ----------
    grid : Grid
        Grid of the raster.
    scale_m : float
        Ground metres per pixel of ``grid``.
    frame : Frame
        How the raster is resized and cropped.

    Returns
    -------
    cropped : Grid
        Grid of what the model sees.
    input_res_m : float
        ``scale_m * short side / resized short side``.
    """
    cropped = grid.resized(*frame.resized).window(frame.top, frame.left, *frame.shape)
    return cropped, scale_m * min(grid.shape) / min(frame.resized)


def check_valid_tokens(token_valid: NDArray[np.float64]) -> None:
    """Raise `ImageryError` unless a token is valid.

    Parameters
    ----------
    token_valid : numpy.ndarray
        Valid share of each token's footprint.
    """
    if not (token_valid >= MIN_TOKEN_VALID).any():
        raise ImageryError(
            f"got no token of which {MIN_TOKEN_VALID:.0%} is valid in what the model sees, "
            "expected at least one; choose another place or period"
        )


def image_of(
    raster: Raster, reflectance: tuple[float, float], preparation: Preparation
) -> NDArray[Any]:
    """Return the model's image of a raster, ``(height, width, channels)``, invalid pixels filled.

    Parameters
    ----------
    raster : Raster
        The model's bands, at least one pixel valid.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    preparation : Preparation
        The model's.
    """
    return preparation.image(filled(raster.data, raster.valid), reflectance)


def prepare(
    raster: Raster,
    *,
    scale_m: float,
    image_size: int,
    patch_size: int,
    reflectance: tuple[float, float],
    preparation: Preparation,
) -> ModelInput:
    """Return what the model sees of ``raster``: resized, cropped, with grid and GSD.

    Parameters
    ----------
    raster : Raster
        The model's bands.
    scale_m : float
        Ground metres per pixel of ``raster``.
    image_size : int
        Side of the model's input, pixels; a multiple of ``patch_size``.
    patch_size : int
        Side of a token's footprint, pixels of the input.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    preparation : Preparation
        How values become the model's input.

    Raises
    ------
    ImageryError
        If no token of it is valid, or there is nothing to see.
    """
    frame = preparation.frame(raster.grid.shape, image_size)
    cropped, input_res_m = framed_grid(raster.grid, scale_m, frame)
    image = preparation.fitted(image_of(raster, reflectance, preparation), frame)
    token_valid = _token_valid(raster.valid, raster.grid, cropped.patch_grid(patch_size))
    check_valid_tokens(token_valid)
    preparation.check(image)
    side_px = max(cropped.shape)
    whole = tiles_of(cropped.shape, tile_size=side_px, overlap_px=0, patch_size=patch_size)
    return ModelInput(
        grid=cropped,
        token_valid=token_valid,
        input_res_m=input_res_m,
        valid_fraction=float(token_valid.mean()),
        coverage=math.prod(frame.shape) / math.prod(frame.resized),
        side_px=side_px,
        tiles=tuple(whole),
        cut=partial(_whole, image),
        uncropped=frame.uncropped,
    )


def prepare_tiles(
    raster: Raster,
    *,
    scale_m: float,
    tile_size: int,
    overlap_px: int,
    patch_size: int,
    reflectance: tuple[float, float],
    preparation: Preparation,
) -> ModelInput:
    """Return what the model sees of ``raster`` in tiles: its own pixels, all of them.

    A side that is not a multiple of the patch is filled up to one with invalid pixels, at the
    bottom and on the right; a patch there of which less than half is within the raster gives no
    token. Invalid pixels take the values of the nearest valid one in their tile.

    Parameters
    ----------
    raster : Raster
        The model's bands.
    scale_m : float
        Ground metres per pixel of ``raster``.
    tile_size, overlap_px, patch_size : int
        Pixels; see `rs_embed.geo.tiling.tiles_of`.
    reflectance, preparation
        As for :func:`prepare`.

    Raises
    ------
    ImageryError
        As for :func:`prepare`.
    """
    token_valid = patch_valid(raster.valid, patch_size)
    check_valid_tokens(token_valid)
    preparation.check(image_of(_thinned(raster), reflectance, preparation))
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
        cut=partial(_part, raster, reflectance, preparation),
    )


def _whole(image: NDArray[Any], tile: Tile) -> NDArray[Any]:  # noqa: ARG001
    """Return the image of the only tile."""
    return image


def _part(
    raster: Raster, reflectance: tuple[float, float], preparation: Preparation, tile: Tile
) -> NDArray[Any]:
    """Return the image of one of several tiles."""
    return image_of(_window(raster, *tile.window), reflectance, preparation)


def _covered_share(shape: tuple[int, int], patch_size: int) -> float:
    """Return the share of an image within patches of which enough lies within the image."""
    whole = np.ones(shape, dtype=bool)
    shares = patch_valid(whole, patch_size)
    counted = shares[shares >= MIN_TOKEN_VALID].sum() * patch_size**2
    return float(counted / whole.size)


def _window(raster: Raster, row: int, column: int, height: int, width: int) -> Raster:
    """Return a window of a raster; what is outside it is invalid."""
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
    """Return the valid share of each patch, 0..1; what is outside the raster is invalid.

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
    """Return ``(count, pixels)``: the length of each pixel within each interval."""
    low = start + step * np.arange(count)[:, None]
    edge = np.arange(pixels)[None, :]
    overlaps: NDArray[np.float64] = np.minimum(low + step, edge + 1) - np.maximum(low, edge)
    return overlaps.clip(0)
