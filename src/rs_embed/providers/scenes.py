"""Scenes: what each one is, where its bands lie, and which of many a request takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed.bands import canonical_band
from rs_embed.errors import ProviderError
from rs_embed.grid import Grid
from rs_embed.specs import TemporalSpec

if TYPE_CHECKING:
    from pystac import Asset, Item

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees, west <= east."""

OffsetRule = Literal["declared", "none", "applied", "subtract", "look"]

# Assets made for the eye or for machines, whatever bands they claim to show.
_NEVER_ROLES = {"visual", "overview", "thumbnail", "metadata"}
_NEVER_KEYS = {"visual", "overview", "thumbnail", "preview", "rendered_preview", "tilejson"}
_DATA_ROLES = {"data", "reflectance"}

# Product names of ESA (Planetary Computer leaves out the baseline), then ids of Earth Search.
_PRODUCT = re.compile(
    r"(S2[A-D])_MSI(L\w\w)_(\d{8}T\d{6})_(?:N(\d{4})_)?(R\d{3})_(T\w{5})_(\d{8}T\d{6})(?:\.SAFE)?"
)
_EARTH_SEARCH_ID = re.compile(r"(S2[A-D])_(\d{1,2}\w{3})_(\d{8})_(\d+)_(L\w\w)")
_OFFSET_SINCE = 4.0


@dataclass(frozen=True)
class BandAt:
    """Where one band lies: a file, its position there from 1, and the units that are stated.

    ``declared`` is (scale, offset) as the catalogue says, None where it says nothing.
    """

    path: str
    index: int
    declared: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """One acquisition of one tile.

    Attributes
    ----------
    id : str
        Id of the item, or path of the file below the root.
    acquired : datetime.datetime or None
        In UTC; None where it is not recorded.
    cloud_pct : float or None
        Cloud cover of the whole scene, percent; None where it is not stated.
    bands : mapping
        Name -> where it lies; positions as names where the file names none.
    footprint : tuple of Box or None
        Where it lies, two boxes across the antimeridian; None where it is not known.
    named : bool
        Whether the bands have names; if not, they are taken in the order wanted.
    scl : BandAt or None
        Scene classification map.
    collection : str or None
        Collection that it belongs to.
    baseline : str or None
        Processing baseline of Sentinel-2, e.g. ``"05.09"``.
    offset_applied : bool or None
        What ``earthsearch:boa_offset_applied`` says.
    nodata : float or None
        Nodata value that its file declares, as far as it was looked at.
    product : tuple of str
        The same for reprocessings of one datatake and tile; empty where it is not known.
    version : tuple
        Greatest for the newest of these.
    """

    id: str
    acquired: datetime | None
    cloud_pct: float | None
    bands: Mapping[str, BandAt]
    footprint: tuple[Box, ...] | None
    named: bool = True
    scl: BandAt | None = None
    collection: str | None = None
    baseline: str | None = None
    offset_applied: bool | None = None
    nodata: float | None = None
    product: tuple[str, ...] = ()
    version: tuple[float, str, int, str] = (0, "", 0, "")

    def find(self, wanted: Sequence[str]) -> tuple[BandAt, ...] | None:
        """Return where the ``wanted`` bands lie, None if one of them is missing."""
        if not self.named:
            return tuple(self.bands.values()) if len(self.bands) == len(wanted) else None
        found = [self.bands.get(b) or self.bands.get(canonical_band(b)) for b in wanted]
        return None if None in found else tuple(band for band in found if band is not None)

    @property
    def offset_rule(self) -> OffsetRule:
        """How the pixels become digital numbers without offset (reflectance * 10000).

        Notes
        -----
        ESA adds 1000 to the digital numbers since processing baseline 04.00. Earth Search takes
        it off again and says so in ``earthsearch:boa_offset_applied``, whatever
        ``raster:bands.offset`` says; in its ``sentinel-2-l2a`` a false flag is not reliable.
        """
        baseline = _baseline_number(self.baseline)
        if self.offset_applied:
            return "applied"
        if baseline is None:
            return "declared"
        if baseline < _OFFSET_SINCE:
            return "none"
        ambiguous = self.offset_applied is False and self.collection == "sentinel-2-l2a"
        return "look" if ambiguous else "subtract"

    @property
    def order(self) -> tuple[bool, datetime, str]:
        """Sort key: undated first, then by date, then by id."""
        first = datetime.min.replace(tzinfo=UTC)
        return self.acquired is not None, self.acquired or first, self.id


