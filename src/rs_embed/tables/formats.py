"""The formats of tables of embeddings, one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rs_embed.embedding.stac import check_item
from rs_embed.errors import ExportError, SpecError, UnknownNameError
from rs_embed.files.formats import Format, Formats
from rs_embed.files.vectors import MANY_VECTORS, VectorRow, write_vectors
from rs_embed.files.vectors import request_of as request_of_vectors
from rs_embed.tables.columns import DTYPES, ORDERS, TableContent
from rs_embed.tables.parquet import emb_of, read_parquet, write_parquet
from rs_embed.tables.summary import check_card, write_card, write_table_item
from rs_embed.tables.text import describe_csv, read_csv, write_csv

if TYPE_CHECKING:
    import numpy as np
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    _Read = tuple[NDArray[np.float32], GeoDataFrame, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TableFormat(Format):
    """A format of tables of embeddings.

    ``write(path, content)`` writes a table whole or not at all. A format with the columns of the
    places has ``describe(path)``, what a file says of itself, and ``read(path)``, its vectors, the
    other columns, and what it says; `ExportError` for other files. ``dtypes`` and ``orders`` are
    what it can store, the default first.
    """

    write: Callable[[Path, TableContent], None]
    describe: Callable[[Path], dict[str, Any]] | None = None
    read: Callable[[Path], _Read] | None = None
    dtypes: tuple[str, ...] = DTYPES[:1]
    orders: tuple[str, ...] = ORDERS[1:]

    def check(self, path: Path) -> None:
        """Raise now what writing a table and the files beside it would raise later."""
        super().check(path)
        if self.describe is not None:
            check_item(path, "table")
            check_card(path)

    def storage(self, dtype: str | None, order: str | None) -> dict[str, str]:
        """Return how values are stored, with the defaults; `SpecError` for what it has not."""
        known = {"dtype": (dtype, DTYPES, self.dtypes), "order": (order, ORDERS, self.orders)}
        for name, (value, all_values, own) in known.items():
            if value is not None and value not in all_values:
                raise UnknownNameError.among(name, value, all_values)
            if value is not None and value not in own:
                raise SpecError(
                    f"got {name}={value!r} for {self.name}, which has {name} {' or '.join(own)}; "
                    "write .parquet, or leave it out"
                )
        return {name: value or own[0] for name, (value, _, own) in known.items()}

    def write_all(self, path: Path, content: TableContent) -> None:
        """Write a table and, if it has the columns of the places, its model card and STAC Item."""
        self.write(path, content)
        if content.columns is not None and content.emb is not None:
            write_card(path, content.emb)
            write_table_item(path, self.media_type, content.emb, content.columns.bbox)

    def request_of(self, path: Path) -> Mapping[str, Any] | None:
        """Return the request of a finished file; None if places failed; refuse other files."""
        if self.describe is None:
            return request_of_vectors(path)
        try:
            emb = self.describe(path)
            return None if emb["failed"] else dict(emb["request"])
        except (ExportError, LookupError, TypeError, ValueError) as exc:
            raise ExportError(
                f"{path} exists already and is not a finished table of embeddings ({exc}); choose "
                "another name, or replace it with overwrite=True (--overwrite)"
            ) from exc


def _write_npz(path: Path, content: TableContent) -> None:
    places = zip(content.ids, content.centres, strict=True)
    results = content.results(range(len(content.ids)))
    rows = (
        VectorRow(str(name), *centre, result.vector, result.meta, result.error)
        for (name, centre), result in zip(places, results, strict=True)
    )
    write_vectors(path, rows, len(content.ids), content.request)


_npz, _parquet, _csv = map(vars, MANY_VECTORS.rows)
TABLES = Formats(
    MANY_VECTORS.kind,
    TableFormat(**_npz, write=_write_npz),
    TableFormat(
        **_parquet,
        write=write_parquet,
        describe=emb_of,
        read=read_parquet,
        dtypes=DTYPES,
        orders=ORDERS,
    ),
    TableFormat(**_csv, write=write_csv, describe=describe_csv, read=read_csv),
)
