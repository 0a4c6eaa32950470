"""``rs-embed map``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rs_embed.cli import request
from rs_embed.cli.options import (
    Device,
    Json,
    Model,
    ModelOptions,
    Period,
    Pixels,
    Prep,
    Rectangle,
    Workers,
    expanded,
    place_option,
    prep_option,
    result_option,
)
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError


@expanded
def map_area(
    place: Rectangle,
    period: Period,
    pixels: Pixels,
    options: ModelOptions,
    work: Workers,
    out: Annotated[
        str,
        result_option(
            "--out",
            "-o",
            metavar="PATH",
            help="The .zarr or .tif (COG) to write, with its STAC Item; also s3://, gs:// or az://.",
        ),
    ],
    area: Annotated[
        Path | None, place_option(help="Polygons: GeoJSON, GeoPackage, or another format of GDAL.")
    ] = None,
    layer: Annotated[str | None, place_option(help="Layer of that file.")] = None,
    model: Model = "scalemae",
    tile_size: Annotated[
        int | None, prep_option(help="Side of a window, px.", show_default="what suits the weights")
    ] = None,
    overlap_px: Annotated[
        int | None,
        prep_option(help="Least overlap of windows, px.", show_default="a quarter of a window"),
    ] = None,
    seams: Annotated[
        str | None,
        prep_option(
            help="Where windows overlap: harmonise them and blend their tokens, blend only, or "
            "discard their rims.",
            show_default="harmonise",
        ),
    ] = None,
    screen: Annotated[
        float | None,
        prep_option(
            help="How strongly harmonise keeps windows as they are, above 0.", show_default="0.2"
        ),
    ] = None,
    stride_px: Annotated[
        int | None,
        prep_option(help="Distance of tokens, px; less is denser.", show_default="patch size"),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        str,
        result_option(
            help="float32, float16 (half the size) or int8 (a quarter; a scale for each dimension; "
            "a .tif then needs GDAL 3.7 or later)."
        ),
    ] = "float32",
    pca: Annotated[int | None, result_option(help="Store this many principal components.")] = None,
    acquired: Annotated[
        str | None,
        result_option(help="When own imagery was taken, YYYY-MM-DD; for the STAC Item."),
    ] = None,
    overwrite: Annotated[
        bool, result_option("--overwrite", help="Start again, and replace a finished map.")
    ] = False,
    dry_run: Annotated[
        bool, result_option("--dry-run", help="Show what it takes; read and write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Embed a whole area into one map of patch tokens.

    Results are kept in OUT.partial: the same command continues from there, and
    retries what failed. Exit code 1 if a window failed, 130 if interrupted.

    All of a GeoTIFF:

    [dim]rs-embed map --imagery scene.tif -o map.zarr --acquired 2021-06-17
    --variant tiny[/dim]

    The polygons of a file, from a free catalogue, as a small GeoTIFF:

    [dim]rs-embed map --area district.gpkg --start 2022-06-01 --end 2022-09-01
    --backend stac -o map.tif --pca 16 --dtype int8[/dim]

    What that takes:

    [dim]rs-embed map --area district.gpkg --start 2022-06-01 --end 2022-09-01
    --backend stac -o map.tif --dry-run[/dim]
    """
    if pixels.min_valid is not None:
        raise SpecError(
            f"got --min-valid {pixels.min_valid:g} for a map, which has nodata where too little is "
            "valid; leave it out"
        )
    request.warn_if_lost(out)
    arguments = request.common(model, pixels, period, Prep(), options)
    del arguments["input_prep"]
    from rs_embed import embed_area, plan_area

    report: Any = (plan_area if dry_run else embed_area)(
        model,
        spatial=_area(place, area, has_imagery=pixels.imagery is not None),
        layer=layer,
        tile_size=tile_size,
        overlap_px=overlap_px,
        seams=seams,  # type: ignore[arg-type]  # checked there
        screen=screen,
        stride_px=stride_px,
        dtype=dtype,  # type: ignore[arg-type]  # checked there
        pca=pca,
        acquired=acquired,
        device=device,
        output=out,
        overwrite=overwrite,
        **vars(work),
        **arguments,
    )
    if json:
        print_json(report.to_json())
    else:
        echo(report)
    if not dry_run and report.failed:
        raise typer.Exit(1)


def _area(place: Rectangle, area: Path | None, *, has_imagery: bool) -> Any:
    """Return the file, box or square; None for all of the imagery."""
    spatial = request.rectangle(place)
    if area is not None and spatial is not None:
        raise SpecError("got --area with a point or --bbox, expected one of them")
    if area is None and spatial is None and not has_imagery:
        raise SpecError(
            "got no area, expected --area, --bbox, or --lon, --lat and --buffer-m; or --imagery, "
            "for all of it"
        )
    return area if spatial is None else spatial
