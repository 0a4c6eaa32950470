"""``rs-embed demo``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rs_embed.cli.options import Device
from rs_embed.cli.printing import echo
from rs_embed.errors import ExportError

if TYPE_CHECKING:
    from PIL.Image import Image

# Of the middle of the sample scene: 3.84 km, which take a processor a few seconds, and 2.56 km,
# as large as the training images of the weights.
_GRID_PX, _VECTOR_PX = 384, 256


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; created if missing.")
    ] = Path("demo-output"),
    device: Device = "auto",
) -> None:
    """Embed a sample Sentinel-2 scene as a vector and as a grid.

    Works without a network: scene and weights come with the package.

    [dim]rs-embed demo --out demo-output[/dim]
    """
    from rs_embed import SAMPLE_PLACE, OutputSpec, PointBuffer, get_embedding

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ExportError(f"cannot create the folder {out}: {exc}; choose another one") from exc
    echo("weights  scalemae-tiny, part of the package (Apache-2.0); the published weights")
    echo("         are larger, and not for commercial use (docs/weights.md)")
    results = {}
    for side, output in ((_VECTOR_PX, OutputSpec.pooled()), (_GRID_PX, OutputSpec.grid())):
        began = time.perf_counter()
        results[output.mode] = get_embedding(
            "scalemae",
            spatial=PointBuffer(*SAMPLE_PLACE.centre, buffer_m=10 * side / 2),
            output=output,
            backend="sample",
            device=device,
            weights="scalemae-tiny",
            image_size=side,
        )
        took = time.perf_counter() - began
        shape = " x ".join(map(str, results[output.mode].data.shape))
        echo(f"{output.mode:<8} {shape} float32 in {took:.2f} s")
    meta = results["grid"].meta
    echo(f"scene    {meta['source']['product']}")
    echo(f"         {meta['source']['scene']}, {meta['source']['licence']}")
    echo(
        f"GSD      {meta['used_scale_m']:g} m read, {meta['input_res_m']:g} m in the input; "
        f"coverage {meta['coverage']:.0%}, valid {meta['valid_fraction']:.0%}"
    )
    picture = results["grid"].quicklook(out / "quicklook.png")
    results["grid"].save(out / "tokens.tif")
    results["pooled"].save(out / "vector.npz")
    if sys.stdout.isatty():
        _show(picture)
    for name, what in (
        ("quicklook.png", "the scene beside the grid's first three principal components"),
        ("tokens.tif", f"the token grid as GeoTIFF, {meta['grid']['crs']}, one band per dimension"),
        ("vector.npz", "the vector of its middle; read it with Embedding.load"),
    ):
        echo(f"wrote    {out / name}: {what}")


def _show(picture: Image) -> None:
    """Print a picture as half blocks, two pixels per character."""
    from rich.color import Color
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    console = Console()
    width = min(console.width, 100)
    height = max(picture.height * width // picture.width // 2 * 2, 2)
    pixels: Any = picture.resize((width, height)).load()
    text = Text()
    for row in range(0, height, 2):
        for column in range(width):
            upper, lower = (Color.from_rgb(*pixels[column, r]) for r in (row, row + 1))
            text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    console.print(text, end="")
