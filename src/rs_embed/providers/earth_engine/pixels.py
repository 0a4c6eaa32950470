"""Pixels as Earth Engine sends them: grids on the wire, requests below its limits, NPY bodies."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import GridError, ProviderError
from rs_embed.geo.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTES_PER_VALUE = 4
# The service counts a byte for the mask of each value, which is never sent.
_COUNTED_PER_VALUE = BYTES_PER_VALUE + 1
REQUEST_BYTES = 50_331_648
SIDE_PX = 32_768
# Parts are not split below this: if 64 px are too much, there is another reason.
_LEAST_SIDE_PX = 64
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Part:
    """A rectangle of a grid: its first row and column, and its size in pixels."""

    row: int
    column: int
    height: int
    width: int

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """Its position in ``(bands, height, width)``."""
        return (
            slice(None),
            slice(self.row, self.row + self.height),
            slice(self.column, self.column + self.width),
        )

    def of(self, grid: Grid) -> Grid:
        """Return its part of the grid, which may be all of it."""
        if (self.height, self.width) == tuple(grid.shape):
            return grid
        return grid.window(self.row, self.column, self.height, self.width)


def parts_of(
    shape: tuple[int, int], bands: int, request_bytes: int = REQUEST_BYTES
) -> tuple[Part, ...]:
    """Return rectangles of similar size that cover ``shape`` (height, width), row by row.

    None is larger than ``request_bytes``, as the service counts them.
    """
    height, width = shape
    down, across = math.ceil(height / SIDE_PX), math.ceil(width / SIDE_PX)
    most = max(request_bytes // (bands * _COUNTED_PER_VALUE), 1)
    while (tall := math.ceil(height / down)) * (wide := math.ceil(width / across)) > most:
        if tall >= wide:
            down += 1
        else:
            across += 1
    return tuple(_cut(Part(0, 0, height, width), down, across))


def quarters(part: Part) -> tuple[Part, ...]:
    """Return the four quarters of a part, or nothing if it is too small."""
    if min(part.height, part.width) < 2 * _LEAST_SIDE_PX:
        return ()
    return tuple(_cut(part, 2, 2))


def _cut(part: Part, down: int, across: int) -> list[Part]:
    rows = [part.row + part.height * i // down for i in range(down + 1)]
    columns = [part.column + part.width * i // across for i in range(across + 1)]
    return [
        Part(top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def wire_grid(grid: Grid) -> dict[str, Any]:
    """Return a grid as ``computePixels`` takes it: the same numbers, bit for bit.

    Raises
    ------
    GridError
        If its CRS has neither an EPSG code nor a WKT of version 1.
    """
    height, width = grid.shape
    transform = grid.transform
    return {
        "dimensions": {"width": width, "height": height},
        "affineTransform": {
            "scaleX": transform.a,
            "shearX": transform.b,
            "translateX": transform.c,
            "shearY": transform.d,
            "scaleY": transform.e,
            "translateY": transform.f,
        },
        **_wire_crs(grid),
    }


def _wire_crs(grid: Grid) -> dict[str, str]:
    from pyproj.enums import WktVersion
    from pyproj.exceptions import CRSError

    if grid.crs is None:
        raise GridError("the grid has no CRS, so Earth Engine cannot place it")
    authority = grid.crs.to_authority(min_confidence=100)
    if authority is not None and authority[0] == "EPSG":
        return {"crsCode": ":".join(authority)}
    try:
        return {"crsWkt": grid.crs.to_wkt(WktVersion.WKT1_GDAL)}
    except CRSError as exc:
        raise GridError(
            f"the CRS {grid.crs.name!r} cannot be written for Earth Engine ({exc}); use one with "
            "an EPSG code"
        ) from exc


def decoded(body: bytes, names: Sequence[str], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return ``(bands, height, width)`` of an NPY file with a float32 field for each band.

    It must have the fields ``names`` in this order, and the ``shape`` (height, width).

    Raises
    ------
    ProviderError
        If it is something else: transient if it is truncated or not an NPY file.
    """
    if not body.startswith(_MAGIC):
        text = body[:60].decode("ascii", "replace").strip()
        shown = f"{len(body)} bytes that begin with {text!r}" if body else "nothing"
        raise ProviderError(
            f"Earth Engine answered with something other than pixels ({shown}); a proxy may have "
            "answered instead, try again later",
            transient=True,
        )
    stream = io.BytesIO(body)
    try:
        old = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        found_shape, fortran, dtype = read(stream)
    except ValueError as exc:
        raise _cut_off(len(body)) from exc
    wanted = np.dtype([(name, "<f4") for name in names])
    if dtype != wanted or tuple(found_shape) != tuple(shape) or fortran:
        raise ProviderError(
            f"Earth Engine sent pixels of shape {tuple(found_shape)} and type {dtype}, expected "
            f"{tuple(shape)} of {wanted}; report it with the request that was made"
        )
    begin = stream.tell()
    length = shape[0] * shape[1] * wanted.itemsize
    if len(body) - begin != length:
        raise _cut_off(len(body), begin + length)
    values = np.frombuffer(body, "<f4", offset=begin).reshape(*shape, len(names))
    return np.moveaxis(values, 2, 0)


def _cut_off(got: int, expected: int | None = None) -> ProviderError:
    of = "" if expected is None else f" of {expected}"
    return ProviderError(
        f"Earth Engine's pixels are cut off: {got}{of} bytes came; try again later", transient=True
    )
