"""From a request to an embedding: get the pixels, prepare them, run the model, pool."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

import rs_embed
from rs_embed.acquisition import Acquired, PixelRequest, check_type
from rs_embed.embedding import Embedding, token_grid
from rs_embed.errors import (
    CoverageWarning,
    GsdWarning,
    ImageryWarning,
    ModelError,
    SpecError,
    UnknownNameError,
)
from rs_embed.notes import Note, give_warnings
from rs_embed.preprocessing import (
    MIN_TOKEN_VALID,
    Display,
    ModelInput,
    check_seen,
    check_values,
    normalised,
    prepare,
)
from rs_embed.raster import Raster
from rs_embed.registry import find_model
from rs_embed.settings import Settings
from rs_embed.specs import (
    FetchSpec,
    OutputSpec,
    SensorSpec,
    Spatial,
    TemporalSpec,
    finite_number,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.grid import Grid
    from rs_embed.models.base import Encoder, Plan, Tokens

INPUT_PREPS = ("resize",)
MIN_VALID = 0.25
# A GSD more than this factor outside the range of the training is worth a word.
_FAR_FACTOR = 4
_LEAST_GSD, _GREATEST_GSD = 1e-3, 1e5


def get_embedding(
    model: str,
    *,
    spatial: Spatial | None = None,
    temporal: TemporalSpec | None = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | None = None,
    output: OutputSpec | None = None,
    backend: str = "auto",
    input_chw: Any = None,
    imagery: str | os.PathLike[str] | xr.DataArray | Raster | None = None,
    input_prep: Literal["resize"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    **options: Any,
) -> Embedding:
    """Return the embedding of one place.

    The pixels come from ``input_chw`` (own array), ``imagery`` (own file or array with CRS), or a
    provider (``spatial``, ``temporal``, ``backend``).

    Parameters
    ----------
    model : str
        Id or alias, see ``list_models()``: ``"scalemae"``.
    spatial : BBox or PointBuffer, optional
        The place. With ``imagery``, the window to read; not with ``input_chw``.
    temporal : TemporalSpec, optional
        The period; providers only. None is the model's default period, with a warning.
    sensor : SensorSpec, optional
        Replaces the model's default sensor; not together with ``fetch``.
    fetch : FetchSpec, optional
        Overrides single values of the model's default sensor, such as ``scale_m``.
    output : OutputSpec, optional
        ``OutputSpec.pooled()`` (the default) or ``OutputSpec.grid()``.
    backend : str
        Name of a provider, or ``"auto"``: the first that is configured.
    input_chw : array-like, optional
        ``(3, height, width)``, red, green, blue; any integer or floating dtype; surface
        reflectance as digital numbers 0..10000. State its GSD: ``fetch=FetchSpec(scale_m=...)``.
    imagery : path, xarray.DataArray or Raster, optional
        Georeferenced pixels in the same units; GSD, CRS and nodata are read from it.
    input_prep : {"resize"}
        How an image becomes the model's input.
    min_valid : float
        Least share of valid pixels, 0..1; fewer is an error.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the model runs; one that is not available is an error.
    **options
        The model's own options, see ``describe_model(model)["options"]``.

    Returns
    -------
    Embedding
        ``data`` is float32 ``(D,)``, or an `xarray.DataArray` ``(d, y, x)`` for a grid.

    Raises
    ------
    SpecError
        If the request cannot be meant; `UnknownNameError` for names.
    SettingsError
        If an environment variable holds nonsense.
    ImageryError, GridError
        If the pixels or their georeference must not reach the model.
    ProviderError
        If no imagery can be had.
    ModelError
        If the model or device cannot do it; `CheckpointError` for weights.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        Where something was assumed or left out; ``meta`` says the same.

    Examples
    --------
    >>> from rs_embed import get_embedding, PointBuffer
    >>> emb = get_embedding(
    ...     "scalemae",
    ...     spatial=PointBuffer(lon=-75.6156, lat=37.6942, buffer_m=1280),
    ...     backend="sample",
    ...     weights="random-init",
    ...     variant="tiny",
    ...     image_size=256,
    ... )
    >>> emb.data.shape
    (192,)
    """
    found = find_model(model)
    description = found.description
    description.check_options(options)
    settings = Settings.from_environ()
    check_type("output", output, (OutputSpec,))
    output = OutputSpec.pooled() if output is None else output
    request = PixelRequest(spatial, temporal, sensor, fetch, backend, input_chw, imagery)
    request.check()
    _check_choices(input_prep, min_valid)
    plan = found.plan(options, device=device, settings=settings)
    taken = request.acquire(description.inputs)
    check_values(
        taken.raster,
        reflectance=taken.reflectance,
        min_valid=float(min_valid),
        vouched=taken.vouched,
    )
    expected = (plan.image_size, plan.patch_size)
    seen = _seen(taken, plan, *expected)
    told = _told_gsd(plan.gsd, seen)
    # Only now may gigabytes move: the pixels are known to be good.
    encoder = plan.load()
    if (encoder.image_size, encoder.patch_size) != expected:
        # Weights that came just now can bring a config.json with other sizes.
        seen = _seen(taken, plan, encoder.image_size, encoder.patch_size)
        told = _told_gsd(plan.gsd, seen)
    mean, std = description.inputs.mean, description.inputs.std
    tokens = encoder.encode(normalised(seen.image, mean, std)[None], [told])
    notes = [*taken.notes, *_pixel_notes(taken, seen), *_gsd_notes(told, encoder)]
    result = _embedding(tokens, 0, seen, encoder, output)
    result.meta.update(
        model=description.id,
        rs_embed_version=rs_embed.__version__,
        **taken.meta,
        input_prep=input_prep,
        display=plan.display,
        gsd_policy=plan.gsd if isinstance(plan.gsd, str) else "number",
        input_res=told,
        warnings=[note.message for note in notes],
    )
    result.meta["fingerprint"] = _fingerprint(seen, result.meta)
    give_warnings(notes)
    return result


def _seen(taken: Acquired, plan: Plan, image_size: int, patch_size: int) -> ModelInput:
    """Return what the model sees of the pixels.

    Raises
    ------
    ImageryError
        If no token of it is valid, or it is black or white throughout.
    """
    seen = prepare(
        taken.raster,
        scale_m=taken.scale_m,
        image_size=image_size,
        patch_size=patch_size,
        reflectance=taken.reflectance,
        display=cast(Display, plan.display),
    )
    check_seen(seen)
    return seen


def _check_choices(input_prep: object, min_valid: object) -> None:
    if input_prep not in INPUT_PREPS:
        raise UnknownNameError.among("input_prep", input_prep, INPUT_PREPS)
    if not 0 <= finite_number("min_valid", min_valid) <= 1:
        raise SpecError(f"got min_valid={min_valid!r}, expected a number from 0 to 1")


def _pixel_notes(taken: Acquired, seen: ModelInput) -> Iterator[Note]:
    """Yield what is worth a warning in the pixels and in what the model sees of them."""
    if taken.raster.data.dtype.kind == "f":
        infinite = int(np.isinf(taken.raster.data).any(axis=0).sum())
        if infinite:
            yield Note(f"{infinite} infinite pixels were left out as nodata", ImageryWarning)
    if seen.coverage < 1:
        height, width = taken.raster.grid.shape
        mend = "image_size=256 keeps all of it" if height == width else "cut the place square"
        yield Note(
            f"the model sees {seen.coverage:.1%} of the area, the rest is cropped; {mend}",
            CoverageWarning,
        )


def _told_gsd(policy: float | str, seen: ModelInput) -> float:
    """Return the GSD that the model is told.

    Raises
    ------
    SpecError
        If no image of the Earth has such a GSD.
    """
    if policy == "relative":
        return 224 / float(seen.image.shape[0])
    told: float = seen.input_res_m if policy == "metres" else float(policy)
    if not _LEAST_GSD <= told <= _GREATEST_GSD:
        raise SpecError(
            f"got a GSD of {told:.4g} for the model, expected {_LEAST_GSD:g} to "
            f"{_GREATEST_GSD:g}; check scale_m, the georeference or gsd"
        )
    return told


def _gsd_notes(told: float, encoder: Encoder) -> Iterator[Note]:
    """Yield a warning where the GSD is far from what the weights were trained on."""
    if encoder.trained_input_res is None:
        return
    low, high = encoder.trained_input_res
    if not low / _FAR_FACTOR <= told <= high * _FAR_FACTOR:
        yield Note(
            f"the model is told a GSD of {told:.4g}, far from the {low:g} to {high:g} of its "
            "training; a smaller scale_m or place brings it closer, or see gsd='relative'",
            GsdWarning,
        )


def _embedding(
    tokens: Tokens, item: int, seen: ModelInput, encoder: Encoder, output: OutputSpec
) -> Embedding:
    """Return the embedding of one item of a batch, with what is known of its making."""
    valid = seen.token_valid >= MIN_TOKEN_VALID
    data, pooling = _result(tokens, item, valid, seen.grid, encoder.patch_size, output)
    meta = {
        "image_size": encoder.image_size,
        "input_grid": seen.grid.to_json(),
        "input_res_m": seen.input_res_m,
        "output": output.mode,
        "pooling": pooling,
        "tokens_kind": tokens.kind,
        "used_patch_size": encoder.patch_size,
        "coverage": seen.coverage,
        "valid_fraction": seen.valid_fraction,
        "valid_tokens": int(valid.sum()),
        **encoder.provenance,
    }
    return Embedding(data, meta, image=seen.image)


def _result(
    tokens: Tokens,
    item: int,
    valid: NDArray[np.bool_],
    grid: Grid,
    patch_size: int,
    output: OutputSpec,
) -> tuple[Any, str | None]:
    """Return the data of one item of a batch, and what was done to pool it."""
    if output.mode == "grid":
        if tokens.patches is None:
            raise ModelError(
                f"got {tokens.kind} output without patch tokens, which has no grid; use "
                "OutputSpec.pooled(), or loader='native'"
            )
        _check_token_layout(tokens.patches[item], valid)
        return token_grid(tokens.patches[item], valid, grid.patch_grid(patch_size)), None
    if output.pooling == "cls":
        if tokens.cls is None:
            raise ModelError("got no class token from the model; use pooling='mean' or 'max'")
        return tokens.cls[item], "cls"
    if tokens.patches is None:
        if tokens.pooled is None:
            raise ModelError(f"got {tokens.kind} output with neither tokens nor a vector")
        return tokens.pooled[item], "model_pooled"
    _check_token_layout(tokens.patches[item], valid)
    chosen = tokens.patches[item][valid]  # N D
    pooled = chosen.max(axis=0) if output.pooling == "max" else chosen.mean(axis=0)
    return pooled.astype(np.float32), f"patch_{output.pooling}"


def _check_token_layout(patches: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    if patches.shape[:2] != valid.shape:
        raise ModelError(
            f"got {patches.shape[0]} x {patches.shape[1]} patch tokens, expected "
            f"{valid.shape[0]} x {valid.shape[1]}: their place is unknown; use loader='native'"
        )


def _fingerprint(seen: ModelInput, meta: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that determines the numbers; the place does not."""
    keys = (
        "model", "rs_embed_version", "input_res", "output", "pooling", "tokens_kind", "network",
        "loader", "precision", "weights_sha256", "weights_seed",
    )  # fmt: skip
    digest = hashlib.sha256(json.dumps([meta.get(key) for key in keys]).encode())
    digest.update(str(seen.image.shape).encode() + seen.image.tobytes())
    digest.update(seen.token_valid.tobytes())
    return digest.hexdigest()
