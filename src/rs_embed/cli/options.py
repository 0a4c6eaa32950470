"""Option types that several commands share, and how results are printed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ModelName = Annotated[str, typer.Argument(help="Id or alias of a model; see `rs-embed models`.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; one that is not available is an error.")
]


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
