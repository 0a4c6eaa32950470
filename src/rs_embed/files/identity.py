"""What identifies imagery: its values and all that is read with them."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.addresses import local_path, shown_path
from rs_embed.errors import SpecError
from rs_embed.files.gdal import read_with
from rs_embed.files.imagery import SeveralFiles
from rs_embed.geo.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What xarray keeps beside the attributes when it decodes values.
_ENCODED = ("_FillValue", "missing_value", "scale_factor", "add_offset")


def imagery_identity(imagery: Any) -> dict[str, Any]:
    """Return what identifies imagery, also against an earlier state of itself.

    Raises
    ------
    SpecError
        If its values are computed when they are read.
    """
    if isinstance(imagery, Raster):
        digest = _digest((imagery.bands, imagery.reflectance), imagery.data, imagery.valid)
        return {"grid": imagery.grid.to_json(), "sha256": digest}
    if isinstance(imagery, str | os.PathLike):
        return _file(os.fspath(imagery))
    if isinstance(imagery, SeveralFiles):
        return {"files": [_file(path) for path in imagery.paths]}
    if hasattr(imagery, "data_vars"):
        parts = {str(name): imagery_identity(part) for name, part in imagery.data_vars.items()}
        return {"variables": parts}
    values = getattr(getattr(imagery, "variable", None), "_data", None)
    if not isinstance(values, np.ndarray):
        raise SpecError(
            f"got imagery={type(imagery).__name__}, expected a path, a Raster, or a DataArray "
            "with its values in memory (.load()): a resumed run must know that its pixels are "
            "the same"
        )
    places = (np.asarray(imagery[dim]) for dim in imagery.dims if dim in imagery.coords)
    encoded = {name: imagery.encoding.get(name) for name in _ENCODED}
    about = (imagery.dims, str(imagery.attrs), str(encoded), str(imagery.rio.crs))
    return {"sha256": _digest(about, values, *places)}


def _digest(about: object, *arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256(repr(about).encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _file(name: str) -> dict[str, Any]:
    """Return what identifies the content of a file, and of the files that are read with it."""
    path = local_path(name)
    stated: dict[str, Any] = {"name": shown_path(name)}  # without the credentials of a URL
    status = _status(path)
    if status is not None:
        own = os.path.abspath(path)
        stated = {"name": own, "bytes": status.st_size, "modified": status.st_mtime}
    elif "://" in path:
        return stated
    described, parts = read_with(path)
    if not parts:  # a mistake that reading it will name
        return stated
    digest = hashlib.sha256(described.encode())
    beside = sorted({os.path.abspath(_container(part)) for part in parts} - {stated["name"]})
    for part in beside:
        digest.update(part.encode())
        status = _status(part)
        if status is not None:  # else on a server
            digest.update(f"{status.st_size} {status.st_mtime}".encode())
    return {**stated, "read_with_it": f"{len(beside)} files, SHA-256 {digest.hexdigest()[:32]}"}


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _container(path: str) -> str:
    """Return the archive that a path of GDAL's file systems leads into, other paths as they are."""
    within = re.fullmatch(r"/vsi(?:zip|tar|gzip|7z|rar)/(.+)", path)
    archive = within[1] if within else path
    while within and archive and _status(archive) is None:
        archive = os.path.dirname(archive)
    return archive or path
