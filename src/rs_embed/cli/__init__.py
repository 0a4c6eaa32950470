"""The command line: parse, call the public function, print."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from types import TracebackType
from typing import Annotated, Any

import typer

import rs_embed
from rs_embed.cli.batch import batch
from rs_embed.cli.cache import cache
from rs_embed.cli.change import change
from rs_embed.cli.classify import classify
from rs_embed.cli.demo import demo
from rs_embed.cli.describe import describe
from rs_embed.cli.doctor import doctor
from rs_embed.cli.embed import embed
from rs_embed.cli.evaluate import evaluate
from rs_embed.cli.explore import explore
from rs_embed.cli.inspect import inspect
from rs_embed.cli.map import map_area
from rs_embed.cli.model_options import Commands
from rs_embed.cli.models import models
from rs_embed.cli.plot import plot
from rs_embed.cli.pretrain import pretrain
from rs_embed.cli.printing import PrintableFormatter, echo
from rs_embed.cli.search import search
from rs_embed.cli.wording import as_options
from rs_embed.errors import RsEmbedError, RsEmbedWarning, names_meant

# 128 and the number of SIGINT, as shells count.
_INTERRUPTED = 130
# The base of all errors of usage, whose module Typer's versions name differently.
_UsageError: Any = typer.BadParameter.__mro__[1]


def _name(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


class _Commands(Commands):
    """All commands; one that is interrupted has printed what there is to say."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's own context
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None
        except _UsageError as exc:
            if hasattr(exc, "possibilities"):
                flags = [flag for option in exc.ctx.command.params for flag in option.opts]
                names = {_name(flag): flag for flag in flags}
                exc.possibilities = [names[n] for n in names_meant(_name(exc.option_name), names)]
            raise


app = typer.Typer(
    name="rs-embed",
    cls=_Commands,
    epilog="Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
_COMMANDS = (
    embed, batch, map_area, search, change, explore, classify, plot, inspect, evaluate, pretrain,
)  # fmt: skip
for command in (*_COMMANDS, models, describe, doctor, demo):
    app.command(command.__name__.removesuffix("_area"))(command)
app.add_typer(cache, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"rs-embed {rs_embed.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors. Goes before the command.")
    ] = False,
    version: Annotated[  # noqa: ARG001  # acts by its callback
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Compute ScaleMAE embeddings of satellite imagery.

    For any place and period, or for your own images.
    """
    sys.excepthook = _whole if debug else _one_line
    runs, lines = logging.getLogger("rs_embed.runs"), logging.StreamHandler()
    lines.setFormatter(PrintableFormatter())
    runs.setLevel(logging.INFO)
    runs.addHandler(lines)
    context.call_on_close(lambda: runs.removeHandler(lines))


def main() -> None:
    """Run the command line."""
    # For developers of the libraries below, not for the person at the terminal.
    warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
    warnings.showwarning = _show_warning
    if logging.lastResort is not None:  # it prints what libraries log, text of files among it
        logging.lastResort.setFormatter(PrintableFormatter())
    app()


def _one_line(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if isinstance(exc, RsEmbedError | RsEmbedWarning):
        echo(f"error: {as_options(str(exc))}", err=True)
    else:
        _whole(kind, exc, trace)


def _whole(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    echo("".join(traceback.format_exception(kind, exc, trace)).rstrip(), err=True)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    echo(f"warning: {as_options(str(message))}", err=True)
