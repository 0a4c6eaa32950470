"""Draw the pictures of the explorer in README.md and docs/explorer.md, in a headless browser.

    python scripts/make_explorer_pictures.py [FOLDER]

They are made from the token grid of the demo and from the two dates of the Inn in tests/data. The
variable CHROMIUM names the browser; by default it is the ``chromium`` of the search path.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from typer.testing import CliRunner

from rs_embed import embed_area, explore
from rs_embed.cli import app

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"
SIZE = {"width": 1100, "height": 640}
COLOURS = 256


def draw(browser: Any, source: Any, hash_of_state: str, cell: int, path: Path) -> None:
    """Write a picture of a page in some state, with the mouse on a cell of its first layer."""
    page = browser.new_page(viewport=SIZE, color_scheme="light")
    page.goto(f"{source.serve()}{hash_of_state}")
    page.evaluate("rsEmbedExplorer.settled()")
    x, y = page.evaluate(f"rsEmbedExplorer.pixelOf(0, {cell})")
    page.mouse.move(x, y)
    page.evaluate("rsEmbedExplorer.settled()")
    page.screenshot(path=path)
    page.close()
    source.close()
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(
            COLOURS, kmeans=3, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw both."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    work = Path(tempfile.mkdtemp())
    CliRunner().invoke(app, ["demo", "--out", str(work)], catch_exceptions=False)
    dates = []
    for image in sorted((ROOT / "tests" / "data" / "inn").glob("*.tif")):
        dates.append(work / f"{image.stem}.zarr")
        embed_area("scalemae", imagery=image, output=dates[-1], variant="tiny", tile_size=128)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        grid = explore(work / "tokens.tif", output=work / "grid")
        state = "#view=similarity&like=1026"
        draw(browser, grid, state, 548, folder / "explorer-similarity.png")
        two = explore(*dates, output=work / "two", title="The Inn, June and September")
        state = "#view=similarity&like=330&swipe=0.5"
        draw(browser, two, state, 188, folder / "explorer-dates.png")
        browser.close()
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
