"""Write token grids as GeoTIFF and netCDF, and read them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.files.formats import META_KEY, EmbeddingFormat, Formats, unreadable
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
            "d": np.arange(depth),
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
            file.update_tags(**{_META_TAG: json.dumps(meta)})
        partial.write_bytes(memory.read())


def read_geotiff(path: Path) -> tuple[xr.DataArray, dict[str, Any]]:
    """Return the grid and meta of a file of `write_geotiff`; `ExportError` for other files."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as file:
            meta = json.loads(file.tags()[_META_TAG])
            values, crs, transform = file.read(), file.crs, file.transform
    except (RasterioError, KeyError, ValueError) as exc:
        raise unreadable(path, exc, _GRID) from exc
    if values.dtype != np.float32 or not isinstance(meta, dict):
        raise unreadable(path, TypeError(f"{values.dtype} values"), _GRID)
    return georeferenced(values, crs, transform), meta


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
        with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as dataset:
            grid = dataset["embedding"].load()
        return grid, json.loads(grid.attrs.pop(META_KEY))
    except (OSError, KeyError, ValueError) as exc:
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
