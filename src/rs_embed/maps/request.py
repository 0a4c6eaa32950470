"""The request for a map, checked before any pixel is read: place, windows, encoding."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from rs_embed._version import __version__
from rs_embed.embedding.arguments import fetch_of, time_stated
from rs_embed.embedding.checks import check_side
from rs_embed.embedding.identity import identity
from rs_embed.embedding.kept import KeptModel
from rs_embed.embedding.place_arguments import is_position, one_place
from rs_embed.embedding.source import Acquired, Source
from rs_embed.embedding.task import Task, settle
from rs_embed.errors import (
    CoverageWarning,
    GridError,
    ImageryError,
    Note,
    SpecError,
    TemporalWarning,
    UnknownNameError,
)
from rs_embed.files.identity import imagery_identity
from rs_embed.files.imagery import imagery_date, imagery_grid
from rs_embed.files.polygons import read_polygons
from rs_embed.geo.grid import (
    Grid,
    bounds_window,
    known_crs,
    metric_crs,
    projected_crs,
    roi_grid,
    roi_window,
)
from rs_embed.geo.polygons import Polygons
from rs_embed.geo.tiling import whole_patches
from rs_embed.geo.windows import common_window, elsewhere, overlap
from rs_embed.maps.blending import SEAMS, Seams
from rs_embed.maps.formats.encoding import MapEncoding
from rs_embed.maps.harmonising import DEFAULT_SCREEN
from rs_embed.maps.layout import Layout, layout_of
from rs_embed.runs.journal import MAX_VECTOR_BYTES
from rs_embed.settings import (
    EE_ENDPOINT,
    SCALEMAE_ID,
    SCALEMAE_IMG,
    STAC,
    Settings,
    stated_variables,
)
from rs_embed.specs import (
    BBox,
    InputPrepSpec,
    OutputSpec,
    PointBuffer,
    check_positive,
    to_json,
    whole,
)

if TYPE_CHECKING:
    from rs_embed.models.base import InputContract

# Arguments of `embed_area` that do not reach `settle_area`, beside its output.
_OF_THE_RUN = ("workers", "engine", "ray_address")
NO_ITEM = (
    "no STAC Item will be written beside the map, since the time of the imagery is not known; "
    "state it with acquired='YYYY-MM-DD' (--acquired), now or when the map is finished"
)
DEFAULT_OVERLAP = 0.25
# A share of the area that may be outside the imagery without a warning.
_NEGLIGIBLE = 0.01
_FROM_ENVIRONMENT = (SCALEMAE_ID.name, SCALEMAE_IMG.name, EE_ENDPOINT.name, STAC.name)


@dataclass(frozen=True, eq=False)
class AreaTask:
    """A map, settled: nothing is read or loaded yet.

    Attributes
    ----------
    task : Task
        Model and options.
    source : Source
        Which pixels, without a window.
    layout : Layout
        Token grid and windows.
    seams : {"blend", "harmonise", "discard"}
        What becomes of tokens where windows overlap.
    screen : float or None
        See `rs_embed.maps.harmonising`; None unless the map is harmonised.
    encoding : MapEncoding
        How tokens are stored.
    identity : dict
        Everything that determines the tokens, as JSON values; not how they are stored.
    stated : dict
        The request as it was stated, as JSON values, for the meta of the map.
    settings : Settings
        What the environment states.
    notes : tuple of Note
        Warnings to give.
    acquired : datetime or None
        Time of own imagery, or of a provider without dates, for the STAC Item.
    """

    task: Task
    source: Source
    layout: Layout
    seams: Seams
    screen: float | None
    encoding: MapEncoding
    identity: dict[str, Any]
    stated: dict[str, Any]
    settings: Settings
    notes: tuple[Note, ...]
    acquired: datetime | None = None

    @property
    def storage(self) -> dict[str, Any]:
        """How tokens are stored, as JSON values."""
        acquired = None if self.acquired is None else self.acquired.isoformat()
        return {"dtype": self.encoding.dtype, "pca": self.encoding.pca, "acquired": acquired}

    def check_tokens(self, dimensions: int) -> None:
        """Raise `SpecError` if tokens of so many dimensions cannot be kept or encoded."""
        self.encoding.check_tokens(dimensions)
        size = self.layout.tokens_per_window * dimensions * 4
        if size > MAX_VECTOR_BYTES:
            raise SpecError(
                f"got windows of {size / 1e9:.2f} GB of tokens each, expected at most "
                f"{MAX_VECTOR_BYTES / 1e9:.2f} GB; use a smaller tile_size or a larger stride_px"
            )

    def read(self, window: Grid) -> Acquired:
        """Return the pixels on a grid of the lattice; runs in any thread."""
        source = replace(self.source, window=window)
        return source.acquire(self.task.description.inputs, lambda grid: grid)


def settle_area(
    model: str | KeptModel,
    *,
    spatial: Any = None,
    buffer_m: float | None = None,
    layer: str | None = None,
    imagery: Any = None,
    tile_size: int | None = None,
    overlap_px: int | None = None,
    seams: Seams | None = None,
    screen: float | None = None,
    stride_px: int | None = None,
    dtype: Any = "float32",
    pca: int | None = None,
    acquired: str | date | None = None,
    device: str = "auto",
    temporal: Any = None,
    sensor: Any = None,
    fetch: Any = None,
    scale_m: float | None = None,
    backend: Any = "auto",
    cache: Any = None,
    **options: Any,
) -> AreaTask:
    """Return the requested map; parameters and errors are the same as for ``embed_area``."""
    if seams is not None and seams not in SEAMS:
        raise UnknownNameError.among("seams", seams, SEAMS)
    if screen is not None:
        check_positive("screen", screen, "shares of a window")
        if seams not in (None, "harmonise"):
            raise SpecError(f"got screen={screen!r} with seams={seams!r}, expected 'harmonise'")
    tile_size = None if tile_size is None else whole("tile_size", tile_size, 1)
    stride_px = None if stride_px is None else whole("stride_px", stride_px, 1)
    overlap_px = None if overlap_px is None else whole("overlap_px", overlap_px, 0)
    encoding = MapEncoding(dtype, pca)
    settings = Settings.from_environ()
    task = settle(
        model,
        output=OutputSpec.grid(),
        input_prep=InputPrepSpec.tile(tile_size),
        min_valid=0,
        device=device,
        options=options,
        settings=settings,
        arguments={
            *inspect.signature(settle_area).parameters,
            "output",
            "overwrite",
            "progress",
            *_OF_THE_RUN,
        },
    )
    pixels = Source(
        temporal=temporal,
        sensor=sensor,
        fetch=fetch_of(fetch, scale_m),
        backend=backend,
        imagery=imagery,
        cache=cache,
    )
    source, polygons = _source(spatial, buffer_m, layer, pixels, settings)
    dated = source.provider is not None and source.provider.dated
    when, doubt = _time(_moment(acquired, dated=dated), source.imagery)
    source.check_source(task.description.inputs)
    # Weights that must be downloaded to know their sizes are.
    sizes = task.sizes() if task.plan.sizes_known else task.plan.load()
    patch = sizes.patch_size
    requested, within, cut = _pixels(source, polygons, task.description.inputs)
    if tile_size is None:
        tile_size = sizes.image_size
        # Windows of the weights' own size, but none that would see beyond the area.
        larger: int | None = getattr(task.plan, "map_tile_size", None)
        if larger is not None and min(requested.shape) >= larger:
            tile_size = larger
    default_overlap = whole_patches(round(tile_size * DEFAULT_OVERLAP), patch) * patch
    layout = layout_of(
        requested,
        within=within,
        tile_size=tile_size,
        overlap_px=default_overlap if overlap_px is None else overlap_px,
        patch_size=patch,
        stride_px=patch if stride_px is None else stride_px,
    )
    if polygons is not None:
        wanted = polygons.to_crs(known_crs(layout.area.crs)).touched(layout.tokens)
        layout = replace(layout, wanted=wanted)
        if not layout.tiles:
            raise elsewhere(layout.area, within or layout.area)
    alone = layout.overlap_px == 0 and len(layout.tiles) > 1  # without overlap
    if seams is None:
        seams = "blend" if alone and screen is None else "harmonise"
    if seams == "harmonise":
        screen = DEFAULT_SCREEN if screen is None else float(screen)
        if alone:
            raise SpecError(
                "got overlap_px=0 with seams='harmonise', expected windows that overlap: without "
                "there is nothing to compare; leave overlap_px out, or use seams='blend'"
            )
    if encoding.pca is not None and encoding.pca > layout.wanted.sum():
        raise SpecError(
            f"got pca={encoding.pca} for a map of {layout.wanted.sum()} tokens, expected at most "
            "as many components as tokens; use a smaller pca=, or none"
        )
    lattice = {
        "tile_size": layout.tile_size,
        "overlap_px": layout.overlap_px,
        "stride_px": layout.stride_px,
        "seams": seams,
        "screen": screen,
        "area": _area_text(layout, polygons),
    }
    stated = {name: getattr(source, name) for name in ("temporal", "sensor", "fetch")}
    stated |= task.stated
    notes = (*cut, *doubt, *task.notes, *_notes(layout, within, has_time=dated or when is not None))
    return AreaTask(
        task=task,
        source=replace(source, spatial=None),  # pixels are read window by window
        layout=layout,
        seams=seams,
        screen=screen,
        encoding=encoding,
        identity=identity(task, source, **lattice),
        stated={**_stated(task, source, stated), **lattice},
        settings=settings,
        notes=notes,
        acquired=when,
    )


def _source(
    spatial: Any, buffer_m: float | None, layer: str | None, common: Source, settings: Settings
) -> tuple[Source, Polygons | None]:
    """Return the source, resolved, and the polygons if the area is made of some."""
    if buffer_m is not None or is_position(spatial):
        spatial, _ = one_place(spatial, buffer_m)
    if spatial is None or isinstance(spatial, BBox | PointBuffer):
        if layer is not None:
            raise SpecError(f"got layer={layer!r} without a file of polygons as spatial")
        return replace(common, spatial=spatial).resolved(settings), None
    polygons = read_polygons(spatial, layer=layer)
    # Any place: whether the rest of the request is valid does not depend on it.
    resolved = replace(common, spatial=BBox(0, 0, 1, 1)).resolved(settings)
    return replace(resolved, spatial=None), polygons


def _stated(task: Task, source: Source, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as it was stated, as JSON values."""
    provider = source.provider
    pixels = (
        {"imagery": imagery_identity(source.imagery)}
        if provider is None
        else {"backend": {"name": provider.name, "identity": provider.identity()}}
    )
    return {
        "version": __version__,
        "model": task.description.id,
        "environment": {k: v for k, v in stated_variables().items() if k in _FROM_ENVIRONMENT},
        **{name: _as_json(value) for name, value in stated.items() if value is not None},
        **pixels,
    }


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _moment(acquired: object, *, dated: bool) -> datetime | None:
    """Return the time of imagery without dates, in UTC."""
    if acquired is None:
        return None
    if dated:
        raise SpecError(
            f"got acquired={acquired!r} for a provider that knows the time of its imagery; leave "
            "it out"
        )
    return time_stated("acquired", acquired)


