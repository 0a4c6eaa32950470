"""Embed a whole area into one map file; interrupted at any moment, the same call goes on."""

from __future__ import annotations

import os
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.maps.blending import Seams
from rs_embed.maps.report import MapReport
from rs_embed.maps.request import settle_area
from rs_embed.maps.run import AreaRun, checked_path

if TYPE_CHECKING:
    import xarray as xr

    from rs_embed.geo.raster import Raster
    from rs_embed.maps.formats.encoding import MapDtype
    from rs_embed.providers.base import Provider
    from rs_embed.specs import FetchSpec, SensorSpec, Spatial, TemporalSpec


def embed_area(
    model: str,
    *,
    output: str | os.PathLike[str],
    spatial: Spatial | str | os.PathLike[str] | Any = None,
    layer: str | None = None,
    imagery: str | os.PathLike[str] | xr.DataArray | Raster | None = None,
    temporal: TemporalSpec | None = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | None = None,
    backend: str | Provider = "auto",
    cache: str | os.PathLike[str] | None = None,
    tile_size: int | None = None,
    overlap_px: int | None = None,
    seams: Seams = "blend",
    stride_px: int | None = None,
    dtype: MapDtype = "float32",
    pca: int | None = None,
    acquired: str | date | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> MapReport:
    """Embed a whole area into one georeferenced file of patch tokens, whatever its size.

    The area is cut into overlapping windows of its own pixels. They are read in threads, go through
    the model in batches, and are kept on disk as they come, in ``<output>.partial``: the same call
    goes on where it was interrupted, and gives the same bytes. Memory grows with the width of the
    area and the dimensions of a token, not with the height: a row of windows is held, and the
    stored values of a ``.zarr`` in 128 MiB or 64 rows, whichever is more.

    Parameters
    ----------
    model : str
        Id or alias, see ``list_models()``.
    output : path
        ``.zarr`` (Zarr v3) or ``.tif`` (cloud-optimised GeoTIFF). A STAC Item is written beside it.
    spatial : BBox, PointBuffer, path or geometry, optional
        The area: a box, a square, or the polygons of a file (GeoJSON, GeoPackage, what else
        pyogrio reads) or of a shapely geometry in longitude and latitude. Cells that polygons share
        no area with are nodata. With ``imagery`` it may be left out.
    layer : str, optional
        Layer of the polygons, where their file has several.
    imagery : path, xarray.DataArray or Raster, optional
        Own georeferenced pixels, as for `get_embedding`.
    temporal, sensor, fetch, backend, cache
        As for `get_embedding`.
    tile_size : int, optional
        Side of a window, pixels, a multiple of the patch size; the model's ``image_size`` if not
        given.
    overlap_px : int, optional
        Least overlap of neighbouring windows, pixels, a multiple of the patch size; a quarter of
        the window if not given.
    seams : {"blend", "discard"}
        A token where windows overlap is their mean, weighted by how deep in each it lies; or that
        of the window in which it lies deepest, and the rim of the others is discarded.
    stride_px : int, optional
        Distance of neighbouring tokens, pixels: the patch size if not given. A smaller one, which
        divides it, takes several shifted passes, and gives a denser map of the same bounds.
    dtype : {"float32", "float16", "int8"}
        Type of the stored values; int8 has a scale for each dimension. float16 in a ``.tif`` takes
        16 bits, and is read as float32.
    pca : int, optional
        Store this many principal components instead of all dimensions.
    acquired : str or date, optional
        When own imagery was taken (ISO 8601, UTC), for the STAC Item; without it there is none.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the model runs.
    overwrite : bool
        Whether to begin anew, and replace a finished map.
    progress : bool, optional
        Whether a bar counts windows on standard error; None where that is a terminal.
    **options
        The model's own options, see ``describe_model(model)["options"]``.

    Returns
    -------
    MapReport
        The paths, what failed, throughput, size. A window whose pixels cannot be read, or that the
        model refuses, is named in ``failed``; the rest of the map is written, and the same call
        tries it again.

    Raises
    ------
    SpecError
        If the request cannot be meant; `UnknownNameError` for names.
    ImageryError, GridError
        If the area lies outside the imagery, or its pixels or georeference must not reach the
        model.
    ProviderError
        If no imagery can be had for any of it.
    ModelError
        If the model or device cannot do it; `CheckpointError` for weights, also where those of
        windows kept earlier were others.
    ExportError
        If the map cannot be written, is there already, or what is kept belongs to another request,
        is damaged, or in use by another process.
    MissingDependencyError
        If a package of the extra ``maps`` is missing.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        Where something was assumed or left out.
    """
    path = checked_path(output)
    asked = settle_area(
        model,
        spatial=spatial,
        layer=layer,
        imagery=imagery,
        temporal=temporal,
        sensor=sensor,
        fetch=fetch,
        backend=backend,
        cache=cache,
        tile_size=tile_size,
        overlap_px=overlap_px,
        seams=seams,
        stride_px=stride_px,
        dtype=dtype,
        pca=pca,
        acquired=acquired,
        device=device,
        **options,
    )
    with AreaRun(path, asked, overwrite=overwrite) as run:
        return run.run(progress=progress)
