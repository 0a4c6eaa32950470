"""What a polygon covers of what the model sees: the weights of its tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.checks import MIN_SIDE_PX
from rs_embed.errors import CoverageWarning, ImageryError, Note, SpecError
from rs_embed.geo.coverage import shares_of_cells
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.polygons import Polygons, require_shapely

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rs_embed.embedding.model_input import ModelInput
    from rs_embed.specs import OutputSpec


def check_pooling(output: OutputSpec, shapes: Iterable[Any] | None) -> None:
    """Raise `SpecError` if the class token is to stand for what polygons cover."""
    if output.pooling == "cls" and any(shape is not None for shape in shapes or ()):
        raise SpecError(
            "got pooling='cls' for polygons, expected 'mean' or 'max': the class token is of the "
            "whole window; polygons='box' embeds the bounding boxes"
        )


# If the model sees less than this share of a polygon, a warning says so.
_NOTABLE = 0.99


def covered(
    seen: ModelInput, shape: Any, window: Grid, patch_size: int
) -> tuple[ModelInput, dict[str, Any], tuple[Note, ...]]:
    """Return what the model sees with the weights of its tokens, JSON values, and warnings.

    Each valid token weighs as much as the polygon covers of its footprint, exactly. Tiles without
    such a token are left out.

    Parameters
    ----------
    seen : ModelInput
        All of the window.
    shape : shapely.Polygon or shapely.MultiPolygon
        Longitude and latitude.
    window : Grid
        Grid of the pixels that were read.
    patch_size : int
        Side of a token's footprint, pixels.

    Raises
    ------
    ImageryError
        If it covers no valid token.
    """
    shapely = require_shapely()
    tokens = seen.grid.patch_grid(patch_size)
    polygon = Polygons((shape,), ("0",), known_crs("EPSG:4326"), "the polygon")
    polygon = polygon.to_crs(known_crs(tokens.crs))
    (cells,), (pixels,) = polygon.in_cells(tokens), polygon.in_cells(window)
    shares = np.zeros(tokens.shape)
    rows, columns = (slice(0, side) for side in tokens.shape)
    for _, (cell, share) in shares_of_cells(np.array([cells]), rows, columns):
        shares.flat[cell] = share
    weighted = replace(seen, covered=shares)
    weights = weighted.weights
    if not weights.any():
        raise ImageryError(
            "the polygon covers no valid token of what the model sees, expected at least one; use "
            "input_prep='tile', which crops nothing, or another period"
        )
    left, top, right, bottom = shapely.bounds(pixels)
    size = [float(bottom - top), float(right - left)]
    seen_share = min(float(weights.sum() / cells.area), 1.0)
    known = {
        "covered": seen_share,
        "tokens": float(weights.sum()),
        "size_px": size,
    }
    notes = []
    if min(window.shape) == MIN_SIDE_PX and min(size) < MIN_SIDE_PX - 1:
        notes.append(
            f"the polygon of {size[0]:.1f} x {size[1]:.1f} px is smaller than an image must be, so "
            f"the model saw it with its surroundings, {window.shape[0]} x {window.shape[1]} px, "
            "and only what it covers is pooled"
        )
    if seen_share < _NOTABLE:
        notes.append(
            f"only {seen_share:.1%} of the polygon is on valid tokens of what the model "
            "sees, and is pooled over; input_prep='tile' crops nothing"
        )
    chosen = tuple(tile for tile in seen.tiles if weights[tile.own].any())
    return (
        replace(weighted, tiles=chosen),
        known,
        tuple(Note(message, CoverageWarning) for message in notes),
    )
