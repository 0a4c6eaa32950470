"""``rs-embed embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rs_embed.cli import request
from rs_embed.cli.options import (
    Device,
    Json,
    Model,
    ModelOptions,
    OnePlace,
    Period,
    Pixels,
    Pooling,
    Prep,
    expanded,
    print_json,
    result_option,
)
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed.embedding.result import Embedding


@expanded
def embed(
    place: OnePlace,
    period: Period,
    pixels: Pixels,
    prep: Prep,
    options: ModelOptions,
    model: Model = "scalemae",
    device: Device = "auto",
    output: Annotated[str, result_option(help="pooled or grid.")] = "pooled",
    pooling: Pooling = None,
    out: Annotated[
        Path | None, result_option("--out", "-o", help="Vector: .npz. Grid: .tif or .nc.")
    ] = None,
    quicklook: Annotated[Path | None, result_option(help="A .png of a grid.")] = None,
    json: Json = False,
) -> None:
    """Embed one place, file or array.

    The sample scene, with the small weights that ship:

    [dim]rs-embed embed --lon -75.6156 --lat 37.6942 --buffer-m 1280 --backend sample
    --variant tiny[/dim]

    Any place and period, from a free catalogue of Sentinel-2 (gee: from Earth Engine):

    [dim]rs-embed embed --lon 121.5 --lat 31.2 --buffer-m 2048 --start 2022-06-01
    --end 2022-09-01 --backend stac -o vector.npz[/dim]

    A GeoTIFF of Sentinel-2 surface reflectance, as a token grid for a GIS:

    [dim]rs-embed embed --imagery scene.tif --output grid -o tokens.tif --quicklook tokens.png[/dim]

    All of a large GeoTIFF at its own GSD:

    [dim]rs-embed embed --imagery scene.tif --input-prep tile --output grid -o tokens.tif[/dim]

    An array of your own at 5 m:

    [dim]rs-embed embed --input pixels.npy --scale-m 5 -o vector.npz[/dim]
    """
    from rs_embed import OutputSpec, check_output, get_embedding

    asked_output = OutputSpec(output, pooling)  # type: ignore[arg-type]  # checked when built
    if out is not None:
        check_output(out, "grid" if asked_output.mode == "grid" else "vector")
    if quicklook is not None:
        check_output(quicklook, "picture")
        if asked_output.mode != "grid":
            raise SpecError("got --quicklook with --output pooled, expected --output grid")
    embedding = get_embedding(
        model,
        output=asked_output,
        device=device,  # type: ignore[arg-type]  # checked by the model
        **request.one_place(place, pixels),
        **request.common(model, pixels, period, prep, options),
    )
    files = []
    if out is not None:
        files.append(str(embedding.save(out)))
    if quicklook is not None:
        embedding.quicklook(quicklook)
        files.append(str(quicklook))
    _print(embedding, files, json=json)


def _print(embedding: Embedding, files: list[str], *, json: bool) -> None:
    meta = embedding.meta
    if json:
        values = None if embedding.is_grid else [float(v) for v in embedding.data]
        shape = list(embedding.data.shape)
        print_json({"shape": shape, "values": values, "files": files, "meta": meta})
        return
    shape_text = " x ".join(map(str, embedding.data.shape))
    typer.echo(f"{meta['output']} embedding of {shape_text} float32, {meta['tokens_kind']}")
    typer.echo(
        f"weights {meta['weights']}, GSD {meta['used_scale_m']:g} m, input_res_m "
        f"{meta['input_res_m']:g}, coverage {meta['coverage']:.1%}, valid "
        f"{meta['valid_fraction']:.1%}"
    )
    source = meta["source"]
    if "image_count" in source:
        days = " to ".join(
            dict.fromkeys(
                day[:10]
                for day in source.get("acquired") or ()
                if isinstance(source.get("acquired"), list)
            )
        )
        count = source["image_count"]
        shown = f"{count} image{'' if count == 1 else 's'}{f' of {days}' if days else ''}"
        typer.echo(f"backend {meta['backend']}: {shown}")
    typer.echo(f"fingerprint {meta['fingerprint']}")
    for file in files:
        typer.echo(f"wrote {file}")
