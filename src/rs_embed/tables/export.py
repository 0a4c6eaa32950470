"""A table of embeddings in memory: read from a file, or made from places."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed.embedding.kept import KeptModel
from rs_embed.errors import (
    ExportError,
    Note,
    RsEmbedError,
    RsEmbedWarning,
    SpecError,
    give_warnings,
    some,
)
from rs_embed.files.columns import free_name
from rs_embed.files.place_tables import Places, places_of
from rs_embed.files.vectors import read_vectors
from rs_embed.printable import excerpt, html_text
from rs_embed.runs.journal import JournalResult
from rs_embed.runs.remote import destination
from rs_embed.runs.run import kept_in, partial_path
from rs_embed.tables.batch import asked_of, check_known, digests, export_batch, place_of_key
from rs_embed.tables.columns import (
    column_names,
    common_meta,
    of_names,
    require,
    result_columns,
    stored_vectors,
    with_ids,
)
from rs_embed.tables.formats import TABLES

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from pandas import DataFrame

    from rs_embed import Explorer


# In a notebook.
_SHOWN_ROWS = 5


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddingTable:
    """Places with their embeddings, in the order of the places.

    Attributes
    ----------
    ids : list of int or str
        Names of the places.
    embeddings : numpy.ndarray
        ``(N, D)`` float32; NaN where the place failed.
    frame : geopandas.GeoDataFrame
        The columns of the places, unchanged, and what is known of each result: ``start``, ``end``
        and ``datetime`` of the imagery, ``item_ids``, ``input_res_m``, ``valid_fraction``,
        ``coverage``, ``fingerprint``, ``meta`` (JSON) and ``error``; with ``emb_`` before the name
        where the places have such a column.
    errors : dict
        Id -> reason of the places that failed.
    meta : dict
        The provenance that all embeddings share.
    missing : int or None
        Places that an unfinished run has not reached, of those with which it began; None if it
        does not say.
    """

    ids: list[Any]
    embeddings: NDArray[np.float32]
    frame: GeoDataFrame
    errors: dict[Any, str]
    meta: dict[str, Any] = field(default_factory=dict)
    missing: int | None = 0

    @classmethod
    def of(
        cls,
        frame: GeoDataFrame,
        ids: Sequence[int | str],
        results: Iterable[Any],
        *,
        missing: int | None = 0,
    ) -> EmbeddingTable:
        """Return the table of places and what came of them.

        Parameters
        ----------
        frame : geopandas.GeoDataFrame
            The places.
        ids : sequence
            Their names.
        results : iterable of Embedding or RsEmbedError
            One for each, as `iter_embeddings` yields them; or what a run has kept.
        missing : int or None
            See `EmbeddingTable`.
        """
        rows = [_row(result) for result in results]
        done = [row for row in rows if row.vector is not None]
        common = common_meta(row.meta or {} for row in done)
        width = next((row.vector.size for row in done if row.vector is not None), 0)
        names = column_names(frame.columns)
        table = require("pyarrow").table(result_columns(rows, width, "float32", common))
        emb = {"dimensions": width, "columns": {"embedding": "embedding"}}
        added = table.drop_columns("embedding").to_pandas()
        # By position: labels of rows need not be unique.
        joined = frame.assign(**{names[name]: added[name].array for name in added})
        errors = {i: row.error for i, row in zip(ids, rows, strict=True) if row.error is not None}
        return cls(list(ids), stored_vectors(table, emb), joined, errors, common, missing)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        counts = [f"{len(self)} places", f"{self.embeddings.shape[1]} dimensions"]
        if self.errors:
            counts.append(f"{len(self.errors)} failed")
        if self.missing != 0:
            counts.append(_missing(self.missing))
        stated = [f"{key} {self.meta[key]}" for key in ("model", "weights") if key in self.meta]
        lines = [f"EmbeddingTable: {', '.join(counts)}", *([", ".join(stated)] if stated else [])]
        lines.append(f"columns {some(list(map(str, self.frame.columns)), 16)}")
        lines += [f"failed {excerpt(str(i))}: {e}" for i, e in list(self.errors.items())[:3]]
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        first = self.frame.drop(columns="meta", errors="ignore").head(_SHOWN_ROWS)
        return html_text(repr(self)) + str(first.to_html(max_cols=16))

    def explore(self, output: str | os.PathLike[str] | None = None, **options: Any) -> Explorer:
        """Write a page to look at the table in a browser; see `rs_embed.explore`."""
        import rs_embed

        return rs_embed.explore(self, output=output, **options)

    def to_geodataframe(self) -> GeoDataFrame:
        """Return ``frame`` with a column ``embedding``: an array for each place, None if it failed.

        It is called ``emb_embedding`` if the places have a column of that name.
        """
        cells = np.empty(len(self), object)
        for number, vector in enumerate(self.embeddings):
            cells[number] = None if np.isnan(vector).all() else vector
        return self.frame.assign(**{free_name("embedding", self.frame.columns): cells})

    def to_pandas(self) -> DataFrame:
        """Return ``frame`` without geometry, and columns ``embedding_0``, ``embedding_1``, ..."""
        pandas = require("pandas")
        name = free_name("embedding", self.frame.columns)
        names = [f"{name}_{number}" for number in range(self.embeddings.shape[1])]
        vectors = pandas.DataFrame(self.embeddings, columns=names)
        shapes = self.frame.columns[self.frame.dtypes == "geometry"]
        plain = pandas.DataFrame(self.frame.drop(columns=shapes)).reset_index(drop=True)
        return plain.join(vectors).set_index(self.frame.index)


def _row(result: Any) -> JournalResult:
    if isinstance(result, JournalResult):
        return result
    if isinstance(result, RsEmbedError):
        return JournalResult("", None, error=str(result))
    return JournalResult("", result.data, result.meta)


def _missing(count: int | None) -> str:
    return "an unknown number missing" if count is None else f"{count} missing"


def embed_table(
    model: str | KeptModel,
    places: Any,
    *,
    buffer_m: float | None = None,
    id_column: str | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
    pooling: Literal["mean", "max", "cls"] | None = None,
    on_error: Literal["raise", "return"] = "return",
    progress: bool | None = None,
    **arguments: Any,
) -> EmbeddingTable:
    """Return places with their embeddings: places in, the same table out.

    Everything is in memory; `export_batch` writes a file, and can be interrupted.

    Parameters
    ----------
    model, places, buffer_m, id_column, layer, polygons, pooling, progress, **arguments
        As for `export_batch`.
    on_error : {"raise", "return"}
        Whether the first place that fails ends it, or becomes a row of NaN with its error.

    Raises
    ------
    RsEmbedError
        As for `export_batch`.

    Warns
    -----
    RsEmbedWarning
        If places failed; and those of `iter_embeddings`.

    Examples
    --------
    >>> from rs_embed import NamedPlace, PointBuffer, embed_table
    >>> farm = NamedPlace("farm", PointBuffer(-75.62, 37.694, buffer_m=640))
    >>> table = embed_table("scalemae", [farm], backend="sample", variant="tiny")
    >>> table.embeddings.shape, table.frame.id.tolist()
    ((1, 192), ['farm'])
    """
    for name in arguments.keys() & set(inspect.signature(export_batch).parameters):
        raise SpecError(
            f"got {name}= for embed_table, which makes its table in memory and here; use "
            "export_batch(..., output='embeddings.parquet'), and load_export to read it"
        )
    check_known(model, arguments)
    rows = places_of(places, buffer_m=buffer_m, id_column=id_column, layer=layer, polygons=polygons)
    asked = asked_of(model, rows, pooling, arguments, of_names(rows.frame.columns))
    results = asked.results(range(len(rows)), on_error=on_error, progress=progress)
    frame, _ = with_ids(rows.frame, rows.ids, rows.id_column)
    table = EmbeddingTable.of(frame, rows.ids, results)
    if asked.warnings:
        table.meta["place_warnings"] = list(asked.warnings)
    if table.errors:
        failed = some([excerpt(str(name)) for name in table.errors])
        message = f"{len(table.errors)} of {len(table)} places failed: {failed}; see .errors"
        give_warnings([Note(message, RsEmbedWarning)])
    return table


def load_export(path: str | os.PathLike[str], *, places: Any = None) -> EmbeddingTable:
    """Return the table that `export_batch` or ``rs-embed batch`` wrote, in the order of its places.

    Parameters
    ----------
    path : path or URL
        A ``.parquet``, ``.csv`` or ``.npz``, also on an object store. If only ``<path>.partial``
        exists, or that is the path, it is what an unfinished run has kept until now: without the
        columns of the places, and in the order in which they were embedded.
    places : object, optional
        The places of an unfinished run, as `places_of` takes or returns them: their columns are
        then there, in their order. What has moved since is missing.

    Raises
    ------
    UnknownNameError
        If its suffix is not one of a table.
    ExportError
        If it cannot be read, is not such a table, or is in use by a run.
    MissingDependencyError
        If the extra ``tables`` is not installed.

    Warns
    -----
    RsEmbedWarning
        If it is unfinished: how many places are missing.
    """
    address = os.fspath(path)
    suffix = ".partial" if address.endswith(".partial") else ""
    with destination(address.removesuffix(suffix), TABLES) as target:
        path = target.path.with_name(target.path.name + suffix)
        return _loaded(path, f"{target.shown}.partial", places)


def _loaded(path: Path, shown: str, places: Any) -> EmbeddingTable:
    """Return the table at ``path``; ``shown`` is the name of what an unfinished run has kept."""
    if path.suffix == ".partial" or not path.exists():
        partial = path if path.suffix == ".partial" else partial_path(path)
        if partial.exists():
            return _unfinished(partial, shown, places)
    form = TABLES.of(path)
    form.require()
    if form.read is None:
        return _of_vectors(path)
    embeddings, frame, emb = form.read(path)
    names = emb["columns"]
    order = np.argsort(frame[names["input_row"]].to_numpy(), kind="stable")
    frame = frame.iloc[order].drop(columns=names["input_row"]).reset_index(drop=True)
    ids, reasons = frame[emb["id_column"]].tolist(), frame[names["error"]]
    errors = {ids[row]: str(reasons[row]) for row in np.flatnonzero(reasons.notna())}
    return EmbeddingTable(ids, embeddings[order], frame, errors, emb["meta"])


def _of_vectors(path: Path) -> EmbeddingTable:
    geopandas = require("geopandas")
    found = read_vectors(path)
    shapes = geopandas.points_from_xy(found.lon, found.lat)
    frame = geopandas.GeoDataFrame({"id": found.id.tolist()}, geometry=shapes, crs=4326)
    rows = zip(found.ok, found.embedding, found.meta, found.error, strict=True)
    results = [
        JournalResult("", vector, json.loads(meta)) if ok else JournalResult("", None, error=error)
        for ok, vector, meta, error in rows
    ]
    return EmbeddingTable.of(frame, frame.id.tolist(), results)


def _unfinished(partial: Path, shown: str, places: Any) -> EmbeddingTable:
    shared, kept = kept_in(partial)
    if not kept:
        raise ExportError(f"{partial} has no results yet; run the command again")
    try:
        done = {place_of_key(result.key): result for result in kept}
    except (LookupError, TypeError, ValueError) as exc:
        raise ExportError(f"{partial} is not that of a table of places ({exc})") from exc
    total = shared.get("places")
    missing = None if total is None else max(0, total - len(kept))
    if places is None:
        ids, spatials, _ = map(list, zip(*done, strict=True))
        rows = Places(require("pandas").DataFrame({"id": ids}), ids, "id", spatials)
        found = dict(enumerate(kept))
    else:
        rows = places_of(places)
        shapes = [None] * len(rows) if rows.shapes is None else digests(rows.shapes)
        keys = enumerate(zip(map(str, rows.ids), rows.spatials, shapes, strict=True))
        found = {number: done[key] for number, key in keys if key in done}
        missing = len(rows) - len(found)
    message = f"{shown} is unfinished: {len(found)} places, {_missing(missing)}; run it again"
    give_warnings([Note(message, RsEmbedWarning)])
    frame, _ = with_ids(rows.frame, rows.ids, rows.id_column)
    ids = [rows.ids[number] for number in found]
    return EmbeddingTable.of(frame.iloc[list(found)], ids, found.values(), missing=missing)
