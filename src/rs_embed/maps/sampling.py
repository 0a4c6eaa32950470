"""Read from embedding maps: the tokens at points, and the mean token of each polygon."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed._optional import require
from rs_embed.errors import CoverageWarning, Note, SpecError, give_warnings, some
from rs_embed.files.arrays import declared_nodata
from rs_embed.files.grids import cell_axis
from rs_embed.files.polygons import read_polygons
from rs_embed.geo.coverage import shares_of_cells
from rs_embed.geo.grid import (
    LATTICE_TOLERANCE,
    MAX_LONGITUDE,
    Grid,
    ground_crs,
    known_crs,
    transformer,
)
from rs_embed.geo.polygons import Polygons
from rs_embed.geo.raster import valid_mask

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike, NDArray
    from pyproj import Transformer

# Tokens that are held at once while zones are summed up.
_BLOCK_BYTES = 128 * 1024**2


def sample_points(
    source: str | os.PathLike[str] | xr.DataArray,
    points: ArrayLike,
    *,
    crs: str = "EPSG:4326",
) -> xr.DataArray:
    """Return the tokens of a map at points: the token of the cell that holds each point.

    Nothing is interpolated. Of a lazy map only the chunks with points are read.

    Parameters
    ----------
    source : path or xarray.DataArray
        A map that :func:`rs_embed.open_map` opens, or such an array: ``(d, y, x)``, with CRS.
    points : array-like
        ``(N, 2)``: x and y, so longitude first (-180..180 or 0..360), degrees or units of
        ``crs``. A `CoverageWarning` counts points outside the map.
    crs : str
        CRS of the points, geographic or projected; heights of a compound CRS are ignored.

    Returns
    -------
    xarray.DataArray
        ``(point, d)`` float32 in the order of the points. NaN in all ``d`` where a point is
        outside the map or in a cell without token. Coordinates: ``lon`` and ``lat`` as given if
        ``crs`` is geographic, else ``x`` and ``y`` in the CRS of the map; ``row`` and ``column`` of
        the cell in the map, -1 outside. A cell includes its edges to the first row and column (top
        and left where north is up), not the others. ``attrs["meta"]`` is that of the map.

    Raises
    ------
    SpecError
        If the points or the map are invalid.
    GridError
        If the CRS is unknown, or neither geographic nor projected.

    Examples
    --------
    >>> import numpy as np
    >>> import rioxarray, xarray
    >>> from rs_embed.maps.sampling import sample_points
    >>> tokens = xarray.DataArray(
    ...     np.arange(8, dtype="float32").reshape(2, 2, 2), dims=("d", "y", "x"),
    ...     coords={"y": [5000240.0, 5000080.0], "x": [500080.0, 500240.0]},
    ... ).rio.write_crs("EPSG:32633")
    >>> sample_points(tokens, [(500100, 5000100), (500200, 5000300)], crs="EPSG:32633").values
    array([[2., 6.],
           [1., 5.]], dtype=float32)
    """
    import xarray as xr

    placed = placed_map(source)
    stated = ground_crs(crs)
    given = _positions(points, in_degrees=stated.is_geographic)
    to_map = transformer(stated, known_crs(placed.grid.crs))
    at = given - 360 * np.round(given / 360) if stated.is_geographic else given
    x, y = _in_map(at, to_map)
    row, column = _cells(x, y, placed.grid)
    inside = row >= 0
    if not inside.all():
        swapped, _ = _cells(*_in_map(at[~inside, ::-1], to_map), placed.grid)
        give_warnings([_outside(inside, swapped >= 0, in_degrees=stated.is_geographic)])
    width = placed.grid.shape[1]
    flat, back = np.unique(row[inside] * width + column[inside], return_inverse=True)
    values = np.full((len(given), placed.array.sizes["d"]), np.nan, dtype=np.float32)
    if flat.size:
        picked = placed.array.isel(
            y=xr.DataArray(flat // width, dims="point"), x=xr.DataArray(flat % width, dims="point")
        )
        tokens = picked.transpose("d", "point").values
        valid = _valid(tokens, placed)
        values[inside] = np.where(valid, tokens, np.nan).T.astype(np.float32)[back]
    if stated.is_geographic:
        place = {"lon": ("point", given[:, 0]), "lat": ("point", given[:, 1])}
    else:
        place = {"x": ("point", x), "y": ("point", y)}
    coords = place | {"row": ("point", row), "column": ("point", column)}
    return xr.DataArray(
        values,
        dims=("point", "d"),
        coords=coords | placed.dimension,
        name="embedding",
        attrs=placed.making,
    )


def zonal_mean(
    source: str | os.PathLike[str] | xr.DataArray, polygons: Any, *, layer: str | None = None
) -> xr.DataArray:
    """Return the mean token of each polygon, each cell weighted by its share in the polygon.

    The map is read block by block, and only where there are polygons.

    Parameters
    ----------
    source : path or xarray.DataArray
        A map that :func:`rs_embed.open_map` opens, or such an array: ``(d, y, x)``, with CRS.
    polygons : path, mapping, geometry, list of these two, or Polygons
        What `rs_embed.files.polygons.read_polygons` reads, in any CRS; each feature is a zone.
        Zones may overlap. A `CoverageWarning` names zones without a token.
    layer : str, optional
        Layer of a file of polygons that has several.

    Returns
    -------
    xarray.DataArray
        ``(zone, d)`` float32 in the order of the features. Cells without a token have no weight.
        NaN in all ``d`` for a zone without a token. Coordinates: ``id`` of the feature, integers
        if the source has integers;
        ``coverage``, the share of the polygon's area that is on cells with a token, 0 to 1.

    Raises
    ------
    SpecError
        If a polygon or the map is invalid.
    GridError
        If a polygon is outside the area of the map's CRS.
    MissingDependencyError
        If exactextract or shapely is not installed.

    Notes
    -----
    The shares are areas in the CRS of the map, computed by `exactextract`.
    """
    import xarray as xr

    shapely = _required("shapely")
    zones = read_polygons(polygons, layer=layer)
    placed = placed_map(source)
    shapes = np.array(zones.in_cells(placed.grid), dtype=object)
    sums = np.zeros((len(shapes), placed.array.sizes["d"]))
    weights = np.zeros(len(shapes))
    tree = shapely.STRtree(shapes)
    for rows, columns in blocks(placed):
        block = shapely.box(columns.start, rows.start, columns.stop, rows.stop)
        near = np.sort(tree.query(block))
        shares = dict(shares_of_cells(shapes[near], rows, columns))
        if not shares:
            continue
        held = np.unique(np.concatenate([cells for cells, _ in shares.values()]))
        tokens, valid = _tokens(placed, rows, columns, held)
        for number, (cells, share) in shares.items():
            at = np.searchsorted(held, cells)
            at, share = at[valid[at]], share[valid[at]]
            sums[near[number]] += tokens[:, at].astype(np.float64) @ share
            weights[near[number]] += share.sum()
    empty = weights == 0
    if empty.any():
        give_warnings([_without_tokens(zones, shapes, empty, placed.grid)])
    means = sums / np.where(empty, np.nan, weights)[:, None]
    coverage = np.minimum(weights / shapely.area(shapes), 1.0)
    coords = {"id": ("zone", zones.typed_ids()), "coverage": ("zone", coverage)}
    return xr.DataArray(
        means.astype(np.float32),
        dims=("zone", "d"),
        coords=coords | placed.dimension,
        name="embedding",
        attrs=placed.making,
    )


def _required(package: str) -> Any:
    return require(package, extra="maps", purpose="the mean of polygons")


def _in_map(
    points: NDArray[np.float64], to_map: Transformer
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of ``(N, 2)`` points in the CRS of the map; infinite outside its area."""
    x, y = to_map.transform(points[:, 0], points[:, 1])
    return np.asarray(x), np.asarray(y)


