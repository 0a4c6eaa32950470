"""Write token grids as GeoTIFF and netCDF, and read them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.addresses import check_beside, check_regular
from rs_embed.errors import SpecError
from rs_embed.files.formats import META_KEY, UNREADABLE, EmbeddingFormat, Formats, unreadable
from rs_embed.files.token_bands import band_names, open_bands
from rs_embed.files.writing import written

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_META_TAG = META_KEY.upper()
_GRID = "a token grid (Embedding.save)"


def georeferenced(values: NDArray[np.float32], crs: Any, transform: Any) -> xr.DataArray:
    """Return ``(d, y, x)`` tokens with their coordinates; ``crs`` is of rasterio, or None."""
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr

    depth, height, width = values.shape
    array = xr.DataArray(
        values,
        dims=("d", "y", "x"),
        coords={
            "d": ("d", np.arange(depth), {"long_name": "dimension"}),  # as the bands of a GeoTIFF
            "y": transform.f + transform.e * (np.arange(height) + 0.5),
            "x": transform.c + transform.a * (np.arange(width) + 0.5),
        },
        name="embedding",
        attrs={"long_name": "patch tokens"},
    )
    if crs is None:
        for axis in ("x", "y"):
            array[axis].attrs["units"] = "px of the input"
    else:
        array = array.rio.write_crs(crs)
    placed: xr.DataArray = array.rio.write_transform(transform).rio.write_nodata(float("nan"))
    return placed


def cell_axis(array: xr.DataArray, dim: str) -> tuple[float, float]:
    """Return the outer edge of the first cell and the step between cells, CRS units."""
    from rioxarray.exceptions import RioXarrayError

    if dim not in array.coords or not array.sizes[dim]:
        raise SpecError(
            f"got a map without coordinates along {dim!r}, expected the centres of its cells"
        )
    centres = array[dim].values.astype(np.float64)
    if len(centres) == 1:
        try:
            step = float(array.rio.resolution()[dim == "y"])
        except RioXarrayError as exc:
            raise SpecError(
                f"got a map of one cell along {dim!r} and no transform, expected its size; set it "
                "with array.rio.write_transform(...)"
            ) from exc
        return float(centres[0]) - step / 2, step
    step = float(centres[-1] - centres[0]) / (len(centres) - 1)
    regular = centres[0] + step * np.arange(len(centres))
    if not np.abs(centres - regular).max() <= 0.01 * abs(step):
        raise SpecError(
            f"got a map whose coordinates along {dim!r} are not regular, expected cells of one "
            "size; cut parts from it with slices without gaps"
        )
    return float(centres[0]) - step / 2, step


def check_dimensions(array: xr.DataArray) -> None:
    """Raise `SpecError` unless an array has the dimensions d, y and x, in any order."""
    if set(array.dims) != {"d", "y", "x"}:
        raise SpecError(
            f"got a map with the dimensions {array.dims}, expected d, y and x; rename them, e.g. "
            "array.rename(band='d')"
        )


def north_up(array: xr.DataArray) -> xr.DataArray:
    """Return ``(d, y, x)`` with row 0 north, column 0 west, and the transform of its coordinates.

    Raises
    ------
    SpecError
        If it has other dimensions, or its coordinates are not those of a grid.
    """
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``

    check_dimensions(array)
    ahead = {"x": 1, "y": -1}
    against = [dim for dim, sign in ahead.items() if cell_axis(array, dim)[1] * sign < 0]
    array = array.transpose("d", "y", "x").isel(dict.fromkeys(against, slice(None, None, -1)))
    (left, width), (top, height) = cell_axis(array, "x"), cell_axis(array, "y")
    transform, stated = Affine(width, 0, left, 0, height, top), array.rio.transform()
    if stated.almost_equals(transform, 1e-6 * abs(width)):  # without errors of rounding
        transform = stated
    placed: xr.DataArray = array.rio.write_transform(transform)
    return placed


def write_geotiff(path: Path, grid: xr.DataArray, meta: Mapping[str, Any]) -> None:
    """Write ``(d, y, x)`` as float32, a band per dimension, NaN as nodata and the meta as a tag."""
    from rasterio.io import MemoryFile

    # In memory first: GDAL does not report every write that fails on a full disk.
    with written(path) as partial, MemoryFile() as memory:
        with memory.open(
            driver="GTiff", dtype="float32", count=grid.sizes["d"], height=grid.sizes["y"],
            width=grid.sizes["x"], nodata=float("nan"), crs=grid.rio.crs,
            transform=grid.rio.transform(), compress="deflate", predictor=3, interleave="band",
            BIGTIFF="IF_SAFER",
        ) as file:  # fmt: skip
            file.write(grid.values)
            file.descriptions = band_names(grid.sizes["d"])
            file.update_tags(**{_META_TAG: json.dumps(meta)})
        partial.write_bytes(memory.read())


def read_geotiff(path: Path) -> tuple[xr.DataArray, dict[str, Any]]:
    """Return the grid and meta of a file of `write_geotiff`; `ExportError` for other files."""
    from rasterio.errors import RasterioError

    try:
        check_beside(path)
        bands = open_bands(path)
        meta = json.loads(bands.tags[_META_TAG])
        bands.check_type()
        tokens = bands.tokens()
    except (RasterioError, OSError, *UNREADABLE) as exc:
        raise unreadable(path, exc, _GRID) from exc
    if not isinstance(meta, dict):
        raise unreadable(path, TypeError(f"meta is {type(meta).__name__}"), _GRID)
    grid = georeferenced(tokens.values, tokens.rio.crs, tokens.rio.transform())
    if "d" in tokens.coords:
        grid = grid.assign_coords(d=grid["d"].copy(data=tokens["d"].values))
    return grid if grid.rio.crs is None else north_up(grid), meta


def write_netcdf(path: Path, grid: xr.DataArray, meta: Mapping[str, Any]) -> None:
    """Write the grid as CF netCDF 4 with its ``spatial_ref``; the meta is an attribute."""
    NETCDF.require()
    dataset = grid.assign_attrs({META_KEY: json.dumps(meta)}).to_dataset(name="embedding")
    dataset["embedding"].encoding["zlib"] = True
    # In memory first: HDF5 notices a full disk only when it closes the file, and raises nothing.
    with written(path) as partial:
        partial.write_bytes(dataset.to_netcdf(None, engine="h5netcdf"))


def read_netcdf(path: Path) -> tuple[xr.DataArray, dict[str, Any]]:
    """Return the grid and meta of a file of `write_netcdf`; `ExportError` for other files."""
    NETCDF.require()
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr

    try:
        check_regular(path)
        with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as dataset:
            grid = dataset["embedding"].load().astype(np.float32)
        meta = json.loads(grid.attrs.pop(META_KEY))
        return grid if grid.rio.crs is None else north_up(grid), meta
    except (OSError, *UNREADABLE) as exc:
        raise unreadable(path, exc, _GRID) from exc


GEOTIFF = EmbeddingFormat(
    name="GeoTIFF",
    suffixes=(".tif", ".tiff"),
    media_type="image/tiff; application=geotiff",
    write=write_geotiff,
    read=read_geotiff,
)
NETCDF = EmbeddingFormat(
    name="netCDF",
    suffixes=(".nc",),
    media_type="application/x-netcdf",
    packages=("h5netcdf", "h5py"),
    extra="netcdf",
    write=write_netcdf,
    read=read_netcdf,
)
GRIDS = Formats("a grid", GEOTIFF, NETCDF)
