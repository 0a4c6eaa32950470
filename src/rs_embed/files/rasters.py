"""Raster files: headers, and pixels on a grid, untouched on the file's own lattice or warped."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from affine import Affine

from rs_embed.addresses import shown_path
from rs_embed.errors import ImageryError
from rs_embed.files.dates import acquisition_of
from rs_embed.files.gdal import OpenFiles, open_file, quietly
from rs_embed.files.masks import has_mask, shown_pixels
from rs_embed.geo.bands import band_indexes, doubtful_bands
from rs_embed.geo.grid import Grid, bounds_window, pixels_per_pixel, transformer
from rs_embed.geo.raster import Raster, valid_mask
from rs_embed.geo.windows import common_window, elsewhere, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS

# Pixels of the file along one pixel of the grid from which they are averaged.
AVERAGED_FROM = 1.5
# Largest window of a file with masks that is copied at once to be warped, pixels.
_MOST_COPIED_PX = 50_000_000
_LISTED_IMAGES = 8


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
            If the file lacks a band.
        """
        shown = shown_path(self.path)
        if self.indexes is None:
            return band_indexes(names, self.bands, shown)
        if max(self.indexes) > len(names):
            raise ImageryError(
                f"{shown!r} has {len(names)} bands, expected band {max(self.indexes)} in it; "
                "correct the description of the file"
            )
        return list(self.indexes)


@dataclass(frozen=True, eq=False)
class Header:
    """The metadata of a file, read before any pixel.

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
    block_rows : int
        Rows that are stored, and so decoded, together.
    """

    name: str
    grid: Grid
    names: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    nodatavals: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    tags: Mapping[str, str]
    block_rows: int


def read_header(path: str, opened: OpenFiles | None = None) -> Header:
    """Return the metadata of a file; ``opened`` keeps the file open.

    Raises
    ------
    ImageryError
        If it cannot be opened, or has no CRS or transform.
    """
    with open_file(path, opened) as dataset:
        return _header(dataset, path)


# Of files that stay open: to ask GDAL for all of it takes as long as to read a small window.
_HEADERS: WeakKeyDictionary[Any, Header] = WeakKeyDictionary()


def _header(dataset: Any, path: str) -> Header:
    """Return the metadata of an open file."""
    known = _HEADERS.get(dataset)
    if known is None:
        known = _HEADERS[dataset] = Header(
            path,
            _file_grid(dataset),
            tuple(_band_names(dataset)),
            tuple(dataset.dtypes),
            tuple(dataset.nodatavals),
            tuple(dataset.scales),
            tuple(dataset.offsets),
            _tags(dataset),
            max(height for height, _ in dataset.block_shapes),
        )
    return known


def is_georeferenced(path: str) -> bool:
    """Return whether a file has a CRS and a transform.

    Raises
    ------
    ImageryError
        If it cannot be opened.
    """
    with quietly(), open_file(path) as dataset:
        return dataset.crs is not None and dataset.transform != Affine.identity()


def read_on_grid(path: str | Path, grid: Grid, *, bands: Sequence[str]) -> Raster:
    """Return the pixels of a file on exactly ``grid``; see `read_rows`.

    Raises
    ------
    ImageryError
        If the file cannot be read, lacks a band, or has no valid pixel on the grid.
    """
    raster = read_rows(BandFile(str(path), tuple(bands)), grid)
    if not raster.valid.any():
        raise elsewhere(grid, read_header(str(path)).grid)
    return raster


