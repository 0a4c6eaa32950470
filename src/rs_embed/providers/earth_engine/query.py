"""A request as expressions of Earth Engine, and the list of images that it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
from affine import Affine

from rs_embed.errors import ProviderError
from rs_embed.files.rasters import AVERAGED_FROM
from rs_embed.geo.grid import Grid, gsd_m
from rs_embed.providers.earth_engine.known_collections import COLLECTIONS, Collection
from rs_embed.providers.scenes.products import MASKED_CLASSES
from rs_embed.providers.scenes.scene import Box, grid_boxes
from rs_embed.specs import Composite, SensorSpec, TemporalSpec

CLEAR_SCORE = 0.6
_CLOUD_SCORE_PLUS = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
# Value of invalid pixels: a power of two, which float32 holds exactly.
SENTINEL = -float(2**100)
_TIME = "system:time_start"
# Side of a tile of Sentinel-2: as far, those of a zone reach into the next one.
_TILE_M = 109_800
_MOST_INPUT_PIXELS = 2**16  # the service's own limit of pixels to average into one


@dataclass(frozen=True)
class Image:
    """One image of the list."""

    id: str
    acquired_ms: float
    cloud_pct: float | None
    baseline: str | None
    tile: str | None

    @property
    def order(self) -> tuple[float, str]:
        """Sort key: by time, then by id."""
        return self.acquired_ms, self.id

    @property
    def acquired(self) -> str:
        """Time of acquisition, ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.acquired_ms / 1000, UTC).isoformat()

    def as_json(self) -> dict[str, Any]:
        """Return its entry in ``source``."""
        return {
            "id": self.id,
            "acquired": self.acquired,
            "cloud_pct": self.cloud_pct,
            "baseline": self.baseline,
        }


@dataclass(frozen=True, eq=False)
class Resampling:
    """How which images are resampled to the grid."""

    kind: str  # "none", "bilinear" or "average", for images of other tiles than `kept`
    kept: tuple[str, ...]  # MGRS tiles whose images are not resampled
    used: list[str]  # what was used, sorted
    resampled: int  # images that were
    input_pixels: int  # greatest number of pixels that are averaged into one
    notes: tuple[str, ...]

    @property
    def request(self) -> tuple[object, ...]:
        """What the request for pixels takes from it."""
        untouched = self.used == ["none"]
        return () if untouched else (self.kind, self.kept, self.input_pixels)


