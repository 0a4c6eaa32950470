"""What a run has done: places or windows that are embedded, failed, without data, or left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed.addresses import path_of
from rs_embed.errors import ExportError, SpecError
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.tiling import tiles_of
from rs_embed.maps.finished_windows import LAYOUT, window_key
from rs_embed.plotting.canvas import NODATA, canvas, legend, on_the_ground
from rs_embed.plotting.kinds import in_colours
from rs_embed.plotting.subjects import MapSubject, TableSubject, subject
from rs_embed.runs.journal import SHARED, Journal
from rs_embed.runs.run import kept_in
from rs_embed.tables.batch import place_of_key
from rs_embed.tables.picture import meta_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_LEFT = 3
# Of Okabe and Ito, Color Universal Design (2008), https://jfly.uni-koeln.de/color/
_COLOURS = ("#009e73", "#f0e442", "#d55e00")
_PLACES = ("embedded", "embedded, a part is nodata", "failed")
_WINDOWS = ("embedded", "nodata", "failed")


def coverage(source: Any, *, ax: Axes | None = None) -> Figure:
    """Return a map of what a run has done, and what failed.

    Parameters
    ----------
    source : path, xarray.DataArray or EmbeddingTable
        A table, by its places; a map, by its cells; or the ``.partial`` of an unfinished table or
        map, by its places or windows.
    ax : matplotlib.axes.Axes, optional
        Where it is drawn.

    Raises
    ------
    SpecError
        If places or windows have no place on the ground.
    ExportError
        If the file cannot be read, or a run is using it.
    """
    if isinstance(source, str | os.PathLike) and Path(source).suffix == ".partial":
        partial = path_of(source)
        if not partial.is_file():
            raise ExportError(f"cannot read {partial}: no such file; check the path")
        if Path(partial.stem).suffix in (".zarr", ".tif", ".tiff"):
            return _of_windows(partial, ax)
        return _drawn(ax, _kept_places(partial), _PLACES)
    one = subject(source)
    if isinstance(one, MapSubject):
        known = one.values(lambda rows: np.zeros((len(rows), 1)), 1)[..., 0]
        codes = np.where(np.isnan(known), 1, 0).astype(np.uint8)
        failed = (one.meta.get("tiles") or {}).get("failed") or 0
        names = _WINDOWS[0], f"nodata{f' ({failed} windows failed)' if failed else ''}", _WINDOWS[2]
        return _drawn(ax, (one, codes, 0), names)
    metas = [meta_of(one.table, row) if ok else {} for row, ok in enumerate(one.known)]
    part = [meta.get("valid_fraction", 1) < 1 for meta in metas]
    codes = np.where(one.known, np.array(part, int), 2).astype(np.uint8)
    return _drawn(ax, (one, codes, getattr(one.table, "missing", 0)), _PLACES)


def _drawn(ax: Axes | None, found: tuple[Any, Any, int | None], names: Any) -> Figure:
    """Draw the states of places or cells; ``None`` are left if their number is not known."""
    one, codes, left = found
    figure, (own,) = canvas(ax, 1, shape=one.grid.shape)
    one.draw(own, in_colours(codes, _COLOURS))
    _legend(own, codes, names, left)
    return figure


def _legend(ax: Axes, codes: NDArray[np.uint8], names: Any, left: int | None) -> None:
    counts = np.bincount(codes.ravel(), minlength=len(names))
    entries: list[tuple[Any, str]] = [
        (colour, f"{name}: {count}")
        for colour, name, count in zip(_COLOURS, names, counts, strict=False)
        if count
    ]
    if left != 0:
        entries.append((NODATA, "left: " + ("number unknown" if left is None else str(left))))
    legend(ax, entries)


def _kept_places(partial: Path) -> tuple[TableSubject, NDArray[np.uint8], int | None]:
    """Return the places that an unfinished table has reached, and their states."""
    from types import SimpleNamespace

    import geopandas

    shared, kept = kept_in(partial)
    try:
        places = [place_of_key(result.key)[1] for result in kept]
    except (LookupError, TypeError, ValueError) as exc:
        raise ExportError(f"{partial} is not that of a table of places ({exc})") from exc
    located = [(p.centre, r) for p, r in zip(places, kept, strict=True) if p is not None]
    if not located:
        raise SpecError(f"got {partial.name} without a place on the ground, so it cannot be drawn")
    x, y = np.transpose([centre for centre, _ in located])
    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(x, y), crs=4326)
    table = SimpleNamespace(frame=frame, embeddings=np.ones((len(located), 1)), meta={})
    codes = [
        2 if result.vector is None else int((result.meta or {}).get("valid_fraction", 1) < 1)
        for _, result in located
    ]
    total = shared.get("places")
    left = None if total is None else max(total - len(kept), 0)
    return TableSubject(partial.name, table), np.array(codes, np.uint8), left


def _of_windows(partial: Path, ax: Axes | None) -> Figure:
    """Draw the windows of an unfinished map, each where its own tokens are."""
    with Journal(partial, None) as journal:
        failed, done = journal.failed(), journal.done() - {SHARED}
        shared = dict(journal.metas([SHARED])).get(SHARED, {})
        nodata = {key for key, meta in journal.metas(done) if "seen_sha256" not in meta}
    if LAYOUT not in shared:
        raise ExportError(
            f"{partial} does not state where its windows are: none has a token yet, or an earlier "
            "version made them; run the command again"
        )
    layout = shared[LAYOUT]
    patch = layout["patch_size"]
    stated = layout["lattice"]
    pixels = Grid(known_crs(stated["crs"]), Affine(*stated["transform"]), tuple(stated["shape"]))
    grid = pixels.patch_grid(patch)
    codes = np.full(grid.shape, _LEFT, np.uint8)
    states = [*((key, 0) for key in done - nodata), *((key, 1) for key in nodata)]
    state = {**dict(states), **dict.fromkeys(failed, 2)}
    sizes = {key: layout[key] for key in ("tile_size", "overlap_px", "patch_size")}
    for tile in tiles_of(pixels.shape, **sizes):
        codes[tile.own] = state.get(window_key(tile), _LEFT)
    figure, (own,) = canvas(ax, 1, shape=grid.shape)
    left, bottom, right, top = grid.bounds
    own.imshow(in_colours(codes, _COLOURS), extent=(left, right, bottom, top))
    on_the_ground(own, grid, f"{partial.name} | windows")
    per_window = np.array([*state.values()], np.uint8)
    _legend(own, per_window, _WINDOWS, layout["windows"] - len(state))
    return figure
