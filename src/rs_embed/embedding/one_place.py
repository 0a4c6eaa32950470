"""The embedding of one place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.embedding.covering import check_pooling
from rs_embed.embedding.loop import embed
from rs_embed.embedding.place_arguments import one_place
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, settle
from rs_embed.errors import RsEmbedError
from rs_embed.geo.raster import Raster
from rs_embed.progress import Bar
from rs_embed.settings import Settings
from rs_embed.specs import FetchSpec, InputPrepSpec, OutputSpec, SensorSpec, Spatial, TemporalSpec

if TYPE_CHECKING:
    import xarray as xr

    from rs_embed.providers.base import Provider


def get_embedding(
    model: str,
    *,
    spatial: Spatial | Any = None,
    temporal: TemporalSpec | None = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | None = None,
    output: OutputSpec | None = None,
    backend: str | Provider = "auto",
    input_chw: Any = None,
    imagery: str | os.PathLike[str] | xr.DataArray | Raster | None = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    progress: bool | None = None,
    **options: Any,
) -> Embedding:
    """Return the embedding of one place.

    The pixels come from ``input_chw`` (own array), ``imagery`` (own file or array with CRS), or a
    provider (``spatial``, ``temporal``, ``backend``).

    Parameters
    ----------
    model : str
        Id or alias, see ``list_models()``: ``"scalemae"``.
    spatial : BBox, PointBuffer, or polygon, optional
        The place. A polygon (shapely, GeoJSON, one row of a GeoDataFrame) is embedded on its
        bounding window and pooled over the tokens that it covers. With ``imagery``, the window to
        read; not with ``input_chw``.
    temporal : TemporalSpec, optional
        The period; providers only. None is the model's default period, with a warning.
    sensor : SensorSpec, optional
        Replaces the model's default sensor; not together with ``fetch``.
    fetch : FetchSpec, optional
        Overrides single values of the model's default sensor, such as ``scale_m``.
    output : OutputSpec, optional
        ``OutputSpec.pooled()`` (the default) or ``OutputSpec.grid()``.
    backend : str or Provider
        Name of a provider, ``"auto"`` (the first that is configured), or a provider such as
        ``LocalProvider("folder")``.
    input_chw : array-like, optional
        ``(3, height, width)``, red, green, blue; any integer or floating dtype; surface
        reflectance as digital numbers 0..10000. State its GSD: ``fetch=FetchSpec(scale_m=...)``.
    imagery : path, xarray.DataArray or Raster, optional
        Georeferenced pixels in the same units; GSD, CRS and nodata are read from it.
    cache : path, optional
        Folder that keeps the pixels of providers for later calls, made if it is not there;
        ``RS_EMBED_CACHE_DIR`` if not given, and nothing is kept without either. Not with own
        pixels.
    input_prep : {"resize", "tile", "auto"} or InputPrepSpec
        How an image becomes the model's input: one resized and cropped image, or tiles of its own
        pixels.
    min_valid : float
        Least share of valid pixels, 0..1; fewer is an error.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the model runs; one that is not available is an error.
    progress : bool, optional
        Whether a bar counts tiles on standard error; None where that is a terminal.
    **options
        The model's own options, see ``describe_model(model)["options"]``.

    Returns
    -------
    Embedding
        ``data`` is float32 ``(D,)``, or an `xarray.DataArray` ``(d, y, x)`` for a grid.

    Raises
    ------
    SpecError
        If the request is invalid; `UnknownNameError` for names.
    SettingsError
        If an environment variable has an invalid value.
    ImageryError, GridError
        If the pixels or their georeference must not reach the model.
    ProviderError
        If no imagery can be fetched.
    ModelError
        If the model or device does not support the request; `CheckpointError` for weights.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        If something was assumed or left out; ``meta`` records it too.

    Examples
    --------
    >>> from rs_embed import get_embedding, PointBuffer
    >>> emb = get_embedding(
    ...     "scalemae",
    ...     spatial=PointBuffer(lon=-75.6156, lat=37.6942, buffer_m=1280),
    ...     backend="sample",
    ...     variant="tiny",
    ...     image_size=256,
    ... )
    >>> emb.data.shape
    (192,)
    """
    settings = Settings.from_environ()
    task = settle(
        model,
        output=output,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=options,
        settings=settings,
    )
    place, shape = one_place(spatial)
    check_pooling(task.output, [shape])
    source = Source(
        spatial=place,
        shape=shape,
        temporal=temporal,
        sensor=sensor,
        fetch=fetch,
        backend=backend,
        input_chw=input_chw,
        imagery=imagery,
        cache=cache,
    ).resolved(settings)
    with Bar(progress, unit="tile") as bar:
        (outcome,) = embed(
            task,
            [source],
            fetch_workers=0,
            batch_size=settings.scalemae_batch_size,
            keep_images=True,
            tiles=bar,
        )
    if isinstance(outcome, RsEmbedError):
        raise outcome
    return outcome
