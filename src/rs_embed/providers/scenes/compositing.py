"""Several rasters of one grid into one: the median, or the latest valid pixel."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import filterfalse
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ProviderError, UnknownNameError
from rs_embed.parallel.pipeline import ordered
from rs_embed.specs import COMPOSITES, Composite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = tuple[NDArray[Any], NDArray[np.bool_]]

# Working memory, bytes: the stack of a strip of rows, its sorted copy and its masks.
# Each fetching thread uses as much.
MEMORY = 64 * 2**20
# Digital numbers without offset, to which scenes of different units are converted.
DIGITAL_NUMBERS = (1e-4, 0.0)
_DECLARE = "declare them (gdal_edit -scale 0.0001 -offset 0), or keep such scenes apart"


@dataclass(frozen=True, eq=False)
class Layer:
    """One scene on the grid of the composite."""

    id: str
    # read(rows) returns data (bands, rows, width) and valid (rows, width) of a slice of rows.
    read: Callable[[slice], Pixels]
    dtype: np.dtype[Any]
    reflectance: tuple[float, float] | None  # (scale, offset) that it declares
    # First row at which a block of its file begins, and rows of a block, which are best read at
    # once; None if not known.
    blocks: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Composited:
    """The composite, and which layers contributed pixels."""

    # (bands, height, width); 0 where nothing is valid, except that a single layer is passed on
    # unchanged.
    data: NDArray[Any]
    valid: NDArray[np.bool_]  # (height, width) bool
    # (scale, offset) of the values; None if no layer declares any.
    reflectance: tuple[float, float] | None
    # For each layer, whether it has a valid pixel (median) or a visible one (mosaic).
    used: tuple[bool, ...]


def composite(
    layers: Sequence[Layer],
    kind: Composite,
    shape: tuple[int, int, int],
    *,
    memory: int = MEMORY,
    readers: int = 0,
) -> Composited:
    """Return one image of several layers, oldest first; a single one keeps its type and units.

    It is the median of the valid pixels, float32, an even number of them averaging the middle two;
    or the mosaic of the last valid pixels, in the layers' own type if they share one.

    Parameters
    ----------
    shape : tuple of int
        Bands, height, width.
    memory : int
        Bytes that may be used besides the result; rows are processed in strips of that size.
    readers : int
        Threads that read layers at once; 0 reads them one after another.

    Raises
    ------
    ProviderError
        If the layers' units cannot be converted to one.
    """
    if kind not in COMPOSITES:
        raise UnknownNameError.among("composite", kind, COMPOSITES)
    if len(layers) == 1:
        data, valid = layers[0].read(slice(0, shape[1]))
        return Composited(data, valid, layers[0].reflectance, (bool(valid.any()),))
    dtype, reflectance = common_units(layers)
    if kind == "median":
        dtype = np.dtype(np.float32)
    data, valid = np.zeros(shape, dtype), np.zeros(shape[1:], bool)
    used = np.zeros(len(layers), bool)
    at_once = len(layers) if kind == "median" else 1
    reduce = _median_rows if kind == "median" else _mosaic_rows
    # The mosaic starts with the latest, and stops when no pixel is missing.
    order = list(layers) if kind == "median" else list(layers)[::-1]
    blocks = next((layer.blocks for layer in layers if layer.blocks is not None), None)
    for rows in _strips(shape, at_once, memory, blocks):
        reads = [partial(_in_units(layer, reflectance), rows) for layer in order]
        workers = min(readers, len(reads))
        with closing(ordered(reads, operator.call, workers=workers, ahead=readers)) as pixels:
            data[:, rows], valid[rows], contributed = reduce(pixels, len(reads), rows, dtype, shape)
        used |= contributed
    oldest_first = used if kind == "median" else used[::-1]
    return Composited(data, valid, reflectance, tuple(oldest_first.tolist()))


def common_units(
    layers: Sequence[Layer],
) -> tuple[np.dtype[Any], tuple[float, float] | None]:
    """Return the type and (scale, offset) to which all layers can be converted.

    Raises
    ------
    ProviderError
        If some declare units and others do not, or integers meet floating-point numbers and
        neither declares any.
    """
    dtypes = {layer.dtype for layer in layers}
    units = {layer.reflectance for layer in layers}
    if len(units) == 1 and len(dtypes) == 1:
        return dtypes.pop(), units.pop()
    if len(units) > 1 and None in units:
        without, other = _two(layers, lambda layer: layer.reflectance is None)
        raise ProviderError(
            f"{other.id!r} declares scale and offset {other.reflectance}, {without.id!r} declares "
            f"none, expected units that can be converted; {_DECLARE}"
        )
    if units == {None} and len({dtype.kind == "f" for dtype in dtypes}) > 1:
        floats, integers = _two(layers, lambda layer: layer.dtype.kind == "f")
        raise ProviderError(
            f"{integers.id!r} has {integers.dtype} and {floats.id!r} {floats.dtype}, and neither "
            f"declares its units; {_DECLARE}"
        )
    if units == {None} and len({dtype.itemsize == 1 for dtype in dtypes}) > 1:
        narrow, wide = _two(layers, lambda layer: layer.dtype.itemsize == 1)
        raise ProviderError(
            f"{narrow.id!r} has 8 bits and {wide.id!r} {wide.dtype}, and neither declares its "
            f"units; {_DECLARE}"
        )
    return np.dtype(np.float32), units.pop() if len(units) == 1 else DIGITAL_NUMBERS


def _two(layers: Sequence[Layer], holds: Callable[[Layer], bool]) -> tuple[Layer, Layer]:
    """Return the first layer for which a condition holds, and the first for which it does not."""
    return next(filter(holds, layers)), next(filterfalse(holds, layers))


def _in_units(layer: Layer, units: tuple[float, float] | None) -> Callable[[slice], Pixels]:
    """Return the layer's ``read`` with values in ``units``."""
    if layer.reflectance == units or layer.reflectance is None or units is None:
        return layer.read
    scale = layer.reflectance[0] / units[0]
    offset = (layer.reflectance[1] - units[1]) / units[0]

    def read(rows: slice) -> Pixels:
        data, valid = layer.read(rows)
        return (data * scale + offset).astype(np.float32), valid

    return read


