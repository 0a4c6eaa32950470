"""Imagery that the user has: GeoTIFF and COG files, xarray objects, rasters; as a `Raster`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rs_embed.errors import ImageryError
from rs_embed.files.rasters import nodata_value, read_file, read_header
from rs_embed.geo.bands import band_indexes
from rs_embed.geo.grid import MAX_PIXELS, Grid, gsd_m, known_crs, roi_window
from rs_embed.geo.raster import Raster, valid_mask
from rs_embed.geo.windows import common_window, overlap, padded
from rs_embed.specs import Spatial


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
    imagery : path, xarray.DataArray or Raster
        A path or URL that GDAL opens, an array with CRS (rioxarray), or a raster.
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
        return read_file(os.fspath(imagery), bands, window_in, fill_value)
    if type(imagery).__module__.partition(".")[0] == "xarray":
        return _from_xarray(imagery, bands, window_in, fill_value)
    raise _no_imagery(imagery)


def _no_imagery(given: object) -> ImageryError:
    return ImageryError(
        f"got imagery of type {type(given).__name__}, expected a path, an xarray.DataArray or a "
        "Raster; a plain array goes to input_chw="
    )


def imagery_grid(imagery: Any) -> Grid:
    """Return the grid of all of ``imagery``, north up; nothing is read but its header.

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
        grid = read_header(os.fspath(imagery)).grid
    elif type(imagery).__module__.partition(".")[0] == "xarray":
        _, y_dim, x_dim = _dimensions(imagery)
        grid = _array_grid(_from_north(imagery, y_dim), y_dim, x_dim)
    else:
        raise _no_imagery(imagery)
    gsd_m(grid)
    return grid


def _georeferenced(raster: Raster) -> Raster:
    if raster.grid.crs is None:
        raise ImageryError(
            "got a Raster without CRS, expected a georeferenced one; pass its pixels as input_chw= "
            "with fetch=FetchSpec(scale_m=...)"
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


def _from_north(array: Any, y_dim: Any) -> Any:
    """Return the array with row 0 in the north."""
    if float(array[y_dim][0]) < float(array[y_dim][-1]):
        return array.isel({y_dim: slice(None, None, -1)})
    return array


def _array_grid(array: Any, y_dim: Any, x_dim: Any) -> Grid:
    crs, shape = known_crs(array.rio.crs.to_wkt()), (array.sizes[y_dim], array.sizes[x_dim])
    return Grid(crs, array.rio.transform(recalc=True), shape)


def _from_xarray(
    array: Any,
    bands: Sequence[str],
    window_in: Callable[[Grid], Grid],
    fill_value: float | None,
) -> Raster:
    """Return an `xarray.DataArray` with CRS as a raster; see rioxarray for where it looks.

    Bands and window are picked before any value is computed.
    """
    band_dim, y_dim, x_dim = _dimensions(array)
    nodata = declared_nodata(array)
    indexes = band_indexes(_coordinate_names(array, band_dim), bands, "the DataArray")
    picked = array.transpose(band_dim, y_dim, x_dim).isel({band_dim: [i - 1 for i in indexes]})
    picked = _from_north(picked, y_dim)
    grid = _array_grid(picked, y_dim, x_dim)
    window = window_in(grid)
    rows, columns = common_window(window, grid)
    read = picked.isel({y_dim: rows, x_dim: columns}).values
    valid = valid_mask(read, nodata_value(nodata, fill_value))
    data, valid = padded(read, valid, grid, window)
    source = {"xarray": str(array.name or ""), "resampling": "none"}
    return Raster(data, valid, tuple(bands), window, _attributed_units(array), source)


def declared_nodata(array: Any) -> float | None:
    """Return the value that marks nodata in an `xarray.DataArray`; None if it declares none.

    In numbers with a fraction an encoded value was replaced by NaN; whole numbers cannot hold that,
    so it still marks nodata where no other value does.
    """
    try:
        nodata = array.rio.nodata
    except (ValueError, OverflowError):  # whole numbers with an encoded value and no other
        return float(array.encoding["_FillValue"])
    nodata = array.rio.encoded_nodata if nodata is None else nodata
    return None if nodata is None else float(nodata)


def _dimensions(array: Any) -> tuple[Any, Any, Any]:
    """Return the names of the dimensions of bands, y and x of an array with CRS; refuse others."""
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr
    from rioxarray.exceptions import RioXarrayError

    if not isinstance(array, xr.DataArray):
        raise ImageryError(
            f"got an xarray {type(array).__name__}, expected a DataArray; for a Dataset of bands "
            "use dataset[[red, green, blue]].to_array('band')"
        )
    try:
        x_dim, y_dim, crs = array.rio.x_dim, array.rio.y_dim, array.rio.crs
    except RioXarrayError as exc:
        raise ImageryError(
            f"got a DataArray with dimensions {array.dims} ({exc}), expected band, y and x"
        ) from exc
    others = [dim for dim in array.dims if dim not in (x_dim, y_dim)]
    if len(others) != 1:
        raise ImageryError(
            f"got a DataArray with dimensions {array.dims}, expected exactly one besides y and x "
            "(the bands); select one date, or drop dimensions of length 1 with array.squeeze()"
        )
    if crs is None:
        raise ImageryError(
            "got a DataArray without CRS, expected a georeferenced one; set it with "
            "array.rio.write_crs('EPSG:...')"
        )
    for dim in (x_dim, y_dim):
        _check_regular(array, dim)
    return others[0], y_dim, x_dim


def _attributed_units(array: Any) -> tuple[float, float] | None:
    """Return (scale, offset) of CF's ``scale_factor`` and ``add_offset``."""
    try:
        scale = float(array.attrs.get("scale_factor", 1))
        offset = float(array.attrs.get("add_offset", 0))
    except (TypeError, ValueError) as exc:
        raise ImageryError(f"got scale_factor or add_offset that are not numbers: {exc}") from exc
    return None if (scale, offset) == (1, 0) else (scale, offset)


def _coordinate_names(array: Any, dim: Any) -> list[str | None]:
    """Return the names of the bands along ``dim``: ``long_name``, else its coordinate if text."""
    count = array.sizes[dim]
    long_names = array.attrs.get("long_name", ())
    if isinstance(long_names, tuple | list) and len(long_names) == count:
        return [str(name) for name in long_names]
    names = [str(value) for value in array[dim].values] if dim in array.coords else []
    return [None] * count if all(name.isdigit() for name in names) else list(names)


def _check_regular(array: Any, dim: str) -> None:
    if dim not in array.coords or array.sizes[dim] < 2:
        raise ImageryError(
            f"got a DataArray without coordinates along {dim!r} (or only one pixel), expected "
            "regular pixel centres"
        )
    centres = array[dim].values
    if centres.dtype.kind not in "iuf":
        raise ImageryError(f"got {centres.dtype} coordinates along {dim!r}, expected numbers")
    steps = np.diff(centres.astype(float))
    if not abs(steps - steps.mean()).max() <= 0.01 * abs(steps.mean()):
        raise ImageryError(
            f"got a DataArray whose {dim!r} steps run from {steps.min():g} to {steps.max():g}, "
            "expected regular pixels; resample it first"
        )
