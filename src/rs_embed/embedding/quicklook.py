"""Pictures for the eye: a token grid beside its image, and the image that a model would see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GAP_PX = 12
NODATA_GREY = 128


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
    colours = np.full((height * width, 3), NODATA_GREY, dtype=np.uint8)
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
        shown = stretched(image) if stretch else image
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


def render_input(
    image: NDArray[np.uint8],
    tiles: Sequence[tuple[int, int, int, int]],
    token_valid: NDArray[np.bool_],
    captions: Sequence[str],
    *,
    side_px: int = 512,
) -> Image.Image:
    """Return the picture of a model's input: as it is seen, brightened with tiles, histogram.

    Parameters
    ----------
    image : numpy.ndarray
        ``(height, width, 3)`` uint8.
    tiles : sequence of tuple of int
        Row, column, height, width of each, pixels of ``image``; outlined in yellow.
    token_valid : numpy.ndarray
        ``(rows, columns)`` bool; tokens that do not count are covered in grey.
    captions : sequence of str
        Lines of text below.
    side_px : int
        Longer side of the image in the picture, pixels.
    """
    scale = side_px / max(image.shape[:2])
    bright = brightened(image, side_px)
    size = bright.size
    panels = [Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)]
    cover = Image.fromarray(np.where(token_valid, 0, 200).astype(np.uint8))
    grey = Image.new("RGB", size, (NODATA_GREY,) * 3)
    bright = Image.composite(grey, bright, cover.resize(size, Image.Resampling.NEAREST))
    draw = ImageDraw.Draw(bright)
    for row, column, height, width in tiles:
        edges = (column, row, column + width, row + height)
        left, top, right, bottom = (round(edge * scale) for edge in edges)
        draw.rectangle((left, top, right - 1, bottom - 1), outline="yellow")
    panels += [bright, _histogram(image, side_px)]
    titles = ("as the model sees it", "brightened; tiles; grey: no token", "values, 0 to 255")
    caption_px, line_px = 22, 16
    height = max(panel.height for panel in panels) + caption_px + line_px * len(captions) + 6
    width = sum(panel.width for panel in panels) + _GAP_PX * (len(panels) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for panel, title in zip(panels, titles, strict=True):
        canvas.paste(panel, (left, caption_px))
        draw.text((left + 2, 4), title, fill="black")
        left += panel.width + _GAP_PX
    top = max(panel.height for panel in panels) + caption_px + 6
    for number, line in enumerate(captions):
        draw.text((2, top + number * line_px), line, fill="black")
    return canvas


def brightened(image: NDArray[np.uint8], side_px: int) -> Image.Image:
    """Return ``(height, width, 3)`` uint8 as a picture, stretched, its longer side ``side_px``."""
    picture = Image.fromarray(stretched(image))
    scale = side_px / max(picture.size)
    size = [max(round(side * scale), 1) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _histogram(image: NDArray[np.uint8], side_px: int) -> Image.Image:
    """Return the curves of how often each value occurs in red, green and blue."""
    picture = Image.new("RGB", (side_px, side_px), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, side_px - 1, side_px - 1), outline="lightgrey")
    counts = [np.bincount(image[..., band].ravel(), minlength=256) for band in range(3)]
    highest = max(int(count.max()) for count in counts)
    step = (side_px - 3) / 255
    for count, colour in zip(counts, ("red", "green", "blue"), strict=True):
        heights = count / highest * (side_px - 8)
        points = [(1 + value * step, side_px - 2 - h) for value, h in enumerate(heights)]
        draw.line(points, fill=colour, width=2)
    return picture


def stretched(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image from black at its 1st percentile to white at its 99th."""
    low, high = np.percentile(image, [1, 99])
    unit = (image.astype(np.float64) - low) / max(high - low, 1)
    bright: NDArray[np.uint8] = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    return bright
