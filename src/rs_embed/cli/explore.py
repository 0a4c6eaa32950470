"""``rs-embed explore``."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from rs_embed.cli.options import Json, result_option
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError


def explore(
    source: Annotated[
        str, typer.Argument(help="Map of `map`, grid of `embed`, or table of `batch`.")
    ],
    out: Annotated[Path, result_option("--out", "-o", help="Folder to write.")],
    second: Annotated[
        str | None, typer.Argument(help="Map or grid of another date, of the same cells.")
    ] = None,
    imagery: Annotated[
        list[str] | None,
        typer.Option(
            help="Image to show as what the model saw; one for each map.",
            show_default="that of the map, if it is there and unchanged",
        ),
    ] = None,
    pca: Annotated[
        int | None, result_option(help="Keep this many principal components, for a smaller page.")
    ] = None,
    title: Annotated[
        str | None, result_option(help="Title of the page.", show_default="name of the file")
    ] = None,
    base_map: Annotated[
        str | None,
        result_option(
            metavar="URL",
            help="Tiles to show below, with {z}, {x} and {y}.",
            show_default="nothing is loaded from elsewhere",
        ),
    ] = None,
    attribution: Annotated[
        str | None, result_option(help="Whom the page credits for the map tiles.")
    ] = None,
    serve: Annotated[
        bool, result_option("--serve", help="Show the page in a browser, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int | None, result_option(help="Port to serve at.", show_default="a free one")
    ] = None,
    overwrite: Annotated[
        bool, result_option("--overwrite", help="Replace a finished page.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a page to look at a map or table of embeddings in a browser.

    [dim]rs-embed explore demo-output/tokens.tif -o site --serve[/dim]

    Two dates of one place:

    [dim]rs-embed explore june.zarr september.zarr -o site[/dim]
    """
    if port is not None and not serve:
        raise SpecError("got --port without --serve, which it is for")
    from rs_embed import explore

    found = explore(
        source,
        second,
        output=out,
        title=title,
        imagery=imagery or None,
        pca=pca,
        base_map=base_map,
        attribution=attribution,
        port=port,
        overwrite=overwrite,
    )
    url = found.serve() if serve else None
    if json:
        print_json({"folder": str(out), "url": url, **found.about})
    else:
        echo(repr(found)[1:-1])
        echo(f"wrote {out}" + (f", served at {url} until Ctrl-C" if serve else ""))
    if url is not None:
        webbrowser.open(url)
        threading.Event().wait()