@dataclass(frozen=True, eq=False)
class Selection:
    """The scenes that a request takes, oldest first, and how many each filter left."""

    scenes: tuple[Scene, ...]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def scene_from_item(item: Item) -> Scene:
    """Return the scene that a STAC item describes.

    Relative hrefs are resolved against the item's own. An item over a span of time counts as
    acquired at its start.

    Raises
    ------
    ValueError
        If a number or date in it is none.
    """
    said = item.properties
    acquired = item.datetime or item.common_metadata.start_datetime
    cloud = said.get("eo:cloud_cover")
    applied = said.get("earthsearch:boa_offset_applied")
    baseline = said.get("s2:processing_baseline")
    product, version = _product_of(item)
    return Scene(
        id=item.id,
        acquired=None if acquired is None else in_utc(acquired),
        cloud_pct=None if cloud is None else float(cloud),
        bands=_bands_of(item),
        footprint=_footprint_of(item),
        scl=_scl_of(item),
        collection=item.collection_id,
        baseline=None if baseline is None else str(baseline),
        offset_applied=applied if isinstance(applied, bool) else None,
        product=product,
        version=version,
    )


def in_utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, which it is in already if it names no zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def grid_boxes(grid: Grid) -> tuple[Box, ...] | None:
    """Return where a grid lies, None if its CRS does not reach there."""
    bounds = grid.geographic_bounds()
    return boxes(*bounds) if np.isfinite(bounds).all() else None


def boxes(west: float, south: float, east: float, north: float) -> tuple[Box, ...]:
    """Return a box of degrees, as two where it crosses the antimeridian."""
    if east > 180:
        east -= 360
    if west < -180:
        west += 360
    if west <= east:
        return ((west, south, east, north),)
    return (west, south, 180.0, north), (-180.0, south, east, north)


def touch(ours: Iterable[Box] | None, theirs: Iterable[Box] | None) -> bool:
    """Return whether two places have a point in common; an unknown one may be anywhere."""
    if ours is None or theirs is None:
        return True
    theirs = tuple(theirs)
    return any(
        a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
        for a in ours
        for b in theirs
    )


def product_of_name(name: str) -> tuple[tuple[str, ...], tuple[float, str, int, str]]:
    """Return what a Sentinel-2 product's name says: what reprocessings share, and which it is."""
    if match := _PRODUCT.fullmatch(name):
        mission, level, sensed, baseline, orbit, tile, made = match.groups()
        return (mission, level, sensed, orbit, tile), (float(baseline or 0) / 100, made, 0, "")
    if match := _EARTH_SEARCH_ID.fullmatch(name):
        mission, tile, day, sequence, level = match.groups()
        return (mission, level, day, tile), (0, "", int(sequence), "")
    return (), (0, "", 0, "")


def _product_of(item: Item) -> tuple[tuple[str, ...], tuple[float, str, int, str]]:
    said = item.properties
    names = (said.get("s2:product_uri"), said.get("s2:product_id"), item.id)
    found = (product_of_name(str(name)) for name in names if name)
    product, (baseline, made, _, _) = next((f for f in found if f[0]), ((), (0, "", 0, "")))
    stated = _baseline_number(said.get("s2:processing_baseline"))
    _, (_, _, sequence, _) = product_of_name(item.id)
    stamp = str(said.get("s2:generation_time") or said.get("created") or "")
    return product, (baseline if stated is None else stated, made, sequence, stamp)


def _baseline_number(text: object) -> float | None:
    match = re.fullmatch(r"N?(\d\d)\.?(\d\d)", str(text))
    return float(f"{match[1]}.{match[2]}") if match else None


