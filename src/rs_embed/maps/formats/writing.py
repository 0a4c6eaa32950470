"""Write a finished map in the format that its name asks for, with a STAC item beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.errors import GridError
from rs_embed.maps.formats.cog import write_cog
from rs_embed.maps.formats.encoding import EncodingError, MapEncoding
from rs_embed.maps.formats.paths import check_map_place, item_path, size_bytes
from rs_embed.maps.formats.stac_item import has_time, write_item
from rs_embed.maps.formats.zarr import write_zarr

if TYPE_CHECKING:
    from rs_embed.maps.formats.content import MapContent


@dataclass(frozen=True)
class WrittenMap:
    """What was written.

    Attributes
    ----------
    path : Path
        The map.
    item : Path or None
        Its STAC item; None where the time of the imagery is not known.
    bytes_written : int
        Size of the map, bytes.
    error : EncodingError or None
        What its encoding costs, measured on this map; None where it costs nothing.
    """

    path: Path
    item: Path | None
    bytes_written: int
    error: EncodingError | None


def write_map(
    path: Path,
    content: MapContent,
    encoding: MapEncoding | None = None,
    *,
    when: datetime | None = None,
) -> WrittenMap:
    """Write a map as ``.zarr`` or ``.tif``, and its STAC item as ``<name>.json`` beside it.

    A map of that name is replaced once the new one is complete. The same content gives the same
    bytes. Where the time of the imagery is not known, no item is written.

    Parameters
    ----------
    path : Path
        File or folder to write.
    content : MapContent
        The map: north up, with a CRS.
    encoding : MapEncoding, optional
        How to store the tokens; float32 without a PCA if not given.
    when : datetime, optional
        Time of imagery that has none.

    Raises
    ------
    UnknownNameError
        If the suffix is not ``.zarr``, ``.tif`` or ``.tiff``.
    GridError
        If the grid has no CRS or is not north up.
    SpecError
        If the encoding does not suit the tokens.
    ExportError
        If the place cannot be written, or the disk is full.
    MissingDependencyError
        If a package of the extra is missing.
    """
    check_map_place(path)
    _check_grid(content)
    fitted = (encoding or MapEncoding()).fitted(content)
    write = write_zarr if path.suffix.lower() == ".zarr" else write_cog
    write(path, content, fitted)
    item: Path | None = item_path(path)
    if has_time(content.meta) or when is not None:
        write_item(item_path(path), path, content, fitted, when=when)
    else:
        item_path(path).unlink(missing_ok=True)
        item = None
    return WrittenMap(path, item, size_bytes(path), fitted.error)


def _check_grid(content: MapContent) -> None:
    transform = content.grid.transform
    if content.grid.crs is None:
        raise GridError("the map has no CRS, so its place on Earth is unknown; assign one")
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise GridError(f"got a map with transform {tuple(transform)[:6]}, expected north up")