def _outside(inside: NDArray[np.bool_], swapped: NDArray[np.bool_], *, in_degrees: bool) -> Note:
    """Return the warning of points outside; ``swapped``: which of these are inside if swapped."""
    count = len(inside)
    message = (
        f"{np.count_nonzero(~inside)} of {count} points are outside the map, so their tokens are "
        "NaN"
    )
    if swapped.any():
        first, then = ("longitude", "latitude") if in_degrees else ("x", "y")
        message += (
            f"; with {first} and {then} swapped {np.count_nonzero(swapped)} of them would be "
            f"inside: put {first} first, then {then}"
        )
    return Note(message, CoverageWarning)


def _without_tokens(
    zones: Polygons, shapes: NDArray[Any], empty: NDArray[np.bool_], grid: Grid
) -> Note:
    """Return the warning of zones without a token: where they are, and their ids."""
    shapely = _required("shapely")
    height, width = grid.shape
    outside = shapely.area(shapely.clip_by_rect(shapes, 0, 0, width, height)) == 0
    parts, hint = [], ""
    for chosen, where in ((outside, "outside the map"), (empty & ~outside, "on cells without one")):
        ids = list(compress(zones.ids, chosen))
        if ids:
            parts.append(f"{len(ids)} {where} (ids {some(ids, 5)})")
    if outside.any():
        geometries = tuple(compress(zones.geometries, outside))
        lost = Polygons(geometries, tuple(compress(zones.ids, outside)), zones.crs, zones.name)
        hint = lost.order_hint(grid)
    message = (
        f"{np.count_nonzero(empty)} of {len(shapes)} zones hold no token, so their means are NaN: "
        f"{' and '.join(parts)}{hint}"
    )
    return Note(message, CoverageWarning)