def _bands_of(item: Item) -> dict[str, BandAt]:
    """Return where each band lies, under its name as written and as `canonical_band`.

    The key of an asset counts before the names in it, one band to a file before several, and
    assets with the role of data before others.
    """
    assets = [(key, asset) for key, asset in item.assets.items() if not _is_never_data(key, asset)]
    assets.sort(key=lambda entry: not _DATA_ROLES & set(entry[1].roles or ()))
    single = [(key, asset) for key, asset in assets if len(_described(asset)) <= 1]
    found: dict[str, BandAt] = {}
    for spell in (str, canonical_band):
        for key, asset in single:
            found.setdefault(spell(key), _band_at(asset, 0))
    several = [entry for entry in assets if len(_described(entry[1])) > 1]
    for _, asset in [*single, *several]:
        for at, described in enumerate(_described(asset)):
            for name in (described.get("name"), _common_name(described)):
                if isinstance(name, str) and name:
                    found.setdefault(name, _band_at(asset, at))
                    found.setdefault(canonical_band(name), _band_at(asset, at))
    return found


def _is_never_data(key: str, asset: Asset) -> bool:
    return bool(_NEVER_ROLES & set(asset.roles or ())) or key.lower() in _NEVER_KEYS


def _common_name(described: Mapping[str, Any]) -> Any:
    return described.get("eo:common_name") or described.get("common_name")


def _described(asset: Asset) -> list[dict[str, Any]]:
    """Return what is said of each band, in STAC 1.1's ``bands`` or the extensions before it."""
    fields = asset.extra_fields
    merged: list[dict[str, Any]] = [
        dict(band) for band in fields.get("eo:bands") or fields.get("bands") or ()
    ]
    for band, raster in zip(merged, fields.get("raster:bands") or (), strict=False):
        band.update({f"raster:{k}": raster[k] for k in ("scale", "offset") if k in raster})
    if not merged:
        return [
            {f"raster:{k}": raster[k] for k in ("scale", "offset") if k in raster}
            for raster in fields.get("raster:bands") or ()
        ]
    return merged


def _band_at(asset: Asset, at: int) -> BandAt:
    described = _described(asset)
    fields = {**asset.extra_fields, **(described[at] if at < len(described) else {})}
    scale, offset = fields.get("raster:scale"), fields.get("raster:offset")
    declared = (1.0 if scale is None else float(scale), 0.0 if offset is None else float(offset))
    path = asset.get_absolute_href() or asset.href
    return BandAt(path.removeprefix("file://"), at + 1, None if declared == (1, 0) else declared)


def _scl_of(item: Item) -> BandAt | None:
    return next((_band_at(a, 0) for key, a in item.assets.items() if key.upper() == "SCL"), None)


