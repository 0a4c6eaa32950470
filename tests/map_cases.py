"""What tests of maps have in common: places on a scene, runs that fail or are interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from pyproj import Transformer

from rs_embed import BBox, LocalProvider, Raster
from rs_embed.maps.request import settle_area
from rs_embed.maps.run import AreaRun

NORTH_UP = Affine(10, 0, 400000, 0, -10, 5200000)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def box(row: int, column: int, height: int, width: int) -> BBox:
    """Return the box in degrees around pixels of a scene."""
    left, top = NORTH_UP @ (column, row)
    right, bottom = NORTH_UP @ (column + width, row + height)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return BBox(*to_degrees.transform_bounds(left, bottom, right, top))


class Faulty(LocalProvider):
    """A file whose windows fail as long as ``faults`` says so."""

    def __init__(self, path: Path, fault: Callable[[Any], BaseException | None]) -> None:
        super().__init__(path)
        self.fault = fault
        self.fetched: list[Any] = []

    def fetch(self, grid: Any, **asked: Any) -> Raster:
        self.fetched.append(grid)
        fault = self.fault(grid)
        if fault is not None:
            raise fault
        return super().fetch(grid, **asked)


def interrupt(_: Any) -> None:
    raise KeyboardInterrupt


def kept_windows(scene: Path, out: Path) -> AreaRun:
    """Keep some windows, as an interrupted run does; return the run, closed."""
    with (
        pytest.raises(KeyboardInterrupt),
        AreaRun(out, settle_area("coordinates", imagery=scene)) as run,
    ):
        run.run(measured=interrupt)
    return run
