"""The embedding of one place."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.embedding.arguments import fetch_of
from rs_embed.embedding.covering import check_pooling
from rs_embed.embedding.kept import KeptModel
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
    model: str | KeptModel,
    *,
    spatial: Spatial | Any = None,
    buffer_m: float | None = None,
    temporal: TemporalSpec | Any = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | Mapping[str, Any] | None = None,
    scale_m: float | None = None,
    output: OutputSpec | Literal["pooled", "grid", "mean", "max", "cls"] | None = None,
    backend: str | os.PathLike[str] | Provider = "auto",
    input_chw: Any = None,
    imagery: str | os.PathLike[str] | xr.DataArray | xr.Dataset | Raster | Any = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] | Any = "auto",
    progress: bool | None = None,
    **options: Any,
) -> Embedding:
    """Return the embedding of one place.

    The pixels come from ``input_chw`` (own array), ``imagery`` (own file or array with CRS), or a
    provider (``spatial``, ``temporal``, ``backend``).

    Parameters
    ----------
    model : str or LoadedModel
        Id or alias, see ``list_models()``: ``"scalemae"``; or a model of `load_model`.
    spatial : BBox, PointBuffer, tuple, or geometry, optional
        The place: ``(minlon, minlat, maxlon, maxlat)`` is a `BBox`, and ``(lon, lat)``, or a point
        of shapely or GeoJSON, a `PointBuffer` with ``buffer_m``. A polygon (shapely, GeoJSON, one
        row of a GeoDataFrame) is embedded on its bounding window and pooled over the tokens that it
        covers. With ``imagery``, the window to read; not with ``input_chw``.
    buffer_m : float, optional
        Half the side of the square around a point, ground metres.
    temporal : TemporalSpec, str, int, date, pair or slice, optional
        The period; providers only: ``2022``, ``"2022-06"``, ``"2022-06-01"``, or the first day and
        the day after the last, ``"2022-06-01/2022-09-01"`` or ``("2022-06-01", "2022-09-01")``.
        None is the model's default period, with a warning.
    sensor : SensorSpec, optional
        Replaces the model's default sensor; not together with ``fetch``.
    fetch : FetchSpec or mapping, optional
        Overrides single values of the model's default sensor: ``{"cloudy_pct": 10}``.
    scale_m : float, optional
        Ground metres per pixel: short for ``fetch={"scale_m": ...}``.
    output : OutputSpec or str, optional
        ``"pooled"`` (the default), ``"grid"``, or a pooling: ``"mean"``, ``"max"``, ``"cls"``.
    backend : str, path or Provider
        Name of a provider, ``"auto"`` (the first that is configured), a folder of imagery, the URL
        of a STAC catalogue, or a provider such as ``LocalProvider("folder")``.
    input_chw : array-like, optional
        ``(3, height, width)``, red, green, blue; any integer or floating dtype; surface
        reflectance as digital numbers 0..10000. State its GSD with ``scale_m``.
    imagery : path, list of paths, xarray.DataArray, xarray.Dataset, rasterio dataset or Raster
        Georeferenced pixels in the same units; GSD, CRS and nodata are read from it. A Dataset has
        a variable for each band; a dataset that rasterio has open stands for its file; a list is
        of bands of one scene, or of neighbouring scenes.
    cache : path, optional
        Folder that keeps the pixels of providers for later calls, made if it is not there;
        ``RS_EMBED_CACHE_DIR`` if not given, and nothing is kept without either. Not with own
        pixels.
    input_prep : {"resize", "tile", "auto"} or InputPrepSpec
        How an image becomes the model's input: one resized and cropped image, or tiles of its own
        pixels.
    min_valid : float
        Least share of valid pixels, 0..1; fewer is an error.
    device : {"auto", "cpu", "cuda", "mps"}, str or torch.device
        Where the model runs; one that is not available is an error.
    progress : bool, optional
        Whether a bar counts tiles on standard error; None: in a terminal or notebook.
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
        arguments=inspect.signature(get_embedding).parameters,
    )
    place, shape = one_place(spatial, buffer_m)
    check_pooling(task.output, [shape])
    source = Source(
        spatial=place,
        shape=shape,
        temporal=temporal,
        sensor=sensor,
        fetch=fetch_of(fetch, scale_m),
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
