"""Small pictures of places, many in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from rs_embed.embedding.quicklook import NODATA_GREY, contrast
from rs_embed.errors import ImageryWarning, Note, RsEmbedError
from rs_embed.parallel.cores import cores
from rs_embed.parallel.pipeline import ordered
from rs_embed.tables.picture import image_of_place, is_chip

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE_PX, _COLUMNS = 64, 32
_A_SHEET = _COLUMNS**2
# More take long to read.
_MOST = 10_000


def thumbnails_of(
    metas: Sequence[Mapping[str, Any]], imagery: Any
) -> tuple[NDArray[np.uint8] | None, list[Note]]:
    """Return ``(N, 64, 64, 3)`` of what the model saw of places, with one contrast, and notes.

    None where their imagery is not on this machine, or there are more than 10,000.

    Raises
    ------
    RsEmbedError
        If ``imagery`` is stated and none of the places can be read from it.
    """
    if len(metas) > _MOST:
        message = f"the page has no pictures of places, since these are {len(metas)}: more than "
        return None, [Note(f"{message}{_MOST}", ImageryWarning)]
    pixels = _pixels(metas[0], imagery)
    if pixels is None:
        return None, []
    found = np.full((len(metas), _SIDE_PX, _SIDE_PX, 3), NODATA_GREY, np.uint8)
    known, reason = np.zeros(len(metas), np.bool_), None
    read = partial(_thumbnail, pixels=pixels)
    for number, one in enumerate(ordered(metas, read, workers=cores(), ahead=2 * cores())):
        if isinstance(one, RsEmbedError):
            reason = reason or one
        else:
            found[number], known[number] = one, True
    if reason is None:
        return contrast(found)[found], []
    if imagery is not None and not known.any():
        raise reason
    message = f"the page has no picture of {np.count_nonzero(~known)} places: {reason}"
    if not known.any():
        return None, [Note(message, ImageryWarning)]
    found[known] = contrast(found[known])[found[known]]
    return found, [Note(message, ImageryWarning)]


def save_thumbnails(thumbnails: NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    """Write sheets of 32 x 32 pictures to ``folder/data``; return what the page reads."""
    files: list[str] = []
    for start in range(0, len(thumbnails), _A_SHEET):
        sheet = np.full((_A_SHEET, *thumbnails.shape[1:]), NODATA_GREY, np.uint8)
        part = thumbnails[start : start + _A_SHEET]
        sheet[: len(part)] = part
        grid = sheet.reshape(_COLUMNS, _COLUMNS, _SIDE_PX, _SIDE_PX, 3).swapaxes(1, 2)
        files.append(f"data/thumbs-{len(files)}.jpg")
        picture = Image.fromarray(grid.reshape(_COLUMNS * _SIDE_PX, _COLUMNS * _SIDE_PX, 3))
        picture.save(folder / files[-1], quality=85)
    return {"files": files, "size": _SIDE_PX, "columns": _COLUMNS, "rows": _COLUMNS}


def _pixels(meta: Mapping[str, Any], imagery: Any) -> dict[str, Any] | None:
    """Return where places are read, as for `inspect_input`; None if that needs a network."""
    if imagery is not None:
        return {"imagery": imagery}
    if is_chip(meta):
        return {}
    if meta.get("backend") == "sample":
        return {"backend": "sample"}
    path = (meta.get("source") or {}).get("path")
    return {"imagery": path} if meta.get("backend") == "imagery" and path else None


def _thumbnail(
    meta: Mapping[str, Any], pixels: Mapping[str, Any]
) -> NDArray[np.uint8] | RsEmbedError:
    try:
        image = Image.fromarray(image_of_place(meta, pixels))
    except RsEmbedError as exc:
        return exc
    return np.asarray(ImageOps.fit(image, (_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS))
