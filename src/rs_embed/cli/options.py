"""Options that several commands share, and how they reach a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

DEFAULT_MODEL = "scalemae"
# Parameters of commands that are options of models begin with this.
MODEL_PREFIX = "option_of_model_"

place_option = functools.partial(typer.Option, rich_help_panel="Place and period")
_pixel_option = functools.partial(typer.Option, rich_help_panel="Pixels")
prep_option = functools.partial(typer.Option, rich_help_panel="Input of the model")
result_option = functools.partial(typer.Option, rich_help_panel="Result")
_work_option = functools.partial(typer.Option, rich_help_panel="Processes")
_ModelParameters = Callable[[set[str]], Iterable[inspect.Parameter]]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ModelName = Annotated[str, typer.Argument(help="Id or alias of a model (see `rs-embed models`).")]
Model = Annotated[str, typer.Option(help="Id or alias of the model (see `rs-embed models`).")]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|mps",
        help="Device to run on, also a card (cuda:1); batch and map take several (cuda:0,1).",
    ),
]
Pooling = Annotated[
    str | None,
    result_option(
        metavar="mean|max|cls", help="How tokens become one vector.", show_default="mean"
    ),
]


@dataclass(frozen=True)
class Rectangle:
    """A square around a point, or a box."""

    lon: Annotated[float | None, place_option(help="Longitude of the centre, in degrees.")] = None
    lat: Annotated[float | None, place_option(help="Latitude of the centre, in degrees.")] = None
    buffer_m: Annotated[
        float | None, place_option(help="Half the side of the square, in metres on the ground.")
    ] = None
    bbox: Annotated[
        str | None,
        place_option(
            metavar="BOX",
            help="Box in degrees instead of a point: minlon,minlat,maxlon,maxlat.",
        ),
    ] = None


@dataclass(frozen=True)
class OnePlace(Rectangle):
    """One place, or an array without one."""

    input_npy: Annotated[
        Path | None,
        _pixel_option(
            "--input", help="A .npy array (bands, height, width) to use instead of a backend."
        ),
    ] = None


@dataclass(frozen=True)
class Period:
    """First day, and the day after the last."""

    start: Annotated[
        str | None, place_option(metavar="YYYY-MM-DD", help="First day of the period.")
    ] = None
    end: Annotated[
        str | None,
        place_option(metavar="YYYY-MM-DD", help="End of the period; this day is not included."),
    ] = None
    temporal: Annotated[
        str | None,
        place_option(
            metavar="PERIOD",
            help="Period instead of --start and --end: 2022, 2022-06, 2022-06-01 or "
            "2022-06-01/2022-09-01.",
        ),
    ] = None


@dataclass(frozen=True)
class Pixels:
    """Where pixels come from, of which sensor and in which units."""

    backend: Annotated[
        str,
        place_option(
            help="Source of imagery: gee, stac, local or sample, a folder, or the URL of a STAC "
            "catalogue; auto uses the first of local, gee and stac that is configured."
        ),
    ] = "auto"
    local: Annotated[
        Path | None,
        place_option(
            help="GeoTIFF, folder or STAC catalogue to use as the backend.",
            show_default="RS_EMBED_LOCAL",
        ),
    ] = None
    cloud_mask: Annotated[
        str | None,
        place_option(
            metavar="scl|cloud_score_plus",
            help="Mask clouds in each scene; cloud_score_plus needs the backend gee.",
        ),
    ] = None
    cloudy_pct: Annotated[
        float | None, place_option(help="Skip scenes with this cloud cover or more, in percent.")
    ] = None
    composite: Annotated[
        str | None, place_option(metavar="median|mosaic", help="How scenes are combined.")
    ] = None
    cache: Annotated[
        str | None,
        place_option(
            help="Folder in which downloaded pixels are kept for later runs.",
            show_default="RS_EMBED_CACHE_DIR",
        ),
    ] = None
    cache_shared: Annotated[
        bool,
        place_option(
            "--cache-shared",
            help="Also use pixels of that folder that other users can write.",
            show_default="RS_EMBED_CACHE_SHARED",
        ),
    ] = False
    imagery: Annotated[
        str | None, _pixel_option(help="GeoTIFF or COG to read instead of a backend.")
    ] = None
    scale_m: Annotated[
        float | None,
        _pixel_option(
            help="Pixel size, in metres on the ground. With --imagery, only compared with the file."
        ),
    ] = None
    crs: Annotated[
        str | None,
        _pixel_option(help="CRS to sample in, such as EPSG:3857.", show_default="UTM zone"),
    ] = None
    fill_value: Annotated[float | None, _pixel_option(help="Pixel value that means nodata.")] = None
    bands: Annotated[
        str | None,
        _pixel_option(help="Band names in the model's order, such as B4,B3,B2 for red,green,blue."),
    ] = None
    collection: Annotated[
        str | None, _pixel_option(help="Collection or product of the pixels.")
    ] = None
    reflectance_scale: Annotated[
        float | None, _pixel_option(help="Reflectance per digital number, such as 0.0001.")
    ] = None
    reflectance_offset: Annotated[
        float | None, _pixel_option(help="Reflectance at digital number 0, such as -0.1.")
    ] = None
    min_valid: Annotated[
        float | None,
        _pixel_option(help="Minimum fraction of valid pixels, 0 to 1.", show_default="0.25"),
    ] = None


@dataclass(frozen=True)
class Prep:
    """How an image becomes the model's input."""

    input_prep: Annotated[
        str | None,
        prep_option(
            metavar="resize|tile|auto",
            help="resize: resize the image and crop its centre. tile: cut the whole image into "
            "windows at its own pixel size. auto: tile only images too large for one pass.",
            show_default="resize",
        ),
    ] = None
    tile_size: Annotated[
        int | None, prep_option(help="Side of a tile, in pixels.", show_default="image size")
    ] = None
    overlap_px: Annotated[
        int | None, prep_option(help="Minimum overlap of tiles, in pixels.", show_default="0")
    ] = None


