"""What a format of maps provides, and what all formats share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.stac import check_item
from rs_embed.errors import ExportError, SpecError
from rs_embed.files.formats import META_KEY, Format
from rs_embed.files.grids import north_up

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.maps.formats.content import MapContent
    from rs_embed.maps.formats.encoding import FittedEncoding

META_TAG = META_KEY.upper()


@dataclass(frozen=True, kw_only=True)
class MapFormat(Format):
    """A format of maps.

    Attributes
    ----------
    write : callable
        ``write(path, content, encoding)`` writes a `MapContent` with its `FittedEncoding`; the map
        appears whole or not at all (`paths.placed`).
    open : callable
        ``open(path)`` returns the map as `open_map` does, without reading its tokens;
        `ExportError` for other files.
    open_url : callable or None
        The same for the URL of an object store, if the format is read from there part by part.
    check_replaced : callable
        ``check_replaced(path)`` raises `ExportError` if there is something at ``path`` that is
        not a map of this format.
    scales : callable or None
        ``scales(path)`` returns the value of a step of each dimension of a map in int8; as
        ``open``, also of a URL if there is ``open_url``. None if the format stores no scales.
    room : float
        Bytes on the disk that writing takes at most, for each byte of stored values.
    opens : tuple of str
        Suffixes of files that ``open`` reads as well.
    sidecars : tuple of str
        What other software appends to the name for files that it reads together with a map.
    """

    write: Callable[[Path, MapContent, FittedEncoding], None]
    open: Callable[[Path], xr.DataArray]
    check_replaced: Callable[[Path], None]
    scales: Callable[[Path | str], NDArray[Any]] | None = None
    room: float = 1
    open_url: Callable[[str], xr.DataArray] | None = None
    opens: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()

    def check(self, path: Path) -> None:
        """Raise now what writing a map and its STAC Item would raise later."""
        self.check_replaced(path)
        check_item(path, "map")
        for sidecar in [] if path.exists() else self.beside(path):
            raise ExportError(
                f"cannot write {path}: {sidecar.name} beside it would be read with it; remove "
                "that, or choose another name"
            )
        self.require()

    def beside(self, path: Path) -> list[Path]:
        """Return the files that are read together with a map at ``path``."""
        beside = (path.with_name(f"{path.name}{sidecar}") for sidecar in self.sidecars)
        return [file for file in beside if file.is_file()]


def map_meta(content: MapContent, encoding: FittedEncoding) -> dict[str, Any]:
    """Return the meta of a map with ``encoding`` and ``grid``, which its file adds."""
    return {**content.meta, "grid": content.grid.to_json(), "encoding": encoding.to_json()}


def meta_text(content: MapContent, encoding: FittedEncoding) -> str:
    """Return `map_meta` as JSON text."""
    return json.dumps(map_meta(content, encoding), ensure_ascii=False)


def stored_encoding(meta: str) -> dict[str, Any]:
    """Return how a map was stored by its meta, JSON text; empty if that does not say so."""
    try:
        encoding = json.loads(meta)["encoding"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return encoding if isinstance(encoding, dict) else {}


def decoded_map(
    array: xr.DataArray, meta: str, pca: str | None, offsets: str | None
) -> xr.DataArray:
    """Return what `open_map` returns for a map; nothing is read.

    ``array`` is ``(d, y, x)``, NaN where there is no token, read by dask, with CRS and coordinates,
    and with ``d`` unless it has all dimensions; ``meta``, ``pca`` and ``offsets`` are JSON text.
    Raises `SpecError` if meta and array disagree, or the array is not on a grid.
    """
    encoding = stored_encoding(meta)
    if encoding.get("pca") and pca is None:
        raise SpecError(
            "got a map of principal components without their basis, expected rs_embed_pca (in a "
            "GeoTIFF the tag RS_EMBED_PCA); copy it from the original map"
        )
    values = north_up(array.astype(np.float32))
    if "d" not in values.coords:
        count = encoding.get("dimensions", values.sizes["d"])
        if values.sizes["d"] != count:
            raise SpecError(
                f"got {values.sizes['d']} of {count} dimensions, and nothing that tells which; "
                "keep the coordinate d, or the names of the bands ('dimension 0', ...)"
            )
        values = values.assign_coords(d=np.arange(count))
    what = "patch tokens" if pca is None else "principal components of patch tokens"
    texts = {"meta": meta, "pca": pca, "offsets": offsets}
    values["d"].attrs["long_name"] = "dimension" if pca is None else "component"
    values.attrs = {"long_name": what} | {k: v for k, v in texts.items() if v is not None}
    values.encoding = {"grid_mapping": array.rio.grid_mapping}
    stated: xr.DataArray = values.rio.write_nodata(float("nan"))
    return stated.rename("embedding")


def not_a_map(
    path: Path | str, reason: str, opener: str | None = None, options: str = ""
) -> ExportError:
    """Return the error for a file that is not a map.

    ``opener`` reads it nevertheless, and ``rs-embed map`` with ``options`` makes a map of it.
    """
    other = "" if opener is None else f"; other files open with {opener}"
    if options:
        other = f" (rs-embed map {options} makes one of it){other}"
    return ExportError(
        f"cannot read {path}: {reason}, expected one that embed_area or rs-embed map wrote{other}"
    )
