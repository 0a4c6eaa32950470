"""Tables of embeddings in GeoParquet 1.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.addresses import check_regular
from rs_embed.errors import ExportError
from rs_embed.files.formats import UNREADABLE, unreadable
from rs_embed.files.writing import written
from rs_embed.tables.columns import TableContent, covering, require, stored_vectors
from rs_embed.tables.summary import EMB_KEY, WRITER

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

_GROUP_BYTES = 128 * 2**20
# What a row takes beside its vector, roughly.
_OTHER_BYTES = 1024


def write_parquet(path: Path, content: TableContent) -> None:
    """Write a table in row groups of about 128 MiB, compressed with ZSTD.

    The same content gives the same bytes. Memory holds one row group. The file appears whole or
    not at all.

    Raises
    ------
    ExportError
        If the file cannot be written, or ``dtype`` cannot hold the values.
    """
    emb = content.emb or {}
    names, row_bytes = emb["columns"], emb["dimensions"] * np.dtype(emb["dtype"]).itemsize
    schema = content.part(slice(0)).schema
    # Vectors do not repeat: a dictionary of them would only take space.
    repeating = [name for name in schema.names if name != names["embedding"]]
    repeating.append(f"{names['item_ids']}.list.element")
    writing = {"compression": "zstd", "use_dictionary": repeating}
    with (
        written(path, alone=True) as partial,
        partial.open("wb") as file,
        require("pyarrow.parquet").ParquetWriter(file, schema, **writing) as writer,
    ):
        for table in content.tables(_GROUP_BYTES // (row_bytes + _OTHER_BYTES)):
            writer.write_table(table, row_group_size=len(table))
            del table  # before the next one is made


def emb_of(path: Path) -> dict[str, Any]:
    """Return what a file of `write_parquet` says of itself; `ExportError` for other files."""
    try:
        check_regular(path)
        metadata = require("pyarrow.parquet").read_schema(path).metadata or {}
        emb = metadata.get(EMB_KEY.encode())
        found = None if emb is None else dict(json.loads(emb))
    except (OSError, *UNREADABLE) as exc:
        raise unreadable(path, exc, WRITER) from exc
    if found is None or b"geo" not in metadata:
        lost = "how its embeddings were made" if found is None else "where its geometry is"
        raise ExportError(
            f"cannot read {path}: it does not state {lost}, expected a file of {WRITER} as that "
            "wrote it; pandas and geopandas leave this out when they save it again. Add columns, "
            "such as labels, to the places before the run, or in Python to load_export(path).frame"
        )
    return found


def read_parquet(path: Path) -> tuple[NDArray[np.float32], GeoDataFrame, dict[str, Any]]:
    """Return vectors, the other columns, and what the file says of itself, in its order."""
    pq, emb = require("pyarrow.parquet"), emb_of(path)
    try:
        own = [emb["columns"].get(name) for name in ("embedding", "embedding_scale")]
        table = pq.read_table(path, columns=[name for name in own if name is not None])
        schema = pq.read_schema(path)
        others = [name for name in schema.names if name not in [*own, *covering(schema, emb)]]
        frame = require("geopandas").read_parquet(path, columns=others)
        return stored_vectors(table, emb), frame, emb
    except (OSError, *UNREADABLE) as exc:
        raise unreadable(path, exc, WRITER) from exc
