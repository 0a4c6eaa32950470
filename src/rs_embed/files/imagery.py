"""Imagery that the user has: GeoTIFF and COG files, xarray objects, rasters; as a `Raster`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from rs_embed.addresses import local_path, shown_path
from rs_embed.errors import ImageryError
from rs_embed.files.arrays import array_grid, array_time, is_xarray, read_array
from rs_embed.files.dates import Dated, acquisition_of
from rs_embed.files.gdal import may_wait, tried_again
from rs_embed.files.rasters import Header, read_file, read_header
from rs_embed.geo.bands import band_indexes
from rs_embed.geo.grid import MAX_PIXELS, Grid, gsd_m, roi_window
from rs_embed.geo.raster import Raster
from rs_embed.geo.windows import common_window, overlap, padded
from rs_embed.network.retrying import Patience
from rs_embed.specs import Spatial

Read = TypeVar("Read")


@runtime_checkable
class SeveralFiles(Protocol):
    """Files that are one image together, such as ``rs_embed.providers.scenes.joined``."""

    paths: tuple[str, ...]

    def grid(self, bands: Sequence[str]) -> Grid:
        """Return the grid of the image; of ``bands`` only."""

    def dated(self) -> Dated:
        """Return when all of it was acquired."""

    def read(
        self, bands: Sequence[str], window_in: Callable[[Grid], Grid], fill_value: float | None
    ) -> Raster:
        """Return the window that ``window_in`` picks on the grid; see `read_file`."""


def read_imagery(
    imagery: Any,
    *,
    bands: Sequence[str],
    spatial: Spatial | None,
    fill_value: float | None,
    fit: Callable[[Grid], Grid] = lambda window: window,
    window: Grid | None = None,
) -> Raster:
    """Return the pixels of ``imagery``, north up, in the order of ``bands``.

    Parameters
    ----------
    imagery : path, xarray.DataArray, xarray.Dataset, Raster or SeveralFiles
        A path or URL that GDAL opens, an array with CRS (rioxarray), a Dataset of bands, a
        raster, or files that are one image together.
    bands : sequence of str
        Names wanted, ``B04`` and ``red`` counting as ``B4``. Imagery that names no bands must
        have as many as are wanted, in that order.
    spatial : BBox or PointBuffer, optional
        Window to read, on the imagery's own pixels; the whole image otherwise. What reaches
        beyond the image is invalid.
    fill_value : float or None
        Value that marks nodata, for imagery that declares none; None is 0.
    fit : callable
        Returns the window to read in place of that of ``spatial``, on the same lattice.
    window : Grid, optional
        Exactly these pixels of the imagery's lattice, instead of ``spatial``; beyond the image
        they are invalid.

    Raises
    ------
    ImageryError
        If it cannot be opened, has no CRS or transform, lacks a band, is elsewhere, or declares
        another nodata value than ``fill_value``.
    GridError
        If it is rotated, in degrees, or has pixels that are not square on the ground.
    """

    def window_in(grid: Grid) -> Grid:
        if window is not None:
            return window
        gsd_m(grid)  # refuses degrees, rotation and oblong pixels before anything is read
        if spatial is not None:
            place = fit(roi_window(grid, spatial))
            overlap(place, grid)
            return place
        if math.prod(grid.shape) > MAX_PIXELS:
            raise ImageryError(
                f"got imagery of {grid.shape[0]} x {grid.shape[1]} px, expected at most "
                f"{MAX_PIXELS:,} px; cut a window out of it with spatial="
            )
        return grid

    if isinstance(imagery, Raster):
        if fill_value is not None:
            raise ImageryError(
                f"got fill_value={fill_value:g} for a Raster, which has its own mask; leave it out"
            )
        raster = _georeferenced(imagery)
        indexes = band_indexes(raster.bands, bands, "the raster")
        picked = replace(raster, data=raster.data[[i - 1 for i in indexes]], bands=tuple(bands))
        return _window_of(picked.north_up(), window_in)
    if isinstance(imagery, str | os.PathLike):
        name = os.fspath(imagery)
        return _read([name], lambda: read_file(name, bands, window_in, fill_value))
    if isinstance(imagery, SeveralFiles):
        return _read(imagery.paths, lambda: imagery.read(bands, window_in, fill_value))
    if is_xarray(imagery):
        return read_array(imagery, bands, window_in, fill_value)
    raise _no_imagery(imagery)


def _header(imagery: str | os.PathLike[str]) -> Header:
    name = os.fspath(imagery)
    return _read([name], lambda: read_header(name))


def _read(names: Sequence[str], read: Callable[[], Read]) -> Read:
    """Return ``read()``, tried again while a server fails; Ctrl-C need not wait for it."""
    remote = [name for name in names if may_wait(local_path(name))]
    if not remote:
        return read()
    return Patience().persist(read, passes=tried_again(), what=repr(shown_path(remote[0])))


def _no_imagery(given: object) -> ImageryError:
    return ImageryError(
        f"got imagery of type {type(given).__name__}, expected a path, a list of paths, an "
        "xarray.DataArray or Dataset, or a Raster; a plain array goes to input_chw="
    )


def imagery_grid(imagery: Any, bands: Sequence[str] = ()) -> Grid:
    """Return the grid of all of ``imagery``, north up; nothing is read but its header.

    Of several files it is that of the ``bands``.

    Raises
    ------
    ImageryError
        If it cannot be opened, or has no CRS or transform.
    GridError
        If it is rotated, in degrees, or has pixels that are not square on the ground.
    """
    if isinstance(imagery, Raster):
        grid = _georeferenced(imagery).north_up().grid
    elif isinstance(imagery, str | os.PathLike):
        grid = _header(imagery).grid
    elif isinstance(imagery, SeveralFiles):
        grid = _read(imagery.paths, lambda: imagery.grid(bands))
    elif is_xarray(imagery):
        grid = array_grid(imagery)
    else:
        raise _no_imagery(imagery)
    gsd_m(grid)
    return grid


def imagery_date(imagery: Any) -> Dated:
    """Return when imagery was acquired, as far as it says; nothing is read but its header.

    Raises
    ------
    ImageryError
        If a file cannot be opened, or has no CRS or transform.
    """
    if isinstance(imagery, str | os.PathLike):
        name = os.fspath(imagery)
        return acquisition_of(_header(name).tags, os.path.basename(shown_path(name)))
    if isinstance(imagery, SeveralFiles):
        return _read(imagery.paths, imagery.dated)
    return Dated(array_time(imagery) if is_xarray(imagery) else None)


def _georeferenced(raster: Raster) -> Raster:
    if raster.grid.crs is None:
        raise ImageryError(
            "got a Raster without CRS, expected a georeferenced one; pass its pixels as input_chw= "
            "with scale_m=..."
        )
    return raster


def _window_of(raster: Raster, window_in: Callable[[Grid], Grid]) -> Raster:
    """Return a window of a raster in memory; pixels beyond the raster are invalid."""
    window = window_in(raster.grid)
    if window == raster.grid:
        return raster
    part = common_window(window, raster.grid)
    data, valid = padded(raster.data[:, *part], raster.valid[part], raster.grid, window)
    return replace(raster, data=data, valid=valid, grid=window)
