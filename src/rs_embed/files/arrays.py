"""What an xarray object with CRS states: its grid, and the names, units and nodata of its bands."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ImageryError
from rs_embed.files.dates import moment_of
from rs_embed.files.rasters import nodata_value
from rs_embed.geo.bands import band_indexes, bands_of_wavelengths, canonical_band, doubtful_bands
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster, valid_mask
from rs_embed.geo.windows import common_window, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND_DIMS = ("band", "bands", "channel", "channels")
_WAVELENGTH = re.compile(r"wave_?lengths?|wl|lambda", re.IGNORECASE)
# Names that software gives to variables in place of those of the bands.
_NUMBERED = re.compile(r"band_?\d+", re.IGNORECASE)
_UNITS = {"scale_factor": 1, "add_offset": 0, "scales": 1, "offsets": 0}
_PER_BAND = ("long_name", "scales", "offsets", "nodatavals")
_ABOUT_BANDS = (*_PER_BAND, "scale_factor", "add_offset", "_FillValue")
# Lower numbers are positions of bands, or micrometres.
_LEAST_NM = 300


def is_xarray(given: object) -> bool:
    """Return whether an object is of xarray, which is imported only then."""
    return type(given).__module__.partition(".")[0] == "xarray"


def array_grid(given: Any) -> Grid:
    """Return the grid of an xarray object, north up; nothing is computed.

    Raises
    ------
    ImageryError
        If it is not a DataArray or Dataset with CRS and regular pixels.
    """
    y_dim, x_dim = _spatial_dims(given)
    return _grid(_from_north(given, y_dim), y_dim, x_dim)


def read_array(
    given: Any,
    bands: Sequence[str],
    window_in: Callable[[Grid], Grid],
    fill_value: float | None,
) -> Raster:
    """Return a DataArray or Dataset with CRS as a raster; see rioxarray for where it looks.

    Bands and window are picked before any value is computed. A band called ``alpha`` hides the
    pixels where it is 0. Parameters are those of `read_file`.

    Raises
    ------
    ImageryError
        If it has no CRS or regular pixels, its third dimension is not known to be bands, or a band
        is missing.
    """
    import xarray as xr

    y_dim, x_dim = _spatial_dims(given)
    placed = array_grid(given)
    if isinstance(given, xr.Dataset):
        images = [v for v in given.data_vars.values() if {y_dim, x_dim} <= set(v.dims)]
        if len(images) == 1 and images[0].ndim == 3:  # as xarray opens a GeoTIFF
            given = images[0]
        else:
            _check_one_grid(given, bands, {y_dim, x_dim})
    read = _of_dataset if isinstance(given, xr.Dataset) else _of_array
    layers = read(given, y_dim, x_dim)
    if layers.wavelengths and not any(layers.names):
        indexes = bands_of_wavelengths(layers.wavelengths, bands)
    else:
        indexes = band_indexes(layers.names, bands, f"the {type(given).__name__}")
    alpha = [at for at, name in enumerate(layers.names, 1) if str(name).lower() == "alpha"]
    alpha = [at for at in alpha if at not in indexes]
    picked = _from_north(layers.pick([at - 1 for at in (*indexes, *alpha)]), y_dim)
    window = window_in(placed)
    rows, columns = common_window(window, placed)
    values = picked.isel({y_dim: rows, x_dim: columns}).values
    values, hidden = values[: len(bands)], (values[len(bands) :] == 0).any(axis=0)
    stated = [layers.stated[at - 1] for at in indexes]
    nodata = nodata_value(_common(stated, "nodata"), fill_value)
    data, valid = padded(values, valid_mask(values, nodata) & ~hidden, placed, window)
    source: dict[str, Any] = {
        "xarray": str(getattr(given, "name", None) or ""),
        "resampling": "none",
    }
    if (moment := array_time(given)) is not None:
        source["acquired"] = [moment.isoformat()] * 2
    doubt = doubtful_bands(layers.names)
    notes = layers.notes if doubt is None else (*layers.notes, doubt)
    units = _common(stated, "units")
    return Raster(data, valid, tuple(bands), window, units, source, notes)


def _check_one_grid(dataset: Any, bands: Sequence[str], dims: set[Any]) -> None:
    """Raise `ImageryError` if a wanted band of a Dataset is on another grid than the others."""
    wanted = {canonical_band(band) for band in bands}
    layers = [name for name, variable in dataset.data_vars.items() if variable.ndim > 1]
    named = [name for name in layers if canonical_band(str(name)) in wanted]
    away = {name: dataset[name].dims for name in named if not dims <= set(dataset[name].dims)}
    if away and len(away) < len(named):
        (name, (*_, y, x)), *_ = away.items()
        like = next(other for other in named if other not in away)
        raise ImageryError(
            f"got a Dataset with bands on two grids: {away} beside {dataset[like].dims} of {like}; "
            f"bring them to one: band = dataset[{name!r}].rio.set_spatial_dims({x!r}, {y!r}).rio."
            f"reproject_match(dataset[{like!r}]); dataset.drop_dims({(y, x)}).assign({name}=band)"
        )


def array_time(given: Any) -> datetime | None:
    """Return the time in the coordinate ``time``, if that is a single one, in UTC."""
    if "time" not in given.coords or given.coords["time"].size != 1:
        return None
    value = given.coords["time"].values.reshape(())
    if value.dtype.kind != "M" or np.isnat(value):
        return None
    return moment_of(str(np.datetime_as_string(value, unit="s")))


@dataclass(frozen=True)
class _Stated:
    """What is stated about a band: nodata, and (scale, offset) of reflectance."""

    nodata: float | None = None
    units: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class _Layers:
    """The bands of an xarray object, before any is picked."""

    names: Sequence[str | None]
    stated: Sequence[_Stated]
    pick: Callable[[list[int]], Any]  # positions from 0 -> DataArray (band, y, x)
    wavelengths: Sequence[float] = ()  # nm; used where bands have no names
    notes: tuple[str, ...] = ()


def _common(stated: Sequence[_Stated], about: str) -> Any:
    """Return what is stated about all bands alike."""
    values = [getattr(each, about) for each in stated]
    if len({repr(value) for value in values}) > 1:
        raise ImageryError(
            f"the bands state different {about} {values}, expected one for all; bring them to one "
            "first"
        )
    return values[0]


def _of_dataset(dataset: Any, y_dim: Any, x_dim: Any) -> _Layers:
    """Return the variables of a Dataset as bands.

    xarray moves the attributes of an array to the Dataset when it makes variables of its bands.
    """
    of_all = {name: dataset.attrs[name] for name in _ABOUT_BANDS if name in dataset.attrs}
    variables = {
        name: variable.assign_attrs({**of_all, **variable.attrs})
        for name, variable in dataset.data_vars.items()
        if {y_dim, x_dim} <= set(variable.dims)
    }
    for name, variable in variables.items():
        if variable.ndim != 2:
            raise ImageryError(
                f"got a Dataset whose variable {name!r} has the dimensions {variable.dims}, "
                f"expected {y_dim} and {x_dim}; select one of each other, e.g. .isel(time=0)"
            )
    names: list[str | None] = []
    stated, notes = [], dict[str, None]()
    for name, variable in variables.items():
        number = np.array([name]) if isinstance(name, Integral) else None
        text = None if number is not None or _NUMBERED.fullmatch(str(name)) else [str(name)]
        found, of_variable, left_out = _bands(variable, text, number, 1)
        names.append(found[0] or str(dataset[name].attrs.get("long_name", name)))
        stated += of_variable
        notes |= dict.fromkeys(left_out)

    def pick(positions: list[int]) -> Any:
        chosen = dataset[[list(variables)[at] for at in dict.fromkeys(positions)]]
        return chosen.to_dataarray("band").transpose("band", y_dim, x_dim)

    return _Layers(names, stated, pick, notes=tuple(notes))


def _of_array(array: Any, y_dim: Any, x_dim: Any) -> _Layers:
    """Return the bands of a DataArray along its third dimension."""
    others = [dim for dim in array.dims if dim not in (x_dim, y_dim)]
    if len(others) != 1:
        raise ImageryError(
            f"got a DataArray with dimensions {array.dims}, expected exactly one besides y and x "
            "(the bands); select one date, or drop dimensions of length 1 with array.squeeze()"
        )
    (dim,) = others
    texts, numbers = _labels(array, dim)
    wavelengths = _wavelengths(array, dim)
    if texts is None and not wavelengths and str(dim).lower() not in _BAND_DIMS:
        shown = "" if numbers is None else f" ({', '.join(map(str, numbers[:6]))})"
        raise ImageryError(
            f"got a DataArray whose third dimension is {str(dim)!r}{shown}, expected the bands; "
            f"select one with array.isel({dim}=...), or if these are the bands, name them: "
            f"array.assign_coords({dim}=['B4', 'B3', 'B2'])"
        )
    count = array.sizes[dim]
    names, stated, notes = _bands(array, texts, numbers, count)
    if (
        numbers is not None
        and not (any(names) or wavelengths)
        and not np.array_equal(np.sort(numbers), np.arange(1, count + 1))
    ):
        shown = ", ".join(map(str, numbers[:6]))
        notes.append(f"the bands {shown} have no names, and were taken in their order")

    def pick(at: list[int]) -> Any:
        return array.transpose(dim, y_dim, x_dim).isel({dim: at})

    return _Layers(names, stated, pick, wavelengths, tuple(notes))


def _bands(
    array: Any, texts: list[str] | None, numbers: NDArray[Any] | None, count: int
) -> tuple[Sequence[str | None], list[_Stated], list[str]]:
    """Return names and units of an array's bands, and notes on attributes that were not used.

    Attributes hold a value for each band of the file, and stay as they are while bands are
    selected, reordered or renamed.
    """
    positions = _positions(texts, numbers, array.attrs.get("long_name"), count)
    per_band: dict[str, list[Any]] = {}
    notes = []
    for name in _PER_BAND:
        values = array.attrs.get(name)
        if not isinstance(values, list | tuple) or (name == "long_name" and texts is not None):
            continue
        if positions is not None and all(at < len(values) for at in positions):
            per_band[name] = [values[at] for at in positions]
        elif len(values) == count and texts is not None:
            per_band[name] = list(values)
        elif len(values) == count and name == "long_name" and numbers is None:
            raise ImageryError(
                f"got bands without coordinate, and the attribute long_name={tuple(values)!r}, "
                "which stays as it is when bands are reordered or joined; say which they are: "
                "array.assign_coords(band=['B4', 'B3', 'B2'])"
            )
        else:
            notes.append(
                f"the {len(values)} values of the attribute {name!r} of the {type(array).__name__} "
                "cannot be assigned to its bands, so they were not used"
            )
    described = [str(name) for name in per_band.get("long_name", ())]
    names: Sequence[str | None] = texts or described or [None] * count
    listed = per_band.get("nodatavals") or [declared_nodata(array)] * count
    scales, offsets = per_band.get("scales", [1] * count), per_band.get("offsets", [0] * count)
    stated = [
        _Stated(nodata, _units(array, scale, offset))
        for nodata, scale, offset in zip(listed, scales, offsets, strict=True)
    ]
    return names, stated, notes


def _labels(array: Any, dim: Any) -> tuple[list[str] | None, NDArray[Any] | None]:
    """Return the names that the coordinate of the bands holds, or its values where not text."""
    along = [n for n in (dim, *_BAND_DIMS) if n in array.coords and array[n].dims == (dim,)]
    if not along:
        return None, None
    values = array[along[0]].values
    texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    if not all(isinstance(text, str) for text in texts):
        whole = values.dtype.kind == "f" and (values == values.round()).all()
        return None, values.astype(int) if whole else values
    if all(text.isdecimal() for text in texts):
        return None, np.array([int(text) for text in texts])
    return texts, None


def _positions(
    texts: list[str] | None, numbers: NDArray[Any] | None, long_names: object, count: int
) -> list[int] | None:
    """Return where the bands are in attributes of the file, from 0; None if nothing says so.

    rioxarray numbers the bands of a file from 1. Bands with names are at their `long_name`.
    """
    if numbers is not None and np.array_equal(numbers, np.arange(count)):
        return list(range(count)) if _length(long_names) in (None, count) else None
    if numbers is not None and numbers.dtype.kind in "iu" and (numbers >= 1).all():
        return [int(number) - 1 for number in numbers] if len(set(numbers)) == count else None
    if texts is not None and isinstance(long_names, list | tuple):
        named = [canonical_band(str(name)) for name in long_names]
        found = [canonical_band(text) for text in texts]
        return [named.index(name) for name in found] if set(found) <= set(named) else None
    return None


def _length(values: object) -> int | None:
    return len(values) if isinstance(values, list | tuple) else None


def _wavelengths(array: Any, dim: Any) -> list[float]:
    """Return the wavelengths of the bands in nm, if they are given in place of names.

    They are a coordinate of that name or with such units, or numbers that cannot be positions.
    """
    for name, coordinate in array.coords.items():
        if coordinate.dims != (dim,) or coordinate.dtype.kind not in "iuf":
            continue
        units = str(coordinate.attrs.get("units", "")).lower()
        stated = re.fullmatch(r"(nm|nano.*)|(um|µm|μm|micro.*)", units)
        is_numbering = name == dim and str(dim).lower() in _BAND_DIMS and not stated
        values = coordinate.values.astype(float)
        if is_numbering and (values < _LEAST_NM).all() and (values == values.round()).all():
            continue
        if not (stated or is_numbering or _WAVELENGTH.fullmatch(str(name))):
            continue
        in_nm = values if stated is None or stated[1] else values * 1000
        if stated is None and (values < _LEAST_NM).all():
            in_nm = values * 1000
        return [float(value) for value in in_nm]
    return []


def _units(array: Any, scale: float, offset: float) -> tuple[float, float] | None:
    """Return (scale, offset) of CF's attributes, or else those given; None for 1 and 0.

    Where xarray has decoded the values, and so moved the attributes to the encoding, they are
    reflectance.
    """
    stated = array.attrs
    if array.dtype.kind == "f" and not set(_UNITS) & set(stated):
        decoded = [array.encoding.get(name, identity) for name, identity in _UNITS.items()]
        if any(np.any(np.not_equal(d, i)) for d, i in zip(decoded, _UNITS.values(), strict=True)):
            return 1.0, 0.0
    try:
        units = (
            float(np.asarray(stated.get("scale_factor", scale)).reshape(())),
            float(np.asarray(stated.get("add_offset", offset)).reshape(())),
        )
    except (TypeError, ValueError) as exc:
        raise ImageryError(f"got scale_factor or add_offset that are not numbers: {exc}") from exc
    return None if units == (1, 0) else units


def declared_nodata(array: Any) -> float | None:
    """Return the value that marks nodata in an `xarray.DataArray`; None if it declares none.

    In numbers with a fraction an encoded value was replaced by NaN; whole numbers cannot hold that,
    so it still marks nodata where no other value does.
    """
    try:
        nodata = array.rio.nodata
    except (ValueError, OverflowError) as exc:
        if "_FillValue" in array.encoding:  # whole numbers with an encoded value and no other
            return float(array.encoding["_FillValue"])
        raise ImageryError(
            f"got a nodata value that {array.dtype} pixels cannot have ({exc}); correct the "
            "attributes of the array: _FillValue, missing_value or nodata"
        ) from exc
    nodata = array.rio.encoded_nodata if nodata is None else nodata
    return None if nodata is None else float(nodata)


def _spatial_dims(given: Any) -> tuple[Any, Any]:
    """Return the names of the dimensions y and x of an object with CRS; refuse others."""
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr
    from rioxarray.exceptions import RioXarrayError

    if not isinstance(given, xr.DataArray | xr.Dataset):
        raise ImageryError(
            f"got an xarray {type(given).__name__}, expected a DataArray or a Dataset of bands"
        )
    kind = type(given).__name__
    try:
        x_dim, y_dim, crs = given.rio.x_dim, given.rio.y_dim, given.rio.crs
    except RioXarrayError as exc:
        raise ImageryError(
            f"got a {kind} with dimensions {tuple(given.dims)} ({exc}), expected band, y and x"
        ) from exc
    if crs is None:
        raise ImageryError(
            f"got a {kind} without CRS, expected a georeferenced one; set it with "
            ".rio.write_crs('EPSG:...')"
        )
    for dim in (x_dim, y_dim):
        _check_regular(given, dim)
    return y_dim, x_dim


def _from_north(array: Any, y_dim: Any) -> Any:
    """Return the array with row 0 in the north."""
    if float(array[y_dim][0]) < float(array[y_dim][-1]):
        return array.isel({y_dim: slice(None, None, -1)})
    return array


def _grid(array: Any, y_dim: Any, x_dim: Any) -> Grid:
    crs, shape = known_crs(array.rio.crs.to_wkt()), (array.sizes[y_dim], array.sizes[x_dim])
    return Grid(crs, array.rio.transform(recalc=True), shape)


def _check_regular(array: Any, dim: str) -> None:
    if dim not in array.coords or array.sizes[dim] < 2:
        raise ImageryError(
            f"got a DataArray without coordinates along {dim!r} (or only one pixel), expected "
            "regular pixel centres; rioxarray leaves them out of files whose grid is rotated: pass "
            "the path, or warp the file first"
        )
    centres = array[dim].values
    if centres.dtype.kind not in "iuf":
        raise ImageryError(f"got {centres.dtype} coordinates along {dim!r}, expected numbers")
    steps = np.diff(centres.astype(float))
    if not abs(steps - steps.mean()).max() <= 0.01 * abs(steps.mean()):
        raise ImageryError(
            f"got a DataArray whose {dim!r} steps run from {steps.min():g} to {steps.max():g}, "
            "expected regular pixels; resample it first"
        )
