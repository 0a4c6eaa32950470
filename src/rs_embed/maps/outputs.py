"""Check where results go before the long work: every kind of file that rs_embed writes."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

from rs_embed.addresses import path_of
from rs_embed.errors import SpecError, UnknownNameError
from rs_embed.files.formats import PICTURES, PLOTS, REPORTS, Formats
from rs_embed.files.grids import GRIDS
from rs_embed.files.vectors import MANY_VECTORS, ONE_VECTOR
from rs_embed.files.writing import check_place
from rs_embed.maps.formats.table import MAPS
from rs_embed.network.stores import is_store

OutputKind = Literal["vector", "vectors", "grid", "map", "picture", "plot", "report"]
_FORMATS: dict[str, Formats[Any]] = {
    "vector": ONE_VECTOR,
    "vectors": MANY_VECTORS,
    "grid": GRIDS,
    "map": MAPS,
    "picture": PICTURES,
    "plot": PLOTS,
    "report": REPORTS,
}
# Kinds that keep unfinished work beside the output.
_RESUMED = ("vectors", "map")


def check_output(path: str | os.PathLike[str], kind: OutputKind) -> None:
    """Raise now what writing a result to ``path`` would raise later.

    Nothing is written. A disk that fills up meanwhile is noticed when the result is written.

    Parameters
    ----------
    path : path
        File or folder to write.
    kind : {"vector", "vectors", "grid", "map", "picture", "plot", "report"}
        What it will hold: one vector or a token grid (``Embedding.save``), the vectors of many
        places (``rs-embed batch``), a map (`embed_area`), a picture (``.png``), a plot (``.png``,
        ``.svg``, ``.pdf``), or a report (``.json``).

    Raises
    ------
    SpecError
        If ``path`` is not a path; `UnknownNameError` if there is no such kind, or none of its
        formats has the suffix.
    ExportError
        If the folder does not exist or cannot be written, or ``path`` must not be replaced: a
        folder, or an image or store that is not a map of rs_embed.
    MissingDependencyError
        If a package of the format is not installed.
    """
    if kind not in get_args(OutputKind):
        raise UnknownNameError.among("kind of output", kind, get_args(OutputKind))
    if not isinstance(path, str | os.PathLike):
        raise SpecError(f"got {path!r} ({type(path).__name__}), expected a path")
    if is_store(path) and kind in _RESUMED:
        _FORMATS[kind].check_address(path)
        return
    target = path_of(path)
    _FORMATS[kind].check(target)
    if kind in _RESUMED:
        check_place(target.with_name(f"{target.name}.partial"))
