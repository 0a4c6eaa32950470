"""The columns of a table of embeddings: those of its places, and those of the results."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed import _optional
from rs_embed.embedding.provenance import source_items, time_span
from rs_embed.errors import ExportError, Note, RsEmbedWarning, SpecError
from rs_embed.files.columns import free_name
from rs_embed.geo.polygons import narrowest, require_shapely

if TYPE_CHECKING:
    import pyarrow as pa
    from geopandas import GeoDataFrame, GeoSeries
    from numpy.typing import NDArray

    from rs_embed.runs.journal import JournalResult

DTYPES, ORDERS = ("float32", "float16", "int8"), ("hilbert", "input")
# What a result adds to the columns of its place.
RESULT_COLUMNS = {
    "embedding": "vector; null where the place failed",
    "embedding_scale": "times the embedding: the vector",
    "start": "first time of the imagery; where it states none, start of the requested period",
    "end": "last time of the imagery; where it states none, end of the requested period (excluded)",
    "datetime": "time of the imagery where it has only one",
    "item_ids": "scenes or STAC items that were read",
    "input_res_m": "GSD of the model input, metres",
    "valid_fraction": "part of the pixels that is valid",
    "coverage": "part of the place that the model saw",
    "fingerprint": "hash of everything that determines the vector",
    "meta": "JSON: provenance that is not the same for all rows",
    "error": "the reason, where the place failed",
    "input_row": "number of the place in the input, from 0",
}
require = partial(_optional.require, extra="tables", purpose="a table of embeddings")
# Rows whose meta are in memory at once.
_ROWS_AT_ONCE = 1024


def column_names(taken: Collection[object]) -> dict[str, str]:
    """Return the names that the columns of results get beside others."""
    names: dict[str, str] = {}
    for name in RESULT_COLUMNS:
        names[name] = free_name(name, {*taken, *names.values()})
    return names


def of_names(taken: Collection[object]) -> list[Note]:
    """Return a warning if columns of the places have names of results."""
    other = {name: new for name, new in column_names(taken).items() if new != name}
    message = (
        f"the places have columns {', '.join(other)} of their own, so those of the results are "
        f"{', '.join(other.values())}"
    )
    return [Note(message, RsEmbedWarning)] if other else []


@dataclass(frozen=True, eq=False)
class PlaceColumns:
    """Places, ready to be written.

    ``table`` has their columns in Arrow, with the metadata of GeoParquet; ``crs`` the CRS of each
    geometry, first that of the places; ``rows`` their numbers in the order in which they are
    written; ``bbox`` their west, south, east and north, degrees.
    """

    table: pa.Table
    id_column: str
    crs: dict[str, str | None]
    rows: NDArray[np.int64]
    bbox: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what identifies them: the types of the columns, and a digest of the content."""
        buffer = io.BytesIO()
        plain = self.table.replace_schema_metadata(None)
        with require("pyarrow.ipc").new_stream(buffer, plain.schema) as stream:
            stream.write_table(plain)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        types = {field.name: str(field.type) for field in plain.schema}
        return {"columns": types, "content": f"SHA-256 {digest[:32]}"}


def with_ids(
    frame: GeoDataFrame, ids: Sequence[int | str], id_column: str | None
) -> tuple[GeoDataFrame, str]:
    """Return places with a column of their ids, and its name."""
    if id_column is not None:
        return frame, id_column
    name = free_name("id", frame.columns)
    return frame.assign(**{name: list(ids)}), name


