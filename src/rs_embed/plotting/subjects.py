"""What is drawn: maps and grids, or the places of tables; and how both get their colours."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.embedding.comparing import check_made_alike
from rs_embed.embedding.quicklook import title
from rs_embed.embedding.result import Embedding
from rs_embed.errors import SpecError, UnknownNameError, give_warnings
from rs_embed.files.grids import GRIDS
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.orientation import Orientation
from rs_embed.maps.formats.opening import restored
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.sampling import PlacedMap, placed_map, spread_tokens, valid_cells
from rs_embed.plotting.canvas import NODATA, on_the_ground
from rs_embed.tables.export import load_export
from rs_embed.tables.formats import TABLES
from rs_embed.tables.picture import around_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MapSubject:
    """A map or token grid."""

    name: str
    placed: PlacedMap
    meta: dict[str, Any]

    @property
    def grid(self) -> Grid:
        """Grid of the cells."""
        return self.placed.grid

    @property
    def depth(self) -> int:
        """Dimensions of a token."""
        return int(self.placed.array.sizes["d"])

    def tokens(self, most: int) -> NDArray[Any]:
        """Return tokens ``(n, d)``, at most so many, spread over the map."""
        return spread_tokens(self.placed, most)

    def values(self, of: Any, depth: int) -> NDArray[np.float64]:
        """Return ``of(tokens)``, ``(n, d)`` to ``(n, depth)``, of each cell; NaN without token."""
        found = np.full((*self.grid.shape, depth), np.nan)
        for cells, tokens in valid_cells(self.placed):
            found[cells] = of(tokens)
        return found

    def draw(self, ax: Axes, values: NDArray[Any], **how: Any) -> Any:
        """Draw ``(y, x)`` values or ``(y, x, 4)`` colours; return what a colour bar is made of."""
        t, (height, width) = self.grid.transform, self.grid.shape
        extent = (t.c, t.c + t.a * width, t.f + t.e * height, t.f)
        drawn = ax.imshow(values, extent=extent, origin="upper", interpolation="nearest", **how)
        on_the_ground(ax, self.grid, f"{self.name} | {title(self.meta, Orientation.of(self.grid))}")
        return drawn


@dataclass(frozen=True, eq=False)
class TableSubject:
    """The places of a table, by a point in each."""

    name: str
    table: Any

    @property
    def meta(self) -> dict[str, Any]:
        """What all embeddings share."""
        return getattr(self.table, "meta", None) or {}

    @cached_property
    def points(self) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
        """CRS, x and y of each place; longitudes do not jump at 180 degrees."""
        frame = self.table.frame
        if getattr(frame, "crs", None) is None or not frame.geometry.notna().any():
            raise SpecError(
                f"got {self.name} without places (geometry with a CRS), expected a table whose "
                "places are known; only `histogram` draws it"
            )
        crs, points = known_crs(frame.crs.to_wkt()), frame.geometry.representative_point()
        x, y = points.x.to_numpy(), points.y.to_numpy()
        return crs, np.add(*around_first(x)) if crs.is_geographic else x, y

    @property
    def grid(self) -> Grid:
        """A grid around all places, with a margin."""
        crs, x, y = self.points
        west, south, east, north = (f(v) for f in (np.nanmin, np.nanmax) for v in (x, y))
        least = 1e-3 if crs.is_geographic else 100  # one place, or places in one line
        width, height = (max(side * 1.2, least) for side in (east - west, north - south))
        width, height = max(width, height / 4), max(height, width / 4)
        left, top = (west + east - width) / 2, (south + north + height) / 2
        step = max(width, height) / 1000
        shape = max(round(height / step), 1), max(round(width / step), 1)
        return Grid(crs, Affine(step, 0, left, 0, -step, top), shape)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which places have an embedding."""
        known = np.isfinite(self.table.embeddings).all(axis=1)
        return np.asarray(known & (self.depth > 0))  # no dimension: all have failed

    @property
    def depth(self) -> int:
        """Dimensions of an embedding."""
        return int(self.table.embeddings.shape[1])

    def tokens(self, most: int) -> NDArray[Any]:
        """Return embeddings ``(n, d)``, at most so many."""
        rows = np.flatnonzero(self.known)
        return np.asarray(self.table.embeddings[rows[:: max(-(-len(rows) // most), 1)]])

    def values(self, of: Any, depth: int) -> NDArray[np.float64]:
        """Return ``of(embeddings)``, ``(n, d)`` to ``(n, depth)``, of each place; NaN if failed."""
        found = np.full((len(self.known), depth), np.nan)
        if self.known.any():
            found[self.known] = of(np.asarray(self.table.embeddings[self.known]))
        return found

    def draw(self, ax: Axes, values: NDArray[Any], **how: Any) -> Any:
        """Draw ``(N,)`` values or ``(N, 4)`` colours as points, the places without one below."""
        _, x, y = self.points
        shown = np.isfinite(values) if values.ndim == 1 else values[:, 3] > 0
        size = float(np.clip(6000 / max(len(x), 1), 4, 60))
        ax.scatter(x[~shown], y[~shown], size, NODATA, edgecolors="0.4", linewidths=0.5)
        drawn = ax.scatter(
            x[shown], y[shown], size, values[shown], edgecolors="0.2", linewidths=0.3, **how
        )
        ground = " | ".join(str(self.meta[key]) for key in ("model", "weights") if key in self.meta)
        on_the_ground(ax, self.grid, f"{self.name} | {ground}")
        ax.set_facecolor("white")
        return drawn


Subject = MapSubject | TableSubject


def subject(source: Any) -> Subject:
    """Return what a path, an array, an embedding or a table is, opened; refuse anything else."""
    name = ""
    if isinstance(source, str | os.PathLike):
        path = PurePath(source)
        name, suffix = path.name, path.suffix.lower()
        maps = (*MAPS.suffixes, *(s for row in MAPS.rows for s in row.opens))
        if suffix in TABLES.suffixes:
            source = load_export(source)
        elif suffix in GRIDS.suffixes and suffix not in maps:
            source = Embedding.load(source)
        elif suffix not in maps:
            known = dict.fromkeys((*maps, *GRIDS.suffixes, *TABLES.suffixes))
            raise UnknownNameError.among("file type of a map, grid or table", suffix, known)
    if hasattr(source, "embeddings"):
        return TableSubject(name or "table", source)
    if isinstance(source, Embedding):
        if not source.is_grid:
            raise SpecError(
                f"got {name or 'an embedding'}, a pooled vector of shape {source.shape} without a "
                "grid; embed it with output='grid' (--output grid), or plot a table"
            )
        return MapSubject(name or "grid", placed_map(source.data), source.meta)
    placed = placed_map(source)
    if "pca" in placed.array.attrs:  # components of different maps have different bases
        placed = placed_map(restored(placed.array))
    return MapSubject(name or "map", placed, json.loads(placed.array.attrs.get("meta", "{}")))


def subjects(sources: Sequence[Any], *, alike: bool = True) -> list[Subject]:
    """Return all sources opened; refuse them if they cannot be drawn together.

    ``alike`` says whether their tokens are compared, so that they must be of one model, and their
    places drawn, so that they must have one CRS.
    """
    if not sources:
        raise SpecError("got nothing to plot, expected one or more maps, grids or tables")
    found = [subject(source) for source in sources]
    first = found[0]
    for other in found[1:] if alike else ():
        if other.grid.crs != first.grid.crs:
            raise SpecError(
                f"got {other.name} in {_code(other)} and {first.name} in {_code(first)}, expected "
                "one CRS; plot them apart, or embed both on one"
            )
        give_warnings(check_made_alike(other.meta, first.meta, names=(other.name, first.name)))
        if other.depth != first.depth:
            raise SpecError(
                f"got tokens of {other.depth} dimensions in {other.name}, expected {first.depth} "
                f"as in {first.name}; plot them apart"
            )
    return found


def _code(one: Subject) -> str:
    crs: Any = one.grid.crs
    return ":".join(crs.to_authority() or (crs.name,))
