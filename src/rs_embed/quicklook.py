"""A picture of a token grid: its first three principal components beside the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GAP_PX = 12
_NODATA_GREY = 128


def principal_components(tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the first three principal components of a grid as colours.

    Parameters
    ----------
    tokens : numpy.ndarray
        ``(d, y, x)`` float32, NaN where there is none.

    Returns
    -------
    numpy.ndarray
        ``(y, x, 3)`` uint8: red, green, blue are the components in falling order of variance,
        each stretched from its 2nd to its 98th percentile; grey where there is no token. The
        sign of a component is such that its largest loading is positive.
    """
    depth, height, width = tokens.shape
    flat = tokens.reshape(depth, -1).T.astype(np.float64)  # N d
    known = np.isfinite(flat).all(axis=1)
    colours = np.full((height * width, 3), _NODATA_GREY, dtype=np.uint8)
    if known.any():
        centred = flat[known] - flat[known].mean(axis=0)
        _, _, loadings = np.linalg.svd(centred, full_matrices=False)
        loadings = loadings[:3]
        strongest = np.abs(loadings).argmax(axis=1)
        loadings *= np.sign(loadings[np.arange(len(loadings)), strongest])[:, None]
        scores = centred @ loadings.T  # N 3
        low, high = np.percentile(scores, [2, 98], axis=0)
        unit = (scores - low) / np.where(high > low, high - low, 1)
        colours[known, : scores.shape[1]] = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    return colours.reshape(height, width, 3)


def render(
    tokens: NDArray[np.float32], image: NDArray[np.uint8] | None, *, side_px: int, stretch: bool
) -> Image.Image:
    """Return the picture: the image that the model saw, then the components, at equal size.

    Parameters
    ----------
    tokens : numpy.ndarray
        ``(d, y, x)`` float32.
    image : numpy.ndarray or None
        ``(height, width, 3)`` uint8; left out if None.
    side_px : int
        Height of the picture's panels, pixels.
    stretch : bool
        Whether the image is brightened to its own 1st to 99th percentile for the eye.
    """
    panels = [(Image.fromarray(principal_components(tokens)), Image.Resampling.NEAREST)]
    if image is not None:
        shown = _stretched(image) if stretch else image
        panels.insert(0, (Image.fromarray(shown), Image.Resampling.LANCZOS))
    ratio = tokens.shape[2] / tokens.shape[1]
    size = (max(round(side_px * ratio), 1), side_px)
    captions = ["what the model saw", "first 3 principal components"][-len(panels) :]
    caption_px = 22
    canvas = Image.new(
        "RGB", ((size[0] + _GAP_PX) * len(panels) - _GAP_PX, size[1] + caption_px), "white"
    )
    draw = ImageDraw.Draw(canvas)
    for number, ((panel, resampling), caption) in enumerate(zip(panels, captions, strict=True)):
        left = number * (size[0] + _GAP_PX)
        canvas.paste(panel.resize(size, resampling), (left, caption_px))
        draw.text((left + 2, 4), caption, fill="black")
    return canvas


def _stretched(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    low, high = np.percentile(image, [1, 99])
    unit = (image.astype(np.float64) - low) / max(high - low, 1)
    stretched: NDArray[np.uint8] = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    return stretched
