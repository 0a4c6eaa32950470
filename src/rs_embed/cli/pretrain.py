"""``rs-embed pretrain``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rs_embed.cli.options import Json
from rs_embed.cli.printing import echo, print_json


def pretrain(
    config: Annotated[Path, typer.Argument(help="Recipe of the run, a .toml file.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the paths of the sources are relative to.",
            show_default="folder of the recipe",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Total number of steps.", show_default="optimiser.steps of the recipe"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop after this many minutes.", show_default="run.minutes of the recipe"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a ScaleMAE encoder on your own imagery, or resume an interrupted run.

    The recipe is described in docs/pretraining.md. Exit code 130 if interrupted.

    [dim]rs-embed pretrain recipes/scalemae-tiny.toml --data imagery[/dim]
    """
    import rs_embed

    stated = rs_embed.read_recipe(config, data=data)
    if steps is not None:
        stated = stated.with_steps(steps)
    if minutes is not None:
        stated = replace(stated, run=replace(stated.run, minutes=minutes))
    report = rs_embed.pretrain(stated)
    if json:
        numbers = {name: getattr(report, name) for name in ("step", "steps", "resumed_at")}
        print_json({"checkpoint": str(report.checkpoint), **numbers, "seconds": report.seconds})
    else:
        since = f", resumed at {report.resumed_at}" if report.resumed_at else ""
        done = f"{report.step} of {report.steps}" if report.step <= report.steps else report.step
        echo(f"step     {done}{since}, {report.seconds:.0f} s in total")
        echo(f"wrote    {report.checkpoint}; use it as --weights")
    if report.step < report.steps:
        echo("not all steps are done; run it again to continue", err=True)
    if report.interrupted:
        raise KeyboardInterrupt  # saved and reported; the exit code is that of an interrupt
