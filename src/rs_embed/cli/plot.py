"""``rs-embed plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rs_embed.cli.options import Json, result_option
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError, UnknownNameError

# Which options belong to which kind, by their names there.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "pca": (),
    "similarity": ("point", "like_id", "raw"),
    "clusters": ("k",),
    "change": ("reference", "centred"),
    "histogram": ("of",),
    "coverage": (),
}
# The numbers of inputs; the others take one or more.
_INPUTS = {"similarity": 1, "coverage": 1, "change": 2}


def plot(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="pca|similarity|clusters|change|histogram|coverage"),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Maps of `map`, grids of `embed`, tables of `batch`; coverage: also a .partial.",
        ),
    ],
    out: Annotated[Path, result_option("--out", "-o", help="The .png, .svg or .pdf to write.")],
    point: Annotated[
        str | None, typer.Option(metavar="LON,LAT", help="similarity: to the token at this point.")
    ] = None,
    like_id: Annotated[
        str | None, typer.Option(help="similarity: to this place of a table.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="similarity: do not subtract the mean first.")
    ] = False,
    k: Annotated[
        int | None, typer.Option("-k", help="clusters: their number, 2 to 9.", show_default="6")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="change: a third date, whose distance is the noise floor.")
    ] = None,
    centred: Annotated[
        bool, typer.Option("--centred", help="change: subtract the mean of each date first.")
    ] = False,
    of: Annotated[
        str | None,
        typer.Option(
            metavar="gsd|validity|cosine", help="histogram: of what.", show_default="cosine"
        ),
    ] = None,
    dpi: Annotated[float, result_option(help="Pixels per inch.", min=20, max=1200)] = 120,
    json: Json = False,
) -> None:
    """Plot maps and tables: what is where, how alike it is, what a run has done.

    [dim]rs-embed plot pca june.zarr september.zarr -o both.png[/dim]

    [dim]rs-embed plot similarity map.zarr --point -75.6156,37.6942 -o similarity.png[/dim]

    [dim]rs-embed plot clusters map.tif -k 5 -o clusters.svg[/dim]

    [dim]rs-embed plot coverage vectors.parquet.partial -o run.png[/dim]
    """
    if kind not in _OPTIONS:
        raise UnknownNameError.among("kind of plot", kind, _OPTIONS)
    given: dict[str, Any] = {
        "point": _position(point), "like_id": like_id, "raw": raw, "k": k,
        "reference": reference, "centred": centred, "of": of,
    }  # fmt: skip
    stated = {name: value for name, value in given.items() if value not in (None, False)}
    for name in stated.keys() - set(_OPTIONS[kind]):
        flag = "-k" if name == "k" else f"--{name.replace('_', '-')}"
        raise SpecError(f"got {flag} for {kind}, which has no such option; leave it out")
    count = _INPUTS.get(kind, len(inputs))
    if len(inputs) != count:
        raise SpecError(f"got {len(inputs)} inputs for {kind}, expected {count}")
    from rs_embed import check_output, plotting

    check_output(out, "plot")
    if "raw" in stated:
        stated["centred"] = not stated.pop("raw")
    figure = getattr(plotting, kind)(*inputs, **stated)
    plotting.save(figure, out, dpi=dpi)
    if json:
        print_json({"file": str(out), "kind": kind})
    else:
        echo(f"wrote {out}")


def _position(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        lon, lat = map(float, text.split(","))
    except ValueError as exc:
        raise SpecError(f"got --point {text}, expected lon,lat such as -75.6156,37.6942") from exc
    return lon, lat
