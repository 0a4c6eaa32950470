"""Write vectors to ``.npz`` files, and read them back."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.addresses import check_regular, path_of
from rs_embed.errors import ExportError
from rs_embed.files.formats import (
    META_KEY,
    UNREADABLE,
    EmbeddingFormat,
    Format,
    Formats,
    unreadable,
)
from rs_embed.files.writing import written

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

_ONE, _MANY = "one vector (Embedding.save)", "many vectors (rs-embed batch)"
_ROWS_AT_ONCE = 1024
_REQUEST = "request.json"
# Arrays are stored as they are, and texts shrink.
_UNPACKED_BYTES, _UNPACKED_TIMES = 2**28, 20


def write_vector(path: Path, vector: NDArray[np.float32], meta: Mapping[str, Any]) -> None:
    """Write ``(D,)`` float32 as ``embedding`` and the meta as JSON text into an ``.npz``."""
    with written(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, embedding=vector, rs_embed_meta=np.array(json.dumps(meta)))


def read_vector(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return the vector and meta of a file of `write_vector`; `ExportError` for other files."""
    content = _npz(path, ["embedding", META_KEY], _ONE)
    vector = content["embedding"]
    try:
        meta = json.loads(str(content[META_KEY]))
    except (ValueError, RecursionError) as exc:
        raise unreadable(path, exc, _ONE) from exc
    if vector.ndim != 1 or vector.dtype != np.float32 or not isinstance(meta, dict):
        raise unreadable(path, TypeError(f"{vector.dtype} of shape {vector.shape}"), _ONE)
    return vector, meta