@dataclass(frozen=True, eq=False)
class Query:
    """A request as expressions of Earth Engine."""

    ee: Any
    grid: Grid
    boxes: tuple[Box, ...]
    period: TemporalSpec
    sensor: SensorSpec
    known: Collection | None
    names: tuple[str, ...]

    @classmethod
    def of(cls, ee: Any, grid: Grid, temporal: TemporalSpec | None, sensor: SensorSpec) -> Query:
        """Return the query for a place and period.

        Raises
        ------
        ProviderError
            If it is invalid: no period, no such band, a place outside its CRS.
        """
        if temporal is None:
            raise ProviderError("got temporal=None, expected a period: backend='gee' has dates")
        boxes = grid_boxes(grid)
        if boxes is None:
            raise ProviderError(
                f"the place {grid.to_json()} is outside the area of its CRS; use another crs"
            )
        known = COLLECTIONS.get(sensor.collection)
        names = sensor.bands if known is None else known.names(sensor.bands)
        return cls(ee, grid, boxes, temporal, sensor, known, names)

    @property
    def cloudy_pct(self) -> float | None:
        """Upper limit of cloud cover, exclusive; None for no filter."""
        limit = self.sensor.cloudy_pct
        return None if self.known is None or limit is None or limit >= 100 else limit

    @property
    def composite(self) -> Composite:
        """How several images become one."""
        return self.sensor.composite or "median"

    @property
    def shown_period(self) -> str:
        """The period, in words."""
        return f"{self.period.start} to {self.period.end}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the collection."""
        if self.known is not None:
            return (self.known.note,) if self.known.note else ()
        notes = [
            f"the pixel size of {self.sensor.collection} is not known, so it was resampled "
            "bilinearly"
        ]
        if self.sensor.cloudy_pct is not None and self.sensor.cloudy_pct < 100:
            notes.append(
                f"cloudy_pct={self.sensor.cloudy_pct:g} was not applied to "
                f"{self.sensor.collection}, for which it is not known which property holds the "
                "cloud cover"
            )
        return tuple(notes)

    @property
    def likely(self) -> Resampling | None:
        """How images are resampled, whichever there are; None if that depends on the list."""
        zone = _zone_of(self.grid, self.known.lattice_m(self.names)) if self.known else None
        if zone is None:
            return resampling_of(self, [Image("", 0, None, None, None)])
        middle = 6 * zone - 183
        for west, south, east, north in self.boxes:
            degree_m = 111_320 * math.cos(math.radians(max(abs(south), abs(north))))
            if max(middle - west, east - middle) > 3 - _TILE_M / degree_m:
                return None
        return resampling_of(self, [Image("", 0, None, None, f"{zone:02}")])

    def at_place(self) -> Any:
        """Return the images that touch the place."""
        rectangle = self.ee.Geometry.Rectangle
        boxes = (rectangle(list(box), "EPSG:4326", False) for box in self.boxes)
        filters = [self.ee.Filter.bounds(box) for box in boxes]
        one = filters[0] if len(filters) == 1 else self.ee.Filter.Or(*filters)
        return self.ee.ImageCollection(self.sensor.collection).filter(one)

    def in_period(self) -> Any:
        """Return the images that touch the place in the period."""
        return self.at_place().filterDate(str(self.period.start), str(self.period.end))

    @cached_property  # writing it takes a tenth of a fetch's processor time
    def selected(self) -> Any:
        """The images of the place and period with little cloud; those that state none are out."""
        images = self.in_period()
        if self.cloudy_pct is None or self.known is None:
            return images
        return images.filter(self.ee.Filter.lt(self.known.clouds, self.cloudy_pct))

    def listing(self) -> Any:
        """Return id, time, and known properties of every image; see `read_image`."""
        stated = ["system:index", _TIME, *self._properties]
        reducer = self.ee.Reducer.toList(len(stated), len(self._properties))
        return self.selected.reduceColumns(reducer, stated)

    def read_image(self, row: Sequence[Any]) -> Image:
        """Return the image that a row of the list describes."""
        properties = dict(zip(self._properties, row[2:], strict=True))
        known = self.known
        cloud = None if known is None else properties.get(known.clouds)
        baseline = properties.get(known.baseline) if known and known.baseline else None
        tile = properties.get(known.tile) if known and known.tile else None
        return Image(str(row[0]), float(row[1]), cloud, baseline, tile)

    def counts(self) -> Any:
        """Return how many images pass each filter, the least cloud, first and last time."""
        place, period = self.at_place(), self.in_period()
        # Lists, not minima: the minimum of nothing is null, which not every function accepts.
        times = place.aggregate_array(_TIME).sort()
        days = times.slice(0, 1).cat(times.slice(-1))
        clouds = self.ee.List([])
        if self.known is not None:
            clouds = period.aggregate_array(self.known.clouds).sort().slice(0, 1)
        return self.ee.List([place.size(), period.size(), self.selected.size(), clouds, days])

    def image(self, plan: Resampling) -> Any:
        """Return the composite: float32 bands `names_of`, the sentinel where they are masked."""
        images = self._on_grid(plan)
        mosaic = self.composite == "mosaic"
        made = images.sort(_TIME).mosaic() if mosaic else images.median()
        # Both are of one type, since it is not documented which one would come out of two.
        nothing = self.ee.Image(SENTINEL).toFloat()
        return made.rename(names_of(len(self.names))).toFloat().unmask(nothing, False)

    def _on_grid(self, plan: Resampling) -> Any:
        """Return the bands of all images, masked and as they are to be resampled, with times."""
        images = self.selected
        if self.sensor.cloud_mask == "cloud_score_plus":
            images = images.linkCollection(self.ee.ImageCollection(_CLOUD_SCORE_PLUS), ["cs_cdf"])
        as_it_is = self._ready(self._masked)
        if plan.used == ["none"]:
            return images.map(as_it_is)
        bilinear = self._ready(partial(self._masked, bilinear=True))
        if plan.kind == "average":
            return images.map(self._ready(self._averaged(plan)))
        if not plan.kept or self.known is None:
            return images.map(bilinear)
        kept = self.ee.Filter.inList(self.known.tile, list(plan.kept))
        others = images.filter(kept.Not())
        return images.filter(kept).map(as_it_is).merge(others.map(bilinear))

    def _ready(self, resampled: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that prepares the bands of an image for a composite.

        Images of different types are refused as "no homogeneous image collection"; and neither
        casts nor averages are documented to keep the time, which orders a mosaic.
        """
        timed = self.composite == "mosaic"

        def ready(image: Any) -> Any:
            bands = resampled(image).toFloat()
            return bands.set(_TIME, image.get(_TIME)) if timed else bands

        return ready

    def _clear(self, image: Any) -> Any:
        """Return the clear pixels, None for no mask; not resampled, since classes have no mean."""
        if self.sensor.cloud_mask == "scl":
            nothing = [0] * len(MASKED_CLASSES)
            return image.select("SCL").remap(list(MASKED_CLASSES), nothing, 1)
        if self.sensor.cloud_mask == "cloud_score_plus":
            return image.select("cs_cdf").gte(CLEAR_SCORE)
        return None

    def _masked(self, image: Any, *, bilinear: bool = False) -> Any:
        bands, clear = image.select(list(self.names)), self._clear(image)
        bands = bands.resample("bilinear") if bilinear else bands
        return bands if clear is None else bands.updateMask(clear)

    def _averaged(self, plan: Resampling) -> Callable[[Any], Any]:
        reducer = self.ee.Reducer.mean()
        most = min(plan.input_pixels, _MOST_INPUT_PIXELS)
        rough = plan.input_pixels > most  # the service then starts from a coarser level

        def average(image: Any) -> Any:
            return self._masked(image).reduceResolution(reducer, rough, most)

        return average

    @property
    def _properties(self) -> tuple[str, ...]:
        known = self.known
        names = () if known is None else (known.clouds, known.baseline, known.tile)
        return tuple(name for name in names if name)


def names_of(bands: int) -> list[str]:
    """Return the names of the bands in the answer, whatever their names in the collection."""
    return [f"b{number}" for number in range(bands)]


def resampling_of(query: Query, images: Sequence[Image]) -> Resampling:
    """Return how the images are resampled to the grid."""
    grid, known = query.grid, query.known
    if known is None:
        return Resampling("bilinear", (), ["bilinear"], len(images), 0, ())
    native_m, pixel_m = known.pixel_m(query.names), gsd_m(grid)
    coarser = pixel_m / native_m
    zone = _zone_of(grid, known.lattice_m(query.names))
    tiles = sorted({image.tile for image in images if image.tile and _zone_in(image.tile) == zone})
    kept = tuple(tiles) if zone is not None else ()
    resampled = sum(image.tile not in kept for image in images)
    kind = "average" if coarser >= AVERAGED_FROM else "bilinear"
    used = ([kind] if resampled else []) + (["none"] if resampled < len(images) else [])
    # Whole and partial pixels along each side of a square that may be rotated.
    input_pixels = int(np.ceil(coarser * np.sqrt(2)) + 1) ** 2
    notes: tuple[str, ...] = ()
    if 1 / coarser > AVERAGED_FROM:
        notes = (
            f"imagery of {native_m:.4g} m was upsampled to {pixel_m:.4g} m; state "
            f"scale_m={native_m:.4g}",
        )
    return Resampling(kind, kept, sorted(used), resampled, input_pixels, notes)


def _zone_of(grid: Grid, lattice_m: int | None) -> int | None:
    """Return the UTM zone whose lattice of that side contains the grid's, None if none does."""
    if lattice_m is None or grid.crs is None:
        return None
    code = grid.crs.to_epsg() or 0
    lattice = replace(grid, transform=Affine(lattice_m, 0, 0, 0, -lattice_m, 0))
    if code // 100 not in (326, 327) or not 1 <= code % 100 <= 60 or not grid.lies_on(lattice):
        return None
    return code % 100


def _zone_in(tile: str) -> int | None:
    """Return the UTM zone that begins an MGRS tile: 33 of ``33TWN`` and ``T33TWN``."""
    digits = tile.removeprefix("T")[:2]
    digits = digits if digits.isdigit() else digits[:1]
    return int(digits) if digits.isdigit() else None
