"""``rs-embed evaluate``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rs_embed._optional import require
from rs_embed.cli import request
from rs_embed.cli.options import (
    DEFAULT_MODEL,
    Device,
    Json,
    Model,
    ModelOptions,
    expanded,
    result_option,
)
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed import EvaluationReport

_COLUMNS = {
    "features": "features",
    "pooling": "pooling",
    "scale": "scale",
    "side_px": "px",
    "gsd": "GSD is",
    "input_res": "GSD",
}
_RIGHT = ("scale", "px", "GSD")
_TABLES = (".geoparquet", ".parquet", ".pq")


@expanded
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Labelled images: folders with one folder per class, or archives with an index. "
            "Or one Parquet file of embeddings."
        ),
    ],
    options: ModelOptions,
    gsd_m: Annotated[
        float | None,
        typer.Option(help="Pixel size of images without georeference, in metres on the ground."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    pooling: Annotated[
        str, typer.Option(help="How tokens become one vector: any of cls, mean, max.")
    ] = "cls,mean,max",
    scales: Annotated[
        str, typer.Option(help="Scales of the images, as fractions of full resolution.")
    ] = "1,0.5,0.25,0.125",
    protocol: Annotated[
        str, typer.Option(help="How embeddings are scored: any of knn, probe.")
    ] = "knn",
    k: Annotated[int, typer.Option(help="Number of nearest neighbours for knn.")] = 20,
    baselines: Annotated[bool, typer.Option(help="Also score simple colour statistics.")] = True,
    limit: Annotated[
        int | None, typer.Option(help="Maximum number of images per class and split.")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Columns of the Parquet file: embedding, label, split.")
    ] = "embedding,label,split",
    out: Annotated[
        Path | None, result_option("--out", "-o", help="Also write the report, a .json.")
    ] = None,
    png: Annotated[
        Path | None, result_option(help="Also write a plot of accuracy against scale, a .png.")
    ] = None,
    json: Json = False,
) -> None:
    """Score embeddings on labelled images, by nearest neighbours or a linear probe.

    [dim]rs-embed evaluate eurosat.tar.xz --gsd-m 10 --png scales.png -o report.json[/dim]

    [dim]rs-embed evaluate embeddings.parquet --protocol knn,probe[/dim]
    """
    import rs_embed

    if out is not None:
        rs_embed.check_output(out, "report")
    if png is not None:
        rs_embed.check_output(png, "picture")
        require("matplotlib.figure", extra="train", purpose="the picture of an evaluation")
    scored: dict[str, Any] = {"protocols": _names(protocol), "k": k, "limit": limit}
    if any(path.suffix.lower() in _TABLES for path in sources):
        if len(sources) > 1 or png is not None:
            raise SpecError(
                "got a Parquet file with other sources or --png, expected the file alone: its "
                "embeddings have no scales"
            )
        names = _names(columns)
        if len(names) != 3:
            raise SpecError(f"got --columns {columns}, expected three: embedding,label,split")
        report = rs_embed.score_embeddings(
            sources[0], columns=(names[0], names[1], names[2]), **scored
        )
    else:
        report = rs_embed.evaluate(
            sources,
            gsd_m=gsd_m,
            model=model,
            device=device,
            poolings=_names(pooling),
            scales=_numbers(scales),
            baselines=baselines,
            **scored,
            **request.model_options(model, options),
        )
    files = [] if out is None else [report.save(out)]
    files += [] if png is None else [report.save_png(png)]
    _print(report, files, json=json)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise SpecError(f"got --scales {text}, expected numbers such as 1,0.5") from exc


def _print(report: EvaluationReport, files: list[Path], *, json: bool) -> None:
    if json:
        print_json({**report.to_json(), "files": [str(path) for path in files]})
        return
    _print_table(report)
    first = report.rows[0]
    classes = len(report.about["classes"])
    echo(f"{first.references} references, {first.queries} queries, {classes} classes")
    for note in report.notes:
        echo(f"note: {note}")
    for path in files:
        echo(f"wrote {path}")


def _print_table(report: EvaluationReport) -> None:
    """Print a row for each way to make vectors, with a column for each protocol."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    accuracies: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for row in report.rows:
        way = tuple(getattr(row, name) for name in _COLUMNS)
        accuracies[way][row.protocol] = row.accuracy
    protocols = list(dict.fromkeys(row.protocol for row in report.rows))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in (*_COLUMNS.values(), *protocols):
        # A long name of a column may take two lines; a figure is never cut.
        table.add_column(
            title, no_wrap=title != "features", overflow="fold",
            justify="right" if title in _RIGHT else "left",
        )  # fmt: skip
    for way, found in accuracies.items():
        cells = [_text(value) for value in way]
        table.add_row(*cells, *(f"{found[protocol]:.4f}" for protocol in protocols))
    Console(highlight=False).print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
