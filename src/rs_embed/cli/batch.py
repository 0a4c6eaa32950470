"""``rs-embed batch``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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
    expanded,
    place_option,
    print_json,
    result_option,
)
from rs_embed.errors import RsEmbedError, SpecError, some

if TYPE_CHECKING:
    from rs_embed.files.places import NamedPlace
    from rs_embed.tables.batch import Report, ResumableBatch

_SHOWN_ERRORS = 5
# 128 and the number of SIGINT, as shells count.
_INTERRUPTED = 130


@expanded
def batch(
    places: Annotated[
        Path, typer.Argument(help="CSV (id, lon, lat, buffer_m, or a box) or GeoJSON.")
    ],
    period: Period,
    pixels: Pixels,
    prep: Prep,
    options: ModelOptions,
    out: Annotated[Path, result_option("--out", "-o", help="The .npz to write, one row a place.")],
    model: Model = "scalemae",
    buffer_m: Annotated[
        float | None,
        place_option(help="Half the side of the square around points that state none, metres."),
    ] = None,
    device: Device = "auto",
    pooling: Pooling = None,
    on_error: Annotated[
        str, result_option(help="return: a place that fails is a row of NaN. raise: it ends all.")
    ] = "return",
    overwrite: Annotated[
        bool, result_option("--overwrite", help="Begin anew, and replace a finished file.")
    ] = False,
    dry_run: Annotated[
        bool,
        result_option("--dry-run", help="Say what it will ask for; fetch and write nothing."),
    ] = False,
    json: Json = False,
) -> None:
    """Embed many places into one file, one vector each.

    What is done is kept in OUT.partial: the same command goes on from there,
    and tries again what failed. Exit code 1 if a place failed, 130 if
    interrupted.

    [dim]rs-embed batch places.csv -o vectors.npz --buffer-m 640 --backend sample
    --variant tiny[/dim]

    Windows of one GeoTIFF:

    [dim]rs-embed batch places.geojson -o vectors.npz --imagery scene.tif[/dim]

    What it will ask of Earth Engine, without asking:

    [dim]rs-embed batch places.csv -o vectors.npz --backend gee --start 2022-06-01
    --end 2022-09-01 --dry-run[/dim]
    """
    from rs_embed import check_output
    from rs_embed.files.places import read_places

    check_output(out, "vectors")
    named = read_places(places, buffer_m=buffer_m)

    from rs_embed.specs import OutputSpec
    from rs_embed.tables.batch import ResumableBatch

    arguments = request.common(model, pixels, period, prep, options)
    if dry_run:
        _estimate(model, named, arguments, device, json=json)
        return
    output = OutputSpec("pooled", pooling)  # type: ignore[arg-type]  # checked when built
    with ResumableBatch(
        out, named, model, overwrite=overwrite, output=output, device=device, **arguments
    ) as work:
        if work.resumed:
            typer.echo(f"going on: {work.resumed} of {len(named)} places are done", err=True)
        try:
            report = work.run(on_error)  # type: ignore[arg-type]  # checked there
        except KeyboardInterrupt:
            _say_kept("interrupted", work, len(named), overwrite=overwrite)
            raise typer.Exit(_INTERRUPTED) from None
        except RsEmbedError:
            if work.kept:
                _say_kept("stopped", work, len(named), overwrite=overwrite)
            raise
    if json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.errors:
        raise typer.Exit(1)


def _estimate(
    model: str, named: Sequence[NamedPlace], arguments: dict[str, Any], device: str, *, json: bool
) -> None:
    """Print what the batch will ask for; exit with 1 if a place cannot be meant."""
    from rs_embed import estimate

    if arguments.pop("imagery") is not None:
        raise SpecError(
            "got --dry-run with --imagery, expected a backend: own files ask nothing of a service"
        )
    arguments.pop("cache")
    found = estimate(
        model,
        spatials=[place.spatial for place in named],
        device=device,  # type: ignore[arg-type]  # checked there
        **arguments,
    )
    if json:
        print_json(found.to_json())
    else:
        typer.echo(
            f"{found.places} places, {found.pixels / 1e6:.2g} million pixels, "
            f"{found.images} images through the model"
        )
        size = f", {found.download_bytes / 1e6:.1f} MB of pixels" if found.download_bytes else ""
        typer.echo(f"backend {found.backend}: {found.requests} requests{size}")
        if found.more:
            typer.echo(found.more)
        for index, reason in list(found.refused.items())[:_SHOWN_ERRORS]:
            typer.echo(f"refused {named[index].id}: {reason}")
    if found.refused:
        raise typer.Exit(1)


def _say_kept(why: str, work: ResumableBatch, count: int, *, overwrite: bool) -> None:
    command = "the same command without --overwrite" if overwrite else "the same command"
    typer.echo(f"{why}: {work.kept} of {count} places are kept; {command} goes on", err=True)


def _print(report: Report) -> None:
    counts = [f"{report.places - len(report.errors)} of {report.places} places"]
    if report.errors:
        counts.append(f"{len(report.errors)} failed (rows of NaN)")
    if report.resumed:
        counts.append(f"{report.resumed} done before")
    typer.echo(f"wrote {report.path}: {', '.join(counts)}; {report.places_per_s:.1f} places/s")
    failed: dict[str, list[str]] = {}
    for name, error in report.errors.items():
        failed.setdefault(error, []).append(name)
    for error, names in list(failed.items())[:_SHOWN_ERRORS]:
        typer.echo(f"failed {some(names)}: {error}")
    if len(failed) > _SHOWN_ERRORS:
        typer.echo("the others are in its error.jsonl")
    if report.errors:
        typer.echo("what is done is kept: the same command tries the failed places again")
