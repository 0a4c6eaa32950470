"""Embeddings of one place as a series along time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.arguments import time_stated
from rs_embed.embedding.comparing import check_same_place
from rs_embed.embedding.provenance import source_addresses, time_span
from rs_embed.embedding.result import Embedding
from rs_embed.errors import SpecError, give_warnings
from rs_embed.files.dates import in_utc

if TYPE_CHECKING:
    import xarray as xr


def stack(embeddings: Iterable[Embedding], *, times: Sequence[Any] | None = None) -> xr.DataArray:
    """Return the embeddings of one place at several times as one array, sorted by time.

    Parameters
    ----------
    embeddings : iterable of Embedding
        Vectors or grids of the same pixels, made with the same weights and options, such as
        ``get_embeddings_batch("scalemae", imageries=[...])``.
    times : sequence, optional
        The time of each (text as in ISO 8601, date, datetime, numpy.datetime64), if the imagery
        does not state it, or other times are wanted.

    Returns
    -------
    xarray.DataArray
        ``(time, d)`` of vectors or ``(time, d, y, x)`` of grids, float32, in UTC. Of imagery of
        several times, and of a period without stated times, ``time`` is the first and the
        coordinate ``end`` the last one. ``imagery`` is where the pixels are from, ``meta`` the meta
        of each embedding as JSON text, so that ``change(series[0], series[1])`` works.

    Raises
    ------
    SpecError
        If nothing is given, one of them is an error or has no time, two have the same time,
        or they differ in place, pixels, weights or options.

    Warns
    -----
    RsEmbedWarning
        If they may have been made with other weights, bands or versions of rs_embed.
    """
    import xarray as xr

    given = list(embeddings)
    for number, one in enumerate(given):
        if not isinstance(one, Embedding):
            raise SpecError(
                f"got {type(one).__name__} as number {number} ({one!s:.200}), expected an "
                "Embedding; leave it out: [e for e in embeddings if isinstance(e, Embedding)]"
            )
    if not given:
        raise SpecError("got no embeddings, expected at least one")
    notes = []
    for number, one in enumerate(given[1:], 1):
        notes += check_same_place(one.meta, given[0].meta, (f"embedding {number}", "embedding 0"))
        if one.shape != given[0].shape:
            raise SpecError(
                f"got embedding {number} of shape {one.shape}, expected {given[0].shape} as that "
                "of embedding 0"
            )
    spans = _spans(given, times)
    order = sorted(range(len(given)), key=lambda at: spans[at])
    for before, after in pairwise(order):
        if spans[before][0] == spans[after][0]:
            raise SpecError(
                f"got embeddings {before} and {after} of the same time {spans[after][0]}, expected "
                "one of each; leave one out, or state times=[...]"
            )
    give_warnings(dict.fromkeys(notes))
    first = given[0].data
    if isinstance(first, np.ndarray):
        first = xr.DataArray(first, dims="d", coords={"d": np.arange(len(first))})
    values = np.stack([np.asarray(given[at]) for at in order])
    coords = {name: first.coords[name] for name in first.coords}
    shown: dict[str, Any] = {
        # In UTC, as NumPy and CF have it: without a zone.
        **{
            name: np.array([of[at].replace(tzinfo=None) for at in order], "datetime64[ns]")
            for name, of in zip(("time", "end"), zip(*spans, strict=True), strict=True)
        },
        "imagery": [", ".join(source_addresses(given[at].meta)) for at in order],
        "meta": [json.dumps(given[at].meta) for at in order],
    }
    along = {name: ("time", held) for name, held in shown.items()}
    series = xr.DataArray(values, coords | along, ("time", *first.dims), "embedding")
    return series.assign_attrs(first.attrs)


def _spans(given: list[Embedding], times: Sequence[Any] | None) -> list[tuple[datetime, datetime]]:
    """Return first and last time of each embedding."""
    if times is not None:
        if len(times) != len(given):
            raise SpecError(
                f"got {len(times)} times for {len(given)} embeddings, expected one for each"
            )
        if len({time.tzinfo is None for time in times if isinstance(time, datetime)}) == 2:
            raise SpecError("got times with and without a time zone; state all of them in UTC")
        stated = [time_stated("times", time) for time in times]
        return list(zip(stated, stated, strict=True))
    spans = [time_span(one.meta) for one in given]
    unknown = [str(number) for number, (time, _) in enumerate(spans) if time is None]
    if unknown:
        raise SpecError(
            f"got embeddings without a time (numbers from 0: {', '.join(unknown)}), since their "
            "imagery states none; state one for each of them all: times=['2018-07-25', ...]"
        )
    return [(in_utc(first), in_utc(last)) for first, last in spans if first and last]
