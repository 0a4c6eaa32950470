"""Scenes: what each one is, where it and its bands are, and how to read its values."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np

from rs_embed.addresses import linked_path, local_path, shown_path
from rs_embed.files.dates import in_utc
from rs_embed.geo.bands import agrees, canonical_band
from rs_embed.geo.grid import Grid
from rs_embed.providers.scenes.products import Product, product_of_item

if TYPE_CHECKING:
    from pystac import Asset, Item

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees, west <= east."""

OffsetRule = Literal["declared", "none", "applied", "subtract", "look"]

# Assets for display or metadata, whatever bands they claim to have.
_NEVER_ROLES = {"visual", "overview", "thumbnail", "metadata"}
_NEVER_KEYS = {"visual", "overview", "thumbnail", "preview", "rendered_preview", "tilejson"}
_DATA_ROLES = {"data", "reflectance"}

_OFFSET_SINCE = 4.0


@dataclass(frozen=True)
class BandAt:
    """One band of a file: the path, its position from 1, and the units that are stated.

    ``declared`` is (scale, offset) in the catalogue, and ``nodata`` its nodata value; None where it
    states nothing.
    """

    path: str
    index: int
    declared: tuple[float, float] | None = None
    nodata: float | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """One acquisition of one tile."""

    id: str  # id of the item, or path of the file below the root
    acquired: datetime | None  # in UTC
    cloud_pct: float | None  # of the whole scene
    # Name -> file and position; positions as names if the file names none.
    bands: Mapping[str, BandAt]
    footprint: tuple[Box, ...] | None  # its bounding box, two across the antimeridian
    named: bool = True  # else they count in the order of the request
    scl: BandAt | None = None
    collection: str | None = None
    contested: frozenset[str] = frozenset()  # names that mean other bands by the common names
    offset_applied: bool | None = None  # earthsearch:boa_offset_applied
    nodata: float | None = None  # that its file declares, if it was opened
    product: Product = field(default_factory=Product)
    # Area and centroid (x, y) of its pixels, degrees; None if only their box is known
    outline: tuple[float, float, float] | None = None
    is_file: bool = False  # a plain file without an item
    href: str | None = None  # URL of its item, without credentials
    beside: bool = False  # whether files beside its item are read instead of those on the web
    notes: tuple[str, ...] = ()  # what is doubtful about it; given where it is used

    def find(self, wanted: Sequence[str]) -> tuple[BandAt, ...] | None:
        """Return the places of the ``wanted`` bands, None if one of them is missing."""
        if not self.named:
            return tuple(self.bands.values()) if len(self.bands) == len(wanted) else None
        found = [self.bands.get(b) or self.bands.get(canonical_band(b)) for b in wanted]
        return None if None in found else tuple(band for band in found if band is not None)

    @property
    def baseline(self) -> str | None:
        """Processing baseline of Sentinel-2, e.g. ``"05.09"``."""
        number = self.product.baseline
        return None if number is None else f"{number:05.2f}"

    @property
    def offset_rule(self) -> OffsetRule:
        """How to get digital numbers without offset (reflectance * 10000) from the pixels.

        Notes
        -----
        ESA adds 1000 to the digital numbers since processing baseline 04.00. Earth Search
        subtracts it again and states that in ``earthsearch:boa_offset_applied``, whatever
        ``raster:bands.offset`` is; in its ``sentinel-2-l2a`` a false flag is not reliable. Of
        a plain file only the name of its product is known, not what was done to it since.
        """
        baseline = self.product.baseline
        if self.offset_applied:
            return "applied"
        if self.product.odd_baseline:
            return "look"
        if baseline is None:
            return "declared"
        if baseline < _OFFSET_SINCE:
            return "none"
        ambiguous = self.offset_applied is False and self.collection == "sentinel-2-l2a"
        return "look" if ambiguous or self.is_file else "subtract"

    @property
    def order(self) -> tuple[bool, datetime, str]:
        """Sort key: undated first, then by date, then by id."""
        first = datetime.min.replace(tzinfo=UTC)
        return self.acquired is not None, self.acquired or first, self.id