@dataclass(frozen=True, eq=False)
class VectorRow:
    """One row for `write_vectors`.

    Attributes
    ----------
    id : str
        Name of the place.
    lon, lat : float
        Its centre, degrees (EPSG:4326).
    vector : numpy.ndarray or None
        ``(D,)`` float32; None if the place failed.
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


@dataclass(frozen=True, eq=False, repr=False)
class Vectors:
    """The vectors of N places, in the columns of a table.

    Attributes
    ----------
    embedding : numpy.ndarray
        ``(N, D)`` float32, NaN where the place failed.
    id : numpy.ndarray
        ``(N,)`` text: names of the places.
    ok : numpy.ndarray
        ``(N,)`` bool: whether there is a vector.
    error : tuple of str
        N texts: why there is no vector; empty where there is one.
    lon, lat : numpy.ndarray
        ``(N,)`` float64: centres, degrees (EPSG:4326).
    meta : tuple of str
        N JSON texts: the meta of each vector, ``{}`` where there is none.
    """

    embedding: NDArray[np.float32]
    id: NDArray[np.str_]
    ok: NDArray[np.bool_]
    error: tuple[str, ...]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    meta: tuple[str, ...]

    def __repr__(self) -> str:
        count, width = self.embedding.shape
        return f"Vectors: {count} places, {width} dimensions, {int((~self.ok).sum())} failed"


def write_vectors(
    path: Path,
    rows: Iterable[VectorRow],
    count: int,
    request: Mapping[str, Any] | None = None,
) -> None:
    """Write many vectors into one ``.npz`` with the columns of `Vectors`, in the order given.

    ``numpy.load`` returns the arrays as arrays, and ``meta.jsonl`` and ``error.jsonl`` as bytes:
    text in UTF-8, a line of JSON for each place; ``request.json`` is what determined them, if it
    is given. Memory holds the vectors once, and the texts. The file appears whole or not at all.

    Raises
    ------
    ExportError
        If the file cannot be written, vectors differ in length, or there are not ``count`` rows.
    """
    arrays, texts = _collected(rows, count)
    with written(path, alone=True) as partial, zipfile.ZipFile(partial, "w") as archive:
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
        if request is not None:
            archive.writestr(_member(_REQUEST, stored=False), json.dumps(request))


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
    # The first vector tells their width.
    vectors = np.empty((count, 0), np.float32)
    for number, row in enumerate(rows):
        if number == count:
            raise ExportError(f"got more rows than the {count} expected")
        ids.append(row.id)
        errors.append(json.dumps(row.error or ""))
        metas.append(json.dumps(dict(row.meta or {})))
        lon[number], lat[number] = row.lon, row.lat
        if row.vector is None:
            continue
        if not ok.any():
            vectors = np.full((count, *row.vector.shape), np.nan, np.float32)
        if row.vector.shape != vectors.shape[1:]:
            raise ExportError(
                f"got a vector of shape {row.vector.shape} for {row.id!r}, expected "
                f"{vectors.shape[1:]} as before; embed all places with the same model"
            )
        vectors[number] = row.vector
        ok[number] = True
    if len(ids) != count:
        raise ExportError(f"got {len(ids)} rows, expected {count}")
    arrays = {"embedding": vectors, "id": np.array(ids, np.str_), "ok": ok, "lon": lon, "lat": lat}
    return arrays, {"error": errors, "meta": metas}


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """Return the vectors of a file that ``rs-embed batch`` wrote.

    Parameters
    ----------
    path : path
        An ``.npz``.

    Returns
    -------
    Vectors
        The columns of the file, in the order of the places.

    Raises
    ------
    ExportError
        If the file cannot be read, or does not hold many vectors.
    """
    path = path_of(path)
    kinds = {"embedding": "f4", "id": "U", "ok": "b1", "lon": "f8", "lat": "f8"}
    content = _npz(path, [*kinds, "error.jsonl", "meta.jsonl"], _MANY)
    try:
        errors, metas = (content.pop(f"{n}.jsonl").decode().splitlines() for n in ("error", "meta"))
        messages = tuple(json.loads(line) for line in errors)
    except (AttributeError, ValueError) as exc:
        raise unreadable(path, exc, _MANY) from exc
    count = content["ok"].size
    for name, array in content.items():
        kind = array.dtype.kind if name == "id" else array.dtype.str[1:]
        if kind != kinds[name] or array.ndim != 1 + (name == "embedding") or len(array) != count:
            what = TypeError(f"{name} is {array.dtype} of shape {array.shape}")
            raise unreadable(path, what, _MANY)
    if not len(messages) == len(metas) == count:
        what = TypeError(f"{len(messages)} errors and {len(metas)} metas of {count} places")
        raise unreadable(path, what, _MANY)
    return Vectors(**content, error=messages, meta=tuple(metas))


def request_of(path: Path) -> dict[str, Any] | None:
    """Return the request of a file of `write_vectors` without failures; None for other files."""
    try:
        content = _npz(path, ["ok", _REQUEST], _MANY)
        request = json.loads(content[_REQUEST])
    except (ExportError, ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) and content["ok"].all() else None


def _npz(path: Path, names: Iterable[str], writer: str) -> dict[str, Any]:
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:  # refuses an .npy under this name
            size = sum(member.file_size for member in archive.infolist())
        if size > max(_UNPACKED_BYTES, _UNPACKED_TIMES * path.stat().st_size):
            raise ValueError(f"it unpacks to {size:,} bytes, far more than such a file holds")
        with np.load(path, allow_pickle=False) as content:
            if writer == _MANY and META_KEY in content:
                raise ValueError("it holds one vector, without a place on the ground")
            return {name: content[name] for name in names}
    except (OSError, zipfile.BadZipFile, zlib.error, *UNREADABLE) as exc:
        raise unreadable(path, exc, writer) from exc


_NPZ: dict[str, Any] = {
    "name": "NumPy archive",
    "suffixes": (".npz",),
    "media_type": "application/x-npz",
}
_TABLES: dict[str, Any] = {
    "packages": ("geopandas", "pyarrow.parquet", "shapely"), "extra": "tables",
}  # fmt: skip
ONE_VECTOR = Formats("a vector", EmbeddingFormat(**_NPZ, write=write_vector, read=read_vector))
MANY_VECTORS = Formats(
    "many vectors",
    Format(**_NPZ),
    Format(
        name="GeoParquet",
        suffixes=(".parquet", ".geoparquet"),
        media_type="application/vnd.apache.parquet",
        **_TABLES,
    ),
    Format(name="CSV of embeddings", suffixes=(".csv",), media_type="text/csv", **_TABLES),
)