def _time(stated: datetime | None, imagery: Any) -> tuple[datetime | None, tuple[Note, ...]]:
    """Return the time of the map: as stated, else that of the imagery."""
    if imagery is None:
        return stated, ()
    found, _ = imagery_date(imagery)
    if stated is None or found is None or stated.date() == found.date():
        return stated or found, ()
    message = (
        f"acquired={stated.date()} was taken as stated, but the imagery says {found.date()}; leave "
        "it out if the imagery is right"
    )
    return stated, (Note(message, TemporalWarning),)


def _area_text(layout: Layout, polygons: Polygons | None) -> str:
    """Return the requested area: its cells, and a digest of them and of the polygons."""
    rows, columns = layout.tokens.shape
    transform = tuple(layout.tokens.transform)[:6]
    crs = known_crs(layout.tokens.crs).to_string()
    digest = hashlib.sha256(repr((crs, transform)).encode())
    digest.update(layout.wanted.tobytes())
    digest.update(b"" if polygons is None else polygons.identity().encode())
    left, top = transform[2], transform[5]
    return (
        f"{rows} x {columns} cells from {left:.10g}, {top:.10g} in {crs:.20}, "
        f"SHA-256 {digest.hexdigest()[:32]}"
    )


def _pixels(
    source: Source, polygons: Polygons | None, contract: InputContract
) -> tuple[Grid, Grid | None, tuple[Note, ...]]:
    """Return the requested pixels, all pixels of own imagery, and warnings."""
    imagery: Grid | None = None
    cut: tuple[Note, ...] = ()
    if source.own_pixels:
        imagery = imagery_grid(source.imagery, source.settled_sensor(contract).bands)
        requested, cut = _pixels_of_imagery(imagery, source.spatial, polygons)
        source.check_gsd(requested, contract)
    else:
        requested = _pixels_of_provider(source, polygons, contract)
    if imagery is None:
        check_side(requested, "the area is", abs(requested.transform.a))
    else:
        check_side(imagery, "got imagery of")
    return requested, imagery, cut


