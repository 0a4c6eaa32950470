"""``rs-embed embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rs_embed.cli import request
from rs_embed.cli.options import (
    DEFAULT_MODEL,
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
    result_option,
)
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed import Embedding


@expanded
def embed(
    place: OnePlace,
    period: Period,
    pixels: Pixels,
    prep: Prep,
    options: ModelOptions,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    output: Annotated[
        str,
        result_option(
            metavar="pooled|grid|mean|max|cls",
            help="One vector (pooled, or how tokens become it), or a grid with one for each patch.",
        ),
    ] = "pooled",
    pooling: Pooling = None,
    out: Annotated[
        Path | None,
        result_option(
            "--out", "-o", help="File to write: .npz for a vector, .tif or .nc for a grid."
        ),
    ] = None,
    quicklook: Annotated[
        Path | None, result_option(help="Also write a picture of the grid, a .png.")
    ] = None,
    json: Json = False,
) -> None:
    """Embed one place, file or array.

    The sample scene, with the small weights that come with the package:

    [dim]rs-embed embed --lon -75.6156 --lat 37.6942 --buffer-m 1280 --backend sample
    --variant tiny[/dim]

    Any place and period, from a free Sentinel-2 catalogue (or --backend gee):

    [dim]rs-embed embed --lon 121.5 --lat 31.2 --buffer-m 2048 --start 2022-06-01
    --end 2022-09-01 --backend stac -o vector.npz[/dim]

    A GeoTIFF of Sentinel-2 surface reflectance, as a grid for a GIS:

    [dim]rs-embed embed --imagery scene.tif --output grid -o tokens.tif --quicklook tokens.png[/dim]

    All of a large GeoTIFF, at its own pixel size:

    [dim]rs-embed embed --imagery scene.tif --input-prep tile --output grid -o tokens.tif[/dim]

    An array with pixels of 5 m:

    [dim]rs-embed embed --input pixels.npy --scale-m 5 -o vector.npz[/dim]
    """
    from rs_embed import OutputSpec, check_output, get_embedding

    if Path(output).suffix:
        raise SpecError(
            f"got --output {output}, expected the kind of result: pooled, grid, mean, max or cls; "
            f"did you mean -o {output}?"
        )
    if pooling is None and output in ("mean", "max", "cls"):
        output, pooling = "pooled", output
    result = OutputSpec(output, pooling)  # type: ignore[arg-type]  # checked when built
    if out is not None:
        check_output(out, "grid" if result.mode == "grid" else "vector")
    if quicklook is not None:
        check_output(quicklook, "picture")
        if result.mode != "grid":
            raise SpecError("got --quicklook with --output pooled, expected --output grid")
    embedding = get_embedding(
        model,
        output=result,
        device=device,
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
    echo(f"{meta['output']} embedding of {shape_text} float32, {meta['tokens_kind']}")
    echo(
        f"weights {meta['weights']}, GSD {meta['used_scale_m']:g} m, input_res_m "
        f"{meta['input_res_m']:g}, coverage {meta['coverage']:.1%}, valid "
        f"{meta['valid_fraction']:.1%}"
    )
    if "image_count" in meta["source"]:
        echo(f"backend {meta['backend']}: {_images(meta['source'])}")
    echo(f"fingerprint {meta['fingerprint']}")
    for file in files:
        echo(f"wrote {file}")


def _images(source: dict[str, Any]) -> str:
    """Return how many images the pixels come from, and their first and last day."""
    count, acquired = source["image_count"], source.get("acquired")
    days = dict.fromkeys(day[:10] for day in acquired) if isinstance(acquired, list) else ()
    period = f" of {' to '.join(days)}" if days else ""
    return f"{count} image{'' if count == 1 else 's'}{period}"
