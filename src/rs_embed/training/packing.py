"""Images decoded once: tiles of one size in a memory-mapped file, each with its GSD."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from rs_embed.addresses import path_of
from rs_embed.datasets.samples import Sample, read_samples
from rs_embed.errors import (
    DatasetError,
    ExportError,
    ImageryWarning,
    Note,
    SpecError,
    give_warnings,
    some,
)
from rs_embed.progress import Bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.training.config import DataConfig

_PIXELS, _INDEX = "tiles.u8", "tiles.json"


@dataclass(frozen=True, eq=False)
class Tiles:
    """What a pretraining run draws from."""

    pixels: NDArray[np.uint8]  # (N, 3, side, side) uint8, memory-mapped: red, green, blue
    gsd_m: NDArray[np.float32]  # (N,) float32: ground metres per pixel
    source: NDArray[np.int64]  # (N,) int64: number of the source in the configuration
    repeat: NDArray[np.int64]  # (N,) int64: how often an epoch holds each tile
    digest: str  # SHA-256 of the pixels, which a resumed run compares

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def gsd_digest(self) -> str:
        """SHA-256 of each tile's GSD and source, which a resumed run compares too."""
        return hashlib.sha256(self.gsd_m.tobytes() + self.source.tobytes()).hexdigest()


def packed(config: DataConfig, folder: Path, *, progress: bool | None = None) -> Tiles:
    """Return the tiles of a configuration, packed into ``folder`` unless it has them already.

    The folder holds ``tiles.u8`` (raw bytes) and ``tiles.json``.

    Raises
    ------
    SpecError
        If the folder is inside a source.
    DatasetError
        If a source is empty or holds an unreadable image, or no image is as large as a tile.
    ExportError
        If the folder cannot be written, or the disk is full.

    Warns
    -----
    ImageryWarning
        If images are left out because they are smaller than a tile.
    """
    _check_apart(config, folder)
    wanted = _described(config)
    index = _index(folder)
    if index is None or index["config"] != wanted:
        index = _pack(config, folder, wanted, progress)
    side = config.tile_size
    sources, gsds_m, counts = zip(*index["runs"], strict=True)
    source = np.repeat(np.array(sources, np.int64), counts)
    repeats = np.array([one.repeat for one in config.sources], np.int64)
    return Tiles(
        np.memmap(folder / _PIXELS, np.uint8, "r", shape=(len(source), 3, side, side)),
        np.repeat(np.array(gsds_m), counts).astype(np.float32),
        source,
        repeats[source],
        index["sha256"],
    )


def tiles_of(sample: Sample, side: int, levels: int) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Return an image's tiles ``(side, side, 3)`` with their GSD, finest level first.

    Each level averages 2 x 2 pixels of the one before. The last tiles of a row and column are
    shifted inward, so that every pixel is in a tile and none is made up; images up to a tenth
    smaller than a tile are enlarged to it, and their GSD with them.
    """
    image, gsd_m = sample.image, sample.gsd_m
    short = min(image.shape[:2])
    if 0.9 * side <= short < side:
        height, width = (max(round(n * side / short), side) for n in image.shape[:2])
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        image, gsd_m = np.asarray(picture), gsd_m * short / side
    for _ in range(levels):
        height, width = image.shape[:2]
        if min(height, width) < side:
            return
        for top in _starts(height, side):
            for left in _starts(width, side):
                yield image[top : top + side, left : left + side], gsd_m
        image = np.asarray(Image.fromarray(image).reduce(2))
        gsd_m *= 2


def _starts(length: int, side: int) -> list[int]:
    return [min(start, length - side) for start in range(0, length, side)]


def _pack(
    config: DataConfig, folder: Path, wanted: dict[str, Any], progress: bool | None
) -> dict[str, Any]:
    """Write pixels and index; earlier tiles stay until the new pixels are complete.

    A folder without its index is packed again.
    """
    partial = folder / f".{_PIXELS}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file, Bar(progress, unit="image", total=None) as bar:
            runs, sha256 = _write_tiles(config, file, bar)
        (folder / _INDEX).unlink(missing_ok=True)
        os.replace(partial, folder / _PIXELS)
        index = {"config": wanted, "sha256": sha256, "runs": runs}
        partial.write_text(json.dumps(index))
        os.replace(partial, folder / _INDEX)
    except OSError as exc:
        raise ExportError(f"cannot pack into {folder}: {exc}; choose another run.folder") from exc
    finally:
        partial.unlink(missing_ok=True)
    return index


def _write_tiles(config: DataConfig, file: BinaryIO, bar: Bar) -> tuple[list[list[Any]], str]:
    """Write every tile; return runs of ``[source, GSD, tiles]``, and the SHA-256 of the pixels."""
    side = config.tile_size
    runs: list[list[Any]] = []
    digest = hashlib.sha256()
    for number, source in enumerate(config.sources):
        small = []
        for sample in read_samples(source.path, gsd_m=source.gsd_m, split=source.split):
            tiled = False
            for tile, gsd_m in tiles_of(sample, side, config.levels):
                tiled = True
                content = np.ascontiguousarray(tile.transpose(2, 0, 1)).tobytes()
                digest.update(content)
                file.write(content)
                if not runs or runs[-1][:2] != [number, gsd_m]:
                    runs.append([number, gsd_m, 0])
                runs[-1][2] += 1
            if not tiled:
                small.append(sample.name)
            bar.advance()
        if not runs or runs[-1][0] != number:
            raise DatasetError(
                f"{source.path} has no tile of {side} x {side} px: all of its images are smaller; "
                "lower data.tile_size, or remove the source"
            )
        if small:
            what = f"left out of {source.path!r} as smaller than a tile of {side} px: {some(small)}"
            give_warnings([Note(what, ImageryWarning)])
    return runs, digest.hexdigest()


def _check_apart(config: DataConfig, folder: Path) -> None:
    """Raise where a run's own pictures would be images of a source."""
    for source in config.sources:
        place = path_of(source.path).expanduser()
        if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise SpecError(
                f"got run.folder {str(folder)!r} inside the source {source.path!r}, expected it "
                "elsewhere: what the run writes would be read as images"
            )


def _described(config: DataConfig) -> dict[str, Any]:
    """Return what determines the tiles, and the size and date of every source's file."""
    sources = []
    for source in config.sources:
        stated = asdict(source)
        del stated["repeat"]
        path = path_of(source.path).expanduser()
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        seen = [
            (str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file()
        ]
        sources.append(stated | {"files": hashlib.sha256(repr(seen).encode()).hexdigest()})
    return {"sources": sources, "tile_size": config.tile_size, "levels": config.levels}


def _index(folder: Path) -> dict[str, Any] | None:
    """Return the index of what is packed there; None if it is missing or incomplete."""
    try:
        index: dict[str, Any] = json.loads((folder / _INDEX).read_text())
        expected = sum(count for *_, count in index["runs"]) * 3 * index["config"]["tile_size"] ** 2
        whole = (folder / _PIXELS).stat().st_size == expected and "sha256" in index
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if whole else None
