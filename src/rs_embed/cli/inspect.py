"""``rs-embed inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rs_embed.cli import request
from rs_embed.cli.options import (
    DEFAULT_MODEL,
    Json,
    Model,
    ModelOptions,
    OnePlace,
    Period,
    Pixels,
    Prep,
    expanded,
    result_option,
)
from rs_embed.cli.printing import echo, print_json

if TYPE_CHECKING:
    from rs_embed import Inspection

_SHOWN_ITEMS = 10


@expanded
def inspect(
    place: OnePlace,
    period: Period,
    pixels: Pixels,
    prep: Prep,
    options: ModelOptions,
    model: Model = DEFAULT_MODEL,
    png: Annotated[
        Path | None,
        result_option(help="Also write a picture of the input, its tiles and histogram, a .png."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what the model would see of a place, without running it.

    [dim]rs-embed inspect --lon -75.6156 --lat 37.6942 --buffer-m 1280 --backend sample
    --png seen.png[/dim]

    [dim]rs-embed inspect --imagery scene.tif --input-prep tile[/dim]
    """
    from rs_embed import check_output, inspect_input

    if png is not None:
        check_output(png, "picture")
    inspection = inspect_input(
        model,
        **request.one_place(place, pixels),
        **request.common(model, pixels, period, prep, options),
    )
    if png is not None:
        inspection.save_png(png)
    if json:
        print_json({**inspection.to_json(), "files": [] if png is None else [str(png)]})
        return
    for name, text in _lines(inspection):
        echo(f"{name:<9} {text}")
    if png is not None:
        echo(f"wrote {png}")


def _lines(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """Yield each line of the report with its name; warnings were given when they arose."""
    meta = inspection.meta
    height, width = inspection.image.shape[:2]
    yield "input", f"{meta['input_prep']}: {height} x {width} px, {_tiles(inspection)}"
    yield (
        "GSD",
        f"{meta['used_scale_m']:g} m read ({meta['scale_m_source']}), {meta['input_res_m']:g} m "
        f"in the input, {meta['input_res']:g} as input_res ({meta['gsd_policy']})",
    )
    period = meta["temporal"]
    days = f"{period['start']} up to, not including, {period['end']}" if period else "none applied"
    yield "period", days
    yield from _source(meta)
    yield "coverage", f"{meta['coverage']:.1%} of the area"
    yield "valid", f"{meta['valid_fraction']:.1%} of the pixels, {meta['valid_tokens']} tokens"
    for band, values in inspection.raw.items():
        spread = ", ".join(f"{name} {values[name]:g}" for name in ("min", "median", "max"))
        yield f"band {band}", spread


def _tiles(inspection: Inspection) -> str:
    sizes = sorted({(height, width) for _, _, height, width in inspection.tiles}, reverse=True)
    count = len(inspection.tiles)
    shown = " and ".join(f"{height} x {width}" for height, width in sizes)
    return f"{count} {'image' if count == 1 else 'tiles'} of {shown} px through the model"


def _source(meta: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where the pixels come from, with scenes and days if they are known."""
    source = meta["source"]
    where = next((source[key] for key in ("scene", "path", "root") if key in source), None)
    yield "source", meta["backend"] if where is None else f"{meta['backend']}: {where}"
    acquired = source.get("acquired")
    if acquired:
        yield "acquired", acquired if isinstance(acquired, str) else " to ".join(acquired)
    items = source.get("items", [])
    for item in items[:_SHOWN_ITEMS]:
        yield "scene", " ".join(str(item[k]) for k in ("id", "acquired") if item.get(k))
    count = source.get("image_count", len(items))
    if items and count > _SHOWN_ITEMS:
        yield "scene", f"... {count} in all"
