"""``rs-embed doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rs_embed.cli.options import Json
from rs_embed.cli.printing import echo, print_json


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Also check that the services respond.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the installation: packages, settings, devices, backends, cache and weights.

    Each problem comes with a fix. Uses no network unless --online is given.
    The exit code is 1 if something is broken.

    [dim]rs-embed doctor[/dim]
    """
    from rs_embed import diagnose

    findings = diagnose(online=online)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            fix = f"\n         fix: {finding.fix}" if finding.fix else ""
            echo(f"{finding.state:<8} {finding.what}: {finding.found}{fix}")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
