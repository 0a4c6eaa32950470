"""A summary of all finished windows of a map, gathered one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed import errors
from rs_embed.embedding.input_colours import colour_meta
from rs_embed.errors import Note

if TYPE_CHECKING:
    from rs_embed.geo.tiling import Tile

_NOTES = "notes"
# Key of what is the same for all windows: where they are.
LAYOUT = "layout"


@dataclass(frozen=True, eq=False)
class SeenWindows:
    """The finished windows of a map.

    Attributes
    ----------
    count : int
        Windows that the model saw; the others have no valid pixel.
    gsd_m, input_res : list of float
        Least and greatest, metres; empty if the model saw none.
    items : list of dict
        Scenes used, each once, oldest first.
    notes : tuple of Note
        Warnings to give, each once.
    sha256 : str
        Digest of the pixels and the ``input_res`` that the model got.
    colours : dict
        ``input_mean`` and ``input_std``; empty if unknown.
    """

    count: int
    gsd_m: list[float]
    input_res: list[float]
    items: list[dict[str, Any]]
    notes: tuple[Note, ...]
    sha256: str
    colours: dict[str, list[float]]


def window_key(tile: Tile) -> str:
    """Return the name under which a window is kept."""
    return f"{tile.rows.start} {tile.columns.start}"


def seen_windows(metas: Iterable[tuple[str, Mapping[str, Any]]]) -> SeenWindows:
    """Return the summary of finished windows: keys and metas in the order of the layout."""
    count = 0
    gsd_m: list[float] = []
    input_res: list[float] = []
    items: dict[str, dict[str, Any]] = {}
    notes: dict[str, Note] = {}
    digest = hashlib.sha256()
    total: Any = 0
    for key, meta in metas:
        for category, message in meta.get(_NOTES, ()):
            notes.setdefault(message, Note(message, getattr(errors, category)))
        if "seen_sha256" in meta:
            count += 1
            if "moments" in meta:  # earlier versions kept none
                total = total + np.array(meta["moments"])
            gsd_m = _widened(gsd_m, meta["gsd_m"])
            input_res = _widened(input_res, meta["input_res"])
            items.update((item["id"], item) for item in meta["items"])
            digest.update(f"{key} {meta['input_res']!r} {meta['seen_sha256']}\n".encode())
    oldest_first = sorted(
        items.values(), key=lambda item: (str(item.get("acquired")), str(item.get("id")))
    )
    return SeenWindows(
        count,
        gsd_m,
        input_res,
        oldest_first,
        tuple(notes.values()),
        digest.hexdigest(),
        colour_meta(total) if np.ndim(total) else {},
    )


def window_meta(meta: Mapping[str, Any], notes: Sequence[Note]) -> dict[str, Any]:
    """Return the meta of a window with its warnings, as JSON values."""
    listed = [[note.category.__name__, note.message] for note in notes]
    return {**meta, _NOTES: listed} if listed else dict(meta)


def _widened(bounds: list[float], value: float) -> list[float]:
    return [min([value, *bounds]), max([value, *bounds])]
