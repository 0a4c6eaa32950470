"""What is asked of every place alike, checked; and what the model sees of one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from rs_embed._version import __version__
from rs_embed.embedding.checks import check_values, without_odd
from rs_embed.embedding.preparation import (
    Display,
    ModelInput,
    prepare,
    prepare_tiles,
    resized_side,
)
from rs_embed.embedding.source import Acquired, PixelRequest, check_type
from rs_embed.errors import CoverageWarning, ImageryWarning, Note, SpecError
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.geo.tiling import check_tiling, tiles_of, whole_patches
from rs_embed.registry import find_model
from rs_embed.settings import Settings
from rs_embed.specs import InputPrepSpec, OutputSpec, finite_number

if TYPE_CHECKING:
    from rs_embed.models.base import ModelDescription, Plan

MIN_VALID = 0.25
# An area that is larger or smaller than the one asked for by this factor is worth a warning.
_WORTH_A_WORD = 1.1
_LEAST_GSD, _GREATEST_GSD = 1e-3, 1e5


@dataclass(frozen=True)
class Sizes:
    """Side of the model's square input, and of a token's footprint in it, pixels."""

    image_size: int
    patch_size: int


@dataclass(frozen=True, eq=False)
class Sight:
    """What the model sees of one place, and what is known of it.

    Attributes
    ----------
    sizes : Sizes
        The sizes that it was made with.
    seen : ModelInput
        Images, validity, place.
    told : float
        The GSD that the model is told.
    meta : dict
        JSON values for ``Embedding.meta``.
    notes : tuple of Note
        Warnings to give.
    """

    sizes: Sizes
    seen: ModelInput
    told: float
    meta: dict[str, Any]
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class Task:
    """A model with its options, an output and a preparation, all checked; nothing is loaded."""

    description: ModelDescription
    plan: Plan
    output: OutputSpec
    prep: InputPrepSpec
    min_valid: float

    def sizes(self) -> Sizes:
        """Return the model's sizes, as far as they are known without a download."""
        return Sizes(self.plan.image_size, self.plan.patch_size)

    def see(self, request: PixelRequest, sizes: Sizes) -> Sight:
        """Return what the model sees of one place: read, checked, prepared. Runs in any thread.

        Raises
        ------
        SpecError
            If the sensor or the GSD cannot be meant, or tiles are no whole patches.
        ImageryError, GridError, ProviderError
            If there are no pixels, or they must not reach the model.
        """
        return self.look(self.acquire(request, sizes), sizes)

    def acquire(self, request: PixelRequest, sizes: Sizes) -> Acquired:
        """Return the checked pixels of one place."""
        asked: list[Grid] = []

        def window(grid: Grid) -> Grid:
            asked.append(grid)
            return self._window(grid, sizes)

        taken = request.acquire(self.description.inputs, window)
        check_values(
            taken.raster,
            reflectance=taken.reflectance,
            min_valid=self.min_valid,
            vouched=taken.vouched,
        )
        raster, odd = without_odd(taken.raster, taken.reflectance)
        shape = asked[0].shape if asked else raster.grid.shape
        notes = (*taken.notes, *_odd_notes(raster, odd), *_growth_notes(shape, raster.grid.shape))
        meta = {**taken.meta, "asked_shape": list(shape)}
        return replace(taken, raster=raster, notes=notes, meta=meta)

    def look(self, taken: Acquired, sizes: Sizes) -> Sight:
        """Return what the model sees of pixels that `acquire` returned."""
        tiled = self._tiled(taken.raster.grid.shape, sizes)
        seen = self._prepared(taken, sizes, tiled=tiled)
        gsd = self.plan.gsd
        told = told_gsd(gsd, seen.input_res_m, seen.side_px)
        shape = taken.raster.grid.shape
        notes = (*taken.notes, *_coverage_notes(seen, shape, tiled=tiled))
        tile_size, overlap_px = _tile_sizes(self.prep, sizes)
        meta = {
            "model": self.description.id,
            "rs_embed_version": __version__,
            **taken.meta,
            "input_prep": "tile" if tiled else "resize",
            "input_prep_asked": self.prep.mode,
            "tiles": {"count": len(seen.tiles), "size": tile_size, "overlap_px": overlap_px}
            if tiled
            else None,
            "display": self.plan.display,
            "gsd_policy": gsd if isinstance(gsd, str) else "number",
            "input_res": told,
            "input_res_m": seen.input_res_m,
            "image_size": sizes.image_size,
            "used_patch_size": sizes.patch_size,
            "input_grid": seen.grid.to_json(),
            "coverage": seen.coverage,
            "valid_fraction": seen.valid_fraction,
            "valid_tokens": int(seen.valid_tokens.sum()),
        }
        return Sight(sizes, seen, told, meta, notes)

    def _prepared(self, taken: Acquired, sizes: Sizes, *, tiled: bool) -> ModelInput:
        look = partial(
            prepare_tiles if tiled else prepare,
            taken.raster,
            scale_m=taken.scale_m,
            patch_size=sizes.patch_size,
            reflectance=taken.reflectance,
            display=cast(Display, self.plan.display),
        )
        if not tiled:
            return look(image_size=sizes.image_size)
        tile_size, overlap_px = _tile_sizes(self.prep, sizes)
        return look(tile_size=tile_size, overlap_px=overlap_px)

    def _window(self, asked: Grid, sizes: Sizes) -> Grid:
        """Return the window to read for a place: whole patches where it will be tiled."""
        if not self._tiled(asked.shape, sizes):
            return asked
        patch = sizes.patch_size
        height, width = (whole_patches(side, patch) * patch for side in asked.shape)
        return asked.enlarged(height, width)

    def window(self, asked: Grid) -> Grid:
        """Return the window to read for a place, as far as sizes are known without a download."""
        return self._window(asked, self.sizes())

    def image_count(self, shape: tuple[int, int]) -> int:
        """Return how many images of a window of that shape go through the model."""
        sizes = self.sizes()
        if not self._tiled(shape, sizes):
            return 1
        tile_size, overlap_px = _tile_sizes(self.prep, sizes)
        tiling = {"overlap_px": overlap_px, "patch_size": sizes.patch_size}
        return len(tiles_of(shape, tile_size=tile_size, **tiling))

    def _tiled(self, shape: tuple[int, int], sizes: Sizes) -> bool:
        if self.prep.mode == "auto":
            return max(shape) > resized_side(sizes.image_size)
        return self.prep.mode == "tile"


