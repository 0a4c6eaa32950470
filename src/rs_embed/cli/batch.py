"""``rs-embed batch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rs_embed.cli import request
from rs_embed.cli.options import (
    Device,
    Json,
    Model,
    ModelOptions,
    Period,
    Pixels,
    Pooling,
    Prep,
    Workers,
    expanded,
    place_option,
    result_option,
)
from rs_embed.cli.printing import echo, print_json

if TYPE_CHECKING:
    from rs_embed import Estimate

_SHOWN_ERRORS = 5


@expanded
def batch(
    places: Annotated[
        str,
        typer.Argument(
            help="CSV (id, lon, lat, buffer_m, or a box), GeoJSON, GeoPackage, GeoParquet, "
            "Shapefile, or a folder of images; a file also as s3://, gs:// or az://."
        ),
    ],
    period: Period,
    pixels: Pixels,
    prep: Prep,
    options: ModelOptions,
    work: Workers,
    out: Annotated[
        str,
        result_option(
            "--out",
            "-o",
            metavar="PATH",
            help="The .parquet (GeoParquet), .csv or .npz to write, one row a place; also s3://, "
            "gs:// or az://.",
        ),
    ],
    model: Model = "scalemae",
    buffer_m: Annotated[
        float | None,
        place_option(help="Half the side of the square around points that state none, metres."),
    ] = None,
    id_column: Annotated[
        str | None, place_option(help="Column of the ids; id if there is one.")
    ] = None,
    layer: Annotated[str | None, place_option(help="Layer of a file that has several.")] = None,
    polygons: Annotated[
        str,
        place_option(help="cover: pool over what a polygon covers. box: over its bounding window."),
    ] = "cover",
    device: Device = "auto",
    pooling: Pooling = None,
    on_error: Annotated[
        str,
        result_option(help="return: a place that fails is a row of NaN. raise: stop at the first."),
    ] = "return",
    dtype: Annotated[
        str | None,
        result_option(
            help="How a .parquet stores vectors: float32, float16, or int8 with a scale a row.",
            show_default="float32",
        ),
    ] = None,
    order: Annotated[
        str | None,
        result_option(help="Rows of a .parquet: hilbert or input.", show_default="hilbert"),
    ] = None,
    overwrite: Annotated[
        bool, result_option("--overwrite", help="Start again, and replace a finished file.")
    ] = False,
    dry_run: Annotated[
        bool,
        result_option("--dry-run", help="Show what would be requested; fetch and write nothing."),
    ] = False,
    json: Json = False,
) -> None:
    """Embed many places into one file, one vector each.

    Results are kept in OUT.partial: the same command continues from there, and
    retries what failed. Exit code 1 if a place failed, 130 if interrupted.

    [dim]rs-embed batch places.csv -o vectors.parquet --buffer-m 640 --backend sample
    --variant tiny[/dim]

    Windows of one GeoTIFF:

    [dim]rs-embed batch places.geojson -o vectors.npz --imagery scene.tif[/dim]

    What would be requested from Earth Engine:

    [dim]rs-embed batch places.csv -o vectors.npz --backend gee --start 2022-06-01
    --end 2022-09-01 --dry-run[/dim]
    """
    request.warn_if_lost(out)
    arguments = request.common(model, pixels, period, prep, options)
    from rs_embed import export_batch, plan_batch

    report: Any = (plan_batch if dry_run else export_batch)(
        model,
        places,
        buffer_m=buffer_m,
        id_column=id_column,
        layer=layer,
        polygons=polygons,  # type: ignore[arg-type]  # checked there
        output=out,
        pooling=pooling,  # type: ignore[arg-type]  # checked there
        overwrite=overwrite,
        on_error=on_error,  # type: ignore[arg-type]  # checked there
        device=device,
        dtype=dtype,  # type: ignore[arg-type]  # checked there
        order=order,  # type: ignore[arg-type]  # checked there
        **vars(work),
        **arguments,
    )
    if json:
        print_json(report.to_json())
    elif dry_run:
        _show(report)
    else:
        echo(report)
    if report.refused if dry_run else report.errors:
        raise typer.Exit(1)


def _show(found: Estimate) -> None:
    """Print what the batch would request."""
    echo(
        f"{found.places} places, {found.pixels / 1e6:.2g} million pixels, "
        f"{found.images} images through the model"
    )
    size = f", {found.download_bytes / 1e6:.1f} MB of pixels" if found.download_bytes else ""
    echo(f"backend {found.backend}: {found.requests} requests{size}")
    if found.more:
        echo(found.more)
    for name, reason in list(found.refused.items())[:_SHOWN_ERRORS]:
        echo(f"refused {name}: {reason}")
