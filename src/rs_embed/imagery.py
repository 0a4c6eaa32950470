"""Imagery that the user has: GeoTIFF and COG files, xarray objects, rasters; as a `Raster`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from affine import Affine

from rs_embed.errors import ImageryError
from rs_embed.grid import MAX_PIXELS, Grid, gsd_m, roi_window
from rs_embed.raster import Raster, valid_mask
from rs_embed.specs import Spatial

if TYPE_CHECKING:
    from numpy.typing import NDArray

# STAC common names of the Sentinel-2 bands that ScaleMAE takes (STAC eo extension).
_COMMON_NAMES = {"RED": "B4", "GREEN": "B3", "BLUE": "B2", "R": "B4", "G": "B3", "B": "B2"}


def read_imagery(
    imagery: Any,
    *,
    bands: Sequence[str],
    spatial: Spatial | None,
    fill_value: float | None,
    fit: Callable[[Grid], Grid] = lambda window: window,
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

    Raises
    ------
    ImageryError
        If it cannot be opened, has no CRS or transform, lacks a band, lies elsewhere, or declares
        another nodata value than ``fill_value``.
    GridError
        If it is rotated, in degrees, or has pixels that are not square on the ground.
    """
    window_in = partial(_window_in, spatial=spatial, fit=fit)
    if isinstance(imagery, Raster):
        if fill_value is not None:
            raise ImageryError(
                f"got fill_value={fill_value:g} for a Raster, which knows what is valid"
            )
        return _window_of(_select(imagery, bands).north_up(), window_in)
    if isinstance(imagery, str | os.PathLike):
        return _read_file(os.fspath(imagery), bands, window_in, fill_value)
    if type(imagery).__module__.partition(".")[0] == "xarray":
        return _from_xarray(imagery, bands, window_in, fill_value)
    raise ImageryError(
        f"got imagery of type {type(imagery).__name__}, expected a path, an xarray.DataArray or a "
        "Raster; a plain array goes to input_chw="
    )


def read_on_grid(path: str | Path, grid: Grid, *, bands: Sequence[str]) -> Raster:
    """Return the pixels of a file on exactly ``grid``.

    Where the grid lies on the file's own lattice the pixels come through untouched; elsewhere
    they are reprojected, averaged if the grid is at least 1.5 times coarser, bilinear otherwise.
    What the file does not cover is invalid. ``source["resampling"]`` says which it was. A file with
    an internal mask or alpha band is read on its own lattice only.

    Raises
    ------
    ImageryError
        If the file cannot be read, lacks a band, or does not touch the grid.
    """
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    shown = shown_path(str(path))
    with _opened(str(path)) as dataset:
        file_grid = _file_grid(dataset)
        if grid.lies_on(file_grid):
            return _read_window(dataset, file_grid, grid, bands, None)
        if _has_mask(dataset, range(1, dataset.count + 1)):
            raise ImageryError(
                f"{shown!r} has a mask or alpha band, which is not warped, and the grid asked for "
                "is not its own; give it a nodata value instead, e.g. gdalwarp -dstnodata 0"
            )
        coarser = gsd_m(grid) / gsd_m(file_grid) >= 1.5
        resampling = Resampling.average if coarser else Resampling.bilinear
        indexes = _band_indexes(_band_names(dataset), bands, shown)
        declared = _declared_nodata(dataset, indexes)
        nodata = _nodata(declared, None)
        with WarpedVRT(
            dataset,
            crs=grid.crs.to_wkt() if grid.crs else None,
            transform=grid.transform,
            height=grid.shape[0],
            width=grid.shape[1],
            nodata=nodata,
            src_nodata=declared,
            resampling=resampling,
        ) as warped:
            data = warped.read(indexes)
        valid = valid_mask(data, nodata)
        if not valid.any():
            raise _elsewhere(grid, file_grid)
        source = {"path": shown, "resampling": resampling.name}
        return Raster(data, valid, tuple(bands), grid, _declared(dataset, indexes), source)