def scene_from_item(item: Item) -> Scene:
    """Return the scene that a STAC item describes.

    Relative hrefs are resolved against the item's own. Of an item on disk that links to the web,
    as in a downloaded product, files of the same names beside it are read. An item over a span of
    time counts as acquired at its start.

    Raises
    ------
    ValueError
        If a number or date in it is invalid.
    """
    properties = item.properties
    acquired = item.datetime or item.common_metadata.start_datetime
    applied = properties.get(
        "earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied")
    )
    href = item.get_self_href()
    beside = _link_to_files_beside(item)
    bands, contested = _bands_of(item)
    return Scene(
        id=item.id,
        acquired=None if acquired is None else in_utc(acquired),
        cloud_pct=_percent(properties.get("eo:cloud_cover")),
        bands=bands,
        contested=contested,
        footprint=_footprint_of(item),
        scl=next((_band_at(a, 0) for key, a in item.assets.items() if key.upper() == "SCL"), None),
        collection=item.collection_id,
        offset_applied={"true": True, "false": False}.get(str(applied).lower()),
        product=product_of_item(item.id, properties),
        outline=None if item.geometry is None else _outline_of(item.geometry),
        href=shown_path(href) if href is not None and "://" in href else None,
        beside=beside,
    )


def _link_to_files_beside(item: Item) -> bool:
    """Let assets on the web whose files lie beside the item link there; return whether any did."""
    own = local_path(item.get_self_href() or "")
    found = False
    for asset in item.assets.values() if own and "://" not in own else ():
        path = name_beside(own, asset.href)
        if path is not None and os.path.isfile(path):
            asset.href, found = path, True
    return found


def name_beside(own: str, href: str) -> str | None:
    """Return the path beside the file ``own`` of the name that a URL ends with; None for paths."""
    if "://" not in local_path(href):
        return None
    return os.path.join(os.path.dirname(own), unquote(posixpath.basename(urlsplit(href).path)))


def grid_boxes(grid: Grid) -> tuple[Box, ...] | None:
    """Return the bounding boxes of a grid, None if its CRS does not cover it."""
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
    """Return whether two places have a point in common; None may be anywhere."""
    if ours is None or theirs is None:
        return True
    theirs = tuple(theirs)
    return any(
        a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
        for a in ours
        for b in theirs
    )


def _percent(stated: Any) -> float | None:
    """Return a cloud cover; None where it is not stated or no percentage, as NaN or -1."""
    value = math.nan if stated is None else float(stated)
    return value if 0 <= value <= 100 else None


def _bands_of(item: Item) -> tuple[dict[str, BandAt], frozenset[str]]:
    """Return the place of each band, under its names and these as `canonical_band`, and doubts.

    The common name of a band has precedence over others, because keys like ``B4`` mean another
    band with each sensor; names that common names contradict are the doubts. Then the key of an
    asset has precedence over the names in it, a file with one band over one with several, assets
    with the role of data over others, and the finest of one band over coarser ones.
    """
    assets = [
        (key, asset)
        for key, asset in item.assets.items()
        if not _NEVER_ROLES & set(asset.roles or ()) and key.lower() not in _NEVER_KEYS
    ]
    assets.sort(key=lambda entry: (not _DATA_ROLES & set(entry[1].roles or ()), _gsd_of(entry[1])))
    single = [entry for entry in assets if len(_described(entry[1])) <= 1]
    several = [entry for entry in assets if len(_described(entry[1])) > 1]
    found: dict[str, BandAt] = {}
    contested: set[str] = set()
    for files in (single, several):
        named: list[tuple[str, BandAt]] = []
        for key, asset in files:
            own = {k: v for k, v in asset.extra_fields.items() if k == "eo:common_name"}
            described = _described(asset) or [{}]
            for at, band in enumerate(described):
                common = {**own, **band}.get("eo:common_name") or band.get("common_name")
                place = _band_at(asset, at)
                keys = [key] if len(described) == 1 else []
                names = [n for n in (*keys, band.get("name")) if isinstance(n, str) and n]
                if isinstance(common, str) and common:
                    found.setdefault(common, place)
                    found.setdefault(canonical_band(common), place)
                    others = [n for n in names if not agrees(n, common)]
                    contested.update(map(canonical_band, others))
                    names = [n for n in names if n not in others]
                named += [(name, place) for name in names]
        for spell in (str, canonical_band):
            for name, place in named:
                found.setdefault(spell(name), place)
    return found, frozenset(contested)


