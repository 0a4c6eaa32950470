"""``rs-embed evaluate``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rs_embed.cli import request
from rs_embed.cli.options import (
    Device,
    Json,
    Model,
    ModelOptions,
    expanded,
    print_json,
    result_option,
)
from rs_embed.errors import SpecError

if TYPE_CHECKING:
    from rs_embed.evaluation import EvaluationReport

_COLUMNS = {
    "features": "features",
    "pooling": "pooling",
    "scale": "scale",
    "side_px": "px",
    "gsd": "GSD is",
    "input_res": "GSD",
}
_RIGHT = ("scale", "px", "GSD")


@expanded
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Labelled images: archives with an index, folders of classes; several are one "
            "set. Or one Parquet file of embeddings."
        ),
    ],
    options: ModelOptions,
    gsd_m: Annotated[
        float | None, typer.Option(help="Ground metres per pixel of images without georeference.")
    ] = None,
    model: Model = "scalemae",
    device: Device = "auto",
    pooling: Annotated[str, typer.Option(help="Among cls, mean, max.")] = "cls,mean,max",
    scales: Annotated[
        str, typer.Option(help="Shares of full resolution that are shown.")
    ] = "1,0.5,0.25,0.125",
    protocol: Annotated[str, typer.Option(help="Among knn, probe.")] = "knn",
    k: Annotated[int, typer.Option(help="Neighbours that vote.")] = 20,
    baselines: Annotated[bool, typer.Option(help="Score colour statistics too.")] = True,
    limit: Annotated[
        int | None, typer.Option(help="Most images of each class in each split.")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Columns of a Parquet file: embedding, label, split.")
    ] = "embedding,label,split",
    out: Annotated[Path | None, result_option("--out", "-o", help="A .json of the report.")] = None,
    png: Annotated[Path | None, result_option(help="A .png of accuracy against scale.")] = None,
    json: Json = False,
) -> None:
    """Score embeddings on real labels: nearest neighbours or a linear probe, scale by scale.

    [dim]rs-embed evaluate eurosat.tar.xz --gsd-m 10 --png scales.png -o report.json[/dim]

    [dim]rs-embed evaluate embeddings.parquet --protocol knn,probe[/dim]
    """
    from rs_embed import check_output, evaluation
    from rs_embed.evaluation.report import check_drawable
    from rs_embed.evaluation.tables import SUFFIXES

    if out is not None:
        check_output(out, "report")
    if png is not None:
        check_drawable(png)
    scored: dict[str, Any] = {"protocols": _names(protocol), "k": k, "limit": limit}
    if any(path.suffix.lower() in SUFFIXES for path in sources):
        if len(sources) > 1 or png is not None:
            raise SpecError(
                "got a Parquet file with other sources or --png, expected it alone: its "
                "embeddings have no scales"
            )
        report = evaluation.score_embeddings(sources[0], columns=_columns(columns), **scored)
    else:
        report = evaluation.evaluate(
            sources,
            gsd_m=gsd_m,
            model=model,
            device=device,
            poolings=_names(pooling),
            scales=_numbers(scales),
            baselines=baselines,
            **scored,
            **request.model_options(options),
        )
    files = [] if out is None else [report.save(out)]
    files += [] if png is None else [report.save_png(png)]
    if json:
        print_json({**report.to_json(), "files": [str(path) for path in files]})
        return
    _print(report)
    for path in files:
        typer.echo(f"wrote {path}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _columns(text: str) -> tuple[str, str, str]:
    names = _names(text)
    if len(names) != 3:
        raise SpecError(f"got --columns {text}, expected three: embedding,label,split")
    return names[0], names[1], names[2]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise SpecError(f"got --scales {text}, expected numbers such as 1,0.5") from exc


def _print(report: EvaluationReport) -> None:
    """Print a line for each way to make vectors, with a column for each protocol."""
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
    first = report.rows[0]
    classes = len(report.about["classes"])
    typer.echo(f"{first.references} references, {first.queries} queries, {classes} classes")
    for note in report.notes:
        typer.echo(f"note: {note}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
