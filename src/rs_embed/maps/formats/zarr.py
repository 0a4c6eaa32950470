"""Maps as Zarr 3: sharded, with coordinates, CRS and the conventions for embeddings."""

from __future__ import annotations

import base64
import json
import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.embedding.provenance import (
    chip_layout,
    model_address,
    proj_fields,
    source_addresses,
)
from rs_embed.embedding.stac import json_object
from rs_embed.errors import ExportError, SpecError
from rs_embed.files.formats import META_KEY, UNREADABLE
from rs_embed.files.writing import check_place
from rs_embed.maps.formats.map_format import (
    MapFormat,
    decoded_map,
    meta_text,
    not_a_map,
    stored_encoding,
)
from rs_embed.maps.formats.paths import check_room, placed
from rs_embed.maps.formats.steps import SCALE_KEY, applied, holds_integers

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.geo.grid import Grid
    from rs_embed.maps.formats.content import MapContent
    from rs_embed.maps.formats.encoding import FittedEncoding

PCA_KEY = "rs_embed_pca"
OFFSETS_KEY = "rs_embed_offsets"
# Memory for the stored values of the rows of a shard, unless 64 rows take more.
_SHARD_ROW_BYTES = 128 * 2**20
_SHARD_BYTES = 64 * 2**20
_ZSTD_LEVEL = 3
# CF has one scale_factor for a whole variable, not one for each dimension.
_DECODING = {
    SCALE_KEY: "scale",
    "comment": (
        "The values are multiples of the coordinate 'scale', which has one number for each d; -128 "
        "stands for no token. Decoded: embedding * scale."
    ),
}


