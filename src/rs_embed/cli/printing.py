"""How results and errors are printed: as text or JSON, and never as commands of a terminal."""

from __future__ import annotations

import json
import logging
from typing import Any

import typer

from rs_embed.printable import printable


def echo(text: object, *, err: bool = False) -> None:
    """Print text on standard output, or standard error."""
    typer.echo(printable(str(text)), err=err)  # noqa: TID251  # the only one


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON on standard output."""
    echo(json.dumps(value, indent=2, ensure_ascii=False))


class PrintableFormatter(logging.Formatter):
    """Writes the message of a log record alone."""

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102  # as the base class
        return printable(super().format(record))