def place_columns(
    frame: GeoDataFrame, ids: Sequence[int | str], id_column: str | None, order: str
) -> PlaceColumns:
    """Return the columns of places; `SpecError` if one cannot be stored, as of mixed types."""
    frame, id_column = with_ids(frame, ids, id_column)
    buffer = io.BytesIO()
    try:
        frame.to_parquet(
            buffer,
            index=False,
            compression=None,
            schema_version="1.1.0",
            write_covering_bbox="bbox" not in frame,
        )
    except (TypeError, ValueError, NotImplementedError) as exc:  # pyarrow's errors are these
        raise SpecError(
            f"got places with a column that cannot be written ({exc}); expected one type in each "
            "column and each name once: convert, rename or drop it"
        ) from exc
    shapes = frame.geometry
    rows = np.arange(len(frame))
    if order == "hilbert":
        known = np.asarray(~(shapes.is_empty | shapes.isna()))
        distance = np.full(len(frame), 2**32)  # the others come last
        distance[known] = shapes[known].hilbert_distance()
        rows = np.argsort(distance, kind="stable")
    names = dict.fromkeys((shapes.name, *frame.columns[frame.dtypes == "geometry"]))
    crs = {name: frame[name].crs for name in names}
    return PlaceColumns(
        require("pyarrow.parquet").read_table(buffer),
        id_column,
        {name: None if known is None else known.to_string() for name, known in crs.items()},
        rows,
        _bbox(shapes),
    )


def _bbox(shapes: GeoSeries) -> tuple[float, float, float, float]:
    """Return west, south, east, north, degrees: across the antimeridian, west is the greater."""
    shapely, degrees = require_shapely(), shapes if shapes.crs is None else shapes.to_crs(4326)
    parts = shapely.get_parts(degrees[~(shapes.is_empty | shapes.isna())].array)
    if not len(parts):
        return (math.nan,) * 4
    west, _, east, _ = shapely.bounds(parts).T
    wide = east - west > 180  # of two coordinates, on both sides of the antimeridian
    parts[wide] = shapely.transform(parts[wide], lambda at: np.stack([at[:, 0] % 360, at[:, 1]], 1))
    west, south, east, north = shapely.bounds(parts).T
    arc = narrowest(west, east)
    return arc[0], float(south.min()), arc[1], float(north.max())


@dataclass(frozen=True, eq=False)
class TableContent:
    """What is written: ids and centres of the places, and ``results(numbers)`` of each.

    ``request`` is what determines the file, as JSON values. Formats that have columns get those of
    the places, and in ``emb`` what the file says of itself, see `tables.summary`.
    """

    ids: Sequence[int | str]
    centres: Sequence[tuple[float, float]]
    results: Callable[[Iterable[int]], Iterator[JournalResult]]
    request: Mapping[str, Any]
    columns: PlaceColumns | None = None
    emb: Mapping[str, Any] | None = None

    def tables(self, count: int) -> Iterator[pa.Table]:
        """Yield the rows in the order in which they are written, ``count`` at a time."""
        concatenated = require("pyarrow").concat_tables
        for start in range(0, len(self.ids), count):
            end = min(start + count, len(self.ids))
            parts = [
                self.part(slice(at, min(at + _ROWS_AT_ONCE, end)))
                for at in range(start, end, _ROWS_AT_ONCE)
            ]
            yield concatenated(parts)

    def part(self, rows: slice) -> pa.Table:
        """Return some of the rows."""
        if self.columns is None or self.emb is None:
            raise TypeError("a format without columns has no rows")
        numbers = self.columns.rows[rows]
        table, emb = self.columns.table.take(numbers), self.emb
        results = list(self.results(numbers.tolist()))
        added = result_columns(results, emb["dimensions"], emb["dtype"], emb["meta"])
        for name, values in {**added, "input_row": numbers}.items():
            table = table.append_column(emb["columns"][name], [values])
        return table.replace_schema_metadata({**table.schema.metadata, "emb": json.dumps(emb)})


