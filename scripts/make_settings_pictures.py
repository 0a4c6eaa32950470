"""Draw the pictures of docs/choosing-settings.md from the sample scene.

    python scripts/make_settings_pictures.py [FOLDER]

Model inputs come from ``inspect_input``, tiles from ``rs_embed.geo.tiling``, grids from the small
network with random weights.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rs_embed import (
    Grid,
    InputPrepSpec,
    Inspection,
    OutputSpec,
    PointBuffer,
    get_embedding,
    inspect_input,
)
from rs_embed.embedding.quicklook import Components
from rs_embed.geo.tiling import Tile, tiles_of
from rs_embed.providers.sample import CENTRE, HALF_SIDE_M

FOLDER = Path(__file__).parents[1] / "docs" / "images"
PLACE: dict[str, Any] = {"spatial": PointBuffer(*CENTRE, HALF_SIDE_M), "backend": "sample"}
MODEL: dict[str, Any] = {"weights": "random-init", "variant": "tiny"}
SIDE_PX, GAP_PX, LINE_PX = 300, 14, 17
SCENE_PX, TILE_PX, PATCH_PX = 640, 224, 16
FONT = ImageFont.load_default(13)
YELLOW, INK = (255, 220, 0), (20, 20, 20)
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167))


def look(**options: Any) -> Inspection:
    """Return the model input of the whole sample scene."""
    return inspect_input("scalemae", **{"display": "visual", **PLACE, **MODEL, **options})


def figure(panels: Sequence[tuple[Image.Image, str]], name: str, folder: Path) -> None:
    """Write panels side by side as a small PNG, with captions above that have equal line counts."""
    lines = max(caption.count("\n") + 1 for _, caption in panels)
    top = lines * LINE_PX + 6
    width = sum(panel.width for panel, _ in panels) + GAP_PX * (len(panels) - 1)
    canvas = Image.new("RGB", (width, top + max(p.height for p, _ in panels)), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for panel, caption in panels:
        draw.multiline_text((left + 2, 0), caption, fill=INK, font=FONT, spacing=4)
        canvas.paste(panel, (left, top))
        left += panel.width + GAP_PX
    small = canvas.quantize(160, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    target = folder / name
    small.save(target, optimize=True)
    print(f"{target}: {canvas.width} x {canvas.height} px, {target.stat().st_size / 1000:.0f} kB")


def placed(image: Image.Image, seen: Grid, whole: Grid, *, outline: bool = True) -> Image.Image:
    """Return a panel of the extent of the scene, with an image at its location."""
    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX), (235, 235, 235))
    to_panel = Affine.scale(SIDE_PX / whole.shape[1]) @ ~whole.transform @ seen.transform
    left, top = (round(v) for v in to_panel @ (0, 0))
    right, bottom = (round(v) for v in to_panel @ (seen.shape[1], seen.shape[0]))
    canvas.paste(image.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    if outline and (left, top) != (0, 0):
        ImageDraw.Draw(canvas).rectangle(
            (left, top, right - 1, bottom - 1), outline=YELLOW, width=2
        )
    return canvas


def grid_of(meta: dict[str, Any]) -> Grid:
    """Return the grid of the model's input; its CRS does not matter here."""
    stated = meta["input_grid"]
    return Grid(None, Affine(*stated["transform"]), tuple(stated["shape"]))


def detail(seen: Inspection, whole: Grid) -> Image.Image:
    """Return 1.28 km of the scene, in pixels of the model input."""
    left, top = whole.transform @ (110, 115)
    grid = grid_of(seen.meta)
    column, row = (round(v) for v in ~grid.transform @ (left, top))
    size = round(128 * whole.transform.a / grid.transform.a)
    part = Image.fromarray(seen.image[row : row + size, column : column + size])
    return part.resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST)


def outlined(image: NDArray[np.uint8], tiles: Sequence[tuple[int, int, int, int]]) -> Image.Image:
    """Return a panel of the image with its tiles outlined."""
    scale = SIDE_PX / image.shape[0]
    panel = Image.fromarray(image).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(panel)
    for row, column, height, width in tiles:
        box = (
            column * scale,
            row * scale,
            (column + width) * scale - 1,
            (row + height) * scale - 1,
        )
        draw.rectangle(box, outline=YELLOW)
    return panel


def resize_and_tiles(folder: Path) -> None:
    """Draw the model input of a resize next to that of tiles."""
    tiled, resized = look(input_prep="tile"), look()
    whole = grid_of(tiled.meta)
    crop = placed(Image.fromarray(resized.image), grid_of(resized.meta), whole)
    metres = resized.meta["input_res_m"]
    coverage = resized.meta["coverage"]
    figure(
        [
            (
                crop,
                f'"resize", image_size=224\n224 px of {metres:g} m a side, {coverage:.0%} of it',
            ),
            (
                outlined(tiled.image, tiled.tiles),
                f'"tile"\n{SCENE_PX} px of 10 m a side, all of it in {len(tiled.tiles)} tiles',
            ),
        ],
        "resize-and-tiles.png",
        folder,
    )
    figure(
        [
            (detail(resized, whole), f"1.28 km of it, resized:\n{metres:g} m a pixel"),
            (detail(tiled, whole), "the same in tiles:\n10 m a pixel"),
        ],
        "resize-and-tiles-detail.png",
        folder,
    )


