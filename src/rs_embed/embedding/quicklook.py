"""Pictures for the eye: token grids beside their images, and the image that a model would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from rs_embed.embedding.drawing import (
    ALARM,
    beside,
    hatched,
    legend,
    scale_bar,
    stacked,
    text,
)
from rs_embed.embedding.provenance import imagery_times
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.orientation import Orientation

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_GAP_PX, _MARGIN_PX = 12, 8
NODATA_GREY = 128
# Geary's C of the colours above which they are called noise. Measured with the shipped weights: 0.1
# to 0.5 for real scenes at 10 to 200 m, 0.7 where their pixels are shuffled, 0.8 to 1.0 for noise.
NOISE_CONTIGUITY = 0.75
NOISE = "the colours are noise: neighbouring tokens differ as much as any two; check bands and GSD"
_FEWEST_TOKENS = 64  # fewer say nothing about noise


@dataclass(frozen=True, eq=False)
class Components:
    """The first three principal components of tokens, as red, green and blue.

    Attributes
    ----------
    mean : numpy.ndarray
        ``(d,)``.
    loadings : numpy.ndarray
        ``(3, d)``, fewer if there are fewer tokens; the largest of each is positive.
    low, high : numpy.ndarray
        Scores that are shown as 0 and 255: the 2nd and 98th percentile of each.
    explained : numpy.ndarray
        Share of the variance of each, 0..1.
    """

    mean: NDArray[np.float64]
    loadings: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    explained: NDArray[np.float64]

    @classmethod
    def of(cls, grids: Sequence[NDArray[np.float32]]) -> Components:
        """Return those of all tokens of grids ``(d, y, x)``, NaN where there is none."""
        flat = np.concatenate([_known(grid)[0] for grid in grids])  # N d
        if not len(flat):
            none = np.zeros((0, flat.shape[1]))
            return cls(none.sum(axis=0), none, np.zeros(0), np.zeros(0), np.zeros(0))
        mean = flat.mean(axis=0)
        centred = flat - mean
        variances, axes = np.linalg.eigh(centred.T @ centred)
        loadings = axes.T[::-1][: min(3, len(flat))]
        strongest = np.abs(loadings).argmax(axis=1)
        loadings = loadings * np.sign(loadings[np.arange(len(loadings)), strongest])[:, None]
        low, high = np.percentile(centred @ loadings.T, [2, 98], axis=0)
        total = float(variances.sum())
        explained = variances[::-1][: len(loadings)] / (total if total > 0 else 1)
        return cls(mean, loadings, low, high, explained.clip(0, 1))

    def scores(self, tokens: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores ``(y, x, 3)`` of a grid, NaN where it has no token."""
        flat, known = _known(tokens)
        scores = np.full((*known.shape, len(self.loadings)), np.nan)
        scores[known] = (flat - self.mean) @ self.loadings.T
        return scores

    def colours(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the colours ``(y, x, 3)`` of a grid, and where it has tokens ``(y, x)``."""
        return self.shades(self.scores(tokens))

    def shades(self, scores: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the colours ``(y, x, 3)`` of scores, and where these are known ``(y, x)``."""
        known = np.asarray(np.isfinite(scores).all(axis=-1) & bool(scores.shape[-1]))
        unit = (scores - self.low) / np.where(self.high > self.low, self.high - self.low, 1)
        colours = np.full((*known.shape, 3), NODATA_GREY, np.uint8)
        colours[known, : scores.shape[-1]] = (unit[known].clip(0, 1) * 255).round()
        return colours, known


def _known(tokens: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the tokens ``(N, d)`` that a grid has, and where they are ``(y, x)``."""
    known = _where(tokens)
    return tokens[:, known].T.astype(np.float64), known


def _where(tokens: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(tokens).all(axis=0))


def contiguity(scores: NDArray[np.float64]) -> float:
    """Return Geary's C of scores ``(y, x, k)``: 0 where neighbours agree, 1 where they are noise.

    Notes
    -----
    Geary, The Contiguity Ratio and Statistical Mapping (1954), with the sum over the components
    in numerator and denominator. NaN where too few cells have neighbours.
    """
    steps = [scores[1:] - scores[:-1], scores[:, 1:] - scores[:, :-1]]
    between = np.concatenate([(step**2).sum(axis=-1).ravel() for step in steps])
    between = between[np.isfinite(between)]
    known = scores[np.isfinite(scores).all(axis=-1)]
    spread = known.var(axis=0, ddof=1).sum() if len(known) >= _FEWEST_TOKENS else 0.0
    if not len(between) or not spread:
        return float("nan")
    return float(between.mean() / 2 / spread)


def is_noise(components: Components, grids: Sequence[NDArray[np.float32]]) -> bool:
    """Return whether the colours of all these grids are noise."""
    return all(contiguity(components.scores(grid)) > NOISE_CONTIGUITY for grid in grids)


@dataclass(frozen=True, eq=False)
class Shown:
    """A grid that is drawn.

    Attributes
    ----------
    data : xarray.DataArray
        ``(d, y, x)``, see `Embedding.data`.
    meta : mapping
        See `Embedding.meta`.
    image : numpy.ndarray or None
        ``(height, width, 3)`` uint8: what the model saw; left out if None.
    """

    data: xr.DataArray
    meta: Mapping[str, Any]
    image: NDArray[np.uint8] | None


def render(grids: Sequence[Shown], *, side_px: int, stretch: bool) -> tuple[Image.Image, bool]:
    """Return a picture of grids, one below the other, and whether their colours are noise.

    Each has a title, the image that the model saw beside the components, and a scale bar. All share
    their components, so that equal colours mean equal tokens.

    Parameters
    ----------
    grids : sequence of Shown
        One or more, of the same dimensions.
    side_px : int
        Height of the panels, pixels.
    stretch : bool
        Whether images are brightened to their own 1st to 99th percentile for the eye.
    """
    tokens = [grid.data.values for grid in grids]
    components, size_px = Components.of(tokens), max(side_px // 32, 11)
    noise, missing = is_noise(components, tokens), False
    rows = []
    for grid, own in zip(grids, tokens, strict=True):
        colours, known = components.colours(own)
        missing = missing or not known.all()
        size = max(round(side_px * own.shape[2] / own.shape[1]), 1), side_px
        cover = Image.fromarray(known).resize(size, Image.Resampling.NEAREST)
        panel = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
        panels = [Image.composite(panel, hatched(size), cover)]
        if grid.image is not None:
            shown = stretched(grid.image) if stretch else grid.image
            panels.insert(0, Image.fromarray(shown).resize(size, Image.Resampling.LANCZOS))
        row = beside(panels, _GAP_PX)
        where = _orientation(grid)
        parts = [text(title(grid.meta, where), row.width, size_px), row]
        if where is not None:
            metres = where.cell_m * own.shape[2] / size[0]
            parts.append(scale_bar(metres, row.width, size_px, where.north_deg))
        rows.append(stacked(parts, size_px // 2))
    width = max(row.width for row in rows)
    items: list[tuple[Any, str]] = [
        (colour, f"component {number} ({share:.0%} of the variance)")
        for number, (colour, share) in enumerate(
            zip(("red", "lime", "blue"), components.explained, strict=False), 1
        )
    ]
    if missing:
        items.append((hatched((size_px, size_px), 6), "no token"))
    rows.append(legend(items, width, size_px))
    if noise:
        rows.append(text(NOISE, width, size_px, ALARM))
    return ImageOps.expand(stacked(rows, size_px), _MARGIN_PX, "white"), noise


def _orientation(grid: Shown) -> Orientation | None:
    """Return where a grid is; without coordinates only its scale, if the model was told one."""
    array = grid.data
    crs = array.rio.crs
    if crs is not None:
        shape = array.sizes["y"], array.sizes["x"]
        return Orientation.of(Grid(known_crs(crs.to_wkt()), array.rio.transform(), shape))
    metres, patch = grid.meta.get("input_res_m"), grid.meta.get("used_patch_size")
    if not (metres and patch):
        return None
    return Orientation(float("nan"), float("nan"), metres * patch, 0.0)


def title(meta: Mapping[str, Any], where: Orientation | None) -> str:
    """Return place, date, GSD and model, as far as they are known."""
    source = meta.get("source") or {}
    parts = []
    if isinstance(path := source.get("path"), str):
        parts.append(PurePath(path).name)
    if where is not None and np.isfinite(where.lat):
        lat, lon = (
            f"{abs(value):.4f}°{hemispheres[value < 0]}"
            for value, hemispheres in ((where.lat, "NS"), (where.lon, "EW"))
        )
        parts.append(f"{lat} {lon}")
    days = list(dict.fromkeys(str(time.date()) for time in imagery_times(meta)))
    period = meta.get("temporal")
    if days:
        parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    elif period:
        parts.append(f"{period['start']} to {period['end']}")
    if gsd_m := meta.get("used_scale_m") or meta.get("gsd_m"):  # of places, and of maps
        parts.append(f"GSD {gsd_m:.4g} m")
    parts.append(", ".join(str(meta[key]) for key in ("model", "weights") if meta.get(key)))
    return " | ".join(filter(None, parts))


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
    return contrast(image)[image]


def contrast(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``(256,)``: what each value becomes, from their 1st to their 99th percentile."""
    low, high = np.percentile(values, [1, 99])
    unit = (np.arange(256) - low) / max(high - low, 1)
    shown: NDArray[np.uint8] = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    return shown
