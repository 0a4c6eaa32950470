"""Embeddings from elsewhere: a Parquet or GeoParquet file."""

from __future__ import annotations

import os
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.addresses import check_regular
from rs_embed.datasets.samples import SPLITS, held_out
from rs_embed.errors import DatasetError
from rs_embed.evaluation.selection import Known

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".geoparquet", ".parquet", ".pq")
_PURPOSE = "reading a table of embeddings"
COLUMNS = ("embedding", "label", "split")


def read_table(
    path: str | os.PathLike[str], columns: tuple[str, str, str] = COLUMNS
) -> tuple[NDArray[np.float32], list[Known]]:
    """Return the vectors of a table, ``(N, D)``, and the name, label and split of each.

    ``columns`` are the names of the columns of the embedding (a list of numbers), the label (text
    or a number) and the split. Without splits the last rows of each class are ``"val"``.

    Raises
    ------
    DatasetError
        If it cannot be read, a column is missing or of another kind, or vectors are missing, of
        different lengths or not finite.
    MissingDependencyError
        If pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", extra="train", purpose=_PURPOSE)
    arrow = require("pyarrow", extra="train", purpose=_PURPOSE)
    shown, (vectors, label, split) = os.fspath(path), columns
    try:
        check_regular(shown)
        names = parquet.read_schema(shown).names
        absent = [name for name in (vectors, label) if name not in names]
        if absent:
            raise DatasetError(
                f"{shown!r} has no column {' and '.join(map(repr, absent))}, expected the columns "
                f"{', '.join(columns)}; it has {', '.join(names)}: name them with columns"
            )
        table = parquet.read_table(shown, columns=[name for name in columns if name in names])
    except (OSError, arrow.ArrowException) as exc:
        raise DatasetError(f"cannot read {shown!r} as Parquet: {exc}") from exc
    labels = table[label].to_pylist()
    stated = table[split].to_pylist() if split in names else [None] * len(labels)
    if not labels:
        raise DatasetError(f"{shown!r} has no row, expected one for each embedding")
    known = [
        Known(row, f"row {row}", _label(value, row, shown), _split(stated_split, row, shown))
        for row, (value, stated_split) in enumerate(zip(labels, stated, strict=True))
    ]
    return _matrix(table[vectors], shown, vectors), _with_splits(known)


def _with_splits(known: list[Known]) -> list[Known]:
    if any(one.split is not None for one in known):
        return known
    val = held_out((one.key, one.name, one.label or "") for one in known)
    return [replace(one, split="val" if one.key in val else "train", assumed=True) for one in known]


def _label(label: Any, row: int, shown: str) -> str | None:
    """Return a label as text, or None where it is None or NaN."""
    if label is None or label != label:  # only NaN is unequal to itself
        return None
    if isinstance(label, str | Real):
        return str(label)
    raise DatasetError(f"row {row} of {shown!r} has the label {label!r}, expected text or a number")


def _split(split: Any, row: int, shown: str) -> str | None:
    if split is None or split in SPLITS:
        return None if split is None else str(split)
    raise DatasetError(f"row {row} of {shown!r} has the split {split!r}, expected train or val")


def _matrix(column: Any, shown: str, name: str) -> NDArray[np.float32]:
    """Return a column of lists of numbers as a matrix."""
    arrow = require("pyarrow", extra="train", purpose=_PURPOSE)
    compute = require("pyarrow.compute", extra="train", purpose=_PURPOSE)
    kind = column.type
    types = arrow.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not lists or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise DatasetError(f"the column {name!r} of {shown!r} is {kind}, expected lists of numbers")
    if column.null_count:
        raise DatasetError(f"{column.null_count} vectors of {shown!r} are missing; remove them")
    lengths = set(compute.list_value_length(column).to_pylist())
    if len(lengths) != 1 or lengths == {0}:
        raise DatasetError(
            f"the vectors of {shown!r} have {sorted(lengths)} dimensions, expected one number for "
            "all"
        )
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float32] = flat.astype(np.float32).reshape(len(column), -1)
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise DatasetError(
            f"{len(broken)} vectors of {shown!r} are not finite (the first in row {broken[0]}); "
            "remove them"
        )
    return matrix
