"""``rs-embed embed``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rs_embed.cli.options import Device, Json, print_json
from rs_embed.errors import ImageryError, SpecError

if TYPE_CHECKING:
    from rs_embed.embedding import Embedding
    from rs_embed.specs import FetchSpec, SensorSpec, Spatial, TemporalSpec

_PLACE, _PIXELS, _MODEL, _RESULT = "Place and period", "Pixels", "Model", "Result"


def embed(
    model: Annotated[str, typer.Option(help="Id or alias of a model.")] = "scalemae",
    lon: Annotated[float | None, typer.Option(help="Degrees east.", rich_help_panel=_PLACE)] = None,
    lat: Annotated[
        float | None, typer.Option(help="Degrees north.", rich_help_panel=_PLACE)
    ] = None,
    buffer_m: Annotated[
        float | None,
        typer.Option(help="Half the side of the square, ground metres.", rich_help_panel=_PLACE),
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(
            help="minlon,minlat,maxlon,maxlat instead of a point.", rich_help_panel=_PLACE
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="First day, YYYY-MM-DD.", rich_help_panel=_PLACE)
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Day after the last, YYYY-MM-DD.", rich_help_panel=_PLACE)
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Where imagery comes from: sample.", rich_help_panel=_PLACE)
    ] = "auto",
    imagery: Annotated[
        str | None,
        typer.Option(help="A GeoTIFF or COG of your own.", rich_help_panel=_PIXELS),
    ] = None,
    input_npy: Annotated[
        Path | None,
        typer.Option(
            "--input", help="A .npy array (3, height, width) of your own.", rich_help_panel=_PIXELS
        ),
    ] = None,
    scale_m: Annotated[
        float | None,
        typer.Option(
            help="Ground metres per pixel; with --imagery only a check.", rich_help_panel=_PIXELS
        ),
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option(help="CRS to sample in, e.g. EPSG:3857.", rich_help_panel=_PIXELS),
    ] = None,
    fill_value: Annotated[
        float | None, typer.Option(help="Value that marks nodata.", rich_help_panel=_PIXELS)
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Red, green and blue band names, e.g. R,G,B.", rich_help_panel=_PIXELS),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Collection or product.", rich_help_panel=_PIXELS)
    ] = None,
    reflectance_offset: Annotated[
        float | None,
        typer.Option(help="Reflectance at digital number 0, e.g. -0.1.", rich_help_panel=_PIXELS),
    ] = None,
    cloudy_pct: Annotated[
        float | None,
        typer.Option(help="Scenes with less cloud than this, percent.", rich_help_panel=_PLACE),
    ] = None,
    composite: Annotated[
        str | None, typer.Option(help="median or mosaic.", rich_help_panel=_PLACE)
    ] = None,
    reflectance_scale: Annotated[
        float | None,
        typer.Option(help="Reflectance per digital number, e.g. 0.0001.", rich_help_panel=_PIXELS),
    ] = None,
    min_valid: Annotated[
        float | None,
        typer.Option(help="Least share of valid pixels, 0..1.", rich_help_panel=_PIXELS),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Hub id, folder, file, or random-init.", rich_help_panel=_MODEL),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="large, base, small or tiny.", rich_help_panel=_MODEL)
    ] = None,
    loader: Annotated[
        str | None, typer.Option(help="native or rshf.", rich_help_panel=_MODEL)
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="normed or pre_norm.", rich_help_panel=_MODEL)
    ] = None,
    gsd: Annotated[
        str | None,
        typer.Option(help="metres, relative or a number.", rich_help_panel=_MODEL),
    ] = None,
    display: Annotated[
        str | None, typer.Option(help="reflectance or visual.", rich_help_panel=_MODEL)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the model's input, px.", rich_help_panel=_MODEL)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16.", rich_help_panel=_MODEL)
    ] = None,
    device: Device = "auto",
    output: Annotated[
        str, typer.Option(help="pooled or grid.", rich_help_panel=_RESULT)
    ] = "pooled",
    pooling: Annotated[
        str | None, typer.Option(help="mean, max or cls.", rich_help_panel=_RESULT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Vector: .npz. Grid: .tif or .nc.", rich_help_panel=_RESULT
        ),
    ] = None,
    quicklook: Annotated[
        Path | None, typer.Option(help="A .png of a grid.", rich_help_panel=_RESULT)
    ] = None,
    json: Json = False,
) -> None:
    """Embed one place, file or array.

    The sample scene, with random weights to try it out:

    [dim]rs-embed embed --lon -75.6156 --lat 37.6942 --buffer-m 1280 --backend sample
    --weights random-init --variant tiny[/dim]

    A GeoTIFF of Sentinel-2 surface reflectance, as a token grid for a GIS:

    [dim]rs-embed embed --imagery scene.tif --output grid -o tokens.tif --quicklook tokens.png[/dim]

    An array of your own at 5 m:

    [dim]rs-embed embed --input pixels.npy --scale-m 5 -o vector.npz[/dim]
    """
    from rs_embed import export
    from rs_embed.embedder import get_embedding
    from rs_embed.specs import FetchSpec, OutputSpec
    from rs_embed.task import MIN_VALID

    asked_output = OutputSpec(output, pooling)  # type: ignore[arg-type]  # checked when built
    if out is not None:
        grid = asked_output.mode == "grid"
        export.check_writable(out, export.GRID_SUFFIXES if grid else export.VECTOR_SUFFIXES)
    if quicklook is not None:
        export.check_writable(quicklook, (".png",))
        if asked_output.mode != "grid":
            raise SpecError("got --quicklook with --output pooled, expected --output grid")
    options: dict[str, Any] = {
        "weights": weights, "variant": variant, "loader": loader, "tokens": tokens,
        "gsd": _gsd(gsd), "display": display, "image_size": image_size, "precision": precision,
    }  # fmt: skip
    stated_fetch = FetchSpec(
        scale_m=scale_m, cloudy_pct=cloudy_pct, crs=crs, fill_value=fill_value,
        composite=composite,  # type: ignore[arg-type]  # checked when built
    )  # fmt: skip
    units = {"reflectance_scale": reflectance_scale, "reflectance_offset": reflectance_offset}
    sensor, fetch = _source(model, collection, bands, units, stated_fetch)
    embedding = get_embedding(
        model,
        spatial=_place(lon, lat, buffer_m, bbox),
        temporal=_period(start, end),
        sensor=sensor,
        fetch=fetch,
        output=asked_output,
        backend=backend,
        input_chw=None if input_npy is None else _array(input_npy),
        imagery=imagery,
        min_valid=MIN_VALID if min_valid is None else min_valid,
        device=device,  # type: ignore[arg-type]  # checked by the model
        **{name: value for name, value in options.items() if value is not None},
    )
    files = []
    if out is not None:
        files.append(str(embedding.save(out)))
    if quicklook is not None:
        embedding.quicklook(quicklook)
        files.append(str(quicklook))
    _print(embedding, files, json=json)


def _place(
    lon: float | None, lat: float | None, buffer_m: float | None, bbox: str | None
) -> Spatial | None:
    from rs_embed.specs import BBox, PointBuffer

    point = (lon, lat, buffer_m)
    if bbox is not None:
        if any(v is not None for v in point):
            raise SpecError("got --bbox with --lon, --lat or --buffer-m, expected one place")
        try:
            edges = [float(v) for v in bbox.split(",")]
        except ValueError as exc:
            raise SpecError(f"got --bbox {bbox}, expected minlon,minlat,maxlon,maxlat") from exc
        if len(edges) != 4:
            raise SpecError(f"got --bbox {bbox}, expected minlon,minlat,maxlon,maxlat")
        return BBox(*edges)
    if lon is None and lat is None and buffer_m is None:
        return None
    if lon is None or lat is None or buffer_m is None:
        raise SpecError("got part of a point, expected --lon, --lat and --buffer-m together")
    return PointBuffer(lon, lat, buffer_m)


def _period(start: str | None, end: str | None) -> TemporalSpec | None:
    from rs_embed.specs import TemporalSpec

    if start is None and end is None:
        return None
    if start is None or end is None:
        raise SpecError("got part of a period, expected --start and --end together")
    return TemporalSpec.range(start, end)


def _gsd(text: str | None) -> str | float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _source(
    model: str,
    collection: str | None,
    bands: str | None,
    units: dict[str, Any],
    fetch: FetchSpec,
) -> tuple[SensorSpec | None, FetchSpec | None]:
    """Return a sensor where collection, bands or units are stated, else what is to be fetched."""
    from rs_embed.registry import describe_model
    from rs_embed.specs import FetchSpec, SensorSpec

    if collection is None and bands is None and set(units.values()) == {None}:
        return None, None if fetch == FetchSpec() else fetch
    contract = describe_model(model)["inputs"]
    names = contract["bands"] if bands is None else bands.split(",")
    sensor = SensorSpec(collection or contract["collection"], tuple(names), **units)
    return sensor.with_fetch(fetch), None


def _array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        reason = "there is no such file" if not path.is_file() else "it is something else"
        message = f"cannot read {path}, expected a .npy array of numbers: {reason}"
        raise ImageryError(message) from exc


def _print(embedding: Embedding, files: list[str], *, json: bool) -> None:
    meta = embedding.meta
    if json:
        values = None if embedding.is_grid else [float(v) for v in embedding.data]
        shape = list(embedding.data.shape)
        print_json({"shape": shape, "values": values, "files": files, "meta": meta})
        return
    shape_text = " x ".join(map(str, embedding.data.shape))
    typer.echo(f"{meta['output']} embedding of {shape_text} float32, {meta['tokens_kind']}")
    typer.echo(
        f"weights {meta['weights']}, GSD {meta['used_scale_m']:g} m, input_res_m "
        f"{meta['input_res_m']:g}, coverage {meta['coverage']:.1%}, valid "
        f"{meta['valid_fraction']:.1%}"
    )
    typer.echo(f"fingerprint {meta['fingerprint']}")
    for file in files:
        typer.echo(f"wrote {file}")