@dataclass(frozen=True, eq=False)
class PlacedMap:
    """A map as ``(d, y, x)``, its grid, and the value of cells without token besides NaN."""

    array: xr.DataArray
    grid: Grid
    nodata: float | None

    @property
    def making(self) -> dict[str, Any]:
        """What the attributes of the map say of how its tokens were made."""
        return {key: self.array.attrs[key] for key in ("meta", "pca") if key in self.array.attrs}

    @property
    def dimension(self) -> dict[str, Any]:
        """The coordinate along ``d``, if the map has one."""
        return {"d": ("d", self.array["d"].values)} if "d" in self.array.coords else {}


def placed_map(source: Any) -> PlacedMap:
    """Return a map with the grid of its coordinates, also if it was cut from a larger one."""
    import rioxarray  # noqa: F401  # registers the accessor ``.rio``
    import xarray as xr

    from rs_embed.maps.formats.opening import open_map
    from rs_embed.maps.formats.steps import applied

    array = open_map(source) if isinstance(source, str | os.PathLike) else source
    if not isinstance(array, xr.DataArray):
        raise SpecError(
            f"got a map of type {type(array).__name__}, expected a path or an xarray.DataArray "
            "with the dimensions d, y and x"
        )
    array = applied(array)
    if array.rio.crs is None:
        raise SpecError(
            "got a map without CRS, expected a georeferenced one; set it with "
            "array.rio.write_crs('EPSG:...')"
        )
    (left, step_x), (top, step_y) = cell_axis(array, "x"), cell_axis(array, "y")
    grid = Grid(
        known_crs(array.rio.crs.to_wkt()),
        Affine(step_x, 0, left, 0, step_y, top),
        (array.sizes["y"], array.sizes["x"]),
    )
    if known_crs(grid.crs).is_geographic and grid.bounds[2] > 180 + LATTICE_TOLERANCE:
        raise SpecError(
            f"got a map with longitudes up to {grid.bounds[2]:g}, expected -180..180; convert it: "
            "array.assign_coords(x=(array.x + 180) % 360 - 180).sortby('x')"
        )
    return PlacedMap(array.transpose("d", "y", "x"), grid, declared_nodata(array))


