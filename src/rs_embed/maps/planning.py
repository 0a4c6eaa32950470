"""What a map takes before it is made: windows, bytes, and the time of the model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.embedding.encoding import GsdImage, ImageTokens, encode, network_input
from rs_embed.embedding.source import DEFAULT_REFLECTANCE
from rs_embed.maps.formats.paths import check_room
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.report import MapPlan

if TYPE_CHECKING:
    from rs_embed.maps.request import AreaTask
    from rs_embed.models.base import Encoder

# What takes longer is not tried again, or not as a batch: the time of one image must do.
_LONGEST_TRIAL_S = 5
_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def plan_map(area: AreaTask, windows: int) -> MapPlan:
    """Return what the ``windows`` left of a map take; nothing is read.

    The model is loaded and timed on blank images.

    Raises
    ------
    SpecError
        If the tokens cannot be stored in the requested encoding.
    ModelError
        If the model cannot be loaded or gives no patch tokens; `CheckpointError` for weights.
    """
    encoder = area.task.plan.load()
    images = windows * area.layout.passes**2
    stated = area.settings.scalemae_batch_size
    size = max(1, min(stated or area.task.batch_size(area.layout.tile_size), images))
    preparation, bands = area.task.plan.preparation, area.task.description.inputs.bands
    side = area.layout.patch_size
    zeros = np.zeros((len(bands), *(side * n for n in area.layout.tile_patches)), np.uint16)
    image = preparation.image(zeros, DEFAULT_REFLECTANCE)
    blank = network_input(preparation, image, 1.0)
    # The first image warms up, the second shows whether a batch is short enough to be tried.
    seconds, depth = _timed(encoder, blank, 1)
    area.check_tokens(depth)
    if seconds < _LONGEST_TRIAL_S:
        seconds, _ = _timed(encoder, blank, 1)
    if 1 < size < _LONGEST_TRIAL_S / seconds:
        seconds = _timed(encoder, blank, size)[0] / size
    return plan_of(area, depth, windows, seconds * images)


def _timed(encoder: Encoder, blank: GsdImage, count: int) -> tuple[float, int]:
    """Return the seconds that so many blank windows take, and the length of a token."""
    start = time.monotonic()
    (first, *_) = list(encode(encoder, [blank] * count, batch_size=count))
    seconds = time.monotonic() - start
    if not isinstance(first, ImageTokens):
        raise first
    return seconds, first.patch_tokens("a map").shape[-1]


def check_disk(path: Path, area: AreaTask, dimensions: int, windows: int) -> None:
    """Raise `ExportError` if a disk has no room for a map and the ``windows`` that are left."""
    plan = plan_of(area, dimensions, windows, None)
    kept = windows * plan.kept_bytes // len(area.layout.tiles)
    check_room(path, int(plan.output_bytes * MAPS.of(path).room) + kept)


def plan_of(area: AreaTask, dimensions: int, windows: int, seconds: float | None) -> MapPlan:
    """Return what a map of tokens of so many dimensions takes, of which ``windows`` are left.

    ``seconds`` is what these take in the model, if it was measured.
    """
    layout = area.layout
    grid = layout.tokens
    stored = area.encoding.pca or dimensions
    return MapPlan(
        windows=windows,
        images=windows * layout.passes**2,
        shape=grid.shape,
        tokens=int(layout.wanted.sum()),
        dimensions=dimensions,
        cell=abs(grid.transform.a),
        crs="" if grid.crs is None else grid.crs.to_string(),
        output_bytes=grid.shape[0] * grid.shape[1] * stored * _BYTES[area.encoding.dtype],
        kept_bytes=len(layout.tiles) * layout.tokens_per_window * dimensions * 4,
        seconds=seconds,
    )
