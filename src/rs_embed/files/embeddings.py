"""Write vectors and token grids to files, and read them back. Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
_SUFFIXES = {
    "vector": VECTOR_SUFFIXES,
    "vectors": VECTOR_SUFFIXES,
    "grid": GRID_SUFFIXES,
    "map": (".zarr", ".tif"),
    "picture": (".png",),
    "report": (".json",),
}
_META = "rs_embed_meta"
# Who wrote a file that can be read.
_ONE, _MANY = "Embedding.save", "many vectors (write_vectors)"
_ROWS_AT_ONCE = 1024


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


def check_output(path: str | os.PathLike[str], kind: str) -> None:
    """Raise before any work is done if a ``kind`` of result cannot be written to ``path``.

    Raises
    ------
    UnknownNameError
        If the suffix is not one of that kind.
    ExportError
        If the folder does not exist or cannot be written.
    """
    check_writable(Path(path), _SUFFIXES[kind])


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
    content = _npz(path, ["embedding", _META], _ONE)
    vector = content["embedding"]
    try:
        meta = json.loads(str(content[_META]))
    except ValueError as exc:
        raise _unreadable(path, exc) from exc
    if vector.ndim != 1 or vector.dtype != np.float32 or not isinstance(meta, dict):
        raise _unreadable(path, TypeError(f"{vector.dtype} of shape {vector.shape}"))
    return vector, meta


@dataclass(frozen=True, eq=False)
class VectorRow:
    """One of many vectors for `write_vectors`.

    Attributes
    ----------
    id : str
        Name of the place.
    lon, lat : float
        Its centre, degrees (EPSG:4326).
    vector : numpy.ndarray or None
        ``(D,)`` float32; None where it failed.
    meta : mapping or None
        Provenance, JSON values.
    error : str or None
        Why there is no vector.
    """

    id: str
    lon: float
    lat: float
    vector: NDArray[np.float32] | None
    meta: Mapping[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Vectors:
    """Many vectors, one a place; arrays of the same length N.

    Attributes
    ----------
    embedding : numpy.ndarray
        ``(N, D)`` float32, NaN where it failed.
    id : numpy.ndarray
        ``(N,)`` text: names of the places.
    ok : numpy.ndarray
        ``(N,)`` bool: whether there is a vector.
    error : tuple of str
        N texts: why there is none, empty where there is one.
    lon, lat : numpy.ndarray
        ``(N,)`` float64: centres, degrees (EPSG:4326).
    meta : tuple of str
        N JSON texts: the meta of each embedding, ``{}`` where there is none.
    """

    embedding: NDArray[np.float32]
    id: NDArray[np.str_]
    ok: NDArray[np.bool_]
    error: tuple[str, ...]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    meta: tuple[str, ...]


def write_vectors(path: Path, rows: Iterable[VectorRow], count: int) -> None:
    """Write many vectors into one ``.npz`` with the columns of `Vectors`, in the order given.

    Arrays are members that ``numpy.load`` returns as such; ``meta.jsonl`` and ``error.jsonl`` are
    texts in UTF-8, a line of JSON for each place, which it returns as bytes. Beside the texts,
    memory holds the vectors once.

    Parameters
    ----------
    path : Path
        File to write; it appears whole or not at all.
    rows : iterable of VectorRow
        Read once.
    count : int
        Number of rows.

    Raises
    ------
    ExportError
        If the file cannot be written, vectors differ in length, or there are not ``count`` rows.
    """
    arrays, texts = _collected(rows, count)
    with written(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, values in arrays.items():
            # Vectors barely shrink, and stored they are written and read at the disk's speed.
            stored = name == "embedding"
            with archive.open(_member(f"{name}.npy", stored=stored), "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(
                    file, np.lib.format.header_data_from_array_1_0(values)
                )
                # In parts: numpy's own write_array takes another 16 MiB and more.
                for start in range(0, len(values), _ROWS_AT_ONCE):
                    file.write(values[start : start + _ROWS_AT_ONCE].tobytes())
        for name, lines in texts.items():
            with archive.open(_member(f"{name}.jsonl", stored=False), "w") as file:
                file.writelines(line.encode() + b"\n" for line in lines)


def _member(name: str, *, stored: bool) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    return member


def _collected(
    rows: Iterable[VectorRow], count: int
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Return the arrays of `Vectors`, and lines of JSON."""
    ids: list[str] = []
    errors: list[str] = []
    metas: list[str] = []
    lon, lat = np.empty((2, count))
    ok = np.zeros(count, bool)
    # Its width is known with the first vector.
    vectors = np.empty((count, 0), np.float32)
    for at, row in enumerate(rows):
        if at == count:
            raise ExportError(f"got more rows than the {count} expected")
        ids.append(row.id)
        errors.append(json.dumps(row.error or ""))
        metas.append(json.dumps(dict(row.meta or {})))
        lon[at], lat[at] = row.lon, row.lat
        if row.vector is None:
            continue
        if not ok.any():
            vectors = np.full((count, *row.vector.shape), np.nan, np.float32)
        if row.vector.shape != vectors.shape[1:]:
            raise ExportError(
                f"got a vector of shape {row.vector.shape} for {row.id!r}, expected "
                f"{vectors.shape[1:]} as before; embed all places with the same model"
            )
        vectors[at] = row.vector
        ok[at] = True
    if len(ids) != count:
        raise ExportError(f"got {len(ids)} rows, expected {count}")
    arrays = {"embedding": vectors, "id": np.array(ids, np.str_), "ok": ok, "lon": lon, "lat": lat}
    return arrays, {"error": errors, "meta": metas}


def read_vectors(path: Path) -> Vectors:
    """Return the arrays of an ``.npz`` that `write_vectors` wrote.

    Raises
    ------
    ExportError
        If the file cannot be read, or was not written by `write_vectors`.
    """
    kinds = {"embedding": "f4", "id": "U", "ok": "b1", "lon": "f8", "lat": "f8"}
    content = _npz(path, [*kinds, "error.jsonl", "meta.jsonl"], _MANY)
    try:
        errors, metas = (content.pop(f"{n}.jsonl").decode().splitlines() for n in ("error", "meta"))
        messages = tuple(json.loads(line) for line in errors)
    except (AttributeError, ValueError) as exc:
        raise _unreadable(path, exc, _MANY) from exc
    count = content["ok"].size
    for name, array in content.items():
        kind = array.dtype.kind if name == "id" else array.dtype.str[1:]
        if kind != kinds[name] or array.ndim != 1 + (name == "embedding") or len(array) != count:
            what = TypeError(f"{name} is {array.dtype} of shape {array.shape}")
            raise _unreadable(path, what, _MANY)
    if not len(messages) == len(metas) == count:
        what = TypeError(f"{len(messages)} errors and {len(metas)} metas of {count} places")
        raise _unreadable(path, what, _MANY)
    return Vectors(**content, error=messages, meta=tuple(metas))


def _npz(path: Path, names: Iterable[str], writer: str) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path):  # an .npy under this name is no archive
            pass
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise _unreadable(path, exc, writer) from exc


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


def _unreadable(path: Path, exc: Exception, writer: str = _ONE) -> ExportError:
    reason = "there is no such file" if not path.is_file() else f"{type(exc).__name__}: {exc}"
    return ExportError(f"cannot read {path} ({reason}), expected a file of {writer}")