def read_rows(
    file: BandFile, grid: Grid, rows: slice | None = None, opened: OpenFiles | None = None
) -> Raster:
    """Return the pixels of a file on some rows of ``grid``, all of them if not stated.

    If the grid is on the lattice of the file, the pixels are returned unchanged; otherwise
    they are reprojected, averaged if the grid is at least 1.5 times coarser, bilinear otherwise,
    nearest for classes. Invalid pixels (nodata, internal mask, alpha) give nothing to their
    neighbours, and what the file does not cover is invalid. ``source["resampling"]`` names the
    method. Only the window is read, and rows read apart equal the rows of the whole; ``opened``
    keeps the file open between them.

    Raises
    ------
    ImageryError
        If the file cannot be read or lacks a band.
    """
    rows = slice(0, grid.shape[0]) if rows is None else rows
    part = grid.window(rows.start, 0, rows.stop - rows.start, grid.shape[1])
    with open_file(file.path, opened) as dataset:
        header = _header(dataset, file.path)
        file_grid = header.grid
        indexes = file.positions(header.names)
        nodata = nodata_value(_declared_nodata(header, indexes), file.fill_value)
        if grid.lies_on(file_grid):
            resampling = "none"
            marker = None if file.of_several and nodata == 0 else nodata
            data, valid = _read_window(dataset, file_grid, part, indexes, marker)
        else:
            per_pixel = pixels_per_pixel(grid, file_grid)
            coarser = "average" if per_pixel >= AVERAGED_FROM else "bilinear"
            resampling = "nearest" if file.classes else coarser
            data, valid = _read_warped(
                dataset, file_grid, part, indexes, nodata, resampling, per_pixel
            )
        source = {"path": shown_path(file.path), "resampling": resampling}
        return Raster(data, valid, file.bands, part, declared_units(header, indexes), source)


def read_thinned(file: BandFile, shape: tuple[int, int]) -> Raster:
    """Return a whole file in few pixels, from its overviews if it has any.

    Raises
    ------
    ImageryError
        If the file cannot be read or lacks a band.
    """
    with open_file(file.path) as dataset:
        grid = _file_grid(dataset).resized(*shape)
        indexes = file.positions(_band_names(dataset))
        nodata = nodata_value(_declared_nodata(dataset, indexes), file.fill_value)
        step = 1 if dataset.transform.e < 0 else -1
        data = dataset.read(indexes, out_shape=(len(indexes), *shape))[:, ::step]
        valid = valid_mask(data, None if file.of_several and nodata == 0 else nodata)
        if has_mask(dataset, indexes):
            valid &= shown_pixels(dataset, indexes, out_shape=shape)[::step]
        source = {"path": shown_path(file.path), "resampling": "nearest"}
        return Raster(data, valid, file.bands, grid, declared_units(dataset, indexes), source)


def _read_warped(
    dataset: Any,
    file_grid: Grid,
    part: Grid,
    indexes: Sequence[int],
    nodata: float,
    resampling: str,
    per_pixel: float,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return data and validity of the bands, reprojected to ``part``."""
    if has_mask(dataset, indexes):
        return _read_masked(dataset, file_grid, part, indexes, nodata, resampling, per_pixel)
    # A value that the type cannot hold marks nothing; GDAL then fills uncovered pixels with 0.
    marker = nodata if _holds(dataset.dtypes[indexes[0] - 1], nodata) else 0
    with _warped(
        dataset, part, resampling, per_pixel, src_nodata=marker, nodata=marker,
        # As in valid_mask: 0 marks a pixel where all bands hold it, another value where any does.
        UNIFIED_SRC_NODATA="YES" if marker == 0 else "NO",
    ) as warped:  # fmt: skip
        data = warped.read(indexes)
    return data, valid_mask(data, marker)


def _read_masked(
    dataset: Any,
    file_grid: Grid,
    part: Grid,
    indexes: Sequence[int],
    nodata: float,
    resampling: str,
    per_pixel: float,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Do as `_read_warped` from a copy of the window whose one mask is all that hides pixels.

    GDAL's warper heeds only one of nodata, mask and alpha band, and an alpha band only as the last.
    """
    from rasterio.io import MemoryFile

    # The filter of average and bilinear reaches less than two pixels of the coarser lattice.
    reach = 2 * math.ceil(max(per_pixel, 1)) + 1
    around = bounds_window(file_grid, _bounds_in(file_grid, part))
    around = around.window(-reach, -reach, *(side + 2 * reach for side in around.shape))
    rows, columns = common_window(around, file_grid)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return _nothing(dataset, indexes, part)
    if height * width > _MOST_COPIED_PX and part.shape[0] > 1:
        half = part.shape[0] // 2
        upper = part.window(0, 0, half, part.shape[1])
        lower = part.window(half, 0, part.shape[0] - half, part.shape[1])
        halves = [
            _read_masked(dataset, file_grid, piece, indexes, nodata, resampling, per_pixel)
            for piece in (upper, lower)
        ]
        data, valid = zip(*halves, strict=True)
        return np.concatenate(data, axis=1), np.concatenate(valid)
    window = file_grid.window(rows.start, columns.start, height, width)
    pixels, shown = _read_window(dataset, file_grid, window, indexes, nodata)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", dtype=pixels.dtype, count=len(indexes), height=height, width=width,
            crs=dataset.crs, transform=window.transform,
        ) as copy:  # fmt: skip
            copy.write(pixels)
            copy.write_mask(shown)
        with (
            memory.open() as copy,
            _warped(copy, part, resampling, per_pixel, add_alpha=True) as warped,
        ):
            read = warped.read()
    return read[:-1], valid_mask(read[:-1], None) & (read[-1] > 0)


