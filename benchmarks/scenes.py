"""Scenes of any size, from a given scene and its mirror images, so that no edge appears."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

SAMPLE = Path(__file__).parents[1] / "src" / "rs_embed" / "data" / "sample_s2.tif"
_BLOCK_PX = 512


def add_scene(parser: argparse.ArgumentParser) -> None:
    """Add ``--scene`` to a script's arguments."""
    parser.add_argument(
        "--scene",
        type=Path,
        default=SAMPLE,
        help="georeferenced imagery that is mirrored to the requested size (default: "
        "the sample scene)",
    )


def write_mirrored(scene: Path, side: int, path: Path) -> None:
    """Write ``side`` x ``side`` px of a scene and its mirror images, tiled and compressed.

    The first copy keeps its location; bands, tags, nodata and pixel size are unchanged.
    """
    with rasterio.open(scene) as source:
        pixels = source.read()  # B H W
        profile = {
            "driver": "GTiff", "dtype": source.dtypes[0], "count": source.count,
            "width": side, "height": side, "crs": source.crs, "transform": source.transform,
            "nodata": source.nodata, "tiled": True, "blockxsize": _BLOCK_PX,
            "blockysize": _BLOCK_PX, "compress": "deflate", "predictor": 2, "zlevel": 1,
            "interleave": "pixel", "num_threads": "ALL_CPUS",
        }  # fmt: skip
        tags, names = source.tags(), source.descriptions
    columns = _mirrored(pixels.shape[2], side)
    rows = _mirrored(pixels.shape[1], side)
    with rasterio.open(path, "w", **profile) as file:
        file.update_tags(**tags)
        file.descriptions = names
        for top in range(0, side, _BLOCK_PX):
            wanted = rows[top : top + _BLOCK_PX]
            strip = pixels[:, wanted][:, :, columns]
            file.write(strip, window=Window(0, top, side, len(wanted)))


def _mirrored(length: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the source row, of ``length``, for each of ``count`` rows: 0 1 2 2 1 0 0 1 2."""
    at = np.arange(count) % (2 * length)
    return np.where(at < length, at, 2 * length - 1 - at)
