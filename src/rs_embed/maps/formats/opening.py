"""Open maps that were written, without reading them yet."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.errors import ExportError, SpecError, UnknownNameError
from rs_embed.maps.formats.cog import PCA_TAG
from rs_embed.maps.formats.encoding import INT8_NODATA, PrincipalComponents
from rs_embed.maps.formats.paths import MAP_SUFFIXES
from rs_embed.maps.formats.provenance import META_KEY, META_TAG
from rs_embed.maps.formats.zarr import PCA_KEY

if TYPE_CHECKING:
    import xarray as xr

# Part of a GeoTIFF that is read at once, (d, y, x): 16 MiB of float32.
_TIFF_PART = (16, 512, 512)


def open_map(path: str | os.PathLike[str]) -> xr.DataArray:
    """Return a map that `embed_area` wrote; its values are read when they are asked for.

    Parameters
    ----------
    path : path
        A ``.zarr`` folder or a ``.tif`` file.

    Returns
    -------
    xarray.DataArray
        ``(d, y, x)`` float32, row 0 north, NaN where there is no token, with x and y at token
        centres, CRS and transform of the tokens (``.rio.crs``, ``.rio.transform()``), in parts
        that dask reads. ``attrs["meta"]`` is the meta as JSON text, which every format can hold.
        Components of a PCA stay components; `restored` leads back to tokens.

    Raises
    ------
    UnknownNameError
        If the suffix is not of a map.
    ExportError
        If there is no such file, or it is no map of rs_embed.
    MissingDependencyError
        If dask or, for a ``.zarr``, zarr is not installed.
    """
    place = Path(path)
    if place.suffix.lower() not in MAP_SUFFIXES:
        raise UnknownNameError.among("file type of a map", place.suffix, MAP_SUFFIXES)
    require("dask", extra="maps", purpose="opening a map")
    if not place.exists():
        raise ExportError(f"cannot read {place}: there is no such file")
    return _open_zarr(place) if place.suffix.lower() == ".zarr" else _open_tiff(place)


def restored(opened: xr.DataArray) -> xr.DataArray:
    """Return the tokens that the components of an opened map stand for.

    Parameters
    ----------
    opened : xarray.DataArray
        ``(d, y, x)`` as `open_map` returns it, or a part of it with all components.

    Returns
    -------
    xarray.DataArray
        ``(d, y, x)`` float32 with all dimensions of a token; read when asked for.

    Raises
    ------
    SpecError
        If it holds no PCA, or not all of its components.
    """
    import xarray as xr

    if "pca" not in opened.attrs:
        raise SpecError(
            "got a map that holds no PCA, expected one made with pca=... (embed_area, or rs-embed "
            "map --pca); its tokens are whole, so take it as it is"
        )
    pca = PrincipalComponents.from_json(json.loads(opened.attrs["pca"]))
    count, depth = pca.components.shape
    if opened.sizes["d"] != count:
        raise SpecError(f"got {opened.sizes['d']} components, expected all {count} of the map")
    tokens: xr.DataArray = xr.apply_ufunc(
        pca.restored,
        opened.chunk({"d": -1}),
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


def _open_zarr(path: Path) -> xr.DataArray:
    zarr = require("zarr", extra="maps", purpose="a map in Zarr")
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr

    try:
        # Stores of others may lack the consolidated metadata that ours have.
        is_map = META_KEY in zarr.open_group(path, mode="r").attrs
        options: Any = {"mask_and_scale": False, "chunks": None, "consolidated": True}
        store = xr.open_zarr(path, **options) if is_map else None
    except (OSError, KeyError, ValueError) as exc:
        raise _no_map(path, "it is no Zarr store that can be opened") from exc
    if store is None or "embedding" not in store:
        raise _no_map(path, "it is a Zarr store, but no map of rs_embed", "xarray.open_zarr")
    meta, array = store.attrs[META_KEY], store["embedding"]
    # A few dimensions of a whole shard: neither a map of one nor a place of all reads much.
    deep, high, wide = array.encoding["chunks"][:1] + array.encoding["shards"][1:]
    scales = array.coords["scale"].values if "scale" in array.coords else None
    array = array.drop_vars("scale", errors="ignore").chunk({"d": deep, "y": high, "x": wide})
    return _map(array, scales, meta, store.attrs.get(PCA_KEY))


def _open_tiff(path: Path) -> xr.DataArray:
    import rasterio
    import rioxarray
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as file:
            tags, scales, count = file.tags(), file.scales, file.count
            scaled = file.dtypes[0] == "int8"
    except (RasterioError, OSError) as exc:
        raise _no_map(path, "it is no image that can be opened") from exc
    if META_TAG not in tags:
        opener = "rioxarray.open_rasterio"
        raise _no_map(path, "it is an image, but no map of rs_embed", opener)
    meta = tags[META_TAG]
    deep, high, wide = _TIFF_PART
    parts = {"band": min(deep, count), "y": high, "x": wide}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Scales differ across bands")
        opened: Any = rioxarray.open_rasterio(path, chunks=parts)
    array = opened.rename(band="d").assign_coords(d=np.arange(count))
    return _map(array, np.array(scales, np.float32) if scaled else None, meta, tags.get(PCA_TAG))


def _map(array: xr.DataArray, scales: Any, meta: str, pca: str | None) -> xr.DataArray:
    """Return ``array`` decoded as `FittedEncoding.decode` does it, with its attributes."""
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


def _no_map(path: Path, reason: str, opener: str | None = None) -> ExportError:
    """Return the error for what `write_map` did not write; ``opener`` reads it nevertheless."""
    other = "" if opener is None else f"; other files open with {opener}"
    return ExportError(
        f"cannot read {path}: {reason}, expected one that embed_area or rs-embed map wrote{other}"
    )
