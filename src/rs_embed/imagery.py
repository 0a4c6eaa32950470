"""Imagery that the user has: GeoTIFF and COG files, xarray objects, rasters; as a `Raster`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from affine import Affine

from rs_embed.errors import ImageryError
from rs_embed.grid import MAX_PIXELS, Grid, gsd_m, pixels_per_pixel, roi_window
from rs_embed.raster import Raster, valid_mask
from rs_embed.specs import Spatial

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS

# STAC common names of the Sentinel-2 bands that ScaleMAE takes (STAC eo extension).
_COMMON_NAMES = {"RED": "B4", "GREEN": "B3", "BLUE": "B2", "R": "B4", "G": "B3", "B": "B2"}

# Pixels of the file along one pixel of the grid from which they are averaged.
AVERAGED_FROM = 1.5


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


@dataclass(frozen=True)
class BandFile:
    """Bands of one file, and how they are read.

    Parameters
    ----------
    path : str
        Path or URL that GDAL opens.
    bands : tuple of str
        Names wanted, in the order wanted.
    indexes : tuple of int or None
        Their positions in the file, from 1; None finds them by name.
    fill_value : float or None
        Value that marks nodata if the file declares none; None is 0.
    classes : bool
        Whether values are classes, which only the nearest pixel may give.
    of_several : bool
        Whether other files hold the scene's other bands. A nodata value of 0 marks a pixel where
        all bands hold it, so that here, on the file's own lattice, it marks nothing; where pixels
        are reprojected GDAL leaves out 0, and so it is invalid.
    """

    path: str
    bands: tuple[str, ...]
    indexes: tuple[int, ...] | None = None
    fill_value: float | None = None
    classes: bool = False
    of_several: bool = False

    def positions(self, names: Sequence[str | None]) -> list[int]:
        """Return the positions of the bands in a file whose bands have these ``names``.

        Raises
        ------
        ImageryError
            If a band is not there.
        """
        shown = shown_path(self.path)
        if self.indexes is None:
            return _band_indexes(names, self.bands, shown)
        if max(self.indexes) > len(names):
            raise ImageryError(
                f"{shown!r} has {len(names)} bands, expected band {max(self.indexes)} in it; "
                "correct what describes the file"
            )
        return list(self.indexes)


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of itself before any pixel is read.

    Attributes
    ----------
    name : str
        Its path.
    grid : Grid
        Its grid, north up.
    names : tuple of str or None
        Name of each band, None where it has none.
    dtypes : tuple of str
        Type of each band's values.
    nodatavals : tuple of float or None
        Nodata value that each band declares.
    scales, offsets : tuple of float
        Reflectance = value * scale + offset, per band; 1 and 0 where nothing is declared.
    tags : mapping
        Metadata of the file, that of GDAL's domain ``IMAGERY`` included.
    """

    name: str
    grid: Grid
    names: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    nodatavals: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    tags: Mapping[str, str]


def read_header(path: str) -> Header:
    """Return what the file says of itself.

    Raises
    ------
    ImageryError
        If it cannot be opened, or has no CRS or transform.
    """
    import rasterio

    # One look per possible sidecar file instead of a listing of the folder, which may be huge.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), _opened(path) as dataset:
        return Header(
            path,
            _file_grid(dataset),
            tuple(_band_names(dataset)),
            tuple(dataset.dtypes),
            tuple(dataset.nodatavals),
            tuple(dataset.scales),
            tuple(dataset.offsets),
            {**dataset.tags(ns="IMAGERY"), **dataset.tags()},
        )


def read_on_grid(path: str | Path, grid: Grid, *, bands: Sequence[str]) -> Raster:
    """Return the pixels of a file on exactly ``grid``; see `read_rows`.

    Raises
    ------
    ImageryError
        If the file cannot be read, lacks a band, or has no valid pixel on the grid.
    """
    raster = read_rows(BandFile(str(path), tuple(bands)), grid)
    if not raster.valid.any():
        raise _elsewhere(grid, read_header(str(path)).grid)
    return raster


