"""What is wanted of every place: a model with its options, an output, an input preparation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed._version import __version__
from rs_embed.embedding.arguments import output_of
from rs_embed.embedding.checks import check_values, without_odd
from rs_embed.embedding.covering import covered
from rs_embed.embedding.kept import KeptModel, planned
from rs_embed.embedding.model_input import ModelInput, prepare, prepare_tiles
from rs_embed.embedding.source import Acquired, Source
from rs_embed.errors import CoverageWarning, GsdWarning, ImageryWarning, Note, SpecError
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.geo.tiling import check_tiling, tiles_of, whole_patches
from rs_embed.specs import InputPrepSpec, OutputSpec, finite_number

if TYPE_CHECKING:
    from rs_embed.models.base import ModelDescription, Plan
    from rs_embed.settings import Settings

MIN_VALID = 0.25
# An area that is larger or smaller than the requested one by this factor gets a warning.
_NOTABLE = 1.1
# Places that are nearly square keep more of their area when they are cropped.
_USUAL_CROP = 0.5
_LEAST_GSD, _GREATEST_GSD = 1e-3, 1e5

# Images at a time that fit the memory at any usual size.
_LEAST_BATCH = 8


@dataclass(frozen=True)
class Sizes:
    """Side of the model's square input, and of a token's footprint in it, pixels."""

    image_size: int
    patch_size: int
    # What else the weights decide of the input, as JSON: what was seen otherwise is seen again.
    decided: str = ""


@dataclass(frozen=True, eq=False)
class Sight:
    """What the model sees of one place, and what is known of it.

    Attributes
    ----------
    sizes : Sizes
        The sizes that it was made with.
    seen : ModelInput
        Images, validity, place.
    input_res : float
        The GSD that is passed to the model.
    meta : dict
        JSON values for ``Embedding.meta``.
    notes : tuple of Note
        Warnings to give.
    """

    sizes: Sizes
    seen: ModelInput
    input_res: float
    meta: dict[str, Any]
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class Task:
    """A model with its options, an output and a preparation, all checked; nothing is loaded.

    Picklable, as far as the model's plan is.
    """

    description: ModelDescription
    plan: Plan
    stated: Mapping[str, Any]  # the options of the model
    output: OutputSpec
    prep: InputPrepSpec
    min_valid: float

    def sizes(self) -> Sizes:
        """Return the model's sizes, as far as they are known without a download."""
        plan = self.plan
        notes = [note.message for note in self.notes]
        decided = json.dumps([dict(plan.input_meta), plan.gsd, notes], sort_keys=True)
        return Sizes(plan.image_size, plan.patch_size, decided)

    @property
    def notes(self) -> tuple[Note, ...]:
        """Warnings about the options of the model, if its plan has ``notes``."""
        return tuple(Note(text, ImageryWarning) for text in getattr(self.plan, "notes", ()))

    def settled(self) -> dict[str, Any]:
        """Return what identifies the task, as JSON values; see `rs_embed.embedding.identity`.

        Weights are downloaded if only that tells the model's sizes.
        """
        if not self.plan.sizes_known:
            self.plan.load()
        tile_size, overlap_px = _tile_sizes(self.prep, self.sizes())
        tiled = self.prep.mode != "resize"
        return {
            "model": self.description.id,
            "options": dict(self.plan.settled),
            "output": self.output.mode,
            "pooling": self.output.pooling,
            "input_prep": self.prep.mode,
            "tile_size": tile_size if tiled else None,
            "overlap_px": overlap_px,
            "min_valid": self.min_valid,
        }

    def see(self, source: Source, sizes: Sizes) -> Sight:
        """Return what the model sees of one place: read, checked, prepared. Runs in any thread.

        Raises
        ------
        SpecError
            If the sensor or the GSD is invalid, or tiles are not whole patches.
        ImageryError, GridError, ProviderError
            If there are no pixels, or they must not reach the model.
        """
        return self.look(self.acquire(source, sizes), sizes, source.shape)

    def acquire(self, source: Source, sizes: Sizes) -> Acquired:
        """Return the checked pixels of one place."""
        requested: list[Grid] = []

        def window(grid: Grid) -> Grid:
            requested.append(grid)
            return self._window(grid, sizes)

        acquired = source.acquire(self.description.inputs, window)
        check_values(
            acquired.raster,
            reflectance=acquired.reflectance,
            min_valid=self.min_valid,
            vouched=acquired.vouched,
        )
        raster, odd = without_odd(acquired.raster, acquired.reflectance)
        shape = requested[0].shape if requested else raster.grid.shape
        # What is around a polygon is not pooled over.
        growth = () if source.shape is not None else _growth_notes(shape, raster.grid.shape)
        notes = (*acquired.notes, *_odd_notes(raster, odd), *growth)
        meta = {**acquired.meta, "asked_shape": list(shape)}
        return replace(acquired, raster=raster, notes=notes, meta=meta)

    def look(self, acquired: Acquired, sizes: Sizes, shape: Any = None) -> Sight:
        """Return what the model sees of pixels that `acquire` returned; ``shape``: see `Source`."""
        window = acquired.raster.grid
        tiled = self._tiled(window.shape, sizes)
        seen = self._prepared(acquired, sizes, tiled=tiled)
        polygon, of_cover = None, tuple(_coverage_notes(seen, tiled=tiled))
        if shape is not None:
            seen, polygon, of_cover = covered(seen, shape, window, sizes.patch_size)
        policy = self.plan.gsd
        assumed = _assumed_notes(acquired, policy)
        notes = (*assumed, *acquired.notes, *of_cover, *self.notes)
        input_res = gsd_for_model(policy, seen.input_res_m, seen.side_px)
        tile_size, overlap_px = _tile_sizes(self.prep, sizes)
        meta = {
            "model": self.description.id,
            "rs_embed_version": __version__,
            **acquired.meta,
            "input_prep": "tile" if tiled else "resize",
            "input_prep_asked": self.prep.mode,
            "tiles": {"count": len(seen.tiles), "size": tile_size, "overlap_px": overlap_px}
            if tiled
            else None,
            **self.plan.input_meta,
            "gsd_policy": policy if isinstance(policy, str) else "number",
            "input_res": input_res,
            "input_res_m": seen.input_res_m,
            "image_size": sizes.image_size,
            "used_patch_size": sizes.patch_size,
            "input_grid": seen.grid.to_json(),
            "coverage": seen.coverage,
            "valid_fraction": seen.valid_fraction,
            "valid_tokens": int(seen.valid_tokens.sum()),
            "polygon": polygon,
        }
        return Sight(sizes, seen, input_res, meta, notes)

    def _prepared(self, acquired: Acquired, sizes: Sizes, *, tiled: bool) -> ModelInput:
        look = partial(
            prepare_tiles if tiled else prepare,
            acquired.raster,
            scale_m=acquired.scale_m,
            patch_size=sizes.patch_size,
            reflectance=acquired.reflectance,
            preparation=self.plan.preparation,
        )
        if not tiled:
            return look(image_size=sizes.image_size)
        tile_size, overlap_px = _tile_sizes(self.prep, sizes)
        return look(tile_size=tile_size, overlap_px=overlap_px)

    def _window(self, grid: Grid, sizes: Sizes) -> Grid:
        """Return the window to read for a place: whole patches where it will be tiled."""
        if not self._tiled(grid.shape, sizes):
            return grid
        patch = sizes.patch_size
        height, width = (whole_patches(side, patch) * patch for side in grid.shape)
        return grid.enlarged(height, width)

    def window(self, grid: Grid) -> Grid:
        """Return the window to read for a place, as far as sizes are known without a download."""
        return self._window(grid, self.sizes())

    def batch_size(self, side_px: int | None = None) -> int:
        """Return how many images at a time suit the device, where nobody states it.

        The plan's number is for its own size of images: of larger ones there are fewer, but not
        fewer than 8.
        """
        if side_px is None and self.prep.mode != "resize":
            side_px = self.prep.tile_size
        size: int = self.plan.batch_size
        if side_px is None or side_px <= self.plan.image_size:
            return size
        return min(size, max(_LEAST_BATCH, size * self.plan.image_size**2 // side_px**2))

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
            frame = self.plan.preparation.frame(shape, sizes.image_size)
            return max(shape) > min(frame.resized)
        return self.prep.mode == "tile"


def settle(
    model: str | KeptModel,
    *,
    output: OutputSpec | str | None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"],
    min_valid: float,
    device: str,
    options: Mapping[str, Any],
    settings: Settings,
    arguments: Iterable[str] = (),
) -> Task:
    """Return the task, with everything checked that can be without pixels or a download.

    ``arguments`` are those of the function that was called, for names that are unknown.

    Raises
    ------
    SpecError, SettingsError, ModelError
        See ``get_embedding``.
    """
    description, plan, stated = planned(
        model, options, device=device, settings=settings, arguments=arguments
    )
    output = output_of(output)
    if not 0 <= finite_number("min_valid", min_valid) <= 1:
        raise SpecError(f"got min_valid={min_valid!r}, expected a number from 0 to 1")
    task = Task(
        description=description,
        plan=plan,
        stated=stated,
        output=output,
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
        If they are not whole patches.
    """
    tile_size = sizes.image_size if prep.tile_size is None else int(prep.tile_size)
    if prep.mode != "resize":
        check_tiling(tile_size, prep.overlap_px, sizes.patch_size)
    return tile_size, int(prep.overlap_px)


def _assumed_notes(acquired: Acquired, policy: float | str) -> Iterator[Note]:
    """Yield a warning where the GSD of own pixels is assumed."""
    if acquired.meta["scale_m_source"] == "assumed":
        given = "" if policy == "metres" else f" for meta (the model is given gsd={policy!r})"
        yield Note(
            f"the GSD of input_chw is not stated, so {acquired.scale_m:g} m per pixel was "
            f"assumed{given}; state it with scale_m=...",
            GsdWarning,
        )


def _odd_notes(raster: Raster, odd: int) -> Iterator[Note]:
    """Yield warnings about pixels that were left out."""
    if odd:
        yield Note(
            f"{odd} pixels have values outside the range of reflectance and were treated as "
            "nodata; if the imagery marks nodata with such a value, state it: "
            "fetch={'fill_value': ...}",
            ImageryWarning,
        )
    if raster.data.dtype.kind == "f":
        infinite = int(np.isinf(raster.data).any(axis=0).sum())
        if infinite:
            yield Note(f"{infinite} infinite pixels were treated as nodata", ImageryWarning)


def _growth_notes(requested: tuple[int, int], read: tuple[int, int]) -> Iterator[Note]:
    """Yield a warning where whole patches are much more than what was requested."""
    growth = read[0] * read[1] / (requested[0] * requested[1])
    if growth > _NOTABLE:
        yield Note(
            f"the place of {requested[0]} x {requested[1]} px was enlarged to {read[0]} x "
            f"{read[1]} px to fill whole patches, {growth - 1:.0%} more area; choose a size that "
            "is a multiple of the patch size to avoid this",
            CoverageWarning,
        )


def _coverage_notes(seen: ModelInput, *, tiled: bool) -> Iterator[Note]:
    """Yield a warning where the model does not see everything."""
    if tiled:
        if seen.coverage < 1 / _NOTABLE:
            yield Note(
                f"{1 - seen.coverage:.1%} of the area is in patches at the bottom or on the right "
                "that are less than half within the image, and has no tokens; an image whose sides "
                "are multiples of the patch size loses nothing",
                CoverageWarning,
            )
    elif seen.coverage < 1:
        also = f", and so does {seen.uncropped}" if seen.uncropped else ""
        yield Note(
            f"the model sees the central {seen.coverage:.1%} of the area; the rest is cropped. "
            f"input_prep='tile' keeps all of it{also}",
            CoverageWarning,
            once="the crop of the default preparation" if seen.coverage > _USUAL_CROP else "",
        )


def gsd_for_model(policy: float | str, input_res_m: float, side_px: int) -> float:
    """Return the GSD that is passed to the model.

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
    gsd = input_res_m if policy == "metres" else float(policy)
    if not _LEAST_GSD <= gsd <= _GREATEST_GSD:
        raise SpecError(
            f"got a GSD of {gsd:.4g} for the model, expected {_LEAST_GSD:g} to "
            f"{_GREATEST_GSD:g}; check scale_m, the georeference or gsd"
        )
    return gsd
