"""Options that several commands share, how they reach a command, and how results are printed."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

place_option = functools.partial(typer.Option, rich_help_panel="Place and period")
_pixel_option = functools.partial(typer.Option, rich_help_panel="Pixels")
prep_option = functools.partial(typer.Option, rich_help_panel="Input of the model")
_model_option = functools.partial(typer.Option, rich_help_panel="Model")
result_option = functools.partial(typer.Option, rich_help_panel="Result")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ModelName = Annotated[str, typer.Argument(help="Id or alias of a model; see `rs-embed models`.")]
Model = Annotated[str, typer.Option(help="Id or alias of a model.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; one that is not available is an error.")
]
Pooling = Annotated[str | None, result_option(help="mean, max or cls.")]


@dataclass(frozen=True)
class Rectangle:
    """A square around a point, or a box."""

    lon: Annotated[float | None, place_option(help="Degrees east.")] = None
    lat: Annotated[float | None, place_option(help="Degrees north.")] = None
    buffer_m: Annotated[
        float | None, place_option(help="Half the side of the square, ground metres.")
    ] = None
    bbox: Annotated[
        str | None, place_option(help="minlon,minlat,maxlon,maxlat instead of a point.")
    ] = None


@dataclass(frozen=True)
class OnePlace(Rectangle):
    """One place, or an array that has none."""

    input_npy: Annotated[
        Path | None,
        _pixel_option("--input", help="A .npy array (3, height, width) of your own."),
    ] = None


@dataclass(frozen=True)
class Period:
    """When."""

    start: Annotated[str | None, place_option(help="First day, YYYY-MM-DD.")] = None
    end: Annotated[str | None, place_option(help="Day after the last, YYYY-MM-DD.")] = None


@dataclass(frozen=True)
class Pixels:
    """Where pixels come from, of which sensor and in which units."""

    backend: Annotated[
        str, place_option(help="Where imagery comes from: gee, stac, local or sample.")
    ] = "auto"
    local: Annotated[
        Path | None,
        place_option(
            help="A GeoTIFF, a folder, or a STAC catalogue of your own, as backend local."
        ),
    ] = None
    cloud_mask: Annotated[
        str | None,
        place_option(help="Leave out clouds: scl, or cloud_score_plus (gee only)."),
    ] = None
    cloudy_pct: Annotated[
        float | None, place_option(help="Scenes with less cloud than this, percent.")
    ] = None
    composite: Annotated[str | None, place_option(help="median or mosaic.")] = None
    cache: Annotated[
        str | None, place_option(help="Folder that keeps fetched pixels for later calls.")
    ] = None
    imagery: Annotated[str | None, _pixel_option(help="A GeoTIFF or COG of your own.")] = None
    scale_m: Annotated[
        float | None,
        _pixel_option(help="Ground metres per pixel; with --imagery only a check."),
    ] = None
    crs: Annotated[str | None, _pixel_option(help="CRS to sample in, e.g. EPSG:3857.")] = None
    fill_value: Annotated[float | None, _pixel_option(help="Value that marks nodata.")] = None
    bands: Annotated[
        str | None, _pixel_option(help="Red, green and blue band names, e.g. R,G,B.")
    ] = None
    collection: Annotated[str | None, _pixel_option(help="Collection or product.")] = None
    reflectance_scale: Annotated[
        float | None, _pixel_option(help="Reflectance per digital number, e.g. 0.0001.")
    ] = None
    reflectance_offset: Annotated[
        float | None, _pixel_option(help="Reflectance at digital number 0, e.g. -0.1.")
    ] = None
    min_valid: Annotated[float | None, _pixel_option(help="Least share of valid pixels, 0..1.")] = (
        None
    )


@dataclass(frozen=True)
class Prep:
    """How an image becomes the model's input."""

    input_prep: Annotated[
        str | None,
        prep_option(
            help="resize: one image, its centre cropped. tile: all of it, in windows. "
            "auto: tile only what is too large for one.",
            show_default="resize",
        ),
    ] = None
    tile_size: Annotated[
        int | None, prep_option(help="Side of a tile, px.", show_default="image size")
    ] = None
    overlap_px: Annotated[
        int | None, prep_option(help="Least overlap of tiles, px.", show_default="0")
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """The model's own options."""

    weights: Annotated[
        str | None, _model_option(help="Hub id, folder, file, scalemae-tiny, or random-init.")
    ] = None
    variant: Annotated[str | None, _model_option(help="large, base, small or tiny.")] = None
    loader: Annotated[str | None, _model_option(help="native or rshf.")] = None
    tokens: Annotated[str | None, _model_option(help="normed or pre_norm.")] = None
    gsd: Annotated[str | None, _model_option(help="metres, relative or a number.")] = None
    display: Annotated[str | None, _model_option(help="reflectance or visual.")] = None
    image_size: Annotated[int | None, _model_option(help="Side of the model's input, px.")] = None
    precision: Annotated[str | None, _model_option(help="float32 or bfloat16.")] = None


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with each dataclass parameter as one option for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    def options() -> Iterator[inspect.Parameter]:
        for name, own in inspect.signature(command).parameters.items():
            if name in groups:
                yield from inspect.signature(groups[name], eval_str=True).parameters.values()
            else:
                yield own.replace(annotation=hints[name])

    shown = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options()]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        built = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**built, **given)

    # Typer asks for both.
    run.__dict__["__signature__"] = inspect.Signature(shown)
    run.__annotations__ = {option.name: option.annotation for option in shown}
    return run


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
