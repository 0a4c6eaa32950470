"""Write a finished map in the format of its suffix, with a STAC Item beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rs_embed.embedding.stac import has_time, item_path
from rs_embed.errors import GridError
from rs_embed.files.formats import Formats
from rs_embed.maps.formats.encoding import EncodingError, MapEncoding
from rs_embed.maps.formats.map_format import MapFormat, map_meta
from rs_embed.maps.formats.paths import size_bytes
from rs_embed.maps.formats.stac_item import write_item
from rs_embed.maps.formats.table import MAPS

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
        Its STAC Item; None if the time of the imagery is not known.
    bytes_written : int
        Size of the map, bytes.
    error : EncodingError or None
        The error of the stored values, measured on this map; None for float32 without a PCA.
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
    formats: Formats[MapFormat] = MAPS,
) -> WrittenMap:
    """Write a map in the format of its suffix, and its STAC Item as ``<name>.json`` beside it.

    A map of that name is replaced once the new one is complete. The same content gives the same
    bytes. The default ``encoding`` is float32 without a PCA. ``when`` is the time of imagery whose
    meta has none; if it is not known, no item is written.

    Raises
    ------
    UnknownNameError
        If no format has the suffix.
    GridError
        If the grid has no CRS or is not north up.
    SpecError
        If the encoding does not suit the tokens.
    ExportError
        If the map cannot be written there, or the disk is full.
    MissingDependencyError
        If a package of the format is not installed.
    """
    chosen = formats.of(path)
    chosen.check(path)
    transform = content.grid.transform
    if content.grid.crs is None:
        raise GridError("the map has no CRS, so its place on Earth is unknown; assign one")
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise GridError(f"got a map with transform {tuple(transform)[:6]}, expected north up")
    fitted = (encoding or MapEncoding()).fitted(content)
    chosen.write(path, content, fitted)
    item = item_path(path)
    known = has_time(content.meta) or when is not None
    if known:
        meta = map_meta(content, fitted)
        write_item(path, chosen.media_type, content.grid, meta, scales=fitted.scales, when=when)
    else:
        item.unlink(missing_ok=True)
    return WrittenMap(path, item if known else None, size_bytes(path), fitted.error)