def read_rows(file: BandFile, grid: Grid, rows: slice | None = None) -> Raster:
    """Return the pixels of a file on some rows of ``grid``, all of them if not stated.

    Where the grid lies on the file's own lattice the pixels come through untouched; elsewhere
    they are reprojected, averaged if the grid is at least 1.5 times coarser, bilinear otherwise,
    nearest for classes. Invalid pixels (nodata, internal mask, alpha) give nothing to their
    neighbours, and what the file does not cover is invalid. ``source["resampling"]`` says which it
    was. Only the window is read, and rows read apart equal those of the whole.

    Raises
    ------
    ImageryError
        If the file cannot be read or lacks a band.
    """
    rows = slice(0, grid.shape[0]) if rows is None else rows
    part = grid.window(rows.start, 0, rows.stop - rows.start, grid.shape[1])
    with _opened(file.path) as dataset:
        file_grid = _file_grid(dataset)
        indexes = file.positions(_band_names(dataset))
        nodata = _nodata(_declared_nodata(dataset, indexes), file.fill_value)
        if grid.lies_on(file_grid):
            resampling = "none"
            marker = None if file.of_several and nodata == 0 else nodata
            data, valid = _read_window(dataset, file_grid, part, indexes, marker)
        else:
            per_pixel = pixels_per_pixel(grid, file_grid)
            coarser = "average" if per_pixel >= AVERAGED_FROM else "bilinear"
            resampling = "nearest" if file.classes else coarser
            data, valid = _read_warped(dataset, part, indexes, nodata, resampling, per_pixel)
        source = {"path": shown_path(file.path), "resampling": resampling}
        return Raster(data, valid, file.bands, part, declared_units(dataset, indexes), source)


