"""The tokens of one place at several dates, checked to be made alike on the same cells."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.comparing import check_same_place
from rs_embed.embedding.provenance import source_addresses, time_span
from rs_embed.embedding.result import Embedding
from rs_embed.errors import Note, SpecError
from rs_embed.files.formats import UNREADABLE
from rs_embed.files.grids import GRIDS
from rs_embed.geo.raster import valid_mask
from rs_embed.maps.formats.opening import restored
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.sampling import PlacedMap, placed_map

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Date:
    """The tokens of a date, and how they were made."""

    name: str
    placed: PlacedMap
    meta: Mapping[str, Any]

    def tokens(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return ``(rows, columns, d)`` of a block; NaN stands for no token."""
        values = self.placed.array.isel(y=rows, x=columns).values
        valid = valid_mask(values, self.placed.nodata)
        tokens: NDArray[np.float32] = np.where(valid, values, np.nan).transpose(1, 2, 0)
        return tokens

    def summary(self) -> dict[str, Any]:
        """Return what is recorded of the date, as JSON values."""
        days = dict.fromkeys(str(time.date()) for time in time_span(self.meta) if time)
        return {
            "days": " to ".join(days),
            "imagery": source_addresses(self.meta),
            "fingerprint": self.meta.get("fingerprint"),
        }

    def placed_as(self, values: NDArray[np.floating[Any]], name: str) -> xr.DataArray:
        """Return ``(y, x)`` values in the place of the tokens."""
        array = self.placed.array.isel(d=0, drop=True)
        found: xr.DataArray = array.copy(data=values.astype(np.float32)).rename(name)
        found = found.drop_vars(set(found.coords) - {"y", "x", "spatial_ref"})
        found.attrs = {"long_name": name}  # not the meta of a map
        placed: xr.DataArray = found.rio.write_nodata(np.nan)
        return placed


def date_of(given: Any, name: str) -> Date:
    """Return the tokens of a grid or a map; `SpecError` if they do not state how they were made."""
    if isinstance(given, str | os.PathLike):
        suffix = Path(given).suffix.lower()
        if suffix in GRIDS.suffixes and suffix not in MAPS.suffixes:
            given = Embedding.load(given)
    if isinstance(given, Embedding):
        if not given.is_grid:
            raise SpecError(
                f"got a pooled embedding of shape {given.shape} as the {name}, expected a grid: "
                "embed it with output='grid' (--output grid)"
            )
        return Date(name, placed_map(given.data), given.meta)
    placed = placed_map(given)
    text = placed.array.attrs.get("meta", placed.array.coords.get("meta"))
    try:
        return Date(name, placed, dict(json.loads(str(getattr(text, "values", text)))))
    except UNREADABLE as exc:
        raise SpecError(
            f"got tokens as the {name} that do not state how they were made, expected meta of "
            "rs_embed; pass the path or the Embedding, or keep the attributes of open_map "
            "(xarray.set_options(keep_attrs=True))"
        ) from exc


def check_alike(date: Date, first: Date) -> list[Note]:
    """Raise `SpecError` unless a date can be compared with the first one."""
    mine, expected = date.placed.grid, first.placed.grid
    on_it = mine.lies_on(expected) and mine.offset_in(expected) == (0, 0)
    if mine.shape != expected.shape or not on_it:
        for key in ("input_prep", "used_patch_size", "stride_px", "output"):
            one, other = date.meta.get(key), first.meta.get(key)
            if one != other and None not in (one, other):
                raise SpecError(
                    f"got a {date.name} of {_described(date)}, expected the cells of the "
                    f"{first.name}: {_described(first)}; they were made with {key}={one!r} and "
                    f"{other!r}: embed both in the same way"
                )
        raise SpecError(
            f"got a {date.name} of {_described(date)}, expected the cells of the {first.name}: "
            f"{_described(first)}; embed both dates on the same pixels: the same spatial= and "
            "fetch= of a backend, or own imagery that is cut to one extent (gdalwarp -t_srs, -te, "
            "-tr) before it is embedded"
        )
    return check_same_place(date.meta, first.meta, (date.name, first.name))


def _described(date: Date) -> str:
    grid = date.placed.grid
    code = None if grid.crs is None else grid.crs.to_authority() or (grid.crs.name,)
    height, width = grid.shape
    left, top, step = grid.transform.c, grid.transform.f, grid.transform.a
    crs = ":".join(code or ("no CRS",))
    return f"{height} x {width} cells of {step:.9g} from {left:.10g}, {top:.10g} in {crs}"


def of_one_basis(dates: list[Date]) -> list[Date]:
    """Return whole tokens of maps that hold principal components of one basis."""
    bases = [date.placed.array.attrs.get("pca") for date in dates]
    if len(set(bases)) > 1:
        raise SpecError(
            "got principal components of different bases, expected tokens: each map has its own "
            "PCA; compare what they are restored to, in Python: change(restored(open_map(a)), "
            "restored(open_map(b)))"
        )
    if bases[0] is None:
        return dates
    return [Date(d.name, placed_map(restored(d.placed.array)), d.meta) for d in dates]
