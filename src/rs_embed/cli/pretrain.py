"""``rs-embed pretrain``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rs_embed.cli.options import Json, print_json


def pretrain(
    config: Annotated[Path, typer.Argument(help="The run, a .toml file; see docs/pretraining.md.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that the sources' paths are relative to; else the file's own."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates in all, instead of optimiser.steps.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="End this run after so long, instead of run.minutes.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a ScaleMAE encoder on your own imagery, or go on with a run that was interrupted.

    [dim]rs-embed pretrain recipes/scalemae-tiny.toml --data imagery[/dim]
    """
    from rs_embed.training.recipe import read_config

    stated = read_config(config, data=data)
    if steps is not None:
        stated = stated.with_steps(steps)
    if minutes is not None:
        stated = replace(stated, run=replace(stated.run, minutes=minutes))
    from rs_embed.training import pretraining

    report = pretraining.pretrain(stated)
    if json:
        print_json(
            {
                "checkpoint": str(report.checkpoint),
                "step": report.step,
                "steps": report.steps,
                "resumed_at": report.resumed_at,
                "seconds": report.seconds,
            }
        )
    else:
        since = f", resumed at {report.resumed_at}" if report.resumed_at else ""
        done = f"{report.step} of {report.steps}" if report.step <= report.steps else report.step
        typer.echo(f"step     {done}{since}, {report.seconds:.0f} s in all")
        typer.echo(f"wrote    {report.checkpoint}: weights= takes it")
    if report.step < report.steps:
        typer.echo("not all steps were made: the same command goes on from here", err=True)
    if report.interrupted:
        raise KeyboardInterrupt  # saved and reported; the exit code is that of an interrupt
