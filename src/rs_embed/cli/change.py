"""``rs-embed change``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rs_embed.cli.options import Json, result_option
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError


def change(
    first: Annotated[Path, typer.Argument(help="Map of `map`, or grid of `embed`: first date.")],
    second: Annotated[Path, typer.Argument(help="That of the second date.")],
    out: Annotated[
        Path | None, result_option("--out", "-o", help="The .tif to write: distance, floor, ratio.")
    ] = None,
    png: Annotated[Path | None, result_option(help="Also draw it, a .png.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="That of a third date, on which the ground was as on the first: its distance is "
            "the noise floor."
        ),
    ] = None,
    quantile: Annotated[
        float, typer.Option(help="Share of the tokens whose noise is below the level of the floor.")
    ] = 0.95,
    centred: Annotated[
        bool,
        typer.Option("--centred", help="Subtract the mean token of each date first."),
    ] = False,
    json: Json = False,
) -> None:
    """Compare two dates of one place, token by token.

    [dim]rs-embed change june.tif september.tif -o change.tif --png change.png[/dim]

    With what two dates without change differ by:

    [dim]rs-embed change a.zarr b.zarr --reference c.zarr -o change.tif[/dim]
    """
    if out is None and png is None and not json:
        raise SpecError("got nothing to write, expected -o change.tif, --png change.png or --json")
    from rs_embed import change, check_output

    if png is not None:
        check_output(png, "picture")
    if out is not None:
        check_output(out, "grid")
        if out.resolve() in [path.resolve() for path in (first, second, reference) if path]:
            raise SpecError(f"got -o {out}, which is one of the dates; choose another name")
    found = change(first, second, reference=reference, quantile=quantile, centred=centred)
    files = {}
    if out is not None:
        files["file"] = str(found.save(out))
    if png is not None:
        found.quicklook(png)
        files["picture"] = str(png)
    if json:
        print_json({**found.meta, **files})
        return
    echo(repr(found)[1:-1])
    for path in files.values():
        echo(f"wrote {path}")
