"""Tables of places on a page: where they are, what is known of them, their vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.comparing import VECTOR_KEYS
from rs_embed.errors import CoverageWarning, Note, SpecError, some
from rs_embed.explorer.site import write_json
from rs_embed.explorer.thumbnails import save_thumbnails, thumbnails_of
from rs_embed.explorer.vectors import ROWS, Basis
from rs_embed.tables.columns import common_meta
from rs_embed.tables.nearest import degrees
from rs_embed.tables.picture import meta_of, result_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Long text that is of use to programs alone.
_HIDDEN = ("meta", "fingerprint", "error")


@dataclass(frozen=True, eq=False)
class PlaceLayer:
    """The places of a table that have an embedding; ``rows`` are their numbers in it."""

    table: Any
    rows: NDArray[np.intp]
    lon: NDArray[np.float64] = field(repr=False)
    lat: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, table: Any) -> PlaceLayer:
        """Return the places; `SpecError` for a table without any geometry."""
        lon, lat = degrees(table, "a table to explore", "; embed the places again with geometry")
        known = np.isfinite(table.embeddings).all(axis=1) if len(table.embeddings) else []
        rows = np.flatnonzero(known)
        return cls(table, rows, lon[rows], lat[rows])

    def meta(self) -> dict[str, Any]:
        """Return how all embeddings were made; `SpecError` if some were made otherwise."""
        row = int(self.rows[0])
        meta, shared = meta_of(self.table, row), getattr(self.table, "meta", None)
        shared = shared or common_meta(meta_of(self.table, int(row)) for row in self.rows)
        mixed = [key for key in VECTOR_KEYS if key in meta and key not in shared]
        if mixed:
            raise SpecError(
                f"got a table whose embeddings were made with several values of {some(mixed)}, "
                f"expected one: the place {self.table.ids[row]!r} has {mixed[0]}="
                f"{meta[mixed[0]]!r}; explore those that were made alike"
            )
        return shared

    def notes(self) -> list[Note]:
        """Return a warning if places are left out or have no position."""
        missing, lost = len(self.table.ids) - len(self.rows), int(np.isnan(self.lon).sum())
        total = len(self.table.ids)
        messages = (
            (missing, f"places left out, since they have no embedding: {missing} of {total}"),
            (lost, f"places that are searched, but have no geometry to show: {lost} of {total}"),
        )
        return [Note(message, CoverageWarning) for count, message in messages if count]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all vectors in blocks ``(n, d)``."""
        for start in range(0, len(self.rows), ROWS):
            yield self.table.embeddings[self.rows[start : start + ROWS]]

    def thumbnails(self, imagery: Any) -> tuple[NDArray[np.uint8] | None, list[Note]]:
        """Return a small picture of each place, if there are any, and notes."""
        return thumbnails_of([meta_of(self.table, int(row)) for row in self.rows], imagery)

    def write(
        self, folder: Path, basis: Basis, thumbnails: NDArray[np.uint8] | None
    ) -> dict[str, Any]:
        """Write vectors, colours and places to ``folder/data``; return what the page reads."""
        names = {"vectors": "data/0.vectors.i8", "places": "data/places.json"}
        colours = "data/colours.u8"
        with (folder / names["vectors"]).open("wb") as held, (folder / colours).open("wb") as rgb:
            for rows in self.blocks():
                held.write(basis.int8(rows).tobytes())
                rgb.write(basis.rgb(rows).tobytes())
        write_json(folder / names["places"], self._places())
        layer = {
            "name": "places", "count": len(self.rows), "vectors": names["vectors"],
            "cells": None, "grid": None, "pca": None, "image": None,
        }  # fmt: skip
        return {
            "layers": [layer], "places": names["places"], "pca_colours": colours,
            "thumbnails": None if thumbnails is None else save_thumbnails(thumbnails, folder),
        }  # fmt: skip

    def _places(self) -> dict[str, Any]:
        """Return ids, positions and columns, one value for each place."""
        frame = self.table.frame.iloc[self.rows]
        hidden = {result_name(name, self.table.frame) for name in _HIDDEN}
        shapes = {name for name in frame.columns if frame[name].dtype == "geometry"}
        columns = {
            str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist()
            for name in frame.columns
            if name not in hidden | shapes
        }
        ids = [self.table.ids[row] for row in self.rows]
        return {"id": ids, "lon": self.lon, "lat": self.lat, "columns": columns}