def _pixels_of_imagery(
    imagery: Grid, place: BBox | PointBuffer | None, polygons: Polygons | None
) -> tuple[Grid, tuple[Note, ...]]:
    """Return the pixels of the imagery that an area covers; all of them where none is given."""
    if polygons is not None:
        try:
            bounds = polygons.to_crs(known_crs(imagery.crs)).bounds
        except GridError as exc:
            raise GridError(f"{exc}{polygons.order_hint(imagery)}") from exc
        if not polygons.meets(imagery):
            west, south, east, north = imagery.geographic_bounds()
            raise ImageryError(
                f"{polygons.name} is outside the imagery, which covers lon {west:.4f} to "
                f"{east:.4f}, lat {south:.4f} to {north:.4f}{polygons.order_hint(imagery)}"
            )
        requested = bounds_window(imagery, bounds)
    elif place is not None:
        requested = roi_window(imagery, place, most_px=math.inf)
    else:
        return imagery, ()
    rows, columns = overlap(requested, imagery)
    shape = rows.stop - rows.start, columns.stop - columns.start
    share = math.prod(shape) / math.prod(requested.shape)
    cut = Note(
        f"the imagery ends within the area: {1 - share:.0%} of the rectangle around it are not in "
        "the map",
        CoverageWarning,
    )
    part = imagery.window(rows.start, columns.start, *shape)
    return part, (cut,) if share < 1 - _NEGLIGIBLE else ()


