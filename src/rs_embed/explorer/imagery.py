"""What a model saw of a map, drawn again from its imagery."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from PIL import Image

from rs_embed.embedding.arguments import imagery_of
from rs_embed.embedding.model_input import image_of
from rs_embed.embedding.quicklook import contrast
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Task, settle
from rs_embed.errors import (
    ImageryError,
    ImageryWarning,
    Note,
    RsEmbedError,
    SpecError,
    some,
)
from rs_embed.files.identity import imagery_identity
from rs_embed.files.imagery import imagery_grid
from rs_embed.geo.grid import Grid, bounds_window, known_crs
from rs_embed.geo.windows import overlap
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SIDE = 4096
# Pixels that are read at once.
_AT_ONCE = 2**22
_QUALITY = 90
# Rows and columns, about, from which the contrast is found.
_SAMPLE_SIDE = 1024


@dataclass(frozen=True, eq=False)
class Seen:
    """``(height, width, 4)`` uint8: red, green, blue, and alpha 0 for nodata; and its grid."""

    pixels: NDArray[np.uint8]
    grid: Grid


def seen_of(embedding: Embedding) -> Seen | None:
    """Return the image that an embedding in memory holds."""
    if embedding.image is None:
        return None
    stated = embedding.meta["input_grid"]
    grid = Grid(None, Affine(*stated["transform"]), tuple(stated["shape"]))
    return Seen(np.insert(embedding.image, 3, 255, axis=2), grid)


def seen_again(
    meta: Mapping[str, Any], tokens: Grid, imagery: Any
) -> tuple[Seen | None, list[Note]]:
    """Return what the model saw of a map, of at most 4096 px a side, and notes.

    Parameters
    ----------
    meta : mapping
        How the map was made.
    tokens : Grid
        Its grid.
    imagery : path or xarray object, optional
        The imagery; by default that which the meta names, if it has not changed since.

    Raises
    ------
    RsEmbedError
        If ``imagery`` is stated and cannot be drawn.
    """
    try:
        task = _task(meta)
        source, notes = _source(meta, imagery)
        lattice = _lattice(meta, tokens, source, task)
        window = bounds_window(lattice, tokens.bounds)
        rows, columns = overlap(window, lattice)
        window = lattice.window(
            rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
        )
        return _drawn(task, source, window), notes
    except RsEmbedError as exc:
        if imagery is not None:
            raise
        message = (
            f"the page does not show what the model saw: {exc}; state imagery= (--imagery FILE)"
        )
        return None, [Note(message, ImageryWarning)]


def save_images(images: Sequence[Seen | None], folder: Path) -> list[dict[str, Any] | None]:
    """Write images to ``folder/data``, with one contrast; return what the page reads of each."""
    known = [image.pixels for image in images if image is not None]
    step = max(1, *(side // _SAMPLE_SIDE for pixels in known for side in pixels.shape[:2]), 1)
    parts = [pixels[::step, ::step] for pixels in known]
    values = [part[part[..., 3] > 0][:, :3] for part in parts]
    shown = contrast(np.concatenate(values)) if sum(map(len, values)) else np.arange(256)
    return [
        None if image is None else _saved(image, shown.astype(np.uint8), folder, number)
        for number, image in enumerate(images)
    ]


def _task(meta: Mapping[str, Any]) -> Task:
    """Return the model as far as it decides how pixels are shown."""
    settings = Settings.from_environ()
    settled = {"model": str(meta.get("model")), "output": None, "input_prep": "tile"}
    more: Any = {**settled, "min_valid": MIN_VALID, "device": "auto", "settings": settings}
    model = settle(**more, options={})
    names = {option.name for option in model.description.options}
    shown = {k: v for k in ("display",) if k in names and (v := meta.get(k)) is not None}
    return settle(**more, options=shown)


def _source(meta: Mapping[str, Any], imagery: Any) -> tuple[Source, list[Note]]:
    """Return where the pixels of a map are, if they can be read without a network, and notes."""
    sensor, fetch = meta.get("sensor"), (meta.get("request") or {}).get("fetch")
    stated: dict[str, Any] = {"sensor": SensorSpec(**sensor)} if sensor else {"fetch": fetch}
    if meta.get("backend") == "imagery":
        own, notes = (imagery, []) if imagery is not None else _unchanged(meta)
        return Source(imagery=own, **stated), notes
    if imagery is not None:  # what a provider searches by does not apply
        bands = stated["sensor"].bands if sensor else ()
        return Source(imagery=imagery, sensor=SensorSpec("imagery", bands) if bands else None), []
    if meta.get("backend") != "sample":
        raise SpecError(f"the imagery of backend={meta.get('backend')!r} is not on this machine")
    return Source(backend="sample", window=_grid(meta)), []


def _unchanged(meta: Mapping[str, Any]) -> tuple[Any, list[Note]]:
    """Return a map's own imagery, by path; `ImageryError` if it is not as it was."""
    stated = (meta.get("identity") or {}).get("imagery") or {}
    files = [file["name"] for file in stated.get("files", ())]
    path = files or stated.get("name") or (meta.get("source") or {}).get("path")
    if not path:
        raise ImageryError("the map does not name its imagery")
    imagery, shown = imagery_of(path), some(files) or path
    if not stated:
        message = f"the picture shows {shown} as it is now, which may have changed"
        return imagery, [Note(message, ImageryWarning)]
    if imagery_identity(imagery) != stated:
        raise ImageryError(f"{shown} is missing, or has changed since the map was made")
    return imagery, []


