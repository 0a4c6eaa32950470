"""``rs-embed search``."""

from __future__ import annotations

from dataclasses import replace
from json import loads
from pathlib import Path
from typing import Annotated, Any

import typer

from rs_embed.cli import request
from rs_embed.cli.options import (
    DEFAULT_MODEL,
    Json,
    Model,
    ModelOptions,
    Period,
    Pixels,
    Pooling,
    Prep,
    expanded,
    place_option,
    result_option,
)
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError

_MAPS = (".zarr", ".tif", ".tiff", ".vrt")
_SHOWN_COLUMNS = 8


@expanded
def search(
    source: Annotated[Path, typer.Argument(help="Table of `batch`, or map of `map`.")],
    period: Period,
    pixels: Pixels,
    prep: Prep,
    options: ModelOptions,
    like_id: Annotated[str | None, place_option(help="Id of a place in the table.")] = None,
    lon: Annotated[
        float | None, place_option(help="Longitude, for the nearest place, or cell of a map.")
    ] = None,
    lat: Annotated[float | None, place_option(help="Latitude of that point.")] = None,
    like: Annotated[
        Path | None,
        place_option(
            help="A vector of `embed` (.npz), or a GeoTIFF, embedded with the options below."
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    pooling: Pooling = None,
    k: Annotated[
        int | None, result_option("-k", help="Number of neighbours.", show_default="10")
    ] = None,
    raw: Annotated[
        bool, result_option("--raw", help="Do not subtract the mean of the table or map first.")
    ] = False,
    out: Annotated[
        Path | None,
        result_option("--out", "-o", help="Write the neighbours as .geojson; of a map, a .tif."),
    ] = None,
    png: Annotated[
        Path | None,
        result_option(
            help="Also draw query and neighbours, a .png: their images if --imagery, --backend or "
            "--local is given, else a map."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Find the places of a table, or the cells of a map, most similar to one.

    [dim]rs-embed search vectors.npz --like-id farm -k 20 -o hits.geojson[/dim]

    [dim]rs-embed search vectors.npz --like image.tif --variant tiny[/dim]

    With a picture of the neighbours:

    [dim]rs-embed search vectors.npz --like-id farm --png hits.png --imagery scene.tif[/dim]

    How similar each cell of a map is to the one at a point:

    [dim]rs-embed search map.zarr --lon -75.6156 --lat 37.6942 -o similarity.tif[/dim]
    """
    if (lon is None) != (lat is None) or [like_id, lon, like].count(None) != 2:
        raise SpecError("expected one of --like-id, --like, and --lon with --lat")
    image = like is not None and like.suffix.lower() != ".npz"
    of_image = (prep != Prep(), model != DEFAULT_MODEL, pooling, *options.values.values())
    if not image and any(option not in (None, False) for option in of_image):
        raise SpecError("got options of the model, expected them only with --like image.tif")
    if not image and png is None and (period, pixels) != (Period(), Pixels()):
        raise SpecError("got options of imagery, expected them only with --png or --like image.tif")
    from rs_embed import Embedding, OutputSpec, get_embedding, nearest, similarity_map

    if source.suffix.lower() in _MAPS:
        if lon is None or lat is None or out is None or k is not None or png:
            raise SpecError("got a map, expected only --lon and --lat in it, and -o similarity.tif")
        found = similarity_map(source, [(lon, lat)], centred=not raw, output=out)
        low, high = float(found.min()), float(found.max())
        if json:
            print_json({"file": str(out), "min": low, "max": high})
        else:
            echo(f"wrote {out}: cosine similarity {low:.3f} to {high:.3f}")
        return
    query: Any = like_id
    if lon is not None:
        query = {"type": "Point", "coordinates": [lon, lat]}
    elif like is not None and not image:
        query = Embedding.load(like)
    elif like is not None:
        own = replace(pixels, imagery=str(like), backend="auto", local=None, cache=None)
        arguments = request.common(model, own, Period(), prep, options)
        output = OutputSpec("pooled", pooling)  # type: ignore[arg-type]  # checked when built
        query = get_embedding(model, output=output, **arguments)
    drawing: dict[str, Any] = {"picture": png}
    if png is not None:
        asked = request.common(model, pixels, period, Prep(), ModelOptions({}))
        stated = ("temporal", "sensor", "fetch", "backend", "imagery", "cache")
        drawing |= {key: asked[key] for key in stated if asked[key] not in (None, "auto")}
    hits = nearest(source, query, 10 if k is None else k, centred=not raw, output=out, **drawing)
    rows = hits.to_crs("EPSG:4326").to_wkt() if getattr(hits, "crs", None) else hits
    if json:
        records = loads(rows.to_json(orient="records", date_format="iso", double_precision=15))
        files = {"file": out and str(out), "picture": png and str(png)}
        print_json({**hits.attrs, "hits": records, **files})
        return
    away = f", {hits.attrs['distance_m']:.0f} m from the point" if lon is not None else ""
    echo(
        f"{len(hits)} of {hits.attrs['compared']} places, by {'raw' if raw else 'centred'} cosine "
        f"similarity to {hits.attrs.get('query', like)}{away}"
    )
    echo(rows[rows.columns[:_SHOWN_COLUMNS]].to_string(index=False, max_colwidth=40))
    for path in (out, png):
        if path is not None:
            echo(f"wrote {path}")