def _gsd_of(asset: Asset) -> float:
    """Return the stated pixel size in metres, 0 if none is stated."""
    fields = asset.extra_fields
    stated = (fields.get("gsd"), fields.get("raster:spatial_resolution"))
    return next((float(gsd) for gsd in stated if gsd is not None), 0.0)


def _described(asset: Asset) -> list[dict[str, Any]]:
    """Return the metadata of each band: STAC 1.1's ``bands``, or older extensions."""
    fields = asset.extra_fields
    units = [
        {f"raster:{k}": raster[k] for k in ("scale", "offset", "nodata") if k in raster}
        for raster in fields.get("raster:bands") or ()
    ]
    bands = fields.get("eo:bands") or fields.get("bands")
    if not bands:
        return units
    return [{**band, **(units[i] if i < len(units) else {})} for i, band in enumerate(bands)]


def _band_at(asset: Asset, at: int) -> BandAt:
    described = _described(asset)
    fields = {**asset.extra_fields, **(described[at] if at < len(described) else {})}
    scale, offset = fields.get("raster:scale"), fields.get("raster:offset")
    declared = (1.0 if scale is None else float(scale), 0.0 if offset is None else float(offset))
    nodata = fields.get("raster:nodata", fields.get("nodata"))
    return BandAt(
        path=asset_path(asset),
        index=at + 1,
        declared=None if declared == (1, 0) else declared,
        nodata=None if nodata is None else float(nodata),  # also of "nan" and "-inf"
    )


def asset_path(asset: Asset) -> str:
    """Return the path or URL of an asset; relative hrefs refer to the item's own."""
    return linked_path(asset.href, None if asset.owner is None else asset.owner.get_self_href())


def _footprint_of(item: Item) -> tuple[Box, ...] | None:
    if item.bbox is not None:
        values = [float(v) for v in item.bbox]  # of four or, with heights, of six
        return boxes(*values[:2], *values[len(values) // 2 :][:2])
    if item.geometry is None:
        return None
    points = np.array(list(_points(item.geometry["coordinates"])))
    (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
    return boxes(float(west), float(south), float(east), float(north))


def _points(coordinates: Sequence[Any]) -> Iterable[Sequence[float]]:
    if isinstance(coordinates[0], int | float):
        return [coordinates[:2]]
    return chain.from_iterable(map(_points, coordinates))


def _outline_of(geometry: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return area and centroid of the outer rings of a (multi)polygon."""
    coordinates = geometry.get("coordinates") or ()
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}
    area = x = y = 0.0
    for polygon in polygons.get(geometry.get("type", ""), ()):
        if not polygon:
            continue
        ring = np.array([point[:2] for point in polygon[0]], float)
        a, b = ring - ring[0], np.roll(ring, -1, axis=0) - ring[0]
        cross = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
        ring_area = cross.sum() / 2
        if ring_area:
            middle = ring[0] + ((a + b) * cross[:, None]).sum(axis=0) / (6 * ring_area)
            area += abs(ring_area)
            x, y = x + abs(ring_area) * middle[0], y + abs(ring_area) * middle[1]
    return (area, x / area, y / area) if area else None
