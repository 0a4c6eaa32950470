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
        typer.Option(help="Folder for relative paths of sources; the one of CONFIG if not given."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Total number of updates, instead of optimiser.steps.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time, instead of run.minutes.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a ScaleMAE encoder on your own imagery, or continue an interrupted run.

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
        typer.echo(f"step     {done}{since}, {report.seconds:.0f} s in total")
        typer.echo(f"wrote    {report.checkpoint}, for use as weights=")
    if report.step < report.steps:
        typer.echo("not all steps are done; run it again to continue", err=True)
    if report.interrupted:
        raise KeyboardInterrupt  # saved and reported; the exit code is that of an interrupt