def _read_warped(
    dataset: Any,
    part: Grid,
    indexes: Sequence[int],
    nodata: float,
    resampling: str,
    per_pixel: float,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return data and validity of the bands, reprojected to ``part``."""
    from rasterio.enums import MaskFlags, Resampling
    from rasterio.vrt import WarpedVRT

    masked = _has_mask(dataset, indexes)
    has_alpha = any(MaskFlags.alpha in flags for flags in dataset.mask_flag_enums)
    # A value that the type cannot hold marks nothing; 0 is then what GDAL leaves uncovered.
    marker = nodata if _holds(dataset.dtypes[indexes[0] - 1], nodata) else 0
    scale = str(1 / max(per_pixel, 1.0))
    with WarpedVRT(
        dataset,
        crs=part.crs.to_wkt() if part.crs else None,
        transform=part.transform,
        height=part.shape[0],
        width=part.shape[1],
        src_nodata=marker,
        nodata=marker,
        add_alpha=masked and not has_alpha,
        resampling=Resampling[resampling],
        # Pixels. GDAL interpolates positions along each row; rasterio takes no 0 here.
        tolerance=1e-6,
        # GDAL would take the width of its filter from the shape of each window it reads.
        XSCALE=scale,
        YSCALE=scale,
        # As in valid_mask: 0 marks a pixel where all bands hold it, another value where any does.
        UNIFIED_SRC_NODATA="YES" if marker == 0 else "NO",
    ) as warped:
        if not masked:
            data = warped.read(indexes)
            return data, valid_mask(data, marker)
        alpha = next(i for i, c in enumerate(warped.colorinterp, 1) if c.name == "alpha")
        data = warped.read([*indexes, alpha])
        return data[:-1], valid_mask(data[:-1], nodata) & (data[-1] > 0)


def _holds(dtype: str, value: float) -> bool:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return limits.min <= value <= limits.max and value == int(value)


def _read_file(
    path: str,
    bands: Sequence[str],
    window_in: Callable[[Grid], Grid],
    fill_value: float | None,
) -> Raster:
    with _opened(path) as dataset:
        grid = _file_grid(dataset)
        window = window_in(grid)
        indexes = _band_indexes(_band_names(dataset), bands, shown_path(path))
        nodata = _nodata(_declared_nodata(dataset, indexes), fill_value)
        _overlap(window, grid)
        data, valid = _read_window(dataset, grid, window, indexes, nodata)
        source = {"path": shown_path(path), "resampling": "none"}
        return Raster(data, valid, tuple(bands), window, declared_units(dataset, indexes), source)


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
    return Grid(_crs_of_wkt(dataset.crs.to_wkt()), transform, shape)


@lru_cache(maxsize=64)
def _crs_of_wkt(wkt: str) -> CRS:
    from pyproj import CRS

    return CRS.from_wkt(wkt)


def _read_window(
    dataset: Any, file_grid: Grid, window: Grid, indexes: Sequence[int], nodata: float | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return data and validity of ``window``, which lies on the lattice of ``file_grid``."""
    from rasterio.windows import Window

    rows, columns = _common(window, file_grid)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        dtype = np.result_type(*(dataset.dtypes[i - 1] for i in indexes))
        return np.zeros((len(indexes), *window.shape), dtype), np.zeros(window.shape, bool)
    from_north = dataset.transform.e < 0
    first_row = rows.start if from_north else file_grid.shape[0] - rows.stop
    step = 1 if from_north else -1
    part = Window(columns.start, first_row, columns.stop - columns.start, rows.stop - rows.start)
    pixels = dataset.read(indexes, window=part)[:, ::step]
    valid = valid_mask(pixels, nodata)
    if _has_mask(dataset, indexes):
        valid &= dataset.dataset_mask(window=part)[::step] > 0
    return _padded(pixels, valid, file_grid.window(rows.start, columns.start, *valid.shape), window)


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
    """Return the rows and columns of ``there`` that ``window`` covers; at least one pixel."""
    rows, columns = _common(window, there)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise _elsewhere(window, there)
    return rows, columns


def _common(window: Grid, there: Grid) -> tuple[slice, slice]:
    row, column = window.offset_in(there)
    rows = slice(max(row, 0), min(row + window.shape[0], there.shape[0]))
    columns = slice(max(column, 0), min(column + window.shape[1], there.shape[1]))
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


def declared_units(file: Any, indexes: Sequence[int]) -> tuple[float, float] | None:
    """Return the (scale, offset) that bands of a file declare, None for the GDAL defaults.

    Parameters
    ----------
    file : Header or rasterio dataset
        The file.
    indexes : sequence of int
        Positions of the bands, from 1.

    Raises
    ------
    ImageryError
        If they declare different ones.
    """
    declared = {(str(file.scales[i - 1]), str(file.offsets[i - 1])) for i in indexes}
    if len(declared) > 1:
        raise ImageryError(
            f"the bands of {shown_path(file.name)!r} declare different scales and offsets "
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
    canonical = [canonical_band(name) if name else "" for name in names]
    doubled = [band for band in wanted if canonical.count(canonical_band(band)) > 1]
    if doubled:
        raise ImageryError(
            f"{source!r} has several bands named {', '.join(doubled)}; rename or extract the right "
            "ones first"
        )
    places = {name: i for i, name in enumerate(canonical, 1)}
    missing = [band for band in wanted if canonical_band(band) not in places]
    if missing:
        raise ImageryError(
            f"{source!r} has the bands {', '.join(str(n) for n in names)}, expected "
            f"{', '.join(wanted)}: {', '.join(missing)} not found; name its red, green and blue "
            "bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"
        )
    return [places[canonical_band(band)] for band in wanted]


def _band_names(dataset: Any) -> list[str | None]:
    """Return each band's description, else the colour that GDAL knows it to be."""
    if any(dataset.descriptions):
        return list(dataset.descriptions)
    colours = [interpretation.name for interpretation in dataset.colorinterp]
    named = {"red", "green", "blue"} <= set(colours)
    return list(colours) if named else [None] * dataset.count


def canonical_band(band: str) -> str:
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
