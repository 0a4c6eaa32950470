"""Maps as layers of a page: their vectors, cells and colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rs_embed.errors import SpecError, give_warnings
from rs_embed.explorer.vectors import ROWS, Basis
from rs_embed.files.grids import north_up
from rs_embed.maps.dates import Date, check_alike, date_of
from rs_embed.maps.sampling import placed_map, valid_cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.grid import Grid

# What one picture of a browser may have.
_MOST_SIDE, _MOST_CELLS = 16_384, 2**26
_NAMES = ("first map", "second map")


@dataclass(frozen=True, eq=False)
class Layer:
    """A map of one date.

    Attributes
    ----------
    date : Date
        Its tokens, row 0 north, and how they were made.
    stem : str
        Name of its file, if it has one.
    known : numpy.ndarray
        ``(rows, columns)`` bool: the cells that have a token, found while they are read.
    """

    date: Date
    stem: str
    known: NDArray[np.bool_] = field(repr=False)

    @property
    def grid(self) -> Grid:
        """The grid of the tokens."""
        return self.date.placed.grid

    @property
    def name(self) -> str:
        """Its days, or the name of its file."""
        return str(self.date.summary()["days"] or self.stem or self.date.name)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all tokens in blocks ``(n, d)``."""
        for cells, tokens in self._cells():
            self.known[cells] = True
            yield tokens

    def _cells(self) -> Iterator[tuple[Any, NDArray[Any]]]:
        """Yield rows and columns of cells, and their tokens, by blocks."""
        for (rows, columns), tokens in valid_cells(self.date.placed):
            for start in range(0, len(tokens), ROWS):
                part = slice(start, start + ROWS)
                yield (rows[part], columns[part]), tokens[part]

    def write(self, folder: Path, number: int, basis: Basis) -> dict[str, Any]:
        """Write vectors, cells and colours to ``folder/data``; return what the page reads."""
        rows, columns = self.grid.shape
        vectors, cells, pca = (
            f"data/{number}.{name}" for name in ("vectors.i8", "cells.u32", "pca.png")
        )
        count = int(np.count_nonzero(self.known))
        places = np.cumsum(self.known, dtype=np.int64).reshape(self.grid.shape) - 1
        held = np.memmap(folder / vectors, np.int8, "w+", shape=(count, basis.dimensions))
        picture = np.zeros((rows, columns, 4), np.uint8)
        for at, tokens in self._cells():
            held[places[at]] = basis.int8(tokens)
            picture[at] = np.insert(basis.rgb(tokens), 3, 255, axis=1)
        held.flush()
        Image.fromarray(picture).save(folder / pca)
        if count < self.known.size:
            np.flatnonzero(self.known).astype("<u4").tofile(folder / cells)
        return {
            "name": self.name,
            "count": count,
            "vectors": vectors,
            "cells": cells if count < self.known.size else None,
            "grid": {
                "transform": list(self.grid.transform)[:6],
                "rows": rows,
                "columns": columns,
            },
            "pca": pca,
        }


def layers_of(sources: Sequence[Any]) -> list[Layer]:
    """Return one or two maps as layers, checked to be of one grid and made alike.

    Raises
    ------
    SpecError
        If one is not a map with a CRS, the second has another grid, model or weights, or a
        browser cannot show so many cells.
    ExportError
        If a file cannot be read.
    """
    dates = [date_of(one, name) for one, name in zip(sources, _NAMES, strict=False)]
    for date in dates:
        height, width = date.placed.grid.shape
        if max(height, width) > _MOST_SIDE or height * width > _MOST_CELLS:
            raise SpecError(
                f"got a {date.name} of {height} x {width} cells, {height * width * 4 / 1e6:,.0f} "
                f"MB as a picture, expected at most {_MOST_CELLS * 4 / 1e6:,.0f} MB and "
                f"{_MOST_SIDE} cells a side; cut a part out of it, or embed it with a larger "
                "stride_px"
            )
    notes = [note for date in dates[1:] for note in check_alike(date, dates[0])]
    bases = {date.placed.array.attrs.get("pca") for date in dates}
    if len(bases) > 1:
        raise SpecError(
            "got maps with principal components of different bases, expected one: each map has its "
            "own PCA; explore what they are restored to, in Python: explore(restored(open_map(a)), "
            "restored(open_map(b)))"
        )
    give_warnings(notes)
    return [
        Layer(
            replace(date, placed=placed_map(north_up(date.placed.array))),
            _stem(source),
            np.zeros(date.placed.grid.shape, np.bool_),
        )
        for date, source in zip(dates, sources, strict=True)
    ]


def _stem(source: Any) -> str:
    return PurePath(source).stem if isinstance(source, str | PurePath) else ""