def layout(overlap_px: int) -> tuple[Image.Image, int]:
    """Return the tile of each token, with one tile outlined, and the number of tiles."""
    tiles = tiles_of(
        (SCENE_PX, SCENE_PX), tile_size=TILE_PX, overlap_px=overlap_px, patch_size=PATCH_PX
    )
    scale = SIDE_PX / SCENE_PX
    panel = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    draw = ImageDraw.Draw(panel)
    across = round(len(tiles) ** 0.5)
    for number, tile in enumerate(tiles):
        colour = COLOURS[number // across % 2 * 2 + number % across % 2]
        rows, columns = tile.own
        edges = (columns.start, rows.start, columns.stop, rows.stop)
        left, top, right, bottom = (edge * PATCH_PX * scale for edge in edges)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        draw.text(((left + right) / 2, (top + bottom) / 2), str(number), INK, FONT, "mm")
    _outline(draw, tiles[across + 1], scale)
    return panel, len(tiles)


def _outline(draw: ImageDraw.ImageDraw, tile: Tile, scale: float) -> None:
    row, column, height, width = tile.window
    edges = (column, row, column + width, row + height)
    left, top, right, bottom = (round(edge * scale) for edge in edges)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=INK, width=3)


def tile_overlap(folder: Path) -> None:
    """Draw layouts of tiles without and with overlap."""
    panels = []
    for overlap_px in (0, 64):
        panel, count = layout(overlap_px)
        panels.append((panel, f"InputPrepSpec.tile(224, {overlap_px})\n{count} tiles"))
    figure(panels, "tile-overlap.png", folder)


def grids(folder: Path) -> None:
    """Draw token grids of the scene in three settings."""
    whole = grid_of(look(input_prep="tile").meta)
    panels = []
    for title, options in (
        ('"resize", image_size=224', {}),
        ('"resize", image_size=448', {"image_size": 448}),
        ('"tile", image_size=224', {"input_prep": InputPrepSpec.tile()}),
    ):
        embedding = get_embedding(
            "scalemae", output=OutputSpec.grid(), display="visual", **PLACE, **MODEL, **options
        )
        tokens = embedding.data
        rows, columns = tokens.shape[1:]
        metres = embedding.meta["input_res_m"] * PATCH_PX
        colours, _ = Components.of([tokens.values]).colours(tokens.values)
        picture = Image.fromarray(colours)
        panel = placed(picture, grid_of(embedding.meta), whole, outline=False)
        caption = f"{title}\n{rows} x {columns} tokens of {metres:.0f} m\nRANDOM WEIGHTS"
        panels.append((panel, caption))
    figure(panels, "grids.png", folder)


def histogram(seen: Inspection) -> Image.Image:
    """Return the histogram curves of the image, from 0 (left) to 255 (right)."""
    panel = Image.new("RGB", (SIDE_PX, SIDE_PX // 3), "white")
    draw = ImageDraw.Draw(panel)
    draw.rectangle((0, 0, panel.width - 1, panel.height - 1), outline=(180, 180, 180))
    counts = {name: np.sqrt(seen.histogram[name]) for name in ("red", "green", "blue")}
    highest = max(count.max() for count in counts.values())
    for name, count in counts.items():
        heights = panel.height - 3 - count / highest * (panel.height - 8)
        points = [
            (2 + (number + 0.5) / len(count) * (panel.width - 4), height)
            for number, height in enumerate(heights)
        ]
        draw.line(points, fill=name, width=2)
    return panel


def displays(folder: Path) -> None:
    """Draw the same pixels as reflectance 0..1 and stretched as in true-colour images."""
    panels = []
    for display, meaning in (("reflectance", "0..1"), ("visual", "0..0.3")):
        seen = look(display=display, image_size=256)
        panel = Image.new("RGB", (SIDE_PX, SIDE_PX + SIDE_PX // 3 + 6), "white")
        image = Image.fromarray(seen.image)
        panel.paste(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS), (0, 0))
        panel.paste(histogram(seen), (0, SIDE_PX + 6))
        panels.append((panel, f'display="{display}"\nreflectance {meaning} becomes 0..255'))
    figure(panels, "display.png", folder)


def main(folder: Path) -> None:
    """Write all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for draw in (resize_and_tiles, tile_overlap, grids, displays):
            draw(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