def _grid(meta: Mapping[str, Any]) -> Grid:
    """Return the grid of the pixels that a map was made of."""
    stated = meta.get("area_grid") or meta["grid"]
    return Grid(known_crs(stated["crs"]), Affine(*stated["transform"]), tuple(stated["shape"]))


def _lattice(meta: Mapping[str, Any], tokens: Grid, source: Source, task: Task) -> Grid:
    """Return the grid of the imagery; `ImageryError` if it has another CRS than the map."""
    if source.imagery is None:
        return _grid(meta)
    grid = imagery_grid(source.imagery, source.settled_sensor(task.description.inputs).bands)
    if grid.crs != tokens.crs:
        ours, theirs = ("no CRS" if g.crs is None else g.crs.to_string() for g in (tokens, grid))
        raise ImageryError(
            f"got imagery in {theirs}, expected {ours} as the map; warp it: gdalwarp -t_srs {ours}"
        )
    return grid


def _drawn(task: Task, source: Source, window: Grid) -> Seen:
    """Return the pixels as the model sees them, read in strips of whole rows of the picture."""
    settings, height, width = Settings.from_environ(), *window.shape
    factor = math.ceil(max(height, width) / MOST_SIDE)
    step = max(factor, _AT_ONCE // width // factor * factor)
    source = source.resolved(settings)
    strips = []
    for row in range(0, height, step):
        strip = window.window(row, 0, min(step, height - row), width)
        acquired = replace(source, window=strip).acquire(task.description.inputs, lambda grid: grid)
        valid = acquired.raster.valid
        shown = np.zeros((*valid.shape, 4), np.uint8)
        if valid.any():
            preparation = task.plan.preparation
            image = image_of(acquired.raster, acquired.reflectance, preparation)
            shown[..., :3] = preparation.picture(image)
            shown[..., 3] = valid * 255
        strips.append(np.asarray(Image.fromarray(shown).reduce(factor)))
    pixels = np.concatenate(strips)
    scaled = window.transform @ Affine.scale(factor)
    return Seen(pixels, Grid(window.crs, scaled, (pixels.shape[0], pixels.shape[1])))


def _saved(image: Seen, shown: NDArray[np.uint8], folder: Path, number: int) -> dict[str, Any]:
    rgb, alpha = shown[image.pixels[..., :3]], image.pixels[..., 3]
    whole = bool((alpha == 255).all())
    name = f"data/{number}.image.{'jpg' if whole else 'png'}"
    if whole:
        Image.fromarray(rgb).save(folder / name, quality=_QUALITY, subsampling=0)
    else:
        Image.fromarray(np.dstack([rgb, alpha])).save(folder / name)
    return {"file": name, "bounds": list(image.grid.bounds)}
