"""Maps as cloud-optimised GeoTIFF: a band for each dimension, with overviews."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed.errors import ExportError, ImageryError
from rs_embed.files.gdal import open_file, quietly
from rs_embed.files.token_bands import band_names, open_bands
from rs_embed.files.writing import check_place
from rs_embed.maps.formats.map_format import (
    META_TAG,
    MapFormat,
    decoded_map,
    meta_text,
    not_a_map,
    stored_encoding,
)
from rs_embed.maps.formats.paths import check_room, placed
from rs_embed.maps.formats.steps import check_steps

if TYPE_CHECKING:
    import xarray as xr

    from rs_embed.maps.formats.content import MapContent
    from rs_embed.maps.formats.encoding import FittedEncoding

PCA_TAG = "RS_EMBED_PCA"
OFFSETS_TAG = "RS_EMBED_OFFSETS"
# Memory for the tokens that are encoded at once.
_STRIP_BYTES = 64 * 2**20
# By default GDAL uses a twentieth of the memory of the machine.
_CACHE_BYTES = 256 * 2**20
_ZSTD_LEVEL = 3
# Chunk of a map that is opened: 16 MiB of float32.
_CHUNK = {"d": 16, "y": 512, "x": 512}


@dataclass(frozen=True)
class CogLayout:
    """Order and size of the blocks of a file.

    Parameters
    ----------
    block_px : int
        Side of a block.
    interleave : {"band", "pixel"}
        Whether a block holds one dimension or all of them. In
        ``benchmarks/bench_map_formats.py`` reading one dimension takes a hundredth of the bytes
        with ``"band"``, and reading a token as many as with ``"pixel"``; files with blocks of 128
        are 5 % larger than with 256, and reading a token takes a quarter of the bytes.
    """

    block_px: int = 128
    interleave: Literal["band", "pixel"] = "band"


def write_cog(
    path: Path, content: MapContent, encoding: FittedEncoding, layout: CogLayout | None = None
) -> None:
    """Write a map as a cloud-optimised GeoTIFF, whole or not at all.

    Every block is read back. Blocks are compressed with ZSTD and a predictor. Nodata is NaN, or
    -128 in int8, whose scales are the scales of the bands. float16 is stored as such
    (``NBITS=16``) and read by GDAL as float32. The tag ``RS_EMBED_META`` holds the meta as JSON.
    With a PCA the tag ``RS_EMBED_PCA`` holds JSON of ``components`` and ``mean``: base64 of
    little-endian float32, row by row, and their ``shape``. ``RS_EMBED_OFFSETS`` has those of a
    harmonised map. The default ``layout`` follows from the
    benchmark of the formats.

    Raises
    ------
    ExportError
        If the disk is full or the file does not read back.
    """
    import rasterio
    from rasterio import shutil
    from rasterio._err import CPLE_BaseError
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError

    layout = layout or CogLayout()
    options = _creation_options(encoding, layout)
    height, width = content.grid.shape
    plain = height * width * encoding.dimensions * encoding.dtype.itemsize
    check_room(path, int(plain * COG.room))
    with placed(path, COG) as partial:
        unordered = path.with_name(f".{path.name}.unordered")
        try:
            with rasterio.Env(
                GDAL_TIFF_OVR_BLOCKSIZE=str(layout.block_px), GDAL_CACHEMAX=_CACHE_BYTES
            ):
                _write_unordered(unordered, content, encoding)
                # Powers of 2 until the map fits a block.
                levels = math.ceil(math.log2(max(content.grid.shape) / layout.block_px))
                if levels > 0:
                    factors = [2**level for level in range(1, levels + 1)]
                    with rasterio.open(unordered, "r+") as file:
                        file.build_overviews(factors, Resampling.average)
                shutil.copy(unordered, partial, driver="GTiff", COPY_SRC_OVERVIEWS="YES", **options)
                _check_blocks(partial)
        except (RasterioError, CPLE_BaseError) as exc:  # the latter from build_overviews
            raise ExportError(f"cannot write {path}: {exc}; is the disk full?") from exc
        finally:
            unordered.unlink(missing_ok=True)


def _creation_options(encoding: FittedEncoding, layout: CogLayout) -> dict[str, Any]:
    options = {
        "tiled": "YES",
        "blockxsize": str(layout.block_px),
        "blockysize": str(layout.block_px),
        "interleave": layout.interleave,
        "compress": "ZSTD",
        "zstd_level": str(_ZSTD_LEVEL),
        "predictor": "2" if encoding.dtype == np.int8 else "3",
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }
    return options | ({"nbits": "16"} if encoding.dtype == np.float16 else {})


def _write_unordered(path: Path, content: MapContent, encoding: FittedEncoding) -> None:
    """Write the values uncompressed, band after band, in as many rows at once as memory allows."""
    import rasterio
    from rasterio.crs import CRS
    from rasterio.windows import Window

    grid = content.grid
    rows = max(1, _STRIP_BYTES // (4 * grid.shape[1] * content.dimensions))
    rows = min(rows, grid.shape[0])
    path.unlink(missing_ok=True)
    dtype = np.dtype(np.float32) if encoding.dtype == np.float16 else encoding.dtype
    with rasterio.open(
        path, "w", driver="GTiff", dtype=dtype.name, count=encoding.dimensions,
        height=grid.shape[0], width=grid.shape[1], nodata=encoding.nodata,
        crs=None if grid.crs is None else CRS.from_user_input(grid.crs.to_wkt()),
        transform=grid.transform, interleave="band", blockysize=rows, bigtiff="IF_SAFER",
        **({"nbits": 16} if encoding.dtype == np.float16 else {}),
    ) as file:  # fmt: skip
        tags = {META_TAG: meta_text(content, encoding)}
        if encoding.pca is not None:
            tags[PCA_TAG] = json.dumps(encoding.pca.to_json())
        if content.offsets is not None:
            tags[OFFSETS_TAG] = json.dumps(content.offsets.to_json())
        file.update_tags(**tags)
        kind = "dimension" if encoding.pca is None else "component"
        file.descriptions = band_names(encoding.dimensions, kind)
        if encoding.scales is not None:
            file.scales = [float(scale) for scale in encoding.scales]
        row = 0
        for strip in content.strips(rows):
            values = np.ascontiguousarray(encoding.encode(strip).transpose(2, 0, 1))
            file.write(
                values.astype(dtype, copy=False), window=Window(0, row, grid.shape[1], len(strip))
            )
            row += len(strip)


def _check_blocks(path: Path) -> None:
    """Raise unless every block is in the file and can be read: GDAL may hide a full disk."""
    import rasterio

    with rasterio.open(path) as file:
        levels = [{}, *({"overview_level": level} for level in range(len(file.overviews(1))))]
    length = os.path.getsize(path)
    for level in levels:
        with rasterio.open(path, **level) as file:
            for (row, column), window in file.block_windows(1):
                for band in file.indexes:
                    tags = (f"BLOCK_{name}_{column}_{row}" for name in ("OFFSET", "SIZE"))
                    at, size = (int(file.get_tag_item(tag, "TIFF", bidx=band) or 0) for tag in tags)
                    if at == 0 or at + size > length:
                        raise ExportError(
                            f"cannot write {path}: block {column}, {row} of band {band} is not in "
                            "the file; is the disk full?"
                        )
                file.read(window=window)


def open_cog(path: Path) -> xr.DataArray:
    """Return a map as `open_map` does; `ExportError` for other files."""
    from rasterio.errors import RasterioError

    try:
        bands = open_bands(path, **_CHUNK)
    except (RasterioError, OSError) as exc:
        raise not_a_map(path, "it is not an image that can be opened") from exc
    # rioxarray writes the attributes of a map that open_map returned, whose values are tokens.
    tags = bands.tags
    meta, pca = tags.get(META_TAG, tags.get("meta", "")), tags.get(PCA_TAG, tags.get("pca"))
    offsets = tags.get(OFFSETS_TAG, tags.get("offsets"))
    encoding = stored_encoding(meta)
    if META_TAG not in tags and not encoding:
        reason = f"it is an image without the tag {META_TAG}, so not a map of rs_embed"
        raise not_a_map(path, reason, "rioxarray.open_rasterio", f"--imagery {path} -o map.tif")
    if META_TAG in tags and encoding.get("dtype") == "int8":
        check_steps(bands)
    else:
        bands.check_type()
    return decoded_map(bands.tokens(**_CHUNK), meta, pca, offsets)


def _check_image(path: Path) -> None:
    check_place(path)
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with quietly(), open_file(str(path)) as dataset:
            is_own = META_TAG in dataset.tags()
    except ImageryError as exc:
        raise ExportError(
            f"cannot write {path}: the file of this name cannot be read, so it may not be a map "
            f"({exc.__cause__}); delete it, or choose another name"
        ) from exc
    if not is_own:
        raise ExportError(
            f"cannot write {path}: it is an image, but not a map of rs_embed; choose another name"
        )


COG = MapFormat(
    name="a map in GeoTIFF",
    suffixes=(".tif", ".tiff"),
    media_type="image/tiff; application=geotiff; profile=cloud-optimized",
    write=write_cog,
    open=open_cog,
    check_replaced=_check_image,
    scales=lambda path: open_bands(path).scales,
    # The blocks, a third more for overviews, and both once more in their final order.
    room=8 / 3,
    opens=(".vrt",),
    sidecars=(".aux.xml", ".ovr", ".msk"),
)