@dataclass(frozen=True)
class Workers:
    """Where the work is done."""

    workers: Annotated[
        int | None,
        _work_option(
            help="Processes with a model. With --engine ray as many as GPUs, else as nodes.",
            show_default="this process",
        ),
    ] = None
    engine: Annotated[
        str, _work_option(metavar="local|ray", help="This machine, or a Ray cluster.")
    ] = "local"
    ray_address: Annotated[
        str | None,
        _work_option(
            metavar="HOST:PORT",
            help="Head node of the cluster; without it, Ray is started on this machine.",
            show_default="RAY_ADDRESS",
        ),
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """The options of the installed models, by name; those that are not given are None."""

    values: Mapping[str, Any]


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with each dataclass parameter as one option for each of its fields.

    The options of models are left out. The attribute ``complete`` of the command is a function
    that returns it with them, given what makes their parameters from the names in use.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    before: list[inspect.Parameter] = []  # the options of models
    after: list[inspect.Parameter] = []
    own = before
    for name, parameter in inspect.signature(command).parameters.items():
        if hints[name] is ModelOptions:
            own = after
        elif name in groups:
            own += inspect.signature(groups[name], eval_str=True).parameters.values()
        else:
            own.append(parameter.replace(annotation=hints[name]))

    def run(**given: Any) -> None:
        of_models = [name for name in given if name.startswith(MODEL_PREFIX)]
        values = {name.removeprefix(MODEL_PREFIX): given.pop(name) for name in of_models}
        built = {
            name: ModelOptions(values)
            if kind is ModelOptions
            else kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**built, **given)

    def complete(model_parameters: _ModelParameters) -> Callable[..., None]:
        of_models = model_parameters({option.name for option in (*before, *after)})
        return _typed(run, command, [*before, *of_models, *after])

    typed = _typed(run, command, [*before, *after])
    if ModelOptions in groups.values():
        typed.__dict__["complete"] = complete
    return typed


def _typed(
    run: Callable[..., None], command: Callable[..., None], options: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Return ``run`` under the name of ``command``, with ``options`` as Typer looks for them."""

    @functools.wraps(command)
    def typed(**given: Any) -> None:
        run(**given)

    shown = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    typed.__dict__["__signature__"] = inspect.Signature(shown)
    typed.__annotations__ = {option.name: option.annotation for option in shown}
    return typed
