"""Open maps without reading their tokens yet."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.addresses import check_all_regular, check_beside, path_of
from rs_embed.errors import ExportError, GridError, SpecError
from rs_embed.files.formats import UNREADABLE, Formats
from rs_embed.maps.formats.encoding import PrincipalComponents
from rs_embed.maps.formats.map_format import MapFormat
from rs_embed.maps.formats.offsets import WindowOffsets
from rs_embed.maps.formats.table import MAPS
from rs_embed.network.stores import Store, is_store

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


def open_map(path: str | os.PathLike[str], *, formats: Formats[MapFormat] = MAPS) -> xr.DataArray:
    """Return a map that `embed_area` wrote; its tokens are read when they are used.

    The map may have been cropped, converted or resampled by other software: nodata, scales,
    offsets, transform and the names of the bands are those of the file.

    Parameters
    ----------
    path : path or URL
        A ``.zarr`` folder, a ``.tif`` file, or a ``.vrt`` of one. From an object store a ``.zarr``
        is read part by part, and a ``.tif`` is downloaded to a temporary folder.
    formats : Formats
        Formats to choose from by the suffix.

    Returns
    -------
    xarray.DataArray
        ``(d, y, x)`` float32, row 0 north, NaN where there is no token, with x and y at token
        centres, and CRS and transform of the tokens (``.rio.crs``, ``.rio.transform()``); ``d``
        counts the dimensions of a token from 0; dask reads it in chunks. ``attrs["meta"]`` is the
        meta as JSON text. A map that was stored with ``pca=`` holds principal components;
        `restored` turns them back into tokens.

    Raises
    ------
    UnknownNameError
        If no format of a map has the suffix.
    ExportError
        If there is no such file, it is not a map of rs_embed, or other software has removed
        something that its tokens cannot be read without.
    MissingDependencyError
        If dask or, for a ``.zarr``, zarr is not installed.
    """
    place = Path(path) if is_store(path) else path_of(path)
    chosen = next((of for of in formats.rows if place.suffix.lower() in of.opens), None)
    chosen = chosen or formats.of(place)
    require("dask", extra="maps", purpose="opening a map")
    if is_store(path):
        store = Store.of(os.fspath(path))
        with store.errors("read"):
            if store.kind() is None:
                raise ExportError(f"cannot read {path}: there is no such file")
            if chosen.open_url is not None:
                return chosen.open_url(store.url)
            folder = Path(tempfile.mkdtemp(prefix="rs_embed-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            place = folder / place.name
            store.files.get_file(store.root, str(place))
    if not place.exists():
        raise ExportError(f"cannot read {place}: there is no such file")
    try:
        check_all_regular(place)
        check_beside(place)
        return chosen.open(place)
    except ExportError:
        raise
    except (SpecError, GridError, OSError) as exc:
        raise ExportError(f"cannot read {place}: {exc}") from exc


def restored(opened: xr.DataArray, *, raw: bool = False) -> xr.DataArray:
    """Return the tokens of an opened map that holds principal components, or is harmonised.

    Parameters
    ----------
    opened : xarray.DataArray
        ``(d, y, x)`` as `open_map` returns it, or a part of it with all components.
    raw : bool
        Whether what harmonising has added to the tokens is taken away again.

    Returns
    -------
    xarray.DataArray
        ``(d, y, x)`` float32 with all dimensions of a token, nearest to the original tokens; read
        when they are used.

    Raises
    ------
    SpecError
        If the map was stored without a PCA, or some of its components were left out; with ``raw``
        if it is not harmonised.
    """
    if not raw:
        return _whole(opened)
    if "offsets" not in opened.attrs:
        raise SpecError(
            "got a map that is not harmonised, expected one made with seams='harmonise'; its "
            "tokens are as the windows gave them"
        )
    return _without_offsets(_whole(opened) if "pca" in opened.attrs else opened)


def _without_offsets(opened: xr.DataArray) -> xr.DataArray:
    import xarray as xr

    try:
        offsets = WindowOffsets.from_json(json.loads(opened.attrs["offsets"]))
        grid = json.loads(opened.attrs["meta"])["grid"]["transform"]
    except UNREADABLE as exc:
        raise SpecError(
            f"got a map whose offsets cannot be read ({type(exc).__name__}: {exc}); copy "
            "rs_embed_offsets (in a GeoTIFF the tag RS_EMBED_OFFSETS) from the original map"
        ) from exc
    columns, rows = (
        xr.DataArray(
            np.floor((opened[name].values - grid[at]) / grid[step]).astype(np.int64), dims=name
        )
        for name, step, at in (("x", 0, 2), ("y", 4, 5))
    )

    def plain(tokens: NDArray[np.float32], d: Any, y: Any, x: Any) -> NDArray[np.float32]:
        added = offsets.added(np.ravel(y), np.ravel(x))[..., np.ravel(d)]  # y x d
        found: NDArray[np.float32] = tokens - added.transpose(2, 0, 1)
        return found

    found: xr.DataArray = xr.apply_ufunc(
        plain,
        opened.transpose("d", "y", "x"),
        xr.DataArray(opened["d"].values.astype(np.int64), dims="d"),
        rows,
        columns,
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    del found.attrs["offsets"]
    return found


def _whole(opened: xr.DataArray) -> xr.DataArray:
    """Return whole tokens from principal components."""
    import xarray as xr

    if "pca" not in opened.attrs:
        raise SpecError(
            "got a map without a PCA, expected one made with pca=... (embed_area, or rs-embed map "
            "--pca); it holds whole tokens already, so use it as it is"
        )
    try:
        pca = PrincipalComponents.from_json(json.loads(opened.attrs["pca"]))
    except UNREADABLE as exc:
        raise SpecError(
            f"got a map whose basis cannot be read ({type(exc).__name__}: {exc}); copy "
            "rs_embed_pca (in a GeoTIFF the tag RS_EMBED_PCA) from the original map"
        ) from exc
    count, depth = pca.components.shape
    numbers = opened["d"].values
    if sorted(numbers) != list(range(count)):
        raise SpecError(f"got {len(numbers)} components, expected all {count} of the map, once")
    tokens: xr.DataArray = xr.apply_ufunc(
        pca.restored,
        opened.isel(d=np.argsort(numbers)).chunk({"d": -1}),
        input_core_dims=[["d"]],
        output_core_dims=[["whole"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"whole": depth}},
        keep_attrs=True,
    )
    tokens = tokens.rename(whole="d").assign_coords(d=np.arange(depth)).transpose("d", "y", "x")
    del tokens.attrs["pca"]
    return tokens