def _bounds_in(lattice: Grid, part: Grid) -> tuple[float, float, float, float]:
    """Return left, bottom, right, top of ``part`` in the CRS of ``lattice``.

    Raises
    ------
    ImageryError
        If it lies outside the area of that CRS.
    """
    if lattice.crs is None or part.crs is None:
        return part.bounds
    left, bottom, right, top = transformer(part.crs, lattice.crs).transform_bounds(
        *part.bounds, densify_pts=21
    )
    if not np.isfinite([left, bottom, right, top]).all():
        raise elsewhere(part, lattice)
    return left, bottom, right, top


def _warped(
    dataset: Any, part: Grid, resampling: str, per_pixel: float, **options: Any
) -> AbstractContextManager[Any]:
    """Return a dataset reprojected to ``part``, as a dataset of rasterio."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    scale = str(1 / max(per_pixel, 1.0))
    warped: AbstractContextManager[Any] = WarpedVRT(
        dataset,
        crs=part.crs.to_wkt() if part.crs else None,
        transform=part.transform,
        height=part.shape[0],
        width=part.shape[1],
        resampling=Resampling[resampling],
        # Pixels. GDAL interpolates positions along each row; rasterio takes no 0 here.
        tolerance=1e-6,
        # GDAL would take the width of its filter from the shape of each window it reads.
        XSCALE=scale,
        YSCALE=scale,
        **options,
    )
    return warped


def _holds(dtype: str, value: float) -> bool:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return limits.min <= value <= limits.max and value == int(value)


def read_file(
    path: str,
    bands: Sequence[str],
    window_in: Callable[[Grid], Grid],
    fill_value: float | None,
) -> Raster:
    """Return the window of a file that ``window_in`` picks on its grid, on its own pixels.

    What the file does not cover is invalid.

    Raises
    ------
    ImageryError
        If the file cannot be read or lacks a band.
    """
    with open_file(path) as dataset:
        grid = _file_grid(dataset)
        window = window_in(grid)
        indexes = band_indexes(_band_names(dataset), bands, shown_path(path))
        nodata = nodata_value(_declared_nodata(dataset, indexes), fill_value)
        data, valid = _read_window(dataset, grid, window, indexes, nodata)
        source: dict[str, Any] = {"path": shown_path(path), "resampling": "none"}
        dated = acquisition_of(_tags(dataset), os.path.basename(shown_path(path)))
        if dated.moment is not None:
            source["acquired"] = [dated.moment.isoformat()] * 2
        doubts = tuple(filter(None, (dated.note, doubtful_bands(_band_names(dataset)))))
        units = declared_units(dataset, indexes)
        return Raster(data, valid, tuple(bands), window, units, source, doubts)


def _tags(dataset: Any) -> dict[str, str]:
    """Return the metadata of a file, that of GDAL's domain ``IMAGERY`` included."""
    return {**dataset.tags(ns="IMAGERY"), **dataset.tags()}


def _file_grid(dataset: Any) -> Grid:
    """Return the file's grid, north up even where its rows run from south to north."""
    if dataset.driver == "SENTINEL2" or (dataset.count == 0 and dataset.subdatasets):
        raise _container(dataset)
    if dataset.crs is None or dataset.transform == Affine.identity():
        missing = "CRS" if dataset.crs is None else "transform"
        raise ImageryError(
            f"{shown_path(dataset.name)!r} has no {missing}, expected georeferenced imagery; "
            "assign one with gdal_translate -a_srs/-a_ullr (gdalwarp where it has ground control "
            "points), or pass the pixels to get_embedding as input_chw= with "
            "scale_m=..."
        )
    transform, shape = dataset.transform, (dataset.height, dataset.width)
    if transform.e > 0:
        transform = transform @ Affine.translation(0, shape[0]) @ Affine.scale(1, -1)
    return Grid(_crs_of_wkt(dataset.crs.to_wkt()), transform, shape)


