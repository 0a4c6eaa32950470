"""From places as people have them to the arguments of the loop over places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from rs_embed.errors import Note, SpecError, TemporalWarning, give_warnings
from rs_embed.files.place_tables import Places, places_of
from rs_embed.files.places import NamedPlace
from rs_embed.specs import BBox, FetchSpec, PointBuffer, Spatial, TemporalSpec


def one_place(spatial: Any) -> tuple[Spatial | None, Any]:
    """Return the one place that is meant, and the polygon to pool over if it is one."""
    if not _is_geometry(spatial):
        return spatial, None  # checked with the rest of the request
    places = places_of(spatial)
    give_warnings(places.notes)
    if len(places) != 1:
        raise SpecError(
            f"got {len(places)} features as spatial, expected one; use get_embeddings_batch"
        )
    return places.spatials[0], None if places.shapes is None else places.shapes[0]


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