def _read_file(
    path: str,
    bands: Sequence[str],
    window_in: Callable[[Grid], Grid],
    fill_value: float | None,
) -> Raster:
    with _opened(path) as dataset:
        grid = _file_grid(dataset)
        window = window_in(grid)
        return _read_window(dataset, grid, window, bands, fill_value)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open a raster file; every failure of GDAL until it is closed becomes ours."""
    import rasterio
    from rasterio.errors import RasterioError

    shown = shown_path(path)
    try:
        with rasterio.open(path) as dataset:
            yield dataset
    except RasterioError as exc:
        if os.path.isdir(path):
            reason = "it is a folder"
        else:
            reason = str(exc.__cause__ or exc).replace(path, shown)
        raise ImageryError(
            f"cannot read {shown!r} as an image ({reason}); check it with: rio info "
            f"{shlex.quote(shown)}"
        ) from exc


def shown_path(path: str) -> str:
    """Return a path or URL without the credentials that a URL may carry."""
    if "://" not in path:
        return path
    start = path[: path.index("://")].rfind("/") + 1  # behind /vsicurl/ and the like
    prefix = path[:start]
    try:
        parts = urlsplit(path[start:])
    except ValueError:
        return "(a malformed URL)"
    return prefix + urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _window_in(grid: Grid, *, spatial: Spatial | None, fit: Callable[[Grid], Grid]) -> Grid:
    """Return the window of a place, all of ``grid`` if there is none."""
    gsd_m(grid)  # refuses degrees, rotation and oblong pixels before anything is read
    if spatial is not None:
        return fit(roi_window(grid, spatial))
    if grid.shape[0] * grid.shape[1] > MAX_PIXELS:
        raise ImageryError(
            f"got imagery of {grid.shape[0]} x {grid.shape[1]} px, expected at most "
            f"{MAX_PIXELS:,} px; cut a window out of it with spatial="
        )
    return grid


def _file_grid(dataset: Any) -> Grid:
    """Return the file's grid, north up even where its rows run from south to north."""
    from pyproj import CRS

    if dataset.crs is None or dataset.transform == Affine.identity():
        missing = "CRS" if dataset.crs is None else "transform"
        raise ImageryError(
            f"{shown_path(dataset.name)!r} has no {missing}, expected georeferenced imagery; "
            "assign one with gdal_translate -a_srs/-a_ullr (gdalwarp where it has ground control "
            "points), or pass the pixels as input_chw= with fetch=FetchSpec(scale_m=...)"
        )
    transform, shape = dataset.transform, (dataset.height, dataset.width)
    if transform.e > 0:
        transform = transform @ Affine.translation(0, shape[0]) @ Affine.scale(1, -1)
    return Grid(CRS.from_wkt(dataset.crs.to_wkt()), transform, shape)


def _read_window(
    dataset: Any,
    file_grid: Grid,
    window: Grid,
    bands: Sequence[str],
    fill_value: float | None,
) -> Raster:
    """Return the pixels of ``window``, which lies on the lattice of ``file_grid``."""
    from rasterio.windows import Window

    indexes = _band_indexes(_band_names(dataset), bands, shown_path(dataset.name))
    rows, columns = _overlap(window, file_grid)
    from_north = dataset.transform.e < 0
    first_row = rows.start if from_north else file_grid.shape[0] - rows.stop
    step = 1 if from_north else -1
    part = Window(columns.start, first_row, columns.stop - columns.start, rows.stop - rows.start)
    pixels = dataset.read(indexes, window=part)[:, ::step]
    valid = valid_mask(pixels, _nodata(_declared_nodata(dataset, indexes), fill_value))
    if _has_mask(dataset, indexes):
        valid &= dataset.dataset_mask(window=part)[::step] > 0
    data, valid = _padded(
        pixels, valid, file_grid.window(rows.start, columns.start, *valid.shape), window
    )
    source = {"path": shown_path(dataset.name), "resampling": "none"}
    return Raster(data, valid, tuple(bands), window, _declared(dataset, indexes), source)


def _has_mask(dataset: Any, indexes: Iterable[int]) -> bool:
    """Return whether a mask or alpha band says what is valid, besides or instead of nodata."""
    from rasterio.enums import MaskFlags

    flags = {flag for index in indexes for flag in dataset.mask_flag_enums[index - 1]}
    return MaskFlags.per_dataset in flags or MaskFlags.alpha in flags


