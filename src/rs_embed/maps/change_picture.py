"""A picture of change: both dates if their images are known, the distance, what is above noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from rs_embed.embedding.colours import colours
from rs_embed.embedding.quicklook import NODATA_GREY, stretched

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.maps.change import Change

_GAP_PX, _LINE_PX, _BAR_PX = 12, 22, 10


def render(change: Change, *, side_px: int) -> Image.Image:
    """Return the panels side by side, each ``side_px`` high, with captions and a scale."""
    distance = change.distance.values
    low, high = (float(v) for v in np.nanquantile(distance, [0.02, 0.98]))
    shown = _coloured(distance, low, high)
    panels = [("cosine distance; grey: no token", shown)]
    if change.floor is not None:
        unknown = np.isnan(change.ratio.values)[..., None]
        plain = np.where(change.above.values[..., None], shown, np.uint8(235))
        panels.append(("above the noise floor", np.where(unknown, np.uint8(NODATA_GREY), plain)))
    if change.images:
        flat = stretched(np.concatenate([image.reshape(-1, 3) for image in change.images]))
        parts = np.split(flat, [change.images[0].size // 3])
        days = [change.meta[name]["days"] or name for name in ("first", "second")]
        images = [part.reshape(im.shape) for part, im in zip(parts, change.images, strict=True)]
        panels = [*zip(days, images, strict=True), *panels]
    height, width = distance.shape
    size = max(round(side_px * width / height), 1), side_px
    step = size[0] + _GAP_PX
    total = (step * len(panels) - _GAP_PX, side_px + 2 * _LINE_PX + _BAR_PX)
    canvas = Image.new("RGB", total, "white")
    draw = ImageDraw.Draw(canvas)
    for number, (caption, pixels) in enumerate(panels):
        sharp = pixels.shape[:2] == distance.shape
        how = Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS
        canvas.paste(Image.fromarray(pixels).resize(size, how), (number * step, _LINE_PX))
        draw.text((number * step + 2, 4), caption, fill="black")
    left, top = 2 * step * bool(change.images), _LINE_PX + side_px + 4
    bar = np.tile(colours(np.linspace(0, 1, size[0])), (_BAR_PX, 1, 1))
    canvas.paste(Image.fromarray(bar), (left, top))
    draw.text((left + 2, top + _BAR_PX + 2), f"{low:.3g}", fill="black")
    right = (left + size[0] - 2, top + _BAR_PX + 2)
    draw.text(right, f"{high:.3g}", fill="black", anchor="ra")
    return canvas


def _coloured(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return ``(y, x, 3)`` colours of values between two, grey for NaN."""
    shares = (values - low) / (high - low or 1)
    known = np.isfinite(values)[..., None]
    return np.where(known, colours(np.nan_to_num(shares)), np.uint8(NODATA_GREY))