def result_columns(
    results: Sequence[JournalResult], width: int, dtype: str, common: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the `RESULT_COLUMNS` of results but for their row, as arrays of Arrow."""
    pa = require("pyarrow")
    ok = np.array([result.vector is not None for result in results], bool)
    stored, scales = _stored(_vectors(results, width), dtype)
    metas = [None if r.vector is None else dict(r.meta or {}) for r in results]
    spans = [time_span(meta or {}) for meta in metas]
    moments = pa.timestamp("us", "UTC")

    def each(value: Callable[[Mapping[str, Any]], Any], kind: Any) -> Any:
        return pa.array([None if meta is None else value(meta) for meta in metas], kind)

    def number(name: str) -> Any:
        return each(lambda m: float(m[name]) if m.get(name) is not None else None, pa.float64())

    def own(meta: Mapping[str, Any]) -> str:
        return json.dumps({k: v for k, v in meta.items() if k not in common or common[k] != v})

    vectors = pa.nulls(len(ok), pa.list_(pa.float32()))
    if width:
        flat = pa.array(stored.ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, width, mask=pa.array(~ok))
    return {
        "embedding": vectors,
        **({} if scales is None else {"embedding_scale": pa.array(scales, mask=~ok)}),
        "start": pa.array([first for first, _ in spans], moments),
        "end": pa.array([last for _, last in spans], moments),
        "datetime": pa.array([first if first == last else None for first, last in spans], moments),
        "item_ids": each(
            lambda m: [str(item.get("id")) for item in source_items(m)], pa.list_(pa.string())
        ),
        **{name: number(name) for name in ("input_res_m", "valid_fraction", "coverage")},
        "fingerprint": each(lambda m: m.get("fingerprint"), pa.string()),
        "meta": each(own, pa.string()),
        "error": pa.array([result.error for result in results], pa.string()),
    }


def _vectors(results: Sequence[JournalResult], width: int) -> NDArray[np.float32]:
    """Return vectors in an array, zero where there is none."""
    vectors = np.zeros((len(results), width), np.float32)
    for row, result in zip(vectors, results, strict=True):
        if result.vector is None:
            continue
        if result.vector.shape != row.shape:
            raise ExportError(
                f"got a vector of shape {result.vector.shape}, expected {row.shape} as before; "
                "embed all places with the same model"
            )
        row[:] = result.vector
    return vectors


def _stored(vectors: NDArray[np.float32], dtype: str) -> tuple[NDArray[Any], Any]:
    """Return vectors as they are stored, and the scale of each row of int8."""
    if dtype == "int8":
        scales = np.abs(vectors).max(axis=1, initial=0) / np.float32(127)
        return np.rint(vectors / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8), scales
    with np.errstate(over="ignore"):
        stored = vectors.astype(dtype)
    if dtype == "float16" and not np.isfinite(stored).all():
        raise ExportError(
            f"got values up to {np.abs(vectors).max():g}, which float16 cannot hold; the same "
            "call with dtype='float32' or 'int8' (--dtype) writes the results that are kept"
        )
    return stored, None


def stored_vectors(table: pa.Table, emb: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the vectors of a table, NaN where there is none."""
    names, count = emb["columns"], len(table)
    vectors = np.full((count, emb["dimensions"]), np.nan, np.float32)
    column = table[names["embedding"]]
    ok = column.is_valid().to_numpy()
    if ok.any():
        vectors[ok] = column.combine_chunks().flatten().to_numpy().reshape(-1, emb["dimensions"])
    if "embedding_scale" in names:
        vectors *= table[names["embedding_scale"]].to_numpy()[:, None]
    return vectors


def covering(table: pa.Table | pa.Schema, emb: Mapping[str, Any]) -> list[str]:
    """Return the column of bounding boxes that GeoParquet has beside the geometry, if any."""
    geo = json.loads((getattr(table, "schema", table)).metadata[b"geo"])["columns"]
    return ["bbox"] if "covering" in geo[next(iter(emb["crs"]))] else []


def common_meta(metas: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all metas share, also within their objects."""
    common: dict[str, Any] | None = None
    for meta in metas:
        common = dict(meta) if common is None else _shared(common, meta)
    return common or {}


def _shared(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    shared = {}
    for key in (key for key in one if key in other):
        if one[key] == other[key]:
            shared[key] = one[key]
        elif isinstance(one[key], dict) and isinstance(other[key], dict):
            shared[key] = _shared(one[key], other[key])
    return shared
