"""``rs-embed map``."""

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
    Period,
    Pixels,
    Prep,
    Rectangle,
    expanded,
    place_option,
    prep_option,
    print_json,
    result_option,
)
from rs_embed.errors import RsEmbedError, SpecError

if TYPE_CHECKING:
    from rs_embed.maps.report import MapPlan, MapReport
    from rs_embed.maps.run import AreaRun

_SHOWN_ERRORS = 10
# 128 and the number of SIGINT, as shells count.
_INTERRUPTED = 130


@expanded
def map_area(
    place: Rectangle,
    period: Period,
    pixels: Pixels,
    options: ModelOptions,
    out: Annotated[
        Path,
        result_option("--out", "-o", help="The .zarr or .tif (COG) to write, with its STAC Item."),
    ],
    area: Annotated[
        Path | None, place_option(help="Polygons: GeoJSON, GeoPackage, or what else GDAL reads.")
    ] = None,
    layer: Annotated[str | None, place_option(help="Layer of that file.")] = None,
    model: Model = "scalemae",
    tile_size: Annotated[
        int | None, prep_option(help="Side of a window, px.", show_default="image size")
    ] = None,
    overlap_px: Annotated[
        int | None,
        prep_option(help="Least overlap of windows, px.", show_default="a quarter of a window"),
    ] = None,
    seams: Annotated[
        str, prep_option(help="blend the tokens where windows overlap, or discard the rim.")
    ] = "blend",
    stride_px: Annotated[
        int | None,
        prep_option(help="Distance of tokens, px; less is denser.", show_default="patch size"),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        str,
        result_option(
            help="float32, float16 (half the size) or int8 (a quarter; a scale for each dimension)."
        ),
    ] = "float32",
    pca: Annotated[int | None, result_option(help="Store this many principal components.")] = None,
    acquired: Annotated[
        str | None,
        result_option(help="When own imagery was taken, YYYY-MM-DD; for the STAC Item."),
    ] = None,
    overwrite: Annotated[
        bool, result_option("--overwrite", help="Begin anew, and replace a finished map.")
    ] = False,
    dry_run: Annotated[
        bool, result_option("--dry-run", help="Say what it takes; read and write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Embed a whole area into one map of patch tokens.

    What is done is kept in OUT.partial: the same command goes on from there,
    and tries again what failed. Exit code 1 if a window failed, 130 if
    interrupted.

    All of a GeoTIFF:

    [dim]rs-embed map --imagery scene.tif -o map.zarr --acquired 2021-06-17
    --variant tiny --display visual[/dim]

    The polygons of a file, from a free catalogue, as a small GeoTIFF:

    [dim]rs-embed map --area district.gpkg --start 2022-06-01 --end 2022-09-01
    --backend stac -o map.tif --pca 16 --dtype int8[/dim]

    What that takes:

    [dim]rs-embed map --area district.gpkg --start 2022-06-01 --end 2022-09-01
    --backend stac -o map.tif --dry-run[/dim]
    """
    from rs_embed.errors import give_warnings
    from rs_embed.maps.planning import plan_map
    from rs_embed.maps.request import settle_area
    from rs_embed.maps.run import AreaRun, checked_path, windows_left

    checked_path(out)
    arguments = request.common(model, pixels, period, Prep(), options)
    if pixels.min_valid is not None:
        raise SpecError(
            f"got --min-valid {pixels.min_valid:g} for a map, which has nodata where too little is "
            "valid; leave it out"
        )
    for name in ("input_prep", "min_valid"):
        arguments.pop(name, None)
    spatial = request.rectangle(place)
    if area is not None and spatial is not None:
        raise SpecError("got --area with a point or --bbox, expected one of them")
    if area is None and spatial is None and pixels.imagery is None:
        raise SpecError(
            "got no area, expected --area, --bbox, or --lon, --lat and --buffer-m; or --imagery, "
            "for all of it"
        )
    asked = settle_area(
        model,
        spatial=area if spatial is None else spatial,
        layer=layer,
        tile_size=tile_size,
        overlap_px=overlap_px,
        seams=seams,  # type: ignore[arg-type]  # checked there
        stride_px=stride_px,
        dtype=dtype,
        pca=pca,
        acquired=acquired,
        device=device,
        **arguments,
    )
    if dry_run:
        give_warnings(asked.notes)
        left = windows_left(out, asked, overwrite=overwrite)
        done = len(asked.layout.tiles) - left
        if done:
            typer.echo(f"{done} windows are done already; what is left:", err=True)
        _print_plan(plan_map(asked, left), json=json)
        return
    rows, columns = asked.layout.tokens.shape
    with AreaRun(out, asked, overwrite=overwrite) as work:
        if work.resumed:
            typer.echo(f"going on: {work.resumed} of {work.windows} windows are done", err=True)
        else:
            typer.echo(f"{_windows(work.windows)} for {rows} x {columns} tokens", err=True)
        try:
            report = work.run(measured=_say_measured)
        except KeyboardInterrupt:
            _say_kept("interrupted", work, overwrite=overwrite)
            raise typer.Exit(_INTERRUPTED) from None
        except RsEmbedError:
            if work.kept:
                _say_kept("stopped", work, overwrite=overwrite)
            raise
    if json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.failed:
        raise typer.Exit(1)


def _print_plan(plan: MapPlan, *, json: bool) -> None:
    if json:
        print_json(plan.to_json())
        return
    rows, columns = plan.shape
    typer.echo(
        f"{_windows(plan.windows)}, {plan.images} image{'' if plan.images == 1 else 's'} through "
        f"the model, {rows} x {columns} cells of {plan.cell:g} m ({plan.crs}), {plan.tokens} "
        f"tokens of {plan.dimensions}"
    )
    typer.echo(_size_and_time(plan))


def _size_and_time(plan: MapPlan) -> str:
    time = "" if plan.seconds is None else f"; the model takes {_duration(plan.seconds)}"
    return (
        f"the map takes up to {_size(plan.output_bytes)}, finished windows "
        f"{_size(plan.kept_bytes)} until it is written{time}"
    )


def _say_measured(plan: MapPlan) -> None:
    are = "is" if plan.windows == 1 else "are"
    typer.echo(f"{_windows(plan.windows)} {are} left: {_size_and_time(plan)}", err=True)


def _windows(count: int) -> str:
    return f"{count} window{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min"
    return f"about {minutes} min {rest} s" if minutes else f"about {rest} s"


def _size(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _say_kept(why: str, work: AreaRun, *, overwrite: bool) -> None:
    command = "the same command without --overwrite" if overwrite else "the same command"
    typer.echo(
        f"{why}: {work.kept} of {_windows(work.windows)} are kept; {command} goes on", err=True
    )


def _print(report: MapReport) -> None:
    nodata = report.tokens - report.valid_tokens
    beside = "" if report.item is None else f" and {report.item}"
    typer.echo(
        f"wrote {report.path} ({_size(report.bytes)}){beside}: {report.valid_tokens} "
        f"tokens{f', {nodata} cells without' if nodata else ''}"
    )
    memory = report.peak_memory_bytes
    typer.echo(
        f"{_windows(report.windows)}{f', {report.resumed} done before' if report.resumed else ''}; "
        f"{report.windows_per_s:.2f} windows/s"
        f"{f'; peak memory {_size(memory)}' if memory else ''}"
    )
    error = report.encoding_error
    if error is not None:
        typer.echo(
            f"stored values against tokens: cosine distance {error['cosine_distance_mean']:.2g} on "
            f"average, {error['cosine_distance_max']:.2g} at most; relative RMSE "
            f"{error['rmse_relative']:.2g}"
        )
    for bounds, why in list(report.failed.items())[:_SHOWN_ERRORS]:
        typer.echo(f"failed {', '.join(f'{v:.10g}' for v in bounds)}: {why}")
    if len(report.failed) > _SHOWN_ERRORS:
        typer.echo(f"and {len(report.failed) - _SHOWN_ERRORS} more windows; --json lists them")
    if report.failed:
        typer.echo("what is done is kept: the same command tries the failed windows again")
