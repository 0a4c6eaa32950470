"""A picture of nearest neighbours: their images, or a map of where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from rs_embed.embedding.colours import colour
from rs_embed.embedding.drawing import one_line
from rs_embed.embedding.quicklook import NODATA_GREY, stretched
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Sizes, settle
from rs_embed.errors import ImageryWarning, Note, RsEmbedError, SpecError, give_warnings, some
from rs_embed.printable import excerpt
from rs_embed.settings import Settings
from rs_embed.specs import SPATIALS, TemporalSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE_PX, _GAP_PX, _LINE_PX = 176, 8, 13
_MAP_PX = 640


def meta_of(table: Any, row: int) -> dict[str, Any]:
    """Return all that a table knows of how the embedding of a row was made."""
    name = result_name("meta", table.frame)
    text = table.frame[name].iloc[row] if name in table.frame else None
    own = json.loads(text) if isinstance(text, str) else {}  # a column without any text is NaN
    return {**(getattr(table, "meta", None) or {}), **own}


def result_name(name: str, frame: Any) -> str:
    """Return the name of a column of results in a table of places, which may have one like it."""
    while f"emb_{name}" in frame:
        name = f"emb_{name}"
    return name


def of_images(
    places: Sequence[tuple[str, str, Mapping[str, Any]]], pixels: Mapping[str, Any]
) -> Image.Image:
    """Return a picture of places, all with the same stretch, so that they can be compared.

    Parameters
    ----------
    places : sequence of tuple
        A first and a second line of text, and the meta of the embedding.
    pixels : mapping
        Where they are read, as arguments of `inspect_input`.

    Raises
    ------
    RsEmbedError
        If none of the images can be read.
    """
    images, failed = {}, {}
    for number, (_, name, meta) in enumerate(places):
        try:
            images[number] = image_of_place(meta, pixels)
        except RsEmbedError as exc:
            failed[excerpt(name, 40)] = exc
    if failed:
        reason = next(iter(failed.values()))
        if not images:
            raise reason
        message = f"the picture has no image of {some([*failed])}: {reason}"
        give_warnings([Note(message, ImageryWarning)])
    bright = stretched(np.concatenate([image.reshape(-1, 3) for image in images.values()]))
    columns = int(np.ceil(np.sqrt(len(places))))
    width, height = _SIDE_PX + _GAP_PX, _SIDE_PX + _GAP_PX + 2 * _LINE_PX
    size = columns * width + _GAP_PX, -(-len(places) // columns) * height + _GAP_PX
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for number, (*lines, _) in enumerate(places):
        left, top = _GAP_PX + number % columns * width, _GAP_PX + number // columns * height
        panel = Image.new("RGB", (_SIDE_PX, _SIDE_PX), (NODATA_GREY,) * 3)
        if number in images:
            rows, across, _ = images[number].shape
            own, bright = np.split(bright, [rows * across])
            shown = Image.fromarray(own.reshape(rows, across, 3))
            shown = ImageOps.contain(shown, panel.size, Image.Resampling.LANCZOS)
            panel.paste(shown, ((_SIDE_PX - shown.width) // 2, (_SIDE_PX - shown.height) // 2))
        canvas.paste(panel, (left, top))
        for line, text in enumerate(lines):
            at = left, top + _SIDE_PX + 2 + line * _LINE_PX
            draw.text(at, one_line(text, _SIDE_PX), fill="black")
    return canvas


def image_of_place(meta: Mapping[str, Any], pixels: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the image of a place, ``(height, width, 3)`` uint8, as far as it was read."""
    place, period = dict(meta.get("spatial") or {}), meta.get("temporal")
    if "model" not in meta or not (place or is_chip(meta)):
        raise SpecError("got a table that does not state its places; leave out the imagery")
    asked = {"imagery": meta["source"]["path"]} if is_chip(meta) else dict(pixels)
    if place:
        asked["spatial"] = SPATIALS[place.pop("type")](**place)
    if period and "imagery" not in asked:
        asked.setdefault("temporal", TemporalSpec.range(period["start"], period["end"]))
    settings = Settings.from_environ()
    task = settle(
        meta["model"], output=None, input_prep="tile", min_valid=MIN_VALID, device="auto",
        options={}, settings=settings,
    )  # fmt: skip
    default = task.sizes()
    sizes = Sizes(
        meta.get("image_size", default.image_size), meta.get("used_patch_size", default.patch_size)
    )
    acquired = task.acquire(Source(**asked).resolved(settings), sizes)
    return task.look(acquired, sizes).seen.picture(task.plan.preparation)


def is_chip(meta: Mapping[str, Any]) -> bool:
    """Return whether an embedding is that of a whole image, which is read again."""
    source = meta.get("source") or {}
    return not meta.get("spatial") and isinstance(source.get("path"), str)


def around_first(lon: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the first longitude, and the difference of all from it: no jump at 180 degrees."""
    first = lon[np.isfinite(lon)][0]
    turned = lon - first
    return float(first), turned - 360 * np.round(turned / 360)


def of_points(
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    rows: Sequence[int],
    similarity: Sequence[float],
    query: int | None,
) -> Image.Image:
    """Return a map of places: the ``rows`` found numbered and coloured by similarity.

    The row of the query, if it is one of the places, is a red cross.
    """
    middle, turned = around_first(lon)
    west, south, east, north = (f(v) for f in (np.nanmin, np.nanmax) for v in (turned, lat))
    squeeze = max(float(np.cos(np.radians((south + north) / 2))), 0.01)
    scale = (_MAP_PX - 60) / max((east - west) * squeeze, north - south, 1e-9)
    across = _MAP_PX / 2 + (turned - (west + east) / 2) * squeeze * scale
    down = _MAP_PX / 2 - (lat - (south + north) / 2) * scale
    # Places without geometry are off the picture.
    at = np.nan_to_num(np.round(np.stack([across, down], axis=1)), nan=-99)

    canvas = Image.new("RGB", (_MAP_PX + 90, _MAP_PX + 2 * _LINE_PX), "white")
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, _MAP_PX - 1, _MAP_PX - 1), outline="grey")
    for left, top in np.unique(at, axis=0):
        draw.ellipse((left - 2, top - 2, left + 2, top + 2), "lightgrey")
    low, high = float(min(similarity)), float(max(similarity))
    for rank in range(len(rows), 0, -1):  # the most similar on top
        (left, top), share = at[rows[rank - 1]], (similarity[rank - 1] - low) / ((high - low) or 1)
        draw.ellipse((left - 6, top - 6, left + 6, top + 6), colour(share), "black")
        draw.text((left + 8, top - 6), str(rank), fill="black")
    if query is not None:
        left, top = at[query]
        for rise in (-8, 8):
            draw.line((left - 8, top - rise, left + 8, top + rise), "red", 3)
    for step in range(200):
        draw.line((_MAP_PX + 16, 260 - step, _MAP_PX + 32, 260 - step), colour(step / 199))
    draw.text((_MAP_PX + 16, 40), "similarity", fill="black")
    for value, top in ((high, 56), (low, 254)):
        draw.text((_MAP_PX + 38, top), f"{value:.3f}", fill="black")
    west, east = ((edge + middle + 180) % 360 - 180 for edge in (west, east))
    extent = f"longitude {west:.6g} to {east:.6g}, latitude {south:.6g} to {north:.6g}"
    draw.text((4, _MAP_PX + 4), f"{extent}; red cross: the query; numbers: rank", fill="black")
    return canvas