def _pixels_of_provider(source: Source, polygons: Polygons | None, contract: InputContract) -> Grid:
    """Return the pixels that an area covers, edges on multiples of their size."""
    sensor = source.settled_sensor(contract)
    scale_m = sensor.scale_m
    if scale_m is None:
        raise SpecError("got no scale_m, expected the metres of a pixel")
    if polygons is None:
        if source.spatial is None:
            raise SpecError("got no spatial, expected an area: a box, a buffer or polygons")
        return roi_grid(source.spatial, scale_m, sensor.crs, most_px=math.inf)
    if sensor.crs is None:
        west, south, east, north = polygons.geographic_bounds()
        east += 360 if east < west else 0  # across the antimeridian
        lon = (west + east) / 2
        crs = metric_crs(lon - 360 if lon > 180 else lon, (south + north) / 2)
    else:
        crs = projected_crs(sensor.crs)
    lattice = Grid(crs, Affine(scale_m, 0, 0, 0, -scale_m, 0), (1, 1))
    return bounds_window(lattice, polygons.to_crs(crs).bounds)


def _notes(layout: Layout, within: Grid | None, *, has_time: bool) -> Iterator[Note]:
    """Yield warnings about the place of the windows, and about a missing STAC Item."""
    height, width = layout.lattice.shape
    if min(height, width) < layout.tile_size:
        yield Note(
            f"there are only {height} x {width} px of imagery for windows of {layout.tile_size} "
            "px: tokens see no more than that around them",
            CoverageWarning,
        )
    elif layout.lattice.shape != layout.area.shape:
        rows, columns = layout.area.shape
        yield Note(
            f"the area of {rows} x {columns} px is smaller than a window of {layout.tile_size} x "
            f"{layout.tile_size} px, so the imagery around it is seen too",
            CoverageWarning,
        )
    if within is not None and layout.wanted.any():
        inside = common_window(layout.area, within)
        kept = (inside[0].stop - inside[0].start) * (inside[1].stop - inside[1].start)
        share = kept / math.prod(layout.area.shape)
        if share < 1 / 1.1:
            yield Note(
                f"{1 - share:.0%} of the map is beyond the imagery, where its last patches end",
                CoverageWarning,
            )
    if not has_time:
        yield Note(NO_ITEM, TemporalWarning)