def settle(
    model: str,
    *,
    output: OutputSpec | None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"],
    min_valid: float,
    device: str,
    options: Mapping[str, Any],
) -> Task:
    """Return the task, with everything checked that can be without pixels or a download.

    Raises
    ------
    SpecError, SettingsError, ModelError
        See ``get_embedding``.
    """
    found = find_model(model)
    found.description.check_options(options)
    settings = Settings.from_environ()
    check_type("output", output, (OutputSpec,))
    if not 0 <= finite_number("min_valid", min_valid) <= 1:
        raise SpecError(f"got min_valid={min_valid!r}, expected a number from 0 to 1")
    task = Task(
        description=found.description,
        plan=found.plan(options, device=device, settings=settings),
        output=OutputSpec.pooled() if output is None else output,
        prep=input_prep if isinstance(input_prep, InputPrepSpec) else InputPrepSpec(input_prep),
        min_valid=float(min_valid),
    )
    _tile_sizes(task.prep, task.sizes())
    return task


def _tile_sizes(prep: InputPrepSpec, sizes: Sizes) -> tuple[int, int]:
    """Return side and overlap of tiles, pixels.

    Raises
    ------
    SpecError
        If they are no whole patches.
    """
    tile_size = sizes.image_size if prep.tile_size is None else int(prep.tile_size)
    if prep.mode != "resize":
        check_tiling(tile_size, prep.overlap_px, sizes.patch_size)
    return tile_size, int(prep.overlap_px)


def _odd_notes(raster: Raster, odd: int) -> Iterator[Note]:
    """Yield what is worth a warning in the values."""
    if odd:
        yield Note(
            f"{odd} pixels have values that no reflectance has, and were left out as nodata; if "
            "they mark nodata, say so with fetch=FetchSpec(fill_value=...)",
            ImageryWarning,
        )
    if raster.data.dtype.kind == "f":
        infinite = int(np.isinf(raster.data).any(axis=0).sum())
        if infinite:
            yield Note(f"{infinite} infinite pixels were left out as nodata", ImageryWarning)


def _growth_notes(asked: tuple[int, int], read: tuple[int, int]) -> Iterator[Note]:
    """Yield a warning where whole patches are much more than what was asked for."""
    growth = read[0] * read[1] / (asked[0] * asked[1])
    if growth > _WORTH_A_WORD:
        yield Note(
            f"the place of {asked[0]} x {asked[1]} px was read as {read[0]} x {read[1]} px, whole "
            f"patches, {growth - 1:.0%} more area; a place of whole patches stays as it is",
            CoverageWarning,
        )


def _coverage_notes(seen: ModelInput, shape: tuple[int, int], *, tiled: bool) -> Iterator[Note]:
    """Yield a warning where the model does not see all, or sees it much enlarged."""
    if tiled:
        if seen.coverage < 1 / _WORTH_A_WORD:
            yield Note(
                f"{1 - seen.coverage:.1%} of the area lie in patches at the bottom or on the right "
                "that are less than half within the image, and have no token; sides that are whole "
                "patches lose nothing",
                CoverageWarning,
            )
    elif seen.coverage < 1:
        mend = ", image_size=256 too" if shape[0] == shape[1] else ""
        yield Note(
            f"the model sees {seen.coverage:.1%} of the area, the rest is cropped; "
            f"input_prep='tile' keeps all of it{mend}",
            CoverageWarning,
        )


def told_gsd(policy: float | str, input_res_m: float, side_px: int) -> float:
    """Return the GSD that the model is told.

    Parameters
    ----------
    policy : float or str
        ``"metres"``, ``"relative"`` or the number, see `rs_embed.models.base.Plan`.
    input_res_m : float
        Ground metres per pixel of what the model sees.
    side_px : int
        Side of what the model sees, pixels.

    Raises
    ------
    SpecError
        If no image of the Earth has such a GSD.
    """
    if policy == "relative":
        return 224 / side_px
    told = input_res_m if policy == "metres" else float(policy)
    if not _LEAST_GSD <= told <= _GREATEST_GSD:
        raise SpecError(
            f"got a GSD of {told:.4g} for the model, expected {_LEAST_GSD:g} to "
            f"{_GREATEST_GSD:g}; check scale_m, the georeference or gsd"
        )
    return told
