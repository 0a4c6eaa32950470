"""Embed a whole area into one map file, in a run that can be interrupted and resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.embedding.kept import KeptModel
from rs_embed.errors import give_warnings
from rs_embed.maps.blending import Seams
from rs_embed.maps.finishing import check_finished, finished_map
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.planning import check_disk, plan_map
from rs_embed.maps.report import MapPlan, MapReport
from rs_embed.maps.request import AreaTask, settle_area
from rs_embed.maps.run import checked_path, make_map, map_run
from rs_embed.runs.engines import Engine
from rs_embed.runs.remote import Destination, destination
from rs_embed.runs.run import DurableRun, is_finished, logger

if TYPE_CHECKING:
    import xarray as xr

    from rs_embed.geo.raster import Raster
    from rs_embed.maps.formats.encoding import MapDtype
    from rs_embed.providers.base import Provider
    from rs_embed.specs import FetchSpec, SensorSpec, Spatial, TemporalSpec


def embed_area(
    model: str | KeptModel,
    *,
    output: str | os.PathLike[str],
    spatial: Spatial | str | os.PathLike[str] | Any = None,
    buffer_m: float | None = None,
    layer: str | None = None,
    imagery: str | os.PathLike[str] | xr.DataArray | xr.Dataset | Raster | Any = None,
    temporal: TemporalSpec | Any = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | Mapping[str, Any] | None = None,
    scale_m: float | None = None,
    backend: str | os.PathLike[str] | Provider = "auto",
    cache: str | os.PathLike[str] | None = None,
    tile_size: int | None = None,
    overlap_px: int | None = None,
    seams: Seams | None = None,
    screen: float | None = None,
    stride_px: int | None = None,
    dtype: MapDtype = "float32",
    pca: int | None = None,
    acquired: str | date | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | Any = "auto",
    overwrite: bool = False,
    progress: bool | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    **options: Any,
) -> MapReport:
    """Embed a whole area into one georeferenced file of patch tokens, whatever its size.

    The area is cut into overlapping windows of its own pixels. They are read in threads, go through
    the model in batches, and are kept on disk as they come, in ``<output>.partial``: the same call
    continues after an interruption, and the map has the same bytes; where it is finished, nothing
    is done. Progress is logged by the
    logger ``rs_embed.runs``. Memory grows with the width of the area and the dimensions of a
    token, not with the height: a row of windows is held, and the stored values of a ``.zarr`` in
    128 MiB or 64 rows, whichever is more.

    Parameters
    ----------
    model : str or LoadedModel
        Id or alias, see ``list_models()``, or a model of `load_model`.
    output : path or URL
        ``.zarr`` (Zarr v3) or ``.tif`` (cloud-optimised GeoTIFF), on this disk or an object store
        (``s3://...``, see docs/batches.md). A STAC Item is written beside it.
    spatial : BBox, PointBuffer, tuple, path or geometry, optional
        The area: a box, a square (also as numbers, with ``buffer_m``, see `get_embedding`), or
        the polygons of a file (GeoJSON, GeoPackage, or any other that pyogrio reads) or of a
        shapely geometry in longitude and latitude. Cells outside the polygons are nodata. With
        ``imagery`` it may be left out.
    buffer_m : float, optional
        Half the side of the square around ``spatial``, if that is a point; ground metres.
    layer : str, optional
        Layer of the polygons, if their file has several.
    imagery : path, list of paths, xarray.DataArray or Raster, optional
        Own georeferenced pixels, as for `get_embedding`.
    temporal, sensor, fetch, scale_m, backend, cache
        As for `get_embedding`.
    tile_size : int, optional
        Side of a window, pixels, a multiple of the patch size. If not given: the ``map_tile_size``
        of the weights' ``config.json``, if they have one, the area is as large on both sides, and
        no ``image_size`` is stated; else the model's ``image_size``.
    overlap_px : int, optional
        Least overlap of neighbouring windows, pixels, a multiple of the patch size; a quarter of
        the window if not given.
    seams : {"harmonise", "blend", "discard"}, optional
        Where windows overlap, a token is the mean of theirs, weighted by its distance from their
        edges ("blend"). By default windows are first made to agree ("harmonise"): a vector is added
        to the tokens of each, solved from all overlaps. Or a token comes from the window whose
        edges are farthest ("discard"). Without overlap all three are the same, and the default is
        "blend".
    screen : float, optional
        How strongly the vectors of a harmonised map are kept near zero, above 0, by default 0.2;
        see docs/maps.md.
    stride_px : int, optional
        Distance of neighbouring tokens, pixels: the patch size if not given. A smaller one, which
        must divide it, takes several shifted passes, for a denser map of the same bounds.
    dtype : {"float32", "float16", "int8"}
        Type of the stored values; int8 has a scale for each dimension, and in a ``.tif`` needs GDAL
        3.7 or later. float16 in a ``.tif`` takes 16 bits, and is read as float32.
    pca : int, optional
        Store this many principal components instead of all dimensions.
    acquired : str or date, optional
        Time of own imagery (ISO 8601, UTC), for the STAC Item: that in the metadata or the name of
        a file if not given. Where neither says, none is written.
    device : {"auto", "cpu", "cuda", "mps"}, str, list of str or torch.device
        Where the model runs: also a card (``"cuda:1"``), or several, each with a process of its
        own (``"cuda:0,1"``).
    overwrite : bool
        Whether to start again, and replace a finished map.
    progress : bool, optional
        Whether to show a progress bar on standard error; None: in a terminal or notebook.
    workers, engine, ray_address
        As for `export_batch`. Windows that start in the same 1024 rows are made by one process.
    **options
        The model's own options, see ``describe_model(model)["options"]``.

    Returns
    -------
    MapReport
        The paths, what failed, throughput, size. A window whose pixels cannot be read, or that the
        model refuses, is named in ``failed``; the rest of the map is written, and the same call
        retries it.

    Raises
    ------
    SpecError
        If the request is invalid; `UnknownNameError` for names.
    ImageryError, GridError
        If the area is outside the imagery, or its pixels or georeference must not reach the model.
    ProviderError
        If there is no imagery for any of it.
    ModelError
        If the model or device cannot do it; `CheckpointError` for weights, also if windows kept
        earlier were made with others.
    ExportError
        If the map is finished and that of another request, or cannot be written, or if what is
        kept belongs to another request, is damaged, or is in use by another process.
    MissingDependencyError
        If a package of the extra ``maps`` is missing.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        If something was assumed or left out.
    """
    where = Engine(engine, workers, ray_address, device)
    with destination(output, MAPS, overwrite=overwrite) as target:
        area, run = _settled(
            target,
            overwrite,
            model,
            spatial=spatial,
            buffer_m=buffer_m,
            layer=layer,
            imagery=imagery,
            temporal=temporal,
            sensor=sensor,
            fetch=fetch,
            scale_m=scale_m,
            backend=backend,
            cache=cache,
            tile_size=tile_size,
            overlap_px=overlap_px,
            seams=seams,
            screen=screen,
            stride_px=stride_px,
            dtype=dtype,
            pca=pca,
            acquired=acquired,
            device=where.own_device,
            **options,
        )
        if run is None:
            report = finished_map(area, target)
        else:
            with run:
                report = make_map(area, run, engine=where, progress=progress)
        if target.mirror is None:
            return report
        return replace(report, path=target.shown, item=report.item and f"{target.shown}.json")


def _settled(
    target: Destination, overwrite: bool, model: str | KeptModel, **arguments: Any
) -> tuple[AreaTask, DurableRun | None]:
    """Return a map, settled, and its run, not entered; None if it is finished."""
    path = checked_path(target.path)
    area = settle_area(model, **arguments)
    if is_finished(path, overwrite=overwrite):
        return area, None
    return area, map_run(path, area, overwrite=overwrite, mirror=target.mirror)


def plan_area(
    model: str | KeptModel,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **arguments: Any,
) -> MapPlan:
    """Return what `embed_area` with these arguments would take; no pixels are read.

    The model is loaded, and timed on blank images. Nothing is written.

    Parameters
    ----------
    model : str or LoadedModel
        Id or alias, see ``list_models()``, or a model of `load_model`.
    output : path, optional
        The map. If given, it is checked as `embed_area` does, its disk must have room, and windows
        that are done are not counted.
    overwrite : bool
        Whether to start again, and replace a finished map.
    **arguments
        As for `embed_area`.

    Raises
    ------
    RsEmbedError
        As `embed_area`, for all that is known before pixels are read.
    """
    arguments.pop("progress", None)
    engine, device = arguments.pop("engine", "local"), arguments.get("device", "auto")
    workers, address = (arguments.pop(name, None) for name in ("workers", "ray_address"))
    where = Engine(engine, workers, address, device)
    arguments["device"] = where.own_device
    place = nullcontext() if output is None else destination(output, MAPS, overwrite=overwrite)
    with place as target:
        if target is None:
            area, left = settle_area(model, **arguments), None
        else:
            area, run = _settled(target, overwrite, model, **arguments)
            if run is None:
                check_finished(area, target)
            left = 0 if run is None else run.remaining()
        give_warnings(area.notes)
        windows = len(area.layout.tiles)
        plan = plan_map(area, windows if left is None else left)
        if left and target is not None:
            check_disk(target.path, area, plan.dimensions, left)
    if left is not None and 0 < left < windows:
        logger.info("%d of %d windows are done; the plan is for the rest", windows - left, windows)
    return plan