def _declared_nodata(dataset: Any, indexes: Sequence[int]) -> float | None:
    values = [dataset.nodatavals[i - 1] for i in indexes]
    distinct = {None if v is None else "nan" if np.isnan(v) else v for v in values}
    if len(distinct) > 1:
        raise ImageryError(
            f"the bands of {shown_path(dataset.name)!r} declare different nodata values {values}, "
            "expected one for all; bring them to one, e.g. gdalwarp -dstnodata 0"
        )
    return None if values[0] is None else float(values[0])


def _nodata(declared: float | None, stated: float | None) -> float:
    """Return the nodata value; 0, that of Sentinel-2, where nobody says."""
    if declared is not None and stated is not None and declared != stated:
        raise ImageryError(
            f"got fill_value={stated:g}, but the imagery declares nodata {declared:g}; leave "
            "fill_value out, or correct the imagery (gdal_edit -a_nodata)"
        )
    known = stated if declared is None else declared
    return 0 if known is None else known


def _overlap(window: Grid, there: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of ``there`` that ``window`` covers."""
    row, column = window.offset_in(there)
    rows = slice(max(row, 0), min(row + window.shape[0], there.shape[0]))
    columns = slice(max(column, 0), min(column + window.shape[1], there.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise _elsewhere(window, there)
    return rows, columns


def _padded(
    pixels: NDArray[Any], valid: NDArray[np.bool_], grid: Grid, window: Grid
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return ``pixels`` and ``valid`` within ``window``, invalid where there are none."""
    if grid.shape == window.shape:
        return pixels, valid
    row, column = grid.offset_in(window)
    height, width = valid.shape
    margins = (
        (row, window.shape[0] - row - height),
        (column, window.shape[1] - column - width),
    )
    return np.pad(pixels, ((0, 0), *margins)), np.pad(valid, margins)


def _elsewhere(asked: Grid, there: Grid) -> ImageryError:
    west, south, east, north = there.geographic_bounds()
    box = ", ".join(f"{v:.4f}" for v in asked.geographic_bounds())
    return ImageryError(
        f"the place asked for ({box}) lies outside the imagery, which has valid pixels within "
        f"lon {west:.4f} to {east:.4f}, lat {south:.4f} to {north:.4f}"
    )


def _declared(dataset: Any, indexes: Sequence[int]) -> tuple[float, float] | None:
    """Return the (scale, offset) that the file's bands declare, None for the GDAL defaults."""
    declared = {(str(dataset.scales[i - 1]), str(dataset.offsets[i - 1])) for i in indexes}
    if len(declared) > 1:
        raise ImageryError(
            f"the bands of {shown_path(dataset.name)!r} declare different scales and offsets "
            f"{sorted(declared)}, expected one for all; bring them to one first"
        )
    scale, offset = (float(value) for value in declared.pop())
    return None if (scale, offset) == (1, 0) else (scale, offset)


def _band_indexes(names: Sequence[str | None], wanted: Sequence[str], source: str) -> list[int]:
    """Return the 1-based positions of the ``wanted`` bands."""
    if not any(names):
        if len(names) != len(wanted):
            raise ImageryError(
                f"{source!r} has {len(names)} bands without names, expected the {len(wanted)} "
                f"bands {', '.join(wanted)} in this order; name them (band descriptions) or "
                "extract them first"
            )
        return list(range(1, len(names) + 1))
    canonical = [_canonical(name) if name else "" for name in names]
    doubled = [band for band in wanted if canonical.count(_canonical(band)) > 1]
    if doubled:
        raise ImageryError(
            f"{source!r} has several bands named {', '.join(doubled)}; rename or extract the right "
            "ones first"
        )
    places = {name: i for i, name in enumerate(canonical, 1)}
    missing = [band for band in wanted if _canonical(band) not in places]
    if missing:
        raise ImageryError(
            f"{source!r} has the bands {', '.join(str(n) for n in names)}, expected "
            f"{', '.join(wanted)}: {', '.join(missing)} not found; name its red, green and blue "
            "bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"
        )
    return [places[_canonical(band)] for band in wanted]


def _band_names(dataset: Any) -> list[str | None]:
    """Return each band's description, else the colour that GDAL knows it to be."""
    if any(dataset.descriptions):
        return list(dataset.descriptions)
    colours = [interpretation.name for interpretation in dataset.colorinterp]
    named = {"red", "green", "blue"} <= set(colours)
    return list(colours) if named else [None] * dataset.count


def _canonical(band: str) -> str:
    """Return ``B4`` for ``B04``, ``b4`` and ``red``; other names in capitals."""
    name = band.strip().upper()
    if name[:1] == "B" and name[1:].isdigit():
        return f"B{int(name[1:])}"
    return _COMMON_NAMES.get(name, name)


def _select(raster: Raster, bands: Sequence[str]) -> Raster:
    if raster.grid.crs is None:
        raise ImageryError(
            "got a Raster without CRS, expected a georeferenced one; pass its pixels as input_chw= "
            "with fetch=FetchSpec(scale_m=...)"
        )
    indexes = _band_indexes(raster.bands, bands, "the raster")
    data = raster.data[[i - 1 for i in indexes]]
    return replace(raster, data=data, bands=tuple(bands))


def _window_of(raster: Raster, window_in: Callable[[Grid], Grid]) -> Raster:
    """Return the window of a raster in memory; what reaches beyond it is invalid."""
    window = window_in(raster.grid)
    if window == raster.grid:
        return raster
    rows, columns = _overlap(window, raster.grid)
    valid = raster.valid[rows, columns]
    part = raster.grid.window(rows.start, columns.start, *valid.shape)
    data, valid = _padded(raster.data[:, rows, columns], valid, part, window)
    return replace(raster, data=data, valid=valid, grid=window)


def _from_xarray(
    array: Any,
    bands: Sequence[str],
    window_in: Callable[[Grid], Grid],
    fill_value: float | None,
) -> Raster:
    """Return an `xarray.DataArray` with CRS as a raster; see rioxarray for where it looks.

    Bands and window are picked before any value is computed.
    """
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr
    from pyproj import CRS
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
            "(the bands); select one date first, or array.squeeze() those of length 1"
        )
    if crs is None:
        raise ImageryError(
            "got a DataArray without CRS, expected a georeferenced one; set it with "
            "array.rio.write_crs('EPSG:...')"
        )
    for dim in (x_dim, y_dim):
        _check_regular(array, dim)
    nodata = array.rio.encoded_nodata if array.rio.nodata is None else array.rio.nodata
    indexes = _band_indexes(_coordinate_names(array, others[0]), bands, "the DataArray")
    picked = array.transpose(others[0], y_dim, x_dim).isel({others[0]: [i - 1 for i in indexes]})
    if float(picked[y_dim][0]) < float(picked[y_dim][-1]):
        picked = picked.isel({y_dim: slice(None, None, -1)})
    shape = (picked.sizes[y_dim], picked.sizes[x_dim])
    grid = Grid(CRS.from_wkt(crs.to_wkt()), picked.rio.transform(recalc=True), shape)
    window = window_in(grid)
    rows, columns = _overlap(window, grid)
    part = picked.isel({y_dim: rows, x_dim: columns})
    there = grid.window(rows.start, columns.start, part.sizes[y_dim], part.sizes[x_dim])
    read = Raster.from_array(
        part.values,
        bands=bands,
        crs=there.crs,
        transform=there.transform,
        nodata=_nodata(nodata, fill_value),
    )
    data, valid = _padded(read.data, read.valid, there, window)
    try:
        scale = float(array.attrs.get("scale_factor", 1))
        offset = float(array.attrs.get("add_offset", 0))
    except (TypeError, ValueError) as exc:
        raise ImageryError(f"got scale_factor or add_offset that are no numbers: {exc}") from exc
    reflectance = None if (scale, offset) == (1, 0) else (scale, offset)
    source = {"xarray": str(array.name or ""), "resampling": "none"}
    return Raster(data, valid, tuple(bands), window, reflectance, source)


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