def _positions(points: ArrayLike, *, in_degrees: bool) -> NDArray[np.float64]:
    """Return points as ``(N, 2)``; refuse invalid ones."""
    expected = "expected (N, 2): x and y, or longitude and latitude, of each point"
    columns = [str(name).casefold() for name in getattr(points, "columns", ())]
    if columns and columns[0] in ("lat", "latitude", "y"):
        raise SpecError(f"got points with the columns {', '.join(columns)}, {expected}, in order")
    try:
        given = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise SpecError(f"got points that are not an array of numbers ({exc}), {expected}") from exc
    if not given.size:
        return np.empty((0, 2))
    if given.ndim != 2 or given.shape[1] != 2:
        raise SpecError(f"got points of shape {given.shape}, {expected}")
    finite = np.isfinite(given).all(axis=1)
    if not finite.all():
        number = int(np.argmin(finite))
        raise SpecError(f"got point {number} {given[number].tolist()}, expected finite numbers")
    if in_degrees:
        most = np.array([MAX_LONGITUDE, 90.0]) + LATTICE_TOLERANCE
        beyond = (np.abs(given) > most).any(axis=1)
        if beyond.any():
            number = int(np.argmax(beyond))
            raise SpecError(
                f"got point {number} {given[number].tolist()}, expected longitude in "
                "-180..180 or 0..360, then latitude in -90..90; if these are metres, state their "
                "crs="
            )
    return given


def _cells(
    x: NDArray[np.float64], y: NDArray[np.float64], grid: Grid
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the cell of each position, -1 for both outside the grid."""
    somewhere = np.isfinite(x) & np.isfinite(y)
    at = np.stack(
        ~grid.transform @ (np.where(somewhere, x, 0.0), np.where(somewhere, y, 0.0)), axis=1
    )
    lines = np.round(at)
    cell = np.where(np.abs(at - lines) <= LATTICE_TOLERANCE, lines, np.floor(at))
    inside = somewhere & ((cell >= 0) & (cell < grid.shape[::-1])).all(axis=1)
    column, row = np.where(inside[:, None], cell, -1).astype(np.int64).T
    return row, column


def blocks(placed: PlacedMap) -> Iterator[tuple[slice, slice]]:
    """Yield windows of bounded size that cover the map: whole chunks if it is lazy."""
    height, width = placed.grid.shape
    cells = max(1, _BLOCK_BYTES // (4 * placed.array.sizes["d"]))
    side, chunks = math.isqrt(cells), placed.array.chunks
    rows, columns = (side, side) if chunks is None else (chunks[1][0], chunks[2][0])
    if rows * columns > 4 * cells:
        rows = columns = side
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            yield slice(top, bottom), slice(left, right)


def valid_cells(placed: PlacedMap) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Yield the cells with a token, rows and columns, and their tokens ``(n, d)``, by blocks."""
    for rows, columns in blocks(placed):
        values = placed.array.isel(y=rows, x=columns).values
        row, column = np.nonzero(valid_mask(values, placed.nodata))
        yield (row + rows.start, column + columns.start), values[:, row, column].T


def spread_tokens(placed: PlacedMap, most: int) -> NDArray[Any]:
    """Return tokens ``(n, d)``: all, or every second, third, ... so that they are at most so many.

    A map of more cells is read twice, block by block.
    """
    count = math.prod(placed.grid.shape)
    if count > most:
        count = sum(len(tokens) for _, tokens in valid_cells(placed))
    step, seen, parts = max(-(-count // most), 1), 0, []
    for _, tokens in valid_cells(placed):
        parts.append(tokens[-seen % step :: step])
        seen += len(tokens)
    return np.concatenate(parts)


def _tokens(
    placed: PlacedMap, rows: slice, columns: slice, held: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return ``(d, n)`` tokens of the n cells of a block, and which of them are valid."""
    row, column = np.divmod(held, columns.stop - columns.start)
    top, left = int(row.min()), int(column.min())
    part = placed.array.isel(
        y=slice(rows.start + top, rows.start + int(row.max()) + 1),
        x=slice(columns.start + left, columns.start + int(column.max()) + 1),
    ).values
    tokens = part[:, row - top, column - left]
    return tokens, _valid(tokens, placed)


def _valid(tokens: NDArray[Any], placed: PlacedMap) -> NDArray[np.bool_]:
    """Return which of ``(d, n)`` tokens are valid."""
    return valid_mask(tokens[:, None], placed.nodata).reshape(-1)
