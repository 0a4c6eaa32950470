"""Write vectors and token grids to files, and read them back. Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.errors import ExportError, UnknownNameError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

VECTOR_SUFFIXES = (".npz",)
GRID_SUFFIXES = (".tif", ".tiff", ".nc")
_META = "rs_embed_meta"


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and put it in place when all went well.

    Raises
    ------
    ExportError
        If the folder is missing or cannot be written, or the disk is full.
    """
    check_place(path)
    partial = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except ExportError:
        raise
    except OSError as exc:
        raise ExportError(f"cannot write {path}: {exc}; choose another place") from exc
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise before any work is done if ``path`` cannot be written later.

    Raises
    ------
    UnknownNameError
        If its suffix is not one of ``suffixes``.
    ExportError
        If the folder does not exist or cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        raise UnknownNameError.among("file type", path.suffix, suffixes)
    check_place(path)


def check_place(path: Path) -> None:
    """Raise `ExportError` if ``path`` is a folder, too long, or in no folder to write in."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as exc:
        raise ExportError(f"cannot write {str(path)!r}: {exc}; choose another name") from exc
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ExportError(f"cannot write {path}: {what}; choose another place")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"cannot write {path}: {path.parent} is read-only; choose another place")


def write_vector(path: Path, vector: NDArray[np.float32], meta: Mapping[str, Any]) -> None:
    """Write ``(D,)`` float32 as ``embedding`` and the meta as JSON text into an ``.npz``."""
    with written(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, embedding=vector, rs_embed_meta=np.array(json.dumps(meta)))


def read_vector(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return vector and meta of an ``.npz`` that `write_vector` wrote."""
    try:
        with zipfile.ZipFile(path):  # an .npy under this name is no archive
            pass
        with np.load(path, allow_pickle=False) as content:
            vector, meta = content["embedding"], json.loads(str(content[_META]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise _unreadable(path, exc) from exc
    if vector.ndim != 1 or vector.dtype != np.float32 or not isinstance(meta, dict):
        raise _unreadable(path, TypeError(f"{vector.dtype} of shape {vector.shape}"))
    return vector, meta


def write_geotiff(path: Path, grid: xr.DataArray, meta: Mapping[str, Any]) -> None:
    """Write ``(d, y, x)`` as GeoTIFF: float32, a band per dimension, NaN as nodata, meta as tag."""
    from rasterio.io import MemoryFile

    # Made in memory: GDAL does not report every write that fails on a full disk.
    with written(path) as partial, MemoryFile() as memory:
        with memory.open(
            driver="GTiff", dtype="float32", count=grid.sizes["d"], height=grid.sizes["y"],
            width=grid.sizes["x"], nodata=float("nan"), crs=grid.rio.crs,
            transform=grid.rio.transform(), compress="deflate", predictor=3, interleave="band",
            BIGTIFF="IF_SAFER",
        ) as file:  # fmt: skip
            file.write(grid.values)
            file.update_tags(**{_META.upper(): json.dumps(meta)})
        partial.write_bytes(memory.read())


def read_geotiff(path: Path) -> tuple[NDArray[np.float32], Any, Any, dict[str, Any]]:
    """Return values ``(d, y, x)``, rasterio CRS, transform and meta of a written GeoTIFF."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as file:
            meta = json.loads(file.tags()[_META.upper()])
            values, crs, transform = file.read(), file.crs, file.transform
    except (RasterioError, KeyError, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    if values.dtype != np.float32 or not isinstance(meta, dict):
        raise _unreadable(path, TypeError(f"{values.dtype} values"))
    return values, crs, transform, meta


def write_netcdf(path: Path, grid: xr.DataArray, meta: Mapping[str, Any]) -> None:
    """Write the grid as CF netCDF 4 with its ``spatial_ref``; the meta is an attribute."""
    _require_netcdf()
    dataset = grid.assign_attrs({_META: json.dumps(meta)}).to_dataset(name="embedding")
    dataset["embedding"].encoding["zlib"] = True
    # Made in memory: HDF5 reports a full disk only when it closes the file, to nobody.
    with written(path) as partial:
        partial.write_bytes(dataset.to_netcdf(None, engine="h5netcdf"))


def read_netcdf(path: Path) -> tuple[xr.DataArray, dict[str, Any]]:
    """Return the grid and the meta of a netCDF file that `write_netcdf` wrote."""
    _require_netcdf()
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr

    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as dataset:
            grid = dataset["embedding"].load()
        return grid, json.loads(grid.attrs.pop(_META))
    except (OSError, KeyError, ValueError) as exc:
        raise _unreadable(path, exc) from exc


def _require_netcdf() -> None:
    for module in ("h5netcdf", "h5py"):
        require(module, extra="netcdf", purpose="netCDF")


def _unreadable(path: Path, exc: Exception) -> ExportError:
    reason = "there is no such file" if not path.is_file() else f"{type(exc).__name__}: {exc}"
    return ExportError(f"cannot read {path} ({reason}), expected a file of Embedding.save")
