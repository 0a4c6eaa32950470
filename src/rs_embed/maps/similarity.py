"""Maps of how similar each token is to those of chosen points."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rs_embed.addresses import path_of
from rs_embed.embedding.similarity import cosines, directions
from rs_embed.errors import ExportError, SpecError
from rs_embed.files.formats import Format, Formats
from rs_embed.files.writing import written
from rs_embed.maps.sampling import placed_map, sample_points, valid_cells

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
SIMILARITIES = Formats(
    "a map of similarity", Format(name="GeoTIFF", suffixes=(".tif", ".tiff"), media_type=_COG)
)


def similarity_map(
    source: str | os.PathLike[str] | xr.DataArray,
    points: ArrayLike,
    *,
    crs: str = "EPSG:4326",
    centred: bool = True,
    output: str | os.PathLike[str] | None = None,
) -> xr.DataArray:
    """Return how similar each token of a map is to the mean token of the points.

    The map is read twice, block by block, or once with ``centred=False``.

    Parameters
    ----------
    source : path or xarray.DataArray
        A map that :func:`rs_embed.open_map` opens, or such an array: ``(d, y, x)``, with CRS.
    points : array-like
        ``(N, 2)``: x and y, as for `sample_points`. Each must be in a cell with a token.
    crs : str
        CRS of the points.
    centred : bool
        Whether the mean token of the map is subtracted first: without that all are similar.
    output : path, optional
        A ``.tif`` to write, a cloud-optimised GeoTIFF.

    Returns
    -------
    xarray.DataArray
        ``(y, x)`` float32: cosine similarity, -1 to 1; NaN where there is no token.

    Raises
    ------
    SpecError
        If the points or the map are invalid, a point has no token, or the tokens are all equal.
    ExportError
        If ``output`` cannot be written, or is the map itself.
    """
    target = None if output is None else path_of(output)
    if target is not None:
        SIMILARITIES.check(target)
        if isinstance(source, str | os.PathLike) and target.resolve() == Path(source).resolve():
            raise ExportError(f"cannot write {target}: it is the map itself; choose another name")
    placed = placed_map(source)
    sampled = sample_points(placed.array, points, crs=crs)
    tokens = sampled.values
    outside = np.flatnonzero(sampled.row.values < 0).tolist()
    if outside:
        west, south, east, north = placed.grid.geographic_bounds()
        raise SpecError(
            f"got points outside the map (by their numbers from 0: {outside}), which covers lon "
            f"{west:.4f} to {east:.4f}, lat {south:.4f} to {north:.4f}; choose points in it"
        )
    missing = np.flatnonzero(~np.isfinite(tokens).all(axis=1)).tolist()
    if missing or not len(tokens):
        raise SpecError(
            f"got {len(tokens)} points, expected one or more, each in a cell with a token; leave "
            f"out those without, by their numbers from 0: {missing}"
        )
    sums, count = np.zeros(placed.array.sizes["d"]), 0
    for _, values in valid_cells(placed) if centred else ():
        sums += values.sum(axis=0, dtype=np.float64)
        count += len(values)
    mean = sums / max(count, 1)
    units = directions(tokens.mean(axis=0, dtype=np.float64)[None], mean, of="map")
    similarity = np.full(placed.grid.shape, np.nan, np.float32)
    for cells, values in valid_cells(placed):
        similarity[cells] = cosines(values, units, mean)[0]
    found: xr.DataArray = placed.array.isel(d=0, drop=True).copy(data=similarity)
    found = found.rename("similarity")
    about = {"points": f"{np.asarray(points).tolist()} in {crs}", "centred": str(centred)}
    found.attrs = {"long_name": "cosine similarity", **about}  # not the meta of a map
    found = found.rio.write_nodata(np.nan)
    if target is not None:
        with written(target) as partial:
            found.rio.to_raster(partial, driver="COG", compress="DEFLATE")
    return found
