"""What tells one request from another: everything that determines its numbers, as JSON values."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._version import __version__
from rs_embed.embedding.source import resolved_provider
from rs_embed.errors import SpecError
from rs_embed.files.gdal import read_with
from rs_embed.geo.raster import Raster
from rs_embed.settings import (
    CACHE_DIR,
    CACHE_GB,
    LOCAL,
    SCALEMAE_BATCH_SIZE,
    SCALEMAE_FETCH_WORKERS,
    stated_variables,
)
from rs_embed.specs import to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.providers.base import Provider

# They change how fast results come, or are part of what the provider says of itself.
_NOT_NUMBERS = {
    variable.name
    for variable in (SCALEMAE_FETCH_WORKERS, SCALEMAE_BATCH_SIZE, LOCAL, CACHE_DIR, CACHE_GB)
}
_WHICH_WEIGHTS = ("weights_sha256", "weights_revision")


def which_weights(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return which weights made an embedding: a name can get other content."""
    return {name: meta.get(name) for name in _WHICH_WEIGHTS}


def request_json(model: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that determines the vectors but the places, as JSON values.

    Parameters
    ----------
    model : str
        Id or alias.
    arguments : mapping
        Of ``iter_embeddings``, and others of JSON values; None is not stated.

    Raises
    ------
    SpecError
        If ``imagery`` is computed when it is read, so that nothing tells it from another.
    """
    stated = {name: value for name, value in arguments.items() if value is not None}
    stated.pop("device", None)  # the numbers are the same within the tolerance
    stated.pop("cache", None)  # the pixels are the same
    backend = stated.pop("backend", "auto")
    variables = stated_variables()
    pixels = (
        {"imagery": _imagery(stated.pop("imagery"))}
        if "imagery" in stated
        else {"backend": _provider(resolved_provider(backend))}
    )
    return {
        "version": __version__,
        "model": model,
        "environment": {k: v for k, v in variables.items() if k not in _NOT_NUMBERS},
        **{name: _as_json(value) for name, value in stated.items()},
        **pixels,
    }


def _provider(provider: Provider) -> dict[str, str]:
    return {"name": provider.name, "identity": provider.identity()}


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _imagery(imagery: Any) -> dict[str, Any]:
    """Return what tells imagery from other imagery, or from itself as it was before."""
    if isinstance(imagery, Raster):
        pixels = (imagery.data, imagery.valid)
        return {"grid": imagery.grid.to_json(), "sha256": _digest(imagery.bands, *pixels)}
    if isinstance(imagery, str | os.PathLike):
        return _file(os.fspath(imagery))
    values = getattr(getattr(imagery, "variable", None), "_data", None)
    if not isinstance(values, np.ndarray):
        raise SpecError(
            f"got imagery={type(imagery).__name__}, expected a path, a Raster, or a DataArray "
            "with its values in memory (.load()): a run that goes on must know that its "
            "pixels are the same"
        )
    places = (np.asarray(imagery[dim]) for dim in imagery.dims if dim in imagery.coords)
    about = (imagery.dims, str(imagery.attrs), str(imagery.rio.crs))
    return {"sha256": _digest(about, values, *places)}


def _digest(about: object, *arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256(repr(about).encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _file(name: str) -> dict[str, Any]:
    """Return what tells a file, and what is read with it, from others of the name."""
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # a URL, or a mistake that reading it will name
        return {"name": name}
    stated: dict[str, Any] = {
        "name": os.path.abspath(name), "bytes": status.st_size, "modified": status.st_mtime,
    }  # fmt: skip
    described, parts = read_with(name)
    digest = hashlib.sha256(described.encode())
    beside = sorted({os.path.abspath(part) for part in parts} - {stated["name"]})
    for part in beside:
        digest.update(part.encode())
        try:
            status = os.stat(part)
        except OSError:  # within an archive, or on a server
            continue
        digest.update(f"{status.st_size} {status.st_mtime}".encode())
    return {**stated, "read_with_it": f"{len(beside)} files, SHA-256 {digest.hexdigest()[:32]}"}
