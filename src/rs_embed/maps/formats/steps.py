"""Whether the values of a map in int8 are steps, or tokens already.

Software that rewrites a map may multiply the steps by their scale, change their type, or misread
them, and keep all that the header says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import SpecError
from rs_embed.files.grids import check_dimensions
from rs_embed.maps.formats.encoding import INT8_NODATA

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.files.token_bands import TokenBands

SCALE_KEY = "rs_embed_scale"
_UNAPPLIED = {"scale_factor": 1, "scales": 1, "add_offset": 0, "offsets": 0}
# Sides of the windows in which the first token is searched, and of the cells that are read there.
_WINDOW, _CELLS = 512, 8


def applied(array: xr.DataArray, scale: xr.DataArray | None = None, **chunks: int) -> xr.DataArray:
    """Return the tokens of ``(d, y, x)`` values that xarray opened, and decoded or not.

    ``scale`` is the value of a step of each dimension, by default the coordinate of this name;
    dask reads the tokens later in ``chunks``, if any. Raises `SpecError` if a scale is missing or
    was not applied, or the values are neither steps nor tokens.
    """
    check_dimensions(array)
    stated = {k: array.attrs.get(k, none) for k, none in _UNAPPLIED.items()}
    # Text is what harmonising has added, and the tokens have it already.
    unapplied = [
        k for k, v in stated.items() if not isinstance(v, str) and np.any(v != _UNAPPLIED[k])
    ]
    if unapplied:
        raise SpecError(
            f"got values with the attribute {unapplied[0]!r}, expected tokens; open the file with "
            "rs_embed.open_map, or remove it if it was applied: array.attrs.clear()"
        )
    scale = array.coords.get("scale") if scale is None else scale
    held = array.chunk(chunks) if chunks else array
    if scale is None or scale.dims != ("d",):
        if SCALE_KEY in array.attrs:
            raise SpecError(
                "got a map in int8 without 'scale', expected one number for each d; keep this "
                "coordinate, or save the tokens of rs_embed.open_map instead"
            )
        return held
    if not holds_integers(array):
        found, by = _some_tokens(array), scale.values[:, None]
        if not (found == np.rint(found)).all():
            if (np.abs(found / by - np.rint(found / by)) < 0.1).all():  # float16 is that far off
                return held
            raise SpecError(
                "got a map in int8 whose values are neither whole steps nor their products with "
                "'scale'; if they are tokens, save them without it: "
                "dataset = dataset.drop_vars('scale'); "
                f"dataset['embedding'].attrs.pop('{SCALE_KEY}', None)"
            )
    tokens: xr.DataArray = (held.where(held != INT8_NODATA) * scale).astype(np.float32)
    return tokens


def holds_integers(array: xr.DataArray) -> bool:
    """Return whether values are whole numbers in the file, without a scale of CF."""
    packed = {"scale_factor", "add_offset"} & set(array.encoding)
    kinds = array.dtype.kind + np.dtype(array.encoding.get("dtype", "f4")).kind
    return not packed and bool({"i", "u"} & set(kinds))


def check_steps(bands: TokenBands) -> None:
    """Raise `SpecError` unless the bands of a map in int8 can be decoded with their scales."""
    steps = _some_tokens(bands.stored)
    if not steps.size or bands.offsets.any():
        return
    again = "convert the original file again, with GDAL 3.7 or later"
    near_zero = np.abs(steps[bands.scales < 1 / 64]) <= 2  # as tokens of such dimensions are
    if not bands.scaled:
        reason = f"has no scale in its bands; {again} and without -unscale"
    elif bands.dtype.kind == "u" or (steps.max() > 127 and steps.min() >= 0):
        reason = f"was rewritten by GDAL before 3.7, which reads -1 as 255; {again}"
    elif not bands.masked:
        reason = "has no nodata value, expected -128; set it: rio edit-info --nodata -128 FILE"
    elif len(near_zero) > 5 and near_zero.all():  # by chance in a few dimensions, not in many
        reason = f"holds rounded tokens, as rioxarray writes after mask_and_scale=True; {again}"
    else:
        return
    raise SpecError(f"got a map in int8 that {reason}")


def _some_tokens(array: xr.DataArray) -> NDArray[Any]:
    """Return ``(d, n)`` values near the first cell with a token; none if no cell has one."""
    for top in range(0, array.sizes["y"], _WINDOW):
        for left in range(0, array.sizes["x"], _WINDOW):
            window = array.isel(y=slice(top, top + _WINDOW), x=slice(left, left + _WINDOW))
            valid = np.argwhere(np.isfinite(window.isel(d=0).transpose("y", "x").values))
            for row, column in valid[:1]:
                near = window.isel(y=slice(row, row + _CELLS), x=slice(column, column + _CELLS))
                found = near.transpose("d", "y", "x").values.reshape(array.sizes["d"], -1)
                return np.asarray(found[:, np.isfinite(found).all(axis=0)])
    return np.empty((array.sizes["d"], 0))
