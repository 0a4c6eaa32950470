"""From a request to an embedding: get the pixels, prepare them, run the model, pool."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

import rs_embed
from rs_embed.embedding import Embedding, token_grid
from rs_embed.errors import (
    CoverageWarning,
    GsdWarning,
    ImageryError,
    ImageryWarning,
    ModelError,
    ProviderError,
    SpecError,
    TemporalWarning,
    UnknownNameError,
    warn,
)
from rs_embed.preprocessing import (
    DEFAULT_REFLECTANCE,
    MIN_SIDE_PX,
    MIN_TOKEN_VALID,
    Display,
    ModelInput,
    check_values,
    normalised,
    prepare,
)
from rs_embed.raster import Raster
from rs_embed.registry import find_model, find_provider, provider_names
from rs_embed.settings import Settings
from rs_embed.specs import (
    BBox,
    FetchSpec,
    OutputSpec,
    PointBuffer,
    SensorSpec,
    Spatial,
    TemporalSpec,
    to_json,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.grid import Grid
    from rs_embed.models.base import Encoder, InputContract, Tokens

INPUT_PREPS = ("resize",)
MIN_VALID = 0.25
# A GSD more than this factor outside the range of the training is worth a word.
_FAR_FACTOR = 4


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
    output = OutputSpec.pooled() if output is None else output
    asked = _Request(spatial, temporal, sensor, fetch, output, backend, input_chw, imagery)
    asked.check()
    _check_choices(input_prep, min_valid)
    plan = found.plan(options, device=device, settings=settings)
    taken = asked.take(description.inputs)
    check_values(taken.raster, min_valid=min_valid, vouched=taken.vouched)
    _warn_infinite(taken.raster)
    encoder = plan.load()
    seen = prepare(
        taken.raster,
        scale_m=taken.scale_m,
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
        reflectance=taken.reflectance,
        display=cast(Display, plan.display),
    )
    valid = seen.token_valid >= MIN_TOKEN_VALID
    if not valid.any():
        raise ImageryError(
            f"got no token of which {MIN_TOKEN_VALID:.0%} is valid in what the model sees, "
            "expected at least one; choose another place or period"
        )
    _warn_coverage(seen)
    told = _told_gsd(plan.gsd, seen.input_res_m, encoder)
    mean, std = description.inputs.mean, description.inputs.std
    tokens = encoder.encode(normalised(seen.image, mean, std)[None], [told])
    data, pooling = _result(tokens, 0, valid, seen.grid, encoder.patch_size, output)
    meta = {
        "model": description.id,
        "rs_embed_version": rs_embed.__version__,
        **taken.meta,
        "input_prep": input_prep,
        "display": plan.display,
        "image_size": encoder.image_size,
        "input_grid": seen.grid.to_json(),
        "input_res_m": seen.input_res_m,
        "gsd_policy": plan.gsd if isinstance(plan.gsd, str) else "number",
        "input_res": told,
        "output": output.mode,
        "pooling": pooling,
        "tokens_kind": tokens.kind,
        "used_patch_size": encoder.patch_size,
        "coverage": seen.coverage,
        "valid_fraction": seen.valid_fraction,
        "valid_tokens": int(valid.sum()),
        **encoder.provenance,
    }
    meta["fingerprint"] = _fingerprint(seen, meta)
    return Embedding(data, meta, image=seen.image)


@dataclass(frozen=True, eq=False)
class _Taken:
    """Pixels that were taken for a request, and what is known of them."""

    raster: Raster
    scale_m: float
    reflectance: tuple[float, float]
    vouched: bool
    meta: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Request:
    """Where the pixels come from, as it was asked."""

    spatial: Spatial | None
    temporal: TemporalSpec | None
    sensor: SensorSpec | None
    fetch: FetchSpec | None
    output: OutputSpec
    backend: str
    input_chw: Any
    imagery: Any

    def check(self) -> None:
        """Raise `SpecError` where arguments are of the wrong type or contradict each other."""
        for name, value, kinds in (
            ("spatial", self.spatial, (BBox, PointBuffer)),
            ("temporal", self.temporal, (TemporalSpec,)),
            ("sensor", self.sensor, (SensorSpec,)),
            ("fetch", self.fetch, (FetchSpec,)),
            ("output", self.output, (OutputSpec,)),
        ):
            if value is not None and not isinstance(value, kinds):
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise SpecError(
                    f"got {name}={value!r} ({type(value).__name__}), expected {expected}"
                )
        if self.sensor is not None and self.fetch is not None:
            raise SpecError(
                "got both sensor and fetch, expected one: sensor replaces the model's default, "
                "fetch overrides single values of it; put the values into sensor"
            )
        if self.input_chw is not None and self.imagery is not None:
            raise SpecError("got both input_chw and imagery, expected one source of pixels")
        own = next((n for n in ("input_chw", "imagery") if getattr(self, n) is not None), None)
        if own is None:
            self._check_provider()
        else:
            self._check_own(own)

    def _check_provider(self) -> None:
        if self.spatial is None:
            raise SpecError(
                "got no spatial, expected a place (PointBuffer or BBox) for a provider, or own "
                "pixels as input_chw= or imagery="
            )
        names = provider_names()
        if self.backend == "auto":
            # The sample scene is never picked unasked, and there is no other source yet.
            raise ProviderError(
                "no imagery source is configured for backend='auto'; name one of "
                f"{', '.join(names)} as backend=, or pass own pixels as imagery= or input_chw="
            )
        if self.backend not in names:
            raise UnknownNameError.among("backend", self.backend, ["auto", *names])

    def _check_own(self, own: str) -> None:
        if self.temporal is not None or self.backend != "auto":
            given = "temporal" if self.temporal is not None else "backend"
            raise SpecError(f"got {given} with {own}: own pixels are not searched by a provider")
        if own == "input_chw" and self.spatial is not None:
            raise SpecError(
                "got spatial with input_chw, which has no place to cut it from; use imagery= with "
                "Raster.from_array(..., crs=..., transform=...)"
            )
        chosen = self.sensor or self.fetch
        stated = [] if self.fetch is None else ["cloudy_pct", "composite"]
        for name in [*stated, "crs"]:
            if chosen is not None and getattr(chosen, name) is not None:
                raise SpecError(
                    f"got {name} with {own}: own pixels are neither searched nor warped"
                )

    def take(self, contract: InputContract) -> _Taken:
        """Return the pixels, from the caller or from a provider."""
        sensor = self.sensor
        if sensor is None:
            sensor = SensorSpec(contract.collection, contract.bands)
            if self.fetch is not None:
                sensor = sensor.with_fetch(self.fetch)
        if len(sensor.bands) != len(contract.bands):
            raise SpecError(
                f"got {len(sensor.bands)} bands {sensor.bands}, expected {len(contract.bands)} in "
                f"the order of {contract.bands}"
            )
        if self.input_chw is not None:
            raster, scale_m, scale_source = self._take_array(sensor, contract)
            meta: dict[str, Any] = {"backend": "input_chw", "temporal": None}
        elif self.imagery is not None:
            raster, scale_m, scale_source = self._take_imagery(sensor)
            meta = {"backend": "imagery", "temporal": None}
        elif self.spatial is not None:
            raster, scale_m, scale_source, meta = self._take_provided(
                self.spatial, sensor, contract
            )
        else:
            raise SpecError("got neither pixels nor a place")
        reflectance, said_by = _reflectance(sensor, raster)
        meta |= {
            "spatial": None if self.spatial is None else {
                "type": type(self.spatial).__name__, **to_json(self.spatial)
            },
            "sensor": to_json(sensor),
            "source": dict(raster.source),
            "grid": raster.grid.to_json(),
            "used_scale_m": scale_m,
            "scale_m_source": scale_source,
            "reflectance_scale": reflectance[0],
            "reflectance_offset": reflectance[1],
            "reflectance_source": said_by,
        }  # fmt: skip
        return _Taken(raster, scale_m, reflectance, said_by != "contract", meta)

    def _take_array(self, sensor: SensorSpec, contract: InputContract) -> tuple[Raster, float, str]:
        fill_value = contract.fill_value if sensor.fill_value is None else sensor.fill_value
        raster = Raster.from_array(self.input_chw, bands=sensor.bands, nodata=fill_value)
        if sensor.scale_m is not None:
            return raster, float(sensor.scale_m), "stated"
        warn(
            f"input_chw came without its GSD, so {contract.scale_m:g} m per pixel was assumed and "
            "told to the model; state it with fetch=FetchSpec(scale_m=...)",
            GsdWarning,
        )
        return raster, float(contract.scale_m), "assumed"

    def _take_imagery(self, sensor: SensorSpec) -> tuple[Raster, float, str]:
        from rs_embed.grid import gsd_m
        from rs_embed.imagery import read_imagery

        raster = read_imagery(
            self.imagery, bands=sensor.bands, spatial=self.spatial, fill_value=sensor.fill_value
        )
        read = gsd_m(raster.grid)
        if sensor.scale_m is not None and abs(sensor.scale_m / read - 1) > 0.01:
            raise ImageryError(
                f"got scale_m={sensor.scale_m:g}, but a pixel of the imagery covers {read:.6g} m "
                "on the ground; leave scale_m out, or correct the georeference"
            )
        return raster, read, "georeference"

    def _take_provided(
        self, spatial: Spatial, sensor: SensorSpec, contract: InputContract
    ) -> tuple[Raster, float, str, dict[str, Any]]:
        from rs_embed.grid import gsd_m, roi_grid

        provider = find_provider(self.backend)
        provider.check_sensor(sensor)
        scale_m = contract.scale_m if sensor.scale_m is None else sensor.scale_m
        grid = roi_grid(spatial, scale_m, sensor.crs)
        _check_size(grid, scale_m)
        temporal = self.temporal
        if temporal is None and provider.dated:
            temporal = TemporalSpec.range(*contract.temporal)
            warn(
                f"no period was given, so the model's default was taken: {temporal.start} up to "
                f"{temporal.end}; state it with temporal=TemporalSpec.range(...)",
                TemporalWarning,
            )
        raster = provider.fetch(grid, temporal=temporal, sensor=sensor)
        meta = {
            "backend": self.backend,
            "temporal": None if temporal is None else to_json(temporal),
        }
        source = "default" if sensor.scale_m is None else "stated"
        return raster, gsd_m(raster.grid), source, meta


def _check_choices(input_prep: object, min_valid: Any) -> None:
    if input_prep not in INPUT_PREPS:
        raise UnknownNameError.among("input_prep", input_prep, INPUT_PREPS)
    number = isinstance(min_valid, Real) and not isinstance(min_valid, bool)
    if not number or not 0 <= float(min_valid) <= 1:
        raise SpecError(f"got min_valid={min_valid!r}, expected a number from 0 to 1")


def _check_size(grid: Grid, scale_m: float) -> None:
    height, width = grid.shape
    if min(height, width) < MIN_SIDE_PX:
        raise ImageryError(
            f"the place is {height} x {width} px at scale_m={scale_m:g}, expected a short side of "
            f"at least {MIN_SIDE_PX} px; use a larger buffer or a smaller scale_m"
        )


def _reflectance(sensor: SensorSpec, raster: Raster) -> tuple[tuple[float, float], str]:
    """Return scale and offset, and who said so: the sensor, else the file, else the contract."""
    if sensor.reflectance_scale is not None or sensor.reflectance_offset is not None:
        scale = (
            DEFAULT_REFLECTANCE[0] if sensor.reflectance_scale is None else sensor.reflectance_scale
        )
        return (float(scale), float(sensor.reflectance_offset or 0)), "sensor"
    if raster.reflectance is not None:
        return raster.reflectance, "imagery"
    return DEFAULT_REFLECTANCE, "contract"


def _warn_infinite(raster: Raster) -> None:
    if raster.data.dtype.kind == "f" and np.isinf(raster.data).any():
        count = int(np.isinf(raster.data).any(axis=0).sum())
        warn(f"{count} infinite pixels were left out as nodata", ImageryWarning)


def _warn_coverage(seen: ModelInput) -> None:
    if seen.coverage < 1:
        size = seen.image.shape[0]
        larger = max(256, size)
        mend = (
            f"image_size={larger} keeps all of a square image"
            if size < larger
            else "cut the place square to keep all of it"
        )
        warn(
            f"the model sees {seen.coverage:.1%} of the area, the rest is cropped; {mend}",
            CoverageWarning,
        )


def _told_gsd(policy: float | str, input_res_m: float, encoder: Encoder) -> float:
    """Return the GSD that the model is told, with a warning far from its training."""
    if policy == "relative":
        told = 224 / encoder.image_size
    else:
        told = input_res_m if policy == "metres" else float(policy)
    if encoder.trained_input_res is not None:
        low, high = encoder.trained_input_res
        if not low / _FAR_FACTOR <= told <= high * _FAR_FACTOR:
            warn(
                f"the model is told a GSD of {told:.4g}, far from the {low:g} to {high:g} of its "
                "training; a smaller scale_m or place brings it closer, or see gsd='relative'",
                GsdWarning,
            )
    return told


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
    """Return the SHA-256 of everything that determines the numbers, place and device aside."""
    keys = (
        "model", "rs_embed_version", "input_res", "output", "pooling", "tokens_kind", "network",
        "loader", "precision", "weights_sha256", "weights_seed",
    )  # fmt: skip
    digest = hashlib.sha256(json.dumps([meta.get(key) for key in keys]).encode())
    digest.update(str(seen.image.shape).encode() + seen.image.tobytes())
    digest.update(seen.token_valid.tobytes())
    return digest.hexdigest()