def _footprint_of(item: Item) -> tuple[Box, ...] | None:
    if item.bbox is not None:
        values = [float(v) for v in item.bbox]
        half = len(values) // 2
        return boxes(values[0], values[1], values[half], values[half + 1])
    if item.geometry is None:
        return None
    points = np.array(list(_points(item.geometry["coordinates"])))
    (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
    return boxes(float(west), float(south), float(east), float(north))


def _points(coordinates: Sequence[Any]) -> Iterator[tuple[float, float]]:
    if isinstance(coordinates[0], int | float):
        yield coordinates[0], coordinates[1]
        return
    for part in coordinates:
        yield from _points(part)


@dataclass(frozen=True, eq=False)
class _Filter:
    """One step of a selection; ``mend`` is told what was left before it."""

    key: str
    passes: Callable[[Scene], bool]
    says: str
    mend: Callable[[Sequence[Scene]], str] = field(default=lambda _: "")


def select_scenes(
    scenes: Sequence[Scene],
    *,
    bands: Sequence[str],
    grid: Grid,
    temporal: TemporalSpec | None,
    cloudy_pct: float | None,
    where: str,
) -> Selection:
    """Return the scenes for a place and period, without reprocessed duplicates.

    Parameters
    ----------
    scenes : sequence of Scene
        All there are.
    bands : sequence of str
        Names wanted; scenes without one of them are left out.
    grid : Grid
        The place.
    temporal : TemporalSpec or None
        Half-open period of UTC days, which undated scenes never pass; None is any time.
    cloudy_pct : float or None
        Keep scenes with less cloud, and those that state none; 100 and None are no filter.
    where : str
        The source, as messages name it.

    Raises
    ------
    ProviderError
        If none remains; it says how many each filter left and what exists.
    """
    filters = [_has_bands(bands), _touches(grid)]
    if temporal is not None:
        filters.append(_within(temporal))
    clouds = cloudy_pct is not None and cloudy_pct < 100
    if cloudy_pct is not None and clouds:
        filters.append(_less_cloud(cloudy_pct))
    counts = {"scenes": len(scenes)}
    said: list[str] = []
    left = list(scenes)
    for step in filters:
        before, left = left, [scene for scene in left if step.passes(scene)]
        counts[step.key] = len(left)
        said.append(f"{len(left)} {step.says}")
        if not left:
            raise ProviderError(
                f"no imagery for the place and period in {where!r}: of {len(scenes)} scenes "
                f"{', '.join(said)} {step.mend(before)}"
            )
    newest = newest_products(left)
    counts["newest"] = len(newest)
    unstated = sum(scene.cloud_pct is None for scene in newest)
    notes = []
    if clouds and unstated:
        notes.append(
            f"cloudy_pct={cloudy_pct:g} was not applied to {unstated} scenes that state no cloud "
            "cover"
        )
    return Selection(tuple(sorted(newest, key=lambda s: s.order)), counts, tuple(notes))


def newest_products(scenes: Iterable[Scene]) -> list[Scene]:
    """Return ``scenes`` with only the newest processing of each datatake and tile."""
    newest: dict[tuple[str, ...], Scene] = {}
    for scene in scenes:
        key = scene.product or ("", scene.id, str(id(scene)))
        if key not in newest or newest[key].version < scene.version:
            newest[key] = scene
    return list(newest.values())


def _has_bands(bands: Sequence[str]) -> _Filter:
    return _Filter(
        "bands",
        lambda scene: scene.find(bands) is not None,
        f"have the bands {', '.join(bands)}",
        lambda left: f"({bands_that_exist(left)}); {NAME_BANDS}",
    )


NAME_BANDS = "name the bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"


def bands_that_exist(scenes: Iterable[Scene]) -> str:
    """Return a phrase that names the bands of ``scenes``."""
    scenes = list(scenes)
    names = sorted({name for scene in scenes if scene.named for name in scene.bands})
    counts = sorted({len(scene.bands) for scene in scenes if not scene.named})
    said = [f"the bands that exist are {', '.join(names)}"] if names else []
    if counts:
        said.append(f"files without band names have {' or '.join(map(str, counts))} bands")
    return "; ".join(said) or "there are none"


def _touches(grid: Grid) -> _Filter:
    place = grid_boxes(grid)
    return _Filter(
        "place", lambda scene: touch(scene.footprint, place), "touch the place", _where_they_lie
    )


def _where_they_lie(scenes: Sequence[Scene]) -> str:
    known = [box for scene in scenes for box in scene.footprint or ()]
    west, south, east, north = zip(*known, strict=True)
    return (
        f"(they lie within lon {min(west):.4f} to {max(east):.4f}, lat {min(south):.4f} to "
        f"{max(north):.4f}); choose another place"
    )


def _within(period: TemporalSpec) -> _Filter:
    def passes(scene: Scene) -> bool:
        day = scene.acquired
        return day is not None and period.start <= day.date() < period.end

    return _Filter("period", passes, f"lie in {period.start} to {period.end}", _when_they_are)


def _when_they_are(scenes: Sequence[Scene]) -> str:
    days = [scene.acquired.date() for scene in scenes if scene.acquired is not None]
    undated = f"{len(scenes) - len(days)} have no date"
    if not days:
        return f"({undated}); give them dates, or put them apart from scenes that have one"
    more = f", {undated}" if len(days) < len(scenes) else ""
    return f"(they are of {min(days)} to {max(days)}{more}); choose another period"


def _less_cloud(cloudy_pct: float) -> _Filter:
    def clearest(scenes: Sequence[Scene]) -> str:
        least = min(scene.cloud_pct for scene in scenes if scene.cloud_pct is not None)
        return f"(the clearest has {least:.3g} %); raise cloudy_pct"

    return _Filter(
        "cloud",
        lambda scene: scene.cloud_pct is None or scene.cloud_pct < cloudy_pct,
        f"have less than {cloudy_pct:g} % cloud",
        clearest,
    )