def _container(dataset: Any) -> ImageryError:
    """Return the error for a file that holds several images."""
    shown = shown_path(dataset.name)
    if dataset.driver == "SENTINEL2":
        return ImageryError(
            f"{shown!r} describes a Sentinel-2 product, expected an image; read the product with "
            "backend='....SAFE', which subtracts its offset"
        )
    names = [shlex.quote(shown_path(name)) for name in dataset.subdatasets]
    listed = " ".join(names[:_LISTED_IMAGES]) + " ..." * (len(names) > _LISTED_IMAGES)
    return ImageryError(
        f"{shown!r} holds {len(names)} images: {listed}; expected one: pass the name of one as "
        "imagery=, join those of the red, green and blue band with gdalbuildvrt -separate "
        "bands.vrt NAME NAME NAME, or open netCDF with xarray.open_dataset(path, "
        "decode_coords='all') and pass the Dataset"
    )


@lru_cache(maxsize=64)
def _crs_of_wkt(wkt: str) -> CRS:
    from pyproj import CRS

    return CRS.from_wkt(wkt)


def _read_window(
    dataset: Any, file_grid: Grid, window: Grid, indexes: Sequence[int], nodata: float | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return data and validity of ``window``, which is on the lattice of ``file_grid``."""
    from rasterio.windows import Window

    rows, columns = common_window(window, file_grid)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return _nothing(dataset, indexes, window)
    from_north = dataset.transform.e < 0
    first_row = rows.start if from_north else file_grid.shape[0] - rows.stop
    step = 1 if from_north else -1
    part = Window(columns.start, first_row, columns.stop - columns.start, rows.stop - rows.start)
    pixels = dataset.read(indexes, window=part)[:, ::step]
    valid = valid_mask(pixels, nodata)
    if has_mask(dataset, indexes):
        valid &= shown_pixels(dataset, indexes, window=part)[::step]
    return padded(pixels, valid, file_grid, window)


def _nothing(
    dataset: Any, indexes: Sequence[int], window: Grid
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return invalid pixels, for a window that the file does not cover."""
    dtype = np.result_type(*(dataset.dtypes[i - 1] for i in indexes))
    return np.zeros((len(indexes), *window.shape), dtype), np.zeros(window.shape, bool)


def _declared_nodata(file: Any, indexes: Sequence[int]) -> float | None:
    values = [file.nodatavals[i - 1] for i in indexes]
    distinct = {None if v is None else "nan" if np.isnan(v) else v for v in values}
    if len(distinct) > 1:
        raise ImageryError(
            f"the bands of {shown_path(file.name)!r} declare different nodata values {values}, "
            "expected one for all; bring them to one, e.g. gdalwarp -dstnodata 0"
        )
    return None if values[0] is None else float(values[0])


def nodata_value(declared: float | None, stated: float | None) -> float:
    """Return the nodata value; 0, as for Sentinel-2, if neither states one."""
    if declared is not None and stated is not None and declared != stated:
        raise ImageryError(
            f"got fill_value={stated:g}, but the imagery declares nodata {declared:g}; leave "
            "fill_value out, or correct the imagery (gdal_edit -a_nodata)"
        )
    known = stated if declared is None else declared
    return 0 if known is None else known


def declared_units(file: Any, indexes: Sequence[int]) -> tuple[float, float] | None:
    """Return the (scale, offset) that bands of a file declare, None for the GDAL defaults.

    ``file`` is a `Header` or a dataset of rasterio; positions of bands count from 1.

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


def _band_names(dataset: Any) -> list[str | None]:
    """Return each band's description, else the colour that GDAL knows it to be."""
    if any(dataset.descriptions):
        return list(dataset.descriptions)
    colours = [interpretation.name for interpretation in dataset.colorinterp]
    named = {"red", "green", "blue"} <= set(colours)
    return list(colours) if named else [None] * dataset.count
