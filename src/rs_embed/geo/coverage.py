"""The exact shares of cells in polygons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry


def shares_of_cells(
    shapes: NDArray[Any], rows: slice, columns: slice
) -> Iterator[tuple[int, tuple[NDArray[np.int64], NDArray[np.float64]]]]:
    """Yield, for each shape in a block, its cells (counted along rows) and their shares in it."""
    exactextract, rasters = _required("exactextract"), _required("exactextract.raster")
    features = []
    for number, shape in enumerate(shapes):
        area = _northward(shape, rows, columns)
        if area is not None:
            feature = {"properties": {"number": number}, "geometry": area.__geo_interface__}
            features.append({"type": "Feature", **feature})
    if not features:
        return
    cells = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
    raster = rasters.NumPyRasterSource(cells, columns.start, -rows.stop, columns.stop, -rows.start)
    found = exactextract.exact_extract(
        raster, features, ["cell_id", "coverage"], include_cols=["number"]
    )
    for feature in found:
        properties = feature["properties"]
        share = np.asarray(properties["coverage"], dtype=np.float64)
        if share.size:
            cell = np.asarray(properties["cell_id"], dtype=np.int64)
            yield int(properties["number"]), (cell, share)


def _northward(shape: BaseGeometry, rows: slice, columns: slice) -> BaseGeometry | None:
    """Return the part of a shape in a block with y upward; None if its area is 0."""
    shapely = _required("shapely")
    clipped = shapely.clip_by_rect(shape, columns.start, rows.start, columns.stop, rows.stop)
    parts = shapely.get_parts(clipped)
    areas = [part for part in parts if part.geom_type == "Polygon" and part.area > 0]
    if not areas:
        return None
    return shapely.transform(shapely.MultiPolygon(areas), lambda at: at * (1, -1))


def _required(package: str) -> Any:
    return require(package, extra="maps", purpose="the mean of polygons")
