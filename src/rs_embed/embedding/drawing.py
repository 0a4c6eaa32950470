"""The furniture of figures: text, legends, hatching, scale bars and arrows to the north."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rs_embed.printable import excerpt, printable

INK, ALARM = (20, 20, 20), (178, 24, 24)
# UTM's north differs from true north by at most this within a zone; beyond, maps need an arrow.
NORTH_UP_DEG = 3.0


@lru_cache
def font(size_px: int) -> Any:
    """Return Pillow's own font, which every machine has."""
    return ImageFont.load_default(size_px)


def plain(text: str, most: int = 300) -> str:
    """Return text in the letters that Pillow's own font has: ASCII and the degree sign."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    shown = excerpt(printable("".join(letters)), most)
    return "".join(c if c == "°" else c.encode("ascii", "backslashreplace").decode() for c in shown)


def one_line(content: str, width_px: int, size_px: int = 10) -> str:
    """Return text in these letters that is not wider; its end is cut off."""
    shown, letters = plain(content), font(size_px)
    most = len(shown)
    while most > 1 and letters.getlength(shown[:most]) > width_px:
        most -= 1
    return shown if most == len(shown) else f"{shown[: most - 3]}..."


def text(content: str, width_px: int, size_px: int, ink: tuple[int, ...] = INK) -> Image.Image:
    """Return text as a picture of that width, in as many lines as it needs."""
    letters, shown = font(size_px), plain(content)
    most = len(shown) or 1
    while most > 1 and any(letters.getlength(x) > width_px for x in textwrap.wrap(shown, most)):
        most -= 1
    lines = textwrap.wrap(shown, most)
    line_px = round(size_px * 1.3)
    picture = Image.new("RGB", (width_px, line_px * max(len(lines), 1)), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((0, number * line_px), line, fill=ink, font=letters)
    return picture


def stacked(pictures: Sequence[Image.Image], gap_px: int) -> Image.Image:
    """Return pictures below each other."""
    size = max(p.width for p in pictures), sum(p.height + gap_px for p in pictures) - gap_px
    canvas, top = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + gap_px
    return canvas


def beside(pictures: Sequence[Image.Image], gap_px: int) -> Image.Image:
    """Return pictures next to each other, their tops on one line."""
    size = sum(p.width + gap_px for p in pictures) - gap_px, max(p.height for p in pictures)
    canvas, left = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        canvas.paste(picture, (left, 0))
        left += picture.width + gap_px
    return canvas


def hatched(size: tuple[int, int], period_px: int = 8) -> Image.Image:
    """Return diagonal lines, which stand for what is not known."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    shades = np.where((columns + rows) % period_px < period_px // 4, 150, 235)
    return Image.fromarray(shades.astype(np.uint8)).convert("RGB")


def legend(
    items: Sequence[tuple[Image.Image | str, str]], width_px: int, size_px: int
) -> Image.Image:
    """Return entries side by side, each a colour or a small picture, and its meaning."""
    rows: list[list[Image.Image]] = [[]]
    for swatch, meaning in items:
        shown = plain(meaning)
        label = text(shown, min(math.ceil(font(size_px).getlength(shown)), width_px), size_px)
        if isinstance(swatch, str):
            swatch = Image.new("RGB", (size_px, size_px), swatch)
        entry = beside([swatch, label], size_px // 3)
        if rows[-1] and sum(e.width + size_px for e in rows[-1]) + entry.width > width_px:
            rows.append([])
        rows[-1].append(entry)
    return stacked([beside(row, size_px) for row in rows], size_px // 4)


def scale_length(longest_m: float) -> tuple[float, str]:
    """Return the length of a scale bar that is not longer, metres, and its label."""
    power = 10.0 ** math.floor(math.log10(longest_m))
    metres = next(step * power for step in (5, 2, 1) if step * power <= longest_m * (1 + 1e-9))
    return metres, f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def scale_bar(
    metres_per_px: float, width_px: int, size_px: int, north_deg: float = 0.0
) -> Image.Image:
    """Return a scale bar of at most a third of a width, and north's arrow where it is not up.

    Parameters
    ----------
    metres_per_px : float
        Metres on the ground along one pixel of the picture above.
    width_px, size_px : int
        Width of that picture, and size of the letters.
    north_deg : float
        Direction of north from the top of the picture, clockwise.
    """
    metres, shown = scale_length(metres_per_px * width_px / 3)
    length, turned = round(metres / metres_per_px), abs(north_deg) > NORTH_UP_DEG
    line_px, thick = round(size_px * (2 if turned else 1.3)), max(size_px // 6, 2)
    label_px = math.ceil(font(size_px).getlength(shown))
    most_px = length + label_px + 5 * size_px
    picture = Image.new("RGB", (max(width_px, most_px), line_px), "white")
    draw = ImageDraw.Draw(picture)
    middle = line_px // 2
    draw.rectangle((0, middle - thick // 2, length, middle + thick - thick // 2 - 1), fill=INK)
    for at in (0, length - 1):
        draw.rectangle((at, middle - size_px // 3, at + 1, middle + size_px // 3), fill=INK)
    draw.text((length + size_px // 2, middle), shown, fill=INK, font=font(size_px), anchor="lm")
    if turned:
        centre = length + label_px + 2 * size_px, middle
        _arrow(draw, centre, line_px / 2 - 1, north_deg)
        draw.text((centre[0] + size_px + 4, middle), "N", fill=INK, font=font(size_px), anchor="lm")
    return picture


def _arrow(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, degrees: float
) -> None:
    """Draw an arrow whose tip is ``degrees`` clockwise from the top."""
    turn = math.radians(degrees)
    tip, left, notch, right = (
        (
            centre[0] + radius * (x * math.cos(turn) - y * math.sin(turn)),
            centre[1] + radius * (x * math.sin(turn) + y * math.cos(turn)),
        )
        for x, y in ((0, -1), (-0.6, 0.9), (0, 0.5), (0.6, 0.9))
    )
    draw.polygon((tip, left, notch), fill=INK)
    draw.polygon((tip, notch, right), fill="white", outline=INK)
