"""What tests of maps have in common: places on a scene, runs that fail or are interrupted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from pyproj import Transformer

from rs_embed import BBox, LocalProvider, Raster, embed_area

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


class _Interrupting(logging.Handler):
    """Raises once the remaining time is logged, which is after some windows."""

    def emit(self, record: logging.LogRecord) -> None:
        if " left: " in record.getMessage():
            raise KeyboardInterrupt


@contextmanager
def interrupted() -> Iterator[None]:
    """Interrupt the map that is made within, as Ctrl-C does, when some windows are kept."""
    logger, handler = logging.getLogger("rs_embed.runs"), _Interrupting()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def kept_windows(scene: Path, out: Path) -> Path:
    """Keep some windows, as an interrupted run does; return the file that holds them."""
    with interrupted():
        embed_area("coordinates", imagery=scene, output=out)
    return out.with_name(f"{out.name}.partial")