@dataclass(frozen=True)
class ZarrLayout:
    """Size of the chunks, the smallest unit of reading: dimensions, rows and columns of a map.

    Parameters
    ----------
    dimensions, side : int
        Dimensions, and rows and columns of tokens, of a chunk. In
        ``benchmarks/bench_map_formats.py`` the default reads one dimension of a map in about
        70 ms and a token in 15 ms (500 x 500 tokens of 128); other chunks are faster in one of
        them and take at least twice as long in the other.
    """

    dimensions: int = 16
    side: int = 64

    def chunk(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of a chunk of an array of ``(d, y, x)``."""
        depth, height, width = shape
        return min(self.dimensions, depth), min(self.side, height), min(self.side, width)

    def shard(self, shape: tuple[int, int, int], itemsize: int) -> tuple[int, int, int]:
        """Return the shape of a shard, a file: all dimensions of a square or a low rectangle."""
        depth, height, width = shape
        chunk = self.chunk(shape)
        deep = -(-depth // chunk[0]) * chunk[0]
        row_bytes = deep * width * itemsize
        high = _multiple(chunk[1], min(height, _SHARD_ROW_BYTES // row_bytes))
        wide = _multiple(chunk[2], min(width, max(high, _SHARD_BYTES // (deep * high * itemsize))))
        return deep, high, wide


def _multiple(step: int, wanted: int) -> int:
    """Return the multiple of ``step`` that is nearest below ``wanted``, or ``step``; at most 8."""
    return step * min(8, max(1, wanted // step))


def write_zarr(
    path: Path, content: MapContent, encoding: FittedEncoding, layout: ZarrLayout | None = None
) -> None:
    """Write a map as a Zarr 3 group with the array ``embedding`` of ``(d, y, x)``.

    ``x`` and ``y`` are token centres, ``spatial_ref`` is the CRS as CF has it, and ``scale`` the
    value of a step of each dimension in int8, which ``rs_embed_scale`` and ``comment`` of
    ``embedding`` point to. The attributes of the group follow the Zarr conventions
    ``spatial:``, ``proj:`` and ``geoemb:``; ``rs_embed_meta`` is the meta as JSON, and
    ``rs_embed_pca`` and ``rs_embed_offsets`` JSON as in the GeoTIFF. Chunks without a token are not
    stored.

    Memory holds the stored values of the rows of a shard in all columns: 128 MiB, or 64 rows if
    the map is so wide that these take more (``64 * columns * dimensions * itemsize`` bytes).
    Tokens are read in strips of 32 MiB, however high the map is. The folder appears whole or not
    at all. The default ``layout`` follows from the benchmark of the formats.

    Raises
    ------
    MissingDependencyError
        If zarr is not installed.
    ExportError
        If the disk is full or the place cannot be written.
    """
    zarr = require("zarr", extra="maps", purpose=ZARR.name)
    layout = layout or ZarrLayout()
    shape = (encoding.dimensions, *content.grid.shape)
    check_room(path, int(np.prod(shape)) * encoding.dtype.itemsize)
    with placed(path, ZARR) as partial:
        group = zarr.create_group(partial, zarr_format=3, attributes=_group(content, encoding))
        _write_coordinates(group, content.grid, encoding)
        array = group.create_array(
            "embedding",
            shape=shape,
            chunks=layout.chunk(shape),
            shards=layout.shard(shape, encoding.dtype.itemsize),
            dtype=encoding.dtype,
            fill_value=encoding.nodata,
            compressors=zarr.codecs.ZstdCodec(level=_ZSTD_LEVEL),
            dimension_names=("d", "y", "x"),
            attributes=_array(encoding),
            config={"write_empty_chunks": False},
        )
        _, high, wide = array.shards
        for rows, values in _rows(content, encoding, high):
            for column in range(0, shape[2], wide):
                # One shard at a time: zarr would encode all of them at once.
                columns = slice(column, column + wide)
                array[:, rows, columns] = values[:, :, columns]
        with warnings.catch_warnings():
            # xarray warns where it is missing, zarr where it is written in version 3.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(group.store)


def _rows(
    content: MapContent, encoding: FittedEncoding, high: int
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield ``high`` rows at a time and their stored values, ``(k, high, columns)``.

    The last rows may be fewer. All yields share one array.
    """
    height, width = content.grid.shape
    held = np.empty((encoding.dimensions, min(high, height), width), encoding.dtype)
    start = count = 0
    for strip in content.strips(content.rows_at_once):
        rest = encoding.encode(strip).transpose(2, 0, 1)
        while rest.shape[1]:
            rows, rest = np.split(rest, [held.shape[1] - count], axis=1)
            held[:, count : count + rows.shape[1]] = rows
            count += rows.shape[1]
            if count == held.shape[1] or start + count == height:
                yield slice(start, start + count), held[:, :count]
                start, count = start + count, 0


def _write_coordinates(group: Any, grid: Grid, encoding: FittedEncoding) -> None:
    kind = "dimension" if encoding.pca is None else "component"
    axes = {
        "d": (np.arange(encoding.dimensions, dtype=np.int64), {"long_name": kind}),
        "y": (grid.y, _axis(grid, 1)),
        "x": (grid.x, _axis(grid, 0)),
    }
    for name, (values, attributes) in axes.items():
        _write_whole(group, name, values, (name,), attributes)
    # The value does not matter, the attributes do.
    _write_whole(group, "spatial_ref", np.array(0, np.int64), (), _spatial_ref(grid))
    if encoding.scales is not None:
        text = "value of one step of this dimension"
        _write_whole(group, "scale", encoding.scales, ("d",), {"long_name": text})


def _write_whole(
    group: Any,
    name: str,
    values: NDArray[Any],
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    """Write a small array in one chunk."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        dimension_names=dimensions,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def _array(encoding: FittedEncoding) -> dict[str, Any]:
    """Return attributes of the array; xarray has NaN as base64 of its eight bytes."""
    nan = base64.b64encode(struct.pack("<d", float("nan"))).decode("ascii")
    what = "patch tokens" if encoding.pca is None else "principal components of tokens"
    return {
        "long_name": what if encoding.scales is None else f"{what}, in steps of scale",
        **({} if encoding.scales is None else _DECODING),
        "grid_mapping": "spatial_ref",
        "coordinates": "spatial_ref" if encoding.scales is None else "scale spatial_ref",
        "_FillValue": nan if encoding.scales is None else int(encoding.nodata),
    }


def _axis(grid: Grid, axis: int) -> dict[str, Any]:
    name = "xy"[axis]
    attributes = {"axis": name.upper(), "long_name": f"{name} of token centres"}
    if grid.crs is None:
        return attributes | {"units": "px of the input"}
    for known in grid.crs.cs_to_cf():
        if known.get("axis") == name.upper():
            return attributes | {k: known[k] for k in ("standard_name", "units") if k in known}
    return attributes


def _spatial_ref(grid: Grid) -> dict[str, Any]:
    transform = " ".join(repr(float(value)) for value in grid.transform.to_gdal())
    if grid.crs is None:
        return {"GeoTransform": transform}
    wkt = grid.crs.to_wkt()
    return {**grid.crs.to_cf(), "crs_wkt": wkt, "spatial_ref": wkt, "GeoTransform": transform}


def _group(content: MapContent, encoding: FittedEncoding) -> dict[str, Any]:
    """Return attributes of the group, with the members that the conventions require."""
    grid, meta = content.grid, content.meta
    attributes: dict[str, Any] = {
        "zarr_conventions": [dict(entry) for entry in _CONVENTIONS],
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:transform": [float(value) for value in tuple(grid.transform)[:6]],
        "spatial:shape": list(grid.shape),
        "spatial:bbox": [float(value) for value in grid.bounds],
        "spatial:registration": "pixel",
        **proj_fields(grid),
        "geoemb:type": "chip",
        "geoemb:dimensions": encoding.dimensions,
        "geoemb:model": model_address(meta),
        "geoemb:source_data": source_addresses(meta),
        "geoemb:data_type": encoding.dtype.name,
        "geoemb:chip_layout": chip_layout(meta),
    }
    if isinstance(meta.get("gsd_m"), int | float):
        attributes["geoemb:gsd"] = meta["gsd_m"]
    if encoding.dtype != np.float32:
        method = "linear_per_dimension" if encoding.scales is not None else "cast"
        attributes["geoemb:quantization"] = {
            "method": method,
            "original_dtype": "float32",
            "quantized_dtype": encoding.dtype.name,
        } | ({"scale": {"type": "array", "array_name": "scale"}} if encoding.scales is not None
             else {})  # fmt: skip
    if isinstance(meta.get("rs_embed_version"), str):
        attributes["geoemb:build_version"] = meta["rs_embed_version"]
    attributes[META_KEY] = meta_text(content, encoding)
    if encoding.pca is not None:
        attributes[PCA_KEY] = json.dumps(encoding.pca.to_json())
    if content.offsets is not None:
        attributes[OFFSETS_KEY] = json.dumps(content.offsets.to_json())
    return attributes


def _convention(repository: str, name: str, uuid: str, description: str) -> dict[str, str]:
    return {
        "schema_url": f"https://raw.githubusercontent.com/{repository}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/{repository}/blob/v1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }


_CONVENTIONS = (
    _convention(
        "zarr-conventions/spatial",
        "spatial:",
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "Spatial coordinate information",
    ),
    _convention(
        "zarr-experimental/geo-proj",
        "proj:",
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "Coordinate reference system information for geospatial data",
    ),
    _convention(
        "geo-embeddings/embeddings-zarr-convention",
        "geoemb:",
        "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        "Geoembeddings convention for geospatial embedding arrays with model provenance",
    ),
)


def open_zarr(path: Path | str) -> xr.DataArray:
    """Return a map as `open_map` does; `ExportError` for other files."""
    require("zarr", extra="maps", purpose=ZARR.name)
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr

    try:
        # Not the consolidated metadata: a store may lack it, or have changed after it was written.
        store = xr.open_zarr(path, chunks=None, consolidated=False, decode_coords="all")
    except (OSError, *UNREADABLE) as exc:
        raise not_a_map(path, f"it is not a Zarr store that xarray opens ({exc})") from exc
    named = [n for n, of in store.data_vars.items() if {"d", "y", "x"} <= set(of.dims)]
    array = store.get("embedding" if "embedding" in store or len(named) != 1 else named[0])
    if array is None:
        reason = "it is a Zarr store without 'embedding', so not a map of rs_embed"
        raise not_a_map(path, reason, "xarray.open_zarr")
    # xarray keeps the attributes of a map that open_map returned, whose values are tokens.
    meta, pca = store.attrs.get(META_KEY), store.attrs.get(PCA_KEY, array.attrs.get("pca"))
    if meta is None and not stored_encoding(meta := array.attrs.get("meta", "")):
        reason = f"it is a Zarr store without {META_KEY}, so not a map of rs_embed"
        raise not_a_map(path, reason, "xarray.open_zarr")
    # A few dimensions of a whole shard: one dimension of a map, or one token, is read fast.
    inner, outer = array.encoding["chunks"], array.encoding.get("shards")
    chunks = {
        d: n if d == "d" else m for d, n, m in zip(array.dims, inner, outer or inner, strict=True)
    }
    tokens = applied(array, store.get("scale"), **chunks)
    if holds_integers(tokens):
        raise SpecError(
            f"got {array.encoding['dtype']} values without a scale, expected tokens: other "
            "software rounded them; save them as float32"
        )
    fill = array.encoding.get("fill_value", 0)  # which xarray takes for nodata in Zarr 2 only
    if array.encoding["dtype"].kind == "f" and np.isfinite(fill) and fill:
        tokens = tokens.where(tokens != fill)
    offsets = store.attrs.get(OFFSETS_KEY, array.attrs.get("offsets"))
    return decoded_map(tokens.drop_vars("scale", errors="ignore"), meta, pca, offsets)


def _scales(path: Path | str) -> NDArray[Any]:
    zarr = require("zarr", extra="maps", purpose=ZARR.name)
    return np.asarray(zarr.open_group(path, mode="r")["scale"][...])


def _check_store(path: Path) -> None:
    if not os.path.isfile(path / "zarr.json"):  # False for names that no file can have
        check_place(path)
    elif META_KEY not in json_object(path / "zarr.json", "attributes"):
        raise ExportError(
            f"cannot write {path}: it is another Zarr store, not a map; choose another name"
        )
    if path.is_file():
        raise ExportError(f"cannot write {path}: it is a file; choose another name")


ZARR = MapFormat(
    name="a map in Zarr",
    suffixes=(".zarr",),
    media_type="application/vnd.zarr; version=3",
    packages=("zarr",),
    extra="maps",
    write=write_zarr,
    open=open_zarr,
    open_url=open_zarr,
    check_replaced=_check_store,
    scales=_scales,
)
