"""Stored maps as arrays of tokens, the same for every format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ExportError
from rs_embed.maps.formats.encoding import INT8_NODATA

if TYPE_CHECKING:
    import xarray as xr


def decoded_map(array: xr.DataArray, scales: Any, meta: str, pca: str | None) -> xr.DataArray:
    """Return what `open_map` returns for a stored map; nothing is read.

    Parameters
    ----------
    array : xarray.DataArray
        ``(d, y, x)`` as stored, read by dask, with CRS and transform.
    scales : array-like or None
        ``(d,)`` float32: value of one step of each dimension in int8; None for other types.
    meta : str
        Meta of the map as JSON text.
    pca : str or None
        The principal components as JSON text; None if it holds tokens.
    """
    import xarray as xr

    transform = array.rio.transform()
    values = array.astype(np.float32)
    if scales is not None:
        values = (values * xr.DataArray(scales, dims="d")).where(array != INT8_NODATA)
    what = "patch tokens" if pca is None else "principal components of patch tokens"
    values.attrs = {"long_name": what, "meta": meta} | ({} if pca is None else {"pca": pca})
    values.encoding = {"grid_mapping": "spatial_ref"}
    placed: xr.DataArray = values.rio.write_transform(transform).rio.write_nodata(float("nan"))
    return placed.rename("embedding")


def not_a_map(path: Path, reason: str, opener: str | None = None) -> ExportError:
    """Return the error for a file that is not a map; ``opener`` reads it nevertheless."""
    other = "" if opener is None else f"; other files open with {opener}"
    return ExportError(
        f"cannot read {path}: {reason}, expected one that embed_area or rs-embed map wrote{other}"
    )