def _strips(
    shape: tuple[int, int, int], at_once: int, memory: int, blocks: tuple[int, int] | None
) -> Iterator[slice]:
    """Yield slices of rows whose stack of float32, twice, fits into ``memory``.

    They end at the end of a block if one fits, so that no block is decoded twice.
    """
    bands, height, width = shape
    step = max(1, memory // (width * 4 * bands * (2 * at_once + 2)))
    first, block = blocks or (0, 1)
    start = 0
    while start < height:
        stop = start + step
        at_block = stop - (stop - first) % block
        stop = min(at_block if at_block > start else stop, height)
        yield slice(start, stop)
        start = stop


def _median_rows(
    pixels: Iterable[Pixels],
    count: int,
    rows: slice,
    dtype: np.dtype[Any],
    shape: tuple[int, int, int],
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    stack = np.full((count, shape[0], rows.stop - rows.start, shape[2]), np.nan, dtype)
    counts = np.zeros(stack.shape[2:], np.int64)
    contributed = np.zeros(count, bool)
    for i, (data, valid) in enumerate(pixels):
        np.copyto(stack[i], data, where=valid, casting="same_kind")
        counts += valid
        contributed[i] = valid.any()
    return _median(stack, counts), counts > 0, contributed


def _median(stack: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the median over the first axis, NaN left out; 0 where ``counts`` is 0.

    Sorting once is four times faster than `numpy.nanmedian`.
    """
    stack.sort(axis=0)  # NaN goes last
    last = np.maximum(counts - 1, 0)
    low, high = (
        np.broadcast_to(index, (1, *stack.shape[1:]))
        for index in (last // 2, np.minimum(counts // 2, last))
    )
    middle: NDArray[np.float32] = np.take_along_axis(stack, low, 0)[0]
    middle += np.take_along_axis(stack, high, 0)[0]
    middle *= 0.5
    middle[:, counts == 0] = 0
    return middle


def _mosaic_rows(
    pixels: Iterable[Pixels],
    count: int,
    rows: slice,
    dtype: np.dtype[Any],
    shape: tuple[int, int, int],
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    latest = np.zeros((shape[0], rows.stop - rows.start, shape[2]), dtype)
    filled = np.zeros(latest.shape[1:], bool)
    contributed = np.zeros(count, bool)
    for i, (data, valid) in enumerate(pixels):
        new = valid & ~filled
        np.copyto(latest, data, where=new, casting="same_kind")
        filled |= new
        contributed[i] = new.any()
        if filled.all():
            break
    return latest, filled, contributed
