"""What a map takes before it is made: windows, bytes, and the time of the model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.errors import ModelError
from rs_embed.maps.report import MapPlan

if TYPE_CHECKING:
    from rs_embed.maps.asked import AreaTask

_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def plan_map(asked: AreaTask) -> MapPlan:
    """Return what a map takes; the model is loaded and timed on blank images, nothing is read.

    Raises
    ------
    ModelError
        If the model cannot be loaded or gives no patch tokens; `CheckpointError` for weights.
    """
    encoder = asked.task.plan.load()
    layout = asked.layout
    size = asked.task.plan.batch_size or encoder.batch_size
    height, width = (count * layout.patch_size for count in layout.tile_patches)
    images = np.zeros((size, 3, height, width), np.float32)
    seconds = 0.0
    for _ in range(2):  # the first warms up
        start = time.monotonic()
        tokens = encoder.encode(images, [1.0] * size)
        seconds = time.monotonic() - start
    if tokens.patches is None:
        raise ModelError(
            f"got {tokens.kind} output without patch tokens, which makes no map; use "
            "loader='native'"
        )
    windows = len(layout.tiles)
    total = seconds / size * windows * layout.passes**2
    return plan_of(asked, tokens.patches.shape[-1], windows, total)


def plan_of(asked: AreaTask, dimensions: int, windows: int, seconds: float | None) -> MapPlan:
    """Return what a map takes, of which ``windows`` are left.

    Parameters
    ----------
    asked : AreaTask
        The map.
    dimensions : int
        Length of a token.
    windows : int
        Windows to go through the model.
    seconds : float or None
        What they take, if it was measured.
    """
    layout = asked.layout
    grid = layout.tokens
    stored = asked.encoding.pca or dimensions
    return MapPlan(
        windows=windows,
        images=windows * layout.passes**2,
        shape=grid.shape,
        tokens=int(layout.wanted.sum()),
        dimensions=dimensions,
        cell=abs(grid.transform.a),
        crs="" if grid.crs is None else grid.crs.to_string(),
        output_bytes=grid.shape[0] * grid.shape[1] * stored * _BYTES[asked.encoding.dtype],
        kept_bytes=len(layout.tiles) * layout.tokens_per_window * dimensions * 4,
        seconds=seconds,
    )
