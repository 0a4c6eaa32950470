"""Small sites of the explorer, written as docs/explorer.md describes their files."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import rs_embed

PAGE = Path(rs_embed.__file__).parent / "explorer" / "page"
TRANSFORM = (40.0, 0.0, 500_000.0, 0.0, -40.0, 5_400_000.0)
UTM = {"crs": "EPSG:32633", "proj4": "+proj=utm +zone=33 +datum=WGS84 +units=m +no_defs"}


def quantised(vectors: NDArray[Any]) -> NDArray[np.int8]:
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)


def units(vectors: NDArray[Any]) -> NDArray[np.float64]:
    rows = vectors.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


@dataclass
class Site:
    """A site on disk, and the vectors that it was made of."""

    folder: Path
    floats: list[NDArray[np.float64]]
    cells: list[NDArray[np.uint32]] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)

    @property
    def vectors(self) -> list[NDArray[np.int8]]:
        return [quantised(rows) for rows in self.floats]

    @property
    def units(self) -> list[NDArray[np.float64]]:
        return [units(rows) for rows in self.vectors]

    def change(self, **values: Any) -> Site:
        """Write other values into explore.json."""
        path = self.folder / "explore.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return self


def _begun(folder: Path) -> Path:
    shutil.copytree(PAGE, folder)
    (folder / "data").mkdir()
    return folder


def _described(folder: Path, **values: Any) -> None:
    site = {
        "format": 1, "title": "Example", "made_with": "rs-embed 0", "model": "scalemae",
        "weights": "random", "output": "tokens", "gsd_m": 10.0, "pca_variance": None,
        "base_map": None, "places": None, "pca_colours": None, "thumbnails": None, **values,
    }  # fmt: skip
    (folder / "explore.json").write_text(json.dumps(site))


def map_site(
    folder: Path,
    *,
    dates: int = 1,
    shape: tuple[int, int] = (18, 26),
    dimensions: int = 24,
    transform: tuple[float, ...] = TRANSFORM,
    seed: int = 0,
    **values: Any,
) -> Site:
    """Write a map of smooth tokens; some cells have none, others on each date."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = np.stack([np.sin(rows / (3 + i) + columns / (5 - i) + i) for i in range(4)], axis=-1)
    mixing = rng.normal(size=(4, dimensions))
    site = Site(_begun(folder), [], [], shape)
    layers = []
    for i in range(dates):
        floats = waves.reshape(-1, 4) @ mixing + rng.normal(0, 0.3 + i, (rows.size, dimensions))
        cells = np.flatnonzero(rng.random(rows.size) > 0.05).astype("<u4")
        site.floats.append(floats[cells] - floats[cells].mean(axis=0))
        site.floats[-1][3] = 0  # a row of zeros is similar to nothing
        site.cells.append(cells)
        (folder / f"data/{i}.vectors.i8").write_bytes(site.vectors[-1].tobytes())
        (folder / f"data/{i}.cells.u32").write_bytes(cells.tobytes())
        colours = np.zeros((rows.size, 4), np.uint8)
        colours[cells] = 255
        colours[cells, :3] = (floats[cells, :3] * 20 + 128).clip(0, 255)
        picture = Image.fromarray(colours.reshape(*shape, 4))
        picture.save(folder / f"data/{i}.pca.png")
        picture.convert("RGB").resize((8 * shape[1], 8 * shape[0])).save(folder / f"data/{i}.png")
        left, top = transform[2], transform[5]
        bounds = [left, top - 40 * shape[0], left + 40 * shape[1], top]
        layers.append({
            "name": f"2021-0{i + 6}-17", "count": len(cells), "vectors": f"data/{i}.vectors.i8",
            "cells": f"data/{i}.cells.u32", "pca": f"data/{i}.pca.png",
            "grid": {"transform": list(transform), "rows": shape[0], "columns": shape[1]},
            "image": {"file": f"data/{i}.png", "bounds": bounds},
        })  # fmt: skip
    _described(folder, kind="map", dimensions=dimensions, layers=layers, **{**UTM, **values})
    return site


def table_site(folder: Path, places: dict[str, Any], dimensions: int = 40, **values: Any) -> Site:
    """Write a table; ``places`` has the columns of places.json."""
    count = len(places["id"])
    rng = np.random.default_rng(5)
    floats = rng.normal(size=(count, 3)) @ rng.normal(size=(3, dimensions))
    floats += rng.normal(0, 0.3, floats.shape)
    site = Site(_begun(folder), [floats - floats.mean(axis=0)])
    (folder / "data/0.vectors.i8").write_bytes(site.vectors[0].tobytes())
    (folder / "data/places.json").write_text(json.dumps(places))
    (folder / "data/colours.u8").write_bytes(rng.integers(0, 256, 3 * count, np.uint8).tobytes())
    sheet = Image.fromarray(rng.integers(0, 256, (4 * 16, 4 * 16, 3), np.uint8))
    files = []
    for i in range(-(-count // 16)):
        files.append(f"data/thumbs-{i}.png")
        sheet.save(folder / files[-1])
    layer = {
        "name": "places", "count": count, "vectors": "data/0.vectors.i8",
        "cells": None, "grid": None, "pca": None, "image": None,
    }  # fmt: skip
    _described(
        folder, kind="table", dimensions=dimensions, layers=[layer], crs="EPSG:4326",
        proj4="+proj=longlat +datum=WGS84 +no_defs", places="data/places.json",
        pca_colours="data/colours.u8",
        thumbnails={"files": files, "size": 16, "columns": 4, "rows": 4}, **values,
    )  # fmt: skip
    return site
