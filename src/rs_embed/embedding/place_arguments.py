"""From places as people have them to the arguments of the loop over places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, Literal

from rs_embed.errors import Note, SpecError, TemporalWarning, give_warnings
from rs_embed.files.place_tables import Places, places_of
from rs_embed.files.places import NamedPlace, box_of, point_of
from rs_embed.specs import BBox, FetchSpec, PointBuffer, Spatial, TemporalSpec


def one_place(spatial: Any, buffer_m: float | None = None) -> tuple[Spatial | None, Any]:
    """Return the one place that is meant, and the polygon to pool over if it is one.

    Parameters
    ----------
    spatial : BBox, PointBuffer, sequence of numbers, geometry, or None
        ``(lon, lat)`` and ``(minlon, minlat, maxlon, maxlat)`` are in degrees; a geometry is what
        `places_of` reads.
    buffer_m : float, optional
        Half the side of the square around a point, ground metres.
    """
    if is_position(spatial):
        return _from_numbers(spatial, buffer_m), None
    if spatial is None or isinstance(spatial, BBox | PointBuffer):
        if buffer_m is not None:
            raise SpecError(
                f"got buffer_m={buffer_m!r} with spatial={spatial!r}, expected a point such as "
                "(lon, lat) with it; leave it out"
            )
        return spatial, None
    if not _is_geometry(spatial):
        raise SpecError(
            f"got spatial={spatial!r:.120} ({type(spatial).__name__}), expected a BBox or "
            "PointBuffer, (minlon, minlat, maxlon, maxlat), (lon, lat) with buffer_m=, or a "
            "geometry (shapely, GeoJSON)"
        )
    places = places_of(spatial, buffer_m=buffer_m)
    give_warnings(places.notes)
    if len(places) != 1:
        raise SpecError(
            f"got {len(places)} features as spatial, expected one; use get_embeddings_batch"
        )
    return places.spatials[0], None if places.shapes is None else places.shapes[0]


def _from_numbers(numbers: Any, buffer_m: float | None) -> Spatial:
    """Return the point or box that numbers state, in degrees."""
    if len(numbers) == 2:
        lon, lat = numbers
        return point_of(lon, lat, buffer_m)
    if len(numbers) != 4 or buffer_m is not None:
        raise SpecError(
            f"got spatial={numbers!r} with buffer_m={buffer_m}, expected (lon, lat) with buffer_m, "
            "or (minlon, minlat, maxlon, maxlat) without"
        )
    south, west, north, east = numbers
    try:
        return box_of(*numbers)
    except SpecError as exc:
        try:
            swapped = f"; with latitude first it may be {box_of(west, south, east, north)}"
        except SpecError:
            swapped = ""
        raise SpecError(
            f"got spatial={numbers!r}, expected (minlon, minlat, maxlon, maxlat): {exc}{swapped}"
        ) from exc


def is_position(value: Any) -> bool:
    """Return whether a value is a sequence of numbers: a point or a box in degrees."""
    is_array = hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1
    if not is_array and not isinstance(value, tuple | list):
        return False
    return len(value) > 0 and all(isinstance(number, Real) for number in value)


def as_places(
    spatials: Any,
    *,
    buffer_m: float | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
) -> Places | None:
    """Return the places of a table; None for a list or iterator of BBox and PointBuffer."""
    first = next(iter(spatials), None) if isinstance(spatials, list | tuple) else spatials
    named = isinstance(first, str | os.PathLike | tuple | list | NamedPlace)
    if named or _is_geometry(first) or hasattr(spatials, "tolist") or hasattr(spatials, "columns"):
        return places_of(spatials, buffer_m=buffer_m, layer=layer, polygons=polygons)
    for name, value in (("buffer_m", buffer_m), ("layer", layer)):
        if value is not None:
            raise SpecError(
                f"got {name}={value!r} with places that have a size of their own; leave it out"
            )
    return None


def arguments_of(
    places: Places, temporal: Any, fetch: Any, *, own_pixels: bool
) -> tuple[dict[str, Any], dict[str, Any], list[Note]]:
    """Return items and shared arguments of `rs_embed.embedding.many_places.embed_places`.

    Parameters
    ----------
    places : Places
        What the table states; it comes before ``temporal`` and ``fetch``.
    temporal, fetch
        What the caller states, for rows that state nothing.
    own_pixels : bool
        Whether pixels are the caller's, for which periods do not matter.

    Raises
    ------
    SpecError
        If an argument would not be used, since every row has its own value.
    """
    items: dict[str, Any] = {"spatials": places.spatials}
    if places.imageries is not None:
        items = {"imageries": places.imageries}
    temporals, notes = places.temporals, []
    if temporals is not None and (own_pixels or places.imageries is not None):
        message = (
            "the columns of dates of the places were not used: own pixels are not searched by a "
            "provider"
        )
        temporals, notes = None, [Note(message, TemporalWarning)]
    if temporals is not None:
        _check_used("temporal", TemporalSpec, temporal, temporals, "columns of dates")
        temporal = [temporal if own is None else own for own in temporals]
    if places.fetches is not None:
        stated = fetch if getattr(fetch, "scale_m", None) is not None else None
        stated = fetch if not isinstance(fetch, FetchSpec | None) else stated
        _check_used("fetch", FetchSpec, stated, places.fetches, "a column scale_m")
        default = fetch or FetchSpec()
        known = {own: own and replace(default, scale_m=own.scale_m) for own in {*places.fetches}}
        fetch = [known[own] or default for own in places.fetches]
    return items, {"temporal": temporal, "fetch": fetch, "shape": places.shapes}, notes


def _check_used(name: str, kind: type, stated: Any, own: list[Any], columns: str) -> None:
    if stated is not None and (not isinstance(stated, kind) or None not in own):
        raise SpecError(
            f"got {name} with {columns} that state it for each place, expected one of them; leave "
            f"{name} out, or drop or rename the columns"
        )


def _is_geometry(value: Any) -> bool:
    if isinstance(value, BBox | PointBuffer):
        return False
    return isinstance(value, Mapping | Places) or hasattr(value, "__geo_interface__")
